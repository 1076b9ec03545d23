//! Which decisions a merge took (rule R12): registers where two writers did not know of each other, and writes that a delete hides.
//!
//! The stamp of the operation that is being merged is known. Of a rival only its automerge operation is: who, which change, which
//! operation. A rival's stamp says that: ordinal 0, which no log has, the actor in the device's place, and no time. The hub knows the stamp
//! of every change that it has merged and puts it in the place of a rival's ([`rival`]), so that a write has one stamp on the ledger.

use super::actor::{Actor, ChangeId};
use super::content::{self, DELETED, OpId};
use super::guard::Touched;
use super::history::Node;
use super::open::Open;
use crate::engine::{Conflict, ConflictKind};
use crate::ids::{DeviceId, FieldId, Ordinal, Seq};
use crate::stamp::{Origin, Stamp};
use crate::time::Eff;
use crate::value::Value;

/// One merged change, with the stamp of the operation that brought it.
#[derive(Debug)]
pub(super) struct Fresh {
    /// Its index in the history.
    pub(super) index: usize,
    /// Its author.
    pub(super) actor: Actor,
    /// What it did.
    pub(super) touched: Touched,
    /// When and by whom.
    pub(super) stamp: Stamp,
}

/// The decisions of a merge; `hidden_before`: whether a delete hid the record before it.
pub(super) fn found(open: &Open<'_>, fresh: &[Fresh], hidden_before: bool) -> Vec<Conflict> {
    let mut conflicts = Vec::new();
    for change in fresh {
        for (field, counter) in &change.touched.registers {
            conflicts.extend(overwritten(open, change, *field, *counter));
        }
        conflicts.extend(if change.touched.delete.is_some() { hides(open, change, hidden_before) } else { hidden(open, change) });
    }
    // Several changes of one entry that a delete hides, or that hide the same write, are one decision.
    conflicts.dedup_by(|a, b| a.field.is_none() && b.field.is_none() && (a.loser == b.loser || a.winner == b.winner));
    conflicts
}

/// The change that a rival's stamp is of; `None` for the stamp of a merged entry.
#[must_use]
pub fn rival(stamp: &Stamp) -> Option<ChangeId> {
    (stamp.ordinal == RIVAL).then_some(ChangeId { actor: Actor(stamp.device.0), seq: stamp.seq.get() })
}

/// The log among `origins` whose changes are by that actor.
#[must_use]
pub fn origin_of(actor: Actor, mut origins: impl Iterator<Item = Origin>) -> Option<Origin> {
    origins.find(|origin| Actor::of(*origin) == actor)
}

/// The ordinal of a stamp whose device is an automerge actor. Logs are counted from 1.
const RIVAL: Ordinal = Ordinal(0);

fn stamp_of(node: &Node, counter: u64) -> Stamp {
    Stamp {
        eff: Eff(0),
        device: DeviceId(node.actor.0),
        ordinal: RIVAL,
        seq: Seq::new(node.seq).unwrap_or(Seq::FIRST),
        op: u32::try_from(counter).unwrap_or(u32::MAX),
    }
}

/// The values that stand beside the one that `change` wrote to a register: the last one is read, the others lost.
fn overwritten(open: &Open<'_>, change: &Fresh, field: FieldId, counter: u64) -> Vec<Conflict> {
    let kind = open.collection.field_by_id(field).map(|field| field.kind);
    let values = content::at_key(&open.doc, &field.get().to_string());
    let own: OpId = (counter, change.actor);
    let (Some((_, winner)), Some((mine, _))) = (values.last(), values.iter().find(|(_, id)| *id == own)) else {
        return Vec::new();
    };
    let side = |(scalar, (counter, actor)): &(automerge::ScalarValue, OpId)| {
        let stamp = match open.history.holder(*actor, *counter) {
            _ if (*counter, *actor) == own => change.stamp,
            Some((_, node)) => stamp_of(node, *counter),
            None => return None,
        };
        Some((stamp, content::register(scalar, kind)))
    };
    let decided = |(loser, winner): ((Stamp, Value), (Stamp, Value))| Conflict {
        field: Some(field),
        kind: ConflictKind::Concurrent,
        loser: loser.0,
        loser_value: loser.1,
        winner: winner.0,
        winner_value: winner.1,
    };
    let others = values.iter().filter(|(scalar, id)| *id != own && scalar != mine);
    let concerned = others.filter(|(_, id)| *winner == own || id == winner);
    let both = concerned.filter_map(|other| {
        let (other, own) = (side(other)?, side(values.iter().find(|(_, id)| *id == own)?)?);
        Some(if *winner == (counter, change.actor) { (other, own) } else { (own, other) })
    });
    both.map(decided).collect()
}

/// A write that a delete hides whose author did not know of it.
fn hidden(open: &Open<'_>, change: &Fresh) -> Option<Conflict> {
    let deleted = automerge::ScalarValue::Boolean(true);
    let flags = content::at_key(&open.doc, DELETED).into_iter().filter(|(flag, _)| *flag == deleted);
    let seen = open.history.seen_from(&[change.index]);
    let deletes = flags.filter_map(|(_, (counter, actor))| Some((counter, open.history.holder(actor, counter)?)));
    let mut unseen = deletes.filter(|(_, (index, _))| seen.get(*index).is_none_or(|seen| !seen));
    let (counter, (_, node)) = unseen.next()?;
    Some(whole(change.stamp, stamp_of(node, counter)))
}

/// The latest write that a delete hides without its author having known of it.
fn hides(open: &Open<'_>, change: &Fresh, hidden_before: bool) -> Option<Conflict> {
    if hidden_before {
        return None;
    }
    let seen = open.history.seen_from(&[change.index]);
    let earlier = (0..change.index).rev().filter(|index| seen.get(*index).is_none_or(|seen| !seen));
    let mut authored = earlier.filter_map(|index| open.history.node(index)).filter(|node| open.container(node.actor).is_none());
    let node = authored.next()?;
    Some(whole(stamp_of(node, *node.counters.end()), change.stamp))
}

fn whole(loser: Stamp, winner: Stamp) -> Conflict {
    Conflict { field: None, kind: ConflictKind::HiddenByDelete, loser, loser_value: Value::Null, winner, winner_value: Value::Null }
}
