//! Modules whose weights are not quantized: embeddings, heads, layers that a rule left in floating point.

use std::fmt;

use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Module, Shape, Tensor, bail};
use gptq_core::tensor::{Element, Floats};
use rayon::prelude::*;

use crate::cpu::dense::{X_ROWS, multiply_rows};
use crate::cpu::isa::Stored;
use crate::error::{Error, Result};
use crate::ops::{contiguous, narrow, widen};

/// Rows of weights in one piece of work.
const PIECE_ROWS: usize = 512;
/// The most rows of x for which weights are read as they are stored. For more, a strip of them is widened and
/// multiplied as a matrix.
const STREAM_ROWS: usize = 2 * X_ROWS;
/// Rows of weights that are widened at a time.
const STRIP_ROWS: usize = 2048;

/// A plain matrix `[N, K]`.
///
/// On the CPU it stays in the file that is mapped, in the type in which it is stored; on a device it is a tensor in
/// the type of the activations. Cloning copies no weights.
#[derive(Clone)]
pub struct Matrix {
    place: Place,
    shape: [usize; 2],
}

#[derive(Clone)]
enum Place {
    Stored(Floats),
    Loaded(Tensor),
}

/// Calls a closure-like macro body with the elements, whatever their type.
macro_rules! with_elements {
    ($floats:expr, $elements:ident => $body:expr) => {
        match $floats {
            Floats::F32($elements) => $body,
            Floats::F16($elements) => $body,
            Floats::BF16($elements) => $body,
        }
    };
}

impl Matrix {
    /// A matrix that stays where it is stored.
    pub(crate) fn stored(floats: Floats, shape: [usize; 2]) -> Self {
        Self { place: Place::Stored(floats), shape }
    }

    /// A matrix that was loaded to a device.
    pub(crate) fn loaded(tensor: Tensor, shape: [usize; 2]) -> Self {
        Self { place: Place::Loaded(tensor), shape }
    }

    /// `[N, K]`.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Bytes that one pass over it reads.
    pub fn bytes(&self) -> usize {
        match &self.place {
            Place::Stored(floats) => floats.as_bytes().len(),
            Place::Loaded(tensor) => tensor.elem_count() * tensor.dtype().size_in_bytes(),
        }
    }

    /// Rows by number, `[rows.len(), K]`, as `dtype`.
    ///
    /// # Errors
    /// [`Error::NoSuchToken`] for a row that it does not have.
    pub fn rows(&self, rows: &[u32], dtype: DType, device: &Device) -> Result<Tensor> {
        self.check(rows)?;
        let [_, k] = self.shape;
        match &self.place {
            Place::Stored(floats) => {
                let mut values = vec![0.0f32; rows.len() * k];
                for (values, row) in values.chunks_mut(k.max(1)).zip(rows) {
                    let first = *row as usize * k;
                    floats.read(first..first + k, values);
                }
                Ok(Tensor::from_vec(values, (rows.len(), k), device)?.to_dtype(dtype)?)
            }
            Place::Loaded(tensor) => {
                Ok(tensor.index_select(&Tensor::new(rows, device)?, 0)?.to_dtype(dtype)?)
            }
        }
    }

    /// That it has these rows.
    pub(crate) fn check(&self, rows: &[u32]) -> Result<()> {
        let [n, _] = self.shape;
        match rows.iter().find(|row| **row as usize >= n) {
            Some(&token) => Err(Error::NoSuchToken { token, vocab_size: n }),
            None => Ok(()),
        }
    }

    /// The tensor, where it was loaded to a device.
    #[cfg(feature = "cuda")]
    pub(crate) fn tensor(&self) -> Option<&Tensor> {
        match &self.place {
            Place::Stored(_) => None,
            Place::Loaded(tensor) => Some(tensor),
        }
    }

