//! What messages of plain sensors mean: rules that take a topic and a payload, and give rows of collections.
//!
//! One rule is a line, `TOPIC -> COLLECTION FIELD=SOURCE …`; a `#` at its beginning makes it a remark.
//!
//! | rule | what it takes |
//! |---|---|
//! | `zigbee2mqtt/{sensor} -> climate sensor={sensor} celsius=$.temperature` | one level of the topic, and a member of a JSON object |
//! | `tele/{plug}/SENSOR -> power plug={plug} watts=$.ENERGY.Power at=$.Time` | the time that the message names |
//! | `plant/+/pressure -> pressures bar=$` | a payload that is a bare number |
//! | `zigbee2mqtt/{id} -> sensors id={id} *=$` | every member that the collection has a field for |
//! | `v1/gateway/telemetry -> climate sensor={device} *=$` | what a ThingsBoard gateway sends: each of its devices by name |
//!
//! A topic is an MQTT filter with `+` and `#`, in which `{name}` takes one level and `{name...}`, at the end, all that follow. A source is
//! `$` with a path (`.member`, `["member"]`, `[0]`), or a text in which `{name}` stands for what the topic gave. A stream takes a row as a
//! sample, whose `at` says when; a table or a document takes it as a change of the record that `id` names.
//!
//! On ThingsBoard's topics (`v1/devices/me/…` and `v1/gateway/…`, telemetry and attributes) the payload is taken as that system defines it:
//! each set of values becomes a message of its own, its `ts` is `at` unless the rule says otherwise, and `{device}` is the device's name.

mod arrival;
mod fitting;
mod path;
mod pattern;
mod payload;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use arrival::{Arrival, Delivery, Parts, RefusedMessage, Tally};
use serde_json::{Map, Value as Json};

use crate::ids::RecordId;
use crate::limits;
use crate::schema::{Collection, Kind};
use path::Path;
use pattern::Pattern;
use payload::Reading;

/// What messages mean, as an operator wrote it down.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules(Vec<Rule>);

#[derive(Clone, Debug, PartialEq)]
struct Rule {
    pattern: Pattern,
    collection: String,
    fields: Vec<(String, Source)>,
    /// Where members are that are taken by their names.
    all: Option<Path>,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq)]
enum Source {
    /// The payload.
    Path(Path),
    /// A text with `{name}` for what the topic gave.
    Text(String),
}

/// A line that is no rule.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct RuleError {
    /// Which line; the first is 1.
    pub line: usize,
    /// What is wrong with it, and what would do.
    pub why: String,
}

/// A message that its rule cannot take. It is kept aside with its topic.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct BadMessage(pub String);

/// What a message says of one collection, before the collection's types are looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The collection's name.
    pub collection: String,
    fields: Map<String, Json>,
    /// Members that are taken where the collection has a field of that name.
    others: Map<String, Json>,
}

/// A row that fits its collection.
#[derive(Clone, Debug, PartialEq)]
pub enum Fitted {
    /// A sample of a stream.
    Sample(Map<String, Json>),
    /// Fields of a record.
    Record(RecordId, Map<String, Json>),
}

