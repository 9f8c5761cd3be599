//! What needs no GPU: what is refused, and which rows rebuild the dense matrix.

use gptq_core::backend::Rejection;
use gptq_core::device::Device;
use gptq_core::tensor::DType;
use gptq_cuda::Bias;

use crate::REGISTRATION;
use crate::layout::Tensors;
use crate::linear::{Settings, rebuilds, temp_dq_bytes};

fn tensors(bias: Option<DType>, exact_in_f16: bool) -> Tensors {
    Tensors {
        qweight: 256,
        qzeros: 256,
        scales: 256,
        sorted_rows: None,
        bias: bias
            .into_iter()
            .chain(exact_in_f16.then_some(DType::F16))
            .map(|dtype| Bias { address: 256, dtype })
            .collect(),
        in_features: 8192,
        out_features: 28672,
        group_rows: 128,
    }
}

#[test]
fn other_devices_than_cuda_are_refused() {
    match (REGISTRATION.capabilities)(&Device::Cpu) {
        Err(Rejection::DeviceKind { supported, .. }) => assert_eq!(supported, "cuda"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_threshold_is_measured_or_what_the_option_says() {
    let plain = tensors(None, false);
    let by = |threshold, rows| rebuilds(Settings { threshold, temp_dq_bytes: None }, &plain, rows);
    assert!(!by(None, 128) && by(None, 129));
    assert!(!by(Some(8), 7) && by(Some(8), 8), "as in the original");
    assert!(!by(Some(0), 5000), "never");
}

#[test]
fn a_bias_that_f16_does_not_hold_is_added_by_the_fused_kernels() {
    let settings = Settings { threshold: Some(8), temp_dq_bytes: None };
    assert!(!rebuilds(settings, &tensors(Some(DType::F32), false), 64));
    assert!(rebuilds(settings, &tensors(Some(DType::F32), true), 64));
    assert!(rebuilds(settings, &tensors(Some(DType::F16), true), 64));
}

#[test]
fn temp_dq_is_the_whole_matrix_or_what_its_budget_allows() {
    let layer = tensors(None, false);
    let bytes = |temp_dq_bytes| temp_dq_bytes_of(temp_dq_bytes, &layer);
    assert_eq!(bytes(None), 448 << 20);
    assert_eq!(bytes(Some(64 << 20)), 64 << 20);
    assert_eq!(bytes(Some(10)), 0, "not even eight columns: such calls stay with the fused kernels");
}

fn temp_dq_bytes_of(budget: Option<usize>, layer: &Tensors) -> usize {
    temp_dq_bytes(Settings { threshold: None, temp_dq_bytes: budget }, layer)
}
