//! One session's driver on the hub: what an effect of the session machine does, whatever carries the frames and runs the waiting.

mod down;
mod pushes;
mod welcome;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use mobo_core::future::BoxFuture;
use mobo_core::ids::{DeviceId, Incarnation, LaneKey, PublicKey, Seq};
use mobo_core::link::Channel;
use mobo_core::merge::Rights;
use mobo_core::message::{Code, Enrol, Grant, Message, PeerError, Ping, RefenceReason, Reject, SchemaUpdate};
use mobo_core::session::hub::{Effect, HubIdentity, Input, Refusal};
use mobo_core::session::{CloseReason, HubSession};
use mobo_core::time::Instant;
use mobo_protocol::DecodeError;
use mobo_runtime::outbox::{Frames, TooSlow};
use tokio::sync::{OwnedSemaphorePermit, broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use super::{Order, Registered, Sessions};
use crate::admission::Guest;
use crate::merger::News;
use crate::metrics;

/// A finished piece of asynchronous work.
#[derive(Debug)]
pub struct Done(Finished);

#[derive(Debug)]
enum Finished {
    Input(Input),
    Guest(Box<Guest>),
    Rights(u64, Rights, Vec<Grant>),
    Verdict(u64, Input),
    Noted,
}

/// What became of the pushes, in the order in which they came: an ack covers every refusal before it.
#[derive(Debug, Default)]
struct Verdicts {
    pushes: u64,
    told: u64,
    early: BTreeMap<u64, Input>,
}

impl Done {
    pub(super) const fn input(input: Input) -> Self {
        Self(Finished::Input(input))
    }
}

/// Work that waits for something, to be run beside the session.
pub type Job = BoxFuture<'static, Done>;

/// Carries out one session. Whoever runs it feeds what happens, then calls [`carry_out`](Self::carry_out), then runs what was
/// [`started`](Self::started).
pub struct Conversation<F> {
    pub(super) sessions: Arc<Sessions>,
    /// Of the timeline that this session lives on.
    pub(super) identity: Arc<HubIdentity>,
    session: HubSession,
    frames: F,
    binding: Vec<u8>,
    peer: String,
    started: Vec<Job>,
    guest: Option<(PublicKey, Rights)>,
    unheard: Vec<Reject>,
    pub(super) continues: Option<Incarnation>,
    registered: Option<Registered>,
    /// How often it was asked what the device may do.
    asked: u64,
    verdicts: Verdicts,
    /// What the device was told of callers.
    access: Option<Arc<str>>,
    noting: down::Noting,
    /// The logs that the device has left behind and pushes again.
    former: BTreeSet<Incarnation>,
    /// Of a stranger: given back when it is let in.
    place: Option<OwnedSemaphorePermit>,
    teller: mpsc::Sender<Order>,
    /// Cancelled when the device is revoked.
    pub(super) revoked: CancellationToken,
    /// What the session is told from outside: for [`order`](Self::order).
    pub orders: mpsc::Receiver<Order>,
}

impl<F: fmt::Debug> fmt::Debug for Conversation<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conversation").field("session", &self.session).field("frames", &self.frames).finish_non_exhaustive()
    }
}

impl<F: Frames> Conversation<F> {
    /// Waits for a hello; `(binding, peer)` are the link's.
    #[must_use]
    pub fn new(sessions: Arc<Sessions>, frames: F, (binding, peer): (Vec<u8>, String)) -> Self {
        let identity = Arc::clone(&sessions.door.history.era().identity);
        let session = HubSession::new(sessions.door.time.machine().now(), Arc::clone(&identity), None);
        let (teller, orders) = mpsc::channel(16);
        let (started, unheard) = (Vec::new(), Vec::new());
        Self {
            sessions,
            identity,
            session,
            frames,
            binding,
            peer,
            started,
            guest: None,
            unheard,
            continues: None,
            registered: None,
            asked: 0,
            verdicts: Verdicts::default(),
            access: None,
            noting: down::Noting::default(),
            former: BTreeSet::new(),
            place: None,
            teller,
            revoked: CancellationToken::new(),
            orders,
        }
    }

