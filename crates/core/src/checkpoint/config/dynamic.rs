//! `dynamic`: rules that leave modules out, or give them another width or group size.

use std::collections::HashMap;
use std::path::PathBuf;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::keys::{Entry, shorten};
use super::pattern::{self, Matcher};
use crate::error::{Error, Result};
use crate::format::{Bits, GroupSize};

/// The rules of `dynamic`, in the order in which they are tried.
///
/// A rule is a pattern and what it says of the modules whose full name it matches, from the name's start and
/// not necessarily to its end. `-:PATTERN` leaves them unquantized; `+:PATTERN`, or `PATTERN` alone,
/// overrides values. As in GPTQModel, rules whose text begins with `-` are tried before all others, each kind
/// in the order of the file; the first that matches decides alone, and what it does not override is the
/// file's, not another rule's.
///
/// The body of a `-:` rule is not read. Any other body is an object; `{}` and `null` override nothing, yet
/// end the search. `false`, which GPTQModel rejects and vLLM takes for a skip, is refused. Keys of a body are
/// looked up as they are spelled here and have no aliases, since no reader knows any.
#[derive(Clone, Debug, Default)]
pub struct DynamicRules {
    path: PathBuf,
    rules: Vec<Written>,
    /// The first rule for each name that a pattern is.
    exact: HashMap<String, usize>,
    /// All other patterns, by rule.
    patterns: Vec<(usize, Matcher)>,
}

/// A rule as the file writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Written {
    pattern: String,
    action: Action,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Skip,
    Override(Overrides),
}

/// What a rule says of a module. Nothing can be added to these three without every reader having to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule<'r> {
    /// The module stays unquantized.
    Skip {
        /// The rule, as written in the file.
        pattern: &'r str,
    },
    /// The module has values of its own.
    Override {
        /// The rule, as written in the file.
        pattern: &'r str,
        /// The values.
        overrides: &'r Overrides,
    },
    /// No rule matches the module.
    None,
}

/// The values that a rule overrides; `None` leaves the file's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Overrides {
    /// The width of a code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits: Option<Bits>,
    /// Rows that share a scale and a zero point.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_size: Option<GroupSize>,
    /// Whether rows were quantized in order of activation. A hint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desc_act: Option<bool>,
    /// Whether every zero point is `2^(bits − 1)`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sym: Option<bool>,
}

impl DynamicRules {
    /// Reads and compiles the value of `dynamic`.
    pub(crate) fn parse(entry: &Entry<'_>) -> Result<Self> {
        let (skips, others): (Vec<_>, Vec<_>) =
            entry.children()?.partition(|(text, _)| text.starts_with('-'));
        let mut parsed = Self { path: entry.source().path.clone(), ..Self::default() };
        let mut automata = 0;
        for (text, _) in skips.iter().chain(&others) {
            automata += pattern::automata(pattern_of(text));
            if automata > pattern::AUTOMATA_LIMIT {
                return Err(parsed.too_many(text));
            }
        }
        for (text, body) in skips.into_iter().chain(others) {
            let pattern = pattern_of(text);
            let action = match text.starts_with("-:") {
                true => Action::Skip,
                false => Action::Override(Overrides::parse(&body)?),
            };
            let matcher = pattern::compile(pattern, automata)
                .map_err(|error| parsed.failed(text, "is not a valid pattern".to_owned(), error))?;
            let rule = parsed.rules.len();
            match matcher {
                Matcher::Exact(name) => _ = parsed.exact.entry(name).or_insert(rule),
                matcher => parsed.patterns.push((rule, matcher)),
            }
            parsed.rules.push(Written { pattern: text.to_owned(), action });
        }
        Ok(parsed)
    }

