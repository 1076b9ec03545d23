//! Edits of lists.

use automerge::ScalarValue;
use automerge::transaction::{Transactable, Transaction};
use serde_json::Value as Json;

use super::{There, Wrong, command, difference, splice};
use crate::document::content;
use crate::limits;

pub(super) fn write(
    transaction: &mut Transaction<'_>,
    (object, old): There<'_, Vec<ScalarValue>>,
    given: &Json,
    visible: bool,
) -> Result<(), Wrong> {
    let len = if visible { old.len() } else { 0 };
    // A record that a delete hides begins again: whatever is put in replaces what is there.
    let (start, delete, insert) = match (splice(given, len)?, command(given, "$push")) {
        (Some((at, delete, insert)), _) if visible => (at, delete, items(insert)?),
        (None, Some(pushed)) if visible => (len, 0, items(pushed)?),
        (Some((_, _, insert)), _) | (None, Some(insert)) => replacement(old, items(insert)?),
        (None, None) if given.is_null() => replacement(old, Vec::new()),
        (None, None) => replacement(old, items(given)?),
    };
    if old.len() - delete + insert.len() > limits::LIST_LEN_MAX {
        return Err(Wrong::Value(format!("a list holds at most {} items", limits::LIST_LEN_MAX)));
    }
    if delete == 0 && insert.is_empty() {
        return Ok(());
    }
    let delete = isize::try_from(delete).unwrap_or(isize::MAX);
    transaction.splice(object, start, delete, insert).map_err(Wrong::Automerge)
}

/// The smallest splice that makes `new` of `old`.
fn replacement(old: &[ScalarValue], new: Vec<ScalarValue>) -> (usize, usize, Vec<ScalarValue>) {
    let (start, delete, end) = difference(old, &new);
    (start, delete, new.into_iter().take(end).skip(start).collect())
}

fn items(given: &Json) -> Result<Vec<ScalarValue>, Wrong> {
    let shape = || {
        Wrong::Value(format!(
            "takes an array, {{\"$push\": […]}} or {{\"$splice\": [at, delete, […]]}}, of items of at most {} bytes without U+0000",
            limits::VALUE_BYTES_MAX
        ))
    };
    given.as_array().ok_or_else(shape)?.iter().map(|item| content::from_item(item).ok_or_else(shape)).collect()
}
