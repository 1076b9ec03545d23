//! The judge's rules: from what was acknowledged and what is there, to what is lost and what is there twice. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::demo::journal::{Change, Entry, Outcome, Written};

/// Sentences that a verdict holds; the counts go on.
const FINDINGS_MAX: usize = 20;

/// Rows of one collection, by id.
pub(super) type Rows = BTreeMap<String, Map<String, Value>>;

/// How often each sample is there, by its fields as text.
pub(super) type Samples = BTreeMap<String, u64>;

/// What one node shows in one way: through its API, or in its database.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    /// `hub, API` and so on.
    pub(super) name: String,
    /// The records of each collection.
    pub(super) records: BTreeMap<String, Rows>,
    /// The samples of each device whose samples must be there.
    pub(super) samples: BTreeMap<String, Samples>,
}

/// A value that the hub's ledger says lost.
#[derive(Clone, Debug)]
pub(super) struct Loser {
    /// The collection.
    pub(super) collection: String,
    /// The record.
    pub(super) id: String,
    /// The field.
    pub(super) field: String,
    /// The value.
    pub(super) value: Value,
}

/// What the rules come to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Count {
    /// Acknowledged, and not there.
    pub(super) lost: u64,
    /// There more often than it was written.
    pub(super) duplicated: u64,
    /// Records that two views show differently, or that nobody wrote.
    pub(super) differing: u64,
    /// The first of them, as sentences.
    pub(super) findings: Vec<String>,
}

impl Count {
    fn lost(&mut self, times: u64, sentence: String) {
        self.lost += times;
        self.find(sentence);
    }

    fn duplicated(&mut self, times: u64, sentence: String) {
        self.duplicated += times;
        self.find(sentence);
    }

    fn differing(&mut self, sentence: String) {
        self.differing += 1;
        self.find(sentence);
    }

    fn find(&mut self, sentence: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(sentence);
        }
    }
}

/// Holds the journal against every view.
pub(super) fn count(journal: &[Entry], views: &[View], ledger: &[Loser]) -> Count {
    let mut count = Count::default();
    let fields = gather(journal);
    records(&mut count, &fields, views);
    for (place, writes) in &fields {
        for view in views {
            // A record that is missing was counted as a whole.
            let Some(row) = view.records.get(place.collection).and_then(|rows| rows.get(place.id)) else { continue };
            let seen = Seen { place, writes, shown: row.get(place.field).unwrap_or(&Value::Null), view: &view.name, ledger };
            // A field is counted once, whichever view misses it first.
            let before = (count.lost, count.duplicated);
            seen.check(&mut count);
            if (count.lost, count.duplicated) != before {
                break;
            }
        }
    }
    samples(&mut count, journal, views);
    count
}

/// The place of a field.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Place<'j> {
    collection: &'j str,
    id: &'j str,
    field: &'j str,
}

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}, {}", self.collection, self.id, self.field)
    }
}

type Writes<'j> = Vec<(&'j Entry, &'j Change)>;

fn gather(journal: &[Entry]) -> BTreeMap<Place<'_>, Writes<'_>> {
    let mut fields: BTreeMap<Place<'_>, Writes<'_>> = BTreeMap::new();
    for entry in journal {
        if let Written::Record { collection, id, fields: changes } = &entry.write {
            for (field, change) in changes {
                fields.entry(Place { collection, id, field }).or_default().push((entry, change));
            }
        }
    }
    fields
}

/// Every acknowledged record is everywhere, nothing else is anywhere, and all views show the same.
fn records(count: &mut Count, fields: &BTreeMap<Place<'_>, Writes<'_>>, views: &[View]) {
    let mut known: BTreeMap<(&str, &str), bool> = BTreeMap::new();
    for (place, writes) in fields {
        let acknowledged = writes.iter().any(|(entry, _)| entry.outcome == Outcome::Acknowledged);
        *known.entry((place.collection, place.id)).or_default() |= acknowledged;
    }
    for ((collection, id), acknowledged) in &known {
        let shown: Vec<_> = views.iter().map(|view| (view.records.get(*collection).and_then(|rows| rows.get(*id)), &view.name)).collect();
        if let (true, Some((_, name))) = (*acknowledged, shown.iter().find(|(row, _)| row.is_none())) {
            count.lost(1, format!("{collection} {id} was acknowledged and is not there ({name})"));
            continue;
        }
        if let Some((other, name)) = shown.iter().find(|(row, _)| Some(row) != shown.first().map(|(row, _)| row)) {
            let (first, first_name) = shown.first().map(|(row, name)| (*row, name.as_str())).unwrap_or_default();
            count.differing(format!("{collection} {id} differs: {} ({first_name}), {} ({name})", text(first), text(*other)));
        }
    }
    let strangers: BTreeSet<(&String, &String)> = views
        .iter()
        .flat_map(|view| &view.records)
        .flat_map(|(collection, rows)| rows.keys().map(move |id| (collection, id)))
        .filter(|(collection, id)| !known.contains_key(&(collection.as_str(), id.as_str())))
        .collect();
    for (collection, id) in strangers {
        count.differing(format!("{collection} {id} is there, and nobody wrote it"));
    }
}

fn text(row: Option<&Map<String, Value>>) -> String {
    row.map_or_else(|| "nothing".to_owned(), |row| Value::Object(row.clone()).to_string())
}

/// The writes to one field, and what one view shows of it.
struct Seen<'a> {
    place: &'a Place<'a>,
    writes: &'a Writes<'a>,
    shown: &'a Value,
    view: &'a str,
    ledger: &'a [Loser],
}

