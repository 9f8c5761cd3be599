//! Tensors that agree with their header and with nothing else.

use crate::rng::Rng;
use crate::weights::{Tensor, Weights};

/// Changes one tensor, or which tensors there are. The file stays a good safetensors file.
pub(super) fn mutate(weights: &mut Weights, rng: &mut Rng) {
    if weights.tensors.is_empty() {
        return;
    }
    let at = rng.below(weights.tensors.len());
    match rng.below(12) {
        0 => _ = weights.tensors.remove(at),
        1 => rename(weights, at, rng),
        2 => {
            let tensor = weights.tensors.remove(at);
            let to = rng.below(weights.tensors.len() + 1);
            weights.tensors.insert(to, tensor);
        }
        3 => {
            const DTYPES: [(&str, usize); 10] = [
                ("BOOL", 1),
                ("U8", 1),
                ("I8", 1),
                ("I16", 2),
                ("F16", 2),
                ("BF16", 2),
                ("I32", 4),
                ("U32", 4),
                ("F32", 4),
                ("I64", 8),
            ];
            let (dtype, size) = *rng.pick(&DTYPES);
            weights.tensors[at].retype(dtype, size);
        }
        // An odd number of bytes in front leaves every tensor behind it misaligned.
        4 => {
            let odd = Tensor { name: "odd".into(), dtype: "U8", shape: vec![3], data: vec![1; 3] };
            weights.tensors.insert(0, odd);
        }
        5..=7 => reshape(&mut weights.tensors[at], rng),
        _ => overwrite(&mut weights.tensors[at], rng),
    }
}

fn rename(weights: &mut Weights, at: usize, rng: &mut Rng) {
    const SUFFIXES: [&str; 8] =
        [".qweight", ".qzeros", ".scales", ".g_idx", ".bias", ".weight", "", ".qweight.qweight"];
    let names: Vec<String> = weights.tensors.iter().map(|tensor| tensor.name.clone()).collect();
    let tensor = &mut weights.tensors[at];
    let module = tensor.name.rsplit_once('.').map_or("", |(module, _)| module).to_owned();
    tensor.name = match rng.below(6) {
        0 => String::new(),
        1 => "x".repeat(rng.below(5000)),
        2 => format!("{module}\u{0}\n\u{1F980}"),
        3 => rng.pick(&names).clone(),
        4 => (*rng.pick(&["lm_head.qweight", ".qweight", "qweight", "gptq_bits", "gptq_sym"])).to_owned(),
        _ => format!("{module}{}", rng.pick(&SUFFIXES)),
    };
}

/// Another shape, and as many bytes as it needs.
fn reshape(tensor: &mut Tensor, rng: &mut Rng) {
    match rng.below(6) {
        0 => tensor.shape.push(1),
        1 => tensor.shape.insert(0, 1),
        2 => tensor.shape.reverse(),
        3 => tensor.shape = vec![tensor.shape.iter().product()],
        _ if tensor.shape.is_empty() => tensor.shape = vec![1],
        _ => {
            let axis = rng.below(tensor.shape.len());
            let extent = tensor.shape[axis];
            let near = [0, 1, extent.saturating_sub(1), extent + 1, extent * 2, extent / 2, 32, 64, 3];
            tensor.resize(axis, *rng.pick(&near));
        }
    }
}

/// Other elements in the same place.
fn overwrite(tensor: &mut Tensor, rng: &mut Rng) {
    let length = tensor.data.len();
    match rng.below(6) {
        0 => tensor.data.fill(0),
        1 => tensor.data.fill(0xFF),
        2 => tensor.data.iter_mut().for_each(|byte| *byte = rng.byte()),
        3 => tensor.data.rotate_left(rng.below(length)),
        4 => {
            // One word: a group that does not exist, a scale that is no number.
            const WORDS: [u32; 8] =
                [0, 1, 2, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 0x7C00_7C00, 0x7FC0_7FC0];
            let word = rng.pick(&WORDS).to_le_bytes();
            let at = rng.below(length / 4) * 4;
            if let Some(place) = tensor.data.get_mut(at..at + 4) {
                place.copy_from_slice(&word);
            }
        }
        _ => {
            let at = rng.below(length);
            if let Some(byte) = tensor.data.get_mut(at) {
                *byte = rng.byte();
            }
        }
    }
}
