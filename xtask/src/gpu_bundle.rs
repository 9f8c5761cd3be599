//! `gpu-bundle`: everything that a GPU machine without Rust needs to test and measure this workspace, in one folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use gptq_kernel_build::{Architecture, WITHOUT_KERNELS};
use serde_json::Value;

use crate::build_kernels;
use crate::{Result, at, workspace_root};

/// Small enough to travel.
const MOST_BYTES: u64 = 64_000_000;

/// The programs: what cargo builds them as, and their name in the bundle. What ends in `-cuda` are ordinary tests of a
/// backend's own, and what begins with `bench-` measures; `run.sh` finds them by that.
const PROGRAMS: [Program; 7] = [
    program("gptq", "gptq-cli", Kind::Bin, "gptq", ""),
    program("smoke", "gptq-cuda", Kind::Example, "smoke", ""),
    program("gpu", "gptq-tests-gpu", Kind::Test, "gpu", ""),
    program("exllama-v1-cuda", "gptq-exllama-v1", Kind::Test, "cuda", ""),
    program("exllama-v2-cuda", "gptq-exllama-v2", Kind::Test, "cuda", ""),
    program("torch-cuda", "gptq-torch-fallback", Kind::Test, "cuda", "cuda"),
    program("bench-torch", "gptq-torch-fallback", Kind::Bench, "cuda", "cuda"),
];

/// Families of kernels that are not in kernels/: `smoke` launches this one.
const OTHER_FAMILIES: [&str; 1] = ["crates/kernel-build/tests/data/scale"];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Architectures of the GPUs that it is for, such as 80 or 90a.
    #[arg(long, value_delimiter = ',', default_value = "90a")]
    arch: Vec<Architecture>,
    /// The folder. What an earlier bundle has left in it is replaced.
    #[arg(long, default_value = "gpu-bundle")]
    out: PathBuf,
    /// Keep the kernels' line numbers, for profilers and compute-sanitizer. Kernels are three times as large with them.
    #[arg(long)]
    lineinfo: bool,
}

struct Program {
    name: &'static str,
    package: &'static str,
    kind: Kind,
    target: &'static str,
    features: &'static str,
}

const fn program(
    name: &'static str,
    package: &'static str,
    kind: Kind,
    target: &'static str,
    features: &'static str,
) -> Program {
    Program { name, package, kind, target, features }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bin,
    Example,
    Test,
    Bench,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let root = workspace_root();
    let out = root.join(&arguments.out);
    clear(&out)?;

    let mut families = build_kernels::all_families(&root.join("kernels"))?;
    families.extend(OTHER_FAMILIES.map(|family| root.join(family)));
    build_kernels::run(&build_kernels::Arguments {
        arch: arguments.arch.clone(),
        family: families.iter().map(|folder| folder.display().to_string()).collect(),
        out: out.join("kernels"),
        jobs: None,
        verbose: false,
        lineinfo: arguments.lineinfo,
    })?;
    for program in &PROGRAMS {
        let built = build(&root, program)?;
        copy(&built, &out.join("bin").join(program.name))?;
    }
    for folder in ["checkpoints", "goldens"] {
        copy_folder(&root.join("tests/fixtures").join(folder), &out.join("fixtures").join(folder))?;
    }
    copy(&root.join("tests/gpu/run.sh"), &out.join("run.sh"))?;
    let text = describe(&root, arguments);
    fs::write(out.join("bundle.txt"), &text).map_err(at(&out))?;

    print!("{text}");
    println!("{}", sizes(&out, &files(&out)?, MOST_BYTES)?);
    println!("copy it to the GPU machine and start run.sh there");
    Ok(())
}

/// A table of the largest files of the folder, and all of them.
///
/// Fails, with the table, where they have more than `most_bytes`.
fn sizes(out: &Path, files: &[(PathBuf, u64)], most_bytes: u64) -> Result<String> {
    const SHOWN: usize = 12;
    let mut table = String::new();
    for (path, bytes) in files.iter().take(SHOWN) {
        let path = path.strip_prefix(out).unwrap_or(path);
        table.push_str(&format!("  {:7.1} MB  {}\n", megabytes(*bytes), path.display()));
    }
    let bytes = files.iter().map(|(_, bytes)| bytes).sum();
    table.push_str(&format!("  {:7.1} MB  all {} files of {}", megabytes(bytes), files.len(), out.display()));
    if bytes <= most_bytes {
        return Ok(table);
    }
    let most = megabytes(most_bytes);
    Err(format!(
        "the bundle may have {most:.1} MB:\n{table}\nbuild fewer architectures (--arch), do without --lineinfo, or leave \
         out what is largest"
    )
    .into())
}

/// Empties the folder, if it is one that an earlier run has made.
fn clear(out: &Path) -> Result<()> {
    if !out.exists() {
        return Ok(());
    }
    let is_empty = fs::read_dir(out).map_err(at(out))?.next().is_none();
    if !is_empty && !out.join("bundle.txt").is_file() {
        return Err(
            format!("{}: it is there already and no bundle; name another folder", out.display()).into()
        );
    }
    // Kernels stay: those that have not changed are not built again. What a build that was killed has left does not.
    let kernels = out.join("kernels");
    if kernels.is_dir() {
        for entry in fs::read_dir(&kernels).map_err(at(&kernels))? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(b".") && entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path()).map_err(at(&entry.path()))?;
            }
        }
    }
    for folder in ["bin", "fixtures"] {
        let folder = out.join(folder);
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(at(&folder))?;
        }
    }
    Ok(())
}

