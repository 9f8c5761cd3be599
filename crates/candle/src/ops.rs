//! The operations of a decoder that candle has not, or not as fast, on a CPU. Elsewhere they are candle's own.

use std::borrow::Cow;

use candle_core::{CpuStorage, CustomOp2, Layout, Shape, Tensor, WithDType, bail};
use gptq_core::tensor::{DType as ElementType, Element};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

use crate::cpu::elementwise;

/// Elements below which one thread is faster than all.
const SERIAL: usize = 1 << 14;

/// The elements of a contiguous tensor.
pub(crate) fn contiguous<'a, T>(storage: &'a [T], layout: &Layout) -> candle_core::Result<&'a [T]> {
    match layout.contiguous_offsets().and_then(|(from, to)| storage.get(from..to)) {
        Some(elements) => Ok(elements),
        None => bail!("a tensor of shape {:?} is not contiguous", layout.dims()),
    }
}

/// The values in f32: as they are, or a copy.
pub(crate) fn widen<T: Element>(values: &[T]) -> Cow<'_, [f32]> {
    match T::DTYPE {
        ElementType::F32 => Cow::Borrowed(bytemuck::cast_slice(values)),
        ElementType::F16 => Cow::Owned(bytemuck::cast_slice::<T, f16>(values).to_f32_vec()),
        ElementType::BF16 => Cow::Owned(values.iter().map(|value| value.widen()).collect()),
    }
}

/// The values as `T`: as they are, or rounded.
pub(crate) fn narrow<T: Element>(values: Vec<f32>) -> Vec<T> {
    bytemuck::try_cast_vec(values).unwrap_or_else(|(_, values): (_, Vec<f32>)| {
        let mut narrowed = vec![T::zeroed(); values.len()];
        narrow_into(&values, &mut narrowed);
        narrowed
    })
}

/// Rounds `values` into `narrowed`, which is as long.
pub(crate) fn narrow_into<T: Element>(values: &[f32], narrowed: &mut [T]) {
    match T::DTYPE {
        ElementType::F32 => bytemuck::cast_slice_mut(narrowed).copy_from_slice(values),
        ElementType::F16 => bytemuck::cast_slice_mut::<T, f16>(narrowed).convert_from_f32_slice(values),
        ElementType::BF16 => bytemuck::cast_slice_mut::<T, bf16>(narrowed).convert_from_f32_slice(values),
    }
}

/// `x / sqrt(mean(x²) + eps) · weight` over the last dimension; x `[.., width]`, weight `[width]`, of one dtype.
pub(crate) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> candle_core::Result<Tensor> {
    match x.device().is_cpu() {
        true => x.contiguous()?.apply_op2_no_bwd(weight, &InF32(RmsNorm { eps })),
        false => candle_nn::ops::rms_norm(&x.contiguous()?, weight, eps),
    }
}

/// `silu(gate) · up`, elementwise.
pub(crate) fn silu_mul(gate: &Tensor, up: &Tensor) -> candle_core::Result<Tensor> {
    match gate.device().is_cpu() {
        true => gate.contiguous()?.apply_op2_no_bwd(&up.contiguous()?, &InF32(SiluMul)),
        false => gate.silu()? * up,
    }
}

/// `a + b`, elementwise.
pub(crate) fn add(a: &Tensor, b: &Tensor) -> candle_core::Result<Tensor> {
    match a.device().is_cpu() {
        true => a.contiguous()?.apply_op2_no_bwd(&b.contiguous()?, &InF32(Add)),
        false => a + b,
    }
}

/// An operation on two tensors that is computed in f32, whatever their dtype. The result has the first's shape.
struct InF32<O>(O);

trait Rows: Sync {
    const NAME: &'static str;

    /// Some whole rows of `a` and, where it has as many, of `b`.
    fn compute(&self, a: &[f32], b: &[f32], width: usize, out: &mut [f32]);
}

struct RmsNorm {
    eps: f32,
}

impl Rows for RmsNorm {
    const NAME: &'static str = "rms-norm";

    fn compute(&self, x: &[f32], weight: &[f32], width: usize, out: &mut [f32]) {
        for (x, out) in x.chunks(width).zip(out.chunks_mut(width)) {
            elementwise::rms_norm(x, weight, self.eps, out);
        }
    }
}

struct SiluMul;

impl Rows for SiluMul {
    const NAME: &'static str = "silu-mul";

    fn compute(&self, gate: &[f32], up: &[f32], _: usize, out: &mut [f32]) {
        elementwise::silu_mul(gate, up, out);
    }
}

/// candle's own adds large tensors on threads of its own, which then spin beside those of the pool.
struct Add;

impl Rows for Add {
    const NAME: &'static str = "add";

    fn compute(&self, a: &[f32], b: &[f32], _: usize, out: &mut [f32]) {
        elementwise::add(a, b, out);
    }
}

impl<O: Rows> InF32<O> {
    fn run<T: Element + WithDType>(
        &self,
        (a, a_layout): (&[T], &Layout),
        (b, b_layout): (&[T], &Layout),
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (a, b) = (contiguous(a, a_layout)?, contiguous(b, b_layout)?);
        let width = a_layout.dims().last().copied().unwrap_or(1).max(1);
        if b.len() != a.len() && b.len() != width {
            bail!("{}: shapes {:?} and {:?} do not fit", O::NAME, a_layout.dims(), b_layout.dims());
        }
        let mut out = vec![T::zero(); a.len()];
        let rows = (SERIAL / width).max(1) * width;
        let piece = |(index, (out, a)): (usize, (&mut [T], &[T]))| {
            let b = if b.len() == a.len() || b.len() == width { b } else { &b[index * rows..][..a.len()] };
            self.compute(a, b, width, out);
        };
        if a.len() <= rows {
            piece((0, (&mut out, a)));
        } else {
            out.par_chunks_mut(rows).zip(a.par_chunks(rows)).enumerate().for_each(piece);
        }
        Ok((T::to_cpu_storage_owned(out), a_layout.shape().clone()))
    }

    fn compute<T: Element>(&self, a: &[T], b: &[T], width: usize, out: &mut [T]) {
        let (a, b) = (widen(a), widen(b));
        match bytemuck::try_cast_slice_mut(out) {
            Ok(out) if T::DTYPE == ElementType::F32 => self.0.compute(&a, &b, width, out),
            _ => {
                let mut wide = vec![0.0; a.len()];
                self.0.compute(&a, &b, width, &mut wide);
                narrow_into(&wide, out);
            }
        }
    }
}

impl<O: Rows> CustomOp2 for InF32<O> {
    fn name(&self) -> &'static str {
        O::NAME
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        match (a, b) {
            (CpuStorage::F32(a), CpuStorage::F32(b)) => self.run((a, a_layout), (b, b_layout)),
            (CpuStorage::F16(a), CpuStorage::F16(b)) => self.run((a, a_layout), (b, b_layout)),
            (CpuStorage::BF16(a), CpuStorage::BF16(b)) => self.run((a, a_layout), (b, b_layout)),
            _ => bail!("{}: expected two tensors of one dtype, f32, f16 or bf16", O::NAME),
        }
    }
}
