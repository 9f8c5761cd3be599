//! For the build script of a backend: takes the family's fatbin into the program, where it was built.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// The variable that keeps kernels out of programs, whatever its value.
pub const WITHOUT_KERNELS: &str = "GPTQ_WITHOUT_KERNELS";

/// Writes `OUT_DIR/FAMILY.rs`: an expression of type `Option<&'static [u8]>`, the bytes of `FAMILY.fatbin` or `None`.
/// The whole build script, and how the crate takes it:
///
/// ```ignore
/// fn main() -> std::io::Result<()> {
///     gptq_kernel_build::embed("mine", &["kernels", "../../kernels/out"])
/// }
/// ```
/// ```ignore
/// const KERNELS: Option<&[u8]> = include!(concat!(env!("OUT_DIR"), "/mine.rs"));
/// ```
///
/// `folders` are tried in order, relative to the package. A fatbin that is not there is no error: the program then
/// reads `GPTQ_KERNELS_DIR`, or its backend answers that kernels are missing. The script runs again when the fatbin
/// appears or changes. With [`WITHOUT_KERNELS`] in the environment none is taken, for programs that travel with a folder
/// of kernels.
///
/// # Errors
/// Where `OUT_DIR` cannot be written.
pub fn embed(family: &str, folders: &[&str]) -> std::io::Result<()> {
    let variable = |name| PathBuf::from(env::var_os(name).unwrap_or_default());
    let folders = if env::var_os(WITHOUT_KERNELS).is_some() { &[] } else { folders };
    let (expression, watched) = look(&variable("CARGO_MANIFEST_DIR").canonicalize()?, family, folders);
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={WITHOUT_KERNELS}");
    for path in watched {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    fs::write(variable("OUT_DIR").join(format!("{family}.rs")), expression)
}

/// The expression, and what would change it.
fn look(package: &Path, family: &str, folders: &[&str]) -> (String, Vec<PathBuf>) {
    let mut watched = Vec::new();
    for folder in folders.iter().map(|folder| package.join(folder)) {
        if let Ok(fatbin) = folder.join(format!("{family}.fatbin")).canonicalize() {
            // Debug quotes the path as a string literal.
            let expression = format!("Some(include_bytes!({:?}).as_slice())\n", fatbin.display().to_string());
            watched.push(fatbin);
            return (expression, watched);
        }
        // Cargo takes a path that does not exist for one that has changed, and would build the crate again each time; so
        // the nearest folder that exists is watched. Not one around the package: that holds everything, and a package
        // from a registry has no kernels beside it.
        let nearest = folder.ancestors().find_map(|ancestor| ancestor.canonicalize().ok());
        watched.extend(nearest.filter(|nearest| !package.starts_with(nearest)));
    }
    ("None\n".into(), watched)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fatbin_there_is_gets_embedded_and_watched() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let package = root.join("crates/mine");
        let out = root.join("kernels/out");
        fs::create_dir_all(&package).unwrap();
        let folders = ["kernels", "../../kernels/out"];
        assert_eq!(look(&package, "mine", &folders), ("None\n".into(), vec![]), "the root is not watched");

        fs::create_dir_all(root.join("kernels")).unwrap();
        assert_eq!(look(&package, "mine", &folders), ("None\n".into(), vec![root.join("kernels")]));

        fs::create_dir_all(&out).unwrap();
        fs::write(out.join("mine.fatbin"), b"fatbin").unwrap();
        let (expression, watched) = look(&package, "mine", &folders);
        assert!(
            expression.starts_with("Some(include_bytes!(\"") && expression.contains("mine.fatbin"),
            "{expression}"
        );
        assert_eq!(watched, [out.join("mine.fatbin")]);
    }
}
