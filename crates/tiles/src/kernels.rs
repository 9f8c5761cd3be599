//! The kernels of a family, each with the launch that it counts on. kernels/include/tile.h says what each of them takes.
#![expect(unsafe_code, reason = "promises what parameters the kernels take")]

use std::ffi::c_void;

use gptq_core::device::Device;
use gptq_core::format::{Bits, Packing};
use gptq_core::tensor::DType;
use gptq_core::{Error, Result};
use gptq_cuda::arguments::{bias_of, count, dtype_code, pointer};
use gptq_cuda::{CudaStream, Kernel, Kernels, Launch, Params};

use crate::layout::{Arrangement, STRIP_COLUMNS, TILE_ROWS};
use crate::memory::Tensors;
use crate::params::{
    GPTQ_DTYPE_BF16, GPTQ_DTYPE_F16, GPTQ_DTYPE_F32, GPTQ_TILE_ARRANGE_THREADS, GPTQ_TILE_DEQUANTIZE_COLUMNS,
    GPTQ_TILE_DEQUANTIZE_THREADS, GPTQ_TILE_GATHER_THREADS, GPTQ_TILE_GROUPS_THREADS, GPTQ_TILE_ROWS,
    GPTQ_TILE_STRIP_COLUMNS, GptqProductParams, GptqTileArrangeParams, GptqTileDequantizeParams,
    GptqTileGatherParams, GptqTileGroupsParams,
};
use crate::products::{GpuShape, Kind, Product, Variant};
use crate::{Family, Zeros};

// SAFETY: made by `cargo xtask codegen` of tile.h; the products of every family take it.
unsafe impl Params for GptqProductParams {}
// SAFETY: as above; `gptq_<family>_arrange_*` take it.
unsafe impl Params for GptqTileArrangeParams {}
// SAFETY: as above; `gptq_<family>_groups_*` take it.
unsafe impl Params for GptqTileGroupsParams {}
// SAFETY: as above; `gptq_<family>_dequantize_*` take it.
unsafe impl Params for GptqTileDequantizeParams {}
// SAFETY: as above; `gptq_<family>_gather` takes it.
unsafe impl Params for GptqTileGatherParams {}

const _: () = assert!(
    dtype_code(DType::F32) == GPTQ_DTYPE_F32
        && dtype_code(DType::F16) == GPTQ_DTYPE_F16
        && dtype_code(DType::BF16) == GPTQ_DTYPE_BF16,
    "gptq-cuda and dtype.h are one"
);

const _: () = assert!(GPTQ_TILE_ROWS as usize == TILE_ROWS, "layout.rs and tile.h are one");
const _: () = assert!(GPTQ_TILE_STRIP_COLUMNS as usize == STRIP_COLUMNS, "layout.rs and tile.h are one");

/// Columns of a panel of the dense matrix are counted in these.
pub(crate) const PANEL_COLUMNS: usize = GPTQ_TILE_DEQUANTIZE_COLUMNS as usize;

/// The loaded kernels of a family.
pub(crate) struct FamilyKernels {
    pub(crate) family: &'static Family,
    pub(crate) kernels: Kernels,
}

impl FamilyKernels {
    fn kernel<P: Params>(&self, name: &str) -> Result<Kernel<P>> {
        self.kernels.kernel(&format!("gptq_{}_{name}", self.family.name))
    }
}

/// The kernels that multiply, for layers of one variant and x of one type.
pub(crate) struct ProductKernels {
    products: Vec<(Kind, Kernel<GptqProductParams>)>,
    dequantize: Kernel<GptqTileDequantizeParams>,
    gather: Kernel<GptqTileGatherParams>,
    dtype: DType,
    overlaps: bool,
}

