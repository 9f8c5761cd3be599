//! `gptq backends`: what this program has, and what this machine can run.

use clap::Args;
use gptq_core::backend::{
    BackendId, Capabilities, OptionSpec, Registration, Registry, Rejection, Speed, ZeroOperand,
};
use gptq_core::device::Device;
use serde::Serialize;

use crate::failure::Result;
use crate::output::{Console, Page, Report};

const HELP: &str = "\
Examples:
  gptq backends                    on the cpu and on the first CUDA device
  gptq backends --device cuda:1    on another device

`auto` asks backends in the order in which they are listed. Asking allocates nothing on a device.";

/// List the backends of this program, what they can run, and whether this machine can run them.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(crate) struct Backends {
    /// A device to ask about: cpu, cuda, cuda:N. Can be given several times.
    #[arg(long = "device", value_name = "DEVICE", default_values = ["cpu", "cuda:0"])]
    devices: Vec<Device>,
}

/// Every backend, highest priority first.
#[derive(Serialize)]
struct Linked {
    backends: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    name: BackendId,
    summary: &'static str,
    priority: i32,
    options: &'static [OptionSpec],
    devices: Vec<Answer>,
}

/// What a backend says to a device.
#[derive(Serialize)]
struct Answer {
    device: Device,
    usable: bool,
    capabilities: Option<Capabilities>,
    rejection: Option<Rejection>,
    /// The rejection in words: what is missing, and what to do.
    reason: Option<String>,
}

impl Backends {
    pub(crate) fn run(&self, console: &Console) -> Result<()> {
        let registry = Registry::linked();
        registry.check()?;
        let backends = registry.iter().map(|registration| self.ask(registration)).collect();
        console.print(&Linked { backends })
    }

    fn ask(&self, registration: &Registration) -> Entry {
        let answer = |device: &Device| {
            let (capabilities, rejection) = match registration.probe(device) {
                Ok(capabilities) => (Some(capabilities), None),
                Err(rejection) => (None, Some(rejection)),
            };
            Answer {
                device: device.clone(),
                usable: capabilities.is_some(),
                reason: rejection.as_ref().map(Rejection::to_string),
                capabilities,
                rejection,
            }
        };
        Entry {
            name: registration.id,
            summary: registration.summary,
            priority: registration.priority,
            options: registration.options,
            devices: self.devices.iter().map(answer).collect(),
        }
    }
}

impl Report for Linked {
    fn write_text(&self, page: &mut Page) {
        for backend in &self.backends {
            page.heading(backend.name);
            let mut fields =
                vec![("what", backend.summary.to_owned()), ("priority", backend.priority.to_string())];
            let options: Vec<String> = backend
                .options
                .iter()
                .map(|option| format!("--option {}.{}=...  {}", backend.name, option.name, option.help))
                .collect();
            fields.push(("options", if options.is_empty() { "none".into() } else { options.join("\n") }));
            let devices: Vec<String> =
                backend.devices.iter().map(|answer| format!("on {}", answer.device)).collect();
            for (label, answer) in devices.iter().zip(&backend.devices) {
                let text = match (&answer.capabilities, &answer.reason) {
                    (Some(capabilities), _) => describe(capabilities),
                    (None, reason) => {
                        format!("not usable: {}", reason.as_deref().unwrap_or("no reason given"))
                    }
                };
                fields.push((label, text));
            }
            page.fields(&fields);
        }
    }
}

fn describe(can: &Capabilities) -> String {
    let yes = |yes: bool, what: &'static str| if yes { what } else { "no" };
    let speed = match can.speed {
        Speed::Native => "near the device's limit",
        Speed::Fallback => "an order of magnitude below the device's limit",
        _ => "at a speed of its own",
    };
    let zeros = match can.zeros {
        ZeroOperand::V1 => "read minus one (v1)",
        ZeroOperand::V2 => "read direct (v2)",
        ZeroOperand::Fixed => "not read: fixed at 2^(bits-1)",
        _ => "read in an encoding of its own",
    };
    let multiple = |of: usize| if of == 1 { "any".to_owned() } else { format!("multiples of {of}") };
    [
        format!("usable, {speed}"),
        format!("bits         {}", list(can.bits)),
        format!("packing      {}", if can.planar { "continuous, planar (gptq_p)" } else { "continuous" }),
        format!("group_size   {}", can.describe_group_sizes()),
        format!("short group  {}", yes(can.short_last_group, "the last group may have fewer rows")),
        format!("zero points  {zeros}; asymmetric: {}", yes(can.asymmetric, "yes")),
        format!(
            "act-order    {}",
            match (can.act_order, can.ragged_groups) {
                (false, _) => "no",
                (true, false) => "yes, in groups of equal size",
                (true, true) => "yes",
            }
        ),
        format!("bias         {}", yes(can.bias, "yes")),
        format!(
            "x            {}{}",
            list(can.x_dtypes),
            if can.rounds_weights { "; weights are rounded to its type first, in some path" } else { "" }
        ),
        format!("scales       {}", list(can.scale_dtypes)),
        format!("K            {}", multiple(can.in_features_multiple)),
        format!("N            {}", multiple(can.out_features_multiple)),
    ]
    .join("\n")
}

fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
