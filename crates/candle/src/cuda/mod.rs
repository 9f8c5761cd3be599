//! The feature `cuda`: tensors and streams of candle's, lent to the backends without a copy.
//!
//! What is arithmetic is tested without the feature, which links CUDA.

#[cfg(feature = "cuda")]
pub(crate) mod kernels;
#[cfg(feature = "cuda")]
mod linear;
mod params;
mod queue;
pub(crate) mod sizes;
#[cfg(feature = "cuda")]
mod streams;

#[cfg(feature = "cuda")]
pub(crate) use linear::{address, address_of_slice, forward};
#[cfg(feature = "cuda")]
pub(crate) use queue::Queue;
#[cfg(feature = "cuda")]
pub(crate) use streams::{Streams, stream_of};
