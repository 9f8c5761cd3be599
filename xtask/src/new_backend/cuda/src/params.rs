//! The launch parameters, as kernels/my_backend/params.h has them.

use gptq_core::tensor::DType;
use gptq_cuda::Params;

/// Threads of a block.
pub(crate) const THREADS: u32 = 128;

/// Addresses are those of the device.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct MyBackendParams {
    pub(crate) x: u64,
    pub(crate) out: u64,
    pub(crate) qweight: u64,
    pub(crate) qzeros: u64,
    pub(crate) scales: u64,
    /// 0: none.
    pub(crate) bias: u64,
    pub(crate) in_features: u32,
    pub(crate) out_features: u32,
    pub(crate) group_rows: u32,
    pub(crate) scale_dtype: u32,
    pub(crate) bias_dtype: u32,
    pub(crate) unused: u32,
}

// The header asserts the same. When a kernel is looked up, its own size is compared too.
const _: () = assert!(size_of::<MyBackendParams>() == 72);

// SAFETY: it is the struct of params.h, field by field, which the kernel takes as its only parameter.
unsafe impl Params for MyBackendParams {}

/// A type as dtype.h numbers it.
pub(crate) fn dtype_code(dtype: DType) -> u32 {
    match dtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::BF16 => 2,
    }
}
