//! `gptq dequantize`: the dense matrix of one layer.

use std::time::Instant;

use clap::Args;
use gptq_core::LayerInfo;
use gptq_core::tensor::DType;
use serde::Serialize;

use crate::args::{OpenArgs, OutputArgs};
use crate::failure::Result;
use crate::output::{Bytes, Console, Page, Report, Seconds};
use crate::tensor_file::NewFile;

const HELP: &str = "\
Example:
  gptq dequantize path/to/model --layer model.layers.0.mlp.up_proj \\
    --output up_proj.safetensors

The file holds one tensor, `weight` [K, N] in f32: weight[k][n] = scale * (code - zero), as it is multiplied in \
y = x . weight. The weight of torch.nn.Linear is its transpose, [N, K]. A bias is not part of it. Nothing is rounded \
where the scales are f16 or bf16. Nothing is finalized first: zero points are read in the encoding in which they are \
stored.";

/// Write the dense f32 matrix of one layer.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(crate) struct Dequantize {
    #[command(flatten)]
    open: OpenArgs,
    /// The layer, by its name in the checkpoint; `gptq inspect` lists them.
    #[arg(long, value_name = "NAME")]
    layer: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// What was written.
#[derive(Serialize)]
struct Dequantized<'a> {
    layer: &'a LayerInfo,
    output: String,
    tensor: &'static str,
    shape: [usize; 2],
    dtype: DType,
    file_bytes: usize,
    seconds: f64,
}

const TENSOR: &str = "weight";

impl Dequantize {
    pub(crate) fn run(&self, console: &Console) -> Result<()> {
        let checkpoint = self.open.open()?;
        let layer = checkpoint.layer(&self.layer)?;
        let file = NewFile::at(&self.output.output, self.output.force)?;

        let started = Instant::now();
        let shape = [layer.in_features(), layer.out_features()];
        let file_bytes = file.write(TENSOR, DType::F32, shape, |file| {
            let mut rows = layer.dequantized_rows();
            let mut row = vec![0.0f32; layer.out_features()];
            for k in 0..layer.in_features() {
                rows.read(k, &mut row);
                file.write_all(bytemuck::cast_slice(&row))?;
            }
            Ok(())
        })?;
        console.print(&Dequantized {
            layer: layer.info(),
            output: self.output.output.display().to_string(),
            tensor: TENSOR,
            shape,
            dtype: DType::F32,
            file_bytes,
            seconds: started.elapsed().as_secs_f64(),
        })
    }
}

impl Report for Dequantized<'_> {
    fn write_text(&self, page: &mut Page) {
        let LayerInfo { bits, group_size, zero_encoding, .. } = self.layer;
        let [k, n] = self.shape;
        page.heading(&self.layer.name);
        page.fields(&[
            ("from", format!("{bits} bits, group_size {group_size}, zero points {zero_encoding}")),
            ("to", format!("{} [{k}, {n}] {} in {}", self.tensor, self.dtype, self.output)),
            ("written", format!("{} in {}", Bytes(self.file_bytes), Seconds(self.seconds))),
        ]);
    }
}
