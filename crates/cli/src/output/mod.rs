//! What a person or a program reads: reports as text or JSON, tables, units, the progress bar.

pub(crate) mod findings;
mod page;
mod progress;
pub(crate) mod saved;
mod units;

use std::io::{self, IsTerminal, Write};

use indicatif::{MultiProgress, ProgressDrawTarget};
use serde::Serialize;

pub(crate) use page::{Column, Page, count};
pub(crate) use progress::Bar;
pub(crate) use units::{Bytes, Seconds};

use crate::failure::{Failure, Result};

/// What a command found or did: one value, from which the text and the JSON are both made.
pub(crate) trait Report: Serialize {
    /// The report as text.
    fn write_text(&self, page: &mut Page);
}

/// Where output goes.
pub(crate) struct Console {
    json: bool,
    bars: MultiProgress,
}

impl Console {
    /// Standard output and standard error.
    pub(crate) fn new(json: bool) -> Self {
        let target = if !json && io::stdout().is_terminal() && io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        Self { json, bars: MultiProgress::with_draw_target(target) }
    }

    /// Whether a program reads standard output.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Prints a report on standard output, all at once.
    pub(crate) fn print(&self, report: &impl Report) -> Result<()> {
        let text = if self.json {
            as_json(report)?
        } else {
            let mut page = Page::new(styled(&io::stdout()));
            report.write_text(&mut page);
            page.into_text()
        };
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(Failure::Stdout)
    }

    /// The place of progress bars; hidden unless a person watches.
    pub(crate) fn bars(&self) -> &MultiProgress {
        &self.bars
    }

    /// Whether logs may be coloured.
    pub(crate) fn stderr_is_styled(&self) -> bool {
        styled(&io::stderr())
    }
}

/// A report as one JSON document.
pub(crate) fn as_json(report: &impl Report) -> Result<String> {
    let mut text = serde_json::to_string_pretty(report).map_err(Failure::Json)?;
    text.push('\n');
    Ok(text)
}

/// Whether a stream is a terminal whose user has nothing against colour (no-color.org).
fn styled(stream: &impl IsTerminal) -> bool {
    let plain = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !plain("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}
