//! A document while it is worked on: loaded, with its genesis, until it is saved and found to load again.

use std::collections::BTreeMap;

use automerge::{Automerge, Change, ROOT, ReadDoc};

use super::actor::Actor;
use super::content;
use super::genesis;
use super::guard::Fresh;
use super::history::History;
use super::state::{self, Document, Shown, Warm, heads_of, too_large};
use crate::engine::Refusal;
use crate::ids::{FieldId, RecordKey};
use crate::limits;
use crate::message::Code;
use crate::schema::{Collection, Field, FieldType};
use crate::value::Value;

/// A loaded document. It lives inside [`state::contained`] and is thrown away after a panic.
#[derive(Clone, Debug)]
pub(super) struct Open<'a> {
    /// Its collection.
    pub(super) collection: &'a Collection,
    /// Its record.
    pub(super) key: &'a RecordKey,
    /// The loaded document.
    pub(super) doc: Automerge,
    /// Its changes.
    pub(super) history: History,
    /// The fields that have a container in it, by the actor of their genesis.
    containers: BTreeMap<Actor, (FieldId, FieldType)>,
}

impl<'a> Open<'a> {
    /// Loads a stored document and adds the genesis of every field that it does not have yet.
    pub(super) fn of(collection: &'a Collection, key: &'a RecordKey, state: &Document) -> Result<Self, Refusal> {
        Self::bare(collection, key, state)?.begun()
    }

    /// The same with what the state's bytes were loaded as, where they just were.
    pub(super) fn warm(collection: &'a Collection, key: &'a RecordKey, state: &Document, warm: Warm) -> Result<Self, Refusal> {
        match warm.0 {
            Some(doc) => Self::around(collection, key, (*doc, state))?.begun(),
            None => Self::of(collection, key, state),
        }
    }

    fn begun(self) -> Result<Self, Refusal> {
        let mut open = self;
        let fields = &open.collection.fields;
        let missing: Vec<_> = fields.iter().filter_map(|field| open.expect(field.id, field.kind)).collect();
        open.add(&missing)?;
        Ok(open)
    }

    /// Loads a stored document as it is, or copies it where it is loaded.
    pub(super) fn bare(collection: &'a Collection, key: &'a RecordKey, state: &Document) -> Result<Self, Refusal> {
        Self::around(collection, key, (state.opened()?, state))
    }

    fn around(collection: &'a Collection, key: &'a RecordKey, (doc, state): (Automerge, &Document)) -> Result<Self, Refusal> {
        if heads_of(&doc) != state.heads {
            return Err(corrupt("its heads are not those that were stored"));
        }
        let history = History::of(&doc).ok_or_else(|| corrupt("a change of it is not ours"))?;
        let mut open = Self { collection, key, doc, history, containers: BTreeMap::new() };
        open.find_containers();
        Ok(open)
    }

    /// The field whose genesis is by `actor`.
    pub(super) fn container(&self, actor: Actor) -> Option<(FieldId, FieldType)> {
        self.containers.get(&actor).copied()
    }

    /// The type of the container of a field; `None` for a register.
    pub(super) fn container_of(&self, field: FieldId) -> Option<FieldType> {
        self.container(Actor::of_genesis(self.key, field)).map(|(_, kind)| kind)
    }

    /// True if something stands at that root key.
    pub(super) fn has_key(&self, key: &str) -> bool {
        self.doc.get(ROOT, key).is_ok_and(|found| found.is_some())
    }

    /// How many root keys there are.
    pub(super) fn keys(&self) -> usize {
        self.doc.keys(ROOT).count()
    }

    /// Takes in the genesis of a field, if it has a container and unless it is there.
    pub(super) fn begin(&mut self, field: FieldId, kind: FieldType) -> Result<(), Refusal> {
        let missing = self.expect(field, kind);
        self.add(missing.as_slice())
    }

    /// Takes note of a field's container; gives its genesis unless that is there, or it has none.
    fn expect(&mut self, field: FieldId, kind: FieldType) -> Option<(Actor, Change)> {
        if !genesis::is_container(kind) {
            return None;
        }
        let actor = Actor::of_genesis(self.key, field);
        self.containers.insert(actor, (field, kind));
        if self.history.last_of(actor).is_some() {
            return None;
        }
        Some((actor, genesis::change(self.key, field, kind)?))
    }

