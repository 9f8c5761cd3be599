//! The bias of a layer in device memory: in its own type, and in every other that holds it without rounding.

use bytemuck::cast_slice;
use gptq_core::Result;
use gptq_core::tensor::{DType, Element, Floats};
use half::{bf16, f16};

use crate::place::{Place, Planner};

/// A bias in device memory, `[N]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bias {
    /// Of its first column.
    pub address: u64,
    /// Of its elements.
    pub dtype: DType,
}

impl Bias {
    /// The bias of the columns from `column` on.
    #[must_use]
    pub fn at_column(self, column: usize) -> Self {
        Self { address: self.address + (column * self.dtype.size_bytes()) as u64, ..self }
    }
}

/// The same bias in each type that it lies in.
#[derive(Clone, Debug, Default)]
pub struct Biases {
    all: Vec<Bias>,
}

impl Biases {
    /// As the file has it; none where the layer has no bias, or one that adds nothing.
    pub fn stored(&self) -> Option<Bias> {
        self.all.first().copied()
    }

    /// In this type, where that holds it exactly.
    pub fn in_dtype(&self, dtype: DType) -> Option<Bias> {
        self.all.iter().copied().find(|bias| bias.dtype == dtype)
    }
}

/// Lists them, the one of the file first.
impl FromIterator<Bias> for Biases {
    fn from_iter<I: IntoIterator<Item = Bias>>(all: I) -> Self {
        Self { all: all.into_iter().collect() }
    }
}

/// Where the bias of a layer will lie.
#[derive(Clone, Debug)]
pub struct BiasPlan {
    places: Vec<(DType, Place)>,
}

impl BiasPlan {
    /// Places for the bias in its own type, and in those of `dtypes` that hold it without rounding. None where it adds
    /// nothing: some writers give every layer a bias of zeros.
    pub fn new(bias: Option<&Floats>, dtypes: &[DType], planner: &mut Planner) -> Self {
        let places = contents(bias, dtypes).map(|(dtype, bytes)| (dtype, planner.place(bytes.len())));
        Self { places: places.collect() }
    }

    /// What goes where.
    ///
    /// # Errors
    /// Those of `put`.
    pub fn contents(
        &self,
        bias: Option<&Floats>,
        mut put: impl FnMut(Place, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let dtypes: Vec<DType> = self.places.iter().map(|(dtype, _)| *dtype).collect();
        for ((_, place), (_, bytes)) in self.places.iter().zip(contents(bias, &dtypes)) {
            put(*place, &bytes)?;
        }
        Ok(())
    }

    /// The bias in memory that begins at `base`.
    pub fn biases(&self, base: u64) -> Biases {
        self.places.iter().map(|&(dtype, place)| Bias { address: place.address(base), dtype }).collect()
    }
}

/// The bytes of the bias in its own type, then in those of `dtypes` that hold it without rounding.
fn contents<'a>(
    bias: Option<&'a Floats>,
    dtypes: &'a [DType],
) -> impl Iterator<Item = (DType, Vec<u8>)> + use<'a> {
    let mut values = vec![0.0; bias.map_or(0, Floats::len)];
    if let Some(bias) = bias {
        bias.read(0..values.len(), &mut values);
    }
    let bias = bias.filter(|_| values.iter().any(|&value| value != 0.0));
    let own = bias.map(|bias| (bias.dtype(), bias.as_bytes().to_vec()));
    let others =
        bias.into_iter().flat_map(move |bias| dtypes.iter().filter(move |&&dtype| dtype != bias.dtype()));
    own.into_iter().chain(others.filter_map(move |&dtype| {
        let bytes = match dtype {
            DType::F32 => exactly::<f32>(&values),
            DType::F16 => exactly::<f16>(&values),
            DType::BF16 => exactly::<bf16>(&values),
        };
        Some((dtype, bytes?))
    }))
}

/// The values as `T`, where that changes none.
fn exactly<T: Element>(values: &[f32]) -> Option<Vec<u8>> {
    let narrowed: Vec<T> = values.iter().map(|&value| T::narrow(value)).collect();
    let same = narrowed.iter().zip(values).all(|(narrow, value)| narrow.widen() == *value);
    same.then(|| cast_slice(&narrowed).to_vec())
}

#[cfg(test)]
mod tests {
    use gptq_core::tensor::{DType, Floats};

    use super::{Bias, BiasPlan};
    use crate::place::Planner;

    /// The types that a bias lies in, and the bytes that were put there.
    fn laid(bias: Option<&Floats>, dtypes: &[DType]) -> Vec<(DType, Vec<u8>)> {
        let mut planner = Planner::default();
        planner.place(1);
        let plan = BiasPlan::new(bias, dtypes, &mut planner);
        let mut memory = vec![0; planner.end()];
        plan.contents(bias, |place, bytes| {
            assert_eq!(place.bytes, bytes.len());
            memory[place.offset..][..place.bytes].copy_from_slice(bytes);
            Ok(())
        })
        .expect("nothing that fails");
        let biases = plan.biases(0);
        assert_eq!(
            biases.stored().map(|bias| bias.dtype),
            bias.map(Floats::dtype).filter(|_| planner.end() > 256)
        );
        DType::ALL
            .into_iter()
            .filter_map(|dtype| {
                let Bias { address, .. } = biases.in_dtype(dtype)?;
                let at = usize::try_from(address).expect("an offset");
                Some((dtype, memory[at..][..2 * dtype.size_bytes()].to_vec()))
            })
            .collect()
    }

    fn bytes_of(values: [f32; 2], dtype: DType) -> Vec<u8> {
        let halves = |bits: fn(f32) -> u16| values.iter().flat_map(|v| bits(*v).to_le_bytes()).collect();
        match dtype {
            DType::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            DType::F16 => halves(|v| half::f16::from_f32(v).to_bits()),
            DType::BF16 => halves(|v| half::bf16::from_f32(v).to_bits()),
        }
    }

    #[test]
    fn a_bias_lies_in_its_own_type_and_in_those_that_hold_it() {
        let all = |values: [f32; 2], dtypes: &[DType]| -> Vec<(DType, Vec<u8>)> {
            dtypes.iter().map(|dtype| (*dtype, bytes_of(values, *dtype))).collect()
        };
        let everywhere = [1.5, -2.0];
        assert_eq!(laid(Some(&Floats::from(everywhere.to_vec())), &DType::ALL), all(everywhere, &DType::ALL));
        let not_in_f16 = [1e30, 1.0];
        let values = not_in_f16.map(half::bf16::from_f32);
        assert_eq!(
            laid(Some(&Floats::from(values.to_vec())), &DType::ALL),
            all(values.map(half::bf16::to_f32), &[DType::F32, DType::BF16])
        );
        let only_in_f32 = [0.1, 1.0];
        assert_eq!(
            laid(Some(&Floats::from(only_in_f32.to_vec())), &[DType::F16, DType::BF16]),
            all(only_in_f32, &[DType::F32])
        );
    }

    #[test]
    fn no_bias_and_one_of_zeros_take_no_place() {
        assert_eq!(laid(None, &DType::ALL), []);
        assert_eq!(laid(Some(&Floats::from(vec![0.0f32, -0.0])), &DType::ALL), []);
    }

    #[test]
    fn columns_of_a_bias_are_counted_in_its_type() {
        let bias = Bias { address: 256, dtype: DType::BF16 };
        assert_eq!(bias.at_column(3).address, 262);
    }
}
