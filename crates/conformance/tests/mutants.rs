//! Backends with one fault each, in host memory. The suite is worth what it catches.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a backend that exists to be wrong, inside a test"
)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use gptq_conformance::case::Case;
use gptq_conformance::checks::{self, *};
use gptq_conformance::{Activations, Check, Target, verify};
use gptq_core::backend::{
    Backend, BackendId, Capabilities, LayerId, LayerSource, Linear, Options, Outcome, Registration, Rejection,
};
use gptq_core::device::{Context, Device};
use gptq_core::format::ZeroEncoding;
use gptq_core::tensor::{DType, Element, TensorMut, TensorRef};
use gptq_core::{Part, QuantLinear, QuantLinearParts, Result};
use half::{bf16, f16};

/// What is wrong with a backend in host memory.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    ZeroOffByOne,
    ZeroOfNothingIsTwoToTheBits,
    ConvertedTwice,
    IndexIgnored,
    ShortGroupDropped,
    LastGroupDropped,
    BiasForgotten,
    BiasAddedToEachPiece,
    SecondRowIsTheFirst,
    LastColumnsNotWritten,
    LastRowNotWritten,
    RowsBeyondTheLengthNotWritten,
    ScratchShared,
    StateOfTheProcess,
    SumsInF16,
    BitsOfTheMoment,
    WantsAlignment,
    ScratchNeverEnough,
    ScalesNarrowed,
    Misconverted,
}

const FAULTS: [Fault; 21] = [
    Fault::None,
    Fault::ZeroOffByOne,
    Fault::ZeroOfNothingIsTwoToTheBits,
    Fault::ConvertedTwice,
    Fault::IndexIgnored,
    Fault::ShortGroupDropped,
    Fault::LastGroupDropped,
    Fault::BiasForgotten,
    Fault::BiasAddedToEachPiece,
    Fault::SecondRowIsTheFirst,
    Fault::LastColumnsNotWritten,
    Fault::LastRowNotWritten,
    Fault::RowsBeyondTheLengthNotWritten,
    Fault::ScratchShared,
    Fault::StateOfTheProcess,
    Fault::SumsInF16,
    Fault::BitsOfTheMoment,
    Fault::WantsAlignment,
    Fault::ScratchNeverEnough,
    Fault::ScalesNarrowed,
    Fault::Misconverted,
];

struct Mutant<const FAULT: usize> {
    arrived_as_v2: bool,
    row_bytes: usize,
    length: Arc<AtomicUsize>,
}

fn open<const FAULT: usize>(_: &Device, _: &Options) -> Result<Box<dyn Backend>> {
    Ok(Box::new(Mutant::<FAULT> {
        arrived_as_v2: false,
        row_bytes: 0,
        length: Arc::new(AtomicUsize::new(usize::MAX)),
    }))
}

fn on_the_host(device: &Device) -> Result<Capabilities, Rejection> {
    match device {
        Device::Cpu => Ok(Capabilities::ANY),
        _ => Err(Rejection::DeviceKind { device: device.clone(), supported: "cpu".into() }),
    }
}

fn mutant<const FAULT: usize>() -> Target {
    let registration = Registration::new(BackendId::new("mutant"), on_the_host, open::<FAULT>);
    Target::new(registration, "cpu").unwrap()
}

/// K of the layer that was made ready last, in whichever model.
static LAST_K: AtomicUsize = AtomicUsize::new(0);
static CALLS: AtomicUsize = AtomicUsize::new(0);
static SHARED: Mutex<Vec<f64>> = Mutex::new(Vec::new());

impl<const FAULT: usize> Backend for Mutant<FAULT> {
    fn convert_format(&mut self, layer: &mut QuantLinear) -> Result<Outcome> {
        self.arrived_as_v2 = layer.info().zero_encoding == ZeroEncoding::V2;
        layer.convert_zeros(ZeroEncoding::V2);
        if FAULTS[FAULT] == Fault::Misconverted {
            *layer = misconverted(layer)?;
        }
        Ok(Outcome::Done)
    }

