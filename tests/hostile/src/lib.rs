//! Files that lie: checkpoints built in memory, broken on purpose, written to a directory and opened.
//!
//! [`valid`] builds small checkpoints of every kind. An [`Image`] is such a directory in memory, and lets a test say
//! anything in it, true or not. [`mutate`] breaks one at random from a seed. [`exercise()`] opens what came of it,
//! and runs it where it opens.
//!
//! Everything that is random comes from a seed, so what once went wrong can be repeated.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "this package is nothing but tests and what they share: a panic is how it reports"
)]

mod exercise;
mod image;
mod mutate;
mod place;
mod rng;
pub mod valid;
mod weights;

pub use exercise::{Outcome, exercise, save};
pub use image::{Entry, Image};
pub use mutate::mutate;
pub use place::Place;
pub use rng::Rng;
pub use weights::{Tensor, Weights, assemble};
