//! The text of an expression, and its one spelling.

use std::fmt::Write as _;
use std::sync::Arc;

use super::RegexError;
use crate::limits;

/// A part of an expression.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Node {
    /// A letter of that set; a repetition shares it.
    Set(Arc<Set>),
    /// Nothing, in front of the whole text.
    Start,
    /// Nothing, behind the whole text.
    End,
    /// One after the other.
    All(Vec<Node>),
    /// One of these.
    One(Vec<Node>),
    /// So often; without an end, as often as it comes.
    Repeat(Box<Node>, u16, Option<u16>),
}

/// Letters.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Set {
    /// True: all others.
    negated: bool,
    /// From and to, ascending, with other letters between them.
    ranges: Vec<(char, char)>,
}

impl Set {
    const fn any() -> Self {
        Self { negated: true, ranges: Vec::new() }
    }

    fn of(letter: char) -> Self {
        Self { negated: false, ranges: vec![(letter, letter)] }
    }

    pub(super) fn has(&self, letter: char) -> bool {
        let begun = self.ranges.partition_point(|(from, _)| *from <= letter);
        let last = begun.checked_sub(1).and_then(|last| self.ranges.get(last));
        last.is_some_and(|(_, to)| letter <= *to) != self.negated
    }

    /// With the other case of the letters of ASCII.
    fn folded(mut self) -> Self {
        let other = |range: &(char, char), (first, last): (char, char), turn: fn(&char) -> char| {
            let (from, to) = (range.0.max(first), range.1.min(last));
            (from <= to).then(|| (turn(&from), turn(&to)))
        };
        let more: Vec<(char, char)> = self
            .ranges
            .iter()
            .flat_map(|range| [other(range, ('a', 'z'), char::to_ascii_uppercase), other(range, ('A', 'Z'), char::to_ascii_lowercase)])
            .flatten()
            .collect();
        self.ranges.extend(more);
        self.sorted()
    }

    fn sorted(mut self) -> Self {
        self.ranges.sort_unstable();
        let mut apart: Vec<(char, char)> = Vec::with_capacity(self.ranges.len());
        for (from, to) in self.ranges {
            match apart.last_mut() {
                Some(last) if u32::from(from) <= u32::from(last.1) + 1 => last.1 = last.1.max(to),
                _ => apart.push((from, to)),
            }
        }
        self.ranges = apart;
        self
    }

    fn spell(&self, text: &mut String) {
        match self.ranges.as_slice() {
            [] if self.negated => text.push('.'),
            [(from, to)] if from == to && !self.negated => letter(text, *from),
            ranges => {
                text.push_str(if self.negated { "[^" } else { "[" });
                for (from, to) in ranges {
                    letter(text, *from);
                    if from != to {
                        text.push('-');
                        letter(text, *to);
                    }
                }
                text.push(']');
            }
        }
    }
}

/// A letter that means itself, within brackets and without.
fn letter(text: &mut String, letter: char) {
    if letter.is_ascii_punctuation() {
        text.push('\\');
    }
    text.push(letter);
}

impl Node {
    /// The whole expression, which needs no brackets around it.
    pub(super) fn spell_whole(&self, text: &mut String) {
        if let Self::One(parts) = self { spell_branches(parts, text) } else { self.spell(text) }
    }

    fn spell(&self, text: &mut String) {
        match self {
            Self::Set(set) => set.spell(text),
            Self::Start => text.push('^'),
            Self::End => text.push('$'),
            Self::All(parts) => parts.iter().for_each(|part| part.spell(text)),
            Self::One(parts) => {
                text.push_str("(?:");
                spell_branches(parts, text);
                text.push(')');
            }
            Self::Repeat(part, least, most) => {
                part.spell(text);
                // Into a text, this does not fail.
                let _ = match most {
                    Some(most) => write!(text, "{{{least},{most}}}"),
                    None => write!(text, "{{{least},}}"),
                };
            }
        }
    }
}

fn spell_branches(parts: &[Node], text: &mut String) {
    for (n, part) in parts.iter().enumerate() {
        text.push_str(if n == 0 { "" } else { "|" });
        part.spell(text);
    }
}

