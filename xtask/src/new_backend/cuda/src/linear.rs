//! A layer on the GPU, and its launch.

use std::sync::Arc;

use gptq_core::backend::Linear;
use gptq_core::device::{Context, Device, DeviceBuffer, Memory};
use gptq_core::post_init::check_forward;
use gptq_core::tensor::{DType, TensorMut, TensorRef};
use gptq_core::{Error, LayerInfo, QuantLinear, Result};
use gptq_cuda::{CudaBuffer, CudaStream, Gpu, Kernel, Launch};

use crate::params::{MyBackendParams, THREADS, dtype_code};

/// A layer's tensors as files hold them, on the GPU.
pub(crate) struct MyBackendLinear {
    info: LayerInfo,
    device: Device,
    kernel: Arc<Kernel<MyBackendParams>>,
    qweight: CudaBuffer,
    qzeros: CudaBuffer,
    scales: CudaBuffer,
    bias: Option<(CudaBuffer, DType)>,
    // Parameters of every launch.
    in_features: u32,
    out_features: u32,
    group_rows: u32,
}

impl MyBackendLinear {
    pub(crate) fn upload(
        gpu: &Gpu,
        kernel: &Arc<Kernel<MyBackendParams>>,
        layer: &QuantLinear,
    ) -> Result<Self> {
        let buffer = |bytes: &[u8]| {
            let mut buffer = gpu.allocate_buffer(bytes.len())?;
            gpu.upload(bytes, &mut buffer, 0)?;
            Ok::<_, Error>(buffer)
        };
        let zeros: Vec<u8> = layer
            .zeros()
            .words()
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        let bias = layer
            .bias()
            .map(|bias| Ok::<_, Error>((buffer(bias.as_bytes())?, bias.dtype())));
        let info = layer.info();
        Ok(Self {
            device: gpu.device(),
            kernel: Arc::clone(kernel),
            qweight: buffer(layer.qweight().as_bytes())?,
            qzeros: buffer(&zeros)?,
            scales: buffer(layer.scales().as_bytes())?,
            bias: bias.transpose()?,
            in_features: counted(info.in_features, "in_features")?,
            out_features: counted(info.out_features, "out_features")?,
            group_rows: counted(
                info.group_size.rows(info.in_features).min(info.in_features),
                "group size",
            )?,
            info: info.clone(),
        })
    }
}

impl Linear for MyBackendLinear {
    fn forward(
        &self,
        x: &TensorRef<'_>,
        out: &mut TensorMut<'_>,
        context: &mut Context,
    ) -> Result<()> {
        // The launch below is safe because of what this checks.
        check_forward(&self.info, &self.device, &[DType::F16], x, out, context)?;
        let rows = counted(x.shape()[0], "rows of x")?;
        let params = MyBackendParams {
            x: gptq_cuda::address(x)?,
            out: gptq_cuda::address_mut(out)?,
            qweight: self.qweight.address(),
            qzeros: self.qzeros.address(),
            scales: self.scales.address(),
            bias: self.bias.as_ref().map_or(0, |(bias, _)| bias.address()),
            in_features: self.in_features,
            out_features: self.out_features,
            group_rows: self.group_rows,
            scale_dtype: dtype_code(self.info.scale_dtype),
            bias_dtype: dtype_code(self.bias.as_ref().map_or(DType::F32, |(_, dtype)| *dtype)),
            unused: 0,
        };
        let found = context.device();
        let (stream, _scratch) = context.on_device().ok_or_else(|| Error::DeviceMismatch {
            what: "the context".into(),
            found,
            expected: self.device.clone(),
        })?;
        let launch = Launch::new(
            [rows, self.out_features.div_ceil(THREADS), 1],
            [THREADS, 1, 1],
        );
        // SAFETY: x is [rows, K] and out is [rows, N], f16 on this device: checked above. The layer's buffers hold what
        // QuantLinear holds, whose shapes are right. The kernel writes to out alone, which is lent to this call.
        unsafe {
            self.kernel
                .launch(CudaStream::of(stream)?, &launch, &params)
        }
    }

    fn resident_bytes(&self) -> usize {
        let bias = self.bias.as_ref().map_or(0, |(bias, _)| bias.len_bytes());
        self.qweight.len_bytes() + self.qzeros.len_bytes() + self.scales.len_bytes() + bias
    }
}

/// A number as the kernel takes it.
fn counted(number: usize, what: &str) -> Result<u32> {
    u32::try_from(number).map_err(|_| Error::Shape {
        what: what.into(),
        found: vec![number],
        expected: format!("at most {}", u32::MAX),
    })
}
