//! The command line: what all commands share. What is one command's own stands in that command's file.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, ValueEnum};
use gptq_core::backend::{BACKEND, Options, PlanRequest};
use gptq_core::checkpoint::save::{DEFAULT_MAX_SHARD_BYTES, SaveProgress};
use gptq_core::checkpoint::{
    Checkpoint, CheckpointFormat, OpenOptions, Reading, SaveOptions, Severity, ZeroVersion,
};
use gptq_core::device::Device;
use gptq_core::format::ZeroDialect;
use gptq_core::tensor::DType;

use crate::commands::Command;
use crate::failure::{Failure, Result};
use crate::output::findings::grouped;
use crate::tensor_file::directory_of;

/// Inspects GPTQ checkpoints, makes them ready to run, and runs their layers.
#[derive(Parser, Debug)]
#[command(name = "gptq", version, after_long_help = TOP_HELP)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
}

const TOP_HELP: &str = "\
A GPTQ checkpoint on disk is packed for storage. Three steps make it ready to run; `gptq finalize` shows them:

  1  zero points, stored minus one (file format gptq) or direct (gptq_v2),
     become what the kernels read
  2  each backend arranges the weights and makes its buffers
  3  buffers that depend on the longest input are sized, where a length is given

Start with:
  gptq inspect path/to/model    what it holds, what is suspicious, who can run it
  gptq backends                 what this program and this machine can run
  gptq verify path/to/model     whether every layer answers right

Exit codes: 0 done, 1 failed or found wrong, 2 wrong command line.";

/// Options of every command.
#[derive(Args, Debug)]
pub(crate) struct GlobalArgs {
    /// Print one JSON document on standard output instead of text.
    #[arg(long, global = true, help_heading = "Output")]
    pub(crate) json: bool,
    /// Log more on standard error: -v steps and their times, -vv details.
    ///
    /// Warnings are always logged. RUST_LOG is obeyed where -v is not given: RUST_LOG=off silences all,
    /// RUST_LOG=gptq_core=debug shows one crate.
    #[arg(short, long, action = ArgAction::Count, global = true, help_heading = "Output")]
    pub(crate) verbose: u8,
}

/// Which checkpoint, and how to read it.
#[derive(Args, Debug)]
pub(crate) struct OpenArgs {
    /// The checkpoint's directory: quantize_config.json or config.json, and safetensors files.
    pub(crate) dir: PathBuf,
    /// How a zero point of 0 was stored by a writer that the files do not name.
    ///
    /// Format gptq stores zero - 1, and writers disagree where a zero of 0 goes: `field` wraps within its own bits,
    /// `word` borrows from the next field of its 32-bit word (GPTQModel). Files of GPTQModel need no option. Needed
    /// where opening fails with "nothing in the file tells how its writer stored it". With `field` also the files
    /// open in which AutoGPTQ destroyed zero points, as they are.
    #[arg(long, value_name = "DIALECT", help_heading = "Reading the checkpoint")]
    zeros_dialect: Option<DialectArg>,
    /// Read zero points as this file format stores them, against configuration and data.
    ///
    /// `gptq` stores zero points minus one, `gptq_v2` direct. Needed where two configuration files disagree and the
    /// data does not settle it, or where the configuration is known to lie: a model read in the wrong encoding
    /// answers nonsense, or `!!!!`. Has nothing to do with GPTQv2, the algorithm.
    #[arg(long, value_name = "FORMAT", help_heading = "Reading the checkpoint")]
    assume_format: Option<FormatArg>,
    /// Read the weight files into memory instead of mapping them.
    ///
    /// Needed where another process may cut the files short meanwhile, which kills whoever has them mapped. Takes as
    /// much memory as the files.
    #[arg(long, help_heading = "Reading the checkpoint")]
    no_mmap: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DialectArg {
    /// Each field by itself, modulo 2^bits.
    Field,
    /// The whole 32-bit word, with borrows between fields.
    Word,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FormatArg {
    /// Zero points stored minus one (v1).
    #[value(name = "gptq")]
    Gptq,
    /// Zero points stored direct (v2).
    #[value(name = "gptq_v2")]
    GptqV2,
}

impl OpenArgs {
    /// Opens the checkpoint, and logs what core warns of.
    pub(crate) fn open(&self) -> Result<Checkpoint> {
        let checkpoint = self.open_quietly()?;
        for finding in grouped(checkpoint.findings()) {
            if finding.severity == Severity::Warning {
                tracing::warn!("{}", finding.text());
            }
        }
        Ok(checkpoint)
    }

    /// Opens the checkpoint, for a command that reports the findings itself.
    pub(crate) fn open_quietly(&self) -> Result<Checkpoint> {
        self.check_dir()?;
        let options = OpenOptions {
            reading: self.reading(),
            zeros_dialect: self.zeros_dialect.map(|dialect| match dialect {
                DialectArg::Field => ZeroDialect::FieldWrap,
                DialectArg::Word => ZeroDialect::WordBorrow,
            }),
            assume_format: self.assume_format.map(|format| match format {
                FormatArg::Gptq => ZeroVersion::V1,
                FormatArg::GptqV2 => ZeroVersion::V2,
            }),
        };
        Ok(Checkpoint::open_with(&self.dir, &options)?)
    }

    /// How the weight files are read.
    pub(crate) fn reading(&self) -> Reading {
        if self.no_mmap { Reading::Copy } else { Reading::Map }
    }

    fn check_dir(&self) -> Result<()> {
        let metadata = std::fs::metadata(&self.dir).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => Failure::NoSuchDirectory { dir: self.dir.clone() },
            _ => gptq_core::Error::Io { path: self.dir.clone(), action: "open", source }.into(),
        })?;
        if metadata.is_dir() {
            return Ok(());
        }
        Err(Failure::NotADirectory { file: self.dir.clone(), dir: directory_of(&self.dir).into() })
    }
}

