//! Every kernel against the plain path.

#![allow(clippy::cast_possible_truncation, reason = "numbers of a test are small")]

use gptq_core::backend::{Linear, Options};
use gptq_core::device::{Context, Device};
use gptq_core::format::packing::words_for;
use gptq_core::format::{Bits, GroupSize, Packing, ZeroEncoding};
use gptq_core::tensor::{DType, Element, Floats, TensorMut, TensorRef};
use gptq_core::{Error, Part, QuantLinear, QuantLinearParts};
use half::{bf16, f16};

use crate::REGISTRATION;
use crate::kernel::Isa;
use crate::linear::TorchLinear;

/// A small generator of well-spread words: SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn word(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 32) as u32
    }

    /// From -1 to 1.
    fn float(&mut self) -> f32 {
        self.word() as f32 / (1u32 << 31) as f32 - 1.0
    }
}

#[derive(Clone, Copy, Debug)]
struct Case {
    bits: Bits,
    packing: Packing,
    symmetric: bool,
    k: usize,
    n: usize,
    group: i64,
    scales: DType,
    act_order: bool,
}

fn layer(case: Case) -> QuantLinear {
    let Case { bits, packing, symmetric, k, n, group, scales, act_order } = case;
    let mut random = Random(u64::from(bits.max_code()) ^ (k * n) as u64);
    let group_size = GroupSize::from_config(group).unwrap();
    let groups = group_size.groups(k);
    let mut words = |count: usize| (0..count).map(|_| random.word()).collect::<Vec<u32>>();
    let qweight = words(words_for(bits, k) * n);
    let qzeros = if symmetric {
        let row = gptq_core::format::packing::pack(&vec![bits.symmetric_zero() as u8; n], bits, packing);
        row.repeat(groups)
    } else {
        words(words_for(bits, n) * groups)
    };
    let values: Vec<f32> = (0..groups * n).map(|_| 0.01 + 0.005 * random.float()).collect();
    let floats = match scales {
        DType::F32 => Floats::from(values),
        DType::F16 => Floats::from(values.iter().map(|v| f16::from_f32(*v)).collect::<Vec<_>>()),
        DType::BF16 => Floats::from(values.iter().map(|v| bf16::from_f32(*v)).collect::<Vec<_>>()),
    };
    let g_idx = act_order.then(|| {
        let mut rows: Vec<i32> = (0..k).map(|row| (row / group_size.rows(k)) as i32).collect();
        for i in (1..k).rev() {
            rows.swap(i, random.word() as usize % (i + 1));
        }
        Part::in_memory(vec![k], rows.into())
    });
    let bias: Vec<f32> = (0..n).map(|_| random.float()).collect();
    QuantLinear::new(QuantLinearParts {
        name: format!("{case:?}").into(),
        bits,
        packing,
        group_size,
        zero_encoding: ZeroEncoding::V2,
        qweight: Part::in_memory(vec![words_for(bits, k), n], qweight.into()),
        qzeros: Part::in_memory(vec![groups, words_for(bits, n)], qzeros.into()),
        scales: Part::in_memory(vec![groups, n], floats),
        g_idx,
        bias: Some(Part::in_memory(vec![n], Floats::from(bias))),
    })
    .unwrap()
}

fn forward<T: Element>(layer: &QuantLinear, isa: Isa, x: &[T], rows: usize) -> Vec<f32> {
    let linear = TorchLinear::new(layer.clone(), isa, true);
    let mut out = vec![T::narrow(f32::NAN); rows * layer.out_features()];
    let mut context = Context::host(linear.scratch_bytes());
    linear
        .forward(
            &TensorRef::host(x, [rows, layer.in_features()]).unwrap(),
            &mut TensorMut::host(&mut out, [rows, layer.out_features()]).unwrap(),
            &mut context,
        )
        .unwrap();
    out.into_iter().map(Element::widen).collect()
}

fn check<T: Element>(layer: &QuantLinear, rows: usize, bound: f64) {
    let mut random = Random(rows as u64);
    check_x::<T>(layer, rows, bound, |_| random.float());
}

