//! What a document was: every change that it holds, and its row after each of them.

use std::collections::{BTreeMap, BTreeSet};

use automerge::{Automerge, ChangeHash};

use super::actor::{Actor, ChangeId};
use super::content;
use super::open::Open;
use super::state::{Document, contained};
use crate::engine::Refusal;
use crate::message::Code;
use crate::schema::Collection;
use crate::stamp::Stamp;
use crate::time::Eff;
use crate::value::Value;

/// A change of a document.
#[derive(Clone, Debug, PartialEq)]
pub struct Past {
    /// Which.
    pub change: ChangeId,
    /// Its hash: the name of the version that it made.
    pub hash: [u8; 32],
    /// Who made it, and when; `None` for one that was merged before stamps were kept, or that an offer brought.
    pub stamp: Option<Stamp>,
    /// The row before it.
    pub before: Option<Vec<Value>>,
    /// The row after it; `None` while a delete hid the record.
    pub after: Option<Vec<Value>>,
}

/// A moment in the life of a document.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Point {
    /// After everything that was made up to then.
    Time(Eff),
    /// After the change whose hash, as hex, begins so.
    Version(String),
}

/// A change on the way: in which order people see it, and what it builds on.
struct Step {
    order: Eff,
    hash: ChangeHash,
    deps: Vec<ChangeHash>,
    /// `None` for the genesis of a field, which nobody has made.
    id: Option<ChangeId>,
}

/// The last changes of a document, or the last ones behind the change of that name: at most so many, newest first. They follow each other by
/// when they were made; one that builds on another is behind it, whatever the clocks said. `None` where there is no such change.
///
/// # Errors
///
/// A [`Refusal`] with [`Code::CORRUPT_RECORD`] when the document cannot be loaded.
pub fn changes(
    collection: &Collection,
    document: &Document,
    stamps: &BTreeMap<ChangeId, Stamp>,
    (behind, most): (Option<&str>, usize),
) -> Result<Option<Vec<Past>>, Refusal> {
    let found = looked(collection, document, stamps, |open, steps| {
        let place = |name: &str| steps.iter().position(|step| step.id.is_some() && hex(&step.hash.0) == name);
        let Some(until) = behind.map_or(Some(steps.len()), place) else { return Ok(None) };
        let mut found: Vec<Past> = Vec::new();
        for (index, step) in steps.iter().enumerate().take(until).rev() {
            let Some(change) = step.id else { continue };
            if found.len() >= most {
                break;
            }
            // What the later one found is what this one left.
            let after = match found.last() {
                Some(later) => later.before.clone(),
                None => row_of(open, steps.get(..=index).unwrap_or_default())?,
            };
            let before = row_of(open, steps.get(..index).unwrap_or_default())?;
            found.push(Past { change, hash: step.hash.0, stamp: stamps.get(&change).copied(), before, after });
        }
        Ok(Some(found))
    })?;
    Ok(found.unwrap_or_else(|| behind.is_none().then(Vec::new)))
}

/// The row of a document at a moment: `Ok(None)` for a version that it never had, `Some(None)` while it was not visible.
///
/// # Errors
///
/// As [`changes`].
pub fn at(
    collection: &Collection,
    document: &Document,
    stamps: &BTreeMap<ChangeId, Stamp>,
    point: &Point,
) -> Result<Option<Option<Vec<Value>>>, Refusal> {
    let found = looked(collection, document, stamps, |open, steps| match point {
        Point::Time(time) => {
            let until = steps.partition_point(|step| step.order <= *time);
            row_of(open, steps.get(..until).unwrap_or_default()).map(Some)
        }
        Point::Version(prefix) => {
            let named = |step: &&Step| step.id.is_some() && hex(&step.hash.0).starts_with(prefix.as_str());
            let mut found = steps.iter().filter(named);
            match (found.next(), found.next()) {
                (Some(step), None) => row_at(open, &[step.hash]).map(Some),
                _ => Ok(None),
            }
        }
    })?;
    Ok(found.unwrap_or(Some(None)))
}

/// The name of a version.
#[must_use]
pub fn hex(hash: &[u8; 32]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn looked<T>(
    collection: &Collection,
    document: &Document,
    stamps: &BTreeMap<ChangeId, Stamp>,
    look: impl FnOnce(&Open<'_>, &[Step]) -> Result<T, Refusal>,
) -> Result<Option<T>, Refusal> {
    let Some(key) = document.key.as_ref().filter(|_| !document.saved.is_empty()) else { return Ok(None) };
    contained(Code::CORRUPT_RECORD, || {
        let open = Open::bare(collection, key, document)?;
        let steps = steps(&open, stamps);
        look(&open, &steps).map(Some)
    })
}

/// The changes in the order in which people see them: by time, and each behind what it builds on.
fn steps(open: &Open<'_>, stamps: &BTreeMap<ChangeId, Stamp>) -> Vec<Step> {
    let mut orders: BTreeMap<ChangeHash, Eff> = BTreeMap::new();
    let mut steps: Vec<Step> = Vec::new();
    for meta in open.doc.get_changes_meta(&[]) {
        let actor = Actor::from_automerge(&meta.actor).filter(|actor| open.container(*actor).is_none());
        let id = actor.map(|actor| ChangeId { actor, seq: meta.seq });
        let own = id.and_then(|id| stamps.get(&id)).map_or(Eff(i64::MIN), |stamp| stamp.eff);
        let order = meta.deps.iter().filter_map(|dep| orders.get(dep)).copied().fold(own, Eff::max);
        orders.insert(meta.hash, order);
        steps.push(Step { order, hash: meta.hash, deps: meta.deps.to_vec(), id });
    }
    // Stable: what automerge gives is in an order of dependencies.
    steps.sort_by_key(|step| step.order);
    steps
}

fn row_of(open: &Open<'_>, steps: &[Step]) -> Result<Option<Vec<Value>>, Refusal> {
    let built_on: BTreeSet<ChangeHash> = steps.iter().flat_map(|step| step.deps.iter().copied()).collect();
    let heads: Vec<ChangeHash> = steps.iter().map(|step| step.hash).filter(|hash| !built_on.contains(hash)).collect();
    row_at(open, &heads)
}

fn row_at(open: &Open<'_>, heads: &[ChangeHash]) -> Result<Option<Vec<Value>>, Refusal> {
    if heads.is_empty() {
        return Ok(None);
    }
    let gone = |error: automerge::AutomergeError| Refusal::new(Code::CORRUPT_RECORD, format!("an old version cannot be read: {error}"));
    let then: Automerge = open.doc.fork_at(heads).map_err(gone)?;
    Ok(content::row(&then, open.collection, open.key))
}
