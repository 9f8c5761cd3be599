//! The contract of a backend, kept by this one.

gptq_conformance::suite!(gptq_torch_fallback::REGISTRATION);
