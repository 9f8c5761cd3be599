//! Options for backends that only they understand.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::Serialize;

use super::BackendId;
use crate::error::{Error, Result};

/// An option that a backend understands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "backends of other crates write these as literals")]
pub struct OptionSpec {
    /// Its name within the backend: `threshold`.
    pub name: &'static str,
    /// What it does, its unit and its default, in one sentence.
    pub help: &'static str,
}

/// Options for the backends of one model, as text: `BACKEND.NAME = VALUE`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Options {
    values: BTreeMap<String, String>,
}

impl Options {
    /// Sets the option `name` of `backend`.
    pub fn set(&mut self, backend: &str, name: &str, value: impl Into<String>) {
        self.values.insert(format!("{backend}.{name}"), value.into());
    }

    /// Sets an option written as `BACKEND.NAME=VALUE`.
    ///
    /// # Errors
    /// [`Error::Option`] where it is not of that form.
    pub fn set_assignment(&mut self, text: &str) -> Result<()> {
        match text.split_once('=') {
            Some((key, value)) if key.contains('.') => {
                self.values.insert(key.trim().to_owned(), value.trim().to_owned());
                Ok(())
            }
            _ => {
                Err(Error::Option { key: text.to_owned(), problem: "write it as BACKEND.NAME=VALUE".into() })
            }
        }
    }

    /// The option `name` of `backend`, or `None` where it was not set.
    ///
    /// # Errors
    /// [`Error::Option`] where the text is not a `T`.
    pub fn read<T: FromStr>(&self, backend: BackendId, name: &str) -> Result<Option<T>> {
        let key = format!("{backend}.{name}");
        match self.values.get(&key) {
            None => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| Error::Option {
                problem: format!("`{text}` is not a {}", std::any::type_name::<T>()),
                key,
            }),
        }
    }

    /// Refuses options that none of the given backends understands.
    pub(crate) fn check(&self, backends: &[(BackendId, &[OptionSpec])]) -> Result<()> {
        let known: Vec<String> = backends
            .iter()
            .flat_map(|(id, specs)| specs.iter().map(move |spec| format!("{id}.{}", spec.name)))
            .collect();
        match self.values.keys().find(|key| !known.contains(key)) {
            None => Ok(()),
            Some(key) => Err(Error::Option {
                key: key.clone(),
                problem: if known.is_empty() {
                    "the backends of this plan have no options".into()
                } else {
                    format!("no backend of this plan has it; there are: {}", known.join(", "))
                },
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: BackendId = BackendId::new("mine");

    #[test]
    fn an_option_is_read_as_its_type_or_refused_with_its_key() {
        let mut options = Options::default();
        options.set_assignment("mine.threshold = 8").unwrap();
        assert_eq!(options.read::<usize>(ID, "threshold").unwrap(), Some(8));
        assert_eq!(options.read::<usize>(ID, "absent").unwrap(), None);
        options.set("mine", "threshold", "eight");
        let error = options.read::<usize>(ID, "threshold").unwrap_err().to_string();
        assert!(error.contains("mine.threshold") && error.contains("eight"), "{error}");
        assert!(options.set_assignment("threshold=8").is_err(), "it names no backend");
    }

    #[test]
    fn an_option_that_nobody_understands_is_refused_with_those_there_are() {
        let specs = [OptionSpec { name: "threshold", help: "" }];
        let mut options = Options::default();
        options.set("mine", "threshold", "8");
        options.check(&[(ID, &specs[..])]).unwrap();
        options.set("mine", "treshold", "8");
        let error = options.check(&[(ID, &specs[..])]).unwrap_err().to_string();
        assert!(error.contains("mine.treshold") && error.contains("mine.threshold"), "{error}");
    }
}
