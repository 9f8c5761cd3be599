//! `forward`: which path a call takes, and its pieces.
#![expect(unsafe_code, reason = "launches kernels and products on addresses")]

use std::sync::Arc;

use gptq_core::backend::Linear;
use gptq_core::device::{Context, Device, DeviceBuffer as _};
use gptq_core::post_init::check_forward;
use gptq_core::tensor::{DType, TensorMut, TensorRef};
use gptq_core::{LayerInfo, Result};
use gptq_cuda::arguments::{no_kernels, stream_and_scratch};
use gptq_cuda::panels::{Job, PanelSize, Room, WORKSPACE_BYTES, pieces};
use gptq_cuda::place::ALIGNMENT;
use gptq_cuda::{
    CudaBuffer, CudaStream, Gpu, Matmul, MatmulOperands, MatmulShape, Trial, Workspace, address, address_mut,
};

use super::kernels::{Dot, FormatKernels, MOST_DOT_ROWS, Panel, Sums, splits};
use super::layout::Tensors;

/// Rows of x that are gathered for fused products at a time, and up to which these are faster than a dense matrix, in pieces
/// of [`MOST_DOT_ROWS`].
const MOST_FUSED_ROWS: usize = 2 * MOST_DOT_ROWS;
/// Weights of a layer from which more than one piece is worth it. On an H100 two take 243 us of a layer of 2^28 weights,
/// and the dense matrix 351; in layers of 2^24 a piece is too short to fill the GPU.
const WORTH_TWO_PIECES: usize = 1 << 26;
/// Rows of W in one product where x is f32.
///
/// Sums of cuBLASLt run down the whole K, and every addition rounds: over K terms of random sign that is a relative error
/// of some u · sqrt(K / 6), 2e-6 at K = 8192 where u is 2^-24. Pieces of K that are added afterwards keep it under 1e-6.
const F32_ROWS: usize = 1024;
/// Columns of panels: tiles of products have so many, and the fast kernels write eight at least.
const COLUMN_UNITS: [usize; 3] = [256, 128, 8];
/// Columns of 16 bits, of which rows of out begin aligned to 16 bytes.
const ALIGNED_COLUMNS: usize = 8;
/// Rows of x in one product: more are as fast in pieces, and sizes stay far from what 32 bits hold.
const MOST_ROWS: usize = 1 << 16;

/// What the layers of a model share.
pub(crate) struct Shared {
    pub(crate) gpu: Gpu,
    pub(crate) matmul: Matmul,
    pub(crate) x_dtypes: &'static [DType],
    /// Of the dense matrix.
    pub(crate) most_panel_bytes: usize,
    /// Holds the tensors of all layers: addresses in [`Tensors`] are of this.
    pub(crate) _memory: CudaBuffer,
}

/// Rows of x from which the dense matrix is faster than the fused product. Kernels without whole blocks are too slow for a
/// second piece.
pub(crate) fn measured_dense_from(layer: &Tensors) -> usize {
    let weights = layer.in_features.saturating_mul(layer.out_features);
    let fused = if layer.in_blocks && weights >= WORTH_TWO_PIECES { MOST_FUSED_ROWS } else { MOST_DOT_ROWS };
    fused + 1
}

/// The kernels for one format, for x of each type.
pub(crate) type KernelSet = Arc<[FormatKernels]>;

/// A layer on a GPU.
pub(crate) struct CudaLinear {
    pub(crate) info: LayerInfo,
    pub(crate) tensors: Tensors,
    /// Rows of x from which the dense matrix is written; `None` where it never is.
    pub(crate) dense_from: Option<usize>,
    pub(crate) kernels: KernelSet,
    pub(crate) shared: Arc<Shared>,
    pub(crate) resident_bytes: usize,
}

/// One call: its tensors by address, and where it runs.
struct Call<'a> {
    x: u64,
    out: u64,
    rows: usize,
    kernels: &'a FormatKernels,
    dtype: DType,
    stream: &'a CudaStream,
    scratch: u64,
    room: Room,
}

