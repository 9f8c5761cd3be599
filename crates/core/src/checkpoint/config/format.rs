//! Which format a configuration declares: the method, the format, and the many keys that tell them.

use std::fmt;

use serde::{Serialize, Serializer};

use super::keys::{Entry, Keys};
use super::{DynamicRules, Rule};
use crate::error::{Error, Result};
use crate::format::{Bits, Packing};

/// How a checkpoint packs its codes and stores its zero points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CheckpointFormat {
    /// Continuous packing, zero points stored minus one (v1).
    Gptq,
    /// Continuous packing, zero points stored as they are (v2).
    GptqV2,
    /// Planar packing, zero points stored as they are (v2).
    GptqP,
    /// Already arranged for the Marlin kernel: `B` and `s` in place of `qweight`, `qzeros`, `scales`.
    Marlin,
}

impl CheckpointFormat {
    /// Every format there is.
    pub const ALL: [Self; 4] = [Self::Gptq, Self::GptqV2, Self::GptqP, Self::Marlin];

    /// The name in configuration files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gptq => "gptq",
            Self::GptqV2 => "gptq_v2",
            Self::GptqP => "gptq_p",
            Self::Marlin => "marlin",
        }
    }

    /// The format that a configuration file calls `name`, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name().eq_ignore_ascii_case(name))
    }

    /// The order of the bits in `qweight` and `qzeros`; `None` for Marlin, which has neither.
    pub const fn packing(self) -> Option<Packing> {
        match self {
            Self::Gptq | Self::GptqV2 => Some(Packing::Continuous),
            Self::GptqP => Some(Packing::Planar),
            Self::Marlin => None,
        }
    }
}

