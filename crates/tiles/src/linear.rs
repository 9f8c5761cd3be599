//! `forward`: which path a call takes, and its pieces.
#![expect(unsafe_code, reason = "launches kernels and products on addresses")]

use std::sync::Arc;

use gptq_core::backend::Linear;
use gptq_core::device::{Context, Device, DeviceBuffer as _};
use gptq_core::post_init::check_forward;
use gptq_core::tensor::{DType, TensorMut, TensorRef};
use gptq_core::{Error, LayerInfo, Result};
use gptq_cuda::arguments::{no_kernels, stream_and_scratch};
use gptq_cuda::panels::{Job, Room, pieces};
use gptq_cuda::place::ALIGNMENT;
use gptq_cuda::{
    Bias, Biases, CudaBuffer, CudaStream, Gpu, Matmul, MatmulOperands, MatmulShape, Trial, Workspace,
    address, address_mut,
};

use crate::kernels::{Operands, PANEL_COLUMNS, Panel, ProductKernels};
use crate::memory::Tensors;
use crate::products::{GpuShape, Kind, MOST_COUNTERS, MOST_ROWS, Product, Variant};

/// Bytes of the counters of blocks, at the start of the scratch.
const ARRIVED_BYTES: usize = MOST_COUNTERS * CELL_BYTES;
/// Rows of x up to which tiles begin before the kernel in front of them has ended: 0.5 to 2 us less on an H200. With twice as
/// many rows that was slower.
const MOST_OVERLAPPING_ROWS: usize = 128;
/// What a counter takes.
const CELL_BYTES: usize = 8;
/// Columns of panels: tiles of cuBLASLt have so many, and the kernel that dequantizes writes the last at least.
const COLUMN_UNITS: [usize; 2] = [256, PANEL_COLUMNS];
/// Rows of x in one product of cuBLASLt: more are as fast in pieces, and sizes stay far from what 32 bits hold.
const MOST_DENSE_ROWS: usize = 1 << 16;
/// Products read x in pieces of 16 bytes.
const X_ALIGNMENT: u64 = 16;

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

/// The kernels for layers of one variant, for x of each type.
pub(crate) type KernelSet = Arc<[ProductKernels]>;

/// A layer on a GPU.
pub(crate) struct TileLinear {
    pub(crate) info: LayerInfo,
    pub(crate) tensors: Tensors,
    /// By ascending numbers of rows.
    pub(crate) products: Vec<Product>,
    /// Which of them is the first for so many rows.
    pub(crate) first_of: Arc<[usize]>,
    pub(crate) variant: Variant,
    pub(crate) gpu_shape: GpuShape,
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
    kernels: &'a ProductKernels,
    stream: &'a CudaStream,
    scratch: u64,
    room: Room,
}

impl Call<'_> {
    /// The same for some of its rows.
    fn of_rows(&self, first: usize, rows: usize, [k, n]: [usize; 2]) -> Self {
        Self { x: self.x + (first * k * 2) as u64, out: self.out + (first * n * 2) as u64, rows, ..*self }
    }
}

/// Whether a call writes the dense matrix, where it begins at `from` rows. A bias that the type of x does not hold is added to
/// sums in f32, which products of cuBLASLt do not show.
fn writes_dense(from: Option<usize>, bias: &Biases, rows: usize, dtype: DType) -> bool {
    let rounds_bias = bias.stored().is_some() && bias.in_dtype(dtype).is_none();
    !rounds_bias && from.is_some_and(|from| rows >= from)
}

/// Rows of x for which the dense path is tried once when a model is made ready.
const TRIED_ROWS: [usize; 4] = [128, 256, 512, 768];

