//! The contract, one function for each part of it.
//!
//! Each opens models of the backend under test through core's front door, and answers with a message that names the
//! case where something is not as it has to be. [`suite!`](crate::suite) makes a test of each.

mod answers;
mod format;
mod length;
mod sharing;

pub use answers::{
    a_row_of_nan_spoils_no_other, act_order, any_number_of_rows, bias, every_pair_of_factors,
    out_is_written_whole, same_bits_every_time,
};
pub use format::{converting_twice, g_idx_without_order, packed_layers_stay, zero_encodings};
pub use length::{length_changes_between_calls, length_changes_under_threads, little_scratch};
pub use sharing::{dropping_frees, threads_share_a_model, two_models};
