//! The way of a local write (DESIGN.md, section 4): authored against what is shown, sealed, laid over its record, all in one transaction.

use std::collections::BTreeMap;

use mobo_core::author::{self, Edit, EditError, RecordOp, Writer};
use mobo_core::document;
use mobo_core::engine::{Author, Refusal};
use mobo_core::entry::{Entry, Header, Provenance};
use mobo_core::ids::{CollectionId, Nonce, RecordKey, Seq, Timeline, Ver};
use mobo_core::limits;
use mobo_core::overlay::{self, Pending};
use mobo_core::record::RecordState;
use mobo_core::rights::Bounds;
use mobo_core::schema::{Collection, Kind, Schema};
use mobo_core::table;
use mobo_core::time::Moment;
use rusqlite::Connection;

use super::answers::{Sealed, WriteError, Written};
use super::bases::{self, BaseRow};
use super::fault::Try;
use super::members::is_confirmed;
use super::meta::Log;
use super::outbox;
use super::overlays;
use super::rows::{Kept, NewRow, Rows};

/// A record while its edits are authored.
pub(super) struct Draft {
    kept: Option<Kept>,
    /// As it is shown: before the write, then with the new entry laid over it.
    state: RecordState,
    /// What is to be kept aside, where this is the first own entry over it.
    first: Option<BaseRow>,
    /// The version of what was delivered.
    ver: Ver,
    /// As the next edit of the same write sees it; `None`: as `state`.
    seen: Option<RecordState>,
    ops: Vec<(u32, RecordOp)>,
}

/// Authors edits as one entry. Whatever cannot be done is found before anything is written.
pub(super) fn write(
    conn: &Connection,
    schema: &Schema,
    what: (CollectionId, &[Edit], Option<&str>),
    seal: (Moment, Nonce),
) -> Result<Written, WriteError> {
    write_again(conn, schema, what, seal, None)
}

/// The same, of somebody who is held to bounds.
pub(super) fn write_within(
    conn: &Connection,
    schema: &Schema,
    what: (CollectionId, &[Edit], Option<&str>),
    seal: (Moment, Nonce),
    bounds: &Bounds,
) -> Result<Written, WriteError> {
    authored(conn, schema, what, seal, (None, Some(bounds)))
}

/// The same, for edits that were sealed before: the hub takes both for one entry (rule R15).
pub(super) fn write_again(
    conn: &Connection,
    schema: &Schema,
    what: (CollectionId, &[Edit], Option<&str>),
    seal: (Moment, Nonce),
    provenance: Option<Provenance>,
) -> Result<Written, WriteError> {
    authored(conn, schema, what, seal, (provenance, None))
}

fn authored(
    conn: &Connection,
    schema: &Schema,
    (collection, edits, author): (CollectionId, &[Edit], Option<&str>),
    (moment, nonce): (Moment, Nonce),
    (provenance, bounds): (Option<Provenance>, Option<&Bounds>),
) -> Result<Written, WriteError> {
    let collection = schema.get(collection).ok_or(WriteError::UnknownCollection(collection))?;
    if collection.kind == Kind::Stream {
        return Err(wrong_kind(collection, "append samples to it"));
    }
    let log = Log::writing(conn)?.ok_or(WriteError::NotJoined)?;
    let life = log.life.filter(|_| collection.kind == Kind::Table && provenance.is_none());
    let log = Log { life, ..log };
    let whose = overlays::writing(&log);
    let mut rows = Rows::new(conn, log.project, schema);
    let mut drafts = BTreeMap::new();
    let ops = draft((conn, &mut rows), (&log, &whose), collection, (edits, bounds), &mut drafts)?;
    if ops.is_empty() {
        return Ok(Written { entry: None, changed: Vec::new() });
    }
    let header = Header { provenance, ..header(collection, &log, moment, nonce) };
    let entry = Entry::seal(&header, payload(collection, ops, author)?);
    let seq = outbox::next(conn, log.incarnation, collection.lane)?;
    drafts.retain(|_, draft| !draft.ops.is_empty());
    for (key, draft) in &mut drafts {
        draft.lay(collection, key, seq, &whose)?;
    }
    let at = outbox::append(conn, &log, collection.lane, &entry, moment.wall.0)?;
    for (key, draft) in &drafts {
        draft.keep((conn, &mut rows), key, &at)?;
    }
    Ok(Written { entry: Some(at), changed: drafts.into_keys().collect() })
}

