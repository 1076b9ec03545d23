//! Starting a new log where the old one turned out to be used twice (D2, rule R15): what the hub does not have is authored again.

use std::collections::BTreeMap;

use mobo_core::author::{self, Edit, Intent, RecordOp, Writer};
use mobo_core::cbor::{Malformed, Reader};
use mobo_core::document::{self, DocumentOp};
use mobo_core::entry::{Entry, Header, Payload, Provenance};
use mobo_core::ids::{Incarnation, Lane, Nonce, RecordKey, Seq};
use mobo_core::json;
use mobo_core::message::{Code, Parent, Refence};
use mobo_core::overlay::{self, Pending};
use mobo_core::record::RecordState;
use mobo_core::schema::{Collection, FieldType, Kind, Schema};
use mobo_core::time::Wall;
use mobo_core::value::Value;
use rusqlite::Connection;
use serde_json::{Map, Value as Json, json};

use super::Sources;
use super::ack;
use super::answers::Refenced;
use super::bases;
use super::counts::RefusedEdit;
use super::desk::Desk;
use super::fault::{Try, all, damaged};
use super::floor::Floor;
use super::inbox::{self, Note};
use super::life;
use super::meta::{self, Log};
use super::outbox::{self, EntryRow, EntryState};
use super::overlays::{self, Decoded, EntryAt};
use super::recover;
use super::refusals::origin_of;
use super::stream;
use crate::sqlite::error::{Failure, known};

/// One log's end and the next one's beginning.
struct Move<'c> {
    conn: &'c Connection,
    schema: &'c Schema,
    old: Log,
    new: Log,
    documents: BTreeMap<RecordKey, Twin>,
    decoded: Decoded,
    why: Why,
    /// All entries on tables of the old log say in which life they were written.
    is_lived: bool,
    floor: Floor,
    /// What the entry at hand did, and cannot do again.
    lost: Vec<Lost>,
}

/// A part of an edit that cannot be written again.
struct Lost {
    edit: RefusedEdit,
    why: String,
}

/// Why a log ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Why {
    /// It is used twice.
    Twice,
    /// A restored hub has lost entries of it that are not kept any more, so that nothing can follow them. What those did, and what later
    /// ones did that were acknowledged and came back, is in the rows that are offered (rule R22): only the rest is authored again.
    Trimmed,
}

/// A document as the old log made it, and as the new one does.
struct Twin {
    old: RecordState,
    new: RecordState,
}

/// Starts the log `fresh`. Entries up to the common prefix with the hub count as acknowledged; later ones that are pending are sealed
/// again, with the word where they came from.
pub(super) fn refence(
    conn: &Connection,
    schema: &Schema,
    (order, fresh, why): (Option<&Refence>, Incarnation, Why),
    sources: &Sources,
) -> Try<Refenced> {
    let Some(old) = Log::read(conn)? else { return Err(Failure::refused("this device has not joined a hub yet")) };
    let mut refenced = Refenced { incarnation: fresh, settled: 0, reauthored: 0, dropped: 0, lost: 0 };
    if let Some(order) = order {
        take_back(conn, &old, order)?;
        refenced.settled = settle_prefix(conn, &old, order)?;
    }
    let seq = outbox::lane(conn, old.incarnation, Lane::State)?.and_then(|row| row.acked);
    let is_lived = meta::is_lived(conn)?;
    meta::set_incarnation(conn, fresh, Some(Parent { incarnation: old.incarnation, seq }))?;
    life::first(conn)?;
    let new = Log { incarnation: fresh, ..old };
    let heard = (sources.moment)().wall;
    let (documents, decoded) = (BTreeMap::new(), Decoded::default());
    let mut moving = Move { conn, schema, old, new, documents, decoded, why, is_lived, floor: Floor::default(), lost: Vec::new() };
    for lane in Lane::ALL {
        moving.floor = Floor::before_pending(conn, (old.incarnation, lane))?;
        for seq in pending(conn, old.incarnation, lane)? {
            let row = known(outbox::entry(conn, old.incarnation, lane, seq)?, "entry in the outbox")?;
            let origin = origin_of((old.incarnation, lane, seq), &row.entry);
            let is_again = moving.entry(lane, row, (sources.nonce)())?;
            match is_again {
                true => refenced.reauthored += 1,
                false => refenced.dropped += 1,
            }
            // Under the name of an entry that was written again, what is left of it would be taken for that.
            let origin = origin.filter(|_| !is_again);
            refenced.lost += u64::from(moving.tell((old.incarnation, lane, seq), origin, heard)?);
        }
    }
    let mut desk = Desk::new(conn, schema, new);
    for key in overlays::records(conn)? {
        desk.show(&key, (None, None))?;
    }
    desk.finish()?;
    Ok(refenced)
}

