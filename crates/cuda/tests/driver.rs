//! Drivers that no test machine has: each is a small library of that name, made here, and a process that finds it first.
#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fs;
use std::path::Path;
use std::process::Command;

const OLD: &str = "int cuDriverGetVersion(int *version) { *version = 11040; return 0; }";

const WITHOUT_DEVICE: &str = r#"
    int cuDriverGetVersion(int *version) { *version = 12040; return 0; }
    int cuInit(unsigned flags) { (void)flags; return 100; }
"#;

const STUB: &str = "int cuDriverGetVersion(int *version) { (void)version; return 34; }";

const BROKEN: &str = r#"
    int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
    int cuInit(unsigned flags) { (void)flags; return 999; }
    int cuGetErrorName(int error, const char **text) { (void)error; *text = "CUDA_ERROR_UNKNOWN"; return 0; }
    int cuGetErrorString(int error, const char **text) { (void)error; *text = "unknown error"; return 0; }
"#;

/// Runs in a process of its own, below.
#[test]
fn child_that_says_what_it_finds() {
    if std::env::var_os("GPTQ_TEST_SAYS_WHAT_IT_FINDS").is_some() {
        match gptq_cuda::probe(0) {
            Ok(info) => println!("found: {}", info.name),
            Err(rejection) => println!("found: {rejection}"),
        }
    }
}

/// What [`gptq_cuda::probe`] says where the driver's library is made of `source`.
fn found_with(source: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let c = folder.path().join("driver.c");
    fs::write(&c, source).unwrap();
    for name in ["libcuda.so", "libcuda.so.1"] {
        compile(&c, &folder.path().join(name));
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "child_that_says_what_it_finds", "--nocapture"]);
    child.env("GPTQ_TEST_SAYS_WHAT_IT_FINDS", "1").env("LD_LIBRARY_PATH", folder.path());
    let output = child.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    match text.lines().find_map(|line| line.split_once("found: ")) {
        Some((_, found)) => found.to_owned(),
        None => panic!("the process ended with {}: {output:?}", output.status),
    }
}

fn compile(source: &Path, library: &Path) {
    let mut cc = Command::new("cc");
    let done =
        cc.args(["-shared", "-fPIC", "-o"]).arg(library).arg(source).status().expect("a C compiler, cc");
    assert!(done.success(), "{} does not compile", source.display());
}

#[test]
fn a_driver_that_is_too_old_is_a_rejection_with_both_versions() {
    let found = found_with(OLD);
    assert!(found.contains("CUDA 11.4") && found.contains("CUDA 12.0") && found.contains("525"), "{found}");
}

#[test]
fn a_driver_without_a_gpu_is_no_such_device() {
    let found = found_with(WITHOUT_DEVICE);
    assert!(found.contains("no cuda:0"), "{found}");
}

#[test]
fn a_library_that_only_serves_to_link_is_told_from_a_driver() {
    let found = found_with(STUB);
    assert!(found.contains("stub"), "{found}");
}

#[test]
fn a_driver_that_does_not_start_says_what_it_answered() {
    let found = found_with(BROKEN);
    assert!(found.contains("CUDA_ERROR_UNKNOWN") && found.contains("nvidia-smi"), "{found}");
}
