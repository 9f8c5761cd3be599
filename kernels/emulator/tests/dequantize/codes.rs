//! Codes less their zero point, in every type, for every code in every place.

use gptq_core::format::packing::{allows, locate};
use gptq_core::format::{Bits, Packing};
use gptq_emulator::{Buffer, Kernel, Launch};
use half::{bf16, f16};

use crate::layer::format_name;
use crate::{blocks, to_u32};

#[derive(Clone, Copy)]
#[repr(C)]
struct CodesParams {
    words: *const u32,
    zeros: *const u32,
    f16: *mut u16,
    bf16: *mut u16,
    f32: *mut f32,
    runs: *mut u32,
    blocks: u32,
    padding: u32,
}

#[test]
fn codes_less_zero_are_exact_in_every_type_for_every_code_in_every_place() {
    for bits in Bits::ALL {
        for packing in [Packing::Continuous, Packing::Planar] {
            if allows(bits, packing, 32) {
                check(bits, packing);
            }
        }
    }
}

fn check(bits: Bits, packing: Packing) {
    let max = bits.max_code();
    // Block r of a zero point has the codes from r on, so that each code comes to each place.
    let mut layout: Vec<(u32, u32)> = Vec::new();
    let mut zeros = vec![0, 1, max / 2 + 1, max - 1, max];
    zeros.dedup();
    for zero in zeros {
        layout.extend((0..=max).map(|first| (zero, first)));
    }
    let code = |first: u32, i: usize| (first + to_u32(i)) & max;
    let mut words = vec![0u32; layout.len() * bits.get()];
    for (words, (_, first)) in words.chunks_exact_mut(bits.get()).zip(&layout) {
        for i in 0..32 {
            for piece in locate(bits, packing, i).iter() {
                words[piece.word] |= piece.write(code(*first, i));
            }
        }
    }

    let count = layout.len() * 32;
    let words = Buffer::input("words", &words);
    let zeros = Buffer::input("zeros", &layout.iter().map(|(zero, _)| *zero).collect::<Vec<u32>>());
    let (in_f16, in_bf16) = (Buffer::<u16>::output("f16", count), Buffer::<u16>::output("bf16", count));
    let (in_f32, runs) = (Buffer::<f32>::output("f32", count), Buffer::<u32>::output("runs", count));
    let format = format_name(bits, packing);
    let launch = Launch {
        kernel: Kernel::named(&format!("gptq_test_codes_{format}")).expect("there is a kernel"),
        grid: [blocks(layout.len(), 64), 1, 1],
        block: [64, 1, 1],
        shared_bytes: 0,
        params: CodesParams {
            words: words.address(),
            zeros: zeros.address(),
            f16: in_f16.address_mut(),
            bf16: in_bf16.address_mut(),
            f32: in_f32.address_mut(),
            runs: runs.address_mut(),
            blocks: to_u32(layout.len()),
            padding: 0,
        },
    };
    launch.run(1).unwrap_or_else(|fault| panic!("{format}: {fault}"));

    let (in_f16, in_bf16, in_f32, runs) = (in_f16.to_vec(), in_bf16.to_vec(), in_f32.to_vec(), runs.to_vec());
    for (block, (zero, first)) in layout.iter().enumerate() {
        for i in 0..32 {
            let (at, code) = (block * 32 + i, code(*first, i));
            let expected = f64::from(code) - f64::from(*zero);
            let place = || format!("{format}, code {code} in place {i}, zero point {zero}");
            assert_eq!(f64::from(in_f32[at]), expected, "f32, {}", place());
            assert_eq!(f16::from_bits(in_f16[at]).to_f64(), expected, "f16, {}", place());
            assert_eq!(bf16::from_bits(in_bf16[at]).to_f64(), expected, "bf16, {}", place());
            assert_eq!(runs[at], code, "read in a run, {}", place());
        }
    }
}
