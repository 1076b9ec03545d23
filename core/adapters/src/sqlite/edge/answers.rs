//! What the device's store is told, and what it answers.

use std::collections::BTreeSet;

use mobo_core::author::EditError;
use mobo_core::ids::{
    BucketId, Chain, CollectionId, DeviceId, Incarnation, Lane, Ordinal, Position, ProjectId, PublicKey, RecordKey, Seq, Signature,
    Timeline, Ver,
};
use mobo_core::limits;
use mobo_core::message::{BucketReport, LaneReport, Parent, PushedEntry, TimelineInfo};
use mobo_core::record::RecordState;
use mobo_core::store::StoreError;
use mobo_core::stream::BadSegment;
use mobo_core::time::Eff;

use crate::sqlite::error::Failure;

/// Whose device this is, and what proves it: written once, when it joins.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// Its project.
    pub project: ProjectId,
    /// Its id.
    pub device: DeviceId,
    /// The key of the hub that took it in.
    pub hub_key: PublicKey,
    /// Where that hub is, in the order in which to try.
    pub hub_addresses: Vec<String>,
    /// Its certificate: canonical bytes.
    pub certificate: Vec<u8>,
    /// The hub's signature over them.
    pub certificate_signature: Signature,
}

/// What the device knows of itself besides its records.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Node {
    /// Whose it is; `None` before it has joined.
    pub identity: Option<Identity>,
    /// Its log; `None` before it has joined.
    pub incarnation: Option<Incarnation>,
    /// The log that it continues; `None` for a first one.
    pub parent: Option<Parent>,
    /// The hub's number for its log; `None` until a hub has met it.
    pub ordinal: Option<Ordinal>,
    /// The hub's history as of the last welcome; `None` before the first.
    pub timeline: Option<TimelineInfo>,
    /// The last session generation, with the timeline that it was given on.
    pub session: Option<(Timeline, u64)>,
    /// The schema that it has whole; 0 for none.
    pub schema_rev: u64,
    /// What the machine looked like when the log was started; `None` until it is noted.
    pub fingerprint: Option<Vec<u8>>,
}

/// What a hello says of the store, read in one snapshot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The device itself.
    pub node: Node,
    /// The lanes of its log that hold something.
    pub lanes: Vec<LaneReport>,
    /// Its buckets.
    pub buckets: Vec<BucketReport>,
    /// The last signed checkpoint.
    pub checkpoint: Option<(Vec<u8>, Signature)>,
    /// The latest time at which a hub has said that an entry of this device was made.
    pub told: Option<Eff>,
}

/// A local write that is on disk: ack level `local`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Written {
    /// Its entry; `None` when nothing would have changed, so that there is none.
    pub entry: Option<Sealed>,
    /// The records that it changes.
    pub changed: Vec<RecordKey>,
}

/// Where an entry was sealed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sealed {
    /// The log.
    pub incarnation: Incarnation,
    /// The lane.
    pub lane: Lane,
    /// Its position.
    pub seq: Seq,
    /// The chain after it.
    pub chain: Chain,
}

/// Why a local write did not happen; nothing of it did.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum WriteError {
    /// The edit cannot be done as it is.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// The samples cannot be sealed as they are.
    #[error(transparent)]
    Segment(#[from] BadSegment),
    /// The entry would be larger than an entry may be.
    #[error("this write takes {bytes} bytes in {ops} operations, and one entry holds {max} bytes and {ops_max} operations: split it",
        max = limits::ENTRY_PAYLOAD_BYTES_MAX, ops_max = limits::ENTRY_OPS_MAX)]
    TooLarge {
        /// Bytes of its payload.
        bytes: usize,
        /// Its operations.
        ops: usize,
    },
    /// One record would be larger than a record may be.
    #[error("\"{id}\" would take {bytes} bytes, and a record holds {max}", max = limits::ROW_STATE_BYTES_MAX)]
    RecordTooLarge {
        /// The record.
        id: String,
        /// Bytes of its state.
        bytes: usize,
    },
    /// There is no such collection here.
    #[error("this device does not know the collection {0}: it learns of it when it has met its hub")]
    UnknownCollection(CollectionId),
    /// Edits of a stream, or samples for something else.
    #[error("\"{collection}\" is a {kind}: {instead}")]
    WrongKind {
        /// The collection.
        collection: String,
        /// Its kind.
        kind: &'static str,
        /// What would do.
        instead: &'static str,
    },
    /// The device has no log to write in yet.
    #[error("this device has not joined a hub yet: run `mobo-edge join TOKEN`")]
    NotJoined,
    /// The stored record is not what was written.
    #[error("the stored record \"{0}\" is damaged: run `mobo-edge health check`")]
    Damaged(String),
    /// The store could not.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Entries to push.
