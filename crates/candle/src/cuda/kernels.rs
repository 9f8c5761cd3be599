//! The kernels of kernels/decoder, each with the launch that it counts on. `params.h` says what each of them takes.
#![expect(unsafe_code, reason = "promises what parameters the kernels take")]

use std::ffi::c_void;
use std::fmt;
use std::ptr;

use gptq_core::Result;
use gptq_core::tensor::DType;
use gptq_cuda::arguments::{blocks, count, pointer};
use gptq_cuda::{CudaStream, Gpu, Kernel, KernelImage, Kernels, Launch, Params};

use super::params::{
    GPTQ_DECODER_DENSE_ROWS, GPTQ_DECODER_THREADS, GPTQ_DECODER_TURN_THREADS, GptqDecoderAttendParams,
    GptqDecoderDenseParams, GptqDecoderEmbedParams, GptqDecoderGateParams, GptqDecoderNormParams,
    GptqDecoderTurnParams,
};
use super::sizes::{Heads, PIECE_BYTES};

// SAFETY: made by `cargo xtask codegen` of the params.h of the family; `gptq_decoder_embed` takes it.
unsafe impl Params for GptqDecoderEmbedParams {}
// SAFETY: as above; `gptq_decoder_norm_*` take it.
unsafe impl Params for GptqDecoderNormParams {}
// SAFETY: as above; `gptq_decoder_turn_*` take it.
unsafe impl Params for GptqDecoderTurnParams {}
// SAFETY: as above; `gptq_decoder_attend_*` take it.
unsafe impl Params for GptqDecoderAttendParams {}
// SAFETY: as above; `gptq_decoder_gate_*` take it.
unsafe impl Params for GptqDecoderGateParams {}
// SAFETY: as above; `gptq_decoder_dense_*` take it.
unsafe impl Params for GptqDecoderDenseParams {}

/// The family's fatbin, where it was built before this crate.
const EMBEDDED: Option<&[u8]> = include!(concat!(env!("OUT_DIR"), "/decoder.rs"));
/// What cells of arrivals hold between launches: no number that anything else would leave in memory.
const ARRIVAL_MARK: u64 = 0x6770_7471_6465_6300;

/// All kernels for activations of one type, looked up.
pub(crate) struct TokenKernels {
    dtype: DType,
    embed: Kernel<GptqDecoderEmbedParams>,
    norm: Kernel<GptqDecoderNormParams>,
    turn: Kernel<GptqDecoderTurnParams>,
    attend: Kernel<GptqDecoderAttendParams>,
    gate: Kernel<GptqDecoderGateParams>,
    dense: Kernel<GptqDecoderDenseParams>,
    overlaps: bool,
    multiprocessors: usize,
}

/// Addresses of what a layer turns and puts into the cache. 0 where there is no norm.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turned {
    pub(crate) qkv: [u64; 3],
    pub(crate) norms: [u64; 2],
    pub(crate) cosines: u64,
    pub(crate) sines: u64,
    pub(crate) position: u64,
    pub(crate) turned: u64,
    pub(crate) keys: u64,
    pub(crate) values: u64,
    pub(crate) eps: f32,
}

/// Addresses of attention's operands, and what it works in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attended {
    pub(crate) q: u64,
    pub(crate) keys: u64,
    pub(crate) values: u64,
    pub(crate) position: u64,
    pub(crate) out: u64,
    pub(crate) work: u64,
    pub(crate) window: Option<usize>,
}

/// A plain layer and its operands, by address. 0 where there is no bias.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dense {
    pub(crate) weight: u64,
    pub(crate) bias: u64,
    pub(crate) x: u64,
    pub(crate) out: u64,
    pub(crate) shape: [usize; 2],
    pub(crate) out_is_f32: bool,
}

impl TokenKernels {
    /// Loads them for activations of `dtype`.
    ///
    /// # Errors
    /// Why they do not run here: none were built, or none for this GPU.
    pub(crate) fn load(gpu: &Gpu, dtype: DType) -> std::result::Result<Self, String> {
        let image = KernelImage::find("decoder", EMBEDDED).map_err(|rejection| rejection.to_string())?;
        let kernels = Kernels::load(gpu, &image).map_err(|rejection| rejection.to_string())?;
        Self::look_up(gpu, &kernels, dtype).map_err(|error| error.to_string())
    }

