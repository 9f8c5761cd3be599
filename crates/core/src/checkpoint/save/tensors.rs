//! The tensors of a saved checkpoint: names, dtypes, shapes, and where their bytes come from.

use std::borrow::Cow;

use safetensors::Dtype;

use crate::checkpoint::layers::natural_order;
use crate::checkpoint::{Checkpoint, CheckpointFormat, StoredTensor};
use crate::error::{Error, Result};
use crate::format::{GroupIndexKind, Packing, ZeroEncoding, packing};
use crate::quant_linear::QuantLinear;
use crate::tensor::{DType, Floats};

/// A tensor to write. Its bytes are made when they are written, and only those that the source does not have.
pub(super) struct Tensor<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) len_bytes: usize,
    data: Data<'a>,
}

#[derive(Clone, Copy)]
enum Data<'a> {
    /// As it stands in the source.
    Stored(&'a [u8]),
    /// The codes of a layer, in another packing.
    Codes(&'a QuantLinear, Packing),
    /// The zero points of a layer, in an encoding and packing that may be others.
    Zeros(&'a QuantLinear, ZeroEncoding, Packing),
    /// The group of each row of a layer.
    Groups(&'a QuantLinear),
}

impl Tensor<'_> {
    /// Its elements, row-major, little-endian.
    pub(super) fn bytes(&self) -> Cow<'_, [u8]> {
        match self.data {
            Data::Stored(bytes) => bytes.into(),
            Data::Codes(layer, packing) => owned(&repacked_codes(layer, packing)),
            Data::Zeros(layer, encoding, packing) => zero_words(layer, encoding, packing),
            Data::Groups(layer) => owned(&groups(layer)),
        }
    }
}

/// All tensors of the checkpoint, ordered by name with numbers counted.
pub(super) fn list<'a>(
    checkpoint: &'a Checkpoint,
    layers: &[&'a QuantLinear],
    format: CheckpointFormat,
    encodings: &[ZeroEncoding],
) -> Result<Vec<Tensor<'a>>> {
    let mut tensors: Vec<Tensor<'a>> = checkpoint
        .tensors()
        .map(|tensor| Tensor {
            name: tensor.name().into(),
            dtype: tensor.dtype(),
            shape: tensor.shape().to_vec(),
            len_bytes: tensor.bytes().len(),
            data: Data::Stored(tensor.bytes()),
        })
        .collect();
    for (layer, encoding) in layers.iter().zip(encodings) {
        tensors.extend(of_layer(checkpoint, layer, format, *encoding));
    }
    tensors.sort_by(|a, b| natural_order(&a.name, &b.name).then_with(|| a.name.cmp(&b.name)));
    // Only layers that an engine made can share a name.
    if let Some([first, ..]) = tensors.windows(2).find(|pair| matches!(pair, [a, b] if a.name == b.name)) {
        return Err(Error::NotStorable {
            layer: first.name.rsplit_once('.').map_or(&*first.name, |(layer, _)| layer).to_owned(),
            format,
            reason: "two layers have this name".into(),
            remedy: "give each a name of its own".into(),
        });
    }
    Ok(tensors)
}

fn of_layer<'a>(
    checkpoint: &'a Checkpoint,
    layer: &'a QuantLinear,
    format: CheckpointFormat,
    encoding: ZeroEncoding,
) -> Vec<Tensor<'a>> {
    let info = layer.info();
    let (k, n, groups) = (info.in_features, info.out_features, info.groups);
    let packing = format.packing().unwrap_or(info.packing);
    let stored = |suffix: &str| checkpoint.stored.get(format!("{}.{suffix}", info.name).as_str());
    let tensor = |suffix: &str, dtype: Dtype, shape: Vec<usize>, data: Data<'a>, len_bytes: usize| Tensor {
        name: format!("{}.{suffix}", info.name).into(),
        dtype,
        shape,
        len_bytes,
        data,
    };
    let integers = |suffix: &str| stored(suffix).map_or(Dtype::I32, StoredTensor::dtype);
    let floats = |suffix: &str, shape: Vec<usize>, values: &'a Floats| {
        tensor(
            suffix,
            stored_dtype(values.dtype()),
            shape,
            Data::Stored(values.as_bytes()),
            values.as_bytes().len(),
        )
    };

    let codes = if packs_alike(layer, packing) {
        Data::Stored(layer.qweight().as_bytes())
    } else {
        Data::Codes(layer, packing)
    };
    let word_rows = packing::words_for(info.bits, k);
    let zeros = layer.zeros();
    let mut tensors = vec![
        tensor("qweight", integers("qweight"), vec![word_rows, n], codes, layer.qweight().as_bytes().len()),
        tensor(
            "qzeros",
            integers("qzeros"),
            vec![groups, zeros.words_per_group()],
            Data::Zeros(layer, encoding, packing),
            groups * zeros.words_per_group() * size_of::<u32>(),
        ),
        floats("scales", vec![groups, n], layer.scales()),
    ];
    if let Some(bias) = layer.bias() {
        tensors.push(floats("bias", vec![n], bias));
    }
    match stored("g_idx") {
        Some(index) => tensors.push(tensor(
            "g_idx",
            index.dtype(),
            index.shape().to_vec(),
            Data::Stored(index.bytes()),
            index.bytes().len(),
        )),
        None if info.g_idx == GroupIndexKind::Absent => {}
        None => {
            tensors.push(tensor("g_idx", Dtype::I32, vec![k], Data::Groups(layer), k * size_of::<i32>()));
        }
    }
    tensors
}

