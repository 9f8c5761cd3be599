//! Whether an output is what the oracle computes.

use std::collections::BTreeSet;

use gptq_conformance::oracle::Dense;
use gptq_conformance::{Accuracy, Activations, WeightRounding};
use gptq_core::tensor::DType;
use gptq_core::{QuantLinear, Result};
use serde::Serialize;

use crate::tensor_file::Matrix;

/// Columns that are looked at beside the sampled ones, because their output is not finite.
const MOST_SUSPECTS: usize = 16;

/// What became of the output of one layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// Within the bound.
    Ok,
    /// The error is over the bound.
    OverBound,
    /// An output is not finite where the oracle is, or the other way round.
    NotFinite,
}

/// What rounding is counted in the floor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Floor {
    /// That of x and y.
    XAndY,
    /// That of the dequantized weights too: the backend rounds them to x's type before it multiplies.
    Weights,
}

/// An output held to the oracle. What is infinite or no number is `null` in JSON.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Judgement {
    pub(super) verdict: Verdict,
    /// Columns that were compared.
    pub(super) columns: usize,
    /// Of these, columns in which the oracle itself is not finite, because a scale is not.
    pub(super) columns_not_finite: usize,
    /// The error of the output relative to the right one (Frobenius norms), over the finite columns.
    pub(super) error: f64,
    /// The error that rounding alone makes.
    pub(super) floor: f64,
    /// Which rounding that is.
    pub(super) floor_counts: Floor,
    /// The error that is allowed.
    pub(super) bound: f64,
    /// Outputs that are finite where the oracle is not, or not finite where it is.
    pub(super) not_as_finite: usize,
    /// The element that is farthest off.
    pub(super) worst: Element,
}

/// An element of the output.
#[derive(Clone, Copy, Default, Debug, Serialize)]
pub(super) struct Element {
    pub(super) row: usize,
    pub(super) column: usize,
    pub(super) found: f64,
    pub(super) expected: f64,
}

impl Judgement {
    /// The error as a part of the bound.
    pub(super) fn of_bound(&self) -> f64 {
        if self.error == 0.0 { 0.0 } else { self.error / self.bound }
    }
}

/// Holds y = x · W to the oracle of `packed`, as it stands on disk, in the given columns. `weights` is what the backend
/// says that it does to them.
pub(super) fn judge(
    packed: &QuantLinear,
    weights: WeightRounding,
    x: &Activations,
    y: &Matrix,
    sampled: Vec<usize>,
) -> Result<Judgement> {
    let columns = with_suspects(y, sampled);
    let dense = Dense::of_layer(packed, &columns)?;
    let reference = dense.multiply(x.exact());
    let output = read(y, &columns);

    let mut not_as_finite = 0;
    let mut worst = Element::default();
    let mut broken = BTreeSet::new();
    let width = columns.len().max(1);
    for (at, (&found, &expected)) in output.iter().zip(&reference).enumerate() {
        let column = columns.get(at % width).copied().unwrap_or_default();
        if found.is_finite() != expected.is_finite() {
            if not_as_finite == 0 {
                worst = Element { row: at / width, column, found, expected };
            }
            not_as_finite += 1;
        }
        if !expected.is_finite() {
            broken.insert(column);
        }
    }

    // A column whose right answer is not finite has no error: the others are judged without it.
    let finite: Vec<usize> = columns.iter().copied().filter(|column| !broken.contains(column)).collect();
    let (dense, output) = match broken.is_empty() {
        true => (dense, output),
        false => (Dense::of_layer(packed, &finite)?, read(y, &finite)),
    };
    let (accuracy, floor_counts) = measure(&dense, weights, x, &output);
    if not_as_finite == 0 && !finite.is_empty() {
        let (row, place) = (accuracy.worst / finite.len(), accuracy.worst % finite.len());
        let column = finite.get(place).copied().unwrap_or_default();
        worst = Element { row, column, found: accuracy.found, expected: accuracy.expected };
    }
    Ok(Judgement {
        verdict: match (not_as_finite, accuracy.holds()) {
            (0, true) => Verdict::Ok,
            (0, false) => Verdict::OverBound,
            _ => Verdict::NotFinite,
        },
        columns: columns.len(),
        columns_not_finite: broken.len(),
        error: accuracy.error,
        floor: accuracy.floor,
        floor_counts,
        bound: accuracy.bound,
        not_as_finite,
        worst,
    })
}

/// How far above the floor an error may lie and still be of a path that rounds nothing else: sums in f32 add next to
/// nothing, and rounding the weights of a layer adds a fifth.
const NEAR: f64 = 1.05;

/// The accuracy beside the floor of a path that does not round weights; of a backend that rounds them in some path, and
/// does not say in which calls, beside the floor that the error is nearer to, or the one whose bound it keeps.
fn measure(dense: &Dense, weights: WeightRounding, x: &Activations, output: &[f64]) -> (Accuracy, Floor) {
    let exact = Accuracy::of(dense, x, WeightRounding::Exact, output);
    let rounds = weights == WeightRounding::ToX && x.dtype() != DType::F32;
    if rounds && exact.error > NEAR * exact.floor {
        let rounded = Accuracy::of(dense, x, WeightRounding::ToX, output);
        let off = |accuracy: &Accuracy| (accuracy.error - accuracy.floor).abs();
        if rounded.holds() && (!exact.holds() || off(&rounded) < off(&exact)) {
            return (rounded, Floor::Weights);
        }
    }
    (exact, Floor::XAndY)
}

