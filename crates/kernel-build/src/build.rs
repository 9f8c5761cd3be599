//! From a family to its fatbin and manifest.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::architecture::Architecture;
use crate::error::{Error, Result};
use crate::family::Family;
use crate::image;
use crate::manifest::{Kernel, Manifest};
use crate::ptxas::Report;
use crate::toolchain::Toolchain;

/// How to build.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The folder that receives the fatbin and the manifest.
    pub out: PathBuf,
    /// The architectures; none: those of [`Architecture::DEFAULT`] that the compiler knows.
    pub architectures: Vec<Architecture>,
    /// How many compilers run at a time.
    pub jobs: NonZeroUsize,
}

impl Options {
    /// The default architectures, on all cores, into `out`.
    pub fn new(out: impl Into<PathBuf>) -> Self {
        let jobs = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self { out: out.into(), architectures: Vec::new(), jobs }
    }
}

/// What [`build`] made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Built {
    /// The file to load.
    pub fatbin: PathBuf,
    /// What is in it.
    pub manifest: Manifest,
    /// Whether it was there already, made of the same sources in the same way.
    pub unchanged: bool,
    /// What the compiler warned of, each once. Empty where nothing was built.
    pub warnings: Vec<String>,
}

/// Builds `family` into `FAMILY.fatbin` and `FAMILY.json`. Files appear under their names only when they are complete.
///
/// Machine code for each architecture, and PTX of one for the GPUs after it: of the newest that leaves out no GPU after the
/// oldest. There is none where that would be a variant like 90a, whose PTX runs nowhere else.
///
/// # Errors
/// [`Error::Tool`] with all that the compiler said, [`Error::SlowKernels`] where a kernel spills or its `wgmma`
/// instructions were serialized, [`Error::UnknownArchitecture`], [`Error::NoSources`], [`Error::Io`].
pub fn build(toolchain: &Toolchain, family: &Family, options: &Options) -> Result<Built> {
    let mut architectures = options.architectures.clone();
    if architectures.is_empty() {
        architectures = toolchain.default_architectures();
    }
    architectures.sort_unstable();
    architectures.dedup();
    toolchain.check(&architectures)?;
    let ptx = Architecture::for_ptx(&architectures, &toolchain.known);

    let sources = family.sources()?;
    let source_hash = hash(toolchain, family, &architectures, ptx)?;
    let fatbin = options.out.join(format!("{}.fatbin", family.name));
    let json = options.out.join(format!("{}.json", family.name));
    if let Some(manifest) = Manifest::read(&json)
        && manifest.source_hash == source_hash
        && fs::metadata(&fatbin).is_ok_and(|file| file.len() == manifest.fatbin_bytes)
    {
        return Ok(Built { fatbin, manifest, unchanged: true, warnings: Vec::new() });
    }

    let work = WorkFolder::new(&options.out, &family.name)?;
    let jobs = jobs(&sources, &architectures, ptx, &work.path);
    let reports = run_all(toolchain, family, &jobs, options.jobs)?;
    let (kernels, warnings) = collect(family, &jobs, reports)?;

    let mut manifest = Manifest {
        family: family.name.clone(),
        source_hash,
        nvcc: toolchain.version.clone(),
        flags: family.flags.clone(),
        architectures,
        ptx,
        fatbin_bytes: 0,
        allowed_spills: allowed(family),
        kernels,
    };
    let fatbins: Vec<Vec<u8>> = sources
        .iter()
        .map(|source| fatbin_of(toolchain, source, &jobs, &work.path))
        .collect::<Result<_>>()?;
    let bytes = image::join(&fatbins, &manifest);
    manifest.fatbin_bytes = bytes.len() as u64;
    let mut text = serde_json::to_string_pretty(&manifest)
        .map_err(|error| Error::Io { path: json.clone(), source: error.into() })?;
    text.push('\n');
    // The manifest last: until it is there, the family counts as changed.
    work.publish(&bytes, &fatbin)?;
    work.publish(text.as_bytes(), &json)?;
    Ok(Built { fatbin, manifest, unchanged: false, warnings })
}

/// One run of nvcc.
struct Job {
    source: PathBuf,
    architecture: Architecture,
    /// PTX, or machine code.
    is_ptx: bool,
    output: PathBuf,
}

