//! In which format a checkpoint can be saved, and in which encoding each layer's zero points then stand.

use crate::checkpoint::{Checkpoint, CheckpointFormat, QuantizeConfig};
use crate::error::{Error, Result};
use crate::format::{Bits, Packing, ZeroDialect, ZeroEncoding, packing};
use crate::quant_linear::QuantLinear;

/// The format that most readers take: `gptq` where every layer is symmetric, else `gptq_v2`. What is `gptq_p` or has
/// no other format stays `gptq_p`.
pub(super) fn most_readable(checkpoint: &Checkpoint, layers: &[&QuantLinear]) -> CheckpointFormat {
    let planar = layers.iter().any(|layer| !Packing::Continuous.supports(layer.info().bits));
    if planar || checkpoint.config().format == CheckpointFormat::GptqP {
        CheckpointFormat::GptqP
    } else if layers.iter().all(|layer| layer.info().symmetric) {
        CheckpointFormat::Gptq
    } else {
        CheckpointFormat::GptqV2
    }
}

/// The encoding of each layer's zero points in `format`, in the order of `layers`. `configs` are those that will
/// stand beside the weights: a reader takes the dialect of v1 from them.
pub(super) fn choose(
    layers: &[&QuantLinear],
    format: CheckpointFormat,
    configs: &[QuantizeConfig],
) -> Result<Vec<ZeroEncoding>> {
    layers
        .iter()
        .map(|layer| match format {
            CheckpointFormat::Gptq => minus_one(layer, configs),
            _ => Ok(ZeroEncoding::V2),
        })
        .collect()
}

/// That `format` has a packing for every layer.
pub(super) fn check_packing(layers: &[&QuantLinear], format: CheckpointFormat) -> Result<()> {
    layers.iter().try_for_each(|layer| has_packing(layer, format))
}

fn has_packing(layer: &QuantLinear, format: CheckpointFormat) -> Result<()> {
    let info = layer.info();
    let Some(packing) = format.packing() else {
        let reason = "it is the arrangement of one kernel, which is not written here";
        return Err(refuse(layer, format, reason, "save it as gptq_v2"));
    };
    if !packing.supports(info.bits) {
        let reason = format!("codes of {} bits exist only in the planar layout", info.bits);
        return Err(refuse(layer, format, reason, "save it as gptq_p"));
    }
    let (k, n) = (info.in_features, info.out_features);
    if !packing::allows(info.bits, packing, k) || !packing::allows(info.bits, packing, n) {
        let reason =
            format!("the {packing} layout has whole blocks of 32 rows and columns, and it has {k} and {n}");
        return Err(refuse(layer, format, reason, "save it as gptq_v2"));
    }
    Ok(())
}

/// The encoding in which `gptq` stores the layer's zero points so that readers find them again.
fn minus_one(layer: &QuantLinear, configs: &[QuantizeConfig]) -> Result<ZeroEncoding> {
    let bits = layer.info().bits;
    if layer.info().symmetric {
        return Ok(ZeroEncoding::V1(ZeroDialect::FieldWrap));
    }
    let refuse = |reason: String| {
        refuse(
            layer,
            CheckpointFormat::Gptq,
            reason,
            "save it as gptq_v2, which stores zero points as they are",
        )
    };
    let by_gptqmodel = configs.iter().any(QuantizeConfig::is_gptqmodel_lineage);
    if let Some(zeros) = Zeros::of(layer)
        && !by_gptqmodel
    {
        let Zeros { count, group, column } = zeros;
        return Err(refuse(format!(
            "{count} of its zero points are 0, first in group {group}, column {column}, and readers do not agree how a \
             format that stores zero points minus one holds these"
        )));
    }
    // GPTQModel steps whole words by a packed constant, except where fields straddle words.
    let dialect = if by_gptqmodel && ZeroDialect::differ(bits) {
        ZeroDialect::WordBorrow
    } else {
        ZeroDialect::FieldWrap
    };
    let encoding = ZeroEncoding::V1(dialect);

    let mut stored = layer.zeros().clone();
    stored.convert(encoding);
    let uniform = stored.scan().uniform;
    if uniform == Some(bits.symmetric_zero()) {
        return Err(refuse(format!(
            "all its zero points are {}, which is stored as {}: what gptq_v2 stores for a symmetric layer, and readers \
             would take it for one",
            bits.symmetric_zero() + 1,
            bits.symmetric_zero()
        )));
    }
    // Before version 7 GPTQModel stored 3 bits in a way of its own, and files that name it are read so.
    let misread = bits == Bits::THREE
        && ((uniform.is_none() && configs.iter().any(QuantizeConfig::is_gptqmodel_before_7))
            || stored.restored_three_bits().is_some_and(|zeros| zeros.is_symmetric()));
    if misread {
        return Err(refuse(
            "it is asymmetric in 3 bits, which GPTQModel before version 7 stored in a way of its own, and readers could \
             not tell which way it is"
                .into(),
        ));
    }
    Ok(encoding)
}

/// What a person should know of layers that can be stored, and that not every reader takes.
pub(super) fn caution(
    layers: &[&QuantLinear],
    format: CheckpointFormat,
    configs: &[QuantizeConfig],
) -> Option<String> {
    let asymmetric = layers.iter().filter(|layer| !layer.info().symmetric).count();
    let refused = format == CheckpointFormat::Gptq
        && asymmetric > 0
        && !configs.iter().any(QuantizeConfig::is_gptqmodel_lineage);
    refused.then(|| {
        format!(
            "{asymmetric} of {} layers are asymmetric: GPTQModel does not open them as gptq where `sym` is false and \
             `meta.quantizer` does not name gptqmodel 0.9.0 or later; gptq_v2 has no such condition",
            layers.len()
        )
    })
}

/// The zero points of a layer that are 0.
struct Zeros {
    count: usize,
    /// Where the first of them is.
    group: usize,
    column: usize,
}

impl Zeros {
    /// `None` where there are none.
    fn of(layer: &QuantLinear) -> Option<Self> {
        let zeros = layer.zeros();
        let mut row = vec![0; zeros.columns()];
        let mut found: Option<Self> = None;
        for group in 0..zeros.groups() {
            zeros.unpack_group(group, 0..zeros.columns(), &mut row);
            let count = row.iter().filter(|&&zero| zero == 0).count();
            if let Some(column) = row.iter().position(|&zero| zero == 0) {
                found.get_or_insert(Self { count: 0, group, column }).count += count;
            }
        }
        found
    }
}

fn refuse(
    layer: &QuantLinear,
    format: CheckpointFormat,
    reason: impl Into<String>,
    remedy: impl Into<String>,
) -> Error {
    Error::NotStorable {
        layer: layer.name().to_owned(),
        format,
        reason: reason.into(),
        remedy: remedy.into(),
    }
}
