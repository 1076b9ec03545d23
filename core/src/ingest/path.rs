//! Paths into a payload: `$`, `$.member`, `$["a member"]`, `$.list[0]`.

use std::fmt;

use serde_json::Value as Json;

/// A path that was read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Path(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Member(String),
    Element(usize),
}

impl Path {
    /// Reads a path, which begins with `$`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is no path: write it like $.ENERGY.Power, $[\"a member\"] or $.list[0]");
        let mut rest = text.strip_prefix('$').ok_or_else(wrong)?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let (step, after) = if let Some(after) = rest.strip_prefix('.') {
                let end = after.find(['.', '[']).unwrap_or(after.len());
                let (name, after) = after.split_at(end);
                (Step::Member(name.to_owned()), after)
            } else if let Some(after) = rest.strip_prefix("[\"") {
                let (name, after) = after.split_once("\"]").ok_or_else(wrong)?;
                (Step::Member(name.to_owned()), after)
            } else {
                let (number, after) = rest.strip_prefix('[').and_then(|after| after.split_once(']')).ok_or_else(wrong)?;
                (Step::Element(number.parse().map_err(|_| wrong())?), after)
            };
            if step == Step::Member(String::new()) {
                return Err(wrong());
            }
            steps.push(step);
            rest = after;
        }
        Ok(Self(steps))
    }

    /// What is there.
    pub(super) fn find<'j>(&self, payload: &'j Json) -> Option<&'j Json> {
        self.0.iter().try_fold(payload, |at, step| match step {
            Step::Member(name) => at.get(name),
            Step::Element(number) => at.get(number),
        })
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("$")?;
        self.0.iter().try_for_each(|step| match step {
            Step::Member(name) if name.contains(['.', '[', ' ']) => write!(f, "[\"{name}\"]"),
            Step::Member(name) => write!(f, ".{name}"),
            Step::Element(number) => write!(f, "[{number}]"),
        })
    }
}
