//! The library cuBLASLt: loaded by name, its functions looked up once, its objects freed when dropped.
//!
//! cudarc loads it too, but panics where it is missing and does not know the file of CUDA 13; and its enums for statuses
//! are undefined behaviour to receive a newer status in. Here a status is a number.

use std::ffi::{CStr, c_int, c_void};
use std::fmt;
use std::mem;
use std::ptr;

use cudarc::cublaslt::sys::{
    cublasComputeType_t, cublasLtHandle_t, cublasLtMatmulAlgo_t, cublasLtMatmulDesc_t,
    cublasLtMatmulDescAttributes_t as DescAttribute, cublasLtMatmulPreference_t,
    cublasLtMatmulPreferenceAttributes_t as PreferenceAttribute, cublasLtMatrixLayout_t, cudaDataType_t,
    cudaStream_t,
};
use gptq_core::backend::Rejection;
use gptq_core::tensor::DType;

use crate::gpu::Gpu;

/// The variable that names the library.
const LIBRARY: &str = "GPTQ_CUBLASLT";

/// What a function of cuBLASLt answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Status(pub(super) c_int);

impl Status {
    pub(super) const INVALID_VALUE: Self = Self(7);
    pub(super) const NOT_SUPPORTED: Self = Self(15);

    pub(super) fn ok(self) -> Result<(), Self> {
        if self.0 == 0 { Ok(()) } else { Err(self) }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            1 => "NOT_INITIALIZED",
            3 => "ALLOC_FAILED",
            7 => "INVALID_VALUE",
            8 => "ARCH_MISMATCH",
            11 => "MAPPING_ERROR",
            13 => "EXECUTION_FAILED",
            14 => "INTERNAL_ERROR",
            15 => "NOT_SUPPORTED",
            16 => "LICENSE_ERROR",
            number => return write!(f, "status {number}"),
        };
        write!(f, "CUBLAS_STATUS_{name}")
    }
}

/// The functions that are used, as cublasLt.h declares them.
pub(super) struct Calls {
    version: unsafe extern "C" fn() -> usize,
    create: unsafe extern "C" fn(*mut cublasLtHandle_t) -> c_int,
    destroy: unsafe extern "C" fn(cublasLtHandle_t) -> c_int,
    describe: unsafe extern "C" fn(*mut cublasLtMatmulDesc_t, c_int, c_int) -> c_int,
    describe_more: unsafe extern "C" fn(cublasLtMatmulDesc_t, c_int, *const c_void, usize) -> c_int,
    forget_description: unsafe extern "C" fn(cublasLtMatmulDesc_t) -> c_int,
    lay_out: unsafe extern "C" fn(*mut cublasLtMatrixLayout_t, c_int, u64, u64, i64) -> c_int,
    forget_layout: unsafe extern "C" fn(cublasLtMatrixLayout_t) -> c_int,
    prefer: unsafe extern "C" fn(*mut cublasLtMatmulPreference_t) -> c_int,
    prefer_more: unsafe extern "C" fn(cublasLtMatmulPreference_t, c_int, *const c_void, usize) -> c_int,
    forget_preference: unsafe extern "C" fn(cublasLtMatmulPreference_t) -> c_int,
    heuristic: unsafe extern "C" fn(
        cublasLtHandle_t,
        cublasLtMatmulDesc_t,
        cublasLtMatrixLayout_t,
        cublasLtMatrixLayout_t,
        cublasLtMatrixLayout_t,
        cublasLtMatrixLayout_t,
        cublasLtMatmulPreference_t,
        c_int,
        *mut HeuristicResult,
        *mut c_int,
    ) -> c_int,
    pub(super) matmul: unsafe extern "C" fn(
        cublasLtHandle_t,
        cublasLtMatmulDesc_t,
        *const c_void,
        *const c_void,
        cublasLtMatrixLayout_t,
        *const c_void,
        cublasLtMatrixLayout_t,
        *const c_void,
        *const c_void,
        cublasLtMatrixLayout_t,
        *mut c_void,
        cublasLtMatrixLayout_t,
        *const cublasLtMatmulAlgo_t,
        *mut c_void,
        usize,
        cudaStream_t,
    ) -> c_int,
}

/// `cublasLtMatmulHeuristicResult_t`, with the status as a number.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct HeuristicResult {
    algorithm: cublasLtMatmulAlgo_t,
    workspace_bytes: usize,
    state: c_int,
    waves: f32,
    reserved: [c_int; 4],
}

const _: () = assert!(
    size_of::<HeuristicResult>() == size_of::<cudarc::cublaslt::sys::cublasLtMatmulHeuristicResult_t>()
);

/// The library and a handle of it.
pub(super) struct Library {
    pub(super) calls: Calls,
    pub(super) handle: cublasLtHandle_t,
    /// Its context is the handle's, to the end.
    pub(super) gpu: Gpu,
    /// Holds what `calls` points to.
    _file: libloading::Library,
}

