//! A history in words: who changed what, from which device, and what merges decided; of no more than the caller may see.

use std::collections::BTreeMap;

use mobo_core::cbor::{Reader, Writer};
use mobo_core::document::past::{self as document, Past};
use mobo_core::ids::{DeviceId, Ordinal, RecordId, Seq};
use mobo_core::json::value_to_json;
use mobo_core::record::RecordState;
use mobo_core::rfc3339;
use mobo_core::rights::Granted;
use mobo_core::schema::{Collection, FieldType};
use mobo_core::stamp::Stamp;
use mobo_core::table::TableState;
use mobo_core::table::past::{self as table, Known, Step};
use mobo_core::value::Value;
use serde_json::{Map, Value as Json, json};

use super::{Columns, columns, damaged, is_for, now};
use crate::backend::{Decision, History};
use crate::problem::Problem;

/// Which page of a history.
pub(super) struct Asked {
    /// Changes at most.
    pub(super) limit: usize,
    /// Behind which change, as the page before says.
    pub(super) after: Option<String>,
}

/// A page of a history.
struct Told {
    changes: Vec<Json>,
    known: Known,
    /// Of the last one, where there are older ones.
    next: Option<String>,
}

/// The history as far as this caller may see it; `None` where the record itself is not for this caller.
pub(super) fn tell(
    collection: &Collection,
    id: &RecordId,
    history: &History,
    (granted, asked): (&Granted, &Asked),
) -> Result<Option<Json>, Problem> {
    let now = now(collection, id, history);
    if !is_for(granted, now.as_ref()) {
        return Ok(None);
    }
    let teller = Teller { collection, id, history, granted };
    let told = match &history.state {
        RecordState::Document(state) => teller.document(state, asked)?,
        RecordState::Table(state) => teller.row(state, asked)?,
    };
    // A decision holds values of rows that may not have been for this caller.
    let versions: BTreeMap<_, _> = history.log.writes.iter().map(|write| (entry_of(&write.stamp()), table::name(&write.eid))).collect();
    let decisions = history.decisions.iter().filter(|_| granted.rows.is_all());
    let decisions: Vec<Json> = decisions.filter_map(|decision| teller.decision(decision, &versions)).collect();
    let (since, note) = match told.known {
        Known::Whole => (None, None),
        Known::Since(since) => (Some(rfc3339::format(since.0)), Some("not all that wrote to this row is kept: before since, only what is")),
        Known::Now => (None, Some("this node keeps its own writes, and who wrote what stands: the hub keeps everybody's")),
    };
    Ok(Some(json!({
        "collection": collection.name, "id": id.as_str(), "record": now.as_ref().map(|row| teller.shown(row)),
        "complete": told.known == Known::Whole, "since": since, "note": note,
        "restored": history.log.restored.map(|restored| rfc3339::format(restored.0)),
        "changes": told.changes, "next": told.next, "decisions": decisions,
    })))
}

struct Teller<'h> {
    collection: &'h Collection,
    id: &'h RecordId,
    history: &'h History,
    granted: &'h Granted,
}

/// The row before and after a change.
type Rows = [Option<Columns>; 2];

fn entry_of(stamp: &Stamp) -> (DeviceId, Ordinal, Seq) {
    (stamp.device, stamp.ordinal, stamp.seq)
}

