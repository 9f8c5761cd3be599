//! Whether there is a driver, how old it is, and which GPUs it has. Asking makes no context and allocates nothing.
#![expect(unsafe_code, reason = "calls into the driver's C interface, and loads it")]

use std::fmt;
use std::mem;

use cudarc::driver::result;
use cudarc::driver::sys::{self, CUdevice, CUdevice_attribute, CUresult};
use gptq_core::backend::Rejection;
use gptq_core::device::Device;

use crate::status::describe;

/// The version of CUDA that a driver has to support: the functions that this crate calls are of that version or
/// older. R525 is the first branch of drivers that does.
pub const MINIMUM_DRIVER: CudaVersion = CudaVersion { major: 12, minor: 0 };

const INSTALL: &str = "install the NVIDIA driver, release 525 or later (or choose --device cpu)";

/// A version of CUDA.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[expect(clippy::exhaustive_structs, reason = "a version has two numbers")]
pub struct CudaVersion {
    /// 12 of 12.4.
    pub major: u32,
    /// 4 of 12.4.
    pub minor: u32,
}

impl CudaVersion {
    /// From the driver's 12040.
    fn from_number(number: i32) -> Self {
        let number = u32::try_from(number).unwrap_or(0);
        Self { major: number / 1000, minor: number % 1000 / 10 }
    }
}

impl fmt::Display for CudaVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What a GPU can run, as NVIDIA numbers it: 7.5 is Turing, 8.0 Ampere, 9.0 Hopper.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[expect(clippy::exhaustive_structs, reason = "a compute capability has two numbers")]
pub struct ComputeCapability {
    /// 8 of 8.6.
    pub major: u32,
    /// 6 of 8.6.
    pub minor: u32,
}

impl ComputeCapability {
    /// What to build kernels for that are to run here, as compilers name it: `90a` for 9.0, whose kernels use what only it
    /// has. `None` where that is the PTX of what is built by default: kernels spill in machine code for GPUs after Hopper.
    pub(crate) fn architecture(self) -> Option<String> {
        let Self { major, minor } = self;
        match (major, minor) {
            (9, 0) => Some("90a".into()),
            (10.., _) => None,
            _ => Some(format!("{major}{minor}")),
        }
    }
}

impl fmt::Display for ComputeCapability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A GPU, as the driver describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// Its ordinal, as the driver counts.
    pub ordinal: usize,
    /// `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// What it can run.
    pub compute_capability: ComputeCapability,
    /// All of its memory.
    pub memory_bytes: usize,
    /// Its streaming multiprocessors.
    pub multiprocessors: u32,
    /// Shared memory that one block can have at most, with [`Kernel::allow_shared_bytes`](crate::Kernel::allow_shared_bytes).
    pub shared_bytes_per_block: u32,
    /// Its L2 cache.
    pub l2_bytes: usize,
    /// The newest version of CUDA that its driver supports.
    pub driver: CudaVersion,
}

/// Every GPU that the driver has; it may be none.
///
/// # Errors
/// [`Rejection::Driver`] where there is no driver, or it is too old.
pub fn devices() -> Result<Vec<DeviceInfo>, Rejection> {
    let driver = match initialize() {
        Ok(driver) => driver,
        Err(Rejection::NoSuchDevice { .. }) => return Ok(Vec::new()),
        Err(other) => return Err(other),
    };
    (0..count()?).map(|ordinal| describe_device(ordinal, driver)).collect()
}

/// The GPU of this ordinal.
///
/// # Errors
/// [`Rejection::Driver`] where there is no driver, or it is too old; [`Rejection::NoSuchDevice`].
pub fn probe(ordinal: usize) -> Result<DeviceInfo, Rejection> {
    let none = |found: String| Rejection::NoSuchDevice { device: Device::Cuda(ordinal), found };
    let driver = initialize().map_err(|rejection| match rejection {
        Rejection::NoSuchDevice { found, .. } => none(found),
        other => other,
    })?;
    let count = count()?;
    if ordinal < count {
        return describe_device(ordinal, driver);
    }
    let visible = match std::env::var("CUDA_VISIBLE_DEVICES") {
        Ok(value) => format!(" (CUDA_VISIBLE_DEVICES is `{value}`)"),
        Err(_) => String::new(),
    };
    Err(none(match count {
        0 => format!("the driver has no GPU{visible}"),
        1 => format!("the driver has cuda:0 alone{visible}"),
        count => format!("the driver has cuda:0 to cuda:{}{visible}", count - 1),
    }))
}

/// Makes the driver ready: the one door to it.
pub(crate) fn initialize() -> Result<CudaVersion, Rejection> {
    let library = if cfg!(windows) { "nvcuda.dll" } else { "libcuda.so.1" };
    if !is_present() {
        return Err(Rejection::Driver {
            found: format!("the library of the NVIDIA driver ({library}) is not on this machine"),
            remedy: INSTALL.into(),
        });
    }
    let mut number = 0;
    // SAFETY: the library is there, and every version of it has this function; `number` outlives the call.
    let asked = unsafe { sys::cuDriverGetVersion(&raw mut number) };
    let driver = CudaVersion::from_number(number);
    judge_driver(asked, driver)?;
    match result::init() {
        Ok(()) => Ok(driver),
        Err(error) if error.0 == CUresult::CUDA_ERROR_NO_DEVICE => Err(Rejection::NoSuchDevice {
            device: Device::Cuda(0),
            found: "the driver finds no GPU that it supports".into(),
        }),
        Err(error) => Err(Rejection::Driver {
            found: format!("the driver does not start: {}", describe(error)),
            remedy: "see whether nvidia-smi runs; after an update of the driver, restart the machine".into(),
        }),
    }
}

