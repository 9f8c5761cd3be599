//! `forward`: pieces that fit `temp_state`, and which path each takes.
#![expect(unsafe_code, reason = "launches kernels and products on addresses")]

use std::sync::Arc;

use gptq_core::backend::Linear;
use gptq_core::device::{Context, Device, DeviceBuffer as _};
use gptq_core::post_init::check_forward;
use gptq_core::tensor::{DType, TensorMut, TensorRef};
use gptq_core::{Error, LayerInfo, Result};
use gptq_cuda::arguments::stream_and_scratch;
use gptq_cuda::panels::pieces;
use gptq_cuda::{
    CudaBuffer, CudaStream, Gpu, Matmul, MatmulOperands, MatmulShape, Trial, Workspace, address, address_mut,
};

use crate::F16;
use crate::choice::measured_threshold;
use crate::kernels::{KernelSet, MOST_DOT_ROWS, Operands};
use crate::layout::Tensors;
use crate::scratch::{dense_room, divide, panel_bytes, panel_columns, state_bytes};

/// Rows of x in one product: more are as fast in pieces, and grids stay far from what they may have.
const MOST_ROWS: usize = 1 << 14;
/// Rows of W of a part of K where the product without tensor cores takes two.
const SPLIT_ROWS: usize = 2048;

/// What the options say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Settings {
    /// Rows of x from which the dense matrix is rebuilt, 0 for never; `None`: as measured.
    pub(crate) threshold: Option<usize>,
    /// Bytes of `temp_dq` at most.
    pub(crate) temp_dq_bytes: Option<usize>,
}

/// What the layers of a model share.
pub(crate) struct Shared {
    pub(crate) gpu: Gpu,
    pub(crate) kernels: KernelSet,
    pub(crate) matmul: Matmul,
    pub(crate) settings: Settings,
    /// What a product of any layer works in, beside `temp_state`.
    pub(crate) work_bytes: usize,
    /// Holds the tensors of all layers: addresses in [`Tensors`] are of this.
    pub(crate) _memory: CudaBuffer,
}

/// A layer on a GPU.
pub(crate) struct CudaLinear {
    pub(crate) info: LayerInfo,
    pub(crate) tensors: Tensors,
    pub(crate) shared: Arc<Shared>,
    pub(crate) resident_bytes: usize,
}

/// A call, or a piece of it, on a stream, with what it may work in.
#[derive(Clone, Copy)]
struct Call<'a> {
    stream: &'a CudaStream,
    operands: Operands,
    work_bytes: usize,
}

impl Call<'_> {
    /// The same for some of its rows.
    fn of_rows(&self, first: usize, rows: usize, [k, n]: [usize; 2]) -> Self {
        let operands = Operands {
            x: self.operands.x + (first * k * 2) as u64,
            out: self.operands.out + (first * n * 2) as u64,
            rows,
            ..self.operands
        };
        Self { operands, ..*self }
    }
}

/// Whether a call of so many rows rebuilds the dense matrix.
pub(crate) fn rebuilds(settings: Settings, layer: &Tensors, rows: usize) -> bool {
    // A bias that f16 does not hold is added in f32, which only the fused kernels do.
    let exact = layer.bias.stored().is_none() || layer.bias.in_dtype(DType::F16).is_some();
    let threshold = settings.threshold.unwrap_or_else(|| measured_threshold(layer.shape()));
    exact && threshold > 0 && rows >= threshold
}

/// The bytes in which products of a layer work best, `temp_dq` among them.
pub(crate) fn work_bytes(kernels: &KernelSet, settings: Settings, layer: &Tensors) -> usize {
    let fused = [8, 16, 32, 64, 128].into_iter().filter(|&rows| !rebuilds(settings, layer, rows));
    let fused = fused.map(|rows| match kernels.product(layer, rows) {
        Some(ready) => {
            let grid = ready.product.grid(ready.slots, rows, layer.shape());
            ready.product.room(&grid).iter().sum()
        }
        None => splits(layer) * MOST_DOT_ROWS * layer.out_features * size_of::<f32>(),
    });
    let dense = if rebuilds(settings, layer, usize::MAX) {
        temp_dq_bytes(settings, layer) + Matmul::WORKSPACE_BYTES
    } else {
        0
    };
    fused.max().unwrap_or(0).max(dense)
}

/// `temp_dq` of a layer: the whole matrix, or panels that fit what the options allow.
pub(crate) fn temp_dq_bytes(settings: Settings, layer: &Tensors) -> usize {
    let most = settings.temp_dq_bytes.unwrap_or(usize::MAX);
    let columns = panel_columns(most, layer.shape());
    columns.map_or(0, |columns| panel_bytes(columns, layer.in_features))
}

/// Parts of K that the product without tensor cores takes.
fn splits(layer: &Tensors) -> usize {
    if layer.in_features >= 2 * SPLIT_ROWS { 2 } else { 1 }
}

/// Rows of x for which the dense path is tried once when a model is made ready.
const TRIED_ROWS: [usize; 2] = [256, 512];

