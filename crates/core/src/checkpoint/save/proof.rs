//! Whether what was written is what was to be saved.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::output::Staging;
use super::{SaveOptions, SaveProgress, SaveStep};
use crate::checkpoint::{
    Checkpoint, CheckpointFormat, OpenOptions, QuantizeConfig, StoredTensor, ZeroVersion,
};
use crate::error::{Error, Result};
use crate::format::ActOrder;
use crate::quant_linear::QuantLinear;

/// Opens what was written and compares it: configuration, plain tensors, and every layer by its dequantized weights.
/// Returns what a person should know.
pub(super) fn prove(
    staging: &Staging,
    checkpoint: &Checkpoint,
    layers: &[&QuantLinear],
    format: CheckpointFormat,
    options: &SaveOptions<'_>,
) -> Result<Option<String>> {
    let differs = |(layer, problem): (String, String)| Error::SavedDiffers {
        path: staging.out().into(),
        layer,
        problem,
    };
    let first = || layers.first().map(|layer| layer.name().to_owned()).unwrap_or_default();
    let open = |options: &OpenOptions| {
        Checkpoint::open_with(staging.path(), options)
            .map_err(|error| differs((first(), format!("it does not open: {}", error.report()))))
    };
    // Zero points that no reader can be sure of are right all the same, and the proof is about them.
    let mut note = None;
    let saved = match Checkpoint::open(staging.path()) {
        Err(Error::ZeroEncodingContradiction { evidence, .. }) => {
            note = Some(format!(
                "its zero points look as if they were stored in another format than {format} ({evidence}): it opens \
                 only where the format is given, with --assume-format"
            ));
            let version = ZeroVersion::of(format);
            open(&OpenOptions { assume_format: Some(version), ..OpenOptions::default() })?
        }
        Err(_) => open(&OpenOptions::default())?,
        Ok(saved) => saved,
    };

    let configs = QuantizeConfig::find(staging.path())?;
    if let Some(config) = configs.iter().find(|config| config.format != format) {
        let problem = format!("{} says {}, not {format}", config.source, config.format);
        return Err(differs((first(), problem)));
    }
    compare_plain(checkpoint, &saved).map_err(differs)?;
    compare_layers(layers, &saved, options).map_err(differs)?;
    Ok(note)
}

/// A layer or tensor, and how it differs.
type Difference = (String, String);

fn compare_plain(checkpoint: &Checkpoint, saved: &Checkpoint) -> Result<(), Difference> {
    let stored = |checkpoint: &'_ Checkpoint| checkpoint.tensors.len();
    if stored(checkpoint) != stored(saved) {
        let problem = format!("{} plain tensors, was {}", stored(saved), stored(checkpoint));
        return Err(("(all)".into(), problem));
    }
    for tensor in checkpoint.tensors() {
        same_tensor(tensor, saved.tensor(tensor.name()))?;
    }
    // The groups of rows mean the same where they read the same; they are to be the same bytes too.
    for (name, tensor) in &checkpoint.stored {
        if name.ends_with(".g_idx") {
            same_tensor(tensor, saved.stored.get(name))?;
        }
    }
    Ok(())
}

fn same_tensor(was: &StoredTensor, is: Option<&StoredTensor>) -> Result<(), Difference> {
    let problem = match is {
        None => "the tensor is missing".into(),
        Some(is) if is.dtype() != was.dtype() => format!("dtype {:?}, was {:?}", is.dtype(), was.dtype()),
        Some(is) if is.shape() != was.shape() => format!("shape {:?}, was {:?}", is.shape(), was.shape()),
        Some(is) if is.bytes() != was.bytes() => "its bytes differ".into(),
        Some(_) => return Ok(()),
    };
    Err((was.name().to_owned(), problem))
}

