//! The contract of a backend, kept by this one: with the best instructions that the processor has, and with the lesser
//! ones that other processors have.

gptq_conformance::suite!(gptq_torch_fallback::REGISTRATION);

mod plain {
    gptq_conformance::suite!(gptq_torch_fallback::REGISTRATION, options = &["torch.isa=plain"]);
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    gptq_conformance::suite!(gptq_torch_fallback::REGISTRATION, options = avx2());

    /// Where the processor has no AVX2, what it has is tested once more.
    fn avx2() -> &'static [&'static str] {
        let has = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        if has && is_x86_feature_detected!("f16c") { &["torch.isa=avx2"] } else { &[] }
    }
}