/// The sampled columns, and the first of those others in which y is not finite: a sample would miss them.
fn with_suspects(y: &Matrix, sampled: Vec<usize>) -> Vec<usize> {
    let [rows, n] = y.shape();
    if sampled.len() == n || y.not_finite() == 0 {
        return sampled;
    }
    let mut columns: BTreeSet<usize> = sampled.into_iter().collect();
    let suspect =
        |column: &usize| (0..rows).any(|row| y.value(row, *column).is_some_and(|value| !value.is_finite()));
    let suspects: Vec<usize> =
        (0..n).filter(|column| !columns.contains(column)).filter(suspect).take(MOST_SUSPECTS).collect();
    columns.extend(suspects);
    columns.into_iter().collect()
}

/// The given columns of y, row-major.
fn read(y: &Matrix, columns: &[usize]) -> Vec<f64> {
    let rows = y.shape()[0];
    (0..rows).flat_map(|row| columns.iter().filter_map(move |&column| y.value(row, column))).collect()
}

#[cfg(test)]
mod tests {
    use gptq_conformance::case::Case;

    use super::*;

    /// The oracle's own output for a small layer in f32, changed.
    fn judged(dtype: DType, change: impl Fn(usize, &mut f64)) -> Judgement {
        let case = Case { sym: false, in_features: 256, ..Case::PLAIN };
        let layer = case.build("layer").unwrap().layer;
        let n = layer.out_features();
        let x = Activations::normal([3, 256], dtype, 7);
        let all: Vec<usize> = (0..n).collect();
        let mut right = Dense::of_layer(&layer, &all).unwrap().multiply(x.exact());
        right.iter_mut().enumerate().for_each(|(at, value)| change(at, value));
        let y = Matrix::of(&Activations::new([3, n], dtype, right)).unwrap();
        judge(&layer, WeightRounding::Exact, &x, &y, (0..n).step_by(3).collect()).unwrap()
    }

    #[test]
    fn rounded_weights_are_allowed_to_the_backend_that_says_it_rounds_them() {
        let layer = Case { sym: false, in_features: 256, ..Case::PLAIN }.build("layer").unwrap().layer;
        let columns: Vec<usize> = (0..layer.out_features()).collect();
        let rounded = Dense::of_layer(&layer, &columns).unwrap().rounded(DType::BF16);
        // One rounding of three is little more than the bound leaves to the other two; some x is over it.
        let over = (0..20).find(|&seed| {
            let x = Activations::normal([1, 256], DType::BF16, seed);
            let wide = read(&Matrix::of(&x).unwrap(), &(0..256).collect::<Vec<_>>());
            let y = Activations::new([1, columns.len()], DType::BF16, rounded.multiply(&wide));
            let judged = |says| judge(&layer, says, &x, &Matrix::of(&y).unwrap(), columns.clone()).unwrap();
            let (exact, rounds) = (judged(WeightRounding::Exact), judged(WeightRounding::ToX));
            assert_eq!(rounds.verdict, Verdict::Ok, "{rounds:?}");
            assert_eq!(exact.floor_counts, Floor::XAndY);
            exact.verdict == Verdict::OverBound && rounds.floor_counts == Floor::Weights
        });
        assert!(over.is_some(), "a backend that does not say so is allowed no rounding of weights");
    }

    #[test]
    fn the_right_answer_is_within_the_bound_and_a_wrong_one_is_not() {
        for dtype in DType::ALL {
            let right = judged(dtype, |_, _| {});
            assert_eq!((right.verdict, right.columns), (Verdict::Ok, 22), "{dtype}: {right:?}");
            let wrong = judged(dtype, |at, value| {
                if at == 64 + 3 {
                    *value += 1.0;
                }
            });
            assert_eq!(wrong.verdict, Verdict::OverBound, "{dtype}: {wrong:?}");
            assert!(wrong.of_bound() > 1.0, "{dtype}");
            assert_eq!((wrong.worst.row, wrong.worst.column), (1, 3), "{dtype}: {:?}", wrong.worst);
        }
    }

    #[test]
    fn the_floor_counts_the_rounding_of_weights_where_they_were_rounded() {
        let case = Case { sym: false, in_features: 256, ..Case::PLAIN };
        let layer = case.build("layer").unwrap().layer;
        let all: Vec<usize> = (0..layer.out_features()).collect();
        let dense = Dense::of_layer(&layer, &all).unwrap();
        // Numbers that every type holds, so that only weights and y are rounded.
        let x = (0u8..=255).cycle().take(3 * 256).map(|i| f64::from(i.wrapping_mul(37) % 17) - 8.0);
        let x: Vec<f64> = x.collect();
        for dtype in [DType::F16, DType::BF16] {
            let x = Activations::new([3, 256], dtype, x.clone());
            for (weights, floor) in [(dense.clone(), Floor::XAndY), (dense.rounded(dtype), Floor::Weights)] {
                let y = Activations::new([3, all.len()], dtype, weights.multiply(x.exact()));
                let says = WeightRounding::ToX;
                let judged = judge(&layer, says, &x, &Matrix::of(&y).unwrap(), all.clone()).unwrap();
                assert_eq!(
                    (judged.verdict, judged.floor_counts),
                    (Verdict::Ok, floor),
                    "{dtype}: {judged:?}"
                );
                assert!((0.8..0.88).contains(&judged.of_bound()), "{dtype}: {judged:?}");
            }
        }
    }

    #[test]
    fn an_output_that_is_not_finite_is_found_where_no_column_was_sampled() {
        let wrong = judged(DType::F16, |at, value| {
            if at == 64 + 1 {
                *value = f64::INFINITY;
            }
        });
        assert_eq!((wrong.verdict, wrong.not_as_finite), (Verdict::NotFinite, 1));
        assert_eq!((wrong.worst.row, wrong.worst.column, wrong.columns), (1, 1, 23));
    }
}
