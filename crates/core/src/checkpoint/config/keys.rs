//! Reading keys of a JSON object, with the words to refuse them.

use serde_json::{Map, Value};

use super::ConfigSource;
use crate::error::{Error, Result};
use crate::format::{Bits, GroupSize};

/// How a message names the value that is the whole file.
const TOP_LEVEL: &str = "(top level)";

/// A value of a configuration file, and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Entry<'j> {
    source: &'j ConfigSource,
    /// Dotted from the top of the file; empty for the whole file.
    key: String,
    pub(crate) value: &'j Value,
}

impl<'j> Entry<'j> {
    /// The value that is the whole configuration.
    pub(crate) fn root(value: &'j Value, source: &'j ConfigSource) -> Self {
        Self { source, key: source.key.clone().unwrap_or_default(), value }
    }

    /// The value of `key`, spelled exactly so. `None` where it is missing or null, or where this is no
    /// object.
    pub(crate) fn child(&self, key: &str) -> Option<Self> {
        let value = self.value.get(key).filter(|value| !value.is_null())?;
        Some(Self { source: self.source, key: self.dotted(key), value })
    }

    /// The keys of this object, in the order of the file.
    pub(crate) fn children(&self) -> Result<impl Iterator<Item = (&'j str, Self)> + use<'j, '_>> {
        Ok(self
            .object()?
            .iter()
            .map(|(key, value)| (key.as_str(), Self { source: self.source, key: self.dotted(key), value })))
    }

    fn dotted(&self, key: &str) -> String {
        if self.key.is_empty() { key.to_owned() } else { format!("{}.{key}", self.key) }
    }

    pub(crate) fn source(&self) -> &'j ConfigSource {
        self.source
    }

    /// The key, dotted from the top of the file.
    pub(crate) fn key(&self) -> &str {
        if self.key.is_empty() { TOP_LEVEL } else { &self.key }
    }

    pub(crate) fn object(&self) -> Result<&'j Map<String, Value>> {
        self.value.as_object().ok_or_else(|| self.refuse("a JSON object"))
    }

    /// `true` or `false`, or 1 or 0.
    pub(crate) fn boolean(&self) -> Result<bool> {
        match (self.value.as_bool(), self.whole_number()) {
            (Some(boolean), _) => Ok(boolean),
            (None, Some(0)) => Ok(false),
            (None, Some(1)) => Ok(true),
            _ => Err(self.refuse("true or false")),
        }
    }

    pub(crate) fn bits(&self) -> Result<Bits> {
        let bits = self.whole_number().and_then(|number| Bits::new(u64::try_from(number).ok()?));
        bits.ok_or_else(|| self.refuse(EXPECTED_BITS))
    }

    pub(crate) fn group_size(&self) -> Result<GroupSize> {
        let group_size = self.whole_number().and_then(GroupSize::from_config);
        group_size.ok_or_else(|| self.refuse("-1 or a positive number of rows"))
    }

    /// A string, in lower case.
    pub(crate) fn name(&self) -> Result<String> {
        self.value.as_str().map(str::to_ascii_lowercase).ok_or_else(|| self.refuse("a name in quotes"))
    }

    /// An integer, written with or without a fraction of zero.
    pub(crate) fn whole_number(&self) -> Option<i64> {
        self.value.as_i64().or_else(|| {
            let float = self.value.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 1e15)?;
            // Through text, since a cast would hide what does not fit.
            format!("{float:.0}").parse().ok()
        })
    }

    /// The error for a value that no checkpoint can have.
    pub(crate) fn refuse(&self, expected: impl Into<String>) -> Error {
        Error::ConfigValue {
            path: self.source.path.clone(),
            key: self.key().to_owned(),
            found: describe(self.value),
            expected: expected.into(),
        }
    }

    /// The error for a value that is legal and asks for something that is not read here.
    pub(crate) fn unsupported(&self, reason: impl Into<String>, remedy: impl Into<String>) -> Error {
        Error::Unsupported {
            path: self.source.path.clone(),
            feature: format!("`{}: {}`", self.key(), describe(self.value)),
            reason: reason.into(),
            remedy: remedy.into(),
        }
    }
}

pub(crate) const EXPECTED_BITS: &str = "a whole number from 2 to 8";

/// The keys of a configuration, looked up without case and under every name that writers give them.
pub(crate) struct Keys<'j> {
    root: Entry<'j>,
    object: &'j Map<String, Value>,
}

