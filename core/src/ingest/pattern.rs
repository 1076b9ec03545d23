//! Topics: MQTT filters whose levels can be named.

use std::collections::BTreeMap;

/// A filter that was read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pattern(Vec<Level>);

#[derive(Clone, Debug, PartialEq)]
enum Level {
    Exact(String),
    /// One level; named, if something is to be made of it.
    One(Option<String>),
    /// All that follow.
    Rest(Option<String>),
}

/// What a text may name besides the levels of its topic.
const GIVEN: [&str; 2] = ["topic", "device"];

impl Pattern {
    /// Reads a topic as it stands in a rule; quotes around it may hold blanks.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
        if text.is_empty() {
            return Err("it names no topic before the arrow".to_owned());
        }
        let levels = text.split('/').map(level).collect::<Result<Vec<_>, _>>()?;
        if levels.iter().rev().skip(1).any(|level| matches!(level, Level::Rest(_))) {
            return Err("# and {name...} take all levels that follow: nothing can stand behind them".to_owned());
        }
        Ok(Self(levels))
    }

    /// What to subscribe to.
    pub(super) fn filter(&self) -> String {
        let word = |level: &Level| match level {
            Level::Exact(text) => text.clone(),
            Level::One(_) => "+".to_owned(),
            Level::Rest(_) => "#".to_owned(),
        };
        self.0.iter().map(word).collect::<Vec<_>>().join("/")
    }

    /// What the named levels are in a topic; `None` where it does not fit.
    pub(super) fn captures(&self, topic: &str) -> Option<BTreeMap<String, String>> {
        // A broker's own topics are not meant by wildcards (MQTT 5, section 4.7.2).
        if topic.starts_with('$') && !matches!(self.0.first(), Some(Level::Exact(_))) {
            return None;
        }
        let mut captured = BTreeMap::new();
        let mut rest = Some(topic);
        for level in &self.0 {
            if let Level::Rest(name) = level {
                captured.extend(name.clone().zip(Some(rest.unwrap_or_default().to_owned())));
                return Some(captured);
            }
            let text = rest?;
            let (here, after) = text.split_once('/').map_or((text, None), |(here, after)| (here, Some(after)));
            match level {
                Level::Exact(wanted) if wanted != here => return None,
                Level::One(Some(name)) => drop(captured.insert(name.clone(), here.to_owned())),
                Level::Exact(_) | Level::One(None) | Level::Rest(_) => {}
            }
            rest = after;
        }
        rest.is_none().then_some(captured)
    }

    /// Looks whether the names in a text are there.
    pub(super) fn check(&self, text: &str) -> Result<(), String> {
        let known = |name: &str| {
            let is_level = |level: &Level| matches!(level, Level::One(Some(known)) | Level::Rest(Some(known)) if known == name);
            GIVEN.contains(&name) || self.0.iter().any(is_level)
        };
        let unknown = names(text).find(|name| !known(name));
        unknown.map_or(Ok(()), |name| Err(format!("{{{name}}} is no level of the topic: name one there, or write {{topic}} for all of it")))
    }
}

fn level(text: &str) -> Result<Level, String> {
    let name = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
    let wrong = || format!("\"{text}\" is no level of a topic: write a word, +, {{name}}, or at the end # or {{name...}}");
    Ok(match (text, name) {
        ("+", _) => Level::One(None),
        ("#", _) => Level::Rest(None),
        (_, Some(name)) => {
            let (name, is_rest) = name.strip_suffix("...").map_or((name, false), |name| (name, true));
            if name.is_empty() || !name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_') {
                return Err(wrong());
            }
            if is_rest { Level::Rest(Some(name.to_owned())) } else { Level::One(Some(name.to_owned())) }
        }
        (text, None) if text.contains(['+', '#', '{', '}', '\0']) => return Err(wrong()),
        (text, None) => Level::Exact(text.to_owned()),
    })
}

/// The names between braces.
fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split('{').skip(1).filter_map(|part| part.split_once('}')).map(|(name, _)| name)
}

/// A text with what was captured in the place of its names.
pub(super) fn filled(text: &str, captured: &BTreeMap<String, String>) -> String {
    let mut parts = text.split('{');
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let Some((name, after)) = part.split_once('}') else {
            filled.push('{');
            filled.push_str(part);
            continue;
        };
        filled.push_str(captured.get(name).map_or("", String::as_str));
        filled.push_str(after);
    }
    filled
}
