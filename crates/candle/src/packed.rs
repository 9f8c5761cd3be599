//! A finalized layer as a candle module.

use std::fmt;

use candle_core::{CpuStorage, CustomOp1, Layout, Module, Shape, Tensor, bail};
use gptq_core::LayerInfo;
use gptq_core::backend::LayerId;
use gptq_core::post_init::{FinalizedModel, Layer};
use gptq_core::tensor::{Element, TensorMut, TensorRef};

use crate::contexts::Contexts;
use crate::error::Result;
use crate::ops::contiguous;

/// A finalized model whose layers are used as modules, with the contexts that their calls share.
///
/// A call takes a context that no other call uses, and makes one where there is none: threads may run layers of
/// one model side by side. On a GPU it is one on the stream of x's device. Cloning shares both.
#[derive(Clone)]
pub struct Layers {
    contexts: Contexts,
}

impl Layers {
    /// The layers of `model`.
    pub fn new(model: FinalizedModel) -> Self {
        Self { contexts: Contexts::new(model) }
    }

    /// The model.
    pub fn model(&self) -> &FinalizedModel {
        self.contexts.model()
    }

    /// The layer of this name, as a module.
    ///
    /// # Errors
    /// [`NoSuchLayer`](gptq_core::Error::NoSuchLayer), with the most similar name there is.
    pub fn linear(&self, name: &str) -> Result<PackedLinear> {
        // Asked by name for the answer to a wrong one.
        self.model().layer(name)?;
        let index = self.model().checkpoint().layer_id(name).map(LayerId::index).unwrap_or_default();
        Ok(PackedLinear { layers: self.clone(), index })
    }

    /// What the calls share.
    #[cfg(feature = "cuda")]
    pub(crate) fn contexts(&self) -> &Contexts {
        &self.contexts
    }
}

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.model().fmt(f)
    }
}

/// One finalized layer: `y = x · W (+ bias)`, x `[.., in_features]`, y `[.., out_features]` of x's type.
///
/// x is read where it lies, and copied only where it is not contiguous; W stays packed. x may have the types of
/// [`Layer::x_dtypes`]. No gradient flows through it.
///
/// With the feature `cuda` x may be on a GPU: the layer is queued on the stream of x's device, and nothing waits.
#[derive(Clone)]
pub struct PackedLinear {
    layers: Layers,
    index: usize,
}

impl PackedLinear {
    /// The layer behind it.
    ///
    /// # Errors
    /// None that a checkpoint can cause.
    pub(crate) fn layer(&self) -> candle_core::Result<&Layer> {
        match self.layers.model().layers().get(self.index) {
            Some(layer) => Ok(layer),
            None => bail!("the model has no layer {}", self.index),
        }
    }

    /// Its numbers and kinds.
    ///
    /// # Errors
    /// None that a checkpoint can cause.
    pub fn info(&self) -> candle_core::Result<&LayerInfo> {
        Ok(self.layer()?.info())
    }

    fn on_host<T: Element + candle_core::WithDType>(
        &self,
        x: &[T],
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let layer = self.layer()?;
        let (k, n) = (layer.info().in_features, layer.info().out_features);
        let x = contiguous(x, layout)?;
        let (rows, shape) = output_shape(layer, layout)?;
        let mut y = vec![T::zero(); rows * n];
        self.layers
            .contexts
            .with(|context| {
                let x = TensorRef::host(x, [rows, k])?;
                layer.forward(&x, &mut TensorMut::host(&mut y, [rows, n])?, context)
            })
            .map_err(candle_core::Error::wrap)?;
        Ok((T::to_cpu_storage_owned(y), shape))
    }
}

/// How many rows x `[.., in_features]` has, and the shape of `[.., out_features]`.
pub(crate) fn output_shape(layer: &Layer, x: &Layout) -> candle_core::Result<(usize, Shape)> {
    let (k, n) = (layer.info().in_features, layer.info().out_features);
    let mut dims = x.dims().to_vec();
    match dims.last_mut() {
        Some(last) if *last == k => *last = n,
        _ => bail!("x of layer `{}` has shape {dims:?}, expected [.., {k}]", layer.name()),
    }
    Ok((x.shape().elem_count() / k, Shape::from(dims)))
}

impl Module for PackedLinear {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        x.contiguous()?.apply_op1_no_bwd(self)
    }
}

impl CustomOp1 for PackedLinear {
    fn name(&self) -> &'static str {
        "gptq-linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        match x {
            CpuStorage::F32(x) => self.on_host(x, layout),
            CpuStorage::F16(x) => self.on_host(x, layout),
            CpuStorage::BF16(x) => self.on_host(x, layout),
            other => {
                use candle_core::backend::BackendStorage;
                bail!(
                    "x of layer `{}` has dtype {:?}, expected f32, f16 or bf16",
                    self.layer()?.name(),
                    other.dtype()
                )
            }
        }
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        crate::cuda::forward(self.layer()?, &self.layers.contexts, x, layout)
    }
}

impl fmt::Debug for PackedLinear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.layer() {
            Ok(layer) => layer.fmt(f),
            Err(error) => error.fmt(f),
        }
    }
}
