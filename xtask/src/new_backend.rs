//! `new-backend`: the skeleton of a backend crate. Its tests pass; its author replaces the product.
//!
//! docs/writing-a-backend.md shows the same files. Continuous integration makes both kinds, and tests them.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use crate::{Result, at, workspace_root};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The name of the crate: lower-case words joined by `-` or `_`. Users ask for it with `_`.
    name: String,
    /// For GPUs of NVIDIA, with a kernel of its own.
    #[arg(long)]
    cuda: bool,
    /// The folder to make [default: one of this name, beside the checkout of gptq-rs].
    #[arg(long)]
    out: Option<PathBuf>,
}

/// A file of a skeleton: its path, and its text for a crate called `my-backend`.
type File = (&'static str, &'static str);

macro_rules! files {
    ($($folder:literal: $($path:literal)*;)*) => {
        &[$($(($path, include_str!(concat!("new_backend/", $folder, "/", $path)))),*),*]
    };
}

const CPU: &[File] = files! {
    "cpu": "Cargo.toml" "src/lib.rs" "src/backend.rs" "src/linear.rs" "tests/conformance.rs";
    "both": "gitignore" "examples/verify.rs";
};
const CUDA: &[File] = files! {
    "cuda": "Cargo.toml" "build.rs" "src/lib.rs" "src/backend.rs" "src/linear.rs" "src/params.rs" "tests/conformance.rs"
        "examples/build-kernels.rs" "kernels/my_backend/params.h" "kernels/my_backend/my_backend.cu";
    "both": "gitignore" "examples/verify.rs";
};

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { name, cuda, out } = arguments;
    check(name)?;
    let root = workspace_root().canonicalize()?;
    let out = match out {
        Some(out) => std::path::absolute(out)?,
        None => root.with_file_name(name),
    };
    if out.exists() {
        return Err(format!("{}: it exists; name another folder with --out", out.display()).into());
    }
    fs::create_dir_all(&out).map_err(at(&out))?;
    let gptq_rs = relative(&out.canonicalize()?, &root);
    for (path, text) in files(name, *cuda, &gptq_rs.display().to_string().replace('\\', "/")) {
        let file = out.join(path);
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).map_err(at(folder))?;
        }
        fs::write(&file, text).map_err(at(&file))?;
    }
    // A longer name breaks lines elsewhere. Whoever has no rustfmt sees it later.
    let _ = Command::new("cargo").arg("fmt").current_dir(&out).status();
    // The versions that gptq-rs is tested with; cargo drops what the crate does not need.
    fs::copy(root.join("Cargo.lock"), out.join("Cargo.lock")).map_err(at(&out))?;

    println!("{}\n", out.display());
    println!("  cd {}", out.display());
    if *cuda {
        println!("  cargo run --example build-kernels      compile the kernel; needs nvcc, no GPU");
    }
    println!("  cargo test                             the contract; it passes");
    println!("  cargo run --release --example verify -- DIR     a checkpoint");
    println!("\nThen write a better product in src/linear.rs, and declare in src/lib.rs what it can run.");
    Ok(())
}

/// That a crate, and a backend of it, can be called so.
fn check(name: &str) -> Result<()> {
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    let good = name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(letter);
    // The words of the templates would be replaced twice.
    if good && !name.replace('-', "_").contains("my_backend") {
        return Ok(());
    }
    Err(format!(
        "`{name}` cannot be its name: write lower-case words joined by `-` or `_`, other than my-backend"
    )
    .into())
}

/// The files of a skeleton.
fn files(name: &str, cuda: bool, gptq_rs: &str) -> Vec<(String, String)> {
    let snake = name.replace('-', "_");
    let words: String = snake.split('_').map(capitalized).collect();
    let rename = |text: &str| {
        text.replace("my_backend", &snake)
            .replace("my-backend", name)
            .replace("MyBackend", &words)
            .replace("MY_BACKEND", &snake.to_ascii_uppercase())
            .replace("GPTQ_RS", gptq_rs)
    };
    let device = |text: String| if cuda { text.replace("Device::Cpu", "Device::Cuda(0)") } else { text };
    let files = if cuda { CUDA } else { CPU };
    // Under its own name, git would heed it where it is a template.
    let path = |path: &str| if path == "gitignore" { ".gitignore".into() } else { rename(path) };
    files.iter().map(|(name, text)| (path(name), device(rename(text)))).collect()
}

fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
}

