//! What all commands share: help, exit codes, closed pipes.

use std::process::Stdio;

use crate::support::{WHOLE, assert_says, checkpoint, gptq, program};

const COMMANDS: [&str; 7] = ["inspect", "finalize", "convert", "verify", "backends", "forward", "dequantize"];

#[test]
fn help_and_version_are_no_errors() {
    assert_says(&gptq(&["--version"]).success(), &["gptq "]);
    let help = gptq(&["--help"]).success();
    assert_says(&help, &COMMANDS);
    assert_says(&help, &["Exit codes", "minus one"]);
}

#[test]
fn every_command_explains_itself_with_an_example() {
    for command in COMMANDS {
        let help = gptq(&[command, "--help"]).success();
        assert_says(&help, &["Example", &format!("gptq {command}"), "--json", "--verbose"]);
    }
    let help = gptq(&["finalize", "--help"]).success();
    assert_says(
        &help,
        &["post_init_model", "1. Convert", "2. Initialise", "3. Set the maximum input length"],
    );
}

#[test]
fn every_command_that_opens_a_checkpoint_has_the_options_for_reading_it() {
    for command in COMMANDS.into_iter().filter(|command| *command != "backends") {
        let help = gptq(&[command, "-h"]).success();
        assert_says(&help, &["--zeros-dialect", "[possible values: field, word]", "--no-mmap"]);
        assert_says(&help, &["--assume-format", "[possible values: gptq, gptq_v2]"]);
        let dir = checkpoint(WHOLE);
        let dir = dir.to_str().expect("a path that is text");
        let error = gptq(&[command, dir, "--zeros-dialect", "wrap"]).usage();
        assert_says(&error, &["field, word"]);
    }
}

#[test]
fn a_wrong_command_line_ends_with_2_and_prints_nothing_on_standard_output() {
    for args in [
        &[][..],
        &["nonsense"],
        &["inspect"],
        &["forward", "dir"],
        &["inspect", "dir", "--nonsense"],
        &["convert", "dir", "out"],
    ] {
        assert_says(&gptq(args).usage(), &["Usage: gptq"]);
    }
}

#[test]
fn options_of_every_command_may_stand_before_it() {
    let dir = checkpoint(WHOLE);
    let json = gptq(&["--json", "inspect", dir.to_str().expect("a path that is text")]).json();
    assert_eq!(json["layer_count"], 28);
}

#[test]
fn a_reader_who_has_read_enough_ends_the_program_quietly() {
    let dir = checkpoint(WHOLE);
    for command in [&["inspect"][..], &["inspect", "--json"], &["finalize"]] {
        let mut program = program(command);
        program.arg(&dir).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = program.spawn().expect("the program starts");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(0), "{command:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{command:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_report_that_cannot_be_written_is_an_error() {
    let full =
        std::fs::File::options().write(true).open("/dev/full").expect("the device that is always full");
    let output = program(&["backends"]).stdout(full).stderr(Stdio::piped()).output().expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    assert_says(&String::from_utf8_lossy(&output.stderr), &["error: cannot write the report", "caused by"]);
}
