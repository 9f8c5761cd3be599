//! `tidy`: the rules of docs/architecture.md that can be read off the text. `cargo test` runs it too.

mod rust_code;

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::{Result, at, workspace_root};
use rust_code::identifiers;

/// Files of more lines than [`MAX_LINES`], each with the reason why it is one file.
const LONG_FILES: [(&str, &str); 0] = [];
const MAX_LINES: usize = 600;

/// Files that a peer wrote, or that are lists of what is forbidden.
const NOT_OUR_PROSE: [&str; 3] = ["tests/fixtures/checkpoints/", "Cargo.lock", "xtask/src/tidy.rs"];
/// Paths of one machine.
const MACHINE_PATHS: [&str; 2] = ["/work", "/root"];
/// How a text speaks of the work on it instead of its subject.
const NOT_ABOUT_THE_PROJECT: [&str; 8] = [
    "this session",
    "earlier session",
    "previous session",
    "last session",
    "next session",
    "another session",
    "AI assistant",
    "AI-generated",
];

/// A file of the repository.
struct Source {
    /// From the root, with `/` between its parts.
    path: String,
    text: String,
}

impl Source {
    fn is_in(&self, folder: &str) -> bool {
        self.path.starts_with(folder)
    }

    fn is(&self, extensions: &[&str]) -> bool {
        self.path.rsplit_once('.').is_some_and(|(_, extension)| extensions.contains(&extension))
    }

    fn is_manifest(&self) -> bool {
        self.path.ends_with("Cargo.toml")
    }

    /// The package that this manifest describes.
    fn package(&self) -> Option<&str> {
        let name = self.text.lines().find_map(|line| line.strip_prefix("name = "))?;
        Some(name.trim_matches('"'))
    }
}

type Rule = fn(&[Source]) -> Vec<String>;

const RULES: [Rule; 6] = [
    core_names_no_backend,
    only_cuda_names_cudarc,
    core_is_unsafe_in_one_place,
    files_are_short,
    architecture_names_every_crate,
    text_speaks_of_the_project,
];

pub(crate) fn run() -> Result<()> {
    let root = workspace_root();
    let sources = sources(&root)?;
    let mut problems: Vec<String> = RULES.iter().flat_map(|rule| rule(&sources)).collect();
    problems.extend(nothing_ignored_is_committed(&root)?);
    if problems.is_empty() {
        return Ok(());
    }
    Err(format!("rules of docs/architecture.md are broken:\n  {}", problems.join("\n  ")).into())
}

/// Every text file that is committed, or would be.
fn sources(root: &Path) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for path in files(root, &["--cached", "--others"])? {
        let file = root.join(&path);
        // Not a file: deleted and not yet committed, a link to a folder, or a repository in this one.
        if !file.is_file() {
            continue;
        }
        if let Ok(text) = String::from_utf8(fs::read(&file).map_err(at(&file))?) {
            sources.push(Source { path, text });
        }
    }
    Ok(sources)
}

/// The paths of these kinds, as git lists them.
fn files(root: &Path, kinds: &[&str]) -> Result<Vec<String>> {
    let mut git = Command::new("git");
    git.current_dir(root).args(["ls-files", "-z", "--exclude-standard"]).args(kinds);
    let listed =
        git.output().map_err(|error| format!("git, which lists the files to check, cannot run: {error}"))?;
    if !listed.status.success() {
        return Err(format!("git ls-files: {}", String::from_utf8_lossy(&listed.stderr)).into());
    }
    let paths = String::from_utf8(listed.stdout)?;
    Ok(paths.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect())
}

/// What is built, which git ignores, is in no commit: it would be taken for the sources that it was built from.
fn nothing_ignored_is_committed(root: &Path) -> Result<Vec<String>> {
    let committed = files(root, &["--cached", "--ignored"])?;
    Ok(committed
        .iter()
        .map(|path| format!("{path}: git ignores it, and yet it is committed; `git rm --cached` it"))
        .collect())
}

