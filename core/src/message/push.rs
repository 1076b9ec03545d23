//! What a device sends up, and what it is told of it: pushes, acks, nacks, rejects.

use super::Code;
use crate::entry::Entry;
use crate::ids::{Chain, CollectionId, DeviceId, Incarnation, Lane, RecordId, Seq, Signature, Ver};
use crate::time::Eff;

/// Entries of one lane, in order and without gaps.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Push {
    /// Which lane.
    pub lane: Lane,
    /// Which log.
    pub incarnation: Incarnation,
    /// The position of the first entry.
    pub first: Seq,
    /// The chain before it.
    pub prev_chain: Chain,
    /// The entries.
    pub entries: Vec<PushedEntry>,
    /// The chain after the last.
    pub head_chain: Chain,
    /// [`crate::trust::Statement::Push`] over the head.
    pub signature: Signature,
    /// The author, where a relay forwards somebody else's entries.
    pub on_behalf: Option<DeviceId>,
}

/// An entry in a push.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PushedEntry {
    /// The sealed bytes.
    pub entry: Entry,
    /// The effective time that a hub decided earlier, when this is a re-push (rule R7).
    pub eff: Option<Eff>,
}

/// Commitment: these entries are merged, quarantined or on record as lost.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ack {
    /// Which lane.
    pub lane: Lane,
    /// Which log.
    pub incarnation: Incarnation,
    /// Committed up to here.
    pub acked: Seq,
    /// The chain there.
    pub chain: Chain,
    /// In a verified backup up to here.
    pub safe: Option<Seq>,
    /// Bytes that the device may have in flight.
    pub credit_bytes: u32,
    /// The position of the first of `effs`.
    pub eff_first: Seq,
    /// The effective time of each entry of the push that is answered (rule R7).
    pub effs: Vec<Eff>,
    /// [`crate::trust::Statement::Ack`].
    pub signature: Signature,
}

/// A push that does not fit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Nack {
    /// Which lane.
    pub lane: Lane,
    /// Which log.
    pub incarnation: Incarnation,
    /// The position that the hub expects next.
    pub expect: Seq,
    /// Why.
    pub code: Code,
}

/// An entry that was refused. It is kept in the hub's quarantine; neighbours are not affected.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reject {
    /// Which lane.
    pub lane: Lane,
    /// Which log.
    pub incarnation: Incarnation,
    /// Which entry.
    pub seq: Seq,
    /// Why, for programs.
    pub code: Code,
    /// Why, for people, and what to do.
    pub detail: String,
    /// The record, where one is to blame.
    pub record: Option<(CollectionId, RecordId)>,
    /// The record's version at the hub.
    pub hub_ver: Ver,
}
