//! The commands: each parses its arguments, asks the library, and prints one report. One file each.

mod backends;
mod bench;
mod convert;
mod dequantize;
mod finalize;
mod forward;
mod generate;
mod inspect;
mod perplexity;
mod text_model;
mod verify;

use clap::Subcommand;

use crate::failure::Result;
use crate::output::Console;

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    Inspect(inspect::Inspect),
    Finalize(finalize::Finalize),
    Convert(convert::Convert),
    Verify(verify::Verify),
    Backends(backends::Backends),
    Forward(forward::Forward),
    Bench(bench::BenchCommand),
    Tune(bench::TuneCommand),
    Dequantize(dequantize::Dequantize),
    Generate(generate::Generate),
    Perplexity(perplexity::Perplexity),
}

impl Command {
    /// Does it.
    pub(crate) fn run(&self, console: &Console) -> Result<()> {
        match self {
            Self::Inspect(command) => command.run(console),
            Self::Finalize(command) => command.run(console),
            Self::Convert(command) => command.run(console),
            Self::Verify(command) => command.run(console),
            Self::Backends(command) => command.run(console),
            Self::Forward(command) => command.run(console),
            Self::Bench(command) => command.run(console),
            Self::Tune(command) => command.run(console),
            Self::Dequantize(command) => command.run(console),
            Self::Generate(command) => command.run(console),
            Self::Perplexity(command) => command.run(console),
        }
    }
}
