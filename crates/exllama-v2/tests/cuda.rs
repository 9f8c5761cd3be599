//! Every kernel at real size, by the number of rows at which it takes over, the width and the groups. What all backends are
//! held to on a GPU is in tests/gpu.
//!
//! Where there is no GPU the tests say that they are skipped; with `GPTQ_REQUIRE_DEVICE` set they fail.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what fails here fails the test")]

use gptq_conformance::oracle::Dense;
use gptq_conformance::{Accuracy, Activations, Target, WeightRounding};
use gptq_core::device::{Context, DeviceBuffer, Memory};
use gptq_core::format::packing::{pack, words_for};
use gptq_core::format::{Bits, GroupSize, Packing, ZeroEncoding};
use gptq_core::post_init::FinalizedModel;
use gptq_core::tensor::{DType, Floats, TensorMut, TensorRef};
use gptq_core::{Part, QuantLinear, QuantLinearParts};
use gptq_cuda::Gpu;
use half::{bf16, f16};

/// Whether there is a GPU; says so where there is none and none is required.
fn there_is_a_gpu(test: &str) -> bool {
    match Gpu::open(0) {
        Ok(_) => true,
        Err(rejection) => {
            assert!(std::env::var_os("GPTQ_REQUIRE_DEVICE").is_none(), "{test}: {rejection}");
            eprintln!("skipped {test}: {rejection}");
            false
        }
    }
}

/// What a layer is like.
#[derive(Clone, Copy, Debug)]
struct Kind {
    bits: Bits,
    k: usize,
    n: usize,
    group_size: i64,
    symmetric: bool,
    act_order: bool,
    bias: bool,
}

const fn four_bits(k: usize, n: usize) -> Kind {
    Kind { bits: Bits::FOUR, k, n, group_size: 128, symmetric: true, act_order: false, bias: false }
}

/// Well-spread words: SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn word(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 32) as u32
    }

    /// From 0 to 1.
    fn unit(&mut self) -> f32 {
        self.word() as f32 / u32::MAX as f32
    }
}

/// A layer of random codes.
fn layer(kind: Kind) -> QuantLinear {
    let Kind { bits, k, n, group_size, symmetric, act_order, bias } = kind;
    let mut random = Random((k * 31 + n) as u64);
    let group_size = GroupSize::from_config(group_size).unwrap();
    let groups = group_size.groups(k);
    let qweight: Vec<u32> = (0..words_for(bits, k) * n).map(|_| random.word()).collect();
    let mut zero = || match symmetric {
        true => u8::try_from(bits.symmetric_zero()).unwrap(),
        false => u8::try_from(random.word() & bits.max_code()).unwrap(),
    };
    let zeros: Vec<u8> = (0..n).map(|_| zero()).collect();
    let qzeros = pack(&zeros, bits, Packing::Continuous).repeat(groups);
    let scales: Vec<f16> = (0..groups * n).map(|_| f16::from_f32(0.002 + 0.008 * random.unit())).collect();
    let g_idx = act_order.then(|| {
        let mut rows: Vec<i32> = (0..k).map(|row| i32::try_from(row / group_size.rows(k)).unwrap()).collect();
        for last in (1..k).rev() {
            rows.swap(last, random.word() as usize % (last + 1));
        }
        Part::in_memory(vec![k], rows.into())
    });
    let bias = bias.then(|| (0..n).map(|_| f16::from_f32(random.unit() - 0.5)).collect::<Vec<f16>>());
    QuantLinear::new(QuantLinearParts {
        name: "layer".into(),
        bits,
        packing: Packing::Continuous,
        group_size,
        zero_encoding: ZeroEncoding::V2,
        qweight: Part::in_memory(vec![words_for(bits, k), n], qweight.into()),
        qzeros: Part::in_memory(vec![groups, words_for(bits, n)], qzeros.into()),
        scales: Part::in_memory(vec![groups, n], Floats::from(scales)),
        g_idx,
        bias: bias.map(|bias| Part::in_memory(vec![n], Floats::from(bias))),
    })
    .unwrap()
}

fn open(layer: &QuantLinear) -> FinalizedModel {
    let target = Target::new(gptq_exllama_v2::REGISTRATION, "cuda:0").unwrap();
    target.open(vec![layer.clone()], None, None).unwrap()
}

fn uploaded(memory: &dyn Memory, bytes: &[u8]) -> Box<dyn DeviceBuffer> {
    let mut buffer = memory.allocate(bytes.len()).unwrap();
    memory.upload(bytes, &mut *buffer, 0).unwrap();
    buffer
}