#[derive(Clone, Debug, PartialEq)]
pub struct Outgoing {
    /// The log.
    pub incarnation: Incarnation,
    /// The position of the first.
    pub first: Seq,
    /// The chain before it.
    pub prev_chain: Chain,
    /// The entries, with the effective times that a hub decided earlier.
    pub entries: Vec<PushedEntry>,
    /// The chain after the last.
    pub head_chain: Chain,
}

/// The entries behind a position.
#[derive(Clone, Debug, PartialEq)]
pub enum Pending {
    /// There are none.
    Nothing,
    /// These.
    Entries(Outgoing),
    /// The hub is further back than what is kept (rule R21): pushing cannot go on from there. The first position that is kept.
    Trimmed(Seq),
}

/// What an ack did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Acknowledged {
    /// The lane is committed further than before.
    Advanced,
    /// It tells nothing new.
    Known,
    /// It is for entries that this log does not have, or for other ones in their place: the identity is used twice.
    Foreign,
}

/// How much of the outbox is kept past what the hub has made safe (rule R21).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Keep {
    /// Entries that were sealed longer ago go.
    pub age_us: u64,
    /// The oldest go while there are more bytes.
    pub bytes_max: u64,
}

impl Default for Keep {
    fn default() -> Self {
        Self { age_us: u64::try_from(limits::OUTBOX_KEEP.as_micros()).unwrap_or(u64::MAX), bytes_max: limits::OUTBOX_KEEP_BYTES_MAX }
    }
}

/// What a welcome did.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Admitted {
    /// The buckets that the device holds, and where to pull them from.
    pub cursors: Vec<(BucketId, Position)>,
    /// By lane, the first entry that the hub has and whose effective time this device never learned, because its ack was lost: pushed
    /// again from there on, they are acknowledged again with what the hub decided (rule R7).
    pub undecided: Vec<(Lane, Seq)>,
    /// What comes before any pull, where the hub is on a new timeline (rule R18).
    pub moved: Option<mobo_core::recover::Moved>,
    /// A lane on which the hub has other entries than this log, or more: the identity is used twice, and a new log is due.
    pub forked: Option<Lane>,
    /// Records whose rows changed because a bucket may not be read any more.
    pub changed: Vec<RecordKey>,
}

/// What an applied batch changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Applied {
    /// The bucket's cursor now.
    pub cursor: Position,
    /// The records whose rows may have changed.
    pub changed: Vec<RecordKey>,
    /// The lanes that have got entries: own ones that did not fit what was delivered, written again on it.
    pub appended: BTreeSet<Lane>,
    /// Where the bucket is pulled again because its digest was not the hub's: the records that were held at the same version, and differed.
    pub differed: Vec<RecordKey>,
}

/// Why a batch was not applied; nothing of it was.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ApplyError {
    /// It does not continue what the device has: a duplicate, a gap, or of another history. Pull from the cursor.
    #[error("the batch does not continue the bucket: {0}")]
    Mismatch(Mismatch),
    /// It holds a record that the known schema cannot read: get the schema first, then pull again.
    #[error("record \"{}\" cannot be read with the schema that this device has: {why}", key.id)]
    NeedsSchema {
        /// The record.
        key: RecordKey,
        /// What cannot be read.
        why: String,
    },
    /// It names rows that this device does not make of its own entries: pull again from the cursor, with all rows spelled out.
    #[error("the hub named rows in place of sending them: {0}")]
    NeedsSpelling(String),
    /// The store could not.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// In what a batch and a bucket differ.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Mismatch {
    /// The device does not hold that bucket.
    #[error("this device does not hold bucket {0}")]
    Bucket(BucketId),
    /// It is not offered yet to a hub that has gone back in time.
    #[error("bucket {0} is not offered to the hub yet")]
    Unoffered(BucketId),
    /// Positions of another history.
    #[error("it counts on timeline {batch}, the bucket on {bucket}")]
    Timeline {
        /// The batch's.
        batch: Timeline,
        /// The bucket's.
        bucket: Timeline,
    },
    /// It starts elsewhere.
    #[error("it starts at {}, the cursor is {}", from.0, cursor.0)]
    Cursor {
        /// Where the batch starts.
        from: Position,
        /// Where the bucket is.
        cursor: Position,
    },
}

