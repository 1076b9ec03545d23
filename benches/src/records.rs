//! What is written: records of 8 fields and about 200 bytes of JSON, made from a seed.

use serde_json::{Value, json};

use crate::plan::Kind;

/// The collection.
pub(crate) const COLLECTION: &str = "orders";

/// Its fields, as the hub is told, with the type of each in Postgres and as the floor reads it.
pub(crate) const FIELDS: [(&str, &str, &str); 8] = [
    ("title", "text", "text"),
    ("status", "text", "text"),
    ("assignee", "text", "text"),
    ("site", "text", "text"),
    ("priority", "int", "bigint"),
    ("pressure", "float", "double precision"),
    ("due", "timestamp", "timestamptz"),
    ("done", "bool", "boolean"),
];

const TITLES: [&str; 6] =
    ["Check pump", "Replace seal of valve", "Grease bearing of fan", "Calibrate scale", "Inspect tank", "Öl nachfüllen in Getriebe"];
const STATES: [&str; 4] = ["open", "in progress", "waiting for parts", "done"];
const PEOPLE: [&str; 6] = ["ada.lovelace", "grace.hopper", "edsger.d", "barbara.liskov", "margaret.h", "dennis.r"];
const SITES: [&str; 4] = ["plant-1", "plant-4", "depot-north", "harbour"];

/// A source of numbers: the same seed, the same numbers.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// From a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number below `below`; 0 when that is 0.
    pub(crate) fn below(&mut self, below: usize) -> usize {
        // SplitMix64: a counter, well stirred.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        usize::try_from(mixed % (below.max(1) as u64)).unwrap_or(0)
    }

    fn one_of(&mut self, words: &[&'static str]) -> &'static str {
        words.get(self.below(words.len())).copied().unwrap_or_default()
    }
}

/// `collection create` of this collection, for the hub's desk.
pub(crate) fn definition(kind: Kind) -> Value {
    let fields: Vec<String> = FIELDS.iter().map(|(name, kind, _)| format!("{name}:{kind}")).collect();
    json!({ "name": COLLECTION, "kind": kind.name(), "fields": fields, "buckets": [] })
}

/// The id of record `number`.
pub(crate) fn id(number: usize) -> String {
    format!("order-{number:06}")
}

/// Records 0 to `count`.
pub(crate) fn make(seed: u64, count: usize) -> Vec<Value> {
    let mut dice = Dice::new(seed);
    (0..count).map(|number| record(&mut dice, number)).collect()
}

fn record(dice: &mut Dice, number: usize) -> Value {
    let (month, day, hour) = (1 + dice.below(12), 1 + dice.below(28), dice.below(24));
    json!({
        "id": id(number),
        "title": format!("{} {}", dice.one_of(&TITLES), 1_000 + dice.below(9_000)),
        "status": dice.one_of(&STATES),
        "assignee": dice.one_of(&PEOPLE),
        "site": dice.one_of(&SITES),
        "priority": dice.below(10),
        "pressure": dice.below(100_000) as f64 / 100.0,
        "due": format!("2027-{month:02}-{day:02}T{hour:02}:30:00Z"),
        "done": dice.below(2) == 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_as_large_as_promised_and_follow_from_the_seed() {
        let records = make(1, 1_000);
        assert_eq!(records, make(1, 1_000));
        assert_ne!(records, make(2, 1_000));
        let bytes: usize = records.iter().map(|record| record.to_string().len()).sum();
        assert!((180..=220).contains(&(bytes / 1_000)), "{}", bytes / 1_000);
        for record in &records {
            assert_eq!(record.as_object().unwrap().len(), FIELDS.len() + 1);
            assert!(FIELDS.iter().all(|(name, ..)| record.get(name).is_some()));
        }
    }
}