/// The refusal of a write that its collection's kind does not take.
pub(super) fn wrong_kind(collection: &Collection, instead: &'static str) -> WriteError {
    WriteError::WrongKind { collection: collection.name.clone(), kind: collection.kind.name(), instead }
}

/// The header of a first sealing.
pub(super) fn header(collection: &Collection, log: &Log, moment: Moment, nonce: Nonce) -> Header {
    let timeline = log.timeline.map(Timeline::short);
    Header { engine: collection.kind.code(), moment, nonce, timeline, provenance: None, life: log.life }
}

fn draft(
    (conn, rows): (&Connection, &mut Rows<'_>),
    (log, whose): (&Log, &Author),
    collection: &Collection,
    (edits, bounds): (&[Edit], Option<&Bounds>),
    drafts: &mut BTreeMap<RecordKey, Draft>,
) -> Result<Vec<RecordOp>, WriteError> {
    let mut ops = Vec::with_capacity(edits.len());
    for (nth, edit) in (0_u64..).zip(edits) {
        let key = RecordKey { collection: collection.id, id: edit.id.clone() };
        if !drafts.contains_key(&key) {
            drafts.insert(key.clone(), Draft::read((conn, rows), collection, &key)?);
        }
        let Some(draft) = drafts.get_mut(&key) else { continue };
        if let (None, Some((_, last))) = (&draft.seen, draft.ops.last()) {
            draft.seen = Some(overlay::provisional(collection, &draft.state, last, (whose, nth)).map_err(refused)?);
        }
        let writer = Writer { collection, device: log.device, incarnation: log.incarnation, base_ver: draft.seen_ver() };
        let before = draft.seen.as_ref().unwrap_or(&draft.state);
        let Some(op) = author::author(&writer, before, edit)? else { continue };
        if let Some(bounds) = bounds {
            let after = overlay::provisional(collection, before, &op, (whose, nth + 1)).map_err(refused)?;
            bounds.allows(collection, edit, (before, &after))?;
        }
        if changes_nothing(&op) {
            continue;
        }
        if let Some(seen) = &draft.seen {
            draft.seen = Some(overlay::provisional(collection, seen, &op, (whose, nth + 1)).map_err(refused)?);
        }
        draft.ops.push((u32::try_from(ops.len()).unwrap_or(u32::MAX), op.clone()));
        ops.push(op);
    }
    Ok(ops)
}

fn refused(refusal: Refusal) -> WriteError {
    WriteError::Edit(EditError::Refused(refusal.to_string()))
}

impl Draft {
    fn read((conn, rows): (&Connection, &mut Rows<'_>), collection: &Collection, key: &RecordKey) -> Result<Self, WriteError> {
        let read = rows.read(key)?;
        Self::of(conn, collection, key, read)
    }

    /// A draft of a record that was read.
    pub(super) fn of(
        conn: &Connection,
        collection: &Collection,
        key: &RecordKey,
        read: Option<(Result<RecordState, String>, Kept)>,
    ) -> Result<Self, WriteError> {
        // What is shown as it was delivered has nothing of its own laid over it.
        let is_own = read.as_ref().is_some_and(|(_, kept)| kept.mac.is_none());
        let base = if is_own { bases::row(conn, key)? } else { None };
        let (state, kept) = match read {
            Some((Ok(state), kept)) => (state, Some(kept)),
            Some((Err(_), _)) => return Err(WriteError::Damaged(key.id.to_string())),
            None => (RecordState::empty(collection, key).ok_or_else(|| wrong_kind(collection, "append samples to it"))?, None),
        };
        let ver = base.as_ref().map(|base| base.ver).or(kept.map(|kept| kept.ver)).unwrap_or_default();
        let first = match (&base, &kept) {
            (Some(_), _) => None,
            (None, None) => Some(BaseRow::absent()),
            (None, Some(Kept { ver, mac, state_hash, .. })) => {
                Some(BaseRow::of(&NewRow { state: &state, ver: *ver, mac: *mac, state_hash: *state_hash, home: None }))
            }
        };
        Ok(Self { kept, state, first, ver, seen: None, ops: Vec::new() })
    }

    /// The version that this write has seen. A row that a pull from the start has not named yet may be of another timeline, where the same
    /// number means another state: it is as good as none (rule R12).
    fn seen_ver(&self) -> Ver {
        let home = self.kept.and_then(|kept| kept.home);
        if home.is_none_or(|home| is_confirmed(home.1)) { self.ver } else { Ver(0) }
    }

    /// The draft with one operation of an entry laid over it.
    pub(super) fn with(
        mut self,
        collection: &Collection,
        key: &RecordKey,
        op: (u32, RecordOp),
        (seq, whose): (Seq, &Author),
    ) -> Result<Self, WriteError> {
        self.ops.push(op);
        self.lay(collection, key, seq, whose)?;
        Ok(self)
    }

    /// Lays the new entry over the record.
    fn lay(&mut self, collection: &Collection, key: &RecordKey, seq: Seq, whose: &Author) -> Result<(), WriteError> {
        let pending = Pending { seq, ops: std::mem::take(&mut self.ops) };
        overlay::lay_one(collection, &mut self.state, &pending, whose).map_err(refused)?;
        if let RecordState::Table(row) = &self.state
            && row.bytes() > limits::ROW_STATE_BYTES_MAX / 2
        {
            let bytes = row.encode().len();
            if bytes > limits::ROW_STATE_BYTES_MAX {
                return Err(WriteError::RecordTooLarge { id: key.id.to_string(), bytes });
            }
        }
        Ok(())
    }

    /// Shows the record so; the first own entry keeps what was delivered aside.
    pub(super) fn keep(&self, (conn, rows): (&Connection, &mut Rows<'_>), key: &RecordKey, at: &Sealed) -> Try<()> {
        if let Some(base) = self.first.as_ref().filter(|_| mobo_core::protect!("base.kept-aside", true)) {
            bases::put(conn, key, base)?;
        }
        overlays::put(conn, key, (at.incarnation, at.lane, at.seq))?;
        let home = self.kept.and_then(|kept| kept.home);
        let row = NewRow { state: &self.state, ver: self.ver, mac: None, state_hash: self.state.state_hash(), home };
        rows.write(key, self.kept.as_ref(), &row)
    }
}

/// True for a patch of nothing.
fn changes_nothing(op: &RecordOp) -> bool {
    match op {
        RecordOp::Table(op) => op.action == table::Action::Patch && op.fields.is_empty() && op.deltas.is_empty(),
        RecordOp::Document(op) => op.changes.is_empty(),
    }
}

fn payload(collection: &Collection, ops: Vec<RecordOp>, author: Option<&str>) -> Result<Vec<u8>, WriteError> {
    let count = ops.len();
    let (mut rows, mut documents) = (Vec::new(), Vec::new());
    for op in ops {
        match op {
            RecordOp::Table(op) => rows.push(op),
            RecordOp::Document(op) => documents.push(op),
        }
    }
    let payload = match collection.kind {
        Kind::Document => document::op::encode_payload(&documents, author),
        Kind::Table | Kind::Stream => table::op::encode_payload(&rows, author),
    };
    if payload.len() > limits::ENTRY_PAYLOAD_BYTES_MAX || count > limits::ENTRY_OPS_MAX {
        return Err(WriteError::TooLarge { bytes: payload.len(), ops: count });
    }
    Ok(payload)
}