    fn init_buffers(&mut self, layers: &mut LayerSource<'_>) -> Result<Vec<(LayerId, Box<dyn Linear>)>> {
        let mut ready: Vec<(LayerId, Box<dyn Linear>)> = Vec::new();
        while let Some((id, layer)) = layers.next_layer() {
            let fault = FAULTS[FAULT];
            let (k, n) = (layer.in_features(), layer.out_features());
            if fault == Fault::StateOfTheProcess {
                LAST_K.store(k, Ordering::SeqCst);
            }
            self.row_bytes = self.row_bytes.max(k * 8);
            let weights = weights(fault, &layer, self.arrived_as_v2);
            let mut bias = vec![0.0; n];
            if let Some(values) = layer.bias() {
                values.read(0..n, &mut bias);
            }
            let length = Arc::clone(&self.length);
            ready.push((
                id,
                Box::new(MutantLinear { fault, name: layer.name().into(), k, n, weights, bias, length }),
            ));
        }
        Ok(ready)
    }

    fn set_max_input_length(&mut self, rows: usize) -> Result<Outcome> {
        self.length.store(rows, Ordering::SeqCst);
        Ok(Outcome::Done)
    }

    fn scratch_bytes(&self) -> usize {
        4 * self.row_bytes
    }
}

/// The same layer with its first zero point of each word off by one, as a converter makes it that is wrong.
fn misconverted(layer: &QuantLinear) -> Result<QuantLinear> {
    let info = layer.info();
    let group_rows = info.group_size.rows(info.in_features);
    let g_idx: Vec<i32> =
        (0..info.in_features).map(|row| layer.group_index().group_of(row, group_rows) as i32).collect();
    let zeros = layer.zeros();
    let wrong: Vec<u32> = zeros.words().iter().map(|word| word ^ 1).collect();
    QuantLinear::new(QuantLinearParts {
        name: info.name.clone(),
        bits: info.bits,
        packing: info.packing,
        group_size: info.group_size,
        zero_encoding: zeros.encoding(),
        qweight: Part::in_memory(
            vec![layer.qweight().len() / info.out_features, info.out_features],
            layer.qweight().clone(),
        ),
        qzeros: Part::in_memory(vec![info.groups, zeros.words_per_group()], wrong.into()),
        scales: Part::in_memory(vec![info.groups, info.out_features], layer.scales().clone()),
        g_idx: Some(Part::in_memory(vec![info.in_features], g_idx.into())),
        bias: layer.bias().map(|bias| Part::in_memory(vec![info.out_features], bias.clone())),
    })
}

fn weights(fault: Fault, layer: &QuantLinear, arrived_as_v2: bool) -> Vec<f64> {
    let info = layer.info();
    let (k, n, group_rows) = (info.in_features, info.out_features, info.group_size.rows(info.in_features));
    let mut weights = Vec::new();
    for row in 0..k {
        let group = match fault {
            Fault::IndexIgnored => row / group_rows,
            _ => layer.group_index().group_of(row, group_rows),
        };
        let dropped = match fault {
            Fault::ShortGroupDropped => row >= k / group_rows * group_rows,
            Fault::LastGroupDropped => info.groups > 1 && group + 1 == info.groups,
            _ => false,
        };
        let mut codes = vec![0; n];
        gptq_core::format::packing::unpack_row(
            layer.qweight(),
            n,
            info.bits,
            info.packing,
            row,
            0..n,
            &mut codes,
        );
        let mut scales = vec![0.0; n];
        layer.scales().read(group * n..(group + 1) * n, &mut scales);
        for column in 0..n {
            let zero = f64::from(layer.zeros().zero(group, column));
            let zero = match fault {
                Fault::ZeroOffByOne => zero + 1.0,
                Fault::ZeroOfNothingIsTwoToTheBits if zero == 0.0 => f64::from(info.bits.max_code()) + 1.0,
                Fault::ConvertedTwice if arrived_as_v2 => zero + 1.0,
                _ => zero,
            };
            let scale = match fault {
                Fault::ScalesNarrowed => bf16::from_f32(scales[column]).to_f64(),
                _ => scales[column].into(),
            };
            weights.push(if dropped { 0.0 } else { scale * (f64::from(codes[column]) - zero) });
        }
    }
    weights
}

struct MutantLinear {
    fault: Fault,
    name: String,
    k: usize,
    n: usize,
    weights: Vec<f64>,
    bias: Vec<f32>,
    length: Arc<AtomicUsize>,
}

