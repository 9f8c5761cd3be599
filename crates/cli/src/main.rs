//! The program `gptq`: inspects GPTQ checkpoints, makes them ready to run, and runs their layers.
//!
//! A report goes to standard output, as text or as one JSON document; errors, logs and the progress bar go to
//! standard error. It ends with 0 when it did what was asked, 1 when that failed or the answer is a no, and 2 when
//! the command line is wrong.

// The backends of this program. A crate that only Cargo.toml names is not linked.
use gptq_exllama_v1 as _;
use gptq_exllama_v2 as _;
use gptq_torch_fallback as _;

mod args;
mod call;
mod commands;
mod failure;
mod log;
mod output;
mod tensor_file;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use args::Cli;
use output::Console;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(answer) => {
            // Help that was asked for is no error. Whoever closed the pipe before reading it wants nothing more.
            _ = answer.print();
            return if answer.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    let console = Console::new(cli.global.json);
    log::init(cli.global.verbose, &console);
    match cli.command.run(&console) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_closed_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            _ = writeln!(std::io::stderr(), "error: {}", failure.report());
            ExitCode::FAILURE
        }
    }
}
