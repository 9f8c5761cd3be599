//! Layers as large as those of real models. Not a part of [`suite!`](crate::suite): a backend for a device runs them
//! in seconds, one for the host in minutes.

use gptq_core::format::{Bits, GroupSize, Packing};
use gptq_core::tensor::DType;

use super::queued::{by_threads, by_turns};
use crate::case::{Case, GIdx};
use crate::rig::Rig;
use crate::target::{Summary, Target};

/// `[K, N]` of layers of 7-billion and 70-billion parameter models: attention, the two directions of the feed-forward
/// network, and the largest.
pub const REAL_SIZES: [[usize; 2]; 4] = [[4096, 4096], [4096, 11008], [11008, 4096], [8192, 28672]];

/// Both sides of every number of rows at which kernels change, and a prompt.
const ROWS: [usize; 9] = [1, 2, 4, 5, 8, 16, 17, 64, 512];

/// A layer of 4 bits in groups of 128, `[K, N] = size`, for x in f16 and in bf16, in order and in act-order: 64 columns,
/// over all of K, are within the bound of the oracle, all of out is written, and the same input gives the same bits.
///
/// f32 is left to the small layers: [`Accuracy`](crate::Accuracy) allows less there than a plain sum of so many
/// products reaches.
///
/// # Errors
/// As every [`Check`](crate::Check).
pub fn real_size(target: &Target, size: [usize; 2]) -> Result<Summary, String> {
    let mut summary = Summary::default();
    let mut worst = 0.0f64;
    for g_idx in [GIdx::Absent, GIdx::ActOrder] {
        for dtype in [DType::F16, DType::BF16] {
            let Some(case) = accepted(target, size, g_idx, dtype) else {
                summary.declined += 1;
                continue;
            };
            let rig = Rig::of_noise(target, &[case], dtype, Some(64))?;
            let mut context = rig.context()?;
            for rows in ROWS {
                let x = rig.x(0, rows, dtype, rows as u64);
                let output = rig.forward(0, &x, &mut context)?;
                worst = worst.max(rig.judge(0, &x, &output)?);
                let again = rig.forward(0, &x, &mut context)?;
                if let Some(element) = output.first_difference(&again) {
                    return Err(format!(
                        "{}: a second call gave other bits, first at element {element}",
                        rig.describe(0, &x)
                    ));
                }
                summary.ran += 1;
            }
        }
    }
    Ok(if summary.ran > 0 { Summary { worst: Some(worst), ..summary } } else { summary })
}

/// [`queued_by_turns`](super::queued_by_turns) with layers of `size`.
///
/// # Errors
/// As every [`Check`](crate::Check).
pub fn queued_by_turns_at(target: &Target, size: [usize; 2]) -> Result<Summary, String> {
    let Some((cases, dtype)) = both_orders(target, size) else { return Ok(Summary::declined(1)) };
    let others: Vec<Case> = cases.iter().rev().map(|case| Case { seed: case.seed + 2, ..*case }).collect();
    let rigs =
        [Rig::of_noise(target, &cases, dtype, Some(16))?, Rig::of_noise(target, &others, dtype, Some(16))?];
    by_turns(&rigs, dtype)
}

/// [`queued_by_threads`](super::queued_by_threads) with layers of `size`.
///
/// # Errors
/// As every [`Check`](crate::Check).
pub fn queued_by_threads_at(target: &Target, size: [usize; 2]) -> Result<Summary, String> {
    let Some((cases, dtype)) = both_orders(target, size) else { return Ok(Summary::declined(1)) };
    by_threads(&Rig::of_noise(target, &cases, dtype, Some(16))?, dtype)
}

/// A layer in order, and one in act-order where the backend has it.
fn both_orders(target: &Target, size: [usize; 2]) -> Option<(Vec<Case>, DType)> {
    let find = |dtype| {
        let orders = [GIdx::Absent, GIdx::ActOrder];
        let cases: Vec<Case> =
            orders.into_iter().filter_map(|g_idx| accepted(target, size, g_idx, dtype)).collect();
        if cases.is_empty() { None } else { Some((cases, dtype)) }
    };
    [DType::F16, DType::BF16].into_iter().find_map(find)
}

/// Asymmetric where the backend has it, symmetric where not.
fn accepted(target: &Target, [in_features, out_features]: [usize; 2], g_idx: GIdx, x: DType) -> Option<Case> {
    let scale_dtypes = [DType::F16, x];
    let case = |sym, scale_dtype| Case {
        bits: Bits::FOUR,
        packing: Packing::Continuous,
        group_size: GroupSize::from_config(128).unwrap_or(GroupSize::PerColumn),
        sym,
        scale_dtype,
        g_idx,
        in_features,
        out_features,
        seed: 71,
        ..Case::PLAIN
    };
    [false, true]
        .into_iter()
        .flat_map(|sym| scale_dtypes.map(|scale_dtype| case(sym, scale_dtype)))
        .find(|case| target.accepts(case, x).is_ok())
}