/// Core names no backend crate and no CUDA type, and has no build script.
fn core_names_no_backend(sources: &[Source]) -> Vec<String> {
    const RULE: &str = "core names no other crate of the workspace and no CUDA type, and has no build script";
    let crates: Vec<String> = sources
        .iter()
        .filter(|source| source.is_in("crates/") && source.is_manifest())
        .filter_map(|source| Some(source.package()?.to_owned()))
        .filter(|name| name != "gptq-core")
        .collect();
    let is_foreign = |word: &str| {
        let after = |prefix| word.strip_prefix(prefix).and_then(|rest: &str| rest.chars().next());
        // CudaSlice, CUstream: types of cudarc and of the driver. `Device::Cuda` is neither.
        word == "cudarc"
            || after("Cuda").is_some_and(char::is_uppercase)
            || after("CU").is_some_and(char::is_lowercase)
            || crates.iter().any(|name| name.replace('-', "_") == word)
    };
    let mut problems = Vec::new();
    for source in sources.iter().filter(|source| source.is_in("crates/core/")) {
        if source.path == "crates/core/build.rs" {
            problems.push(format!("{}: {RULE}; generate the file elsewhere and commit it", source.path));
        }
        if source.is_in("crates/core/src/") && source.is(&["rs"]) {
            for (line, word) in identifiers(&source.text).filter(|(_, word)| is_foreign(word)) {
                problems.push(format!(
                    "{}:{line}: `{word}`: {RULE}; put it behind a trait of `backend` or `device`",
                    source.path
                ));
            }
        }
        if source.is_manifest() {
            for (line, name) in
                dependencies(source).filter(|(_, name)| crates.iter().any(|other| other == name))
            {
                problems.push(format!("{}:{line}: `{name}`: {RULE}; turn the dependency round", source.path));
            }
        }
    }
    problems
}

/// Only gptq-cuda names cudarc.
fn only_cuda_names_cudarc(sources: &[Source]) -> Vec<String> {
    const RULE: &str = "only crates/cuda names cudarc; use what gptq-cuda exports, or export more";
    // Where candle hands out what it has as types of cudarc's, which it re-exports.
    const LENDING: [&str; 2] = ["crates/candle/src/cuda/", "crates/candle/src/decoder/whole_token.rs"];
    let mut problems = Vec::new();
    for source in sources.iter().filter(|source| !source.is_in("crates/cuda/")) {
        if source.is(&["rs"]) && !LENDING.iter().any(|place| source.is_in(place)) {
            for (line, _) in identifiers(&source.text).filter(|(_, word)| *word == "cudarc") {
                problems.push(format!("{}:{line}: {RULE}", source.path));
            }
        }
        // The root's manifest holds the version for the one crate that uses it.
        if source.is_manifest() && source.path != "Cargo.toml" {
            for (line, _) in dependencies(source).filter(|(_, name)| *name == "cudarc") {
                problems.push(format!("{}:{line}: {RULE}", source.path));
            }
        }
    }
    problems
}

/// The one `unsafe` of core maps a file.
fn core_is_unsafe_in_one_place(sources: &[Source]) -> Vec<String> {
    const MAPPING: &str = "crates/core/src/checkpoint/safetensors_file.rs";
    let places: Vec<String> = sources
        .iter()
        .filter(|source| source.is_in("crates/core/src/") && source.is(&["rs"]))
        .flat_map(|source| {
            let words = identifiers(&source.text).filter(|(_, word)| *word == "unsafe");
            words.map(|(line, _)| format!("{}:{line}", source.path))
        })
        .collect();
    match places.as_slice() {
        [only] if only.starts_with(MAPPING) => Vec::new(),
        _ => vec![format!(
            "the only `unsafe` of core is the mapping of a file in {MAPPING}; it is found at: {}",
            if places.is_empty() { "no place; correct this rule".into() } else { places.join(", ") }
        )],
    }
}

