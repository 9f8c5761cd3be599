//! Takes the compiled kernels into the crate, where `cargo xtask build-kernels` has made them and the feature asks for them.

fn main() -> std::io::Result<()> {
    #[cfg(feature = "cuda")]
    gptq_kernel_build::embed("decoder", &["kernels", "../../kernels/out"])?;
    Ok(())
}
