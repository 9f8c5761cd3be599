//! A JSON object as text, in which single members can be changed and everything else stays as it was written.
//!
//! Reading a file into values and writing these would move floats by a bit, lose the `Infinity` that Python writes,
//! and lay out the whole file anew. A file that is saved again differs only where it must.

/// A JSON object, cut into its members.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ObjectText {
    /// Up to the opening brace.
    head: String,
    members: Vec<Member>,
    /// From the space before the closing brace.
    tail: String,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Member {
    /// The space before the key.
    lead: String,
    /// The key, without its escapes.
    key: String,
    /// The key as it is written, with the colon and the space around it.
    label: String,
    value: String,
    /// The space between the value and a comma.
    trail: String,
}

impl ObjectText {
    /// Cuts `text` into members. `None` where it is no object. The text is known to be JSON, apart from numbers
    /// that only Python writes: values are skipped over, not checked.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut rest = Rest(text);
        let head = format!("{}{}", rest.space(), rest.token('{')?);
        let mut members: Vec<Member> = Vec::new();
        loop {
            let lead = rest.space().to_owned();
            if let Some(brace) = rest.token('}') {
                return Some(Self { head, members, tail: format!("{lead}{brace}{}", rest.0) });
            }
            let quoted = rest.value()?;
            let key = serde_json::from_str(quoted).ok()?;
            let label = format!("{quoted}{}{}{}", rest.space(), rest.token(':')?, rest.space());
            let value = rest.value()?.to_owned();
            let trail = rest.space().to_owned();
            match rest.token(',') {
                Some(_) => members.push(Member { lead, key, label, value, trail }),
                None => {
                    rest.token('}')?;
                    members.push(Member { lead, key, label, value, trail: String::new() });
                    return Some(Self { head, members, tail: format!("{trail}}}{}", rest.0) });
                }
            }
        }
    }

    /// The values of the members called `key`, in any case.
    pub(super) fn values<'t>(&'t self, key: &'t str) -> impl Iterator<Item = &'t str> {
        let named = self.members.iter().filter(move |member| member.key.eq_ignore_ascii_case(key));
        named.map(|member| member.value.as_str())
    }

    /// Gives every member called `key`, in any case, the value that `change` makes of its own. `None` leaves it.
    /// Says whether there is such a member.
    pub(super) fn change(&mut self, key: &str, mut change: impl FnMut(&str) -> Option<String>) -> bool {
        let mut found = false;
        for member in self.members.iter_mut().filter(|member| member.key.eq_ignore_ascii_case(key)) {
            found = true;
            if let Some(value) = change(&member.value) {
                member.value = value;
            }
        }
        found
    }

    /// Gives every member called `key` this value, or adds one: after the member called `after`, else at the end.
    pub(super) fn set(&mut self, key: &str, value: &str, after: &str) {
        if self.change(key, |_| Some(value.to_owned())) {
            return;
        }
        let spaced = self.members.last().is_none_or(|last| last.label.ends_with(' '));
        let lead = match self.members.as_slice() {
            [] => "",
            // Alone on its line, it does not show how members are set apart.
            [only] if only.lead.is_empty() && spaced => " ",
            [.., last] => &last.lead,
        };
        let member = Member {
            lead: lead.to_owned(),
            key: key.to_owned(),
            label: format!("\"{key}\":{}", if spaced { " " } else { "" }),
            value: value.to_owned(),
            trail: String::new(),
        };
        let place = self.members.iter().position(|member| member.key.eq_ignore_ascii_case(after));
        self.members.insert(place.map_or(self.members.len(), |place| place + 1), member);
    }

    /// Removes the members called `key`, in any case.
    pub(super) fn remove(&mut self, key: &str) {
        let lead = self.members.first().map(|first| first.lead.clone());
        self.members.retain(|member| !member.key.eq_ignore_ascii_case(key));
        if let (Some(first), Some(lead)) = (self.members.first_mut(), lead) {
            first.lead = lead;
        }
    }

    /// The text again.
    pub(super) fn render(&self) -> String {
        let mut text = self.head.clone();
        for (i, Member { lead, label, value, trail, .. }) in self.members.iter().enumerate() {
            if i > 0 {
                text.push(',');
            }
            for part in [lead, label, value, trail] {
                text.push_str(part);
            }
        }
        text + &self.tail
    }

    /// `value`, an object or array laid out from the left margin, as it stands inside this object.
    pub(super) fn indented(&self, value: &str) -> String {
        let lead = self.members.first().map_or("", |member| &member.lead);
        // A string in JSON has no line breaks of its own.
        match lead.rfind('\n') {
            Some(line) => value.trim().replace('\n', lead.get(line..).unwrap_or("\n")),
            None => value.trim().to_owned(),
        }
    }
}

/// What is left of the text to read. Every method takes its part, or leaves all where it is.
struct Rest<'t>(&'t str);

impl<'t> Rest<'t> {
    fn take(&mut self, bytes: usize) -> Option<&'t str> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn space(&mut self) -> &'t str {
        let end = self.0.find(|c: char| !matches!(c, ' ' | '\t' | '\r' | '\n')).unwrap_or(self.0.len());
        self.take(end).unwrap_or_default()
    }

    fn token(&mut self, token: char) -> Option<char> {
        self.0 = self.0.strip_prefix(token)?;
        Some(token)
    }

