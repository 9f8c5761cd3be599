//! In which encoding the zero points of a checkpoint stand.
//!
//! A configuration says it, and sometimes lies; the data shows it, and not always conclusively. The rules:
//!
//! 1. What the user says by option holds.
//! 2. Symmetric layers are conclusive: all stored fields are `2^(bits−1) − 1` in v1, and `2^(bits−1)` in v2.
//! 3. Where configurations agree with one another and nothing conclusive contradicts them, they hold.
//! 4. Where two configurations disagree, conclusive data settles it, with a warning. Otherwise: an error.
//! 5. Where conclusive data contradicts every configuration: an error that shows the evidence.
//! 6. For asymmetric layers of up to 4 bits the mean of `code − zero` is near 0 in the right reading and near ±1
//!    in the other. This is statistics, so it warns and never decides.
//!
//! GPTQModel before version 7 stored v1 zero points of 3 bits in a way of its own. Symmetric layers show it
//! conclusively, asymmetric ones are read so where the configuration names such a version. The dialects are one at 3
//! bits, so that naming one changes nothing there.
//!
//! A v1 zero point of 0 is stored in ways that only knowledge of the writer tells apart: see [`ZeroDialect`].

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use serde::Serialize;

use super::findings::Finding;
use super::{CheckpointFormat, Configs, OpenOptions, QuantizeConfig};
use crate::error::{Error, Result};
use crate::format::{ZeroDialect, ZeroEncoding, ZeroPoints, packing};
use crate::quant_linear::QuantLinear;

/// Stored zero points, the dialects of v1 aside.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ZeroVersion {
    /// Minus one: `gptq`.
    V1,
    /// Direct: `gptq_v2` and `gptq_p`.
    V2,
}

impl ZeroVersion {
    pub(super) fn of(format: CheckpointFormat) -> Self {
        match format {
            CheckpointFormat::Gptq => Self::V1,
            _ => Self::V2,
        }
    }

    const fn describe(self) -> &'static str {
        match self {
            Self::V1 => "v1 (minus one, gptq)",
            Self::V2 => "v2 (direct, gptq_v2)",
        }
    }

    const fn option(self) -> &'static str {
        match self {
            Self::V1 => "gptq",
            Self::V2 => "gptq_v2",
        }
    }
}

/// What the zero points were read as, and on what grounds.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ZeroEvidence {
    /// What each configuration file that names a format declares.
    pub declared: Vec<Declared>,
    /// What they were read as.
    pub read_as: ZeroVersion,
    /// What settled it.
    pub settled_by: SettledBy,
    /// Layers whose stored fields are all `2^(bits−1) − 1`: symmetric, stored as v1.
    pub symmetric_v1: usize,
    /// Layers whose stored fields are all `2^(bits−1)`: symmetric, stored as v2.
    pub symmetric_v2: usize,
    /// Layers that are neither: asymmetric, no evidence by themselves.
    pub asymmetric: usize,
    /// Mean of `code − zero` over a sample of the asymmetric layers of up to 4 bits, in the reading taken: near 0
    /// where it is right.
    pub mean_code_minus_zero: Option<f64>,
    /// Words in which the dialects of v1 differ, because a zero point of 0 is stored in them.
    pub saturated_words: usize,
    /// The dialect in which those words were read.
    pub dialect: Option<ZeroDialect>,
    /// 3-bit layers that were stored in the way of GPTQModel before version 7, and were restored.
    pub restored_three_bits: usize,
}

/// The format that a configuration file names.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[non_exhaustive]
pub struct Declared {
    /// The file, and the key in it.
    pub source: String,
    /// The format.
    pub format: CheckpointFormat,
}

impl fmt::Display for Declared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} says {}", self.source, self.format)
    }
}

/// What settled the reading of zero points.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SettledBy {
    /// The configuration, uncontradicted.
    Configuration,
    /// The data, where configurations disagree.
    Data,
    /// The user, by option.
    Option,
}

/// Decides the encoding of every layer's zero points and marks the layers with it.
pub(super) fn settle(
    dir: &Path,
    configs: &Configs,
    options: &OpenOptions,
    layers: &mut [QuantLinear],
    findings: &mut Vec<Finding>,
) -> Result<ZeroEvidence> {
    // A file that leaves the default declares nothing.
    let declared: Vec<Declared> = configs
        .iter()
        .filter(|config| config.gives("format"))
        .map(|config| Declared { source: config.source.to_string(), format: config.format })
        .collect();
    let mut seen = Seen::of(layers, configs);
    let (read_as, settled_by) = settle_version(dir, &declared, options, &seen, findings)?;
    let mean = seen.mean.map(|stored| match read_as {
        ZeroVersion::V1 => stored - 1.0,
        ZeroVersion::V2 => stored,
    });
    warn_about_mean(mean, read_as, findings);

    let mut evidence = ZeroEvidence {
        declared,
        read_as,
        settled_by,
        symmetric_v1: seen.symmetric_v1,
        symmetric_v2: seen.symmetric_v2,
        asymmetric: seen.asymmetric,
        mean_code_minus_zero: mean,
        saturated_words: 0,
        dialect: None,
        restored_three_bits: 0,
    };
    for (index, layer) in layers.iter_mut().enumerate() {
        // Whatever dialect is said: at 3 bits they are one.
        if read_as == ZeroVersion::V1
            && let Some(zeros) = seen.restored.remove(&index)
        {
            evidence.restored_three_bits += 1;
            layer.replace_zeros(zeros);
            continue;
        }
        let encoding = match read_as {
            ZeroVersion::V2 => ZeroEncoding::V2,
            ZeroVersion::V1 => {
                let (dialect, words) = settle_dialect(layer, configs, options.zeros_dialect)?;
                if words > 0 {
                    evidence.saturated_words += words;
                    evidence.dialect = Some(dialect);
                }
                ZeroEncoding::V1(dialect)
            }
        };
        layer.reinterpret_zeros(encoding);
    }
    Ok(evidence)
}

