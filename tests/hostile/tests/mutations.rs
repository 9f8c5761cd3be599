//! Twenty thousand checkpoints, broken at random: each is refused, or runs. A quarter of what runs is saved, too.
//!
//! `GPTQ_MUTATE_SEED=n` repeats the one case that a failure named, and leaves its directory to look into.
//! `GPTQ_MUTATE_CASES=n` makes it more or fewer.

#![allow(clippy::expect_used, clippy::panic, reason = "a test reports so")]

use std::collections::BTreeMap;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use gptq_core::checkpoint::{CheckpointFormat, Reading};
use gptq_tests_hostile::{Image, Outcome, Place, Rng, exercise, mutate, save, valid};

const CASES: u64 = 20_000;

/// The formats that are saved in; `None` leaves the choice.
const FORMATS: [Option<CheckpointFormat>; 4] =
    [None, Some(CheckpointFormat::Gptq), Some(CheckpointFormat::GptqV2), Some(CheckpointFormat::GptqP)];

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

/// Tells it even where the test harness keeps what a test prints to itself.
fn say(line: &str) {
    writeln!(std::io::stderr(), "{line}").expect("to write to stderr");
}

/// Writes the checkpoint of `seed`, opens it, and perhaps saves it.
fn run(originals: &[Image], seed: u64, place: &Place) -> Outcome {
    let mut rng = Rng::new(seed);
    let mut image = rng.pick(originals).clone();
    mutate(&mut image, &mut rng);
    image.write(place.path()).expect("a directory to write into");
    let reading = if rng.one_in(4) { Reading::Copy } else { Reading::Map };
    let outcome = exercise(place.path(), reading, &mut rng);
    if outcome == Outcome::Ran && rng.one_in(4) {
        let format = *rng.pick(&FORMATS);
        let out = Place::new();
        save(place.path(), &out.path().join("saved"), format);
    }
    outcome
}

#[test]
fn a_checkpoint_broken_at_random_is_refused_or_runs() {
    let originals = valid::all();
    let place = Place::new();
    if let Some(seed) = number("GPTQ_MUTATE_SEED") {
        let outcome = catch_unwind(AssertUnwindSafe(|| run(&originals, seed, &place)));
        say(&format!("seed {seed}: {outcome:?}; its directory is {}", place.keep().display()));
        assert!(outcome.is_ok(), "it panicked, as printed above");
        return;
    }
    let cases = number("GPTQ_MUTATE_CASES").unwrap_or(CASES);
    let mut outcomes: BTreeMap<Outcome, u64> = BTreeMap::new();
    let mut failures = Vec::new();
    let mut slowest = (Duration::ZERO, 0);
    for seed in 0..cases {
        let started = Instant::now();
        match catch_unwind(AssertUnwindSafe(|| run(&originals, seed, &place))) {
            Ok(outcome) => *outcomes.entry(outcome).or_default() += 1,
            Err(_) => failures.push(seed),
        }
        slowest = slowest.max((started.elapsed(), seed));
    }
    let ran = outcomes.get(&Outcome::Ran).copied().unwrap_or(0);
    say(&format!("{cases} cases: {ran} opened and ran, the others were refused; the slowest is {slowest:?}"));
    for (outcome, count) in &outcomes {
        say(&format!("{count:>9} {outcome:?}"));
    }
    assert!(
        failures.is_empty(),
        "{} cases panicked, as printed above; to repeat the first: \
         GPTQ_MUTATE_SEED={} cargo test -p gptq-tests-hostile --test mutations",
        failures.len(),
        failures[0]
    );
    // Where nothing opens, or little is refused, the mutator is broken and not the library right.
    assert!(ran > cases / 20 && outcomes.len() > 12, "the mutations do not reach far: {outcomes:?}");
}

#[test]
fn every_original_opens_and_runs() {
    let place = Place::new();
    for (index, image) in valid::all().iter().enumerate() {
        image.write(place.path()).expect("a directory to write into");
        for reading in [Reading::Map, Reading::Copy] {
            let outcome = exercise(place.path(), reading, &mut Rng::new(7));
            assert_eq!(outcome, Outcome::Ran, "original {index}");
        }
    }
}
