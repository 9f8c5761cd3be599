//! The configuration that text-generation-inference keeps beside the weights, as tensors of one number.

use std::path::Path;

use serde_json::Map;

use super::{CheckpointFormat, ConfigSource, DynamicRules, QuantizeConfig, format};
use crate::error::{Error, Result};
use crate::format::{Bits, GroupSize};

pub(crate) fn quantize_config(
    bits: i64,
    group_size: i64,
    sym: Option<bool>,
    path: &Path,
) -> Result<QuantizeConfig> {
    let refuse = |key: &str, found: i64, expected: &str| Error::ConfigValue {
        path: path.to_owned(),
        key: key.to_owned(),
        found: found.to_string(),
        expected: expected.to_owned(),
    };
    let width = u64::try_from(bits).ok().and_then(Bits::new).filter(|&bits| !format::only_planar(bits));
    let sym = sym.unwrap_or(false);
    let mut raw = Map::new();
    raw.insert("bits".to_owned(), bits.into());
    raw.insert("group_size".to_owned(), group_size.into());
    raw.insert("sym".to_owned(), sym.into());
    raw.insert("quant_method".to_owned(), "gptq".into());
    Ok(QuantizeConfig {
        bits: width.ok_or_else(|| refuse("gptq_bits", bits, "2, 3, 4 or 8"))?,
        group_size: GroupSize::from_config(group_size)
            .ok_or_else(|| refuse("gptq_groupsize", group_size, "-1 or a positive number of rows"))?,
        desc_act: None,
        sym,
        format: CheckpointFormat::Gptq,
        lm_head: false,
        dynamic: DynamicRules::default(),
        quantizers: Vec::new(),
        modules_in_block_to_quantize: None,
        max_input_length: None,
        model_file_base_name: None,
        defaulted: vec!["desc_act", "format", "lm_head"],
        source: ConfigSource::file(path),
        raw,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn scalars_beside_the_weights_are_a_configuration() {
        let path = Path::new("/m/model.safetensors");
        let config = quantize_config(4, -1, Some(true), path).expect("good scalars");
        assert_eq!((config.bits.get(), config.group_size, config.sym), (4, GroupSize::PerColumn, true));
        assert_eq!(config.source, ConfigSource::file(path));
        let absent = quantize_config(8, 128, None, path).expect("good scalars");
        assert!(!absent.sym, "an absent gptq_sym means asymmetric");
        let again = QuantizeConfig::from_json(&Value::from(absent.raw), absent.source)
            .expect("its JSON is a configuration");
        assert_eq!((again.bits, again.group_size, again.sym), (absent.bits, absent.group_size, false));
        for (bits, group_size, key) in
            [(5, 128, "gptq_bits"), (-4, 128, "gptq_bits"), (4, 0, "gptq_groupsize")]
        {
            match quantize_config(bits, group_size, None, path) {
                Err(Error::ConfigValue { key: found, .. }) => assert_eq!(found, key),
                other => panic!("{bits}, {group_size} gave {other:?}"),
            }
        }
    }
}
