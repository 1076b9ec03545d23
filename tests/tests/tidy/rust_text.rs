//! Just enough of Rust's grammar to tell code from text, and test code from product code.

/// A line of Rust.
pub(crate) struct Line {
    /// The line with blanks in place of comments and of what is inside literals.
    pub(crate) code: String,
    /// Inside an item that exists only in test builds.
    pub(crate) is_test: bool,
}

/// A function and its length from `fn` to its closing brace.
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) lines: usize,
}

pub(crate) fn lines(text: &str) -> Vec<Line> {
    let code = blank_text(text);
    let mut lines: Vec<Line> = code.lines().map(|line| Line { code: line.into(), is_test: false }).collect();
    let mut from = 0;
    while let Some(at) = code[from..].find("#[cfg(").map(|at| from + at) {
        let attribute = &code[at..end_of(&code, at + 1)];
        from = at + attribute.len();
        if contains_word(attribute, "test") && !attribute.contains("not(test") {
            from = end_of_item(&code, from);
            let (first, last) = (line_of(&code, at), line_of(&code, from.saturating_sub(1)));
            lines[first - 1..last].iter_mut().for_each(|line| line.is_test = true);
        }
    }
    lines
}

pub(crate) fn functions(text: &str) -> Vec<Function> {
    let code = blank_text(text);
    let mut functions = Vec::new();
    for (at, _) in code.match_indices("fn ").filter(|(at, _)| starts_word(&code, *at)) {
        let signature = &code[at + 3..];
        let name: String = signature.chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == '$').collect();
        let end = end_of_item(&code, at);
        if !name.is_empty() && code[..end].ends_with('}') {
            let (line, last) = (line_of(&code, at), line_of(&code, end - 1));
            functions.push(Function { name, line, lines: last - line + 1 });
        }
    }
    functions
}

/// Whether `word` stands in `code`; beginning and end of `word` must not continue an identifier.
pub(crate) fn contains_word(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let after = code[at + word.len()..].chars().next();
        starts_word(code, at) && !(word.ends_with(is_name) && after.is_some_and(is_name))
    })
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn starts_word(code: &str, at: usize) -> bool {
    !(code[at..].starts_with(is_name) && code[..at].ends_with(is_name))
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// The place behind the bracket that closes the one at `open`.
fn end_of(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (at, c) in code[open..].char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return open + at + c.len_utf8();
        }
    }
    code.len()
}

/// The place behind the item that begins at `from`: its first block, or its semicolon when it has none.
fn end_of_item(code: &str, from: usize) -> usize {
    let mut at = from;
    while let Some(c) = code[at..].chars().next() {
        match c {
            '(' | '[' => at = end_of(code, at),
            '{' => return end_of(code, at),
            ';' => return at + 1,
            _ => at += c.len_utf8(),
        }
    }
    code.len()
}

/// `text` with blanks in place of comments and of what is inside literals; line breaks stay.
fn blank_text(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let opaque = opaque_bytes(rest);
        let (taken, left) = rest.split_at(opaque.unwrap_or(first.len_utf8()));
        match opaque {
            Some(_) => code.extend(taken.chars().map(|c| if c == '\n' { '\n' } else { ' ' })),
            None => code.push_str(taken),
        }
        rest = left;
    }
    code
}

/// Length of the comment or literal at the beginning of `rest`, if one is there.
fn opaque_bytes(rest: &str) -> Option<usize> {
    let until = |end: &str, from: usize| rest[from..].find(end).map_or(rest.len(), |at| from + at + end.len());
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(block_comment_bytes(rest));
    }
    if rest.starts_with('"') {
        return Some(quoted_bytes(rest, '"'));
    }
    if let Some(raw) = rest.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            return Some(until(&format!("\"{}", "#".repeat(hashes)), hashes + 2));
        }
    }
    let quoted = rest.strip_prefix('\'')?;
    let mut inside = quoted.chars();
    // A quote with neither an escape nor a second quote behind one character begins a lifetime.
    match (inside.next()?, inside.next()?) {
        ('\\', _) => Some(quoted_bytes(rest, '\'')),
        (c, '\'') => Some(c.len_utf8() + 2),
        _ => None,
    }
}

fn quoted_bytes(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

fn block_comment_bytes(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

#[test]
fn code_is_told_from_text() {
    for (text, want) in [
        ("a // b\nc", "a     \nc"),
        ("a /* b /* c */ d */ e", "a                   e"),
        (r#"f("x // \" {", b)"#, r"f(           , b)"),
        (r##"f(r#"a "b" \"#, c)"##, "f(            , c)"),
        (r"m('{', '\'', '\u{7d}', &'a x)", "m(   ,     ,         , &'a x)"),
    ] {
        assert_eq!(blank_text(text), want, "{text}");
    }
}

#[test]
fn test_code_is_told_from_product_code() {
    let text = "fn a() {}\n#[cfg(test)]\nuse x;\nfn b() {}\n#[cfg(not(test))]\nfn c() {}\n#[cfg(all(unix, test))]\n\
                #[allow(x)]\nmod tests {\n    fn d() {}\n}\nfn e() {}\n";
    let marks: String = lines(text).iter().map(|line| if line.is_test { 't' } else { '.' }).collect();
    assert_eq!(marks, ".tt...ttttt.");
}

#[test]
fn functions_have_a_length() {
    let text = "trait T { fn declared(&self) -> [u8; 2]; }\nfn one() {}\npub const fn three<const N: usize>(x: [u8; N])\nwhere X: Fn() {\n}\n\
                type F = fn (u8); // fn not_this() {}\n";
    let found: Vec<_> = functions(text).into_iter().map(|f| (f.name, f.line, f.lines)).collect();
    assert_eq!(found, [("one".into(), 2, 1), ("three".into(), 3, 3)]);
}
