//! The kernel of `cargo xtask new-backend --cuda`, held to the oracle.
#![cfg(emulated)]

use std::ffi::c_void;

use gptq_conformance::case::Case;
use gptq_conformance::oracle::Dense;
use gptq_conformance::{Accuracy, Activations, WeightRounding};
use gptq_core::format::{Bits, GroupSize};
use gptq_core::tensor::{DType, Floats};
use gptq_emulator::{Buffer, Kernel, Launch, in_orders};
use half::f16;

#[derive(Clone, Copy)]
#[repr(C)]
struct Params {
    x: *const u16,
    out: *mut u16,
    qweight: *const u32,
    qzeros: *const u32,
    scales: *const c_void,
    bias: *const c_void,
    in_features: u32,
    out_features: u32,
    group_rows: u32,
    scale_dtype: u32,
    bias_dtype: u32,
    unused: u32,
}

/// The bytes of a tensor of scales, and its type as dtype.h numbers it.
fn floats(name: &'static str, values: &Floats) -> (Buffer<u8>, u32) {
    let code = match values.dtype() {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::BF16 => 2,
    };
    (Buffer::input(name, values.as_bytes()), code)
}

#[test]
fn the_product_that_authors_begin_with_is_right() {
    let four = Case { bits: Bits::FOUR, sym: false, ..Case::PLAIN };
    let grouped = |rows| GroupSize::from_config(rows).unwrap();
    for case in [
        Case { in_features: 96, out_features: 136, group_size: grouped(32), bias: true, ..four },
        Case { in_features: 72, out_features: 33, group_size: grouped(32), scale_dtype: DType::BF16, ..four },
        Case { in_features: 64, out_features: 129, scale_dtype: DType::F32, sym: true, ..four },
        Case { in_features: 8, out_features: 1, group_size: grouped(1), ..four },
    ] {
        let built = case.build("layer").unwrap();
        let (layer, dense) = (&built.layer, Dense::of_values(&built.values));
        let (k, n, rows) = (case.in_features, case.out_features, 3);
        let x = Activations::normal([rows, k], DType::F16, 5);
        let x_values: Vec<u16> =
            x.to_bytes().chunks_exact(2).map(|two| u16::from_ne_bytes([two[0], two[1]])).collect();
        let out = in_orders(0..2, |seed| {
            let (x, out) = (Buffer::input("x", &x_values), Buffer::<u16>::output("out", rows * n));
            let qweight = Buffer::input("qweight", layer.qweight());
            let qzeros = Buffer::input("qzeros", layer.zeros().words());
            let (scales, scale_dtype) = floats("scales", layer.scales());
            let bias = layer.bias().map(|bias| floats("bias", bias));
            let count = |number: usize| u32::try_from(number).unwrap();
            let launch = Launch {
                kernel: Kernel::named("gptq_my_backend_product_b4_f16")?,
                grid: [count(rows), count(n.div_ceil(128)), 1],
                block: [128, 1, 1],
                shared_bytes: 0,
                params: Params {
                    x: x.address(),
                    out: out.address_mut(),
                    qweight: qweight.address(),
                    qzeros: qzeros.address(),
                    scales: scales.address().cast(),
                    bias: bias.as_ref().map_or(std::ptr::null(), |(bias, _)| bias.address().cast()),
                    in_features: count(k),
                    out_features: count(n),
                    group_rows: count(case.group_size.rows(k)),
                    scale_dtype,
                    bias_dtype: bias.as_ref().map_or(0, |(_, dtype)| *dtype),
                    unused: 0,
                },
            };
            launch.run(seed)?;
            Ok(out.to_vec())
        });
        let out = out.unwrap_or_else(|problem| panic!("{case}: {problem}")).unwrap();
        let values: Vec<f64> = out.iter().map(|bits| f16::from_bits(*bits).to_f64()).collect();
        let judged = Accuracy::of(&dense, &x, WeightRounding::Exact, &values);
        assert!(judged.holds(), "{case}: {judged:?}");
    }
}
