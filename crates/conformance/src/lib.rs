//! The contract of a GPTQ backend, as tests that any backend can run.
//!
//! A backend is right when it gives the answer of an oracle that shares no code with it, for every kind of layer that
//! it says it runs, and when it keeps what [`Backend`](gptq_core::backend::Backend) and
//! [`Linear`](gptq_core::backend::Linear) promise to engines: threads, scratch, lengths, memory. A crate that brings a
//! backend proves it with one line in a test file:
//!
//! ```text
//! gptq_conformance::suite!(my_backend::REGISTRATION, device = "cuda:0");
//! ```
//!
//! Everything behind the macro is a plain function, so that one part of the contract can be asked for alone:
//!
//! ```
//! use gptq_conformance::{Target, checks, fake};
//!
//! // A backend and a device; here, one that every machine has.
//! let target = Target::new(fake::NARROW, "fake:0")?;
//! let summary = checks::bias(&target)?;
//! println!("{summary}");
//! # assert!(summary.ran > 0);
//! # Ok::<(), String>(())
//! ```
//!
//! # What there is
//!
//! - [`case`](mod@case): layers of every kind that files hold, made from a seed, with what was packed into them.
//! - [`oracle`]: dequantizes and multiplies in f64, from those values or from the packed words of any layer.
//! - [`Accuracy`]: how far an output may be from the oracle. A ratio to what rounding alone does, not a constant.
//! - [`matrix`]: which cases are run. Every pair of factors, cut to what a backend accepts and filled up again.
//! - [`checks`]: the contract, and [`suite!`], which makes a test of each part.
//! - [`rig`]: a model of such layers and its calls, for checks that a backend adds of its own.
//! - [`fake`]: a device in host memory that finds missing synchronisation, races and leaks every time.
//!
//! # Choices, and their price
//!
//! - **The oracle reads bit by bit** and uses nothing of `gptq_core::format`: a mistake there cannot hide in both. The
//!   price: it is slow, and the layers are small.
//! - **Backends are asked through core's front door**, plan and `post_init` included, so that a backend passes only as
//!   applications will use it.
//! - **A tensor promises the alignment of its element and no more**, as core's do. A kernel with wider loads has to
//!   deal with the rest.
//! - **The same input gives the same bits**, but only for the same M: kernels may change with it.
//!
//! # What it does not promise
//!
//! Nothing is timed. Layers of the suite have at most some thousand rows and columns, so that what goes wrong only at the
//! size of real models is not seen there: hold a backend for a device to [`checks::real_size`] too. A backend that races
//! only when a real device's timing allows it may pass: the fake device finds such faults, a GPU does not show them.

#![forbid(unsafe_code)]

mod accuracy;
pub mod case;
pub mod checks;
mod config;
mod edges;
mod element;
pub mod fake;
mod layout;
pub mod matrix;
pub mod oracle;
mod random;
pub mod rig;
mod suite;
mod target;
mod verify;

pub use accuracy::{Accuracy, Activations, WeightRounding};
pub use target::{Check, Company, Summary, Target, attempt, run};
pub use verify::verify;
