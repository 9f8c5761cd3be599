//! `package`: every crate that can be published, packaged and built from its package, as its users will build it.
//!
//! What fails only then is found only then: a file outside of the package, a dependency without a version, a kernel that
//! was left at home. `cargo package` builds all packages against one another, so that nothing has to be published first.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::{Result, at, workspace_root};

/// What crates.io takes at most.
const MOST_BYTES: u64 = 10 << 20;
/// What every package has.
const OF_ALL: [&str; 4] = ["Cargo.toml", "README.md", "LICENSE-MIT", "LICENSE-APACHE"];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Take files that are not committed.
    #[arg(long)]
    allow_dirty: bool,
    /// Do not ask the registry what there is; everything needed was fetched before.
    #[arg(long)]
    offline: bool,
    /// Leave the kernels in the crates afterwards, for `cargo publish`. Delete them then: builds prefer them to those of
    /// kernels/out.
    #[arg(long)]
    keep_kernels: bool,
}

/// A crate that can be published.
struct Package {
    name: String,
    version: String,
    folder: PathBuf,
    /// Kernel families that its build script embeds.
    families: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let root = workspace_root();
    let metadata = metadata(&root)?;
    let packages = packages(&metadata)?;

    // A package holds what lies in its folder, and compiled kernels lie in one for all.
    let mut staged = Staged { files: Vec::new(), keep: arguments.keep_kernels };
    for package in &packages {
        for family in &package.families {
            staged.copy(&root.join(format!("kernels/out/{family}.fatbin")), package, family)?;
        }
    }

    let target = metadata["target_directory"].as_str().ok_or("cargo metadata: no target_directory")?;
    // One of its own: packages are built without the profiles of the workspace, so that nothing could be shared.
    let target = Path::new(target).join("packages");
    forget(&packages, &target);
    let mut cargo = cargo(&root);
    // Nothing that is built here is ever run.
    cargo.env("CARGO_TARGET_DIR", &target).env("CARGO_PROFILE_DEV_DEBUG", "0");
    // So candle's kernels, which a feature of gptq-candle compiles, need no compiler either.
    let stand_in = root.join("crates/candle/cuda-generate/no-nvcc.sh");
    cargo.env("NVCC", stand_in).env("CUDA_COMPUTE_CAP", "90");
    cargo.args(["package", "--locked", "--no-metadata", "--all-features"]);
    cargo.args(packages.iter().flat_map(|package| ["--package", package.name.as_str()]));
    cargo.args(arguments.allow_dirty.then_some("--allow-dirty"));
    cargo.args(arguments.offline.then_some("--offline"));
    if !cargo.status()?.success() {
        return Err("cargo package failed; it says above why".into());
    }

    let mut problems = Vec::new();
    for package in &packages {
        let files = list(&root, package)?;
        let archive = target.join(format!("package/{}-{}.crate", package.name, package.version));
        let bytes = fs::metadata(&archive).map_err(at(&archive))?.len();
        println!("{:<24} {:>4} files {:>7} KB", package.name, files.len(), bytes.div_ceil(1000));
        let mut wanted: BTreeSet<String> = OF_ALL.iter().map(|file| (*file).to_owned()).collect();
        wanted.extend(sources(&root, package)?);
        let built = |family: &&String| root.join(format!("kernels/out/{family}.fatbin")).is_file();
        wanted.extend(package.families.iter().filter(built).map(|family| format!("kernels/{family}.fatbin")));
        problems.extend(
            wanted.difference(&files).map(|file| format!("{}: {file} is not in the package", package.name)),
        );
        if bytes > MOST_BYTES {
            problems.push(format!("{}: {bytes} bytes, and crates.io takes {MOST_BYTES}", package.name));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("\n").into()) }
}