    /// Takes in a change that the guard has just let pass.
    pub(super) fn absorb(&mut self, fresh: &Fresh) -> Result<usize, Refusal> {
        self.add(&[(fresh.actor, fresh.change.clone())])?;
        Ok(self.history.len() - 1)
    }

    /// Takes in changes in one go: automerge rebuilds its columns once for all of them.
    fn add(&mut self, changes: &[(Actor, Change)]) -> Result<(), Refusal> {
        if changes.is_empty() {
            return Ok(());
        }
        let refuse = |why: String| Refusal::new(Code::BAD_CHANGE, format!("automerge refuses the change: {why}"));
        self.doc.apply_changes(changes.iter().map(|(_, change)| change.clone())).map_err(|error| refuse(error.to_string()))?;
        for (actor, change) in changes {
            let counters = change.start_op().get()..=change.max_op();
            let added = self.history.push(change.hash(), (*actor, change.seq()), counters, change.deps());
            let queued = self.doc.get_change_meta_by_hash(&change.hash()).is_none();
            if queued || added.is_none() {
                return Err(refuse("it waits for another one".to_owned()));
            }
        }
        Ok(())
    }

    /// Saves the document, loads what was saved, and compares: only then is it fit to be stored.
    pub(super) fn close(self) -> Result<Document, Refusal> {
        let saved = self.save()?;
        let heads = heads_of(&self.doc);
        let poison = |why: &str| Refusal::new(Code::BAD_CHANGE, format!("with the change, the document would not load again: {why}"));
        let doc = state::open(&saved).map_err(|refusal| poison(&refusal.detail))?;
        if heads_of(&doc) != heads {
            return Err(poison("it has other heads"));
        }
        self.check_containers(&doc)?;
        let by = (self.collection.id, self.collection.rev);
        let shown = Some(Shown { by, row: content::row(&doc, self.collection, self.key) });
        Ok(Document { key: Some(self.key.clone()), epoch: 0, saved, heads, shown, warm: Warm(Some(Box::new(doc))) })
    }

    /// The refusals of [`close`](Self::close) for what is too large.
    pub(super) fn check_size(&self) -> Result<(), Refusal> {
        self.save()?;
        self.check_containers(&self.doc)
    }

    fn save(&self) -> Result<Vec<u8>, Refusal> {
        let saved = self.doc.save();
        if saved.len() > limits::DOCUMENT_BYTES_MAX {
            return Err(too_large("bytes", limits::DOCUMENT_BYTES_MAX as u64));
        }
        Ok(saved)
    }

    /// Texts and lists that several people filled may be too long for a row, though no single change was.
    fn check_containers(&self, doc: &Automerge) -> Result<(), Refusal> {
        for (id, kind) in self.containers.values() {
            let field = Field { id: *id, name: String::new(), kind: *kind, retired: false, references: None };
            if content::value(doc, self.key, &field) == Value::Null {
                let name = self.collection.field_by_id(*id).map_or("?", |field| &field.name);
                return Err(too_large(&format!("bytes or elements in \"{name}\""), limits::VALUE_BYTES_MAX as u64));
            }
        }
        Ok(())
    }

    /// The containers that are there, also those of fields that this node's schema does not have.
    fn find_containers(&mut self) {
        let names: Vec<String> = self.doc.keys(ROOT).collect();
        for field in names.iter().filter_map(|name| FieldId::new(name.parse().ok()?)) {
            let actor = Actor::of_genesis(self.key, field);
            if self.history.last_of(actor).is_none() {
                continue;
            }
            // Only a genesis is by such an actor: the guard refuses every other change of it.
            let declared = self.collection.field_by_id(field).map(|field| field.kind);
            let is_kind = |kind: &FieldType| {
                let hash = genesis::change(self.key, field, *kind).map(|change| change.hash());
                hash.is_some_and(|hash| self.history.position(&hash.0).is_some())
            };
            let foreign = || [FieldType::Text, FieldType::List, FieldType::Counter].into_iter().find(is_kind);
            if let Some(kind) = declared.or_else(foreign) {
                self.containers.insert(actor, (field, kind));
            }
        }
    }
}

fn corrupt(why: &str) -> Refusal {
    Refusal::new(Code::CORRUPT_RECORD, format!("the stored document is damaged: {why}"))
}
