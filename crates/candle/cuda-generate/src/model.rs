//! From a directory to a decoder on a GPU.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use gptq_candle::{Decoder, Weights};
use gptq_core::backend::{BACKEND, dispatch};
use gptq_core::checkpoint::Checkpoint;
use gptq_core::post_init::{PostInitOptions, post_init};

use crate::Result;

/// What is run, and how.
#[derive(clap::Args)]
pub(crate) struct Model {
    /// A directory with a quantized model and its config.json.
    pub(crate) dir: PathBuf,
    /// The backend of the quantized layers, as `gptq` names it.
    #[arg(long, default_value = "auto", value_parser = backend)]
    pub(crate) backend: BACKEND,
    /// The type of activations: f32, f16 or bf16.
    #[arg(long, default_value = "f16", value_parser = dtype)]
    pub(crate) dtype: DType,
}

impl Model {
    pub(crate) fn load(&self, device: &Device) -> Result<Decoder> {
        load(&self.dir, &self.backend, self.dtype, device)
    }
}

/// The first GPU, with a stream of its own.
pub(crate) fn device() -> Result<Device> {
    let device = Device::new_cuda_with_stream(0)
        .map_err(|error| format!("no GPU to run on: {error}; nvidia-smi tells whether the driver works"))?;
    Ok(device)
}

pub(crate) fn load(dir: &Path, backend: &BACKEND, dtype: DType, device: &Device) -> Result<Decoder> {
    let checkpoint = Checkpoint::open(dir)?;
    let plan = dispatch::plan(&checkpoint, backend.clone(), gptq_core::device::Device::Cuda(0))?;
    let model = post_init(checkpoint, plan, PostInitOptions::default())?;
    Ok(Decoder::load(Weights::new(model, dtype, device)?)?)
}

/// How a new token runs.
pub(crate) fn how(decoder: &Decoder) -> String {
    match decoder.whole_tokens() {
        Ok(()) => "a new token is one graph".into(),
        Err(reason) => format!("a new token is many operations: {reason}"),
    }
}

pub(crate) fn backend(text: &str) -> std::result::Result<BACKEND, String> {
    text.parse().map_err(|error: <BACKEND as std::str::FromStr>::Err| error.to_string())
}

pub(crate) fn dtype(text: &str) -> std::result::Result<DType, String> {
    match text {
        "f32" => Ok(DType::F32),
        "f16" => Ok(DType::F16),
        "bf16" => Ok(DType::BF16),
        _ => Err(format!("`{text}` is not one of f32, f16, bf16")),
    }
}
