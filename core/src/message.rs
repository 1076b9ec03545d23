//! What a device and a hub say to each other. `mobo-protocol` spells these types in bytes; `protocol/SPEC.md` is their contract.

use crate::digest::Digest;
use crate::entry::Entry;
use crate::ids::{
    BootId, BucketId, Chain, CollectionId, DeviceId, Eid, Incarnation, Lane, Mac, Ordinal, Position, ProjectId, PublicKey, RecordId, Seq,
    Signature, Timeline, Ver,
};
use crate::schema::Collection;
use crate::time::{Eff, Moment, Mono};

/// One message of a session.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// Device → hub: who I am and what I have.
    Hello(Box<SignedHello>),
    /// Hub → device: you are admitted.
    Welcome(Box<Welcome>),
    /// Hub → device: start a new incarnation; your log is not the one that I know.
    Refence(Refence),
    /// Device → hub: entries of one lane.
    Push(Push),
    /// Hub → device: entries up to here are committed.
    Ack(Ack),
    /// Hub → device: your push does not continue what I have.
    Nack(Nack),
    /// Hub → device: this entry was refused; its position is used all the same.
    Reject(Reject),
    /// Device → hub: send me these buckets from here.
    Pull(Pull),
    /// Hub → device: what changed in one bucket.
    Batch(Batch),
    /// Hub → device: at these positions you hold what I hold.
    Checkpoint(Checkpoint),
    /// Device → hub: I have stored up to here.
    CursorAck(Vec<(BucketId, Position)>),
    /// Hub → device: you may read this bucket.
    Grant(Grant),
    /// Hub → device: you may no longer read this bucket.
    Revoke(BucketId),
    /// Hub → device: your cursor is older than what I keep; pull from the start, then sweep.
    Resync {
        /// The bucket.
        bucket: BucketId,
        /// Positions below are forgotten.
        floor: Position,
    },
    /// Hub → device: a resync ended here; what it did not name is gone.
    Sweep {
        /// The bucket.
        bucket: BucketId,
        /// Where it ended.
        to: Position,
    },
    /// Device → hub: send me these records as they are now.
    Fetch {
        /// Answers carry it.
        pull: u64,
        /// Which.
        records: Vec<(CollectionId, RecordId)>,
    },
    /// Either way: fingerprints of part of a bucket, to find where two nodes differ.
    Audit(Audit),
    /// Device → hub, on a new timeline: what I hold of this bucket (rule R18).
    Offer(Offer),
    /// Hub → device: the offer is joined.
    OfferAck(OfferAck),
    /// Hub → device: the collections as they are now.
    Schema(SchemaUpdate),
    /// Device → hub, on a new timeline: definitions that you may have lost (rule R18).
    SchemaOffer(SchemaUpdate),
    /// Device → hub: take me in.
    Enrol(Enrol),
    /// Hub → device: you are in.
    Enrolled(Enrolled),
    /// Either way: are you there?
    Ping(Ping),
    /// Either way: I am.
    Pong(Ping),
    /// Either way: what you sent cannot be done.
    Error(PeerError),
    /// Either way: I am leaving; not an error.
    Bye,
    /// A message of a later version that may be passed over.
    Ignored {
        /// Its type number.
        kind: u8,
    },
}

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
    /// The schema that the hub has; newer than the hello's means that a [`Message::Schema`] follows.
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

/// A request for what changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pull {
    /// Answers carry it.
    pub pull: u64,
    /// From where, for each bucket.
    pub wants: Vec<(BucketId, Position)>,
    /// Bytes that the hub may send before the next pull or cursor ack.
    pub credit_bytes: u32,
    /// True: keep sending what changes later, too.
    pub live: bool,
}

