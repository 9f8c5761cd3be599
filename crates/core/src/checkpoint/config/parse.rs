//! From the JSON of any writer to a [`QuantizeConfig`].

use std::num::NonZeroUsize;

use serde_json::Value;

use super::keys::{Entry, Keys};
use super::{CheckpointFormat, ConfigSource, DynamicRules, QuantizeConfig, Quantizer, format};
use crate::error::Result;
use crate::format::{Bits, GroupSize};

/// What the width is called.
pub(crate) const BITS: [&str; 3] = ["bits", "w_bit", "wbits"];
const GROUP_SIZE: [&str; 2] = ["group_size", "q_group_size"];
const SYM: [&str; 2] = ["sym", "zero_point"];
/// Everything else that is read here.
const OTHER: [&str; 12] = [
    "desc_act",
    "is_marlin_format",
    "pack_dtype",
    "dynamic",
    "lm_head",
    "modules_in_block_to_quantize",
    "meta",
    "rotation",
    "adapter",
    "max_input_length",
    "model_file_base_name",
    "model_name_or_path",
];

const DEFAULT_GROUP_SIZE: GroupSize = match NonZeroUsize::new(128) {
    Some(rows) => GroupSize::Rows(rows),
    None => GroupSize::PerColumn,
};

pub(crate) fn quantize_config(value: &Value, source: ConfigSource) -> Result<QuantizeConfig> {
    let keys = Keys::new(value, &source)?;
    let declared = format::declared(&keys)?;
    refuse_what_is_not_read(&keys)?;

    let bits = keys.agreed(&BITS, |_, entry| entry.bits())?;
    // The kernel of that format had one width, and some files leave it out.
    let bits = bits.or((declared == Some(CheckpointFormat::Marlin)).then_some(Bits::FOUR));
    let bits = bits.ok_or_else(|| keys.missing("bits", super::keys::EXPECTED_BITS))?;
    let group_size = keys.agreed(&GROUP_SIZE, |_, entry| entry.group_size())?;
    let desc_act = keys.agreed(&["desc_act"], |_, entry| entry.boolean())?;
    let sym = keys.agreed(&SYM, |name, entry| Ok(entry.boolean()? != (name == "zero_point")))?;
    let lm_head = keys.agreed(&["lm_head"], |_, entry| entry.boolean())?;
    let dynamic = keys.agreed(&["dynamic"], |_, entry| DynamicRules::parse(entry))?.unwrap_or_default();
    let format = format::effective(&keys, declared, bits, &dynamic)?;

    let meta = keys.first(&["meta"]);
    let quantizer = meta.and_then(|meta| meta.child("quantizer"));
    let rows =
        keys.first(&["max_input_length"]).and_then(|entry| usize::try_from(entry.whole_number()?).ok());
    let modules = keys.first(&["modules_in_block_to_quantize"]).and_then(|entry| flatten(entry.value));

    let given = [
        ("group_size", group_size.is_some()),
        ("desc_act", desc_act.is_some()),
        ("sym", sym.is_some()),
        ("format", declared.is_some()),
        ("lm_head", lm_head.is_some()),
    ];
    keys.log_ignored(&[&BITS[..], &GROUP_SIZE, &SYM, &format::METHOD, &format::FORMAT, &OTHER].concat());

    Ok(QuantizeConfig {
        bits,
        group_size: group_size.unwrap_or(DEFAULT_GROUP_SIZE),
        desc_act,
        sym: sym.unwrap_or(true),
        format,
        lm_head: lm_head.unwrap_or(false),
        dynamic,
        quantizers: quantizer.map(|entry| Quantizer::list(entry.value)).unwrap_or_default(),
        modules_in_block_to_quantize: modules,
        max_input_length: rows.filter(|&rows| rows > 0),
        model_file_base_name: base_name(&keys),
        defaulted: given.iter().filter(|(_, given)| !given).map(|(key, _)| *key).collect(),
        raw: value.as_object().cloned().unwrap_or_default(),
        source,
    })
}

