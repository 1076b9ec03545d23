//! What must be true in the end: every write with what it did, and what its author was told of it.
//!
//! A write is one entry: it does something to a record that everybody writes, and makes a record of its own, its witness, which nobody else
//! touches. So the witness tells whether the entry was merged, and its counter how often.

use std::collections::{BTreeMap, BTreeSet};

use mobo_adapters::sqlite::edge::Sealed;
use mobo_core::author::{Edit, Intent};
use mobo_core::ids::{CollectionId, FieldId, RecordId, RecordKey};
use mobo_core::schema::{Collection, Field, FieldType, Kind};
use serde_json::{Map, Value as Json, json};

use crate::seed::Rng;

/// The collections of the simulated world.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum What {
    /// A table in bucket `all`.
    Things,
    /// A document in bucket `all`.
    Notes,
    /// A stream.
    Samples,
    /// A table in a bucket for each site.
    Jobs,
    /// A table whose records move from one bucket to another, where a world has it.
    Carts,
}

impl What {
    pub(super) const ALL: [Self; 5] = [Self::Things, Self::Notes, Self::Samples, Self::Jobs, Self::Carts];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Things => "things",
            Self::Notes => "notes",
            Self::Samples => "samples",
            Self::Jobs => "jobs",
            Self::Carts => "carts",
        }
    }

    pub(super) fn collection(self) -> Collection {
        let base = 100 * (self as u64 + 1);
        let field = |nth: u64, name: &str, kind| {
            let id = FieldId::new(base + nth).expect("not zero");
            Field { id, name: name.to_owned(), kind, retired: false, references: None }
        };
        let (kind, fields, rules, lane) = match self {
            Self::Things => (Kind::Table, vec![field(1, "a", FieldType::Text), field(2, "n", FieldType::Counter)], vec![], 0),
            Self::Notes => (Kind::Document, vec![field(1, "a", FieldType::Int), field(2, "n", FieldType::Counter)], vec![], 0),
            Self::Samples => (Kind::Stream, vec![field(1, "v", FieldType::Int)], vec![], 2),
            Self::Jobs | Self::Carts => {
                let fields = vec![field(1, "a", FieldType::Text), field(2, "n", FieldType::Counter), field(3, "site", FieldType::Text)];
                let place = if self == Self::Jobs { "site" } else { "yard" };
                (Kind::Table, fields, vec![format!("{place}:{{site}}")], 0)
            }
        };
        let lane = mobo_core::ids::Lane::from_number(lane).expect("a lane");
        let id = CollectionId::new(base).expect("not zero");
        Collection { id, name: self.name().to_owned(), kind, rev: 1, fields, rules, lane, store: "default".to_owned() }
    }

    pub(super) fn key(self, id: &str) -> RecordKey {
        RecordKey { collection: self.collection().id, id: RecordId::new(id.to_owned()).expect("a record id") }
    }
}

/// What an author sees of the record before it writes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct View {
    pub(super) visible: bool,
    pub(super) counter: i64,
}

/// A write.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub(super) id: u64,
    pub(super) history: usize,
    pub(super) what: What,
    pub(super) hot: String,
    /// What it adds to the counter of the hot record.
    pub(super) delta: i64,
    /// What it makes of the text of the hot record, where it touches it.
    pub(super) text: Option<Json>,
    /// Whether it makes or deletes the hot record, where it does.
    pub(super) visible: Option<bool>,
    /// Nobody was told that it is kept, or the device was put back since.
    pub(super) doubt: bool,
    pub(super) sealed: Option<Sealed>,
    /// When a write of the hub was made, by the hub's time; a device hears that later.
    pub(super) eff: Option<i64>,
    /// Its author may not write there: the hub refuses it.
    pub(super) forbidden: bool,
    /// Its author may lose the right to it, or its record may be elsewhere by then: the hub may refuse it, and says so.
    pub(super) refusable: bool,
    /// A restored hub may have lost it, or parts of it: its records are each as whoever holds them has them (rule R22).
    pub(super) vague: bool,
    /// Writes and syncs of its disk when its author was told that it is kept.
    pub(super) kept_at: u64,
}

impl Write {
    /// A write that touches no hot record and of which nothing is known yet.
    fn new(id: u64, history: usize, what: What) -> Self {
        Self {
            id,
            history,
            what,
            hot: String::new(),
            delta: 0,
            text: None,
            visible: None,
            doubt: false,
            sealed: None,
            eff: None,
            forbidden: false,
            refusable: false,
            vague: false,
            kept_at: 0,
        }
    }

    /// A record that it has made.
    pub(super) fn key(&self) -> Option<RecordKey> {
        (!self.doubt && !self.forbidden).then(|| self.witness())
    }

    pub(super) fn witness(&self) -> RecordKey {
        self.what.key(&format!("w{}", self.id))
    }
}

/// A write to be done.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) write: Write,
    pub(super) edits: Vec<Edit>,
}

/// All writes.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) writes: Vec<Write>,
    pub(super) histories: usize,
    next: u64,
}

