//! Tensors grouped by module, and made into layers.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytemuck::Pod;
use half::f16;
use safetensors::Dtype;

use super::config::{CheckpointFormat, Configs, ModuleConfig, ModuleSettings, QuantizeConfig};
use super::findings::Finding;
use super::marlin;
use super::safetensors_file::StoredTensor;
use super::weights::Tensors;
use crate::error::{Error, Result};
use crate::format::{Bits, Packing, ZeroDialect, ZeroEncoding};
use crate::quant_linear::{Part, QuantLinear, QuantLinearParts};
use crate::shared::Shared;
use crate::tensor::Floats;

/// The suffixes of a quantized module's tensors.
const SUFFIXES: [&str; 5] = ["qweight", "qzeros", "scales", "g_idx", "bias"];

/// What the tensors of a checkpoint are made into.
pub(super) struct Built {
    pub(super) layers: Vec<QuantLinear>,
    /// Of each layer, whether the configuration says that it is symmetric.
    pub(super) sym: Vec<bool>,
    /// Tensors that belong to no layer.
    pub(super) tensors: Tensors,
    /// Those of the layers, where a GPTQ file has them so.
    pub(super) stored: Tensors,
    /// Whether the layers are stored in Marlin's format.
    pub(super) marlin: bool,
}

/// Makes a layer of every module that has a `qweight`, or, in Marlin's format, a `B`.
///
/// Zero points are marked as the configuration's format says; [`super::zeros`] settles it afterwards.
pub(super) fn build(configs: &Configs, mut tensors: Tensors, findings: &mut Vec<Finding>) -> Result<Built> {
    let config = &configs.primary;
    let marlin = marlin::is_stored(config, &tensors)?;
    let mut names: Vec<Arc<str>> = match marlin {
        true => marlin::modules(config.format == CheckpointFormat::Marlin, &tensors),
        false => tensors.keys().filter_map(|name| name.strip_suffix(".qweight")).map(Arc::from).collect(),
    };
    names.sort_by(|a, b| natural_order(a, b));
    let suffixes = if marlin { &marlin::SUFFIXES[..] } else { &SUFFIXES };

    let mut layers = Vec::with_capacity(names.len());
    let mut sym = Vec::with_capacity(names.len());
    let mut stored = Tensors::new();
    for name in names {
        let pieces: BTreeMap<&'static str, StoredTensor> = suffixes
            .iter()
            .filter_map(|suffix| Some((*suffix, tensors.remove(format!("{name}.{suffix}").as_str())?)))
            .collect();
        let (layer, says_symmetric) = layer(config, &name, &pieces, marlin, findings)?;
        layers.push(layer);
        sym.push(says_symmetric);
        if !marlin {
            stored.extend(pieces.into_values().map(|piece| (piece.name().into(), piece)));
        }
    }
    check_disagreements(configs, &layers, findings)?;
    note_leftovers(config, &layers, &tensors, findings);
    if marlin {
        marlin::note(configs, layers.len(), findings);
    }
    Ok(Built { layers, sym, tensors, stored, marlin })
}

