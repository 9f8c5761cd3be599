//! What is left after models, and what becomes of those for which there is no memory.

use gptq_core::Error;
use gptq_core::device::{DeviceBuffer, Memory};

use super::length::two_layers;
use crate::case::Case;
use crate::rig::{Rig, layer_name};
use crate::target::{Summary, Target};

/// Allocators hand out memory in pieces of up to this size, so that less cannot be told from nothing.
const GRAIN: usize = 2 << 20;
/// What a model holds that is to stand out from it, on a device that has much more.
const HELD: usize = 64 << 20;

/// Dropping a model gives back what it held, where the device tells how much is free.
///
/// A device's allocator may keep pools, so the first model is not counted; and other processes may use the device, so
/// that a leak counts only when it shows three times.
pub fn dropping_frees(target: &Target) -> Result<Summary, String> {
    const MODELS: usize = 6;
    let Some((cases, dtype)) = two_layers(target, 46) else { return Ok(Summary::declined(1)) };
    // Enough layers to stand out from the granularity of allocators.
    let cases: Vec<Case> = cases.iter().copied().cycle().take(96).collect();

    let warm = Rig::open(target, &cases, dtype, Some(64))?;
    let Some(memory) = warm.model.memory().cloned().filter(|memory| memory.available_bytes().is_some())
    else {
        return Ok(untold());
    };
    let report = warm.model.memory_report();
    let held = report.layer_bytes + report.buffers.iter().map(|buffer| buffer.bytes).sum::<usize>();
    drop(warm);

    let available = || memory.available_bytes().unwrap_or(0);
    let mut lost = 0;
    for _ in 0..3 {
        let before = available();
        for _ in 0..MODELS {
            let rig = Rig::open(target, &cases, dtype, Some(64))?;
            let mut context = rig.context()?;
            rig.forward_right(0, &rig.x(0, 3, dtype, 47), &mut context)?;
        }
        lost = before.saturating_sub(available());
        if lost <= MODELS * held / 8 {
            return Ok(Summary::ran(MODELS));
        }
    }
    Err(format!(
        "{MODELS} models were opened, run and dropped, each holding {held} bytes on the device, and {lost} bytes are \
         still gone"
    ))
}

fn untold() -> Summary {
    let skipped = Some("the device does not tell how much memory is free".into());
    Summary { skipped, ..Summary::default() }
}

/// Memory that runs out while layers are arranged is [`Error::OutOfMemory`]; what was allocated until then is given back;
/// and once there is room, the model opens and is right.
///
/// Fills the device with memory of its own, but for a part of what the model needs. As in [`dropping_frees`], other
/// processes may use the device, so that a leak counts only when it shows three times.
pub fn memory_runs_out(target: &Target) -> Result<Summary, String> {
    let Some((plain, dtype)) = target.find(|plain| plain) else { return Ok(Summary::declined(1)) };
    let Case { in_features, out_features, .. } = plain;
    let large = Case { in_features: 16 * in_features, out_features: 16 * out_features, ..plain };
    let case = if target.accepts(&large, dtype).is_ok() { large } else { plain };
    let one = Rig::of_noise(target, &[case], dtype, Some(16))?;
    let Some(memory) = one.model.memory().cloned().filter(|memory| memory.available_bytes().is_some()) else {
        return Ok(untold());
    };
    let wanted = HELD.min(available(&*memory) / 16);
    let count = wanted.div_ceil(one.model.memory_report().layer_bytes.max(1)).clamp(4, 1000);
    let mut layers = Vec::new();
    for index in 0..count {
        let layer = Case { seed: index as u64, ..case }.noise(&layer_name(index));
        layers.push(layer.map_err(|error| format!("{case}: {error}"))?);
    }
    let open = || target.open(layers.clone(), Some(dtype), Some(16));
    let whole = open().map_err(|error| format!("{count} layers, {case}: {}", error.report()))?;
    let held = whole.memory_report().layer_bytes;
    drop(whole);

    let mut ran = 0;
    for room in [held / 4, held / 4 * 3] {
        let ballast = fill(&*memory, room)?;
        let mut lost = 0;
        for _ in 0..3 {
            let before = available(&*memory);
            let refused = open().map(drop);
            lost = before.saturating_sub(available(&*memory));
            match refused {
                Err(Error::OutOfMemory { .. }) if lost <= held / 8 => break,
                Err(Error::OutOfMemory { .. }) => {}
                Err(other) => {
                    return Err(format!(
                        "{count} layers that hold {held} bytes, {case}: with {before} bytes free, expected \
                         Error::OutOfMemory, found: {}",
                        other.report()
                    ));
                }
                Ok(()) => {
                    return Err(format!(
                        "{count} layers that say they hold {held} bytes, {case}: they opened with {before} bytes free"
                    ));
                }
            }
        }
        if lost > held / 8 {
            return Err(format!(
                "{count} layers that hold {held} bytes, {case}: there was no memory for them, and {lost} bytes are \
                 still gone after the error"
            ));
        }
        drop(ballast);
        ran += 1;
    }
    let again = Rig::of_noise(target, &[case], dtype, Some(16))?;
    for rig in [&one, &again] {
        rig.forward_right(0, &rig.x(0, 3, dtype, 49), &mut rig.context()?)
            .map_err(|problem| format!("after memory had run out: {problem}"))?;
    }
    Ok(Summary::ran(ran))
}

fn available(memory: &dyn Memory) -> usize {
    memory.available_bytes().unwrap_or(0)
}

/// Takes all memory but `room` bytes.
fn fill(memory: &dyn Memory, room: usize) -> Result<Vec<Box<dyn DeviceBuffer>>, String> {
    let mut ballast = Vec::new();
    let mut piece = usize::MAX;
    loop {
        piece = piece.min(available(memory).saturating_sub(room));
        if piece < GRAIN {
            return Ok(ballast);
        }
        match memory.allocate(piece) {
            Ok(buffer) => ballast.push(buffer),
            // What is free need not be in one piece.
            Err(Error::OutOfMemory { .. }) => piece /= 2,
            Err(other) => return Err(format!("filling the device with {piece} bytes: {}", other.report())),
        }
    }
}
