//! The kernels of kernels/exllama_v1, each with the launch that it counts on. `params.h` says what each of them takes.
#![expect(unsafe_code, reason = "promises what parameters the kernels take")]

use std::ffi::c_void;
use std::ptr;

use gptq_core::Result;
use gptq_core::tensor::DType;
use gptq_cuda::arguments::{bias_of, blocks, count, dtype_code, pointer};
use gptq_cuda::{CudaStream, Gpu, Kernel, Kernels, Launch, Params};

use crate::choice::{Grid, PRODUCTS, Product, preferred};
use crate::layout::Tensors;
use crate::params::{
    GPTQ_DTYPE_BF16, GPTQ_DTYPE_F16, GPTQ_DTYPE_F32, GPTQ_EXLLAMA_V1_DOT_COLUMNS,
    GPTQ_EXLLAMA_V1_DOT_MOST_ROWS, GPTQ_EXLLAMA_V1_RECONSTRUCT_ROWS, GPTQ_EXLLAMA_V1_RECONSTRUCT_THREADS,
    GPTQ_EXLLAMA_V1_SORT_COLUMNS, GPTQ_EXLLAMA_V1_THREADS, GptqExllamaV1DotParams, GptqExllamaV1GatherParams,
    GptqExllamaV1ProductParams, GptqExllamaV1ReconstructParams, GptqExllamaV1SortParams,
    GptqExllamaV1SumParams,
};

// SAFETY: made by `cargo xtask codegen` of the params.h of the family; `gptq_exllama_v1_product_*` take it.
unsafe impl Params for GptqExllamaV1ProductParams {}
// SAFETY: as above; `gptq_exllama_v1_dot_*` take it.
unsafe impl Params for GptqExllamaV1DotParams {}
// SAFETY: as above; `gptq_exllama_v1_sum` takes it.
unsafe impl Params for GptqExllamaV1SumParams {}
// SAFETY: as above; `gptq_exllama_v1_reconstruct*` take it.
unsafe impl Params for GptqExllamaV1ReconstructParams {}
// SAFETY: as above; `gptq_exllama_v1_sort_rows` takes it.
unsafe impl Params for GptqExllamaV1SortParams {}
// SAFETY: as above; `gptq_exllama_v1_gather_x` takes it.
unsafe impl Params for GptqExllamaV1GatherParams {}

const _: () = assert!(
    dtype_code(DType::F32) == GPTQ_DTYPE_F32
        && dtype_code(DType::F16) == GPTQ_DTYPE_F16
        && dtype_code(DType::BF16) == GPTQ_DTYPE_BF16,
    "gptq-cuda and dtype.h are one"
);

/// Rows of x that `dot` takes at most.
pub(crate) const MOST_DOT_ROWS: usize = GPTQ_EXLLAMA_V1_DOT_MOST_ROWS as usize;
/// A grid has 65535 blocks in y at most: tiles of 32 rows of W.
pub(crate) const MOST_IN_FEATURES: usize = 1 << 20;
/// The same: blocks of 32 columns.
pub(crate) const MOST_OUT_FEATURES: usize = 65_535 * 32;

/// What cells of arrivals hold between launches: no number that anything else would leave in scratch.
const ARRIVAL_MARK: u64 = 0x6770_7471_7631_a500;

/// A kernel for tensor cores, ready on a GPU.
pub(crate) struct ReadyProduct {
    pub(crate) product: Product,
    kernel: Kernel<GptqExllamaV1ProductParams>,
    /// Blocks that the GPU holds at a time.
    pub(crate) slots: usize,
}

/// All kernels, looked up.
pub(crate) struct KernelSet {
    /// As [`PRODUCTS`]; `None` where the code is for GPUs without tensor cores, or shared memory is too little.
    products: Vec<Option<ReadyProduct>>,
    /// For one, two, and three or four rows of x; then for groups of any size.
    dots: [Kernel<GptqExllamaV1DotParams>; 4],
    sum: Kernel<GptqExllamaV1SumParams>,
    reconstruct: [Kernel<GptqExllamaV1ReconstructParams>; 2],
    sort: Kernel<GptqExllamaV1SortParams>,
    gather: Kernel<GptqExllamaV1GatherParams>,
    overlaps: bool,
}

