//! What the hub does with a batch of entries: one pure function in four steps.
//!
//! A store calls the steps between its own "lock and read" and "write back" (replication.md part E), each on what the step before asked
//! for, and each read in a statement of its own **after** the locks:
//!
//! ```text
//! prepare(…)            outside the transaction: signature, chain, decoding
//! Merge::new            → wants lanes      lock lanes, read them
//! Merge::admit          → wants records    lock records, read them
//! Admitted::apply       → wants buckets    lock buckets, read them (last: every merge meets here), and stamps of rivals
//! Applied::place        → Writes, Outcome  write, commit, then tell
//! ```
//! Nothing here knows a clock or a database: two stores, the simulator and the tests run the same code.

pub mod admit;
pub mod apply;
pub mod joining;
mod local;
mod parts;
pub mod place;
pub mod prepare;
mod rebucket;
mod retry;
mod rights;
pub mod time;

pub use admit::{Admitted, LaneReads, LaneState, LaneWants, Merge};
pub use apply::{Applied, Membership, Stored};
pub use joining::{Joined, Joining, Offered, RefusedOffer};
pub use place::{BucketState, BucketWants, Placed, Rivals};
pub use prepare::{Prepared, PreparedEntry, prepare_push};
pub(crate) use retry::tally_log;
pub use retry::{KeptEntry, Retried, Retry};
pub use rights::{Change, Grants, Rights};

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::author::{Edit, EditError};
use crate::digest::Digest;
use crate::document::ChangeId;
use crate::engine::Conflict;
use crate::ids::{
    BootId, BucketId, Chain, CollectionId, DeviceId, Eid, FieldId, Incarnation, Lane, LaneKey, Nonce, Position, ProjectId, RecordKey, Seq,
    Signature, StateHash, Timeline, Ver,
};
use crate::message::{Code, RefenceReason, Reject};
use crate::record::RecordState;
use crate::rights::Bounds;
use crate::schema::Schema;
use crate::stamp::Stamp;
use crate::stream::Segment;
use crate::time::{Eff, Moment, Mono};
use crate::value::Value;

/// What holds for a whole batch.
#[derive(Clone, Debug)]
pub struct Context<'a> {
    /// The project.
    pub project: ProjectId,
    /// Its collections.
    pub schema: &'a Schema,
    /// The hub's history.
    pub timeline: Timeline,
    /// The hub's time (rule R6).
    pub now: Eff,
    /// Random bytes, from which the batch draws ids of new buckets.
    pub entropy: [u8; 32],
    /// True while devices give back what the hub has lost (rule R18): of a record that it does not know, it does not know much.
    pub recovering: bool,
}

/// A write through the hub's own API: authored by the hub, with the record locked.
#[derive(Clone, Debug)]
pub struct LocalWrite {
    /// The hub's lane for this kind of collection.
    pub lane: LaneKey,
    /// Which collection.
    pub collection: CollectionId,
    /// What to do.
    pub body: LocalBody,
    /// The hub's clocks.
    pub moment: Moment,
    /// Fresh for each write.
    pub nonce: Nonce,
    /// The user, where one is known.
    pub author: Option<String>,
    /// What that user may do to the rows; `None` for whoever no policy binds.
    pub bounds: Option<Arc<Bounds>>,
}

impl LocalWrite {
    /// Its edits, each with its collection and the version that its writer says to have seen; none for samples.
    pub(crate) fn edits(&self) -> impl Iterator<Item = (CollectionId, &Edit, Option<Ver>)> {
        let (own, seen): (&[Edit], &[SeenEdit]) = match &self.body {
            LocalBody::Edits(edits) => (edits, &[]),
            LocalBody::Seen(edits) => (&[], edits),
            LocalBody::Append(_) => (&[], &[]),
        };
        let own = own.iter().map(|edit| (self.collection, edit, None));
        own.chain(seen.iter().map(|seen| (seen.collection, &seen.edit, seen.seen)))
    }
}

