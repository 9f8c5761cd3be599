//! Threads, and models side by side.

use std::sync::Barrier;
use std::thread::ScopedJoinHandle;

use gptq_core::device::Context;
use gptq_core::tensor::DType;

use super::length::two_layers;
use crate::accuracy::Activations;
use crate::case::Case;
use crate::rig::{Output, Rig};
use crate::target::{Summary, Target};

/// The result of a thread.
pub(super) fn joined<T>(thread: ScopedJoinHandle<'_, Result<T, String>>) -> Result<T, String> {
    thread.join().unwrap_or_else(|_| Err("a thread panicked".into()))
}

/// Several threads share a model, each with a context of its own, and get the bits that one thread gets.
pub fn threads_share_a_model(target: &Target) -> Result<Summary, String> {
    const THREADS: usize = 4;
    const CALLS: usize = 25;
    let Some((cases, dtype)) = two_layers(target, 41) else { return Ok(Summary::declined(1)) };
    let rig = &Rig::open(target, &cases, dtype, Some(16))?;
    let rows = |call: usize| [16, 1, 5, 33][call % 4];
    let layers = cases.len();

    // Each thread has inputs of its own, so that one thread's scratch in another's hands cannot go unseen.
    let mut alone: Vec<Vec<Output>> = Vec::new();
    let mut context = rig.context()?;
    for thread in 0..THREADS {
        let mut outputs = Vec::new();
        for call in 0..CALLS {
            let x = rig.x(call % layers, rows(call), dtype, (thread * CALLS + call) as u64);
            outputs.push(rig.forward_right(call % layers, &x, &mut context)?);
        }
        alone.push(outputs);
    }
    let barrier = &Barrier::new(THREADS);
    std::thread::scope(|scope| {
        let threads: Vec<_> = alone
            .iter()
            .enumerate()
            .map(|(thread, alone)| {
                scope.spawn(move || {
                    let mut context = rig.context();
                    let mut result = Ok(());
                    for (call, expected) in alone.iter().enumerate() {
                        let x = rig.x(call % layers, rows(call), dtype, (thread * CALLS + call) as u64);
                        // A thread that failed still keeps the others company, or they would wait for ever.
                        barrier.wait();
                        if result.is_ok() {
                            result = same(rig, call % layers, &x, &mut context, expected);
                        }
                    }
                    result
                })
            })
            .collect();
        let results: Vec<_> = threads.into_iter().map(joined).collect();
        results.into_iter().collect::<Result<Vec<()>, String>>()
    })
    .map_err(|problem| format!("{THREADS} threads share a model: {problem}"))?;
    Ok(Summary::ran(THREADS * CALLS))
}

fn same(
    rig: &Rig<'_>,
    index: usize,
    x: &Activations,
    context: &mut Result<Context, String>,
    expected: &Output,
) -> Result<(), String> {
    let context = context.as_mut().map_err(|problem| problem.clone())?;
    let output = rig.forward(index, x, context)?;
    match output.first_difference(expected) {
        None => Ok(()),
        Some(element) => Err(format!(
            "{}: element {element} is {}, and {} when one thread runs alone",
            rig.describe(index, x),
            output.values()[element],
            expected.values()[element],
        )),
    }
}

/// Models of different size live in one process and run by turns, and one outlives the others.
pub fn two_models(target: &Target) -> Result<Summary, String> {
    let Some((small, dtype)) = target.find(|plain| Case { seed: 42, ..plain }) else {
        return Ok(Summary::declined(1));
    };
    // Neither the first nor the last to be opened may be the one that all the others depend on.
    let large = larger(target, &small, dtype);
    let open = |case: Case, length| Rig::open(target, &[case], dtype, Some(length));
    let rigs = [open(small, 4)?, open(large, 128)?, open(Case { seed: 48, ..small }, 1)?];
    let mut contexts = [rigs[0].context()?, rigs[1].context()?, rigs[2].context()?];
    let mut ran = 0;
    for rows in [1, 6, 70] {
        for _ in 0..2 {
            for (rig, context) in rigs.iter().zip(&mut contexts) {
                rig.forward_right(0, &rig.x(0, rows, dtype, 43), context)
                    .map_err(|problem| format!("models by turns: {problem}"))?;
                ran += 1;
            }
        }
    }
    let ([first, second, third], [mut context, gone, gone_too]) = (rigs, contexts);
    drop((second, third, gone, gone_too));
    first
        .forward_right(0, &first.x(0, 6, dtype, 44), &mut context)
        .map_err(|problem| format!("after the other models were dropped: {problem}"))?;
    Ok(Summary::ran(ran + 1))
}

/// The same layer with more of everything, where the backend has it.
fn larger(target: &Target, small: &Case, dtype: DType) -> Case {
    let large = Case {
        in_features: small.in_features * 2,
        out_features: small.out_features * 3,
        bias: true,
        seed: 45,
        ..*small
    };
    let accepted = |case: &Case| case.is_legal() && target.accepts(case, dtype).is_ok();
    if accepted(&large) { large } else { Case { seed: 45, ..*small } }
}
