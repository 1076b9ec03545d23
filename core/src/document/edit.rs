//! Authoring: what an API call means for a document, as one automerge change by this node's log.
//!
//! What is given replaces what is there by the smallest edit that does it, so that two people's edits of one text or list both survive.
//! The change that comes out has passed this node's own guard: what is accepted here, the hub accepts.

mod list;
mod text;

use automerge::legacy::{self, Key, ObjectId, OpType};
use automerge::transaction::{CommitOptions, Transactable, Transaction};
use automerge::{Change, ObjId, ROOT, ScalarValue};
use serde_json::Value as Json;

use super::actor::Actor;
use super::content::{self, DELETED};
use super::guard;
use super::op::DocumentOp;
use super::open::Open;
use super::state::{Document, contained};
use crate::author::{CounterEdit, Edit, EditError, Intent, Writer, action, parse_counter};
use crate::engine::Refusal;
use crate::ids::RecordKey;
use crate::json;
use crate::limits;
use crate::message::Code;
use crate::schema::{Field, FieldType};
use crate::stamp::Origin;

/// The operation that an edit makes on a document as its writer sees it; `None` when it changes nothing.
///
/// Text takes a string or `{"$splice": [at, delete, "insert"]}` in characters; a list an array, `{"$push": […]}` or
/// `{"$splice": [at, delete, […]]}`; a counter a number or `{"$inc": n}`; null empties. A put writes every field that its author
/// declares, and shows the record again when a delete hides it: from empty texts and lists, and counters from what its author saw as zero.
///
/// # Errors
///
/// [`EditError::BadValue`] with the field to blame, and [`EditError::Refused`] for what is over a limit or a stored document that is damaged.
pub fn author(writer: &Writer<'_>, state: &Document, edit: &Edit) -> Result<Option<DocumentOp>, EditError> {
    let key = RecordKey { collection: writer.collection.id, id: edit.id.clone() };
    let actor = Actor::of(Origin { device: writer.device, incarnation: writer.incarnation });
    // Two kinds of failure come out of one containment: what the caller wrote, and what the document refuses.
    let outcome = contained(Code::CORRUPT_RECORD, || match write(writer, (&key, state), edit, actor) {
        Ok(change) => Ok(Ok(change)),
        Err(Failure::Refused(refusal)) => Err(refusal),
        Err(Failure::Edit(error)) => Ok(Err(error)),
    });
    let change = outcome.map_err(|refusal| EditError::Refused(refusal.detail))??;
    Ok(change.map(|change| DocumentOp {
        key,
        action: action(edit.intent),
        before_us: 0,
        base_ver: writer.base_ver,
        changes: vec![change],
        epoch: 0,
    }))
}

enum Failure {
    Edit(EditError),
    Refused(Refusal),
}

impl From<EditError> for Failure {
    fn from(error: EditError) -> Self {
        Self::Edit(error)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The bytes of the change, once the guard has let it pass.
fn write(writer: &Writer<'_>, (key, state): (&RecordKey, &Document), edit: &Edit, actor: Actor) -> Result<Option<Vec<u8>>, Failure> {
    let open = Open::of(writer.collection, key, state)?;
    let seen = Seen { open: &open, visible: content::row(&open.doc, writer.collection, key).is_some() };
    let mut doc = open.doc.clone().with_actor(actor.to_automerge());
    let mut transaction = doc.transaction();
    if edit.intent == Intent::Delete {
        put(&mut transaction, DELETED, true)?;
    } else {
        for field in writer.collection.live_fields() {
            seen.write_field(&mut transaction, field, edit)?;
        }
        let deleted = content::is_deleted(&open.doc);
        // A record without a single field is there all the same.
        if edit.intent != Intent::Patch && !seen.visible && (deleted || transaction.pending_ops() == 0) {
            put(&mut transaction, DELETED, false)?;
        }
    }
    if transaction.pending_ops() == 0 {
        transaction.rollback();
        return Ok(None);
    }
    transaction.commit_with(CommitOptions::default().with_time(0));
    let Some(change) = doc.get_last_local_change() else {
        return Ok(None);
    };
    let bytes = overwriting(&open, change).raw_bytes().to_vec();
    guard::check(&open, &bytes, Some(actor))?;
    Ok(Some(bytes))
}

/// The change with writes in place of removals.
///
/// Where several values stand at a key and the one that is read is written again, automerge removes the others. A removal that meets a
/// concurrent write brings back what it hid; a write over all of them settles it.
fn overwriting(open: &Open<'_>, change: Change) -> Change {
    let mut expanded = change.decode();
    let is_removal = |op: &&mut legacy::Op| op.obj == ObjectId::Root && op.action == OpType::Delete;
    let mut found = false;
    for op in expanded.operations.iter_mut().filter(is_removal) {
        let Key::Map(key) = &op.key else { continue };
        let values = content::at_key(&open.doc, key);
        let Some((scalar, _)) = values.last() else { continue };
        op.action = OpType::Put(scalar.clone());
        op.pred = values.iter().map(|(_, (counter, actor))| legacy::OpId(*counter, actor.to_automerge())).collect();
        found = true;
    }
    if found { Change::from(expanded) } else { change }
}

/// A document as the writer of an edit sees it.
struct Seen<'a> {
    open: &'a Open<'a>,
    visible: bool,
}

impl Seen<'_> {
    fn write_field(&self, transaction: &mut Transaction<'_>, field: &Field, edit: &Edit) -> Result<(), Failure> {
        let null = Json::Null;
        let given = match edit.fields.get(&field.name) {
            Some(given) => given,
            None if edit.intent == Intent::Patch => return Ok(()),
            None if field.kind == FieldType::Counter && self.visible => return Ok(()),
            None => &null,
        };
        let object = content::container(self.open.key, field.id);
        let done = match field.kind {
            FieldType::Text => text::write(transaction, (&object, &self.text(field)), given, self.visible),
            FieldType::List => list::write(transaction, (&object, &self.elements(field)), given, self.visible),
            FieldType::Counter => self.write_counter(transaction, field, given),
            FieldType::Int | FieldType::Float | FieldType::Bool | FieldType::Timestamp | FieldType::Json | FieldType::Bytes => {
                self.write_register(transaction, field, given)
            }
        };
        done.map_err(|wrong| match wrong {
            Wrong::Value(why) => EditError::BadValue { field: field.name.clone(), why }.into(),
            Wrong::Automerge(error) => automerge_failed(&error),
        })
    }

