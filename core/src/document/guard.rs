//! The wall around automerge: a change passes only if it is, byte for byte, what an honest author would have made.
//!
//! automerge believes what it is given: it panics on some changes, saves documents that it cannot load on others, and a few bytes can cost
//! it gigabytes. So nothing reaches it that was not checked here first, against the document that it is for:
//!
//! 1. the envelope, by our own hand: size, hash, one uncompressed change, its actor, no time, no message, no extra bytes ([`envelope`]);
//! 2. what its columns claim to hold, before they are unpacked ([`scan`]);
//! 3. its place: known dependencies, the author's next position, the one operation counter that follows from both;
//!    only then does automerge parse it;
//! 4. each operation: a known container or a register, its predecessors exactly what the author saw ([`ops`]);
//! 5. its encoding: written again, it gives the same bytes.
//!
//! A whole document comes from outside only when a device gives it back: [`whole`] looks at that one.

mod envelope;
mod ops;
mod scan;
mod whole;

use automerge::Change;

use self::envelope::Envelope;
use self::scan::Unfit;
use super::actor::Actor;
use super::open::Open;
use super::state::too_large;
use crate::engine::Refusal;
use crate::limits;
use crate::message::Code;

pub(super) use self::ops::Touched;
pub(super) use self::whole::{check as check_whole, heads, is_document};

/// What the guard says of a change that it does not refuse.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The document holds it already: nothing is to be done (rule R16).
    Known,
    /// It may be applied.
    Fresh(Box<Fresh>),
}

/// A change that may be applied to the document that it was checked against, and to no other.
#[derive(Debug)]
pub(super) struct Fresh {
    /// The change.
    pub(super) change: Change,
    /// Its author.
    pub(super) actor: Actor,
    /// What it does.
    pub(super) touched: Touched,
}

/// Checks a change against the document that it is for. `author` is the actor that it must be by; without one, any but a genesis.
///
/// Call it inside [`contained`](super::state::contained): automerge's own decoding is part of it.
///
/// # Errors
///
/// A [`Refusal`] with [`Code::TOO_LARGE`], [`Code::FORGED_ACTOR`], [`Code::MISSING_DEPENDENCY`] or [`Code::BAD_CHANGE`].
pub(super) fn check(open: &Open<'_>, bytes: &[u8], author: Option<Actor>) -> Result<Verdict, Refusal> {
    if bytes.len() > limits::CHANGE_BYTES_MAX {
        let detail = format!("a change has {} bytes; the most is {}; split the write", bytes.len(), limits::CHANGE_BYTES_MAX);
        return Err(Refusal::new(Code::TOO_LARGE, detail));
    }
    let envelope = envelope::read(bytes).map_err(bad)?;
    if crate::protect!("change.known", open.history.position(&envelope.hash).is_some()) {
        return Ok(Verdict::Known);
    }
    check_author(open, &envelope, author)?;
    let count = scan::count_ops(&envelope.columns).map_err(|unfit| match unfit {
        Unfit::Malformed(what) => bad(what),
        Unfit::TooMany => {
            Refusal::new(Code::TOO_LARGE, format!("a change has more than {} operations; split the write", limits::CHANGE_OPS_MAX))
        }
    })?;
    check_place(open, &envelope, count)?;
    let change = Change::try_from(bytes).map_err(|error| bad(&error.to_string()))?;
    let expanded = change.decode();
    if expanded.operations.len() as u64 != count {
        return Err(bad("its columns are not of one length"));
    }
    let touched = ops::check(open, &expanded, envelope.actor)?;
    if Change::from(expanded).raw_bytes() != bytes {
        return Err(bad("it is not in its one encoding"));
    }
    Ok(Verdict::Fresh(Box::new(Fresh { change, actor: envelope.actor, touched })))
}

/// True if the document holds this change.
pub(super) fn is_held(open: &Open<'_>, bytes: &[u8]) -> bool {
    envelope::read(bytes).is_ok_and(|envelope| open.history.position(&envelope.hash).is_some())
}

fn bad(what: &str) -> Refusal {
    Refusal::new(Code::BAD_CHANGE, format!("no author makes such a change: {what}"))
}

fn check_author(open: &Open<'_>, envelope: &Envelope<'_>, author: Option<Actor>) -> Result<(), Refusal> {
    let forged = author.is_some_and(|author| author != envelope.actor) || open.container(envelope.actor).is_some();
    if forged {
        return Err(Refusal::new(Code::FORGED_ACTOR, "a change is not by the log that its entry is in"));
    }
    Ok(())
}

/// What it builds on, and the position and counters that follow from that.
fn check_place(open: &Open<'_>, envelope: &Envelope<'_>, count: u64) -> Result<(), Refusal> {
    let history = &open.history;
    let deps = envelope.deps.iter().map(|dep| history.position(dep)).collect::<Option<Vec<_>>>().ok_or_else(|| {
        Refusal::new(Code::MISSING_DEPENDENCY, "a change builds on one that is not here; it was refused, or lost, or is still on its way")
    })?;
    let last = history.last_of(envelope.actor);
    if envelope.seq != last.map_or(1, |(_, node)| node.seq + 1) {
        return Err(bad("it is not its author's next one: perhaps this log was cloned"));
    }
    if last.is_some_and(|(index, _)| !deps.contains(&index)) {
        return Err(bad("its author had not seen their own last one"));
    }
    let below: Vec<usize> = deps.iter().filter_map(|dep| history.node(*dep)).flat_map(|node| node.deps.iter().copied()).collect();
    let below = history.seen_from(&below);
    let is_below = |dep: &usize| below.get(*dep).is_some_and(|below| *below);
    // An author names the heads that it saw and its own last change, nothing else.
    if deps.iter().any(|dep| is_below(dep) && last.is_none_or(|(index, _)| index != *dep)) {
        return Err(bad("it names a dependency that another one covers"));
    }
    let highest = deps.iter().filter_map(|dep| history.node(*dep)).map(|node| *node.counters.end()).max().unwrap_or(0);
    if envelope.start_op != highest + 1 || count == 0 {
        return Err(bad("its operations do not follow what its author had seen"));
    }
    if highest + count > limits::DOCUMENT_OP_COUNTER_MAX || history.ops() + count > limits::DOCUMENT_OPS_MAX {
        return Err(too_large("operations", limits::DOCUMENT_OPS_MAX));
    }
    if history.len() >= limits::DOCUMENT_CHANGES_MAX {
        return Err(too_large("changes", limits::DOCUMENT_CHANGES_MAX as u64));
    }
    Ok(())
}
