//! Arithmetic on packed words. Knows no file, no device and no backend.
//!
//! A quantized matrix `W [K, N]` (in_features × out_features) is stored as integer codes, packed along K into
//! 32-bit words, with one scale and one zero point for each group of rows and each column:
//!
//! ```text
//! W[k][n] = scales[g][n] · (code[k][n] − zero[g][n])     g = group of row k
//! ```
//!
//! [`packing`] says where a code stands, [`zero_points`] how a zero point is encoded, [`group_index`] which
//! group a row belongs to, [`marlin`] how files of Marlin's format order all of it.

mod bits;
pub mod group_index;
pub mod marlin;
pub mod packing;
pub mod zero_points;

pub use bits::{Bits, GroupSize, Packing};
pub use group_index::{ActOrder, GroupIndex, GroupIndexError, GroupIndexKind};
pub use zero_points::{ZeroDialect, ZeroEncoding, ZeroPoints, ZeroScan};
