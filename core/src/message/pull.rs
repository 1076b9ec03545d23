//! What a hub delivers, and how it is checked: pulls, batches, checkpoints, offers, definitions.

use crate::digest::Digest;
use crate::ids::{BucketId, CollectionId, Incarnation, Lane, Mac, Position, RecordId, Seq, Signature, Timeline, Ver};
use crate::schema::Collection;
use crate::stamp::Stamp;
use crate::time::Eff;

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
    /// True: rows that entries of the puller made may be named in place of spelled, as [`Batch::own`] does.
    pub takes_own: bool,
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
    /// Decisions of merges about the records of `items` that nobody has settled, newest first, read in the same snapshot: of each of these
    /// records, all that is open, or as much as there is room for. For people, and outside digests.
    pub decisions: Vec<Decision>,
    /// Rows beside `items` that the receiver has made and can make again.
    pub own: Option<Box<OwnRows>>,
}

/// Rows of a batch that are what one put of the receiver's own made them, each: named by that put, because the receiver has it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OwnRows {
    /// The log whose lane of state has the puts.
    pub incarnation: Incarnation,
    /// [`Sameness`](crate::table::own::Sameness) of all of them at the hub: a receiver that makes others has to ask for them whole.
    pub sameness: [u8; 16],
    /// By position.
    pub runs: Vec<OwnRun>,
}

/// Rows that lie beside each other in a bucket, and whose puts do in an entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OwnRun {
    /// How many records of the batch, items and rows, come before it.
    pub place: u32,
    /// The entry.
    pub seq: Seq,
    /// The operation that made the first row; the next one made the next.
    pub op: u32,
    /// The version of each.
    pub ver: Ver,
    /// The MAC of each, as of an [`Item`].
    pub macs: Vec<Mac>,
}

impl OwnRows {
    /// How many rows these are.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.runs.iter().map(|run| run.macs.len()).sum()
    }

    /// What they count for the credit of a pull, which is about states: their MACs.
    #[must_use]
    pub fn credit_bytes(&self) -> u64 {
        (self.rows() * size_of::<Mac>()) as u64
    }
}

/// A decision of a merge (rule R12), as a device is told of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Decision {
    /// The collection.
    pub collection: CollectionId,
    /// The record.
    pub id: RecordId,
    /// The field's id; 0 for the record as a whole.
    pub field: u64,
    /// [`crate::engine::ConflictKind::code`]; others are of later versions.
    pub kind: u8,
    /// Who lost, and when that was written.
    pub loser_stamp: Stamp,
    /// The value that lost, as JSON; `None` for the record as a whole, and where it is longer than
    /// [`DECISION_VALUE_BYTES_MAX`](crate::limits::DECISION_VALUE_BYTES_MAX).
    pub loser: Option<String>,
    /// Who won, and when that was written.
    pub winner_stamp: Stamp,
    /// The value that won, likewise.
    pub winner: Option<String>,
    /// When it was decided.
    pub at: Eff,
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
