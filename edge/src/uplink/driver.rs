//! One session's driver on the device: what an effect of the session machine does, whatever carries the frames.

use std::fmt;
use std::sync::Arc;

use mobo_adapters::sqlite::edge::{Acknowledged, ApplyError, Change, Pending};
use mobo_core::ids::{BucketId, Incarnation, Lane, Seq, Timeline};
use mobo_core::limits;
use mobo_core::link::Channel;
use mobo_core::message::{Batch, Code, FORMER_LOGS, Message, PeerError, Refence, SchemaUpdate, Welcome};
use mobo_core::session::device::{Effect, Input, Settings};
use mobo_core::session::{CloseReason, DeviceSession};
use mobo_core::store::StoreError;
use mobo_core::time::Instant;
use mobo_protocol::DecodeError;
use mobo_runtime::machine;
use mobo_runtime::outbox::Frames;
use tokio::sync::broadcast::error::RecvError;

use super::{LinkState, Uplink};
use crate::metrics;

/// Carries out one session. Whoever runs it feeds what happens, then calls [`carry_out`](Self::carry_out).
pub struct Driver<F> {
    uplink: Arc<Uplink>,
    session: DeviceSession,
    frames: F,
    peer: String,
    stopping: bool,
    /// Buckets that differ from the hub's even after a pull from the start.
    disputed: Vec<BucketId>,
    /// True once the hub admitted this device.
    pub was_live: bool,
    /// How often a bucket of this device was not what the hub has at the same position.
    pub diverged: u64,
}

impl<F: fmt::Debug> fmt::Debug for Driver<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("session", &self.session).field("frames", &self.frames).finish_non_exhaustive()
    }
}

