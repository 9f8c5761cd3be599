//! How far an answer may be from the right one.
//!
//! # The measure
//!
//! All errors are relative Frobenius norms against one reference: `x · W + bias` in f64, with x *before* it was
//! rounded to its type. Two numbers are compared:
//!
//! - the **floor** is the error that remains when nothing but rounding happens: x is rounded to its type, W too
//!   where the backend says so ([`WeightRounding`]), the product is formed in f64, and the result is rounded to x's
//!   type. No backend can be expected to do better.
//! - the **error** is that of the backend's output.
//!
//! The error may be 1.2 times the floor. That leaves f32 accumulation all the room it needs and f16 accumulation
//! none. For x in f32, where the floor lies below what f32 sums can reach, 10⁻⁶ is allowed.
//!
//! Both contain the rounding of x, so they move together: the ratio is sharp even for a matrix of a few elements.
//!
//! Where the right answer is outside the range of x's type, rounding alone is infinitely wrong. Then nothing is
//! allowed, and no output holds: there is nothing to judge it by.
//!
//! Where the reference is zero (no rows, x of zeros), there is no relative error. Then the norm of `|x| · |W|`
//! takes its place as the unit; where that is zero too, the output must be exactly zero.

use gptq_core::backend::Capabilities;
use gptq_core::tensor::DType;

use crate::element::{encode, round};
use crate::oracle::Dense;
use crate::random::SplitMix64;

/// How much more than the floor is allowed.
const RATIO: f64 = 1.2;
/// The least bound for x in f32.
const LEAST_IN_F32: f64 = 1e-6;

/// Whether a backend rounds dequantized weights to x's type before it multiplies:
/// [`Capabilities::rounds_weights`](gptq_core::backend::Capabilities::rounds_weights).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(clippy::exhaustive_enums, reason = "it does or it does not")]
pub enum WeightRounding {
    /// It does not: codes are multiplied as they are, and scaled in f32.
    #[default]
    Exact,
    /// It does in some path. The bound grows by what one rounding costs.
    ToX,
}

impl From<&Capabilities> for WeightRounding {
    fn from(capabilities: &Capabilities) -> Self {
        if capabilities.rounds_weights { Self::ToX } else { Self::Exact }
    }
}

/// x of a call: values, and the same rounded to the type in which they are given.
#[derive(Clone, Debug)]
pub struct Activations {
    dtype: DType,
    shape: [usize; 2],
    exact: Vec<f64>,
    rounded: Vec<f64>,
}

impl Activations {
    /// `[rows, columns]` values of the normal distribution with mean 0 and variance 1.
    pub fn normal(shape: [usize; 2], dtype: DType, seed: u64) -> Self {
        let mut random = SplitMix64::new(seed, "x");
        Self::new(shape, dtype, (0..shape[0] * shape[1]).map(|_| random.normal()).collect())
    }

    /// `[rows, columns]` values that are given, missing ones 0.
    pub fn new(shape: [usize; 2], dtype: DType, mut exact: Vec<f64>) -> Self {
        exact.resize(shape[0] * shape[1], 0.0);
        let rounded = exact.iter().map(|&value| round(dtype, value)).collect();
        Self { dtype, shape, exact, rounded }
    }

    /// The type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// `[M, K]`.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// The values before rounding.
    pub fn exact(&self) -> &[f64] {
        &self.exact
    }

    /// The bytes of the tensor.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self.dtype, &self.rounded)
    }
}

/// How far one output is from the right one, and how far it may be.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub struct Accuracy {
    /// The relative error of the output; infinite where an element is not finite.
    pub error: f64,
    /// The relative error that rounding alone makes; infinite where the right answer is outside the range of x's type.
    pub floor: f64,
    /// The relative error that is allowed: always finite.
    pub bound: f64,
    /// The index of the element that is farthest off.
    pub worst: usize,
    /// The value found there.
    pub found: f64,
    /// The value of the reference there.
    pub expected: f64,
}

impl Accuracy {
    /// Judges the output of `x · dense`, given as values `[M, N]`.
    pub fn of(dense: &Dense, x: &Activations, weights: WeightRounding, output: &[f64]) -> Self {
        let reference = dense.multiply(&x.exact);
        let mut rounded = match weights {
            WeightRounding::Exact => dense.multiply(&x.rounded),
            WeightRounding::ToX => dense.rounded(x.dtype).multiply(&x.rounded),
        };
        rounded.iter_mut().for_each(|value| *value = round(x.dtype, *value));

        let unit = unit(dense, x, &reference);
        let floor = distance(&rounded, &reference, unit);
        let error = distance(output, &reference, unit);
        let least = if x.dtype == DType::F32 { LEAST_IN_F32 } else { 0.0 };
        let off = |index: &usize| {
            let off = output.get(*index).zip(reference.get(*index)).map_or(0.0, |(a, b)| (a - b).abs());
            if off.is_nan() { f64::INFINITY } else { off }
        };
        let worst = (0..reference.len()).max_by(|a, b| off(a).total_cmp(&off(b))).unwrap_or(0);
        Self {
            error,
            floor,
            bound: if floor.is_finite() { least.max(RATIO * floor) } else { 0.0 },
            worst,
            found: output.get(worst).copied().unwrap_or(0.0),
            expected: reference.get(worst).copied().unwrap_or(0.0),
        }
    }

    /// Whether the output is as near as it has to be.
    pub fn holds(&self) -> bool {
        self.error <= self.bound
    }
}