    /// `x [.., K] · Wᵀ`, of x's type.
    fn multiply(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let [n, k] = self.shape;
        let rows = x.elem_count() / k.max(1);
        match &self.place {
            Place::Stored(_) if rows <= STREAM_ROWS => x.contiguous()?.apply_op1_no_bwd(self),
            Place::Stored(floats) => {
                let mut dims = x.dims().to_vec();
                let wide = x.reshape((rows, k))?.to_dtype(DType::F32)?;
                let strips = (0..n).step_by(STRIP_ROWS).map(|first| {
                    let rows = STRIP_ROWS.min(n - first);
                    let strip =
                        Tensor::from_vec(widen_rows(floats, first * k, rows * k), (rows, k), x.device())?;
                    wide.matmul(&strip.t()?)
                });
                let strips = strips.collect::<candle_core::Result<Vec<_>>>()?;
                if let Some(last) = dims.last_mut() {
                    *last = n;
                }
                Tensor::cat(&strips, 1)?.reshape(dims)?.to_dtype(x.dtype())
            }
            Place::Loaded(tensor) => x.broadcast_matmul(&tensor.t()?),
        }
    }

    fn on_host<T: Element + candle_core::WithDType>(
        &self,
        x: &[T],
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let [n, k] = self.shape;
        let Place::Stored(floats) = &self.place else {
            bail!("the matrix is on a device, and x on the host")
        };
        let mut dims = layout.dims().to_vec();
        match dims.last_mut() {
            Some(last) if *last == k => *last = n,
            _ => bail!("x has shape {dims:?}, expected [.., {k}]"),
        }
        let x = widen(contiguous(x, layout)?);
        let mut y = Vec::with_capacity(x.len() / k.max(1) * n);
        for x in x.chunks(X_ROWS * k) {
            y.append(&mut with_elements!(floats, w => stream(w, x, k)));
        }
        Ok((T::to_cpu_storage_owned(narrow::<T>(y)), Shape::from(dims)))
    }
}

/// `x [M, K] · wᵀ` for few rows of x: all threads read pieces of `w`.
fn stream<T: Stored>(w: &[T], x: &[f32], k: usize) -> Vec<f32> {
    let (m, n) = (x.len() / k, w.len() / k);
    // Each piece of the weights has a piece of the output to itself, with all rows of x in it.
    let mut pieces = vec![0.0; m * n];
    let work = pieces.par_chunks_mut(m * PIECE_ROWS).zip(w.par_chunks(PIECE_ROWS * k));
    work.for_each(|(out, w)| multiply_rows(w, x, k, out, w.len() / k));
    if m == 1 {
        return pieces;
    }
    let mut y = Vec::with_capacity(m * n);
    for row in 0..m {
        for piece in pieces.chunks(m * PIECE_ROWS) {
            let columns = piece.len() / m;
            y.extend_from_slice(&piece[row * columns..][..columns]);
        }
    }
    y
}

/// `count` elements from `first` on, in f32.
fn widen_rows(floats: &Floats, first: usize, count: usize) -> Vec<f32> {
    let mut values = vec![0.0; count];
    values.par_chunks_mut(1 << 14).enumerate().for_each(|(chunk, values)| {
        let first = first + (chunk << 14);
        floats.read(first..first + values.len(), values);
    });
    values
}

impl CustomOp1 for Matrix {
    fn name(&self) -> &'static str {
        "stored-linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        match x {
            CpuStorage::F32(x) => self.on_host(x, layout),
            CpuStorage::F16(x) => self.on_host(x, layout),
            CpuStorage::BF16(x) => self.on_host(x, layout),
            _ => bail!("x has a dtype other than f32, f16 and bf16"),
        }
    }
}

impl fmt::Debug for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [n, k] = self.shape;
        write!(f, "Matrix [{n}, {k}] of {} bytes", self.bytes())
    }
}

/// A layer left in floating point: `y = x · Wᵀ (+ bias)`.
#[derive(Clone, Debug)]
pub struct DenseLinear {
    weight: Matrix,
    bias: Option<Tensor>,
}

impl DenseLinear {
    /// A layer of a matrix `[N, K]` and a bias `[N]` of the activations' type.
    pub fn new(weight: Matrix, bias: Option<Tensor>) -> Self {
        Self { weight, bias }
    }

    /// Its bias.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// Its matrix.
    pub fn weight(&self) -> &Matrix {
        &self.weight
    }
}

impl Module for DenseLinear {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let y = self.weight.multiply(x)?;
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }
}
