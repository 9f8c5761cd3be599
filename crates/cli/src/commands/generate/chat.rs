//! Chat templates: from messages to the text that a model was trained on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gptq_core::checkpoint::{json_file, text_file};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, context};
use serde_json::Value;

use crate::failure::{Failure, Result};

/// A template, and where it was found.
pub(super) struct ChatTemplate {
    source: String,
    file: PathBuf,
    /// `bos_token` and `eos_token` of the tokenizer's configuration.
    bos_token: Option<String>,
    eos_token: Option<String>,
}

impl ChatTemplate {
    /// The template of the checkpoint in `dir`: of this name where it has several, or its default.
    pub(super) fn find(dir: &Path, name: Option<&str>) -> Result<Self> {
        let config_file = dir.join("tokenizer_config.json");
        let config = json_file(&config_file)?.unwrap_or_default();
        let token = |key: &str| {
            let token = config.get(key)?;
            token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_owned)
        };
        let found = |source: String, file: PathBuf| Self {
            source,
            file,
            bos_token: token("bos_token"),
            eos_token: token("eos_token"),
        };
        let mut templates = Vec::new();
        let file = dir.join("chat_template.jinja");
        if let Some(text) = text_file(&file)? {
            templates.push(("default".to_owned(), text, file.clone()));
        }
        templates
            .extend(in_config(&config).into_iter().map(|(name, text)| (name, text, config_file.clone())));
        if templates.is_empty() {
            return Err(Failure::NoChatTemplate { dir: dir.into() });
        }
        let wanted = name.unwrap_or("default");
        match templates.iter().position(|(name, _, _)| name == wanted) {
            Some(index) => {
                let (_, source, file) = templates.swap_remove(index);
                Ok(found(source, file))
            }
            None => {
                let known = templates.into_iter().map(|(name, _, _)| name).collect();
                Err(Failure::UnknownChatTemplate { file: config_file, wanted: wanted.to_owned(), known })
            }
        }
    }

    /// The text of a conversation that waits for the model's answer.
    pub(super) fn render(&self, system: Option<&str>, prompt: &str) -> Result<String> {
        let message = |role: &str, content: &str| context! { role => role, content => content };
        let system = system.map(|content| message("system", content));
        let messages: Vec<_> = system.into_iter().chain([message("user", prompt)]).collect();
        let mut context = BTreeMap::from([
            ("messages", minijinja::Value::from(messages)),
            ("add_generation_prompt", true.into()),
        ]);
        let tokens = [("bos_token", &self.bos_token), ("eos_token", &self.eos_token)];
        context.extend(tokens.into_iter().filter_map(|(name, token)| Some((name, token.as_deref()?.into()))));

        let mut environment = Environment::new();
        // As transformers renders: lines that hold only a block leave nothing behind, methods of Python's strings and
        // dictionaries work, and a template may refuse a conversation.
        let failure = |source| Failure::ChatTemplate { file: self.file.clone(), source };
        let syntax =
            SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(failure)?;
        environment.set_syntax(syntax);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<(), minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.render_str(&self.source, minijinja::Value::from(context)).map_err(failure)
    }
}

/// The templates in `tokenizer_config.json`: one without a name, or a list of named ones.
fn in_config(config: &Value) -> Vec<(String, String)> {
    let named = |entry: &Value| {
        let text = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
        Some((text("name")?, text("template")?))
    };
    match config.get("chat_template") {
        Some(Value::String(template)) => vec![("default".to_owned(), template.clone())],
        Some(Value::Array(entries)) => entries.iter().filter_map(named).collect(),
        _ => Vec::new(),
    }
}