impl Rules {
    /// Reads rules, one in each line.
    ///
    /// # Errors
    ///
    /// The first line that is none.
    pub fn parse(text: &str) -> Result<Self, RuleError> {
        let mut rules = Vec::new();
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            rules.push(Rule::parse(text).map_err(|why| RuleError { line, why })?);
            if rules.len() > limits::INGEST_RULES_MAX {
                return Err(RuleError { line, why: format!("more than {} rules: put some together", limits::INGEST_RULES_MAX) });
            }
        }
        Ok(Self(rules))
    }

    /// True without any rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rules whose collections are `known`.
    #[must_use]
    pub fn about(&self, known: impl Fn(&str) -> bool) -> Self {
        Self(self.0.iter().filter(|rule| known(&rule.collection)).cloned().collect())
    }

    /// The collections that are written into, each once.
    #[must_use]
    pub fn collections(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.0.iter().map(|rule| rule.collection.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The filters to subscribe to, each once.
    #[must_use]
    pub fn filters(&self) -> Vec<String> {
        let mut filters: Vec<String> = self.0.iter().map(|rule| rule.pattern.filter()).collect();
        filters.sort_unstable();
        filters.dedup();
        filters
    }

    /// What a message means, by every rule that its topic fits; nothing where none does. `user` is who sent it, where that is known.
    ///
    /// # Errors
    ///
    /// [`BadMessage`] when one of these rules cannot take it: then none of it is taken.
    pub fn take(&self, topic: &str, payload: &[u8], user: Option<&str>) -> Result<Vec<Row>, BadMessage> {
        let mut rows = Vec::new();
        for rule in &self.0 {
            let Some(captured) = rule.pattern.captures(topic) else { continue };
            if payload.len() > limits::INGEST_PAYLOAD_BYTES_MAX {
                let (bytes, max) = (payload.len(), limits::INGEST_PAYLOAD_BYTES_MAX);
                return Err(BadMessage(format!("its payload has {bytes} bytes, and at most {max} are taken")));
            }
            for reading in payload::readings(topic, payload, user)? {
                rows.push(rule.row(topic, &captured, reading)?);
                if rows.len() > limits::INGEST_ROWS_MAX {
                    return Err(BadMessage(format!("it holds more than {} rows", limits::INGEST_ROWS_MAX)));
                }
            }
        }
        Ok(rows)
    }
}

impl Rule {
    fn parse(text: &str) -> Result<Self, String> {
        let (topic, rest) =
            text.split_once("->").ok_or("a rule is TOPIC -> COLLECTION FIELD=SOURCE …, as in plant/{unit}/bar -> pressures bar=$")?;
        let mut words = words(rest)?.into_iter();
        let collection = words.next().ok_or("it names no collection behind the arrow")?;
        let mut rule = Self { pattern: Pattern::parse(topic.trim())?, collection, fields: Vec::new(), all: None };
        for word in words {
            let (field, source) = word.split_once('=').ok_or_else(|| format!("\"{word}\" is not FIELD=SOURCE"))?;
            let source = source.strip_prefix('"').and_then(|source| source.strip_suffix('"')).unwrap_or(source);
            let path = source.starts_with('$').then(|| Path::parse(source)).transpose()?;
            match (field, path) {
                ("*", Some(path)) => rule.all = Some(path),
                ("*", None) => return Err("*= takes the members of an object: write *=$ or *=$.values".to_owned()),
                (field, Some(path)) => rule.fields.push((field.to_owned(), Source::Path(path))),
                (field, None) => {
                    rule.pattern.check(source)?;
                    rule.fields.push((field.to_owned(), Source::Text(source.to_owned())));
                }
            }
        }
        if rule.fields.is_empty() && rule.all.is_none() {
            return Err("it takes nothing: write FIELD=SOURCE, or *=$ for every member that the collection has a field for".to_owned());
        }
        Ok(rule)
    }

    fn row(&self, topic: &str, captured: &BTreeMap<String, String>, reading: Reading) -> Result<Row, BadMessage> {
        let mut captured = captured.clone();
        captured.insert("topic".to_owned(), topic.to_owned());
        captured.extend(reading.device.map(|device| ("device".to_owned(), device)));
        let mut row = Row { collection: self.collection.clone(), fields: Map::new(), others: Map::new() };
        let (mut paths, mut found) = (0, 0);
        for (field, source) in &self.fields {
            match source {
                Source::Text(text) => drop(row.fields.insert(field.clone(), Json::String(pattern::filled(text, &captured)))),
                Source::Path(path) => {
                    paths += 1;
                    if let Some(value) = path.find(&reading.payload).filter(|value| !value.is_null()) {
                        found += 1;
                        row.fields.insert(field.clone(), value.clone());
                    }
                }
            }
        }
        if let Some(path) = &self.all {
            paths += 1;
            match path.find(&reading.payload) {
                Some(Json::Object(members)) => {
                    found += 1;
                    row.others = members.clone();
                }
                Some(_) | None => return Err(BadMessage(format!("there is no object with members at {path}"))),
            }
        }
        if paths > 0 && found == 0 {
            let wanted: Vec<String> = self.paths().map(ToString::to_string).collect();
            return Err(BadMessage(format!("it has nothing at {}", wanted.join(", "))));
        }
        if let Some(at) = reading.at {
            row.fields.entry("at").or_insert(at);
        }
        Ok(row)
    }

    fn paths(&self) -> impl Iterator<Item = &Path> {
        self.fields.iter().filter_map(|(_, source)| match source {
            Source::Path(path) => Some(path),
            Source::Text(_) => None,
        })
    }
}

impl Row {
    /// The row as its collection takes it: members without a field are left out, and what sensors write loosely is written strictly, such
    /// as `"21.5"` for a number, `"ON"` for true, and seconds or milliseconds since 1970 for a time.
    ///
    /// # Errors
    ///
    /// [`BadMessage`] where a record is not named, or its name is none.
    pub fn fit(mut self, collection: &Collection) -> Result<Fitted, BadMessage> {
        let is_stream = collection.kind == Kind::Stream;
        for (name, value) in self.others {
            let fits = collection.field(&name).is_some_and(|field| !field.retired);
            if fits && !value.is_null() && !self.fields.contains_key(&name) {
                self.fields.insert(name, value);
            }
        }
        fit_values(&mut self.fields, collection);
        if is_stream {
            return Ok(Fitted::Sample(self.fields));
        }
        // A time that the payload's form brings is no field of a record.
        if collection.field("at").is_none() {
            self.fields.remove("at");
        }
        let id = match self.fields.remove("id") {
            Some(Json::String(id)) => id,
            Some(Json::Number(id)) => id.to_string(),
            Some(Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_)) | None => {
                return Err(BadMessage(format!("it does not name the record of {}: the rule needs id=…", collection.name)));
            }
        };
        let id = RecordId::new(id).map_err(|error| BadMessage(error.to_string()))?;
        Ok(Fitted::Record(id, self.fields))
    }
}

/// Writes values as their fields take them, where they were written loosely: as [`Row::fit`] does, and as the text of a CSV file needs it.
pub fn fit_values(fields: &mut Map<String, Json>, collection: &Collection) {
    let is_stream = collection.kind == Kind::Stream;
    for (name, value) in fields {
        let kind = if is_stream && name == "at" { Some(fitting::AT) } else { collection.field(name).map(|field| field.kind) };
        if let Some(kind) = kind {
            fitting::fit(value, kind);
        }
    }
}

/// How a message that comes again is known.
#[must_use]
pub fn mark(topic: &str, payload: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(topic.len() as u64).to_le_bytes()).update(topic.as_bytes()).update(payload);
    let mut mark = [0; 16];
    hasher.finalize_xof().fill(&mut mark);
    mark
}

/// The words of a rule; blanks between quotes belong to their word.
fn words(text: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for letter in text.chars() {
        if letter == '"' {
            quoted = !quoted;
        }
        if letter.is_whitespace() && !quoted {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
        } else {
            word.push(letter);
        }
    }
    if quoted {
        return Err("a quote is not closed".to_owned());
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    Ok(words)
}
