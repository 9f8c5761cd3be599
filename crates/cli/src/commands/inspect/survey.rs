//! What is shown of a directory that does not open as a checkpoint.

use gptq_core::checkpoint::{Configs, Survey, WeightSurvey};
use serde::Serialize;

use super::config;
use crate::args::OpenArgs;
use crate::failure::Failure;
use crate::output::{Page, Report, count};

/// Modules that lack tensors and are named one by one; of the others there is a count.
const MOST_NAMED: usize = 20;

/// A directory that does not open.
#[derive(Serialize)]
pub(super) struct Closed<'a> {
    directory: String,
    /// Why it does not open.
    error: String,
    configs: Option<&'a Configs>,
    /// Why the configurations cannot be read.
    configs_error: Option<String>,
    weights: Option<&'a WeightSurvey>,
    /// Why the weights cannot be read.
    weights_error: Option<String>,
}

impl<'a> Closed<'a> {
    /// `None` where nothing is known but the failure.
    pub(super) fn of(open: &OpenArgs, failure: &Failure, survey: &'a Survey) -> Option<Self> {
        if survey.configs.is_err() && survey.weights.is_err() {
            return None;
        }
        Some(Self {
            directory: open.dir.display().to_string(),
            error: failure.report(),
            configs: survey.configs.as_ref().ok(),
            configs_error: survey.configs.as_ref().err().map(gptq_core::Error::report),
            weights: survey.weights.as_ref().ok(),
            weights_error: survey.weights.as_ref().err().map(gptq_core::Error::report),
        })
    }

    /// An error of the survey, unless it is the one that is printed at the end.
    fn why<'e>(&self, error: Option<&'e String>) -> &'e str {
        match error {
            Some(error) if *error != self.error => error,
            _ => "not readable: see the error",
        }
    }
}

impl Report for Closed<'_> {
    fn write_text(&self, page: &mut Page) {
        page.heading(format_args!("{} does not open", self.directory));
        page.line("what can be read of it:");
        page.heading("configuration");
        match self.configs {
            None => page.line(self.why(self.configs_error.as_ref())),
            Some(configs) => {
                config::write(&configs.primary, page);
                for other in &configs.others {
                    page.line(format_args!("also read: {}", other.source));
                }
                for disagreement in &configs.disagreements {
                    page.line(format_args!("they disagree: {disagreement}"));
                }
            }
        }
        page.heading("weights");
        match self.weights {
            None => page.line(self.why(self.weights_error.as_ref())),
            Some(weights) => write(weights, page),
        }
    }
}

fn write(weights: &WeightSurvey, page: &mut Page) {
    for file in &weights.files {
        page.line(file.file_name().unwrap_or_default().to_string_lossy());
    }
    page.line(format_args!(
        "{} with all tensors that a quantized layer needs, {}",
        count(weights.complete, "module"),
        count(weights.plain_tensors, "plain tensor")
    ));
    if weights.incomplete.is_empty() {
        return;
    }
    page.line(format_args!("{} with some missing:", count(weights.incomplete.len(), "module")));
    for module in weights.incomplete.iter().take(MOST_NAMED) {
        let (found, missing) = (module.found.join(", "), module.missing.join(", "));
        page.line(format_args!("  {}: has {found}; lacks {missing}", module.name));
    }
    if let Some(more @ 1..) = weights.incomplete.len().checked_sub(MOST_NAMED) {
        page.line(format_args!("  and {more} more"));
    }
}
