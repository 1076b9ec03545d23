//! `LIKE`: `%` is any text, `_` any letter, `\` takes the next letter as it is.

/// True when `text` is of that pattern. Insensitive: `A` to `Z` are `a` to `z`, and all other letters themselves, as in Postgres' locale `C`.
///
/// A pattern that ends with a lone `\` fits nothing; the parser refuses it.
#[must_use]
pub fn like(pattern: &str, text: &str, insensitive: bool) -> bool {
    let fold = |c: char| if insensitive { c.to_ascii_lowercase() } else { c };
    let tokens = tokens(pattern, fold);
    let text: Vec<char> = text.chars().map(fold).collect();
    // Greedy with one way back: only the last `%` has to be tried again.
    let (mut at, mut on, mut retry) = (0, 0, None);
    while at < text.len() {
        match (tokens.get(on), text.get(at)) {
            (Some(Token::Any), _) => {
                on += 1;
                retry = Some((on, at));
            }
            (Some(Token::One), Some(_)) => (at, on) = (at + 1, on + 1),
            (Some(Token::Is(wanted)), Some(found)) if wanted == found => (at, on) = (at + 1, on + 1),
            _ => match retry {
                Some((back, from)) => {
                    retry = Some((back, from + 1));
                    (at, on) = (from + 1, back);
                }
                None => return false,
            },
        }
    }
    tokens.iter().skip(on).all(|token| *token == Token::Any)
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Token {
    Any,
    One,
    Is(char),
}

fn tokens(pattern: &str, fold: impl Fn(char) -> char) -> Vec<Token> {
    let mut letters = pattern.chars();
    let mut tokens = Vec::new();
    while let Some(letter) = letters.next() {
        tokens.push(match letter {
            '%' => Token::Any,
            '_' => Token::One,
            // U+0000 is in no text.
            '\\' => Token::Is(letters.next().map_or('\0', &fold)),
            letter => Token::Is(fold(letter)),
        });
    }
    tokens.dedup_by(|a, b| *a == Token::Any && *b == Token::Any);
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_whole_texts() {
        for (pattern, text, exact, folded) in [
            ("", "", true, true),
            ("", "a", false, false),
            ("%", "", true, true),
            ("%%", "äb", true, true),
            ("_", "ä", true, true),
            ("_", "", false, false),
            ("a%c", "abcbc", true, true),
            ("a%b_d%", "axxbbcdz", true, true),
            ("a%b_d", "abd", false, false),
            ("A%", "abc", false, true),
            ("Ä", "ä", false, false),
            (r"100\%", "100%", true, true),
            (r"100\%", "1000", false, false),
            (r"a\", "a", false, false),
            ("%a%a%a%a%b", &"a".repeat(3_000), false, false),
        ] {
            assert_eq!((like(pattern, text, false), like(pattern, text, true)), (exact, folded), "{pattern} {text}");
        }
    }
}
