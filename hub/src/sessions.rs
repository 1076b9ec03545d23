//! The hub's sessions: one driver for each link, carrying out what the session machine of `core` asks for.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use mobo_core::ids::{BucketId, DeviceId, LaneKey, Position, PublicKey, Seq};
use mobo_core::limits;
use mobo_core::link::{Channel, Link, LinkError, Listener};
use mobo_core::merge::{Hint, Rights, prepare_push};
use mobo_core::message::{Code, Definition, Enrol, Message, PeerError, Ping, Push, RefenceReason, Reject, SchemaUpdate, SignedHello};
use mobo_core::schema::{Collection, Schema};
use mobo_core::session::hub::{Effect, HubIdentity, Input, Refusal};
use mobo_core::session::{CloseReason, HubSession};
use mobo_core::store::{HubStore, PullRequest};
use mobo_core::time::Instant;
use mobo_protocol::DecodeError;
use mobo_runtime::clock::Clock;
use mobo_runtime::outbox::Outbox;
use mobo_runtime::tasks::Tasks;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;

use crate::admission::{Door, Turned};
use crate::merger::{MergeQueue, News};

/// What all sessions share.
#[derive(Debug)]
pub struct Sessions {
    /// The store.
    pub store: Arc<dyn HubStore>,
    /// Keys and project.
    pub identity: Arc<HubIdentity>,
    /// Lets devices in.
    pub door: Arc<Door>,
    /// The way into the store.
    pub merges: MergeQueue,
    /// The collections.
    pub schema: watch::Receiver<Arc<Schema>>,
    /// Clocks for timers.
    pub clock: Clock,
    live: Mutex<BTreeMap<DeviceId, (u64, mpsc::Sender<Order>)>>,
    next: AtomicUsize,
}

/// What a session is told from outside.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Order {
    /// The device was revoked.
    Revoked,
    /// The device has connected anew: this session is a ghost.
    Superseded,
}

impl Sessions {
    /// Ready to take links.
    #[must_use]
    pub fn new(door: Arc<Door>, merges: MergeQueue, schema: watch::Receiver<Arc<Schema>>, clock: Clock) -> Self {
        let (store, identity) = (Arc::clone(&door.store), Arc::clone(&door.identity));
        Self { store, identity, door, merges, schema, clock, live: Mutex::default(), next: AtomicUsize::new(1) }
    }

    /// Devices that are connected now.
    #[must_use]
    pub fn live(&self) -> usize {
        self.registry().len()
    }

    /// True if this device is connected now.
    #[must_use]
    pub fn is_live(&self, device: DeviceId) -> bool {
        self.registry().contains_key(&device)
    }

    /// Tells the session of a revoked device to end; it is gone within [`limits::REVOCATION_MAX`].
    pub fn revoked(&self, device: DeviceId) {
        if let Some((_, orders)) = self.registry().get(&device) {
            let _ = orders.try_send(Order::Revoked);
        }
    }

    /// Takes links until the part stops.
    pub async fn listen(self: Arc<Self>, listener: Arc<dyn Listener>, tasks: Tasks) -> Result<(), LinkError> {
        let stopping = tasks.stopping();
        loop {
            let link = tokio::select! {
                () = stopping.cancelled() => return Ok(()),
                link = listener.accept() => link?,
            };
            if self.live() >= limits::SESSIONS_MAX {
                link.close("the hub has too many sessions").await;
                continue;
            }
            let sessions = Arc::clone(&self);
            let stop = stopping.clone();
            tasks.spawn_job("session", async move {
                let link: Arc<dyn Link> = Arc::from(link);
                let reason = sessions.run(Arc::clone(&link), stop).await;
                tracing::debug!(peer = link.peer(), ?reason, "session ended");
            });
        }
    }

    async fn run(&self, link: Arc<dyn Link>, stopping: tokio_util::sync::CancellationToken) -> CloseReason {
        let mut driver = Driver::new(self, Arc::clone(&link));
        let (orders, mut inbox) = mpsc::channel(4);
        let mut hints = self.merges.hints();
        let mut schema = self.schema.clone();
        let reason = loop {
            if let Some(reason) = driver.carry_out(&orders).await {
                break reason;
            }
            let timeout = driver.session.poll_timeout().map(|due| self.clock.at(due));
            let input = tokio::select! {
                frame = link.recv() => match frame {
                    Ok(frame) => driver.decode(&frame),
                    Err(error) => break gone(error),
                },
                Some(Ok(done)) = driver.work.join_next(), if !driver.work.is_empty() => driver.done(done),
                hint = hints.recv() => match hint {
                    Ok(News::Buckets(hints)) => Some(Input::Hints(hints)),
                    Ok(News::Unknown) | Err(broadcast::error::RecvError::Lagged(_)) => Some(Input::HintsLost),
                    Err(broadcast::error::RecvError::Closed) => Some(Input::Stop),
                },
                Ok(()) = schema.changed() => driver.schema_update(&schema),
                Some(order) = inbox.recv() => Some(match order { Order::Revoked => Input::Revoked, Order::Superseded => Input::Stop }),
                () = at(timeout) => Some(Input::Timeout),
                () = stopping.cancelled() => Some(Input::Stop),
            };
            match input {
                Some(input) => driver.session.handle(self.clock.now(), input),
                None => continue,
            }
        };
        self.leave(driver.registered);
        driver.outbox.finish().await;
        link.close(&format!("{reason:?}")).await;
        reason
    }

