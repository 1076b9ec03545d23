//! What people ask about merges: which decisions were taken, what was refused, who wrote what.

use std::collections::BTreeMap;

use mobo_core::document::{ChangeId, conflict, hands};
use mobo_core::ids::{DeviceId, FieldId, RecordId, RecordKey};
use mobo_core::limits;
use mobo_core::message::Code;
use mobo_core::record::RecordState;
use mobo_core::schema::{Field, FieldType};
use mobo_core::stamp::{Origin, Stamp};
use mobo_core::store::{ConflictPlace, ConflictRow, QuarantineRow, RecordRow, StoreError};
use mobo_core::time::Eff;
use serde_json::{Map, Value, json};

use super::{Desk, no_collection, text};
use crate::admin::{AdminError, show_time};
use crate::ingest::refused;

impl Desk {
    /// A page of the open conflicts, and where the next one begins.
    pub(super) async fn conflicts(&self, args: &Value) -> Result<Value, AdminError> {
        let (opened, schema) = (self.0.opened()?, self.0.schema()?);
        let after = after(args, |text| text.parse::<ConflictPlace>().ok())?;
        let limit = rows_of_page(args);
        let rows = opened.store.conflicts(opened.project, after, limit + 1).await?;
        let is_rival = |stamp: &Stamp| conflict::rival(stamp).is_some();
        let unknown = rows.iter().any(|row| is_rival(&row.loser_stamp) || is_rival(&row.winner_stamp));
        let logs = if unknown { opened.store.logs(opened.project).await? } else { Vec::new() };
        let device = |stamp: &Stamp| author(stamp, &logs).map(|device| device.to_string());
        let show = |row: &ConflictRow| {
            let collection = schema.get(row.collection);
            let field = collection.and_then(|collection| collection.fields.iter().find(|field| field.id.get() == row.field));
            json!({
                "collection": collection.map(|collection| &collection.name), "id": row.id, "field": field.map(|field| &field.name),
                "kind": conflict_kind(row.kind), "winner": row.winner, "loser": row.loser,
                "winner_device": device(&row.winner_stamp), "loser_device": device(&row.loser_stamp), "at": show_time(row.at),
            })
        };
        Ok(page(&rows, limit, |row| (show(row), row.place().to_string())))
    }

    /// A page of the open quarantine, likewise: of entries, and behind them of messages of sensors.
    pub(super) async fn quarantine(&self, args: &Value) -> Result<Value, AdminError> {
        if let Some(n) = args.get("after").and_then(Value::as_str).and_then(message_number) {
            return self.messages(Some(n), rows_of_page(args)).await;
        }
        let (opened, schema) = (self.0.opened()?, self.0.schema()?);
        let after = after(args, |text| text.parse::<u64>().ok())?;
        let limit = rows_of_page(args);
        let rows = opened.store.quarantine(opened.project, after, limit + 1).await?;
        let show = |row: &QuarantineRow| {
            let collection = row.record.as_ref().and_then(|(collection, _)| schema.get(*collection)).map(|found| found.name.clone());
            json!({
                "n": row.n, "device": row.lane.device.to_string(), "lane": row.lane.lane.number(), "seq": row.seq.get(),
                "code": Code(row.code).name(), "detail": row.detail, "collection": collection,
                "id": row.record.as_ref().map(|(_, id)| id), "at": show_time(row.at),
            })
        };
        let mut entries = page(&rows, limit, |row| (show(row), row.n.to_string()));
        let left = limit.saturating_sub(u32::try_from(rows.len()).unwrap_or(u32::MAX));
        if left == 0 && entries.get("next").is_some_and(Value::is_null) {
            // The messages begin on a page of their own.
            let first = refused::list(&*self.0.inbox()?.desk, None, 1).await?;
            if let (Some(newest), Some(next)) = (first.first(), entries.get_mut("next")) {
                *next = json!(format!("m{}", newest.n.saturating_add(1)));
            }
        }
        if left > 0 && entries.get("next").is_some_and(Value::is_null) {
            let messages = self.messages(None, left).await?;
            if let (Some(Value::Array(shown)), Some(Value::Array(more))) = (entries.get_mut("items"), messages.get("items")) {
                shown.extend(more.iter().cloned());
            }
            if let (Some(next), Some(more)) = (entries.get_mut("next"), messages.get("next")) {
                *next = more.clone();
            }
        }
        Ok(entries)
    }

    async fn messages(&self, after: Option<u64>, limit: u32) -> Result<Value, AdminError> {
        let rows = refused::list(&*self.0.inbox()?.desk, after, limit + 1).await?;
        Ok(page(&rows, limit, |row| (row.line(), format!("m{}", row.n))))
    }