fn settle_version(
    dir: &Path,
    declared: &[Declared],
    options: &OpenOptions,
    seen: &Seen,
    findings: &mut Vec<Finding>,
) -> Result<(ZeroVersion, SettledBy)> {
    if let Some(assumed) = options.assume_format {
        if seen.conclusive().is_some_and(|data| data != assumed) {
            findings.push(Finding::warning(
                None,
                format!(
                    "zero points are read as {}, as asked, against the data: {}",
                    assumed.describe(),
                    seen.text()
                ),
            ));
        }
        return Ok((assumed, SettledBy::Option));
    }
    let first = declared.first().map_or(ZeroVersion::V1, |first| ZeroVersion::of(first.format));
    let other = declared.iter().find(|other| ZeroVersion::of(other.format) != first);
    let said = || declared.first().map(ToString::to_string).unwrap_or_default();
    match (other, seen.conclusive()) {
        (None, None) if seen.contradicts(first) => Err(contradiction(dir, first, seen)),
        (None, None) => Ok((first, SettledBy::Configuration)),
        (None, Some(data)) if data == first => Ok((first, SettledBy::Configuration)),
        (None, Some(_)) => Err(contradiction(dir, first, seen)),
        (Some(other), Some(data)) => {
            findings.push(Finding::warning(
                None,
                format!("{}, {other}; the data settles it as {}: {}", said(), data.describe(), seen.text()),
            ));
            Ok((data, SettledBy::Data))
        }
        (Some(other), None) => Err(Error::ZeroEncodingUnsettled {
            dir: dir.into(),
            first: said(),
            second: other.to_string(),
            evidence: seen.text(),
        }),
    }
}

fn contradiction(dir: &Path, declared: ZeroVersion, seen: &Seen) -> Error {
    let found = if declared == ZeroVersion::V1 { ZeroVersion::V2 } else { ZeroVersion::V1 };
    Error::ZeroEncodingContradiction {
        dir: dir.into(),
        declared: declared.describe(),
        found: found.describe(),
        evidence: seen.text(),
        remedy: found.option(),
    }
}

/// A reading whose mean is farther from 0 than the other reading's, by a margin that no right reading of a real
/// model of up to 4 bits has shown.
fn warn_about_mean(mean: Option<f64>, read_as: ZeroVersion, findings: &mut Vec<Finding>) {
    let Some(mean) = mean else { return };
    let other = match read_as {
        ZeroVersion::V1 => mean + 1.0,
        ZeroVersion::V2 => mean - 1.0,
    };
    if mean.abs() > 0.7 && other.abs() < 0.3 {
        let (mean_text, other_text) = (format!("{mean:+.3}"), format!("{other:+.3}"));
        findings.push(Finding::warning(
            None,
            format!(
                "zero points are read as {}, but the mean of code - zero is {mean_text} there and would be \
                 {other_text} in the other reading (the right one is near 0): if the model answers nonsense, try \
                 --assume-format {}",
                read_as.describe(),
                if read_as == ZeroVersion::V1 { "gptq_v2" } else { "gptq" },
            ),
        ));
    }
}

/// The zero points of a 3-bit layer that GPTQModel before version 7 stored, as v2.
fn restored_three_bits(layer: &QuantLinear, configs: &Configs) -> Option<ZeroPoints> {
    let restored = layer.zeros().restored_three_bits()?;
    let regular = layer.zero_scan().uniform.is_some();
    let so_written = configs.iter().any(QuantizeConfig::is_gptqmodel_before_7);
    (restored.is_symmetric() || (so_written && !regular)).then_some(restored)
}

