//! `out = x · W` by cuBLASLt, row-major, with f32 accumulation, in workspace that the caller owns.
//!
//! cuBLASLt counts columns first. A row-major `[rows, columns]` is a column-major `[columns, rows]`, so what it is asked
//! for is `outᵀ [N, M] = Wᵀ [N, K] · xᵀ [K, M]`, without a transposition anywhere.
#![expect(unsafe_code, reason = "calls into cuBLASLt's C interface")]

mod library;

use std::collections::HashMap;
use std::fmt;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::cublaslt::sys::{
    cublasLtEpilogue_t, cublasLtMatmulAlgo_t, cublasLtMatmulDesc_t,
    cublasLtMatmulDescAttributes_t as DescAttribute,
    cublasLtMatmulPreferenceAttributes_t as PreferenceAttribute, cublasLtMatrixLayout_t,
    cublasLtReductionScheme_t,
};
use gptq_core::Result;
use gptq_core::backend::Rejection;
use gptq_core::tensor::DType;

use crate::gpu::{Gpu, failed};
use crate::graph::AnyCall;
use crate::stream::CudaStream;
use library::{Descriptor, Layout, Library, Preference, Status};

/// The alignment up to which it makes a difference to cuBLASLt.
const FULL_ALIGNMENT: u32 = 256;

/// A matrix product's type and size. Strides count elements from one row to the next.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct MatmulShape {
    /// The type of x and W. Sums are f32; f32 is multiplied as f32, never as TF32.
    pub dtype: DType,
    /// The type of out and of the bias: that of x, or f32.
    pub out_dtype: DType,
    /// Rows of x and out.
    pub m: usize,
    /// Columns of W and out.
    pub n: usize,
    /// Columns of x and rows of W.
    pub k: usize,
    /// Stride of x; k where it is dense.
    pub x_stride: usize,
    /// Stride of W; n where it is dense.
    pub w_stride: usize,
    /// Stride of out; n where it is dense. More where W is a panel of columns of a wider matrix.
    pub out_stride: usize,
    /// Whether the product is added to what out holds, in out's type, instead of replacing it.
    pub accumulates: bool,
}

impl MatmulShape {
    /// Dense matrices: x `[m, k]`, W `[k, n]`, out `[m, n]`.
    pub fn dense(dtype: DType, m: usize, n: usize, k: usize) -> Self {
        let (x_stride, w_stride, out_stride) = (k, n, n);
        Self { dtype, out_dtype: dtype, m, n, k, x_stride, w_stride, out_stride, accumulates: false }
    }

    /// Out of another type than x: f32.
    #[must_use]
    pub fn with_out_dtype(mut self, dtype: DType) -> Self {
        self.out_dtype = dtype;
        self
    }

    /// A panel of columns of a wider x: some of its rows of W.
    #[must_use]
    pub fn with_x_stride(mut self, elements: usize) -> Self {
        self.x_stride = elements;
        self
    }

    /// W whose rows begin further apart than they are long.
    #[must_use]
    pub fn with_w_stride(mut self, elements: usize) -> Self {
        self.w_stride = elements;
        self
    }

    /// A panel of columns of a wider out.
    #[must_use]
    pub fn with_out_stride(mut self, elements: usize) -> Self {
        self.out_stride = elements;
        self
    }

    /// The product is added to what out holds: for K in pieces, exact enough where out is f32.
    #[must_use]
    pub fn accumulating(mut self) -> Self {
        self.accumulates = true;
        self
    }
}

/// Addresses of a product's matrices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(clippy::exhaustive_structs, reason = "written as a literal by whoever calls")]
pub struct MatmulOperands {
    /// x, `[m, k]`.
    pub x: u64,
    /// W, `[k, n]`.
    pub w: u64,
    /// out, `[m, n]`; all of it is written. Read too where the product is [added](MatmulShape::accumulates).
    pub out: u64,
    /// A bias `[n]` that is added before the sum is rounded.
    pub bias: Option<u64>,
}

/// Memory that a product may scribble in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(clippy::exhaustive_structs, reason = "written as a literal by whoever calls")]
pub struct Workspace {
    /// Where it begins, aligned to 256 bytes.
    pub address: u64,
    /// How much there is; see [`Matmul::WORKSPACE_BYTES`].
    pub bytes: usize,
}

/// cuBLASLt on a GPU, with the algorithms that it has chosen so far.
pub struct Matmul {
    library: Library,
    chosen: Mutex<HashMap<Question, Arc<Choice>>>,
}

/// What a choice of algorithm depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Question {
    /// With m rounded up by [`bucket`].
    shape: MatmulShape,
    /// Of x, W and out, in bytes, up to [`FULL_ALIGNMENT`].
    alignments: [u32; 3],
    /// Of the bias, if there is one.
    bias_alignment: Option<u32>,
    workspace_bytes: usize,
}

