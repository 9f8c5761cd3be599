//! Logs on standard error: warnings by default, more with `-v`, anything with `RUST_LOG`.

use std::io::{self, Write};

use indicatif::MultiProgress;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::fmt::time::uptime;

use crate::output::Console;

/// Begins to log. `-v` outweighs `RUST_LOG`, since it was said later.
pub(crate) fn init(verbose: u8, console: &Console) {
    let filter = match verbose {
        0 => EnvFilter::builder().with_default_directive(LevelFilter::WARN.into()).from_env_lossy(),
        1 => EnvFilter::new("info"),
        _ => EnvFilter::new("debug"),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(console.stderr_is_styled())
        .with_target(verbose > 1)
        .with_writer(AboveTheBar(console.bars().clone()));
    // Fails only where a subscriber exists, and none does.
    _ = if verbose == 0 {
        builder.without_time().try_init()
    } else {
        builder.with_timer(uptime()).with_span_events(FmtSpan::CLOSE).try_init()
    };
}

/// Standard error, with the progress bar out of the way while a line is written.
struct AboveTheBar(MultiProgress);

impl<'a> MakeWriter<'a> for AboveTheBar {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl Write for &AboveTheBar {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write(line))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
