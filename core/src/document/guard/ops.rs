//! Each operation of a change, against what its author saw.

use std::collections::{BTreeMap, BTreeSet};

use automerge::legacy::{ElementId, Key, ObjectId, Op, OpId as ForeignId, OpType};
use automerge::{ExpandedChange, ROOT, ReadDoc, ScalarValue};

use super::bad;
use crate::document::actor::Actor;
use crate::document::content::{self, DELETED, OpId};
use crate::document::open::Open;
use crate::document::state::too_large;
use crate::engine::Refusal;
use crate::ids::FieldId;
use crate::limits;
use crate::schema::FieldType;

/// What a change does, as far as conflicts are concerned.
#[derive(Clone, Debug, Default)]
pub(in crate::document) struct Touched {
    /// The registers that it writes, with the counter of the operation.
    pub(in crate::document) registers: Vec<(FieldId, u64)>,
    /// The counter of the operation that hides the record.
    pub(in crate::document) delete: Option<u64>,
}

/// The operations on one list or text, with their counters.
type Edits<'o> = Vec<(u64, &'o Op)>;

/// Checks every operation of a change whose envelope and place are in order.
pub(super) fn check(open: &Open<'_>, change: &ExpandedChange, actor: Actor) -> Result<Touched, Refusal> {
    let mut touched = Touched::default();
    let mut keys = BTreeSet::new();
    let mut sequences: BTreeMap<OpId, Edits<'_>> = BTreeMap::new();
    for (op, counter) in change.operations.iter().zip(change.start_op.get()..) {
        match &op.obj {
            ObjectId::Root => {
                let Key::Map(key) = &op.key else { return Err(bad("an operation on the record names no field")) };
                if op.insert || !keys.insert(key.as_str()) {
                    return Err(bad("a field is written twice in it"));
                }
                check_root(open, change, (key.as_str(), op, counter), &mut touched)?;
            }
            ObjectId::Id(object) => sequences.entry(own_id(object)?).or_default().push((counter, op)),
        }
    }
    if keys.iter().filter(|key| !open.has_key(key)).count() + open.keys() > limits::DOCUMENT_KEYS_MAX {
        return Err(too_large("fields", limits::DOCUMENT_KEYS_MAX as u64));
    }
    for (object, edits) in &sequences {
        check_sequence(open, change, (*object, edits), actor)?;
    }
    Ok(touched)
}

fn own_id(id: &ForeignId) -> Result<OpId, Refusal> {
    Actor::from_automerge(id.actor()).map(|actor| (id.counter(), actor)).ok_or_else(|| bad("an actor is not of 16 bytes"))
}

fn predecessors(op: &Op) -> Result<Vec<OpId>, Refusal> {
    let mut ids = op.pred.iter().map(own_id).collect::<Result<Vec<_>, _>>()?;
    ids.sort_unstable();
    Ok(ids)
}

/// A register, a counter, or the flag of deletion.
fn check_root(
    open: &Open<'_>,
    change: &ExpandedChange,
    (key, op, counter): (&str, &Op, u64),
    touched: &mut Touched,
) -> Result<(), Refusal> {
    if key == DELETED {
        let OpType::Put(ScalarValue::Boolean(deleted)) = op.action else {
            return Err(bad("the flag of deletion is true or false"));
        };
        touched.delete = deleted.then_some(counter);
        return check_overwrites(open, change, key, op);
    }
    let field = key.parse().ok().and_then(FieldId::new).filter(|field| field.get().to_string() == key);
    let field = field.ok_or_else(|| bad("a key of it is no field"))?;
    match (&op.action, open.container_of(field)) {
        (OpType::Put(scalar), None) if content::is_register(scalar) => {
            touched.registers.push((field, counter));
            check_overwrites(open, change, key, op)
        }
        (OpType::Increment(step), Some(FieldType::Counter)) => {
            let genesis = Actor::of_genesis(open.key, field);
            if step.unsigned_abs() > limits::COUNTER_STEP_MAX {
                return Err(bad("it adds too much at once to a counter"));
            }
            if predecessors(op)? != [(1, genesis)] {
                return Err(bad("it does not increment the counter that the record began with"));
            }
            check_seen(open, change, genesis)
        }
        _ => Err(bad("it replaces a text, list or counter, or puts into a field what no field holds")),
    }
}