    fn registry(&self) -> std::sync::MutexGuard<'_, BTreeMap<DeviceId, (u64, mpsc::Sender<Order>)>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, device: DeviceId, orders: mpsc::Sender<Order>) -> (DeviceId, u64) {
        let number = self.next.fetch_add(1, Ordering::Relaxed) as u64;
        if let Some((_, ghost)) = self.registry().insert(device, (number, orders)) {
            let _ = ghost.try_send(Order::Superseded);
        }
        (device, number)
    }

    fn leave(&self, registered: Option<(DeviceId, u64)>) {
        let Some((device, number)) = registered else { return };
        let mut live = self.registry();
        if live.get(&device).is_some_and(|(current, _)| *current == number) {
            live.remove(&device);
        }
    }
}

fn gone(error: LinkError) -> CloseReason {
    match error {
        LinkError::Silent => CloseReason::Silent,
        LinkError::Protocol(what) => CloseReason::Violation(what),
        LinkError::Closed(_) | LinkError::Unreachable { .. } | LinkError::WrongPeer { .. } | LinkError::CannotListen { .. } => {
            CloseReason::PeerLeft
        }
    }
}

async fn at(instant: Option<tokio::time::Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// A finished piece of asynchronous work.
enum Done {
    Input(Input),
    Guest(Box<crate::admission::Guest>),
}

struct Driver<'s> {
    sessions: &'s Sessions,
    session: HubSession,
    link: Arc<dyn Link>,
    outbox: Outbox,
    work: JoinSet<Done>,
    guest: Option<(PublicKey, Rights)>,
    unheard: Vec<Reject>,
    registered: Option<(DeviceId, u64)>,
}

impl<'s> Driver<'s> {
    fn new(sessions: &'s Sessions, link: Arc<dyn Link>) -> Self {
        let session = HubSession::new(sessions.clock.now(), Arc::clone(&sessions.identity), None);
        let outbox = Outbox::new(Arc::clone(&link));
        Self { sessions, session, link, outbox, work: JoinSet::new(), guest: None, unheard: Vec::new(), registered: None }
    }

    fn now(&self) -> Instant {
        self.sessions.clock.now()
    }

    fn decode(&mut self, frame: &[u8]) -> Option<Input> {
        let error = match mobo_protocol::decode(frame) {
            Ok(message) => return Some(Input::Message(Box::new(message))),
            Err(error) => error,
        };
        let said = |code, fatal| PeerError { code, detail: error.to_string(), fatal, retry_after_ms: 0 };
        match error {
            // Of a later version, and no reason to part. A peer that does not read the answer is found out by the next one.
            DecodeError::Unsupported { .. } => {
                let _ = self.outbox.send(Channel::Control, mobo_protocol::encode(&Message::Error(said(Code::UNSUPPORTED, false))));
                None
            }
            DecodeError::Malformed(_) | DecodeError::TooLong { .. } => {
                tracing::info!(peer = self.link.peer(), %error, "a peer broke the protocol");
                Some(Input::Admitted(Err(Refusal::Error(said(Code::MALFORMED, true)))))
            }
        }
    }

    fn done(&mut self, done: Done) -> Option<Input> {
        match done {
            Done::Input(input) => Some(input),
            Done::Guest(guest) => {
                self.guest = Some((guest.key, guest.rights));
                self.unheard = guest.rejects;
                Some(Input::Admitted(Ok(guest.welcome)))
            }
        }
    }

    /// Carries out what the machine asks for; `Some` ends the session.
    async fn carry_out(&mut self, orders: &mpsc::Sender<Order>) -> Option<CloseReason> {
        while let Some(effect) = self.session.poll_effect() {
            match effect {
                Effect::Send(channel, message) => {
                    let welcome = matches!(*message, Message::Welcome(_));
                    if self.outbox.send(channel, mobo_protocol::encode(&message)).is_err() {
                        return Some(CloseReason::Silent);
                    }
                    if welcome {
                        self.welcomed(orders);
                    }
                }
                Effect::Admit(hello) => self.admit(hello),
                Effect::Enrol(enrol) => self.enrol(enrol),
                Effect::Merge(lane, push) => self.merge(lane, *push).await,
                Effect::Pull(wants) => self.pull(wants),
                Effect::Cursors(at) => self.cursors(at),
                Effect::Pong(ping) => {
                    let pong = Message::Pong(Ping { hub_time: self.sessions.door.time.now(), ..ping });
                    if self.outbox.send(Channel::Control, mobo_protocol::encode(&pong)).is_err() {
                        return Some(CloseReason::Silent);
                    }
                }
                Effect::Refence(lane, hub_last, reason) => self.refence(lane, hub_last, reason),
                Effect::Close(reason) => return Some(reason),
            }
        }
        None
    }

