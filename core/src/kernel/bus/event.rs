//! Topics, and events that fit them.

use std::collections::BTreeMap;

use crate::limits;
use crate::time::Wall;

/// How urgent the events of a topic are.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Priority {
    /// The first to be dropped: there is always another one.
    Low,
    /// What most events are.
    Normal,
    /// Overtakes all others, and is dropped after all others.
    High,
}

impl Priority {
    /// The word in JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }
}

/// A topic: a name, what its events hold, and how urgent they are. Part of the outside contract: fields may be added, none changes.
#[derive(Debug, Eq, PartialEq)]
pub struct TopicSpec {
    /// `family.subject`, in lower case.
    pub name: &'static str,
    /// When an event of it is published, as a sentence.
    pub doc: &'static str,
    /// How urgent its events are.
    pub priority: Priority,
    /// What each of its events holds, in this order.
    pub fields: &'static [FieldSpec],
}

/// One field of a topic's events.
#[derive(Debug, Eq, PartialEq)]
pub struct FieldSpec {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: FieldKind,
    /// True when it may be absent.
    pub optional: bool,
}

impl FieldSpec {
    /// A text that is always there.
    #[must_use]
    pub const fn text(name: &'static str) -> Self {
        Self { name, kind: FieldKind::Text, optional: false }
    }

    /// A number that is always there.
    #[must_use]
    pub const fn number(name: &'static str) -> Self {
        Self { name, kind: FieldKind::Number, optional: false }
    }

    /// A yes or no that is always there.
    #[must_use]
    pub const fn flag(name: &'static str) -> Self {
        Self { name, kind: FieldKind::Flag, optional: false }
    }

    /// The same field, which may be absent.
    #[must_use]
    pub const fn or_absent(mut self) -> Self {
        self.optional = true;
        self
    }
}

/// What a field holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FieldKind {
    /// A text of at most [`limits::EVENT_TEXT_BYTES_MAX`]; the rest is cut off.
    Text,
    /// A whole number.
    Number,
    /// Yes or no.
    Flag,
}

/// A value in an event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Datum {
    /// Nothing.
    Absent,
    /// A text.
    Text(String),
    /// A whole number.
    Number(i64),
    /// Yes or no.
    Flag(bool),
}

impl Datum {
    const fn fits(&self, field: &FieldSpec) -> bool {
        match (self, field.kind) {
            (Self::Absent, _) => field.optional,
            (Self::Text(_), FieldKind::Text) | (Self::Number(_), FieldKind::Number) | (Self::Flag(_), FieldKind::Flag) => true,
            (Self::Text(_) | Self::Number(_) | Self::Flag(_), _) => false,
        }
    }
}

impl From<&str> for Datum {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Datum {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Option<String>> for Datum {
    fn from(text: Option<String>) -> Self {
        text.map_or(Self::Absent, Self::Text)
    }
}

impl From<u64> for Datum {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<bool> for Datum {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

/// Something that happened, as its topic has it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Event {
    topic: &'static TopicSpec,
    data: Vec<Datum>,
}

/// Values that a topic does not have.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("an event of {topic} does not fit its schema: {why}")]
pub struct BadEvent {
    /// The topic.
    pub topic: &'static str,
    /// What does not fit.
    pub why: String,
}

impl Event {
    /// An event of a topic, with a value for each of its fields, in their order. Long texts are cut off.
    ///
    /// # Errors
    ///
    /// [`BadEvent`] when a value is of another kind, one is missing, or there are more.
    pub fn new(topic: &'static TopicSpec, data: impl IntoIterator<Item = Datum>) -> Result<Self, BadEvent> {
        let bad = |why| BadEvent { topic: topic.name, why };
        let data: Vec<Datum> = data.into_iter().take(topic.fields.len() + 1).map(short).collect();
        if data.len() != topic.fields.len() {
            return Err(bad(format!("it holds {} values", topic.fields.len())));
        }
        match topic.fields.iter().zip(&data).find(|(field, datum)| !datum.fits(field)) {
            Some((field, datum)) => Err(bad(format!("{} cannot be {datum:?}", field.name))),
            None => Ok(Self { topic, data }),
        }
    }

    /// What it is about.
    #[must_use]
    pub const fn topic(&self) -> &'static TopicSpec {
        self.topic
    }

    /// Its fields with their values, in order.
    pub fn fields(&self) -> impl Iterator<Item = (&'static str, &Datum)> {
        self.topic.fields.iter().map(|field| field.name).zip(&self.data)
    }
}

fn short(datum: Datum) -> Datum {
    match datum {
        Datum::Text(mut text) if text.len() > limits::EVENT_TEXT_BYTES_MAX => {
            text.truncate(text.floor_char_boundary(limits::EVENT_TEXT_BYTES_MAX));
            Datum::Text(text)
        }
        other @ (Datum::Text(_) | Datum::Absent | Datum::Number(_) | Datum::Flag(_)) => other,
    }
}

/// An event as the bus gives it out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stamped {
    /// Counts from 1 with each boot, without gaps: a gap at a subscriber is what was dropped.
    pub n: u64,
    /// When it was published, by the wall clock, whatever that is worth.
    pub at: Wall,
    /// What happened.
    pub event: Event,
}

/// Which topics somebody wants: all, one family as `component.*`, or one by name.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Filter {
    /// All of them.
    #[default]
    All,
    /// Those of one family.
    Family(String),
    /// One.
    Topic(String),
}

