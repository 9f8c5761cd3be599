//! The configuration of a checkpoint, as text.

use gptq_core::checkpoint::config::{Overrides, Rule};
use gptq_core::checkpoint::{CheckpointFormat, QuantizeConfig};
use gptq_core::format::GroupSize;

use crate::output::Page;

/// Writes how the configuration is understood.
pub(super) fn write(config: &QuantizeConfig, page: &mut Page) {
    let given = |key: &str, value: String| {
        if config.gives(key) { value } else { format!("{value} (not in the file: the default)") }
    };
    let mut fields = vec![
        ("file", config.source.to_string()),
        ("bits", config.bits.to_string()),
        ("group_size", given("group_size", group_size(config.group_size))),
        (
            "desc_act",
            match config.desc_act {
                Some(desc_act) => format!("{desc_act} (a hint: g_idx decides)"),
                None => "not in the file (a hint: g_idx decides)".into(),
            },
        ),
        ("sym", given("sym", config.sym.to_string())),
        ("format", given("format", format!("{}: {}", config.format, describe(config.format)))),
        ("lm_head", given("lm_head", config.lm_head.to_string())),
        (
            "quantizer",
            match config.quantizers.as_slice() {
                [] => "not named".into(),
                names => names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            },
        ),
        (
            "dynamic",
            match config.dynamic.iter().filter_map(rule).collect::<Vec<_>>() {
                rules if rules.is_empty() => "no rules".into(),
                rules => rules.join("\n"),
            },
        ),
    ];
    if let Some(rows) = config.max_input_length {
        fields.push((
            "max_input_length",
            format!("{rows} (a hint: --max-input-length of finalize asks for it)"),
        ));
    }
    page.fields(&fields);
}

fn group_size(size: GroupSize) -> String {
    match size {
        GroupSize::PerColumn => "-1: one group for each column".into(),
        GroupSize::Rows(rows) => rows.to_string(),
    }
}

fn describe(format: CheckpointFormat) -> &'static str {
    match format {
        CheckpointFormat::Gptq => "continuous packing, zero points minus one",
        CheckpointFormat::GptqV2 => "continuous packing, zero points direct",
        CheckpointFormat::GptqP => "planar packing, zero points direct",
        CheckpointFormat::Marlin => {
            "in the order of the Marlin kernel, brought back to that of GPTQ; no zero points"
        }
        _ => "a format of its own",
    }
}

fn rule(rule: Rule<'_>) -> Option<String> {
    match rule {
        Rule::Skip { pattern } => Some(format!("{pattern}  not quantized")),
        Rule::Override { pattern, overrides } => {
            Some(format!("{pattern}  {}", describe_overrides(overrides)))
        }
        Rule::None => None,
    }
}

fn describe_overrides(overrides: &Overrides) -> String {
    let values: Vec<String> = [
        overrides.bits.map(|bits| format!("bits {bits}")),
        overrides.group_size.map(|size| format!("group_size {size}")),
        overrides.desc_act.map(|desc_act| format!("desc_act {desc_act}")),
        overrides.sym.map(|sym| format!("sym {sym}")),
    ]
    .into_iter()
    .flatten()
    .collect();
    if values.is_empty() { "nothing changed".into() } else { values.join(", ") }
}
