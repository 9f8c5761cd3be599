//! What warps do together, against the PTX manual written out in plain loops.
#![cfg(emulated)]

use gptq_emulator::{Buffer, Kernel, Launch, in_orders};
use half::{bf16, f16};

#[derive(Clone, Copy)]
#[repr(C)]
struct Product {
    a: *const u16,
    b: *const u16,
    c: *mut f32,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Lanes {
    from: *const u32,
    to: *mut u32,
}

#[test]
fn products_of_fragments_are_products_of_matrices() {
    let f16_bits = |value: f32| f16::from_f32(value).to_bits();
    let bf16_bits = |value: f32| bf16::from_f32(value).to_bits();
    for (name, k, bits) in [
        ("f16_k16", 16, &f16_bits as &dyn Fn(f32) -> u16),
        ("f16_k8", 8, &f16_bits),
        ("bf16_k16", 16, &bf16_bits),
        ("bf16_k8", 8, &bf16_bits),
    ] {
        // Small integers, all different enough to tell a transposed or shifted fragment: exact in both types.
        let a = |m: usize, i: usize| ((m * 7 + i * 3) % 11) as f32 - 5.0;
        let b = |i: usize, n: usize| ((i * 5 + n * 2) % 13) as f32 - 6.0;
        let c = |m: usize, n: usize| (m * 8 + n) as f32;
        let a_values: Vec<u16> = (0..16 * k).map(|at| bits(a(at / k, at % k))).collect();
        let b_values: Vec<u16> = (0..8 * k).map(|at| bits(b(at % k, at / k))).collect();
        let c_values: Vec<f32> = (0..128).map(|at| c(at / 8, at % 8)).collect();
        let result = in_orders(0..3, |seed| {
            let (a, b) = (Buffer::input("a", &a_values), Buffer::input("b", &b_values));
            let c = Buffer::in_out("c", &c_values);
            let launch = Launch {
                kernel: Kernel::named(&format!("gptq_test_product_{name}"))?,
                grid: [1, 1, 1],
                block: [32, 1, 1],
                shared_bytes: 0,
                params: Product { a: a.address(), b: b.address(), c: c.address_mut() },
            };
            launch.run(seed)?;
            Ok(c.to_vec())
        });
        let result = result.unwrap_or_else(|problem| panic!("{name}: {problem}")).unwrap();
        for m in 0..16 {
            for n in 0..8 {
                let expected = (0..k).fold(c(m, n), |sum, i| sum + a(m, i) * b(i, n));
                assert_eq!(result[m * 8 + n], expected, "{name}: row {m}, column {n}");
            }
        }
    }
}

#[test]
fn shuffles_votes_and_transposed_matrices_are_those_of_the_manual() {
    let values: Vec<u32> = (0..32).map(|lane| lane * lane + 5).collect();
    let result = in_orders(0..3, |seed| {
        let (from, to) = (Buffer::input("from", &values), Buffer::output("to", 256));
        let launch = Launch {
            kernel: Kernel::named("gptq_test_lanes")?,
            grid: [1, 1, 1],
            block: [32, 1, 1],
            shared_bytes: 0,
            params: Lanes { from: from.address(), to: to.address_mut() },
        };
        launch.run(seed)?;
        Ok(to.to_vec())
    });
    let result = result.unwrap_or_else(|problem| panic!("{problem}")).unwrap();
    // Row r of matrix m, elements of 16 bits: r * 8 + m * 64, low halves of words counted from 0 are 0, 1, 2 ..
    let element = |matrix: usize, row: usize, column: usize| {
        let word = (matrix * 8 + row) * 4 + column / 2;
        if column.is_multiple_of(2) { u32::try_from(word).unwrap_or(u32::MAX) } else { 0 }
    };
    for lane in 0..32usize {
        let (eight, sixteen) = (lane & !7, lane & !15);
        let votes = (0..32).filter(|lane| lane % 3 == 0).fold(0u32, |votes, lane| votes | 1 << lane);
        let (row, pair) = (lane / 4, lane % 4 * 2);
        let expected = [
            values[eight + 3],
            values[if lane - sixteen >= 3 { lane - 3 } else { lane }],
            values[if lane + 5 < sixteen + 16 { lane + 5 } else { lane }],
            values[lane ^ 17],
            votes,
            1,
            element(1, pair, row) | element(1, pair + 1, row) << 16,
            values[if lane < 16 { lane ^ 1 } else { lane ^ 2 }],
        ];
        assert_eq!(result[lane * 8..][..8], expected, "lane {lane}");
    }
}
