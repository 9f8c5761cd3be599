//! The feature `cuda`: tensors and streams of candle's, lent to the backends without a copy.
//!
//! What is arithmetic is tested without the feature, which links CUDA.

#[cfg(feature = "cuda")]
mod linear;
mod queue;
#[cfg(feature = "cuda")]
mod streams;

#[cfg(feature = "cuda")]
pub(crate) use linear::forward;
#[cfg(feature = "cuda")]
pub(crate) use streams::Streams;
