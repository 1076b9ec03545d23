//! Messages on their way into a store, on either node: how one is known again, and what a batch of them says of each collection.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::{BadMessage, Fitted, Row};
use crate::author::{Edit, Intent, segment};
use crate::ids::CollectionId;
use crate::limits;
use crate::schema::{Kind, Schema};
use crate::time::Wall;

/// A message, and what its rules made of it.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: Vec<u8>,
    /// How it is known again, if the broker wants an acknowledgement; `None` for QoS 0.
    pub delivery: Option<Delivery>,
    /// True for what the broker has kept: it sends that again at every subscription, however old.
    pub is_retained: bool,
    /// Its rows, or why there are none.
    pub rows: Result<Vec<Row>, BadMessage>,
}

/// How a message is known again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Delivery {
    /// Its packet id.
    pub packet: u16,
    /// True where the broker says that it may have come before.
    pub is_repeat: bool,
}

/// What became of a batch; all of it is durable.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// Rows that were written.
    pub rows: u64,
    /// Messages that were kept aside.
    pub refused: u64,
    /// Messages that had been taken before.
    pub repeats: u64,
    /// The last number in the memory of deliveries: what the store is told to forget, once the broker knows.
    pub remembered: u64,
}

/// A message that was kept aside.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RefusedMessage {
    /// Its number.
    pub n: u64,
    /// Its topic.
    pub topic: String,
    /// Its payload, cut to [`limits::INGEST_KEPT_BYTES_MAX`].
    pub payload: Vec<u8>,
    /// Bytes of the whole payload.
    pub bytes: u64,
    /// Why it was not taken.
    pub why: String,
    /// When, by the node's clock, in µs.
    pub at_us: i64,
}

impl RefusedMessage {
    /// What is kept of a payload.
    #[must_use]
    pub fn kept(payload: &[u8]) -> &[u8] {
        payload.get(..limits::INGEST_KEPT_BYTES_MAX).unwrap_or(payload)
    }

    /// What a list says of it; its number begins with `m`.
    #[must_use]
    pub fn line(&self) -> Json {
        serde_json::json!({
            "n": format!("m{}", self.n), "code": "message", "detail": self.why, "topic": self.topic,
            "at": crate::rfc3339::format(self.at_us),
        })
    }

    /// All that is known of it.
    #[must_use]
    pub fn show(&self) -> Json {
        let mut shown = self.line();
        if let Json::Object(shown) = &mut shown {
            shown.insert("payload".to_owned(), Json::from(String::from_utf8_lossy(&self.payload)));
            shown.insert("bytes".to_owned(), Json::from(self.bytes));
        }
        shown
    }

    /// What the rules make of it now.
    ///
    /// # Errors
    ///
    /// Why nothing can be made of it.
    pub fn rows(&self, rules: &super::Rules) -> Result<Vec<Row>, BadMessage> {
        let kept = self.payload.len();
        if self.bytes != kept as u64 {
            return Err(BadMessage(format!("of its {} bytes only {kept} were kept", self.bytes)));
        }
        let rows = rules.take(&self.topic, &self.payload, None)?;
        if rows.is_empty() {
            return Err(BadMessage(format!("no rule takes the topic {}", self.topic)));
        }
        Ok(rows)
    }
}

impl Arrival {
    /// By what it says of records, so that other rules make it news; `None` where it says nothing of any.
    #[must_use]
    pub fn said(&self, rows: &[Row], schema: &Schema) -> Option<[u8; 16]> {
        let is_record = |row: &&Row| schema.by_name(&row.collection).is_some_and(|collection| collection.kind != Kind::Stream);
        let records: Vec<&Row> = rows.iter().filter(is_record).collect();
        (!records.is_empty()).then(|| super::mark(&self.topic, format!("{records:?}").as_bytes()))
    }
}

/// What messages say, by collection, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parts {
    /// Samples of streams.
    pub samples: BTreeMap<CollectionId, Vec<Map<String, Json>>>,
    /// Changes of records.
    pub edits: BTreeMap<CollectionId, Vec<Edit>>,
}

impl Parts {
    /// The rows of one message, each looked at by itself.
    ///
    /// # Errors
    ///
    /// [`BadMessage`] for the first one that does not fit its collection.
    pub fn of(rows: Vec<Row>, schema: &Schema, now: Wall) -> Result<Self, BadMessage> {
        let mut parts = Self::default();
        for row in rows {
            let collection = schema.by_name(&row.collection);
            let collection = collection.ok_or_else(|| BadMessage(format!("there is no collection \"{}\" here", row.collection)))?;
            match row.fit(collection)? {
                Fitted::Sample(sample) => {
                    segment(vec![sample.clone()], collection, now).map_err(|error| BadMessage(error.to_string()))?;
                    parts.samples.entry(collection.id).or_default().push(sample);
                }
                Fitted::Record(id, fields) => {
                    parts.edits.entry(collection.id).or_default().push(Edit { id, intent: Intent::Merge, fields });
                }
            }
        }
        Ok(parts)
    }

    /// Puts what other messages say behind this.
    pub fn add(&mut self, other: Self) {
        other.samples.into_iter().for_each(|(id, rows)| self.samples.entry(id).or_default().extend(rows));
        other.edits.into_iter().for_each(|(id, edits)| self.edits.entry(id).or_default().extend(edits));
    }

    /// How many rows that are.
    #[must_use]
    pub fn rows(&self) -> u64 {
        let samples: usize = self.samples.values().map(Vec::len).sum();
        let edits: usize = self.edits.values().map(Vec::len).sum();
        (samples + edits) as u64
    }
}
