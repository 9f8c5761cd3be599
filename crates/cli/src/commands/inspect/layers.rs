//! The layers of a checkpoint, and what each backend says to each.

use std::borrow::Cow;
use std::collections::HashMap;

use gptq_core::LayerInfo;
use gptq_core::backend::{Asked, BackendId, PlanReport};
use gptq_core::checkpoint::Checkpoint;
use gptq_core::format::Packing;
use serde::Serialize;
use serde_json::Value;

use crate::output::{Bytes, Column};

/// A layer, and what each backend says to it.
#[derive(Serialize)]
pub(super) struct LayerRow<'a> {
    #[serde(flatten)]
    pub(super) info: &'a LayerInfo,
    /// The backend that the plan would choose.
    backend: Option<BackendId>,
    accepted_by: Vec<BackendId>,
    refused_by: Vec<Refusal<'a>>,
}

/// A backend's no.
#[derive(Serialize)]
struct Refusal<'a> {
    backend: BackendId,
    reason: Cow<'a, str>,
}

/// Layers that are alike in everything but the numbers in their names.
#[derive(Serialize)]
pub(super) struct LayerGroup<'a> {
    /// Their name, with numbers replaced by `*`.
    pattern: String,
    names: Vec<&'a str>,
    packed_bytes: usize,
    /// The first of them.
    each: LayerRow<'a>,
}

/// Every layer, with the answers in `plan`.
pub(super) fn rows<'a>(checkpoint: &'a Checkpoint, plan: &'a PlanReport) -> Vec<LayerRow<'a>> {
    let asked: Vec<Answers<'a>> = plan.asked.iter().map(Answers::of).collect();
    let layers = checkpoint.layers().iter().zip(&plan.assignments);
    layers
        .map(|(layer, assignment)| {
            let info = layer.info();
            let (mut accepted_by, mut refused_by) = (Vec::new(), Vec::new());
            for answers in &asked {
                match answers.refusal_of(&info.name) {
                    None => accepted_by.push(answers.backend),
                    Some(reason) => refused_by.push(Refusal { backend: answers.backend, reason }),
                }
            }
            LayerRow { info, backend: assignment.backend, accepted_by, refused_by }
        })
        .collect()
}

/// What one backend answered, by layer.
struct Answers<'a> {
    backend: BackendId,
    /// Why it is not usable on the device at all.
    unavailable: Option<String>,
    refusals: HashMap<&'a str, &'a str>,
}

impl<'a> Answers<'a> {
    fn of(asked: &'a Asked) -> Self {
        let refusals = asked
            .refused
            .iter()
            .flat_map(|refused| refused.layers.iter().map(move |layer| (&**layer, refused.message.as_str())));
        Self {
            backend: asked.backend,
            unavailable: asked.unavailable.as_ref().map(ToString::to_string),
            refusals: refusals.collect(),
        }
    }

    fn refusal_of(&self, layer: &str) -> Option<Cow<'a, str>> {
        let whole = self.unavailable.clone().map(Cow::Owned);
        whole.or_else(|| self.refusals.get(layer).map(|reason| Cow::Borrowed(*reason)))
    }
}

/// Layers that are alike, together, in the order of the first of each.
pub(super) fn groups(rows: Vec<LayerRow<'_>>) -> Vec<LayerGroup<'_>> {
    let mut groups: Vec<LayerGroup<'_>> = Vec::new();
    let mut places: HashMap<(String, String), usize> = HashMap::new();
    for row in rows {
        let pattern = pattern(&row.info.name);
        let place = *places.entry((pattern.clone(), nameless(&row))).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(group) => {
                group.names.push(&row.info.name);
                group.packed_bytes += row.info.packed_bytes;
            }
            None => groups.push(LayerGroup {
                pattern,
                names: vec![&row.info.name],
                packed_bytes: row.info.packed_bytes,
                each: row,
            }),
        }
    }
    groups
}

/// Everything that is reported of a layer but its name: what two layers that are alike have in common.
fn nameless(row: &LayerRow<'_>) -> String {
    let mut value = serde_json::to_value(row).unwrap_or_default();
    if let Value::Object(fields) = &mut value {
        fields.remove("name");
    }
    value.to_string()
}

/// A name with every part that is a number replaced: `model.layers.*.mlp.up_proj`.
fn pattern(name: &str) -> String {
    let parts = name.split('.').map(|part| {
        let number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if number { "*" } else { part }
    });
    parts.collect::<Vec<_>>().join(".")
}

/// The columns of a layer, after its name or pattern.
pub(super) const COLUMNS: [Column; 10] = [
    Column::Right("K"),
    Column::Right("N"),
    Column::Right("bits"),
    Column::Right("group"),
    Column::Left("sym"),
    Column::Left("g_idx"),
    Column::Left("act-order"),
    Column::Left("bias"),
    Column::Right("bytes"),
    Column::Left("accepted by"),
];

impl LayerRow<'_> {
    /// The cells of a layer, after its name or pattern.
    pub(super) fn cells(&self) -> Vec<String> {
        let info = self.info;
        let yes = |yes| if yes { "yes" } else { "no" }.to_owned();
        let planar = if info.packing == Packing::Planar { " planar" } else { "" };
        let backends: Vec<&str> = self.accepted_by.iter().map(|backend| backend.as_str()).collect();
        vec![
            info.in_features.to_string(),
            info.out_features.to_string(),
            format!("{}{planar}", info.bits),
            info.group_size.to_string(),
            yes(info.symmetric),
            info.g_idx.to_string(),
            yes(info.act_order),
            yes(info.bias),
            Bytes(info.packed_bytes).to_string(),
            if backends.is_empty() { "none".into() } else { backends.join(", ") },
        ]
    }
}

impl LayerGroup<'_> {
    /// The cells of a group: its pattern, how many layers, and what each is like.
    pub(super) fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.pattern.clone(), self.names.len().to_string()];
        cells.extend(self.each.cells());
        cells
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_parts_of_a_name_that_are_numbers_are_replaced() {
        assert_eq!(pattern("model.layers.10.mlp.experts.3.w1"), "model.layers.*.mlp.experts.*.w1");
        assert_eq!(pattern("lm_head"), "lm_head");
    }
}
