//! The kernels of kernels/dequantize, each with the launch that it counts on.
//!
//! `params.h` says what each of them takes. Of the two kernels for each job, `blocks` is the fast one; which one takes a
//! layer is decided here.
#![expect(unsafe_code, reason = "promises what parameters the kernels take")]

use std::ffi::c_void;

use gptq_core::Result;
use gptq_core::format::{Bits, Packing};
use gptq_core::tensor::DType;
use gptq_cuda::arguments::{bias_of, blocks, count, dtype_code, pointer};
use gptq_cuda::{CudaStream, Kernel, Kernels, Launch, Params};

use super::layout::Tensors;
use super::params::{
    GPTQ_DEQUANTIZE_BLOCKS_THREADS, GPTQ_DEQUANTIZE_DOT_COLUMNS, GPTQ_DEQUANTIZE_DOT_MOST_ROWS,
    GPTQ_DEQUANTIZE_DOT_THREADS, GPTQ_DEQUANTIZE_GATHER_THREADS, GPTQ_DEQUANTIZE_ROWS_COLUMNS,
    GPTQ_DEQUANTIZE_ROWS_THREADS, GPTQ_DEQUANTIZE_SORT_THREADS, GPTQ_DEQUANTIZE_SUM_THREADS,
    GPTQ_DEQUANTIZE_TILE_ROWS, GPTQ_DTYPE_BF16, GPTQ_DTYPE_F16, GPTQ_DTYPE_F32, GptqDequantizeDotParams,
    GptqDequantizeGatherParams, GptqDequantizeParams, GptqDequantizeSortParams, GptqDequantizeSumParams,
};

// SAFETY: made by `cargo xtask codegen` of the params.h of the family; `gptq_dequantize_{blocks,rows}_*` take it.
unsafe impl Params for GptqDequantizeParams {}
// SAFETY: as above; `gptq_dequantize_dot_*` take it.
unsafe impl Params for GptqDequantizeDotParams {}
// SAFETY: as above; `gptq_dequantize_sum_*` take it.
unsafe impl Params for GptqDequantizeSumParams {}
// SAFETY: as above; `gptq_dequantize_sort_*` take it.
unsafe impl Params for GptqDequantizeSortParams {}
// SAFETY: as above; `gptq_dequantize_gather_*` take it.
unsafe impl Params for GptqDequantizeGatherParams {}

const _: () = assert!(
    dtype_code(DType::F32) == GPTQ_DTYPE_F32
        && dtype_code(DType::F16) == GPTQ_DTYPE_F16
        && dtype_code(DType::BF16) == GPTQ_DTYPE_BF16,
    "gptq-cuda and dtype.h are one"
);

/// Rows of W that a block of threads reads at a time.
pub(crate) const TILE_ROWS: usize = GPTQ_DEQUANTIZE_TILE_ROWS as usize;
/// Rows of x that the fused product takes at most.
pub(crate) const MOST_DOT_ROWS: usize = GPTQ_DEQUANTIZE_DOT_MOST_ROWS as usize;
/// A grid has 65535 blocks in y at most, one for each tile of rows.
pub(crate) const MOST_IN_FEATURES: usize = 65_535 * TILE_ROWS;
/// Kernels count columns in 32 bits, and round up to what a block has.
pub(crate) const MOST_OUT_FEATURES: usize = (1 << 31) - 4096;

/// The kernels for layers of one format and x of one type.
pub(crate) struct FormatKernels {
    dense_blocks: Kernel<GptqDequantizeParams>,
    dense_rows: Kernel<GptqDequantizeParams>,
    /// For one, two, and three or four rows of x.
    dot_blocks: [Kernel<GptqDequantizeDotParams>; 3],
    /// For one row of x, and for two to four.
    dot_rows: [Kernel<GptqDequantizeDotParams>; 2],
    sum: Kernel<GptqDequantizeSumParams>,
    gather: Kernel<GptqDequantizeGatherParams>,
    dtype: DType,
}

