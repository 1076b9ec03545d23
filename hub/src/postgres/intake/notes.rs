//! What the triggers noted, as edits of somebody's: a transaction is one entry.

use std::collections::{BTreeMap, BTreeSet};

use mobo_core::author::{Edit, Intent};
use mobo_core::ids::{CollectionId, RecordId, RecordKey, Ver};
use mobo_core::json::value_to_json;
use mobo_core::limits;
use mobo_core::merge::SeenEdit;
use mobo_core::schema::{Collection, FieldType, Schema};
use mobo_core::value::Value;
use serde_json::{Map, Value as Json, json};
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::postgres::error::{Failure, known};

/// A statement's work on one record.
pub(super) struct Noted {
    pub(super) n: i64,
    pub(super) txid: i64,
    pub(super) key: RecordKey,
    old: Option<Map<String, Json>>,
    new: Option<Map<String, Json>>,
    /// The row after the statement as Postgres spells it, and what is wrong with that where it cannot be read.
    text: Option<String>,
    wrong: Option<String>,
}

/// What transactions say to have read of records, where it was not what there was.
pub(super) type Said = BTreeMap<(i64, RecordKey), Ver>;

impl Noted {
    /// True if the row was not there before the statement.
    pub(super) fn is_insert(&self) -> bool {
        self.old.is_none()
    }

    /// The row after the statement, as JSON; `None`: it was gone.
    pub(super) fn shown(&self) -> Option<String> {
        self.text.clone()
    }
}

/// Reads `n, txid, collection, id, old, new`.
pub(super) fn note(row: &PgRow) -> Result<Noted, Failure> {
    let mut wrong = None;
    let mut map = |text: Option<&String>| {
        let read = text.map(|text| serde_json::from_str::<Map<String, Json>>(text)).transpose();
        read.unwrap_or_else(|error| {
            wrong = Some(format!("the row holds what cannot be synced: {error}"));
            None
        })
    };
    let (before, text): (Option<String>, Option<String>) = (row.try_get(4)?, row.try_get(5)?);
    let (old, new) = (map(before.as_ref()), map(text.as_ref()));
    Ok(Noted { n: row.try_get(0)?, txid: row.try_get(1)?, key: key(row, 2)?, old, new, text, wrong })
}

/// Reads collection and id.
pub(super) fn key(row: &PgRow, first: usize) -> Result<RecordKey, Failure> {
    let collection = known(CollectionId::from_sql(row.try_get(first)?), "collection")?;
    let id = RecordId::new(row.try_get::<String, _>(first + 1)?).map_err(|error| Failure::damaged(error.to_string()))?;
    Ok(RecordKey { collection, id })
}

/// What is to be one entry: a transaction, or a part of one that does not fit; without edits where it cannot be taken in.
#[derive(Default)]
pub(super) struct Work<'n> {
    pub(super) edits: Vec<SeenEdit>,
    pub(super) noted: Vec<&'n Noted>,
    /// Why it cannot be taken in.
    pub(super) wrong: Option<String>,
}

/// The transactions in the order in which they were committed, as far as they met: whoever wrote a row later has its last number later.
pub(super) fn works<'n>(schema: &Schema, noted: &'n [Noted], said: &Said) -> Vec<Work<'n>> {
    let mut transactions: BTreeMap<i64, Vec<&Noted>> = BTreeMap::new();
    for noted in noted {
        transactions.entry(noted.txid).or_default().push(noted);
    }
    let mut transactions: Vec<Vec<&Noted>> = transactions.into_values().collect();
    transactions.sort_unstable_by_key(|noted| noted.last().map(|last| last.n));
    let mut works = Vec::new();
    for transaction in transactions {
        let edits = match edits(schema, &transaction, said) {
            Ok(edits) => edits,
            Err(why) => {
                works.push(Work { edits: Vec::new(), noted: transaction, wrong: Some(why) });
                continue;
            }
        };
        let (mut work, mut bytes) = (Work::default(), 0);
        for (noted, seen) in edits {
            let more = Json::Object(seen.edit.fields.clone()).to_string().len() + 128;
            if !work.edits.is_empty() && (work.edits.len() >= limits::ENTRY_OPS_MAX || bytes + more > limits::ENTRY_PAYLOAD_BYTES_MAX / 2) {
                works.push(std::mem::take(&mut work));
                bytes = 0;
            }
            bytes += more;
            work.edits.push(seen);
            work.noted.push(noted);
        }
        if !work.edits.is_empty() {
            works.push(work);
        }
    }
    works
}

/// The works in rounds, each of which is a merge of its own: where a writer says what it has read of a record, every transaction that wrote the
/// record gives it a version of its own.
pub(super) fn rounds<'w, 'n>(works: &'w [Work<'n>], said: &Said) -> Vec<&'w [Work<'n>]> {
    let told: BTreeSet<&RecordKey> = said.keys().map(|(_, key)| key).collect();
    let (mut rounds, mut from, mut met) = (Vec::new(), 0, BTreeSet::new());
    for (nth, work) in works.iter().enumerate() {
        let keys: BTreeSet<&RecordKey> = work.noted.iter().map(|noted| &noted.key).filter(|key| told.contains(key)).collect();
        if !met.is_disjoint(&keys) {
            rounds.extend(works.get(from..nth));
            (from, met) = (nth, BTreeSet::new());
        }
        met.extend(keys);
    }
    rounds.extend(works.get(from..));
    rounds
}

