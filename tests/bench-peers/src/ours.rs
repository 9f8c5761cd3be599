//! Layers of 4 bits in groups of 128 rows, symmetric, as the backend `torch` runs them.

use gptq_core::backend::{Linear, Options};
use gptq_core::device::Context;
use gptq_core::format::packing::words_for;
use gptq_core::format::{Bits, GroupSize, Packing, ZeroEncoding};
use gptq_core::tensor::{Element, Floats, TensorMut, TensorRef};
use gptq_core::{Part, QuantLinear, QuantLinearParts};
use half::f16;

use crate::timing::Subject;
use crate::{copies, random};

/// Room for x and sums: what a layer of these sizes asks for.
const SCRATCH_BYTES: usize = 64 << 20;

/// Copies of a layer of random codes.
pub(crate) fn layers(k: usize, n: usize) -> Vec<Box<dyn Linear>> {
    let word = |x: f32| x.to_bits().wrapping_mul(0x9E37_79B1);
    let codes: Vec<u32> = random(words_for(Bits::FOUR, k) * n).into_iter().map(word).collect();
    let groups = k.div_ceil(128);
    let layer = || {
        QuantLinear::new(QuantLinearParts {
            name: "layer".into(),
            bits: Bits::FOUR,
            packing: Packing::Continuous,
            group_size: GroupSize::from_config(128).unwrap(),
            zero_encoding: ZeroEncoding::V2,
            qweight: Part::in_memory(vec![words_for(Bits::FOUR, k), n], codes.clone().into()),
            qzeros: Part::in_memory(vec![groups, n / 8], vec![0x8888_8888u32; groups * n / 8].into()),
            scales: Part::in_memory(vec![groups, n], Floats::from(vec![f16::from_f32(0.01); groups * n])),
            g_idx: None,
            bias: None,
        })
        .unwrap()
    };
    let bytes = layer().info().packed_bytes;
    (0..copies(bytes)).map(|_| gptq_torch_fallback::linear(layer(), &Options::default()).unwrap()).collect()
}

/// Calls of the layers in turn with `m` rows of x.
pub(crate) fn subject<'a, T: Element + 'static>(
    name: &'static str,
    layers: &'a [Box<dyn Linear>],
    m: usize,
    k: usize,
    n: usize,
) -> Subject<'a> {
    let x: Vec<T> = random(m * k).into_iter().map(T::narrow).collect();
    let mut out = vec![T::narrow(0.0); m * n];
    let mut context = Context::host(SCRATCH_BYTES);
    Subject::new(name, move |call| {
        let x = TensorRef::host(&x, [m, k]).unwrap();
        let mut out = TensorMut::host(&mut out, [m, n]).unwrap();
        layers[call % layers.len()].forward(&x, &mut out, &mut context).unwrap();
    })
}