impl FormatKernels {
    /// Looks them up, which loads them.
    pub(crate) fn load(kernels: &Kernels, bits: Bits, packing: Packing, dtype: DType) -> Result<Self> {
        let format = format_name(bits, packing);
        let dense = |kind: &str| kernels.kernel(&format!("gptq_dequantize_{kind}_{format}_{dtype}"));
        let dot = |kind: &str, rows: usize| {
            kernels.kernel(&format!("gptq_dequantize_dot_{kind}_{format}_{dtype}_m{rows}"))
        };
        Ok(Self {
            dense_blocks: dense("blocks")?,
            dense_rows: dense("rows")?,
            dot_blocks: [dot("blocks", 1)?, dot("blocks", 2)?, dot("blocks", 4)?],
            dot_rows: [dot("rows", 1)?, dot("rows", 4)?],
            sum: kernels.kernel(&format!("gptq_dequantize_sum_{dtype}"))?,
            gather: kernels.kernel(&format!("gptq_dequantize_gather_{}bit", 8 * dtype.size_bytes()))?,
            dtype,
        })
    }

    /// The type of x that they are for.
    pub(crate) fn dtype(&self) -> DType {
        self.dtype
    }

    /// Queues writing a panel of the dense matrix of `layer`, each weight rounded once.
    ///
    /// # Safety
    /// `panel.out` is of the layer's GPU and has room for the panel; nothing else uses it but in the order of `stream`.
    pub(crate) unsafe fn dequantize(
        &self,
        stream: &CudaStream,
        layer: &Tensors,
        panel: &Panel,
    ) -> Result<()> {
        let params = GptqDequantizeParams {
            qweight: pointer(layer.qweight),
            qzeros: pointer(layer.qzeros),
            scales: pointer(layer.scales),
            g_idx: pointer(layer.g_idx),
            w_rows: pointer(layer.w_rows),
            out: pointer::<c_void>(panel.out).cast_mut(),
            in_features: count(layer.in_features),
            out_features: count(layer.out_features),
            group_rows: count(layer.group_rows),
            first_column: count(panel.first_column),
            columns: count(panel.columns),
            out_stride: count(panel.stride),
            scale_dtype: dtype_code(layer.scale_dtype),
            g_idx_bytes: layer.g_idx_bytes,
        };
        let in_blocks = layer.in_blocks
            && layer.scale_dtype != DType::F32
            && [panel.first_column, panel.columns, panel.stride]
                .iter()
                .all(|number| number.is_multiple_of(8))
            && panel.out.is_multiple_of(16);
        let tiles = blocks(layer.in_features, TILE_ROWS);
        let (kernel, launch) = if in_blocks {
            let columns = GPTQ_DEQUANTIZE_BLOCKS_THREADS as usize * 16 / self.dtype.size_bytes();
            let grid = [blocks(panel.columns, columns), tiles, 1];
            (&self.dense_blocks, Launch::new(grid, [GPTQ_DEQUANTIZE_BLOCKS_THREADS, 1, 1]))
        } else {
            let grid = [blocks(panel.columns, GPTQ_DEQUANTIZE_ROWS_COLUMNS as usize), tiles, 1];
            (&self.dense_rows, Launch::new(grid, [GPTQ_DEQUANTIZE_ROWS_THREADS, 1, 1]))
        };
        // SAFETY: the layer's tensors are as the parameters say (`Tensors`); the caller promises the panel; the grid is
        // the one of params.h.
        unsafe { kernel.launch(stream, &launch, &params) }
    }