/// A layer, and whether the configuration says that it is symmetric.
fn layer(
    config: &QuantizeConfig,
    name: &Arc<str>,
    pieces: &BTreeMap<&'static str, StoredTensor>,
    marlin: bool,
    findings: &mut Vec<Finding>,
) -> Result<(QuantLinear, bool)> {
    let module = match config.for_module(name)? {
        ModuleConfig::Quantized(module) => module,
        ModuleConfig::Skip { pattern } => {
            findings.push(Finding::warning(
                Some(Arc::clone(name)),
                format!(
                    "`dynamic` rule `{pattern}` says that it is not quantized, and its tensors are; read with the \
                     configuration's own bits and group size"
                ),
            ));
            config.base()
        }
    };
    let layer = QuantLinear::new(match marlin {
        true => marlin::parts(name, pieces, &module)?,
        false => parts(config, name, pieces, &module)?,
    })?;

    let info = layer.info();
    let desc_act = module.desc_act.unwrap_or(false);
    if desc_act && !info.act_order {
        findings.push(Finding::note(
            Some(Arc::clone(name)),
            format!(
                "desc_act is true and g_idx is {}: no permutation is needed, the tensor decides",
                info.g_idx
            ),
        ));
    } else if !desc_act && info.act_order {
        findings.push(Finding::warning(
            Some(Arc::clone(name)),
            "desc_act is false and g_idx is a permutation: the tensor decides; other readers that trust the \
             configuration answer nonsense here",
        ));
    }
    note_scales(&layer, findings);
    if info.ragged_groups {
        findings.push(Finding::warning(
            Some(Arc::clone(name)),
            format!("g_idx gives some groups more or fewer rows than the group size of {}", info.group_size),
        ));
    }
    Ok((layer, module.sym))
}

/// Layers that the configuration calls symmetric and that are not. Asked when their zero points are settled: until then
/// nobody knows what the stored ones mean. Nothing is said of a layer that would be symmetric in the other encoding: that
/// it is read against its data was said already.
pub(super) fn note_symmetry(layers: &[QuantLinear], sym: &[bool], findings: &mut Vec<Finding>) {
    let otherwise = |layer: &QuantLinear| {
        let symmetric = layer.info().bits.symmetric_zero();
        layer.zero_scan().uniform.is_some_and(|field| field == symmetric || field + 1 == symmetric)
    };
    let called_symmetric = layers.iter().zip(sym).filter(|(_, sym)| **sym).map(|(layer, _)| layer);
    for layer in called_symmetric.filter(|layer| !layer.info().symmetric && !otherwise(layer)) {
        let are = match layer.zeros().scan().uniform {
            Some(_) => {
                let symmetric = layer.info().bits.symmetric_zero();
                format!("all {} and not {symmetric}", layer.zeros().zero(0, 0))
            }
            None => "not all equal".to_owned(),
        };
        findings.push(Finding::warning(
            Some(Arc::clone(&layer.info().name)),
            format!(
                "sym is true and its zero points are {are}: the tensor decides; readers that assume the symmetric zero \
                 point answer nonsense here"
            ),
        ));
    }
}

/// The parts of a layer, as the file holds them.
fn parts(
    config: &QuantizeConfig,
    name: &Arc<str>,
    pieces: &BTreeMap<&'static str, StoredTensor>,
    module: &ModuleSettings<'_>,
) -> Result<QuantLinearParts> {
    let piece = |suffix: &'static str| piece(name, pieces, suffix);
    let (qweight, qzeros, scales) = (piece("qweight")?, piece("qzeros")?, piece("scales")?);
    Ok(QuantLinearParts {
        name: Arc::clone(name),
        bits: module.bits,
        packing: config.format.packing().unwrap_or(Packing::Continuous),
        group_size: module.group_size,
        zero_encoding: match config.format {
            CheckpointFormat::Gptq => ZeroEncoding::V1(ZeroDialect::FieldWrap),
            _ => ZeroEncoding::V2,
        },
        qweight: integers(qweight)?,
        qzeros: integers(qzeros)?,
        scales: floats(scales)?,
        g_idx: pieces.get("g_idx").map(integers).transpose()?,
        bias: pieces.get("bias").map(floats).transpose()?,
    })
}

/// A tensor that the module `name` cannot be without.
pub(super) fn piece<'p>(
    name: &str,
    pieces: &'p BTreeMap<&'static str, StoredTensor>,
    suffix: &'static str,
) -> Result<&'p StoredTensor> {
    pieces.get(suffix).ok_or_else(|| Error::TensorMissing {
        layer: name.to_owned(),
        missing: suffix,
        found: pieces.keys().map(ToString::to_string).collect(),
    })
}

