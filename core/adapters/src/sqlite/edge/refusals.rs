//! The hub refuses an entry: what it did is shown no more, what was built on it is written again without it, and somebody is told.
//!
//! Rows do not depend on each other: later entries of the same row stand for themselves. A document's changes do: the hub cannot merge what
//! was made on top of a refused one, so it refuses that, too, by the name `blocked`. The device does not wait for that. As it hears of the
//! first refusal it finds what each later own entry did to the document, and does that again on what was delivered. The new entry carries
//! the identity of the old one (rule R15): whatever an operator of the hub does with that, it counts once.

use std::collections::{BTreeMap, BTreeSet};

use mobo_core::author::{self, Edit, Intent, RecordOp, Writer};
use mobo_core::document::{self, DocumentOp};
use mobo_core::entry::{Entry, Header, Payload, Provenance};
use mobo_core::ids::{Nonce, RecordKey, Ver};
use mobo_core::json;
use mobo_core::message::{Code, Reject};
use mobo_core::overlay::{self, Pending};
use mobo_core::record::RecordState;
use mobo_core::schema::{Collection, Schema};
use mobo_core::table::{Action, TableOp};
use mobo_core::time::Wall;
use mobo_core::value::Value;
use rusqlite::Connection;
use serde_json::{Map, json as object};

use super::bases;
use super::counts::{InboxStatus, RefusedEdit};
use super::decided;
use super::desk::Desk;
use super::fault::{Try, damaged};
use super::inbox::{self, Note};
use super::meta::Log;
use super::outbox::{self, EntryState};
use super::overlays::{self, Decoded, EntryAt};
use super::redo;
use super::refence::{author_of, difference};
use super::room;
use crate::sqlite::error::known;

/// What a refusal changed.
#[derive(Debug, Default)]
pub(super) struct Refused {
    pub(super) changed: Vec<RecordKey>,
    /// True if entries were written again.
    pub(super) appended: bool,
}

/// Takes in the hub's word that an entry was refused. Hearing it again changes nothing.
pub(super) fn take(conn: &Connection, schema: &Schema, (reject, heard): (&Reject, Wall), mut nonce: impl FnMut() -> Nonce) -> Try<Refused> {
    let at = (reject.incarnation, reject.lane, reject.seq);
    let Some(log) = Log::read(conn)? else { return Ok(Refused::default()) };
    // An entry that its ack has trimmed before was known, too: only this device drops what is its own.
    let lost = reject.code == Code::LOST && outbox::entry(conn, at.0, at.1, at.2)?.is_none_or(|row| room::is_known_loss(&row));
    if lost || inbox::knows(conn, at)? || redo::waits(conn, (schema, log), at, reject.code)? {
        return Ok(Refused::default());
    }
    let mut refusal = Refusal::new((conn, schema, log), heard);
    let record = reject.record.as_ref().map(|(collection, id)| RecordKey { collection: *collection, id: id.clone() });
    let deeds = refusal.deeds(at)?;
    let survivors = refusal.survivors(at)?;
    let first = refusal.refuse(at, (record.as_ref(), reject.code, &reject.detail), &deeds.known, None)?;
    let why = Why { first: Some(first), what: format!("refused entry {first}") };
    let mut appended = false;
    for survivor in survivors {
        appended |= refusal.again(survivor, &why, nonce())?;
    }
    let mut desk = Desk::new(conn, schema, log);
    for key in &refusal.keys {
        desk.show(key, (None, None))?;
    }
    Ok(Refused { changed: desk.finish()?, appended })
}

/// Where an entry was sealed first.
pub(super) fn origin_of(at: EntryAt, entry: &Entry) -> Option<Provenance> {
    let header = Header::decode(&entry.header).ok()?;
    let here = |eid| Provenance { incarnation: at.0, lane: at.1, seq: at.2, eid, sole: false, life: header.life };
    header.provenance.or_else(|| entry.eid().map(here))
}

/// A document as the log made it, and as it would be without what was refused.
struct Twin {
    old: RecordState,
    new: RecordState,
}

/// What entries are written again without.
pub(super) struct Why {
    /// Its number in the inbox.
    pub(super) first: Option<u64>,
    /// In words.
    pub(super) what: String,
}

