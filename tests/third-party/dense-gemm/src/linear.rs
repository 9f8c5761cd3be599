//! A dense layer, and its product.

use gptq_core::backend::Linear;
use gptq_core::device::Context;
use gptq_core::tensor::{TensorMut, TensorRef};
use gptq_core::{Error, QuantLinear, Result};

/// Rows of x in one piece.
const PIECE: usize = 64;

pub(crate) struct DenseLinear {
    name: String,
    k: usize,
    n: usize,
    /// `[K, N]`, row-major.
    weights: Vec<f32>,
    /// `[N]`; zeros where the layer has none.
    bias: Vec<f32>,
}

impl DenseLinear {
    pub(crate) fn new(layer: &QuantLinear) -> Self {
        let (k, n) = (layer.in_features(), layer.out_features());
        let mut bias = vec![0.0; n];
        if let Some(values) = layer.bias() {
            values.read(0..n, &mut bias);
        }
        Self { name: layer.name().to_owned(), k, n, weights: layer.dequantize(), bias }
    }

    pub(crate) fn scratch_bytes(&self) -> usize {
        PIECE * self.row_floats() * size_of::<f32>()
    }

    /// A row of x and a row of out, in f32.
    fn row_floats(&self) -> usize {
        self.k + self.n
    }

    /// `out [rows, N] = x [rows, K] · weights + out`.
    fn multiply_add(&self, x: &[f32], out: &mut [f32]) {
        let (k, n) = (self.k, self.n);
        let rows = out.len() / n;
        assert!(x.len() == rows * k && out.len() == rows * n && self.weights.len() == k * n);
        // A matrix in memory has less than isize::MAX bytes, so that its sides are strides.
        let (k_stride, n_stride) = (k.cast_signed(), n.cast_signed());
        // SAFETY: x is [rows, k], weights are [k, n] and out is [rows, n], each row-major and of that length: asserted
        // above. Nothing else can refer to out.
        unsafe {
            matrixmultiply::sgemm(
                rows,
                k,
                n,
                1.0,
                x.as_ptr(),
                k_stride,
                1,
                self.weights.as_ptr(),
                n_stride,
                1,
                1.0,
                out.as_mut_ptr(),
                n_stride,
                1,
            );
        }
    }
}

impl Linear for DenseLinear {
    fn forward(&self, x: &TensorRef<'_>, out: &mut TensorMut<'_>, context: &mut Context) -> Result<()> {
        let ([rows, k], n) = (x.shape(), self.n);
        let scratch = context.host_floats()?;
        let piece = (scratch.len() / self.row_floats()).min(PIECE);
        if piece == 0 {
            return Err(Error::ScratchTooSmall {
                layer: self.name.clone(),
                found: size_of_val(scratch),
                needed: self.row_floats() * size_of::<f32>(),
            });
        }
        let (wide, sums) = scratch.split_at_mut(piece * k);
        for first in (0..rows).step_by(piece) {
            let last = rows.min(first + piece);
            let (wide, sums) = (&mut wide[..(last - first) * k], &mut sums[..(last - first) * n]);
            x.read(first * k..last * k, wide)?;
            sums.chunks_exact_mut(n).for_each(|row| row.copy_from_slice(&self.bias));
            self.multiply_add(wide, sums);
            out.write(first * n..last * n, sums)?;
        }
        Ok(())
    }

    fn resident_bytes(&self) -> usize {
        size_of_val(&self.weights[..]) + size_of_val(&self.bias[..])
    }
}
