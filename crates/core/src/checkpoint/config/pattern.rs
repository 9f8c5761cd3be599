//! The patterns of `dynamic`: PCRE in GPTQModel, Python's `re` in vLLM, [`fancy_regex`] here.
//!
//! fancy-regex reads what such patterns are made of as PCRE does: look-ahead and look-behind, back references,
//! atomic groups, possessive quantifiers, inline flags, POSIX classes. What has no look-around and no back reference
//! runs in linear time; what has may backtrack, up to a limit.
//!
//! It refuses `\Q...\E`, `\o{...}`, `\cX`, `\X`, `(?1)`, `(?&name)`, `(?P>name)`, `(?|...)`, and verbs such as `(*COMMIT)`: such a
//! pattern is an error. A few constructs it would accept and read otherwise than PCRE; [`compile`] refuses those
//! too, for a rule that silently matches other modules is worse than none. `\w`, `\d` and `\s` also match beyond
//! ASCII here, which module names do not reach.

use fancy_regex::{Expr, ParseError, Regex, RegexBuilder};

/// Steps back that one match may take. A name has some sixty characters; a pattern that needs more is one that
/// does not end.
const BACKTRACK_LIMIT: usize = 100_000;

/// Characters that one pattern may have when written out, and bytes that its compiled form may take.
const SIZE_LIMIT: usize = 1 << 20;

/// What decides whether a module's name matches.
#[derive(Clone, Debug)]
pub(crate) enum Matcher {
    /// It is this name: the pattern has no operator but anchors. A file may hold one such rule for each module.
    Exact(String),
    /// It matches from its start, not necessarily to its end.
    Start(Box<Regex>),
}

/// Compiles a pattern, without its `+:` or `-:`.
pub(crate) fn compile(pattern: &str) -> Result<Matcher, fancy_regex::Error> {
    if let Some(name) = exact_name(pattern) {
        return Ok(Matcher::Exact(name));
    }
    let too_long = || (written_out(pattern) > SIZE_LIMIT).then_some((0, "longer than any rule needs"));
    if let Some((position, problem)) = read_otherwise(pattern).or_else(too_long) {
        let problem = ParseError::GeneralParseError(problem.to_owned());
        return Err(fancy_regex::Error::ParseError(position, problem));
    }
    // By itself first: `a)|(?:b` would become a pattern by being put between parentheses.
    Expr::parse_tree(pattern)?;
    let regex = RegexBuilder::new(&format!("^(?:{pattern})"))
        .backtrack_limit(BACKTRACK_LIMIT)
        .delegate_size_limit(SIZE_LIMIT)
        .max_prog_size(SIZE_LIMIT / 64)
        .build()?;
    Ok(Matcher::Start(Box::new(regex)))
}

/// The one name that `pattern` can match: it ends in `$`, and everything before is plain or escaped.
fn exact_name(pattern: &str) -> Option<String> {
    let pattern = pattern.strip_prefix('^').unwrap_or(pattern);
    let mut characters = pattern.strip_suffix('$')?.chars();
    let mut name = String::with_capacity(pattern.len());
    while let Some(character) = characters.next() {
        match character {
            '\\' => name.push(characters.next().filter(char::is_ascii_punctuation)?),
            '_' | '-' | '/' | ':' => name.push(character),
            _ if character.is_ascii_alphanumeric() => name.push(character),
            _ => return None,
        }
    }
    Some(name)
}

/// Where `pattern` holds something that PCRE reads in another way than fancy-regex does, and what.
fn read_otherwise(pattern: &str) -> Option<(usize, &'static str)> {
    const NESTED: &str = "`[` in a class is a character in PCRE and a class of its own here";
    let (mut at, mut class) = (0, false);
    while let Some(rest) = pattern.as_bytes().get(at..).filter(|rest| !rest.is_empty()) {
        // How far to go, and whether that is inside a class.
        let step = match rest {
            [b'\\', b'h' | b'H', ..] => {
                Err(r"`\h` is a horizontal space in PCRE and a hexadecimal digit here")
            }
            [b'\\', b'g', ..] => Err(r"`\g` is a back reference in PCRE and a subroutine call here"),
            [b'\\', b'<' | b'>', ..] => Err(r"`\<` is a character in PCRE and the start of a word here"),
            [b'\\', _, ..] => Ok((2, class)),
            [b'(', b'?', b'R', ..] if !class => Err("`(?R)` is a recursion in PCRE and a flag here"),
            [b'(', b'?', b'P', b'>', ..] if !class => Err("subroutine calls of PCRE are not read here"),
            [b'[', b'^', b']', ..] if !class => Ok((3, true)),
            [b'[', b'^' | b']', ..] if !class => Ok((2, true)),
            [b'[', ..] if !class => Ok((1, true)),
            // A POSIX class, `[:alpha:]`; its closing bracket is not that of the class around it.
            [b'[', b':', ..] => {
                rest.windows(2).position(|pair| pair == b":]").map(|end| (end + 2, true)).ok_or(NESTED)
            }
            [b'[', ..] => Err(NESTED),
            [b'&', b'&', ..] | [b'-', b'-', ..] | [b'~', b'~', ..] if class => {
                Err("`&&`, `--` and `~~` in a class are characters in PCRE and set operators here")
            }
            [b']', ..] => Ok((1, false)),
            _ => Ok((1, class)),
        };
        match step {
            Ok((length, inside)) => {
                at += length;
                class = inside;
            }
            Err(problem) => return Some((at, problem)),
        }
    }
    None
}

