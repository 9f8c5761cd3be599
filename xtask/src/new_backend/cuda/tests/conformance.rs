//! The contract of a backend, kept by this one. Without a GPU each test says that it was skipped, and why; with
//! `GPTQ_REQUIRE_DEVICE` set it fails.

gptq_conformance::suite!(my_backend::REGISTRATION, device = "cuda:0");