impl<'j> Keys<'j> {
    pub(crate) fn new(value: &'j Value, source: &'j ConfigSource) -> Result<Self> {
        let root = Entry::root(value, source);
        let object = root.object()?;
        Ok(Self { root, object })
    }

    pub(crate) fn source(&self) -> &'j ConfigSource {
        self.root.source
    }

    /// Every key that is called one of `names` and is not null, in the order of `names`.
    pub(crate) fn all(&self, names: &[&'static str]) -> Vec<(&'static str, Entry<'j>)> {
        let mut found = Vec::new();
        for &name in names {
            for (key, value) in self.object {
                if key.eq_ignore_ascii_case(name) && !value.is_null() {
                    let entry = Entry { source: self.root.source, key: self.root.dotted(key), value };
                    found.push((name, entry));
                }
            }
        }
        found
    }

    /// The first of [`all`](Self::all).
    pub(crate) fn first(&self, names: &[&'static str]) -> Option<Entry<'j>> {
        self.all(names).into_iter().next().map(|(_, entry)| entry)
    }

    /// What `read` makes of the keys called one of `names`. Two that disagree are an error: nothing tells
    /// which of them its reader would believe.
    pub(crate) fn agreed<T: PartialEq>(
        &self,
        names: &[&'static str],
        read: impl Fn(&'static str, &Entry<'j>) -> Result<T>,
    ) -> Result<Option<T>> {
        let mut agreed: Option<(T, Entry<'j>)> = None;
        for (name, entry) in self.all(names) {
            let value = read(name, &entry)?;
            match &agreed {
                Some((first, at)) if *first != value => {
                    let said = describe(at.value);
                    return Err(entry.refuse(format!("the same as `{}`, which is {said}", at.key)));
                }
                Some(_) => {}
                None => agreed = Some((value, entry)),
            }
        }
        Ok(agreed.map(|(value, _)| value))
    }

    /// The error for a key that must be there.
    pub(crate) fn missing(&self, key: &str, expected: &str) -> Error {
        Error::ConfigValue {
            path: self.root.source.path.clone(),
            key: self.root.dotted(key),
            found: "missing".to_owned(),
            expected: expected.to_owned(),
        }
    }

    /// Names the keys that are in the file and not in `known`, for whoever debugs a misspelt one.
    pub(crate) fn log_ignored(&self, known: &[&str]) {
        let is_known = |key: &str| known.iter().any(|name| key.eq_ignore_ascii_case(name));
        let ignored: Vec<_> = self.object.keys().filter(|key| !is_known(key)).collect();
        if !ignored.is_empty() {
            tracing::debug!(source = %self.root.source, ?ignored, "keys that nothing here reads");
        }
    }
}

/// A value in a few words: files can hold megabytes under a key that should be a number.
pub(crate) fn describe(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("an array of {}", items.len()),
        Value::Object(keys) if keys.is_empty() => "{}".to_owned(),
        Value::Object(keys) => format!("an object with {} keys", keys.len()),
        Value::String(text) => shorten(&format!("{text:?}")),
        Value::Null | Value::Bool(_) | Value::Number(_) => shorten(&value.to_string()),
    }
}

/// At most 80 characters of `text`.
pub(crate) fn shorten(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn number(value: &Value) -> Option<i64> {
        Entry::root(value, &ConfigSource::file("f")).whole_number()
    }

    #[test]
    fn whole_numbers_may_have_a_fraction_of_zero_and_nothing_else() {
        assert_eq!(number(&json!(128)), Some(128));
        assert_eq!(number(&json!(128.0)), Some(128));
        assert_eq!(number(&json!(-1.0)), Some(-1));
        assert_eq!(number(&json!(-0.0)), Some(0));
        for value in
            [json!(4.5), json!("4"), json!(true), json!(u64::MAX), json!(1e300), json!([4]), json!(null)]
        {
            assert_eq!(number(&value), None, "{value} is no whole number");
        }
    }

    #[test]
    fn a_description_stays_short_whatever_the_file_holds() {
        assert_eq!(describe(&json!("x".repeat(1000))).len(), 83);
        assert_eq!(describe(&json!("é".repeat(1000))).chars().count(), 83);
        assert_eq!(describe(&json!([1, 2])), "an array of 2");
        assert_eq!(describe(&json!({"a": 1})), "an object with 1 keys");
        assert_eq!(describe(&json!(9)), "9");
    }
}