/// At least how many characters `pattern` has when its counted repetitions (`{9}`) and its back references are
/// written out. fancy-regex computes such lengths without a check for overflow.
fn written_out(pattern: &str) -> usize {
    let mut length = pattern.len();
    for counts in pattern.split('{').skip(1).filter_map(|after| after.split('}').next()) {
        let numbers = counts.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
        let most = numbers.map(|digits| digits.parse().unwrap_or(usize::MAX)).max().unwrap_or(1);
        length = length.saturating_mul(most.max(1));
    }
    // A reference to a group that holds two references to another, and so on, doubles at every step.
    let references =
        pattern.split('\\').skip(1).filter(|after| after.starts_with(|c| matches!(c, '1'..='9' | 'k')));
    for _ in references.map(drop).chain(pattern.matches("(?P=").map(drop)) {
        length = length.saturating_mul(2);
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        match compile(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}")) {
            Matcher::Exact(exact) => exact == name,
            Matcher::Start(regex) => {
                regex.is_match(name).unwrap_or_else(|error| panic!("{pattern}: {error}"))
            }
        }
    }

    const NAME: &str = "model.layers.0.self_attn.q_proj";

    #[test]
    fn a_pattern_is_anchored_at_the_start_of_the_name_and_not_at_its_end() {
        for pattern in ["", "m", "model", "^model", ".*q_proj", "a|model", "model.layers", r".*\.0\."] {
            assert!(matches(pattern, NAME), "{pattern}");
        }
        for pattern in ["layers", "a|layers", "(?m)^layers", "q_proj", "model$", r"odel", r"\Blayers"] {
            assert!(!matches(pattern, NAME), "{pattern}");
        }
    }

    #[test]
    fn what_pcre_patterns_are_made_of_reads_as_in_pcre() {
        for (pattern, expected) in [
            (r"(?=.*attn).*_proj", true),
            (r"(?!.*attn).*_proj", false),
            (r".*(?<=\.)q_proj$", true),
            (r".*(?<!self)_attn", false),
            (r"(mod)el.*(?!\1)", true),
            (r"(?i)MODEL", true),
            (r"(?x) model \. layers", true),
            (r"(?i:M)odel", true),
            (r"model(?>.*)j", false),
            (r"model.*+j", false),
            (r"model.?+layers", true),
            (r"m{1}odel", true),
            (r"m{2,}odel", false),
            (r"model\.layers\.[[:digit:]]+\.", true),
            (r"[^]a-l]odel", true),
            (r"[]m]odel", true),
            (r"[\w.\-]+$", true),
            (r"model\.layers\.(?:0|1)\.self\_attn", true),
            (r"model\.layers\.\d+\.(?P<part>self_attn|mlp)", true),
            (r"\x6dodel\b", true),
            (r"(?#comment)model", true),
        ] {
            assert_eq!(matches(pattern, NAME), expected, "{pattern}");
        }
    }

    #[test]
    fn a_pattern_of_plain_and_escaped_characters_and_an_end_is_one_name() {
        for pattern in [r"^model\.layers\.0\.self_attn\.q_proj$", r"model\.layers\.0\.self\_attn\.q_proj$"] {
            assert!(matches!(compile(pattern), Ok(Matcher::Exact(name)) if name == NAME), "{pattern}");
        }
        for pattern in
            [r"^model.layers$", r"^model", r"lm_head", r"lm_head\$", r"a|b$", r"\d$", r"(a)$", r"a*$"]
        {
            assert_eq!(exact_name(pattern), None, "{pattern}");
        }
        assert_eq!(exact_name("$").as_deref(), Some(""), "only the empty name");
    }

    #[test]
    fn what_pcre_reads_otherwise_is_refused() {
        for pattern in [
            r"model\hx",
            r"[\h]",
            r"(m)\g1",
            r"\<model",
            "(?R)?",
            "(?P<n>a)(?P>n)",
            "[[:a]",
            "[a-z&&b]",
            "[a--b]",
            "[a~~b]",
            "[[ab]c]",
            "[^][a]",
            r"[\][a]",
        ] {
            let error = compile(pattern).expect_err(pattern);
            assert!(error.to_string().contains("PCRE"), "{pattern}: {error}");
        }
        for pattern in [r"\[a\[", r"[\w-]", "a--b", "a&&b", r"\\h", "[[:alpha:]--]"] {
            assert_eq!(read_otherwise(pattern).is_some(), pattern.ends_with("--]"), "{pattern}");
        }
    }

    #[test]
    fn what_is_no_pattern_here_is_an_error() {
        let nested = format!("{}a{}", "(".repeat(10_000), ")".repeat(10_000));
        let repeated = format!("{}a{}", "(?:".repeat(60), "){9}".repeat(60));
        let doubled = (1..70).fold("(a)".to_owned(), |all, group| format!(r"{all}(\{group}\{group}){{2}}"));
        for pattern in [
            "(",
            ")",
            "[",
            "*",
            "a**b)",
            "a)|(?:b",
            r"\Qa\E",
            "(?1)",
            "(?|a|b)",
            "(*COMMIT)a",
            r"\",
            "(?P<n>",
            r"\1",
            "(?x)a # b",
            "(a{1000}){1000}",
            &nested,
            &repeated,
            &doubled,
            &"a|".repeat(SIZE_LIMIT),
        ] {
            assert!(compile(pattern).is_err(), "{pattern:.20} is no pattern");
        }
    }
}
