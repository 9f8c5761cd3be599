//! A layer by its logical values, and the tensors in which files hold it.

use gptq_core::format::Packing;
use gptq_core::tensor::DType;
use half::{bf16, f16};
use safetensors::Dtype;

use crate::files::Tensor;

/// What a layer means, whatever a file makes of it.
///
/// Values are such that the dense matrix is exact in f32, and the same for scales of every dtype.
#[derive(Clone, Debug)]
pub struct LayerValues {
    /// The module.
    pub name: String,
    /// The width of a code.
    pub bits: usize,
    /// The order of bits in words.
    pub packing: Packing,
    /// Rows of W.
    pub k: usize,
    /// Columns of W.
    pub n: usize,
    /// Rows that share a scale.
    pub group_rows: usize,
    /// `[K, N]`.
    pub codes: Vec<u8>,
    /// `[G, N]`.
    pub zeros: Vec<u8>,
    /// `[G, N]`.
    pub scales: Vec<f32>,
    /// The type in which the scales and the bias are stored.
    pub dtype: DType,
    /// What `g_idx` holds.
    pub g_idx: StoredGroups,
    /// `[N]`.
    pub bias: Option<Vec<f32>>,
}

/// What a file holds as `g_idx`. All but the last mean that groups follow one another.
#[derive(Clone, Debug)]
pub enum StoredGroups {
    /// No tensor.
    Absent,
    /// Zeros, for any number of groups.
    AllZero,
    /// Row `k` is in group `k / group_rows`.
    Trivial,
    /// The group of each row.
    Permuted(Vec<i32>),
}

/// How zero points are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoredZeros {
    /// As they are.
    V2,
    /// Minus one, each field by itself.
    FieldWrap,
    /// Minus one, with a word as one number.
    WordBorrow,
    /// Minus one, with the −1 of a zero of 0 over all that follows in its word.
    Flooded,
}

impl LayerValues {
    /// A layer whose codes, zero points (from 1 on) and scales are drawn from `seed`: asymmetric, continuous,
    /// scales in f16, a trivial `g_idx`, no bias.
    pub fn random(name: &str, bits: usize, [k, n]: [usize; 2], group_rows: usize, seed: u64) -> Self {
        let mut random = Random(seed);
        let groups = k.div_ceil(group_rows);
        let levels = 1 << bits;
        Self {
            name: name.into(),
            bits,
            packing: Packing::Continuous,
            k,
            n,
            group_rows,
            codes: (0..k * n).map(|_| random.byte(0..levels)).collect(),
            zeros: (0..groups * n).map(|_| random.byte(1..levels)).collect(),
            scales: (0..groups * n).map(|_| (8.0 + f32::from(random.byte(0..8))) / 128.0).collect(),
            dtype: DType::F16,
            g_idx: StoredGroups::Trivial,
            bias: None,
        }
    }

    /// The same with symmetric zero points.
    #[must_use]
    pub fn symmetric(mut self) -> Self {
        self.zeros.fill(1 << (self.bits - 1));
        self
    }

    /// The same with a bias.
    #[must_use]
    pub fn with_bias(mut self) -> Self {
        let mut random = Random(7);
        self.bias = Some((0..self.n).map(|_| f32::from(random.byte(0..64)) / 8.0 - 4.0).collect());
        self
    }

    /// W `[K, N]`.
    pub fn dense(&self) -> Vec<f32> {
        let group_of = |row: usize| match &self.g_idx {
            StoredGroups::Permuted(groups) => usize::try_from(groups[row]).expect("a group"),
            _ => row / self.group_rows,
        };
        (0..self.k * self.n)
            .map(|i| {
                let at = group_of(i / self.n) * self.n + i % self.n;
                self.scales[at] * (f32::from(self.codes[i]) - f32::from(self.zeros[at]))
            })
            .collect()
    }