/// The bytes of out of a call.
fn forward(model: &FinalizedModel, x: &Activations, context: &mut Context) -> Vec<u8> {
    let memory = model.memory().unwrap();
    let layer = model.layer("layer").unwrap();
    let ([rows, _], n) = (x.shape(), layer.info().out_features);
    let mut bytes = vec![0xff; rows * n * x.dtype().size_bytes()];
    let x_buffer = uploaded(&**memory, &x.to_bytes());
    let mut out_buffer = uploaded(&**memory, &bytes);
    let x = TensorRef::on_device(x.dtype(), x.shape(), &*x_buffer, 0).unwrap();
    let mut out = TensorMut::on_device(x.dtype(), [rows, n], &mut *out_buffer, 0).unwrap();
    layer.forward(&x, &mut out, context).unwrap();
    context.synchronize().unwrap();
    memory.download(&*out_buffer, 0, &mut bytes).unwrap();
    bytes
}

/// Holds out to the oracle in some columns over all of K, and says which part of the bound its error is.
fn judge(what: &str, layer: &QuantLinear, x: &Activations, out: &[u8]) -> f64 {
    let n = layer.out_features();
    let stretches = 48.min(n);
    let columns: Vec<usize> = (0..stretches)
        .map(|i| if i + 1 == stretches { n - 1 } else { i * n / stretches + i % 7 % (n / stretches) })
        .collect();
    let elements = out.chunks_exact(2).map(|two| [two[0], two[1]]);
    let values: Vec<f64> = match x.dtype() {
        DType::BF16 => elements.map(|two| bf16::from_le_bytes(two).to_f64()).collect(),
        _ => elements.map(|two| f16::from_le_bytes(two).to_f64()).collect(),
    };
    let sampled: Vec<f64> =
        values.chunks_exact(n).flat_map(|row| columns.iter().map(|&column| row[column])).collect();
    let dense = Dense::of_layer(layer, &columns).unwrap();
    let accuracy = Accuracy::of(&dense, x, WeightRounding::ToX, &sampled);
    assert!(accuracy.holds(), "{what}: {accuracy:?}");
    accuracy.error / accuracy.bound
}

fn check(test: &str, kinds: &[Kind], calls: &[(DType, usize)]) {
    if !there_is_a_gpu(test) {
        return;
    }
    for kind in kinds {
        let packed = layer(*kind);
        let model = open(&packed);
        let mut context = model.context().unwrap();
        let mut worst = 0.0f64;
        for &(dtype, rows) in calls {
            let x = Activations::normal([rows, kind.k], dtype, rows as u64);
            let what = format!("{kind:?}, x {dtype} [{rows}, K]");
            let out = forward(&model, &x, &mut context);
            assert!(out == forward(&model, &x, &mut context), "{what}: the second call gives other bits");
            worst = worst.max(judge(&what, &packed, &x, &out));
        }
        eprintln!("{kind:?}: {worst:.2} of the bound at worst");
    }
}

/// Around every number of rows at which another kernel takes over.
const CALLS: [(DType, usize); 14] = [
    (DType::F16, 1),
    (DType::F16, 2),
    (DType::F16, 8),
    (DType::F16, 9),
    (DType::F16, 16),
    (DType::F16, 17),
    (DType::F16, 33),
    (DType::F16, 64),
    (DType::F16, 100),
    (DType::F16, 300),
    (DType::BF16, 1),
    (DType::BF16, 5),
    (DType::BF16, 30),
    (DType::BF16, 290),
];

#[test]
fn layers_of_real_size_answer_as_the_oracle_does() {
    let kinds =
        [four_bits(8192, 28672), four_bits(28672, 8192), four_bits(4096, 11008), four_bits(4096, 4096)];
    check("layers of real size", &kinds, &CALLS);
}

#[test]
fn act_order_other_widths_groups_and_biases_are_right_at_real_size() {
    let four = four_bits(4096, 4096);
    let kinds = [
        Kind { act_order: true, bias: true, ..four_bits(11008, 4096) },
        Kind { act_order: true, ..four_bits(28672, 1024) },
        Kind { bits: Bits::EIGHT, act_order: true, ..four_bits(28672, 1024) },
        Kind { symmetric: false, bias: true, ..four },
        Kind { bits: Bits::EIGHT, bias: true, ..four },
        Kind { bits: Bits::EIGHT, symmetric: false, group_size: 32, ..four },
        Kind { bits: Bits::THREE, symmetric: false, ..four },
        Kind { bits: Bits::TWO, group_size: 16, ..four },
        Kind { group_size: 40, ..four_bits(4064, 4000) },
        Kind { group_size: -1, ..four },
    ];
    check("other kinds at real size", &kinds, &CALLS);
}
