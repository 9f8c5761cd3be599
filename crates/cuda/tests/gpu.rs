//! The checks of the example `smoke`, as tests. On a machine without a GPU they say that they were skipped; with
//! `GPTQ_REQUIRE_DEVICE` set they fail there.

#[path = "../examples/smoke/checks.rs"]
mod checks;
#[path = "../examples/smoke/params.rs"]
mod params;

use gptq_cuda::{Gpu, KERNELS_DIR};

#[test]
fn a_gpu_does_what_this_crate_counts_on() {
    let gpu = match Gpu::open(0) {
        Ok(gpu) => gpu,
        Err(rejection) if std::env::var_os("GPTQ_REQUIRE_DEVICE").is_none() => {
            eprintln!("skipped {} checks on a GPU: {rejection}", checks::ALL.len());
            return;
        }
        Err(rejection) => panic!("{rejection}"),
    };
    assert!(
        std::env::var_os(KERNELS_DIR).is_some(),
        "set {KERNELS_DIR}, and build the kernels: cargo xtask build-kernels --family crates/kernel-build/tests/data/scale"
    );
    let failed: Vec<String> = checks::ALL
        .iter()
        .filter_map(|(name, check)| check(&gpu).err().map(|error| format!("{name}: {error}")))
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
