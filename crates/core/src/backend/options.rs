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
    /// What holds where a value was not set, also for backends that the plan does not have.
    defaults: BTreeMap<String, String>,
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
        let (key, value) = assignment(text)?;
        self.values.insert(key, value);
        Ok(())
    }

    /// Sets what holds for this machine where nothing else was set: the text of a file such as `gptq tune` writes, with an
    /// assignment `BACKEND.NAME=VALUE` in each line, or nothing, or a comment that begins with `#`. It may name backends
    /// that a plan does not have.
    ///
    /// ```
    /// # use gptq_core::backend::Options;
    /// let mut options = Options::default();
    /// options.set_defaults("# tuned\nexllama_v2.dense_rows=4096x4096:72,8192x28672:200\n")?;
    /// # Ok::<(), gptq_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Option`], with the line that is none of these.
    pub fn set_defaults(&mut self, text: &str) -> Result<()> {
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (key, value) = assignment(line)?;
            self.defaults.insert(key, value);
        }
        Ok(())
    }

    /// The option `name` of `backend`, or `None` where it was not set.
    ///
    /// # Errors
    /// [`Error::Option`] where the text is not a `T`.
    pub fn read<T: FromStr>(&self, backend: BackendId, name: &str) -> Result<Option<T>> {
        let key = format!("{backend}.{name}");
        match self.values.get(&key).or_else(|| self.defaults.get(&key)) {
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
        let of_plan =
            |key: &&String| backends.iter().any(|(id, _)| key.split('.').next() == Some(id.as_str()));
        let defaults = self.defaults.keys().filter(of_plan);
        match self.values.keys().chain(defaults).find(|key| !known.contains(key)) {
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

/// The key and the value of `BACKEND.NAME=VALUE`.
fn assignment(text: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((key, value)) if key.contains('.') => Ok((key.trim().to_owned(), value.trim().to_owned())),
        _ => Err(Error::Option { key: text.to_owned(), problem: "write it as BACKEND.NAME=VALUE".into() }),
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

    #[test]
    fn defaults_hold_where_nothing_is_set_and_may_be_for_backends_that_are_not_there() {
        let specs = [OptionSpec { name: "threshold", help: "" }];
        let mut options = Options::default();
        options.set_defaults("# of this machine\n\n mine.threshold = 8\nother.threshold=9\n").unwrap();
        options.check(&[(ID, &specs[..])]).unwrap();
        assert_eq!(options.read::<usize>(ID, "threshold").unwrap(), Some(8));
        options.set("mine", "threshold", "16");
        assert_eq!(options.read::<usize>(ID, "threshold").unwrap(), Some(16), "what is set goes first");
        options.set_defaults("mine.treshold=8").unwrap();
        let error = options.check(&[(ID, &specs[..])]).unwrap_err().to_string();
        assert!(error.contains("mine.treshold"), "{error}");
        let error = options.set_defaults("mine.threshold=8\nthreshold 8\n").unwrap_err().to_string();
        assert!(error.contains("threshold 8") && error.contains("BACKEND.NAME=VALUE"), "{error}");
    }
}