/// Where a product reads and writes. Addresses are of the layer's GPU.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operands {
    /// `[rows, K]` in the order of the arrangement, aligned to 16 bytes.
    pub(crate) x: u64,
    /// `[rows, N]`.
    pub(crate) out: u64,
    pub(crate) rows: usize,
    /// A cell of 8 bytes for each block along the columns, and room for [`Product::partial_bytes`]; nothing where K is not
    /// divided.
    pub(crate) arrived: u64,
    pub(crate) partial: u64,
    /// Whether the kernel before may still run when this one begins, and the shared memory of a block where it may.
    pub(crate) overlapping: bool,
    pub(crate) overlapping_shared_bytes: usize,
    /// Whether weights are asked for ahead of x where it may not.
    pub(crate) weights_first: bool,
}

/// A panel of columns of the dense matrix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Panel {
    /// `[K, columns]`.
    pub(crate) out: u64,
    /// A multiple of [`PANEL_COLUMNS`].
    pub(crate) first_column: usize,
    /// A multiple of 8.
    pub(crate) columns: usize,
}

impl ProductKernels {
    /// Looks up those that there are for the GPU, which loads them.
    pub(crate) fn load(
        kernels: &FamilyKernels,
        variant: Variant,
        dtype: DType,
        gpu: GpuShape,
        overlaps: bool,
    ) -> Result<Self> {
        let product = |kind: Kind| {
            let kernel = kernels.kernel(&format!("{kind}_{}_{dtype}", variant.suffix(kind)))?;
            kernel.allow_shared_bytes(count(gpu.shared_bytes))?;
            Ok((kind, kernel))
        };
        let stored = if kernels.family.zeros == Zeros::BuiltIn { "s" } else { "" };
        Ok(Self {
            products: variant.kinds_on(gpu).map(product).collect::<Result<_>>()?,
            dequantize: kernels.kernel(&format!("dequantize_b{}{stored}_{dtype}", variant.bits))?,
            gather: kernels.kernel("gather")?,
            dtype,
            overlaps,
        })
    }

    /// The type of x that they are for.
    pub(crate) fn dtype(&self) -> DType {
        self.dtype
    }

    /// Queues `out = x · W (+ bias)`.
    ///
    /// # Safety
    /// `product` was chosen for `layer`, and `operands` are as they say; nothing else uses them but in the order of `stream`.
    pub(crate) unsafe fn multiply(
        &self,
        stream: &CudaStream,
        layer: &Tensors,
        product: &Product,
        variant: Variant,
        operands: &Operands,
    ) -> Result<()> {
        let Some((_, kernel)) = self.products.iter().find(|(kind, _)| *kind == product.kind) else {
            return Err(Error::Device {
                device: Device::Cuda(stream.gpu().info().ordinal),
                operation: format!("multiplying {} rows with `{}`", operands.rows, product.kind),
                message: "no such kernel was loaded for the layer; please report it".into(),
            });
        };
        let (bias, bias_dtype) = bias_of(layer.bias.stored());
        let overlaps = operands.overlapping && self.overlaps;
        let arrangement = &layer.arrangement;
        let params = GptqProductParams {
            weights: pointer(layer.weights),
            scales: pointer(layer.scales),
            zeros: pointer(layer.zeros),
            bias,
            x: pointer(operands.x),
            out: pointer::<c_void>(operands.out).cast_mut(),
            partial: pointer::<f32>(operands.partial).cast_mut(),
            arrived: pointer::<u64>(operands.arrived).cast_mut(),
            arrival_mark: layer.arrival_mark,
            in_features: count(arrangement.in_features),
            out_features: count(arrangement.out_features),
            strips: count(arrangement.strips),
            tiles: count(arrangement.tiles),
            groups: count(arrangement.groups),
            inverse_of_group: arrangement.inverse_of_group(variant.run_rows_of(product.kind)),
            rows: count(operands.rows),
            splits: count(product.splits),
            split_tiles: count(product.split_tiles),
            scale_dtype: dtype_code(layer.scale_dtype),
            bias_dtype,
            weights_first: u32::from(overlaps || operands.weights_first),
            reserved: 0,
        };
        let [columns, parts] = product.grid();
        let grid = [count(columns), count(parts), 1];
        let shared_bytes = if overlaps { operands.overlapping_shared_bytes } else { product.shared_bytes };
        let mut launch = Launch::new(grid, [count(product.threads), 1, 1]).shared_bytes(count(shared_bytes));
        if overlaps {
            launch = launch.overlapping_previous();
        }
        // SAFETY: the layer's tensors are as the parameters say (`Tensors`); the caller promises the rest.
        unsafe { kernel.launch(stream, &launch, &params) }
    }