/// Entries that are written again.
pub(super) struct Refusal<'c> {
    conn: &'c Connection,
    schema: &'c Schema,
    log: Log,
    heard: Wall,
    /// The documents that a refused entry changed.
    twins: BTreeMap<RecordKey, Twin>,
    /// Documents as they were before something else was delivered, where that has just happened, and what was laid over them.
    before: BTreeMap<RecordKey, (RecordState, Vec<EntryAt>)>,
    decoded: Decoded,
    /// The records to show anew.
    pub(super) keys: BTreeSet<RecordKey>,
}

/// What an operation of an entry did.
struct Deed {
    edit: RefusedEdit,
    before_us: u64,
    base_ver: Ver,
}

/// What an entry did.
#[derive(Default)]
struct Deeds {
    known: Vec<Deed>,
    /// A document of which nobody can say any more what the entry did to it.
    unknown: Option<RecordKey>,
}

impl<'c> Refusal<'c> {
    fn new((conn, schema, log): (&'c Connection, &'c Schema, Log), heard: Wall) -> Self {
        let (twins, before, keys) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { conn, schema, log, heard, twins, before, decoded: Decoded::default(), keys }
    }

    /// The same for documents of which something else was delivered.
    pub(super) fn after(
        whose: (&'c Connection, &'c Schema, Log),
        heard: Wall,
        before: BTreeMap<RecordKey, (RecordState, Vec<EntryAt>)>,
    ) -> Self {
        Self { before, ..Self::new(whose, heard) }
    }

    /// Notes that an entry is refused, and takes it off its records. Gives its number in the inbox.
    fn refuse(&mut self, at: EntryAt, told: (Option<&RecordKey>, Code, &str), deeds: &[Deed], blocked_by: Option<u64>) -> Try<u64> {
        let origin = outbox::entry(self.conn, at.0, at.1, at.2)?.and_then(|row| origin_of(at, &row.entry));
        let edits: Vec<RefusedEdit> = deeds.iter().map(|deed| deed.edit.clone()).collect();
        let ((record, code, detail), heard) = (told, self.heard);
        let edits = (!edits.is_empty()).then_some(edits.as_slice());
        let n = inbox::put(self.conn, &Note { at, record, code, detail, heard, edits, origin, blocked_by })?;
        outbox::set_state(self.conn, at, EntryState::Rejected)?;
        self.lift(at)?;
        Ok(n)
    }

    /// Takes an entry off its records, which are to be shown anew.
    fn lift(&mut self, at: EntryAt) -> Try<()> {
        let keys = overlays::of_entry(self.conn, at)?;
        decided::reopen(self.conn, &keys)?;
        self.keys.extend(keys);
        overlays::drop_entry(self.conn, at)
    }

    /// What an entry did to each of its records. Its documents are known as tainted from here on.
    fn deeds(&mut self, at: EntryAt) -> Try<Deeds> {
        let ops = self.decoded.ops(self.conn, at)?;
        let mut deeds = Deeds::default();
        for (key, ops) in ops.iter() {
            let Some(collection) = self.schema.get(key.collection) else { continue };
            for (index, op) in ops {
                let (edit, before_us, base_ver) = match op {
                    RecordOp::Table(op) => (Some(edit_of(collection, op)), op.before_us, op.base_ver),
                    RecordOp::Document(op) => {
                        let edit = self.undo(at, collection, (*index, op))?;
                        if edit.is_none() {
                            deeds.unknown.get_or_insert_with(|| key.clone());
                        }
                        (edit.flatten(), op.before_us, op.base_ver)
                    }
                };
                let deed = |edit| Deed { edit: RefusedEdit { collection: key.collection, edit }, before_us, base_ver };
                deeds.known.extend(edit.map(deed));
            }
        }
        Ok(deeds)
    }

    /// What an operation did to a document, which goes on without it: nothing, some edit, or `None` where that is not known.
    fn undo(&mut self, at: EntryAt, collection: &Collection, (index, op): (u32, &DocumentOp)) -> Try<Option<Option<Edit>>> {
        let mut twin = self.twin(at, collection, &op.key)?;
        let pending = Pending { seq: at.2, ops: vec![(index, RecordOp::Document(op.clone()))] };
        let author = overlays::author(self.log.device, at.0, 0);
        let mut after = twin.old.clone();
        let mut laid = overlay::lay_one(collection, &mut after, &pending, &author);
        if laid.is_err() {
            twin.old = self.grounded(at, collection, &op.key)?;
            after = twin.old.clone();
            laid = overlay::lay_one(collection, &mut after, &pending, &author);
        }
        let edit = laid.is_ok().then(|| difference(collection, &op.key, (&twin.old, &after)));
        twin.old = after;
        self.twins.insert(op.key.clone(), twin);
        Ok(edit)
    }