/// No file is long without a reason.
fn files_are_short(sources: &[Source]) -> Vec<String> {
    let mut problems = Vec::new();
    for source in sources.iter().filter(|source| source.is(&["rs", "cu", "cuh", "h", "c", "cpp", "py"])) {
        let lines = source.text.lines().count();
        let listed = LONG_FILES.iter().any(|(path, _)| *path == source.path);
        if lines > MAX_LINES && !listed {
            problems.push(format!(
                "{}: {lines} lines, more than {MAX_LINES}; split it by idea, or list it in xtask/src/tidy.rs with \
                 the reason",
                source.path
            ));
        } else if lines <= MAX_LINES && listed {
            problems
                .push(format!("{}: it is short now; take it off the list in xtask/src/tidy.rs", source.path));
        }
    }
    problems
}

/// docs/architecture.md says what every crate is for.
fn architecture_names_every_crate(sources: &[Source]) -> Vec<String> {
    const PAGE: &str = "docs/architecture.md";
    let Some(page) = sources.iter().find(|source| source.path == PAGE) else { return Vec::new() };
    let mut problems = Vec::new();
    for source in sources.iter().filter(|source| source.is_in("crates/") && source.is_manifest()) {
        let name = source.package().unwrap_or(&source.path);
        let part_of_name = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
        if !page.text.split(|c| !part_of_name(c)).any(|word| word == name) {
            problems.push(format!(
                "{PAGE}: `{name}` is not in it; write what it is for and what it must not know"
            ));
        }
    }
    problems
}

/// No text names a path of the machine it was written on, or speaks of the work instead of the subject.
fn text_speaks_of_the_project(sources: &[Source]) -> Vec<String> {
    let mut problems = Vec::new();
    for source in sources {
        if NOT_OUR_PROSE.iter().any(|prefix| source.path.starts_with(prefix)) {
            continue;
        }
        for (index, line) in source.text.lines().enumerate() {
            let place = format!("{}:{}", source.path, index + 1);
            for path in MACHINE_PATHS.into_iter().filter(|path| names_path(line, path)) {
                problems.push(format!(
                    "{place}: `{path}` is a path of one machine; write one that all readers have"
                ));
            }
            for words in NOT_ABOUT_THE_PROJECT.into_iter().filter(|words| line.contains(words)) {
                problems.push(format!(
                    "{place}: \"{words}\": a text speaks of the project, not of how it was written"
                ));
            }
        }
    }
    problems
}

/// Whether `line` has `path` as the beginning of an absolute path, and not as a part of a longer word.
fn names_path(line: &str, path: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || "_-./}~*".contains(c);
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + path.len()..].chars().next();
        !before.is_some_and(part_of_word)
            && !after.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '-')
    })
}