    /// Queues writing a panel of the dense matrix, each weight rounded once, rows as the file has them.
    ///
    /// # Safety
    /// `panel.out` is of the layer's GPU, aligned to 16 bytes, and has room for the panel; nothing else uses it but in the
    /// order of `stream`.
    pub(crate) unsafe fn dequantize(
        &self,
        stream: &CudaStream,
        layer: &Tensors,
        panel: &Panel,
    ) -> Result<()> {
        let arrangement = &layer.arrangement;
        let params = GptqTileDequantizeParams {
            weights: pointer(layer.weights),
            scales: pointer(layer.scales),
            zeros: pointer(layer.zeros),
            order: pointer(layer.order),
            out: pointer::<c_void>(panel.out).cast_mut(),
            in_features: count(arrangement.in_features),
            tiles: count(arrangement.tiles),
            groups: count(arrangement.groups),
            inverse_of_group: arrangement.inverse_of_group(8),
            first_column: count(panel.first_column),
            columns: count(panel.columns),
            out_stride: count(panel.columns),
            scale_dtype: dtype_code(layer.scale_dtype),
        };
        let grid = [count(panel.columns.div_ceil(PANEL_COLUMNS)), count(arrangement.tiles), 1];
        let launch = Launch::new(grid, [GPTQ_TILE_DEQUANTIZE_THREADS, 1, 1]);
        // SAFETY: as in `multiply`.
        unsafe { self.dequantize.launch(stream, &launch, &params) }
    }

    /// Queues bringing rows of x into the order of the arrangement, and to an aligned address.
    ///
    /// # Safety
    /// `x` and `out` are of the layer's GPU, `[rows, K]` both, `out` aligned to 16 bytes; nothing else uses them but in the
    /// order of `stream`.
    pub(crate) unsafe fn gather(
        &self,
        stream: &CudaStream,
        layer: &Tensors,
        x: u64,
        out: u64,
        rows: usize,
    ) -> Result<()> {
        let in_features = layer.arrangement.in_features;
        let params = GptqTileGatherParams {
            x: pointer(x),
            order: pointer(layer.order),
            out: pointer::<u16>(out).cast_mut(),
            in_features: count(in_features),
            reserved: 0,
        };
        let threads = GPTQ_TILE_GATHER_THREADS;
        let grid = [count(in_features.div_ceil(threads as usize * 2)), count(rows), 1];
        let mut launch = Launch::new(grid, [threads, 1, 1]);
        if self.overlaps {
            launch = launch.overlapping_previous();
        }
        // SAFETY: as in `multiply`.
        unsafe { self.gather.launch(stream, &launch, &params) }
    }
}

/// The kernels that arrange layers of one format.
pub(crate) struct ArrangeKernels {
    blocks: Kernel<GptqTileArrangeParams>,
    sorted: Kernel<GptqTileArrangeParams>,
    rows: Kernel<GptqTileArrangeParams>,
    groups: Kernel<GptqTileGroupsParams>,
    shared_bytes: usize,
}

/// A layer in device memory as its file holds it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packed {
    pub(crate) qweight: u64,
    /// Direct; 0 where nothing reads zero points.
    pub(crate) qzeros: u64,
    pub(crate) scales: u64,
    pub(crate) groups: usize,
}

