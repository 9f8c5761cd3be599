//! Remembers the triple that this library was built for: `cc` asks for it to find a host compiler, and outside a
//! build script nothing else tells.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-env=GPTQ_KERNEL_BUILD_HOST={}", std::env::var("TARGET").unwrap_or_default());
}
