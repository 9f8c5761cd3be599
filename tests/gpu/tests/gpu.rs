//! Everything that is held on a GPU, for every CUDA backend. Names are `BACKEND/GROUP/TEST`; an argument runs those that
//! contain it, `--skip` leaves some out, `--list` lists them.
//!
//! ```sh
//! cargo xtask build-kernels
//! GPTQ_KERNELS_DIR=$PWD/kernels/out cargo test --release -p gptq-tests-gpu
//! ```

use std::process::ExitCode;

use gptq_conformance::checks::{self, CONTRACT, REAL_SIZES};
use gptq_conformance::{Company, Summary, Target, attempt};
use gptq_core::device::Device;
use gptq_cuda::Gpu;
use gptq_tests_golden::golden;
use gptq_tests_gpu::record::{Done, trial};
use gptq_tests_gpu::{goldens, graph, program};
use libtest_mimic::{Arguments, Trial};

/// The device: `cuda:0` where this variable names no other.
const DEVICE: &str = "GPTQ_TEST_DEVICE";

/// The backends: a line for each.
fn targets(device: &str) -> Result<Vec<Target>, String> {
    Ok(vec![
        Target::new(gptq_exllama_v2::REGISTRATION, device)?,
        Target::new(gptq_marlin::REGISTRATION, device)?,
        Target::new(gptq_torch_fallback::REGISTRATION, device)?,
        Target::new(gptq_exllama_v1::REGISTRATION, device)?,
    ])
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One at a time: some look at the memory that is free, and all want the GPU to themselves.
    arguments.test_threads = Some(1);
    let device = std::env::var(DEVICE).unwrap_or_else(|_| "cuda:0".into());
    let targets = match targets(&device) {
        Ok(targets) => targets,
        Err(problem) => {
            eprintln!("error: {problem}");
            return ExitCode::FAILURE;
        }
    };
    let ordinal = match device.parse() {
        Ok(Device::Cuda(ordinal)) => Some(ordinal),
        _ => None,
    };
    // Open until the end: to make its context takes a quarter of a second, and hundreds of models are opened. Where it
    // does not open, each test says why.
    let _open = ordinal.and_then(|ordinal| Gpu::open(ordinal).ok());
    let presence = ordinal.map(|ordinal| trial("gpu/is_there".into(), move || is_there(ordinal)));
    let all = presence.into_iter().chain(targets.iter().flat_map(trials)).collect();
    libtest_mimic::run(&arguments, all).exit_code()
}

/// The option with which a backend calls no kernel of cuBLASLt, where it has one: compute-sanitizer's racecheck breaks those,
/// and its initcheck takes what they write for unwritten.
fn own_kernels_only(target: &Target) -> Option<&'static str> {
    match target.registration().id.as_str() {
        "exllama_v1" => Some("exllama_v1.matmul_recons_thd=0"),
        "exllama_v2" => Some("exllama_v2.dense_rows=0"),
        "marlin" => Some("marlin.dense_rows=0"),
        "torch" => Some("torch.dense_rows=0"),
        _ => None,
    }
}

/// That there is a GPU, and which.
fn is_there(ordinal: usize) -> Result<Done, String> {
    match Gpu::open(ordinal) {
        Ok(gpu) => {
            let info = gpu.info();
            let (memory, driver) = (info.memory_bytes >> 20, info.driver);
            let capability = info.compute_capability;
            Ok(Done::Passed(format!(
                "{}, compute capability {capability}, {memory} MiB, driver for CUDA {driver}",
                info.name
            )))
        }
        Err(rejection) if std::env::var_os("GPTQ_REQUIRE_DEVICE").is_some() => Err(rejection.to_string()),
        Err(rejection) => Ok(Done::Skipped(rejection.to_string())),
    }
}

fn trials(target: &Target) -> Vec<Trial> {
    let mut trials = Trials { target, all: Vec::new() };
    for (name, company, check) in CONTRACT {
        trials.add("contract", name, *company, check);
    }
    for [k, n] in REAL_SIZES {
        trials.add("sizes", &format!("{k}x{n}"), Company::Others, move |target| {
            checks::real_size(target, [k, n])
        });
    }
    const LARGE: [usize; 2] = [4096, 11008];
    trials.add("streams", "two_models_get_calls_by_turns", Company::Others, |target| {
        checks::queued_by_turns_at(target, LARGE)
    });
    trials.add("streams", "two_threads_queue_calls", Company::Others, |target| {
        checks::queued_by_threads_at(target, LARGE)
    });
    trials.add(
        "graph",
        "replays_give_the_bits_of_plain_calls",
        Company::Others,
        graph::replays_give_the_bits_of_plain_calls,
    );
    for name in golden::names() {
        let (of_library, of_program) = (name.clone(), name.clone());
        trials.add("goldens", &name, Company::Others, move |target| goldens::agree(target, &of_library));
        trials.add("goldens", &format!("{name}/program"), Company::Others, move |target| {
            program::agrees_with_golden(target, &of_program)
        });
    }
    trials.add("sample", "few_of_every_kind", Company::Others, checks::few_of_every_kind);
    if let Some(option) = own_kernels_only(target) {
        trials.add("sample", "few_for_own_kernels", Company::Others, move |target| {
            checks::few_of_every_kind(&target.clone().with_options(&[option])?)
        });
    }
    trials.all
}

struct Trials<'t> {
    target: &'t Target,
    all: Vec<Trial>,
}

impl Trials<'_> {
    fn add(
        &mut self,
        group: &str,
        name: &str,
        company: Company,
        check: impl FnOnce(&Target) -> Result<Summary, String> + Send + 'static,
    ) {
        let target = self.target.clone();
        let name = format!("{}/{group}/{name}", target.registration().id);
        self.all.push(trial(name, move || attempt(&target, company, check).map(Done::from)));
    }
}