/// How many zero points are stored in other words than in the checkpoint's files, or than its layers had where it
/// came from no file.
pub(super) fn zeros_converted(
    checkpoint: &Checkpoint,
    layers: &[&QuantLinear],
    format: CheckpointFormat,
    encodings: &[ZeroEncoding],
) -> usize {
    let converted = |(layer, encoding): (&&QuantLinear, &ZeroEncoding)| {
        let info = layer.info();
        let now = zero_words(layer, *encoding, format.packing().unwrap_or(info.packing));
        let stored = checkpoint.stored.get(format!("{}.qzeros", info.name).as_str());
        let before = match (stored, checkpoint.layer(layer.name())) {
            (Some(stored), _) => stored.bytes(),
            (None, Ok(before)) => bytemuck::cast_slice(before.zeros().words()),
            (None, Err(_)) => return 0,
        };
        if now == before { 0 } else { info.groups * info.out_features }
    };
    layers.iter().zip(encodings).map(converted).sum()
}

/// Whether the layer's codes stand in the same words in this packing: always, but at 3 bits.
fn packs_alike(layer: &QuantLinear, packing: Packing) -> bool {
    let info = layer.info();
    info.packing == packing || packing::planes(info.bits).len() == 1
}

fn repacked_codes(layer: &QuantLinear, to: Packing) -> Vec<u32> {
    let info = layer.info();
    let (k, n) = (info.in_features, info.out_features);
    let mut codes = vec![0; k * n];
    for (row, codes) in codes.chunks_exact_mut(n).enumerate() {
        packing::unpack_row(layer.qweight(), n, info.bits, info.packing, row, 0..n, codes);
    }
    packing::pack_matrix(&codes, k, n, info.bits, to)
}

fn zero_words(layer: &QuantLinear, encoding: ZeroEncoding, packing: Packing) -> Cow<'_, [u8]> {
    if !packs_alike(layer, packing) {
        return owned(&repacked_zeros(layer, encoding, packing));
    }
    if let Some(words) = layer.zeros().stored_in(encoding) {
        return bytemuck::cast_slice(words).into();
    }
    // Made for this write alone: a layer would keep what it is asked for.
    let mut zeros = layer.zeros().clone();
    zeros.convert(encoding);
    let mut words = vec![0; zeros.groups() * zeros.words_per_group()];
    zeros.write_words(&mut words);
    owned(&words)
}

fn repacked_zeros(layer: &QuantLinear, encoding: ZeroEncoding, to: Packing) -> Vec<u32> {
    let info = layer.info();
    let mut zeros = layer.zeros().clone();
    zeros.convert(encoding);
    let rows = zeros.words().chunks_exact(zeros.words_per_group());
    rows.flat_map(|row| {
        let fields = packing::unpack(row, info.bits, info.packing, info.out_features);
        packing::pack(&fields, info.bits, to)
    })
    .collect()
}

/// The `g_idx` of a layer that came from no file.
fn groups(layer: &QuantLinear) -> Vec<i32> {
    let info = layer.info();
    let rows = info.group_size.rows(info.in_features);
    let group = |row| match info.g_idx {
        GroupIndexKind::AllZero => 0,
        _ => layer.group_index().group_of(row, rows),
    };
    // Group numbers came from an i32, or count rows that fit one.
    (0..info.in_features).map(|row| i32::try_from(group(row)).unwrap_or(i32::MAX)).collect()
}

fn owned(elements: &[impl bytemuck::NoUninit]) -> Cow<'static, [u8]> {
    bytemuck::cast_slice::<_, u8>(elements).to_vec().into()
}

const fn stored_dtype(dtype: DType) -> Dtype {
    match dtype {
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
    }
}