/// What changed in one bucket from one position to another.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The pull that it answers.
    pub pull: u64,
    /// Positions count on this timeline.
    pub timeline: Timeline,
    /// The bucket.
    pub bucket: BucketId,
    /// Accept iff this is the cursor.
    pub from: Position,
    /// The cursor afterwards.
    pub to: Position,
    /// The records, by position.
    pub items: Vec<Item>,
    /// How far the receiver's own lanes are merged in these rows, read in the same snapshot (rule R14).
    pub own_merged: Vec<(Lane, Incarnation, Seq)>,
    /// More follows at once.
    pub more: bool,
}

/// One record in a batch or an offer.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// The collection.
    pub collection: CollectionId,
    /// The record.
    pub id: RecordId,
    /// Its version.
    pub ver: Ver,
    /// What happened to it.
    pub body: ItemBody,
    /// The hub's MAC over project, key, timeline, version and state hash (rule R19); for a leave, over a hash of zeros.
    pub mac: Mac,
}

/// What happened to a record.
#[derive(Clone, Debug, PartialEq)]
pub enum ItemBody {
    /// Its whole state: a table row's canonical bytes, or `[epoch, saved document]`.
    State {
        /// The generation of a document; 0 for a row.
        epoch: u32,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// It left the bucket; nothing is said about its existence (rule R20).
    Leave,
}

/// The hub's word about its buckets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Checkpoint {
    /// The pull that it answers.
    pub pull: u64,
    /// Positions count on this timeline.
    pub timeline: Timeline,
    /// Position and digest of each bucket, read in one snapshot.
    pub heads: Vec<(BucketId, Position, Digest)>,
    /// How far the receiver's own lanes are merged in that snapshot.
    pub own_merged: Vec<(Lane, Incarnation, Seq)>,
    /// [`crate::trust::Statement::Checkpoint`], where the hub signed it.
    pub signature: Option<Signature>,
}

/// A bucket that a device may read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Grant {
    /// Its id.
    pub bucket: BucketId,
    /// Its label.
    pub key: String,
    /// True: the device may write there, too.
    pub write: bool,
}

/// Fingerprints of part of a bucket.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Audit {
    /// The bucket.
    pub bucket: BucketId,
    /// At this position.
    pub at: Position,
    /// Leading half-bytes of `blake3(collection ‖ id)` that select the part.
    pub prefix: Vec<u8>,
    /// The digest of each of its 16 parts.
    pub parts: Vec<Digest>,
}

/// What a device holds of a bucket, offered to a hub on a new timeline.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    /// The bucket.
    pub bucket: BucketId,
    /// The timeline on which the rows were delivered.
    pub timeline: Timeline,
    /// Rows, documents and tombstones with positions above the fork.
    pub rows: Vec<Item>,
    /// More follows.
    pub more: bool,
}

/// The answer to an offer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OfferAck {
    /// The bucket.
    pub bucket: BucketId,
    /// How many were joined.
    pub joined: u64,
    /// How many were quarantined for want of a valid MAC.
    pub refused: u64,
}

/// Collection definitions.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SchemaUpdate {
    /// Of which timeline.
    pub timeline: Timeline,
    /// The project's schema revision; reached when no more follows.
    pub rev: u64,
    /// The definitions that are new or changed.
    pub definitions: Vec<Definition>,
    /// More of this revision follows.
    pub more: bool,
}

/// The definition of one collection. Its bytes are kept, MACed, forwarded and offered verbatim.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Definition {
    /// The canonical bytes.
    pub bytes: Vec<u8>,
    /// What this version understands of them; `None` for a kind of a later version.
    pub collection: Option<Collection>,
    /// The hub's MAC over the bytes (rule R19).
    pub mac: Mac,
}

/// A request to enrol.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Enrol {
    /// The invitation's secret, good for one use.
    pub secret: Vec<u8>,
    /// The key that the device made.
    pub key: PublicKey,
    /// A label that the device proposes; the invitation's wins.
    pub name: String,
    /// [`crate::trust::Statement::Enrol`]: proves that the sender holds the key.
    pub signature: Signature,
}

/// The answer to an enrolment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Enrolled {
    /// The certificate: canonical bytes.
    pub certificate: Vec<u8>,
    /// The hub's signature over them.
    pub signature: Signature,
}

