//! Takes the compiled kernels into the crate, where `cargo xtask build-kernels` has made them.

fn main() -> std::io::Result<()> {
    gptq_kernel_build::embed("marlin", &["kernels", "../../kernels/out"])
}
