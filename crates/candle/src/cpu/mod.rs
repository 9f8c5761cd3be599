//! Operations on the CPU that candle has not, or not as fast: fused, vectorized, in f32 inside.

pub(crate) mod attention;
pub(crate) mod dense;
pub(crate) mod elementwise;
pub(crate) mod isa;

#[cfg(test)]
mod tests;
