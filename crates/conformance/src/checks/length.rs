//! Step 3 at any time, and contexts with little scratch.

use std::sync::atomic::{AtomicBool, Ordering};

use gptq_core::Error;
use gptq_core::tensor::DType;

use crate::accuracy::Activations;
use crate::case::{Case, GIdx};
use crate::rig::{Failure, Offsets, Rig};
use crate::target::{Summary, Target};

/// A layer in order, and one in act-order, of another shape, where the backend has it: the second is what scratch and
/// length depend on in the field.
pub(super) fn two_layers(target: &Target, seed: u64) -> Option<(Vec<Case>, DType)> {
    let (first, dtype) = target.find(|plain| Case { seed, ..plain })?;
    let mut cases = vec![first];
    let second = Case { g_idx: GIdx::ActOrder, in_features: first.in_features * 2, seed: seed + 1, ..first };
    let plain = Case { g_idx: GIdx::Absent, ..second };
    let second =
        [second, plain].into_iter().find(|case| case.is_legal() && target.accepts(case, dtype).is_ok());
    cases.extend(second);
    Some((cases, dtype))
}

fn set_length(rig: &Rig<'_>, rows: usize) -> Result<(), String> {
    rig.model
        .set_max_input_length(rows)
        .map(drop)
        .map_err(|error| format!("set_max_input_length({rows}) failed: {}", error.report()))
}

/// The maximum input length grows and shrinks between calls. Fewer rows and more rows than it are right, in contexts
/// made before and after.
pub fn length_changes_between_calls(target: &Target) -> Result<Summary, String> {
    let Some((cases, dtype)) = two_layers(target, 31) else { return Ok(Summary::declined(1)) };
    let mut ran = 0;
    for first_length in [None, Some(4)] {
        let rig = Rig::open(target, &cases, dtype, first_length)?;
        let mut early = rig.context()?;
        for length in [None, Some(1), Some(64), Some(7), Some(200), Some(2)] {
            if let Some(length) = length {
                set_length(&rig, length)?;
            }
            let mut late = rig.context()?;
            for rows in [1, 9, 80] {
                for index in 0..cases.len() {
                    let x = rig.x(index, rows, dtype, 32);
                    for (made, context) in [("before", &mut early), ("after", &mut late)] {
                        rig.forward_right(index, &x, context).map_err(|problem| {
                            format!(
                                "post_init with length {first_length:?}, then {length:?}, context made {made}: \
                                 {problem}"
                            )
                        })?;
                        ran += 1;
                    }
                }
            }
        }
    }
    Ok(Summary::ran(ran))
}

/// The maximum input length changes while other threads are inside forward.
pub fn length_changes_under_threads(target: &Target) -> Result<Summary, String> {
    const THREADS: u64 = 3;
    const CALLS: usize = 20;
    let Some((cases, dtype)) = two_layers(target, 33) else { return Ok(Summary::declined(1)) };
    let rig = &Rig::open(target, &cases, dtype, Some(8))?;
    let done = &AtomicBool::new(false);
    let (cases, rows) = (&cases, [1, 8, 9, 40]);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    let mut context = rig.context()?;
                    for call in 0..CALLS {
                        let index = call % cases.len();
                        let x = rig.x(index, rows[call % rows.len()], dtype, thread * 1000 + call as u64);
                        rig.forward_right(index, &x, &mut context)?;
                    }
                    Ok(CALLS)
                })
            })
            .collect();
        let changer = scope.spawn(move || {
            for length in [64, 1, 16, 100, 3].into_iter().cycle() {
                if done.load(Ordering::Relaxed) {
                    return Ok(());
                }
                set_length(rig, length)?;
                std::thread::yield_now();
            }
            Ok(())
        });
        let results: Vec<Result<usize, String>> = workers.into_iter().map(super::sharing::joined).collect();
        done.store(true, Ordering::Relaxed);
        super::sharing::joined(changer)?;
        let ran = results.into_iter().sum::<Result<usize, String>>();
        ran.map(Summary::ran).map_err(|problem| format!("while the length changed: {problem}"))
    })
}

/// A context with less scratch than the model asks for is still right, down to what one row needs; with less than
/// that, forward says how much it needs, and then that is enough.
pub fn little_scratch(target: &Target) -> Result<Summary, String> {
    let Some((cases, dtype)) = two_layers(target, 34) else { return Ok(Summary::declined(1)) };
    let rig = Rig::open(target, &cases, dtype, Some(64))?;
    let full = rig.model.scratch_bytes();
    let mut ran = 0;
    for index in 0..cases.len() {
        for scratch in [0, full / 7, full / 2] {
            for rows in [1, 2, 19, 51] {
                let x = rig.x(index, rows, dtype, 35);
                ran += 1;
                let needed = match called(&rig, index, &x, scratch)? {
                    Called::Right => continue,
                    Called::TooSmall(needed) => needed,
                };
                if needed <= scratch || needed > full {
                    return Err(format!(
                        "{}: with {scratch} bytes of scratch, forward asks for {needed}; contexts of this model have \
                         {full}",
                        rig.describe(index, &x)
                    ));
                }
                if let Called::TooSmall(more) = called(&rig, index, &x, needed)? {
                    return Err(format!(
                        "{}: forward asked for {needed} bytes of scratch for one row, got them, and asked for {more}",
                        rig.describe(index, &x)
                    ));
                }
            }
        }
    }
    Ok(Summary::ran(ran))
}

enum Called {
    Right,
    TooSmall(usize),
}

fn called(rig: &Rig<'_>, index: usize, x: &Activations, scratch_bytes: usize) -> Result<Called, String> {
    let mut context = rig.context_with(scratch_bytes)?;
    let within = |problem| format!("in a context with {scratch_bytes} bytes of scratch: {problem}");
    match rig.try_forward(index, x, &mut context, Offsets::ALIGNED) {
        Err(Failure::Error(Error::ScratchTooSmall { needed, .. })) => Ok(Called::TooSmall(needed)),
        Err(failure) => Err(within(rig.explain(index, x, failure))),
        Ok(output) => rig.judge(index, x, &output).map(|_| Called::Right).map_err(within),
    }
}