fn refuse_what_is_not_read(keys: &Keys<'_>) -> Result<()> {
    let meta = keys.first(&["meta"]).and_then(|meta| meta.child("pack_dtype"));
    for entry in keys.all(&["pack_dtype"]).into_iter().map(|(_, entry)| entry).chain(meta) {
        refuse_other_words(&entry)?;
    }
    for (name, entry) in keys.all(&["rotation", "adapter"]) {
        // Writers leave a key out, or write one of these for nothing.
        let nothing = match entry.value {
            Value::Bool(false) => true,
            Value::String(text) => text.is_empty(),
            Value::Object(keys) => keys.is_empty(),
            _ => false,
        };
        if !nothing {
            let (reason, remedy) = match name {
                "rotation" => (
                    "the model needs a Hadamard transform of its activations",
                    "quantize it without rotation",
                ),
                _ => ("a low-rank adapter would have to run beside every layer", "open the model without it"),
            };
            return Err(entry.unsupported(reason, remedy));
        }
    }
    Ok(())
}

/// Refuses codes that are packed into other words than those of 32 bits.
pub(crate) fn refuse_other_words(pack_dtype: &Entry<'_>) -> Result<()> {
    let name = pack_dtype.name()?;
    match name.strip_prefix("torch.").unwrap_or(&name) {
        "int32" => Ok(()),
        "int8" | "int16" | "int64" => Err(pack_dtype.unsupported(
            "only codes in 32-bit words are read",
            "quantize or save the model again with pack_dtype int32",
        )),
        _ => Err(pack_dtype.refuse("int32")),
    }
}

/// The names in a list, or in a list of lists (optimum groups the modules that are quantized together).
fn flatten(value: &Value) -> Option<Vec<String>> {
    let mut names = Vec::new();
    for item in value.as_array()? {
        match item {
            Value::String(name) => names.push(name.clone()),
            Value::Array(inner) => names.extend(inner.iter().filter_map(Value::as_str).map(str::to_owned)),
            _ => return None,
        }
    }
    Some(names)
}

