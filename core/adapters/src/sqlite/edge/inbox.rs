//! What the hub refused: it is told, tried again or let go, and never forgotten.

use mobo_core::author::{Edit, Intent};
use mobo_core::cbor::{Reader, Writer};
use mobo_core::entry::Provenance;
use mobo_core::ids::{CollectionId, Eid, Incarnation, Lane, RecordId, RecordKey, Seq};
use mobo_core::message::Code;
use mobo_core::time::Wall;
use rusqlite::{Connection, Row};
use serde_json::{Map, Value as Json, json};

use super::answers::Sealed;
use super::counts::{InboxRow, InboxStatus, RefusedEdit};
use super::fault::{Try, all, first};
use super::outbox::{self, seq_sql};
use super::overlays::EntryAt;
use crate::sqlite::error::known;

/// A refusal to be noted.
#[derive(Debug)]
pub(super) struct Note<'n> {
    pub(super) at: EntryAt,
    pub(super) record: Option<&'n RecordKey>,
    pub(super) code: Code,
    pub(super) detail: &'n str,
    pub(super) heard: Wall,
    /// What the entry did; `None` for samples, and for what cannot be read.
    pub(super) edits: Option<&'n [RefusedEdit]>,
    pub(super) origin: Option<Provenance>,
    pub(super) blocked_by: Option<u64>,
}

/// True if that entry is known to be refused.
pub(super) fn knows(conn: &Connection, at: EntryAt) -> Try<bool> {
    let mut statement = conn.prepare_cached("SELECT 1 FROM mobo_inbox WHERE incarnation = ?1 AND lane = ?2 AND seq = ?3")?;
    Ok(statement.exists((at.0.sql(), at.1.number(), seq_sql(at.2)))?)
}

/// How often what was sealed first there is noted, under whatever name: once for each time that it was written again.
pub(super) fn count_of(conn: &Connection, origin: &Provenance) -> Try<u64> {
    let mut statement = conn.prepare_cached("SELECT count(*) FROM mobo_inbox WHERE origin = ?1")?;
    Ok(statement.query_row([encode_origin(origin)], |row| row.get::<_, i64>(0))?.cast_unsigned())
}

/// Notes a refusal; gives its number.
pub(super) fn put(conn: &Connection, note: &Note<'_>) -> Try<u64> {
    let sql = "INSERT INTO mobo_inbox (incarnation, lane, seq, collection, id, code, detail, at_us, edits, origin, blocked_by)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) RETURNING n";
    let at = note.at;
    let n: i64 = conn.prepare_cached(sql)?.query_row(
        (
            at.0.sql(),
            at.1.number(),
            seq_sql(at.2),
            note.record.map(|record| record.collection.sql()),
            note.record.map(|record| record.id.as_str()),
            note.code.0,
            note.detail,
            note.heard.0,
            note.edits.map(encode_edits),
            note.origin.as_ref().map(encode_origin),
            note.blocked_by.map(u64::cast_signed),
        ),
        |row| row.get(0),
    )?;
    Ok(n.cast_unsigned())
}

/// Notes what became of a refused entry; `next` is the entry that it was authored again as.
pub(super) fn settle(conn: &Connection, n: u64, (status, when): (InboxStatus, Wall), next: Option<&Sealed>) -> Try<()> {
    let sql = "UPDATE mobo_inbox SET status = ?2, settled_us = ?3, next_incarnation = ?4, next_lane = ?5, next_seq = ?6 WHERE n = ?1";
    let next = (next.map(|next| next.incarnation.sql()), next.map(|next| next.lane.number()), next.map(|next| seq_sql(next.seq)));
    conn.prepare_cached(sql)?.execute((n.cast_signed(), status.code(), when.0, next.0, next.1, next.2))?;
    Ok(())
}

const COLUMNS: &str = "n, incarnation, lane, seq, collection, id, code, detail, at_us, status, settled_us, edits, blocked_by,
                       next_incarnation, next_lane, next_seq";

/// What the hub refused and nobody has decided about, newest first, behind a number.
pub(super) fn open(conn: &Connection, after: Option<u64>, limit: u32) -> Try<Vec<InboxRow>> {
    let sql = format!("SELECT {COLUMNS} FROM mobo_inbox WHERE status = 0 AND n < ?1 ORDER BY n DESC LIMIT ?2");
    let mut statement = conn.prepare_cached(&sql)?;
    let after = after.map_or(i64::MAX, |n| i64::try_from(n).unwrap_or(i64::MAX));
    all(statement.query((after, limit))?, row)
}

