//! What other crates do with matrices of the same shape.

#![allow(unsafe_code, reason = "gemm takes pointers")]

use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{Device, Module, Tensor};
use gemm::Parallelism;

use crate::timing::Subject;
use crate::{copies, random};

/// Dense matrices `[K, N]` in f32.
pub(crate) fn dense(k: usize, n: usize) -> Vec<Vec<f32>> {
    let matrix = random(k * n);
    vec![matrix; copies(4 * k * n)]
}

/// Matrices `[N, K]` in Q4_0: 4 bits and a scale in f16 for each 32 weights of a row.
pub(crate) fn quantized(k: usize, n: usize) -> Vec<QMatMul> {
    let matrix = Tensor::from_vec(random(k * n), (n, k), &Device::Cpu).unwrap();
    let quantize = |_| QMatMul::from_qtensor(QTensor::quantize(&matrix, GgmlDType::Q4_0).unwrap()).unwrap();
    (0..copies(k * n * 18 / 32)).map(quantize).collect()
}

/// The product with dense matrices in turn.
pub(crate) fn gemm_f32<'a>(matrices: &'a [Vec<f32>], m: usize, k: usize, n: usize) -> Subject<'a> {
    let x = random(m * k);
    let mut out = vec![0.0f32; m * n];
    // 0: as many threads as rayon has.
    let threads = Parallelism::Rayon(0);
    Subject::new("gemm, dense f32", move |call| {
        let matrix = &matrices[call % matrices.len()];
        assert!(x.len() == m * k && matrix.len() == k * n && out.len() == m * n);
        let [m, k, n] = [m, k, n];
        let stride = |columns: usize| isize::try_from(columns).unwrap();
        // SAFETY: all three are row-major matrices of these shapes, as was just asserted.
        unsafe {
            gemm::gemm(
                m,
                n,
                k,
                out.as_mut_ptr(),
                1,
                stride(n),
                false,
                x.as_ptr(),
                1,
                stride(k),
                matrix.as_ptr(),
                1,
                stride(n),
                0.0f32,
                1.0f32,
                false,
                false,
                false,
                threads,
            );
        }
    })
}

/// candle's product with weights in Q4_0, which rounds x to 8 bits.
pub(crate) fn candle_q4_0<'a>(matrices: &'a [QMatMul], m: usize, k: usize) -> Subject<'a> {
    let x = Tensor::from_vec(random(m * k), (m, k), &Device::Cpu).unwrap();
    Subject::new("candle, Q4_0", move |call| {
        let y = matrices[call % matrices.len()].forward(&x).unwrap();
        std::hint::black_box(y);
    })
}
