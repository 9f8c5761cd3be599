//! Calls that are queued behind one another, without waiting in between.
//!
//! An engine queues a whole token before it waits. Calls that are waited for one at a time hide what goes wrong only
//! when kernels of two streams run side by side.

use std::sync::Barrier;

use gptq_core::device::Context;
use gptq_core::tensor::DType;

use super::length::two_layers;
use super::sharing::joined;
use crate::case::Case;
use crate::rig::{Call, Output, Rig};
use crate::target::{Summary, Target};

/// Calls that are queued before any is waited for.
const CALLS: usize = 24;
/// Both sides of sizes at which kernels change.
const ROWS: [usize; 5] = [1, 16, 4, 33, 5];

/// Two models, each with a stream of its own, get calls by turns from one thread, which waits when all are queued.
pub fn queued_by_turns(target: &Target) -> Result<Summary, String> {
    let Some((cases, dtype)) = two_layers(target, 61) else { return Ok(Summary::declined(1)) };
    let others: Vec<Case> = cases.iter().rev().map(|case| Case { seed: case.seed + 2, ..*case }).collect();
    let rigs = [Rig::open(target, &cases, dtype, Some(16))?, Rig::open(target, &others, dtype, Some(16))?];
    by_turns(&rigs, dtype)
}

/// Two threads share a model, each with a stream of its own, and wait when all their calls are queued.
pub fn queued_by_threads(target: &Target) -> Result<Summary, String> {
    let Some((cases, dtype)) = two_layers(target, 62) else { return Ok(Summary::declined(1)) };
    by_threads(&Rig::open(target, &cases, dtype, Some(16))?, dtype)
}

pub(super) fn by_turns(rigs: &[Rig<'_>; 2], dtype: DType) -> Result<Summary, String> {
    let [first, second] = rigs;
    let mut contexts = [first.context()?, second.context()?];
    let mut alone = [Vec::new(), Vec::new()];
    for ((rig, context), alone) in rigs.iter().zip(&mut contexts).zip(&mut alone) {
        *alone = outputs_alone(rig, context, dtype, 0)?;
    }
    let mut calls = [calls(first, dtype, 0)?, calls(second, dtype, 0)?];
    for call in 0..CALLS {
        for ((rig, context), calls) in rigs.iter().zip(&mut contexts).zip(&mut calls) {
            queue(rig, &mut calls[call], context, dtype, call)?;
        }
    }
    for (((rig, context), calls), alone) in rigs.iter().zip(&contexts).zip(&mut calls).zip(&alone) {
        same(rig, context, calls, alone, dtype)
            .map_err(|problem| format!("two models, whose calls are queued by turns: {problem}"))?;
    }
    Ok(Summary::ran(2 * CALLS))
}

pub(super) fn by_threads(rig: &Rig<'_>, dtype: DType) -> Result<Summary, String> {
    const THREADS: u64 = 2;
    let mut context = rig.context()?;
    let mut alone = Vec::new();
    for thread in 0..THREADS {
        alone.push(outputs_alone(rig, &mut context, dtype, thread)?);
    }
    let barrier = &Barrier::new(alone.len());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .zip(&alone)
            .map(|(thread, alone)| {
                scope.spawn(move || {
                    let ready = rig.context().and_then(|context| Ok((context, calls(rig, dtype, thread)?)));
                    // A thread that is not ready still comes here, or the other would wait for ever.
                    barrier.wait();
                    let (mut context, mut calls) = ready?;
                    for (call, placed) in calls.iter_mut().enumerate() {
                        queue(rig, placed, &mut context, dtype, call)?;
                    }
                    same(rig, &context, &mut calls, alone, dtype)
                })
            })
            .collect();
        let results: Vec<_> = threads.into_iter().map(joined).collect();
        results.into_iter().collect::<Result<Vec<()>, String>>()
    })
    .map_err(|problem| format!("two threads, whose calls are queued on two streams: {problem}"))?;
    Ok(Summary::ran(alone.len() * CALLS))
}

/// The layer of a call, and its rows.
fn kind(rig: &Rig<'_>, call: usize) -> (usize, usize) {
    (call % rig.model.layers().len(), ROWS[call % ROWS.len()])
}

fn seed(thread: u64, call: usize) -> u64 {
    thread * 1000 + call as u64
}

/// What every call gives when each is waited for.
fn outputs_alone(
    rig: &Rig<'_>,
    context: &mut Context,
    dtype: DType,
    thread: u64,
) -> Result<Vec<Output>, String> {
    let output = |call| {
        let (layer, rows) = kind(rig, call);
        rig.forward_right(layer, &rig.x(layer, rows, dtype, seed(thread, call)), context)
    };
    (0..CALLS).map(output).collect()
}

fn calls<'r>(rig: &'r Rig<'_>, dtype: DType, thread: u64) -> Result<Vec<Call<'r>>, String> {
    let place = |call| {
        let (layer, rows) = kind(rig, call);
        rig.call(layer, &rig.x(layer, rows, dtype, seed(thread, call)))
    };
    (0..CALLS).map(place).collect()
}

fn queue(
    rig: &Rig<'_>,
    placed: &mut Call<'_>,
    context: &mut Context,
    dtype: DType,
    call: usize,
) -> Result<(), String> {
    let (layer, rows) = kind(rig, call);
    placed.queue(context).map_err(|error| {
        format!("{}: forward failed: {}", rig.describe(layer, &rig.x(layer, rows, dtype, 0)), error.report())
    })
}

/// Waits, and compares every bit with what one call alone gave.
fn same(
    rig: &Rig<'_>,
    context: &Context,
    calls: &mut [Call<'_>],
    alone: &[Output],
    dtype: DType,
) -> Result<(), String> {
    context.synchronize().map_err(|error| error.report())?;
    for (call, (placed, alone)) in calls.iter_mut().zip(alone).enumerate() {
        let output = placed.output()?;
        if let Some(element) = output.first_difference(alone) {
            let (layer, rows) = kind(rig, call);
            return Err(format!(
                "{}: call {call} of {CALLS}: element {element} is {}, and {} when the call runs alone",
                rig.describe(layer, &rig.x(layer, rows, dtype, 0)),
                output.values()[element],
                alone.values()[element],
            ));
        }
    }
    Ok(())
}
