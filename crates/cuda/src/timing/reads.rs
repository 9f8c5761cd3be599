//! A pass that reads, and nothing else: what a kernel that reads as many bytes is compared with.

use std::fmt;
use std::ptr;
use std::sync::Arc;

use gptq_core::Result;
use gptq_core::device::{DeviceBuffer as _, Memory as _};

use super::params::{GPTQ_LIMITS_THREADS, GptqLimitsReadParams};
use super::{Operands, Replay, Timing};
use crate::buffer::CudaBuffer;
use crate::kernel::{Kernel, Launch, Params};
use crate::stream::CudaStream;

// SAFETY: made by `cargo xtask codegen` of the params.h of the family, whose kernel takes it.
unsafe impl Params for GptqLimitsReadParams {}

/// A thread reads pieces of 16 bytes.
const PIECE_BYTES: usize = 16;
/// What is tried: threads of a block, as parts of the most, and blocks on a multiprocessor.
const SHAPES: [[u32; 2]; 12] =
    [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [2, 4], [2, 6], [2, 8], [4, 4], [4, 8], [4, 16]];
/// Replays of each of them, of which the best counts.
const TRIES: usize = 3;

/// Copies of bytes in a GPU's memory, to be read.
pub struct Reads {
    kernel: Arc<Kernel<GptqLimitsReadParams>>,
    /// The copies, and room for a word behind them.
    memory: CudaBuffer,
    /// Of one copy: a multiple of 16.
    bytes: usize,
    copies: usize,
}

impl Timing {
    /// `copies` copies of `parts`, which lie one after the other.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](gptq_core::Error::OutOfMemory), [`Error::Device`](gptq_core::Error::Device).
    pub fn reads(&self, parts: &[&[u8]], copies: usize) -> Result<Reads> {
        let bytes = parts.iter().map(|part| part.len()).sum::<usize>() / PIECE_BYTES * PIECE_BYTES;
        let copies = copies.max(1);
        let mut memory =
            self.gpu.allocate_buffer(bytes.saturating_mul(copies).saturating_add(PIECE_BYTES))?;
        for copy in 0..copies {
            let mut at = copy * bytes;
            for part in parts {
                // What is left over after the last whole piece is not read.
                let part = part.get(..part.len().min((copy + 1) * bytes - at)).unwrap_or(part);
                self.gpu.upload(part, &mut memory, at)?;
                at += part.len();
            }
        }
        Ok(Reads { kernel: Arc::clone(&self.read), memory, bytes, copies })
    }
}

impl Reads {
    /// Bytes that one pass reads.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Replay {
    /// Passes over the copies in turn, by the shape of blocks and grid that is fastest.
    ///
    /// # Errors
    /// [`Error::Device`](gptq_core::Error::Device).
    pub fn of_reads(reads: &Arc<Reads>, operands: &Operands, calls: usize) -> Result<Self> {
        let mut best: Option<(f64, Self)> = None;
        for shape in SHAPES {
            let mut replay = Self::of_shape(reads, operands, shape, calls)?;
            let mut seconds = f64::INFINITY;
            for _ in 0..TRIES {
                seconds = seconds.min(replay.seconds()?);
            }
            if best.as_ref().is_none_or(|(least, _)| seconds < *least) {
                best = Some((seconds, replay));
            }
        }
        match best {
            Some((_, replay)) => Ok(replay),
            None => Self::of_shape(reads, operands, [1, 1], calls),
        }
    }

    fn of_shape(
        reads: &Arc<Reads>,
        operands: &Operands,
        [part, blocks]: [u32; 2],
        calls: usize,
    ) -> Result<Self> {
        let gpu = reads.memory.gpu();
        let grid =
            Launch::new([gpu.info().multiprocessors * blocks, 1, 1], [GPTQ_LIMITS_THREADS / part, 1, 1]);
        let replay = Self::record(gpu, CudaStream::new(gpu)?, 0, calls, operands, |number, context, _| {
            let Some((stream, _)) = context.on_device() else { return Ok(()) };
            #[expect(clippy::cast_possible_truncation, reason = "CUDA is for hosts of 64 bits")]
            let address = |offset: usize| reads.memory.address() as usize + offset;
            let params = GptqLimitsReadParams {
                from: ptr::without_provenance(address(number % reads.copies * reads.bytes)),
                count: (reads.bytes / PIECE_BYTES) as u64,
                sink: ptr::without_provenance_mut(address(reads.copies * reads.bytes)),
            };
            // SAFETY: the copy, and the word behind all copies, lie in the memory, which is kept as long as the graph.
            unsafe { reads.kernel.launch(CudaStream::of(stream)?, &grid, &params) }
        })?;
        Ok(Self { _uses: Box::new(Arc::clone(reads)), ..replay })
    }
}

impl fmt::Debug for Reads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} bytes in {} bytes", self.copies, self.bytes, self.memory.len_bytes())
    }
}