// SAFETY: the documentation of cuBLASLt allows one handle to be used by several threads at once.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

impl Library {
    /// The first of the known files that loads and makes a handle.
    pub(super) fn open(gpu: &Gpu) -> Result<Self, Rejection> {
        let _current =
            gpu.current().map_err(|error| Rejection::other(error.to_string(), "restart the program"))?;
        Self::first(|name| Self::open_file(gpu, name))
    }

    /// That one of the known files loads. It is not unloaded, since loading it takes longer than anything else here.
    pub(super) fn probe() -> Result<(), Rejection> {
        Self::first(|name| Self::load(name).map(mem::forget))
    }

    /// What the first of the known files gives that gives anything.
    fn first<T>(open: impl Fn(&str) -> Result<T, String>) -> Result<T, Rejection> {
        let names: Vec<String> = match std::env::var(LIBRARY) {
            Ok(path) if !path.is_empty() => vec![path],
            _ if cfg!(windows) => ["cublasLt64_13.dll", "cublasLt64_12.dll"].map(Into::into).into(),
            // The last is where a toolkit has it that was not put on the library path.
            _ => [
                "libcublasLt.so.13",
                "libcublasLt.so.12",
                "libcublasLt.so",
                "/usr/local/cuda/lib64/libcublasLt.so",
            ]
            .map(Into::into)
            .into(),
        };
        let mut problems = Vec::new();
        for name in names {
            match open(&name) {
                Ok(opened) => return Ok(opened),
                Err(problem) => problems.push(problem),
            }
        }
        Err(Rejection::other(
            format!("cuBLASLt does not load ({})", problems.join("; ")),
            format!(
                "install it (it is part of the CUDA toolkit, and of the Python package nvidia-cublas) and put its folder \
                 on the library path, or name the file in {LIBRARY}"
            ),
        ))
    }

    fn load(name: &str) -> Result<(libloading::Library, Calls), String> {
        // SAFETY: initializing it has no requirement of its own.
        let file = unsafe { libloading::Library::new(name) }.map_err(|error| error.to_string())?;
        let calls = Calls::of(&file).map_err(|error| format!("{name}: {error}"))?;
        Ok((file, calls))
    }

    fn open_file(gpu: &Gpu, name: &str) -> Result<Self, String> {
        let (file, calls) = Self::load(name)?;
        let mut handle = ptr::null_mut();
        // SAFETY: a context is current, and `handle` outlives the call.
        let status = unsafe { (calls.create)(&raw mut handle) };
        Status(status).ok().map_err(|status| format!("{name}: {status}"))?;
        Ok(Self { calls, handle, gpu: gpu.clone(), _file: file })
    }

    pub(super) fn version(&self) -> usize {
        // SAFETY: it takes nothing.
        unsafe { (self.calls.version)() }
    }

    /// The best algorithm for a product of A and B into C and D, which are of one layout.
    pub(super) fn heuristic(
        &self,
        description: &Descriptor<'_>,
        [a, b, d]: [&Layout<'_>; 3],
        preference: &Preference<'_>,
    ) -> Result<cublasLtMatmulAlgo_t, Status> {
        let mut found = mem::MaybeUninit::<HeuristicResult>::uninit();
        let mut count = 0;
        // SAFETY: all objects are alive; there is room for the one result that is asked for.
        let status = unsafe {
            (self.calls.heuristic)(
                self.handle,
                description.raw,
                a.raw,
                b.raw,
                d.raw,
                d.raw,
                preference.raw,
                1,
                found.as_mut_ptr(),
                &raw mut count,
            )
        };
        Status(status).ok()?;
        if count < 1 {
            return Err(Status::NOT_SUPPORTED);
        }
        // SAFETY: the library says that it wrote one.
        let found = unsafe { found.assume_init() };
        Status(found.state).ok()?;
        Ok(found.algorithm)
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // Where its context is gone, the handle went with it.
        if let Ok(_current) = self.gpu.current() {
            // SAFETY: made in `open_file` with this context, and nobody has it any more.
            let _ = unsafe { (self.calls.destroy)(self.handle) };
        }
    }
}

impl Calls {
    fn of(file: &libloading::Library) -> Result<Self, libloading::Error> {
        /// # Safety
        /// `F` is the type of the function of this name.
        unsafe fn find<F: Copy>(file: &libloading::Library, name: &CStr) -> Result<F, libloading::Error> {
            // SAFETY: the caller's promise.
            unsafe { file.get::<F>(name.to_bytes_with_nul()) }.map(|symbol| *symbol)
        }
        // SAFETY: the types of the fields are those that cublasLt.h declares, enums as the C ints that they are.
        unsafe {
            Ok(Self {
                version: find(file, c"cublasLtGetVersion")?,
                create: find(file, c"cublasLtCreate")?,
                destroy: find(file, c"cublasLtDestroy")?,
                describe: find(file, c"cublasLtMatmulDescCreate")?,
                describe_more: find(file, c"cublasLtMatmulDescSetAttribute")?,
                forget_description: find(file, c"cublasLtMatmulDescDestroy")?,
                lay_out: find(file, c"cublasLtMatrixLayoutCreate")?,
                forget_layout: find(file, c"cublasLtMatrixLayoutDestroy")?,
                prefer: find(file, c"cublasLtMatmulPreferenceCreate")?,
                prefer_more: find(file, c"cublasLtMatmulPreferenceSetAttribute")?,
                forget_preference: find(file, c"cublasLtMatmulPreferenceDestroy")?,
                heuristic: find(file, c"cublasLtMatmulAlgoGetHeuristic")?,
                matmul: find(file, c"cublasLtMatmul")?,
            })
        }
    }
}

/// What is computed: products and sums in f32, factors in f32.
pub(super) struct Descriptor<'a> {
    library: &'a Library,
    raw: cublasLtMatmulDesc_t,
}

