//! Which backends get into a program, as tiny programs: `src/bin/*.rs` for Rust, `main.c` for C, one for each row of
//! docs/linking.md that one machine can run. The tests build them, run them and read what they say.

use gptq_core::backend::{BACKEND, PlanRequest, Registry};
use gptq_core::checkpoint::{Checkpoint, QuantizeConfig};
use gptq_core::device::Device;
use gptq_core::format::{Bits, GroupSize, Packing, ZeroEncoding};
use gptq_core::tensor::Floats;
use gptq_core::{Part, QuantLinear, QuantLinearParts, Result};

/// What a user sees who plans a model with these backends: the report, or the error.
pub fn plan(registry: Registry, backend: BACKEND) -> String {
    let mut request = PlanRequest::new(backend, Device::Cpu);
    request.registry = registry;
    match model().and_then(|model| request.plan(&model)) {
        Ok(plan) => plan.report().to_string(),
        Err(error) => format!("error: {}", error.report()),
    }
}

/// A model of one layer of 8 rows and one column.
fn model() -> Result<Checkpoint> {
    let layer = QuantLinear::new(QuantLinearParts {
        name: "layer".into(),
        bits: Bits::FOUR,
        packing: Packing::Continuous,
        group_size: GroupSize::PerColumn,
        zero_encoding: ZeroEncoding::V2,
        qweight: Part::in_memory(vec![1, 1], vec![0x7654_3210].into()),
        qzeros: Part::in_memory(vec![1, 1], vec![8].into()),
        scales: Part::in_memory(vec![1, 1], Floats::from(vec![1.0f32])),
        g_idx: None,
        bias: None,
    })?;
    let config = QuantizeConfig::from_scalars(4, -1, None, "(memory)".as_ref())?;
    Ok(Checkpoint::from_layers(config, vec![layer]))
}