/// Which backend, and where.
#[derive(Args, Debug)]
pub(crate) struct PlanArgs {
    /// The backend: auto, or a name that `gptq backends` lists (names of GPTQModel and Optimum are understood).
    ///
    /// `auto` asks every linked backend for every layer, highest priority first. A backend given by name is asked
    /// alone, and its refusal is an error.
    #[arg(long, value_name = "NAME", default_value = "auto", help_heading = "Planning")]
    backend: BACKEND,
    /// The device: cpu, cuda, cuda:N.
    #[arg(long, value_name = "DEVICE", default_value = "cpu", help_heading = "Planning")]
    device: Device,
}

impl PlanArgs {
    /// The request to the linked backends, for x of `x_dtype` where that is known.
    pub(crate) fn request(&self, x_dtype: Option<DType>) -> PlanRequest {
        let mut request = PlanRequest::new(self.backend.clone(), self.device.clone());
        request.x_dtype = x_dtype;
        request
    }
}

/// Options for the backends, which only they understand.
#[derive(Args, Debug)]
pub(crate) struct BackendOptionArgs {
    /// An option for one backend; `gptq backends` lists them. Can be given several times.
    #[arg(long = "option", value_name = "BACKEND.NAME=VALUE", value_parser = assignment, help_heading = "Planning")]
    options: Vec<String>,
    /// A file of options, one a line, such as `gptq tune` writes: they hold where --option says nothing, and may be for
    /// backends that are not used [default: what GPTQ_OPTION_FILE names].
    #[arg(long, value_name = "FILE", help_heading = "Planning")]
    option_file: Option<PathBuf>,
}

/// Names a file of options where the command line names none.
const OPTION_FILE: &str = "GPTQ_OPTION_FILE";

impl BackendOptionArgs {
    /// All of them; of two for the same thing the last.
    pub(crate) fn options(&self) -> Result<Options> {
        let mut options = Options::default();
        let of_environment =
            || std::env::var_os(OPTION_FILE).filter(|path| !path.is_empty()).map(PathBuf::from);
        if let Some(path) = self.option_file.clone().or_else(of_environment) {
            let text = std::fs::read_to_string(&path).map_err(|source| gptq_core::Error::Io {
                path,
                action: "read",
                source,
            })?;
            options.set_defaults(&text)?;
        }
        for assignment in &self.options {
            options.set_assignment(assignment)?;
        }
        Ok(options)
    }
}