/// What errors are relative to.
fn unit(dense: &Dense, x: &Activations, reference: &[f64]) -> f64 {
    let norm = norm(reference.iter().copied());
    if norm > 0.0 {
        return norm;
    }
    let k = dense.rows().max(1);
    let mut sums = Vec::new();
    for x in x.exact.chunks_exact(k) {
        for column in 0..dense.columns() {
            let weights = dense.weights().iter().skip(column).step_by(dense.columns());
            sums.push(x.iter().zip(weights).map(|(x, weight)| (x * weight).abs()).sum());
        }
    }
    self::norm(sums.into_iter())
}

/// The distance of two matrices in multiples of `unit`.
fn distance(a: &[f64], b: &[f64], unit: f64) -> f64 {
    let distance = norm(a.iter().zip(b).map(|(a, b)| a - b));
    match distance {
        _ if a.len() != b.len() => f64::INFINITY,
        _ if distance == 0.0 => 0.0,
        // Not finite, or nothing to measure by.
        _ if !distance.is_finite() || unit == 0.0 => f64::INFINITY,
        _ => distance / unit,
    }
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Case;

    fn judge(dtype: DType, weights: WeightRounding, change: impl Fn(usize, f64) -> f64) -> Accuracy {
        let built = Case { sym: false, in_features: 256, ..Case::PLAIN }.build("layer").unwrap();
        let dense = Dense::of_values(&built.values);
        let x = Activations::normal([5, 256], dtype, 3);
        let output: Vec<f64> = dense
            .multiply(&x.rounded)
            .into_iter()
            .enumerate()
            .map(|(index, value)| round(dtype, change(index, value)))
            .collect();
        Accuracy::of(&dense, &x, weights, &output)
    }

    #[test]
    fn floors_lie_where_the_types_put_them() {
        for (dtype, weights, least, most) in [
            (DType::F16, WeightRounding::Exact, 2.0e-4, 3.4e-4),
            (DType::F16, WeightRounding::ToX, 2.8e-4, 4.2e-4),
            (DType::BF16, WeightRounding::Exact, 1.6e-3, 2.8e-3),
            (DType::F32, WeightRounding::Exact, 1e-8, 1e-7),
        ] {
            let Accuracy { floor, .. } = judge(dtype, weights, |_, value| value);
            assert!((least..most).contains(&floor), "{dtype}, {weights:?}: {floor:e}");
        }
    }

    #[test]
    fn rounding_alone_holds_and_one_wrong_element_does_not() {
        for dtype in DType::ALL {
            assert!(judge(dtype, WeightRounding::Exact, |_, value| value).holds(), "{dtype}");
            let wrong = judge(
                dtype,
                WeightRounding::Exact,
                |index, value| {
                    if index == 77 { value + 1.0 } else { value }
                },
            );
            assert!(!wrong.holds() && wrong.worst == 77, "{dtype}: {wrong:?}");
        }
    }

    #[test]
    fn weights_that_are_rounded_first_hold_where_that_is_said() {
        let built = Case { sym: false, in_features: 256, ..Case::PLAIN }.build("layer").unwrap();
        let dense = Dense::of_values(&built.values);
        for dtype in [DType::F16, DType::BF16] {
            let x = Activations::normal([5, 256], dtype, 3);
            let output: Vec<f64> = dense
                .rounded(dtype)
                .multiply(&x.rounded)
                .into_iter()
                .map(|value| round(dtype, value))
                .collect();
            let judged = Accuracy::of(&dense, &x, WeightRounding::ToX, &output);
            assert!(judged.holds() && judged.error > judged.floor * 0.9, "{dtype}: {judged:?}");
        }
    }

    #[test]
    fn an_element_that_is_not_finite_is_infinitely_wrong() {
        for bad in [f64::NAN, f64::INFINITY] {
            let judged =
                judge(DType::F16, WeightRounding::Exact, |index, value| if index == 3 { bad } else { value });
            assert!(!judged.holds() && judged.worst == 3, "{judged:?}");
        }
    }

    #[test]
    fn nothing_holds_where_the_right_answer_is_out_of_range() {
        let dense = Dense::of_values(&Case::PLAIN.build("layer").unwrap().values);
        let x = Activations::new([1, 64], DType::F16, vec![60_000.0; 64]);
        let right = dense.multiply(&x.rounded);
        let rounded: Vec<f64> = right.iter().map(|&value| round(DType::F16, value)).collect();
        assert!(rounded.iter().any(|value| value.is_infinite()), "the case is out of range");
        let clamped: Vec<f64> = right.iter().map(|value| value.clamp(-65504.0, 65504.0)).collect();
        for output in [rounded, clamped, vec![0.0; 64]] {
            let judged = Accuracy::of(&dense, &x, WeightRounding::Exact, &output);
            assert!(judged.floor.is_infinite() && judged.bound == 0.0 && !judged.holds(), "{judged:?}");
        }
    }

    #[test]
    fn an_output_of_zeros_is_compared_with_what_cancelled() {
        let dense = Dense::of_values(&Case::PLAIN.build("layer").unwrap().values);
        let judge = |x: Vec<f64>, output: &[f64]| {
            Accuracy::of(
                &dense,
                &Activations::new([x.len() / 64, 64], DType::F32, x),
                WeightRounding::Exact,
                output,
            )
        };
        assert!(judge(vec![], &[]).holds(), "no rows");
        assert!(judge(vec![0.0; 64], &[0.0; 64]).holds());
        assert!(!judge(vec![0.0; 64], &[1e-30; 64]).holds(), "x of zeros, and an output that is not");
        assert!(!judge(vec![], &[1.0]).holds(), "an element too many");
    }
}
