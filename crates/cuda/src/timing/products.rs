//! cuBLASLt on a dense matrix: what the products of packed layers are compared with.

use std::fmt;
use std::sync::Arc;

use gptq_core::Result;
use gptq_core::device::DeviceBuffer as _;
use gptq_core::tensor::DType;

use super::{Buffers, Operands, Replay, Timing, fill};
use crate::buffer::CudaBuffer;
use crate::gpu::failed;
use crate::matmul::{Matmul, MatmulOperands, MatmulShape, Workspace};
use crate::stream::CudaStream;

/// Copies of a dense matrix `[K, N]` in a GPU's memory.
pub struct Dense {
    matmul: Arc<Matmul>,
    memory: CudaBuffer,
    dtype: DType,
    k: usize,
    n: usize,
    copies: usize,
}

impl Timing {
    /// `copies` copies of a matrix `[k, n]` of `dtype`, in which `pattern` comes again and again. Products of numbers that
    /// are much alike draw less power, and run faster: it should be as long as it can.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](gptq_core::Error::OutOfMemory), [`Error::Device`](gptq_core::Error::Device).
    pub fn dense(&self, pattern: &[u8], dtype: DType, [k, n]: [usize; 2], copies: usize) -> Result<Dense> {
        let copies = copies.max(1);
        let bytes = [k, n, dtype.size_bytes(), copies].into_iter().fold(1, usize::saturating_mul);
        let mut memory = self.gpu.allocate_buffer(bytes)?;
        fill(&self.gpu, &mut memory, pattern)?;
        Ok(Dense { matmul: Arc::clone(&self.matmul), memory, dtype, k, n, copies })
    }
}

impl Replay {
    /// Products of `rows` rows of x with the copies in turn. They are made once before, for cuBLASLt to choose an algorithm.
    ///
    /// # Errors
    /// [`Error::Device`](gptq_core::Error::Device), also where the operands are shorter than a product needs.
    pub fn of_products(dense: &Arc<Dense>, operands: &Operands, rows: usize, calls: usize) -> Result<Self> {
        let gpu = &operands.gpu;
        let Dense { dtype, k, n, copies, .. } = **dense;
        let stride = (k * n * dtype.size_bytes()) as u64;
        let replay =
            Self::record(gpu, CudaStream::new(gpu)?, 0, calls, operands, |number, context, buffers| {
                let Some((stream, _)) = context.on_device() else { return Ok(()) };
                let Buffers { x, out, workspace } = buffers;
                for (buffer, width) in [(&*x, k), (&*out, n)] {
                    let needed = [rows, width, dtype.size_bytes()].into_iter().fold(1, usize::saturating_mul);
                    if needed > buffer.len_bytes() {
                        let message = format!("x or out has {} bytes, expected {needed}", buffer.len_bytes());
                        return Err(failed(gpu, "timing cuBLASLt", message));
                    }
                }
                let matrices = MatmulOperands {
                    x: x.address(),
                    w: dense.memory.address() + (number % copies) as u64 * stride,
                    out: out.address(),
                    bias: None,
                };
                let workspace = Workspace { address: workspace.address(), bytes: workspace.len_bytes() };
                let shape = MatmulShape::dense(dtype, rows, n, k);
                // SAFETY: the buffers hold the matrices, as was just checked and as `dense` was made; `record` keeps the operands,
                // and below the matrices are kept; who replays locks the operands.
                unsafe { dense.matmul.run(CudaStream::of(stream)?, &shape, &matrices, workspace) }
            })?;
        Ok(Self { _uses: Box::new(Arc::clone(dense)), ..replay })
    }
}

impl fmt::Debug for Dense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of [{}, {}] in {}", self.copies, self.k, self.n, self.dtype)
    }
}
