//! What `status` and a health check answer.

use mobo_core::digest::Digest;
use mobo_core::ids::{BucketId, Incarnation, Lane, Position, RecordKey, Seq, Timeline};
use mobo_core::message::Grant;

/// A lane for `status`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LaneCount {
    /// The lane.
    pub lane: Lane,
    /// Its last position.
    pub last: Seq,
    /// Committed at the hub up to here.
    pub hub: Option<Seq>,
    /// In a verified backup up to here.
    pub safe: Option<Seq>,
}

/// A bucket for `status`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BucketCount {
    /// The bucket, its key, and whether it may be written.
    pub grant: Grant,
    /// Positions count on this timeline.
    pub timeline: Timeline,
    /// Read up to here.
    pub cursor: Position,
    /// The digest over what was delivered.
    pub digest: Digest,
    /// The last position at which hub and device agreed.
    pub checked: Position,
    /// How many times they did not, since they last did.
    pub diverged: u32,
    /// Records that a pull from the start has not named yet.
    pub unconfirmed: u64,
}

/// Numbers for `status`, read in one snapshot.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct EdgeCounts {
    /// Entries that the hub has not acknowledged.
    pub pending: u64,
    /// Visible records of all tables and documents.
    pub records: u64,
    /// Entries that the hub refused.
    pub rejected: u64,
    /// Entries in the outbox, acknowledged ones included.
    pub kept: u64,
    /// Their bytes.
    pub kept_bytes: u64,
    /// The lanes of the current log that hold something.
    pub lanes: Vec<LaneCount>,
    /// The buckets that it holds.
    pub buckets: Vec<BucketCount>,
}

/// An entry that the hub refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InboxRow {
    /// Its number, for `quarantine show`.
    pub n: u64,
    /// Its log.
    pub incarnation: Incarnation,
    /// Its lane.
    pub lane: Lane,
    /// Its position.
    pub seq: Seq,
    /// The record, where one is to blame.
    pub record: Option<RecordKey>,
    /// Why, for programs.
    pub code: u16,
    /// Why, for people.
    pub detail: String,
    /// When it was heard, in microseconds since 1970 UTC by this device's clock.
    pub at_us: i64,
}

/// What a health check finds.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct EdgeAudit {
    /// What SQLite says of its file, where something is wrong with it.
    pub file: Option<String>,
    /// The chain of each of its lanes, recomputed from the kept entries: the first position at which it does not hold.
    pub lanes: Vec<(Incarnation, Lane, Option<Seq>)>,
    /// For each bucket, the digest as stored and as recomputed from the rows.
    pub buckets: Vec<(BucketId, Digest, Digest)>,
    /// Records whose row does not fit its own hash, at most [`mobo_core::limits::AUDIT_DAMAGED_MAX`] of them.
    pub damaged: Vec<RecordKey>,
}

impl EdgeAudit {
    /// True if nothing was found.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.file.is_none()
            && self.damaged.is_empty()
            && self.lanes.iter().all(|(_, _, broken_at)| broken_at.is_none())
            && self.buckets.iter().all(|(_, stored, computed)| stored == computed)
    }
}
