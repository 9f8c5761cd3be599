//! Modules of Marlin's format: `B` and `s` become the parts of a layer, as if a GPTQ file had held it.
//!
//! The words of the layer are in memory and not in the mapped file: as much memory as they take packed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::config::ModuleSettings;
use super::findings::Finding;
use super::layers::{floats, integers, piece};
use super::safetensors_file::StoredTensor;
use super::weights::Tensors;
use super::{CheckpointFormat, Configs, QuantizeConfig};
use crate::error::{Error, Result};
use crate::format::{Bits, Packing, ZeroEncoding, marlin, packing};
use crate::quant_linear::{Part, QuantLinearParts};
use crate::tensor::Floats;

/// The suffixes of a module's tensors: codes, scales, bias.
pub(super) const SUFFIXES: [&str; 3] = ["B", "s", "bias"];
/// What a broken file needs.
const RESTORE: &str = "restore the file from where the checkpoint came from";

/// Whether the checkpoint is stored in this format: as its configuration says, or, where no module is stored as GPTQ files
/// store them, as its tensors show.
///
/// # Errors
/// [`Error::Unsupported`], where the configuration says it and the tensors are others.
pub(super) fn is_stored(config: &QuantizeConfig, tensors: &Tensors) -> Result<bool> {
    let declared = config.format == CheckpointFormat::Marlin;
    let packed = tensors.keys().find_map(|name| name.strip_suffix(".qweight"));
    let refuse = |reason: String, remedy: &str| {
        Err(Error::Unsupported {
            path: config.source.path.clone(),
            feature: "format marlin".into(),
            reason,
            remedy: remedy.into(),
        })
    };
    match packed {
        Some(module) if declared => refuse(
            format!("module `{module}` has a `qweight`, and that format has `B` and `s` in its place"),
            "correct `format` in the file: the tensors are those of gptq, gptq_v2 or gptq_p",
        ),
        Some(_) => Ok(false),
        None if !modules(declared, tensors).is_empty() => Ok(true),
        None if declared => refuse(
            "no module has the tensors of that format, `B` and `s`".into(),
            "look for a missing weight file, or correct `format` in the file",
        ),
        None => Ok(false),
    }
}

/// The modules that are stored so. Where the configuration does not say it, only those that have codes and scales: the
/// names are short, and other things may have them.
pub(super) fn modules(declared: bool, tensors: &Tensors) -> Vec<Arc<str>> {
    let has = |module: &str, suffix: &str| tensors.contains_key(format!("{module}.{suffix}").as_str());
    let of_codes = tensors.keys().filter_map(|name| name.strip_suffix(".B"));
    let of_codes = of_codes.filter(|module| declared || has(module, "s"));
    let of_scales = tensors.keys().filter_map(|name| name.strip_suffix(".s"));
    let of_scales = of_scales.filter(|module| declared && !has(module, "B"));
    of_codes.chain(of_scales).map(Arc::from).collect()
}

/// What holds of all modules.
pub(super) fn note(configs: &Configs, layers: usize, findings: &mut Vec<Finding>) {
    let config = &configs.primary;
    for disagreement in configs.disagreements_on("format") {
        findings
            .push(Finding::warning(None, format!("{disagreement}; the tensors are those of format marlin")));
    }
    if config.format != CheckpointFormat::Marlin {
        findings.push(Finding::warning(
            None,
            format!(
                "the configuration says format {} and the tensors are those of format marlin: the tensors decide",
                config.format
            ),
        ));
    }
    if !config.sym {
        findings.push(Finding::warning(
            None,
            "sym is false and format marlin has no zero points: all are read as 2^(bits - 1)",
        ));
    }
    findings.push(Finding::note(
        None,
        format!(
            "{layers} layers are stored in the order of Marlin's kernel and were brought back to that of GPTQ, in memory: \
             as much as they take packed; saved as gptq they are mapped"
        ),
    ));
}