    fn welcomed(&mut self, orders: &mpsc::Sender<Order>) {
        let Some(device) = self.session.device() else { return };
        self.registered = Some(self.sessions.enter(device, orders.clone()));
        // Refusals come before any ack that would cover them.
        for reject in std::mem::take(&mut self.unheard) {
            let _ = self.outbox.send(Channel::Control, mobo_protocol::encode(&Message::Reject(reject)));
        }
        // Registered first, looked at again then: a revocation finds this session, or this finds the revocation.
        let (store, project) = (Arc::clone(&self.sessions.store), self.sessions.identity.project);
        self.work.spawn(async move {
            Done::Input(match store.device(project, device).await {
                Ok(Some(row)) if row.revoked.is_none() => Input::Hints(Arc::new(Vec::new())),
                Ok(_) => Input::Revoked,
                Err(error) => Input::StoreFailed(error.to_string()),
            })
        });
        if let Some(input) = self.schema_update(&self.sessions.schema) {
            let now = self.now();
            self.session.handle(now, input);
        }
    }

    fn admit(&mut self, hello: Box<SignedHello>) {
        let binding = self.link.binding();
        let door = Arc::clone(&self.sessions.door);
        self.work.spawn(async move {
            match door.hello(&hello, &binding).await {
                Ok(guest) => Done::Guest(Box::new(guest)),
                Err(Turned::Away(refusal)) => Done::Input(Input::Admitted(Err(refusal))),
                Err(Turned::Store(error)) => Done::Input(Input::StoreFailed(error.to_string())),
            }
        });
    }

    fn refence(&mut self, lane: LaneKey, hub_last: Option<Seq>, reason: RefenceReason) {
        let door = Arc::clone(&self.sessions.door);
        self.work.spawn(async move {
            Done::Input(match door.forked(lane, hub_last, reason).await {
                Ok(refence) => Input::Admitted(Err(Refusal::Refence(refence))),
                Err(error) => Input::StoreFailed(error.to_string()),
            })
        });
    }

    fn enrol(&mut self, enrol: Box<Enrol>) {
        let (binding, door) = (self.link.binding(), Arc::clone(&self.sessions.door));
        self.work.spawn(async move { Done::Input(Input::Enrolled(door.enrol(&enrol, &binding).await)) });
    }

    /// Checks a push here, in order, and queues it; only waiting for the verdict is left to the side.
    async fn merge(&mut self, lane: LaneKey, push: Push) {
        let Some((key, rights)) = &self.guest else { return };
        match prepare_push(self.sessions.identity.project, lane, key, push, rights.clone()) {
            Err(code) => {
                let now = self.now();
                self.session.handle(now, Input::PushRefused(lane, code));
            }
            Ok(prepared) => {
                let verdict = self.sessions.merges.submit(prepared).await;
                self.work.spawn(async move {
                    Done::Input(match verdict.await {
                        Ok(Ok(outcome)) => Input::Merged(lane, outcome),
                        Ok(Err(error)) => Input::StoreFailed(error.to_string()),
                        Err(_) => Input::Stop,
                    })
                });
            }
        }
    }

    fn pull(&mut self, wants: Vec<(BucketId, Position)>) {
        let Some(device) = self.session.device() else { return };
        let request = PullRequest {
            project: self.sessions.identity.project,
            device,
            wants,
            items_max: limits::BATCH_ITEMS_MAX,
            bytes_max: limits::BATCH_BYTES_MAX,
        };
        let store = Arc::clone(&self.sessions.store);
        self.work.spawn(async move {
            Done::Input(match store.pull(request).await {
                Ok(page) => {
                    for key in page.buckets.iter().flat_map(|bucket| &bucket.damaged) {
                        tracing::error!(collection = %key.collection, id = %key.id, "a stored record is damaged and was not delivered");
                    }
                    Input::Page(Box::new(page))
                }
                Err(error) => Input::StoreFailed(error.to_string()),
            })
        });
    }

    fn cursors(&mut self, at: Vec<(BucketId, Position)>) {
        let Some(device) = self.session.device() else { return };
        let (store, project) = (Arc::clone(&self.sessions.store), self.sessions.identity.project);
        let now = self.sessions.door.time.now();
        self.work.spawn(async move {
            if let Err(error) = store.cursors(project, device, at, now).await {
                tracing::debug!(%error, "cursors were not noted");
            }
            Done::Input(Input::Hints(Arc::new(Vec::<Hint>::new())))
        });
    }

    fn schema_update(&self, schema: &watch::Receiver<Arc<Schema>>) -> Option<Input> {
        let schema = Arc::clone(&schema.borrow());
        let identity = &self.sessions.identity;
        let define = |collection: &Collection| {
            let bytes = collection.to_cbor();
            let mac = identity.offer.schema(identity.project, collection.id, identity.timeline, &bytes);
            Definition { bytes, collection: Some(collection.clone()), mac }
        };
        let definitions = schema.iter().map(define).collect();
        Some(Input::Schema(Arc::new(SchemaUpdate { timeline: identity.timeline, rev: schema.rev, definitions, more: false })))
    }
}
