//! The program, run on the checkpoints of this repository.

// A dependency of the program and not of its tests; they run it.
use dense_gemm as _;
use gptq_core as _;
use gptq_torch_fallback as _;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn checkpoints() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/checkpoints")
}

fn application(checkpoint: &str, backend: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_application"));
    command.arg(checkpoints().join(checkpoint)).arg(backend).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_backend_of_a_stranger_runs_every_checkpoint_that_is_asked_of_it_by_name() {
    let mut ran = 0;
    for folder in std::fs::read_dir(checkpoints()).unwrap() {
        let name = folder.unwrap().file_name().into_string().unwrap();
        // In any case, and with either kind of dash.
        let run = application(&name, "Dense-GEMM");
        let printed = text(&run.stdout);
        assert!(run.status.success(), "{name}: {}\n{printed}", text(&run.stderr));
        // What `auto` was told by everyone it asked.
        let (auto, asked) = printed.split_once("dense_gemm:\n").expect("both parts are printed");
        assert!(auto.contains("torch        runs") && auto.contains("dense_gemm   runs 0 of"), "{auto}");
        assert!(auto.contains("could run"), "{auto}");
        assert!(asked.contains("layers, ") && asked.contains("dense_gemm   differs from torch"), "{asked}");
        ran += 1;
    }
    assert!(ran >= 8, "{ran} checkpoints");
}

#[test]
fn a_name_that_is_not_linked_is_refused_with_those_that_are() {
    let run = application("kjv-4bit-g128-sym", "dense_gem");
    let problem = text(&run.stderr);
    assert!(!run.status.success());
    for part in ["backend `dense_gem` is not linked", "linked: torch, dense_gemm", "use its_crate as _;"] {
        assert!(problem.contains(part), "{problem}");
    }
}