/// A sign of life, with both clocks for those that have none.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ping {
    /// The sender's boot; a pong repeats that of the ping.
    pub boot: BootId,
    /// The sender's `mono`; a pong repeats that of the ping.
    pub mono: Mono,
    /// The hub's time; 0 from a device.
    pub hub_time: Eff,
}

/// A refusal of a whole session or request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerError {
    /// For programs.
    pub code: Code,
    /// For people: what happened and what to do.
    pub detail: String,
    /// True: the session ends here.
    pub fatal: bool,
    /// Try again after this many milliseconds; 0 says nothing about it.
    pub retry_after_ms: u32,
}

/// Why something was refused. Numbers never change; one that this version does not know is kept as it is.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Code(pub u16);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        impl Code {
            $($(#[$doc])* pub const $name: Self = Self($number);)*

            /// The stable word for a code, as the CLI and the API print it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($number => $text,)*
                    _ => "unknown",
                }
            }
        }
    };
}

codes! {
    /// The frame or its content is not what the protocol says.
    MALFORMED = 1, "malformed";
    /// This version does not do that.
    UNSUPPORTED = 2, "unsupported";
    /// No common protocol version.
    VERSION = 3, "version";
    /// The other side is overloaded; `retry_after` says how long to wait.
    BUSY = 4, "busy";
    /// Something broke on the other side; trying again may help.
    INTERNAL = 5, "internal";
    /// The device was revoked.
    REVOKED = 10, "revoked";
    /// The hub does not know the device, and its certificate is not the hub's.
    UNKNOWN_DEVICE = 11, "unknown_device";
    /// A signature does not fit.
    BAD_SIGNATURE = 12, "bad_signature";
    /// Another project.
    WRONG_PROJECT = 13, "wrong_project";
    /// The invitation does not exist.
    TOKEN_INVALID = 14, "token_invalid";
    /// The invitation is too old.
    TOKEN_EXPIRED = 15, "token_expired";
    /// The invitation has been used.
    TOKEN_USED = 16, "token_used";
    /// The push does not start where the hub's lane ends.
    GAP = 20, "gap";
    /// The chain does not fit the entries.
    BROKEN_CHAIN = 21, "broken_chain";
    /// The payload cannot be read.
    BAD_PAYLOAD = 30, "bad_payload";
    /// No collection has that id.
    UNKNOWN_COLLECTION = 31, "unknown_collection";
    /// A value is not of its field's type.
    BAD_VALUE = 32, "bad_value";
    /// The device may not write that record.
    FORBIDDEN = 33, "forbidden";
    /// An automerge change is not what an honest author would make.
    BAD_CHANGE = 34, "bad_change";
    /// An automerge change by another author.
    FORGED_ACTOR = 35, "forged_actor";
    /// A change depends on one that is not here.
    MISSING_DEPENDENCY = 36, "missing_dependency";
    /// A change depends on one that was refused.
    BLOCKED = 37, "blocked";
    /// A generation of a document that does not exist here.
    BAD_EPOCH = 38, "bad_epoch";
    /// The entry is of an engine that this version does not have.
    UNKNOWN_ENGINE = 39, "unknown_engine";
    /// Larger than a limit allows.
    TOO_LARGE = 40, "too_large";
    /// The stored record does not match its own hash.
    CORRUPT_RECORD = 41, "corrupt_record";
    /// Merging it failed again and again.
    UNMERGEABLE = 42, "unmergeable";
    /// Re-authored after the hub forgot the original (rule R15).
    STALE_PROVENANCE = 43, "stale_provenance";
    /// The device dropped the payload under its quota.
    LOST = 44, "lost";
    /// The entry's collection is of another kind than its engine.
    WRONG_KIND = 45, "wrong_kind";
}

/// An entry's identity with where it sits; how the hub remembers it (rule R15).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EntryId {
    /// Its position.
    pub seq: Seq,
    /// Its identity.
    pub eid: Eid,
}
