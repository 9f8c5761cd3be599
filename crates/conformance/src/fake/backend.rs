//! Two backends on the fake device: one that runs everything, and one that runs little and needs a buffer of its own.

use std::sync::{Arc, PoisonError, RwLock};

use gptq_core::backend::{
    Backend, BackendId, Buffer, Capabilities, LayerId, LayerSource, Linear, Options, Outcome, Registration,
    Rejection, Speed, ZeroOperand,
};
use gptq_core::device::{Context, Device, DeviceBuffer, Memory};
use gptq_core::format::{Bits, ZeroEncoding};
use gptq_core::tensor::{DType, TensorMut, TensorRef};
use gptq_core::{Error, QuantLinear, Result};

use super::device::{FakeBuffer, FakeMemory, device};
use super::layer::{DeviceLayer, load, out_on_device, store, x_on_device};
use super::stream::{Access, FakeStream, Use};

/// A backend that runs every layer on a fake device, slowly.
pub const FULL: Registration = Registration {
    priority: 1,
    summary: "every layer, in plain loops, on a fake device",
    ..Registration::new(BackendId::new("fake_full"), full_capabilities, Full::open)
};

/// A backend that runs 4-bit symmetric layers in order, for x in f16, and holds a `temp_state` for as many rows as
/// `set_max_input_length` says. Preferred to [`FULL`], so that `auto` makes mixed models of the two.
pub const NARROW: Registration = Registration {
    priority: 10,
    summary: "4-bit symmetric layers in order, on a fake device",
    ..Registration::new(BackendId::new("fake_narrow"), narrow_capabilities, Narrow::open)
};

/// Rows that one launch of [`FULL`] runs.
const PIECE: usize = 16;
/// Rows that `temp_state` holds until someone says otherwise: few, so that calls run in pieces.
const ROWS: usize = 4;

fn full_capabilities(on: &Device) -> Result<Capabilities, Rejection> {
    memory_of(on).map(|_| Capabilities { speed: Speed::Fallback, ..Capabilities::ANY })
}

fn narrow_capabilities(on: &Device) -> Result<Capabilities, Rejection> {
    memory_of(on).map(|_| Capabilities {
        bits: &[Bits::FOUR],
        short_last_group: false,
        asymmetric: false,
        act_order: false,
        x_dtypes: &[DType::F16],
        scale_dtypes: &[DType::F16],
        in_features_multiple: 32,
        out_features_multiple: 8,
        zeros: ZeroOperand::Fixed,
        ..Capabilities::ANY
    })
}

fn memory_of(on: &Device) -> Result<FakeMemory, Rejection> {
    let supported = || Rejection::DeviceKind { device: on.clone(), supported: "fake:0 to fake:15".into() };
    match on {
        Device::Other(kind, ordinal) if **kind == *super::KIND => device(*ordinal)
            .map(FakeMemory::new)
            .ok_or_else(|| Rejection::NoSuchDevice { device: on.clone(), found: "fake:0 to fake:15".into() }),
        _ => Err(supported()),
    }
}

fn open_memory(backend: BackendId, on: &Device) -> Result<FakeMemory> {
    memory_of(on).map_err(|rejection| Error::Rejected {
        backend,
        subject: format!("on {on}"),
        rejection: Box::new(rejection),
    })
}

struct Full {
    memory: FakeMemory,
    row_bytes: usize,
}

impl Full {
    fn open(on: &Device, _options: &Options) -> Result<Box<dyn Backend>> {
        Ok(Box::new(Self { memory: open_memory(FULL.id, on)?, row_bytes: 0 }))
    }
}

impl Backend for Full {
    fn convert_format(&mut self, layer: &mut QuantLinear) -> Result<Outcome> {
        layer.convert_zeros(ZeroEncoding::V2);
        Ok(Outcome::Done)
    }

    fn init_buffers(&mut self, layers: &mut LayerSource<'_>) -> Result<Vec<(LayerId, Box<dyn Linear>)>> {
        let mut ready: Vec<(LayerId, Box<dyn Linear>)> = Vec::new();
        while let Some((id, layer)) = layers.next_layer() {
            let layer = Arc::new(DeviceLayer::upload(self.memory, &layer, false)?);
            let linear = FullLinear { layer };
            self.row_bytes = self.row_bytes.max(linear.row_bytes());
            ready.push((id, Box::new(linear)));
        }
        Ok(ready)
    }