/// The parts of a layer. The file stores neither its zero points nor the groups of its rows; it gets both, as a GPTQ file
/// has them.
pub(super) fn parts(
    name: &Arc<str>,
    pieces: &BTreeMap<&'static str, StoredTensor>,
    module: &ModuleSettings<'_>,
) -> Result<QuantLinearParts> {
    let ModuleSettings { bits, group_size, .. } = *module;
    let (b, s) = (integers::<u32>(piece(name, pieces, "B")?)?, floats(piece(name, pieces, "s")?)?);
    let shape = |suffix: &str, file: &Arc<Path>, found: &[usize], expected: String, hint: String| {
        Error::TensorShape {
            file: Arc::clone(file),
            tensor: format!("{name}.{suffix}"),
            found: found.to_vec(),
            expected,
            hint,
        }
    };
    let of_scales = |expected: String, hint: String| shape("s", &s.file, &s.shape, expected, hint);
    let of_codes = |expected: String, hint: String| shape("B", &b.file, &b.shape, expected, hint);

    let &[groups, n] = s.shape.as_slice() else {
        return Err(of_scales("two dimensions, [G, N]".into(), RESTORE.into()));
    };
    if groups == 0 || n == 0 || !n.is_multiple_of(marlin::COLUMNS) {
        let expected = format!("[G, N], one group or more and N a multiple of {}", marlin::COLUMNS);
        return Err(of_scales(expected, RESTORE.into()));
    }
    let (rows, words) = match *b.shape {
        [rows, words] if rows > 0 => (rows, words),
        _ => return Err(of_codes("[K / 16, N * bits / 2], one row or more".into(), RESTORE.into())),
    };
    let fits = |bits: Bits| marlin::allows(bits) && words == marlin::words_of_row(bits, n);
    if !fits(bits) {
        return Err(of_codes(
            format!("[K / 16, {}] (N = {n} from `s`) for {bits} bits", n * bits.get() / 2),
            match Bits::ALL.into_iter().find(|&bits| fits(bits)) {
                Some(fit) => format!("the tensors fit {fit} bits: correct `bits` in the configuration"),
                None if marlin::allows(bits) => RESTORE.into(),
                None => "that format holds codes of 4 and 8 bits: correct `bits` in the configuration".into(),
            },
        ));
    }
    let k = rows * marlin::ROWS;
    if groups != group_size.groups(k) {
        let fit = if groups == 1 { "-1".into() } else { k.div_ceil(groups.max(1)).to_string() };
        return Err(of_scales(
            format!("[{}, {n}] (K = {k}, group size {group_size})", group_size.groups(k)),
            format!("{groups} groups over {k} rows fit a group size of {fit}: correct `group_size`"),
        ));
    }

    let scales = match &s.data {
        Floats::F32(s) => Floats::from(marlin::to_scales(s, groups)),
        Floats::F16(s) => Floats::from(marlin::to_scales(s, groups)),
        Floats::BF16(s) => Floats::from(marlin::to_scales(s, groups)),
    };
    let words_for = |count: usize| packing::words_for(bits, count);
    let group = |row: usize| i32::try_from(row / group_size.rows(k)).unwrap_or(i32::MAX);
    let g_idx: Vec<i32> = (0..k).map(group).collect();
    Ok(QuantLinearParts {
        name: Arc::clone(name),
        bits,
        packing: Packing::Continuous,
        group_size,
        zero_encoding: ZeroEncoding::V2,
        qweight: Part::from_file(
            Arc::clone(&b.file),
            vec![words_for(k), n],
            marlin::to_qweight(&b.data, n, bits).into(),
        ),
        qzeros: Part::from_file(b.file, vec![groups, words_for(n)], marlin::zeros(groups, n, bits).into()),
        scales: Part::from_file(Arc::clone(&s.file), s.shape, scales),
        g_idx: Some(Part::from_file(s.file, vec![k], g_idx.into())),
        bias: pieces.get("bias").map(floats).transpose()?,
    })
}