/// Builds one program, and says where it is.
fn build(root: &Path, program: &Program) -> Result<PathBuf> {
    let Program { package, target, kind, features, .. } = program;
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // The bundle has the kernels in a folder, once for all programs.
    command.current_dir(root).stderr(Stdio::inherit()).env(WITHOUT_KERNELS, "1");
    match kind {
        Kind::Bin => command.args(["build", "--bin", target]),
        Kind::Example => command.args(["build", "--example", target]),
        Kind::Test => command.args(["test", "--no-run", "--test", target]),
        Kind::Bench => command.args(["bench", "--no-run", "--bench", target]),
    };
    command.args(["--profile", "bundle", "--locked", "--package", package, "--features", features]);
    command.arg("--message-format=json-render-diagnostics");
    let done = command.output()?;
    if !done.status.success() {
        return Err(format!("`{target}` of {package} does not build; cargo says above why").into());
    }
    let messages = String::from_utf8(done.stdout)?;
    executable(&messages, target)
        .ok_or_else(|| format!("cargo built `{target}` of {package} and did not say where it is").into())
}

/// The executable of a target, from what cargo says of its artifacts: one JSON object a line.
fn executable(messages: &str, target: &str) -> Option<PathBuf> {
    let objects = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of_target = |object: &Value| {
        let name = object.pointer("/target/name").and_then(Value::as_str);
        let path = object.get("executable").and_then(Value::as_str);
        if name == Some(target) { path.map(PathBuf::from) } else { None }
    };
    objects.filter_map(|object| of_target(&object)).next_back()
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(at(folder))?;
    }
    // With its permissions: programs stay programs.
    fs::copy(from, to).map_err(at(from))?;
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    for (path, _) in files(from)? {
        let inner = path.strip_prefix(from)?;
        copy(&path, &to.join(inner))?;
    }
    Ok(())
}

/// Every file in a folder and in those in it, the largest first.
fn files(folder: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(at(&folder))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = fs::metadata(&path).map_err(at(&path))?.len();
                found.push((path, bytes));
            }
        }
    }
    found.sort_by(|(a, a_bytes), (b, b_bytes)| b_bytes.cmp(a_bytes).then_with(|| a.cmp(b)));
    Ok(found)
}

/// What the bundle was made of.
fn describe(root: &Path, arguments: &Arguments) -> String {
    let say = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).current_dir(root).args(arguments).output();
        let text = output.ok().filter(|done| done.status.success()).map(|done| done.stdout);
        text.map_or_else(|| "unknown".into(), |text| String::from_utf8_lossy(&text).trim().to_owned())
    };
    let changed = say("git", &["status", "--porcelain", "--untracked-files=no"]);
    let architectures: Vec<String> = arguments.arch.iter().map(ToString::to_string).collect();
    format!(
        "commit {}{}, {}, kernels for sm_{}\n",
        say("git", &["rev-parse", "--short=12", "HEAD"]),
        if changed.is_empty() { "" } else { " with changes" },
        say("rustc", &["--version"]),
        architectures.join(", sm_")
    )
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_executable_of_a_target_is_the_one_that_was_built() {
        let messages = concat!(
            "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"gpu\"},\"executable\":null}\n",
            "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"other\"},\"executable\":\"/a/other\"}\n",
            "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"gpu\"},\"executable\":\"/a/gpu\"}\n",
            "{\"reason\":\"build-finished\",\"success\":true}\n",
        );
        assert_eq!(executable(messages, "gpu"), Some("/a/gpu".into()));
        assert_eq!(executable(messages, "gptq"), None);
    }

    #[test]
    fn a_bundle_that_is_too_large_is_an_error_with_the_sizes() {
        let files = [("b/large".into(), 40_000_000), ("b/small".into(), 20_000_000)];
        assert!(sizes(Path::new("b"), &files, MOST_BYTES).is_ok());
        let error = sizes(Path::new("b"), &files, 59_999_999).unwrap_err().to_string();
        assert!(error.contains("40.0 MB  large") && error.contains("60.0 MB  all 2 files"), "{error}");
    }

    #[test]
    fn a_folder_that_is_no_bundle_is_left_alone() {
        let folder = workspace_root().join("xtask");
        assert!(clear(&folder).unwrap_err().to_string().contains("no bundle"));
        assert!(folder.join("src/main.rs").is_file());
    }

    #[test]
    fn what_a_killed_build_has_left_is_cleared_and_kernels_stay() {
        let folder = std::env::temp_dir().join(format!("gptq-bundle-{}", std::process::id()));
        let kernels = folder.join("kernels");
        fs::create_dir_all(kernels.join(".mine-123")).unwrap();
        fs::create_dir_all(folder.join("bin")).unwrap();
        for file in ["bundle.txt", "kernels/.mine-123/a.o", "kernels/mine.fatbin", "bin/gpu"] {
            fs::write(folder.join(file), "").unwrap();
        }
        clear(&folder).unwrap();
        let left: Vec<PathBuf> = files(&folder).unwrap().into_iter().map(|(path, _)| path).collect();
        let folders = fs::read_dir(&kernels).unwrap().count();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(left, [folder.join("bundle.txt"), kernels.join("mine.fatbin")]);
        assert_eq!(folders, 1, "the hidden folder is gone");
    }

    #[test]
    fn every_program_is_of_a_package_that_there_is() {
        for program in &PROGRAMS {
            let root = workspace_root();
            let lock = fs::read_to_string(root.join("Cargo.lock")).unwrap();
            assert!(lock.contains(&format!("name = \"{}\"\n", program.package)), "{}", program.package);
        }
    }
}
