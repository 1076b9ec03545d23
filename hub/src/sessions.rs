//! The hub's sessions: one driver for each link, carrying out what the session machine of `core` asks for.

mod conversation;
mod recovering;
mod telling;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use mobo_core::ids::{BucketId, Chain, DeviceId, Incarnation, Lane, LaneKey, Seq};
use mobo_core::limits;
use mobo_core::link::{Link, LinkError, Listener};
use mobo_core::message::{Definition, SchemaUpdate};
use mobo_core::schema::{Collection, Schema};
use mobo_core::session::CloseReason;
use mobo_core::session::hub::HubIdentity;
use mobo_core::store::HubStore;
use mobo_runtime::bus::Bus;
use mobo_runtime::clock::Clock;
use mobo_runtime::outbox::Outbox;
use mobo_runtime::tasks::Tasks;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admission::Door;
use crate::merger::MergeQueue;
use crate::metrics;

pub use conversation::{Conversation, Done, Job};

use telling::Teller;

/// What all sessions share.
#[derive(Debug)]
pub struct Sessions {
    /// The store.
    pub store: Arc<dyn HubStore>,
    /// Lets devices in.
    pub door: Arc<Door>,
    /// The way into the store.
    pub merges: MergeQueue,
    /// The collections.
    pub schema: watch::Receiver<Arc<Schema>>,
    /// By log: two instances of one device, which a copied folder makes, each keep their session.
    live: Mutex<Live>,
    next: AtomicUsize,
    teller: Teller,
    /// Places of those that nobody was let in on yet.
    strangers: Arc<Semaphore>,
    farewells: Arc<Semaphore>,
}

type Live = BTreeMap<(DeviceId, Incarnation), Place>;

/// A session among those that are live.
#[derive(Debug)]
struct Place {
    number: u64,
    orders: mpsc::Sender<Order>,
    /// Beside the orders, which may be too many to hear of it in time.
    revoked: CancellationToken,
    /// What the device may read.
    buckets: Vec<BucketId>,
}

/// What a session is told from outside.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Order {
    /// The device was revoked.
    Revoked,
    /// The device has connected anew: this session is a ghost.
    Superseded,
    /// What the device may read or write has changed.
    Rights,
    /// A lane is in a verified backup up to here, where its chain is this.
    Safe(Lane, Seq, Chain),
}

impl Sessions {
    /// Ready to take links.
    #[must_use]
    pub fn new(door: Arc<Door>, merges: MergeQueue, schema: watch::Receiver<Arc<Schema>>) -> Self {
        let store = Arc::clone(&door.store);
        let strangers = Arc::new(Semaphore::new(limits::SESSIONS_UNADMITTED_MAX));
        let farewells = Arc::new(Semaphore::new(limits::FAREWELLS_MAX));
        let (live, next, teller) = (Mutex::default(), AtomicUsize::new(1), Teller::default());
        Self { store, door, merges, schema, live, next, teller, strangers, farewells }
    }

    /// The same, telling this bus what happens in sessions.
    #[must_use]
    pub fn telling(mut self, bus: &Bus) -> Self {
        self.teller = Teller::to(bus);
        self
    }

    /// Devices that are connected now.
    #[must_use]
    pub fn live(&self) -> usize {
        self.registry().len()
    }

    /// True if this device is connected now.
    #[must_use]
    pub fn is_live(&self, device: DeviceId) -> bool {
        self.registry().keys().any(|log| log.0 == device)
    }

    fn is_live_log(&self, log: (DeviceId, Incarnation)) -> bool {
        self.registry().contains_key(&log)
    }

    /// Tells the session of a revoked device to end; it is gone within [`limits::REVOCATION_MAX`].
    pub fn revoked(&self, device: DeviceId) {
        for (_, place) in self.registry().iter().filter(|(log, _)| log.0 == device) {
            let _ = place.orders.try_send(Order::Revoked);
            place.revoked.cancel();
        }
    }

    /// Tells the session of a device to look up what it may do now; all sessions, where no device is named.
    pub fn rights_changed(&self, device: Option<DeviceId>) {
        for (live, place) in self.registry().iter() {
            if device.is_none_or(|device| device == live.0) {
                // A session that has so many orders before it will look after this one, too.
                let _ = place.orders.try_send(Order::Rights);
            }
        }
    }

    /// The devices that are connected now, and the buckets that they may read.
    pub(crate) fn watched(&self) -> (BTreeSet<DeviceId>, BTreeSet<BucketId>) {
        let live = self.registry();
        (live.keys().map(|log| log.0).collect(), live.values().flat_map(|place| &place.buckets).copied().collect())
    }

    /// Tells the sessions of these logs that their entries are in a verified backup. One that has too many orders before it hears of it with
    /// the next backup, or when it connects anew.
    pub fn safe(&self, lanes: &[(LaneKey, Seq, Chain)]) {
        let live = self.registry();
        for (lane, seq, chain) in lanes {
            if let Some(place) = live.get(&(lane.device, lane.incarnation)) {
                let _ = place.orders.try_send(Order::Safe(lane.lane, *seq, *chain));
            }
        }
    }