impl TileLinear {
    /// How its first calls are made.
    pub(crate) fn trial(&self) -> Trial<'_> {
        let dtype = match self.info.scale_dtype {
            DType::BF16 if self.shared.x_dtypes.contains(&DType::BF16) => DType::BF16,
            _ => DType::F16,
        };
        let rows = TRIED_ROWS.into_iter().filter(|&rows| self.is_dense(rows, dtype)).collect();
        Trial { info: &self.info, linear: self, dtype, rows }
    }

    fn is_dense(&self, rows: usize, dtype: DType) -> bool {
        writes_dense(self.dense_from, &self.tensors.bias, rows, dtype)
    }

    fn shape(&self) -> [usize; 2] {
        [self.tensors.arrangement.in_features, self.tensors.arrangement.out_features]
    }

    /// The product of this layer as panels are planned for it.
    pub(crate) fn job(&self, m: usize) -> Job {
        let [k, n] = self.shape();
        let info = self.shared.gpu.info();
        Job {
            m,
            k,
            n,
            // f16 for bf16 as well: both have two bytes.
            dtype: DType::F16,
            multiprocessors: info.multiprocessors as usize,
            most_panel_bytes: self.shared.most_panel_bytes,
            column_units: &COLUMN_UNITS,
        }
    }

    /// Scratch with which every call runs in as few launches as it may.
    pub(crate) fn scratch_bytes(&self) -> usize {
        let fused = self.products.iter().map(|product| {
            let rows = product.rows;
            self.gathered_bytes(rows) + self.divided_bytes(product, rows)
        });
        let dense = self.shared.x_dtypes.iter().any(|&dtype| self.is_dense(usize::MAX, dtype));
        fused.max().unwrap_or(0).max(if dense { self.job(1).scratch_bytes() } else { 0 })
    }

    /// x in the order of the arrangement, all of it aligned.
    fn gathered_bytes(&self, rows: usize) -> usize {
        (rows * self.shape()[0] * 2).next_multiple_of(ALIGNMENT)
    }

    /// Scratch of a product of which several blocks have parts of the same sums: counters and those parts.
    fn divided_bytes(&self, product: &Product, rows: usize) -> usize {
        match product.counters() {
            0 => 0,
            _ => ARRIVED_BYTES + product.partial_bytes(rows).next_multiple_of(ALIGNMENT),
        }
    }

    fn run(&self, call: &Call<'_>) -> Result<()> {
        let dtype = call.kernels.dtype();
        let panel = match self.is_dense(call.rows, dtype) {
            true => self.job(call.rows.min(MOST_DENSE_ROWS)).panel(call.room.for_panel()),
            false => None,
        };
        if let Some(panel) = panel {
            let bias = self.tensors.bias.in_dtype(dtype);
            return pieces(call.rows, MOST_DENSE_ROWS).try_for_each(|(first, rows)| {
                self.dense(&call.of_rows(first, rows, self.shape()), panel.columns, bias)
            });
        }
        let needs_gathering = self.tensors.order != 0 || !call.x.is_multiple_of(X_ALIGNMENT);
        let mut first = 0;
        while first < call.rows {
            let (product, rows) = self.product(call, call.rows - first, needs_gathering)?;
            self.fused(call, first, rows, &product, needs_gathering)?;
            first += rows;
        }
        Ok(())
    }

    /// The launch for as many rows as there are, or as there is room for.
    fn product(&self, call: &Call<'_>, rows: usize, gathers: bool) -> Result<(Product, usize)> {
        let room = call.room.total();
        let gathered = |rows: usize| if gathers { self.gathered_bytes(rows) } else { 0 };
        let best = self.first_of.get(rows.min(MOST_ROWS)).copied().unwrap_or_default();
        let candidates = self.products.get(..=best).unwrap_or_default();
        for product in candidates.iter().rev() {
            let rows = rows.min(product.rows).min(MOST_ROWS);
            if gathered(rows) + self.divided_bytes(product, rows) <= room {
                return Ok((*product, rows));
            }
            if gathered(rows) <= room {
                return Ok((product.undivided(), rows));
            }
        }
        match candidates.first() {
            Some(product) if gathered(1) <= room => Ok((product.undivided(), 1)),
            _ => Err(Error::ScratchTooSmall {
                layer: self.info.name.to_string(),
                found: room,
                needed: gathered(1),
            }),
        }
    }

    /// From the arranged weights.
    fn fused(
        &self,
        call: &Call<'_>,
        first: usize,
        rows: usize,
        product: &Product,
        gathers: bool,
    ) -> Result<()> {
        let [k, n] = self.shape();
        let (mut x, out) = (call.x + (first * k * 2) as u64, call.out + (first * n * 2) as u64);
        let divided = self.divided_bytes(product, rows);
        if gathers {
            let to = call.scratch + divided as u64;
            // SAFETY: `forward` has checked x, and `product` that the scratch holds the rows behind the partial sums.
            unsafe { call.kernels.gather(call.stream, &self.tensors, x, to, rows) }?;
            x = to;
        }
        let is_tile = matches!(product.kind, Kind::Tile { .. });
        let is_few = matches!(product.kind, Kind::Few { .. });
        let operands = Operands {
            x,
            out,
            rows,
            arrived: call.scratch,
            partial: call.scratch + ARRIVED_BYTES as u64,
            overlapping: gathers || is_few || (is_tile && rows <= MOST_OVERLAPPING_ROWS),
            overlapping_shared_bytes: product.overlapping_shared_bytes(self.gpu_shape),
            weights_first: product.reads_weights_first(self.gpu_shape),
        };
        // SAFETY: `forward` has checked x and out, and `product` that the scratch holds what a divided K needs.
        unsafe { call.kernels.multiply(call.stream, &self.tensors, product, self.variant, &operands) }
    }

    /// A panel of the dense matrix at a time, each with its product.
    fn dense(&self, call: &Call<'_>, panel_columns: usize, bias: Option<Bias>) -> Result<()> {
        let [k, n] = self.shape();
        let panel_bytes = (k * panel_columns * 2).next_multiple_of(ALIGNMENT);
        for (first_column, columns) in pieces(n, panel_columns) {
            let panel = Panel { out: call.scratch, first_column, columns };
            // SAFETY: the scratch has room for a panel of so many columns, as `panel_columns` was chosen.
            unsafe { call.kernels.dequantize(call.stream, &self.tensors, &panel) }?;
            let shape = MatmulShape::dense(call.kernels.dtype(), call.rows, columns, k)
                .with_w_stride(columns)
                .with_out_stride(n);
            let operands = MatmulOperands {
                x: call.x,
                w: panel.out,
                out: call.out + (first_column * 2) as u64,
                bias: bias.map(|bias| bias.at_column(first_column).address),
            };
            let workspace = Workspace {
                address: call.scratch + panel_bytes as u64,
                bytes: call.room.workspace_after(panel_bytes),
            };
            // SAFETY: `forward` has checked x and out, and the panel's columns are within out; the panel was written before
            // on the stream; the workspace is what is left of the scratch behind it.
            unsafe { self.shared.matmul.run(call.stream, &shape, &operands, workspace) }?;
        }
        Ok(())
    }
}

