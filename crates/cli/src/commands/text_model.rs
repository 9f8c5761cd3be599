//! A checkpoint as a model of text: its decoder, its tokenizer, and the memory that they take.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use gptq_candle::{Decoder, Weights};
use gptq_core::checkpoint::text_file;
use gptq_core::device::Device;
use gptq_core::post_init::{PostInitOptions, post_init};
use gptq_core::tensor::DType;
use serde::Serialize;
use tokenizers::Tokenizer;

use crate::args::{BackendOptionArgs, OpenArgs, PlanArgs};
use crate::failure::{Failure, Result};
use crate::output::{Bar, Bytes, Console};

/// Which model, and how to run it.
#[derive(Args, Debug)]
pub(super) struct ModelArgs {
    #[command(flatten)]
    pub(super) open: OpenArgs,
    #[command(flatten)]
    plan: PlanArgs,
    /// The type of activations: f32, f16 or bf16. A backend that would have to narrow it is not chosen.
    #[arg(long, value_name = "DTYPE", default_value = "f32", help_heading = "Planning")]
    dtype: DType,
    #[command(flatten)]
    options: BackendOptionArgs,
}

/// A model that is ready, and how long that took.
pub(super) struct TextModel {
    pub(super) decoder: Decoder,
    pub(super) tokenizer: Tokenizer,
    pub(super) ready_seconds: f64,
}

/// What ran.
#[derive(Serialize)]
pub(super) struct Ran {
    directory: String,
    backends: Vec<String>,
    device: Device,
    dtype: DType,
    /// From opening the checkpoint until the model could take a token.
    ready_seconds: f64,
}

impl ModelArgs {
    /// Opens, finalizes and builds. The tokenizer comes first: without it the rest would be for nothing.
    pub(super) fn load(&self, console: &Console) -> Result<TextModel> {
        let started = Instant::now();
        let options = self.options.options()?;
        let request = self.plan.request(Some(self.dtype));
        if request.device != Device::Cpu {
            return Err(Failure::ModelOnDevice { device: request.device });
        }
        let checkpoint = self.open.open()?;
        let tokenizer = tokenizer(&self.open.dir)?;
        let plan = request.plan(&checkpoint)?;
        let bar = Bar::new(console);
        let mut hear = |progress| bar.hear(progress);
        let options =
            PostInitOptions { backend_options: options, progress: Some(&mut hear), ..Default::default() };
        let model = post_init(checkpoint, plan, options)?;
        drop(bar);
        let dtype = match self.dtype {
            DType::F32 => candle_core::DType::F32,
            DType::F16 => candle_core::DType::F16,
            DType::BF16 => candle_core::DType::BF16,
        };
        let decoder = Decoder::load(Weights::new(model, dtype, &candle_core::Device::Cpu)?)?;
        Ok(TextModel { decoder, tokenizer, ready_seconds: started.elapsed().as_secs_f64() })
    }

    /// What ran, for a report.
    pub(super) fn ran(&self, model: &TextModel) -> Ran {
        let layers = model.decoder.weights().layers().model().layers();
        let mut backends: Vec<_> = layers.iter().map(|layer| layer.backend().to_string()).collect();
        backends.sort_unstable();
        backends.dedup();
        Ran {
            directory: self.open.dir.display().to_string(),
            backends,
            device: Device::Cpu,
            dtype: self.dtype,
            ready_seconds: model.ready_seconds,
        }
    }
}

impl Ran {
    /// The backends, the device and the dtype: `torch, cpu, f32`.
    pub(super) fn text(&self) -> String {
        format!("{}, {}, {}", self.backends.join(" and "), self.device, self.dtype)
    }
}

fn tokenizer(dir: &Path) -> Result<Tokenizer> {
    let file = dir.join("tokenizer.json");
    let Some(text) = text_file(&file)? else { return Err(Failure::NoTokenizer { dir: dir.into() }) };
    text.parse().map_err(|error| tokenizer_failure(file, &error))
}

impl TextModel {
    /// The tokens of `text`; `special` adds those with which the model's texts begin.
    pub(super) fn encode(&self, dir: &Path, text: &str, special: bool) -> Result<Vec<u32>> {
        let encoded = self.tokenizer.encode_fast(text, special);
        let encoded = encoded.map_err(|error| tokenizer_failure(dir.join("tokenizer.json"), &error))?;
        Ok(encoded.get_ids().to_vec())
    }
}

pub(super) fn tokenizer_failure(file: PathBuf, error: &tokenizers::Error) -> Failure {
    Failure::Tokenizer { file, problem: error.to_string() }
}

/// What the process holds in memory, as the kernel counts it.
#[derive(Serialize)]
pub(super) struct Memory {
    /// The most that was ever there at once, pages of mapped files among them.
    peak_bytes: usize,
    /// What there is at the end that belongs to no file.
    anonymous_bytes: usize,
    /// Of that, keys and values.
    cache_bytes: usize,
}

impl Memory {
    /// Where the kernel tells.
    pub(super) fn now(cache_bytes: usize) -> Option<Self> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let kibibytes: usize = line.split_whitespace().next()?.parse().ok()?;
            kibibytes.checked_mul(1024)
        };
        Some(Self { peak_bytes: field("VmHWM:")?, anonymous_bytes: field("RssAnon:")?, cache_bytes })
    }

    /// `peak 178.20 MiB with mapped files; 14.10 MiB of its own, keys and values 3.10 MiB of them`.
    pub(super) fn text(&self) -> String {
        let [peak, own, cache] = [self.peak_bytes, self.anonymous_bytes, self.cache_bytes].map(Bytes);
        format!("peak {peak} with mapped files; {own} of its own, room for keys and values {cache}")
    }
}