    /// The same in a place that it gives back once its device is let in.
    #[must_use]
    pub fn in_place(mut self, place: OwnedSemaphorePermit) -> Self {
        self.place = Some(place);
        self
    }

    /// The device, once it is let in.
    pub(super) fn device(&self) -> Option<DeviceId> {
        self.registered.map(|((device, _), _)| device)
    }

    /// When [`tick`](Self::tick) is due. May change after every call.
    #[must_use]
    pub fn timeout(&self) -> Option<Instant> {
        self.session.poll_timeout()
    }

    /// The time of [`timeout`](Self::timeout) has come.
    pub fn tick(&mut self) {
        self.feed(Input::Timeout);
    }

    /// Says goodbye.
    pub fn stop(&mut self) {
        self.feed(Input::Stop);
    }

    /// What was started since the last call.
    pub fn started(&mut self) -> impl Iterator<Item = Job> + use<F> {
        std::mem::take(&mut self.started).into_iter()
    }

    /// Something that was started is done.
    pub fn done(&mut self, Done(done): Done) {
        let input = match done {
            Finished::Input(input) => input,
            Finished::Verdict(push, verdict) => return self.judged(push, verdict),
            Finished::Noted => return self.noted(),
            // Asked for once more since: that answer is to come, and the newer one.
            Finished::Rights(asked, ..) if asked != self.asked => return,
            Finished::Rights(_, rights, grants) => {
                self.sessions.holds(self.registered, grants.iter().map(|grant| grant.bucket).collect());
                if let Some(guest) = &mut self.guest {
                    guest.1 = rights;
                }
                Input::Rights(grants)
            }
            Finished::Guest(guest) => {
                self.guest = Some((guest.key, guest.rights));
                self.unheard = guest.rejects;
                self.continues = guest.continues;
                Input::Admitted(Ok(guest.welcome))
            }
        };
        self.feed(input);
    }

    /// The merger has committed something.
    pub fn news(&mut self, news: Result<News, broadcast::error::RecvError>) {
        self.feed(match news {
            Ok(News::Buckets(hints)) => Input::Hints(hints),
            Ok(News::Unknown) | Err(broadcast::error::RecvError::Lagged(_)) => Input::HintsLost,
            Err(broadcast::error::RecvError::Closed) => Input::Stop,
        });
    }

    /// The collections have changed.
    pub fn schema_changed(&mut self) {
        let update = self.schema_update();
        self.feed(Input::Schema(update));
        // Other rules may give it other buckets by its claims.
        self.look_up_rights();
    }

    /// The hub's history has changed: a session of another timeline is over.
    pub fn era_changed(&mut self) {
        if self.sessions.door.history.era().timeline.timeline != self.identity.timeline {
            self.feed(Input::Stop);
        }
    }

    /// Somebody outside has something to say to this session.
    pub fn order(&mut self, order: Order) {
        self.feed(match order {
            Order::Revoked => Input::Revoked,
            Order::Rights => return self.look_up_rights(),
            Order::Superseded => Input::Stop,
            Order::Safe(lane, seq, chain) => Input::Safe(lane, seq, chain),
        });
    }

    /// A frame has come.
    pub fn frame(&mut self, frame: &[u8]) {
        let error = match mobo_protocol::decode(frame) {
            Ok(message) => return self.feed(Input::Message(Box::new(message))),
            Err(error) => error,
        };
        let said = |code, fatal| PeerError { code, detail: error.to_string(), fatal, retry_after_ms: 0 };
        match error {
            // Of a later version, and no reason to part. A peer that does not read the answer is found out by the next one.
            DecodeError::Unsupported { .. } => {
                let _ = self.send(Channel::Control, &Message::Error(said(Code::UNSUPPORTED, false)));
            }
            DecodeError::Malformed(_) | DecodeError::TooLong { .. } => {
                tracing::info!(peer = self.peer, %error, "a peer broke the protocol");
                self.feed(Input::Admitted(Err(Refusal::Error(said(Code::MALFORMED, true)))));
            }
        }
    }

