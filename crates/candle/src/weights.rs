//! From a finalized model and the plain tensors beside its layers to modules.

use candle_core::{DType, Device, Module, Tensor};
use gptq_core::checkpoint::{Checkpoint, StoredTensor};
use gptq_core::post_init::FinalizedModel;
use gptq_core::tensor::Floats;

use crate::dense::{DenseLinear, Matrix};
use crate::error::{Error, Result};
use crate::packed::{Layers, PackedLinear};

/// A layer, quantized or not.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_enums, reason = "a layer is quantized or it is not")]
pub enum Linear {
    /// Runs from packed weights.
    Packed(PackedLinear),
    /// Runs from plain weights.
    Dense(DenseLinear),
}

impl Linear {
    /// Whether there is a bias.
    pub fn has_bias(&self) -> bool {
        match self {
            Self::Packed(linear) => linear.info().is_ok_and(|info| info.bias),
            Self::Dense(linear) => linear.bias().is_some(),
        }
    }

    /// Bytes of weights that one call reads.
    pub fn weight_bytes(&self) -> usize {
        match self {
            Self::Packed(linear) => linear.info().map_or(0, |info| info.packed_bytes),
            Self::Dense(linear) => linear.weight().bytes(),
        }
    }
}

impl Module for Linear {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Packed(linear) => linear.forward(x),
            Self::Dense(linear) => linear.forward(x),
        }
    }
}

/// Everything that a checkpoint holds, as modules and tensors: what a model is built from.
///
/// Quantized layers come from the finalized model; the rest (embeddings, norms, biases, layers that a rule left in
/// floating point) from the plain tensors of its checkpoint.
#[derive(Clone, Debug)]
pub struct Weights {
    layers: Layers,
    dtype: DType,
    device: Device,
}

impl Weights {
    /// The weights of `model`, for activations of `dtype` on the device on which the model was finalized.
    ///
    /// # Errors
    /// [`DeviceMismatch`](gptq_core::Error::DeviceMismatch) where `device` is another one;
    /// [`DtypeMismatch`](gptq_core::Error::DtypeMismatch) where a backend does not run activations of `dtype`.
    pub fn new(model: FinalizedModel, dtype: DType, device: &Device) -> Result<Self> {
        let found = core_device(device);
        if found != *model.device() {
            return Err(gptq_core::Error::DeviceMismatch {
                what: "the device of the tensors".into(),
                found,
                expected: model.device().clone(),
            }
            .into());
        }
        let x_dtype = core_dtype(dtype)?;
        if let Some(layer) = model.layers().iter().find(|layer| !layer.x_dtypes().contains(&x_dtype)) {
            let expected: Vec<_> = layer.x_dtypes().iter().map(ToString::to_string).collect();
            return Err(gptq_core::Error::DtypeMismatch {
                what: format!("the activations for layer `{}`", layer.name()),
                found: x_dtype,
                expected: expected.join(" or "),
            }
            .into());
        }
        Ok(Self { layers: Layers::new(model), dtype, device: device.clone() })
    }

    /// The finalized layers.
    pub fn layers(&self) -> &Layers {
        &self.layers
    }

    /// The checkpoint that they came from.
    pub fn checkpoint(&self) -> &Checkpoint {
        self.layers.model().checkpoint()
    }

    /// The type of activations.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where tensors live.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Whether there is a layer of this name, quantized or not.
    pub fn has_linear(&self, name: &str) -> bool {
        let checkpoint = self.checkpoint();
        checkpoint.layer_id(name).is_some() || checkpoint.tensor(&format!("{name}.weight")).is_some()
    }

    /// The layer of this name, quantized or not, with its bias where it has one.
    ///
    /// # Errors
    /// [`Error::TensorMissing`] where there is neither; [`Error::WeightShape`] unless it takes `in_features` and
    /// gives `out_features`.
    pub fn linear(&self, name: &str, in_features: usize, out_features: usize) -> Result<Linear> {
        if self.checkpoint().layer_id(name).is_none() {
            let weight = self.matrix(&format!("{name}.weight"), [out_features, in_features])?;
            let bias = format!("{name}.bias");
            let bias = match self.checkpoint().tensor(&bias) {
                Some(_) => Some(self.tensor(&bias, &[out_features])?),
                None => None,
            };
            return Ok(Linear::Dense(DenseLinear::new(weight, bias)));
        }
        let linear = self.layers.linear(name)?;
        let info = linear.info()?;
        let (found, expected) = ([info.in_features, info.out_features], [in_features, out_features]);
        if found != expected {
            let (found, expected) = (found.to_vec(), expected.to_vec());
            return Err(Error::WeightShape { name: name.into(), found, expected });
        }
        Ok(Linear::Packed(linear))
    }

    /// The plain matrix of this name. On the CPU it stays in its file.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn matrix(&self, name: &str, shape: [usize; 2]) -> Result<Matrix> {
        match self.device.is_cpu() {
            true => Ok(Matrix::stored(self.floats(name, &shape)?, shape)),
            false => Ok(Matrix::loaded(self.tensor(name, &shape)?, shape)),
        }
    }

    /// The plain tensor of this name, in the type of activations.
    ///
    /// # Errors
    /// [`Error::TensorMissing`]; [`Error::WeightShape`] unless it has this shape;
    /// [`TensorDtype`](gptq_core::Error::TensorDtype) unless it holds floats.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let floats = self.floats(name, shape)?;
        let mut values = vec![0.0; floats.len()];
        floats.read(0..values.len(), &mut values);
        // Converted here: on a device, f32 would be twice the memory for a moment.
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(self.dtype)?.to_device(&self.device)?)
    }

    fn floats(&self, name: &str, shape: &[usize]) -> Result<Floats> {
        let tensor = self.stored(name)?;
        if tensor.shape() != shape {
            let (found, expected) = (tensor.shape().to_vec(), shape.to_vec());
            return Err(Error::WeightShape { name: name.into(), found, expected });
        }
        let not_floats = || gptq_core::Error::TensorDtype {
            file: tensor.file().into(),
            tensor: name.into(),
            found: format!("{:?}", tensor.dtype()),
            expected: "F32, F16 or BF16".into(),
            hint: "only quantized layers may be stored as integers".into(),
        };
        Ok(tensor.floats().ok_or_else(not_floats)?)
    }

    fn stored(&self, name: &str) -> Result<&StoredTensor> {
        self.checkpoint().tensor(name).ok_or_else(|| Error::TensorMissing { tensor: name.into() })
    }
}

/// The device by core's name.
fn core_device(device: &Device) -> gptq_core::device::Device {
    use candle_core::DeviceLocation;
    match device.location() {
        DeviceLocation::Cpu => gptq_core::device::Device::Cpu,
        DeviceLocation::Cuda { gpu_id } => gptq_core::device::Device::Cuda(gpu_id),
        DeviceLocation::Metal { gpu_id } => gptq_core::device::Device::Other("metal".into(), gpu_id),
    }
}

/// The dtype by core's name.
///
/// # Errors
/// candle's, for a dtype that activations cannot have.
pub(crate) fn core_dtype(dtype: DType) -> candle_core::Result<gptq_core::tensor::DType> {
    match dtype {
        DType::F32 => Ok(gptq_core::tensor::DType::F32),
        DType::F16 => Ok(gptq_core::tensor::DType::F16),
        DType::BF16 => Ok(gptq_core::tensor::DType::BF16),
        other => candle_core::bail!("activations cannot be {other:?}; use f32, f16 or bf16"),
    }
}