impl KernelSet {
    pub(crate) fn load(gpu: &Gpu, kernels: &Kernels) -> Result<Self> {
        let (info, target) = (gpu.info(), kernels.target());
        let ready = |product: Product| -> Result<Option<ReadyProduct>> {
            let shared = count(product.shared_bytes());
            if !target.has_tensor_cores() || shared > info.shared_bytes_per_block {
                return Ok(None);
            }
            let kernel = kernels.kernel(&format!("gptq_exllama_v1_{}", product.name))?;
            kernel.allow_shared_bytes(shared)?;
            let resident = kernel.blocks_per_multiprocessor(GPTQ_EXLLAMA_V1_THREADS, shared)?;
            let slots = resident.max(1) as usize * info.multiprocessors as usize;
            Ok(Some(ReadyProduct { product, kernel, slots }))
        };
        let dot = |name: &str| kernels.kernel(&format!("gptq_exllama_v1_dot_{name}"));
        let named = |name: &str| format!("gptq_exllama_v1_{name}");
        Ok(Self {
            products: PRODUCTS.into_iter().map(ready).collect::<Result<_>>()?,
            dots: [dot("m1")?, dot("m2")?, dot("m4")?, dot("rows_m4")?],
            sum: kernels.kernel(&named("sum"))?,
            reconstruct: [
                kernels.kernel(&named("reconstruct"))?,
                kernels.kernel(&named("reconstruct_rows"))?,
            ],
            sort: kernels.kernel(&named("sort_rows"))?,
            gather: kernels.kernel(&named("gather_x"))?,
            overlaps: target.overlaps(),
        })
    }

    /// The kernel for tensor cores that takes a call, if one does.
    pub(crate) fn product(&self, layer: &Tensors, rows: usize) -> Option<&ReadyProduct> {
        let mut ready = preferred(rows, layer.shape()).iter().filter_map(|&i| self.products.get(i)?.as_ref());
        ready.next().filter(|_| layer.in_chunks())
    }

    /// A launch that may begin before the kernel before it has ended, where the GPU can.
    fn overlapping(&self, launch: Launch) -> Launch {
        if self.overlaps { launch.overlapping_previous() } else { launch }
    }

    /// Queues `out = x · W (+ bias)` on tensor cores.
    ///
    /// # Safety
    /// Addresses of `call` are of the layer's GPU: x `[rows, K]` aligned to 16 bytes, out `[rows, N]`, both f16, and, where
    /// [`Product::room`] says so, its cells and sums, aligned to 256 bytes. Nothing else uses them but in the order of
    /// `stream`.
    pub(crate) unsafe fn multiply(
        &self,
        ready: &ReadyProduct,
        stream: &CudaStream,
        layer: &Tensors,
        call: &Operands,
        grid: &Grid,
    ) -> Result<()> {
        let [cells, _] = ready.product.room(grid);
        let (bias, bias_dtype) = bias_of(layer.bias.stored());
        let params = GptqExllamaV1ProductParams {
            qweight: pointer(layer.qweight),
            qzeros: pointer(layer.qzeros),
            scales: pointer(layer.scales),
            bias,
            x: pointer(call.x),
            out: pointer::<c_void>(call.out).cast_mut(),
            partial: pointer::<f32>(call.work + cells as u64).cast_mut(),
            arrived: pointer::<u64>(call.work).cast_mut(),
            arrival_mark: ARRIVAL_MARK,
            in_features: count(layer.in_features),
            out_features: count(layer.out_features),
            group_rows: count(layer.group_rows),
            bias_dtype,
            rows: count(call.rows),
            reserved: 0,
        };
        let blocks = [count(grid.blocks), count(grid.row_blocks), 1];
        let launch = Launch::new(blocks, [GPTQ_EXLLAMA_V1_THREADS, 1, 1])
            .shared_bytes(count(ready.product.shared_bytes()));
        // SAFETY: the layer's tensors are as the parameters say (`Tensors`); the caller promises the call; the grid is the
        // one of params.h, and the kernel waits before it touches what others write.
        unsafe { ready.kernel.launch(stream, &self.overlapping(launch), &params) }
    }

    /// Queues the same without tensor cores, for one to four rows.
    ///
    /// # Safety
    /// As [`multiply`](Self::multiply), where `call.work` has room for f32 `[splits, rows, N]` if there are several splits.
    pub(crate) unsafe fn dot(
        &self,
        stream: &CudaStream,
        layer: &Tensors,
        call: &Operands,
        splits: usize,
    ) -> Result<()> {
        let (bias, bias_dtype) = bias_of(layer.bias.stored());
        let params = GptqExllamaV1DotParams {
            qweight: pointer(layer.qweight),
            qzeros: pointer(layer.qzeros),
            scales: pointer(layer.scales),
            bias,
            x: pointer(call.x),
            out: pointer::<c_void>(call.out).cast_mut(),
            partial: pointer::<f32>(call.work).cast_mut(),
            in_features: count(layer.in_features),
            out_features: count(layer.out_features),
            group_rows: count(layer.group_rows),
            bias_dtype,
            rows: count(call.rows),
            splits: count(splits),
        };
        let [one, two, four, of_rows] = &self.dots;
        let kernel = match call.rows {
            _ if !layer.in_words() => of_rows,
            1 => one,
            2 => two,
            _ => four,
        };
        let columns = blocks(layer.out_features, GPTQ_EXLLAMA_V1_DOT_COLUMNS as usize);
        let launch = Launch::new([1, columns, count(splits)], [GPTQ_EXLLAMA_V1_THREADS, 1, 1]);
        // SAFETY: as in `multiply`; this kernel does not overlap.
        unsafe { kernel.launch(stream, &launch, &params) }?;
        if splits == 1 {
            return Ok(());
        }
        let params = GptqExllamaV1SumParams {
            partial: pointer(call.work),
            bias,
            out: pointer::<c_void>(call.out).cast_mut(),
            rows: count(call.rows),
            out_features: count(layer.out_features),
            splits: count(splits),
            bias_dtype,
        };
        let quads = blocks(call.rows * layer.out_features, 4 * GPTQ_EXLLAMA_V1_THREADS as usize);
        let launch = Launch::new([quads, 1, 1], [GPTQ_EXLLAMA_V1_THREADS, 1, 1]);
        // SAFETY: the kernel before wrote the sums, and this one waits for it.
        unsafe { self.sum.launch(stream, &self.overlapping(launch), &params) }
    }

