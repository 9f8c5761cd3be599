//! The loops, with the best instructions that this processor has, against plain arithmetic in f64.

use half::{bf16, f16};

use super::attention::{Head, attend};
use super::dense::multiply_rows;
use super::elementwise::{add, exp, rms_norm, silu_mul, softmax};
use super::isa::{Isa, LANES, Plain, Stored};

/// Values of both signs, exact in every dtype.
fn values(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 37 + seed * 11) % 64) as f32 / 32.0 - 1.0).collect()
}

fn stored<T: Stored>(values: &[f32]) -> Vec<T> {
    values.iter().map(|&value| T::narrow(value)).collect()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

#[track_caller]
fn assert_near(found: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(*found) - expected).abs();
        assert!(
            error <= tolerance * expected.abs().max(1.0),
            "{what}: element {i} is {found}, expected {expected}"
        );
    }
}

fn products_are_right<T: Stored>() {
    for k in [1, 15, 16, 64, 65, 100, 576] {
        for n in [1, 3, 7] {
            for m in 1..=4 {
                let (w, x) = (values(n * k, k), values(m * k, n));
                let mut out = vec![f32::NAN; m * n];
                multiply_rows(&stored::<T>(&w), &x, k, &mut out, n);
                let rows = x.chunks(k).flat_map(|x| w.chunks(k).map(move |w| dot(w, x)));
                assert_near(
                    &out,
                    &rows.collect::<Vec<_>>(),
                    1e-5,
                    &format!("{} K={k} N={n} M={m}", T::DTYPE),
                );
            }
        }
    }
}

#[test]
fn products_with_stored_rows_are_right_for_every_dtype_and_shape() {
    products_are_right::<f32>();
    products_are_right::<f16>();
    products_are_right::<bf16>();
}

#[test]
fn every_f16_is_widened_exactly_on_every_instruction_set() {
    let all: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
    let (chunks, _) = all.as_chunks::<LANES>();
    let one = [1.0];
    for chunk in chunks {
        for (value, widened) in chunk.iter().zip(Plain::widen(chunk)) {
            // A product with one, through whatever this processor has.
            let mut out = [0.0];
            multiply_rows(std::slice::from_ref(value), &one, 1, &mut out, 1);
            let same = |a: f32, b: f32| a == b || a.is_nan() && b.is_nan();
            assert!(
                same(widened, value.to_f32()) && same(out[0], widened),
                "{value:?}: {widened} and {}",
                out[0]
            );
        }
        // The same in the lanes of a vector: all but one are multiplied with zero.
        for lane in 0..LANES {
            if chunk.iter().any(|value| !value.is_finite()) {
                continue;
            }
            let mut x = [0.0; LANES];
            x[lane] = 1.0;
            let mut out = [0.0];
            multiply_rows(chunk, &x, LANES, &mut out, 1);
            assert_eq!(out[0], chunk[lane].to_f32(), "lane {lane}");
        }
    }
}

fn attention_is_right<T: Stored>() {
    for (heads, width, rows) in [(1, 16, 1), (3, 64, 5), (4, 40, 17), (5, 32, 33), (9, 128, 3), (2, 20, 8)] {
        let stride = 2 * width + 3;
        let (q, keys, mixed) = (values(heads * width, 1), values(rows * stride, 2), values(rows * stride, 3));
        let (k, v) = (stored::<T>(&keys), stored::<T>(&mixed));
        let head = |elements| Head { elements, stride, width, rows };
        let (mut out, mut scores) = (vec![f32::NAN; heads * width], vec![0.0; heads * rows]);
        attend(&q, head(&k), head(&v), 0.3, &mut scores, &mut out);
        let mut expected = Vec::new();
        for q in q.chunks(width) {
            let weights: Vec<f64> =
                (0..rows).map(|s| (0.3 * dot(q, &keys[s * stride..][..width])).exp()).collect();
            let total: f64 = weights.iter().sum();
            expected.extend((0..width).map(|i| {
                let products = weights.iter().enumerate().map(|(s, w)| w * f64::from(mixed[s * stride + i]));
                products.sum::<f64>() / total
            }));
        }
        assert_near(&out, &expected, 1e-5, &format!("{}: {heads} heads of {width}, {rows} rows", T::DTYPE));
    }
}

#[test]
fn attention_to_a_strided_cache_is_right_for_every_dtype_and_shape() {
    attention_is_right::<f32>();
    attention_is_right::<f16>();
    attention_is_right::<bf16>();
}

#[test]
fn the_exponential_is_right_to_two_units_in_the_last_place_and_saturates() {
    let mut worst = 0.0f64;
    for step in -87_000..88_000 {
        let x = step as f32 / 1000.0;
        let expected = f64::from(x).exp();
        worst = worst.max((f64::from(exp::<Plain>(x)) / expected - 1.0).abs());
    }
    assert!(worst < 2.0 * f64::from(f32::EPSILON), "off by {worst:.1e}");
    assert_eq!((exp::<Plain>(-100.0), exp::<Plain>(f32::NEG_INFINITY), exp::<Plain>(0.0)), (0.0, 0.0, 1.0));
    assert!(exp::<Plain>(1000.0) > 1e38 && exp::<Plain>(f32::NAN).is_nan());
}

#[test]
fn elementwise_operations_are_right_for_lengths_that_fill_no_vector() {
    for length in [1, 15, 16, 33, 100] {
        let (a, b) = (values(length, 5), values(length, 6));
        let wide = |f: &dyn Fn(f64, f64) -> f64| -> Vec<f64> {
            a.iter().zip(&b).map(|(a, b)| f(f64::from(*a), f64::from(*b))).collect()
        };
        let mut out = vec![f32::NAN; length];
        add(&a, &b, &mut out);
        assert_near(&out, &wide(&|a, b| a + b), 1e-7, "add");
        silu_mul(&a, &b, &mut out);
        assert_near(&out, &wide(&|a, b| a / (1.0 + (-a).exp()) * b), 1e-6, "silu");
        rms_norm(&a, &b, 1e-5, &mut out);
        let scale = (dot(&a, &a) / length as f64 + 1e-5).sqrt();
        assert_near(&out, &wide(&|a, b| a / scale * b), 1e-6, "norm");
        out.copy_from_slice(&a);
        softmax(&mut out, 3.0);
        let total: f64 = a.iter().map(|a| (3.0 * f64::from(*a)).exp()).sum();
        assert_near(&out, &wide(&|a, _| (3.0 * a).exp() / total), 1e-6, "softmax");
    }
}

#[test]
fn a_softmax_of_large_scores_does_not_overflow_and_of_no_numbers_is_none() {
    let mut row = vec![10_000.0, 0.0, -10_000.0, f32::NEG_INFINITY];
    softmax(&mut row, 1.0);
    assert_eq!(row, [1.0, 0.0, 0.0, 0.0]);
    let mut row = vec![0.0, f32::NAN];
    softmax(&mut row, 1.0);
    assert!(row.iter().all(|value| value.is_nan()), "{row:?}");
}