    /// A value of any kind.
    fn value(&mut self) -> Option<&'t str> {
        let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
        for (at, byte) in self.0.bytes().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => {
                    quoted = !quoted;
                    if !quoted && depth == 0 {
                        return self.take(at + 1);
                    }
                }
                _ if quoted => {}
                b'{' | b'[' => depth += 1,
                // A number or a word at the end of what contains it.
                b'}' | b']' | b',' | b' ' | b'\t' | b'\r' | b'\n' if depth == 0 => {
                    return (at > 0).then(|| self.take(at)).flatten();
                }
                b'}' | b']' => {
                    depth -= 1;
                    if depth == 0 {
                        return self.take(at + 1);
                    }
                }
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use super::*;

    fn object(text: &str) -> ObjectText {
        ObjectText::parse(text).unwrap_or_else(|| panic!("{text} is an object"))
    }

    #[test]
    fn an_object_that_nobody_changes_keeps_every_byte() {
        for text in [
            "{}",
            " { } \n",
            "{\"a\":1}",
            "{\n  \"a\": 1,\n  \"b\": {\"c\": [1, \"}\", {}], \"d\": \"\\\"]\"}\n}\n",
            "\t{ \"a\" : [ ] , \"b\" :\tnull\r\n, \"c\":-1e-05 }",
            "{\"limits\": [0.0, Infinity], \"x\": -Infinity, \"y\": NaN}",
            "{\"\\u0061\": \"\\\\\", \"ü\": \"ü\\\"\"}",
        ] {
            assert_eq!(object(text).render(), text);
        }
    }

    #[test]
    fn what_is_no_object_is_none() {
        for text in ["", "[]", "\"{}\"", "4", "{\"a\"", "{\"a\": [}", "{\"a\": 1", "null"] {
            assert_eq!(ObjectText::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_member_changes_alone() {
        let mut text = object("{\n  \"Format\": \"gptq\",\n  \"x\": 1e-06,\n  \"format\" : null\n}\n");
        text.set("format", "\"gptq_v2\"", "");
        assert_eq!(
            text.render(),
            "{\n  \"Format\": \"gptq_v2\",\n  \"x\": 1e-06,\n  \"format\" : \"gptq_v2\"\n}\n"
        );
        assert_eq!(text.values("FORMAT").collect::<Vec<_>>(), ["\"gptq_v2\""; 2]);
        assert!(!text.change("y", |_| Some("0".into())), "there is no such member");
    }

    #[test]
    fn a_new_member_looks_like_its_neighbours() {
        let mut text = object("{\n  \"a\": 1,\n  \"b\": 2\n}");
        text.set("c", "3", "a");
        text.set("d", "4", "nothing");
        assert_eq!(text.render(), "{\n  \"a\": 1,\n  \"c\": 3,\n  \"b\": 2,\n  \"d\": 4\n}");
        let mut one = object("{\"a\": 1}");
        one.set("b", "2", "");
        assert_eq!(one.render(), "{\"a\": 1, \"b\": 2}");
        let mut short = object("{\"a\":1}");
        short.set("b", "2", "");
        assert_eq!(short.render(), "{\"a\":1,\"b\":2}");
        let mut empty = object("{}");
        empty.set("a", "1", "");
        assert_eq!(empty.render(), "{\"a\": 1}");
    }

    #[test]
    fn a_member_is_removed_wherever_it_stands() {
        for (key, left) in [
            ("a", "{\n \"b\": 2,\n \"c\": 3\n}"),
            ("B", "{\n \"a\": 1,\n \"c\": 3\n}"),
            ("c", "{\n \"a\": 1,\n \"b\": 2\n}"),
        ] {
            let mut text = object("{\n \"a\": 1,\n \"b\": 2,\n \"c\": 3\n}");
            text.remove(key);
            assert_eq!(text.render(), left);
        }
        let mut line = object("{\"a\": 1, \"b\": 2}");
        line.remove("a");
        assert_eq!(line.render(), "{\"b\": 2}");
        line.remove("b");
        assert_eq!(line.render(), "{}");
    }

    #[test]
    fn a_value_is_indented_like_what_it_goes_into() {
        let outer = object("{\n  \"a\": 1\n}");
        assert_eq!(outer.indented("{\n  \"b\": 2\n}\n"), "{\n    \"b\": 2\n  }");
        assert_eq!(object("{\"a\": 1}").indented("{\n  \"b\": 2\n}"), "{\n  \"b\": 2\n}");
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".*".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((".*", inner), 0..4)
                    .prop_map(|members| Value::from(members.into_iter().collect::<Map<_, _>>())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_object_is_cut_at_its_members(
            members in prop::collection::vec((".*", value()), 0..6), pretty: bool
        ) {
            let map: Map<String, Value> = members.into_iter().collect();
            let value = Value::from(map.clone());
            let text = if pretty { format!("{value:#}") } else { value.to_string() };
            let object = object(&text);
            prop_assert_eq!(object.render(), text);
            let read: Vec<_> = object
                .members
                .iter()
                .map(|member| (member.key.clone(), serde_json::from_str(&member.value).expect("JSON")))
                .collect();
            prop_assert_eq!(read, map.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn any_text_is_an_object_or_none(text in r#"[{}\[\]",:\\ a0\n]*"#) {
            if let Some(object) = ObjectText::parse(&text) {
                prop_assert_eq!(object.render(), text);
            }
        }
    }
}
