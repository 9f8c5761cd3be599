//! Loaded kernels, and launches with one struct of parameters.
#![expect(unsafe_code, reason = "calls into the driver's C interface; launches")]

use std::ffi::{CString, c_void};
use std::fmt;
use std::marker::PhantomData;
use std::ptr;
use std::sync::Arc;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{
    self, CUfunction, CUfunction_attribute, CUlaunchAttribute, CUlaunchAttributeID, CUlaunchAttributeValue,
    CUlaunchConfig, CUmodule, CUresult,
};
use gptq_core::Result;
use gptq_core::backend::Rejection;

use crate::code_target::CodeTarget;
use crate::driver::CudaVersion;
use crate::gpu::{Gpu, failed};
use crate::image::KernelImage;
use crate::status::{During, describe};
use crate::stream::CudaStream;

/// Since this version the driver tells how long the parameters of a kernel are.
const TELLS_PARAMETERS: CudaVersion = CudaVersion { major: 12, minor: 4 };

/// A struct of launch parameters, shared with CUDA C through a `params.h`.
///
/// # Safety
/// The type is laid out as the C struct that the kernels looked up with it take as their only parameter, by value. Any
/// `#[repr(C)]` struct that `cargo xtask codegen` made of that header is.
pub unsafe trait Params: Copy + 'static {}

/// The kernels of an image, loaded on a GPU. Clones share them.
#[derive(Clone)]
pub struct Kernels {
    loaded: Arc<Loaded>,
}

struct Loaded {
    gpu: Gpu,
    family: String,
    target: CodeTarget,
    modules: Vec<CUmodule>,
}

// SAFETY: modules and functions of the driver may be used by any thread, and by several at once.
unsafe impl Send for Loaded {}
// SAFETY: as above.
unsafe impl Sync for Loaded {}

impl Kernels {
    /// Loads `image` on `gpu`.
    ///
    /// # Errors
    /// [`Rejection::ComputeCapability`] where the image has nothing for this GPU, [`Rejection::Driver`] where the driver
    /// is older than the compiler that built it, [`Rejection::Other`] with what the driver says.
    pub fn load(gpu: &Gpu, image: &KernelImage) -> Result<Self, Rejection> {
        let target = image.check(gpu.info())?;
        let family = image.family().to_owned();
        let mut loaded = Loaded { gpu: gpu.clone(), family, target, modules: Vec::new() };
        let refuse = |error: DriverError| refusal(gpu, image, error);
        let _current =
            gpu.current().map_err(|error| Rejection::other(error.to_string(), "restart the program"))?;
        for fatbin in image.fatbins() {
            // The driver reads words of 8 bytes; what a program embeds lies anywhere.
            let mut aligned = vec![0u64; fatbin.len().div_ceil(8)];
            for (word, bytes) in aligned.iter_mut().zip(fatbin.chunks(8)) {
                let mut padded = [0; 8];
                padded[..bytes.len()].copy_from_slice(bytes);
                *word = u64::from_ne_bytes(padded);
            }
            // SAFETY: it begins like a fatbin, and as many bytes follow as its header says: KernelImage::new.
            let module = unsafe { result::module::load_data(aligned.as_ptr().cast()) }.map_err(refuse)?;
            loaded.modules.push(module);
        }
        Ok(Self { loaded: Arc::new(loaded) })
    }

    /// The GPU that they are on.
    pub fn gpu(&self) -> &Gpu {
        &self.loaded.gpu
    }

    /// Which code of the image the GPU runs: what launches may count on.
    pub fn target(&self) -> CodeTarget {
        self.loaded.target
    }

    /// The kernel called `name`, which takes a `P`.
    ///
    /// # Errors
    /// [`Error::Device`](gptq_core::Error::Device) where the image has no such kernel, or one whose parameters are not as
    /// long as `P`: it was then built of other sources than this program.
    pub fn kernel<P: Params>(&self, name: &str) -> Result<Kernel<P>> {
        let gpu = self.gpu();
        let looking = || format!("looking up kernel `{name}` of `{}`", self.loaded.family);
        let rebuild = |problem: String| {
            let command =
                format!("build them again: `cargo xtask build-kernels --family {}`", self.loaded.family);
            failed(gpu, looking(), format!("{problem}; {command}"))
        };
        let c_name = CString::new(name).map_err(|error| failed(gpu, looking(), error.to_string()))?;
        let _current = gpu.current()?;
        for &module in &self.loaded.modules {
            // SAFETY: the module is loaded as long as `self.loaded` is.
            match unsafe { result::module::get_function(module, c_name.clone()) } {
                Err(error) if error.0 == CUresult::CUDA_ERROR_NOT_FOUND => {}
                Err(error) => return Err(failed(gpu, looking(), describe(error))),
                Ok(function) => {
                    if let Some(found) = parameter_bytes(gpu, function)
                        && found != [size_of::<P>()]
                    {
                        return Err(rebuild(format!(
                            "its parameters take {found:?} bytes, and those of this program [{}]",
                            size_of::<P>()
                        )));
                    }
                    return Ok(Kernel {
                        function,
                        name: name.to_owned(),
                        loaded: Arc::clone(&self.loaded),
                        params: PhantomData,
                    });
                }
            }
        }
        Err(rebuild("the kernels do not have it".into()))
    }
}