    /// `x [rows, K] · W + bias`, summed in f64.
    pub fn forward(&self, x: &[f32], rows: usize) -> Vec<f32> {
        let dense = self.dense();
        let mut y = Vec::with_capacity(rows * self.n);
        for x in x.chunks_exact(self.k).take(rows) {
            for column in 0..self.n {
                let weights = dense[column..].iter().step_by(self.n);
                let sum: f64 = x.iter().zip(weights).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
                let bias = self.bias.as_ref().map_or(0.0, |bias| f64::from(bias[column]));
                y.push(narrow(sum + bias));
            }
        }
        y
    }

    /// The tensors of this layer.
    pub fn tensors(&self, stored: StoredZeros) -> Vec<Tensor> {
        let Self { bits, packing, k, n, .. } = *self;
        let groups = self.zeros.len() / n;
        let word_rows = (k * bits).div_ceil(32);
        let mut qweight = vec![0; word_rows * n];
        for column in 0..n {
            let codes: Vec<u8> = self.codes[column..].iter().step_by(n).copied().collect();
            for (row, word) in pack(&codes, bits, packing).into_iter().enumerate() {
                qweight[row * n + column] = word;
            }
        }
        let qzeros: Vec<u32> =
            self.zeros.chunks_exact(n).flat_map(|zeros| pack_zeros(zeros, bits, packing, stored)).collect();
        let name = |suffix| format!("{}.{suffix}", self.name);
        let mut tensors = vec![
            Tensor::words(name("qweight"), &[word_rows, n], &qweight),
            Tensor::words(name("qzeros"), &[groups, qzeros.len() / groups], &qzeros),
            Tensor::floats(name("scales"), &[groups, n], &self.scales, self.dtype),
        ];
        let g_idx = match &self.g_idx {
            StoredGroups::Absent => None,
            StoredGroups::AllZero => Some(vec![0; k]),
            StoredGroups::Trivial => {
                let groups = (0..k).map(|row| i32::try_from(row / self.group_rows).expect("a small number"));
                Some(groups.collect())
            }
            StoredGroups::Permuted(groups) => Some(groups.clone()),
        };
        let g_idx = g_idx.map(|groups| {
            let bytes = groups.iter().flat_map(|group| group.to_le_bytes()).collect();
            Tensor { name: name("g_idx"), dtype: Dtype::I32, shape: vec![k], bytes }
        });
        tensors.extend(g_idx);
        tensors.extend(self.bias.as_ref().map(|bias| Tensor::floats(name("bias"), &[n], bias, self.dtype)));
        tensors
    }
}

impl Tensor {
    /// Packed words.
    pub fn words(name: String, shape: &[usize], words: &[u32]) -> Self {
        let bytes = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        Self { name, dtype: Dtype::I32, shape: shape.to_vec(), bytes }
    }

    /// Floats, narrowed to `dtype`.
    pub fn floats(name: String, shape: &[usize], values: &[f32], dtype: DType) -> Self {
        let (dtype, bytes) = match dtype {
            DType::F32 => (Dtype::F32, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
            DType::F16 => {
                (Dtype::F16, values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect())
            }
            DType::BF16 => {
                (Dtype::BF16, values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()).collect())
            }
        };
        Self { name, dtype, shape: shape.to_vec(), bytes }
    }
}

/// Packs a sequence of codes, one bit after another.
pub fn pack(codes: &[u8], bits: usize, packing: Packing) -> Vec<u32> {
    let planes = match (packing, bits) {
        (Packing::Planar, 3) => vec![2, 1],
        (Packing::Planar, 5) => vec![4, 1],
        (Packing::Planar, 6) => vec![4, 2],
        (Packing::Planar, 7) => vec![4, 2, 1],
        _ => vec![bits],
    };
    let mut words = vec![0; (codes.len() * bits).div_ceil(32)];
    for (block, codes) in codes.chunks(32).enumerate() {
        let (mut start, mut low) = (block * 32 * bits, 0);
        for &width in &planes {
            for (i, &code) in codes.iter().enumerate() {
                for bit in 0..width {
                    let to = start + i * width + bit;
                    words[to / 32] |= u32::from(code >> (low + bit) & 1) << (to % 32);
                }
            }
            start += 32 * width;
            low += width;
        }
    }
    words
}