impl MutantLinear {
    fn run<T: Element>(&self, x: &[T], out: &mut [T], scratch: &mut [f64]) -> Result<()> {
        let (k, n, fault) = (self.k, self.n, self.fault);
        let needed = k * 8;
        if scratch.len() < k || (fault == Fault::ScratchNeverEnough && scratch.len() < 2 * k) {
            let found = scratch.len() * 8;
            return Err(gptq_core::Error::ScratchTooSmall { layer: self.name.clone(), found, needed });
        }
        assert!(
            fault != Fault::WantsAlignment || out.as_ptr().align_offset(16) == 0,
            "a fault of the device"
        );
        let rows = x.len() / k;
        let length = self.length.load(Ordering::SeqCst);
        let call = CALLS.fetch_add(1, Ordering::SeqCst);
        for (row, out) in out.chunks_exact_mut(n).enumerate() {
            let from = match fault {
                Fault::SecondRowIsTheFirst if row == 1 => 0,
                _ => row,
            };
            if (fault == Fault::LastRowNotWritten && row > 0 && row + 1 == rows)
                || (fault == Fault::RowsBeyondTheLengthNotWritten && row >= length)
            {
                continue;
            }
            for (wide, x) in scratch.iter_mut().zip(&x[from * k..][..k]) {
                *wide = x.widen().into();
            }
            let mut wide = scratch[..k].to_vec();
            if fault == Fault::ScratchShared {
                *SHARED.lock().unwrap() = wide;
                std::thread::yield_now();
                wide = SHARED.lock().unwrap().clone();
                wide.resize(k, 0.0);
            }
            if fault == Fault::StateOfTheProcess {
                wide[LAST_K.load(Ordering::SeqCst).min(k)..].fill(0.0);
            }
            for (column, out) in out.iter_mut().enumerate() {
                if fault == Fault::LastColumnsNotWritten && column >= n / 32 * 32 {
                    continue;
                }
                let mut sum = 0.0;
                for (x, weight) in wide.iter().zip(self.weights.iter().skip(column).step_by(n)) {
                    sum += x * weight;
                    if fault == Fault::SumsInF16 {
                        sum = f16::from_f64(sum).to_f64();
                    }
                }
                if fault == Fault::BitsOfTheMoment && call % 2 == 1 {
                    sum *= 1.0 + 2e-4;
                }
                let times = match fault {
                    Fault::BiasForgotten => 0.0,
                    Fault::BiasAddedToEachPiece if row > 15 => 2.0,
                    _ => 1.0,
                };
                *out = T::narrow((sum + times * f64::from(self.bias[column])) as f32);
            }
        }
        Ok(())
    }
}

impl Linear for MutantLinear {
    fn forward(&self, x: &TensorRef<'_>, out: &mut TensorMut<'_>, context: &mut Context) -> Result<()> {
        let scratch = bytemuck::cast_slice_mut(context.host_scratch().unwrap());
        match x.dtype() {
            DType::F32 => self.run::<f32>(x.as_host().unwrap(), out.as_host().unwrap(), scratch),
            DType::F16 => self.run::<f16>(x.as_host().unwrap(), out.as_host().unwrap(), scratch),
            DType::BF16 => self.run::<bf16>(x.as_host().unwrap(), out.as_host().unwrap(), scratch),
        }
    }

    fn resident_bytes(&self) -> usize {
        0
    }
}

/// That a check refuses a backend, with a message that names the case.
fn caught(fault: &str, name: &str, target: &Target, check: Check) {
    match check(target) {
        Ok(summary) => panic!("`{name}` lets `{fault}` pass: {summary}"),
        Err(problem) => assert!(problem.contains("bits") && problem.contains("K = "), "{fault}: {problem}"),
    }
}

macro_rules! caught {
    ($($fault:ident by $($check:ident),+;)*) => {
        $(caught_one!($fault by $($check),+);)*
    };
}

macro_rules! caught_one {
    ($fault:ident by $($check:ident),+) => {
        $(caught(stringify!($fault), stringify!($check), &mutant::<{ Fault::$fault as usize }>(), checks::$check);)+
    };
}

#[test]
fn the_table_of_faults_is_in_the_order_of_the_enum() {
    for (index, fault) in FAULTS.into_iter().enumerate() {
        assert_eq!(fault as usize, index);
    }
}