fn check_x<T: Element>(layer: &QuantLinear, rows: usize, bound: f64, x: impl FnMut(usize) -> f32) {
    let x: Vec<T> = (0..rows * layer.in_features()).map(x).map(T::narrow).collect();
    let wide: Vec<f32> = x.iter().map(|x| x.widen()).collect();
    let expected = forward::<f32>(layer, Isa::Plain, &wide, rows);
    let norm = expected.iter().map(|e| f64::from(*e).powi(2)).sum::<f64>().sqrt();
    for isa in [Isa::Avx2, Isa::Avx512].into_iter().filter(|isa| isa.is_available()) {
        let found = forward::<T>(layer, isa, &x, rows);
        let squares = expected.iter().zip(&found).map(|(e, f)| f64::from(e - f).powi(2)).sum::<f64>();
        let error = squares.sqrt() / norm;
        assert!(error < bound, "{isa}, {} x {rows}: {error:e} of {}", T::DTYPE, layer.name());
    }
}

fn cases() -> Vec<Case> {
    let base = Case {
        bits: Bits::FOUR,
        packing: Packing::Continuous,
        symmetric: false,
        k: 256,
        n: 96,
        group: 128,
        scales: DType::F16,
        act_order: false,
    };
    let mut cases = Vec::new();
    for bits in Bits::ALL {
        for packing in [Packing::Continuous, Packing::Planar] {
            if packing.supports(bits) {
                for symmetric in [false, true] {
                    cases.push(Case { bits, packing, symmetric, ..base });
                }
            }
        }
    }
    for bits in [Bits::THREE, Bits::FOUR] {
        cases.push(Case { bits, act_order: true, group: 32, ..base });
    }
    for bits in [Bits::THREE, Bits::FOUR, Bits::EIGHT] {
        for (n, k, group, scales) in [
            (8, 64, 32, DType::F32),
            (40, 320, 64, DType::BF16),
            (576, 160, -1, DType::F16),
            (104, 352, 128, DType::F16),
            (64, 384, 192, DType::F16),
            (2 * 512 + 24, 96, 96, DType::F16),
            (1024, 96, 32, DType::F16),
        ] {
            cases.push(Case { n, k, group, scales, bits, ..base });
        }
    }
    cases
}

#[test]
fn every_kernel_agrees_with_the_plain_path() {
    for case in cases() {
        let layer = layer(case);
        for rows in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 25, 32, 33, 41] {
            check::<f32>(&layer, rows, 4e-7);
            check::<f16>(&layer, rows, 3e-4);
            check::<bf16>(&layer, rows, 2.5e-3);
        }
    }
}

#[test]
fn more_rows_than_a_piece_are_run_in_pieces() {
    let layer = layer(cases()[0]);
    for rows in [127, 128, 129, 255, 256, 257, 600] {
        check::<f32>(&layer, rows, 4e-7);
        check::<f16>(&layer, rows, 3e-4);
        check::<bf16>(&layer, rows, 2.5e-3);
    }
}

#[test]
fn x_of_any_size_is_multiplied_with_the_same_accuracy() {
    for case in
        [cases()[0], Case { bits: Bits::EIGHT, ..cases()[0] }, Case { bits: Bits::THREE, ..cases()[0] }]
    {
        let layer = layer(case);
        for rows in [1, 9, 45] {
            let mut random = Random(7);
            for size in [1e-37, 1e-33, 1e-29, 1e-3, 3e4, 1e30] {
                check_x::<f32>(&layer, rows, 6e-7, |_| size * random.float());
            }
            // One value that is far larger than the others, all of one sign, nothing, and the largest of a power of two.
            check_x::<f32>(&layer, rows, 6e-7, |i| if i % 100 == 7 { 3e4 } else { random.float() });
            check_x::<f32>(&layer, rows, 6e-7, |_| 1.0 + 0.01 * random.float());
            check_x::<f32>(&layer, rows, 6e-7, |i| if i % 256 < 128 { 0.0 } else { random.float() });
            check_x::<f32>(&layer, rows, 6e-7, |i| if i % 2 == 0 { 1.999_999_9 } else { -1.999_999_9 });
        }
    }
}

#[test]
fn x_that_is_not_finite_spoils_its_own_row_and_no_other() {
    let layer = layer(cases()[0]);
    let (k, n) = (layer.in_features(), layer.out_features());
    for bad in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
        for rows in [2, 11, 50] {
            let mut random = Random(3);
            let mut x: Vec<f32> = (0..rows * k).map(|_| random.float()).collect();
            x[k + 5] = bad;
            for isa in [Isa::Avx2, Isa::Avx512].into_iter().filter(|isa| isa.is_available()) {
                let out = forward::<f32>(&layer, isa, &x, rows);
                let finite: Vec<usize> =
                    (0..rows).filter(|row| out[row * n..][..n].iter().all(|y| y.is_finite())).collect();
                assert!(out[n..2 * n].iter().all(|y| !y.is_finite()), "{isa}, {bad}");
                assert_eq!(finite.len(), rows - 1, "{isa}, {bad}");
            }
        }
    }
}

