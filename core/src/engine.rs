//! The trait that every kind of record merges through. The log and the transports never look inside a payload; an engine does.
//!
//! Two engines exist: [`crate::table::TableEngine`] and [`crate::document::DocumentEngine`]. Streams need none: their identity is
//! (device, incarnation, lane, position, index), and nothing ever changes.

use std::collections::BTreeSet;

use crate::document::ChangeId;
use crate::ids::{DeviceId, FieldId, Incarnation, Ordinal, Seq, StateHash, Ver};
use crate::message::Code;
use crate::schema::Collection;
use crate::stamp::{Origin, Stamp};
use crate::time::Eff;
use crate::value::Value;

/// Who wrote an entry, and what the hub knows of that author.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Author {
    /// The device, or the hub itself.
    pub device: DeviceId,
    /// Its log.
    pub incarnation: Incarnation,
    /// The hub's number for that log.
    pub ordinal: Ordinal,
    /// The numbers of the logs that this one continues. What they wrote, this author has seen.
    pub ancestors: BTreeSet<Ordinal>,
}

impl Author {
    /// Whose tally its increments go to.
    #[must_use]
    pub fn origin(&self) -> Origin {
        Origin { device: self.device, incarnation: self.incarnation }
    }

    /// True if `stamp` was made by this author or by a log that it continues (rule R12).
    #[must_use]
    pub fn has_made(&self, stamp: &Stamp) -> bool {
        stamp.device == self.device && (stamp.ordinal == self.ordinal || self.ancestors.contains(&stamp.ordinal))
    }
}

/// The entry whose operations are applied, as far as an engine needs it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Applying<'a> {
    /// Its author.
    pub author: &'a Author,
    /// Its position.
    pub seq: Seq,
    /// The version that the record gets by this merge.
    pub ver: Ver,
    /// Where the effective time was clamped into an interval, that interval (rule R5).
    pub uncertain: Option<(Eff, Eff)>,
    /// True if the `base_ver`s of the entry count on this hub's timeline.
    pub same_timeline: bool,
    /// True for the log of the hub, which many people write through: that an earlier write is in it as well says nothing of what this one's
    /// author had seen, and its `base_ver` does (rule R24).
    pub is_shared: bool,
}

impl Applying<'_> {
    /// True if the author of an operation with `base_ver` had seen what was merged at `ver`.
    #[must_use]
    pub fn has_seen(&self, base_ver: Ver, ver: Ver) -> bool {
        self.same_timeline && ver <= base_ver
    }
}

/// An operation and the stamp that the hub decided for it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stamped<'a, Op> {
    /// The operation.
    pub op: &'a Op,
    /// Its stamp.
    pub stamp: Stamp,
}

/// Why an operation cannot be applied. Its entry goes to quarantine as a whole; the record stays as it was.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{}: {detail}", code.name())]
pub struct Refusal {
    /// For programs.
    pub code: Code,
    /// For people: what is wrong and what to do.
    pub detail: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }
}

/// What kind of decision a merge took.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum ConflictKind {
    /// Two writers wrote different values without having seen each other's.
    Concurrent,
    /// A write was hidden by a delete whose author, or whose victim, had not seen the other.
    HiddenByDelete,
    /// As `Concurrent`, and the device's clock leaves open which came first.
    TimeUncertain,
}

impl ConflictKind {
    /// The number in SQL.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Concurrent => 1,
            Self::HiddenByDelete => 2,
            Self::TimeUncertain => 3,
        }
    }
}

/// A decision of a merge that somebody may want to see (rule R12). Key: record, field, loser.
#[derive(Clone, Debug, PartialEq)]
pub struct Conflict {
    /// The field; `None` for the record as a whole.
    pub field: Option<FieldId>,
    /// What kind.
    pub kind: ConflictKind,
    /// The write that lost.
    pub loser: Stamp,
    /// Its value.
    pub loser_value: Value,
    /// The write that won.
    pub winner: Stamp,
    /// Its value.
    pub winner_value: Value,
}

/// What a merge did besides the new state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Merged {
    /// The decisions that it took. The stamp of a document's rival is only a name ([`crate::document::conflict::rival`]).
    pub conflicts: Vec<Conflict>,
    /// The changes that a document did not have, with the stamp of the operation that brought each; none for a row.
    pub changes: Vec<(ChangeId, Stamp)>,
}

/// How one kind of record merges.
///
/// All functions are pure: the same state and operations give the same result on every node, and [`join`](Self::join) is commutative,
/// associative and idempotent (rule R11).
pub trait MergeEngine {
    /// The whole merge state of a record.
    type State: Clone + std::fmt::Debug;
    /// One operation.
    type Op;

    /// The state of a record that nobody has written.
    fn empty(&self) -> Self::State;

    /// Applies all operations that one entry makes on one record, in order, all or nothing, and says what it decided.
    ///
    /// # Errors
    ///
    /// A [`Refusal`]; `state` is then as it was.
    fn apply(
        &self,
        collection: &Collection,
        state: &mut Self::State,
        ops: &[Stamped<'_, Self::Op>],
        applying: &Applying<'_>,
    ) -> Result<Merged, Refusal>;

    /// The columns of the record's row, in the order of the collection's fields; `None` when it is not visible.
    fn project(&self, collection: &Collection, state: &Self::State) -> Option<Vec<Value>>;

    /// The hash by which two nodes compare the record (rule R13).
    fn state_hash(&self, state: &Self::State) -> StateHash;

    /// The state that holds everything that either holds.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] when one of them is damaged.
    fn join(&self, collection: &Collection, left: &Self::State, right: &Self::State) -> Result<Self::State, Refusal>;

    /// Starts a new generation of the record without its history.
    ///
    /// # Errors
    ///
    /// [`Code::UNSUPPORTED`] where the engine has no history to lose, or cannot do it yet: epoch is 0 until squashing exists (rule R30).
    fn squash(&self, state: &Self::State) -> Result<Self::State, Refusal>;

    /// Carries operations of an earlier generation over to the current one.
    ///
    /// # Errors
    ///
    /// [`Code::BAD_EPOCH`] until squashing exists (rule R30).
    fn rebase(&self, state: &Self::State, epoch: u32, ops: &[Self::Op]) -> Result<Vec<Self::Op>, Refusal>;
}
