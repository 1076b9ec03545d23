//! Edits of text, in characters.

use automerge::transaction::{Transactable, Transaction};
use serde_json::Value as Json;

use super::{There, Wrong, difference, splice};
use crate::limits;

/// Both sides of a difference may have this many characters together for the search of its parts, which takes time by their product.
const SEARCH_CHARS_MAX: usize = 2_048;

pub(super) fn write(transaction: &mut Transaction<'_>, (object, old): There<'_, String>, given: &Json, visible: bool) -> Result<(), Wrong> {
    let seen = if visible { old.as_str() } else { "" };
    if let Some((at, delete, insert)) = splice(given, seen.chars().count())? {
        let insert = insert.as_str().ok_or_else(|| Wrong::Value("a splice of text inserts text".to_owned()))?;
        check(seen.len() + insert.len(), insert)?;
        if visible {
            return transaction.splice_text(object, at, signed(delete), insert).map_err(Wrong::Automerge);
        }
        return replace(transaction, (object, old), insert);
    }
    match given {
        Json::Null => replace(transaction, (object, old), ""),
        Json::String(new) => {
            check(new.len(), new)?;
            replace(transaction, (object, old), new)
        }
        Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_) => {
            Err(Wrong::Value("takes text, or {\"$splice\": [at, delete, \"insert\"]} in characters".to_owned()))
        }
    }
}

fn check(len: usize, insert: &str) -> Result<(), Wrong> {
    if len > limits::VALUE_BYTES_MAX || insert.contains('\0') {
        return Err(Wrong::Value(format!("takes text of at most {} bytes without U+0000", limits::VALUE_BYTES_MAX)));
    }
    Ok(())
}

fn replace(transaction: &mut Transaction<'_>, (object, old): There<'_, String>, new: &str) -> Result<(), Wrong> {
    let (before, after): (Vec<char>, Vec<char>) = (old.chars().collect(), new.chars().collect());
    let (start, delete, end) = difference(&before, &after);
    let insert: String = after.iter().take(end).skip(start).collect();
    if delete == 0 && insert.is_empty() {
        return Ok(());
    }
    // Two edits at different places of one text stay two: what lies between is not taken away and put back.
    if delete > 0 && end > start && delete + (end - start) <= SEARCH_CHARS_MAX {
        return transaction.update_text(object, new).map_err(Wrong::Automerge);
    }
    transaction.splice_text(object, start, signed(delete), &insert).map_err(Wrong::Automerge)
}

fn signed(count: usize) -> isize {
    isize::try_from(count).unwrap_or(isize::MAX)
}