fn jobs(sources: &[PathBuf], cubins: &[Architecture], ptx: Option<Architecture>, work: &Path) -> Vec<Job> {
    let mut jobs = Vec::new();
    for source in sources {
        let stem = name_of(source);
        let images = cubins.iter().map(|&architecture| (architecture, false));
        for (architecture, is_ptx) in images.chain(ptx.map(|architecture| (architecture, true))) {
            let extension = if is_ptx { "ptx" } else { "cubin" };
            let output = work.join(format!("{stem}.{architecture}.{extension}"));
            jobs.push(Job { source: source.clone(), architecture, is_ptx, output });
        }
    }
    jobs
}

fn run_all(
    toolchain: &Toolchain,
    family: &Family,
    jobs: &[Job],
    at_a_time: NonZeroUsize,
) -> Result<Vec<Report>> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Result<Report>)>> = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..at_a_time.get().min(jobs.len()) {
            scope.spawn(|| {
                while let Some((index, job)) = take(&next, jobs) {
                    let result = compile(toolchain, family, job);
                    if result.is_err() {
                        // The others would most often fail in the same way.
                        next.store(jobs.len(), Ordering::Relaxed);
                    }
                    done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((index, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

fn take<'a>(next: &AtomicUsize, jobs: &'a [Job]) -> Option<(usize, &'a Job)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    Some((index, jobs.get(index)?))
}

fn compile(toolchain: &Toolchain, family: &Family, job: &Job) -> Result<Report> {
    let mut command = Command::new(&toolchain.nvcc);
    let kind = if job.is_ptx { "compute" } else { "sm" };
    command.arg(format!("-arch={kind}_{}", job.architecture));
    command.arg(if job.is_ptx { "-ptx" } else { "-cubin" });
    command.args(["-std=c++17", "-Xptxas", "-v"]).args(&family.flags);
    if let Some(compiler) = &toolchain.host_compiler {
        command.arg("-ccbin").arg(compiler);
    }
    for folder in std::iter::once(&family.folder).chain(&family.include) {
        command.arg("-I").arg(folder);
    }
    command.arg("-o").arg(&job.output).arg(&job.source);
    Ok(Report::parse(&run(&mut command)?))
}

/// Of fatbinary. Machine code is a fifth of its size when it is compressed; the driver expands it when a module is loaded.
const JOIN_OPTIONS: [&str; 2] = ["-64", "--compress-all"];

/// Joins what was compiled of one source.
fn fatbin_of(toolchain: &Toolchain, source: &Path, jobs: &[Job], work: &Path) -> Result<Vec<u8>> {
    let path = work.join(format!("{}.fatbin", name_of(source)));
    let mut command = Command::new(&toolchain.fatbinary);
    command.args(JOIN_OPTIONS).arg(format!("--create={}", path.display()));
    for job in jobs.iter().filter(|job| job.source == source) {
        let kind = if job.is_ptx { "ptx" } else { "elf" };
        let image = format!("kind={kind},sm={},file={}", job.architecture, job.output.display());
        command.arg(format!("--image3={image}"));
    }
    let output = run(&mut command)?;
    let bytes = fs::read(&path).map_err(|source| Error::Io { path, source })?;
    if image::is_fatbin(&bytes) {
        Ok(bytes)
    } else {
        Err(Error::Tool {
            command: describe(&command),
            output: format!("wrote something else than a fatbin\n{output}"),
        })
    }
}

/// Runs a program of the toolkit; all that it prints.
fn run(command: &mut Command) -> Result<String> {
    let description = describe(command);
    match command.output() {
        Err(error) => Err(Error::Tool { command: description, output: error.to_string() }),
        Ok(done) => {
            let output =
                [done.stdout, done.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
            if done.status.success() { Ok(output) } else { Err(Error::Tool { command: description, output }) }
        }
    }
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Gathers the reports by kernel, and refuses what is slow.
fn collect(
    family: &Family,
    jobs: &[Job],
    reports: Vec<Report>,
) -> Result<(BTreeMap<String, Kernel>, Vec<String>)> {
    let mut kernels: BTreeMap<String, Kernel> = BTreeMap::new();
    let mut warnings = Vec::new();
    let mut problems = Vec::new();
    for (job, report) in jobs.iter().zip(reports) {
        let source = name_of(&job.source);
        let place = |kernel: &str| format!("{kernel} ({source}, sm_{})", job.architecture);
        problems.extend(report.serialized.iter().map(|line| format!("{}: {line}", place("wgmma"))));
        for (name, resources) in report.kernels {
            let allowed = family.allowed_spills.iter().any(|spill| spill.kernel == name);
            if resources.spill_bytes > 0 && !allowed {
                problems.push(format!("{}: spills {} bytes", place(&name), resources.spill_bytes));
            }
            let kernel = kernels
                .entry(name.clone())
                .or_insert_with(|| Kernel { source: source.clone(), resources: BTreeMap::new() });
            if kernel.source != source {
                problems.push(format!("{}: {} defines it too", place(&name), kernel.source));
            }
            kernel.resources.insert(job.architecture, resources);
        }
        for warning in report.warnings {
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
    }
    for spill in &family.allowed_spills {
        let spills = |kernel: &Kernel| kernel.resources.values().any(|resources| resources.spill_bytes > 0);
        if !kernels.get(&spill.kernel).is_some_and(spills) {
            warnings.push(format!("{} may spill and does not: take it off the list", spill.kernel));
        }
    }
    if problems.is_empty() {
        Ok((kernels, warnings))
    } else {
        Err(Error::SlowKernels { family: family.name.clone(), problems })
    }
}

fn allowed(family: &Family) -> BTreeMap<String, String> {
    family.allowed_spills.iter().map(|spill| (spill.kernel.clone(), spill.reason.clone())).collect()
}

/// 128 bits of FNV-1a over all that decides what is built.
fn hash(
    toolchain: &Toolchain,
    family: &Family,
    architectures: &[Architecture],
    ptx: Option<Architecture>,
) -> Result<String> {
    let mut state = Fnv1a::default();
    state.write(env!("CARGO_PKG_VERSION").as_bytes());
    state.write(toolchain.version.as_bytes());
    for variable in ["NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS"] {
        state.write(std::env::var_os(variable).unwrap_or_default().as_encoded_bytes());
    }
    architectures.iter().for_each(|architecture| state.write(architecture.to_string().as_bytes()));
    state.write(ptx.map(|architecture| architecture.to_string()).unwrap_or_default().as_bytes());
    JOIN_OPTIONS.iter().for_each(|option| state.write(option.as_bytes()));
    family.flags.iter().for_each(|flag| state.write(flag.as_bytes()));
    // A spill that is no longer allowed has to fail the build, although nothing else has changed.
    family.allowed_spills.iter().for_each(|spill| state.write(spill.kernel.as_bytes()));
    for path in family.inputs()? {
        state.write(name_of(&path).as_bytes());
        state.write(&fs::read(&path).map_err(|source| Error::Io { path, source })?);
    }
    Ok(format!("{:032x}", state.0))
}

struct Fnv1a(u128);

impl Default for Fnv1a {
    fn default() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }
}

impl Fnv1a {
    /// The bytes and their length, so that two fields never read as one.
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().copied().chain(bytes.len().to_le_bytes()) {
            self.0 = (self.0 ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A folder for what a build leaves behind, beside its result so that a rename stays on one disk; removed when dropped.
struct WorkFolder {
    path: PathBuf,
}

impl WorkFolder {
    fn new(out: &Path, family: &str) -> Result<Self> {
        let path = out.join(format!(".{family}-{}", process::id()));
        match fs::create_dir_all(&path) {
            Ok(()) => Ok(Self { path }),
            Err(source) => Err(Error::Io { path, source }),
        }
    }

    /// Writes a file completely, and only then under its name.
    fn publish(&self, bytes: &[u8], path: &Path) -> Result<()> {
        let draft = self.path.join("draft");
        fs::write(&draft, bytes)
            .and_then(|()| fs::rename(&draft, path))
            .map_err(|source| Error::Io { path: path.to_owned(), source })
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        // Left behind, it is in nobody's way.
        let _ = fs::remove_dir_all(&self.path);
    }
}