/// The sizes of all parameters of a kernel, where the driver tells.
fn parameter_bytes(gpu: &Gpu, function: CUfunction) -> Option<Vec<usize>> {
    if gpu.info().driver < TELLS_PARAMETERS {
        return None;
    }
    let mut sizes = Vec::new();
    loop {
        let (mut offset, mut bytes) = (0, 0);
        // SAFETY: the function was just found, and the driver is of a version that has this call.
        match unsafe { sys::cuFuncGetParamInfo(function, sizes.len(), &raw mut offset, &raw mut bytes) } {
            CUresult::CUDA_SUCCESS => sizes.push(bytes),
            // There is no parameter of this number.
            CUresult::CUDA_ERROR_INVALID_VALUE => return Some(sizes),
            _ => return None,
        }
    }
}

/// What a status of loading means.
fn refusal(gpu: &Gpu, image: &KernelImage, error: DriverError) -> Rejection {
    let driver = gpu.info().driver;
    let for_this = match gpu.info().compute_capability.architecture() {
        Some(name) => format!("for this GPU: `cargo xtask build-kernels --arch {name}`, or "),
        None => String::new(),
    };
    match error.0 {
        CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU => image.wrong_architecture(gpu.info()),
        CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => Rejection::Driver {
            found: format!(
                "the driver supports CUDA {driver}, and the kernels of `{}` from {} were compiled by a newer one",
                image.family(),
                image.origin()
            ),
            remedy: format!(
                "update the driver, or build the kernels {for_this}with a CUDA {} toolkit",
                driver.major
            ),
        },
        _ => Rejection::other(
            format!(
                "the kernels of `{}` from {} do not load: {}",
                image.family(),
                image.origin(),
                describe(error)
            ),
            format!("build them again: `cargo xtask build-kernels --family {}`", image.family()),
        ),
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        if let Ok(_current) = self.gpu.current() {
            // A kernel may be running still.
            let _ = result::ctx::synchronize();
            for &module in &self.modules {
                // SAFETY: loaded once in `load`; kernels of it share `self`, so there is none.
                let _ = unsafe { result::module::unload(module) };
            }
        }
    }
}

/// A kernel that takes a `P`. Keeps its module loaded.
pub struct Kernel<P> {
    function: CUfunction,
    name: String,
    loaded: Arc<Loaded>,
    params: PhantomData<fn(&P)>,
}

// SAFETY: functions of the driver may be used by any thread, and by several at once.
unsafe impl<P> Send for Kernel<P> {}
// SAFETY: as above.
unsafe impl<P> Sync for Kernel<P> {}

/// How a kernel is launched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Launch {
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y and z.
    pub block: [u32; 3],
    /// Dynamic shared memory of a block. More than 48 KB only after [`Kernel::allow_shared_bytes`].
    pub shared_bytes: u32,
    /// Blocks of a cluster in x, y and z; the grid is a multiple of it. Compute capability 9.0 and later.
    pub cluster: Option<[u32; 3]>,
    /// Programmatic dependent launch: the kernel may start before the one before it on the stream has ended, and itself
    /// waits (`griddepcontrol.wait`) before it reads what that one writes. Compute capability 9.0 and later. A stream may
    /// [do without](CudaStream::without_overlap).
    pub overlaps_previous: bool,
}

impl Launch {
    /// A grid of blocks, without shared memory or anything special.
    pub const fn new(grid: [u32; 3], block: [u32; 3]) -> Self {
        Self { grid, block, shared_bytes: 0, cluster: None, overlaps_previous: false }
    }

    /// With dynamic shared memory.
    #[must_use]
    pub const fn shared_bytes(mut self, bytes: u32) -> Self {
        self.shared_bytes = bytes;
        self
    }

    /// In clusters.
    #[must_use]
    pub const fn cluster(mut self, blocks: [u32; 3]) -> Self {
        self.cluster = Some(blocks);
        self
    }

    /// With programmatic dependent launch.
    #[must_use]
    pub const fn overlapping_previous(mut self) -> Self {
        self.overlaps_previous = true;
        self
    }

    fn attributes(&self) -> Vec<CUlaunchAttribute> {
        let attribute = |id, value| CUlaunchAttribute { id, pad: [0; 4], value };
        let mut attributes = Vec::new();
        if let Some([x, y, z]) = self.cluster {
            attributes.push(attribute(
                CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION,
                CUlaunchAttributeValue {
                    clusterDim: sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x, y, z },
                },
            ));
        }
        if self.overlaps_previous {
            attributes.push(attribute(
                CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
                CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
            ));
        }
        attributes
    }
}