/// The way from one folder to another, both absolute and without links; `to` itself where there is none.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let common = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    if common == 0 {
        return to.to_owned();
    }
    let up = from.components().skip(common).map(|_| Component::ParentDir);
    let path: PathBuf = up.chain(to.components().skip(common)).collect();
    if path.as_os_str().is_empty() { PathBuf::from(".") } else { path }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::Stdio;

    use super::*;

    /// The fenced blocks of a page, other than commands and output.
    fn code_blocks(page: &str) -> Vec<&str> {
        let mut blocks = Vec::new();
        let mut rest = page;
        while let Some((_, fenced)) = rest.split_once("\n```") {
            let (language, code) = fenced.split_once('\n').expect("a fence has a line of its own");
            let end = code.find("\n```").expect("a fence ends") + 1;
            if ["toml", "rust", "c", "cuda"].contains(&language) {
                blocks.push(&code[..end]);
            }
            rest = &code[end + 3..];
        }
        blocks
    }

    #[test]
    fn the_code_on_the_page_is_the_code_of_the_skeletons() {
        let page = fs::read_to_string(workspace_root().join("docs/writing-a-backend.md")).unwrap();
        let (cpu, cuda) = page.split_once("\n## For CUDA\n").expect("the page has a part for CUDA");
        // Beside these the page speaks of what `cargo new` or git would bring, and of the program that verifies.
        let told = ["gitignore", "examples/verify.rs"];
        for (part, files) in [(cpu, CPU), (cuda, CUDA)] {
            let blocks = code_blocks(part);
            for block in &blocks {
                let known = files.iter().any(|(_, text)| text == block);
                assert!(known, "the page shows what is in no skeleton:\n{block}");
            }
            for (name, text) in files.iter().filter(|(name, _)| !told.contains(name)) {
                assert!(blocks.contains(text), "the page does not show {name} as it is");
            }
        }
    }

    #[test]
    fn the_files_are_formatted_as_rustfmt_does_by_itself() {
        for (path, text) in CPU.iter().chain(CUDA).filter(|(path, _)| path.ends_with(".rs")) {
            let mut rustfmt = Command::new("rustfmt");
            rustfmt.args(["--edition", "2024", "--config", "max_width=100,use_small_heuristics=Default"]);
            let mut rustfmt = rustfmt.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            rustfmt.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
            let formatted = String::from_utf8(rustfmt.wait_with_output().unwrap().stdout).unwrap();
            assert!(formatted == *text, "{path}: rustfmt makes it\n{formatted}");
        }
    }

    #[test]
    fn a_skeleton_has_its_name_everywhere_and_no_word_of_the_template_is_left() {
        for cuda in [false, true] {
            let files = files("fast-npu2", cuda, "../gptq-rs");
            for (path, text) in &files {
                for left in ["my_backend", "my-backend", "MyBackend", "MY_BACKEND", "GPTQ_RS"] {
                    assert!(!path.contains(left) && !text.contains(left), "{path}: {left}");
                }
            }
            let text = |path: &str| &files.iter().find(|(name, _)| name == path).unwrap().1;
            assert!(text("Cargo.toml").contains("\"../gptq-rs/crates/core\""));
            assert!(text("src/lib.rs").contains("BackendId::new(\"fast_npu2\")"));
            assert!(text("src/backend.rs").contains("FastNpu2Linear"));
            assert_eq!(text("examples/verify.rs").contains("Device::Cuda(0)"), cuda);
            assert!(files.iter().any(|(path, _)| path == "kernels/fast_npu2/fast_npu2.cu") == cuda);
        }
    }

    #[test]
    fn names_that_no_crate_can_have_are_refused() {
        for good in ["a", "dense-gemm", "npu_2"] {
            check(good).unwrap();
        }
        for bad in ["", "2fast", "Fast", "my-backend", "a/b", "with space", "-a"] {
            assert!(check(bad).is_err(), "`{bad}`");
        }
    }

    #[test]
    fn the_way_from_one_folder_to_another() {
        for (from, to, expected) in [
            ("/home/a/mine", "/home/a/gptq-rs", "../gptq-rs"),
            ("/home/a/gptq-rs/target/x", "/home/a/gptq-rs", "../.."),
            ("/tmp/mine", "/home/gptq-rs", "../../home/gptq-rs"),
            ("/a", "/a", "."),
        ] {
            assert_eq!(relative(Path::new(from), Path::new(to)), Path::new(expected), "{from} to {to}");
        }
    }
}
