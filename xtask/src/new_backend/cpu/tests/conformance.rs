//! The contract of a backend, kept by this one.

gptq_conformance::suite!(my_backend::REGISTRATION);