impl Linear for TileLinear {
    fn forward(&self, x: &TensorRef<'_>, out: &mut TensorMut<'_>, context: &mut Context) -> Result<()> {
        let device = Device::Cuda(self.shared.gpu.info().ordinal);
        // What the addresses below may be used for rests on this.
        check_forward(&self.info, &device, self.shared.x_dtypes, x, out, context)?;
        let [rows, _] = x.shape();
        let kernels = self.kernels.iter().find(|kernels| kernels.dtype() == x.dtype());
        let kernels = kernels.ok_or_else(|| no_kernels(&self.info, x.dtype()))?;
        let (stream, scratch) = stream_and_scratch(&self.info, &device, context)?;
        self.run(&Call {
            x: address(x)?,
            out: address_mut(out)?,
            rows,
            kernels,
            stream,
            scratch: scratch.address(),
            room: Room::new(scratch.len_bytes()),
        })
    }

    fn resident_bytes(&self) -> usize {
        self.resident_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dense_matrix_is_written_from_a_number_of_rows_on_where_its_products_show_the_bias() {
        let bias = |dtypes: &[DType]| -> Biases {
            dtypes.iter().map(|&dtype| Bias { address: 256, dtype }).collect()
        };
        let (none, both, f32_alone) = (bias(&[]), bias(&[DType::F16, DType::BF16]), bias(&[DType::F32]));
        let f16_alone = bias(&[DType::F32, DType::F16]);
        for (from, bias, rows, dtype, dense, why) in [
            (Some(449), &none, 448, DType::F16, false, "too few rows"),
            (Some(449), &none, 449, DType::F16, true, "enough"),
            (None, &none, usize::MAX, DType::F16, false, "never, and no scratch for it"),
            (Some(1), &both, 1, DType::BF16, true, "a bias that both hold"),
            (Some(1), &f32_alone, usize::MAX, DType::F16, false, "a bias that only f32 holds"),
            (Some(1), &f16_alone, usize::MAX, DType::BF16, false, "a bias that bf16 does not hold"),
            (Some(1), &f16_alone, usize::MAX, DType::F16, true, "and f16 does"),
        ] {
            assert_eq!(writes_dense(from, bias, rows, dtype), dense, "{rows} rows from {from:?}: {why}");
        }
    }
}
