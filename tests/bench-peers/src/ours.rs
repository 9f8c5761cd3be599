//! Layers of 4 bits in groups of 128 rows, symmetric, as the backend `torch` runs them.

use gptq_conformance::case::Case;
use gptq_core::backend::{Linear, Options};
use gptq_core::device::Context;
use gptq_core::format::{Bits, GroupSize};
use gptq_core::tensor::{Element, TensorMut, TensorRef};

use crate::timing::Subject;
use crate::{copies, random};

/// Room for x and sums: more than a layer of these sizes asks for.
const SCRATCH_BYTES: usize = 64 << 20;

/// Copies of a layer of random codes.
pub(crate) fn layers(k: usize, n: usize) -> Vec<Box<dyn Linear>> {
    let group_size = GroupSize::from_config(128).unwrap();
    let case = Case { bits: Bits::FOUR, group_size, in_features: k, out_features: n, ..Case::PLAIN };
    let bytes = case.outline().unwrap().info().packed_bytes;
    (0..copies(bytes))
        .map(|_| gptq_torch_fallback::linear(case.noise("layer").unwrap(), &Options::default()).unwrap())
        .collect()
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