/// The keys of a manifest that could be dependencies, with their lines: `name = ..` or `name.workspace = true`, and
/// tables called `dependencies.name`.
fn dependencies(manifest: &Source) -> impl Iterator<Item = (usize, &str)> {
    manifest.text.lines().enumerate().filter_map(|(index, line)| {
        let line = line.trim_start();
        let key = match line.strip_prefix('[') {
            Some(table) => table.split_once("dependencies.")?.1,
            None => line,
        };
        let end = key.find(|c: char| !(c.is_alphanumeric() || c == '-' || c == '_')).unwrap_or(key.len());
        Some((index + 1, &key[..end]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.into(), text: text.into() }
    }

    #[test]
    fn this_workspace_keeps_its_rules() {
        if let Err(broken) = run() {
            panic!("{broken}");
        }
    }

    #[test]
    fn a_built_file_that_was_added_all_the_same_is_found() {
        let folder = std::env::temp_dir().join(format!("gptq-xtask-tidy-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let git = |arguments: &[&str]| {
            let status = Command::new("git").current_dir(&folder).args(arguments).status().unwrap();
            assert!(status.success(), "git {arguments:?}");
        };
        git(&["init", "--quiet"]);
        fs::write(folder.join("my.fatbin"), "built").unwrap();
        fs::write(folder.join("my.cu"), "source").unwrap();
        git(&["add", "."]);
        fs::write(folder.join(".gitignore"), "*.fatbin").unwrap();
        let problems = nothing_ignored_is_committed(&folder).unwrap();
        fs::remove_dir_all(folder).unwrap();
        assert!(problems.len() == 1 && problems[0].starts_with("my.fatbin: "), "{problems:?}");
    }

    #[test]
    fn core_may_speak_of_backends_and_not_use_them() {
        let manifest = || source("crates/marlin/Cargo.toml", "[package]\nname = \"gptq-marlin\"\n");
        let text = "/// `use gptq_marlin as _;`\nfn f() -> Device { say(\"use gptq_marlin as _;\"); Device::Cuda(0) }";
        assert_eq!(core_names_no_backend(&[manifest(), source("crates/core/src/a.rs", text)]), [""; 0]);

        for (path, text) in [
            ("crates/core/src/a.rs", "use gptq_marlin as _;"),
            ("crates/core/src/a.rs", "fn f(stream: CUstream) {}"),
            ("crates/core/src/a.rs", "fn f(slice: CudaSlice<u8>) {}"),
            ("crates/core/build.rs", "fn main() {}"),
            ("crates/core/Cargo.toml", "[dependencies]\ngptq-marlin.workspace = true\n"),
            ("crates/core/Cargo.toml", "[dependencies.gptq-marlin]\nworkspace = true\n"),
        ] {
            let problems = core_names_no_backend(&[manifest(), source(path, text)]);
            assert_eq!(problems.len(), 1, "{path}: {text}: {problems:?}");
        }
    }

    #[test]
    fn cudarc_may_be_named_in_one_crate() {
        let text = "use cudarc::driver; // cudarc";
        assert_eq!(only_cuda_names_cudarc(&[source("crates/cuda/src/lib.rs", text)]), [""; 0]);
        assert_eq!(only_cuda_names_cudarc(&[source("crates/marlin/src/lib.rs", text)]).len(), 1);
        let manifest = "[dependencies]\ncudarc = { version = \"1\" }\n";
        assert_eq!(only_cuda_names_cudarc(&[source("Cargo.toml", manifest)]), [""; 0]);
        assert_eq!(only_cuda_names_cudarc(&[source("crates/candle/Cargo.toml", manifest)]).len(), 1);
    }

    #[test]
    fn one_unsafe_of_core_is_the_mapping_and_a_second_is_found() {
        let mapping =
            || source("crates/core/src/checkpoint/safetensors_file.rs", "unsafe { Mmap::map(&file) }");
        assert_eq!(core_is_unsafe_in_one_place(&[mapping()]), [""; 0]);
        let other = source("crates/core/src/a.rs", "// unsafe\n#![deny(unsafe_code)]\nunsafe { f() }");
        let problems = core_is_unsafe_in_one_place(&[mapping(), other]);
        assert!(problems.len() == 1 && problems[0].contains("a.rs:3"), "{problems:?}");
    }

    #[test]
    fn a_long_file_and_a_crate_without_a_word_are_found() {
        assert_eq!(files_are_short(&[source("a.rs", &"\n".repeat(MAX_LINES))]), [""; 0]);
        assert_eq!(files_are_short(&[source("a.rs", &"\n".repeat(MAX_LINES + 1))]).len(), 1);

        let manifest =
            |name: &str| source(&format!("crates/{name}/Cargo.toml"), &format!("name = \"gptq-{name}\"\n"));
        let page = source("docs/architecture.md", "core/   gptq-core   formats\n");
        let problems = architecture_names_every_crate(&[manifest("core"), manifest("cli"), page]);
        assert!(problems.len() == 1 && problems[0].contains("`gptq-cli`"), "{problems:?}");
    }

    #[test]
    fn a_machine_path_is_found_and_a_part_of_a_path_is_not() {
        let problems = |line: &str| text_speaks_of_the_project(&[source("docs/a.md", line)]).len();
        for line in ["see /work/notes", "`/root/.cache`", "dir=/work", "as an earlier session found"] {
            assert_eq!(problems(line), 1, "{line}");
        }
        for line in
            ["net/work/s", "${DIR}/root", "a/root", "/workspace", "./work", "the root / work", "one session"]
        {
            assert_eq!(problems(line), 0, "{line}");
        }
    }
}
