//! What a test did, as a line of a table.

use std::fs::File;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use gptq_conformance::Summary;
use libtest_mimic::{Completion, Failed, Trial};

/// The variable that names a file to which every test appends its line: name, `PASS`, `FAIL` or `SKIP`, seconds and a
/// note, with tabs between them.
pub const RESULTS: &str = "GPTQ_TEST_RESULTS";

/// Longest note of a line; the harness prints all of it.
const NOTE_CHARS: usize = 300;

/// What a test that did not fail did.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(clippy::exhaustive_enums, reason = "a test ran or it did not")]
pub enum Done {
    /// It passed, and what it has to say.
    Passed(String),
    /// It did not run, and why.
    Skipped(String),
}

impl From<Summary> for Done {
    fn from(summary: Summary) -> Self {
        match summary.skipped {
            Some(why) => Self::Skipped(why),
            None => Self::Passed(summary.to_string()),
        }
    }
}

/// A test of this name, which appends its line when it is done.
pub fn trial(name: String, check: impl FnOnce() -> Result<Done, String> + Send + 'static) -> Trial {
    Trial::ignorable_test(name.clone(), move || {
        let started = Instant::now();
        // A panic would leave the table without a line for this test.
        let result = catch_unwind(AssertUnwindSafe(check)).unwrap_or_else(|panic| Err(text_of(&*panic)));
        let seconds = started.elapsed().as_secs_f64();
        let (verdict, note) = match &result {
            Ok(Done::Skipped(why)) => ("SKIP", why),
            Ok(Done::Passed(note)) => ("PASS", note),
            Err(problem) => ("FAIL", problem),
        };
        append(&format!("{name}\t{verdict}\t{seconds:.1}\t{}\n", one_line(note)))?;
        match result {
            Ok(Done::Skipped(why)) => Ok(Completion::ignored_with(why)),
            Ok(Done::Passed(_)) => Ok(Completion::Completed),
            Err(problem) => Err(Failed::from(problem)),
        }
    })
}

fn append(line: &str) -> Result<(), String> {
    let Some(path) = std::env::var_os(RESULTS) else { return Ok(()) };
    let file = File::options().create(true).append(true).open(&path);
    file.and_then(|mut file| file.write_all(line.as_bytes()))
        .map_err(|error| format!("{}: {error}", path.display()))
}

fn one_line(note: &str) -> String {
    let flat: String = note.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match flat.char_indices().nth(NOTE_CHARS) {
        Some((end, _)) => format!("{} ..", &flat[..end]),
        None => flat,
    }
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    format!("panicked: {}", text.unwrap_or("without a message"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_one_line_without_tabs_and_ends_somewhere() {
        assert_eq!(one_line("a\tb\nc"), "a b c");
        let long = one_line(&"ü".repeat(1000));
        assert_eq!(long.chars().count(), NOTE_CHARS + 3);
    }

    #[test]
    fn a_panic_is_told_with_its_message() {
        let panic = catch_unwind(|| panic!("number {}", 7)).unwrap_err();
        assert_eq!(text_of(&*panic), "panicked: number 7");
    }
}
