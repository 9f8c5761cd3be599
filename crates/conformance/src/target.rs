//! The backend under test, and what a check says about it.

use std::fmt;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use gptq_core::backend::{BACKEND, Capabilities, Options, PlanRequest, Registration, Registry, Rejection};
use gptq_core::checkpoint::Checkpoint;
use gptq_core::device::{Device, Memory};
use gptq_core::format::{Bits, GroupSize, Packing};
use gptq_core::post_init::{FinalizedModel, PostInitOptions, post_init};
use gptq_core::tensor::DType;
use gptq_core::{Error, QuantLinear};

use crate::accuracy::WeightRounding;
use crate::case::{Case, GIdx};
use crate::config::quantize_config;

/// A backend, the device on which it is tested, and the options with which it is opened.
#[derive(Clone, Debug)]
pub struct Target {
    registration: Registration,
    device: Device,
    capabilities: Result<Capabilities, Rejection>,
    options: Options,
}

/// What a check did.
#[derive(Clone, PartialEq, Debug, Default)]
#[non_exhaustive]
pub struct Summary {
    /// How many cases ran and were right.
    pub ran: usize,
    /// How many cases the backend declined.
    pub declined: usize,
    /// The largest error, as a part of the bound it has to stay under, where that was measured.
    pub worst: Option<f64>,
    /// Why nothing was run at all, where nothing was.
    pub skipped: Option<String>,
}

impl Summary {
    /// Cases that ran.
    pub(crate) fn ran(ran: usize) -> Self {
        Self { ran, ..Self::default() }
    }

    /// A check of something that the backend declines to do.
    pub(crate) fn declined(declined: usize) -> Self {
        Self { declined, ..Self::default() }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.skipped {
            Some(why) => write!(f, "skipped: {why}"),
            None => write!(f, "{} cases ran, {} declined by the backend", self.ran, self.declined),
        }?;
        match self.worst {
            Some(worst) => write!(f, ", errors up to {worst:.2} of the bound"),
            None => Ok(()),
        }
    }
}

/// A check: `Ok` where the backend keeps this part of the contract, and otherwise a message that names the case, what
/// was expected and what was found.
pub type Check = fn(&Target) -> Result<Summary, String>;

impl Target {
    /// `registration` on `device`, written as `cpu`, `cuda:1`, `KIND:ORDINAL`. The backend is asked here, once, what it
    /// can run there.
    ///
    /// # Errors
    /// Where `device` is not written so.
    pub fn new(registration: Registration, device: &str) -> Result<Self, String> {
        let device: Device = device.parse()?;
        let capabilities = registration.probe(&device);
        Ok(Self { registration, device, capabilities, options: Options::default() })
    }

    /// The same backend, opened with options written as `BACKEND.NAME=VALUE`.
    ///
    /// # Errors
    /// Where one is not written so. Whether the backend has it shows when it is opened.
    pub fn with_options(mut self, options: &[&str]) -> Result<Self, String> {
        for option in options {
            self.options.set_assignment(option).map_err(|error| error.report())?;
        }
        Ok(self)
    }