    /// Who wrote what in one record.
    pub(super) async fn record(&self, collection: &str, id: &str) -> Result<Value, AdminError> {
        let (opened, schema) = (self.0.opened()?, self.0.schema()?);
        let collection = schema.by_name(collection).ok_or_else(|| no_collection(&schema, collection))?;
        let missing = || AdminError::NoSuch { what: "record", name: id.to_owned(), near: None };
        let key = RecordKey { collection: collection.id, id: RecordId::new(id).map_err(|_| missing())? };
        let row = opened.store.record(opened.project, key).await?.ok_or_else(missing)?;
        let devices = opened.store.devices(opened.project).await?;
        let name = |device: DeviceId| {
            if device == self.0.keys.device() {
                return "hub".to_owned();
            }
            devices.iter().find(|row| row.id == device).map_or_else(|| device.to_string(), |row| row.name.clone())
        };
        let found = match &row.state {
            RecordState::Table(_) => Vec::new(),
            RecordState::Document(document) => {
                hands::of(collection, document).map_err(|refusal| StoreError::Damaged(refusal.to_string()))?
            }
        };
        let unknown = found.iter().any(|hand| !row.changes.contains_key(&hand.change));
        let logs = if unknown { opened.store.logs(opened.project).await? } else { Vec::new() };
        let written = written(&found, |change| whose(change, &row, &logs), name);
        let columns = row.state.project(collection);
        let mut fields = Map::new();
        for (index, field) in collection.fields.iter().enumerate() {
            let value = columns.as_ref().and_then(|columns| columns.get(index));
            let kind = if field.kind == FieldType::Counter { FieldType::Int } else { field.kind };
            let mut shown = Map::new();
            shown.insert("value".to_owned(), value.map_or(Value::Null, |value| mobo_core::json::value_to_json(value, kind)));
            show_authors(&mut shown, field, &row.state, (&written, name));
            fields.insert(field.name.clone(), Value::Object(shown));
        }
        Ok(json!({ "visible": columns.is_some(), "ver": row.ver.0, "fields": fields }))
    }
}

/// The number of a message of a sensor, as lists write it.
pub(super) fn message_number(name: &str) -> Option<u64> {
    name.strip_prefix('m')?.parse().ok()
}

/// Whose a stamp is; `None` for a change that no known log has made.
fn author(stamp: &Stamp, logs: &[Origin]) -> Option<DeviceId> {
    match conflict::rival(stamp) {
        None => Some(stamp.device),
        Some(change) => conflict::origin_of(change.actor, logs.iter().copied()).map(|origin| origin.device),
    }
}

/// Who made a change of a document, and when, as far as it is known.
fn whose(change: ChangeId, row: &RecordRow, logs: &[Origin]) -> (Option<DeviceId>, Option<Eff>) {
    match row.changes.get(&change) {
        Some(stamp) => (Some(stamp.device), Some(stamp.eff)),
        None => (conflict::origin_of(change.actor, logs.iter().copied()).map(|origin| origin.device), None),
    }
}

fn rows_of_page(args: &Value) -> u32 {
    let asked = args.get("limit").and_then(Value::as_u64).and_then(|limit| u32::try_from(limit).ok());
    asked.map_or(limits::CONTROL_PAGE_ROWS_MAX, |limit| limit.clamp(1, limits::CONTROL_PAGE_ROWS_MAX))
}

fn after<T>(args: &Value, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, AdminError> {
    match text(args, "after").as_str() {
        "" => Ok(None),
        cursor => match parse(cursor) {
            Some(after) => Ok(Some(after)),
            None => Err(AdminError::Usage(format!("\"{cursor}\" is no place in this list: take the one that the list before named"))),
        },
    }
}

/// As many rows as a page takes, each with its cursor, and the cursor of the next page; `rows` has one more than `limit` if there is more.
fn page<T>(rows: &[T], limit: u32, show: impl Fn(&T) -> (Value, String)) -> Value {
    let (mut items, mut bytes, mut last) = (Vec::new(), 0, None);
    for row in rows {
        let (mut item, cursor) = show(row);
        if let Value::Object(members) = &mut item {
            members.insert("cursor".to_owned(), json!(cursor));
        }
        bytes += item.to_string().len();
        if !items.is_empty() && (items.len() >= limit as usize || bytes > limits::CONTROL_PAGE_BYTES_MAX) {
            return json!({ "items": items, "next": last });
        }
        items.push(item);
        last = Some(cursor);
    }
    json!({ "items": items, "next": null })
}

/// The word for a kind of conflict.
fn conflict_kind(code: u8) -> &'static str {
    match code {
        1 => "concurrent",
        2 => "hidden_by_delete",
        3 => "time_uncertain",
        _ => "unknown",
    }
}

/// What one author did to one field of a document.
#[derive(Debug, PartialEq)]
struct Written {
    /// `None`: nobody knows any more.
    by: Option<String>,
    /// Their last change of it.
    at: Option<Eff>,
    /// Of a counter.
    added: Option<i128>,
}