    /// The document as it was delivered, with whatever its log did to it before `at` laid over it, as far as that is kept: what the hub has of
    /// that under other names, no later change of this log builds on.
    fn grounded(&mut self, at: EntryAt, collection: &Collection, key: &RecordKey) -> Try<RecordState> {
        let mut state = known(bases::delivered(self.conn, collection, key)?, "document")?;
        let mut earlier = Vec::new();
        outbox::walk(self.conn, (at.0, at.1, None), |row| {
            let is_earlier = row.seq < at.2;
            earlier.extend(is_earlier.then_some(row.seq));
            Ok(is_earlier)
        })?;
        let author = overlays::author(self.log.device, at.0, 0);
        for seq in earlier {
            let ops = self.decoded.ops(self.conn, (at.0, at.1, seq))?;
            for op in ops.get(key).into_iter().flatten() {
                // What is there already, or lacks something itself, stays away.
                let _ = overlay::lay_one(collection, &mut state, &Pending { seq, ops: vec![op.clone()] }, &author);
            }
        }
        Ok(state)
    }

    /// The document with everything that was sealed before `at` laid over what was delivered.
    fn twin(&mut self, at: EntryAt, collection: &Collection, key: &RecordKey) -> Try<Twin> {
        if let Some(twin) = self.twins.remove(key) {
            return Ok(twin);
        }
        let base = known(bases::delivered(self.conn, collection, key)?, "document")?;
        let earlier = |entries: Vec<EntryAt>| entries.into_iter().take_while(|entry| *entry != at).collect::<Vec<_>>();
        let laid = earlier(overlays::of_record(self.conn, key)?);
        let whose = (self.log.device, self.log.incarnation);
        let new = overlays::lay((self.conn, &mut self.decoded), whose, (collection, key), &base, &laid)?;
        let old = match self.before.remove(key) {
            Some((base, laid)) => overlays::lay((self.conn, &mut self.decoded), whose, (collection, key), &base, &earlier(laid))?,
            None => new.clone(),
        };
        Ok(Twin { old, new })
    }

    /// Later own entries that build on the tainted documents, in the order in which they were sealed; what these touch is tainted, too.
    fn survivors(&self, at: EntryAt) -> Try<Vec<EntryAt>> {
        let mut tainted: BTreeSet<RecordKey> = self.twins.keys().cloned().collect();
        let mut found = Vec::new();
        if tainted.is_empty() {
            return Ok(found);
        }
        for later in overlays::after(self.conn, at)? {
            let keys = overlays::of_entry(self.conn, later)?;
            if keys.iter().any(|key| tainted.contains(key)) {
                tainted.extend(keys);
                found.push(later);
            }
        }
        Ok(found)
    }

