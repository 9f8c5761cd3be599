//! Compiles the kernels; needs nvcc and no GPU. Architectures are those that the compiler knows, or those that are named:
//!
//! ```sh
//! cargo run --example build-kernels -- 80 90a
//! ```

use std::error::Error;
use std::path::Path;

use gptq_kernel_build::{Family, Options, Toolchain, build};

fn main() -> Result<(), Box<dyn Error>> {
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let family = Family::new(kernels.join("my_backend")).include(gptq_kernels::include());
    let mut options = Options::new(kernels.join("out"));
    for architecture in std::env::args().skip(1) {
        options.architectures.push(architecture.parse()?);
    }
    let built = build(&Toolchain::find()?, &family, &options)?;
    for (name, kernel) in &built.manifest.kernels {
        for (architecture, resources) in &kernel.resources {
            println!(
                "{name} sm_{architecture}: {} registers",
                resources.registers
            );
        }
    }
    println!("{}", built.fatbin.display());
    Ok(())
}