/// Scales that are no numbers, or that make weights which f16 cannot hold.
fn note_scales(layer: &QuantLinear, findings: &mut Vec<Finding>) {
    let subject = || Some(Arc::clone(&layer.info().name));
    let scales = layer.scales().survey();
    if scales.non_finite > 0 {
        let text = format!(
            "{} of {} scales are infinite or not a number: every output of their columns will be",
            scales.non_finite,
            layer.scales().len()
        );
        findings.push(Finding::warning(subject(), text));
    }
    // Codes of up to 8 bits: exact in f32.
    let max_code = layer.info().bits.max_code() as f32;
    let largest = f16::MAX.to_f32();
    if scales.largest * max_code > largest {
        let text = format!(
            "scales of up to {:.4} times codes of up to {max_code} exceed {largest}, the largest f16: kernels that make \
             f16 weights overflow; run it in bf16 or f32",
            scales.largest
        );
        findings.push(Finding::warning(subject(), text));
    }
}

/// What the leftover tensors say: pieces without a qweight, modules that the configuration expects quantized.
fn note_leftovers(
    config: &QuantizeConfig,
    layers: &[QuantLinear],
    tensors: &Tensors,
    findings: &mut Vec<Finding>,
) {
    for name in tensors.keys() {
        for suffix in ["qzeros", "g_idx"] {
            if let Some(module) = name.strip_suffix(suffix).and_then(|rest| rest.strip_suffix('.')) {
                findings.push(Finding::warning(
                    Some(Arc::from(module)),
                    format!(
                        "it has {suffix} and no qweight: a shard may be missing; left among the plain tensors"
                    ),
                ));
            }
        }
    }
    let lm_head = layers.iter().any(|layer| layer.name() == "lm_head" || layer.name().ends_with(".lm_head"));
    if config.lm_head != lm_head {
        let (says, is) = if lm_head { ("false", "is quantized") } else { ("true", "is not quantized") };
        findings.push(Finding::warning(
            Some(Arc::from("lm_head")),
            format!("the configuration's lm_head is {says} and the head {is}: the tensors decide"),
        ));
    }
}

/// Where configuration files contradict one another. About the format, the zero points are settled elsewhere by the
/// data; the packing of 3 bits cannot be, since both packings have the same shapes.
fn check_disagreements(configs: &Configs, layers: &[QuantLinear], findings: &mut Vec<Finding>) -> Result<()> {
    let config = &configs.primary;
    for disagreement in &configs.disagreements {
        if disagreement.key != "format" {
            findings.push(Finding::warning(
                None,
                format!("{disagreement}; the first is used, and checked against the tensors"),
            ));
        }
    }
    let packings_differ =
        configs.others.iter().any(|other| other.format.packing() != config.format.packing());
    match layers.iter().find(|layer| layer.info().bits == Bits::THREE) {
        Some(layer) if packings_differ => Err(Error::Unsupported {
            path: config.source.path.clone(),
            feature: "a 3-bit layer under configurations that disagree about gptq_p".into(),
            reason: format!(
                "{}, and the tensors of layer `{}` have the same shapes in both",
                configs.disagreements_on("format").map(ToString::to_string).collect::<Vec<_>>().join("; "),
                layer.name()
            ),
            remedy: "correct the file that is wrong".into(),
        }),
        _ => Ok(()),
    }
}

/// The configuration that text-generation-inference keeps as tensors of one number: `gptq_bits`,
/// `gptq_groupsize`, `gptq_sym`.
pub(super) fn config_among(tensors: &Tensors) -> Result<Option<QuantizeConfig>> {
    let (Some(bits), Some(group_size)) = (tensors.get("gptq_bits"), tensors.get("gptq_groupsize")) else {
        return Ok(None);
    };
    let sym = tensors.get("gptq_sym").map(scalar).transpose()?.map(|sym| sym != 0);
    QuantizeConfig::from_scalars(scalar(bits)?, scalar(group_size)?, sym, bits.file()).map(Some)
}

