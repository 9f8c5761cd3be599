//! The three steps, on a GPU.
#![expect(unsafe_code, reason = "launches the kernel that sorts rows")]

use std::sync::Arc;

use gptq_core::backend::{Backend, LayerId, LayerSource, Linear, Options, Outcome, Rejection};
use gptq_core::device::{Device, Memory, Stream as _};
use gptq_core::format::{Bits, Packing, ZeroEncoding};
use gptq_core::{Error, QuantLinear, Result};
use gptq_cuda::panels::most_panel_bytes;
use gptq_cuda::place::Planner;
use gptq_cuda::{CudaBuffer, CudaStream, DenseRows, Gpu, KernelImage, Kernels, Matmul, try_calls};

use super::kernels::{FormatKernels, SortKernel};
use super::layout::{LayerPlan, Tensors};
use super::linear::{CudaLinear, KernelSet, Shared, measured_dense_from};
use super::{EMBEDDED, FAMILY, x_dtypes};
use crate::{DENSE_BYTES, DENSE_ROWS, ID, ISA, SORTED_COPY, refuse};

/// The backend, opened for one model on a GPU.
pub(crate) struct CudaBackend {
    gpu: Gpu,
    kernels: Kernels,
    /// Taken by the layers in step 2.
    matmul: Option<Matmul>,
    /// What the option says.
    dense_rows: Option<DenseRows>,
    most_panel_bytes: usize,
    scratch_bytes: usize,
}

impl CudaBackend {
    pub(crate) fn open(ordinal: usize, options: &Options) -> Result<Box<dyn Backend>> {
        let refused = |rejection: Rejection| Error::Rejected {
            backend: ID,
            subject: format!("on cuda:{ordinal}"),
            rejection: Box::new(rejection),
        };
        refuse(options, &[ISA, SORTED_COPY], &Device::Cuda(ordinal))?;
        let dense_rows = DenseRows::read(options, ID, DENSE_ROWS)?;
        let image = KernelImage::find(FAMILY, EMBEDDED).map_err(refused)?;
        let gpu = Gpu::open(ordinal).map_err(refused)?;
        let most_panel_bytes = match options.read(ID, DENSE_BYTES)? {
            Some(bytes) => bytes,
            None => most_panel_bytes(gpu.info().memory_bytes),
        };
        let kernels = Kernels::load(&gpu, &image).map_err(refused)?;
        let matmul = Matmul::open(&gpu).map_err(refused)?;
        Ok(Box::new(Self {
            gpu,
            kernels,
            matmul: Some(matmul),
            dense_rows,
            most_panel_bytes,
            scratch_bytes: 0,
        }))
    }

    /// The memory of all layers, and where each begins in it.
    fn plan(layers: &LayerSource<'_>) -> (Vec<LayerPlan>, Vec<usize>) {
        let mut planner = Planner::default();
        let mut ends = Vec::new();
        let plans = layers
            .upcoming()
            .map(|layer| {
                let plan = LayerPlan::new(layer, &mut planner);
                ends.push(planner.end());
                plan
            })
            .collect();
        (plans, ends)
    }

    /// The kernels for a format, for every type of x.
    fn kernels_for(&self, bits: Bits, packing: Packing) -> Result<KernelSet> {
        let dtypes = x_dtypes(self.gpu.info().compute_capability).iter();
        dtypes.map(|dtype| FormatKernels::load(&self.kernels, bits, packing, *dtype)).collect()
    }
}

/// What sorts rows of act-order layers: their words arrive in memory of its own, and go from there to their place.
struct Sorting {
    gpu: Gpu,
    stream: CudaStream,
    unsorted: CudaBuffer,
}

impl Sorting {
    /// With room for the largest layer that is to be sorted.
    fn new(gpu: &Gpu, plans: &[LayerPlan]) -> Result<Self> {
        let sorted = plans.iter().filter(|plan| plan.is_sorted());
        let most = sorted.map(LayerPlan::qweight_bytes).max().unwrap_or(0);
        let unsorted = gpu.allocate_buffer(most).map_err(|error| match error {
            Error::OutOfMemory { device, needed, available, remedy, .. } => {
                let what = "sorting the rows of act-order layers, after all layers had their memory,".into();
                Error::OutOfMemory { device, what, needed, available, remedy }
            }
            other => other,
        })?;
        Ok(Self { gpu: gpu.clone(), stream: CudaStream::new(gpu)?, unsorted })
    }