/// The last part of the weight file's name, or of the model's, which some files hold as a whole path.
fn base_name(keys: &Keys<'_>) -> Option<String> {
    let all = keys.all(&["model_file_base_name", "model_name_or_path"]);
    all.iter().find_map(|(_, entry)| {
        let path = entry.value.as_str()?.trim_end_matches(['/', '\\']);
        let name = path.rsplit(['/', '\\']).next()?;
        (!matches!(name, "" | "." | "..")).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::Error;

    fn read(value: &Value) -> Result<QuantizeConfig> {
        quantize_config(value, ConfigSource::file("quantize_config.json"))
    }

    fn config(value: &Value) -> QuantizeConfig {
        read(value).unwrap_or_else(|error| panic!("{value}: {}", error.report()))
    }

    /// A 4-bit file with one more key.
    fn with(key: &str, value: Value) -> Value {
        let mut file = json!({"bits": 4});
        file[key] = value;
        file
    }

    fn refused(value: &Value) -> (String, String) {
        match read(value) {
            Err(Error::ConfigValue { key, found, .. }) => (key, found),
            other => panic!("{value} gave {other:?}"),
        }
    }

    #[test]
    fn a_file_of_bits_alone_has_the_defaults_of_gptqmodel() {
        let config = config(&json!({"bits": 4}));
        assert_eq!((config.bits.get(), config.group_size.to_config()), (4, 128));
        assert_eq!((config.desc_act, config.sym, config.lm_head), (None, true, false));
        assert_eq!(config.format, CheckpointFormat::Gptq);
        assert!(config.dynamic.is_empty() && config.quantizers.is_empty());
        assert_eq!(config.modules_in_block_to_quantize, None);
        assert_eq!(config.max_input_length, None);
        assert_eq!(config.defaulted, ["group_size", "desc_act", "sym", "format", "lm_head"]);
    }

    #[test]
    fn null_is_a_missing_key() {
        let mut file = json!({"bits": 4});
        for key in GROUP_SIZE.iter().chain(&SYM).chain(&format::METHOD).chain(&format::FORMAT).chain(&OTHER) {
            file[*key] = Value::Null;
        }
        assert_eq!(config(&file).defaulted, config(&json!({"bits": 4})).defaulted);
        assert_eq!(refused(&json!({"bits": null})), ("bits".into(), "missing".into()));
    }

    #[test]
    fn every_alias_is_read_in_any_case() {
        for key in ["bits", "w_bit", "wbits", "W_BIT", "Bits"] {
            assert_eq!(config(&json!({ key: 3 })).bits.get(), 3, "{key}");
        }
        for key in ["group_size", "q_group_size", "Q_Group_Size"] {
            let config = config(&with(key, json!(-1)));
            assert_eq!(config.group_size, GroupSize::PerColumn, "{key}");
            assert!(config.gives("group_size"));
        }
        assert!(!config(&with("sym", json!(false))).sym);
        assert!(!config(&with("zero_point", json!(true))).sym, "zero_point is sym, negated");
        assert!(config(&with("Zero_Point", json!(0))).sym);
        assert_eq!(config(&with("DESC_ACT", json!(true))).desc_act, Some(true));
        assert_eq!(config(&with("desc_act", json!(0))).desc_act, Some(false));
        assert!(config(&with("lm_head", json!(true))).lm_head);
    }

    #[test]
    fn keys_that_mean_the_same_must_agree() {
        let agreed = json!({
            "bits": 4, "w_bit": 4.0, "sym": true, "zero_point": false, "group_size": 64, "q_group_size": 64,
        });
        assert_eq!(config(&agreed).group_size.to_config(), 64);
        for (file, key) in [
            (json!({"bits": 4, "wbits": 8}), "wbits"),
            (json!({"w_bit": 4, "bits": 8}), "w_bit"),
            (json!({"bits": 4, "Bits": 8}), "Bits"),
            (json!({"bits": 4, "sym": true, "zero_point": true}), "zero_point"),
            (json!({"bits": 4, "group_size": 64, "q_group_size": 128}), "q_group_size"),
        ] {
            assert_eq!(refused(&file).0, key, "{file}");
        }
    }

    #[test]
    fn numbers_may_be_whole_floats_and_not_text() {
        assert_eq!(config(&json!({"bits": 4.0, "group_size": 128.0})).group_size.to_config(), 128);
        for bits in [
            json!(1),
            json!(9),
            json!(0),
            json!(-4),
            json!(4.5),
            json!("4"),
            json!(true),
            json!([4]),
            json!({}),
        ] {
            assert_eq!(refused(&json!({ "bits": bits })).0, "bits", "{bits}");
        }
        for size in
            [json!(0), json!(-2), json!(0.5), json!("128"), json!(u64::MAX), json!(1e308), json!(false)]
        {
            assert_eq!(refused(&with("group_size", size.clone())).0, "group_size", "{size}");
        }
        assert_eq!(config(&with("group_size", json!(i64::MAX))).group_size.to_config(), i64::MAX);
    }

    #[test]
    fn what_decides_the_layout_must_have_its_type() {
        for key in ["sym", "zero_point", "desc_act", "lm_head", "is_marlin_format"] {
            for value in [json!("true"), json!(2), json!(-1), json!([]), json!({}), json!(0.5)] {
                assert_eq!(refused(&with(key, value.clone())).0, key, "{value}");
            }
        }
        for key in ["pack_dtype", "quant_method", "method", "format", "checkpoint_format", "packing_format"] {
            assert_eq!(refused(&with(key, json!(32))).0, key);
        }
        for value in [json!([]), json!(4), json!("bits"), json!(null), json!(true)] {
            assert_eq!(refused(&value).0, "(top level)");
        }
    }

    #[test]
    fn a_refusal_names_the_key_from_the_top_of_the_file() {
        let source = ConfigSource::key_of("/m/config.json", "quantization_config");
        for (value, message) in [
            (json!({"bits": 9}), "`quantization_config.bits` is 9, expected a whole number from 2 to 8"),
            (json!({}), "`quantization_config.bits` is missing, expected a whole number from 2 to 8"),
            (json!([]), "`quantization_config` is an array of 0, expected a JSON object"),
        ] {
            let error = quantize_config(&value, source.clone()).expect_err(message);
            assert_eq!(error.to_string(), format!("/m/config.json: {message}; correct the file"));
        }
    }

    #[test]
    fn other_words_than_those_of_32_bits_are_refused_by_name() {
        for pack_dtype in ["int32", "torch.int32", "INT32"] {
            config(&with("pack_dtype", json!(pack_dtype)));
            config(&with("meta", json!({ "pack_dtype": pack_dtype })));
        }
        for pack_dtype in ["int8", "int16", "int64", "torch.int16"] {
            for (file, key) in [
                (with("pack_dtype", json!(pack_dtype)), "`pack_dtype: "),
                (with("meta", json!({ "pack_dtype": pack_dtype })), "`meta.pack_dtype: "),
            ] {
                let feature = match read(&file) {
                    Err(Error::Unsupported { feature, .. }) => feature,
                    other => panic!("{file} gave {other:?}"),
                };
                assert!(feature.starts_with(key) && feature.contains(pack_dtype), "{feature}");
            }
        }
        assert_eq!(refused(&with("pack_dtype", json!("uint4"))).0, "pack_dtype");
    }

    #[test]
    fn rotations_and_adapters_are_refused_by_name() {
        for (key, value) in [
            ("rotation", json!("hadamard")),
            ("rotation", json!("random")),
            ("rotation", json!(true)),
            ("adapter", json!({"name": "lora", "rank": 32})),
            ("Adapter", json!([1])),
        ] {
            match read(&with(key, value)) {
                Err(Error::Unsupported { feature, .. }) => assert!(feature.starts_with(&format!("`{key}: "))),
                other => panic!("{key} gave {other:?}"),
            }
        }
        for nothing in [json!(null), json!(false), json!({}), json!("")] {
            config(&with("rotation", nothing.clone()));
            config(&with("adapter", nothing));
        }
    }

    #[test]
    fn hints_that_are_malformed_are_dropped() {
        let config = config(&json!({
            "bits": 4, "max_input_length": -1, "model_file_base_name": 7, "meta": "none",
            "modules_in_block_to_quantize": [[1], 2],
        }));
        assert_eq!((config.max_input_length, config.model_file_base_name), (None, None));
        assert_eq!((config.modules_in_block_to_quantize, config.quantizers), (None, vec![]));
        for rows in [json!(0), json!("2048"), json!(1.5), json!(u64::MAX)] {
            assert_eq!(read(&with("max_input_length", rows)).ok().and_then(|c| c.max_input_length), None);
        }
    }

    #[test]
    fn hints_are_read() {
        let lists = json!([["self_attn.k_proj", "self_attn.v_proj"], ["mlp.down_proj"], "mlp.up_proj"]);
        let config =
            config(&json!({"bits": 4, "max_input_length": 4096.0, "modules_in_block_to_quantize": lists}));
        assert_eq!(config.max_input_length, Some(4096));
        let names = ["self_attn.k_proj", "self_attn.v_proj", "mlp.down_proj", "mlp.up_proj"];
        assert_eq!(config.modules_in_block_to_quantize.as_deref(), Some(&names.map(str::to_owned)[..]));
    }

    #[test]
    fn the_base_name_of_the_weights_never_leaves_the_directory() {
        let name = |file: &Value| config(file).model_file_base_name;
        assert_eq!(name(&with("model_file_base_name", json!("model"))).as_deref(), Some("model"));
        assert_eq!(
            name(&with("model_name_or_path", json!("org/Llama-GPTQ/"))).as_deref(),
            Some("Llama-GPTQ")
        );
        assert_eq!(name(&with("model_file_base_name", json!("../../etc/passwd"))).as_deref(), Some("passwd"));
        assert_eq!(name(&with("model_file_base_name", json!(r"C:\w\gptq"))).as_deref(), Some("gptq"));
        let both = json!({"bits": 4, "model_name_or_path": "a/b", "model_file_base_name": "m"});
        assert_eq!(name(&both).as_deref(), Some("m"));
        for nothing in ["", "/", "..", "a/.."] {
            assert_eq!(name(&with("model_file_base_name", json!(nothing))), None, "{nothing}");
        }
    }

    #[test]
    fn lineage_follows_the_quantizers() {
        let lineage = |meta: Value| {
            let config = config(&with("meta", meta));
            (config.is_gptqmodel_lineage(), config.is_autogptq_lineage())
        };
        assert_eq!(lineage(json!({})), (false, true));
        assert_eq!(lineage(json!({"quantizer": null})), (false, true));
        assert_eq!(lineage(json!({"quantizer": "auto_gptq:0.7.1"})), (false, true));
        assert_eq!(lineage(json!({"quantizer": ["optimum:2.3.0", "gptqmodel:7.7.0"]})), (true, false));
        assert_eq!(lineage(json!({"quantizer": ["auto_gptq:0.7.1", "gptqmodel:1.0.0"]})), (true, true));
        assert_eq!(lineage(json!({"quantizer": "gptqmodel:0.8.5"})), (false, false));
        assert_eq!(lineage(json!({"quantizer": "gptqmodel:0.9.0.dev1"})), (false, false));
    }

    #[test]
    fn what_optimum_and_autoround_add_is_ignored_and_kept() {
        let file = json!({
            "bits": 4, "group_size": 128, "damp_percent": 0.1, "tokenizer": null, "dataset": "c4",
            "batch_size": 1, "block_name_to_quantize": "model.layers", "cache_block_outputs": true,
            "desc_act": false, "sym": true, "exllama_config": {"version": 1}, "use_exllama": true,
            "disable_exllama": false, "backend": "auto", "use_cuda_fp16": false, "model_seqlen": 2048,
            "module_name_preceding_first_block": [["a"]], "pad_token_id": null, "quant_method": "gptq",
            "true_sequential": true, "max_input_length": null, "provider": "auto-round", "hyb_act": 1,
            "autoround_version": "0.5.1", "iters": 200, "unknown": {"deep": []},
        });
        let config = config(&file);
        assert_eq!(config.desc_act, Some(false));
        assert_eq!(Value::from(config.raw), file, "kept as it was");
    }

    #[test]
    fn the_file_of_gptqmodel_7_is_read() {
        let config = config(&json!({
            "bits": 4,
            "dynamic": {"-:.*layers\\.0\\..*k_proj$": {}, "+:lm_head": {"bits": 8, "group_size": 32}},
            "group_size": 64, "desc_act": true, "lm_head": true, "method": "gptq", "quant_method": "gptq",
            "format": "gptq", "checkpoint_format": "gptq", "pack_dtype": "int32",
            "meta": {
                "quantizer": ["gptqmodel:7.7.0"], "uri": "https://github.com/modelcloud/gptqmodel",
                "damp_percent": 0.05, "damp_auto_increment": 0.01, "static_groups": false, "mse": 0.0,
                "true_sequential": true, "gptaq": null, "foem": null, "act_group_aware": true,
                "fallback": {"strategy": "rtn", "threshold": "0.5%", "smooth": null},
                "offload_to_disk": false, "offload_to_disk_path": null, "pack_impl": "auto",
                "dense_vram_strategy_devices": null, "hessian": {"chunk_size": null},
            },
            "sym": false,
        }));
        assert_eq!((config.bits.get(), config.group_size.to_config()), (4, 64));
        assert_eq!((config.desc_act, config.sym, config.lm_head), (Some(true), false, true));
        assert_eq!((config.format, config.dynamic.len()), (CheckpointFormat::Gptq, 2));
        assert_eq!(
            config.quantizers.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["gptqmodel:7.7.0"]
        );
        assert!(config.defaulted.is_empty());
    }
}
