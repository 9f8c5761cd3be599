//! What a person should know about a checkpoint that opens all the same.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

/// Something noticed while a checkpoint was opened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// The layer, tensor or file that it is about; `None` for the whole checkpoint.
    pub subject: Option<Arc<str>>,
    /// What was found, what was expected, and what follows.
    pub message: String,
}

/// How much a finding matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Severity {
    /// Good to know.
    Note,
    /// Probably a mistake somewhere; answers may be wrong.
    Warning,
}

impl Finding {
    pub(super) fn note(subject: Option<Arc<str>>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Note, subject, message: message.into() }
    }

    pub(super) fn warning(subject: Option<Arc<str>>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, subject, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.severity {
            Severity::Note => "note: ",
            Severity::Warning => "warning: ",
        })?;
        if let Some(subject) = &self.subject {
            write!(f, "{subject}: ")?;
        }
        f.write_str(&self.message)
    }
}