/// What was acknowledged on another timeline, a restored hub may have lost. Where its lane is the beginning of this one, it is given the rest
/// back as it is (rule R22); where it has something else in the same places, what was acknowledged there is authored again.
fn take_back(conn: &Connection, old: &Log, order: &Refence) -> Try<()> {
    let Some(closed) = order.closed.as_ref().filter(|closed| old.timeline.is_some_and(|known| known != closed.timeline)) else {
        return Ok(());
    };
    for (lane, last, chain) in &closed.shared {
        if recover::is_shared(conn, (old.incarnation, *lane), (*last, *chain))? {
            continue;
        }
        let mut common = None;
        for (seq, chain) in order.chains.iter().filter(|_| *lane == order.lane) {
            if outbox::chain_at(conn, old.incarnation, *lane, *seq)? == Some(*chain) {
                common = common.max(Some(*seq));
            }
        }
        recover::forget_acks(conn, (old.incarnation, *lane), (common, None))?;
    }
    Ok(())
}

/// Finds the longest common prefix with what the hub has; entries inside it are acknowledged. Says how many that are.
fn settle_prefix(conn: &Connection, old: &Log, order: &Refence) -> Try<u64> {
    let mut prefix = None;
    for (seq, chain) in &order.chains {
        if outbox::chain_at(conn, old.incarnation, order.lane, *seq)? == Some(*chain) {
            prefix = prefix.max(Some(*seq));
        }
    }
    let acked = outbox::lane(conn, old.incarnation, order.lane)?.and_then(|row| row.acked);
    let Some(prefix) = prefix.filter(|prefix| Some(*prefix) > acked) else { return Ok(0) };
    ack::advance(conn, (old.incarnation, order.lane), prefix, None)?;
    Ok(prefix.get() - acked.map_or(0, Seq::get))
}

fn pending(conn: &Connection, incarnation: Incarnation, lane: Lane) -> Try<Vec<Seq>> {
    let sql = "SELECT seq FROM mobo_outbox WHERE incarnation = ?1 AND lane = ?2 AND state = 0 ORDER BY seq";
    let mut statement = conn.prepare_cached(sql)?;
    all(statement.query((incarnation.sql(), lane.number()))?, |row| known(outbox::seq(row.get(0)?), "position of an entry"))
}