/// That the text is an assignment at all: otherwise the command line is wrong, whatever backends there are.
fn assignment(text: &str) -> Result<String, String> {
    match Options::default().set_assignment(text) {
        Ok(()) => Ok(text.to_owned()),
        Err(_) => Err("write it as BACKEND.NAME=VALUE".to_owned()),
    }
}

/// A file format to save in.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum SaveFormatArg {
    /// Zero points stored minus one (v1): what every reader takes, for symmetric layers.
    #[value(name = "gptq")]
    Gptq,
    /// Zero points stored direct (v2): has room for every zero point.
    #[value(name = "gptq_v2")]
    GptqV2,
    /// Codes in planes, zero points direct: the only one for 5, 6 and 7 bits.
    #[value(name = "gptq_p")]
    GptqP,
}

impl From<SaveFormatArg> for CheckpointFormat {
    fn from(format: SaveFormatArg) -> Self {
        match format {
            SaveFormatArg::Gptq => Self::Gptq,
            SaveFormatArg::GptqV2 => Self::GptqV2,
            SaveFormatArg::GptqP => Self::GptqP,
        }
    }
}

/// How weights are divided into files.
#[derive(Args, Debug)]
pub(crate) struct ShardArgs {
    /// Bytes of tensors in one weight file: 500MB, 5GB, 4GiB. A tensor that is larger gets a file of its own.
    #[arg(
        long, value_name = "SIZE", value_parser = byte_size, default_value_t = ByteSize(DEFAULT_MAX_SHARD_BYTES),
        help_heading = "Saving"
    )]
    max_shard_size: ByteSize,
}

impl ShardArgs {
    /// How to save in `format`: with the proof, and a bar that shows how far it is.
    pub(crate) fn options<'a>(
        &self,
        format: Option<SaveFormatArg>,
        progress: &'a (dyn Fn(SaveProgress) + Sync),
    ) -> SaveOptions<'a> {
        SaveOptions {
            format: format.map(CheckpointFormat::from),
            max_shard_bytes: self.max_shard_size.0,
            prove: true,
            progress: Some(progress),
        }
    }
}

/// A number of bytes, as it is written on a command line.
#[derive(Clone, Copy, Debug)]
struct ByteSize(usize);

impl std::fmt::Display for ByteSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let unit =
            SIZE_UNITS.into_iter().rev().find(|(_, bytes)| self.0 > 0 && self.0.is_multiple_of(*bytes));
        let (name, bytes) = unit.unwrap_or(("B", 1));
        write!(f, "{}{name}", self.0 / bytes)
    }
}

const SIZE_UNITS: [(&str, usize); 7] = [
    ("B", 1),
    ("KB", 1000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
];

/// Reads `5GB`, `500 MiB`, `1000`.
fn byte_size(text: &str) -> Result<ByteSize, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim() {
        "" => Some(1),
        name => {
            SIZE_UNITS.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, bytes)| bytes)
        }
    };
    let bytes = number.parse::<usize>().ok().zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
    match bytes {
        None | Some(0) => Err("write it as a number of B, KB, MB, GB, KiB, MiB or GiB: 5GB".to_owned()),
        Some(bytes) => Ok(ByteSize(bytes)),
    }
}

/// A file to write.
#[derive(Args, Debug)]
pub(crate) struct OutputArgs {
    /// The safetensors file to write. Written under another name beside it, and renamed when complete.
    #[arg(long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Replace the output file where it exists.
    #[arg(long)]
    pub(crate) force: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_free_of_contradictions() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_are_read_in_powers_of_1000_and_of_1024_and_shown_the_same_way() {
        for (text, bytes, shown) in [
            ("5GB", 5_000_000_000, "5GB"),
            ("4gib", 4 << 30, "4GiB"),
            ("500 MB", 500_000_000, "500MB"),
            ("12345", 12_345, "12345B"),
            ("64KiB", 65_536, "64KiB"),
        ] {
            let size = byte_size(text).unwrap();
            assert_eq!((size.0, size.to_string().as_str()), (bytes, shown), "{text}");
        }
        for text in ["", "GB", "0", "0GB", "-1GB", "1.5GB", "5TBytes", "99999999999GiB"] {
            assert!(byte_size(text).is_err(), "{text}");
        }
    }
}
