//! Why a command did not do what was asked: core's errors, and what only a program can get wrong.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;

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

    #[error("{device}: this program cannot measure the limits of that device; pass --device cpu")]
    NoClock { device: Device },

    #[error("cannot write the report to standard output")]
    Stdout(#[source] io::Error),

    #[error("cannot write the report as JSON; this is a defect of the program")]
    Json(#[source] serde_json::Error),
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
