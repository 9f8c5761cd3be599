//! Breaking a checkpoint at random, at every depth: bytes, JSON, header, and whole tensors that stay true to their
//! header and contradict their layer.
//!
//! Most random damage is refused by the first check that it meets. The mutations here are weighted towards what
//! gets past the first check: a header that agrees with its file, a configuration of legal values, an index of real
//! files.

mod json;
mod tensors;

use crate::image::{Entry, Image};
use crate::rng::Rng;

/// Breaks `image` in one to three places.
pub fn mutate(image: &mut Image, rng: &mut Rng) {
    for _ in 0..=rng.below(3) {
        mutate_once(image, rng);
    }
}

fn mutate_once(image: &mut Image, rng: &mut Rng) {
    let names: Vec<String> = image.entries.keys().cloned().collect();
    if names.is_empty() {
        return;
    }
    let name = rng.pick(&names).clone();
    match rng.below(24) {
        0 | 1 => return mutate_directory(image, &name, rng),
        2 => return double_tensor(image, rng),
        3 => return contradict(image, &name, rng),
        _ => {}
    }
    let Some(entry) = image.entries.get_mut(&name) else { return };
    match entry {
        Entry::Json(value) if !rng.one_in(8) => {
            if name.ends_with("index.json") {
                json::index(value, rng);
            } else {
                json::config(value, rng);
            }
        }
        Entry::Weights(weights) if rng.one_in(2) => tensors::mutate(weights, rng),
        Entry::Weights(_) if !rng.one_in(4) => {
            let (header, data) = image.lie(&name);
            json::header(header, data, rng);
        }
        Entry::Lying { header, data } if !rng.one_in(4) => json::header(header, data, rng),
        Entry::Directory => {}
        _ => bytes(image.raw(&name), rng),
    }
}

/// Files that are gone, moved, doubled, or something else.
fn mutate_directory(image: &mut Image, name: &str, rng: &mut Rng) {
    const NAMES: [&str; 7] = [
        "model.safetensors",
        "other.safetensors",
        "model.safetensors.index.json",
        "quantize_config.json",
        "quant_config.json",
        "config.json",
        "pytorch_model.bin",
    ];
    let to = (*rng.pick(&NAMES)).to_owned();
    match rng.below(5) {
        0 => _ = image.remove(name),
        1 => image.set_raw(name, Vec::new()),
        2 => _ = image.entries.insert(name.to_owned(), Entry::Directory),
        3 => {
            let entry = image.remove(name);
            image.entries.insert(to, entry);
        }
        _ => {
            if let Some(entry) = image.entries.get(name).cloned() {
                image.entries.insert(to, entry);
            }
        }
    }
}

/// Copies a tensor of one weight file to another, or to a second one that was not there.
fn double_tensor(image: &mut Image, rng: &mut Rng) {
    let files: Vec<String> = image
        .entries
        .iter()
        .filter(|(_, entry)| matches!(entry, Entry::Weights(_)))
        .map(|(name, _)| name.clone())
        .collect();
    if files.is_empty() {
        return;
    }
    let (from, to) = (rng.pick(&files).clone(), rng.pick(&files).clone());
    let tensors = image.weights(&from).tensors.clone();
    if tensors.is_empty() {
        return;
    }
    let tensor = rng.pick(&tensors).clone();
    image.weights(&to).tensors.push(tensor);
}

/// Adds a configuration in another place, and changes it.
fn contradict(image: &mut Image, name: &str, rng: &mut Rng) {
    if let Some(Entry::Json(value)) = image.entries.get(name)
        && !name.ends_with("index.json")
    {
        let mut copy = value.clone();
        json::config(&mut copy, rng);
        let (name, copy) = match rng.one_in(2) {
            true => ("quant_config.json", copy),
            false => ("config.json", serde_json::json!({"quantization_config": copy})),
        };
        image.entries.insert(name.to_owned(), Entry::Json(copy));
    }
}

/// Damage that knows nothing of what it damages.
fn bytes(bytes: &mut Vec<u8>, rng: &mut Rng) {
    let at = rng.below(bytes.len());
    match rng.below(8) {
        0 => bytes.truncate(at),
        1 => bytes.extend((0..rng.below(64)).map(|_| 0)),
        2 => _ = bytes.splice(at..at, [rng.byte()]),
        3 if !bytes.is_empty() => _ = bytes.remove(at),
        // The length of a header stands in the first eight bytes.
        4 if bytes.len() >= 8 => bytes[rng.below(8)] = rng.byte(),
        5 => {
            let end = at + rng.below(bytes.len() - at);
            let copy = bytes[at..end].to_vec();
            bytes.splice(at..at, copy);
        }
        _ => {
            for _ in 0..=rng.below(4) {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << rng.below(8);
                }
            }
        }
    }
}
