//! Compiles the kernels as C++ against the emulator. Without a C++ compiler the crate builds empty and its test says
//! what to install: only tests need it.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// The families that are tested: folders of kernels/.
const FAMILIES: [&str; 5] = ["decoder", "dequantize", "exllama_v1", "exllama_v2", "marlin"];

fn main() {
    println!("cargo:rustc-check-cfg=cfg(emulated)");
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let kernels = here.join("..");
    // The kernel that authors of new backends begin with.
    let skeleton = here.join("../../xtask/src/new_backend/cuda/kernels/my_backend");
    println!("cargo:rerun-if-changed={}", skeleton.display());
    for folder in ["include", "runtime", "tests/kernels", "../include", "build.rs"] {
        println!("cargo:rerun-if-changed={}", here.join(folder).display());
    }
    for family in FAMILIES {
        println!("cargo:rerun-if-changed={}", kernels.join(family).display());
    }

    if let Err(error) =
        compiler(&here).file(here.join("runtime/probe.cpp")).try_compile("gptq_emulator_probe")
    {
        println!("cargo:warning=kernels cannot be tested here: no C++17 compiler with _Float16 was found");
        println!("cargo:rustc-env=GPTQ_EMULATOR_MISSING={}", error.to_string().replace('\n', " "));
        return;
    }

    let mut runtime = compiler(&here);
    runtime.opt_level(2).files(sources(&here.join("runtime"), "cpp"));
    runtime.compile("gptq_emulator_runtime");

    let mut emulated = compiler(&here);
    emulated
        .include(kernels.join("include"))
        // A .cu is C++ to this compiler.
        .flag("-xc++")
        // Calls the hooks of runtime/hooks.cpp before each access; the sanitizer's library is not linked.
        .flag("-fsanitize=thread")
        .flag_if_supported("--param=tsan-instrument-func-entry-exit=0")
        // `#pragma unroll` is for nvcc.
        .flag("-Wno-unknown-pragmas")
        .opt_level(1)
        .files(FAMILIES.iter().flat_map(|family| sources(&kernels.join(family), "cu")))
        .files(sources(&here.join("tests/kernels"), "cu"))
        .files(sources(&skeleton, "cu"))
        // Kernels are found by name at run time: no symbol refers to them.
        .link_lib_modifier("+whole-archive")
        .compile("gptq_emulated_kernels");
    println!("cargo:rustc-cfg=emulated");
}

fn compiler(here: &Path) -> cc::Build {
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        .include(here.join("include"))
        .include(here.join("runtime"))
        .define("GPTQ_EMULATOR", None)
        .warnings(true)
        .warnings_into_errors(true)
        // Which products are fused is written in the kernels.
        .flag("-ffp-contract=off")
        // Faults are told with file and line.
        .debug(true);
    build
}

fn sources(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .filter(|path| !path.ends_with("probe.cpp"))
        .collect();
    found.sort();
    found
}
