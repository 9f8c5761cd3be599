//! The patterns of `dynamic`: PCRE in GPTQModel, Python's `re` in vLLM, [`fancy_regex`] here.
//!
//! fancy-regex reads what such patterns are made of as PCRE does: look-ahead and look-behind, back
//! references, atomic groups, possessive quantifiers, inline flags, POSIX classes. What has no look-around
//! and no back reference runs in linear time; what has may backtrack, up to a limit.
//!
//! Not read, and so an error: `\Q...\E`, rare escapes, octal codes, conditionals, branch resets, subroutine
//! calls and recursion, verbs such as `(*COMMIT)`. fancy-regex would accept some of these and read them
//! otherwise than PCRE; [`compile`] refuses them itself, for a rule that silently matches other modules is
//! worse than none. `\w`, `\d` and `\s` also match beyond ASCII here, which module names do not reach.

use fancy_regex::{Expr, ParseError, Regex, RegexBuilder};

/// Steps back that one match may take. A name has some sixty characters; a pattern that needs more is one
/// that does not end.
const BACKTRACK_LIMIT: usize = 100_000;

/// Characters that one pattern may have when written out.
const LENGTH_LIMIT: usize = 1 << 20;

/// Instructions that the part of a pattern that backtracks may compile to.
const PROGRAM_LIMIT: usize = 1 << 14;

/// Automata that the patterns of a file may compile to: seconds, and with the next limit some 270 MB, where all are large.
pub(crate) const AUTOMATA_LIMIT: usize = 1 << 12;

/// Bytes that the automata of a file may take, and one of them.
const FILE_BYTES: usize = 1 << 28;
const AUTOMATON_BYTES: usize = 10 << 20;

/// What decides whether a module's name matches. A file may hold one rule for each module, spelled out with
/// or without its dots escaped; those need no engine.
#[derive(Clone, Debug)]
pub(crate) enum Matcher {
    /// It is this name.
    Exact(String),
    /// It begins with these characters, `None` being any, or ends with them too.
    Plain { characters: Vec<Option<char>>, to_end: bool },
    /// It matches from its start, not necessarily to its end.
    Regex(Box<Regex>),
}

impl Matcher {
    pub(crate) fn is_match(&self, name: &str) -> Result<bool, fancy_regex::Error> {
        match self {
            Self::Exact(exact) => Ok(exact == name),
            Self::Plain { characters, to_end } => {
                let mut name = name.chars();
                let fits = |expected: &Option<char>| match (expected, name.next()) {
                    (Some(expected), found) => found == Some(*expected),
                    (None, found) => found.is_some_and(|found| found != '\n'),
                };
                Ok(characters.iter().all(fits) && (!to_end || name.next().is_none()))
            }
            Self::Regex(regex) => regex.is_match(name),
        }
    }
}

/// At most how many automata a pattern compiles to: none where it needs no engine, one where it runs in linear time, and
/// else one between every two things that the engine does itself.
pub(crate) fn automata(pattern: &str) -> usize {
    if plain(pattern).is_some() {
        return 0;
    }
    let pairs = || pattern.as_bytes().windows(2);
    let groups = pattern.matches("(?").count() - pattern.matches("(?:").count();
    let escapes =
        pairs().filter(|pair| matches!(pair, [b'\\', b'1'..=b'9' | b'A'..=b'Z' | b'b' | b'k' | b'z']));
    let possessive = pairs().filter(|pair| matches!(pair, [b'*' | b'+' | b'?' | b'}', b'+']));
    1 + 2 * (groups + escapes.count() + possessive.count())
}

/// Compiles a pattern, without its `+:` or `-:`, of a file whose patterns together have so many [`automata`].
pub(crate) fn compile(pattern: &str, of_file: usize) -> Result<Matcher, fancy_regex::Error> {
    if let Some(plain) = plain(pattern) {
        return Ok(plain);
    }
    let too_long = || (written_out(pattern) > LENGTH_LIMIT).then_some((0, "longer than any rule needs"));
    if let Some((position, problem)) = read_otherwise(pattern).or_else(too_long) {
        let problem = ParseError::GeneralParseError(problem.to_owned());
        return Err(fancy_regex::Error::ParseError(position, problem));
    }
    // By itself first: `a)|(?:b` would become a pattern by being put between parentheses.
    Expr::parse_tree(pattern)?;
    let regex = RegexBuilder::new(&format!("^(?:{pattern})"))
        .backtrack_limit(BACKTRACK_LIMIT)
        .max_prog_size(PROGRAM_LIMIT)
        .delegate_size_limit(AUTOMATON_BYTES.min(FILE_BYTES / of_file.max(1)))
        .build()?;
    Ok(Matcher::Regex(Box::new(regex)))
}

/// The matcher of a pattern that has no operators but anchors and dots.
fn plain(pattern: &str) -> Option<Matcher> {
    let body = pattern.strip_prefix('^').unwrap_or(pattern);
    let (body, to_end) = body.strip_suffix('$').map_or((body, false), |body| (body, true));
    let mut rest = body.chars();
    let mut characters = Vec::with_capacity(body.len());
    while let Some(character) = rest.next() {
        characters.push(match character {
            '.' => None,
            '\\' => Some(rest.next().filter(char::is_ascii_punctuation)?),
            '_' | '-' | '/' | ':' => Some(character),
            _ if character.is_ascii_alphanumeric() => Some(character),
            _ => return None,
        });
    }
    let exact = characters.iter().copied().collect::<Option<String>>().filter(|_| to_end);
    Some(exact.map_or(Matcher::Plain { characters, to_end }, Matcher::Exact))
}

