//! Every error that a file or a user can cause, caused, and what it says.
//!
//! A message has to name the file, the tensor or the layer, what was found and what was expected: each case lists
//! the words that must be in it.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "a test reports so")]

mod calls;
mod case;
mod configs;
mod elsewhere;
mod headers;
mod layers;
mod marlin;
mod weight_files;
mod zero_points;

use std::collections::BTreeSet;
use std::io::Write;

use case::Case;
use gptq_core::Error;

fn cases_on_disk() -> Vec<Case> {
    let mut cases = headers::cases();
    cases.extend(layers::cases());
    cases.extend(configs::cases());
    cases.extend(weight_files::cases());
    cases.extend(marlin::cases());
    cases.extend(zero_points::cases());
    cases
}

#[test]
fn every_broken_directory_is_refused_with_a_message_that_helps() {
    let cases = cases_on_disk();
    let problems: Vec<String> = cases.iter().flat_map(Case::problems).collect();
    assert!(problems.is_empty(), "{} of {} cases:\n{}", problems.len(), cases.len(), problems.join("\n"));
    let names: BTreeSet<_> = cases.iter().map(|case| case.name).collect();
    assert_eq!(names.len(), cases.len(), "two cases have one name");
}

#[test]
fn every_wrong_call_is_refused_with_a_message_that_helps() {
    let problems: Vec<String> = calls::all().iter().flat_map(calls::Call::problems).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn every_kind_of_error_is_caused_by_a_case_or_named_among_those_that_no_file_causes() {
    let (on_disk, calls) = (cases_on_disk(), calls::all());
    let here: BTreeSet<_> =
        on_disk.iter().map(|case| case.kind).chain(calls.iter().map(|call| call.kind)).collect();
    let elsewhere: BTreeSet<_> = elsewhere::LIST.iter().map(|entry| entry.kind).collect();
    let known: BTreeSet<_> = Error::KINDS.iter().copied().collect();

    let (directories, calls, kinds, all) = (on_disk.len(), calls.len(), here.len(), known.len());
    writeln!(
        std::io::stderr(),
        "{directories} broken directories and {calls} wrong calls cause {kinds} of {all} kinds of error"
    )
    .expect("to write to stderr");

    let without: Vec<_> =
        known.iter().filter(|kind| !here.contains(*kind) && !elsewhere.contains(*kind)).collect();
    assert!(
        without.is_empty(),
        "no case causes {without:?}: add one, or an entry to elsewhere.rs with the reason"
    );
    let needless: Vec<_> = elsewhere.intersection(&here).collect();
    assert!(needless.is_empty(), "a case causes {needless:?}: take the entry out of elsewhere.rs");
    let unknown: Vec<_> = here.union(&elsewhere).filter(|kind| !known.contains(*kind)).collect();
    assert!(unknown.is_empty(), "there is no error called {unknown:?}");
}

#[test]
fn tests_that_are_said_to_stand_elsewhere_stand_there() {
    for entry in elsewhere::LIST {
        if let Some(problem) = entry.problem() {
            panic!("{}: {problem}", entry.kind);
        }
    }
}