/// Compares all layers, on as many threads as there are processors.
fn compare_layers(
    layers: &[&QuantLinear],
    saved: &Checkpoint,
    options: &SaveOptions<'_>,
) -> Result<(), Difference> {
    if layers.len() != saved.layers().len() {
        return Err(("(all)".into(), format!("{} layers, was {}", saved.layers().len(), layers.len())));
    }
    let bytes_total = layers.iter().map(|layer| layer.info().packed_bytes).sum();
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        while let Some(layer) = layers.get(next.fetch_add(1, Ordering::Relaxed)) {
            let name = || layer.name().to_owned();
            let is = saved.layer(layer.name()).map_err(|_| (name(), "it is missing".to_owned()))?;
            compare(layer, is).map_err(|problem| (name(), problem))?;
            let more = layer.info().packed_bytes;
            let bytes = done.fetch_add(more, Ordering::Relaxed) + more;
            if let Some(progress) = options.progress {
                progress(SaveProgress { step: SaveStep::Prove, bytes, bytes_total });
            }
        }
        Ok(())
    };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(layers.len());
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut results = vec![work()];
        for other in others {
            results.push(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        results.into_iter().collect()
    })
}

/// Compares a layer with itself as it was saved.
fn compare(was: &QuantLinear, is: &QuantLinear) -> Result<(), String> {
    let (info, read) = (was.info(), is.info());
    let (k, n) = (info.in_features, info.out_features);
    if (read.in_features, read.out_features, read.bits, read.groups) != (k, n, info.bits, info.groups) {
        return Err(format!(
            "[{}, {}] of {} bits in {} groups, was [{k}, {n}] of {} bits in {} groups",
            read.in_features, read.out_features, read.bits, read.groups, info.bits, info.groups
        ));
    }
    if read.g_idx != info.g_idx || is.group_index() != was.group_index() {
        return Err(format!("g_idx is {}, was {}", read.g_idx, info.g_idx));
    }
    if is.scales().dtype() != was.scales().dtype() || is.scales().as_bytes() != was.scales().as_bytes() {
        return Err("its scales differ".into());
    }
    let bias = |layer: &QuantLinear| layer.bias().map(|bias| (bias.dtype(), bias.as_bytes().to_vec()));
    if bias(is) != bias(was) {
        return Err("its bias differs".into());
    }

    let (mut zeros_was, mut zeros_is) = (vec![0; n], vec![0; n]);
    for group in 0..info.groups {
        was.zeros().unpack_group(group, 0..n, &mut zeros_was);
        is.zeros().unpack_group(group, 0..n, &mut zeros_is);
        if let Some(column) = zeros_was.iter().zip(&zeros_is).position(|(was, is)| was != is) {
            let of = |zeros: &[u8]| zeros.get(column).copied().unwrap_or_default();
            return Err(format!(
                "the zero point of group {group}, column {column} is {}, was {}",
                of(&zeros_is),
                of(&zeros_was)
            ));
        }
    }

    let (mut rows_was, mut rows_is) = (was.dequantized_rows(), is.dequantized_rows());
    let (mut row_was, mut row_is) = (vec![0.0f32; n], vec![0.0f32; n]);
    // In the order of groups, since a reader of rows keeps the scales of the last one.
    let order = was.group_index().act_order().map(ActOrder::sorted_rows);
    for place in 0..k {
        let row = order.and_then(|order| order.get(place)).map_or(place, |&row| row as usize);
        rows_was.read(row, &mut row_was);
        rows_is.read(row, &mut row_is);
        let differ = row_was.iter().zip(&row_is).position(|(was, is)| was.to_bits() != is.to_bits());
        if let Some(column) = differ {
            let of = |row: &[f32]| row.get(column).copied().unwrap_or_default();
            return Err(format!(
                "the weight in row {row}, column {column} is {}, was {}",
                of(&row_is),
                of(&row_was)
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{Bits, GroupSize, Packing, ZeroDialect, ZeroEncoding, packing};
    use crate::quant_linear::{Part, QuantLinearParts};

    const K: usize = 64;
    const N: usize = 32;

    /// A layer of 3 bits in two groups, with what `change` makes of its parts.
    fn layer(
        packing: Packing,
        zeros: [u8; 2 * N],
        change: impl FnOnce(&mut QuantLinearParts),
    ) -> QuantLinear {
        let bits = Bits::THREE;
        let codes: Vec<u8> = (0..8).cycle().take(K * N).collect();
        let qweight = packing::pack_matrix(&codes, K, N, bits, packing);
        let qzeros: Vec<u32> = zeros.chunks(N).flat_map(|row| packing::pack(row, bits, packing)).collect();
        let rows = std::num::NonZeroUsize::new(32).map(GroupSize::Rows).expect("32 rows");
        let mut parts = QuantLinearParts {
            name: "a".into(),
            bits,
            packing,
            group_size: rows,
            zero_encoding: ZeroEncoding::V2,
            qweight: Part::in_memory(vec![packing::words_for(bits, K), N], qweight.into()),
            qzeros: Part::in_memory(vec![2, packing::words_for(bits, N)], qzeros.into()),
            scales: Part::in_memory(vec![2, N], vec![0.5f32; 2 * N].into()),
            g_idx: None,
            bias: Some(Part::in_memory(vec![N], vec![1.0f32; N].into())),
        };
        change(&mut parts);
        QuantLinear::new(parts).expect("a layer")
    }

    fn same(_: &mut QuantLinearParts) {}

    #[test]
    fn a_layer_is_the_same_in_another_packing_and_encoding() {
        let zeros = [3; 2 * N];
        let was = layer(Packing::Planar, zeros, same);
        let mut is = layer(Packing::Continuous, zeros, same);
        assert_eq!(compare(&was, &is), Ok(()));
        is.convert_zeros(ZeroEncoding::V1(ZeroDialect::FieldWrap));
        assert_eq!(compare(&was, &is), Ok(()));
    }

    #[test]
    fn a_layer_that_differs_anywhere_is_told_where() {
        let zeros = [3; 2 * N];
        let was = layer(Packing::Continuous, zeros, same);
        let mut other_zeros = zeros;
        other_zeros[N + 7] = 4;
        let told = |is: &QuantLinear| compare(&was, is).expect_err("it differs");
        let cases: [(QuantLinear, &str); 7] = [
            (
                layer(Packing::Continuous, other_zeros, same),
                "the zero point of group 1, column 7 is 4, was 3",
            ),
            (
                layer(Packing::Continuous, zeros, |parts| {
                    let mut words = parts.qweight.data.to_vec();
                    words[N + 5] ^= 1 << 31;
                    parts.qweight.data = words.into();
                }),
                // Code 21 has its lowest bit there.
                "the weight in row 21, column 5 is 0.5, was 1",
            ),
            (
                // Rows read as another packing: the words are the same, the weights are not.
                layer(Packing::Continuous, zeros, |parts| {
                    parts.packing = Packing::Planar;
                    parts.qzeros.data = packing::pack(&zeros, parts.bits, Packing::Planar).into();
                }),
                "the weight in row ",
            ),
            (
                layer(Packing::Continuous, zeros, |parts| {
                    parts.scales.data = [vec![0.5f32; N], vec![0.25; N]].concat().into();
                }),
                "its scales differ",
            ),
            (layer(Packing::Continuous, zeros, |parts| parts.bias = None), "its bias differs"),
            (
                layer(Packing::Continuous, zeros, |parts| {
                    parts.g_idx = Some(Part::in_memory(vec![K], vec![0; K].into()));
                }),
                "g_idx is all zero, was absent",
            ),
            (
                layer(Packing::Continuous, zeros, |parts| {
                    parts.group_size = GroupSize::PerColumn;
                    parts.qzeros = Part::in_memory(vec![1, 3], vec![0; 3].into());
                    parts.scales = Part::in_memory(vec![1, N], vec![0.5f32; N].into());
                }),
                "[64, 32] of 3 bits in 1 groups, was [64, 32] of 3 bits in 2 groups",
            ),
        ];
        for (is, expected) in &cases {
            let told = told(is);
            assert!(told.starts_with(expected), "`{told}`, expected `{expected}`");
        }
    }
}
