//! Takes the compiled kernels that measure a GPU's memory into the crate, where `cargo xtask build-kernels` has made them.

fn main() -> std::io::Result<()> {
    gptq_kernel_build::embed("limits", &["kernels", "../../kernels/out"])
}
