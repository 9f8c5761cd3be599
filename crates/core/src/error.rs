//! What can go wrong, in words a user can act on.
//!
//! One enum for the whole workspace. Every variant names where it happened (file, tensor or layer), what was
//! found, what was expected, and what to do next. Causes are chained through [`std::error::Error::source`] and
//! never repeated in the message.

mod kind;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::backend::{BackendId, PlanReport, Rejection};
use crate::checkpoint::CheckpointFormat;
use crate::device::Device;
use crate::tensor::DType;

/// The result of everything in this workspace that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong between a directory on disk and the output of a layer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // ---- files -------------------------------------------------------------------------------------------
    /// The operating system refused an operation on a file or directory.
    #[error("{}: cannot {action}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried, as a verb: `open`, `read`, `map`.
        action: &'static str,
        /// The operating system's answer.
        source: std::io::Error,
    },

    /// No configuration file says how the model was quantized.
    #[error(
        "{}: no GPTQ configuration found; looked for {looked_for}; \
         copy quantize_config.json or config.json from where the weights came from", dir.display()
    )]
    ConfigMissing {
        /// The checkpoint directory.
        dir: PathBuf,
        /// The places that were searched.
        looked_for: String,
    },

    /// A configuration file is not JSON.
    #[error("{}: not valid JSON; restore the file from where the checkpoint came from", path.display())]
    ConfigSyntax {
        /// The configuration file.
        path: PathBuf,
        /// Where the parser stopped.
        source: serde_json::Error,
    },

    /// A configuration key holds a value that no GPTQ checkpoint can have.
    #[error("{}: `{key}` is {found}, expected {expected}; correct the file", path.display())]
    ConfigValue {
        /// The configuration file.
        path: PathBuf,
        /// The key, dotted from the top of the file.
        key: String,
        /// The value found, as JSON.
        found: String,
        /// What would have been accepted.
        expected: String,
    },

    /// A rule of `dynamic` is not a regular expression, backtracks without end, or is one too many.
    #[error("{}: `dynamic` rule `{pattern}` {problem}; correct the pattern or remove the rule", path.display())]
    DynamicRule {
        /// The configuration file.
        path: PathBuf,
        /// The pattern, as written in the file.
        pattern: String,
        /// What is wrong with it: not a valid pattern, not one that terminates on a module, or one of too many.
        problem: String,
        /// The regular-expression engine's answer.
        source: Box<fancy_regex::Error>,
    },

    /// A kind of checkpoint that this library knows by name and does not read.
    #[error("{}: {feature} is not supported: {reason}; {remedy}", path.display())]
    Unsupported {
        /// The file that asks for it.
        path: PathBuf,
        /// What was asked for, as it is written in the file.
        feature: String,
        /// Why it cannot be run.
        reason: String,
        /// What the user can do instead.
        remedy: String,
    },

    /// The directory holds no weights.
    #[error("{}: no weights found; looked for {looked_for}; finish the download", dir.display())]
    WeightsMissing {
        /// The checkpoint directory.
        dir: PathBuf,
        /// The file names that were searched.
        looked_for: String,
    },

    /// The directory holds several weight files and nothing says which belong together.
    #[error(
        "{}: several weight files and no index: {}; keep one, or add model.safetensors.index.json",
        dir.display(), candidates.join(", ")
    )]
    WeightsAmbiguous {
        /// The checkpoint directory.
        dir: PathBuf,
        /// The files found.
        candidates: Vec<String>,
    },

    /// The weights are in Python's pickle format.
    #[error(
        "{}: weights in Python's pickle format, which can run code when it is opened and is never read; \
         convert them to safetensors where they came from", path.display()
    )]
    Pickle {
        /// The pickle file.
        path: PathBuf,
    },

    /// The shard index is malformed, or names files outside the checkpoint directory.
    #[error("{}: {problem}; restore the index from where the checkpoint came from", path.display())]
    Index {
        /// The index file.
        path: PathBuf,
        /// What is wrong with it, and where.
        problem: String,
    },

    /// A safetensors header is truncated, malformed, or lies about the file.
    #[error("{}: not a valid safetensors file: {problem}; download or copy the file again", path.display())]
    Header {
        /// The weight file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },

    /// Two shards hold a tensor of the same name.
    #[error(
        "tensor `{tensor}` is in both {} and {}; remove the file that does not belong to this checkpoint",
        first.display(), second.display()
    )]
    DuplicateTensor {
        /// The tensor.
        tensor: String,
        /// The file in which it was seen first.
        first: PathBuf,
        /// The file in which it was seen again.
        second: PathBuf,
    },

    // ---- tensors and layers ------------------------------------------------------------------------------
    /// A quantized module lacks one of its tensors.
    #[error(
        "layer `{layer}`: tensor `{layer}.{missing}` is missing, found only {}; \
         a quantized layer needs qweight, qzeros and scales, or B and s in format marlin: download the missing shard",
        found.join(", ")
    )]
    TensorMissing {
        /// The module.
        layer: String,
        /// The suffix of the missing tensor.
        missing: &'static str,
        /// The suffixes that are there.
        found: Vec<String>,
    },

    /// A tensor has a dtype that its role cannot have.
    #[error("{}: tensor `{tensor}` has dtype {found}, expected {expected}; {hint}", file.display())]
    TensorDtype {
        /// The file that holds the tensor.
        file: Arc<Path>,
        /// The tensor.
        tensor: String,
        /// Its dtype.
        found: String,
        /// The dtypes that would have been accepted.
        expected: String,
        /// What to do next.
        hint: String,
    },

    /// A tensor has a shape that contradicts the configuration or its layer's other tensors.
    #[error("{}: tensor `{tensor}` has shape {found:?}, expected {expected}; {hint}", file.display())]
    TensorShape {
        /// The file that holds the tensor.
        file: Arc<Path>,
        /// The tensor.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape expected, and from what it follows.
        expected: String,
        /// What to do next.
        hint: String,
    },

    /// A row of `g_idx` names a group that does not exist.
    #[error(
        "{}: tensor `{tensor}` names group {found} at row {row}, expected a group from 0 to {}; {hint}",
        file.display(), groups.saturating_sub(1)
    )]
    GroupOutOfRange {
        /// The file that holds the tensor.
        file: Arc<Path>,
        /// The `g_idx` tensor.
        tensor: String,
        /// The row of the weight (input feature).
        row: usize,
        /// The value found.
        found: i32,
        /// How many groups the layer has.
        groups: usize,
        /// What to do next.
        hint: String,
    },

    /// No module of the checkpoint is quantized.
    #[error(
        "{}: the configuration says GPTQ, but no tensor is called *.qweight; \
         these are the weights of an unquantized model, or of another method", dir.display()
    )]
    NothingQuantized {
        /// The checkpoint directory.
        dir: PathBuf,
    },

    // ---- zero points -------------------------------------------------------------------------------------
    /// The data contradicts every configuration about how zero points are stored.
    #[error(
        "{}: the configuration says zero points are stored as {declared}, but the data says {found}: {evidence}; \
         if the data is right, pass --assume-format {remedy}", dir.display()
    )]
    ZeroEncodingContradiction {
        /// The checkpoint directory.
        dir: PathBuf,
        /// The encoding that the configuration declares.
        declared: &'static str,
        /// The encoding that the data shows.
        found: &'static str,
        /// The evidence, with its counts.
        evidence: String,
        /// The value of the option that accepts the data's reading.
        remedy: &'static str,
    },

    /// Two configuration files disagree and the data does not settle it.
    #[error(
        "{}: {first} and {second}, and the zero points do not settle it ({evidence}); \
         say which is right with --assume-format gptq|gptq_v2", dir.display()
    )]
    ZeroEncodingUnsettled {
        /// The checkpoint directory.
        dir: PathBuf,
        /// What the first file says, with its name.
        first: String,
        /// What the second file says, with its name.
        second: String,
        /// What the data shows, with its numbers.
        evidence: String,
    },

    /// Stored v1 zero points that writers encode in ways that no reader can tell apart.
    #[error(
        "layer `{layer}`: {words} of the words of `qzeros` hold a v1 zero point of 0, first at [{row}, {column}] \
         = {word:#010x}, and nothing in the file tells how its writer stored it; \
         say it with --zeros-dialect field|word"
    )]
    ZeroDialectUnknown {
        /// The layer.
        layer: String,
        /// How many words are ambiguous.
        words: usize,
        /// The group of the first such word.
        row: usize,
        /// The word's column in `qzeros`.
        column: usize,
        /// The word.
        word: u32,
    },

    /// v1 zero points that their writer destroyed by OR-ing an unmasked -1 over its neighbours.
    #[error(
        "layer `{layer}`: {words} of the words of `qzeros` are destroyed, first at [{row}, {column}] = {word:#010x}: \
         AutoGPTQ writes a zero point of 0 over every later field of its word, and what stood there is lost; \
         quantize again and save as gptq_v2, or accept the loss with --zeros-dialect field"
    )]
    ZerosDestroyed {
        /// The layer.
        layer: String,
        /// How many words are destroyed.
        words: usize,
        /// The group of the first such word.
        row: usize,
        /// The word's column in `qzeros`.
        column: usize,
        /// The word.
        word: u32,
    },

    // ---- dispatch ----------------------------------------------------------------------------------------
    /// No backend is linked into the program.
    #[error(
        "no backend is linked into this program; depend on a backend crate and name it in a source file \
         (`use gptq_torch_fallback as _;`), or pass its REGISTRATION to Registry::with. A crate that only \
         Cargo.toml names is not linked; two versions of gptq-core in one program have a registry each \
         (`cargo tree -d` shows them)"
    )]
    EmptyRegistry,

    /// The backend asked for by name is not linked.
    #[error(
        "backend `{asked}` is not linked into this program; linked: {}; \
         depend on its crate and name it in a source file (`use its_crate as _;`)", linked.join(", ")
    )]
    BackendNotLinked {
        /// The name asked for.
        asked: String,
        /// The names that are linked.
        linked: Vec<&'static str>,
    },

    /// Two linked backends have the same name.
    #[error("two linked backends are both called `{id}`; remove one, or rename it in its registration")]
    DuplicateBackend {
        /// The name.
        id: BackendId,
    },

    /// A backend was asked for by name and cannot run a layer.
    #[error("backend `{backend}` cannot run {subject}: {rejection}")]
    Rejected {
        /// The backend.
        backend: BackendId,
        /// The layer, or the device.
        subject: String,
        /// Why not, and what would fix it.
        rejection: Box<Rejection>,
    },

    /// `auto` found no backend for a layer.
    #[error("no linked backend can run layer `{layer}` on {device}:\n{report}")]
    NoBackend {
        /// The first layer without a backend.
        layer: String,
        /// The device asked for.
        device: Device,
        /// Everyone who was asked, and why they refused.
        report: Box<PlanReport>,
    },

    /// A plan was made for another checkpoint than the one it is used with.
    #[error("the plan does not fit this checkpoint: {problem}; make it from the same checkpoint")]
    PlanMismatch {
        /// Where they differ.
        problem: String,
    },

    // ---- devices and backends ----------------------------------------------------------------------------
    /// A device cannot give the memory that is needed.
    #[error("{device}: out of memory: {what} needs {needed} bytes{}; {remedy}",
        available.map(|bytes| format!(", {bytes} are free")).unwrap_or_default())]
    OutOfMemory {
        /// The device.
        device: Device,
        /// What the memory was for.
        what: String,
        /// Bytes asked for.
        needed: usize,
        /// Bytes free at that moment, where the device tells.
        available: Option<usize>,
        /// What to do next.
        remedy: String,
    },

    /// A device, its driver, or a library on it failed.
    #[error("{device}: {operation} failed: {message}")]
    Device {
        /// The device.
        device: Device,
        /// What was tried.
        operation: String,
        /// What came back.
        message: String,
    },

    /// A backend failed in a way of its own.
    #[error("backend `{backend}` failed: {message}")]
    Backend {
        /// The backend.
        backend: BackendId,
        /// What went wrong, and what to do next.
        message: String,
        /// The cause, where there is one.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },

    /// A backend option is unknown or has a value that it cannot have.
    #[error("option `{key}`: {problem}")]
    Option {
        /// The option.
        key: String,
        /// What is wrong, and which options or values there are.
        problem: String,
    },

    // ---- saving ------------------------------------------------------------------------------------------
    /// The directory to save into holds something already, or cannot be one.
    #[error("{}: {problem}; give a directory that does not exist yet, or an empty one", path.display())]
    Output {
        /// The directory.
        path: PathBuf,
        /// What is in the way.
        problem: String,
    },

    /// A layer has no representation in the format asked for.
    #[error("layer `{layer}` cannot be stored as {format}: {reason}; {remedy}")]
    NotStorable {
        /// The layer.
        layer: String,
        /// The format asked for.
        format: CheckpointFormat,
        /// What the format has no room for.
        reason: String,
        /// What to do instead.
        remedy: String,
    },

    /// What was written reads back as something else; it was removed again.
    #[error(
        "{}: layer `{layer}` reads back differently from what was saved: {problem}; nothing was left there. Check the \
         disk, and report this with the checkpoint's configuration", path.display()
    )]
    SavedDiffers {
        /// The directory that was to be saved.
        path: PathBuf,
        /// The first layer that differs.
        layer: String,
        /// How it differs.
        problem: String,
    },

    // ---- using a finalized model -------------------------------------------------------------------------
    /// No layer has this name.
    #[error("no quantized layer is called `{name}`{}; `gptq inspect` lists them",
        similar.as_ref().map(|s| format!(", the nearest is `{s}`")).unwrap_or_default())]
    NoSuchLayer {
        /// The name asked for.
        name: String,
        /// The most similar name there is.
        similar: Option<String>,
    },

    /// `x` or `out` has a shape that does not fit.
    #[error("{what} has shape {found:?}, expected {expected}")]
    Shape {
        /// The tensor, with its layer: `x of layer `model.layers.0.mlp.up_proj``.
        what: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape expected.
        expected: String,
    },

    /// `x` or `out` has a dtype that does not fit.
    #[error("{what} has dtype {found}, expected {expected}")]
    DtypeMismatch {
        /// The tensor, with its layer.
        what: String,
        /// Its dtype.
        found: DType,
        /// The dtypes that would have been accepted.
        expected: String,
    },

    /// A tensor or a context lives on another device than the layer.
    #[error("{what} is on {found}, expected {expected}; copy it there, or plan the model for {found}")]
    DeviceMismatch {
        /// The tensor or context, with its layer.
        what: String,
        /// Where it is.
        found: Device,
        /// Where it must be.
        expected: Device,
    },

    /// Bytes given as a tensor are not aligned or not as long as its shape needs.
    #[error("{what}: {problem}")]
    TensorBytes {
        /// The tensor.
        what: String,
        /// What is wrong with the bytes.
        problem: String,
    },

    /// A context's scratch is too small for even one row.
    #[error(
        "the context has {found} bytes of scratch and layer `{layer}` needs {needed} for one row; \
         make contexts with FinalizedModel::context"
    )]
    ScratchTooSmall {
        /// The layer.
        layer: String,
        /// Bytes of scratch in the context.
        found: usize,
        /// Bytes that one row needs.
        needed: usize,
    },
}

impl Error {
    /// The error and its causes, one a line, as a program prints it.
    pub fn report(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text.push_str("\n  caused by: ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }
}