/// What the version of a driver means.
fn judge_driver(asked: CUresult, driver: CudaVersion) -> Result<(), Rejection> {
    if asked == CUresult::CUDA_ERROR_STUB_LIBRARY {
        return Err(Rejection::Driver {
            found: "the driver library is a stub that only serves to link against".into(),
            remedy: format!("take its folder off the library path, and {INSTALL}"),
        });
    }
    if asked != CUresult::CUDA_SUCCESS || driver < MINIMUM_DRIVER {
        return Err(Rejection::Driver {
            found: format!("the driver supports CUDA {driver}, and CUDA {MINIMUM_DRIVER} is needed"),
            remedy: INSTALL.into(),
        });
    }
    Ok(())
}

/// Whether cudarc will find the driver's library. It has a function of that name, but not where another crate of the
/// program has it linked; so the same names are tried here, in its order of preference.
fn is_present() -> bool {
    let names: &[&str] =
        if cfg!(windows) { &["cuda.dll", "nvcuda.dll"] } else { &["libcuda.so", "libcuda.so.1"] };
    names.iter().any(|name| {
        // SAFETY: the driver's library has no initialization of its own that a program would have to prepare for.
        let library = unsafe { libloading::Library::new(*name) };
        // It stays loaded, as it will be needed; to load and unload it again takes milliseconds.
        library.map(mem::forget).is_ok()
    })
}

fn count() -> Result<usize, Rejection> {
    let count = result::device::get_count().map_err(no_answer)?;
    Ok(usize::try_from(count).unwrap_or(0))
}

fn describe_device(ordinal: usize, driver: CudaVersion) -> Result<DeviceInfo, Rejection> {
    let device = handle(ordinal)?;
    let ask = |attribute| {
        // SAFETY: the handle comes from the driver.
        let value = unsafe { result::device::get_attribute(device, attribute) }.map_err(no_answer)?;
        Ok::<_, Rejection>(u32::try_from(value).unwrap_or(0))
    };
    Ok(DeviceInfo {
        ordinal,
        name: result::device::get_name(device).map_err(no_answer)?,
        compute_capability: ComputeCapability {
            major: ask(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            minor: ask(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        },
        // SAFETY: as above.
        memory_bytes: unsafe { result::device::total_mem(device) }.map_err(no_answer)?,
        multiprocessors: ask(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        shared_bytes_per_block: ask(
            CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
        )?,
        l2_bytes: ask(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)? as usize,
        driver,
    })
}

/// The driver's handle of a device that [`probe`] has seen.
pub(crate) fn handle(ordinal: usize) -> Result<CUdevice, Rejection> {
    let number = i32::try_from(ordinal).unwrap_or(i32::MAX);
    result::device::get(number).map_err(no_answer)
}

pub(crate) fn no_answer(error: result::DriverError) -> Rejection {
    Rejection::Driver {
        found: format!("the driver does not answer: {}", describe(error)),
        remedy: "see whether nvidia-smi runs".into(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn gpu(major: u32, minor: u32) -> DeviceInfo {
        DeviceInfo {
            ordinal: 0,
            name: "a GPU".into(),
            compute_capability: ComputeCapability { major, minor },
            memory_bytes: 0,
            multiprocessors: 1,
            shared_bytes_per_block: 0,
            l2_bytes: 0,
            driver: MINIMUM_DRIVER,
        }
    }

    #[test]
    fn a_machine_without_a_driver_gets_a_rejection_that_says_what_to_install() {
        match probe(0) {
            Ok(info) => eprintln!("skipped: this machine has {}", info.name),
            Err(Rejection::Driver { remedy, .. }) => assert!(!remedy.is_empty()),
            Err(Rejection::NoSuchDevice { device, .. }) => assert_eq!(device, Device::Cuda(0)),
            Err(other) => panic!("{other}"),
        }
        assert_eq!(probe(0).is_ok(), devices().is_ok_and(|all| !all.is_empty()), "both ask the same driver");
    }

    #[test]
    fn an_ordinal_that_no_machine_has_is_no_such_device_or_no_driver() {
        let rejection = probe(usize::MAX).unwrap_err();
        assert!(
            matches!(rejection, Rejection::NoSuchDevice { .. } | Rejection::Driver { .. }),
            "{rejection}"
        );
    }

    #[test]
    fn a_driver_that_is_too_old_is_told_what_is_needed_and_what_was_found() {
        let old =
            judge_driver(CUresult::CUDA_SUCCESS, CudaVersion::from_number(11_040)).unwrap_err().to_string();
        assert!(old.contains("11.4") && old.contains("12.0") && old.contains("525"), "{old}");
        assert!(judge_driver(CUresult::CUDA_SUCCESS, CudaVersion::from_number(13_000)).is_ok());
        let stub = judge_driver(CUresult::CUDA_ERROR_STUB_LIBRARY, CudaVersion::from_number(0)).unwrap_err();
        assert!(stub.to_string().contains("stub"), "{stub}");
    }
}
