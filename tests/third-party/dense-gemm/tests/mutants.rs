//! Ten mistakes that a backend is easily made with, each made in this one: the suite refuses it, and says for which case.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dense_gemm::REGISTRATION;
use gptq_conformance::checks::{self, *};
use gptq_conformance::{Check, Target};
use gptq_core::backend::{Backend, LayerId, LayerSource, Linear, Options, Outcome, Registration, Rejection};
use gptq_core::device::{Context, Device};
use gptq_core::format::{Bits, GroupIndex, ZeroDialect, ZeroEncoding};
use gptq_core::tensor::{DType, Element, Floats, TensorMut, TensorRef, bf16, f16};
use gptq_core::{Part, QuantLinear, QuantLinearParts, Result};

/// What is wrong with the backend.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fault {
    None,
    ZeroOffByOne,
    GIdxIgnored,
    LastGroupDropped,
    BiasForgotten,
    SecondRowWrong,
    ScratchShared,
    DeclaredTooWide,
    RefusesWhatItDeclares,
    OutNotFullyWritten,
    ConvertsTwice,
}

const FAULTS: [Fault; 11] = [
    Fault::None,
    Fault::ZeroOffByOne,
    Fault::GIdxIgnored,
    Fault::LastGroupDropped,
    Fault::BiasForgotten,
    Fault::SecondRowWrong,
    Fault::ScratchShared,
    Fault::DeclaredTooWide,
    Fault::RefusesWhatItDeclares,
    Fault::OutNotFullyWritten,
    Fault::ConvertsTwice,
];

/// The registration of this crate with a fault. Functions of a registration capture nothing, hence the number.
const fn mutant<const FAULT: usize>() -> Registration {
    Registration {
        accepts: match FAULTS[FAULT] {
            Fault::RefusesWhatItDeclares => Some(|_, layer| match layer.bits {
                Bits::THREE => Err(Rejection::other("3 bits are not done yet", "wait")),
                _ => Ok(()),
            }),
            _ => None,
        },
        open: open::<FAULT>,
        ..REGISTRATION
    }
}

fn open<const FAULT: usize>(device: &Device, options: &Options) -> Result<Box<dyn Backend>> {
    Ok(Box::new(Mutant { fault: FAULTS[FAULT], inner: (REGISTRATION.open)(device, options)? }))
}

struct Mutant {
    fault: Fault,
    inner: Box<dyn Backend>,
}

impl Backend for Mutant {
    fn convert_format(&mut self, layer: &mut QuantLinear) -> Result<Outcome> {
        if self.fault == Fault::ConvertsTwice && layer.info().zero_encoding == ZeroEncoding::V2 {
            *layer = with_zeros_one_up(layer)?;
        }
        self.inner.convert_format(layer)
    }

    fn init_buffers(&mut self, layers: &mut LayerSource<'_>) -> Result<Vec<(LayerId, Box<dyn Linear>)>> {
        let mut taken = Vec::new();
        while let Some((id, layer)) = layers.next_layer() {
            taken.push((id, self.changed(layer)?));
        }
        let lent: Vec<(LayerId, &QuantLinear)> = taken.iter().map(|(id, layer)| (*id, layer)).collect();
        let ready = self.inner.init_buffers(&mut LayerSource::new(&lent, &mut |_, _| ()))?;
        let fault = self.fault;
        Ok(ready
            .into_iter()
            .map(|(id, inner)| (id, Box::new(MutantLinear { fault, inner }) as Box<dyn Linear>))
            .collect())
    }

    fn set_max_input_length(&mut self, rows: usize) -> Result<Outcome> {
        self.inner.set_max_input_length(rows)
    }

    fn scratch_bytes(&self) -> usize {
        self.inner.scratch_bytes()
    }
}

impl Mutant {
    /// The layer as a backend with this fault understands it.
    fn changed(&self, layer: QuantLinear) -> Result<QuantLinear> {
        let info = layer.info();
        let (groups, n) = (info.groups, info.out_features);
        let mut parts = parts(&layer);
        match self.fault {
            Fault::ZeroOffByOne => return with_zeros_one_up(&layer),
            Fault::GIdxIgnored => parts.g_idx = Some(in_order(&layer)),
            Fault::BiasForgotten => parts.bias = None,
            Fault::LastGroupDropped if groups > 1 => {
                let mut scales = vec![0.0; groups * n];
                layer.scales().read(0..groups * n, &mut scales);
                scales[(groups - 1) * n..].fill(0.0);
                parts.scales.data = Floats::from(scales);
            }
            _ => return Ok(layer),
        }
        QuantLinear::new(parts)
    }
}

/// The parts that a layer was made of.
fn parts(layer: &QuantLinear) -> QuantLinearParts {
    let info = layer.info();
    let (n, groups) = (info.out_features, info.groups);
    let zeros = layer.zeros();
    let g_idx = match layer.group_index() {
        GroupIndex::Sequential => in_order(layer),
        GroupIndex::ActOrder(order) => index(order.groups_of_rows().iter().map(|&group| group as usize)),
    };
    QuantLinearParts {
        name: layer.name().into(),
        bits: info.bits,
        packing: info.packing,
        group_size: info.group_size,
        zero_encoding: info.zero_encoding,
        qweight: Part::in_memory(vec![layer.qweight().len() / n, n], layer.qweight().clone()),
        qzeros: Part::in_memory(vec![groups, zeros.words_per_group()], zeros.words().to_vec().into()),
        scales: Part::in_memory(vec![groups, n], layer.scales().clone()),
        g_idx: Some(g_idx),
        bias: layer.bias().map(|bias| Part::in_memory(vec![n], bias.clone())),
    }
}

