//! `gptq inspect`: what a checkpoint holds, what is suspicious, and who can run it.

mod config;
mod layers;
mod report;
mod zeros;

use clap::Args;
use gptq_core::tensor::DType;

use crate::args::{OpenArgs, PlanArgs};
use crate::failure::{Failure, Result};
use crate::output::{Console, count};

use report::Inspection;

const LONG: &str = "\
Show what a checkpoint holds, without a GPU and without loading the weights.

  configuration  as it is understood, and from which file
  zero points    stored minus one (file format gptq, v1) or direct (gptq_v2, v2),
                 and what settles it
  g_idx          only a permutation is act-order, whatever desc_act says
  layers         every quantized layer, and the backends that accept it
  backends       why the others refuse
  findings       what is wrong or suspicious

The file format gptq_v2 has nothing to do with GPTQv2, the algorithm.";

const HELP: &str = "\
Examples:
  gptq inspect path/to/model
  gptq inspect path/to/model --summary
  gptq inspect path/to/model --device cuda:0 --dtype f16
  gptq inspect path/to/model --json | jq .zero_points";

/// Show what a checkpoint holds, what is suspicious, and which backends can run it.
#[derive(Args, Debug)]
#[command(long_about = LONG, after_help = HELP)]
pub(crate) struct Inspect {
    #[command(flatten)]
    open: OpenArgs,
    /// Show layers that are alike as one, with numbers in their names replaced by *.
    #[arg(long)]
    summary: bool,
    /// End with exit code 1 where a finding is a warning, or a layer has no backend.
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    plan: PlanArgs,
    /// The type that x will have: f32, f16 or bf16. A backend that would have to narrow it refuses.
    #[arg(long, value_name = "DTYPE", help_heading = "Planning")]
    dtype: Option<DType>,
}

impl Inspect {
    pub(crate) fn run(&self, console: &Console) -> Result<()> {
        let checkpoint = self.open.open_quietly()?;
        let plan = self.plan.request(self.dtype).explain(&checkpoint)?;
        let inspection = Inspection::of(&self.open, &checkpoint, &plan, self.summary);
        console.print(&inspection)?;

        let (warnings, homeless) = (inspection.warnings(), inspection.layers_without_backend());
        if self.strict && warnings + homeless > 0 {
            let mut problems = Vec::new();
            if warnings > 0 {
                problems.push(count(warnings, "warning"));
            }
            if homeless > 0 {
                problems.push(format!("{} without a backend", count(homeless, "layer")));
            }
            let problems = problems.join(", ");
            return Err(Failure::Strict { dir: self.open.dir.clone(), problems });
        }
        Ok(())
    }
}
