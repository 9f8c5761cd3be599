//! Takes the compiled kernels into the crate, where `cargo xtask build-kernels` has made them.

fn main() -> std::io::Result<()> {
    #[cfg(feature = "cuda")]
    return gptq_kernel_build::embed("dequantize", &["kernels", "../../kernels/out"]);
    #[cfg(not(feature = "cuda"))]
    {
        println!("cargo::rerun-if-changed=build.rs");
        Ok(())
    }
}