/// The index of consecutive groups.
fn in_order(layer: &QuantLinear) -> Part<gptq_core::Shared<i32>> {
    let k = layer.in_features();
    let rows = layer.info().group_size.rows(k);
    index((0..k).map(|row| row / rows))
}

fn index(groups: impl Iterator<Item = usize>) -> Part<gptq_core::Shared<i32>> {
    let groups: Vec<i32> = groups.map(|group| group.try_into().unwrap()).collect();
    Part::in_memory(vec![groups.len()], groups.into())
}

/// The layer as it is read by someone who takes direct zero points for stored ones.
fn with_zeros_one_up(layer: &QuantLinear) -> Result<QuantLinear> {
    let zero_encoding = ZeroEncoding::V1(ZeroDialect::FieldWrap);
    let mut wrong = QuantLinear::new(QuantLinearParts { zero_encoding, ..parts(layer) })?;
    wrong.convert_zeros(ZeroEncoding::V2);
    Ok(wrong)
}

struct MutantLinear {
    fault: Fault,
    inner: Box<dyn Linear>,
}

/// Where every thread puts its x, in whichever model.
static SHARED: Mutex<Vec<f32>> = Mutex::new(Vec::new());

impl MutantLinear {
    /// x as a backend with this fault reads it.
    fn spoil(&self, x: &mut Vec<f32>, k: usize) {
        match self.fault {
            Fault::SecondRowWrong if x.len() > k => x.copy_within(0..k, k),
            // As if its tiles had 32 rows of W, and nobody had said so.
            Fault::DeclaredTooWide => x.chunks_exact_mut(k).for_each(|row| row[k / 32 * 32..].fill(0.0)),
            Fault::ScratchShared => {
                SHARED.lock().unwrap_or_else(PoisonError::into_inner).clone_from(x);
                std::thread::sleep(Duration::from_micros(100));
                let shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
                x.iter_mut().zip(shared.iter()).for_each(|(x, shared)| *x = *shared);
            }
            _ => {}
        }
    }

    fn run<T: Element>(
        &self,
        x: &TensorRef<'_>,
        out: &mut TensorMut<'_>,
        context: &mut Context,
    ) -> Result<()> {
        let ([rows, k], [_, n]) = (x.shape(), out.shape());
        let mut wide = vec![0.0; rows * k];
        x.read(0..rows * k, &mut wide)?;
        self.spoil(&mut wide, k);
        let x: Vec<T> = wide.into_iter().map(T::narrow).collect();
        let mut whole = vec![T::narrow(0.0); rows * n];
        let x = TensorRef::host(&x, [rows, k])?;
        self.inner.forward(&x, &mut TensorMut::host(&mut whole, [rows, n])?, context)?;

        let written = if self.fault == Fault::OutNotFullyWritten { rows * n - 1 } else { rows * n };
        let whole: Vec<f32> = whole.into_iter().map(T::widen).collect();
        out.write(0..written, &whole[..written])
    }
}

impl Linear for MutantLinear {
    fn forward(&self, x: &TensorRef<'_>, out: &mut TensorMut<'_>, context: &mut Context) -> Result<()> {
        match x.dtype() {
            DType::F32 => self.run::<f32>(x, out, context),
            DType::F16 => self.run::<f16>(x, out, context),
            DType::BF16 => self.run::<bf16>(x, out, context),
        }
    }

    fn resident_bytes(&self) -> usize {
        self.inner.resident_bytes()
    }
}

/// That a check of the suite refuses the backend with this fault, in words that name the case and what is wrong.
fn refused(fault: Fault, registration: Registration, name: &str, check: Check, words: &str) {
    let target = Target::new(registration, "cpu").unwrap();
    match check(&target) {
        Ok(summary) => panic!("`{name}` lets {fault:?} pass: {summary}"),
        Err(problem) => {
            println!("{fault:?}\n  {name}: {problem}\n");
            for part in ["bits", "group size", "g_idx", "K = ", "N = ", words] {
                assert!(problem.contains(part), "{fault:?}: {name} does not say `{part}`: {problem}");
            }
        }
    }
}

macro_rules! each_is_refused {
    ($($fault:ident by $check:ident with $words:literal;)*) => {
        $(
            const _: () = assert!(matches!(FAULTS[Fault::$fault as usize], Fault::$fault));
            refused(
                Fault::$fault,
                mutant::<{ Fault::$fault as usize }>(),
                stringify!($check),
                checks::$check,
                $words,
            );
        )*
    };
}

#[test]
fn ten_mistakes_are_refused_in_words_that_name_the_case() {
    each_is_refused! {
        ZeroOffByOne by every_pair_of_factors with "relative error";
        GIdxIgnored by act_order with "g_idx in act-order";
        LastGroupDropped by every_pair_of_factors with "relative error";
        BiasForgotten by bias with "with bias";
        SecondRowWrong by any_number_of_rows with "the element farthest off is [1, ";
        ScratchShared by threads_share_a_model with "when one thread runs alone";
        DeclaredTooWide by declared_edges with "the capabilities declare the smallest K, in_features_multiple 1";
        RefusesWhatItDeclares by declared_edges with "the capabilities declare 3 bits";
        OutNotFullyWritten by out_is_written_whole with "was not written";
        ConvertsTwice by converting_twice with "after convert_format, the zero point of group";
    }
}

#[test]
fn the_backend_in_the_same_wrapping_without_a_fault_is_not_refused() {
    let target = Target::new(mutant::<{ Fault::None as usize }>(), "cpu").unwrap();
    for check in [
        every_pair_of_factors,
        act_order,
        bias,
        any_number_of_rows,
        threads_share_a_model,
        declared_edges,
        out_is_written_whole,
        converting_twice,
    ] as [Check; 8]
    {
        check(&target).unwrap();
    }
}
