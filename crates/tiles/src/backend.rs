//! The three steps.
#![expect(unsafe_code, reason = "launches the kernels that arrange layers")]

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;

use bytemuck::cast_slice;
use gptq_core::backend::{Backend, LayerId, LayerSource, Linear, Options, Outcome, Rejection};
use gptq_core::device::{Device, Memory, Stream as _};
use gptq_core::format::{Bits, Packing, ZeroEncoding};
use gptq_core::tensor::DType;
use gptq_core::{Error, QuantLinear, Result};
use gptq_cuda::panels::most_panel_bytes;
use gptq_cuda::place::Planner;
use gptq_cuda::{CudaBuffer, CudaStream, DenseRows, Gpu, KernelImage, Kernels, Matmul, try_calls};

use crate::kernels::{ArrangeKernels, FamilyKernels, Packed, ProductKernels};
use crate::linear::{KernelSet, Shared, TileLinear};
use crate::memory::{LayerPlan, Tensors};
use crate::products::{GpuShape, Product, Variant, dense_from};
use crate::{DENSE_BYTES, DENSE_ROWS, Family, Zeros, x_dtypes};

/// Shared memory that kernels declare for themselves, at most.
const DECLARED_SHARED_BYTES: u32 = 64;

/// The backend, opened for one model on a GPU.
pub(crate) struct TileBackend {
    gpu: Gpu,
    kernels: FamilyKernels,
    /// Taken by the layers in step 2.
    matmul: Option<Matmul>,
    /// What the option says.
    dense_rows: Option<DenseRows>,
    most_panel_bytes: usize,
    scratch_bytes: usize,
}

/// A layer of step 2, in device memory.
struct Ready {
    id: LayerId,
    layer: gptq_core::LayerInfo,
    tensors: Tensors,
    resident_bytes: usize,
}

impl TileBackend {
    pub(crate) fn open(
        family: &'static Family,
        device: &Device,
        options: &Options,
    ) -> Result<Box<dyn Backend>> {
        let refused = |rejection: Rejection| family.refused(device, rejection);
        let Device::Cuda(ordinal) = device else { return Err(refused(crate::elsewhere(device))) };
        let image = KernelImage::find(family.name, family.kernels).map_err(refused)?;
        let gpu = Gpu::open(*ordinal).map_err(refused)?;
        let kernels = Kernels::load(&gpu, &image).map_err(refused)?;
        let matmul = Matmul::open(&gpu).map_err(refused)?;
        let dense_rows = DenseRows::read(options, family.id, DENSE_ROWS)?;
        let most_panel_bytes = match options.read(family.id, DENSE_BYTES)? {
            Some(bytes) => bytes,
            None => most_panel_bytes(gpu.info().memory_bytes),
        };
        let kernels = FamilyKernels { family, kernels };
        Ok(Box::new(Self {
            gpu,
            kernels,
            matmul: Some(matmul),
            dense_rows,
            most_panel_bytes,
            scratch_bytes: 0,
        }))
    }

    fn zeros(&self) -> Zeros {
        self.kernels.family.zeros
    }

    fn gpu_shape(&self) -> GpuShape {
        let info = self.gpu.info();
        GpuShape {
            multiprocessors: info.multiprocessors as usize,
            shared_bytes: info.shared_bytes_per_block.saturating_sub(DECLARED_SHARED_BYTES) as usize,
            groups: self.kernels.kernels.target().has_groups(),
        }
    }

    /// Brings every layer to the GPU as it is packed, and arranges it there.
    fn arrange(
        &self,
        layers: &mut LayerSource<'_>,
        plans: &[LayerPlan],
        ends: &[usize],
        memory: &mut CudaBuffer,
    ) -> Result<Vec<Ready>> {
        let packed_bytes = layers.upcoming().map(packed_bytes).max().unwrap_or(0);
        let mut packed = self.gpu.allocate_buffer(packed_bytes)?;
        let stream = CudaStream::new(&self.gpu)?;
        let shared_bytes = self.gpu_shape().shared_bytes;
        let mut sets: Vec<((Bits, Packing), ArrangeKernels)> = Vec::new();
        let arrival_mark = RandomState::new().build_hasher().finish() & !0xff;
        let (base, mut ready, mut start) = (memory.address(), Vec::with_capacity(plans.len()), 0);
        for (plan, &end) in plans.iter().zip(ends) {
            let Some((id, layer)) = layers.next_layer() else { break };
            let format = (layer.info().bits, layer.info().packing);
            if !sets.iter().any(|(known, _)| *known == format) {
                sets.push((format, ArrangeKernels::load(&self.kernels, format.0, format.1, shared_bytes)?));
            }
            let from = self.upload(&layer, plan, &mut packed, memory)?;
            let tensors = plan.tensors(layer.info(), base, arrival_mark);
            if let Some((_, kernels)) = sets.iter().find(|(known, _)| *known == format) {
                // SAFETY: both layers are in buffers that live until the stream is done; only this stream uses them.
                unsafe { kernels.arrange(&stream, &from, &tensors) }?;
            }
            // The next layer is written where this one is read.
            stream.synchronize()?;
            ready.push(Ready { id, layer: layer.info().clone(), tensors, resident_bytes: end - start });
            start = end;
        }
        Ok(ready)
    }

