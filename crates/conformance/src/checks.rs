//! The contract, one function for each part of it.
//!
//! Each opens models of the backend under test through core's front door, and answers with a message that names the
//! case where something is not as it has to be. [`suite!`](crate::suite) makes a test of each that is in [`CONTRACT`].

mod answers;
mod declared;
mod format;
mod length;
mod memory;
mod queued;
mod sharing;
mod sizes;

pub use answers::{
    a_row_of_nan_spoils_no_other, act_order, any_alignment, any_number_of_rows, bias, every_pair_of_factors,
    few_of_every_kind, out_is_written_whole, same_bits_every_time,
};
pub use declared::{declared_edges, registration};
pub use format::{converting_twice, g_idx_without_order, packed_layers_stay, zero_encodings};
pub use length::{length_changes_between_calls, length_changes_under_threads, little_scratch};
pub use memory::{dropping_frees, memory_runs_out};
pub use queued::{queued_by_threads, queued_by_turns};
pub use sharing::{threads_share_a_model, two_models};
pub use sizes::{REAL_SIZES, queued_by_threads_at, queued_by_turns_at, real_size};

use crate::target::{Check, Company};

/// Every check of [`suite!`](crate::suite), by the name that its test has, for programs that are their own test harness.
pub const CONTRACT: &[(&str, Company, Check)] = crate::contract!(contract_table);