struct Choice {
    algorithm: cublasLtMatmulAlgo_t,
    /// Whether it has run, so that its kernels are loaded.
    ran: AtomicBool,
}

impl Matmul {
    /// Workspace with which cuBLASLt has all its algorithms, on every GPU so far. It works with less, down to none.
    pub const WORKSPACE_BYTES: usize = 32 << 20;

    /// Whether cuBLASLt loads, from where [`open`](Self::open) takes it. It stays loaded. Touches no GPU.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn probe() -> Result<(), Rejection> {
        Library::probe()
    }

    /// Loads cuBLASLt: the library that `GPTQ_CUBLASLT` names, else that of CUDA 13 or 12 on the library path.
    ///
    /// # Errors
    /// [`Rejection::Other`] where there is none, with how to get one.
    pub fn open(gpu: &Gpu) -> Result<Self, Rejection> {
        Ok(Self { library: Library::open(gpu)?, chosen: Mutex::default() })
    }

    /// The version of the library: 130001 is 13.0.1.
    pub fn version(&self) -> usize {
        self.library.version()
    }

    /// Queues `out = x · W (+ bias)`.
    ///
    /// The first call for a shape, and for every eighth of an octave of m, asks cuBLASLt for an algorithm, on the host;
    /// later ones use its answer. The first run of an algorithm loads its kernels. Allocates nothing on the device
    /// beside them, and may be captured in a graph. The same operands give the same bits.
    ///
    /// # Safety
    /// 1. The addresses are of memory of the GPU that holds the matrices of `shape`, aligned for the type, and of the
    ///    workspace. They stay allocated until the product is done.
    /// 2. Nothing else uses `out` and the workspace, nor writes to x, W and the bias, but in the order of `stream`.
    ///
    /// # Errors
    /// [`Error::Device`](gptq_core::Error::Device).
    pub unsafe fn run(
        &self,
        stream: &CudaStream,
        shape: &MatmulShape,
        operands: &MatmulOperands,
        workspace: Workspace,
    ) -> Result<()> {
        let gpu = &self.library.gpu;
        if !gpu.same_device(stream.gpu()) {
            let message = format!("the stream is of cuda:{}", stream.gpu().ordinal());
            return Err(failed(gpu, multiplying(shape), message));
        }
        let _current = gpu.current()?;
        let problem = |status: Status| failed(gpu, multiplying(shape), format!("cuBLASLt answers {status}"));
        let product = Product::new(&self.library, shape, operands).map_err(problem)?;
        let question = Question::new(shape, operands, workspace);
        let choice = self.choice(&question).map_err(problem)?;
        // SAFETY: the caller promises what `launch` asks for.
        let done = unsafe { product.launch(&self.library, &choice, operands, workspace, stream) };
        match done {
            // The choice was made for the largest m of the bucket, and some algorithms do not run smaller ones.
            Err(Status::INVALID_VALUE | Status::NOT_SUPPORTED) => {
                let exact = Question { shape: *shape, ..question };
                let choice = self.choice(&exact).map_err(problem)?;
                // SAFETY: as above.
                unsafe { product.launch(&self.library, &choice, operands, workspace, stream) }
                    .map_err(problem)
            }
            other => other.map_err(problem),
        }
    }

    fn choice(&self, question: &Question) -> Result<Arc<Choice>, Status> {
        let chosen = || self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(choice) = chosen().get(question) {
            return Ok(Arc::clone(choice));
        }
        // Two threads may ask at once and get the same answer.
        let choice = Arc::new(self.ask(question)?);
        chosen().insert(*question, Arc::clone(&choice));
        Ok(choice)
    }

    /// Asks cuBLASLt for its best algorithm.
    fn ask(&self, question: &Question) -> Result<Choice, Status> {
        let library = &self.library;
        let preference = Preference::new(library)?;
        preference.set(
            PreferenceAttribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
            &(question.workspace_bytes as u64),
        )?;
        // Sums of pieces of K are kept in f32: the other schemes add them in the type of out.
        let scheme = cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
        preference.set(PreferenceAttribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &scheme)?;
        let [x, w, out] = question.alignments;
        preference.set(PreferenceAttribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &w)?;
        preference.set(PreferenceAttribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &x)?;
        preference.set(PreferenceAttribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &out)?;
        preference.set(PreferenceAttribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &out)?;
        // Nothing is read here, but that there is a bias matters, and how it is aligned: as this address is.
        let operands = MatmulOperands { x: 0, w: 0, out: 0, bias: question.bias_alignment.map(u64::from) };
        let product = Product::new(library, &question.shape, &operands)?;
        let algorithm =
            library.heuristic(&product.description, [&product.w, &product.x, &product.out], &preference)?;
        Ok(Choice { algorithm, ran: AtomicBool::new(false) })
    }
}