#[test]
fn a_backend_without_fault_passes() {
    let sound = mutant::<{ Fault::None as usize }>();
    registration(&sound).unwrap();
    for (_, _, check) in CONTRACT {
        check(&sound).unwrap();
    }
}

#[test]
fn wrong_zero_points_are_caught() {
    caught! {
        ZeroOffByOne by every_pair_of_factors, zero_encodings;
        ZeroOfNothingIsTwoToTheBits by every_pair_of_factors, zero_encodings;
        ConvertedTwice by every_pair_of_factors, converting_twice;
        Misconverted by every_pair_of_factors, zero_encodings;
    }
}

#[test]
fn a_wrong_conversion_moves_the_backend_and_not_the_oracle() {
    for (name, target, holds) in [
        ("None", mutant::<{ Fault::None as usize }>(), true),
        ("Misconverted", mutant::<{ Fault::Misconverted as usize }>(), false),
    ] {
        let built = Case { sym: false, ..Case::PLAIN }.build("layer").unwrap();
        let model = target.open(vec![built.layer], None, None).unwrap();
        let mut context = model.context().unwrap();
        let x = Activations::normal([3, 64], DType::F32, 1);
        let accuracy = verify(&model, &model.layers()[0], &x, &[0, 8, 63], &mut context).unwrap();
        assert_eq!(accuracy.holds(), holds, "{name}: {accuracy:?}");
    }
}

#[test]
fn wrong_groups_are_caught() {
    caught! {
        IndexIgnored by every_pair_of_factors, few_of_every_kind, act_order;
        ShortGroupDropped by every_pair_of_factors;
        LastGroupDropped by every_pair_of_factors, act_order;
        ScalesNarrowed by every_pair_of_factors;
    }
}

#[test]
fn wrong_rows_and_columns_are_caught() {
    caught! {
        BiasForgotten by every_pair_of_factors, few_of_every_kind, bias;
        BiasAddedToEachPiece by bias;
        SecondRowIsTheFirst by every_pair_of_factors, any_number_of_rows, a_row_of_nan_spoils_no_other;
        LastColumnsNotWritten by every_pair_of_factors, out_is_written_whole;
        LastRowNotWritten by any_number_of_rows, out_is_written_whole;
        RowsBeyondTheLengthNotWritten by length_changes_between_calls;
    }
}

#[test]
fn what_is_shared_and_must_not_be_is_caught() {
    caught! {
        ScratchShared by threads_share_a_model, queued_by_threads;
        StateOfTheProcess by two_models, queued_by_turns;
    }
}

#[test]
fn wrong_arithmetic_and_wrong_demands_are_caught() {
    caught! {
        SumsInF16 by every_pair_of_factors, any_number_of_rows;
        BitsOfTheMoment by same_bits_every_time;
        WantsAlignment by any_alignment;
        ScratchNeverEnough by little_scratch;
    }
}

#[test]
fn faults_show_in_layers_of_which_columns_are_sampled() {
    let judged = |target: &Target| real_size(target, [384, 200]);
    let summary = judged(&mutant::<{ Fault::None as usize }>()).unwrap();
    assert!(summary.ran == 36 && summary.worst.is_some_and(|worst| worst < 1.0), "{summary}");
    for (name, target) in [
        ("LastGroupDropped", mutant::<{ Fault::LastGroupDropped as usize }>()),
        ("LastColumnsNotWritten", mutant::<{ Fault::LastColumnsNotWritten as usize }>()),
        ("SumsInF16", mutant::<{ Fault::SumsInF16 as usize }>()),
        ("BitsOfTheMoment", mutant::<{ Fault::BitsOfTheMoment as usize }>()),
    ] {
        let problem = judged(&target).expect_err(name);
        assert!(problem.contains("K = 384") && problem.contains("N = 200"), "{name}: {problem}");
    }
}

#[test]
fn calls_of_sampled_layers_are_queued_too() {
    let sound = mutant::<{ Fault::None as usize }>();
    assert!(queued_by_turns_at(&sound, [384, 200]).unwrap().ran > 0);
    assert!(queued_by_threads_at(&sound, [384, 200]).unwrap().ran > 0);
    assert!(queued_by_threads_at(&mutant::<{ Fault::ScratchShared as usize }>(), [384, 200]).is_err());
}
