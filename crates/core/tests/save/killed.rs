//! A save that is killed leaves its whole directory or none.

#![cfg(unix)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use gptq_core::checkpoint::{CheckpointFormat, SaveOptions};
use serde_json::json;
use tempfile::TempDir;

use crate::formats::{save, to};
use crate::source::*;

/// The variable that makes this test the child that saves, and tells it where.
const CHILD: &str = "GPTQ_TEST_SAVE_UNTIL_KILLED";
const READY: &str = "about to save";
/// Saves that are killed, and the longest that all of them may take on a slow machine.
const KILLS: usize = 50;
const PATIENCE: Duration = Duration::from_secs(15);

/// Shards, so that there is much to leave half-done.
fn options() -> SaveOptions<'static> {
    SaveOptions { max_shard_bytes: 100_000, ..to(CheckpointFormat::GptqV2) }
}

#[test]
fn a_killed_save_leaves_a_whole_checkpoint_or_none() {
    if let Some(dir) = std::env::var_os(CHILD) {
        let dir = Path::new(&dir);
        let checkpoint = open(&dir.join("model"));
        println!("{READY}");
        std::io::stdout().flush().unwrap();
        save(&checkpoint, &dir.join("out"), &options());
        return;
    }
    let layers: Vec<_> = (0..8)
        .map(|i| Layer { k: 256, n: 256, ..Layer::new(&format!("layers.{i}"), 4, ZeroKind::Asymmetric) })
        .collect();
    let source = Source::new(CheckpointFormat::Gptq, &layers, json!({}));
    source.write("tokenizer.json", "{}");
    let outs = TempDir::new().unwrap();
    fs::rename(source.path(), outs.path().join("model")).unwrap();
    let out = outs.path().join("out");

    // How long a save takes here, and what it leaves.
    let started = Instant::now();
    let (mut child, _output) = start(outs.path());
    let ready = Instant::now();
    assert!(child.wait().unwrap().success());
    let duration = ready.elapsed();
    let whole = files_in(&out);
    assert!(whole.len() > 4, "{:?}", whole.keys());
    fs::remove_dir_all(&out).unwrap();

    let mut random = Random(2026);
    let (mut finished, mut kills) = (0, 0);
    while kills < KILLS && (started.elapsed() < PATIENCE || kills < 5) {
        let (mut child, _output) = start(outs.path());
        // A little past the end too: the rename and what follows it are the last of it.
        std::thread::sleep(duration.mul_f64(random.below(1100) as f64 / 1000.0));
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        if out.exists() {
            assert_eq!(files_in(&out), whole, "after {kills} kills: what has the name is not whole");
            open(&out);
            fs::remove_dir_all(&out).unwrap();
            finished += 1;
        }
    }
    println!("{kills} saves of {duration:?} were killed, {finished} had finished");

    // Nothing that they left is in the way of the next one.
    let report = save(&open(&outs.path().join("model")), &out, &options());
    assert_eq!(files_in(&out), whole);
    assert!(report.leftovers.len() <= kills - finished, "{:?}", report.leftovers);
}

/// Starts a child and waits until it is about to save.
fn start(dir: &Path) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed::a_killed_save_leaves_a_whole_checkpoint_or_none", "--nocapture"])
        .env(CHILD, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Kept open: a child that prints to nobody fails.
    let mut output = BufReader::new(child.stdout.take().unwrap());
    assert!(output.by_ref().lines().any(|line| line.unwrap().contains(READY)), "the child did not start");
    (child, output)
}