/// The words of the zero points of one group.
pub fn pack_zeros(zeros: &[u8], bits: usize, packing: Packing, stored: StoredZeros) -> Vec<u32> {
    let whole_fields = 32 % bits == 0;
    let minus_one = |zero: &u8| zero.wrapping_sub(1);
    match stored {
        StoredZeros::V2 => pack(zeros, bits, packing),
        StoredZeros::WordBorrow if whole_fields => {
            let ones = pack(&[1; 32], bits, packing)[0];
            pack(zeros, bits, packing).into_iter().map(|word| word.wrapping_sub(ones)).collect()
        }
        StoredZeros::Flooded if whole_fields => {
            let word = |zeros: &[u8]| {
                let fields = zeros.iter().enumerate();
                fields.fold(0, |word, (i, &zero)| word | u32::from(zero).wrapping_sub(1) << (i * bits))
            };
            zeros.chunks(32 / bits).map(word).collect()
        }
        _ => pack(&zeros.iter().map(minus_one).collect::<Vec<_>>(), bits, packing),
    }
}

/// x for a layer: values of a few bits, so that they are the same in every dtype.
pub fn activations(rows: usize, k: usize, seed: u64) -> Vec<f32> {
    let mut random = Random(seed);
    (0..rows * k).map(|_| (f32::from(random.byte(0..128)) - 64.0) / 32.0).collect()
}

#[expect(clippy::cast_possible_truncation, reason = "rounding a reference is what it is for")]
fn narrow(value: f64) -> f32 {
    value as f32
}

/// Numbers that look random and are the same every time: the multiplier is Knuth's for 64 bits.
struct Random(u64);

impl Random {
    /// A number of `range`, which ends at 256 or before.
    fn byte(&mut self, range: std::ops::Range<u64>) -> u8 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let number = range.start + (self.0 >> 33) % (range.end - range.start);
        u8::try_from(number).expect("a range of bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_format_specification() {
        let codes: Vec<u8> = (0..32).collect();
        let packed = |bits: usize, packing| {
            let mask = u8::try_from((1u32 << bits) - 1).unwrap();
            pack(&codes.iter().map(|code| code & mask).collect::<Vec<_>>(), bits, packing)
        };
        assert_eq!(packed(3, Packing::Continuous), [0x88FA_C688, 0xC688_FAC6, 0xFAC6_88FA]);
        assert_eq!(packed(4, Packing::Continuous)[..2], [0x7654_3210, 0xFEDC_BA98]);
        assert_eq!(packed(3, Packing::Planar), [0xE4E4_E4E4, 0xE4E4_E4E4, 0xF0F0_F0F0]);
        assert_eq!(packed(5, Packing::Planar)[3..], [0xFEDC_BA98, 0xFFFF_0000]);
        assert_eq!(packed(6, Packing::Planar)[3..], [0xFEDC_BA98, 0, 0x5555_5555]);
        assert_eq!(packed(7, Packing::Planar)[4..], [0, 0x5555_5555, 0]);
    }

    #[test]
    fn each_dialect_stores_a_zero_of_0_in_its_own_way() {
        let zeros = [5, 0, 3, 9, 15, 0, 0, 7];
        let stored = |how| pack_zeros(&zeros, 4, Packing::Continuous, how);
        assert_eq!(stored(StoredZeros::V2), [0x700F_9305]);
        assert_eq!(stored(StoredZeros::FieldWrap), [0x6FFE_82F4]);
        assert_eq!(stored(StoredZeros::WordBorrow), [0x5EFE_81F4]);
        assert_eq!(stored(StoredZeros::Flooded), [0xFFFF_FFF4]);
    }
}