/// Where `pattern` holds something that PCRE reads in another way than fancy-regex does, and what.
fn read_otherwise(pattern: &str) -> Option<(usize, &'static str)> {
    const GROUP: &str = "not one of the groups of PCRE that are read here";
    const ESCAPE: &str = "not one of the escapes of PCRE that are read here";
    const NESTED: &str = "`[` in a class is a character in PCRE and a class of its own here";
    let (mut at, mut class) = (0, false);
    while let Some(rest) = pattern.as_bytes().get(at..).filter(|rest| !rest.is_empty()) {
        // How far to go, and whether that is inside a class.
        let step = match rest {
            [b'\\', byte, ..] if !is_known_escape(*byte) => Err(ESCAPE),
            [b'\\', _, ..] => Ok((2, class)),
            [b'(', b'?', after @ ..] if !class && !is_known_group(after) => Err(GROUP),
            [b'(', b'*', ..] if !class => Err(GROUP),
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

/// Whether a backslash and this are an escape that means the same in PCRE and in fancy-regex. Left out are
/// those that mean another thing (`\h`, `\g`, `\<`), are unknown to one of them (`\O`, `\X`), or make no
/// sense where one name is matched from its start (`\G`, `\K`).
fn is_known_escape(byte: u8) -> bool {
    match byte {
        b'<' | b'>' => false,
        _ if byte.is_ascii_alphabetic() => b"ADPSWBZadefknprstvwbxz".contains(&byte),
        _ => byte != b'0',
    }
}

/// Whether `(?` and this begin a group that means the same in PCRE and in fancy-regex: one that does not
/// capture, looks around, is atomic, has a name or refers to one, is a comment, or sets flags.
fn is_known_group(after: &[u8]) -> bool {
    let flags = after.iter().take_while(|byte| b"imsx-".contains(byte)).count();
    match after {
        [b':' | b'=' | b'!' | b'>' | b'<' | b'#', ..] | [b'P', b'<' | b'=', ..] => true,
        _ => flags > 0 && matches!(after.get(flags), Some(b':' | b')')),
    }
}

/// At least how many characters `pattern` has when its counted repetitions (`{9}`) and its back references
/// are written out. fancy-regex computes such lengths without a check for overflow.
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
        let matcher = compile(pattern, automata(pattern)).and_then(|matcher| matcher.is_match(name));
        matcher.unwrap_or_else(|error| panic!("{pattern}: {error}"))
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
    fn names_that_are_spelled_out_need_no_engine() {
        for pattern in [r"^model\.layers\.0\.self_attn\.q_proj$", r"model\.layers\.0\.self\_attn\.q_proj$"] {
            assert!(
                matches!(compile(pattern, automata(pattern)), Ok(Matcher::Exact(name)) if name == NAME),
                "{pattern}"
            );
        }
        for (pattern, to_end) in
            [("^model.layers.0.self_attn.q_proj$", true), ("model.layers", false), ("", false)]
        {
            assert!(
                matches!(compile(pattern, automata(pattern)), Ok(Matcher::Plain { to_end: end, .. }) if end == to_end),
                "{pattern}"
            );
            assert!(matches(pattern, NAME), "{pattern}");
        }
        for pattern in [r"lm_head\$", r"a|b$", r"\d$", r"(a)$", r"a*$", "a$b", "^^a", "é"] {
            assert!(matches!(compile(pattern, automata(pattern)), Ok(Matcher::Regex(_))), "{pattern}");
        }
        for (pattern, name, expected) in [
            ("$", "", true),
            ("$", "a", false),
            ("a.c$", "a.c", true),
            ("a.c$", "aéc", true),
            ("a.c$", "a.cd", false),
            ("a.c$", "ac", false),
            ("a.c", "a\nc", false),
            ("a.c", "a.cd", true),
            (r"a\.c", "a.cd", true),
            (r"a\.c", "abcd", false),
            ("abc", "ab", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} on {name}");
        }
    }

    #[test]
    fn what_pcre_reads_otherwise_is_refused() {
        for pattern in [
            r"model\hx",
            r"[\h]",
            r"\Gmodel",
            r"\Oodel",
            r"\Qmodel\E",
            r"\0",
            "(?(1)a)",
            "(?|a|b)",
            "(?i-J)a",
            "(*FAIL)",
            r"(m)\g1",
            r"\<model+",
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
            let error = compile(pattern, automata(pattern)).expect_err(pattern);
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
            &"a|".repeat(LENGTH_LIMIT),
        ] {
            assert!(compile(pattern, automata(pattern)).is_err(), "{pattern:.20} is no pattern");
        }
    }

    #[test]
    fn automata_are_counted_where_an_engine_is_needed() {
        for (pattern, count) in [
            (r"^model\.layers\.0$", 0),
            ("model.layers.1.", 0),
            (r".*\.(?:0|1)\..*_proj", 1),
            (r"(a|b)+\d{3}", 1),
            ("(?=.*attn).*_proj", 3),
            (r"(a)\1a++", 5),
        ] {
            assert_eq!(automata(pattern), count, "{pattern}");
        }
    }

    #[test]
    fn many_patterns_leave_each_less_room() {
        // Digits of every script, a hundred times: more than 64 KB and less than 10 MB.
        let pattern = r"\d{100}";
        assert!(compile(pattern, 1).is_ok(), "alone");
        assert!(compile(pattern, AUTOMATA_LIMIT).is_err(), "one of as many as may be");
        assert!(compile(r".*\.(0|1|2)\..*(q|k|v)_proj", AUTOMATA_LIMIT).is_ok(), "as files have them");
    }
}
