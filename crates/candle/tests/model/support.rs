//! Building decoders from checkpoints.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use gptq_candle::{Decoder, Weights};
use gptq_tests_golden::run::{finalize, open};

/// The weights of the checkpoint in `dir`, finalized on the CPU, for activations of `dtype`.
pub(crate) fn weights(dir: &Path, dtype: DType) -> Weights {
    Weights::new(finalize(open(dir)), dtype, &Device::Cpu).expect("weights")
}

/// Its decoder.
pub(crate) fn decoder(dir: &Path, dtype: DType) -> Decoder {
    Decoder::load(weights(dir, dtype)).expect("a decoder")
}

/// The values of a tensor, row after row.
pub(crate) fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().and_then(|flat| flat.to_vec1()).expect("f32 values")
}

/// The place of the largest value.
pub(crate) fn argmax(values: &[f32]) -> usize {
    let largest = values.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    largest.map(|(index, _)| index).expect("there are values")
}
