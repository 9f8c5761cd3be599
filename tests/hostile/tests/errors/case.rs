//! One broken directory and the error that it has to cause.

use std::io::{self, Write};
use std::path::Path;

use gptq_core::Error;
use gptq_core::checkpoint::{Checkpoint, OpenOptions, Reading};
use gptq_tests_hostile::{Image, Place, valid};

/// A broken directory.
pub(crate) struct Case {
    /// What is wrong with it.
    pub(crate) name: &'static str,
    /// The error that it has to cause.
    pub(crate) kind: &'static str,
    /// What the message has to say.
    says: &'static [&'static str],
    image: Image,
    /// What no image can hold: pipes, links, permissions. An error where the system does not allow it.
    on_disk: fn(&Path) -> io::Result<()>,
}

/// A case made of the plain checkpoint by `change`.
pub(crate) fn case(
    name: &'static str,
    kind: &'static str,
    says: &'static [&'static str],
    change: fn(&mut Image),
) -> Case {
    case_of(valid::plain(), name, kind, says, change)
}

/// A case made of another good checkpoint.
pub(crate) fn case_of(
    mut image: Image,
    name: &'static str,
    kind: &'static str,
    says: &'static [&'static str],
    change: fn(&mut Image),
) -> Case {
    change(&mut image);
    Case { name, kind, says, image, on_disk: |_| Ok(()) }
}

impl Case {
    /// Changes the directory too, once it is written.
    pub(crate) fn on_disk(mut self, change: fn(&Path) -> io::Result<()>) -> Self {
        self.on_disk = change;
        self
    }

    /// What the case shows to be wrong with the library.
    pub(crate) fn problems(&self) -> Vec<String> {
        let place = Place::new();
        self.image.write(place.path()).expect("a directory to write into");
        if let Err(reason) = (self.on_disk)(place.path()) {
            // Even where the test harness keeps what a test prints to itself.
            writeln!(io::stderr(), "skipped, for the system does not allow it ({reason}): {}", self.name)
                .expect("to write to stderr");
            return Vec::new();
        }
        let mut problems = Vec::new();
        for reading in [Reading::Map, Reading::Copy] {
            let options = OpenOptions { reading, ..OpenOptions::default() };
            match Checkpoint::open_with(place.path(), &options) {
                Ok(_) => problems.push(format!("  {}: opened ({reading:?})", self.name)),
                Err(error) => problems.extend(complaints(self.name, &error, self.kind, self.says)),
            }
        }
        problems
    }
}

/// How `error` falls short of being `kind` and of saying `says`.
pub(crate) fn complaints(name: &str, error: &Error, kind: &str, says: &[&str]) -> Vec<String> {
    let report = error.report();
    if std::env::var_os("GPTQ_SHOW_ERRORS").is_some() {
        eprintln!("{name}\n    {}: {report}", error.kind());
    }
    let mut complaints = Vec::new();
    if error.kind() != kind {
        complaints.push(format!("  {name}: expected {kind}, found {}: {report}", error.kind()));
    }
    for words in says.iter().filter(|words| !report.contains(*words)) {
        complaints.push(format!("  {name}: `{words}` is not in: {report}"));
    }
    complaints
}