    fn look_up(gpu: &Gpu, kernels: &Kernels, dtype: DType) -> Result<Self> {
        let named = |name: &str| format!("gptq_decoder_{name}_{dtype}");
        Ok(Self {
            dtype,
            embed: kernels.kernel("gptq_decoder_embed")?,
            norm: kernels.kernel(&named("norm"))?,
            turn: kernels.kernel(&named("turn"))?,
            attend: kernels.kernel(&named("attend"))?,
            gate: kernels.kernel(&named("gate"))?,
            dense: kernels.kernel(&named("dense"))?,
            overlaps: kernels.target().overlaps(),
            multiprocessors: gpu.info().multiprocessors as usize,
        })
    }

    /// The type of activations.
    pub(crate) fn dtype(&self) -> DType {
        self.dtype
    }

    /// Bytes that attention works in: cells of arrivals, then parts of heads.
    pub(crate) fn work_bytes(&self, heads: Heads) -> usize {
        heads.work_bytes(self.multiprocessors)
    }

    /// A launch that may begin before the kernel before it has ended, where the GPU can.
    fn launch(&self, grid: u32, grid_y: u32, threads: u32) -> Launch {
        let launch = Launch::new([grid, grid_y, 1], [threads, 1, 1]);
        if self.overlaps { launch.overlapping_previous() } else { launch }
    }

    /// Queues a row of the embeddings, `[rows, width]` at `table`, into x.
    ///
    /// # Safety
    /// Addresses are of the GPU of `stream`, of as many elements of [`dtype`](Self::dtype), aligned to 16 bytes, `token` of
    /// one u32; a row is whole pieces. Nothing else uses them but in the order of `stream`.
    pub(crate) unsafe fn embed(
        &self,
        stream: &CudaStream,
        table: u64,
        [rows, width]: [usize; 2],
        token: u64,
        x: u64,
    ) -> Result<()> {
        let pieces = self.pieces(width);
        let params = GptqDecoderEmbedParams {
            table: pointer(table),
            token: pointer(token),
            x: pointer::<c_void>(x).cast_mut(),
            pieces: count(pieces),
            rows: count(rows),
        };
        let launch = self.launch(blocks(pieces, GPTQ_DECODER_THREADS as usize), 1, GPTQ_DECODER_THREADS);
        // SAFETY: the caller promises the operands; the grid is that of params.h, and the kernel waits before it reads.
        unsafe { self.embed.launch(stream, &launch, &params) }
    }

    /// Queues `x += delta` (where it is not 0) and `out = norm(x)`, of one row.
    ///
    /// # Safety
    /// As [`embed`](Self::embed): x, delta, weight and out `[width]`.
    pub(crate) unsafe fn norm(
        &self,
        stream: &CudaStream,
        [x, delta, weight, out]: [u64; 4],
        width: usize,
        eps: f32,
    ) -> Result<()> {
        let params = GptqDecoderNormParams {
            x: pointer::<c_void>(x).cast_mut(),
            delta: optional(delta),
            weight: pointer(weight),
            out: pointer::<c_void>(out).cast_mut(),
            width: count(width),
            eps,
        };
        // SAFETY: as in `embed`.
        unsafe { self.norm.launch(stream, &self.launch(1, 1, GPTQ_DECODER_THREADS), &params) }
    }