fn multiplying(shape: &MatmulShape) -> String {
    format!("multiplying [{}, {}] by [{}, {}] in {}", shape.m, shape.k, shape.k, shape.n, shape.dtype)
}

impl Question {
    fn new(shape: &MatmulShape, operands: &MatmulOperands, workspace: Workspace) -> Self {
        let alignments = [operands.x, operands.w, operands.out].map(alignment);
        let shape = MatmulShape { m: bucket(shape.m), ..*shape };
        Self {
            shape,
            alignments,
            bias_alignment: operands.bias.map(alignment),
            workspace_bytes: workspace.bytes,
        }
    }
}

/// The power of two that an address is a multiple of, up to [`FULL_ALIGNMENT`].
fn alignment(address: u64) -> u32 {
    1 << address.trailing_zeros().min(FULL_ALIGNMENT.trailing_zeros())
}

/// Rounds m up so that an algorithm is chosen once for sizes that are nearly the same: to a power of two up to 16, to an
/// eighth of an octave beyond.
fn bucket(m: usize) -> usize {
    let octave = m.next_power_of_two();
    if octave <= 16 { octave } else { m.next_multiple_of(octave / 16) }
}

/// What cuBLASLt is told of a product.
struct Product<'a> {
    description: Descriptor<'a>,
    x: Layout<'a>,
    w: Layout<'a>,
    out: Layout<'a>,
    accumulates: bool,
}

impl<'a> Product<'a> {
    fn new(library: &'a Library, shape: &MatmulShape, operands: &MatmulOperands) -> Result<Self, Status> {
        let description = Descriptor::new(library)?;
        if let Some(bias) = operands.bias {
            let epilogue = cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS as u32;
            description.set(DescAttribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
            description.set(DescAttribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias)?;
        }
        let dtype = shape.dtype;
        Ok(Self {
            description,
            x: Layout::new(library, dtype, [shape.k, shape.m], shape.x_stride)?,
            w: Layout::new(library, dtype, [shape.n, shape.k], shape.w_stride)?,
            out: Layout::new(library, shape.out_dtype, [shape.n, shape.m], shape.out_stride)?,
            accumulates: shape.accumulates,
        })
    }

    /// # Safety
    /// As [`Matmul::run`]. The context is current.
    unsafe fn launch(
        &self,
        library: &Library,
        choice: &Choice,
        operands: &MatmulOperands,
        workspace: Workspace,
        stream: &CudaStream,
    ) -> Result<(), Status> {
        #[expect(clippy::cast_possible_truncation, reason = "CUDA is for hosts of 64 bits")]
        let pointer = |address: u64| ptr::without_provenance_mut(address as usize);
        let (of_product, of_out) = (1.0f32, if self.accumulates { 1.0f32 } else { 0.0 });
        // Loading kernels calls what a recording forbids, though nothing of it belongs into the graph.
        let first = !choice.ran.load(Ordering::Acquire);
        let _allowed = first.then(AnyCall::allow);
        let (description, layouts): (cublasLtMatmulDesc_t, [cublasLtMatrixLayout_t; 3]) =
            (self.description.raw(), [&self.w, &self.x, &self.out].map(Layout::raw));
        let [w, x, out] = layouts;
        // SAFETY: descriptors and layouts are alive; the factors are f32 on the host, as the descriptor says; the caller
        // promises the addresses.
        let status = unsafe {
            (library.calls.matmul)(
                library.handle,
                description,
                ptr::from_ref(&of_product).cast(),
                pointer(operands.w),
                w,
                pointer(operands.x),
                x,
                ptr::from_ref(&of_out).cast(),
                pointer(operands.out),
                out,
                pointer(operands.out),
                out,
                &raw const choice.algorithm,
                pointer(workspace.address),
                workspace.bytes,
                stream.raw().cast(),
            )
        };
        Status(status).ok().inspect(|()| choice.ran.store(true, Ordering::Release))
    }
}

impl fmt::Debug for Matmul {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cuBLASLt {} on cuda:{}", self.version(), self.library.gpu.ordinal())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_never_smaller_and_at_most_an_eighth_larger() {
        for m in 1..5000usize {
            let rounded = bucket(m);
            assert!(rounded >= m && bucket(rounded) == rounded, "{m} -> {rounded}");
            assert!(m <= 16 || rounded * 8 <= m * 9, "{m} -> {rounded}");
        }
        let buckets: std::collections::BTreeSet<usize> = (1..=4096).map(bucket).collect();
        assert!(buckets.len() < 80, "{}", buckets.len());
    }

    #[test]
    fn an_alignment_is_a_power_of_two_and_stops_at_256() {
        assert_eq!([0, 1, 2, 48, 256, 4096].map(alignment), [256, 1, 2, 16, 256, 256]);
    }
}