impl fmt::Display for CheckpointFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for CheckpointFormat {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

pub(crate) const METHOD: [&str; 2] = ["quant_method", "method"];
/// In order of precedence. Only AutoRound writes `packing_format`, only AWQ's programs `version`.
pub(crate) const FORMAT: [&str; 4] = ["format", "checkpoint_format", "packing_format", "version"];
/// The formats of AWQ's programs, as they stand in `version` and `format`.
const AWQ_FORMATS: [&str; 8] =
    ["gemm", "gemv", "gemv_fast", "gemvfast", "llm-awq", "ipex", "exllama", "exllamav2"];

/// The format that the file names, by whichever key. The method is read on the way: `marlin` is one to some
/// writers.
pub(crate) fn declared(keys: &Keys<'_>) -> Result<Option<CheckpointFormat>> {
    let mut marlin = None;
    for (_, entry) in keys.all(&METHOD) {
        match entry.name()?.as_str() {
            "gptq" => {}
            "marlin" => marlin = Some(entry),
            "bitblas" => return Err(bitblas(&entry)),
            "auto-round" | "auto_round" | "autoround" | "intel/auto-round" => {
                return Err(entry.unsupported(
                    "AutoRound's own format keeps the settings of its layers in other keys",
                    "export the model again in AutoRound's format auto_gptq",
                ));
            }
            _ => {
                return Err(entry.unsupported(
                    "only GPTQ is read",
                    "quantize the model with GPTQ, or open it with a program for that method",
                ));
            }
        }
    }
    for (_, entry) in keys.all(&["is_marlin_format"]) {
        if entry.boolean()? {
            marlin = Some(entry);
        }
    }

    let mut formats = keys.all(&FORMAT).into_iter().filter_map(|(name, entry)| {
        let format = match name {
            "packing_format" => packing_format(&entry).map(Some),
            "version" => version(&entry),
            _ => named(&entry).map(Some),
        };
        format.map(|format| Some((format?, entry))).transpose()
    });
    let first = formats.next().transpose()?;
    let second = formats.next().and_then(Result::ok);
    if let (Some((format, at)), Some((other, other_at))) = (&first, &second)
        && format != other
    {
        tracing::warn!(
            "{}: `{}` is {format} and `{}` is {other}; the first is believed",
            at.source(),
            at.key(),
            other_at.key()
        );
    }
    match (marlin, first) {
        (Some(marlin), Some((format, at))) if format != CheckpointFormat::Marlin => {
            Err(at.refuse(format!("marlin, as `{}` says", marlin.key())))
        }
        (Some(_), _) => Ok(Some(CheckpointFormat::Marlin)),
        (None, first) => Ok(first.map(|(format, _)| format)),
    }
}

fn named(entry: &Entry<'_>) -> Result<CheckpointFormat> {
    let name = entry.name()?;
    match CheckpointFormat::from_name(&name) {
        Some(format) => Ok(format),
        None if name == "bitblas" => Err(bitblas(entry)),
        None if AWQ_FORMATS.contains(&name.as_str()) => Err(awq(entry)),
        None => Err(entry.unsupported(
            "no format of GPTQ checkpoints is known by this name",
            "save the model again as gptq, gptq_v2 or gptq_p",
        )),
    }
}

/// AutoRound's names: whether its packer stored zero points minus one.
fn packing_format(entry: &Entry<'_>) -> Result<CheckpointFormat> {
    let name = entry.name()?;
    match name.strip_prefix("auto_round:").unwrap_or(&name) {
        "auto_gptq" | "gptq_zp+-1" => Ok(CheckpointFormat::Gptq),
        "gptq" | "gptqmodel" | "auto_round" => Ok(CheckpointFormat::GptqV2),
        _ => Err(entry.unsupported(
            "no packing of GPTQ codes is known by this name",
            "export the model again in AutoRound's format auto_gptq",
        )),
    }
}

/// A format under the name that AWQ's programs give the key; any other use of so common a word is not ours.
fn version(entry: &Entry<'_>) -> Result<Option<CheckpointFormat>> {
    let name = entry.value.as_str().map(str::to_ascii_lowercase).unwrap_or_default();
    if AWQ_FORMATS.contains(&name.as_str()) {
        return Err(awq(entry));
    }
    Ok(CheckpointFormat::from_name(&name))
}

fn awq(entry: &Entry<'_>) -> Error {
    entry.unsupported(
        "it is a format of AWQ, and only GPTQ is read",
        "open the model with a program that reads AWQ",
    )
}

fn bitblas(entry: &Entry<'_>) -> Error {
    entry.unsupported(
        "BitBLAS arranges the codes for its own kernels",
        "save the model again as gptq or gptq_v2",
    )
}

/// Widths that no layout but the planar one has.
pub(crate) fn only_planar(bits: Bits) -> bool {
    matches!(bits.get(), 5..=7)
}

/// The format that holds for the whole checkpoint, once its widths are known.
pub(crate) fn effective(
    keys: &Keys<'_>,
    declared: Option<CheckpointFormat>,
    bits: Bits,
    dynamic: &DynamicRules,
) -> Result<CheckpointFormat> {
    let rule = dynamic.iter().find_map(|rule| match rule {
        Rule::Override { pattern, overrides } => overrides
            .bits
            .filter(|&bits| only_planar(bits))
            .map(|bits| (bits, format!(" of the dynamic rule `{pattern}`"))),
        _ => None,
    });
    let wide = only_planar(bits).then(|| (bits, String::new())).or(rule);
    match (declared, wide) {
        (None, Some(_)) => Ok(CheckpointFormat::GptqP),
        (None, None) => Ok(CheckpointFormat::Gptq),
        (Some(format @ (CheckpointFormat::Gptq | CheckpointFormat::GptqV2)), Some((bits, whose))) => {
            Err(Error::Unsupported {
                path: keys.source().path.clone(),
                feature: format!("a width of {bits} bits{whose} in format `{format}`"),
                reason: "codes of 5, 6 and 7 bits exist only in the planar layout of format gptq_p"
                    .to_owned(),
                remedy: "if the program that wrote the file packs that way, set its `format` to gptq_p"
                    .to_owned(),
            })
        }
        (Some(format), _) => Ok(format),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::{ConfigSource, QuantizeConfig};
    use super::*;

    #[test]
    fn a_format_prints_and_reads_as_files_spell_it() {
        for format in CheckpointFormat::ALL {
            assert_eq!(CheckpointFormat::from_name(&format.to_string().to_uppercase()), Some(format));
            assert_eq!(serde_json::to_value(format).ok(), Some(json!(format.name())));
        }
        assert_eq!(CheckpointFormat::from_name("gptq "), None);
    }

    fn read(value: &Value) -> Result<QuantizeConfig> {
        QuantizeConfig::from_json(value, ConfigSource::file("quantize_config.json"))
    }

    /// The format that a 4-bit file with these keys has.
    fn format_of(mut keys: Value) -> CheckpointFormat {
        keys["bits"] = json!(4);
        read(&keys).unwrap_or_else(|error| panic!("{keys}: {}", error.report())).format
    }

    fn refusal(value: &Value) -> String {
        match read(value) {
            Err(error @ (Error::Unsupported { .. } | Error::ConfigValue { .. })) => error.to_string(),
            other => panic!("{value} gave {other:?}"),
        }
    }

    #[test]
    fn every_key_that_names_the_format_is_read() {
        use CheckpointFormat::{Gptq, GptqP, GptqV2, Marlin};
        for (keys, format) in [
            (json!({}), Gptq),
            (json!({"format": "gptq"}), Gptq),
            (json!({"format": "GPTQ_V2"}), GptqV2),
            (json!({"checkpoint_format": "gptq_p"}), GptqP),
            (json!({"Checkpoint_Format": "gptq_v2"}), GptqV2),
            (json!({"format": null, "checkpoint_format": "gptq_v2"}), GptqV2),
            (json!({"method": "gptq", "quant_method": "GPTQ", "format": "gptq_v2"}), GptqV2),
            (json!({"format": "marlin"}), Marlin),
            (json!({"quant_method": "marlin"}), Marlin),
            (json!({"quant_method": "marlin", "checkpoint_format": "marlin"}), Marlin),
            (json!({"is_marlin_format": true}), Marlin),
            (json!({"is_marlin_format": false, "checkpoint_format": "gptq"}), Gptq),
            (json!({"packing_format": "auto_gptq"}), Gptq),
            (json!({"packing_format": "auto_round:auto_gptq"}), Gptq),
            (json!({"packing_format": "auto_round:gptq_zp+-1"}), Gptq),
            (json!({"packing_format": "auto_round:gptq", "autoround_version": "0.4"}), GptqV2),
            (json!({"packing_format": "auto_round:gptq", "checkpoint_format": "gptq"}), Gptq),
            (json!({"version": "gptq_v2"}), GptqV2),
            (json!({"version": "1.0"}), Gptq),
            (json!({"version": 2}), Gptq),
        ] {
            assert_eq!(format_of(keys.clone()), format, "{keys}");
        }
    }

    #[test]
    fn format_wins_over_checkpoint_format_whatever_the_order_of_the_file() {
        for keys in [
            json!({"format": "gptq", "checkpoint_format": "gptq_v2"}),
            json!({"checkpoint_format": "gptq_v2", "format": "gptq"}),
        ] {
            assert_eq!(format_of(keys), CheckpointFormat::Gptq);
        }
    }

    #[test]
    fn a_marlin_flag_and_another_format_contradict_each_other() {
        for (value, said) in [
            (json!({"bits": 4, "is_marlin_format": true, "format": "gptq"}), "as `is_marlin_format` says"),
            (
                json!({"bits": 4, "quant_method": "marlin", "checkpoint_format": "gptq_v2"}),
                "as `quant_method` says",
            ),
        ] {
            let text = refusal(&value);
            assert!(text.contains(said), "{text}");
        }
    }

    #[test]
    fn other_methods_and_formats_are_refused_by_the_name_the_file_gives_them() {
        for (value, names) in [
            (json!({"quant_method": "awq", "bits": 4}), [r#"`quant_method: "awq"`"#, "only GPTQ"]),
            (json!({"method": "AWQ", "bits": 4}), [r#"`method: "AWQ"`"#, "only GPTQ"]),
            (json!({"quant_method": "bitsandbytes"}), ["bitsandbytes", "only GPTQ"]),
            (json!({"quant_method": "fp8"}), ["fp8", "only GPTQ"]),
            (json!({"quant_method": "auto-round", "bits": 4}), ["auto-round", "auto_gptq"]),
            (json!({"quant_method": "AutoRound", "bits": 4}), ["AutoRound", "auto_gptq"]),
            (json!({"quant_method": "bitblas", "bits": 4}), ["bitblas", "BitBLAS"]),
            (json!({"format": "bitblas", "bits": 4}), [r#"`format: "bitblas"`"#, "BitBLAS"]),
            (json!({"format": "gemm", "bits": 4}), [r#"`format: "gemm"`"#, "AWQ"]),
            (
                json!({"w_bit": 4, "q_group_size": 128, "zero_point": true, "version": "GEMM"}),
                ["GEMM", "AWQ"],
            ),
            (json!({"checkpoint_format": "gptq_v9", "bits": 4}), ["gptq_v9", "no format"]),
            (json!({"packing_format": "auto_round:auto_awq", "bits": 4}), ["auto_awq", "no packing"]),
        ] {
            let text = refusal(&value);
            assert!(names.iter().all(|name| text.contains(name)), "{value} gave {text}");
        }
        for value in
            [json!({"quant_method": 4}), json!({"format": ["gptq"]}), json!({"is_marlin_format": "yes"})]
        {
            assert!(matches!(read(&value), Err(Error::ConfigValue { .. })), "{value}");
        }
    }

    #[test]
    fn a_width_that_only_planar_packing_has_makes_an_undeclared_checkpoint_planar() {
        for bits in [5, 6, 7] {
            let whole = read(&json!({ "bits": bits })).expect("planar");
            assert_eq!((whole.format, whole.gives("format")), (CheckpointFormat::GptqP, false));
            let rule = json!({"bits": 3, "dynamic": {"+:a": {"bits": 8}, "b": {"bits": bits}}});
            assert_eq!(read(&rule).expect("planar").format, CheckpointFormat::GptqP);
            let skipped = json!({"bits": 3, "dynamic": {"-:a": {"bits": bits}}});
            assert_eq!(read(&skipped).expect("continuous").format, CheckpointFormat::Gptq);
            let declared = json!({"bits": bits, "format": "gptq_p", "dynamic": {"a": {"bits": 5}}});
            assert_eq!(read(&declared).expect("planar").format, CheckpointFormat::GptqP);
        }
    }

    #[test]
    fn a_width_that_only_planar_packing_has_contradicts_a_declared_continuous_format() {
        for format in ["gptq", "gptq_v2"] {
            let text = refusal(&json!({"bits": 6, "format": format}));
            assert!(text.contains("6 bits in format") && text.contains("gptq_p"), "{text}");
            let text =
                refusal(&json!({"bits": 4, "checkpoint_format": format, "dynamic": {"+:x": {"bits": 5}}}));
            assert!(text.contains("5 bits of the dynamic rule `+:x` in format"), "{text}");
        }
    }
}
