//! The program `gptq`: inspects GPTQ checkpoints, makes them ready to run, and runs their layers.
//!
//! A report goes to standard output, as text or as one JSON document; errors, logs and the progress bar go to
//! standard error. It ends with 0 when it did what was asked, 1 when that failed or the answer is a no, and 2 when
//! the command line is wrong.
//!
//! ```sh
//! gptq finalize tests/fixtures/checkpoints/kjv-4bit-g128-sym     # plan, convert, initialise; each with its counts
//! gptq verify tests/fixtures/checkpoints/kjv-4bit-g128-sym --json
//! ```
//!
//! # Design, and its price
//!
//! - **A thin program.** All it does is what the libraries do; whatever it prints they give as data. The price: a report is
//!   made twice, as text and as JSON, from one value.
//! - **Its backends are named below**, one line each. A program with another choice is a `main.rs` of its own.
//! - **It carries the oracle**, so that `gptq verify` judges the machine it runs on, and not the one it was built on.

// The backends of this program. A crate that only Cargo.toml names is not linked.
use gptq_exllama_v1 as _;
use gptq_exllama_v2 as _;
use gptq_marlin as _;
use gptq_torch_fallback as _;

mod args;
mod call;
mod commands;
mod failure;
mod log;
mod output;
mod room;
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