impl<P: Params> Kernel<P> {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Lets launches ask for up to `bytes` of dynamic shared memory. Once, before the first launch that needs more than
    /// 48 KB.
    ///
    /// # Errors
    /// [`Error::Device`](gptq_core::Error::Device) where the GPU has less.
    pub fn allow_shared_bytes(&self, bytes: u32) -> Result<()> {
        let gpu = &self.loaded.gpu;
        let operation = || format!("giving kernel `{}` {bytes} bytes of shared memory", self.name);
        let value = i32::try_from(bytes).map_err(|_| failed(gpu, operation(), "no GPU has as much"))?;
        let _current = gpu.current()?;
        let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function belongs to a module that `self` keeps loaded.
        unsafe { result::function::set_function_attribute(self.function, attribute, value) }
            .during(gpu.ordinal(), operation())
    }

    /// How many blocks of so many threads, with so much dynamic shared memory, one multiprocessor holds at a time.
    ///
    /// # Errors
    /// [`Error::Device`](gptq_core::Error::Device).
    pub fn blocks_per_multiprocessor(&self, threads: u32, shared_bytes: u32) -> Result<u32> {
        let gpu = &self.loaded.gpu;
        let _current = gpu.current()?;
        let threads = i32::try_from(threads).unwrap_or(i32::MAX);
        // SAFETY: the function belongs to a module that `self` keeps loaded.
        let blocks = unsafe {
            result::occupancy::max_active_block_per_multiprocessor(
                self.function,
                threads,
                shared_bytes as usize,
            )
        };
        let blocks = blocks.during(gpu.ordinal(), format!("asking for the occupancy of `{}`", self.name))?;
        Ok(u32::try_from(blocks).unwrap_or(0))
    }

    /// Queues the kernel. Returns when it is queued; what goes wrong later is reported by
    /// [`synchronize`](gptq_core::device::Stream::synchronize).
    ///
    /// Checked here: the parameters are as long as the kernel's (when it was looked up), the driver took the launch.
    /// Allocates nothing on the device, and may be captured in a graph.
    ///
    /// # Safety
    /// 1. Addresses in `params` are of memory of this GPU, as long and as aligned as the kernel expects with the other
    ///    fields of `params`, and stay allocated until it has run.
    /// 2. Nothing else uses memory that the kernel writes, nor writes what it reads, but in the order of `stream`; with
    ///    [`overlaps_previous`](Launch::overlaps_previous), the kernel waits where it has to.
    /// 3. `launch` has the grid, the block and the shared memory that the kernel counts on.
    ///
    /// # Errors
    /// [`Error::Device`](gptq_core::Error::Device), also for work that was queued before and has failed since.
    pub unsafe fn launch(&self, stream: &CudaStream, launch: &Launch, params: &P) -> Result<()> {
        let gpu = &self.loaded.gpu;
        if !gpu.same_device(stream.gpu()) {
            return Err(failed(
                gpu,
                self.launching(),
                format!("the stream is of cuda:{}", stream.gpu().ordinal()),
            ));
        }
        let _current = gpu.current()?;
        let launch = &Launch { overlaps_previous: stream.overlaps(launch.overlaps_previous), ..*launch };
        let mut attributes = launch.attributes();
        let [grid, block] = [launch.grid, launch.block];
        let config = CUlaunchConfig {
            gridDimX: grid[0],
            gridDimY: grid[1],
            gridDimZ: grid[2],
            blockDimX: block[0],
            blockDimY: block[1],
            blockDimZ: block[2],
            sharedMemBytes: launch.shared_bytes,
            hStream: stream.raw(),
            attrs: attributes.as_mut_ptr(),
            numAttrs: u32::try_from(attributes.len()).unwrap_or(0),
        };
        let mut parameters: [*mut c_void; 1] = [ptr::from_ref(params).cast_mut().cast()];
        // SAFETY: the function is loaded and takes one `P` (Params, and its size was compared); the driver copies `params`
        // and `config` before it returns; what the kernel does with `params` is what the caller promises.
        let status = unsafe {
            sys::cuLaunchKernelEx(&raw const config, self.function, parameters.as_mut_ptr(), ptr::null_mut())
        };
        match status {
            CUresult::CUDA_SUCCESS => Ok(()),
            error => Err(failed(
                gpu,
                self.launching(),
                format!("{} (launched as {launch:?})", describe(DriverError(error))),
            )),
        }
    }

    fn launching(&self) -> String {
        format!("launching kernel `{}`", self.name)
    }
}

impl<P> fmt::Debug for Kernel<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernel {} ({} bytes of parameters)", self.name, size_of::<P>())
    }
}

impl fmt::Debug for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernels `{}` on cuda:{}", self.loaded.family, self.loaded.gpu.ordinal())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launch_has_only_the_attributes_that_it_asks_for() {
        let plain = Launch::new([1, 1, 1], [32, 1, 1]).shared_bytes(1024);
        assert!(plain.attributes().is_empty());
        let ids: Vec<_> =
            plain.cluster([2, 1, 1]).overlapping_previous().attributes().iter().map(|a| a.id).collect();
        assert_eq!(
            ids,
            [
                CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION,
                CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
            ]
        );
    }
}
