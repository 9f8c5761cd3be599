//! `cargo xtask codegen`, the part that needs bindgen: a program of its own, so that the other tasks need not wait for
//! bindgen to compile, nor have a libclang.
//!
//! Usage: `xtask-codegen ROOT [--check]`, with `LIBCLANG_PATH` in the environment; `cargo xtask codegen` sets both.

use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use bindgen::callbacks::{ItemInfo, ItemKind, ParseCallbacks};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Which header becomes which module: in the crate that launches the kernels of a family, or of several.
const BINDINGS: [(&str, &str); 6] = [
    ("crates/kernel-build/tests/data/scale/params.h", "crates/cuda/examples/smoke/params.rs"),
    ("kernels/decoder/params.h", "crates/candle/src/cuda/params.rs"),
    ("kernels/limits/params.h", "crates/cuda/src/timing/params.rs"),
    ("kernels/dequantize/params.h", "crates/torch-fallback/src/cuda/params.rs"),
    ("kernels/exllama_v1/params.h", "crates/exllama-v1/src/params.rs"),
    ("kernels/include/tile.h", "crates/tiles/src/params.rs"),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [root] => run(Path::new(root), false),
        [root, "--check"] => run(Path::new(root), true),
        _ => Err("usage: cargo xtask codegen [--check]".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(root: &Path, check: bool) -> Result<()> {
    find_libclang()?;
    let mut stale = Vec::new();
    for (header, module) in BINDINGS {
        let generated = generate(root, header).map_err(|error| format!("{header}: {error}"))?;
        let path = root.join(module);
        if fs::read_to_string(&path).is_ok_and(|committed| committed == generated) {
            continue;
        }
        if check {
            stale.push(module);
            continue;
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&path, generated).map_err(|error| format!("{module}: {error}"))?;
        println!("wrote {module}");
    }
    if stale.is_empty() {
        return Ok(());
    }
    Err(format!("{} differ from their headers; run `cargo xtask codegen` and commit them", stale.join(", "))
        .into())
}

/// bindgen panics where it finds no libclang; so it is made to look for one where that can be said better.
fn find_libclang() -> Result<()> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let found = std::panic::catch_unwind(bindgen::clang_version);
    std::panic::set_hook(hook);
    match found {
        Ok(_) => Ok(()),
        Err(_) => Err(
            "no libclang found; `pip install libclang==18.1.1` into the active Python environment, or set \
                       LIBCLANG_PATH to the folder of libclang.so"
                .into(),
        ),
    }
}

/// The Rust of a header: its structs with comments and compile-time checks of their layout, and its constants.
fn generate(root: &Path, header: &str) -> Result<String> {
    let path = root.join(header);
    let folder = path.parent().unwrap_or(root);
    let bindings = bindgen::Builder::default()
        .header(path.display().to_string())
        .clang_args(["-x", "c", "-std=c11", "-fparse-all-comments"])
        .clang_arg(format!("-I{}", folder.display()))
        .clang_arg(format!("-I{}", root.join("kernels/include").display()))
        // What the header includes from beside the kernels too, and nothing of the system's.
        .allowlist_file(format!("{}/.*", escaped(root)))
        .rust_target(bindgen::RustTarget::stable(88, 0).map_err(|error| error.to_string())?)
        .rust_edition(bindgen::RustEdition::Edition2024)
        .use_core()
        .layout_tests(true)
        .derive_debug(true)
        .parse_callbacks(Box::new(RustNames))
        .formatter(bindgen::Formatter::None)
        .disable_header_comment()
        .generate()?;
    let text = format!(
        "//! Generated from {header} by `cargo xtask codegen`; do not edit.\n\
         #![allow(clippy::all, rustdoc::all)] // It is written for C.\n\
         #![allow(dead_code, missing_docs, unreachable_pub, unused_qualifications)]\n\n{bindings}"
    );
    rustfmt(root, &text)
}

/// A path as a regular expression that matches it.
fn escaped(path: &Path) -> String {
    let mut pattern = String::new();
    for letter in path.display().to_string().chars() {
        if !letter.is_alphanumeric() && letter.is_ascii() {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern
}

/// C's `gptq_dequantize_params` is Rust's `GptqDequantizeParams`.
#[derive(Debug)]
struct RustNames;

impl ParseCallbacks for RustNames {
    fn item_name(&self, item: ItemInfo<'_>) -> Option<String> {
        if !matches!(item.kind, ItemKind::Type) {
            return None;
        }
        let capitalized = |word: &str| {
            let mut letters = word.chars();
            letters
                .next()
                .map(|first| first.to_uppercase().chain(letters).collect::<String>())
                .unwrap_or_default()
        };
        Some(item.name.split('_').map(capitalized).collect())
    }
}

fn rustfmt(root: &Path, text: &str) -> Result<String> {
    let mut command = Command::new("rustfmt");
    command.args(["--edition", "2024", "--config-path"]).arg(root.join("rustfmt.toml"));
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut rustfmt = spawned.map_err(|error| format!("rustfmt: {error}; `rustup component add rustfmt`"))?;
    if let Some(mut input) = rustfmt.stdin.take() {
        input.write_all(text.as_bytes())?;
    }
    let done = rustfmt.wait_with_output()?;
    if !done.status.success() {
        return Err("rustfmt refused the generated code".into());
    }
    Ok(String::from_utf8(done.stdout)?)
}
