//! What needs no GPU: where tensors lie, what is refused on machines that have none, or another one.

use gptq_core::backend::Rejection;

use super::kernels::{MOST_IN_FEATURES, splits};

#[test]
fn k_is_split_where_there_are_fewer_columns_than_multiprocessors_can_share() {
    for ([k, n], expected) in [
        ([8192, 28672], 1),
        ([4096, 4096], 1),
        ([11008, 4096], 2),
        ([28672, 1024], 5),
        ([28672, 8192], 1),
        ([41, 33], 1),
    ] {
        assert_eq!(splits(k, n, 132), expected, "{k} x {n}");
    }
    assert_eq!(splits(MOST_IN_FEATURES, 8, 0), 1, "no GPU has no multiprocessors");
}

#[cfg(target_os = "linux")]
mod machines {
    //! Machines that no test machine is: their driver is a small library, made here, and found first by a process.

    use std::path::Path;
    use std::process::Command;
    use std::{env, fs};

    use gptq_cuda::KERNELS_DIR;

    use super::Rejection;
    use crate::cuda::capabilities_with;

    /// A driver with one GPU of a compute capability of its own, and a name.
    fn driver(version: u32, [major, minor]: [u32; 2]) -> String {
        format!(
            r#"
            #include <string.h>
            int cuDriverGetVersion(int *version) {{ *version = {version}; return 0; }}
            int cuInit(unsigned flags) {{ (void)flags; return 0; }}
            int cuDeviceGetCount(int *count) {{ *count = 1; return 0; }}
            int cuDeviceGet(int *device, int ordinal) {{ *device = ordinal; return 0; }}
            int cuDeviceGetName(char *name, int bytes, int device) {{
                (void)device; strncpy(name, "a GPU for tests", bytes); return 0;
            }}
            int cuDeviceTotalMem_v2(unsigned long *bytes, int device) {{ (void)device; *bytes = 1ul << 30; return 0; }}
            int cuDeviceGetAttribute(int *value, int attribute, int device) {{
                (void)device; *value = attribute == 75 ? {major} : attribute == 76 ? {minor} : 8; return 0;
            }}
            "#
        )
    }

    const CHILD: &str = "GPTQ_TEST_SAYS_WHAT_TORCH_ANSWERS";

    /// Runs in a process of its own, below.
    #[test]
    fn child_that_says_what_the_backend_answers() {
        if env::var_os(CHILD).is_some() {
            match capabilities_with(0, None) {
                Ok(can) => println!("answer: ok {:?}", can.x_dtypes),
                Err(Rejection::KernelsMissing { looked_for, remedy }) => {
                    println!("answer: kernels missing {looked_for} {remedy}");
                }
                Err(rejection) => println!("answer: {rejection}"),
            }
        }
    }

    /// What the backend answers where the driver is made of `source`, with the files of `kernels` as `GPTQ_KERNELS_DIR`
    /// and a cuBLASLt made of `cublaslt`.
    fn answer(source: &str, kernels: Option<&Path>, cublaslt: Option<&str>) -> String {
        let folder = tempfile::tempdir().unwrap();
        compile(folder.path(), source, &["libcuda.so", "libcuda.so.1"]);
        let mut child = Command::new(env::current_exe().unwrap());
        child.args([
            "--exact",
            "cuda::tests::machines::child_that_says_what_the_backend_answers",
            "--nocapture",
        ]);
        child.env(CHILD, "1").env("LD_LIBRARY_PATH", folder.path()).env_remove(KERNELS_DIR);
        if let Some(kernels) = kernels {
            child.env(KERNELS_DIR, kernels);
        }
        if let Some(source) = cublaslt {
            compile(folder.path(), source, &["lt.so"]);
        }
        child.env("GPTQ_CUBLASLT", folder.path().join("lt.so"));
        let output = child.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        match text.lines().find_map(|line| line.split_once("answer: ")) {
            Some((_, answer)) => answer.to_owned(),
            None => panic!("the process ended with {}: {output:?}", output.status),
        }
    }

    fn compile(folder: &Path, source: &str, names: &[&str]) {
        let c = folder.join("library.c");
        fs::write(&c, source).unwrap();
        for name in names {
            let mut cc = Command::new("cc");
            let done = cc.args(["-shared", "-fPIC", "-o"]).arg(folder.join(name)).arg(&c).status();
            assert!(done.expect("a C compiler, cc").success(), "{name} does not compile");
        }
    }

    /// A folder with a fatbin of nothing that says that it runs on sm_90a.
    fn kernels_for_hopper() -> tempfile::TempDir {
        let footer = b"sm=90a\nptx=\n";
        let mut bytes = 0xBA55_ED50_u32.to_le_bytes().to_vec();
        bytes.extend([1, 0, 16, 0]);
        bytes.extend(0u64.to_le_bytes());
        bytes.extend(footer);
        bytes.extend((footer.len() as u64).to_le_bytes());
        bytes.extend(b"GPTQFATB");
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("dequantize.fatbin"), bytes).unwrap();
        folder
    }

    /// Every function that is looked up, doing nothing.
    fn cublaslt() -> String {
        let names = [
            "GetVersion",
            "Create",
            "Destroy",
            "MatmulDescCreate",
            "MatmulDescSetAttribute",
            "MatmulDescDestroy",
            "MatrixLayoutCreate",
            "MatrixLayoutDestroy",
            "MatmulPreferenceCreate",
            "MatmulPreferenceSetAttribute",
            "MatmulPreferenceDestroy",
            "MatmulAlgoGetHeuristic",
            "Matmul",
        ];
        names.map(|name| format!("int cublasLt{name}(void) {{ return 0; }}\n")).concat()
    }

    #[test]
    fn a_driver_that_is_too_old_is_told_before_anything_else() {
        let answer = answer(&driver(11_040, [9, 0]), None, None);
        assert!(answer.contains("CUDA 11.4") && answer.contains("525"), "{answer}");
    }

    #[test]
    fn kernels_that_were_not_built_are_missing_with_the_command_that_builds_them() {
        let answer = answer(&driver(13_000, [9, 0]), None, None);
        let command = "cargo xtask build-kernels --family dequantize";
        assert!(answer.starts_with("kernels missing") && answer.contains(command), "{answer}");
    }

    #[test]
    fn a_gpu_that_the_kernels_were_not_built_for_is_told_what_they_run_on() {
        let kernels = kernels_for_hopper();
        let answer = answer(&driver(13_000, [7, 5]), Some(kernels.path()), Some(&cublaslt()));
        assert!(
            answer.contains("7.5") && answer.contains("sm_90a") && answer.contains("--arch 75"),
            "{answer}"
        );
    }

    #[test]
    fn a_machine_without_cublaslt_is_told_how_to_get_it() {
        let kernels = kernels_for_hopper();
        let answer = answer(&driver(13_000, [9, 0]), Some(kernels.path()), None);
        assert!(answer.contains("cuBLASLt") && answer.contains("GPTQ_CUBLASLT"), "{answer}");
    }

    #[test]
    fn a_machine_that_has_everything_is_accepted() {
        let kernels = kernels_for_hopper();
        let answer = answer(&driver(13_000, [9, 0]), Some(kernels.path()), Some(&cublaslt()));
        assert_eq!(answer, "ok [F32, F16, BF16]");
    }
}