    /// Carries out what the machine asks for; `Some` ends the session.
    pub async fn carry_out(&mut self) -> Option<CloseReason> {
        while let Some(effect) = self.session.poll_effect() {
            if let Some(reason) = self.effect(effect).await {
                return Some(reason);
            }
        }
        None
    }

    /// Carries out one thing that the machine asks for; `None` when there was none, `Some(Some(_))` ends the session.
    pub async fn carry_out_one(&mut self) -> Option<Option<CloseReason>> {
        let effect = self.session.poll_effect()?;
        Some(self.effect(effect).await)
    }

    /// Forgets the device, and gives what the last frames are in.
    pub fn end(self) -> F {
        self.sessions.leave(self.registered);
        self.frames
    }

    async fn effect(&mut self, effect: Effect) -> Option<CloseReason> {
        match effect {
            Effect::Send(channel, message) => {
                let sent = self.send_all(channel, &message).await;
                return sent.is_err().then_some(CloseReason::Silent);
            }
            Effect::Admit(hello) => self.admit(hello),
            Effect::Enrol(enrol) => self.enrol(enrol),
            Effect::Merge(lane, push) => self.merge(lane, *push).await,
            Effect::Join(offer, timelines) => self.join(*offer, timelines),
            Effect::Adopt(update, timelines) => self.adopt(*update, timelines),
            Effect::OfferedAll => self.offered_all(),
            Effect::Pull(wants) => self.pull(wants),
            Effect::Cursors(at) => self.cursors(at),
            Effect::Pong(ping) => {
                let pong = Message::Pong(Ping { hub_time: self.sessions.door.time.now(), ..ping });
                if self.send(Channel::Control, &pong).is_err() {
                    return Some(CloseReason::Silent);
                }
            }
            Effect::Refence(lane, hub_last, reason) => self.refence(lane, hub_last, reason),
            Effect::Close(reason) => return Some(reason),
        }
        None
    }

    async fn send_all(&mut self, channel: Channel, message: &Message) -> Result<(), TooSlow> {
        if matches!(message, Message::Reject(_)) {
            // A push has more entries to refuse than a queue has places.
            self.frames.room(channel).await?;
        }
        self.send(channel, message)?;
        if matches!(message, Message::Welcome(_)) { self.welcomed().await } else { Ok(()) }
    }

    fn send(&mut self, channel: Channel, message: &Message) -> Result<(), TooSlow> {
        self.frames.send(channel, mobo_protocol::encode(message))
    }

    fn feed(&mut self, input: Input) {
        metrics::heard(&input);
        self.sessions.teller.heard((&self.peer, self.device()), &input);
        self.session.handle(self.sessions.door.time.machine().now(), input);
    }

    pub(super) fn start(&mut self, work: impl Future<Output = Done> + Send + 'static) {
        self.started.push(Box::pin(work));
    }

    fn refence(&mut self, lane: LaneKey, hub_last: Option<Seq>, reason: RefenceReason) {
        let door = Arc::clone(&self.sessions.door);
        self.start(async move {
            Done::input(match door.forked(lane, hub_last, reason).await {
                Ok(refence) => Input::Admitted(Err(Refusal::Refence(refence))),
                Err(error) => Input::StoreFailed(error.to_string()),
            })
        });
    }

    fn enrol(&mut self, enrol: Box<Enrol>) {
        let (binding, door) = (self.binding.clone(), Arc::clone(&self.sessions.door));
        let sessions = Arc::clone(&self.sessions);
        self.start(async move {
            let enrolled = door.enrol(&enrol, &binding).await;
            if enrolled.is_ok() {
                sessions.teller.enrolled(DeviceId::of(&enrol.key), &enrol.name);
            }
            Done::input(Input::Enrolled(enrolled))
        });
    }

    fn schema_update(&self) -> Arc<SchemaUpdate> {
        self.sessions.definitions(&self.identity)
    }
}