/// What a transaction did, statement by statement; the error says why it cannot be taken in, nothing of it.
fn edits<'n>(schema: &Schema, transaction: &[&'n Noted], said: &Said) -> Result<Vec<(&'n Noted, SeenEdit)>, String> {
    let mut edits = Vec::new();
    for noted in transaction {
        if let Some(why) = &noted.wrong {
            return Err(why.clone());
        }
        let Some(collection) = schema.get(noted.key.collection) else { continue };
        edits.extend(edit(collection, noted, said)?.map(|seen| (*noted, seen)));
    }
    Ok(edits)
}

/// What a statement did to a record, as somebody would write it; `None` for nothing.
fn edit(collection: &Collection, noted: &Noted, said: &Said) -> Result<Option<SeenEdit>, String> {
    let (intent, mut fields) = match (&noted.old, &noted.new) {
        (None, None) => return Ok(None),
        (Some(_), None) => (Intent::Delete, Map::new()),
        (None, Some(_)) => (Intent::Put, Map::new()),
        (Some(_), Some(_)) => (Intent::Patch, Map::new()),
    };
    if let Some(new) = &noted.new {
        for field in collection.live_fields() {
            let value = new.get(&field.name).unwrap_or(&Json::Null);
            let before = noted.old.as_ref().map(|old| old.get(&field.name).unwrap_or(&Json::Null));
            if before == Some(value) {
                continue;
            }
            let value = shown(field.kind, before, value).ok_or_else(|| format!("field \"{}\" counts too far", field.name))?;
            fields.insert(field.name.clone(), value);
        }
        if intent == Intent::Patch && fields.is_empty() {
            return Ok(None);
        }
    }
    let seen = said.get(&(noted.txid, noted.key.clone())).copied();
    let edit = Edit { id: noted.key.id.clone(), intent, fields };
    Ok(Some(SeenEdit { collection: collection.id, edit, seen }))
}

/// A value as callers of the API write it: bytes in base64; what a counter was raised by, which can be more than a counter takes at once.
fn shown(kind: FieldType, before: Option<&Json>, value: &Json) -> Option<Json> {
    Some(match (kind, value) {
        (FieldType::Bytes, Json::String(hex)) => value_to_json(&Value::Bytes(bytes(hex)), kind),
        (FieldType::Counter, value) => {
            let seen = before.and_then(Json::as_i64).unwrap_or_default();
            json!({ "$inc": value.as_i64().unwrap_or_default().checked_sub(seen)? })
        }
        (_, value) => value.clone(),
    })
}

/// The bytes that `\x00ff` stands for.
fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.strip_prefix("\\x").unwrap_or(hex).as_bytes();
    let digit = |byte: u8| u8::try_from(char::from(byte).to_digit(16).unwrap_or_default()).unwrap_or_default();
    digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, one| byte << 4 | digit(*one))).collect()
}

#[cfg(test)]
mod tests {
    use mobo_core::ids::{FieldId, Lane};
    use mobo_core::schema::{Field, Kind};

    use super::*;

    const ORDERS: CollectionId = CollectionId::new(7).unwrap();

    fn schema() -> Schema {
        let field =
            |id, name: &str, kind| Field { id: FieldId::new(id).unwrap(), name: name.into(), kind, retired: false, references: None };
        let fields = vec![field(1, "title", FieldType::Text), field(2, "hours", FieldType::Counter)];
        let (name, store) = ("orders".to_owned(), "default".to_owned());
        Schema::new(1, [Collection { id: ORDERS, name, kind: Kind::Table, rev: 1, fields, rules: vec![], lane: Lane::State, store }])
    }

    fn noted((n, txid): (i64, i64), old: Option<i64>, new: Option<i64>) -> Noted {
        let row = |hours: i64| Map::from_iter([("title".to_owned(), json!("x")), ("hours".to_owned(), json!(hours))]);
        let key = RecordKey { collection: ORDERS, id: RecordId::new(format!("r{n}")).unwrap() };
        Noted { n, txid, key, old: old.map(row), new: new.map(row), text: None, wrong: None }
    }

    /// What broke: a step that a counter cannot take at once was taken in as a smaller one, without a word.
    #[test]
    fn a_counter_that_counts_too_far_keeps_its_whole_transaction_out() {
        let told = |noted: &[Noted]| -> Vec<Result<Vec<Json>, String>> {
            let works = works(&schema(), noted, &Said::new());
            let hours = |work: &Work<'_>| work.edits.iter().map(|seen| seen.edit.fields["hours"]["$inc"].clone()).collect();
            works.iter().map(|work| work.wrong.clone().map_or_else(|| Ok(hours(work)), Err)).collect()
        };
        let far = || Err("field \"hours\" counts too far".to_owned());
        assert_eq!(told(&[noted((1, 1), Some(2), Some(7)), noted((2, 1), None, Some(i64::MAX))]), [Ok(vec![json!(5), json!(i64::MAX)])]);
        assert_eq!(told(&[noted((1, 1), Some(-1), Some(i64::MAX))]), [far()]);
        let both = [noted((1, 1), Some(2), Some(3)), noted((2, 1), Some(i64::MIN), Some(1)), noted((3, 2), Some(0), Some(i64::MIN))];
        assert_eq!(told(&both), [far(), Ok(vec![json!(i64::MIN)])]);
    }
}
