//! Checkpoints that GPTQModel 7.7.0 made.

use std::path::Path;

use gptq_core::checkpoint::{CheckpointFormat, SaveOptions};
use tempfile::TempDir;

use crate::formats::{save, to};
use crate::source::*;

#[test]
fn checkpoints_that_gptqmodel_made_go_to_v2_and_back() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/checkpoints");
    let mut seen = 0;
    for entry in std::fs::read_dir(fixtures).unwrap() {
        let dir = entry.unwrap().path();
        let outs = TempDir::new().unwrap();
        let (there, back) = (outs.path().join("v2"), outs.path().join("v1"));
        let checkpoint = open(&dir);
        let report = save(&checkpoint, &there, &to(CheckpointFormat::GptqV2));
        let zeros = checkpoint.layers().iter().map(|layer| layer.info().groups * layer.info().out_features);
        assert_eq!(report.zeros_converted, zeros.sum::<usize>(), "{}", dir.display());
        let small = SaveOptions { max_shard_bytes: 100_000, ..to(CheckpointFormat::Gptq) };
        save(&open(&there), &back, &small);

        let (was, is) = (files_in(&dir), files_in(&back));
        assert_eq!(tensors_in(&back), tensors_in(&dir), "{}", dir.display());
        for (name, bytes) in was.iter().filter(|(name, _)| !name.contains(".safetensors")) {
            assert_eq!(is.get(name), Some(bytes), "{} of {}", name, dir.display());
        }
        seen += 1;
    }
    assert!(seen >= 8, "only {seen} checkpoints");
}