    /// Brings the words of `layer` to where `tensors` has them, its rows in the order of groups.
    fn sort(&mut self, kernels: &Kernels, layer: &QuantLinear, tensors: &Tensors) -> Result<()> {
        self.gpu.upload(layer.qweight().as_bytes(), &mut self.unsorted, 0)?;
        let kernel = SortKernel::load(kernels, layer.info().bits, layer.info().packing)?;
        // SAFETY: the words have arrived, and the stream is waited for before others do.
        unsafe { kernel.sort(&self.stream, tensors, self.unsorted.address()) }?;
        self.stream.synchronize()
    }
}

impl Backend for CudaBackend {
    fn convert_format(&mut self, layer: &mut QuantLinear) -> Result<Outcome> {
        layer.convert_zeros(ZeroEncoding::V2);
        Ok(Outcome::Done)
    }

    fn init_buffers(&mut self, layers: &mut LayerSource<'_>) -> Result<Vec<(LayerId, Box<dyn Linear>)>> {
        let matmul = self.matmul.take().ok_or_else(|| Error::Backend {
            backend: ID,
            message: "init_buffers was called twice; open the backend again".into(),
            source: None,
        })?;
        let (plans, ends) = Self::plan(layers);
        let mut memory = self.gpu.allocate_model(layers, &ends)?;
        let mut sorting = Sorting::new(&self.gpu, &plans)?;
        let base = memory.address();
        let mut ready = Vec::with_capacity(plans.len());
        let mut sets: Vec<((Bits, Packing), KernelSet)> = Vec::new();
        let mut start = 0;
        for (plan, end) in plans.iter().zip(ends) {
            let Some((id, layer)) = layers.next_layer() else { break };
            plan.contents(&layer, |place, bytes| self.gpu.upload(bytes, &mut memory, place.offset))?;
            let tensors = plan.tensors(&layer, base);
            if plan.is_sorted() {
                sorting.sort(&self.kernels, &layer, &tensors)?;
            }
            let format = (layer.info().bits, layer.info().packing);
            let kernels = match sets.iter().find(|(known, _)| *known == format) {
                Some((_, set)) => Arc::clone(set),
                None => {
                    let set = self.kernels_for(format.0, format.1)?;
                    sets.push((format, Arc::clone(&set)));
                    set
                }
            };
            ready.push((id, tensors, layer.info().clone(), kernels, end - start));
            start = end;
        }
        drop(sorting);
        let x_dtypes = x_dtypes(self.gpu.info().compute_capability);
        let most_panel_bytes = self.most_panel_bytes;
        let shared =
            Arc::new(Shared { gpu: self.gpu.clone(), matmul, x_dtypes, most_panel_bytes, _memory: memory });
        let (ids, linears): (Vec<LayerId>, Vec<CudaLinear>) = ready
            .into_iter()
            .map(|(id, tensors, info, kernels, resident_bytes)| {
                let shared = Arc::clone(&shared);
                let dense_from = match &self.dense_rows {
                    Some(rows) => rows.of(tensors.in_features, tensors.out_features),
                    None => Some(measured_dense_from(&tensors)),
                };
                (id, CudaLinear { info, tensors, dense_from, kernels, shared, resident_bytes })
            })
            .unzip();
        self.scratch_bytes = linears.iter().map(CudaLinear::scratch_bytes).max().unwrap_or(0);
        try_calls(&self.gpu, self.scratch_bytes, linears.iter().map(CudaLinear::trial))?;
        let boxed = linears.into_iter().map(|linear| Box::new(linear) as Box<dyn Linear>);
        Ok(ids.into_iter().zip(boxed).collect())
    }

    fn set_max_input_length(&mut self, _rows: usize) -> Result<Outcome> {
        Ok(Outcome::NotNeeded(
            "rows of x need no room of their own; the dense matrix is cut into panels that fit the scratch"
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