/// What a local write does.
#[derive(Clone, Debug)]
pub enum LocalBody {
    /// Edits records; all or nothing.
    Edits(Vec<Edit>),
    /// Edits records of any collections of one lane, as somebody wrote them who may not have seen the latest; all or nothing.
    Seen(Vec<SeenEdit>),
    /// Appends samples.
    Append(Segment),
}

/// An edit, and what its writer had seen.
#[derive(Clone, Debug)]
pub struct SeenEdit {
    /// The collection.
    pub collection: CollectionId,
    /// What to do.
    pub edit: Edit,
    /// The version of the record that the writer read, where it says so: what was merged later, it did not know (rule R24).
    pub seen: Option<Ver>,
}

/// What became of one submission, in the order of submission.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Committed with the batch.
    Merged(Merged),
    /// It does not continue the lane.
    Nack {
        /// The position that would.
        expect: Seq,
        /// Why.
        code: Code,
    },
    /// Somebody else wrote this lane: a new incarnation is due.
    Refence {
        /// What the hub has.
        hub_last: Option<Seq>,
        /// Why.
        reason: RefenceReason,
    },
    /// A local write that cannot be done; nothing of it happened.
    Refused(EditError),
}

/// A submission that was committed.
#[derive(Clone, Debug, PartialEq)]
pub struct Merged {
    /// The lane's last position now.
    pub acked: Seq,
    /// The chain there.
    pub chain: Chain,
    /// The position of the first of `effs`.
    pub eff_first: Seq,
    /// Effective times of the submission's entries, known ones included (rule R7).
    pub effs: Vec<Eff>,
    /// Entries that went to quarantine.
    pub rejects: Vec<Reject>,
    /// Records that a local write changed; edits that changed nothing are not here.
    pub changed: Vec<RecordKey>,
}

impl Writes {
    /// How many decisions go into the ledger, by collection.
    #[must_use]
    pub fn decided(&self) -> BTreeMap<CollectionId, u64> {
        let mut decided = BTreeMap::new();
        for write in &self.conflicts {
            *decided.entry(write.key.collection).or_default() += 1;
        }
        decided
    }
}

/// Everything that one batch changes. A store writes it in the transaction that holds the locks.
#[derive(Debug, Default)]
pub struct Writes {
    /// Records, each once, ascending by key.
    pub records: Vec<RecordWrite>,
    /// Memberships beyond first buckets, and leaves.
    pub members: Vec<MemberWrite>,
    /// Buckets.
    pub buckets: Vec<BucketState>,
    /// Lanes.
    pub lanes: Vec<LaneWrite>,
    /// Entries, for identity and history.
    pub entries: Vec<EntryWrite>,
    /// Stream entries, whose samples become rows.
    pub samples: Vec<SampleWrite>,
    /// Refused entries.
    pub quarantine: Vec<QuarantineWrite>,
    /// New changes of documents.
    pub changes: Vec<ChangeWrite>,
    /// Decisions to be seen.
    pub conflicts: Vec<ConflictWrite>,
    /// Refused entries that were tried again.
    pub retried: Vec<Retried>,
    /// Fields that were written by somebody who knew what there was: open decisions about them are settled by it.
    pub settled: Vec<SettledWrite>,
}

/// Where a record's row is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// Nowhere: it was never written.
    Absent,
    /// In its collection's table.
    Visible,
    /// Among the hidden.
    Hidden,
}

/// A record's new state.
#[derive(Debug)]
pub struct RecordWrite {
    /// Which.
    pub key: RecordKey,
    /// Where its row was before.
    pub before: Place,
    /// Its state.
    pub state: RecordState,
    /// The hash of it.
    pub state_hash: StateHash,
    /// Its version.
    pub ver: Ver,
    /// Its columns, in the order of the collection's fields; `None` when it is hidden.
    pub columns: Option<Vec<Value>>,
    /// Its first bucket and its position there.
    pub home: Option<(BucketId, Position)>,
}

