//! A finalized model saves what its checkpoint would.

use gptq_core::backend::*;
use gptq_core::checkpoint::{CheckpointFormat, SaveOptions};
use gptq_core::device::{Context, Device};
use gptq_core::format::{ZeroDialect, ZeroEncoding};
use gptq_core::post_init::{FinalizedModel, PostInitOptions, post_init};
use gptq_core::tensor::{TensorMut, TensorRef};
use gptq_core::{QuantLinear, Result};
use serde_json::json;
use tempfile::TempDir;

use crate::formats::{save, to};
use crate::source::*;

/// A backend whose kernels read zero points in this encoding, and that runs nothing.
struct Reads(ZeroEncoding);

struct Nothing;

impl Linear for Nothing {
    fn forward(&self, _: &TensorRef<'_>, _: &mut TensorMut<'_>, _: &mut Context) -> Result<()> {
        Ok(())
    }

    fn resident_bytes(&self) -> usize {
        0
    }
}

impl Backend for Reads {
    fn convert_format(&mut self, layer: &mut QuantLinear) -> Result<Outcome> {
        layer.convert_zeros(self.0);
        Ok(Outcome::Done)
    }

    fn init_buffers(&mut self, layers: &mut LayerSource<'_>) -> Result<Vec<(LayerId, Box<dyn Linear>)>> {
        let mut ready: Vec<(LayerId, Box<dyn Linear>)> = Vec::new();
        while let Some((id, _)) = layers.next_layer() {
            ready.push((id, Box::new(Nothing)));
        }
        Ok(ready)
    }

    fn set_max_input_length(&mut self, _: usize) -> Result<Outcome> {
        Ok(Outcome::NotNeeded("it has no buffers".into()))
    }

    fn scratch_bytes(&self) -> usize {
        0
    }
}

const READS_V2: Registration = Registration::new(
    BackendId::new("reads_v2"),
    |_| Ok(Capabilities::ANY),
    |_, _| Ok(Box::new(Reads(ZeroEncoding::V2))),
);
const READS_V1: Registration = Registration::new(
    BackendId::new("reads_v1"),
    |_| Ok(Capabilities::ANY),
    |_, _| Ok(Box::new(Reads(ZeroEncoding::V1(ZeroDialect::WordBorrow)))),
);

fn finalized(source: &Source, backend: Registration) -> FinalizedModel {
    let mut request = PlanRequest::new(BACKEND::Auto, Device::Cpu);
    request.registry = Registry::empty().with(backend);
    let checkpoint = source.open();
    let plan = request.plan(&checkpoint).unwrap();
    post_init(checkpoint, plan, PostInitOptions::default()).unwrap()
}

#[test]
fn whatever_its_backend_converted_a_finalized_model_saves_the_same_files() {
    let layers = [
        Layer::new("a", 4, ZeroKind::Asymmetric),
        Layer { groups: Groups::Shuffled, bias: true, ..Layer::new("b", 8, ZeroKind::Symmetric) },
        Layer::new("c", 3, ZeroKind::Asymmetric),
    ];
    let outs = TempDir::new().unwrap();
    for from in [CheckpointFormat::Gptq, CheckpointFormat::GptqV2] {
        let source = Source::new(from, &layers, json!({}));
        source.write("tokenizer.json", "{}");
        for target in [CheckpointFormat::Gptq, CheckpointFormat::GptqV2] {
            let plain = outs.path().join(format!("{from}-{target}"));
            let expected = save(&source.open(), &plain, &to(target));
            for backend in [READS_V1, READS_V2] {
                let out = outs.path().join(format!("{from}-{target}-{}", backend.id));
                let model = finalized(&source, backend);
                let resident =
                    || model.layers().iter().map(|layer| layer.packed().resident_bytes()).sum::<usize>();
                let before = resident();
                let report = model.save(&out, &to(target)).unwrap();
                assert_eq!(resident(), before, "{}: words that were made to be saved are kept", backend.id);
                assert_eq!(files_in(&out), files_in(&plain), "{} from {from} to {target}", backend.id);
                assert_eq!(
                    report.zeros_converted, expected.zeros_converted,
                    "counted from what is in the file"
                );
                assert_eq!(report.files, expected.files);
            }
        }
    }
}

#[test]
fn a_finalized_model_is_saved_in_the_format_that_most_readers_take() {
    let source = Source::new(CheckpointFormat::Gptq, &[Layer::new("a", 4, ZeroKind::Symmetric)], json!({}));
    let outs = TempDir::new().unwrap();
    let report = finalized(&source, READS_V2).save(outs.path().join("out"), &SaveOptions::default()).unwrap();
    assert_eq!((report.format, report.zeros_converted), (CheckpointFormat::Gptq, 0));
    assert_eq!(tensors_in(&outs.path().join("out")), source.tensors);
}