    /// Queues `out = x · W (+ bias)` for one to four rows of x, without the dense matrix.
    ///
    /// # Safety
    /// Addresses of `call` are of the layer's GPU: x `[rows, K]`, which may be [gathered](Self::gather), out `[rows, N]`
    /// of the type of these kernels, aligned to it, and, with more splits than one, room for f32 `[splits, rows, N]`.
    /// Nothing else uses them but in the order of `stream`.
    pub(crate) unsafe fn dot(&self, stream: &CudaStream, layer: &Tensors, call: &Dot) -> Result<()> {
        let (bias, bias_dtype) = bias_of(layer.bias.stored());
        let params = GptqDequantizeDotParams {
            qweight: pointer(layer.qweight),
            qzeros: pointer(layer.qzeros),
            scales: pointer(layer.scales),
            g_idx: pointer(layer.g_idx),
            w_rows: pointer(layer.w_rows),
            bias,
            x: pointer(call.x),
            out: pointer::<c_void>(call.out).cast_mut(),
            partial: pointer::<f32>(call.partial).cast_mut(),
            in_features: count(layer.in_features),
            out_features: count(layer.out_features),
            group_rows: count(layer.group_rows),
            scale_dtype: dtype_code(layer.scale_dtype),
            bias_dtype,
            g_idx_bytes: layer.g_idx_bytes,
            rows: count(call.rows),
            splits: count(call.splits),
        };
        let in_order = layer.w_rows == 0 || call.x_gathered;
        let kernel = if layer.in_blocks && in_order && call.x.is_multiple_of(16) {
            let [one, two, four] = &self.dot_blocks;
            match call.rows {
                1 => one,
                2 => two,
                _ => four,
            }
        } else {
            let [one, four] = &self.dot_rows;
            if call.rows == 1 { one } else { four }
        };
        let columns = blocks(layer.out_features, GPTQ_DEQUANTIZE_DOT_COLUMNS as usize);
        let launch = Launch::new([columns, count(call.splits), 1], [GPTQ_DEQUANTIZE_DOT_THREADS, 1, 1]);
        // SAFETY: as in `dequantize`.
        unsafe { kernel.launch(stream, &launch, &params) }?;
        if call.splits == 1 {
            return Ok(());
        }
        let sums = Sums {
            partial: call.partial,
            out: call.out,
            rows: call.rows,
            columns: layer.out_features,
            out_stride: layer.out_features,
            first_column: 0,
            splits: call.splits,
        };
        // SAFETY: the kernel before wrote the sums; the caller promises out.
        unsafe { self.sum(stream, layer, &sums) }
    }

    /// Queues writing x with its columns in the order of the layer's sorted rows, `[rows, K]`, to `gathered`.
    ///
    /// # Safety
    /// The layer's rows are sorted. x and `gathered` are of the layer's GPU and of the type of these kernels; nothing
    /// else uses them but in the order of `stream`.
    pub(crate) unsafe fn gather(
        &self,
        stream: &CudaStream,
        layer: &Tensors,
        [x, gathered]: [u64; 2],
        rows: usize,
    ) -> Result<()> {
        let params = GptqDequantizeGatherParams {
            w_rows: pointer(layer.w_rows),
            x: pointer(x),
            gathered: pointer::<c_void>(gathered).cast_mut(),
            in_features: count(layer.in_features),
        };
        let threads = GPTQ_DEQUANTIZE_GATHER_THREADS;
        let grid = [blocks(layer.in_features, threads as usize), count(rows), 1];
        // SAFETY: as in `dequantize`; the rows are a permutation of the columns of x.
        unsafe { self.gather.launch(stream, &Launch::new(grid, [threads, 1, 1]), &params) }
    }

    /// Queues `out = the sum of partial sums (+ bias)`, rounded once.
    ///
    /// # Safety
    /// `sums.partial` holds f32 `[splits, rows, columns]`, and `sums.out` has room for `[rows, columns]` of the type of
    /// these kernels with its stride, on the layer's GPU. Nothing else uses them but in the order of `stream`.
    pub(crate) unsafe fn sum(&self, stream: &CudaStream, layer: &Tensors, sums: &Sums) -> Result<()> {
        let of_columns = layer.bias.stored().map(|bias| bias.at_column(sums.first_column));
        let (bias, bias_dtype) = bias_of(of_columns);
        let params = GptqDequantizeSumParams {
            partial: pointer(sums.partial),
            bias,
            out: pointer::<c_void>(sums.out).cast_mut(),
            rows: count(sums.rows),
            columns: count(sums.columns),
            out_stride: count(sums.out_stride),
            splits: count(sums.splits),
            bias_dtype,
        };
        let threads = GPTQ_DEQUANTIZE_SUM_THREADS;
        let grid = [blocks(sums.rows * sums.columns, threads as usize), 1, 1];
        // SAFETY: as in `dequantize`.
        unsafe { self.sum.launch(stream, &Launch::new(grid, [threads, 1, 1]), &params) }
    }
}

