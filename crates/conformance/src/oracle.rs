//! What the answer is: dequantize and multiply in f64, in the plainest code there is.
//!
//! Nothing here uses `gptq_core::format::packing` or the conversions of zero points. Codes are read bit by bit.

use gptq_core::format::{ZeroDialect, ZeroEncoding};
use gptq_core::tensor::{DType, Floats};
use gptq_core::{Error, QuantLinear, Result};

use crate::case::Values;
use crate::element::round;
use crate::layout;

/// Some columns of a layer's matrix in f64, and their biases.
#[derive(Clone, PartialEq, Debug)]
pub struct Dense {
    rows: usize,
    columns: usize,
    weights: Vec<f64>,
    bias: Vec<f64>,
}

impl Dense {
    /// The whole matrix of a generated case, from the values that were packed, not from the packed words.
    pub fn of_values(values: &Values) -> Self {
        let n = values.out_features;
        let mut weights = Vec::with_capacity(values.codes.len());
        for (codes, group) in values.codes.chunks_exact(n).zip(&values.groups_of_rows) {
            let (zeros, scales) = (&values.zeros[group * n..], &values.scales[group * n..]);
            for ((code, zero), scale) in codes.iter().zip(zeros).zip(scales) {
                weights.push(scale * (f64::from(*code) - f64::from(*zero)));
            }
        }
        let bias = values.bias.clone().unwrap_or_else(|| vec![0.0; n]);
        Self { rows: values.groups_of_rows.len(), columns: n, weights, bias }
    }

    /// The given columns of any layer, in the given order, from its packed words in whichever encoding they are.
    ///
    /// Sampling columns keeps this affordable for the layers of real models.
    ///
    /// # Errors
    /// [`Error::Shape`] where a column is not less than N.
    pub fn of_layer(layer: &QuantLinear, columns: &[usize]) -> Result<Self> {
        let info = layer.info();
        let (k, n) = (info.in_features, info.out_features);
        if let Some(&column) = columns.iter().find(|&&column| column >= n) {
            return Err(Error::Shape {
                what: format!("a column of layer `{}`", info.name),
                found: vec![column],
                expected: format!("less than {n}"),
            });
        }
        let group_rows = info.group_size.rows(k);
        let order = layer.group_index().act_order();
        let group_of = |row: usize| match order {
            Some(order) => order.group_of(row),
            None => row / group_rows,
        };
        let mut dense =
            Self { rows: k, columns: columns.len(), weights: vec![0.0; k * columns.len()], bias: vec![] };
        for (at, &column) in columns.iter().enumerate() {
            let zeros: Vec<f64> =
                (0..info.groups).map(|group| stored_zero(layer, group, column).into()).collect();
            let scales: Vec<f64> =
                (0..info.groups).map(|group| element(layer.scales(), group * n + column)).collect();
            for row in 0..k {
                let code =
                    layout::read(info.bits, info.packing, row, |word| layer.qweight()[word * n + column]);
                let group = group_of(row);
                dense.weights[row * columns.len() + at] = scales[group] * (f64::from(code) - zeros[group]);
            }
            dense.bias.push(layer.bias().map_or(0.0, |bias| element(bias, column)));
        }
        Ok(dense)
    }

    /// K.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many columns there are.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The weights, `[rows, columns]`, row-major.
    pub fn weights(&self) -> &[f64] {
        &self.weights
    }

    /// The same matrix with every weight rounded to `dtype`, as a path has it that dequantizes before it multiplies.
    /// The bias is left alone.
    #[must_use]
    pub fn rounded(&self, dtype: DType) -> Self {
        let weights = self.weights.iter().map(|&weight| round(dtype, weight)).collect();
        Self { weights, ..self.clone() }
    }

    /// `x · W + bias`: x `[M, rows]`, the result `[M, columns]`. Values of x after the last whole row are ignored.
    pub fn multiply(&self, x: &[f64]) -> Vec<f64> {
        let mut out = Vec::new();
        for x in x.chunks_exact(self.rows.max(1)) {
            let mut sums = vec![0.0; self.columns];
            for (x, weights) in x.iter().zip(self.weights.chunks_exact(self.columns.max(1))) {
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    *sum += x * weight;
                }
            }
            out.extend(sums.iter().zip(&self.bias).map(|(sum, bias)| sum + bias));
        }
        out
    }
}