    fn set_max_input_length(&mut self, _rows: usize) -> Result<Outcome> {
        Ok(Outcome::NotNeeded("rows are run in pieces of 16; no buffer depends on their number".into()))
    }

    fn scratch_bytes(&self) -> usize {
        PIECE * self.row_bytes
    }

    fn memory(&self) -> Option<Arc<dyn Memory>> {
        Some(Arc::new(self.memory))
    }
}

struct FullLinear {
    layer: Arc<DeviceLayer>,
}

impl FullLinear {
    /// Scratch for a row of x and a row of sums.
    fn row_bytes(&self) -> usize {
        (self.layer.k + self.layer.n) * size_of::<f64>()
    }
}

impl Linear for FullLinear {
    fn forward(&self, x: &TensorRef<'_>, out: &mut TensorMut<'_>, context: &mut Context) -> Result<()> {
        let (stream, scratch) = on_device(context)?;
        let (x_buffer, x_offset) = x_on_device(x)?;
        let rows_that_fit = (scratch.len_bytes() / self.row_bytes()).min(PIECE);
        if rows_that_fit == 0 {
            return Err(too_small(&self.layer, scratch, self.row_bytes()));
        }
        let (dtype, [rows, _], layer) = (x.dtype(), x.shape(), Arc::clone(&self.layer));
        out_on_device(out, |out_buffer, out_offset| {
            let uses = [
                Use { buffer: x_buffer, access: Access::Read },
                Use { buffer: scratch, access: Access::Write },
                Use { buffer: out_buffer, access: Access::Write },
            ];
            let (x, scratch, out) = (x_buffer.cells(), scratch.cells(), out_buffer.cells());
            stream.launch("fake_full", &uses, move || {
                let (k, n, size) = (layer.k, layer.n, dtype.size_bytes());
                let mut scratch = scratch.try_write().ok_or("another job is using the scratch")?;
                let floats: &mut [f64] = bytemuck::cast_slice_mut(scratch.bytes_mut());
                for first in (0..rows).step_by(rows_that_fit) {
                    let rows = rows_that_fit.min(rows - first);
                    let (wide, sums) = floats.split_at_mut(rows_that_fit * k);
                    let (wide, sums) = (&mut wide[..rows * k], &mut sums[..rows * n]);
                    load(dtype, &x.read().bytes()[x_offset + first * k * size..][..rows * k * size], wide);
                    layer.multiply(wide, sums);
                    let mut out = out.write();
                    let bytes = &mut out.bytes_mut()[out_offset + first * n * size..][..rows * n * size];
                    store(dtype, sums, bytes);
                }
                Ok(())
            })
        })
    }

    fn resident_bytes(&self) -> usize {
        self.layer.resident_bytes()
    }
}

/// The buffer that all layers of a [`NARROW`] model gather x in, and how many rows it holds. Who is inside forward
/// keeps the one that was there when the call began.
struct TempState {
    buffer: FakeBuffer,
    rows: usize,
}

type Shared = Arc<RwLock<Option<Arc<TempState>>>>;

struct Narrow {
    memory: FakeMemory,
    temp_state: Shared,
    widest: usize,
    scratch_bytes: usize,
}

impl Narrow {
    fn open(on: &Device, _options: &Options) -> Result<Box<dyn Backend>> {
        let memory = open_memory(NARROW.id, on)?;
        Ok(Box::new(Self { memory, temp_state: Shared::default(), widest: 0, scratch_bytes: 0 }))
    }
}

impl Backend for Narrow {
    fn convert_format(&mut self, _layer: &mut QuantLinear) -> Result<Outcome> {
        Ok(Outcome::NotNeeded("the zero point is built in".into()))
    }

    fn init_buffers(&mut self, layers: &mut LayerSource<'_>) -> Result<Vec<(LayerId, Box<dyn Linear>)>> {
        let mut ready: Vec<(LayerId, Box<dyn Linear>)> = Vec::new();
        while let Some((id, layer)) = layers.next_layer() {
            let layer = Arc::new(DeviceLayer::upload(self.memory, &layer, true)?);
            self.widest = self.widest.max(layer.k);
            self.scratch_bytes = self.scratch_bytes.max(layer.n * size_of::<f64>());
            ready.push((id, Box::new(NarrowLinear { layer, temp_state: Arc::clone(&self.temp_state) })));
        }
        self.set_max_input_length(ROWS)?;
        Ok(ready)
    }

