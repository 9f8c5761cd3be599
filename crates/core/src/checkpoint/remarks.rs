//! What is good to know of modules and shapes, although nothing is wrong with it: notes, never warnings.

use std::collections::HashSet;
use std::sync::Arc;

use safetensors::Dtype;

use super::config::{ModuleConfig, QuantizeConfig, Rule};
use super::findings::Finding;
use super::safetensors_file::StoredTensor;
use super::weights::Tensors;
use crate::quant_linear::QuantLinear;

/// Holds what the configuration says of modules against the modules that there are, and shapes against what kernels
/// of the field run.
pub(super) fn add(
    config: &QuantizeConfig,
    layers: &[QuantLinear],
    tensors: &Tensors,
    findings: &mut Vec<Finding>,
) {
    let plain: Vec<&str> = tensors.keys().filter_map(|name| name.strip_suffix(".weight")).collect();
    idle_rules(config, layers, &plain, findings);
    idle_entries(config, layers, findings);
    left_in_float(config, layers, tensors, findings);
    odd_shapes(layers, findings);
}

/// Rules of `dynamic` that decide for nothing.
fn idle_rules(config: &QuantizeConfig, layers: &[QuantLinear], plain: &[&str], findings: &mut Vec<Finding>) {
    let mut deciding = HashSet::new();
    for name in layers.iter().map(QuantLinear::name).chain(plain.iter().copied()) {
        match config.for_module(name) {
            Ok(ModuleConfig::Skip { pattern }) => _ = deciding.insert(pattern),
            Ok(ModuleConfig::Quantized(module)) => deciding.extend(module.pattern),
            // A pattern that does not terminate on a plain tensor is slow on all, and nothing depends on it.
            Err(_) => return,
        }
    }
    for rule in config.dynamic.iter() {
        let (Rule::Skip { pattern } | Rule::Override { pattern, .. }) = rule else { continue };
        if !deciding.contains(pattern) {
            let text = format!(
                "`dynamic` rule `{pattern}` decides for no module: no name here matches it, or earlier rules match first"
            );
            findings.push(Finding::note(None, text));
        }
    }
}

/// Entries of `modules_in_block_to_quantize` of which no module is quantized.
fn idle_entries(config: &QuantizeConfig, layers: &[QuantLinear], findings: &mut Vec<Finding>) {
    let Some(entries) = &config.modules_in_block_to_quantize else { return };
    let quantized: HashSet<&str> = layers.iter().flat_map(|layer| endings(layer.name())).collect();
    for entry in entries.iter().filter(|entry| !quantized.contains(entry.as_str())) {
        let text = format!(
            "modules_in_block_to_quantize lists `{entry}`, and no quantized module's name ends with that"
        );
        findings.push(Finding::note(None, text));
    }
}

/// What a name can be called inside a block: `a.b.c`, `b.c`, `c`.
fn endings(module: &str) -> impl Iterator<Item = &str> {
    let after_dots = module.match_indices('.').filter_map(|(dot, _)| module.get(dot + 1..));
    std::iter::once(module).chain(after_dots)
}

/// Matrices in the blocks whose other matrices are quantized, where nothing says that they are not to be.
fn left_in_float(
    config: &QuantizeConfig,
    layers: &[QuantLinear],
    tensors: &Tensors,
    findings: &mut Vec<Finding>,
) {
    let blocks: HashSet<&str> = layers.iter().filter_map(|layer| blocks_of(layer.name())).collect();
    let listed: Option<HashSet<&str>> =
        config.modules_in_block_to_quantize.as_ref().map(|list| list.iter().map(String::as_str).collect());
    for (name, tensor) in tensors {
        let Some(module) = name.strip_suffix(".weight").filter(|_| is_matrix(tensor)) else { continue };
        if !blocks_of(module).is_some_and(|of| blocks.contains(of)) {
            continue;
        }
        if listed.as_ref().is_some_and(|listed| !endings(module).any(|ending| listed.contains(ending))) {
            continue;
        }
        match config.for_module(module) {
            Ok(ModuleConfig::Skip { .. }) => continue,
            Ok(ModuleConfig::Quantized(_)) => {}
            Err(_) => return,
        }
        findings.push(Finding::note(
            Some(Arc::from(module)),
            "it looks like a linear layer, is left in floating point among quantized ones, and the configuration does \
             not say so",
        ));
    }
}

fn is_matrix(tensor: &StoredTensor) -> bool {
    matches!(tensor.dtype(), Dtype::F16 | Dtype::BF16 | Dtype::F32)
        && matches!(tensor.shape(), [rows, columns] if *rows > 1 && *columns > 1)
}

/// What a module's name says before the number of its block: `model.layers` of `model.layers.0.mlp.up_proj`.
fn blocks_of(module: &str) -> Option<&str> {
    let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let mut end = 0;
    for part in module.split('.') {
        if number(part) && end > 0 {
            return module.get(..end - 1);
        }
        end += part.len() + 1;
    }
    None
}

/// Shapes that kernels of the field refuse. Which backend of this program does is the plan's to say.
fn odd_shapes(layers: &[QuantLinear], findings: &mut Vec<Finding>) {
    for layer in layers {
        for (name, size, multiple) in [("K", layer.in_features(), 128), ("N", layer.out_features(), 64)] {
            let text = if !size.is_multiple_of(32) {
                format!("{name} = {size} is no multiple of 32: ExLlama's and Marlin's kernels refuse it")
            } else if !size.is_multiple_of(multiple) {
                format!("{name} = {size} is no multiple of {multiple}: Marlin's kernels refuse it, or pad")
            } else {
                continue;
            };
            findings.push(Finding::note(Some(Arc::clone(&layer.info().name)), text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_what_stands_before_the_first_number() {
        assert_eq!(blocks_of("model.layers.10.mlp.experts.3.w1"), Some("model.layers"));
        assert_eq!(blocks_of("transformer.h.0"), Some("transformer.h"));
        for module in ["lm_head", "model.embed_tokens", "0.weight", "model.layer1.proj"] {
            assert_eq!(blocks_of(module), None, "{module}");
        }
    }

    #[test]
    fn a_module_is_called_in_its_block_by_whole_parts_of_its_name() {
        let all: Vec<&str> = endings("model.layers.0.mlp.up_proj").collect();
        assert_eq!(
            all,
            ["model.layers.0.mlp.up_proj", "layers.0.mlp.up_proj", "0.mlp.up_proj", "mlp.up_proj", "up_proj"]
        );
        assert_eq!(endings("lm_head").collect::<Vec<_>>(), ["lm_head"]);
    }
}