impl<'a> Descriptor<'a> {
    pub(super) fn new(library: &'a Library) -> Result<Self, Status> {
        let mut raw = ptr::null_mut();
        let compute = cublasComputeType_t::CUBLAS_COMPUTE_32F as c_int;
        let factors = cudaDataType_t::CUDA_R_32F as c_int;
        // SAFETY: `raw` outlives the call.
        Status(unsafe { (library.calls.describe)(&raw mut raw, compute, factors) }).ok()?;
        Ok(Self { library, raw })
    }

    pub(super) fn raw(&self) -> cublasLtMatmulDesc_t {
        self.raw
    }

    /// `value` is of the type that cublasLt.h gives the attribute.
    pub(super) fn set<T: Copy>(&self, attribute: DescAttribute, value: &T) -> Result<(), Status> {
        // SAFETY: the library compares the size and copies so many bytes.
        let status = unsafe {
            (self.library.calls.describe_more)(
                self.raw,
                attribute as c_int,
                ptr::from_ref(value).cast(),
                size_of::<T>(),
            )
        };
        Status(status).ok()
    }
}

impl Drop for Descriptor<'_> {
    fn drop(&mut self) {
        // SAFETY: made in `new`, and nobody has it any more.
        let _ = unsafe { (self.library.calls.forget_description)(self.raw) };
    }
}

/// How a matrix lies in memory, counted column by column.
pub(super) struct Layout<'a> {
    library: &'a Library,
    raw: cublasLtMatrixLayout_t,
}

impl<'a> Layout<'a> {
    pub(super) fn new(
        library: &'a Library,
        dtype: DType,
        [rows, columns]: [usize; 2],
        stride: usize,
    ) -> Result<Self, Status> {
        let dtype = match dtype {
            DType::F32 => cudaDataType_t::CUDA_R_32F,
            DType::F16 => cudaDataType_t::CUDA_R_16F,
            DType::BF16 => cudaDataType_t::CUDA_R_16BF,
        };
        let stride = i64::try_from(stride).map_err(|_| Status::INVALID_VALUE)?;
        let mut raw = ptr::null_mut();
        // SAFETY: `raw` outlives the call.
        let status = unsafe {
            (library.calls.lay_out)(&raw mut raw, dtype as c_int, rows as u64, columns as u64, stride)
        };
        Status(status).ok()?;
        Ok(Self { library, raw })
    }

    pub(super) fn raw(&self) -> cublasLtMatrixLayout_t {
        self.raw
    }
}

impl Drop for Layout<'_> {
    fn drop(&mut self) {
        // SAFETY: made in `new`, and nobody has it any more.
        let _ = unsafe { (self.library.calls.forget_layout)(self.raw) };
    }
}

/// What an algorithm may use.
pub(super) struct Preference<'a> {
    library: &'a Library,
    raw: cublasLtMatmulPreference_t,
}

impl<'a> Preference<'a> {
    pub(super) fn new(library: &'a Library) -> Result<Self, Status> {
        let mut raw = ptr::null_mut();
        // SAFETY: `raw` outlives the call.
        Status(unsafe { (library.calls.prefer)(&raw mut raw) }).ok()?;
        Ok(Self { library, raw })
    }

    /// `value` is of the type that cublasLt.h gives the attribute.
    pub(super) fn set<T: Copy>(&self, attribute: PreferenceAttribute, value: &T) -> Result<(), Status> {
        // SAFETY: the library compares the size and copies so many bytes.
        let status = unsafe {
            (self.library.calls.prefer_more)(
                self.raw,
                attribute as c_int,
                ptr::from_ref(value).cast(),
                size_of::<T>(),
            )
        };
        Status(status).ok()
    }
}

impl Drop for Preference<'_> {
    fn drop(&mut self) {
        // SAFETY: made in `new`, and nobody has it any more.
        let _ = unsafe { (self.library.calls.forget_preference)(self.raw) };
    }
}
