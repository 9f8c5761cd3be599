//! A layer's tensors on the device, and the plain loops that multiply by them.

use gptq_core::device::DeviceBuffer;
use gptq_core::format::packing::unpack_row;
use gptq_core::format::{Bits, Packing};
use gptq_core::tensor::{DType, DataMut, DataRef, Floats, TensorMut, TensorRef};
use gptq_core::{Error, QuantLinear, Result};

use super::device::{FakeBuffer, FakeMemory};
use crate::element::{decode, encode};

/// A layer whose tensors were copied to the device. Nothing writes to them again, so that jobs do not name them among
/// the buffers they use.
pub(super) struct DeviceLayer {
    pub(super) name: String,
    pub(super) k: usize,
    pub(super) n: usize,
    bits: Bits,
    packing: Packing,
    qweight: FakeBuffer,
    scales: FakeBuffer,
    /// `[G, N]`, one byte each; `None`: all are `2^(bits − 1)`.
    zeros: Option<FakeBuffer>,
    /// `[K]`.
    groups: FakeBuffer,
    bias: Option<FakeBuffer>,
}

impl DeviceLayer {
    /// Copies a layer to the device, without its zero points where `fixed_zero`.
    pub(super) fn upload(memory: FakeMemory, layer: &QuantLinear, fixed_zero: bool) -> Result<Self> {
        let info = layer.info();
        let (k, n) = (info.in_features, info.out_features);
        let group_rows = info.group_size.rows(k);
        let groups: Vec<u64> =
            (0..k).map(|row| layer.group_index().group_of(row, group_rows) as u64).collect();
        let zeros = || {
            let mut zeros = vec![0; info.groups * n];
            for (group, zeros) in zeros.chunks_exact_mut(n).enumerate() {
                layer.zeros().unpack_group(group, 0..n, zeros);
            }
            memory.buffer_of(&zeros)
        };
        Ok(Self {
            name: layer.name().to_owned(),
            k,
            n,
            bits: info.bits,
            packing: info.packing,
            qweight: memory.buffer_of(layer.qweight().as_bytes())?,
            scales: memory.buffer_of(&wide(layer.scales()))?,
            zeros: if fixed_zero { None } else { Some(zeros()?) },
            groups: memory.buffer_of(bytemuck::cast_slice(&groups))?,
            bias: layer.bias().map(|bias| memory.buffer_of(&wide(bias))).transpose()?,
        })
    }

    pub(super) fn resident_bytes(&self) -> usize {
        let optional = |buffer: &Option<FakeBuffer>| buffer.as_ref().map_or(0, DeviceBuffer::len_bytes);
        self.qweight.len_bytes()
            + self.scales.len_bytes()
            + self.groups.len_bytes()
            + optional(&self.zeros)
            + optional(&self.bias)
    }

    /// `sums [rows, N] = x [rows, K] · W + bias`.
    pub(super) fn multiply(&self, x: &[f64], sums: &mut [f64]) {
        let (k, n) = (self.k, self.n);
        let (qweight, scales, groups) = (self.qweight.cells(), self.scales.cells(), self.groups.cells());
        let (qweight, scales, groups) = (qweight.read(), scales.read(), groups.read());
        let words: &[u32] = bytemuck::cast_slice(qweight.bytes());
        let scales: &[f64] = bytemuck::cast_slice(scales.bytes());
        let groups: &[u64] = bytemuck::cast_slice(groups.bytes());
        let zeros = self.zeros.as_ref().map(FakeBuffer::cells);
        let zeros = zeros.as_ref().map(|cells| cells.read());
        let bias = self.bias.as_ref().map(FakeBuffer::cells);
        let bias = bias.as_ref().map(|cells| cells.read());

        for sums in sums.chunks_exact_mut(n) {
            match &bias {
                None => sums.fill(0.0),
                Some(bias) => sums.copy_from_slice(&bytemuck::cast_slice(bias.bytes())[..n]),
            }
        }
        let mut codes = vec![0; n];
        let mut weights = vec![0.0; n];
        let middle = f64::from(self.bits.symmetric_zero());
        for (row, group) in groups.iter().enumerate() {
            unpack_row(&words[..words.len() / n * n], n, self.bits, self.packing, row, 0..n, &mut codes);
            let first = usize::try_from(*group).unwrap_or(0) * n;
            for (column, (weight, code)) in weights.iter_mut().zip(&codes).enumerate() {
                let zero = zeros.as_ref().map_or(middle, |zeros| zeros.bytes()[first + column].into());
                *weight = scales[first + column] * (f64::from(*code) - zero);
            }
            for (sums, x) in sums.chunks_exact_mut(n).zip(x.iter().skip(row).step_by(k)) {
                for (sum, weight) in sums.iter_mut().zip(&weights) {
                    *sum += x * weight;
                }
            }
        }
    }
}

fn wide(floats: &Floats) -> Vec<u8> {
    let mut values = vec![0.0; floats.len()];
    floats.read(0..floats.len(), &mut values);
    values.iter().flat_map(|&value| f64::from(value).to_ne_bytes()).collect()
}

/// x of a call: its buffer, and where it starts there.
pub(super) fn x_on_device<'a>(x: &TensorRef<'a>) -> Result<(&'a FakeBuffer, usize)> {
    match x.data() {
        DataRef::Device(buffer, offset) => Ok((FakeBuffer::of(buffer, "a launch")?, offset)),
        DataRef::Host(_) => Err(in_host_memory("x")),
    }
}

/// out of a call: a handle to its buffer's contents is taken, and where it starts there.
pub(super) fn out_on_device<R>(
    out: &mut TensorMut<'_>,
    with: impl FnOnce(&FakeBuffer, usize) -> Result<R>,
) -> Result<R> {
    match out.data() {
        DataMut::Device(buffer, offset) => with(FakeBuffer::of(buffer, "a launch")?, offset),
        DataMut::Host(_) => Err(in_host_memory("out")),
    }
}

fn in_host_memory(tensor: &str) -> Error {
    Error::TensorBytes {
        what: tensor.into(),
        problem: "it is in host memory, and the layer on a fake device".into(),
    }
}

/// Elements of an activation as f64.
pub(super) fn load(dtype: DType, bytes: &[u8], to: &mut [f64]) {
    for (to, value) in to.iter_mut().zip(decode(dtype, bytes)) {
        *to = value;
    }
}

/// f64 as elements of an activation.
pub(super) fn store(dtype: DType, values: &[f64], bytes: &mut [u8]) {
    for (to, byte) in bytes.iter_mut().zip(encode(dtype, values)) {
        *to = byte;
    }
}