/// How a bucket stands against the hub's word.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// At that position, with that digest.
    Equal,
    /// Not at that position, or beside a bucket that is not: nothing can be said yet.
    Behind,
    /// At that position with another digest. The bucket is reset: pull it from the start.
    Diverged,
    /// The same after a pull from the start: that did not help. What that pull did not name is kept and the bucket goes on from its
    /// cursor; the next welcome has it pulled from the start once more.
    Disputed,
}

/// What a checkpoint showed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Compared {
    /// Each bucket that this device holds; one that the checkpoint does not name is behind.
    pub buckets: Vec<(BucketId, Standing)>,
    /// Records whose rows changed: what a complete pull did not name is gone, and so are writes that the hub merged into other buckets.
    pub changed: Vec<RecordKey>,
    /// The lanes that have got entries: own ones that the hub refused for want of what they build on, written again.
    pub appended: BTreeSet<Lane>,
}

impl From<Failure> for WriteError {
    fn from(failure: Failure) -> Self {
        Self::Store(failure.into())
    }
}

impl From<Failure> for ApplyError {
    fn from(failure: Failure) -> Self {
        Self::Store(failure.into())
    }
}

impl Compared {
    /// True if every bucket is at the hub's head and equal.
    #[must_use]
    pub fn equal(&self) -> bool {
        self.buckets.iter().all(|(_, standing)| *standing == Standing::Equal)
    }

    /// The buckets that differ even after a pull from the start.
    #[must_use]
    pub fn disputed(&self) -> Vec<BucketId> {
        self.buckets.iter().filter(|(_, standing)| *standing == Standing::Disputed).map(|(bucket, _)| *bucket).collect()
    }

    /// The buckets to pull again from the start.
    #[must_use]
    pub fn diverged(&self) -> Vec<BucketId> {
        self.buckets.iter().filter(|(_, standing)| *standing == Standing::Diverged).map(|(bucket, _)| *bucket).collect()
    }
}

/// What became of a log that was closed (rule R15).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refenced {
    /// The new log.
    pub incarnation: Incarnation,
    /// Entries of the old one that count as acknowledged by the common prefix.
    pub settled: u64,
    /// Entries that were authored again.
    pub reauthored: u64,
    /// Entries that change nothing any more on what the device sees, and payloads that are lost: superseded without a successor.
    pub dropped: u64,
    /// Entries of which something could not be authored again: it is in the inbox, for somebody to decide.
    pub lost: u64,
}

/// A record as this device shows it.
#[derive(Clone, Debug)]
pub struct Record {
    /// The version that the hub delivered last; `Ver(0)` for none.
    pub ver: Ver,
    /// What is shown: the delivered state with the device's own pending operations laid over it.
    pub state: RecordState,
    /// True while operations of this device's own are not in a delivered state.
    pub pending: bool,
    /// True if it is here only for these: no bucket of this device holds it any more, or none ever will.
    pub detached: bool,
}

/// Something that was committed on this device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// A lane has a new entry.
    LaneAppended(Lane),
    /// The hub has spoken about entries of a lane: it has them, they are safe, or it refused one.
    LaneSettled(Lane),
    /// Rows have changed, by a local write or by the hub.
    RecordsChanged(std::sync::Arc<[RecordKey]>),
    /// Collections have changed.
    SchemaChanged,
    /// The hub has said who may use the device's API.
    AccessChanged,
}