#[test]
fn the_bits_of_a_result_do_not_depend_on_the_number_of_threads() {
    for case in
        [Case { k: 2048, n: 1000, ..cases()[0] }, Case { k: 512, n: 5000, symmetric: true, ..cases()[0] }]
    {
        let layer = layer(case);
        for rows in [1, 3, 8, 30, 70] {
            let mut random = Random(5);
            let x: Vec<f32> = (0..rows * case.k).map(|_| random.float()).collect();
            let x16: Vec<bf16> = x.iter().map(|x| bf16::from_f32(*x)).collect();
            let on = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let bits = |out: Vec<f32>| out.into_iter().map(f32::to_bits).collect::<Vec<_>>();
                let isa = Isa::detect();
                pool.install(|| {
                    (
                        bits(forward::<f32>(&layer, isa, &x, rows)),
                        bits(forward::<bf16>(&layer, isa, &x16, rows)),
                    )
                })
            };
            let one = on(1);
            assert!([2, 3, 8].into_iter().all(|threads| on(threads) == one), "{case:?}, {rows} rows");
        }
    }
}

#[test]
fn a_layer_by_itself_refuses_x_and_out_that_do_not_fit_it() {
    // On the fast path and on the plain one.
    for case in [cases()[0], Case { group: 8, ..cases()[0] }] {
        let layer = layer(case);
        let linear = crate::linear(layer.clone(), &Options::default()).unwrap();
        let (k, n) = (layer.in_features(), layer.out_features());
        let mut context = Context::host(1 << 20);
        let mut call = |x: [usize; 2], out: [usize; 2]| {
            let (x_values, mut y) = (vec![1.0f32; x[0] * x[1]], vec![f32::NAN; out[0] * out[1]]);
            let x = TensorRef::host(&x_values, x).unwrap();
            linear.forward(&x, &mut TensorMut::host(&mut y, out).unwrap(), &mut context)
        };
        for (x, out, wrong) in [
            ([2, k / 2], [2, n], "x of layer"),
            ([1, k - 1], [1, n], "x of layer"),
            ([1, 2 * k], [2, n], "x of layer"),
            ([1, k], [1, n - 1], "out of layer"),
            ([1, k], [2, n], "out of layer"),
            ([2, k], [1, 2 * n], "out of layer"),
        ] {
            let refused = call(x, out);
            let said = matches!(&refused, Err(Error::Shape { what, .. }) if what.starts_with(wrong));
            assert!(said, "x {x:?}, out {out:?}: {refused:?}");
        }
        call([2, k], [2, n]).unwrap();
        call([0, k], [0, n]).unwrap();

        let (x, mut y) = (vec![1.0f32; k], vec![f16::NAN; n]);
        let mut out = TensorMut::host(&mut y, [1, n]).unwrap();
        let refused = linear.forward(&TensorRef::host(&x, [1, k]).unwrap(), &mut out, &mut context);
        assert!(matches!(refused, Err(Error::DtypeMismatch { .. })), "out in f16 for x in f32: {refused:?}");
    }
}

#[test]
fn an_option_for_gpus_is_refused_on_the_cpu_and_the_other_way_round() {
    let open = |device: Device, option: &str| {
        let mut options = Options::default();
        options.set_assignment(option).unwrap();
        let refused = (REGISTRATION.open)(&device, &options).err();
        refused.map(|error| error.to_string()).unwrap_or_default()
    };
    let message = open(Device::Cpu, "torch.dense_rows=0");
    assert!(message.contains("torch.dense_rows") && message.contains("means nothing on cpu"), "{message}");
    #[cfg(feature = "cuda")]
    for option in ["torch.isa=plain", "torch.sorted_copy=false"] {
        let message = open(Device::Cuda(3), option);
        assert!(message.contains("torch.") && message.contains("means nothing on cuda:3"), "{message}");
    }
    #[cfg(feature = "cuda")]
    {
        let message = open(Device::Cuda(3), "torch.dense_rows=many");
        assert!(message.contains("torch.dense_rows") && message.contains("`many`"), "{message}");
    }
}