impl Teller<'_> {
    fn document(&self, state: &mobo_core::document::Document, asked: &Asked) -> Result<Told, Problem> {
        // One more than is told says whether there are older ones.
        let page = (asked.after.as_deref(), asked.limit + 1);
        let found = document::changes(self.collection, state, &self.history.changes, page).map_err(damaged)?.ok_or_else(no_place)?;
        let told = found.get(..asked.limit).unwrap_or(&found);
        let next = (found.len() > told.len()).then(|| told.last().map(|past| document::hex(&past.hash))).flatten();
        let change = |past: &Past| {
            let rows = self.rows([&past.before, &past.after]);
            self.is_shown(&rows).then(|| self.change(past.stamp.as_ref(), Some(document::hex(&past.hash)), &rows))
        };
        let changes = told.iter().filter_map(change).collect();
        // A change that was lost with the hub's store, and that no device had, is missing in silence.
        Ok(Told { changes, known: self.history.log.restored.map_or(Known::Whole, Known::Since), next })
    }

    fn row(&self, state: &TableState, asked: &Asked) -> Result<Told, Problem> {
        let after = asked.after.as_deref().map(|cursor| place(cursor).ok_or_else(no_place)).transpose()?;
        let found = table::steps(self.collection, state, &self.history.log, (after, asked.limit));
        let next = found.more.then(|| found.steps.last().map(|step| cursor(&step.stamp))).flatten();
        let changes = found.steps.iter().filter_map(|step| self.step(step)).collect();
        Ok(Told { changes, known: found.known, next })
    }

    fn rows(&self, rows: [&Option<Vec<Value>>; 2]) -> Rows {
        rows.map(|row| row.clone().map(|values| columns(self.collection, self.id, values)))
    }

    fn is_shown(&self, rows: &Rows) -> bool {
        rows.iter().all(|row| row.is_none() || is_for(self.granted, row.as_ref()))
    }

    /// What a write did, or, where the row before it is not known, what it wrote.
    fn step(&self, step: &Step) -> Option<Json> {
        let version = step.eid.as_ref().map(table::name);
        if let Some([before, after]) = &step.rows {
            let rows = self.rows([before, after]);
            return self.is_shown(&rows).then(|| self.change(Some(&step.stamp), version, &rows));
        }
        // Nobody can say whether that row was for this caller.
        if !self.granted.rows.is_all() {
            return None;
        }
        let mut told = self.by(Some(&step.stamp));
        told.insert("version".to_owned(), json!(version));
        told.insert("action".to_owned(), json!(if step.is_delete { "delete" } else { "write" }));
        let mut wrote = Map::new();
        for (id, value) in &step.wrote {
            let Some(field) = self.collection.field_by_id(*id).filter(|field| !field.retired && self.has(&field.name)) else { continue };
            wrote.insert(field.name.clone(), json!({ "to": value_to_json(value, field.kind) }));
        }
        told.insert("changed".to_owned(), Json::Object(wrote));
        Some(Json::Object(told))
    }

    fn has(&self, name: &str) -> bool {
        self.granted.fields.as_ref().is_none_or(|fields| fields.contains(name))
    }

    fn value(&self, row: &Columns, name: &str) -> Json {
        let kind = match self.collection.field(name).map(|field| field.kind) {
            Some(FieldType::Counter) => FieldType::Int,
            Some(kind) => kind,
            None => FieldType::Text,
        };
        row.get(name).map_or(Json::Null, |value| value_to_json(value, kind))
    }

    fn shown(&self, row: &Columns) -> Map<String, Json> {
        let fields = self.collection.live_fields().map(|field| field.name.as_str()).filter(|name| self.has(name));
        ["id"].into_iter().chain(fields).map(|name| (name.to_owned(), self.value(row, name))).collect()
    }

    /// Who, when and from where.
    fn by(&self, stamp: Option<&Stamp>) -> Map<String, Json> {
        let writer = stamp.and_then(|stamp| self.history.writers.get(&entry_of(stamp)));
        Map::from_iter([
            ("at".to_owned(), json!(stamp.map(|stamp| rfc3339::format(stamp.eff.0)))),
            ("device".to_owned(), json!(writer.map(|writer| &writer.device))),
            ("by".to_owned(), json!(writer.and_then(|writer| writer.author.as_ref()))),
        ])
    }

    fn change(&self, stamp: Option<&Stamp>, version: Option<String>, [before, after]: &Rows) -> Json {
        let mut told = self.by(stamp);
        told.insert("version".to_owned(), json!(version));
        let action = match (before, after) {
            (None, Some(_)) => "insert",
            (Some(_), None) => "delete",
            (Some(_), Some(_)) | (None, None) => "update",
        };
        told.insert("action".to_owned(), json!(action));
        let nothing = Columns::new();
        let (old, new) = (before.as_ref().unwrap_or(&nothing), after.as_ref().unwrap_or(&nothing));
        let names = self.collection.live_fields().map(|field| field.name.as_str()).filter(|name| self.has(name));
        let changed = names.filter(|name| old.get(*name).unwrap_or(&Value::Null) != new.get(*name).unwrap_or(&Value::Null));
        let changed: Map<String, Json> =
            changed.map(|name| (name.to_owned(), json!({ "from": self.value(old, name), "to": self.value(new, name) }))).collect();
        told.insert("changed".to_owned(), Json::Object(changed));
        Json::Object(told)
    }

    fn decision(&self, decision: &Decision, versions: &BTreeMap<(DeviceId, Ordinal, Seq), String>) -> Option<Json> {
        if decision.field.as_ref().is_some_and(|field| !self.has(field)) || (decision.field.is_none() && self.granted.fields.is_some()) {
            return None;
        }
        let side = |value: &Json, stamp: &Stamp| {
            let mut side = self.by(Some(stamp));
            side.insert("value".to_owned(), value.clone());
            side.extend(versions.get(&entry_of(stamp)).map(|version| ("version".to_owned(), json!(version))));
            side
        };
        Some(json!({
            "field": decision.field, "kind": decision.kind, "at": rfc3339::format(decision.at.0), "settled": decision.settled,
            "winner": side(&decision.winner, &decision.winner_stamp), "loser": side(&decision.loser, &decision.loser_stamp),
        }))
    }
}

fn no_place() -> Problem {
    Problem::parse("after: this is no place in this history").hint("take after as it is from next, or from the header link")
}

/// The place behind a write, for people who ask for the next page.
fn cursor(stamp: &Stamp) -> String {
    let mut writer = Writer::new();
    stamp.encode(&mut writer);
    writer.into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn place(cursor: &str) -> Option<Stamp> {
    let digit = |at: usize| cursor.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let bytes = (0..cursor.len()).step_by(2).map(digit).collect::<Option<Vec<u8>>>()?;
    let mut reader = Reader::new(&bytes);
    let stamp = Stamp::decode(&mut reader).ok()?;
    reader.end().ok().map(|()| stamp)
}