/// The authors of each field, in the order in which they came to it.
fn written(
    found: &[hands::Hand],
    whose: impl Fn(ChangeId) -> (Option<DeviceId>, Option<Eff>),
    name: impl Fn(DeviceId) -> String,
) -> BTreeMap<FieldId, Vec<Written>> {
    let mut fields: BTreeMap<FieldId, Vec<Written>> = BTreeMap::new();
    for hand in found {
        let (device, at) = whose(hand.change);
        let by = device.map(&name);
        let authors = fields.entry(hand.field).or_default();
        let index = authors.iter().position(|one| one.by == by).unwrap_or_else(|| {
            authors.push(Written { by, at: None, added: None });
            authors.len() - 1
        });
        if let Some(one) = authors.get_mut(index) {
            one.at = one.at.max(at);
            one.added = hand.added.map_or(one.added, |added| Some(one.added.unwrap_or_default() + i128::from(added)));
        }
    }
    fields
}

/// Who wrote a field last, and everybody who has a part in it where that is more than one write.
fn show_authors(
    shown: &mut Map<String, Value>,
    field: &Field,
    state: &RecordState,
    (written, name): (&BTreeMap<FieldId, Vec<Written>>, impl Fn(DeviceId) -> String),
) {
    match state {
        RecordState::Table(state) => {
            if let Some(cell) = state.cells.get(&field.id) {
                shown.insert("by".to_owned(), json!(name(cell.stamp.device)));
                shown.insert("at".to_owned(), json!(show_time(cell.stamp.eff)));
            }
            if let Some(tallies) = state.counters.get(&field.id) {
                let parts = tallies.iter().map(|(origin, tally)| json!({ "by": name(origin.device), "added": tally.sum.to_string() }));
                shown.insert("from".to_owned(), Value::Array(parts.collect()));
            }
        }
        RecordState::Document(_) => {
            let authors = written.get(&field.id).map(Vec::as_slice).unwrap_or_default();
            if let Some(last) = authors.iter().max_by_key(|one| one.at) {
                shown.insert("by".to_owned(), json!(last.by));
                shown.insert("at".to_owned(), json!(last.at.map(show_time)));
            }
            if authors.len() > 1 || (field.kind == FieldType::Counter && !authors.is_empty()) {
                shown.insert("from".to_owned(), Value::Array(authors.iter().map(show_written).collect()));
            }
        }
    }
}

fn show_written(one: &Written) -> Value {
    let mut part = Map::from_iter([("by".to_owned(), json!(one.by)), ("at".to_owned(), json!(one.at.map(show_time)))]);
    if let Some(added) = one.added {
        part.insert("added".to_owned(), json!(added.to_string()));
    }
    Value::Object(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of so many bytes each, of which a page takes how many, and whether there is more.
    #[track_caller]
    fn check(bytes: &[usize], limit: u32, want: usize, more: bool) {
        let rows: Vec<(usize, usize)> = bytes.iter().copied().enumerate().collect();
        let page = page(&rows, limit, |(index, bytes)| (json!({ "text": "x".repeat(*bytes) }), index.to_string()));
        assert_eq!(page["items"].as_array().unwrap().len(), want, "{bytes:?}");
        assert_eq!(page["next"], if more { json!((want - 1).to_string()) } else { Value::Null }, "{bytes:?}");
        assert!(page.to_string().len() < limits::CONTROL_LINE_BYTES_MAX / 2 || want == 1);
    }

    #[test]
    fn a_page_fits_a_line_of_the_socket() {
        const LARGE: usize = limits::CONTROL_PAGE_BYTES_MAX;
        check(&[], 3, 0, false);
        check(&[1, 1, 1], 3, 3, false);
        check(&[1, 1, 1, 1], 3, 3, true);
        check(&[LARGE, 1], 3, 1, true);
        check(&[1, LARGE, 1], 3, 1, true);
        check(&[LARGE * 6], 3, 1, false);
    }

    #[test]
    fn authors_of_a_document_are_told_once_each() {
        let (likes, rank) = (FieldId::new(1).unwrap(), FieldId::new(2).unwrap());
        let change = |device: u8, seq| ChangeId { actor: mobo_core::document::Actor([device; 16]), seq };
        let hand = |field, change, added| hands::Hand { field, change, added };
        let found = [
            hand(rank, change(1, 2), None),
            hand(likes, change(1, 1), Some(5)),
            hand(likes, change(2, 1), Some(-2)),
            hand(likes, change(1, 2), Some(1)),
            hand(likes, change(9, 1), Some(7)),
        ];
        let whose = |change: ChangeId| match change.actor.0[0] {
            9 => (None, None),
            device => (Some(DeviceId([device; 16])), Some(Eff(i64::from(device) * 100 + change.seq.cast_signed()))),
        };
        let written = written(&found, whose, |device| format!("d{}", device.0[0]));
        let one = |by: Option<&str>, at: Option<i64>, added| Written { by: by.map(str::to_owned), at: at.map(Eff), added };
        assert_eq!(written[&rank], [one(Some("d1"), Some(102), None)]);
        let likes = &written[&likes];
        assert_eq!(*likes, [one(Some("d1"), Some(102), Some(6)), one(Some("d2"), Some(201), Some(-2)), one(None, None, Some(7))]);
    }
}
