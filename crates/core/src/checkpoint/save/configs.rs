//! The configuration files of a saved checkpoint: the source's, with the format that the tensors have now.

use std::io::ErrorKind;
use std::path::Path;

use serde_json::Value;

use super::config_text::ObjectText;
use crate::checkpoint::config::{self, BITS, ConfigSource, METHOD, ModuleConfig, QuantizeConfig};
use crate::checkpoint::{Checkpoint, CheckpointFormat};
use crate::error::{Error, Result};
use crate::format::GroupSize;
use crate::quant_linear::QuantLinear;

/// The file that GPTQModel and AutoGPTQ look for first.
const OWN_FILE: &str = "quantize_config.json";
/// The file of the model, and the key under which it holds a configuration like the others.
const MODEL_FILE: &str = "config.json";
const MODEL_KEY: &str = "quantization_config";
/// What weight files are called without their extension.
const BASE_NAME: &str = "\"model\"";

/// Configuration files to write, and what a reader will make of them.
pub(super) struct Configs {
    files: Vec<ConfigFile>,
    read: Vec<QuantizeConfig>,
}

/// A configuration file to write.
pub(super) struct ConfigFile {
    /// Its name in the checkpoint's directory.
    pub(super) name: String,
    /// Its text.
    pub(super) text: String,
}

impl Configs {
    pub(super) fn files(&self) -> &[ConfigFile] {
        &self.files
    }

    /// The configurations as a reader will find them, in the order in which it believes them.
    pub(super) fn read(&self) -> &[QuantizeConfig] {
        &self.read
    }

    fn add(
        &mut self,
        name: &str,
        text: String,
        source: &ConfigSource,
        format: CheckpointFormat,
    ) -> Result<()> {
        let syntax = |error| Error::ConfigSyntax { path: source.path.clone(), source: error };
        let whole = config::read_json(text.as_bytes()).map_err(syntax)?;
        let value = source.key.as_ref().map_or(&whole, |key| whole.get(key).unwrap_or(&Value::Null));
        let read =
            QuantizeConfig::from_json(value, source.clone()).map_err(|error| no_room(error, format))?;
        self.read.push(read);
        self.files.push(ConfigFile { name: name.to_owned(), text });
        Ok(())
    }

    /// That the configuration says of each layer what the layer is, so that a reader can make it again.
    pub(super) fn check(&self, layers: &[&QuantLinear], format: CheckpointFormat) -> Result<()> {
        let Some(config) = self.read.first() else { return Ok(()) };
        for layer in layers {
            let info = layer.info();
            let said = match config.for_module(layer.name())? {
                ModuleConfig::Quantized(settings) => settings,
                // Its tensors are read with the configuration's own values.
                ModuleConfig::Skip { .. } => config.base(),
            };
            let rows = |size: GroupSize| size.rows(info.in_features).min(info.in_features);
            if said.bits != info.bits || rows(said.group_size) != rows(info.group_size) {
                return Err(Error::NotStorable {
                    layer: layer.name().to_owned(),
                    format,
                    reason: format!(
                        "it has {} bits and a group size of {}, and its configuration says {} and {}",
                        info.bits, info.group_size, said.bits, said.group_size
                    ),
                    remedy: "correct the configuration, or add a `dynamic` rule for the module".into(),
                });
            }
        }
        Ok(())
    }
}

/// Every configuration file of the checkpoint, as it reads when the tensors are saved in `format`. Where there is
/// none, one is made. A `config.json` without a configuration gets the first of the others.
pub(super) fn rewrite(checkpoint: &Checkpoint, format: CheckpointFormat) -> Result<Configs> {
    let mut configs = Configs { files: Vec::new(), read: Vec::new() };
    let sources: Vec<ConfigSource> = match checkpoint.dir().map(QuantizeConfig::find) {
        Some(Ok(found)) => found.iter().map(|config| config.source.clone()).collect(),
        None | Some(Err(Error::ConfigMissing { .. })) => Vec::new(),
        Some(Err(error)) => return Err(error),
    };
    for source in &sources {
        let text = read(&source.path)?;
        let mut whole = object(&text, &source.path)?;
        match &source.key {
            None => set_values(&mut whole, checkpoint, format),
            Some(key) => {
                let inner = whole.values(key).last().and_then(ObjectText::parse);
                let mut inner = inner.ok_or_else(|| not_an_object(&source.path))?;
                set_values(&mut inner, checkpoint, format);
                whole.set(key, &inner.render(), "");
            }
        }
        let name = source.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        configs.add(&name, whole.render(), source, format)?;
    }
    if sources.is_empty() {
        let text = format!("{:#}", Value::Object(checkpoint.config().raw.clone()));
        let source = checkpoint.config().source.clone();
        let mut whole = object(&text, &source.path)?;
        set_values(&mut whole, checkpoint, format);
        configs.add(OWN_FILE, whole.render(), &ConfigSource::file(source.path), format)?;
    }
    if let Some(dir) = checkpoint.dir()
        && sources.iter().all(|source| source.key.is_none())
    {
        add_to_model_file(&dir.join(MODEL_FILE), &mut configs, format)?;
    }
    Ok(configs)
}

/// The refusal of a configuration that was read well before its format was changed. Its layers have room there, which
/// was looked at before; what has none stands in a rule that no layer follows.
fn no_room(error: Error, format: CheckpointFormat) -> Error {
    match error {
        Error::Unsupported { path, feature, reason, .. } => Error::Unsupported {
            path,
            feature,
            reason,
            remedy: format!(
                "save as gptq_p, or remove that from the file: no layer needs it to be saved as {format}"
            ),
        },
        other => other,
    }
}