/// Its predecessors must be exactly what its author saw at the key.
fn check_overwrites(open: &Open<'_>, change: &ExpandedChange, key: &str, op: &Op) -> Result<(), Refusal> {
    let visible = open.doc.get_all_at(ROOT, key, &change.deps).map_err(|error| bad(&error.to_string()))?;
    let mut visible = visible.iter().map(|(_, id)| content::op_id(id)).collect::<Option<Vec<_>>>().unwrap_or_default();
    visible.sort_unstable();
    if predecessors(op)? == visible { Ok(()) } else { Err(bad("it does not overwrite what its author saw")) }
}

/// Its author must have seen that genesis.
fn check_seen(open: &Open<'_>, change: &ExpandedChange, genesis: Actor) -> Result<(), Refusal> {
    let history = &open.history;
    let deps: Vec<usize> = change.deps.iter().filter_map(|dep| history.position(&dep.0)).collect();
    let seen = history.seen_from(&deps);
    match history.last_of(genesis) {
        Some((index, _)) if seen.get(index).is_some_and(|seen| *seen) => Ok(()),
        _ => Err(bad("its author had not seen the beginning of a field that it edits")),
    }
}

/// The elements of one list or text: inserted after a visible one, or deleted while visible. An element is never overwritten in place, so its
/// identity is that of its only operation.
fn check_sequence(
    open: &Open<'_>,
    change: &ExpandedChange,
    ((counter, genesis), edits): (OpId, &Edits<'_>),
    actor: Actor,
) -> Result<(), Refusal> {
    let Some((field, kind @ (FieldType::Text | FieldType::List))) = open.container(genesis).filter(|_| counter == 1) else {
        return Err(bad("it edits an object that is no text and no list of this record"));
    };
    check_seen(open, change, genesis)?;
    let mut alive = visible_among(open, change, field, edits)?;
    let mut own = BTreeSet::new();
    for (counter, op) in edits {
        let Key::Seq(element) = &op.key else { return Err(bad("an operation on a list names no element")) };
        let at = match element {
            ElementId::Head => None,
            ElementId::Id(id) => Some(own_id(id)?),
        };
        match (&op.action, op.insert, at) {
            (OpType::Put(scalar), true, at) => {
                if at.is_some_and(|at| !alive.contains(&at) && !own.contains(&at)) {
                    return Err(bad("it inserts after an element that its author did not see"));
                }
                if !op.pred.is_empty() || !fits(kind, scalar) {
                    return Err(bad("it inserts what no list or text holds"));
                }
                own.insert((*counter, actor));
            }
            (OpType::Delete, false, Some(at)) => {
                if predecessors(op)? != [at] || !alive.remove(&at) {
                    return Err(bad("it deletes an element that its author did not see"));
                }
            }
            _ => return Err(bad("it does to an element what no author does")),
        }
    }
    Ok(())
}

/// Those of the elements that the edits name, and did not make, that their author saw.
fn visible_among(open: &Open<'_>, change: &ExpandedChange, field: FieldId, edits: &Edits<'_>) -> Result<BTreeSet<OpId>, Refusal> {
    let mut named = BTreeSet::new();
    for (_, op) in edits {
        if let Key::Seq(ElementId::Id(id)) = &op.key {
            named.insert(own_id(id)?);
        }
    }
    let object = content::container(open.key, field);
    let visible = open.doc.list_range_at(&object, .., &change.deps);
    Ok(visible.filter_map(|item| content::op_id(&item.id())).filter(|id| named.contains(id)).collect())
}

fn fits(kind: FieldType, scalar: &ScalarValue) -> bool {
    match (kind, scalar) {
        (FieldType::Text, ScalarValue::Str(text)) => text.chars().count() == 1 && text != "\0",
        (FieldType::List, scalar) => content::is_element(scalar),
        _ => false,
    }
}