/// One refusal, whatever became of it.
pub(super) fn one(conn: &Connection, n: u64) -> Try<Option<InboxRow>> {
    let mut statement = conn.prepare_cached(&format!("SELECT {COLUMNS} FROM mobo_inbox WHERE n = ?1"))?;
    first(statement.query([n.cast_signed()])?, row)
}

/// Where a refused entry was sealed first: under this name the hub would know it.
pub(super) fn origin(conn: &Connection, n: u64) -> Try<Option<Provenance>> {
    let mut statement = conn.prepare_cached("SELECT origin FROM mobo_inbox WHERE n = ?1")?;
    let bytes: Option<Option<Vec<u8>>> = first(statement.query([n.cast_signed()])?, |row| Ok(row.get(0)?))?;
    bytes.flatten().map(|bytes| known(decode_origin(&bytes), "origin of a refused entry")).transpose()
}

fn row(row: &Row<'_>) -> Try<InboxRow> {
    let collection = row.get::<_, Option<i64>>(4)?.and_then(CollectionId::from_sql);
    let id = row.get::<_, Option<String>>(5)?.and_then(|id| RecordId::new(id).ok());
    let next = match row.get::<_, Option<i64>>(13)?.and_then(Incarnation::from_sql) {
        Some(incarnation) => Some((incarnation, lane(row, 14)?, known(outbox::seq(row.get(15)?), "position of an entry")?)),
        None => None,
    };
    let edits = row.get::<_, Option<String>>(11)?;
    Ok(InboxRow {
        n: row.get::<_, i64>(0)?.cast_unsigned(),
        incarnation: known(Incarnation::from_sql(row.get(1)?), "incarnation")?,
        lane: lane(row, 2)?,
        seq: known(outbox::seq(row.get(3)?), "position of an entry")?,
        record: collection.zip(id).map(|(collection, id)| RecordKey { collection, id }),
        code: row.get(6)?,
        detail: row.get(7)?,
        at_us: row.get(8)?,
        status: known(InboxStatus::from_code(row.get(9)?), "status of a refused entry")?,
        settled_us: row.get(10)?,
        edits: edits.map(|edits| known(decode_edits(&edits), "edits of a refused entry")).transpose()?,
        blocked_by: row.get::<_, Option<i64>>(12)?.map(i64::cast_unsigned),
        next,
    })
}

fn lane(row: &Row<'_>, column: usize) -> Try<Lane> {
    known(Lane::from_number(row.get(column)?), "lane")
}

fn encode_origin(origin: &Provenance) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.array(4).u64(origin.incarnation.get()).u64(u64::from(origin.lane.number())).u64(origin.seq.get());
    writer.bytes(origin.eid.as_bytes());
    writer.into_bytes()
}

fn decode_origin(bytes: &[u8]) -> Option<Provenance> {
    let mut reader = Reader::new(bytes);
    let parts = reader.tuple(4, |reader| Ok((reader.u64()?, reader.u8()?, reader.u64()?, Eid(reader.fixed()?))));
    let (incarnation, lane, seq, eid) = parts.ok()?;
    Some(Provenance {
        incarnation: Incarnation::new(incarnation)?,
        lane: Lane::from_number(lane)?,
        seq: Seq::new(seq)?,
        eid,
        sole: false,
        life: None,
    })
}

/// The intents that an entry can have had.
const INTENTS: [(Intent, &str); 3] = [(Intent::Put, "put"), (Intent::Patch, "patch"), (Intent::Delete, "delete")];

fn encode_edits(edits: &[RefusedEdit]) -> String {
    let encode = |edit: &RefusedEdit| {
        let intent = INTENTS.iter().find(|(intent, _)| *intent == edit.edit.intent).map_or("put", |(_, word)| word);
        json!([edit.collection.get().to_string(), edit.edit.id.as_str(), intent, edit.edit.fields])
    };
    Json::Array(edits.iter().map(encode).collect()).to_string()
}

fn decode_edits(text: &str) -> Option<Vec<RefusedEdit>> {
    let edits: Vec<(String, String, String, Map<String, Json>)> = serde_json::from_str(text).ok()?;
    let decode = |(collection, id, word, fields): (String, String, String, Map<String, Json>)| {
        let intent = INTENTS.iter().find(|(_, known)| *known == word)?.0;
        let collection = CollectionId::new(collection.parse().ok()?)?;
        Some(RefusedEdit { collection, edit: Edit { id: RecordId::new(id).ok()?, intent, fields } })
    };
    edits.into_iter().map(decode).collect()
}
