//! Findings of a checkpoint, one line for all layers that share one.

use std::fmt;

use gptq_core::checkpoint::{Finding, Severity};
use serde::Serialize;

/// A finding, and everything that it is about.
#[derive(Serialize)]
pub(crate) struct GroupedFinding<'a> {
    /// How much it matters.
    pub(crate) severity: Severity,
    /// What was found, what was expected, and what follows.
    pub(crate) message: &'a str,
    /// The layers, tensors or files; empty for the whole checkpoint.
    pub(crate) subjects: Vec<&'a str>,
}

/// Findings that differ only in their subject, together; in the order of the first of each, warnings first.
pub(crate) fn grouped(findings: &[Finding]) -> Vec<GroupedFinding<'_>> {
    let mut groups: Vec<GroupedFinding<'_>> = Vec::new();
    for finding in findings {
        let same = |group: &&mut GroupedFinding<'_>| {
            group.severity == finding.severity
                && group.message == finding.message
                && finding.subject.is_some()
        };
        let subject = finding.subject.as_deref();
        match groups.iter_mut().find(same) {
            Some(group) => group.subjects.extend(subject),
            None => groups.push(GroupedFinding {
                severity: finding.severity,
                message: &finding.message,
                subjects: subject.into_iter().collect(),
            }),
        }
    }
    groups.sort_by_key(|group| std::cmp::Reverse(group.severity));
    groups
}

impl GroupedFinding<'_> {
    /// The first subject, how many more there are, and the message.
    pub(crate) fn text(&self) -> String {
        match self.subjects.as_slice() {
            [] => self.message.to_owned(),
            [subject] => format!("{subject}: {}", self.message),
            [first, more @ ..] => format!("{first} and {} more: {}", more.len(), self.message),
        }
    }
}

impl fmt::Display for GroupedFinding<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Note => "note",
            _ => "warning",
        };
        write!(f, "{severity}: {}", self.text())
    }
}
