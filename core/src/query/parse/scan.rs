//! Lists and names: commas and dots count outside of quotes, parentheses and braces only.

use super::QueryError;

/// The parts of `text` between separators that are outside of `"…"`, `(…)` and `{…}`.
///
/// # Errors
///
/// When a quote, a parenthesis or a brace is not closed.
pub(super) fn split(text: &str, separator: char) -> Result<Vec<&str>, QueryError> {
    let (mut parts, mut begin) = (Vec::new(), 0);
    let mut state = Scan::default();
    for (at, c) in text.char_indices() {
        if state.take(c) && c == separator {
            parts.push(text.get(begin..at).unwrap_or_default());
            begin = at + c.len_utf8();
        }
    }
    if state.quoted || state.depth != 0 {
        return Err(QueryError::malformed(format!("a quote, parenthesis or brace is not closed in: {text}")));
    }
    parts.push(text.get(begin..).unwrap_or_default());
    Ok(parts)
}

/// What is before and behind the first `separator` that is outside of `"…"`.
pub(super) fn cut<'t>(text: &'t str, separator: &str) -> Option<(&'t str, &'t str)> {
    let mut state = Scan::default();
    let at =
        text.char_indices().find(|(at, c)| !state.quoted_with(*c) && text.get(*at..).is_some_and(|rest| rest.starts_with(separator)))?.0;
    Some((text.get(..at)?, text.get(at + separator.len()..)?))
}

/// What a name or an element stands for: itself, or what is between its quotes, where `\` takes the next character as it is.
///
/// # Errors
///
/// When something follows the closing quote.
pub(super) fn unquote(text: impl AsRef<str>) -> Result<String, QueryError> {
    let text = text.as_ref();
    let Some(inner) = text.strip_prefix('"') else { return Ok(text.to_owned()) };
    let (mut plain, mut escaped) = (String::new(), false);
    let mut rest = inner.chars();
    loop {
        match rest.next() {
            Some(c) if escaped => {
                plain.push(c);
                escaped = false;
            }
            Some('\\') => escaped = true,
            Some('"') if rest.as_str().is_empty() => return Ok(plain),
            Some('"') | None => return Err(QueryError::malformed(format!("a quoted name or value ends at its quote: {text}"))),
            Some(c) => plain.push(c),
        }
    }
}

#[derive(Default)]
struct Scan {
    quoted: bool,
    escaped: bool,
    depth: usize,
}

impl Scan {
    /// Goes over `c`; true where it is outside of quotes, parentheses and braces.
    fn take(&mut self, c: char) -> bool {
        if self.quoted_with(c) {
            return false;
        }
        match c {
            '(' | '{' => self.depth += 1,
            ')' | '}' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        self.depth == 0
    }

    /// Goes over `c`; true where it is a quote or inside of quotes.
    fn quoted_with(&mut self, c: char) -> bool {
        match (self.quoted, self.escaped, c) {
            (true, true, _) => self.escaped = false,
            (true, false, '\\') => self.escaped = true,
            (true, false, '"') => self.quoted = false,
            (true, false, _) => {}
            (false, _, '"') => self.quoted = true,
            (false, ..) => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_count_outside_of_quotes_and_parentheses() {
        let cases: [(&str, &[&str]); 7] = [
            ("", &[""]),
            ("a,b", &["a", "b"]),
            ("a,,b,", &["a", "", "b", ""]),
            (r#""a,b",c"#, &[r#""a,b""#, "c"]),
            (r#""a\",b",(c,(d)),ä"#, &[r#""a\",b""#, "(c,(d))", "ä"]),
            ("a),b", &["a)", "b"]),
            ("{a,b},c", &["{a,b}", "c"]),
        ];
        for (text, want) in cases {
            assert_eq!(split(text, ',').unwrap(), want, "{text}");
        }
        for bad in [r#""a"#, "(a", "{a", r#"a,"b\""#] {
            assert!(split(bad, ',').is_err(), "{bad}");
        }
    }

    #[test]
    fn quotes_come_off() {
        for (text, want) in [("a", "a"), (r#""a,b""#, "a,b"), (r#""a\"b\\""#, "a\"b\\"), ("", ""), (r#""""#, ""), (r#"a"b"#, "a\"b")] {
            assert_eq!(unquote(text).unwrap(), want, "{text}");
        }
        for bad in [r#"""#, r#""a"b"#, r#""a\""#] {
            assert!(unquote(bad).is_err(), "{bad}");
        }
        assert_eq!(cut(r#""a->"->b->c"#, "->"), Some((r#""a->""#, "b->c")));
        assert_eq!(cut("a", "->"), None);
    }
}
