//! Where Python environments keep packages: pip is how a toolkit or a libclang gets to a machine that has none.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The `site-packages` folders of the active environment and of `python3`, each once, the active one first.
pub fn site_packages() -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Some(environment) = env::var_os("VIRTUAL_ENV") {
        found.extend(site_packages_of(Path::new(&environment)));
    }
    for python in ["python3", "python"] {
        let mut command = Command::new(python);
        command.args(["-c", "import site, sysconfig\nprint(sysconfig.get_path('purelib'))\nprint(sysconfig.get_path('platlib'))\nprint(site.getusersitepackages())"]);
        if let Ok(output) = command.output()
            && output.status.success()
        {
            found.extend(String::from_utf8_lossy(&output.stdout).lines().map(PathBuf::from));
            break;
        }
    }
    let mut seen = BTreeSet::new();
    found.retain(|folder| folder.is_dir() && seen.insert(folder.clone()));
    found
}

/// The `site-packages` folders of one environment, on this system or on Windows.
fn site_packages_of(environment: &Path) -> Vec<PathBuf> {
    let mut found = vec![environment.join("Lib").join("site-packages")];
    for python in fs::read_dir(environment.join("lib")).into_iter().flatten().flatten() {
        found.push(python.path().join("site-packages"));
    }
    found
}

/// Folders `nvidia/cu*` below `site_packages`: the toolkit, as pip lays it out since CUDA 13. The newest comes first.
pub(crate) fn toolkits(site_packages: &Path) -> Vec<PathBuf> {
    let release = |path: &Path| {
        let digits = path.file_name()?.to_str()?.strip_prefix("cu")?;
        digits.parse::<u32>().ok()
    };
    let entries = fs::read_dir(site_packages.join("nvidia")).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| release(path).is_some()).collect();
    found.sort_by_key(|path| std::cmp::Reverse(release(path)));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_toolkit_of_an_environment_comes_first() {
        let root = tempfile::tempdir().unwrap();
        let packages = root.path().join("lib/python3.12/site-packages");
        for folder in ["cu13", "cu14", "cublas", "cudnn"] {
            fs::create_dir_all(packages.join("nvidia").join(folder)).unwrap();
        }
        assert!(site_packages_of(root.path()).contains(&packages));
        let nvidia = packages.join("nvidia");
        assert_eq!(toolkits(&packages), [nvidia.join("cu14"), nvidia.join("cu13")]);
    }
}
