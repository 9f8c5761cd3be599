//! A layer that is ready, and its product.

use gptq_core::backend::Linear;
use gptq_core::device::Context;
use gptq_core::tensor::{TensorMut, TensorRef};
use gptq_core::{Error, QuantLinear, Result};

/// A layer, dequantized.
pub(crate) struct MyBackendLinear {
    name: String,
    k: usize,
    n: usize,
    /// `[K, N]`, row-major.
    weights: Vec<f32>,
    /// `[N]`; zeros where the layer has none.
    bias: Vec<f32>,
}

impl MyBackendLinear {
    pub(crate) fn new(layer: &QuantLinear) -> Self {
        let (k, n) = (layer.in_features(), layer.out_features());
        let mut bias = vec![0.0; n];
        if let Some(values) = layer.bias() {
            values.read(0..n, &mut bias);
        }
        Self {
            name: layer.name().to_owned(),
            k,
            n,
            weights: layer.dequantize(),
            bias,
        }
    }

    /// A row of x and a row of out, in f32.
    pub(crate) fn scratch_bytes(&self) -> usize {
        (self.k + self.n) * size_of::<f32>()
    }
}

impl Linear for MyBackendLinear {
    fn forward(
        &self,
        x: &TensorRef<'_>,
        out: &mut TensorMut<'_>,
        context: &mut Context,
    ) -> Result<()> {
        let (rows, k, n) = (x.shape()[0], self.k, self.n);
        let scratch = context.host_floats()?;
        if scratch.len() < k + n {
            return Err(Error::ScratchTooSmall {
                layer: self.name.clone(),
                found: size_of_val(scratch),
                needed: self.scratch_bytes(),
            });
        }
        let (wide, rest) = scratch.split_at_mut(k);
        let sums = &mut rest[..n];
        for row in 0..rows {
            x.read(row * k..(row + 1) * k, wide)?;
            sums.copy_from_slice(&self.bias);
            // Your product goes here.
            for (x, weights) in wide.iter().zip(self.weights.chunks_exact(n)) {
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    *sum += x * weight;
                }
            }
            out.write(row * n..(row + 1) * n, sums)?;
        }
        Ok(())
    }

    fn resident_bytes(&self) -> usize {
        size_of_val(&self.weights[..]) + size_of_val(&self.bias[..])
    }
}