impl Move<'_> {
    /// Notes what of an entry could not be written again, so that somebody decides about it. True if there was anything.
    fn tell(&mut self, at: EntryAt, origin: Option<Provenance>, heard: Wall) -> Try<bool> {
        let lost = std::mem::take(&mut self.lost);
        let Some(first) = lost.first() else { return Ok(false) };
        let record = RecordKey { collection: first.edit.collection, id: first.edit.edit.id.clone() };
        let detail = format!("this device goes on under a new log, and there it cannot be written again: {}", first.why);
        let edits: Vec<RefusedEdit> = lost.iter().map(|lost| lost.edit.clone()).collect();
        let (record, edits) = (Some(&record), Some(edits.as_slice()));
        inbox::put(self.conn, &Note { at, record, code: Code::UNMERGEABLE, detail: &detail, heard, edits, origin, blocked_by: None })?;
        Ok(true)
    }

    /// Seals an entry again in the new log. False if nothing is left of it.
    fn entry(&mut self, lane: Lane, row: EntryRow, nonce: Nonce) -> Try<bool> {
        let from = (self.old.incarnation, lane, row.seq);
        let keys = overlays::of_entry(self.conn, from)?;
        let header = Header::decode(&row.entry.header)?;
        let header = Header { moment: self.floor.raise(header.moment, row.eff), ..header };
        // Acknowledged, and came back: a document that is offered has its changes, and after a gap the rows that are have what it did.
        let came_back = row.eff.is_some() && keys.is_empty();
        let is_offered = match header.kind() {
            Some(Kind::Document) => came_back,
            Some(Kind::Stream) => false,
            Some(Kind::Table) | None => came_back && self.why == Why::Trimmed,
        };
        let resealed = if is_offered { None } else { self.reseal(from, &row, &header, nonce)? };
        outbox::set_state(self.conn, from, EntryState::Superseded)?;
        overlays::drop_entry(self.conn, from)?;
        let Some(entry) = resealed else { return Ok(false) };
        let at = outbox::append(self.conn, &self.new, lane, &entry, header.moment.wall.0)?;
        if let Some(eff) = row.eff {
            // When it was made was decided once (rule R7).
            outbox::set_eff(self.conn, (at.incarnation, at.lane, at.seq), eff)?;
        }
        let touched = if header.kind() == Some(Kind::Document) { Some(overlays::decode(&entry)?) } else { None };
        for key in keys.iter().filter(|key| touched.as_ref().is_none_or(|touched| touched.contains_key(*key))) {
            overlays::put(self.conn, key, (at.incarnation, at.lane, at.seq))?;
        }
        if let (Some(Kind::Stream), Payload::Present(payload)) = (header.kind(), &entry.payload) {
            let places = ((self.old.lane(from.0, lane), row.seq), (self.new.lane(at.incarnation, lane), at.seq));
            stream::move_samples(self.conn, self.schema, payload, places)?;
        }
        Ok(true)
    }

    fn reseal(&mut self, from: EntryAt, row: &EntryRow, header: &Header, nonce: Nonce) -> Try<Option<Entry>> {
        let (Payload::Present(payload), Some(eid)) = (&row.entry.payload, row.entry.eid()) else { return Ok(None) };
        // Of an entry that was authored again before, the first sealing is what counts.
        let first = header.provenance.filter(|_| mobo_core::protect!("refence.first-origin", true));
        // What a hub has acknowledged it has delivered, too: the row that has it may be offered, by whoever holds it. A welcome has said so where
        // the ack was lost.
        let was_acked = row.eff.is_some() || ack::was_reached(self.conn, from)?;
        // Nothing else has the name that its life counts under, either: what rows have in there is from this entry.
        let is_alone = self.is_lived || header.life.is_some() || was_acked;
        let sole = self.why == Why::Trimmed || mobo_core::protect!("refence.sole", is_alone);
        let origin = first.unwrap_or(Provenance { incarnation: from.0, lane: from.1, seq: from.2, eid, sole, life: header.life });
        let header =
            Header { nonce, provenance: Some(origin).filter(|_| mobo_core::protect!("refence.provenance", true)), ..header.clone() };
        if header.kind() != Some(Kind::Document) {
            return Ok(Some(Entry::seal(&header, payload.clone())));
        }
        let mut ops = Vec::new();
        for op in document::op::decode_payload(payload)? {
            ops.extend(self.document(from, op)?);
        }
        let author = author_of(payload)?;
        Ok((!ops.is_empty()).then(|| Entry::seal(&header, document::op::encode_payload(&ops, author.as_deref()))))
    }

    /// What an operation did to a document, done again by the new log: a change names its author, so it cannot be forwarded as it is.
    fn document(&mut self, from: EntryAt, op: DocumentOp) -> Try<Option<DocumentOp>> {
        let (key, before_us, base_ver) = (op.key.clone(), op.before_us, op.base_ver);
        let Some(collection) = self.schema.get(key.collection) else { return Ok(None) };
        let mut twin = match self.documents.remove(&key) {
            Some(twin) => twin,
            None => self.twin(collection, &key)?,
        };
        let mut after = twin.old.clone();
        let pending = Pending { seq: from.2, ops: vec![(0, RecordOp::Document(op))] };
        let old = overlays::author(self.old.device, self.old.incarnation, 1);
        let laid = overlay::lay_one(collection, &mut after, &pending, &old);
        let edit = if laid.is_ok() { difference(collection, &key, (&twin.old, &after)) } else { None };
        if let Err(refusal) = laid {
            // What it did cannot be told; that it did something can.
            let nothing = Edit { id: key.id.clone(), intent: Intent::Patch, fields: Map::new() };
            self.lost.push(lost(collection, nothing, format!("what it did cannot be told any more: {refusal}")));
        }
        self.retired(collection, &key, (&twin.old, &after));
        let writer = Writer { collection, device: self.new.device, incarnation: self.new.incarnation, base_ver };
        let again = match edit.as_ref().map(|edit| author::author(&writer, &twin.new, edit)) {
            Some(Ok(Some(RecordOp::Document(op)))) => Some(DocumentOp { before_us, ..op }),
            Some(Ok(Some(RecordOp::Table(_)))) | None => None,
            Some(Ok(None)) => {
                // It shows already what it would, or what it would be done to is not there.
                let is_there = difference(collection, &key, (&twin.new, &after)).is_none();
                self.lost.extend(edit.filter(|_| !is_there).map(|edit| lost(collection, edit, "the record is not there".to_owned())));
                None
            }
            Some(Err(error)) => {
                self.lost.extend(edit.map(|edit| lost(collection, edit, error.to_string())));
                None
            }
        };
        twin.old = after;
        if let Some(op) = &again {
            let pending = Pending { seq: from.2, ops: vec![(0, RecordOp::Document(op.clone()))] };
            let new = overlays::author(self.new.device, self.new.incarnation, 0);
            overlay::lay_one(collection, &mut twin.new, &pending, &new).map_err(|refusal| damaged(&refusal.to_string()))?;
        }
        self.documents.insert(key, twin);
        Ok(again)
    }

    /// What an operation did to fields that are no more: it would have been merged, and would come to light with the field.
    fn retired(&mut self, collection: &Collection, key: &RecordKey, (before, after): (&RecordState, &RecordState)) {
        let (before, after) = (before.project(collection).unwrap_or_default(), after.project(collection).unwrap_or_default());
        let fields = collection.fields.iter().enumerate().filter(|(_, field)| field.retired);
        let changed = fields.filter_map(|(index, field)| {
            let (was, is) = (before.get(index).unwrap_or(&Value::Null), after.get(index).unwrap_or(&Value::Null));
            (was != is && *is != Value::Null).then(|| (field.name.clone(), json::value_to_json(is, field.kind)))
        });
        let fields: Map<String, Json> = changed.collect();
        if let Some(name) = fields.keys().next().cloned() {
            let edit = Edit { id: key.id.clone(), intent: Intent::Patch, fields };
            self.lost.push(lost(collection, edit, format!("the field \"{name}\" was retired")));
        }
    }

    /// The document with everything that the hub has of it, as far as this device knows: where the pending entries begin.
    fn twin(&mut self, collection: &Collection, key: &RecordKey) -> Try<Twin> {
        let base = known(bases::delivered(self.conn, collection, key)?, "document")?;
        let mut settled = overlays::of_record(self.conn, key)?;
        let acked = outbox::lane(self.conn, self.old.incarnation, collection.lane)?.and_then(|row| row.acked);
        settled.retain(|at| at.0 != self.new.incarnation && (at.0 != self.old.incarnation || Some(at.2) <= acked));
        let whose = (self.old.device, self.old.incarnation);
        let state = overlays::lay((self.conn, &mut self.decoded), whose, (collection, key), &base, &settled)?;
        Ok(Twin { old: state.clone(), new: state })
    }
}