/// Reads an expression of at most so many bytes.
///
/// # Errors
///
/// What is wrong with it.
pub(super) fn read(text: &str, insensitive: bool, bytes_max: usize) -> Result<Node, RegexError> {
    if text.len() > bytes_max {
        return Err(RegexError::TooLarge);
    }
    if text.contains('\0') {
        return Err(RegexError::Malformed("no text has U+0000"));
    }
    let mut reader = Reader { rest: text.chars().collect(), at: 0, depth: 0, insensitive };
    let node = reader.branches()?;
    match reader.next() {
        None => Ok(node),
        Some(_) => Err(RegexError::Malformed("there is a ) without its (; for the letter, write \\)")),
    }
}

struct Reader {
    rest: Vec<char>,
    at: usize,
    depth: usize,
    insensitive: bool,
}

impl Reader {
    fn peek(&self) -> Option<char> {
        self.rest.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let letter = self.peek()?;
        self.at += 1;
        Some(letter)
    }

    fn take(&mut self, wanted: char) -> bool {
        let is_there = self.peek() == Some(wanted);
        self.at += usize::from(is_there);
        is_there
    }

    /// Up to the end, or to the bracket that closes it.
    fn branches(&mut self) -> Result<Node, RegexError> {
        let mut branches = vec![self.branch()?];
        while self.take('|') {
            branches.push(self.branch()?);
        }
        Ok(Node::One(branches))
    }

    fn branch(&mut self) -> Result<Node, RegexError> {
        let mut parts = Vec::new();
        while self.peek().is_some_and(|letter| letter != '|' && letter != ')') {
            let part = self.part()?;
            parts.push(self.repeated(part)?);
        }
        Ok(Node::All(parts))
    }

    fn part(&mut self) -> Result<Node, RegexError> {
        let set = match self.next() {
            Some('(') => return self.group(),
            Some('^') => return Ok(Node::Start),
            Some('$') => return Ok(Node::End),
            Some('.') => Set::any(),
            Some('[') => self.brackets()?,
            Some('\\') => self.escaped()?,
            Some('*' | '+' | '?' | '{') => {
                return Err(RegexError::Malformed(
                    "a *, +, ? or { stands behind nothing that it could repeat; for the letter, write \\ before it",
                ));
            }
            Some(letter) => Set::of(letter),
            None => return Err(RegexError::Malformed("it breaks off")),
        };
        Ok(Node::Set(Arc::new(if self.insensitive { set.folded() } else { set })))
    }

    fn group(&mut self) -> Result<Node, RegexError> {
        if self.take('?') && !self.take(':') {
            return Err(RegexError::Unsupported("a (? that is not (?: is not here"));
        }
        if self.depth == limits::QUERY_DEPTH_MAX {
            return Err(RegexError::Malformed("it nests too deep"));
        }
        self.depth += 1;
        let inner = self.branches()?;
        self.depth -= 1;
        if self.take(')') { Ok(inner) } else { Err(RegexError::Malformed("there is a ( without its ); for the letter, write \\(")) }
    }

    fn repeated(&mut self, part: Node) -> Result<Node, RegexError> {
        let (least, most) = match self.peek() {
            Some('*') => (0, None),
            Some('+') => (1, None),
            Some('?') => (0, Some(1)),
            Some('{') => {
                self.at += 1;
                self.bounds()?
            }
            _ => return Ok(part),
        };
        // The brace of bounds is still to come, as the sign is.
        self.at += 1;
        if matches!(part, Node::Start | Node::End) {
            return Err(RegexError::Malformed("a place in the text, which ^ and $ are, does not repeat"));
        }
        // Whether it takes few or many first makes no difference to whether it fits.
        self.take('?');
        if matches!(self.peek(), Some('*' | '+' | '?' | '{')) {
            return Err(RegexError::Malformed("two repetitions stand behind each other: put the first one in brackets"));
        }
        Ok(Node::Repeat(Box::new(part), least, most))
    }