impl<F: Frames> Driver<F> {
    /// Says hello on a fresh link; `(binding, peer)` are the link's.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn open(uplink: Arc<Uplink>, frames: F, (binding, peer): (Vec<u8>, String)) -> Result<Self, StoreError> {
        let signed = uplink.hello(&binding).await?;
        // Links notice silence themselves.
        let session = DeviceSession::new(uplink.machine.now(), Settings { keepalive: None }, signed);
        let session = session.with_pushes_max(uplink.dialer.pushes_in_flight_max());
        Ok(Self { uplink, session, frames, peer, stopping: false, disputed: Vec::new(), was_live: false, diverged: 0 })
    }

    /// When [`tick`](Self::tick) is due. May change after every call.
    #[must_use]
    pub fn timeout(&self) -> Option<Instant> {
        self.session.poll_timeout()
    }

    /// A frame has come.
    pub fn frame(&mut self, frame: &[u8]) {
        match mobo_protocol::decode(frame) {
            Ok(message) => self.feed(Input::Message(Box::new(message))),
            // Of a later version, and no reason to part. A hub that does not read the answer is found out by the next frame.
            Err(error @ DecodeError::Unsupported { .. }) => {
                let error = PeerError { code: Code::UNSUPPORTED, detail: error.to_string(), fatal: false, retry_after_ms: 0 };
                let _ = self.frames.send(Channel::Control, mobo_protocol::encode(&Message::Error(error)));
            }
            Err(error @ (DecodeError::Malformed(_) | DecodeError::TooLong { .. })) => {
                self.feed(Input::StoreFailed(format!("the hub sent what this version cannot read: {error}")));
            }
        }
    }

    /// The time of [`timeout`](Self::timeout) has come.
    pub fn tick(&mut self) {
        let moment = self.uplink.machine.moment();
        self.feed(Input::Timeout(moment));
    }

    /// Says goodbye.
    pub fn stop(&mut self) {
        self.stopping = true;
        self.feed(Input::Stop);
    }

    /// True once it has said goodbye.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Something was committed on this device.
    pub fn changed(&mut self, change: Result<Change, RecvError>) {
        match change {
            Ok(Change::LaneAppended(lane)) => self.appended(&[lane]),
            Ok(Change::LaneSettled(_) | Change::RecordsChanged(_) | Change::SchemaChanged | Change::AccessChanged) => {}
            // Missed some: look at every lane.
            Err(RecvError::Lagged(_)) => self.appended(&Lane::ALL),
            Err(RecvError::Closed) => self.feed(Input::Stop),
        }
    }

    fn appended(&mut self, lanes: &[Lane]) {
        self.uplink.status.send_if_modified(|status| std::mem::replace(&mut status.drained, false));
        for lane in lanes {
            self.feed(Input::Appended(*lane));
        }
    }

    fn feed(&mut self, input: Input) {
        metrics::heard(&input);
        self.session.handle(self.uplink.machine.now(), input);
    }

    /// Gives what the last frames are in.
    pub fn end(self) -> F {
        self.frames
    }

    /// Carries out what the machine asks for; `Some` ends the session.
    pub async fn carry_out(&mut self) -> Option<CloseReason> {
        loop {
            match self.carry_out_one().await {
                Step::Done => {}
                Step::Idle => return None,
                Step::Closed(reason) => return Some(reason),
            }
        }
    }

    /// Carries out one thing that the machine asks for.
    pub async fn carry_out_one(&mut self) -> Step {
        let Some(effect) = self.session.poll_effect() else { return Step::Idle };
        if let Effect::Close(reason) = effect {
            return Step::Closed(reason);
        }
        metrics::asked(&effect, self.uplink.machine.moment().wall);
        if let Err(error) = self.step(effect).await {
            self.feed(Input::StoreFailed(error.to_string()));
        }
        Step::Done
    }

    async fn step(&mut self, effect: Effect) -> Result<(), Failed> {
        let store = &self.uplink.store;
        match effect {
            Effect::Send(channel, message) => self.frames.send(channel, mobo_protocol::encode(&message)).map_err(|_| Failed::TooSlow)?,
            Effect::Admit(welcome) => self.admit(*welcome).await?,
            Effect::Read(lane, after, bytes_max) => self.read(lane, after, bytes_max).await?,
            Effect::Acked(ack) => {
                if store.acked(*ack, self.uplink.keep).await? == Acknowledged::Foreign {
                    return Err(Failed::Foreign);
                }
            }
            Effect::Rejected(reject) => {
                tracing::warn!(seq = reject.seq.get(), code = reject.code.name(), detail = reject.detail, "the hub refused an entry");
                store.rejected(*reject).await?;
            }
            Effect::Refence(refence) => self.refence(Some(*refence)).await?,
            Effect::PutSchema(update) => store.put_schema(*update).await?,
            Effect::PutAccess(update) => store.put_access(*update).await?,
            Effect::Apply(batch) => self.apply(*batch).await?,
            Effect::Compare(checkpoint) => {
                let compared = store.checkpoint(*checkpoint).await?;
                let (equal, diverged) = (compared.equal(), compared.diverged());
                if !diverged.is_empty() {
                    self.diverged += diverged.len() as u64;
                    tracing::error!(?diverged, "this device and the hub do not hold the same: pulling these buckets again");
                }
                let disputed = compared.disputed();
                if disputed != self.disputed && !disputed.is_empty() {
                    tracing::error!(?disputed, "pulling these buckets again did not help: run `mobo-hub health check` on the hub");
                }
                self.disputed = disputed;
                self.feed(Input::Compared { equal, diverged });
            }
            Effect::Granted(grant) => store.grant(grant).await?,
            Effect::Revoked(bucket) => {
                store.revoke(bucket).await?;
            }
            effect @ (Effect::ReadDefinitions
            | Effect::ReadFormer(..)
            | Effect::GaveUp(..)
            | Effect::ReadOffer(..)
            | Effect::Offered(_)
            | Effect::Resume
            | Effect::Resync(_)
            | Effect::Sweep(..)) => self.give_back(effect).await?,
            Effect::Drained => {
                self.uplink.status.send_modify(|status| status.drained = true);
            }
            Effect::Close(_) => {}
        }
        Ok(())
    }

    /// What a device does for a hub that has gone back in time, and pulls that the hub starts over.
    async fn give_back(&mut self, effect: Effect) -> Result<(), Failed> {
        let store = &self.uplink.store;
        match effect {
            Effect::ReadDefinitions => {
                let node = store.node().await?;
                let timeline = node.timeline.map(|info| info.timeline).unwrap_or(Timeline([0; 16]));
                let definitions = store.definitions().await?;
                self.feed(Input::Definitions(SchemaUpdate { timeline, rev: node.schema_rev, definitions, more: false }));
            }
            Effect::ReadOffer(bucket, after) => {
                let (offer, more) = store.offer(bucket, after).await?;
                tracing::info!(%bucket, records = offer.rows.len(), "offering what this device holds to a hub that has gone back in time");
                self.feed(Input::Offer(Box::new(offer), more));
            }
            Effect::Offered(bucket) => store.offered(bucket).await?,
            Effect::ReadFormer(former, bytes_max) => {
                let (incarnation, lane) = (former.incarnation, former.lane.number());
                let push = match store.former(former, (limits::PUSH_ENTRIES_MAX, bytes_max)).await? {
                    Pending::Nothing => None,
                    Pending::Entries(outgoing) => Some(Box::new(self.uplink.push(former.lane, outgoing).await?)),
                    Pending::Trimmed(kept) => {
                        let kept = kept.get();
                        tracing::warn!(%incarnation, lane, kept, "the hub has lost entries of a former log that this device keeps no more");
                        store.strand(former).await?;
                        None
                    }
                };
                self.feed(Input::Former(push));
            }
            Effect::GaveUp(former, code) => {
                let (incarnation, lane, code) = (former.incarnation, former.lane.number(), code.name());
                tracing::warn!(%incarnation, lane, code, "the hub cannot go on with a former log: what it did is in the rows that are offered");
                store.strand(former).await?;
            }
            Effect::Resume => {
                store.given_back().await?;
                let cursors = store.cursors().await?;
                self.feed(Input::Admitted(cursors));
            }
            Effect::Resync(bucket) => store.resync(bucket).await?,
            Effect::Sweep(bucket, to) => {
                store.sweep(bucket, to).await?;
            }
            Effect::Send(..)
            | Effect::Admit(_)
            | Effect::Read(..)
            | Effect::Acked(_)
            | Effect::Rejected(_)
            | Effect::Refence(_)
            | Effect::PutSchema(_)
            | Effect::PutAccess(_)
            | Effect::Apply(_)
            | Effect::Compare(_)
            | Effect::Granted(_)
            | Effect::Revoked(_)
            | Effect::Drained
            | Effect::Close(_) => {}
        }
        Ok(())
    }

    async fn admit(&mut self, welcome: Welcome) -> Result<(), Failed> {
        let takes_former = welcome.features & FORMER_LOGS != 0;
        let lanes = welcome.lanes.clone();
        let admitted = self.uplink.store.admit(welcome).await?;
        if let Some(lane) = admitted.forked {
            return self.part(lane, lanes.iter().find(|status| status.lane == lane).and_then(|status| status.last)).await;
        }
        self.was_live = true;
        let (transport, peer) = (self.uplink.dialer.transport(), self.peer.clone());
        self.uplink.status.send_modify(|status| {
            status.state = LinkState::Live;
            status.transport = Some(transport);
            status.peer = Some(peer);
            status.last_error = self.uplink.dialer.detour();
            status.drained = false;
        });
        self.feed(Input::Undecided(admitted.undecided));
        match admitted.moved {
            Some(mut moved) => {
                if !takes_former {
                    moved.former.clear();
                }
                tracing::warn!(offers = moved.offers.len(), "the hub has gone back in time: this device gives back what it holds");
                self.feed(Input::Moved(moved));
            }
            None => self.feed(Input::Admitted(admitted.cursors)),
        }
        Ok(())
    }

    /// The hub has entries that this log does not: it is a copy of another, and goes on under a name of its own. What both have is not authored
    /// again: the hub is asked how far that goes, by a push that it cannot take.
    async fn part(&mut self, lane: Lane, hub_last: Option<Seq>) -> Result<(), Failed> {
        match self.uplink.store.pending(lane, hub_last, 1, limits::PUSH_BYTES_MIN).await? {
            Pending::Entries(outgoing) => {
                let push = self.uplink.push(lane, outgoing).await?;
                self.feed(Input::Parted(Box::new(push)));
                Ok(())
            }
            Pending::Nothing | Pending::Trimmed(_) => {
                self.refence(None).await?;
                Err(Failed::Forked)
            }
        }
    }

    async fn apply(&mut self, batch: Batch) -> Result<(), Failed> {
        // Where only a schema is missing, or how a row is spelled, the batch did continue the store's cursor.
        let (bucket, from) = (batch.bucket, batch.from);
        match self.uplink.store.apply(batch).await {
            Ok(applied) => {
                for key in &applied.differed {
                    let (collection, id) = (key.collection, key.id.as_str());
                    tracing::error!(%collection, id, "this record was not what the hub has at the same version: it is replaced");
                }
                self.feed(Input::Applied { bucket, cursor: applied.cursor });
            }
            Err(error @ ApplyError::NeedsSchema { .. }) => {
                tracing::warn!(%bucket, %error, "waiting for a newer schema from the hub");
                self.feed(Input::NeedsSchema { bucket, cursor: from });
            }
            Err(error @ ApplyError::NeedsSpelling(_)) => {
                tracing::info!(%bucket, %error, "pulling them whole");
                self.feed(Input::NeedsSpelling(bucket, from));
            }
            Err(error @ (ApplyError::Mismatch(_) | ApplyError::Store(_))) => return Err(error.into()),
        }
        Ok(())
    }

    /// Reads one push of entries and signs its head. They are durable: the store gives nothing that is not.
    async fn read(&mut self, lane: Lane, after: Option<Seq>, bytes_max: usize) -> Result<(), Failed> {
        let pending = self.uplink.store.pending(lane, after, limits::PUSH_ENTRIES_MAX, bytes_max).await?;
        let push = match pending {
            Pending::Nothing => None,
            Pending::Entries(outgoing) => Some(Box::new(self.uplink.push(lane, outgoing).await?)),
            Pending::Trimmed(kept) => {
                tracing::warn!(lane = lane.number(), kept = kept.get(), "the hub has lost entries that this device no longer keeps");
                // What they did is in the rows that this device offers; what it still keeps goes on in a new log.
                let fresh = Incarnation::from_entropy(machine::random(self.uplink.machine.as_ref())?);
                self.uplink.store.begin_again(fresh).await?;
                return Err(Failed::Trimmed);
            }
        };
        self.feed(Input::Entries(lane, push));
        Ok(())
    }

    async fn refence(&mut self, order: Option<Refence>) -> Result<(), Failed> {
        let fresh = Incarnation::from_entropy(machine::random(self.uplink.machine.as_ref())?);
        let reason = order.as_ref().map(|order| order.reason);
        let refenced = self.uplink.store.refence(order, fresh).await?;
        tracing::warn!(
            ?reason,
            incarnation = %refenced.incarnation,
            settled = refenced.settled,
            reauthored = refenced.reauthored,
            dropped = refenced.dropped,
            lost = refenced.lost,
            "this device's log is not the one that the hub knows (a restored image, or a clone): a new one was started"
        );
        Ok(())
    }
}

/// What became of one thing to carry out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// It is done.
    Done,
    /// There was none.
    Idle,
    /// The session is over.
    Closed(CloseReason),
}

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error("the hub reads too slowly")]
    TooSlow,
    #[error("the hub knows other entries under this device's name; a new log was started")]
    Forked,
    #[error("the hub acknowledged other entries than this device's: two devices use one identity")]
    Foreign,
    #[error("the hub has lost entries that this device no longer keeps; a new log was started, and what they did is offered")]
    Trimmed,
}