    /// What the rules say of one module, by its full name in the checkpoint.
    ///
    /// # Errors
    ///
    /// [`DynamicRule`](Error::DynamicRule) where a pattern backtracks without end on this name.
    pub fn of(&self, module: &str) -> Result<Rule<'_>> {
        let exact = self.exact.get(module).copied();
        for (rule, matcher) in &self.patterns {
            if exact.is_some_and(|exact| exact < *rule) {
                break;
            }
            let written = self.rules.get(*rule);
            let matches = matcher.is_match(module).map_err(|error| {
                let text = written.map_or("", |written| &written.pattern);
                self.failed(text, format!("does not terminate on `{}`", shorten(module)), error)
            })?;
            if matches {
                return Ok(written.map_or(Rule::None, Written::rule));
            }
        }
        Ok(exact.and_then(|rule| self.rules.get(rule)).map_or(Rule::None, Written::rule))
    }

    /// The rules, in the order in which they are tried.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Rule<'_>> {
        self.rules.iter().map(Written::rule)
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The error for patterns that would take too much memory and time together.
    fn too_many(&self, pattern: &str) -> Error {
        let most = pattern::AUTOMATA_LIMIT;
        let problem = format!(
            "and the rules before it need more than {most} automata of the regular-expression engine together; names that \
             are spelled out, `^model\\.lm_head$`, need none"
        );
        let source = fancy_regex::ParseError::GeneralParseError("too many patterns in one file".to_owned());
        self.failed(pattern, problem, fancy_regex::Error::ParseError(0, source))
    }

    fn failed(&self, pattern: &str, problem: String, error: fancy_regex::Error) -> Error {
        Error::DynamicRule {
            path: self.path.clone(),
            pattern: pattern.to_owned(),
            problem,
            source: Box::new(error),
        }
    }
}

/// The pattern of a rule.
fn pattern_of(text: &str) -> &str {
    text.strip_prefix("-:").or_else(|| text.strip_prefix("+:")).unwrap_or(text)
}

/// Rules are equal where they say the same in the same order, whichever file they stand in.
impl PartialEq for DynamicRules {
    fn eq(&self, other: &Self) -> bool {
        self.rules == other.rules
    }
}

impl Eq for DynamicRules {}

/// As in the file, in the order in which the rules are tried.
impl Serialize for DynamicRules {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.rules.len()))?;
        for rule in &self.rules {
            let overrides = match rule.action {
                Action::Skip => Overrides::default(),
                Action::Override(overrides) => overrides,
            };
            map.serialize_entry(&rule.pattern, &overrides)?;
        }
        map.end()
    }
}

impl Written {
    fn rule(&self) -> Rule<'_> {
        match &self.action {
            Action::Skip => Rule::Skip { pattern: &self.pattern },
            Action::Override(overrides) => Rule::Override { pattern: &self.pattern, overrides },
        }
    }
}

