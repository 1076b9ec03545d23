//! How a session begins: hello, welcome, refence.

use super::Grant;
use crate::ids::{BucketId, Chain, DeviceId, Incarnation, Lane, Ordinal, Position, ProjectId, Seq, Signature, Timeline};
use crate::time::{Eff, Moment};

/// An ability, as a bit of [`Hello::features`]: a hub takes the tails of logs that a device has left behind (rule R22).
pub const FORMER_LOGS: u64 = 1;

/// A hello with the signature over its very bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SignedHello {
    /// The decoded hello.
    pub hello: Hello,
    /// The bytes that were signed; they travel verbatim.
    pub bytes: Vec<u8>,
    /// The device's signature: [`crate::trust::Statement::Hello`].
    pub signature: Signature,
}

/// Who a device is and what it has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hello {
    /// Oldest protocol spoken.
    pub proto_min: u32,
    /// Newest protocol spoken.
    pub proto_max: u32,
    /// Optional abilities, one bit each.
    pub features: u64,
    /// Its project.
    pub project: ProjectId,
    /// Its id.
    pub device: DeviceId,
    /// Its log.
    pub incarnation: Incarnation,
    /// The log that this one continues, and where it forked off (rule R4).
    pub parent: Option<Parent>,
    /// The hub's number for this incarnation, if a hub gave one: a restored hub takes it back.
    pub ordinal: Option<Ordinal>,
    /// The last session generation that a hub gave it, with the timeline that it was given on (rule R17).
    pub session: Option<(Timeline, u64)>,
    /// Random bytes.
    pub nonce: [u8; 16],
    /// Its lanes, only those that hold something.
    pub lanes: Vec<LaneReport>,
    /// Its buckets and how far it has read each.
    pub buckets: Vec<BucketReport>,
    /// The schema that it knows.
    pub schema_rev: u64,
    /// Now, by its clocks.
    pub now: Moment,
    /// Longest frame body that it takes.
    pub frame_bytes_max: u32,
    /// Its certificate: canonical bytes and the hub's signature over them.
    pub certificate: (Vec<u8>, Signature),
    /// The last signed checkpoint of a hub, [`crate::trust::checkpoint_bytes`] and signature: it proves to a restored hub that it has
    /// forgotten something (rule R17).
    pub checkpoint: Option<(Vec<u8>, Signature)>,
    /// The latest effective time of its entries that a hub has told it of, kept or not: what a restored hub decides now comes after it (rule R7).
    pub told: Option<Eff>,
}

/// Where an incarnation forked off its parent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Parent {
    /// The parent.
    pub incarnation: Incarnation,
    /// The last entry of the parent's state lane that the new log continues; `None` when it had none.
    pub seq: Option<Seq>,
}

/// One lane, as its device has it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LaneReport {
    /// Which.
    pub lane: Lane,
    /// Its last position.
    pub last: Seq,
    /// The chain there.
    pub chain: Chain,
    /// The last signed ack of a hub: it proves to a restored hub that it has forgotten something (rule R17).
    pub proof: Option<AckProof>,
}

/// A hub's signed word about a lane, as the device keeps it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AckProof {
    /// The timeline on which it was given.
    pub timeline: Timeline,
    /// Merged up to here.
    pub acked: Seq,
    /// The chain there.
    pub chain: Chain,
    /// [`crate::trust::Statement::Ack`].
    pub signature: Signature,
}

/// How far a device has read a bucket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BucketReport {
    /// Which.
    pub bucket: BucketId,
    /// Positions count on this timeline.
    pub timeline: Timeline,
    /// Read up to here.
    pub cursor: Position,
}

/// A timeline and where it comes from (rule R17).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TimelineInfo {
    /// The current one.
    pub timeline: Timeline,
    /// Its ancestors, nearest first.
    pub parents: Vec<TimelineParent>,
}

/// An ancestor of a timeline.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TimelineParent {
    /// Which.
    pub timeline: Timeline,
    /// How far each bucket had got when the next timeline forked off.
    pub heads: Vec<(BucketId, Position)>,
}

/// Admission.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Welcome {
    /// The protocol of this session.
    pub proto: u32,
    /// The abilities that both have.
    pub features: u64,
    /// The hub's history.
    pub timeline: TimelineInfo,
    /// The generation of this session.
    pub session: u64,
    /// The hub's number for the device's incarnation (rule R5).
    pub ordinal: Ordinal,
    /// The hub's time now (rule R6).
    pub hub_time: Eff,
    /// What the hub has of the device's lanes.
    pub lanes: Vec<LaneStatus>,
    /// The buckets that the device may read.
    pub grants: Vec<Grant>,
    /// Buckets that it listed and may not read any more.
    pub revokes: Vec<BucketId>,
    /// The schema that the hub has; newer than the hello's means that a [`Message::Schema`](super::Message::Schema) follows.
    pub schema_rev: u64,
    /// Longest frame body that the hub takes.
    pub frame_bytes_max: u32,
    /// The pause after which a silent peer is pinged.
    pub keepalive_ms: u32,
    /// True while a restored hub still collects what the fleet holds.
    pub recovering: bool,
}

/// What a hub has of one lane.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LaneStatus {
    /// Which.
    pub lane: Lane,
    /// Merged up to here; `None` for nothing.
    pub last: Option<Seq>,
    /// The chain there.
    pub chain: Chain,
    /// In a verified backup up to here.
    pub safe: Option<Seq>,
    /// Bytes that the device may have in flight on this lane.
    pub credit_bytes: u32,
    /// When the last entry was made, as this hub has decided it (rule R7); `None` where it does not say.
    pub eff: Option<Eff>,
}

/// An order to start a new incarnation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refence {
    /// The lane on which the logs differ.
    pub lane: Lane,
    /// What the hub has.
    pub hub_last: Option<Seq>,
    /// The hub's chain at positions that the device may hold: the longest common prefix counts as acked.
    pub chains: Vec<(Seq, Chain)>,
    /// Why.
    pub reason: RefenceReason,
    /// What the hub had of the log when it closed it; absent where the device has had its word for that in this session.
    pub closed: Option<Closed>,
}

/// What a hub has of a log that it closes at a hello.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Closed {
    /// The hub's timeline: what was acknowledged on another one, it may have lost (rule R17).
    pub timeline: Timeline,
    /// Of each lane the last position that both have, and the hub's chain there.
    pub shared: Vec<(Lane, Seq, Chain)>,
}

/// Why a hub orders a new incarnation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RefenceReason {
    /// The device has less than the hub: an older image, or a lost tail.
    Behind,
    /// The device's chain differs: somebody else wrote under this identity.
    Forked,
    /// The session generation is older than the last confirmed one: this image was restored or cloned while idle.
    StaleSession,
}
