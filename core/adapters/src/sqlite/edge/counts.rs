//! What `status` and a health check answer.

use mobo_core::author::Edit;
use mobo_core::digest::Digest;
use mobo_core::ids::{BucketId, CollectionId, Incarnation, Lane, Position, RecordKey, Seq, Timeline};
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

/// What was dropped of a stream for want of room, before the hub had it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LossCount {
    /// The stream.
    pub collection: CollectionId,
    /// Samples; those that were thinned away included.
    pub samples: u64,
    /// The entries that they were in.
    pub entries: u64,
}

/// Numbers for `status`, read in one snapshot.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct EdgeCounts {
    /// Entries that the hub has not acknowledged.
    pub pending: u64,
    /// Visible records of all tables and documents.
    pub records: u64,
    /// Entries that the hub refused and nobody has decided about.
    pub rejected: u64,
    /// Rows written by SQL that could not be taken in and were put back, as far as they are on record.
    pub sql_refused: u64,
    /// Records that are here only for own edits which the hub does not have yet: no bucket of this device holds them. At most
    /// [`mobo_core::limits::LIST_ROWS`] of them.
    pub detached: Vec<RecordKey>,
    /// Entries in the outbox, acknowledged ones included.
    pub kept: u64,
    /// Their bytes.
    pub kept_bytes: u64,
    /// Bytes of the database that hold something.
    pub used_bytes: u64,
    /// What was dropped for want of room.
    pub losses: Vec<LossCount>,
    /// The lanes of the current log that hold something.
    pub lanes: Vec<LaneCount>,
    /// The buckets that it holds.
    pub buckets: Vec<BucketCount>,
}

/// An entry that the hub refused.
#[derive(Clone, Debug, PartialEq)]
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
    /// What became of it.
    pub status: InboxStatus,
    /// When it was tried again or let go, by the same clock; `None` while it is open.
    pub settled_us: Option<i64>,
    /// What it did; `None` for samples, and for what cannot be read.
    pub edits: Option<Vec<RefusedEdit>>,
    /// The refused entry that it builds on, by its number.
    pub blocked_by: Option<u64>,
    /// The entry that it was authored again as.
    pub next: Option<(Incarnation, Lane, Seq)>,
}

/// What became of an entry that the hub refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum InboxStatus {
    /// It waits for somebody to decide.
    Open,
    /// It was authored again.
    Retried,
    /// Somebody let it go.
    Dropped,
}

impl InboxStatus {
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Open => 0,
            Self::Retried => 1,
            Self::Dropped => 2,
        }
    }

    pub(super) const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Open),
            1 => Some(Self::Retried),
            2 => Some(Self::Dropped),
            _ => None,
        }
    }

    /// The word for people.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Retried => "retried",
            Self::Dropped => "dropped",
        }
    }
}

/// What a refused entry did to one record, as somebody would write it.
#[derive(Clone, Debug, PartialEq)]
pub struct RefusedEdit {
    /// The collection.
    pub collection: CollectionId,
    /// The edit.
    pub edit: Edit,
}

/// A UNIQUE index on the table of a collection: two devices may well write what it takes only once, and then no merge gets past it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Obstacle {
    /// The table.
    pub table: String,
    /// The index.
    pub index: String,
}

impl std::fmt::Display for Obstacle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { table, index } = self;
        write!(
            f,
            "the index \"{index}\" of {table} is UNIQUE, and what is merged elsewhere may not fit it: sync stops there. Run DROP INDEX \"{index}\", \
             make a plain index instead, and let the id say what must be there only once"
        )
    }
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
