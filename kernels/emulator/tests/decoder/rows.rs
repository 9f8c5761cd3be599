//! Embeddings, norms, the gate, plain layers.

use std::ffi::c_void;
use std::ptr;

use gptq_core::tensor::DType;
use gptq_emulator::{Buffer, Kernel, Launch, in_orders};

use crate::values::{assert_close, from_bytes, input, noise, rounded, to_bytes};
use crate::{SEEDS, THREADS, to_u32};

#[derive(Clone, Copy)]
#[repr(C)]
struct EmbedParams {
    table: *const c_void,
    token: *const u32,
    x: *mut c_void,
    pieces: u32,
    rows: u32,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct NormParams {
    x: *mut c_void,
    delta: *const c_void,
    weight: *const c_void,
    out: *mut c_void,
    width: u32,
    eps: f32,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct GateParams {
    gate: *const c_void,
    up: *const c_void,
    out: *mut c_void,
    pieces: u32,
    reserved: u32,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct DenseParams {
    weight: *const c_void,
    bias: *const c_void,
    x: *const c_void,
    out: *mut c_void,
    in_features: u32,
    out_features: u32,
    out_is_f32: u32,
    reserved: u32,
}

fn launch<P>(name: &str, grid: u32, params: P) -> Launch<P> {
    let kernel = Kernel::named(&format!("gptq_decoder_{name}")).unwrap_or_else(|fault| panic!("{fault}"));
    Launch { kernel, grid: [grid, 1, 1], block: [THREADS, 1, 1], shared_bytes: 0, params }
}

fn pieces(width: usize, dtype: DType) -> usize {
    width * dtype.size_bytes() / 16
}

#[test]
fn a_token_gets_its_row_and_a_wrong_one_reads_nothing_outside() {
    const ROW: usize = 272;
    let table: Vec<u8> = (0..5 * ROW).map(|i| u8::try_from(i * 37 % 251).unwrap()).collect();
    for (token, row) in [(0, 0), (3, 3), (4, 4), (77, 4)] {
        let (from, token) = (Buffer::input("table", &table), Buffer::input("token", &[token]));
        let work = |seed| {
            let x = Buffer::<u8>::output("x", ROW);
            let params = EmbedParams {
                table: from.address().cast(),
                token: token.address(),
                x: x.address_mut().cast(),
                pieces: to_u32(ROW / 16),
                rows: 5,
            };
            launch("embed", 1, params).run(seed)?;
            Ok(x.to_vec())
        };
        let x = in_orders(SEEDS, work).unwrap_or_else(|problem| panic!("{problem}")).expect("a row");
        assert!(x == table[row * ROW..][..ROW], "row {row}");
    }
}

#[test]
fn a_norm_adds_first_and_keeps_the_sum() {
    for dtype in DType::ALL {
        for (width, rows, with_delta) in [(64, 1, false), (256, 3, true), (4096, 1, true), (8200, 2, true)] {
            let case = format!("[{rows}, {width}], delta {with_delta}");
            let (x, delta) = (noise(rows * width, 1), noise(rows * width, 2));
            let weight = noise(width, 3);
            let of_delta = with_delta.then(|| input("delta", &delta, dtype));
            let of_weight = input("weight", &weight, dtype);
            let work = |seed| {
                let kept = Buffer::in_out("x", &to_bytes(&x, dtype));
                let out = Buffer::<u8>::output("out", rows * width * dtype.size_bytes());
                let params = NormParams {
                    x: kept.address_mut().cast(),
                    delta: of_delta.as_ref().map_or(ptr::null(), |delta| delta.address().cast()),
                    weight: of_weight.address().cast(),
                    out: out.address_mut().cast(),
                    width: to_u32(width),
                    eps: 1e-5,
                };
                launch(&format!("norm_{dtype}"), to_u32(rows), params).run(seed)?;
                Ok((kept.to_vec(), out.to_vec()))
            };
            let (kept, out) = in_orders(SEEDS, work)
                .unwrap_or_else(|problem| panic!("{case}, {dtype}: {problem}"))
                .expect("outputs");
            let (kept, out) = (from_bytes(&kept, dtype), from_bytes(&out, dtype));
            let (x, delta) = (rounded(&x, dtype), rounded(&delta, dtype));
            let sums: Vec<f64> =
                x.iter().zip(&delta).map(|(x, delta)| if with_delta { x + delta } else { *x }).collect();
            assert_close(&kept, &sums, dtype, &format!("{case}: x"));
            let weight = rounded(&weight, dtype);
            let expected: Vec<f64> = kept
                .chunks(width)
                .flat_map(|row| {
                    let mean = row.iter().map(|x| x * x).sum::<f64>() / width as f64;
                    row.iter().zip(&weight).map(move |(x, weight)| x / (mean + 1e-5).sqrt() * weight)
                })
                .collect();
            assert_close(&out, &expected, dtype, &case);
        }
    }
}

#[test]
fn a_gate_closes_and_opens() {
    for dtype in DType::ALL {
        let width = 2304;
        let mut gate: Vec<f32> = noise(width, 4).iter().map(|value| value * 8.0).collect();
        // What overflows an exponential.
        (gate[0], gate[1]) = (-200.0, 200.0);
        let up = noise(width, 5);
        let (of_gate, of_up) = (input("gate", &gate, dtype), input("up", &up, dtype));
        let work = |seed| {
            let out = Buffer::<u8>::output("out", width * dtype.size_bytes());
            let pieces = pieces(width, dtype);
            let params = GateParams {
                gate: of_gate.address().cast(),
                up: of_up.address().cast(),
                out: out.address_mut().cast(),
                pieces: to_u32(pieces),
                reserved: 0,
            };
            launch(&format!("gate_{dtype}"), to_u32(pieces).div_ceil(THREADS), params).run(seed)?;
            Ok(out.to_vec())
        };
        let out = in_orders(SEEDS, work).unwrap_or_else(|problem| panic!("{dtype}: {problem}")).expect("out");
        let pairs = rounded(&gate, dtype).into_iter().zip(rounded(&up, dtype));
        let expected: Vec<f64> = pairs.map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up).collect();
        assert_close(&from_bytes(&out, dtype), &expected, dtype, "the gate");
    }
}

#[test]
fn a_plain_layer_is_a_product_with_its_bias_in_either_type() {
    for dtype in DType::ALL {
        for ([n, k], with_bias, wide) in [
            ([16, 64], false, false),
            ([37, 264], true, false),
            ([70, 2048], true, true),
            ([1, 8], false, true),
        ] {
            let case = format!("[{n}, {k}], bias {with_bias}, out in f32 {wide}");
            let out_dtype = if wide { DType::F32 } else { dtype };
            let (weight, x, bias) = (noise(n * k, 6), noise(k, 7), noise(n, 8));
            let of_weight = input("weight", &weight, dtype);
            let (of_x, of_bias) = (input("x", &x, dtype), with_bias.then(|| input("bias", &bias, dtype)));
            let work = |seed| {
                let out = Buffer::<u8>::output("out", n * out_dtype.size_bytes());
                let params = DenseParams {
                    weight: of_weight.address().cast(),
                    bias: of_bias.as_ref().map_or(ptr::null(), |bias| bias.address().cast()),
                    x: of_x.address().cast(),
                    out: out.address_mut().cast(),
                    in_features: to_u32(k),
                    out_features: to_u32(n),
                    out_is_f32: u32::from(wide),
                    reserved: 0,
                };
                launch(&format!("dense_{dtype}"), to_u32(n).div_ceil(16), params).run(seed)?;
                Ok(out.to_vec())
            };
            let out = in_orders(SEEDS, work)
                .unwrap_or_else(|problem| panic!("{case}, {dtype}: {problem}"))
                .expect("out");
            let (weight, x, bias) = (rounded(&weight, dtype), rounded(&x, dtype), rounded(&bias, dtype));
            let expected: Vec<f64> = weight
                .chunks(k)
                .zip(bias)
                .map(|(row, bias)| {
                    let sum: f64 = row.iter().zip(&x).map(|(weight, x)| weight * x).sum();
                    if with_bias { sum + bias } else { sum }
                })
                .collect();
            assert_close(&from_bytes(&out, out_dtype), &expected, out_dtype, &case);
        }
    }
}
