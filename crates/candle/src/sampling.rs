//! From logits to the next token.

use candle_core::Tensor;

use crate::error::{Error, Result};

/// Picks the next token: the likeliest, or one drawn from the distribution.
#[derive(Clone, Debug)]
pub struct Sampler {
    temperature: f64,
    top_p: f64,
    random: SplitMix,
}

impl Sampler {
    /// The likeliest token, always.
    pub fn greedy() -> Self {
        Self::new(0.0, 1.0, 0)
    }

    /// A token drawn after dividing logits by `temperature`, among the likeliest whose probabilities add up to `top_p`.
    /// A temperature of 0 is greedy. The same `seed` draws the same tokens.
    pub fn new(temperature: f64, top_p: f64, seed: u64) -> Self {
        Self { temperature, top_p, random: SplitMix(seed) }
    }

    /// The next token for logits `[vocab_size]`, in f32.
    ///
    /// # Errors
    /// [`Error::NotFinite`] where a logit is no number: activations have overflowed, and any token would be nonsense.
    pub fn sample(&mut self, logits: &Tensor) -> Result<u32> {
        self.sample_from(&logits.to_vec1()?)
    }

    fn sample_from(&mut self, logits: &[f32]) -> Result<u32> {
        let (likeliest, largest) = likeliest(logits)?;
        if self.temperature <= 0.0 || self.temperature.is_nan() {
            return Ok(likeliest);
        }
        let weight = |logit: f32| (f64::from(logit - largest) / self.temperature).exp();
        let total: f64 = logits.iter().map(|&logit| weight(logit)).sum();

        // A token less likely than this is not among those that make up `top_p`, wherever it stands: even all that
        // are like it would not fill what is left.
        let cutoff = if self.top_p < 1.0 { (1.0 - self.top_p) / logits.len() as f64 * total } else { 0.0 };
        let weights = (0u32..).zip(logits).map(|(token, &logit)| (token, weight(logit)));
        let mut candidates: Vec<(u32, f64)> = weights.filter(|(_, weight)| *weight >= cutoff).collect();
        if self.top_p < 1.0 {
            candidates.sort_unstable_by(|a, b| b.1.total_cmp(&a.1));
            let mut sum = 0.0;
            let kept = candidates.iter().take_while(|(_, weight)| {
                let before = sum;
                sum += weight;
                before < self.top_p * total
            });
            let kept = kept.count().max(1);
            candidates.truncate(kept);
        }
        let mut left = self.random.unit() * candidates.iter().map(|(_, weight)| weight).sum::<f64>();
        let drawn = candidates.iter().find(|(_, weight)| {
            left -= weight;
            left < 0.0
        });
        Ok(drawn.or(candidates.last()).map_or(likeliest, |(token, _)| *token))
    }
}

/// The first of the likeliest tokens, and its logit.
fn likeliest(logits: &[f32]) -> Result<(u32, f32)> {
    let mut best = (0, f32::NEG_INFINITY);
    for (token, &logit) in (0u32..).zip(logits) {
        if logit > best.1 {
            best = (token, logit);
        } else if logit.is_nan() {
            return Err(Error::NotFinite);
        }
    }
    if best.1.is_finite() { Ok(best) } else { Err(Error::NotFinite) }
}

/// Random numbers (Steele, Lea and Flood, Fast splittable pseudorandom number generators, 2014).
#[derive(Clone, Debug)]
struct SplitMix(u64);

impl SplitMix {
    /// From 0 to 1, without 1.
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^= bits >> 31;
        (bits >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temperature_of_zero_takes_the_first_of_the_likeliest() {
        let mut sampler = Sampler::greedy();
        assert_eq!(sampler.sample_from(&[0.5, 2.0, 2.0, -1.0]).unwrap(), 1);
        assert_eq!(Sampler::new(f64::NAN, 1.0, 1).sample_from(&[0.0, 1.0]).unwrap(), 1);
    }

    #[test]
    fn tokens_are_drawn_as_often_as_they_are_likely() {
        let logits = [0.1f32, 0.6, 0.3].map(f32::ln);
        let mut sampler = Sampler::new(1.0, 1.0, 42);
        let mut counts = [0; 3];
        for _ in 0..10_000 {
            counts[sampler.sample_from(&logits).unwrap() as usize] += 1;
        }
        for (count, expected) in counts.into_iter().zip([1000.0, 6000.0, 3000.0f64]) {
            assert!((f64::from(count) - expected).abs() < 200.0, "{counts:?}");
        }
    }

    #[test]
    fn top_p_keeps_the_likeliest_that_add_up_to_it_and_at_least_one() {
        let logits = [0.1f32, 0.6, 0.3].map(f32::ln);
        for (top_p, kept) in [(0.0, vec![1]), (0.5, vec![1]), (0.61, vec![1, 2]), (0.95, vec![0, 1, 2])] {
            let mut sampler = Sampler::new(1.0, top_p, 7);
            let mut seen: Vec<u32> = (0..1000).map(|_| sampler.sample_from(&logits).unwrap()).collect();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen, kept, "top_p = {top_p}");
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_tokens() {
        let logits = [0.0f32; 100];
        let draw = |seed| {
            let mut sampler = Sampler::new(0.7, 0.9, seed);
            (0..20).map(|_| sampler.sample_from(&logits).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
    }

    #[test]
    fn logits_that_are_no_numbers_are_an_error_and_not_a_token() {
        for logits in [[0.0, f32::NAN], [f32::NAN, 0.0], [f32::INFINITY, 0.0], [f32::NEG_INFINITY; 2]] {
            let error = Sampler::greedy().sample_from(&logits).unwrap_err();
            assert!(matches!(error, Error::NotFinite), "{logits:?}: {error}");
        }
        assert_eq!(Sampler::greedy().sample_from(&[f32::NEG_INFINITY, 0.0]).unwrap(), 1, "a token ruled out");
    }
}