impl Overrides {
    fn parse(body: &Entry<'_>) -> Result<Self> {
        if body.value.is_null() {
            return Ok(Self::default());
        }
        if !body.value.is_object() {
            return Err(body.refuse(
                "an object of overrides; to leave modules unquantized, begin the pattern with `-:`",
            ));
        }
        if let Some(pack_dtype) = body.child("pack_dtype") {
            super::parse::refuse_other_words(&pack_dtype)?;
        }
        Ok(Self {
            bits: body.child("bits").map(|entry| entry.bits()).transpose()?,
            group_size: body.child("group_size").map(|entry| entry.group_size()).transpose()?,
            desc_act: body.child("desc_act").map(|entry| entry.boolean()).transpose()?,
            sym: body.child("sym").map(|entry| entry.boolean()).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::ConfigSource;
    use super::*;

    fn parse(dynamic: &Value) -> Result<DynamicRules> {
        let file = json!({"dynamic": dynamic});
        let source = ConfigSource::file("/m/quantize_config.json");
        let entry = Entry::root(&file, &source).child("dynamic").expect("there");
        DynamicRules::parse(&entry)
    }

    fn rules(dynamic: &Value) -> DynamicRules {
        parse(dynamic).unwrap_or_else(|error| panic!("{}", error.report()))
    }

    /// The pattern that decides, with `skip ` before it where it skips.
    fn decided(rules: &DynamicRules, module: &str) -> String {
        match rules.of(module).unwrap_or_else(|error| panic!("{}", error.report())) {
            Rule::Skip { pattern } => format!("skip {pattern}"),
            Rule::Override { pattern, .. } => pattern.to_owned(),
            Rule::None => "none".to_owned(),
        }
    }

    #[test]
    fn rules_that_skip_are_tried_before_all_others() {
        let rules = rules(&json!({"+:.*": {"bits": 8}, "-:.*k_proj": {}, "-:lm_head": {"bits": 2}}));
        assert_eq!(decided(&rules, "a.k_proj"), "skip -:.*k_proj");
        assert_eq!(decided(&rules, "lm_head"), "skip -:lm_head", "the body of a skip is not read");
        assert_eq!(decided(&rules, "a.q_proj"), "+:.*");
        let order: Vec<_> = rules.iter().map(|rule| matches!(rule, Rule::Skip { .. })).collect();
        assert_eq!(order, [true, true, false]);
    }

    #[test]
    fn the_first_rule_in_the_order_of_the_file_decides_alone() {
        let rules = rules(&json!({
            "z.*": {"bits": 8}, "a": {"bits": 2}, "+:.*": {}, "never.*": {"bits": 3},
        }));
        for (module, pattern) in [("zebra", "z.*"), ("ab", "a"), ("never", "+:.*")] {
            assert_eq!(decided(&rules, module), pattern);
        }
        let none = Overrides::default();
        assert_eq!(rules.of("never").ok(), Some(Rule::Override { pattern: "+:.*", overrides: &none }));
    }

    #[test]
    fn a_minus_without_a_colon_is_tried_early_and_is_part_of_the_pattern() {
        let rules = rules(&json!({".*": {"bits": 8}, "-x": {"bits": 2}}));
        assert_eq!(decided(&rules, "-x.y"), "-x");
        assert_eq!(decided(&rules, "x"), ".*");
    }

    #[test]
    fn names_spelled_out_keep_their_place_among_patterns() {
        let rules = rules(&json!({
            r"^a\.b$": {"bits": 2}, "a.*": {"bits": 3}, r"^a\.c$": {"bits": 8}, r"a\.b$": {"bits": 8},
            r"^d\.e$": {"bits": 8}, r"-:^a\.d$": {}, "-:a.e": {},
        }));
        for (module, decides) in [
            ("a.b", r"^a\.b$"),
            ("a.b.x", "a.*"),
            ("a.c", "a.*"),
            ("a.d", r"skip -:^a\.d$"),
            ("a.e", "skip -:a.e"),
            ("d.e", r"^d\.e$"),
            ("d.e.x", "none"),
        ] {
            assert_eq!(decided(&rules, module), decides, "{module}");
        }
    }

    #[test]
    fn skip_override_and_no_match_are_three_things() {
        let rules = rules(&json!({"-:a": {}, "b": null}));
        assert_eq!(rules.of("a").ok(), Some(Rule::Skip { pattern: "-:a" }));
        assert_eq!(
            rules.of("b").ok(),
            Some(Rule::Override { pattern: "b", overrides: &Overrides::default() })
        );
        assert_eq!(rules.of("c").ok(), Some(Rule::None));
        assert_eq!(DynamicRules::default().of("a").ok(), Some(Rule::None));
    }

    #[test]
    fn overrides_are_typed_and_other_keys_ignored() {
        let body = json!({
            "bits": 8.0, "group_size": -1, "desc_act": 1, "sym": false, "pack_dtype": "int32", "mse": 0.1,
            "w_bit": "ignored", "adapter": {"rank": 512},
        });
        let rules = rules(&json!({ "+:x": body }));
        let expected = Overrides {
            bits: Bits::new(8),
            group_size: Some(GroupSize::PerColumn),
            desc_act: Some(true),
            sym: Some(false),
        };
        assert_eq!(rules.of("x").ok(), Some(Rule::Override { pattern: "+:x", overrides: &expected }));
    }

    #[test]
    fn a_bad_override_names_its_rule_and_key() {
        for (body, key) in [
            (json!({"bits": 9}), "dynamic.+:a.b.bits"),
            (json!({"bits": "8"}), "dynamic.+:a.b.bits"),
            (json!({"group_size": 0}), "dynamic.+:a.b.group_size"),
            (json!({"desc_act": "no"}), "dynamic.+:a.b.desc_act"),
            (json!({"sym": 2}), "dynamic.+:a.b.sym"),
            (json!({"pack_dtype": "uint4"}), "dynamic.+:a.b.pack_dtype"),
            (json!(false), "dynamic.+:a.b"),
            (json!([]), "dynamic.+:a.b"),
            (json!(8), "dynamic.+:a.b"),
        ] {
            match parse(&json!({ "+:a.b": body })) {
                Err(Error::ConfigValue { key: found, .. }) => assert_eq!(found, key),
                other => panic!("{body} gave {other:?}"),
            }
        }
        let packed = parse(&json!({"a": {"pack_dtype": "int16"}}));
        let key = "dynamic.a.pack_dtype";
        assert!(matches!(packed, Err(Error::Unsupported { feature, .. }) if feature.contains(key)));
    }

    #[test]
    fn dynamic_is_an_object() {
        for value in [json!([]), json!("x"), json!(false), json!(1)] {
            assert!(
                matches!(parse(&value), Err(Error::ConfigValue { key, .. }) if key == "dynamic"),
                "{value}"
            );
        }
        assert!(rules(&json!({})).is_empty());
    }

    #[test]
    fn a_pattern_that_is_none_names_the_file_and_the_rule() {
        match parse(&json!({"+:a": {}, "-:(unclosed": {}})) {
            Err(error @ Error::DynamicRule { .. }) => {
                let report = error.report();
                assert!(report.contains("/m/quantize_config.json"), "{report}");
                assert!(report.contains("`-:(unclosed` is not a valid pattern"), "{report}");
            }
            other => panic!("gave {other:?}"),
        }
    }

    #[test]
    fn a_pattern_that_backtracks_without_end_is_an_error_and_one_that_need_not_is_fast() {
        let module = format!("{}b", "a".repeat(60));
        assert_eq!(decided(&rules(&json!({"(a+)+$": {}})), &module), "none", "no look-around: linear time");
        let endless = rules(&json!({r"+:(a|a)*\1c": {}}));
        match endless.of(&module) {
            Err(error @ Error::DynamicRule { .. }) => {
                let text = error.to_string();
                assert!(text.contains(r"`+:(a|a)*\1c` does not terminate on `aaaa"), "{text}");
            }
            other => panic!("gave {other:?}"),
        }
        assert_eq!(decided(&endless, "b"), "none", "the rule still works on other names");
    }

    #[test]
    fn patterns_without_number_are_refused_and_names_without_number_are_not() {
        let file = |rule: fn(usize) -> String, count: usize| -> Value {
            (0..count)
                .map(|number| (rule(number), json!({"bits": 8})))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        let pattern = |number| format!(r".*\.(a|b)\.{number}$");
        assert_eq!(rules(&file(pattern, pattern::AUTOMATA_LIMIT)).len(), pattern::AUTOMATA_LIMIT);
        match parse(&file(pattern, 5000)) {
            Err(error @ Error::DynamicRule { .. }) => {
                let report = error.report();
                for part in ["/m/quantize_config.json", r"\.4096$`", "more than 4096 automata", "spelled out"]
                {
                    assert!(report.contains(part), "{report}");
                }
            }
            other => panic!("gave {other:?}"),
        }
        let named = rules(&file(|number| format!(r"^model\.layers\.{number}\.mlp$"), 100_000));
        assert_eq!(decided(&named, "model.layers.99999.mlp"), r"^model\.layers\.99999\.mlp$");
    }
}
