//! Layers of any size, and calls of them on a GPU.

use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, PoisonError};

use gptq_conformance::oracle::Dense;
use gptq_conformance::{Accuracy, Activations, Target, WeightRounding};
use gptq_core::device::{Context, Memory};
use gptq_core::format::packing::{pack, words_for};
use gptq_core::format::{Bits, GroupSize, Packing, ZeroEncoding};
use gptq_core::post_init::FinalizedModel;
use gptq_core::tensor::{DType, Floats, TensorMut, TensorRef};
use gptq_core::{Error, Part, QuantLinear, QuantLinearParts};
use gptq_cuda::Gpu;
use half::{bf16, f16};

/// The first GPU, for one test at a time: some fill its memory.
pub(crate) struct Alone {
    gpu: Gpu,
    _turn: MutexGuard<'static, ()>,
}

impl Deref for Alone {
    type Target = Gpu;

    fn deref(&self) -> &Gpu {
        &self.gpu
    }
}

/// The first GPU; `None`, with a line that says so, where there is none and none is required.
pub(crate) fn gpu(test: &str) -> Option<Alone> {
    static TURN: Mutex<()> = Mutex::new(());
    // A test that failed has said so.
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    match Gpu::open(0) {
        Ok(gpu) => Some(Alone { gpu, _turn: turn }),
        Err(rejection) => {
            assert!(std::env::var_os("GPTQ_REQUIRE_DEVICE").is_none(), "{test}: {rejection}");
            eprintln!("skipped {test}: {rejection}");
            None
        }
    }
}

/// What a layer is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) bits: Bits,
    pub(crate) k: usize,
    pub(crate) n: usize,
    pub(crate) group_size: i64,
    pub(crate) act_order: bool,
    pub(crate) bias: bool,
}

impl Kind {
    pub(crate) const fn four_bits(k: usize, n: usize) -> Self {
        Self { bits: Bits::FOUR, k, n, group_size: 128, act_order: false, bias: false }
    }
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

/// A layer of random codes with symmetric zero points.
pub(crate) fn layer(name: &str, kind: Kind) -> QuantLinear {
    let Kind { bits, k, n, group_size, act_order, bias } = kind;
    let mut random = Random((k * 31 + n) as u64);
    let group_size = GroupSize::from_config(group_size).unwrap();
    let groups = group_size.groups(k);
    let packing = if bits.get() == 8 || 32 % bits.get() == 0 { Packing::Continuous } else { Packing::Planar };
    let qweight: Vec<u32> = (0..words_for(bits, k) * n).map(|_| random.word()).collect();
    let zero = u8::try_from(bits.symmetric_zero()).unwrap();
    let qzeros = pack(&vec![zero; n], bits, packing).repeat(groups);
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
        name: name.into(),
        bits,
        packing,
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

/// The layers, finalized on the first GPU.
pub(crate) fn open(layers: Vec<QuantLinear>) -> Result<FinalizedModel, Error> {
    Target::new(gptq_torch_fallback::REGISTRATION, "cuda:0").unwrap().open(layers, None, None)
}

/// The bytes of out of a call.
pub(crate) fn forward(
    model: &FinalizedModel,
    layer: &str,
    x: &Activations,
    context: &mut Context,
) -> Vec<u8> {
    let memory = model.memory().unwrap();
    let layer = model.layer(layer).unwrap();
    let [rows, _] = x.shape();
    let mut bytes = vec![0xff; rows * layer.info().out_features * x.dtype().size_bytes()];
    let x_buffer = uploaded(&**memory, &x.to_bytes());
    let mut out_buffer = uploaded(&**memory, &bytes);
    let x = TensorRef::on_device(x.dtype(), x.shape(), &*x_buffer, 0).unwrap();
    let mut out =
        TensorMut::on_device(x.dtype(), [rows, layer.info().out_features], &mut *out_buffer, 0).unwrap();
    layer.forward(&x, &mut out, context).unwrap();
    context.synchronize().unwrap();
    memory.download(&*out_buffer, 0, &mut bytes).unwrap();
    bytes
}

pub(crate) fn uploaded(memory: &dyn Memory, bytes: &[u8]) -> Box<dyn gptq_core::device::DeviceBuffer> {
    let mut buffer = memory.allocate(bytes.len()).unwrap();
    memory.upload(bytes, &mut *buffer, 0).unwrap();
    buffer
}

/// Holds out to the oracle in 64 columns over all of K, and says which part of the bound its error is.
pub(crate) fn judge(layer: &QuantLinear, x: &Activations, out: &[u8]) -> f64 {
    const COLUMNS: usize = 64;
    let n = layer.out_features();
    // A column in each stretch of equal length, and the last.
    let stretches = COLUMNS.min(n);
    let mut columns: Vec<usize> =
        (0..stretches).map(|i| i * n / stretches + i % 7 % (n / stretches)).collect();
    columns[stretches - 1] = n - 1;
    let values = values(x.dtype(), out);
    let sampled: Vec<f64> =
        values.chunks_exact(n).flat_map(|row| columns.iter().map(|&column| row[column])).collect();
    let dense = Dense::of_layer(layer, &columns).unwrap();
    let accuracy = Accuracy::of(&dense, x, WeightRounding::ToX, &sampled);
    let what = format!("{}, x {} {:?}", layer.name(), x.dtype(), x.shape());
    assert!(accuracy.holds(), "{what}: {accuracy:?}");
    accuracy.error / accuracy.bound
}

fn values(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    let pairs = || bytes.chunks_exact(2).map(|two| [two[0], two[1]]);
    match dtype {
        DType::F16 => pairs().map(|two| f16::from_le_bytes(two).to_f64()).collect(),
        DType::BF16 => pairs().map(|two| bf16::from_le_bytes(two).to_f64()).collect(),
        DType::F32 => bytes
            .chunks_exact(4)
            .map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]).into())
            .collect(),
    }
}
