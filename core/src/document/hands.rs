//! Who wrote what in a document: for people who ask.

use automerge::legacy::{Key, ObjectId, Op, OpType};

use super::actor::{Actor, ChangeId};
use super::content;
use super::genesis::is_container;
use super::open::Open;
use super::state::{Document, contained};
use crate::engine::Refusal;
use crate::ids::FieldId;
use crate::message::Code;
use crate::schema::{Collection, FieldType};

/// One change's part in a field.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Hand {
    /// The field.
    pub field: FieldId,
    /// The change.
    pub change: ChangeId,
    /// What it added, where the field is a counter.
    pub added: Option<i64>,
}

/// The changes that the fields of a document are by: of a register the one whose value it reads as, of a text, list or counter every one
/// that edited it, each after those that it builds on.
///
/// # Errors
///
/// A [`Refusal`] with [`Code::CORRUPT_RECORD`] when the document cannot be loaded.
pub fn of(collection: &Collection, document: &Document) -> Result<Vec<Hand>, Refusal> {
    let Some(key) = document.key.as_ref().filter(|_| !document.saved.is_empty()) else { return Ok(Vec::new()) };
    contained(Code::CORRUPT_RECORD, || {
        let open = Open::bare(collection, key, document)?;
        let mut hands: Vec<Hand> = collection.fields.iter().filter_map(|field| register(&open, field.id, field.kind)).collect();
        for change in open.doc.get_changes(&[]) {
            let author = Actor::from_automerge(change.actor_id()).filter(|actor| open.container(*actor).is_none());
            let Some(actor) = author else { continue };
            let id = ChangeId { actor, seq: change.seq() };
            let first = hands.len();
            for op in &change.decode().operations {
                let Some((field, added)) = edited(&open, op) else { continue };
                if !hands.iter().skip(first).any(|hand| hand.field == field) {
                    hands.push(Hand { field, change: id, added });
                }
            }
        }
        Ok(hands)
    })
}

fn register(open: &Open<'_>, field: FieldId, kind: FieldType) -> Option<Hand> {
    if is_container(kind) {
        return None;
    }
    let (_, (counter, actor)) = content::at_key(&open.doc, &field.get().to_string()).pop()?;
    let (_, node) = open.history.holder(actor, counter)?;
    Some(Hand { field, change: ChangeId { actor: node.actor, seq: node.seq }, added: None })
}

/// The container that an operation edits.
fn edited(open: &Open<'_>, op: &Op) -> Option<(FieldId, Option<i64>)> {
    match (&op.obj, &op.key, &op.action) {
        (ObjectId::Root, Key::Map(name), OpType::Increment(added)) => {
            let field = FieldId::new(name.parse().ok()?)?;
            Some((field, Some(*added)))
        }
        (ObjectId::Id(object), _, _) => open.container(Actor::from_automerge(object.actor())?).map(|(field, _)| (field, None)),
        (ObjectId::Root, _, _) => None,
    }
}
