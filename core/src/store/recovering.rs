//! What a store keeps of a hub that has gone back in time, and of devices that appear twice.

use std::fmt;
use std::sync::Arc;

use super::{DeviceRow, HubRow, StoreFuture};
use crate::ids::{BucketId, DeviceId, Incarnation, Position, ProjectId, Timeline};
use crate::merge::{Hint, RefusedOffer};
use crate::message::{Definition, Offer};
use crate::schema::Schema;
use crate::time::Eff;
use crate::trust::OfferKey;

/// The part of a hub's store that recovery needs (rules R16 to R23).
pub trait RecoveryStore: fmt::Debug + Send + Sync {
    /// The hub as it is on record now: another hub of the same store may have started a new timeline.
    fn current(&self) -> StoreFuture<'_, HubRow>;

    /// The head of every bucket.
    fn heads(&self, project: ProjectId) -> StoreFuture<'_, Vec<(BucketId, Position)>>;

    /// Positions used in all buckets of a project together: they never get fewer (rule R28).
    fn positions(&self, project: ProjectId) -> StoreFuture<'_, u64>;

    /// Starts a new timeline (rule R17), durable when it is ready: the parents with every bucket's head, a new log for the hub itself, and
    /// recovery begins. Sessions count from the start again. Where `fork.from` is not the current timeline, somebody else was first, and
    /// nothing happens. Gives the hub as it is then.
    fn fork_timeline(&self, project: ProjectId, fork: Fork) -> StoreFuture<'_, HubRow>;

    /// True once the store was found to hold less than this process has committed to it: it was put back under a running hub. Nothing is
    /// merged then until a new timeline has begun. A store that nobody else can put back says no.
    fn has_gone_back(&self) -> bool {
        false
    }

    /// The recovery that goes on, or the last one; `None` if there never was one.
    fn recovery(&self, project: ProjectId) -> StoreFuture<'_, Option<Recovery>>;

    /// Takes a device back on its certificate (rule R23). One that is known stays as it is.
    fn readmit(&self, project: ProjectId, device: DeviceRow) -> StoreFuture<'_, ()>;

    /// Joins a page of what a device offers, in one transaction.
    fn join_offer(&self, project: ProjectId, batch: OfferBatch) -> StoreFuture<'_, OfferReport>;

    /// Takes in definitions that a device offers, as far as they are newer than what is there or were lost: their ids come back with them.
    /// Their MACs were checked. The revision gets above what the device has. Gives the schema with them, and the names that were refused
    /// because something else has them now.
    fn adopt(&self, project: ProjectId, rev: u64, definitions: Vec<Definition>) -> StoreFuture<'_, (Schema, Vec<String>)>;

    /// Notes that a device has offered all that it holds. Recovery ends with the last known one that was not revoked; true if this was it.
    fn offered_all(&self, project: ProjectId, device: DeviceId, now: Eff) -> StoreFuture<'_, bool>;

    /// Ends recovery by the operator's word; false when none goes on.
    fn finish_recovery(&self, project: ProjectId, now: Eff) -> StoreFuture<'_, bool>;

    /// Notes that a device appears twice, once for each of its logs. Gives whether this log is new in the list, and how many of the device's
    /// logs came to it since `since`.
    fn note_twice(&self, project: ProjectId, twice: Twice, since: Eff) -> StoreFuture<'_, (bool, u64)>;

    /// Devices that appeared twice, newest first, at most 100.
    fn twice(&self, project: ProjectId) -> StoreFuture<'_, Vec<Twice>>;

    /// True if a log that continues this one was met: whoever goes on with this one is another instance.
    fn is_continued(&self, project: ProjectId, device: DeviceId, incarnation: Incarnation) -> StoreFuture<'_, bool>;
}

/// A new timeline to be started.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fork {
    /// The timeline that it continues.
    pub from: Timeline,
    /// Its name.
    pub fresh: Timeline,
    /// The hub's own log on it.
    pub incarnation: Incarnation,
    /// Timelines that devices have shown and this store does not know.
    pub foreign: Vec<Timeline>,
    /// The hub's time.
    pub now: Eff,
}

/// How a recovery is going.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Recovery {
    /// The timeline that began with it.
    pub timeline: Timeline,
    /// When it began.
    pub since: Eff,
    /// When it ended; `None` while it goes on.
    pub ended: Option<Eff>,
    /// True if an operator ended it.
    pub by_operator: bool,
    /// Records that devices gave back.
    pub joined: u64,
    /// Offered records that were refused.
    pub refused: u64,
    /// Known devices that have not offered all that they hold, by name; none once it has ended.
    pub unseen: Vec<(DeviceId, String)>,
}

/// A page of an offer, with what it is judged by.
#[derive(Clone, Debug)]
pub struct OfferBatch {
    /// Who offers.
    pub device: DeviceId,
    /// What.
    pub offer: Offer,
    /// The collections.
    pub schema: Arc<Schema>,
    /// The hub's history, nearest first.
    pub timelines: Vec<Timeline>,
    /// The key of the MACs.
    pub key: OfferKey,
    /// The hub's time.
    pub now: Eff,
    /// Random bytes.
    pub entropy: [u8; 32],
}

/// What became of a page of an offer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OfferReport {
    /// Records that the hub holds now as they were offered, or newer.
    pub joined: u64,
    /// Records that it refused; they are on record.
    pub refused: Vec<RefusedOffer>,
    /// Buckets that changed.
    pub hints: Vec<Hint>,
    /// When the latest of what was joined was written, by the lost hub's time; `None` where nothing says so.
    pub latest: Option<Eff>,
}

/// A device that appears twice: its folder was copied, or an older copy of it was brought back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Twice {
    /// The device.
    pub device: DeviceId,
    /// The log that was found in two places.
    pub incarnation: Incarnation,
    /// How it was found, as a word: `behind`, `forked`, `stale_session`, `continued`.
    pub reason: String,
    /// When.
    pub at: Eff,
}
