//! `gptq forward`: one layer, run on a tensor from a file.

use std::path::PathBuf;

use clap::Args;
use gptq_core::backend::{BackendId, PlanReport};
use gptq_core::checkpoint::Checkpoint;
use gptq_core::post_init::{PostInitOptions, post_init};
use gptq_core::tensor::DType;
use gptq_core::{Error, LayerInfo};
use serde::Serialize;

use crate::args::{BackendOptionArgs, OpenArgs, OutputArgs, PlanArgs};
use crate::call::call;
use crate::failure::Result;
use crate::output::{Console, Page, Report, Seconds, count};
use crate::tensor_file::{Matrix, NewFile};

const HELP: &str = "\
Example:
  gptq forward path/to/model --layer model.layers.0.mlp.up_proj \\
    --input x.safetensors --output y.safetensors

The input holds a tensor `x` [M, K] in f32, f16 or bf16; the output gets `y` [M, N] = x . W (+ bias) in the same \
type. M is the number of rows: batch * sequence. Only this layer is planned and finalized, as `gptq finalize` would \
do it. A backend that would have to narrow x's type refuses, and is not chosen.";

/// Run one layer on a tensor from a file.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(crate) struct Forward {
    #[command(flatten)]
    open: OpenArgs,
    /// The layer, by its name in the checkpoint; `gptq inspect` lists them.
    #[arg(long, value_name = "NAME")]
    layer: String,
    /// The safetensors file with the tensor `x` [M, K].
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    plan: PlanArgs,
    #[command(flatten)]
    options: BackendOptionArgs,
}

/// What ran.
#[derive(Serialize)]
struct Ran<'a> {
    layer: &'a LayerInfo,
    backend: BackendId,
    device: String,
    input: String,
    output: String,
    x: Described,
    y: Described,
    /// Of the call alone: from its start until the result is there.
    forward_seconds: f64,
    plan: &'a PlanReport,
}

#[derive(Serialize)]
struct Described {
    shape: [usize; 2],
    dtype: DType,
    /// Infinities and what is no number.
    not_finite: usize,
}

impl Forward {
    pub(crate) fn run(&self, console: &Console) -> Result<()> {
        let options = self.options.options()?;
        let whole = self.open.open()?;
        let packed = whole.layer(&self.layer)?;
        let file = NewFile::at(&self.output.output, self.output.force)?;
        let x = Matrix::read(&self.input, "x")?;
        let [rows, k] = x.shape();
        if k != packed.in_features() {
            return Err(Error::TensorShape {
                file: self.input.clone().into(),
                tensor: "x".into(),
                found: x.shape().to_vec(),
                expected: format!("[M, {}], the in_features of layer `{}`", packed.in_features(), self.layer),
                hint: "check that x is the input of this layer, and not transposed".into(),
            }
            .into());
        }

        // A model of this one layer: the others would only be arranged and thrown away.
        let checkpoint = Checkpoint::from_layers(whole.config().clone(), vec![packed.clone()]);
        let plan = self.plan.request(Some(x.dtype())).plan(&checkpoint)?;
        let options = PostInitOptions {
            backend_options: options,
            max_input_length: Some(rows.max(1)),
            ..Default::default()
        };
        let model = post_init(checkpoint, plan, options)?;
        let layer = model.layer(&self.layer)?;

        let shape = [rows, packed.out_features()];
        let mut y = Matrix::zeros(x.dtype(), shape).ok_or_else(|| Error::TensorBytes {
            what: format!("y of layer `{}`", self.layer),
            problem: format!("{shape:?} has more bytes than can be counted; pass fewer rows"),
        })?;
        let mut context = model.context()?;
        let forward_seconds = call(&model, layer, &x, &mut y, &mut context)?;
        file.write("y", y.dtype(), y.shape(), |file| file.write_all(y.bytes()))?;

        let describe =
            |m: &Matrix| Described { shape: m.shape(), dtype: m.dtype(), not_finite: m.not_finite() };
        console.print(&Ran {
            layer: layer.info(),
            backend: layer.backend(),
            device: model.device().to_string(),
            input: self.input.display().to_string(),
            output: self.output.output.display().to_string(),
            x: describe(&x),
            y: describe(&y),
            forward_seconds,
            plan: model.plan_report(),
        })
    }
}

impl Report for Ran<'_> {
    fn write_text(&self, page: &mut Page) {
        page.heading(&self.layer.name);
        page.fields(&[
            ("ran on", format!("{}, {}, in {}", self.backend, self.device, Seconds(self.forward_seconds))),
            ("x", self.x.text(&self.input)),
            ("y", self.y.text(&self.output)),
        ]);
    }
}

impl Described {
    fn text(&self, file: &str) -> String {
        let [rows, columns] = self.shape;
        let mut text = format!("[{rows}, {columns}] {} in {file}", self.dtype);
        if self.not_finite > 0 {
            text.push_str(&format!("; {} not finite", count(self.not_finite, "value")));
            if self.dtype == DType::F16 {
                text.push_str(" (f16 ends at 65504: try bf16 or f32)");
            }
        }
        text
    }
}