impl Seen<'_> {
    fn check(&self, count: &mut Count) {
        let Self { place, shown, view, .. } = self;
        let (mut sure_sum, mut unsure_sum, mut adds) = (0_i64, 0_i64, false);
        for (entry, change) in self.writes {
            let sure = entry.outcome == Outcome::Acknowledged;
            match change {
                Change::Add(number) => {
                    adds = true;
                    *(if sure { &mut sure_sum } else { &mut unsure_sum }) += number;
                }
                Change::Set(value) if sure && !self.took_effect(value) && !self.overwritten(entry) => {
                    let who = &entry.origin;
                    count.lost(1, format!("{place}: {value} of {who} was acknowledged; {shown} is there, and no ledger says why ({view})"));
                }
                Change::Set(_) => {}
                Change::Insert(token) => {
                    let there = shown.as_str().map_or(0, |text| text.matches(token.as_str()).count());
                    self.once(count, (token, sure), there);
                }
                Change::Push(item) => {
                    let there = shown.as_array().map_or(0, |items| items.iter().filter(|given| *given == item).count());
                    self.once(count, (item, sure), there);
                }
            }
        }
        if adds {
            self.sum(count, (sure_sum, unsure_sum));
        }
    }

    /// Whether a value is what is there, or is on the ledger as what a decision took away.
    fn took_effect(&self, value: &Value) -> bool {
        let Place { collection, id, field } = self.place;
        let lost = |loser: &Loser| loser.collection == *collection && loser.id == *id && loser.field == *field && loser.value == *value;
        value == self.shown || self.ledger.iter().any(lost)
    }

    /// Whether a later write took this one's place: of a later round, or later by the same node. Writes of one round on two nodes did not
    /// know of each other, so that the ledger must have the one that lost.
    fn overwritten(&self, earlier: &Entry) -> bool {
        self.writes.iter().any(|(later, change)| {
            let follows = later.round > earlier.round || (later.origin == earlier.origin && later.sent_us >= earlier.known_us);
            let Change::Set(value) = change else { return false };
            follows && (later.outcome == Outcome::Acknowledged || self.took_effect(value))
        })
    }

    /// What was acknowledged is there once; what is not known is there once at most.
    fn once(&self, count: &mut Count, (what, sure): (&str, bool), there: usize) {
        let Self { place, view, .. } = self;
        match there {
            0 if sure => count.lost(1, format!("{place}: \"{what}\" was acknowledged and is not there ({view})")),
            0 | 1 => {}
            _ => count.duplicated(1, format!("{place}: \"{what}\" is there {there} times ({view})")),
        }
    }

    /// A counter is what was acknowledged; what is not known may be in it. All increments are above zero.
    fn sum(&self, count: &mut Count, (sure, unsure): (i64, i64)) {
        let Self { place, view, shown, .. } = self;
        let there = shown.as_i64().unwrap_or(0);
        let sentence = || format!("{place}: {sure} was added and acknowledged, {unsure} is unknown, {shown} is there ({view})");
        if there < sure {
            count.lost(1, sentence());
        } else if there > sure + unsure {
            count.duplicated(1, sentence());
        }
    }
}

/// Each acknowledged sample is there as often as it was taken, and none that nobody took.
fn samples(count: &mut Count, journal: &[Entry], views: &[View]) {
    let mut taken: BTreeMap<(&str, String), (u64, u64)> = BTreeMap::new();
    for entry in journal {
        if let Written::Sample(fields) = &entry.write {
            let (sure, unsure) = taken.entry((&entry.origin, sample(fields))).or_default();
            *(if entry.outcome == Outcome::Acknowledged { sure } else { unsure }) += 1;
        }
    }
    for ((origin, sample), (sure, unsure)) in &taken {
        for (view, there) in views.iter().filter_map(|view| Some((view, view.samples.get(*origin)?))) {
            let times = there.get(sample).copied().unwrap_or(0);
            let sentence =
                || format!("a sample of {origin} was acknowledged {sure} times and is there {times} times: {sample} ({})", view.name);
            if times < *sure {
                count.lost(sure - times, sentence());
                break;
            } else if times > sure + unsure {
                count.duplicated(times - sure - unsure, sentence());
                break;
            }
        }
    }
    for view in views {
        for (origin, there) in &view.samples {
            for sample in there.keys().filter(|sample| !taken.contains_key(&(origin.as_str(), (*sample).clone()))) {
                count.differing(format!("a sample of {origin} that nobody took is there: {sample} ({})", view.name));
            }
        }
    }
}

/// A sample as text: the same for the same fields and values.
pub(super) fn sample(fields: &Map<String, Value>) -> String {
    let sorted: BTreeMap<&String, Value> = fields.iter().map(|(name, value)| (name, plain(value.clone()))).collect();
    serde_json::to_string(&sorted).unwrap_or_default()
}

/// A value in one spelling: databases and JSON write `3` and `3.0` for the same number.
pub(super) fn plain(value: Value) -> Value {
    match value {
        Value::Number(number) => {
            let whole = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 9.0e15);
            #[expect(clippy::cast_possible_truncation, reason = "a whole number of at most 53 bits")]
            whole.map_or(Value::Number(number), |float| Value::from(float as i64))
        }
        Value::Array(items) => Value::Array(items.into_iter().map(plain).collect()),
        Value::Object(fields) => Value::Object(fields.into_iter().map(|(name, value)| (name, plain(value))).collect()),
        other @ (Value::Null | Value::Bool(_) | Value::String(_)) => other,
    }
}

#[cfg(test)]
mod tests;
