//! The three steps.
#![expect(unsafe_code, reason = "launches the kernel that sorts rows")]

use std::sync::Arc;

use gptq_core::backend::{Backend, LayerId, LayerSource, Linear, Options, Outcome, Rejection};
use gptq_core::device::{Device, Memory};
use gptq_core::format::ZeroEncoding;
use gptq_core::{Error, QuantLinear, Result};
use gptq_cuda::place::{ALIGNMENT, Planner};
use gptq_cuda::{CudaBuffer, CudaStream, Gpu, KernelImage, Kernels, Matmul, try_calls};

use crate::kernels::KernelSet;
use crate::layout::{LayerPlan, Tensors};
use crate::linear::{CudaLinear, Settings, Shared, work_bytes};
use crate::scratch::state_bytes;
use crate::{EMBEDDED, FAMILY, ID, MATMUL_RECONS_THD, TEMP_DQ_BYTES};

/// Rows of `temp_state` where a layer is in act-order and no length was set: what the original had.
const DEFAULT_LENGTH: usize = 2048;

pub(crate) fn open(device: &Device, options: &Options) -> Result<Box<dyn Backend>> {
    let refused = |rejection: Rejection| Error::Rejected {
        backend: ID,
        subject: format!("on {device}"),
        rejection: Box::new(rejection),
    };
    let Device::Cuda(ordinal) = device else {
        return Err(refused(Rejection::DeviceKind { device: device.clone(), supported: "cuda".into() }));
    };
    let settings = Settings {
        threshold: options.read(ID, MATMUL_RECONS_THD)?,
        temp_dq_bytes: options.read(ID, TEMP_DQ_BYTES)?,
    };
    let image = KernelImage::find(FAMILY, EMBEDDED).map_err(refused)?;
    let gpu = Gpu::open(*ordinal).map_err(refused)?;
    let kernels = Kernels::load(&gpu, &image).map_err(refused)?;
    let kernels = KernelSet::load(&gpu, &kernels)?;
    let matmul = Matmul::open(&gpu).map_err(refused)?;
    Ok(Box::new(ExllamaV1 {
        gpu,
        settings,
        parts: Some((kernels, matmul)),
        needs: Needs::default(),
        scratch_bytes: 0,
    }))
}

/// The backend, opened for one model on a GPU.
struct ExllamaV1 {
    gpu: Gpu,
    settings: Settings,
    /// Taken by the layers in step 2.
    parts: Option<(KernelSet, Matmul)>,
    needs: Needs,
    /// What they come to.
    scratch_bytes: usize,
}

/// What contexts of the model need, by what depends on the length and what does not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Needs {
    /// Rows of `temp_state`.
    length: usize,
    /// The longest row of x that is gathered: of act-order layers, or of all where none is.
    in_features: usize,
    act_order: bool,
    /// What products work in, `temp_dq` among it.
    work_bytes: usize,
}

impl Needs {
    /// `None`: more than there are addresses for.
    fn scratch_bytes(&self) -> Option<usize> {
        state_bytes(self.length, self.in_features)?.checked_add(self.work_bytes)
    }
}

impl ExllamaV1 {
    /// Bytes of a context's scratch.
    fn size_of(&self, needs: Needs) -> Result<usize> {
        needs.scratch_bytes().ok_or_else(|| Error::OutOfMemory {
            device: self.gpu.device(),
            what: format!("a context for inputs of {} rows", needs.length),
            needed: usize::MAX,
            available: self.gpu.available_bytes(),
            remedy: "set a shorter max_input_length".into(),
        })
    }

    /// Uploads a layer, its rows in the order of their groups.
    fn arrange(
        &self,
        kernels: &KernelSet,
        stream: &CudaStream,
        layer: &QuantLinear,
        plan: &LayerPlan,
        memory: &mut CudaBuffer,
        staging: &mut CudaBuffer,
    ) -> Result<Tensors> {
        plan.contents(layer, |place, bytes| self.gpu.upload(bytes, memory, place.offset))?;
        let tensors = plan.tensors(layer, memory.address());
        let words = layer.qweight().as_bytes();
        match tensors.sorted_rows {
            None => self.gpu.upload(words, memory, plan.qweight.offset)?,
            Some(sorted_rows) => {
                self.gpu.upload(words, staging, 0)?;
                // SAFETY: the staging memory has just received the words, and is not used again before they are sorted.
                unsafe { kernels.sort(stream, &tensors, sorted_rows, staging.address()) }?;
                gptq_core::device::Stream::synchronize(stream)?;
            }
        }
        Ok(tensors)
    }
}