    /// Queues positions, and the way into the cache.
    ///
    /// # Safety
    /// As [`embed`](Self::embed), with the sizes of params.h.
    pub(crate) unsafe fn turn(&self, stream: &CudaStream, heads: Heads, of: &Turned) -> Result<()> {
        let [q, k, v] = of.qkv;
        let params = GptqDecoderTurnParams {
            q: pointer(q),
            k: pointer(k),
            v: pointer(v),
            q_norm: optional(of.norms[0]),
            k_norm: optional(of.norms[1]),
            cosines: pointer(of.cosines),
            sines: pointer(of.sines),
            position: pointer(of.position),
            turned: pointer::<c_void>(of.turned).cast_mut(),
            keys: pointer::<c_void>(of.keys).cast_mut(),
            values: pointer::<c_void>(of.values).cast_mut(),
            heads: count(heads.heads),
            groups: count(heads.groups),
            width: count(heads.width),
            capacity: count(heads.capacity),
            eps: of.eps,
            reserved: 0,
        };
        let launch = self.launch(count(heads.heads + 2 * heads.groups), 1, GPTQ_DECODER_TURN_THREADS);
        // SAFETY: as in `embed`.
        unsafe { self.turn.launch(stream, &launch, &params) }
    }

    /// Queues attention to the keys up to the token's position.
    ///
    /// # Safety
    /// As [`embed`](Self::embed), with the sizes of params.h; `work` has [`work_bytes`](Self::work_bytes).
    pub(crate) unsafe fn attend(&self, stream: &CudaStream, heads: Heads, of: &Attended) -> Result<()> {
        let splits = heads.splits(self.multiprocessors);
        let params = GptqDecoderAttendParams {
            q: pointer(of.q),
            keys: pointer(of.keys),
            values: pointer(of.values),
            position: pointer(of.position),
            out: pointer::<c_void>(of.out).cast_mut(),
            partial: pointer::<f32>(of.work + heads.cells_bytes() as u64).cast_mut(),
            arrived: pointer::<u64>(of.work).cast_mut(),
            arrival_mark: ARRIVAL_MARK,
            heads: count(heads.heads),
            groups: count(heads.groups),
            width: count(heads.width),
            capacity: count(heads.capacity),
            window: of.window.map_or(0, count),
            splits: count(splits),
            scale: 1.0 / (heads.width as f32).sqrt(),
            reserved: 0,
        };
        let launch = self.launch(count(heads.heads), count(splits), GPTQ_DECODER_THREADS);
        // SAFETY: as in `embed`.
        unsafe { self.attend.launch(stream, &launch, &params) }
    }

    /// Queues `out = silu(gate) · up`.
    ///
    /// # Safety
    /// As [`embed`](Self::embed): three vectors of `width`.
    pub(crate) unsafe fn gate(
        &self,
        stream: &CudaStream,
        [gate, up, out]: [u64; 3],
        width: usize,
    ) -> Result<()> {
        let pieces = self.pieces(width);
        let params = GptqDecoderGateParams {
            gate: pointer(gate),
            up: pointer(up),
            out: pointer::<c_void>(out).cast_mut(),
            pieces: count(pieces),
            reserved: 0,
        };
        let launch = self.launch(blocks(pieces, GPTQ_DECODER_THREADS as usize), 1, GPTQ_DECODER_THREADS);
        // SAFETY: as in `embed`.
        unsafe { self.gate.launch(stream, &launch, &params) }
    }

    /// Queues a plain layer.
    ///
    /// # Safety
    /// As [`embed`](Self::embed): weight `[N, K]`, bias and out `[N]`, x `[K]`, where shape is `[N, K]`.
    pub(crate) unsafe fn dense(&self, stream: &CudaStream, of: &Dense) -> Result<()> {
        let [n, k] = of.shape;
        let params = GptqDecoderDenseParams {
            weight: pointer(of.weight),
            bias: optional(of.bias),
            x: pointer(of.x),
            out: pointer::<c_void>(of.out).cast_mut(),
            in_features: count(k),
            out_features: count(n),
            out_is_f32: u32::from(of.out_is_f32),
            reserved: 0,
        };
        let launch = self.launch(blocks(n, GPTQ_DECODER_DENSE_ROWS as usize), 1, GPTQ_DECODER_THREADS);
        // SAFETY: as in `embed`.
        unsafe { self.dense.launch(stream, &launch, &params) }
    }

    fn pieces(&self, width: usize) -> usize {
        width * self.dtype.size_bytes() / PIECE_BYTES
    }
}

impl fmt::Debug for TokenKernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernels of a token in {}", self.dtype)
    }
}

fn optional(address: u64) -> *const c_void {
    if address == 0 { ptr::null() } else { pointer(address) }
}