/// The zero point of a group and column, read from the words as they are stored.
pub(crate) fn stored_zero(layer: &QuantLinear, group: usize, column: usize) -> u8 {
    let (bits, packing) = (layer.info().bits, layer.info().packing);
    let width = (layer.out_features() * bits.get()).div_ceil(32);
    let words = &layer.zeros().words()[group * width..];
    let per_field = |word: usize| words[word];
    // Every word is one number from which 1 was taken in every field; adding it back may carry between fields.
    let ones = (0..32).step_by(bits.get()).fold(0, |ones, shift| ones | 1u32 << shift);
    let per_word = |word: usize| words[word].wrapping_add(ones);
    let mask = bits.max_code().to_le_bytes()[0];
    match layer.zeros().encoding() {
        ZeroEncoding::V2 => layout::read(bits, packing, column, per_field),
        ZeroEncoding::V1(ZeroDialect::WordBorrow) if matches!(bits.get(), 2 | 4 | 8) => {
            layout::read(bits, packing, column, per_word)
        }
        ZeroEncoding::V1(_) => layout::read(bits, packing, column, per_field).wrapping_add(1) & mask,
    }
}

fn element(floats: &Floats, index: usize) -> f64 {
    match floats {
        Floats::F32(values) => values[index].into(),
        Floats::F16(values) => values[index].to_f64(),
        Floats::BF16(values) => values[index].to_f64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{Case, GIdx};
    use gptq_core::format::{Bits, GroupSize, Packing};

    /// Every width, packing, kind of index and encoding once or more.
    fn cases() -> Vec<Case> {
        let mut cases = Vec::new();
        for bits in Bits::ALL {
            for packing in [Packing::Continuous, Packing::Planar] {
                for g_idx in GIdx::ALL {
                    for zero_encoding in [
                        ZeroEncoding::V2,
                        ZeroEncoding::V1(ZeroDialect::FieldWrap),
                        ZeroEncoding::V1(ZeroDialect::WordBorrow),
                    ] {
                        let rows = if g_idx == GIdx::SingleGroup { -1 } else { 32 };
                        cases.push(Case {
                            bits,
                            packing,
                            g_idx,
                            zero_encoding,
                            group_size: GroupSize::from_config(rows).unwrap(),
                            sym: false,
                            bias: true,
                            in_features: if packing == Packing::Planar { 96 } else { 80 },
                            out_features: if packing == Packing::Planar { 32 } else { 41 },
                            ..Case::PLAIN
                        });
                    }
                }
            }
        }
        cases.retain(Case::is_legal);
        cases
    }

    #[test]
    fn words_and_values_give_the_same_matrix() {
        for case in cases() {
            let built = case.build("layer").unwrap();
            let columns: Vec<usize> = (0..case.out_features).collect();
            let of_layer = Dense::of_layer(&built.layer, &columns).unwrap();
            assert!(of_layer == Dense::of_values(&built.values), "{case}");
        }
    }

    #[test]
    fn core_dequantizes_as_the_oracle_does() {
        for case in cases() {
            let built = case.build("layer").unwrap();
            let dense: Vec<f64> = built.layer.dequantize().into_iter().map(f64::from).collect();
            assert!(dense == Dense::of_values(&built.values).weights(), "{case}");
        }
    }

    #[test]
    fn the_example_of_the_formula_comes_out_by_hand() {
        let values = Values {
            codes: vec![3, 0, 1, 2],
            zeros: vec![1, 2],
            scales: vec![0.5, 2.0],
            groups_of_rows: vec![0, 0],
            bias: Some(vec![10.0, 0.0]),
            out_features: 2,
        };
        // W = [[1, -4], [0, 0]]
        assert_eq!(Dense::of_values(&values).multiply(&[2.0, 7.0, -1.0, 0.0]), [12.0, -8.0, 9.0, 4.0]);
    }

    #[test]
    fn sampled_columns_are_columns_of_the_whole_and_others_are_refused() {
        let built = Case { sym: false, ..Case::PLAIN }.build("layer").unwrap();
        let all = Dense::of_values(&built.values);
        let some = Dense::of_layer(&built.layer, &[63, 0, 7]).unwrap();
        for (row, sampled) in some.weights().chunks_exact(3).enumerate() {
            let whole = &all.weights()[row * 64..][..64];
            assert_eq!(sampled, [whole[63], whole[0], whole[7]]);
        }
        assert!(matches!(Dense::of_layer(&built.layer, &[64]), Err(Error::Shape { .. })));
    }
}
