//! What this machine can do at most: the denominators of benchmarks.
//!
//! A kernel's time means little by itself. Beside the rate at which the same threads read memory, and the rate at
//! which they multiply what lies in registers, it says how much is left to win. Both change with load, clock and
//! neighbours, so that they are measured in the run that they judge.
//!
//! Rates are those of all threads of the current rayon pool together.

use std::hint::black_box;
use std::time::{Duration, Instant};

use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
mod x86;

/// Bytes that are read at once and timed together: long beside waking a thread, short beside other work on the machine.
const PIECE_BYTES: usize = 32 << 20;
/// How long one measurement of a multiplication rate takes. It is made of short looks, of which the best counts: a thread
/// that other work interrupts is no slower at multiplying.
const MULTIPLY_TIME: Duration = Duration::from_millis(20);

/// A way of reading words, which answers something that depends on all of them.
type Loop = fn(&[u64]) -> u64;

/// Threads of the current pool.
pub fn threads() -> usize {
    rayon::current_num_threads()
}

/// Memory to read, larger than any cache.
pub struct ReadBandwidth {
    words: Vec<u64>,
}

impl ReadBandwidth {
    /// Memory of `bytes` bytes, written once. 1 GB or more measures memory, not caches.
    pub fn new(bytes: usize) -> Self {
        Self { words: vec![1; bytes / size_of::<u64>()] }
    }

    /// Bytes a second: of several loops the one that is fastest, each by the median of its pieces.
    pub fn measure(&self) -> f64 {
        loops().into_iter().map(|read| self.rate(read)).fold(0.0, f64::max)
    }

    fn rate(&self, read: Loop) -> f64 {
        let threads = rayon::current_num_threads();
        let mut rates: Vec<f64> = self
            .words
            .chunks(PIECE_BYTES / size_of::<u64>())
            .map(|piece| {
                let started = Instant::now();
                let parts = piece.par_chunks(piece.len().div_ceil(threads)).with_max_len(1);
                black_box(parts.map(read).reduce(|| 0, |a, b| a ^ b));
                size_of_val(piece) as f64 / started.elapsed().as_secs_f64()
            })
            .collect();
        rates.sort_by(f64::total_cmp);
        rates.get(rates.len() / 2).copied().unwrap_or(0.0)
    }
}

impl std::fmt::Debug for ReadBandwidth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ReadBandwidth over {} bytes", size_of_val(&self.words[..]))
    }
}

/// What is multiplied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Multiplication {
    /// `sum + a · b` in f32.
    F32,
    /// `sum + a₀ · b₀ + a₁ · b₁`, pairs of bf16 and a sum in f32.
    Bf16Pairs,
}

/// Operations a second (two for a product and its sum) with all operands in registers, in the widest instructions that
/// this crate's kernels use on this processor. `None` where it has none for that.
pub fn multiply_rate(what: Multiplication) -> Option<f64> {
    let (run, operations) = multiplier(what)?;
    let threads = rayon::current_num_threads();
    let rates: Vec<f64> = rayon::broadcast(|_| {
        let (started, mut best) = (Instant::now(), 0.0f64);
        while started.elapsed() < MULTIPLY_TIME {
            let look = Instant::now();
            black_box(run(ROUNDS));
            best = best.max(operations / look.elapsed().as_secs_f64());
        }
        best
    });
    debug_assert_eq!(rates.len(), threads, "every thread of the pool");
    Some(rates.iter().sum())
}

/// Rounds of multiplications between two looks at the clock.
const ROUNDS: usize = 10_000;

/// A loop of so many rounds of multiplications, and the operations in all of them.
type Multiplier = (fn(usize) -> f32, f64);

fn multiplier(what: Multiplication) -> Option<Multiplier> {
    #[cfg(target_arch = "x86_64")]
    if let Some(found) = x86::multiplier(what) {
        return Some(found);
    }
    (what == Multiplication::F32).then_some((multiply_plain, (ROUNDS * PLAIN_SUMS * 2) as f64))
}

const PLAIN_SUMS: usize = 48;

/// As many sums as keep the units of a processor without further instructions busy.
fn multiply_plain(rounds: usize) -> f32 {
    let (mut sums, factor) = ([0.5f32; PLAIN_SUMS], black_box(0.999_f32));
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = *sum * factor + 0.001;
        }
    }
    sums.iter().sum()
}

fn loops() -> Vec<Loop> {
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut, reason = "other processors have these alone"))]
    let mut loops: Vec<Loop> = vec![read_plain, |words| read_two_streams(words, read_plain)];
    #[cfg(target_arch = "x86_64")]
    loops.extend(x86::loops());
    loops
}

fn read_plain(words: &[u64]) -> u64 {
    words.iter().fold(0, |sum, word| sum ^ word)
}

/// Two places at once, a page of each in turn.
fn read_two_streams(words: &[u64], read: Loop) -> u64 {
    const PAGE: usize = 4096 / size_of::<u64>();
    let (low, high) = words.split_at(words.len() / 2);
    low.chunks(PAGE).zip(high.chunks(PAGE)).fold(0, |sum, (low, high)| sum ^ read(low) ^ read(high))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_loop_reads_every_word_once() {
        let words: Vec<u64> =
            (0..3 * 4096 + 40).map(|i: u64| i.wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect();
        let expected = words.iter().fold(0, |sum, word| sum ^ word);
        for (index, read) in loops().into_iter().enumerate() {
            assert_eq!(read(&words), expected, "loop {index}");
        }
    }

    #[test]
    fn rates_are_positive_numbers() {
        assert!(ReadBandwidth::new(1 << 16).measure() > 0.0);
        assert!(multiply_rate(Multiplication::F32).is_some_and(|rate| rate.is_finite() && rate > 0.0));
    }
}
