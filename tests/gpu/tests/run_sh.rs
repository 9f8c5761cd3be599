//! `run.sh`, with programs that only pretend: what it prints, and how it ends.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// Pretends to be the program of all tests: there is a GPU; one test has the outcome `$OUTCOME`; it ends with `$EXIT`.
const GPU: &str = r#"#!/bin/sh
case $* in
    *--list*) printf 'gpu/is_there: test\nmine/contract/bias: test\nmine/sample/few_of_every_kind: test\n'
        printf 'mine/sample/few_for_own_kernels: test\nother/sample/few_of_every_kind: test\n' ;;
    "--exact gpu/is_there")
        printf 'gpu/is_there\t%s\t0.1\ta note\n' "${PRESENT:-PASS}" >>"$GPTQ_TEST_RESULTS" ;;
    "--exact mine/sample/"*) echo "arguments: $*" ;;
    *)
        [ -z "${OUTCOME:-}" ] || printf 'mine/contract/bias\t%s\t1.5\ttwo words\n' "$OUTCOME" >>"$GPTQ_TEST_RESULTS"
        exit "${EXIT:-0}" ;;
esac
"#;

/// Pretends to be compute-sanitizer: fails with one of its tools.
const SANITIZER: &str = r#"#!/bin/sh
echo "$*"
[ "$2" != racecheck ]
"#;

struct Bundle(TempDir);

