//! Regular expressions, as far as all nodes mean the same by them: letters, `.`, `[a-z]`, `[^a-z]`, `\d`, `\w` and `\s` of ASCII, `^` and `$` for the
//! whole text, groups, `|`, and `*`, `+`, `?`, `{2,5}`. What Postgres, and other programs, would each read in a way of their own is refused
//! by name.
//!
//! One is read once and spelled anew for Postgres, which then finds in it nothing but these. Elsewhere it runs here, in steps that grow with
//! the text and with the pattern, and with nothing else.

mod program;
mod read;

use program::Program;

use crate::limits;

/// A regular expression that was read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Regex {
    spelled: String,
    program: Program,
}

/// Why a text is no regular expression here.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RegexError {
    /// It is none anywhere.
    #[error("{0}")]
    Malformed(&'static str),
    /// It is one elsewhere.
    #[error("{0}")]
    Unsupported(&'static str),
    /// Its repetitions make too much of it.
    #[error("a pattern has at most {max} letters, repetitions written out", max = crate::limits::REGEX_STATES_MAX)]
    TooLarge,
}

impl Regex {
    /// Reads one. Insensitive: `A` to `Z` are `a` to `z`, and all other letters themselves, as in Postgres' locale `C`.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn read(text: &str, insensitive: bool) -> Result<Self, RegexError> {
        Self::of(&read::read(text, insensitive, limits::REGEX_BYTES_MAX)?)
    }

    /// Reads what [`spelled`](Self::spelled) gave, which may be longer than what anybody writes.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn read_spelled(text: &str) -> Result<Self, RegexError> {
        Self::of(&read::read(text, false, limits::REGEX_SPELLED_BYTES_MAX)?)
    }

    fn of(node: &read::Node) -> Result<Self, RegexError> {
        let mut spelled = String::new();
        node.spell_whole(&mut spelled);
        Ok(Self { spelled, program: Program::of(node)? })
    }

    /// The expression for Postgres' `~`, whatever its case was; read again, it is the same one.
    #[must_use]
    pub fn spelled(&self) -> &str {
        &self.spelled
    }

    /// True when it fits any part of the text.
    #[must_use]
    pub fn fits(&self, text: &str) -> bool {
        self.program.fits(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, text: &str, exact: bool, folded: bool) {
        for (insensitive, want) in [(false, exact), (true, folded)] {
            let regex = Regex::read(pattern, insensitive).unwrap_or_else(|error| panic!("{pattern}: {error}"));
            assert_eq!(regex.fits(text), want, "{pattern} {text} {insensitive}");
            assert_eq!(Regex::read_spelled(regex.spelled()).as_ref(), Ok(&regex), "{pattern} is {} and no more", regex.spelled());
        }
    }

    #[test]
    fn patterns_fit_parts_of_texts() {
        for (pattern, text, exact, folded) in [
            ("", "", true, true),
            ("b", "abc", true, true),
            ("B", "abc", false, true),
            ("^b", "abc", false, false),
            ("^a.c$", "abc", true, true),
            ("^a.c$", "a\nc", true, true),
            ("^a$", "a\n", false, false),
            ("^$", "", true, true),
            ("a^b", "ab", false, false),
            ("Ä", "ä", false, false),
            ("[A-C]x", "bx", false, true),
            ("[^A-C]x", "bx", true, false),
            ("[^a]", "a", false, false),
            ("[]a]", "]", true, true),
            ("[a-]", "-", true, true),
            (r"[\d.-]+$", "v1.2-3", true, true),
            (r"^\w+\s\W\D\S$", "ab_1 !!!", true, true),
            (r"\.", "a", false, false),
            ("^(ab|c)*$", "abcab", true, true),
            ("^(?:a|)b$", "b", true, true),
            ("^a{2,3}$", "aa", true, true),
            ("^a{2,3}$", "aaaa", false, false),
            ("^a{2}$", "aa", true, true),
            ("^a{2,}?$", "aaaaa", true, true),
            ("^a{0}b", "ab", false, false),
            ("(a*)*b", &"a".repeat(3_000), false, false),
            ("x*?", "", true, true),
            // Spelled, these are longer than a pattern may be.
            (&r"\w".repeat(240), &"a".repeat(240), true, true),
            (&format!("{}z", "(?:a?)".repeat(160)), "Z", false, true),
            ("[a-cb-fgx-z]", "e", true, true),
            ("[a-cb-fgx-z]", "h", false, false),
            ("^[^a-cb-fgx-z]$", "w", true, true),
        ] {
            check(pattern, text, exact, folded);
        }
    }

    #[test]
    fn what_others_read_otherwise_is_refused() {
        for pattern in [r"\bx", r"\1", r"\mx", "(?i)x", "(?=x)", "(?P<a>x)", "[[:alpha:]]", "[[.a.]]", r"\x41", "***:a"] {
            assert!(matches!(Regex::read(pattern, false), Err(RegexError::Unsupported(_) | RegexError::Malformed(_))), "{pattern}");
        }
        for pattern in ["(", ")", "a)", "[", "[]", "[b-a]", "*", "a**", "^*", "a|*", "{1}", "a{2", "a{3,2}", "a{256}", "a{x}", "\\", "[a\\"]
        {
            assert!(matches!(Regex::read(pattern, false), Err(RegexError::Malformed(_))), "{pattern}");
        }
        for pattern in ["((a{99}){99}){99}".to_owned(), "a".repeat(5_000)] {
            assert_eq!(Regex::read(&pattern, false), Err(RegexError::TooLarge), "{pattern}");
        }
        assert!(Regex::read(&format!("{}a{}", "(".repeat(500), ")".repeat(500)), false).is_err());
    }
}