    /// Takes links until the part stops.
    pub async fn listen(self: Arc<Self>, listener: Arc<dyn Listener>, (tasks, clock): (Tasks, Clock)) -> Result<(), LinkError> {
        let stopping = tasks.stopping();
        loop {
            let link = tokio::select! {
                // A listener that closes because its part stops is no fault.
                biased;
                () = stopping.cancelled() => return Ok(()),
                link = listener.accept() => link?,
            };
            let place = Arc::clone(&self.strangers).try_acquire_owned().ok().filter(|_| self.live() < limits::SESSIONS_MAX);
            let Some(place) = place else {
                // Nobody else waits until one that does not listen has heard it.
                if let Ok(farewell) = Arc::clone(&self.farewells).try_acquire_owned() {
                    tasks.spawn_job("farewell", async move {
                        link.close("the hub is busy: it has too many sessions").await;
                        drop(farewell);
                    });
                }
                continue;
            };
            let sessions = Arc::clone(&self);
            let stop = stopping.clone();
            tasks.spawn_job("session", async move {
                let link: Arc<dyn Link> = Arc::from(link);
                let reason = sessions.run((Arc::clone(&link), place), (stop, clock)).await;
                tracing::debug!(peer = link.peer(), ?reason, "session ended");
            });
        }
    }

    async fn run(
        self: &Arc<Self>,
        (link, place): (Arc<dyn Link>, OwnedSemaphorePermit),
        (stopping, clock): (CancellationToken, Clock),
    ) -> CloseReason {
        let outbox = Outbox::new(Arc::clone(&link));
        let mut driver = Conversation::new(Arc::clone(self), outbox, (link.binding(), link.peer())).in_place(place);
        let revoked = driver.revoked.clone();
        let mut hints = self.merges.hints();
        let mut schema = self.schema.clone();
        let mut eras = self.door.history.watch();
        let mut rights = self.door.accounts.as_ref().map(|accounts| accounts.watch());
        let mut work = JoinSet::new();
        let reason = loop {
            // What it still has to say may wait for a device that reads slowly, or for other merges.
            let carried = tokio::select! {
                biased;
                () = revoked.cancelled() => None,
                carried = driver.carry_out() => Some(carried),
            };
            match carried {
                Some(None) => {}
                Some(Some(reason)) => break reason,
                None => break driver.expel().await,
            }
            driver.started().for_each(|job| drop(work.spawn(job)));
            let timeout = driver.timeout().map(|due| clock.at(due));
            tokio::select! {
                frame = link.recv() => match frame {
                    Ok(frame) => driver.frame(&frame),
                    Err(error) => break gone(error),
                },
                Some(Ok(done)) = work.join_next(), if !work.is_empty() => driver.done(done),
                hint = hints.recv() => driver.news(hint),
                Ok(()) = schema.changed() => driver.schema_changed(),
                Ok(()) = eras.changed() => driver.era_changed(),
                () = changed(rights.as_mut()) => driver.rights_changed(),
                Some(order) = driver.orders.recv() => driver.order(order),
                () = revoked.cancelled() => {}
                () = at(timeout) => driver.tick(),
                () = stopping.cancelled() => driver.stop(),
            }
        };
        metrics::ended(&reason);
        if let Some(device) = driver.device() {
            self.teller.lost(device, &reason);
        }
        driver.end().finish().await;
        link.close(&format!("{reason:?}")).await;
        reason
    }

    /// The collections as they are told on a timeline.
    fn definitions(&self, identity: &HubIdentity) -> Arc<SchemaUpdate> {
        let schema = Arc::clone(&self.schema.borrow());
        let define = |collection: &Collection| {
            let bytes = collection.to_cbor();
            let mac = identity.offer.schema(identity.project, collection.id, identity.timeline, &bytes);
            Definition { bytes, collection: Some(collection.clone()), mac }
        };
        let definitions = schema.iter().map(define).collect();
        Arc::new(SchemaUpdate { timeline: identity.timeline, rev: schema.rev, definitions, more: false })
    }

    fn registry(&self) -> std::sync::MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, log: (DeviceId, Incarnation), (orders, revoked): (mpsc::Sender<Order>, CancellationToken)) -> Registered {
        let number = self.next.fetch_add(1, Ordering::Relaxed) as u64;
        let place = Place { number, orders, revoked, buckets: Vec::new() };
        if let Some(ghost) = self.registry().insert(log, place) {
            let _ = ghost.orders.try_send(Order::Superseded);
        }
        (log, number)
    }

    fn holds(&self, registered: Option<Registered>, buckets: Vec<BucketId>) {
        let Some((log, number)) = registered else { return };
        if let Some(place) = self.registry().get_mut(&log).filter(|place| place.number == number) {
            place.buckets = buckets;
        }
    }

    fn leave(&self, registered: Option<Registered>) {
        let Some((log, number)) = registered else { return };
        let mut live = self.registry();
        if live.get(&log).is_some_and(|place| place.number == number) {
            live.remove(&log);
        }
    }
}

/// A session's place among those that are live.
type Registered = ((DeviceId, Incarnation), u64);

fn gone(error: LinkError) -> CloseReason {
    match error {
        LinkError::Silent => CloseReason::Silent,
        LinkError::Protocol(what) => CloseReason::Violation(what),
        LinkError::Closed(_) | LinkError::Unreachable { .. } | LinkError::WrongPeer { .. } | LinkError::CannotListen { .. } => {
            CloseReason::PeerLeft
        }
    }
}

/// Never, where nothing can change.
async fn changed(rights: Option<&mut watch::Receiver<u64>>) {
    if let Some(rights) = rights
        && rights.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

async fn at(instant: Option<tokio::time::Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