/// Removes what cargo unpacked and compiled of these packages before. It resolves packages of one workspace through a
/// registry in the target folder, and takes what it has of a version for unchanged, since nothing of a version ever changes
/// in a registry. A package would be built against what another was some time ago.
fn forget(packages: &[Package], target: &Path) {
    let of_packages = |folder: PathBuf| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        for entry in entries {
            let file = entry.file_name().to_string_lossy().into_owned();
            if packages.iter().any(|package| file.starts_with(&format!("{}-", package.name))) {
                // What stays is found by the build.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    };
    of_packages(target.join("debug/.fingerprint"));
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let Some(home) = home.or_else(|| Some(std::env::home_dir()?.join(".cargo"))) else { return };
    for registry in fs::read_dir(home.join("registry/src")).into_iter().flatten().flatten() {
        // The folder of a registry begins with its host, and one of files has none.
        if registry.file_name().to_string_lossy().starts_with('-') {
            of_packages(registry.path());
        }
    }
}

fn cargo(root: &Path) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root);
    cargo
}

fn metadata(root: &Path) -> Result<Value> {
    let answer = cargo(root).args(["metadata", "--no-deps", "--format-version", "1", "--locked"]).output()?;
    if !answer.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&answer.stderr)).into());
    }
    Ok(serde_json::from_slice(&answer.stdout)?)
}

/// The crates of the workspace that say nothing against being published.
fn packages(metadata: &Value) -> Result<Vec<Package>> {
    let mut found = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        // An empty list stands for `publish = false`.
        if package["publish"].is_array() {
            continue;
        }
        let text =
            |key: &str| package[key].as_str().map(str::to_owned).ok_or(format!("cargo metadata: no {key}"));
        let manifest = PathBuf::from(text("manifest_path")?);
        let folder = manifest.parent().unwrap_or(&manifest).to_owned();
        let script = fs::read_to_string(folder.join("build.rs")).unwrap_or_default();
        let families = families(&script).map_err(at(&folder.join("build.rs")))?;
        found.push(Package { name: text("name")?, version: text("version")?, folder, families });
    }
    Ok(found)
}

/// The families that a build script embeds: `gptq_kernel_build::embed("marlin", &["kernels", ..])`.
fn families(script: &str) -> Result<Vec<String>> {
    let mut families = Vec::new();
    for call in script.split("gptq_kernel_build::embed(").skip(1) {
        let mut words = call.split('"').skip(1).step_by(2);
        match (words.next(), words.next()) {
            (Some(family), Some("kernels")) => families.push(family.to_owned()),
            _ => {
                return Err(
                    "embed(FAMILY, FOLDERS): both are written out, and the first folder is \"kernels\", \
                            where the package has its fatbins"
                        .into(),
                );
            }
        }
    }
    Ok(families)
}

/// Compiled kernels in the folders of the crates that embed them; gone when dropped.
struct Staged {
    files: Vec<PathBuf>,
    keep: bool,
}

impl Staged {
    fn copy(&mut self, fatbin: &Path, package: &Package, family: &str) -> Result<()> {
        if !fatbin.is_file() {
            println!("{}: no {}; packaged without it", package.name, fatbin.display());
            return Ok(());
        }
        let folder = package.folder.join("kernels");
        fs::create_dir_all(&folder).map_err(at(&folder))?;
        let copy = folder.join(format!("{family}.fatbin"));
        self.files.push(copy.clone());
        fs::copy(fatbin, &copy).map_err(at(&copy))?;
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        for file in self.files.iter().filter(|_| !self.keep) {
            // What cannot be removed is seen by whoever builds next; the folder goes when it is empty.
            let _ = fs::remove_file(file);
            let _ = file.parent().map(fs::remove_dir);
        }
    }
}

/// The files of a package.
fn list(root: &Path, package: &Package) -> Result<BTreeSet<String>> {
    let listed = cargo(root)
        .args(["package", "--list", "--allow-dirty", "--quiet", "--locked", "--package", &package.name])
        .output()?;
    if !listed.status.success() {
        return Err(format!("cargo package --list: {}", String::from_utf8_lossy(&listed.stderr)).into());
    }
    Ok(String::from_utf8(listed.stdout)?.lines().map(|line| line.replace('\\', "/")).collect())
}

