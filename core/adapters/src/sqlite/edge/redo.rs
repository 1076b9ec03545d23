//! Own entries on a document that build on a change which the hub does not have: written again on what it has.
//!
//! The hub may have got what an entry did under another name: from a copy of this device that authored it again, too (rule R15). Then it does
//! not take this log's change in, and whatever was made on top of that cannot be merged. The same comes of a hub that has gone back in time.
//! What it delivers tells: the delivered document holds everything of this log up to `own_merged`, so an entry that cannot be laid over it
//! will be, or was, refused. It is authored again on the delivered document, under its first name: whatever the hub had of it counts once.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use mobo_core::document::lay::Laying;
use mobo_core::engine::Refusal as Refused;
use mobo_core::ids::{Lane, Nonce, RecordKey};
use mobo_core::limits;
use mobo_core::message::Code;
use mobo_core::overlay;
use mobo_core::record::RecordState;
use mobo_core::schema::{Kind, Schema};
use mobo_core::time::Wall;
use rusqlite::Connection;

use super::ack;
use super::bases::{self, BaseRow};
use super::desk::{Desk, OwnMerged};
use super::fault::Try;
use super::inbox;
use super::meta::Log;
use super::outbox::{self, EntryState};
use super::overlays::{self, Decoded, EntryAt};
use super::refusals::{Refusal, Why, origin_of};
use super::rows::Rows;

/// Entries that do not fit what was delivered.
#[derive(Debug, Default)]
pub(super) struct Misfits {
    pub(super) entries: BTreeSet<EntryAt>,
    /// Their documents as they were before, and what was laid over them.
    before: BTreeMap<RecordKey, (RecordState, Vec<EntryAt>)>,
}

/// A document with own entries laid over it.
#[derive(Debug)]
pub(super) struct Laid {
    pub(super) state: RecordState,
    /// Those entries, in the order in which they were sealed.
    pub(super) entries: Vec<EntryAt>,
}

/// True if there is nothing to do about a refusal yet, or at all.
///
/// An entry that is laid over its records waits for what the hub delivers next, to be written again on that; it stays laid over them until then.
/// So does one that is no change for the hub, because a change of the same log that this device has lost has its place there. One whose changes
/// the delivered documents hold is merged: a hub that has gone back in time refuses what it has lost the ground of, and gets both back with the
/// documents that are offered to it (rule R18).
pub(super) fn waits(conn: &Connection, (schema, log): (&Schema, Log), at: EntryAt, code: Code) -> Try<bool> {
    let is_about_place = matches!(code, Code::MISSING_DEPENDENCY | Code::BLOCKED | Code::BAD_CHANGE);
    let is_laid = !overlays::of_entry(conn, at)?.is_empty();
    if mobo_core::protect!("redo.waits", is_about_place) && is_laid && may_be_again(conn, at)? {
        outbox::set_state(conn, at, EntryState::Rejected)?;
        return Ok(true);
    }
    let may_be_here = !is_laid && is_about_place;
    Ok(mobo_core::protect!("redo.here-already", may_be_here)
        && is_here((conn, &mut Decoded::default()), &mut Rows::new(conn, log.project, schema), (at, None))?)
}

/// False for an entry that was written again so often that it will not be taken the next time either.
fn may_be_again(conn: &Connection, at: EntryAt) -> Try<bool> {
    let Some(origin) = outbox::entry(conn, at.0, at.1, at.2)?.and_then(|row| origin_of(at, &row.entry)) else { return Ok(false) };
    Ok(inbox::count_of(conn, &origin)? < limits::REDOS_MAX)
}

/// True if the documents, as they were delivered, hold all of an entry's changes; `but` is not looked at.
fn is_here((conn, decoded): (&Connection, &mut Decoded), rows: &mut Rows<'_>, (at, but): (EntryAt, Option<&RecordKey>)) -> Try<bool> {
    let ops = decoded.ops(conn, at)?;
    for (key, ops) in ops.iter().filter(|(key, _)| Some(*key) != but) {
        let collection = rows.collection(key.collection).filter(|collection| collection.kind == Kind::Document);
        let Some(collection) = collection else { return Ok(false) };
        let delivered = match bases::row(conn, key)? {
            Some(base) => base.state(collection, key)?,
            None => rows.read(key)?.and_then(|(state, _)| state.ok()),
        };
        let Some(RecordState::Document(document)) = delivered else { return Ok(false) };
        if !Laying::over(collection, &document).is_ok_and(|laying| laying.holds(&overlay::document_ops(ops))) {
            return Ok(false);
        }
    }
    Ok(!ops.is_empty())
}

/// True if what an entry builds on is not there.
fn lacks(refusal: &Refused) -> bool {
    mobo_core::protect!("redo.misfits", refusal.code == Code::MISSING_DEPENDENCY)
}

/// True if something else has an entry's place in its log's line of changes: the same log made that while it did not see the entry.
fn collides(refusal: &Refused) -> bool {
    mobo_core::protect!("redo.collides", refusal.code == Code::BAD_CHANGE)
}

