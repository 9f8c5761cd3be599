//! The three steps that make a model ready.

use std::sync::Arc;

use gptq_core::backend::{Backend, LayerId, LayerSource, Linear, Options, Outcome, Rejection};
use gptq_core::device::{Device, Memory};
use gptq_core::format::ZeroEncoding;
use gptq_core::{Error, QuantLinear, Result};
use gptq_cuda::{Gpu, Kernel, Kernels};

use crate::linear::MyBackendLinear;
use crate::params::MyBackendParams;

/// What the layers of one model share.
struct MyBackend {
    gpu: Gpu,
    product: Arc<Kernel<MyBackendParams>>,
}

pub(crate) fn open(device: &Device, _options: &Options) -> Result<Box<dyn Backend>> {
    let refused = |rejection: Rejection| Error::Rejected {
        backend: crate::ID,
        subject: format!("on {device}"),
        rejection: Box::new(rejection),
    };
    let Device::Cuda(ordinal) = *device else {
        let supported = "cuda".into();
        return Err(refused(Rejection::DeviceKind {
            device: device.clone(),
            supported,
        }));
    };
    let gpu = Gpu::open(ordinal).map_err(refused)?;
    let image = crate::image().map_err(refused)?;
    let kernels = Kernels::load(&gpu, &image).map_err(refused)?;
    let product = Arc::new(kernels.kernel("gptq_my_backend_product_b4_f16")?);
    Ok(Box::new(MyBackend { gpu, product }))
}

impl Backend for MyBackend {
    fn convert_format(&mut self, layer: &mut QuantLinear) -> Result<Outcome> {
        layer.convert_zeros(ZeroEncoding::V2);
        Ok(Outcome::Done)
    }

    fn init_buffers(
        &mut self,
        layers: &mut LayerSource<'_>,
    ) -> Result<Vec<(LayerId, Box<dyn Linear>)>> {
        let mut ready: Vec<(LayerId, Box<dyn Linear>)> = Vec::new();
        while let Some((id, layer)) = layers.next_layer() {
            ready.push((
                id,
                Box::new(MyBackendLinear::upload(&self.gpu, &self.product, &layer)?),
            ));
        }
        Ok(ready)
    }

    fn set_max_input_length(&mut self, _rows: usize) -> Result<Outcome> {
        Ok(Outcome::NotNeeded(
            "no buffer depends on the number of rows".into(),
        ))
    }

    fn scratch_bytes(&self) -> usize {
        0
    }

    fn memory(&self) -> Option<Arc<dyn Memory>> {
        Some(Arc::new(self.gpu.clone()))
    }
}