    /// `2`, `2,` or `2,5`, in front of its `}`.
    fn bounds(&mut self) -> Result<(u16, Option<u16>), RegexError> {
        let malformed = RegexError::Malformed("a repetition is {2}, {2,} or {2,5}, of at most 255; for the letter {, write \\{");
        let least = self.number().ok_or(malformed.clone())?;
        let most = if self.take(',') {
            if self.peek() == Some('}') { None } else { Some(self.number().ok_or(malformed.clone())?) }
        } else {
            Some(least)
        };
        let is_well = self.peek() == Some('}') && most.is_none_or(|most| most >= least);
        if is_well { Ok((least, most)) } else { Err(malformed) }
    }

    fn number(&mut self) -> Option<u16> {
        let mut digits = String::new();
        while let Some(digit) = self.peek().filter(char::is_ascii_digit) {
            digits.push(digit);
            self.at += 1;
        }
        digits.parse().ok().filter(|number| *number <= 255)
    }

    /// Behind a `\`.
    fn escaped(&mut self) -> Result<Set, RegexError> {
        let set = |negated, ranges: &[(char, char)]| Ok(Set { negated, ranges: ranges.to_vec() });
        const WORD: [(char, char); 4] = [('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')];
        const SPACE: [(char, char); 2] = [('\t', '\r'), (' ', ' ')];
        match self.next() {
            Some('d') => set(false, &[('0', '9')]),
            Some('D') => set(true, &[('0', '9')]),
            Some('w') => set(false, &WORD),
            Some('W') => set(true, &WORD),
            Some('s') => set(false, &SPACE),
            Some('S') => set(true, &SPACE),
            Some('n') => Ok(Set::of('\n')),
            Some('t') => Ok(Set::of('\t')),
            Some('r') => Ok(Set::of('\r')),
            Some(letter) if letter.is_ascii_alphanumeric() => {
                Err(RegexError::Unsupported("of the escapes, \\d \\w \\s \\D \\W \\S \\n \\t \\r are here, and those of signs"))
            }
            Some(letter) => Ok(Set::of(letter)),
            None => Err(RegexError::Malformed("it ends with a lone \\")),
        }
    }

    /// Behind a `[`.
    fn brackets(&mut self) -> Result<Set, RegexError> {
        let open = RegexError::Malformed("there is a [ without its ]; for the letter, write \\[");
        let mut set = Set { negated: self.take('^'), ranges: Vec::new() };
        let mut is_first = true;
        loop {
            let from = match self.next().ok_or(open.clone())? {
                ']' if !is_first => return Ok(set.sorted()),
                '[' if matches!(self.peek(), Some(':' | '.' | '=')) => {
                    return Err(RegexError::Unsupported("[:names:] of letters are not here: write [A-Za-z]"));
                }
                '\\' => match self.escaped()? {
                    Set { negated: false, ranges } => match <[(char, char); 1]>::try_from(ranges) {
                        Ok([(from, to)]) if from == to => from,
                        Ok([range]) => {
                            set.ranges.push(range);
                            is_first = false;
                            continue;
                        }
                        Err(ranges) => {
                            set.ranges.extend(ranges);
                            is_first = false;
                            continue;
                        }
                    },
                    Set { negated: true, .. } => return Err(RegexError::Unsupported("\\D, \\W and \\S are not here within []")),
                },
                letter => letter,
            };
            is_first = false;
            let is_range = self.peek() == Some('-') && self.rest.get(self.at + 1).is_some_and(|letter| *letter != ']');
            let to = if is_range { self.end_of_range(&open)? } else { from };
            if to < from {
                return Err(RegexError::Malformed("a range within [] ends before it begins"));
            }
            set.ranges.push((from, to));
        }
    }

    fn end_of_range(&mut self, open: &RegexError) -> Result<char, RegexError> {
        self.at += 1;
        match self.next().ok_or(open.clone())? {
            '\\' => match self.escaped()?.ranges.as_slice() {
                [(from, to)] if from == to => Ok(*from),
                _ => Err(RegexError::Malformed("a range within [] goes from one letter to another")),
            },
            '[' => Err(RegexError::Malformed("for the letter [ at the end of a range, write \\[")),
            letter => Ok(letter),
        }
    }
}
