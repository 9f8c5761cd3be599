//! Attention to the keys in the cache.

use std::ffi::c_void;

use gptq_core::tensor::DType;
use gptq_emulator::{Buffer, Kernel, Launch, in_orders};

use crate::values::{assert_close, from_bytes, input, noise, rounded};
use crate::{SEEDS, THREADS, to_u32};

#[derive(Clone, Copy)]
#[repr(C)]
struct AttendParams {
    q: *const c_void,
    keys: *const c_void,
    values: *const c_void,
    position: *const u32,
    out: *mut c_void,
    partial: *mut f32,
    arrived: *mut u64,
    arrival_mark: u64,
    heads: u32,
    groups: u32,
    width: u32,
    capacity: u32,
    window: u32,
    splits: u32,
    scale: f32,
    reserved: u32,
}

const MARK: u64 = 0x1234_5600;

#[derive(Clone, Copy, Debug)]
struct Case {
    heads: usize,
    groups: usize,
    width: usize,
    capacity: usize,
    position: usize,
    window: usize,
    splits: usize,
}

/// Softmax of q · keys, in f64, times the values that are seen.
fn expected(case: Case, [q, keys, values]: &[Vec<f64>; 3], scale: f64) -> Vec<f64> {
    let Case { heads, groups, width, capacity, position, window, .. } = case;
    let end = position + 1;
    let first = if window == 0 { 0 } else { end.saturating_sub(window) };
    let mut out = Vec::new();
    for head in 0..heads {
        let q = &q[head * width..][..width];
        let row = |of: &[f64], key: usize| {
            of[((head / (heads / groups)) * capacity + key) * width..][..width].to_vec()
        };
        let scores: Vec<f64> = (first..end)
            .map(|key| scale * row(keys, key).iter().zip(q).map(|(key, q)| key * q).sum::<f64>())
            .collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mut sums = vec![0.0; width];
        for (weight, key) in weights.iter().zip(first..end) {
            for (sum, value) in sums.iter_mut().zip(row(values, key)) {
                *sum += weight / total * value;
            }
        }
        out.append(&mut sums);
    }
    out
}

fn check(case: Case, dtype: DType) {
    let Case { heads, groups, width, capacity, position, window, splits } = case;
    let q: Vec<f32> = noise(heads * width, 1).iter().map(|q| q * 4.0).collect();
    // Values are far from zero, so that an error of the weights shows; what lies behind the position would too.
    let of_cache = |seed: usize, add: f32| -> Vec<f32> {
        let mut cache: Vec<f32> =
            noise(groups * capacity * width, seed).iter().map(|value| value + add).collect();
        for row in cache.chunks_mut(capacity * width) {
            row[(position + 1) * width..].fill(1000.0);
        }
        cache
    };
    let (keys, values) = (of_cache(2, 0.0), of_cache(3, 2.0));
    let [of_q, of_keys, of_values] =
        [("q", &q), ("keys", &keys), ("values", &values)].map(|(name, values)| input(name, values, dtype));
    let at = Buffer::input("position", &[to_u32(position)]);
    let scale = 1.0 / (width as f32).sqrt();
    let work = |seed| {
        let out = Buffer::<u8>::output("out", heads * width * dtype.size_bytes());
        let partial = Buffer::<f32>::output("partial", heads * splits * (width + 2));
        // Anything may stand in them before, and the mark does after.
        let arrived = Buffer::in_out("arrived", &vec![0xffff_0000_1111_u64; heads]);
        let params = AttendParams {
            q: of_q.address().cast(),
            keys: of_keys.address().cast(),
            values: of_values.address().cast(),
            position: at.address(),
            out: out.address_mut().cast(),
            partial: partial.address_mut(),
            arrived: arrived.address_mut(),
            arrival_mark: MARK,
            heads: to_u32(heads),
            groups: to_u32(groups),
            width: to_u32(width),
            capacity: to_u32(capacity),
            window: to_u32(window),
            splits: to_u32(splits),
            scale,
            reserved: 0,
        };
        let kernel = Kernel::named(&format!("gptq_decoder_attend_{dtype}"))?;
        let grid = [to_u32(heads), to_u32(splits), 1];
        let launch = Launch { kernel, grid, block: [THREADS, 1, 1], shared_bytes: 0, params };
        launch.run(seed)?;
        let first = out.to_vec();
        // Once more, with what the first has left in the cells.
        launch.run(seed)?;
        assert!(out.to_vec() == first, "{case:?}, {dtype}: two launches give two answers");
        Ok(first)
    };
    let out =
        in_orders(SEEDS, work).unwrap_or_else(|problem| panic!("{case:?}, {dtype}: {problem}")).expect("out");
    let operands = [&q, &keys, &values].map(|values| rounded(values, dtype));
    let expected = expected(case, &operands, f64::from(scale));
    assert_close(&from_bytes(&out, dtype), &expected, dtype, &format!("{case:?}"));
}

const CASE: Case =
    Case { heads: 4, groups: 2, width: 64, capacity: 150, position: 100, window: 0, splits: 1 };

#[test]
fn attention_is_that_of_the_keys_up_to_the_position() {
    for dtype in DType::ALL {
        for position in [0, 1, 63, 149] {
            check(Case { position, ..CASE }, dtype);
        }
        check(Case { heads: 2, groups: 2, width: 128, ..CASE }, dtype);
        check(Case { heads: 3, groups: 1, width: 32, ..CASE }, dtype);
    }
    check(Case { width: 256, heads: 2, groups: 1, ..CASE }, DType::F16);
    check(Case { width: 8, heads: 2, groups: 1, ..CASE }, DType::BF16);
}

#[test]
fn a_window_looks_no_further_back() {
    for window in [1, 30, 101, 1000] {
        check(Case { window, ..CASE }, DType::F16);
        check(Case { window, splits: 3, ..CASE }, DType::F32);
    }
}

#[test]
fn blocks_that_share_the_keys_find_the_same() {
    for dtype in DType::ALL {
        // More blocks than keys leave some without any.
        for (position, splits) in [(100, 2), (100, 7), (0, 3), (4, 8)] {
            check(Case { position, splits, ..CASE }, dtype);
        }
    }
}