fn lost(collection: &Collection, edit: Edit, why: String) -> Lost {
    Lost { edit: RefusedEdit { collection: collection.id, edit }, why }
}

/// The edit that leads from one shown record to another; `None` when they show the same.
pub(super) fn difference(collection: &Collection, key: &RecordKey, (before, after): (&RecordState, &RecordState)) -> Option<Edit> {
    let edit = |intent, fields| Some(Edit { id: key.id.clone(), intent, fields });
    match (before.project(collection), after.project(collection)) {
        (None, None) => None,
        (Some(_), None) => edit(Intent::Delete, Map::new()),
        (None, Some(after)) => edit(Intent::Put, fields(collection, &[], &after)),
        (Some(before), Some(after)) => {
            let fields = fields(collection, &before, &after);
            if fields.is_empty() { None } else { edit(Intent::Patch, fields) }
        }
    }
}

fn fields(collection: &Collection, before: &[Value], after: &[Value]) -> Map<String, Json> {
    let mut fields = Map::new();
    for (index, (field, value)) in collection.fields.iter().zip(after).enumerate() {
        let was = before.get(index);
        if field.retired || was == Some(value) || (was.is_none() && *value == Value::Null) {
            continue;
        }
        let given = match (field.kind, was, value) {
            (FieldType::Counter, Some(Value::Int(was)), Value::Int(is)) => json!({ "$inc": is.saturating_sub(*was) }),
            (kind, _, value) => json::value_to_json(value, kind),
        };
        fields.insert(field.name.clone(), given);
    }
    fields
}

/// The user who wrote an entry of operations.
pub(super) fn author_of(payload: &[u8]) -> Result<Option<String>, Malformed> {
    let mut author = None;
    Reader::new(payload).each_key(|key, reader| {
        match key {
            1 => author = Some(reader.text()?.to_owned()),
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    Ok(author)
}