    /// The backend.
    pub fn registration(&self) -> &Registration {
        &self.registration
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The options.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Whether the backend rounds dequantized weights, as its capabilities say.
    pub fn weights(&self) -> WeightRounding {
        self.capabilities.as_ref().map(WeightRounding::from).unwrap_or_default()
    }

    /// What the backend says it can run.
    ///
    /// # Errors
    /// Why it cannot be used on this device.
    pub fn capabilities(&self) -> Result<&Capabilities, Rejection> {
        self.capabilities.as_ref().map_err(Clone::clone)
    }

    /// Whether the backend accepts such a layer with such x.
    ///
    /// # Errors
    /// Why not.
    pub fn accepts(&self, case: &Case, x_dtype: DType) -> Result<(), Rejection> {
        let capabilities = self.capabilities()?;
        let layer =
            case.outline().map_err(|error| Rejection::other(error.to_string(), "no file holds this case"))?;
        capabilities.accept(layer.info(), Some(x_dtype))?;
        self.registration.accepts.map_or(Ok(()), |accepts| accepts(&self.device, layer.info()))
    }

    /// Opens a model of these layers through core's front door, on this backend alone.
    ///
    /// # Errors
    /// The error of the plan or of a step.
    pub fn open(
        &self,
        layers: Vec<QuantLinear>,
        x_dtype: Option<DType>,
        max_input_length: Option<usize>,
    ) -> Result<FinalizedModel, Error> {
        let checkpoint = Checkpoint::from_layers(quantize_config()?, layers);
        let mut request =
            PlanRequest::new(BACKEND::Other(self.registration.id.as_str().to_owned()), self.device.clone());
        request.registry = Registry::empty().with(self.registration);
        request.x_dtype = x_dtype;
        let plan = request.plan(&checkpoint)?;
        let backend_options = self.options.clone();
        let model = post_init(
            checkpoint,
            plan,
            PostInitOptions { max_input_length, backend_options, ..PostInitOptions::default() },
        )?;
        keep_open(&model);
        Ok(model)
    }

    /// A layer and a type of x that the backend accepts, as near to the plain kind as it allows: `shape` turns plain
    /// layers of many kinds into what a check needs. `None` where the backend accepts no such layer.
    pub fn find(&self, shape: impl Fn(Case) -> Case) -> Option<(Case, DType)> {
        self.find_where(shape, |_| true)
    }

    /// As [`Target::find`], of those that `keep` keeps.
    pub fn find_where(
        &self,
        shape: impl Fn(Case) -> Case,
        keep: impl Fn(&Case) -> bool,
    ) -> Option<(Case, DType)> {
        self.find_with(&[DType::F16, DType::F32, DType::BF16], shape, keep)
    }

    /// As [`Target::find_where`], with x of the first of these types that finds a layer.
    pub fn find_with(
        &self,
        x_dtypes: &[DType],
        shape: impl Fn(Case) -> Case,
        keep: impl Fn(&Case) -> bool,
    ) -> Option<(Case, DType)> {
        let capabilities = self.capabilities().ok()?;
        for &dtype in x_dtypes {
            for plain in plain_cases(capabilities) {
                let case = shape(plain);
                if case.is_legal() && keep(&case) && self.accepts(&case, dtype).is_ok() {
                    return Some((case, dtype));
                }
            }
        }
        None
    }
}

/// Keeps the device of a model open for the rest of the process: opening a GPU takes a quarter of a second, and hundreds of
/// models are opened. What a model holds on it is freed all the same.
fn keep_open(model: &FinalizedModel) {
    static OPEN: Mutex<Vec<Arc<dyn Memory>>> = Mutex::new(Vec::new());
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(memory) =
        model.memory().filter(|memory| open.iter().all(|open| open.device() != memory.device()))
    {
        open.push(Arc::clone(memory));
    }
}

/// Layers that a backend might accept, the most telling ones first: asymmetric, several groups, 4 bits, and a shape
/// that no tile divides.
fn plain_cases(capabilities: &Capabilities) -> impl Iterator<Item = Case> {
    let shapes: Vec<(usize, usize)> =
        [(96, 136), (128, 160), (256, 264), (128, 256), (256, 512), (512, 1024), (1024, 1024)]
            .into_iter()
            .filter(|&(k, n): &(usize, usize)| {
                k.is_multiple_of(capabilities.in_features_multiple.max(1))
                    && n.is_multiple_of(capabilities.out_features_multiple.max(1))
            })
            .collect();
    let widths: Vec<(Bits, Packing)> = [2usize, 6, 0, 1, 4, 3, 5]
        .into_iter()
        .filter_map(|index| Bits::ALL.get(index).copied())
        .filter(|bits| capabilities.bits.contains(bits))
        .flat_map(|bits| [(bits, Packing::Continuous), (bits, Packing::Planar)])
        .collect();
    let mut cases = Vec::new();
    for sym in [false, true] {
        for &(bits, packing) in &widths {
            for group_size in [32, 64, 128, 16, -1].into_iter().filter_map(GroupSize::from_config) {
                for scale_dtype in [DType::F16, DType::BF16, DType::F32] {
                    for &(in_features, out_features) in &shapes {
                        cases.push(Case {
                            bits,
                            packing,
                            group_size,
                            sym,
                            scale_dtype,
                            in_features,
                            out_features,
                            g_idx: GIdx::Absent,
                            ..Case::PLAIN
                        });
                    }
                }
            }
        }
    }
    cases.into_iter()
}

/// Checks that look at the memory of a device run alone; the others run beside one another.
static ALONE: RwLock<()> = RwLock::new(());

/// Whether a check may run while others use the same device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(clippy::exhaustive_enums, reason = "it may or it may not")]
pub enum Company {
    /// It may.
    Others,
    /// It measures what the others would disturb.
    Nobody,
}

/// Runs a check as a test does: [`attempt`], and then a line that says what was done or why nothing was.
///
/// # Errors
/// As [`attempt`].
pub fn run(
    target: &Target,
    name: &str,
    company: Company,
    check: impl FnOnce(&Target) -> Result<Summary, String>,
) -> Result<Summary, String> {
    let summary = attempt(target, company, check)?;
    // Straight to the stream: the harness would swallow what a passing test prints, and a skipped test passes.
    let line = format!("{} on {}, {name}: {summary}\n", target.registration.id, target.device);
    // A closed stream is no reason to fail.
    let _ = std::io::stderr().write_all(line.as_bytes());
    Ok(summary)
}

/// Whether a backend refuses what no other machine would change: the CPU, which each has, or a kind of device.
fn is_no_matter_of_the_machine(device: &Device, rejection: &Rejection) -> bool {
    *device == Device::Cpu || matches!(rejection, Rejection::DeviceKind { .. } | Rejection::ApiVersion { .. })
}

/// Runs a check in the company that it bears, and skips it, with the reason, where the device cannot be used on this
/// machine. With the environment variable `GPTQ_REQUIRE_DEVICE` set, that is an error too.
///
/// # Errors
/// What the check answers; and where the backend refuses the CPU, or devices of the kind asked for: then its tests would
/// pass on every machine and try nothing.
pub fn attempt(
    target: &Target,
    company: Company,
    check: impl FnOnce(&Target) -> Result<Summary, String>,
) -> Result<Summary, String> {
    let (mut shared, mut exclusive) = (None, None);
    match company {
        Company::Others => shared = Some(ALONE.read().unwrap_or_else(PoisonError::into_inner)),
        Company::Nobody => exclusive = Some(ALONE.write().unwrap_or_else(PoisonError::into_inner)),
    }
    let summary = match target.capabilities() {
        Ok(_) => check(target),
        Err(rejection) if std::env::var_os("GPTQ_REQUIRE_DEVICE").is_some() => {
            Err(format!("GPTQ_REQUIRE_DEVICE is set, and {} cannot be used: {rejection}", target.device))
        }
        Err(rejection) if is_no_matter_of_the_machine(target.device(), &rejection) => Err(format!(
            "nothing was tested, and on no machine would it be: {rejection}; correct the device that the suite names, or \
             what the backend answers for it"
        )),
        Err(rejection) => Ok(Summary { skipped: Some(rejection.to_string()), ..Summary::default() }),
    };
    drop((shared.take(), exclusive.take()));
    summary.map_err(|problem| format!("{} on {}: {problem}", target.registration.id, target.device))
}