impl Desk<'_> {
    /// Finds the own entries on a document that what is delivered now leaves without what they build on. They stay laid over it, whatever
    /// the hub has merged of their lane.
    pub(super) fn find_misfits(
        &mut self,
        key: &RecordKey,
        base: &BaseRow,
        (delivered, own_merged): (&RecordState, &OwnMerged),
    ) -> Try<Option<Laid>> {
        let (RecordState::Document(document), Some(collection)) = (delivered, self.rows.collection(key.collection)) else {
            return Ok(None);
        };
        let entries = overlays::of_record(self.conn, key)?;
        // One that cannot be loaded is shown as it is by nobody.
        let Ok(mut laying) = Laying::over(collection, document) else { return Ok(None) };
        let (mut found, mut over) = (Vec::new(), Vec::new());
        for at in &entries {
            let ops = self.decoded.ops(self.conn, *at)?.get(key).cloned().unwrap_or_default();
            let (ops, author) = (overlay::document_ops(&ops), overlays::author(self.log.device, at.0, 0).origin());
            let waited = mobo_core::protect!("redo.waited", outbox::is_rejected(self.conn, *at)?);
            let is_here = laying.holds(&ops);
            if waited
                && mobo_core::protect!("redo.came-back", is_here)
                && self::is_here((self.conn, &mut self.decoded), &mut self.rows, (*at, Some(key)))?
            {
                // It was refused for what it lacked, and that has come back meanwhile, by its own offer or another device's.
                outbox::set_state(self.conn, *at, EntryState::Acknowledged)?;
            }
            if overlays::is_merged(at, own_merged) && (is_here || !waited) {
                // What is merged and not there is there under another name, or refused for what it is. That it lacks something may come of such
                // a one before it: it is written again only as long as the hub's word on itself is not here. Written again all the same, a
                // chain of entries that the hub has under other names lost one of them in each round, and was pushed anew without end.
                let is_heard = mobo_core::protect!("redo.heard", ack::is_heard(self.conn, *at)?);
                if !is_here && !is_heard && laying.fits(&ops, author).is_err_and(|refusal| lacks(&refusal)) {
                    found.push(*at);
                }
                continue;
            }
            let is_refused = waited && !is_here;
            let laid = if is_refused {
                laying.fits(&ops, author)
            } else {
                over.push(*at);
                laying.lay(&ops, author)
            };
            match laid {
                Err(refusal) if lacks(&refusal) || collides(&refusal) => found.push(*at),
                Ok(()) if is_refused => found.push(*at),
                Ok(()) | Err(_) => {}
            }
        }
        if found.is_empty() {
            return Ok(laying.finish().ok().flatten().map(|document| Laid { state: RecordState::Document(document), entries: over }));
        }
        let base = base.state(collection, key)?.or_else(|| RecordState::empty(collection, key));
        self.misfits.before.extend(base.map(|base| (key.clone(), (base, entries))));
        for at in &found {
            outbox::set_state(self.conn, *at, EntryState::Rejected)?;
            self.refused.add(*at);
        }
        self.misfits.entries.extend(found);
        Ok(None)
    }

    /// Takes note of refused entries that are to be written again, with their documents as they are shown now. Those that the delivered
    /// documents hold by now are merged, and are not.
    pub(super) fn note_refused(&mut self, refused: Vec<EntryAt>) -> Try<()> {
        for at in refused {
            if mobo_core::protect!("redo.came-back:checkpoint", self::is_here((self.conn, &mut self.decoded), &mut self.rows, (at, None))?)
            {
                outbox::set_state(self.conn, at, EntryState::Acknowledged)?;
                continue;
            }
            for key in overlays::of_entry(self.conn, at)? {
                let Some(collection) = self.rows.collection(key.collection).filter(|collection| collection.kind == Kind::Document) else {
                    continue;
                };
                if let Entry::Vacant(place) = self.misfits.before.entry(key) {
                    let entries = overlays::of_record(self.conn, place.key())?;
                    if let Some(base) = bases::delivered(self.conn, collection, place.key())? {
                        place.insert((base, entries));
                    }
                }
            }
            self.misfits.entries.insert(at);
        }
        Ok(())
    }

    /// Writes the misfits again, and what builds on them. Gives the lanes that have got entries.
    pub(super) fn redo(&mut self, schema: &Schema, (heard, nonce): (Wall, &mut dyn FnMut() -> Nonce)) -> Try<BTreeSet<Lane>> {
        let Misfits { entries, before } = std::mem::take(&mut self.misfits);
        let mut lanes = BTreeSet::new();
        if entries.is_empty() {
            return Ok(lanes);
        }
        let mut refusal = Refusal::after((self.conn, schema, self.log), heard, before);
        let why = Why { first: None, what: "what the hub has under another name, or not at all".to_owned() };
        for at in self.doomed(schema, &entries)? {
            if refusal.again(at, &why, nonce())? {
                lanes.insert(at.1);
            }
        }
        for key in &refusal.keys {
            self.show(key, (None, None))?;
        }
        Ok(lanes)
    }

    /// These entries and all later own ones that build on them, in the order in which they were sealed.
    fn doomed(&self, schema: &Schema, entries: &BTreeSet<EntryAt>) -> Try<Vec<EntryAt>> {
        let (mut tainted, mut found) = (BTreeSet::new(), Vec::new());
        for at in overlays::entries(self.conn)? {
            let mut keys = overlays::of_entry(self.conn, at)?;
            keys.retain(|key| schema.get(key.collection).is_some_and(|collection| collection.kind == Kind::Document));
            if entries.contains(&at) || keys.iter().any(|key| tainted.contains(key)) {
                tainted.extend(keys);
                found.push(at);
            }
        }
        Ok(found)
    }
}