impl CudaLinear {
    /// How its first calls are made.
    pub(crate) fn trial(&self) -> Trial<'_> {
        let rows = TRIED_ROWS.into_iter().filter(|&rows| rebuilds(self.shared.settings, &self.tensors, rows));
        Trial { info: &self.info, linear: self, dtype: DType::F16, rows: rows.collect() }
    }

    /// Gathers x where that is needed, as many rows at a time as `temp_state` holds.
    fn run(&self, call: Call<'_>) -> Result<()> {
        let shape @ [k, _] = self.tensors.shape();
        let needs_state = self.tensors.sorted_rows.is_some() || !call.operands.x.is_multiple_of(16);
        if !needs_state {
            return pieces(call.operands.rows, MOST_ROWS)
                .try_for_each(|(first, rows)| self.multiply(call.of_rows(first, rows, shape)));
        }
        let division = divide(call.work_bytes, self.shared.work_bytes, k).map_err(|needed| {
            Error::ScratchTooSmall { layer: self.info.name.to_string(), found: call.work_bytes, needed }
        })?;
        let state = call.operands.work;
        for (first, rows) in pieces(call.operands.rows, division.rows.min(MOST_ROWS)) {
            let piece = call.of_rows(first, rows, shape);
            let work = state + division.work_at as u64;
            let operands = Operands { x: state, work, ..piece.operands };
            debug_assert!(state_bytes(rows, k).is_some_and(|bytes| bytes <= division.work_at), "pieces fit");
            // SAFETY: `forward` has checked x; `temp_state` has room for `division.rows` rows.
            unsafe { self.shared.kernels.gather(call.stream, &self.tensors, piece.operands.x, rows, state) }?;
            let work_bytes = call.work_bytes - division.work_at;
            self.multiply(Call { operands, work_bytes, ..piece })?;
        }
        Ok(())
    }

    fn multiply(&self, call: Call<'_>) -> Result<()> {
        let room = dense_room(call.work_bytes).min(self.shared.settings.temp_dq_bytes.unwrap_or(usize::MAX));
        match panel_columns(room, self.tensors.shape()) {
            Some(columns) if rebuilds(self.shared.settings, &self.tensors, call.operands.rows) => {
                self.dense(call, columns)
            }
            _ => self.fused(call),
        }
    }

    /// From the packed words.
    fn fused(&self, call: Call<'_>) -> Result<()> {
        let shape @ [_, n] = self.tensors.shape();
        let rows = call.operands.rows;
        let Some(ready) = self.shared.kernels.product(&self.tensors, rows) else {
            return pieces(rows, MOST_DOT_ROWS)
                .try_for_each(|(first, rows)| self.dot(call.of_rows(first, rows, shape)));
        };
        let best = ready.product.grid(ready.slots, rows, shape);
        let fits = ready.product.room(&best).iter().sum::<usize>() <= call.work_bytes;
        let grid = if fits { best } else { ready.product.whole_columns(rows, n) };
        // SAFETY: `forward` has checked x and out; x is aligned, or in `temp_state`; there is room for what meets.
        unsafe { self.shared.kernels.multiply(ready, call.stream, &self.tensors, &call.operands, &grid) }
    }

    fn dot(&self, call: Call<'_>) -> Result<()> {
        let sums = |splits: usize| splits * call.operands.rows * self.tensors.out_features * size_of::<f32>();
        let wanted = splits(&self.tensors);
        let splits = if sums(wanted) <= call.work_bytes { wanted } else { 1 };
        // SAFETY: as in `fused`.
        unsafe { self.shared.kernels.dot(call.stream, &self.tensors, &call.operands, splits) }
    }

    /// A panel of the dense matrix at a time, each with its product.
    fn dense(&self, call: Call<'_>, panel: usize) -> Result<()> {
        let [k, n] = self.tensors.shape();
        let Operands { x, out, rows, work } = call.operands;
        let used = panel_bytes(panel, k);
        let bias = self.tensors.bias.in_dtype(DType::F16);
        for (first_column, columns) in pieces(n, panel) {
            // SAFETY: the work has room for a panel: `multiply` has asked.
            unsafe {
                self.shared.kernels.reconstruct(call.stream, &self.tensors, first_column, columns, work)
            }?;
            let shape = MatmulShape::dense(DType::F16, rows, columns, k).with_out_stride(n);
            let operands = MatmulOperands {
                x,
                w: work,
                out: out + (first_column * 2) as u64,
                bias: bias.map(|bias| bias.at_column(first_column).address),
            };
            let workspace = Workspace {
                address: work + used as u64,
                bytes: call.work_bytes.saturating_sub(used).min(Matmul::WORKSPACE_BYTES),
            };
            // SAFETY: `forward` has checked x and out, and the panel's columns are within out; the panel was written before
            // on the stream; the workspace is what is left of the scratch behind it.
            unsafe { self.shared.matmul.run(call.stream, &shape, &operands, workspace) }?;
        }
        Ok(())
    }
}

impl Linear for CudaLinear {
    fn forward(&self, x: &TensorRef<'_>, out: &mut TensorMut<'_>, context: &mut Context) -> Result<()> {
        let device = Device::Cuda(self.shared.gpu.info().ordinal);
        // What the addresses below may be used for rests on this.
        check_forward(&self.info, &device, &F16, x, out, context)?;
        let [rows, _] = x.shape();
        let (stream, scratch) = stream_and_scratch(&self.info, &device, context)?;
        let operands = Operands { x: address(x)?, out: address_mut(out)?, rows, work: scratch.address() };
        self.run(Call { stream, operands, work_bytes: scratch.len_bytes() })
    }

    fn resident_bytes(&self) -> usize {
        self.resident_bytes
    }
}