    /// Does again what an entry did, without what was refused. Where it cannot be done so, it is refused as well. True if it was written.
    pub(super) fn again(&mut self, at: EntryAt, why: &Why, nonce: Nonce) -> Try<bool> {
        let row = known(outbox::entry(self.conn, at.0, at.1, at.2)?, "entry in the outbox")?;
        let (Payload::Present(payload), Some(origin)) = (&row.entry.payload, origin_of(at, &row.entry)) else { return Ok(false) };
        let mut keys = overlays::of_entry(self.conn, at)?;
        let tainted = keys.iter().find(|key| self.twins.contains_key(*key)).cloned();
        let deeds = self.deeds(at)?;
        if let Some(key) = &deeds.unknown {
            let detail = format!("it builds on {}, and what it did to \"{}\" cannot be told without that", why.what, key.id.as_str());
            self.refuse(at, (Some(key), Code::BLOCKED, &detail), &deeds.known, why.first)?;
            return Ok(false);
        }
        let deeds = deeds.known;
        let Some(ops) = self.author(&deeds)? else {
            let detail = format!("it builds on {}, and without that there is nothing to do it to", why.what);
            self.refuse(at, (tainted.as_ref(), Code::BLOCKED, &detail), &deeds, why.first)?;
            return Ok(false);
        };
        let detail = format!("it builds on {}; what it did was written again without that", why.what);
        let n = self.refuse(at, (tainted.as_ref(), Code::BLOCKED, &detail), &deeds, why.first)?;
        outbox::set_state(self.conn, at, EntryState::Superseded)?;
        let mut next = None;
        let again = match ops.is_empty() {
            false => {
                keys = ops.iter().map(|op| op.key.clone()).collect();
                Some(document::op::encode_payload(&ops, author_of(payload)?.as_deref()))
            }
            // It has come to the hub meanwhile by what others gave back: pushed as it is, it is a success, and known to be one (rule R16).
            true => (why.first.is_none() && at.0 == self.log.incarnation).then(|| payload.clone()),
        };
        if let Some(payload) = again {
            let header = Header { nonce, provenance: Some(origin), ..Header::decode(&row.entry.header)? };
            let sealed = outbox::append(self.conn, &self.log, at.1, &Entry::seal(&header, payload), header.moment.wall.0)?;
            for key in &keys {
                overlays::put(self.conn, key, (sealed.incarnation, sealed.lane, sealed.seq))?;
            }
            next = Some(sealed);
        }
        inbox::settle(self.conn, n, (InboxStatus::Retried, self.heard), next.as_ref())?;
        Ok(next.is_some())
    }

    /// The operations that do all this to the documents as they are without what was refused; `None` if not all of it can be done.
    fn author(&mut self, deeds: &[Deed]) -> Try<Option<Vec<DocumentOp>>> {
        let (mut ops, mut after) = (Vec::new(), BTreeMap::new());
        let whose = overlays::author(self.log.device, self.log.incarnation, 0);
        for (nth, deed) in (0..).zip(deeds) {
            let key = RecordKey { collection: deed.edit.collection, id: deed.edit.edit.id.clone() };
            let (Some(collection), Some(twin)) = (self.schema.get(key.collection), self.twins.get(&key)) else { return Ok(None) };
            let state = after.get(&key).unwrap_or(&twin.new);
            let missing = deed.edit.edit.intent == Intent::Patch && state.project(collection).is_none();
            let writer = Writer { collection, device: self.log.device, incarnation: self.log.incarnation, base_ver: deed.base_ver };
            let op = match author::author(&writer, state, &deed.edit.edit) {
                Ok(op) if !missing => op,
                Ok(_) | Err(_) => return Ok(None),
            };
            let Some(RecordOp::Document(op)) = op else { continue };
            let op = DocumentOp { before_us: deed.before_us, ..op };
            let laid = overlay::provisional(collection, state, &RecordOp::Document(op.clone()), (&whose, nth));
            let laid = laid.map_err(|refusal| damaged(&refusal.to_string()))?;
            after.insert(key, laid);
            ops.push(op);
        }
        for (key, state) in after {
            if let Some(twin) = self.twins.get_mut(&key) {
                twin.new = state;
            }
        }
        Ok(Some(ops))
    }
}

/// What an operation on a row does, as somebody would write it.
fn edit_of(collection: &Collection, op: &TableOp) -> Edit {
    let intent = match op.action {
        Action::Put => Intent::Put,
        Action::Patch => Intent::Patch,
        Action::Delete => Intent::Delete,
    };
    let mut fields = Map::new();
    if intent == Intent::Delete {
        return Edit { id: op.key.id.clone(), intent, fields };
    }
    for field in &collection.fields {
        if let Some(Ok(value)) = op.fields.get(&field.id).map(|item| Value::decode(item, Some(field.kind))) {
            // A put writes null to every field that it does not name.
            if intent == Intent::Patch || value != Value::Null {
                fields.insert(field.name.clone(), json::value_to_json(&value, field.kind));
            }
        }
        if let Some(delta) = op.deltas.get(&field.id) {
            let delta = i64::try_from(*delta).unwrap_or(if *delta < 0 { i64::MIN } else { i64::MAX });
            fields.insert(field.name.clone(), object!({ "$inc": delta }));
        }
    }
    Edit { id: op.key.id.clone(), intent, fields }
}
