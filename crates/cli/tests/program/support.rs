//! Running the program, and files for it to read.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::Value;
use tempfile::TempDir;

/// The whole checkpoint of the fixtures, and the layers it has.
pub(crate) const WHOLE: &str = "kjv-4bit-g128-sym";
pub(crate) const WHOLE_LAYERS: usize = 28;
/// A layer of it: K = 256, N = 768.
pub(crate) const UP_PROJ: &str = "model.layers.0.mlp.up_proj";

/// Every checkpoint of the fixtures.
pub(crate) const CHECKPOINTS: [&str; 8] = [
    WHOLE,
    "kjv-2bit-g32-sym",
    "kjv-3bit-g32-asym-v1",
    "kjv-4bit-dynamic-lmhead",
    "kjv-4bit-g128-sym-actorder",
    "kjv-4bit-g64-asym-v1",
    "kjv-4bit-gm1-sym",
    "kjv-8bit-g128-sym",
];

/// The directory of a checkpoint of the fixtures.
pub(crate) fn checkpoint(name: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/checkpoints");
    let fixtures = fixtures.canonicalize().expect("the fixtures are where they were");
    fixtures.join(name)
}

/// How the program ended, and what it said.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The program, not yet run, in an environment that says nothing about logs or colours.
pub(crate) fn program(args: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gptq"));
    command.args(args).env_remove("RUST_LOG").env_remove("NO_COLOR").stdin(Stdio::null());
    command
}

/// Runs the program, its output in pipes.
pub(crate) fn gptq(args: &[impl AsRef<OsStr>]) -> Run {
    run(&mut program(args))
}

/// Runs a command, its output in pipes.
pub(crate) fn run(command: &mut Command) -> Run {
    let output = command.output().expect("the program starts");
    Run {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("text on stdout"),
        stderr: String::from_utf8(output.stderr).expect("text on stderr"),
    }
}

impl Run {
    /// What a run printed that did what was asked, and had nothing to warn of.
    #[track_caller]
    pub(crate) fn success(self) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{}", self.stdout);
        self.stdout
    }

    /// The JSON document of such a run.
    #[track_caller]
    pub(crate) fn json(self) -> Value {
        let text = self.success();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// What a run complained of that failed: it says nothing on standard output.
    #[track_caller]
    pub(crate) fn failure(self) -> String {
        assert_eq!((self.code, self.stdout.as_str()), (Some(1), ""), "{}", self.stderr);
        assert!(self.stderr.starts_with("error: "), "{}", self.stderr);
        self.stderr
    }

    /// What a run printed, and what it complained of, that found something wrong.
    #[track_caller]
    pub(crate) fn found_wrong(self) -> (String, String) {
        assert_eq!(self.code, Some(1), "{}{}", self.stdout, self.stderr);
        assert!(self.stderr.contains("error: "), "{}", self.stderr);
        (self.stdout, self.stderr)
    }

    /// What a run complained of whose command line is wrong.
    #[track_caller]
    pub(crate) fn usage(self) -> String {
        assert_eq!((self.code, self.stdout.as_str()), (Some(2), ""), "{}", self.stderr);
        self.stderr
    }
}

/// That `text` holds all of `parts`.
#[track_caller]
pub(crate) fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "it does not say `{part}`:\n{text}");
    }
}

/// A directory that is removed when it is dropped.
pub(crate) fn scratch() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// A copy of a checkpoint of the fixtures, to be broken.
pub(crate) fn copy_of(name: &str) -> TempDir {
    let copy = scratch();
    for entry in fs::read_dir(checkpoint(name)).expect("the fixture") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), copy.path().join(entry.file_name())).expect("a copy");
    }
    copy
}

/// Changes the JSON object in a file of `dir`.
pub(crate) fn edit_json(dir: &Path, file: &str, edit: impl FnOnce(&mut Value)) {
    let path = dir.join(file);
    let mut value = serde_json::from_slice(&fs::read(&path).expect("the file")).expect("JSON");
    edit(&mut value);
    fs::write(path, value.to_string()).expect("written");
}

/// Writes a safetensors file with one tensor.
pub(crate) fn write_tensor(path: &Path, name: &str, dtype: Dtype, shape: &[usize], bytes: &[u8]) {
    let view = TensorView::new(dtype, shape.to_vec(), bytes).expect("bytes that fit the shape");
    fs::write(path, safetensors::serialize([(name, view)], None).expect("a small file")).expect("written");
}

/// The only tensor of a file: its name, type, shape and bytes.
pub(crate) fn read_tensor(path: &Path) -> (String, Dtype, Vec<usize>, Vec<u8>) {
    let bytes = fs::read(path).expect("the file was written");
    let tensors = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let (name, view) = tensors.iter().next().expect("a tensor");
    assert_eq!(tensors.len(), 1, "one tensor");
    (name.to_owned(), view.dtype(), view.shape().to_vec(), view.data().to_vec())
}

/// A tensor of a file: its name, type, shape and bytes.
pub(crate) type Tensor = (String, Dtype, Vec<usize>, Vec<u8>);

/// Writes a safetensors file with these tensors.
pub(crate) fn write_tensors(path: &Path, tensors: &[Tensor]) {
    fn view((name, dtype, shape, bytes): &Tensor) -> (String, TensorView<'_>) {
        (name.clone(), TensorView::new(*dtype, shape.clone(), bytes).expect("bytes that fit the shape"))
    }
    let views: Vec<_> = tensors.iter().map(view).collect();
    fs::write(path, safetensors::serialize(views, None).expect("a small file")).expect("written");
}

/// Writes the file again with what `edit` makes of its tensors.
pub(crate) fn edit_tensors(path: &Path, edit: impl FnOnce(&mut Vec<Tensor>)) {
    let bytes = fs::read(path).expect("the file");
    let tensors = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let mut tensors: Vec<Tensor> = tensors
        .iter()
        .map(|(name, view)| (name.to_owned(), view.dtype(), view.shape().to_vec(), view.data().to_vec()))
        .collect();
    edit(&mut tensors);
    write_tensors(path, &tensors);
}

/// Changes what every configuration file of `dir` says of the quantization.
pub(crate) fn edit_configs(dir: &Path, edit: impl Fn(&mut Value)) {
    for file in ["quantize_config.json", "config.json"] {
        edit_json(dir, file, |config| match config.get_mut("quantization_config") {
            Some(inner) => edit(inner),
            None => edit(config),
        });
    }
}

/// Overwrites the first bytes of the tensor `name` of a file.
pub(crate) fn overwrite_tensor(path: &Path, name: &str, bytes: &[u8]) {
    let mut file = fs::read(path).expect("the file");
    let start = {
        let tensors = SafeTensors::deserialize(&file).expect("a safetensors file");
        let data = tensors.tensor(name).expect("the tensor").data();
        data.as_ptr().addr() - file.as_ptr().addr()
    };
    file[start..start + bytes.len()].copy_from_slice(bytes);
    fs::write(path, file).expect("written");
}

/// The names in a directory.
pub(crate) fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("the directory");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