fn scalar(tensor: &StoredTensor) -> Result<i64> {
    fn only<T: Copy + Into<i64>>(elements: &[T]) -> Option<i64> {
        match elements {
            [only] => Some((*only).into()),
            _ => None,
        }
    }
    let number = match tensor.dtype() {
        Dtype::I64 => only(&tensor.elements::<i64>()),
        Dtype::I32 => only(&tensor.elements::<i32>()),
        Dtype::BOOL | Dtype::U8 => only(tensor.bytes()),
        _ => {
            return Err(dtype_error(
                tensor,
                "I64, I32 or BOOL",
                "restore the file from where the checkpoint came from",
            ));
        }
    };
    number.ok_or_else(|| Error::TensorShape {
        file: tensor.shared_file(),
        tensor: tensor.name().to_owned(),
        found: tensor.shape().to_vec(),
        expected: "one number".into(),
        hint: "restore the file from where the checkpoint came from".into(),
    })
}

pub(super) fn integers<T: Pod + Send + Sync>(tensor: &StoredTensor) -> Result<Part<Shared<T>>> {
    let hint = match tensor.dtype() {
        Dtype::I64 | Dtype::I16 | Dtype::I8 => {
            "pack_dtype other than int32 is not read: pack the model again"
        }
        _ => "restore the file from where the checkpoint came from",
    };
    match tensor.dtype() {
        Dtype::I32 | Dtype::U32 => {
            Ok(Part::from_file(tensor.shared_file(), tensor.shape().to_vec(), tensor.elements()))
        }
        _ => Err(dtype_error(tensor, "I32", hint)),
    }
}

pub(super) fn floats(tensor: &StoredTensor) -> Result<Part<Floats>> {
    match tensor.floats() {
        Some(data) => Ok(Part::from_file(tensor.shared_file(), tensor.shape().to_vec(), data)),
        None => Err(dtype_error(
            tensor,
            "F16, BF16 or F32",
            "restore the file from where the checkpoint came from",
        )),
    }
}

fn dtype_error(tensor: &StoredTensor, expected: &str, hint: &str) -> Error {
    Error::TensorDtype {
        file: tensor.shared_file(),
        tensor: tensor.name().to_owned(),
        found: format!("{:?}", tensor.dtype()),
        expected: expected.into(),
        hint: hint.into(),
    }
}

/// Compares names with runs of digits as numbers: `layers.2` before `layers.10`.
pub(super) fn natural_order(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        let (digits_a, digits_b) = (leading_digits(a), leading_digits(b));
        if digits_a > 0 && digits_b > 0 {
            let (number_a, rest_a) = a.split_at(digits_a);
            let (number_b, rest_b) = b.split_at(digits_b);
            let (number_a, number_b) = (trim_zeros(number_a), trim_zeros(number_b));
            let order = number_a.len().cmp(&number_b.len()).then_with(|| number_a.cmp(number_b));
            if order != Ordering::Equal {
                return order;
            }
            (a, b) = (rest_a, rest_b);
            continue;
        }
        match (a.split_first(), b.split_first()) {
            (Some((x, rest_a)), Some((y, rest_b))) if x == y => (a, b) = (rest_a, rest_b),
            (x, y) => return x.map(|(x, _)| x).cmp(&y.map(|(y, _)| y)),
        }
    }
}

fn leading_digits(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

fn trim_zeros(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|&&digit| digit == b'0').count();
    digits.get(zeros..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ordered_with_numbers_counted() {
        let mut names = ["lm_head", "layers.10.a", "layers.2.b", "layers.2.a", "layers.02.a", "layers.1"];
        names.sort_by(|a, b| natural_order(a, b));
        assert_eq!(names, ["layers.1", "layers.2.a", "layers.02.a", "layers.2.b", "layers.10.a", "lm_head"]);
    }
}