impl Bundle {
    fn new() -> Self {
        let bundle = Self(TempDir::new().unwrap());
        fs::create_dir(bundle.path().join("bin")).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("run.sh");
        fs::copy(script, bundle.path().join("run.sh")).unwrap();
        fs::write(bundle.path().join("bundle.txt"), "commit 0\n").unwrap();
        bundle.program("bin/gpu", GPU);
        bundle.program("bin/smoke", "#!/bin/sh\necho 'eleven checks, 0 failed'\n");
        bundle
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn program(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The exit code, and what was printed.
    fn run(&self, stages: &[&str], variables: &[(&str, &str)]) -> (i32, String) {
        let mut command = Command::new("sh");
        command.arg(self.path().join("run.sh")).args(stages).current_dir(self.path());
        for variable in ["OUT", "LIMIT", "BACKEND", "OUTCOME", "EXIT", "PRESENT", "TABLE", "TABLE_OPTIONS"] {
            command.env_remove(variable);
        }
        let path = format!("{}:/usr/bin:/bin", self.path().join("tools").display());
        let done = command.env("PATH", path).envs(variables.iter().copied()).output().unwrap();
        let printed = [done.stdout, done.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
        (done.status.code().unwrap(), printed)
    }
}

/// Whether a line of the table has these words, in this order.
fn has_row(printed: &str, words: &[&str]) -> bool {
    printed.lines().any(|line| line.split_whitespace().collect::<Vec<_>>().starts_with(words))
}

#[test]
fn a_run_in_which_all_passed_ends_with_0_and_keeps_its_table() {
    let bundle = Bundle::new();
    let (code, printed) = bundle.run(&["conformance"], &[("OUTCOME", "PASS")]);
    assert_eq!(code, 0, "{printed}");
    assert!(has_row(&printed, &["gpu/is_there", "PASS", "0.1", "a", "note"]), "{printed}");
    assert!(has_row(&printed, &["mine/contract/bias", "PASS", "1.5", "two", "words"]), "{printed}");
    assert!(has_row(&printed, &["gptq-cuda", "PASS"]) && printed.contains("eleven checks"), "{printed}");
    assert!(printed.contains("3 passed, 0 failed, 0 skipped"), "{printed}");
    let table = fs::read_to_string(bundle.path().join("out/table.txt")).unwrap();
    assert!(has_row(&table, &["mine/contract/bias", "PASS"]) && table.contains("3 passed"), "{table}");
}

#[test]
fn a_test_that_failed_fails_the_run() {
    let (code, printed) = Bundle::new().run(&["conformance"], &[("OUTCOME", "FAIL"), ("EXIT", "101")]);
    assert_eq!(code, 1, "{printed}");
    assert!(printed.contains("2 passed, 1 failed"), "one line for one failure: {printed}");
}

#[test]
fn a_program_that_ends_before_its_tests_or_runs_none_fails_the_run() {
    let killed = [("OUTCOME", "PASS"), ("EXIT", "139")];
    let (code, printed) = Bundle::new().run(&["goldens"], &killed);
    assert_eq!(code, 1, "{printed}");
    assert!(has_row(&printed, &["bin/gpu", "FAIL"]) && printed.contains("signal 11"), "{printed}");

    let (code, printed) = Bundle::new().run(&["goldens"], &[]);
    assert_eq!(code, 1, "{printed}");
    assert!(has_row(&printed, &["bin/gpu", "FAIL"]) && printed.contains("no test ran"), "{printed}");
}

#[test]
fn a_machine_without_a_gpu_ends_the_run_with_2_before_anything_else() {
    let (code, printed) = Bundle::new().run(&[], &[("PRESENT", "FAIL")]);
    assert_eq!(code, 2, "{printed}");
    assert!(printed.contains("there is no GPU") && !printed.contains("gptq-cuda"), "{printed}");
}

#[test]
fn every_tool_of_the_sanitizer_has_a_line_and_one_that_finds_something_fails_the_run() {
    let bundle = Bundle::new();
    let (code, printed) = bundle.run(&["sanitizer"], &[]);
    assert_eq!(code, 1, "{printed}");
    assert!(printed.contains("compute-sanitizer is not on PATH"), "{printed}");

    fs::create_dir(bundle.path().join("tools")).unwrap();
    bundle.program("tools/compute-sanitizer", SANITIZER);
    let (code, printed) = bundle.run(&["sanitizer"], &[]);
    assert_eq!(code, 1, "{printed}");
    for (tool, result) in
        [("memcheck", "PASS"), ("racecheck", "FAIL"), ("initcheck", "PASS"), ("synccheck", "PASS")]
    {
        assert!(has_row(&printed, &[tool, "mine", result]), "{tool}: {printed}");
    }
    assert!(has_row(&printed, &["initcheck-dense", "mine", "PASS"]), "{printed}");
    assert!(printed.contains("--exact mine/sample/few_of_every_kind"), "{printed}");
    assert!(printed.contains("--exact mine/sample/few_for_own_kernels"), "{printed}");

    let (_, printed) = bundle.run(&["sanitizer"], &[("BACKEND", "other")]);
    for (tool, result) in [("memcheck", "other"), ("racecheck", "SKIP")] {
        assert!(has_row(&printed, &[tool, result]), "{tool}: {printed}");
    }
}

#[test]
fn measurements_run_and_a_stage_that_there_is_not_is_refused() {
    let bundle = Bundle::new();
    let (code, printed) = bundle.run(&["bench"], &[]);
    assert!(code == 1 && printed.contains("there is no bin/bench-"), "{printed}");
    bundle.program("bin/bench-mine", "#!/bin/sh\necho 'as fast as light'\n");
    let (code, printed) = bundle.run(&["bench"], &[]);
    assert_eq!(code, 0, "{printed}");
    assert!(has_row(&printed, &["bench-mine", "PASS"]) && printed.contains("as fast as light"), "{printed}");

    let (code, printed) = bundle.run(&["benches"], &[]);
    assert_eq!(code, 2, "{printed}");
    assert!(printed.contains("there is no stage benches") && printed.contains("OUT=FOLDER"), "{printed}");
}

/// Pretends to be `gptq`: two backends can use the GPU, one cannot.
const GPTQ: &str = r#"#!/bin/sh
case $1 in
    backends) printf 'fast\n  priority  60\n  on cuda:0  bits 4\n\nold\n  on cuda:0  not usable: too old\n\nplain\n  on cuda:0  all\n' ;;
    bench) echo "$*" ;;
esac
"#;

#[test]
fn the_table_is_of_all_backends_that_the_gpu_can_run_or_of_those_that_are_named() {
    let bundle = Bundle::new();
    bundle.program("bin/gptq", GPTQ);
    let (code, printed) = bundle.run(&["table"], &[]);
    assert_eq!(code, 0, "{printed}");
    assert!(has_row(&printed, &["gptq", "bench", "PASS"]), "{printed}");
    assert!(
        printed.contains("--device cuda:0 --backend fast,plain --force --report out/table.json"),
        "{printed}"
    );

    let (code, printed) =
        bundle.run(&["table"], &[("TABLE", "old"), ("TABLE_OPTIONS", "--rows 1 --act-order")]);
    assert_eq!(code, 0, "{printed}");
    assert!(printed.contains("--backend old --force"), "{printed}");
    assert!(printed.contains("--plot out/roofline.svg --rows 1 --act-order"), "{printed}");
}
