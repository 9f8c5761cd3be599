//! Builds a small family with the CUDA compiler of this machine. Without one the tests say that they were skipped,
//! unless `GPTQ_REQUIRE_NVCC` is set.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};

use gptq_kernel_build::{AllowedSpill, Architecture, Error, Family, Options, Toolchain, build};

fn toolchain() -> Option<Toolchain> {
    match Toolchain::find() {
        Ok(toolchain) => Some(toolchain),
        Err(missing) if std::env::var_os("GPTQ_REQUIRE_NVCC").is_none() => {
            eprintln!("skipped: {missing}");
            None
        }
        Err(missing) => panic!("{missing}"),
    }
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

fn scale() -> Family {
    Family::new(data().join("scale")).include(data().join("include"))
}

fn options(out: &Path, architectures: &[&str]) -> Options {
    let mut options = Options::new(out);
    options.architectures = architectures.iter().map(|text| text.parse().unwrap()).collect();
    options
}

#[test]
fn a_family_becomes_one_file_with_every_kernel_and_its_cost() {
    let Some(toolchain) = toolchain() else { return };
    let out = tempfile::tempdir().unwrap();
    let built = build(&toolchain, &scale(), &options(out.path(), &["90a", "80"])).unwrap();
    let manifest = &built.manifest;
    let names: Vec<&str> = manifest.kernels.keys().map(String::as_str).collect();
    assert_eq!(names, ["gptq_test_halve_f32", "gptq_test_scale_f32"]);
    for (name, kernel) in &manifest.kernels {
        let architectures: Vec<String> = kernel.resources.keys().map(ToString::to_string).collect();
        assert_eq!(architectures, ["80", "90a"], "{name}");
        assert!(
            kernel.resources.values().all(|r| r.registers > 0 && r.spill_bytes == 0),
            "{name}: {kernel:?}"
        );
    }
    assert_eq!(manifest.ptx.map(|ptx| ptx.to_string()).as_deref(), Some("80"), "90a leaves none");

    let bytes = fs::read(&built.fatbin).unwrap();
    assert_eq!(bytes.len() as u64, manifest.fatbin_bytes);
    assert!(bytes.ends_with(b"GPTQFATB"));
    let json = fs::read_to_string(out.path().join("scale.json")).unwrap();
    assert!(json.contains("\"registers\"") && json.contains(&toolchain.version), "{json}");
    let left: Vec<_> = fs::read_dir(out.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}: the work folder is gone");
}

#[test]
fn a_family_is_built_again_only_when_something_changed() {
    let Some(toolchain) = toolchain() else { return };
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("scale");
    fs::create_dir(&folder).unwrap();
    for file in ["params.h", "scale.cu"] {
        fs::copy(data().join("scale").join(file), folder.join(file)).unwrap();
    }
    let family = Family::new(&folder);
    let out = root.path().join("out");
    let first = options(&out, &["80"]);
    assert!(!build(&toolchain, &family, &first).unwrap().unchanged);
    assert!(build(&toolchain, &family, &first).unwrap().unchanged, "nothing changed");

    let mut header = fs::read_to_string(folder.join("params.h")).unwrap();
    header.push_str("// more\n");
    fs::write(folder.join("params.h"), header).unwrap();
    assert!(!build(&toolchain, &family, &first).unwrap().unchanged, "a header changed");
    assert!(
        !build(&toolchain, &family, &options(&out, &["80", "86"])).unwrap().unchanged,
        "one more architecture"
    );
    fs::write(out.join("scale.fatbin"), b"cut short").unwrap();
    assert!(
        !build(&toolchain, &family, &options(&out, &["80", "86"])).unwrap().unchanged,
        "the fatbin is damaged"
    );
}

#[test]
fn a_kernel_that_spills_fails_until_it_is_allowed_by_name() {
    let Some(toolchain) = toolchain() else { return };
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("spilling");
    fs::create_dir(&folder).unwrap();
    let source = r#"
        extern "C" __global__ void __launch_bounds__(1024) spills(float* p, int n) {
            float r[200];
            #pragma unroll
            for (int i = 0; i < 200; i++) r[i] = p[i + threadIdx.x];
            for (int j = 0; j < n; j++) {
                #pragma unroll
                for (int i = 0; i < 200; i++) r[i] = r[i] * r[(i * 7 + 1) % 200] + 1.0f;
            }
            #pragma unroll
            for (int i = 0; i < 200; i++) p[i + threadIdx.x] = r[i];
        }"#;
    fs::write(folder.join("spills.cu"), source).unwrap();
    let mut family = Family::new(&folder);
    let out = root.path().join("out");
    match build(&toolchain, &family, &options(&out, &["80"])) {
        Err(error @ Error::SlowKernels { .. }) => {
            let text = error.to_string();
            assert!(text.contains("spills (spills.cu, sm_80): spills"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    assert!(!out.join("spilling.fatbin").exists(), "nothing is left of it");
    let reason = "it is here to spill".to_owned();
    family.allowed_spills = vec![AllowedSpill { kernel: "spills".into(), reason: reason.clone() }];
    let built = build(&toolchain, &family, &options(&out, &["80"])).unwrap();
    assert_eq!(built.manifest.allowed_spills["spills"], reason);
}

#[test]
fn what_the_compiler_says_comes_back_with_its_command_line() {
    let Some(toolchain) = toolchain() else { return };
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("wrong.cu"), "__global__ void k() { no_such_name(); }").unwrap();
    let error = build(&toolchain, &Family::new(root.path()), &options(root.path(), &["80"])).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("nvcc") && text.contains("no_such_name") && text.contains("wrong.cu"), "{text}");
}

#[test]
fn an_architecture_that_the_compiler_does_not_know_is_refused_with_those_it_does() {
    let Some(toolchain) = toolchain() else { return };
    let error = build(&toolchain, &scale(), &options(Path::new("unused"), &["11"])).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("sm_11") && text.contains("90a"), "{text}");
    assert!(toolchain.default_architectures().contains(&"80".parse::<Architecture>().unwrap()));
}