impl Filter {
    /// The filter for a text: `*`, `family.*`, `family`, or a whole name.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text {
            "" | "*" => Self::All,
            text => match text.strip_suffix(".*") {
                Some(family) => Self::Family(family.to_owned()),
                None if text.contains('.') => Self::Topic(text.to_owned()),
                None => Self::Family(text.to_owned()),
            },
        }
    }

    /// True for a topic that is wanted.
    #[must_use]
    pub fn takes(&self, topic: &TopicSpec) -> bool {
        match self {
            Self::All => true,
            Self::Family(family) => topic.name.split_once('.').is_some_and(|(first, _)| first == family),
            Self::Topic(name) => topic.name == name,
        }
    }
}

/// The topics that may be published.
#[derive(Clone, Debug, Default)]
pub struct Topics(BTreeMap<&'static str, &'static TopicSpec>);

/// Why a topic cannot be registered.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TopicsError {
    /// Another schema has this name.
    #[error("there is another topic called {0}: give one of them another name")]
    Duplicate(&'static str),
    /// A name that is no `family.subject` of `a-z 0-9 _`, or two fields of one name.
    #[error("the topic {0} is badly made: its name is family.subject in a-z 0-9 _, and its fields have names of their own")]
    Unsound(&'static str),
    /// More topics than [`limits::TOPICS_MAX`].
    #[error("{max} topics are registered, and that is the limit", max = limits::TOPICS_MAX)]
    TooMany,
}

impl Topics {
    /// Registers a topic. The same one again changes nothing.
    ///
    /// # Errors
    ///
    /// [`TopicsError`].
    pub fn register(&mut self, topic: &'static TopicSpec) -> Result<(), TopicsError> {
        match self.0.get(topic.name) {
            Some(known) if *known == topic => return Ok(()),
            Some(_) => return Err(TopicsError::Duplicate(topic.name)),
            None if self.0.len() >= limits::TOPICS_MAX => return Err(TopicsError::TooMany),
            None => {}
        }
        let word = |part: &str| !part.is_empty() && part.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        let named = topic.name.split_once('.').is_some_and(|(family, subject)| word(family) && word(subject));
        let twice = |(at, field): (usize, &FieldSpec)| topic.fields.iter().take(at).any(|other| other.name == field.name);
        if !named || topic.fields.iter().enumerate().any(twice) || topic.fields.iter().any(|field| !word(field.name)) {
            return Err(TopicsError::Unsound(topic.name));
        }
        self.0.insert(topic.name, topic);
        Ok(())
    }

    /// True for a topic that is registered.
    #[must_use]
    pub fn has(&self, topic: &TopicSpec) -> bool {
        self.0.get(topic.name).is_some_and(|known| **known == *topic)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &'static TopicSpec> {
        self.0.values().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static STATE: TopicSpec = TopicSpec {
        name: "component.state",
        doc: "A part changed.",
        priority: Priority::Normal,
        fields: &[FieldSpec::text("component"), FieldSpec::number("life"), FieldSpec::text("detail").or_absent()],
    };
    static OTHER: TopicSpec = TopicSpec { name: "component.state", doc: "", priority: Priority::Low, fields: &[] };
    static UNNAMED: TopicSpec = TopicSpec { name: "Component", doc: "", priority: Priority::Low, fields: &[] };
    static TWICE: TopicSpec =
        TopicSpec { name: "a.b", doc: "", priority: Priority::Low, fields: &[FieldSpec::text("x"), FieldSpec::flag("x")] };

    #[test]
    fn an_event_fits_its_topic_or_is_none() {
        let event = |data: Vec<Datum>| Event::new(&STATE, data).map_err(|error| error.why);
        let good = event(vec!["gate".into(), 3_u64.into(), Datum::Absent]).unwrap();
        assert_eq!(good.fields().map(|(name, _)| name).collect::<Vec<_>>(), ["component", "life", "detail"]);
        for (data, why) in [
            (vec![], "it holds 3 values"),
            (vec!["gate".into(), 3_u64.into(), Datum::Absent, Datum::Absent], "it holds 3 values"),
            (vec![Datum::Absent, 3_u64.into(), Datum::Absent], "component cannot be Absent"),
            (vec!["gate".into(), true.into(), Datum::Absent], "life cannot be Flag(true)"),
        ] {
            assert_eq!(event(data), Err(why.to_owned()));
        }
        let long = Event::new(&STATE, ["ä".repeat(1_000).into(), 1_u64.into(), Datum::Absent]).unwrap();
        let (_, text) = long.fields().next().unwrap();
        assert_eq!(*text, Datum::Text("ä".repeat(limits::EVENT_TEXT_BYTES_MAX / 2)));
    }

    #[test]
    fn topics_are_registered_once_and_well_made() {
        let mut topics = Topics::default();
        assert_eq!(topics.register(&STATE), Ok(()));
        assert_eq!(topics.register(&STATE), Ok(()));
        assert_eq!(topics.register(&OTHER), Err(TopicsError::Duplicate("component.state")));
        assert_eq!(topics.register(&UNNAMED), Err(TopicsError::Unsound("Component")));
        assert_eq!(topics.register(&TWICE), Err(TopicsError::Unsound("a.b")));
        assert!(topics.has(&STATE) && !topics.has(&OTHER) && topics.iter().count() == 1);
    }

    #[test]
    fn filters_take_all_a_family_or_one() {
        for (filter, takes) in [
            ("", true),
            ("*", true),
            ("component.*", true),
            ("component", true),
            ("component.state", true),
            ("sync.*", false),
            ("comp", false),
        ] {
            assert_eq!(Filter::parse(filter).takes(&STATE), takes, "{filter}");
        }
    }
}