    /// Queues rebuilding the columns `first_column..first_column + columns` of W as a dense `[K, columns]` of f16.
    ///
    /// # Safety
    /// `out` is of the layer's GPU, aligned to 16 bytes, and has room for the panel; nothing else uses it but in the order of
    /// `stream`.
    pub(crate) unsafe fn reconstruct(
        &self,
        stream: &CudaStream,
        layer: &Tensors,
        first_column: usize,
        columns: usize,
        out: u64,
    ) -> Result<()> {
        let params = GptqExllamaV1ReconstructParams {
            qweight: pointer(layer.qweight),
            qzeros: pointer(layer.qzeros),
            scales: pointer(layer.scales),
            out: pointer::<c_void>(out).cast_mut(),
            in_features: count(layer.in_features),
            out_features: count(layer.out_features),
            group_rows: count(layer.group_rows),
            first_column: count(first_column),
            columns: count(columns),
            out_stride: count(columns),
        };
        let [of_words, of_rows] = &self.reconstruct;
        let (kernel, thread_columns) = if layer.in_words() { (of_words, 8) } else { (of_rows, 1) };
        let threads = GPTQ_EXLLAMA_V1_RECONSTRUCT_THREADS;
        let grid = [
            blocks(columns, thread_columns * threads as usize),
            blocks(layer.in_features, GPTQ_EXLLAMA_V1_RECONSTRUCT_ROWS as usize),
            1,
        ];
        // SAFETY: as in `multiply`.
        unsafe { kernel.launch(stream, &self.overlapping(Launch::new(grid, [threads, 1, 1])), &params) }
    }

    /// Queues sorting the words at `from` into those of the layer.
    ///
    /// # Safety
    /// `from` holds the layer's `[K / 8, N]` words as the file has them, on the layer's GPU, and nothing else writes them or
    /// uses the layer's but in the order of `stream`.
    pub(crate) unsafe fn sort(
        &self,
        stream: &CudaStream,
        layer: &Tensors,
        sorted_rows: u64,
        from: u64,
    ) -> Result<()> {
        let params = GptqExllamaV1SortParams {
            qweight: pointer(from),
            sorted_rows: pointer(sorted_rows),
            sorted: pointer::<u32>(layer.qweight).cast_mut(),
            in_features: count(layer.in_features),
            out_features: count(layer.out_features),
        };
        let columns = GPTQ_EXLLAMA_V1_SORT_COLUMNS as usize;
        let grid = [blocks(layer.in_features / 8, 32), blocks(layer.out_features, columns), 1];
        // SAFETY: the caller promises the words; sorted_rows is a permutation of K rows: core has checked g_idx.
        unsafe { self.sort.launch(stream, &Launch::new(grid, [GPTQ_EXLLAMA_V1_THREADS, 1, 1]), &params) }
    }

    /// Queues gathering x in the order of the layer's rows, or copying it where that is the file's.
    ///
    /// # Safety
    /// x and `to` are of the layer's GPU, f16 `[rows, K]`, `to` aligned to 16 bytes; nothing else uses them but in the order
    /// of `stream`.
    pub(crate) unsafe fn gather(
        &self,
        stream: &CudaStream,
        layer: &Tensors,
        x: u64,
        rows: usize,
        to: u64,
    ) -> Result<()> {
        let params = GptqExllamaV1GatherParams {
            x: pointer(x),
            sorted_rows: layer.sorted_rows.map_or(ptr::null(), pointer),
            gathered: pointer::<c_void>(to).cast_mut(),
            in_features: count(layer.in_features),
            rows: count(rows),
        };
        let grid =
            [blocks(layer.in_features / 8, GPTQ_EXLLAMA_V1_THREADS as usize), count(rows.min(65_535)), 1];
        let launch = Launch::new(grid, [GPTQ_EXLLAMA_V1_THREADS, 1, 1]);
        // SAFETY: as in `sort`; the kernel waits before it touches what others write.
        unsafe { self.gather.launch(stream, &self.overlapping(launch), &params) }
    }
}

/// x, out and what a product works in, by address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operands {
    pub(crate) x: u64,
    pub(crate) out: u64,
    pub(crate) rows: usize,
    pub(crate) work: u64,
}