/// What is committed of the package's sources: everything that a compiler reads.
fn sources(root: &Path, package: &Package) -> Result<Vec<String>> {
    let folder = package.folder.strip_prefix(root.canonicalize()?).unwrap_or(&package.folder);
    let mut git = Command::new("git");
    let listed = git.current_dir(&package.folder).args(["ls-files", "-z", "."]).output()?;
    if !listed.status.success() {
        return Err(format!("git ls-files {}: it failed", folder.display()).into());
    }
    let listed = String::from_utf8(listed.stdout)?;
    // A folder with a manifest is a package of its own.
    let manifests = listed.split('\0').filter_map(|path| path.strip_suffix("/Cargo.toml"));
    let others: Vec<&str> = manifests.chain(["tests", "benches", "examples"]).collect();
    let is_in =
        |path: &str, folder: &str| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
    let is_source = |path: &&str| {
        !others.iter().any(|folder| is_in(path, folder))
            && path.rsplit_once('.').is_some_and(|(_, ext)| ["rs", "cu", "cuh", "h"].contains(&ext))
    };
    Ok(listed.split('\0').filter(is_source).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_families_of_a_build_script_are_those_it_embeds() {
        let one = "fn main() -> std::io::Result<()> {\n    gptq_kernel_build::embed(\"marlin\", &[\"kernels\", \"../out\"])\n}";
        assert_eq!(families(one).unwrap(), ["marlin"]);
        let two = "gptq_kernel_build::embed(\"a\", &[\"kernels\"])?; gptq_kernel_build::embed(\"b\", &[\"kernels\"])";
        assert_eq!(families(two).unwrap(), ["a", "b"]);
        assert!(families("fn main() {}").unwrap().is_empty());
        assert!(
            families("gptq_kernel_build::embed(\"a\", &[\"../out\"])").is_err(),
            "it looks elsewhere first"
        );
        assert!(families("gptq_kernel_build::embed(NAME, FOLDERS)").is_err(), "it cannot be read");
    }

    #[test]
    fn what_is_published_is_said_by_the_manifests_and_is_complete() {
        let root = workspace_root();
        let packages = packages(&metadata(&root).unwrap()).unwrap();
        let names: Vec<&str> = packages.iter().map(|package| package.name.as_str()).collect();
        assert!(names.contains(&"gptq-core") && names.contains(&"gptq-kernels"), "{names:?}");
        assert!(!names.iter().any(|name| name.contains("test") || name.contains("xtask")), "{names:?}");
        for package in &packages {
            let files = list(&root, package).unwrap();
            for file in OF_ALL.iter().map(|file| (*file).to_owned()).chain(sources(&root, package).unwrap()) {
                assert!(files.contains(&file), "{}: {file} is not in the package", package.name);
            }
        }
    }

    #[test]
    fn staged_kernels_are_gone_when_the_task_is_done() {
        let folder = std::env::temp_dir().join(format!("gptq-xtask-package-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let fatbin = folder.join("marlin.fatbin");
        fs::write(&fatbin, "fatbin").unwrap();
        let package = Package {
            name: "mine".into(),
            version: "0.1.0".into(),
            folder: folder.join("crate"),
            families: vec!["marlin".into()],
        };
        let copy = folder.join("crate/kernels/marlin.fatbin");
        for keep in [false, true] {
            let mut staged = Staged { files: Vec::new(), keep };
            staged.copy(&fatbin, &package, "marlin").unwrap();
            staged.copy(&folder.join("absent.fatbin"), &package, "absent").unwrap();
            assert!(copy.is_file());
            drop(staged);
            assert_eq!(copy.is_file(), keep);
        }
        fs::remove_dir_all(folder).unwrap();
    }
}
