//! What changes while devices are in the field: their rights, the rules of collections, the fate of refused entries.

use std::sync::Arc;

use super::QuarantineRow;
use crate::ids::{CollectionId, DeviceId, ProjectId, Timeline};
use crate::merge::Hint;
use crate::schema::Schema;
use crate::time::Eff;

/// A batch of records to be placed by their collection's new rules.
#[derive(Clone, Debug)]
pub struct RebucketBatch {
    /// The project.
    pub project: ProjectId,
    /// Its collections.
    pub schema: Arc<Schema>,
    /// The hub's history.
    pub timeline: Timeline,
    /// The hub's time.
    pub now: Eff,
    /// Random bytes.
    pub entropy: [u8; 32],
    /// Visit at most so many records.
    pub records_max: usize,
}

/// What a hub looks at from time to time, because another one may have changed it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Elsewhere {
    /// A number for each device, another one when its rights are others or it was revoked. None for one that is not there.
    pub rights: Vec<(DeviceId, u64)>,
    /// The buckets as they are now.
    pub heads: Vec<Hint>,
}

/// How far a collection's records are placed by its new rules.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rebucketing {
    /// The collection.
    pub collection: CollectionId,
    /// The rules before, by which records that were not visited yet are still placed.
    pub rules: Vec<String>,
    /// Records that were visited.
    pub done: u64,
    /// Of those, records that changed their buckets.
    pub moved: u64,
    /// Records that there were when the rules changed. Later ones are placed right by themselves.
    pub total: u64,
}

/// What one batch of re-bucketing did, once committed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rebucketed {
    /// How far it is.
    pub progress: Rebucketing,
    /// True if the last record was visited: nothing is left to do for this collection.
    pub finished: bool,
    /// Buckets that changed.
    pub hints: Vec<Hint>,
}

/// What became of a refused entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum QuarantineStatus {
    /// It waits for somebody to decide.
    Open,
    /// It was tried again, and merged.
    Retried,
    /// An operator let it go.
    Dropped,
}

impl QuarantineStatus {
    /// The number in SQL.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Open => 0,
            Self::Retried => 1,
            Self::Dropped => 2,
        }
    }

    /// The status for a number.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
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

/// A refused entry with all that is kept of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct QuarantinedEntry {
    /// Where it is from and why it was refused.
    pub row: QuarantineRow,
    /// What became of it.
    pub status: QuarantineStatus,
    /// When it was retried or dropped; `None` while it is open.
    pub settled: Option<Eff>,
    /// The refused entry that this one builds on; `None` where it was refused for itself.
    pub blocked_by: Option<u64>,
    /// Open entries that were refused because they build on this one.
    pub blocks: Vec<u64>,
    /// The sealed header.
    pub header: Vec<u8>,
    /// The payload.
    pub payload: Vec<u8>,
}
