//! The beginning that all nodes share: one change for each text, list and counter of a record.
//!
//! Two nodes that both create an object under one key hide one of the two. So nobody creates any: the container of a field comes from a
//! change whose bytes follow from the record and the field alone. Every node makes it when it opens the document; it never travels.
//! Retired fields have theirs, too: an older node does not know yet that they are retired.

use std::num::NonZeroU64;

use automerge::legacy::{Key, ObjectId, Op, OpType, SortedVec};
use automerge::{Change, ExpandedChange, ObjType, ScalarValue};

use super::actor::Actor;
use crate::ids::{FieldId, RecordKey};
use crate::schema::FieldType;

/// True for a field whose value lives in a container: it is edited in place and never replaced.
#[must_use]
pub fn is_container(kind: FieldType) -> bool {
    matches!(kind, FieldType::Text | FieldType::List | FieldType::Counter)
}

/// The genesis change of one field; `None` for a field without a container.
#[must_use]
pub fn change(key: &RecordKey, field: FieldId, kind: FieldType) -> Option<Change> {
    let action = match kind {
        FieldType::Text => OpType::Make(ObjType::Text),
        FieldType::List => OpType::Make(ObjType::List),
        FieldType::Counter => OpType::Put(ScalarValue::counter(0)),
        FieldType::Int | FieldType::Float | FieldType::Bool | FieldType::Timestamp | FieldType::Json | FieldType::Bytes => return None,
    };
    let name = field.get().to_string();
    let op = Op { action, obj: ObjectId::Root, key: Key::Map(name.as_str().into()), pred: SortedVec::new(), insert: false };
    Some(Change::from(ExpandedChange {
        operations: vec![op],
        actor_id: Actor::of_genesis(key, field).to_automerge(),
        hash: None,
        seq: 1,
        start_op: NonZeroU64::MIN,
        time: 0,
        message: None,
        deps: Vec::new(),
        extra_bytes: Vec::new(),
        author: None,
    }))
}

/// The field that `change` is the genesis of, also one that this node's schema does not have; `None` for any other change.
#[must_use]
pub fn field_of(key: &RecordKey, change: &Change) -> Option<(FieldId, FieldType)> {
    if change.seq() != 1 || change.len() != 1 || !change.deps().is_empty() {
        return None;
    }
    let expanded = change.decode();
    let op = expanded.operations.first()?;
    let (Key::Map(name), Some(kind)) = (&op.key, made_by(&op.action)) else {
        return None;
    };
    let field = FieldId::new(name.parse().ok()?)?;
    let own = self::change(key, field, kind)?;
    (own.hash() == change.hash()).then_some((field, kind))
}

fn made_by(action: &OpType) -> Option<FieldType> {
    match action {
        OpType::Make(ObjType::Text) => Some(FieldType::Text),
        OpType::Make(ObjType::List) => Some(FieldType::List),
        OpType::Put(ScalarValue::Counter(_)) => Some(FieldType::Counter),
        OpType::Make(ObjType::Map | ObjType::Table)
        | OpType::Put(_)
        | OpType::Delete
        | OpType::Increment(_)
        | OpType::MarkBegin(_)
        | OpType::MarkEnd(_) => None,
    }
}
