//! The errors that no file and no call of this package causes, and where they are caused.

use std::fs;
use std::path::Path;

/// An error that is not caused here.
pub(crate) struct Elsewhere {
    /// The error.
    pub(crate) kind: &'static str,
    /// Why not.
    reason: &'static str,
    /// A file of the repository and a test in it that causes the error.
    test: (&'static str, &'static str),
}

pub(crate) const LIST: &[Elsewhere] = &[
    Elsewhere {
        kind: "Backend",
        reason: "a defect of a backend",
        test: ("crates/core/tests/dispatch.rs", "a_backend_that_loses_a_layer_is_found_out"),
    },
    Elsewhere {
        kind: "OutOfMemory",
        reason: "a device runs out of memory",
        test: (
            "crates/conformance/tests/fake.rs",
            "the_length_changes_what_temp_state_holds_and_too_much_leaves_the_old_one",
        ),
    },
    Elsewhere {
        kind: "Device",
        reason: "a device or its driver fails",
        test: ("crates/conformance/tests/fake.rs", "a_buffer_that_queued_work_uses_cannot_be_uploaded_to"),
    },
];

impl Elsewhere {
    /// What is wrong with the entry.
    pub(crate) fn problem(&self) -> Option<String> {
        let (file, test) = self.test;
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file);
        match fs::read_to_string(path) {
            Err(error) => Some(format!("{file}, which is to cause it ({}): {error}", self.reason)),
            Ok(text) if !text.contains(&format!("fn {test}()")) => Some(format!("{file} has no test {test}")),
            Ok(_) => None,
        }
    }
}
