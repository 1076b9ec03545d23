//! The hub's sessions: one driver for each link, carrying out what the session machine of `core` asks for.

mod conversation;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use mobo_core::ids::DeviceId;
use mobo_core::limits;
use mobo_core::link::{Link, LinkError, Listener};
use mobo_core::schema::Schema;
use mobo_core::session::CloseReason;
use mobo_core::session::hub::HubIdentity;
use mobo_core::store::HubStore;
use mobo_runtime::clock::Clock;
use mobo_runtime::outbox::Outbox;
use mobo_runtime::tasks::Tasks;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admission::Door;
use crate::merger::MergeQueue;
use crate::metrics;

pub use conversation::{Conversation, Done, Job};

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
    live: Mutex<BTreeMap<DeviceId, (u64, mpsc::Sender<Order>)>>,
    next: AtomicUsize,
}

/// What a session is told from outside.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Order {
    /// The device was revoked.
    Revoked,
    /// The device has connected anew: this session is a ghost.
    Superseded,
}

impl Sessions {
    /// Ready to take links.
    #[must_use]
    pub fn new(door: Arc<Door>, merges: MergeQueue, schema: watch::Receiver<Arc<Schema>>) -> Self {
        let (store, identity) = (Arc::clone(&door.store), Arc::clone(&door.identity));
        Self { store, identity, door, merges, schema, live: Mutex::default(), next: AtomicUsize::new(1) }
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
    pub async fn listen(self: Arc<Self>, listener: Arc<dyn Listener>, (tasks, clock): (Tasks, Clock)) -> Result<(), LinkError> {
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
                let reason = sessions.run(Arc::clone(&link), (stop, clock)).await;
                tracing::debug!(peer = link.peer(), ?reason, "session ended");
            });
        }
    }

    async fn run(self: &Arc<Self>, link: Arc<dyn Link>, (stopping, clock): (CancellationToken, Clock)) -> CloseReason {
        let outbox = Outbox::new(Arc::clone(&link));
        let mut driver = Conversation::new(Arc::clone(self), outbox, (link.binding(), link.peer()));
        let mut hints = self.merges.hints();
        let mut schema = self.schema.clone();
        let mut work = JoinSet::new();
        let reason = loop {
            if let Some(reason) = driver.carry_out().await {
                break reason;
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
                Some(order) = driver.orders.recv() => driver.order(order),
                () = at(timeout) => driver.tick(),
                () = stopping.cancelled() => driver.stop(),
            }
        };
        metrics::ended(&reason);
        driver.end().finish().await;
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
