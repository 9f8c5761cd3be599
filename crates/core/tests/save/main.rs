//! Saving: what comes out is what went in, in the format asked for, whole or not at all.

#![allow(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests"
)]

mod configs;
mod finalized;
mod formats;
mod killed;
mod output;
mod real;
mod side_files;
mod source;
