//! Whether this machine's GPU, driver and libraries do what this crate counts on. Prints one line for each check:
//!
//! ```sh
//! cargo xtask build-kernels --family crates/kernel-build/tests/data/scale
//! GPTQ_KERNELS_DIR=kernels/out cargo run --release -p gptq-cuda --example smoke
//! ```

mod checks;
mod params;

use std::process::ExitCode;

use gptq_cuda::Gpu;

fn main() -> ExitCode {
    let gpu = match Gpu::open(0) {
        Ok(gpu) => gpu,
        Err(rejection) => {
            println!("FAIL open: {rejection}");
            return ExitCode::FAILURE;
        }
    };
    println!("{:?}", gpu.info());
    let mut failures = 0;
    for (name, check) in checks::ALL {
        match check(&gpu) {
            Ok(note) => println!("PASS {name}: {note}"),
            Err(error) => {
                failures += 1;
                println!("FAIL {name}: {error}");
            }
        }
    }
    println!("{} checks, {failures} failed", checks::ALL.len());
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