/// The dialect of one layer stored as v1, and in how many words it matters.
fn settle_dialect(
    layer: &QuantLinear,
    configs: &Configs,
    said: Option<ZeroDialect>,
) -> Result<(ZeroDialect, usize)> {
    let scan = layer.zero_scan();
    let Some((row, column, word)) = scan.first_saturated else {
        return Ok((ZeroDialect::FieldWrap, 0));
    };
    let words = scan.saturated_words;
    if let Some(dialect) = said {
        return Ok((dialect, words));
    }
    let by_word = ZeroDialect::differ(layer.info().bits);
    if configs.iter().any(QuantizeConfig::is_gptqmodel_lineage) {
        // GPTQModel steps whole words by a packed constant, except in layouts whose fields straddle words.
        return Ok((if by_word { ZeroDialect::WordBorrow } else { ZeroDialect::FieldWrap }, words));
    }
    let layer = || layer.name().to_owned();
    if let Some((row, column, word)) = scan.first_flooded
        && configs.iter().all(QuantizeConfig::is_autogptq_lineage)
    {
        return Err(Error::ZerosDestroyed { layer: layer(), words: scan.flooded_words, row, column, word });
    }
    if by_word {
        return Err(Error::ZeroDialectUnknown { layer: layer(), words, row, column, word });
    }
    Ok((ZeroDialect::FieldWrap, words))
}

/// What the stored zero points show.
struct Seen {
    symmetric_v1: usize,
    symmetric_v2: usize,
    asymmetric: usize,
    /// Mean of `code − stored field` over asymmetric layers of up to 4 bits.
    mean: Option<f64>,
    /// By index, the layers that v1 stores in the way of GPTQModel before version 7, as they read then.
    restored: HashMap<usize, ZeroPoints>,
}

impl Seen {
    fn of(layers: &[QuantLinear], configs: &Configs) -> Self {
        let mut seen =
            Self { symmetric_v1: 0, symmetric_v2: 0, asymmetric: 0, mean: None, restored: HashMap::new() };
        let mut unsettled = Vec::new();
        for (index, layer) in layers.iter().enumerate() {
            let symmetric = layer.info().bits.symmetric_zero();
            match layer.zero_scan().uniform {
                Some(field) if field == symmetric => seen.symmetric_v2 += 1,
                Some(field) if field + 1 == symmetric => seen.symmetric_v1 += 1,
                _ => {
                    let restored = restored_three_bits(layer, configs);
                    if restored.as_ref().is_some_and(ZeroPoints::is_symmetric) {
                        seen.symmetric_v1 += 1;
                    } else {
                        seen.asymmetric += 1;
                        unsettled.push(layer);
                    }
                    seen.restored.extend(restored.map(|zeros| (index, zeros)));
                }
            }
        }
        seen.mean = mean_code_minus_stored(&unsettled);
        seen
    }

    fn conclusive(&self) -> Option<ZeroVersion> {
        match (self.symmetric_v1, self.symmetric_v2) {
            (0, 0) => None,
            (_, 0) => Some(ZeroVersion::V1),
            (0, _) => Some(ZeroVersion::V2),
            _ => None,
        }
    }

    fn contradicts(&self, declared: ZeroVersion) -> bool {
        match declared {
            ZeroVersion::V1 => self.symmetric_v2 > 0,
            ZeroVersion::V2 => self.symmetric_v1 > 0,
        }
    }

    fn text(&self) -> String {
        let mut text = format!(
            "{} layers store 2^(bits-1)-1 throughout (symmetric in v1), {} store 2^(bits-1) throughout (symmetric in \
             v2), {} are asymmetric",
            self.symmetric_v1, self.symmetric_v2, self.asymmetric
        );
        if let Some(mean) = self.mean {
            text.push_str(&format!(
                " with a mean of code - stored zero of {mean:+.3} (near 1 in v1, near 0 in v2)"
            ));
        }
        text
    }
}

/// Rows and columns of each sampled layer, and how many layers: some 100,000 codes, a few hundred microseconds.
const SAMPLE_ROWS: usize = 64;
const SAMPLE_COLUMNS: usize = 64;
const SAMPLE_LAYERS: usize = 32;

fn mean_code_minus_stored(layers: &[&QuantLinear]) -> Option<f64> {
    let narrow: Vec<_> = layers.iter().filter(|layer| layer.info().bits.get() <= 4).collect();
    let (mut sum, mut count) = (0i64, 0i64);
    let (mut codes, mut zeros) = ([0; SAMPLE_COLUMNS], [0; SAMPLE_COLUMNS]);
    for layer in narrow.iter().step_by(narrow.len().div_ceil(SAMPLE_LAYERS).max(1)) {
        let info = layer.info();
        let columns = 0..info.out_features.min(SAMPLE_COLUMNS);
        let (codes, zeros) = (&mut codes[..columns.len()], &mut zeros[..columns.len()]);
        let group_rows = info.group_size.rows(info.in_features);
        // Read as v2, a field is what is stored.
        let mut stored = layer.zeros().clone();
        stored.reinterpret(ZeroEncoding::V2);
        for k in (0..info.in_features).step_by(info.in_features.div_ceil(SAMPLE_ROWS).max(1)) {
            let n = info.out_features;
            packing::unpack_row(layer.qweight(), n, info.bits, info.packing, k, columns.clone(), codes);
            stored.unpack_group(layer.group_index().group_of(k, group_rows), columns.clone(), zeros);
            for (code, zero) in codes.iter().zip(zeros.iter()) {
                sum += i64::from(*code) - i64::from(*zero);
                count += 1;
            }
        }
    }
    // A sample of at most a few hundred thousand small integers: exact in f64.
    (count > 0).then(|| sum as f64 / count as f64)
}