/// A membership beyond the first bucket, or a leave.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MemberWrite {
    /// The bucket.
    pub bucket: BucketId,
    /// The record.
    pub key: RecordKey,
    /// `None`: the bucket is the record's first now, and its row says the rest.
    pub at: Option<(Position, bool)>,
}

/// A lane after the batch.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LaneWrite {
    /// Which.
    pub key: LaneKey,
    /// Its last position.
    pub last: Seq,
    /// The chain there.
    pub chain: Chain,
    /// Effective time of the last entry.
    pub eff: Eff,
    /// Boot and mono of the last entry, where its header could be read.
    pub clock: Option<(BootId, Mono)>,
    /// The author's word for the prefix up to here; absent for the hub's own, and where a push is merged in pieces: the last word stands.
    pub signature: Option<Signature>,
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EntryOutcome {
    /// Merged.
    Merged,
    /// Refused and kept.
    Quarantined,
    /// Its device had dropped the payload.
    Lost,
    /// Merged before, under its provenance.
    Known,
}

impl EntryOutcome {
    /// The number in SQL.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Merged => 0,
            Self::Quarantined => 1,
            Self::Lost => 2,
            Self::Known => 3,
        }
    }
}

/// An entry on record.
#[derive(Clone, Debug)]
pub struct EntryWrite {
    /// Its lane.
    pub lane: LaneKey,
    /// Its position.
    pub seq: Seq,
    /// Its identity; `None` when lost.
    pub eid: Option<Eid>,
    /// The identity of its first sealing, where it was authored again.
    pub origin: Option<Eid>,
    /// The chain after it.
    pub chain: Chain,
    /// Its effective time.
    pub eff: Eff,
    /// What became of it.
    pub outcome: EntryOutcome,
    /// The sealed bytes.
    pub prepared: Arc<PreparedEntry>,
}

/// Samples to be written as rows.
#[derive(Clone, Debug)]
pub struct SampleWrite {
    /// The author's lane.
    pub lane: LaneKey,
    /// The entry.
    pub seq: Seq,
    /// Effective time of the entry; sample `i` was taken `before_us[i]` earlier.
    pub eff: Eff,
    /// The samples.
    pub segment: Segment,
}

/// A refused entry.
#[derive(Clone, Debug)]
pub struct QuarantineWrite {
    /// Its lane.
    pub lane: LaneKey,
    /// What its device is told.
    pub reject: Reject,
    /// The sealed bytes.
    pub prepared: Arc<PreparedEntry>,
}

/// A change of a document, and when and by whom it was made: what later conflicts and people are told of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ChangeWrite {
    /// The record.
    pub key: RecordKey,
    /// The change.
    pub change: ChangeId,
    /// The stamp of the operation that brought it.
    pub stamp: Stamp,
}

/// A field of a row that was written by somebody who had seen the row at a version: what was decided about it up to then is settled.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SettledWrite {
    /// The record.
    pub key: RecordKey,
    /// The field; `None` for the record as a whole.
    pub field: Option<FieldId>,
    /// What the writer had seen.
    pub seen: Ver,
}

/// A decision on record.
#[derive(Clone, Debug)]
pub struct ConflictWrite {
    /// The record.
    pub key: RecordKey,
    /// The record's version after the merge.
    pub ver: Ver,
    /// The decision.
    pub conflict: Conflict,
}

/// What a bucket looks like after the batch: what a hint says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hint {
    /// The bucket.
    pub bucket: BucketId,
    /// Its head.
    pub head: Position,
    /// Its digest.
    pub digest: Digest,
}

/// The author of the hub's own writes: its key's id and the incarnation of its log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HubAuthor {
    /// The hub as a device.
    pub device: DeviceId,
    /// Its log.
    pub incarnation: Incarnation,
}

impl HubAuthor {
    /// Its lane.
    #[must_use]
    pub fn lane(&self, lane: Lane) -> LaneKey {
        LaneKey { device: self.device, incarnation: self.incarnation, lane }
    }
}