/// What sorts the rows of layers of one format.
pub(crate) struct SortKernel(Kernel<GptqDequantizeSortParams>);

impl SortKernel {
    pub(crate) fn load(kernels: &Kernels, bits: Bits, packing: Packing) -> Result<Self> {
        kernels.kernel(&format!("gptq_dequantize_sort_{}", format_name(bits, packing))).map(Self)
    }

    /// Queues writing the words of `layer` with its rows in order, from `unsorted`, where they are as the file has them.
    ///
    /// # Safety
    /// `unsorted` is of the layer's GPU, holds its qweight, and is not written to before the stream is done.
    pub(crate) unsafe fn sort(&self, stream: &CudaStream, layer: &Tensors, unsorted: u64) -> Result<()> {
        let params = GptqDequantizeSortParams {
            qweight: pointer(unsorted),
            w_rows: pointer(layer.w_rows),
            sorted: pointer::<u32>(layer.qweight).cast_mut(),
            out_features: count(layer.out_features),
        };
        let threads = GPTQ_DEQUANTIZE_SORT_THREADS;
        let grid = [blocks(layer.out_features, threads as usize), blocks(layer.in_features, TILE_ROWS), 1];
        // SAFETY: the layer's rows and words are as the parameters say (`Tensors`); the caller promises the rest.
        unsafe { self.0.launch(stream, &Launch::new(grid, [threads, 1, 1]), &params) }
    }
}

/// A panel of columns of the dense matrix, and where it is wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Panel {
    pub(crate) out: u64,
    pub(crate) first_column: usize,
    pub(crate) columns: usize,
    /// Elements from row to row of what is written.
    pub(crate) stride: usize,
}

/// A fused product.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dot {
    pub(crate) x: u64,
    /// Whether columns of x are in the order of the layer's sorted rows.
    pub(crate) x_gathered: bool,
    pub(crate) out: u64,
    /// Where sums of parts of K go; nothing where there is one part.
    pub(crate) partial: u64,
    /// M: 1 to [`MOST_DOT_ROWS`].
    pub(crate) rows: usize,
    /// Parts of K.
    pub(crate) splits: usize,
}

/// Sums of parts of K, and where their sum goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sums {
    pub(crate) partial: u64,
    pub(crate) out: u64,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) out_stride: usize,
    /// Which column of the layer is the first here: where its bias is.
    pub(crate) first_column: usize,
    pub(crate) splits: usize,
}

/// In how many parts the fused product takes K, on a GPU of so many multiprocessors.
///
/// A block has 32 columns, and its warps take 1024 rows of K at a time. Where there are fewer blocks than
/// multiprocessors, some would be idle; each part more costs a share of a second launch, so that a part has 5 steps or
/// more.
pub(crate) fn splits(in_features: usize, out_features: usize, multiprocessors: usize) -> usize {
    const STEP_ROWS: usize = 1024;
    const LEAST_STEPS: usize = 5;
    let blocks = out_features.div_ceil(GPTQ_DEQUANTIZE_DOT_COLUMNS as usize);
    let wanted = if blocks >= multiprocessors { 1 } else { (2 * multiprocessors).div_ceil(blocks.max(1)) };
    let most = in_features.div_ceil(STEP_ROWS) / LEAST_STEPS;
    wanted.min(most).max(1)
}

/// A format as kernels are named: 2, 4 and 8 bits are the same in both packings.
fn format_name(bits: Bits, packing: Packing) -> String {
    let planar = packing == Packing::Planar && bits == Bits::THREE;
    format!("b{}{}", bits.get(), if planar { "p" } else { "" })
}
