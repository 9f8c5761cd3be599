//! `gptq inspect`: what a checkpoint holds, what is suspicious, and who can run it.

mod config;
mod layers;
mod memory;
mod report;
mod survey;
mod zeros;

use clap::Args;
use gptq_core::checkpoint::Survey;
use gptq_core::tensor::DType;

use crate::args::{OpenArgs, PlanArgs};
use crate::failure::{Failure, Result};
use crate::output::{Console, count};

use report::Inspection;
use survey::Closed;

const LONG: &str = "\
Show what a checkpoint holds, without a GPU and without loading the weights.

  configuration  as it is understood, and from which file
  zero points    stored minus one (file format gptq, v1) or direct (gptq_v2, v2),
                 and what settles it
  g_idx          only a permutation is act-order, whatever desc_act says
  layers         every quantized layer, and the backends that accept it
  backends       why the others refuse
  memory         what each backend that accepts layers would hold of them
  findings       what is wrong, suspicious, or good to know

A directory that does not open is shown as far as it can be read, and the exit code is 1.

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
        let checkpoint = match self.open.open_quietly() {
            Ok(checkpoint) => checkpoint,
            Err(failure) => return Err(self.survey(failure, console)),
        };
        let request = self.plan.request(self.dtype);
        let plan = request.explain(&checkpoint)?;
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

    /// Reports what can be said of a directory that does not open, and why it does not.
    fn survey(&self, failure: Failure, console: &Console) -> Failure {
        let Failure::Core(_) = &failure else { return failure };
        let survey = Survey::of(&self.open.dir, self.open.reading());
        match Closed::of(&self.open, &failure, &survey) {
            None => failure,
            Some(closed) => console.print(&closed).err().unwrap_or(failure),
        }
    }
}