impl ArrangeKernels {
    pub(crate) fn load(
        kernels: &FamilyKernels,
        bits: Bits,
        packing: Packing,
        shared_bytes: usize,
    ) -> Result<Self> {
        let planar = packing == Packing::Planar && bits == Bits::THREE;
        let format = format!("b{bits}{}", if planar { "p" } else { "" });
        let arrange = |source: &str| {
            let kernel = kernels.kernel(&format!("arrange_{source}_{format}"))?;
            kernel.allow_shared_bytes(count(shared_bytes))?;
            Ok(kernel)
        };
        Ok(Self {
            blocks: arrange("blocks")?,
            sorted: arrange("sorted")?,
            rows: arrange("rows")?,
            groups: kernels.kernel(&format!("groups_{format}"))?,
            shared_bytes,
        })
    }

    /// Queues arranging a layer.
    ///
    /// # Safety
    /// `from` and `to` are of one GPU: `from` is the layer that `to` is for, and nothing else uses either but in the order of
    /// `stream`.
    pub(crate) unsafe fn arrange(&self, stream: &CudaStream, from: &Packed, to: &Tensors) -> Result<()> {
        /// Strips and tiles of a block where rows stay in their order, and its threads: with few of them more blocks overlap
        /// their loading. Sorted rows take so much shared memory that there are few blocks anyway.
        const BLOCK: [usize; 2] = [4, 8];
        const BLOCK_THREADS: u32 = 256;
        let arrangement = &to.arrangement;
        let word_bytes = |rows: usize| rows * arrangement.bits.get() / 32 * size_of::<u32>();
        let whole = word_bytes(arrangement.in_features) * STRIP_COLUMNS;
        let (kernel, [strips, tiles], shared) = if to.order == 0 {
            let [strips, tiles] = BLOCK;
            (&self.blocks, BLOCK, word_bytes(tiles * TILE_ROWS) * STRIP_COLUMNS * strips)
        } else if whole <= self.shared_bytes {
            (&self.sorted, [1, arrangement.tiles], whole)
        } else {
            (&self.rows, BLOCK, 0)
        };
        let params = GptqTileArrangeParams {
            qweight: pointer(from.qweight),
            order: pointer(to.order),
            weights: pointer::<c_void>(to.weights).cast_mut(),
            in_features: count(arrangement.in_features),
            out_features: count(arrangement.out_features),
            strips: count(arrangement.strips),
            tiles: count(arrangement.tiles),
            block_strips: count(strips),
            block_tiles: count(tiles),
        };
        let grid = [count(arrangement.strips.div_ceil(strips)), count(arrangement.tiles.div_ceil(tiles)), 1];
        let threads = if to.order == 0 { BLOCK_THREADS } else { GPTQ_TILE_ARRANGE_THREADS };
        let launch = Launch::new(grid, [threads, 1, 1]).shared_bytes(count(shared));
        // SAFETY: the caller promises both layers; the grid and the shared memory are those of tile.h.
        unsafe { kernel.launch(stream, &launch, &params) }?;
        let params = GptqTileGroupsParams {
            scales: pointer(from.scales),
            qzeros: pointer(from.qzeros),
            arranged_scales: pointer::<u16>(to.scales).cast_mut(),
            arranged_zeros: pointer::<u8>(to.zeros).cast_mut(),
            out_features: count(arrangement.out_features),
            strips: count(arrangement.strips),
            groups: count(from.groups),
            arranged_groups: count(arrangement.groups),
        };
        let threads = GPTQ_TILE_GROUPS_THREADS;
        let grid = [count((arrangement.group_elements() / 2).div_ceil(threads as usize)), 1, 1];
        // SAFETY: as above.
        unsafe { self.groups.launch(stream, &Launch::new(grid, [threads, 1, 1]), &params) }
    }
}

/// What kernels count of a layer, and up to how many.
pub(crate) fn counted(arrangement: &Arrangement) -> [(&'static str, usize, usize); 3] {
    [
        ("tiles of 64 rows (in_features)", arrangement.tiles, 65_535),
        ("scales (groups by out_features)", arrangement.group_elements(), (1 << 31) - 1),
        ("out_features", arrangement.out_features, (1 << 30) - 1),
    ]
}