    fn text(&self, field: &Field) -> String {
        content::text(&self.open.doc, self.open.key, field.id)
    }

    fn elements(&self, field: &Field) -> Vec<ScalarValue> {
        content::elements(&self.open.doc, self.open.key, field.id)
    }

    fn write_register(&self, transaction: &mut Transaction<'_>, field: &Field, given: &Json) -> Result<(), Wrong> {
        let value = json::value_from_json(given, field.kind).map_err(|why| Wrong::Value(why.0))?;
        let key = field.id.get().to_string();
        let Some(scalar) = content::from_register(value, field.kind) else {
            return Ok(());
        };
        // What was never written is null.
        if scalar == ScalarValue::Null && !self.open.has_key(&key) {
            return Ok(());
        }
        transaction.put(ROOT, key, scalar).map_err(Wrong::Automerge)
    }

    /// A counter of a record that is not visible counts from zero: what its author sees is taken back.
    fn write_counter(&self, transaction: &mut Transaction<'_>, field: &Field, given: &Json) -> Result<(), Wrong> {
        let present = i128::from(content::counter(&self.open.doc, self.open.key, field.id));
        let step = match parse_counter(given).map_err(|why| Wrong::Value(why.0))? {
            CounterEdit::Add(step) if self.visible => i128::from(step),
            CounterEdit::Add(step) => i128::from(step) - present,
            CounterEdit::Set(number) => i128::from(number) - present,
        };
        let most = limits::COUNTER_STEP_MAX;
        match i64::try_from(step) {
            Ok(0) => Ok(()),
            Ok(step) if step.unsigned_abs() <= most => {
                transaction.increment(ROOT, field.id.get().to_string(), step).map_err(Wrong::Automerge)
            }
            _ => Err(Wrong::Value(format!("a counter of a document moves by at most {most} at once"))),
        }
    }
}

/// Why a field cannot be written.
#[derive(Debug)]
enum Wrong {
    /// The caller's value: what would do.
    Value(String),
    /// The document.
    Automerge(automerge::AutomergeError),
}

fn automerge_failed(error: &automerge::AutomergeError) -> Failure {
    Failure::Refused(Refusal::new(Code::CORRUPT_RECORD, format!("the stored document cannot be edited: {error}")))
}

fn put(transaction: &mut Transaction<'_>, key: &str, flag: bool) -> Result<(), Failure> {
    transaction.put(ROOT, key, flag).map_err(|error| automerge_failed(&error))
}

/// `[at, delete, insert]` of a `{"$splice": …}`, if that is what was given and it lies inside what is there.
fn splice(given: &Json, len: usize) -> Result<Option<(usize, usize, &Json)>, Wrong> {
    let Some(arguments) = command(given, "$splice") else {
        return Ok(None);
    };
    let shape = || Wrong::Value("{\"$splice\": [at, delete, insert]} takes two counts and what is inserted".to_owned());
    let count = |value: &Json| value.as_u64().and_then(|count| usize::try_from(count).ok());
    let [at, delete, insert] = arguments.as_array().map(Vec::as_slice).ok_or_else(shape)? else {
        return Err(shape());
    };
    let (at, delete) = (count(at).ok_or_else(shape)?, count(delete).ok_or_else(shape)?);
    match at.checked_add(delete) {
        Some(end) if end <= len => Ok(Some((at, delete, insert))),
        _ => Err(Wrong::Value(format!("the splice reaches past the end: there are {len}"))),
    }
}

/// The argument of an object with that one member.
fn command<'j>(given: &'j Json, name: &str) -> Option<&'j Json> {
    given.as_object().filter(|object| object.len() == 1)?.get(name)
}

/// What of `old` and `new` differs, without their common beginning and end: from where, how many go, and the end of what comes.
fn difference<T: PartialEq>(old: &[T], new: &[T]) -> (usize, usize, usize) {
    let start = old.iter().zip(new).take_while(|(old, new)| old == new).count();
    let rest = |items: &[T]| items.len() - start;
    let tail = old.iter().rev().zip(new.iter().rev()).take(rest(old).min(rest(new))).take_while(|(old, new)| old == new).count();
    (start, rest(old) - tail, new.len() - tail)
}

/// A list or text of the document, and what is in it.
type There<'a, T> = (&'a ObjId, &'a T);