impl Backend for ExllamaV1 {
    fn convert_format(&mut self, layer: &mut QuantLinear) -> Result<Outcome> {
        layer.convert_zeros(ZeroEncoding::V2);
        Ok(Outcome::Done)
    }

    fn init_buffers(&mut self, layers: &mut LayerSource<'_>) -> Result<Vec<(LayerId, Box<dyn Linear>)>> {
        let (kernels, matmul) = self.parts.take().ok_or_else(|| Error::Backend {
            backend: ID,
            message: "init_buffers was called twice; open the backend again".into(),
            source: None,
        })?;
        let mut planner = Planner::default();
        let (plans, ends): (Vec<LayerPlan>, Vec<usize>) =
            layers.upcoming().map(|layer| (LayerPlan::new(layer, &mut planner), planner.end())).unzip();
        let sorted = layers.upcoming().filter(|layer| layer.info().act_order);
        let staging_bytes = sorted.map(|layer| layer.qweight().as_bytes().len()).max().unwrap_or(0);
        let mut memory = self.gpu.allocate_model(layers, &ends)?;
        let mut staging = self.gpu.allocate_buffer(staging_bytes)?;
        let stream = CudaStream::new(&self.gpu)?;

        let mut ready = Vec::with_capacity(plans.len());
        let mut start = 0;
        for (plan, end) in plans.iter().zip(ends) {
            let Some((id, layer)) = layers.next_layer() else { break };
            let tensors = self.arrange(&kernels, &stream, &layer, plan, &mut memory, &mut staging)?;
            ready.push((id, tensors, layer.info().clone(), end - start));
            start = end;
        }
        let tensors = || ready.iter().map(|(_, tensors, ..)| tensors);
        let longest = |layers: &mut dyn Iterator<Item = &Tensors>| {
            layers.map(|layer| layer.in_features).max().unwrap_or(0)
        };
        let of_act_order = longest(&mut tensors().filter(|layer| layer.sorted_rows.is_some()));
        let act_order = of_act_order > 0;
        self.needs = Needs {
            length: if act_order { DEFAULT_LENGTH } else { 1 },
            in_features: longest(&mut tensors()),
            act_order,
            work_bytes: tensors()
                .map(|layer| work_bytes(&kernels, self.settings, layer))
                .max()
                .unwrap_or(0)
                .next_multiple_of(ALIGNMENT),
        };
        self.scratch_bytes = self.size_of(self.needs)?;
        let shared = Arc::new(Shared {
            gpu: self.gpu.clone(),
            kernels,
            matmul,
            settings: self.settings,
            work_bytes: self.needs.work_bytes,
            _memory: memory,
        });
        let (ids, linears): (Vec<LayerId>, Vec<CudaLinear>) = ready
            .into_iter()
            .map(|(id, tensors, info, resident_bytes)| {
                (id, CudaLinear { info, tensors, shared: Arc::clone(&shared), resident_bytes })
            })
            .unzip();
        try_calls(&self.gpu, self.scratch_bytes, linears.iter().map(CudaLinear::trial))?;
        let boxed = linears.into_iter().map(|linear| Box::new(linear) as Box<dyn Linear>);
        Ok(ids.into_iter().zip(boxed).collect())
    }

    fn set_max_input_length(&mut self, rows: usize) -> Result<Outcome> {
        if !self.needs.act_order {
            return Ok(Outcome::NotNeeded(
                "no layer is in act-order: x is read where it is, and no buffer depends on its rows".into(),
            ));
        }
        let rows = rows.max(1);
        let wanted = Needs { length: rows, ..self.needs };
        let scratch_bytes = self.size_of(wanted)?;
        if scratch_bytes > self.scratch_bytes {
            // Whether a context of that size can be made: allocated, and given back. Where not, nothing has changed.
            drop(self.gpu.allocate_buffer(scratch_bytes)?);
        }
        (self.needs, self.scratch_bytes) = (wanted, scratch_bytes);
        Ok(Outcome::Done)
    }

    fn scratch_bytes(&self) -> usize {
        self.scratch_bytes
    }

    fn memory(&self) -> Option<Arc<dyn Memory>> {
        Some(Arc::new(self.gpu.clone()))
    }
}
