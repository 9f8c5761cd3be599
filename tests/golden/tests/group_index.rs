//! Every kind of `g_idx`: what the tensor says holds, whatever the configuration says.

#![allow(clippy::expect_used, clippy::panic, reason = "what fails here fails the test")]

use gptq_core::Error;
use gptq_core::checkpoint::{Checkpoint, Severity};
use gptq_core::format::GroupIndexKind;
use gptq_core::tensor::DType;
use gptq_tests_golden::files::{CheckpointDir, quantize_config};
use gptq_tests_golden::layer::{LayerValues, StoredGroups, StoredZeros, activations};
use gptq_tests_golden::run::{bits, finalize, forward, open, relative_error};

const NAME: &str = "model.layers.0.proj";
const K: usize = 64;
const GROUP_ROWS: usize = 16;
const ROWS: usize = 5;

fn layer(g_idx: StoredGroups) -> LayerValues {
    LayerValues { g_idx, ..LayerValues::random(NAME, 4, [K, 64], GROUP_ROWS, 41) }
}

fn write(layer: &LayerValues, desc_act: bool) -> CheckpointDir {
    let mut config = quantize_config(4, 16, false, "gptq_v2");
    config["desc_act"] = desc_act.into();
    CheckpointDir::new(&config, &layer.tensors(StoredZeros::V2))
}

/// Rows dealt to the groups one by one.
fn dealt() -> StoredGroups {
    StoredGroups::Permuted((0..4).cycle().take(K).collect())
}

#[test]
fn an_index_that_says_nothing_is_the_same_as_none() {
    let x = activations(ROWS, K, 1);
    let expected = layer(StoredGroups::Absent).forward(&x, ROWS);
    let mut outputs = Vec::new();
    for desc_act in [false, true] {
        for (g_idx, kind) in [
            (StoredGroups::Absent, GroupIndexKind::Absent),
            (StoredGroups::AllZero, GroupIndexKind::AllZero),
            (StoredGroups::Trivial, GroupIndexKind::Trivial),
        ] {
            let dir = write(&layer(g_idx), desc_act);
            let checkpoint = open(dir.path());
            let info = checkpoint.layer(NAME).expect("the layer").info();
            assert_eq!((info.g_idx, info.act_order), (kind, false), "desc_act {desc_act}");
            let warned = checkpoint.findings().iter().any(|finding| finding.severity == Severity::Warning);
            assert!(!warned, "{kind}, desc_act {desc_act}: {:?}", checkpoint.findings());
            outputs.push((kind, desc_act, forward(&finalize(checkpoint), NAME, &x, ROWS, DType::F32)));
        }
    }
    assert!(relative_error(&outputs[0].2, &expected) <= 1e-6, "the first is right");
    for (kind, desc_act, output) in &outputs {
        assert!(
            bits(output) == bits(&outputs[0].2),
            "{kind}, desc_act {desc_act}: not the same to the last bit"
        );
    }
}

#[test]
fn one_group_needs_no_index() {
    let layer = LayerValues { g_idx: StoredGroups::AllZero, ..LayerValues::random(NAME, 4, [K, 64], K, 42) };
    let dir = CheckpointDir::new(&quantize_config(4, -1, false, "gptq_v2"), &layer.tensors(StoredZeros::V2));
    let checkpoint = open(dir.path());
    let found = checkpoint.layer(NAME).expect("the layer");
    assert_eq!((found.info().g_idx, found.info().act_order), (GroupIndexKind::SingleGroup, false));
    assert!(bits(&found.dequantize()) == bits(&layer.dense()));
}

#[test]
fn a_permutation_is_followed_and_a_configuration_that_denies_it_is_warned_about() {
    let layer = layer(dealt());
    let x = activations(ROWS, K, 2);
    for desc_act in [false, true] {
        let dir = write(&layer, desc_act);
        let checkpoint = open(dir.path());
        assert!(checkpoint.layer(NAME).expect("the layer").info().act_order);
        let warnings: Vec<_> = checkpoint
            .findings()
            .iter()
            .filter(|finding| finding.severity == Severity::Warning)
            .map(ToString::to_string)
            .collect();
        let about_it =
            warnings.iter().filter(|text| text.contains(NAME) && text.contains("desc_act")).count();
        assert_eq!((warnings.len(), about_it), if desc_act { (0, 0) } else { (1, 1) }, "{warnings:?}");

        let packed = checkpoint.layer(NAME).expect("the layer").dequantize();
        assert!(bits(&packed) == bits(&layer.dense()), "desc_act {desc_act}: dense matrix");
        let error = relative_error(
            &forward(&finalize(checkpoint), NAME, &x, ROWS, DType::F32),
            &layer.forward(&x, ROWS),
        );
        assert!(error <= 1e-6, "desc_act {desc_act}: output is off by {error:.1e}");
    }
}

#[test]
fn groups_of_unequal_size_are_followed_with_a_warning() {
    let mut groups = vec![0; K];
    groups[..3].fill(2);
    groups[40..].fill(1);
    let layer = layer(StoredGroups::Permuted(groups));
    let dir = write(&layer, true);
    let checkpoint = open(dir.path());
    let info = checkpoint.layer(NAME).expect("the layer").info();
    assert!(info.act_order && info.ragged_groups, "{info:?}");
    let findings: Vec<_> = checkpoint.findings().iter().map(ToString::to_string).collect();
    assert!(findings.iter().any(|text| text.starts_with("warning") && text.contains(NAME)), "{findings:?}");
    let x = activations(ROWS, K, 3);
    let error =
        relative_error(&forward(&finalize(checkpoint), NAME, &x, ROWS, DType::F32), &layer.forward(&x, ROWS));
    assert!(error <= 1e-6, "output is off by {error:.1e}");
}

#[test]
fn a_group_that_does_not_exist_is_an_error_that_names_the_row() {
    for wrong in [4, -1, -2, i32::MAX, i32::MIN] {
        let mut groups: Vec<i32> = (0..4).cycle().take(K).collect();
        groups[9] = wrong;
        // The reference needs groups that exist; only its tensors are used.
        let dir = write(&layer(StoredGroups::Permuted(groups)), true);
        match Checkpoint::open(dir.path()) {
            Err(Error::GroupOutOfRange { tensor, row: 9, found, groups: 4, .. }) => {
                assert_eq!((tensor.as_str(), found), ("model.layers.0.proj.g_idx", wrong));
            }
            other => panic!("group {wrong}: expected a refusal, got {other:?}"),
        }
    }
}