fn edit(id: &str, intent: Intent, fields: Json) -> Edit {
    let fields = match fields {
        Json::Object(fields) => fields,
        _ => Map::new(),
    };
    Edit { id: RecordId::new(id.to_owned()).expect("a record id"), intent, fields }
}

impl Model {
    pub(super) fn history(&mut self) -> usize {
        self.histories += 1;
        self.histories
    }

    /// Draws a write; `view` says what its author sees of a hot record.
    pub(super) fn draft(
        &mut self,
        rng: &mut Rng,
        (what, hot, site): (What, String, &str),
        history: usize,
        view: impl FnOnce(&RecordKey) -> View,
    ) -> Draft {
        self.next += 1;
        let id = self.next;
        let mut write = Write { hot, ..Write::new(id, history, what) };
        let text = if what == What::Notes { json!(id) } else { json!(format!("w{id}")) };
        let mut witness = json!({ "a": text, "n": { "$inc": 1 } });
        let view = view(&what.key(&write.hot));
        let mut hot = match rng.below(if what == What::Notes { 7 } else { 10 }) {
            0..=3 => {
                write.delta = 1 + rng.below(5).cast_signed();
                (Intent::Merge, json!({ "n": { "$inc": write.delta } }))
            }
            4..=6 => {
                write.text = Some(text.clone());
                (Intent::Merge, json!({ "a": text }))
            }
            7 | 8 => {
                write.text = Some(text.clone());
                (Intent::Put, json!({ "a": text }))
            }
            _ => (Intent::Delete, json!({})),
        };
        match hot.0 {
            Intent::Delete if view.visible => {
                (write.delta, write.text, write.visible) = (-view.counter, Some(Json::Null), Some(false));
            }
            Intent::Delete => {}
            _ => {
                if hot.0 == Intent::Put || !view.visible {
                    write.visible = Some(true);
                    write.text.get_or_insert(Json::Null);
                }
            }
        }
        if what == What::Jobs {
            for fields in [&mut witness, &mut hot.1] {
                if let Json::Object(fields) = fields {
                    fields.insert("site".to_owned(), json!(site));
                }
            }
        }
        let edits = vec![edit(&write.hot, hot.0, hot.1), edit(&format!("w{id}"), Intent::Put, witness)];
        Draft { write, edits }
    }

    /// A write to that record of which nothing else is known yet.
    pub(super) fn write(&mut self, history: usize, what: What, hot: String) -> Write {
        self.next += 1;
        Write { hot, ..Write::new(self.next, history, what) }
    }

    /// A write into a bucket of another site.
    pub(super) fn trespass(&mut self, history: usize, site: &str) -> Draft {
        self.next += 1;
        let (id, what) = (self.next, What::Jobs);
        let write = Write { forbidden: true, ..Write::new(id, history, what) };
        let other = if site == "a" { "b" } else { "a" };
        let edits = vec![edit(&format!("w{id}"), Intent::Put, json!({ "a": "not mine", "n": { "$inc": 1 }, "site": other }))];
        Draft { write, edits }
    }

    /// Draws samples: each value is its own witness.
    pub(super) fn sample(&mut self, history: usize) -> Write {
        self.next += 1;
        let what = What::Samples;
        Write::new(self.next, history, what)
    }

    /// The writes of these histories from `first` on are not sure any more.
    pub(super) fn doubt(&mut self, history: usize, first: usize) {
        for write in self.writes.iter_mut().skip(first).filter(|write| write.history == history) {
            write.doubt = true;
        }
    }

    /// For each hot record: its counter, the texts that it may have, and whether it may be visible (or not), if these writes were merged.
    pub(super) fn expect(&self, merged: &BTreeSet<u64>) -> BTreeMap<(What, String), Expected> {
        let mut expected: BTreeMap<(What, String), Expected> = BTreeMap::new();
        let is_in = |write: &&Write| (write.vague || merged.contains(&write.id)) && write.what != What::Samples && !write.forbidden;
        for write in self.writes.iter().filter(is_in) {
            let record = expected.entry((write.what, write.hot.clone())).or_default();
            record.vague |= write.vague;
            record.counter = record.counter.saturating_add(write.delta);
            // A write of the same log comes after the one before it, whatever the clocks say; if it is there at all.
            let history = if write.vague { HUB } else { write.history };
            if let Some(text) = &write.text {
                record.texts.retain(|(other, _)| *other != history || *other == HUB);
                record.texts.push((history, text.clone()));
            }
            if let Some(visible) = write.visible {
                record.visible.retain(|(other, _)| *other != history || *other == HUB);
                record.visible.push((history, visible));
            }
        }
        expected
    }
}

/// The history of the hub's own writes, whose order among themselves is not known to who sends them.
pub(super) const HUB: usize = 0;

/// What a hot record may be.
#[derive(Clone, Debug, Default)]
pub(super) struct Expected {
    /// True if it holds what a restored hub may have lost.
    pub(super) vague: bool,
    pub(super) counter: i64,
    pub(super) texts: Vec<(usize, Json)>,
    pub(super) visible: Vec<(usize, bool)>,
}