    /// Uploads what is arranged on the GPU to `packed`, and what stays as it is to the model's memory.
    fn upload(
        &self,
        layer: &QuantLinear,
        plan: &LayerPlan,
        packed: &mut CudaBuffer,
        memory: &mut CudaBuffer,
    ) -> Result<Packed> {
        let mut planner = Planner::default();
        let mut put = |bytes: &[u8]| {
            let place = planner.place(bytes.len());
            self.gpu.upload(bytes, packed, place.offset).map(|()| place)
        };
        let qweight = put(layer.qweight().as_bytes())?;
        let qzeros = match self.zeros() {
            Zeros::Stored => Some(put(cast_slice(layer.zeros().words()))?),
            Zeros::BuiltIn => None,
        };
        let scales = put(layer.scales().as_bytes())?;
        if let (Some(place), Some(order)) = (plan.order, plan.arrangement.order(layer)) {
            self.gpu.upload(cast_slice(&order), memory, place.offset)?;
        }
        plan.bias.contents(layer.bias(), |place, bytes| self.gpu.upload(bytes, memory, place.offset))?;
        let base = packed.address();
        Ok(Packed {
            qweight: qweight.address(base),
            qzeros: qzeros.map_or(0, |place| place.address(base)),
            scales: scales.address(base),
            groups: layer.info().groups,
        })
    }

    /// The kernels for a variant, for every type of x.
    fn kernels_for(&self, variant: Variant) -> Result<KernelSet> {
        let (target, gpu) = (self.kernels.kernels.target(), self.gpu_shape());
        let load =
            |dtype: &DType| ProductKernels::load(&self.kernels, variant, *dtype, gpu, target.overlaps());
        x_dtypes(target).iter().map(load).collect()
    }
}

/// What a layer takes on its way to the GPU.
fn packed_bytes(layer: &QuantLinear) -> usize {
    let mut planner = Planner::default();
    planner.place(layer.qweight().as_bytes().len());
    planner.place(size_of_val(layer.zeros().words()));
    planner.place(layer.scales().as_bytes().len());
    planner.end()
}

impl Backend for TileBackend {
    fn convert_format(&mut self, layer: &mut QuantLinear) -> Result<Outcome> {
        if self.zeros() == Zeros::BuiltIn {
            return Ok(Outcome::NotNeeded(
                "the zero points of symmetric layers are built into the kernels".into(),
            ));
        }
        layer.convert_zeros(ZeroEncoding::V2);
        Ok(Outcome::Done)
    }

    fn init_buffers(&mut self, layers: &mut LayerSource<'_>) -> Result<Vec<(LayerId, Box<dyn Linear>)>> {
        let matmul = self.matmul.take().ok_or_else(|| Error::Backend {
            backend: self.kernels.family.id,
            message: "init_buffers was called twice; open the backend again".into(),
            source: None,
        })?;
        let (mut planner, zeros) = (Planner::default(), self.zeros());
        let (plans, ends): (Vec<LayerPlan>, Vec<usize>) = layers
            .upcoming()
            .map(|layer| {
                let plan = LayerPlan::new(layer, zeros, &mut planner);
                (plan, planner.end())
            })
            .unzip();
        let mut memory = self.gpu.allocate_model(layers, &ends)?;
        let ready = self.arrange(layers, &plans, &ends, &mut memory)?;
        let x_dtypes = x_dtypes(self.kernels.kernels.target());
        let most_panel_bytes = self.most_panel_bytes;
        let shared =
            Arc::new(Shared { gpu: self.gpu.clone(), matmul, x_dtypes, most_panel_bytes, _memory: memory });
        let mut sets: Vec<(Variant, KernelSet)> = Vec::new();
        let mut ids = Vec::with_capacity(ready.len());
        let mut linears = Vec::with_capacity(ready.len());
        for Ready { id, layer, tensors, resident_bytes } in ready {
            let variant = Variant::of(&tensors.arrangement, layer.symmetric, zeros);
            let kernels = match sets.iter().find(|(known, _)| *known == variant) {
                Some((_, set)) => Arc::clone(set),
                None => {
                    let set = self.kernels_for(variant)?;
                    sets.push((variant, Arc::clone(&set)));
                    set
                }
            };
            let products = Product::of_layer(&tensors.arrangement, variant, self.gpu_shape());
            let first_of = Product::first_of(&products, &tensors.arrangement, variant, self.gpu_shape());
            ids.push(id);
            linears.push(TileLinear {
                info: layer,
                dense_from: match &self.dense_rows {
                    Some(rows) => rows.of(tensors.arrangement.in_features, tensors.arrangement.out_features),
                    None => Some(dense_from(&tensors.arrangement, variant, &products)),
                },
                tensors,
                products,
                first_of: first_of.into(),
                variant,
                gpu_shape: self.gpu_shape(),
                kernels,
                shared: Arc::clone(&shared),
                resident_bytes,
            });
        }
        self.scratch_bytes = linears.iter().map(TileLinear::scratch_bytes).max().unwrap_or(0);
        try_calls(&self.gpu, self.scratch_bytes, linears.iter().map(TileLinear::trial))?;
        let boxed = linears.into_iter().map(|linear| Box::new(linear) as Box<dyn Linear>);
        Ok(ids.into_iter().zip(boxed).collect())
    }

    fn set_max_input_length(&mut self, _rows: usize) -> Result<Outcome> {
        Ok(Outcome::NotNeeded(
            "more rows of x than one launch takes are run in pieces, or with panels of the dense matrix"
                .into(),
        ))
    }

    fn scratch_bytes(&self) -> usize {
        self.scratch_bytes
    }

    fn memory(&self) -> Option<Arc<dyn Memory>> {
        Some(Arc::new(self.gpu.clone()))
    }
}