    fn set_max_input_length(&mut self, rows: usize) -> Result<Outcome> {
        let rows = rows.max(1);
        // Allocated before the old one goes: where there is no room for both, the old one still serves.
        let buffer = self.memory.buffer(rows.saturating_mul(self.widest).saturating_mul(size_of::<f64>()))?;
        let new = Arc::new(TempState { buffer, rows });
        *self.temp_state.write().unwrap_or_else(PoisonError::into_inner) = Some(new);
        Ok(Outcome::Done)
    }

    fn scratch_bytes(&self) -> usize {
        self.scratch_bytes
    }

    fn buffers(&self) -> Vec<Buffer> {
        let temp_state = self.temp_state.read().unwrap_or_else(PoisonError::into_inner);
        temp_state.iter().map(|state| Buffer::new("temp_state", state.buffer.len_bytes())).collect()
    }

    fn memory(&self) -> Option<Arc<dyn Memory>> {
        Some(Arc::new(self.memory))
    }
}

struct NarrowLinear {
    layer: Arc<DeviceLayer>,
    temp_state: Shared,
}

impl Linear for NarrowLinear {
    fn forward(&self, x: &TensorRef<'_>, out: &mut TensorMut<'_>, context: &mut Context) -> Result<()> {
        let (stream, scratch) = on_device(context)?;
        let (x_buffer, x_offset) = x_on_device(x)?;
        let row_bytes = self.layer.n * size_of::<f64>();
        if scratch.len_bytes() < row_bytes {
            return Err(too_small(&self.layer, scratch, row_bytes));
        }
        let temp_state = self.temp_state.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(temp_state) = temp_state else {
            let message = "forward before init_buffers: temp_state is missing".into();
            return Err(Error::Backend { backend: NARROW.id, message, source: None });
        };
        let (dtype, [rows, _], layer) = (x.dtype(), x.shape(), Arc::clone(&self.layer));
        out_on_device(out, |out_buffer, out_offset| {
            let uses = [
                Use { buffer: x_buffer, access: Access::Read },
                Use { buffer: &temp_state.buffer, access: Access::Ordered },
                Use { buffer: scratch, access: Access::Write },
                Use { buffer: out_buffer, access: Access::Write },
            ];
            let (x, state, scratch, out) =
                (x_buffer.cells(), temp_state.buffer.cells(), scratch.cells(), out_buffer.cells());
            let piece = temp_state.rows;
            stream.launch("fake_narrow", &uses, move || {
                let (k, n, size) = (layer.k, layer.n, dtype.size_bytes());
                let mut scratch = scratch.try_write().ok_or("another job is using the scratch")?;
                let sums: &mut [f64] = &mut bytemuck::cast_slice_mut(scratch.bytes_mut())[..n];
                for first in (0..rows).step_by(piece) {
                    let rows = piece.min(rows - first);
                    // Held for a piece and no longer: jobs of other streams take turns.
                    let mut state = state.write();
                    let wide: &mut [f64] = &mut bytemuck::cast_slice_mut(state.bytes_mut())[..rows * k];
                    load(dtype, &x.read().bytes()[x_offset + first * k * size..][..rows * k * size], wide);
                    for (row, wide) in wide.chunks_exact(k).enumerate() {
                        layer.multiply(wide, sums);
                        let mut out = out.write();
                        let start = out_offset + (first + row) * n * size;
                        store(dtype, sums, &mut out.bytes_mut()[start..][..n * size]);
                    }
                }
                Ok(())
            })
        })
    }

    fn resident_bytes(&self) -> usize {
        self.layer.resident_bytes()
    }
}

fn on_device(context: &mut Context) -> Result<(&FakeStream, &FakeBuffer)> {
    let device = context.device();
    match context.on_device() {
        Some((stream, scratch)) => Ok((FakeStream::of(stream)?, FakeBuffer::of(scratch, "a launch")?)),
        None => Err(Error::Device {
            device,
            operation: "a launch".into(),
            message: "the context is the host's, and the layer on a fake device".into(),
        }),
    }
}

fn too_small(layer: &DeviceLayer, scratch: &FakeBuffer, needed: usize) -> Error {
    Error::ScratchTooSmall { layer: layer.name.clone(), found: scratch.len_bytes(), needed }
}
