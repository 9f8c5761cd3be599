//! Why a command did not do what was asked: core's errors, and what only a program can get wrong.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;

use gptq_core::backend::Rejection;
use gptq_core::device::Device;

/// The result of a command.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a command ends with exit code 1. Says what was found, what was expected, and what to do next.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The library's own errors, in its own words.
    #[error(transparent)]
    Core(#[from] gptq_core::Error),

    #[error(
        "{}: no such directory; pass the directory that holds quantize_config.json and the weights \
         (models are not downloaded)", dir.display()
    )]
    NoSuchDirectory { dir: PathBuf },

    #[error("{}: this is a file, expected a checkpoint's directory; pass {}", file.display(), dir.display())]
    NotADirectory { file: PathBuf, dir: PathBuf },

    #[error("{}: {what}; name another file{}", path.display(), if *forcible { ", or replace it with --force" } else { "" })]
    OutputExists { path: PathBuf, what: &'static str, forcible: bool },

    #[error("{}: no tensor is called `{wanted}`, {}; save it as `{wanted}`", file.display(), held(found))]
    NoSuchTensor { file: PathBuf, wanted: &'static str, found: Vec<String> },

    #[error("{dir}: {problems}; they are listed above, and --strict makes them a failure", dir = dir.display())]
    Strict { dir: PathBuf, problems: String },

    #[error(
        "{}: {failed} of {layers} layers answer otherwise than the oracle; they are listed above. Try another backend, \
         or --dtype bf16 or f32 where f16 overflows", dir.display()
    )]
    Inaccurate { dir: PathBuf, failed: usize, layers: usize },

    #[error(
        "{device}: this program times layers on a CPU and on NVIDIA GPUs; pass --device cpu or --device cuda:0"
    )]
    NoClock { device: Device },

    #[error("{device}: --chain records a graph, which GPUs have; pass --device cuda:0")]
    NoChain { device: Device },

    #[error("{device}: nothing is chosen by measurement there; pass --device cuda:0")]
    NoTuning { device: Device },

    #[error("{device} cannot be used for a benchmark: {rejection}")]
    Gpu { device: Device, rejection: Box<Rejection> },

    /// What stands between finalized layers and a model, in the words of the crate that builds it.
    #[error(transparent)]
    Model(Box<gptq_candle::Error>),

    #[error(
        "{device}: this program runs whole models on the CPU only; pass --device cpu, or build a program on gptq-candle \
         with its feature `cuda`"
    )]
    ModelOnDevice { device: Device },

    #[error(
        "{}: no tokenizer.json, which turns text into tokens; copy it from where the weights came from \
         (tokenizer.model alone is not read)", dir.display()
    )]
    NoTokenizer { dir: PathBuf },

    #[error("{}: not a tokenizer that can be read: {problem}; copy it again from where the weights came from", file.display())]
    Tokenizer { file: PathBuf, problem: String },

    #[error("{what} has {found}, expected at least {expected}; {remedy}")]
    TooFewTokens { what: String, found: String, expected: usize, remedy: &'static str },

    #[error(
        "{}: no chat template, in chat_template.jinja or in tokenizer_config.json: a model that was trained on plain text \
         only; leave --chat out", dir.display()
    )]
    NoChatTemplate { dir: PathBuf },

    #[error("{}: no chat template is called `{wanted}`; there are {}", file.display(), known.join(", "))]
    UnknownChatTemplate { file: PathBuf, wanted: String, known: Vec<String> },

    #[error("{}: the chat template cannot be used; render the prompt yourself and leave --chat out", file.display())]
    ChatTemplate { file: PathBuf, source: minijinja::Error },

    #[error("cannot write the report to standard output")]
    Stdout(#[source] io::Error),

    #[error("cannot write the report as JSON; this is a defect of the program")]
    Json(#[source] serde_json::Error),
}

impl From<gptq_candle::Error> for Failure {
    fn from(error: gptq_candle::Error) -> Self {
        match error {
            gptq_candle::Error::Core(error) => Self::Core(error),
            error => Self::Model(Box::new(error)),
        }
    }
}

impl Failure {
    /// Whether whoever read standard output stopped reading, as `head` does: nothing to complain about.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Stdout(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The failure and its causes, one a line.
    pub(crate) fn report(&self) -> String {
        if let Self::Core(error) = self {
            return error.report();
        }
        let mut text = self.to_string();
        let mut source = self.source();
        while let Some(cause) = source {
            text.push_str("\n  caused by: ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }
}

fn held(names: &[String]) -> String {
    match names {
        [] => "the file holds none".into(),
        names => format!("the file holds {}", names.join(", ")),
    }
}
