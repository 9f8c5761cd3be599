//! Writes the files that the fuzz targets start from: `seeds CORPUS` makes `CORPUS/header` and `CORPUS/config`.

#![allow(clippy::print_stderr, reason = "a program reports so")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use gptq_tests_hostile::valid;

fn main() -> ExitCode {
    let Some(corpus) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: seeds CORPUS");
        return ExitCode::FAILURE;
    };
    match write(&corpus) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", corpus.display());
            ExitCode::FAILURE
        }
    }
}

/// Every weight file and every configuration of the good checkpoints, numbered.
fn write(corpus: &Path) -> std::io::Result<()> {
    let (headers, configs) = (corpus.join("header"), corpus.join("config"));
    fs::create_dir_all(&headers)?;
    fs::create_dir_all(&configs)?;
    for (index, image) in valid::all().iter().enumerate() {
        for (name, entry) in &image.entries {
            if name.ends_with(".safetensors") {
                fs::write(headers.join(format!("{index}-{name}")), entry.to_bytes())?;
            } else if name == valid::CONFIG {
                fs::write(configs.join(format!("{index}-{name}")), entry.to_bytes())?;
            }
        }
    }
    Ok(())
}
