//! The words of a Rust file that the compiler sees: comments and literals left out.

/// The identifiers and keywords of `text`, each with its line.
pub(super) fn identifiers(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let (mut rest, mut line) = (text, 1);
    std::iter::from_fn(move || {
        loop {
            let token = Token::first(rest)?;
            let (found, after) = rest.split_at(token.length);
            rest = after;
            if token.is_word {
                return Some((line, found));
            }
            line += found.matches('\n').count();
        }
    })
}

/// The piece of text that comes first, as far as telling words from the rest needs it.
struct Token {
    length: usize,
    is_word: bool,
}

impl Token {
    /// `None` at the end of the text.
    fn first(text: &str) -> Option<Self> {
        let first = text.chars().next()?;
        let other = |length: usize| Some(Self { length: length.min(text.len()), is_word: false });
        if text.starts_with("//") {
            return other(text.find('\n').unwrap_or(text.len()));
        }
        if text.starts_with("/*") {
            return other(block_comment(text));
        }
        if let Some(length) = raw_string(text) {
            return other(length);
        }
        match first {
            '"' => other(1 + closing(&text[1..], '"')),
            '\'' => other(character(text).unwrap_or(1)),
            _ if first.is_alphanumeric() || first == '_' => {
                let part = |c: char| c.is_alphanumeric() || c == '_';
                let length = text.find(|c| !part(c)).unwrap_or(text.len());
                Some(Self { length, is_word: true })
            }
            _ => other(first.len_utf8()),
        }
    }
}

/// Bytes up to and with the closing quote, escaped ones skipped.
fn closing(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Bytes of a character literal; `None` for the quote of a lifetime.
fn character(text: &str) -> Option<usize> {
    let inside = &text[1..];
    let first = inside.chars().next()?;
    let is_literal = first == '\\' || inside[first.len_utf8()..].starts_with('\'');
    is_literal.then(|| 1 + closing(inside, '\''))
}

/// Bytes of a raw string, `r"..."` to `br##"..."##`.
fn raw_string(text: &str) -> Option<usize> {
    let prefix = text.len() - text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?.len();
    let hashes = text[prefix..].bytes().take_while(|&byte| byte == b'#').count();
    let start = prefix + hashes;
    let inside = text[start..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(inside.find(&end).map_or(text.len(), |at| start + 1 + at + end.len()))
}

/// Bytes of a block comment, which may hold others.
fn block_comment(text: &str) -> usize {
    let mut depth = 0usize;
    let mut at = 0;
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        identifiers(text).map(|(_, word)| word).collect()
    }

    #[test]
    fn comments_and_literals_hold_no_words() {
        assert_eq!(words("a // b\nc /* d /* e */ f */ g"), ["a", "c", "g"]);
        assert_eq!(words(r#"a("b \" c") d"#), ["a", "d"]);
        assert_eq!(words("a(r#\"b \" c\"#) d(br\"e\\\") f"), ["a", "d", "f"]);
        assert_eq!(words(r"a('b', '\'', '\u{e9}', 'é') c"), ["a", "c"]);
        assert_eq!(words("/// a `b`\nc"), ["c"]);
    }

    #[test]
    fn lifetimes_and_names_that_begin_like_literals_are_words() {
        assert_eq!(words("fn f<'a>(bar: &'a str) -> r0"), ["fn", "f", "a", "bar", "a", "str", "r0"]);
    }

    #[test]
    fn a_word_knows_its_line() {
        assert_eq!(identifiers("a\n// b\n\n c").collect::<Vec<_>>(), [(1, "a"), (4, "c")]);
    }

    #[test]
    fn text_that_ends_too_early_ends() {
        for text in ["\"a", "r#\"a", "/* a", "'", "'\\", "b'"] {
            assert!(words(text).len() <= 1, "{text}");
        }
    }
}