impl Call<'_> {
    /// The same for some of its rows.
    fn of_rows(&self, first: usize, rows: usize, [k, n]: [usize; 2]) -> Self {
        let size = self.dtype.size_bytes();
        Self {
            x: self.x + (first * k * size) as u64,
            out: self.out + (first * n * size) as u64,
            rows,
            ..*self
        }
    }
}

/// Rows of x for which the dense path is tried once when a model is made ready.
const TRIED_ROWS: [usize; 7] = [8, 16, 32, 64, 128, 256, 512];

impl CudaLinear {
    /// How its first calls are made.
    pub(crate) fn trial(&self) -> Trial<'_> {
        let dtype = match self.info.scale_dtype {
            DType::BF16 if self.shared.x_dtypes.contains(&DType::BF16) => DType::BF16,
            _ => DType::F16,
        };
        let rows = TRIED_ROWS.into_iter().filter(|&rows| self.is_dense(rows)).collect();
        Trial { info: &self.info, linear: self, dtype, rows }
    }

    /// The product of this layer, as panels are planned for it.
    pub(crate) fn job(&self, m: usize, dtype: DType) -> Job {
        let multiprocessors = self.multiprocessors();
        Job {
            m,
            k: self.tensors.in_features,
            n: self.tensors.out_features,
            dtype,
            multiprocessors,
            most_panel_bytes: self.shared.most_panel_bytes,
            column_units: &COLUMN_UNITS,
        }
    }

    /// Scratch with which every call runs in as few launches as it may.
    pub(crate) fn scratch_bytes(&self) -> usize {
        let dtypes = self.shared.x_dtypes.iter();
        let of_job = |dtype: &DType| {
            // Sums in f32 that wait for a bias take as much as the panel.
            let factor = if self.rounds_bias_apart(*dtype) { 2 } else { 1 };
            // What the matrix takes in 16 bits, also for f32: its products take so long that panels cost them nothing.
            let job = self.job(1, DType::F16);
            let panels = (job.scratch_bytes() - WORKSPACE_BYTES) * factor;
            let dense = panels.min(job.most_panel_bytes) + WORKSPACE_BYTES;
            let fused = self.gathered_bytes(MOST_FUSED_ROWS, *dtype)
                + self.partial_bytes(self.splits(), MOST_DOT_ROWS);
            if self.dense_from.is_some() { dense.max(fused) } else { fused }
        };
        dtypes.map(of_job).max().unwrap_or(0)
    }

    fn multiprocessors(&self) -> usize {
        self.shared.gpu.info().multiprocessors as usize
    }

    fn splits(&self) -> usize {
        splits(self.tensors.in_features, self.tensors.out_features, self.multiprocessors())
    }

    fn partial_bytes(&self, splits: usize, rows: usize) -> usize {
        if splits > 1 { splits * rows * self.tensors.out_features * size_of::<f32>() } else { 0 }
    }

    /// What so many rows of x take, with their columns in the order of sorted rows.
    fn gathered_bytes(&self, rows: usize, dtype: DType) -> usize {
        let is_sorted = self.tensors.w_rows != 0 && self.tensors.in_blocks;
        let bytes = if is_sorted { rows * self.tensors.in_features * dtype.size_bytes() } else { 0 };
        bytes.next_multiple_of(ALIGNMENT)
    }

    /// Whether the dense matrix is written for so many rows of x.
    fn is_dense(&self, rows: usize) -> bool {
        self.dense_from.is_some_and(|from| rows >= from)
    }

    /// Whether there is a bias that is added to sums in f32 by a kernel of ours: one that the type of x cannot hold, or one of
    /// rows that are not aligned to 16 bytes, of which cuBLASLt rounds the sums to 16 bits before it adds it.
    fn rounds_bias_apart(&self, dtype: DType) -> bool {
        let is_aligned = dtype == DType::F32 || self.tensors.out_features.is_multiple_of(ALIGNED_COLUMNS);
        self.tensors.bias.stored().is_some() && (self.tensors.bias.in_dtype(dtype).is_none() || !is_aligned)
    }

    fn run(&self, call: &Call<'_>) -> Result<()> {
        let shape = [self.tensors.in_features, self.tensors.out_features];
        let room = call.room.for_panel();
        let rounds_apart = self.rounds_bias_apart(call.dtype);
        let room = if rounds_apart { room / 2 } else { room };
        let panel = self
            .is_dense(call.rows)
            .then(|| self.job(call.rows.min(MOST_ROWS), call.dtype).panel(room))
            .flatten();
        let panel = panel.filter(|panel| !rounds_apart || self.rows_of_sums(call, *panel) > 0);
        // Fused products serve any number of rows, also where there is no room for a panel.
        let Some(panel) = panel else {
            return pieces(call.rows, MOST_FUSED_ROWS)
                .try_for_each(|(first, rows)| self.fused(&call.of_rows(first, rows, shape)));
        };
        pieces(call.rows, MOST_ROWS).try_for_each(|(first, rows)| {
            let call = call.of_rows(first, rows, shape);
            if rounds_apart { self.dense_then_bias(&call, panel) } else { self.dense(&call, panel) }
        })
    }

    /// From the packed words, of up to [`MOST_FUSED_ROWS`] rows.
    fn fused(&self, call: &Call<'_>) -> Result<()> {
        let shape = [self.tensors.in_features, self.tensors.out_features];
        let gathered_bytes = self.gathered_bytes(call.rows, call.dtype);
        let x_gathered = gathered_bytes > 0 && gathered_bytes <= call.room.total();
        let (x, used) = if x_gathered { (call.scratch, gathered_bytes) } else { (call.x, 0) };
        if x_gathered {
            // SAFETY: `forward` has checked x and the scratch, which holds as much, as just seen.
            unsafe { call.kernels.gather(call.stream, &self.tensors, [call.x, x], call.rows) }?;
        }
        let call = Call { x, ..*call };
        pieces(call.rows, MOST_DOT_ROWS).try_for_each(|(first, rows)| {
            let call = call.of_rows(first, rows, shape);
            let partial = call.scratch + used as u64;
            let fits = self.partial_bytes(self.splits(), rows) <= call.room.total() - used;
            let splits = if fits { self.splits() } else { 1 };
            let dot = Dot { x: call.x, x_gathered, out: call.out, partial, rows, splits };
            // SAFETY: `forward` has checked x, out and the scratch, which holds gathered x and the partial sums behind.
            unsafe { call.kernels.dot(call.stream, &self.tensors, &dot) }
        })
    }

    /// A panel of the dense matrix at a time, each with its product. Of f32, products of pieces of K add up in out.
    fn dense(&self, call: &Call<'_>, size: PanelSize) -> Result<()> {
        let (k, n) = (self.tensors.in_features, self.tensors.out_features);
        let element = call.dtype.size_bytes();
        let bias = self.tensors.bias.in_dtype(call.dtype);
        let most_rows = if call.dtype == DType::F32 { F32_ROWS } else { k };
        for (first_column, columns) in pieces(n, size.columns) {
            let panel = Panel { out: call.scratch, first_column, columns, stride: size.stride() };
            // SAFETY: the scratch has room for a panel of `size`, which `run` planned for it.
            unsafe { call.kernels.dequantize(call.stream, &self.tensors, &panel) }?;
            for (first_row, rows) in pieces(k, most_rows) {
                let shape = MatmulShape::dense(call.dtype, call.rows, columns, rows)
                    .with_x_stride(k)
                    .with_w_stride(size.stride())
                    .with_out_stride(n);
                let operands = MatmulOperands {
                    x: call.x + (first_row * element) as u64,
                    w: panel.out + (first_row * size.stride() * element) as u64,
                    out: call.out + (first_column * element) as u64,
                    bias: bias.filter(|_| first_row == 0).map(|bias| bias.at_column(first_column).address),
                };
                let shape = if first_row == 0 { shape } else { shape.accumulating() };
                let workspace = self.workspace(call, size.bytes(call.dtype));
                // SAFETY: `forward` has checked x and out, and the panel's columns are within out; the panel was
                // written before on the stream; the workspace is what is left of the scratch behind it.
                unsafe { self.shared.matmul.run(call.stream, &shape, &operands, workspace) }?;
            }
        }
        Ok(())
    }

    /// The same, with sums in f32 behind the panel, to which a bias of another type is added before they are rounded.
    fn dense_then_bias(&self, call: &Call<'_>, size: PanelSize) -> Result<()> {
        let (k, n) = (self.tensors.in_features, self.tensors.out_features);
        let element = call.dtype.size_bytes();
        let sums_at = size.bytes(call.dtype);
        // As many rows at a time as the other half of the room holds.
        let row_bytes = size.columns * size_of::<f32>();
        let most_rows = self.rows_of_sums(call, size);
        for (first_column, columns) in pieces(n, size.columns) {
            let panel = Panel { out: call.scratch, first_column, columns, stride: size.stride() };
            // SAFETY: as in `dense`.
            unsafe { call.kernels.dequantize(call.stream, &self.tensors, &panel) }?;
            for (first, rows) in pieces(call.rows, most_rows) {
                let call = call.of_rows(first, rows, [k, n]);
                let partial = call.scratch + sums_at as u64;
                let sums_bytes = (rows * row_bytes).next_multiple_of(ALIGNMENT);
                let shape = MatmulShape::dense(call.dtype, rows, columns, k)
                    .with_w_stride(size.stride())
                    .with_out_dtype(DType::F32);
                let operands = MatmulOperands { x: call.x, w: panel.out, out: partial, bias: None };
                let workspace = self.workspace(&call, sums_at + sums_bytes);
                // SAFETY: as in `dense`; the sums lie between the panel and the workspace.
                unsafe { self.shared.matmul.run(call.stream, &shape, &operands, workspace) }?;
                let sums = Sums {
                    partial,
                    out: call.out + (first_column * element) as u64,
                    rows,
                    columns,
                    out_stride: n,
                    first_column,
                    splits: 1,
                };
                // SAFETY: the product before wrote the sums; the panel's columns are within out.
                unsafe { call.kernels.sum(call.stream, &self.tensors, &sums) }?;
            }
        }
        Ok(())
    }

    /// Rows of x whose sums in f32 lie beside a panel.
    fn rows_of_sums(&self, call: &Call<'_>, size: PanelSize) -> usize {
        call.room.for_panel().saturating_sub(size.bytes(call.dtype))
            / (size.columns * size_of::<f32>()).max(1)
    }

    fn workspace(&self, call: &Call<'_>, used: usize) -> Workspace {
        Workspace { address: call.scratch + used as u64, bytes: call.room.workspace_after(used) }
    }
}

impl Linear for CudaLinear {
    fn forward(&self, x: &TensorRef<'_>, out: &mut TensorMut<'_>, context: &mut Context) -> Result<()> {
        let device = Device::Cuda(self.shared.gpu.info().ordinal);
        // What the addresses below may be used for rests on this.
        check_forward(&self.info, &device, self.shared.x_dtypes, x, out, context)?;
        let [rows, _] = x.shape();
        let dtype = x.dtype();
        let kernels = self.kernels.iter().find(|kernels| kernels.dtype() == dtype);
        let kernels = kernels.ok_or_else(|| no_kernels(&self.info, dtype))?;
        let (stream, scratch) = stream_and_scratch(&self.info, &device, context)?;
        let call = Call {
            x: address(x)?,
            out: address_mut(out)?,
            rows,
            kernels,
            dtype,
            stream,
            scratch: scratch.address(),
            room: Room::new(scratch.len_bytes()),
        };
        self.run(&call)
    }

    fn resident_bytes(&self) -> usize {
        self.resident_bytes
    }
}