/// Puts the first configuration into the model's file, if there is one.
fn add_to_model_file(path: &Path, configs: &mut Configs, format: CheckpointFormat) -> Result<()> {
    let text = match read(path) {
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(()),
        read => read?,
    };
    let mut whole = object(&text, path)?;
    let Some(first) = configs.files.first() else { return Ok(()) };
    let mut inner = object(&first.text, path)?;
    // Readers of this file tell methods apart by this key alone.
    if inner.values("quant_method").next().is_none() {
        inner.set("quant_method", "\"gptq\"", "");
    }
    whole.set(MODEL_KEY, &whole.indented(&inner.render()), "");
    configs.add(MODEL_FILE, whole.render(), &ConfigSource::key_of(path, MODEL_KEY), format)
}

/// Changes what has to change in a configuration when it is saved in `format`.
fn set_values(config: &mut ObjectText, checkpoint: &Checkpoint, format: CheckpointFormat) {
    set_format(config, format);
    // Files of Marlin's format may leave the width out. No other format has one that a reader could take for granted.
    if BITS.iter().flat_map(|key| config.values(key)).all(|value| value == "null") {
        config.set("bits", &checkpoint.config().bits.to_string(), "");
    }
}

/// Changes the keys that name the format or the weight files, and no other. `format` and `checkpoint_format` are both
/// written, since readers look at either.
fn set_format(config: &mut ObjectText, format: CheckpointFormat) {
    let name = format!("\"{format}\"");
    // One is refused by GPTQModel whatever it says, the other is AutoRound's name for the same thing.
    config.remove("is_marlin_format");
    config.remove("packing_format");
    config.set("format", &name, "checkpoint_format");
    config.set("checkpoint_format", &name, "format");
    // Marlin's own writers made a method of it.
    for key in METHOD {
        config.change(key, |value| {
            let value: String = serde_json::from_str(value).ok()?;
            value.eq_ignore_ascii_case("marlin").then(|| "\"gptq\"".to_owned())
        });
    }
    // AWQ's programs keep other things here too.
    config.change("version", |value| {
        let value: String = serde_json::from_str(value).ok()?;
        CheckpointFormat::from_name(&value).map(|_| name.clone())
    });
    config.change("model_file_base_name", |value| (value != "null").then(|| BASE_NAME.to_owned()));
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|source| Error::Io { path: path.into(), action: "read", source })
}

fn object(text: &str, path: &Path) -> Result<ObjectText> {
    ObjectText::parse(text).ok_or_else(|| not_an_object(path))
}

fn not_an_object(path: &Path) -> Error {
    Error::ConfigValue {
        path: path.into(),
        key: "(top level)".into(),
        found: "something else".into(),
        expected: "a JSON object".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_format(text: &str, format: CheckpointFormat) -> String {
        let mut object = ObjectText::parse(text).expect("an object");
        set_format(&mut object, format);
        object.render()
    }

    #[test]
    fn only_the_keys_that_name_the_format_change_when_the_format_does() {
        let text = "{\n  \"bits\": 4,\n  \"Checkpoint_Format\": \"gptq\",\n  \"damp\": 1e-02,\n  \"extra\": [ 1 ]\n}\n";
        assert_eq!(
            with_format(text, CheckpointFormat::GptqV2),
            "{\n  \"bits\": 4,\n  \"Checkpoint_Format\": \"gptq_v2\",\n  \"format\": \"gptq_v2\",\n  \"damp\": 1e-02,\n  \
             \"extra\": [ 1 ]\n}\n"
        );
    }

    #[test]
    fn both_names_of_the_format_are_written_and_those_that_contradict_them_are_not() {
        assert_eq!(
            with_format(r#"{"bits": 4, "is_marlin_format": false}"#, CheckpointFormat::Gptq),
            r#"{"bits": 4, "format": "gptq", "checkpoint_format": "gptq"}"#
        );
        assert_eq!(
            with_format(
                r#"{"bits": 4, "quant_method": "Marlin", "is_marlin_format": true}"#,
                CheckpointFormat::Gptq
            ),
            r#"{"bits": 4, "quant_method": "gptq", "format": "gptq", "checkpoint_format": "gptq"}"#
        );
        assert_eq!(
            with_format(r#"{"packing_format": "auto_round:auto_gptq", "bits": 4}"#, CheckpointFormat::GptqV2),
            r#"{"bits": 4, "format": "gptq_v2", "checkpoint_format": "gptq_v2"}"#
        );
        assert_eq!(
            with_format(r#"{"version": "GPTQ", "format": null}"#, CheckpointFormat::GptqV2),
            r#"{"version": "gptq_v2", "format": "gptq_v2", "checkpoint_format": "gptq_v2"}"#
        );
        assert_eq!(
            with_format(r#"{"version": "1.0", "format": "x"}"#, CheckpointFormat::GptqP),
            r#"{"version": "1.0", "format": "gptq_p", "checkpoint_format": "gptq_p"}"#
        );
    }

    #[test]
    fn a_weight_file_is_named_as_it_is_called_now() {
        assert_eq!(
            with_format(
                r#"{"format":"gptq","checkpoint_format":"gptq","model_file_base_name":"gptq_model-4bit-128g"}"#,
                CheckpointFormat::Gptq
            ),
            r#"{"format":"gptq","checkpoint_format":"gptq","model_file_base_name":"model"}"#
        );
    }
}
