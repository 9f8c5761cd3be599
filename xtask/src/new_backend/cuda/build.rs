//! Takes kernels/out/my_backend.fatbin into the crate, where it was built.

fn main() -> std::io::Result<()> {
    gptq_kernel_build::embed("my_backend", &["kernels/out"])
}
