//! Those who hear of events: with a queue of their own, and a handler on a task of its own.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mobo_core::kernel::{Filter, Stamped, Waiting};
use mobo_core::limits;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Bus, BusFull, Wants};
use crate::tasks::{Tasks, caught};

/// The events that wait for one subscriber.
pub(super) struct Queue {
    name: String,
    filter: Filter,
    waiting: Mutex<Waiting<Arc<Stamped>>>,
    /// An event has come, or the bus is closed.
    wake: Notify,
    /// The queue was emptied.
    empty: Notify,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    delivered: AtomicU64,
    timed_out: AtomicU64,
    panicked: AtomicU64,
}

/// What one subscriber did so far.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SubscriberReport {
    /// Who it is.
    pub name: String,
    /// Events that wait for it.
    pub waiting: usize,
    /// Events that it took.
    pub delivered: u64,
    /// Events that its queue dropped.
    pub dropped: u64,
    /// Events on which its handler did not end in time.
    pub timed_out: u64,
    /// Events on which its handler panicked.
    pub panicked: u64,
}

/// What subscribers did not hear, or did not bear.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Trouble {
    /// Events that full queues dropped.
    pub dropped: u64,
    /// Events on which a handler did not end in time.
    pub timed_out: u64,
    /// Events on which a handler panicked.
    pub panicked: u64,
}

impl Trouble {
    pub(super) const fn add(&mut self, report: &SubscriberReport) {
        self.dropped += report.dropped;
        self.timed_out += report.timed_out;
        self.panicked += report.panicked;
    }
}

impl Queue {
    pub(super) fn push(&self, stamped: &Arc<Stamped>) {
        let topic = stamped.event.topic();
        if self.filter.takes(topic) {
            self.waiting().push(topic.priority, Arc::clone(stamped));
            self.wake.notify_one();
        }
    }

    fn pop(&self) -> Option<Arc<Stamped>> {
        let popped = self.waiting().pop();
        if popped.is_some() {
            self.counts.delivered.fetch_add(1, Ordering::Relaxed);
        } else {
            self.empty.notify_waiters();
        }
        popped
    }

    pub(super) async fn drained(&self) {
        loop {
            let emptied = self.empty.notified();
            if self.waiting().is_empty() {
                return;
            }
            emptied.await;
        }
    }

    pub(super) fn report(&self) -> SubscriberReport {
        let waiting = self.waiting();
        let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
        SubscriberReport {
            name: self.name.clone(),
            waiting: waiting.len(),
            delivered: count(&self.counts.delivered),
            dropped: waiting.dropped(),
            timed_out: count(&self.counts.timed_out),
            panicked: count(&self.counts.panicked),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting<Arc<Stamped>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A subscriber that takes its events itself. Dropping it unsubscribes.
pub struct Listener {
    bus: Bus,
    number: u64,
    queue: Arc<Queue>,
    left: Option<u64>,
}

impl Listener {
    /// The next event, the most urgent first; `None` when the bus is closed and nothing waits, or the one that was wanted has come.
    pub async fn recv(&mut self) -> Option<Arc<Stamped>> {
        if self.left == Some(0) {
            return None;
        }
        loop {
            if let Some(stamped) = self.queue.pop() {
                self.left = self.left.map(|left| left.saturating_sub(1));
                return Some(stamped);
            }
            tokio::select! {
                biased;
                () = self.queue.wake.notified() => {}
                () = self.bus.0.closed.cancelled() => return self.queue.pop(),
            }
        }
    }

    /// How many events its queue has dropped.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.queue.report().dropped
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut inner = self.bus.inner();
        if let Some(queue) = inner.queues.remove(&self.number) {
            inner.gone.add(&queue.report());
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("report", &self.queue.report()).finish_non_exhaustive()
    }
}

/// A subscriber with a handler. Dropping it unsubscribes, and cuts a handler at work at its next await.
#[derive(Debug)]
pub struct Subscription {
    _end: DropGuard,
}

impl Bus {
    /// A subscriber that takes its events itself.
    ///
    /// # Errors
    ///
    /// [`BusFull`].
    pub fn listen(&self, wants: Wants) -> Result<Listener, BusFull> {
        let len_max = wants.queue_max.min(limits::SUBSCRIBER_QUEUE_MAX);
        let mut waiting = Waiting::new(len_max, wants.rule);
        let mut inner = self.inner();
        if inner.queues.len() >= limits::SUBSCRIBERS_MAX {
            return Err(BusFull);
        }
        // Under the lock: no event is missed between the replay and what follows, and none comes twice.
        for stamped in inner.history.last(wants.replay.min(len_max), |stamped| wants.filter.takes(stamped.event.topic())) {
            waiting.push(stamped.event.topic().priority, Arc::clone(stamped));
        }
        inner.next += 1;
        let number = inner.next;
        let queue = Arc::new(Queue {
            name: wants.name,
            filter: wants.filter,
            waiting: Mutex::new(waiting),
            wake: Notify::new(),
            empty: Notify::new(),
            counts: Counts::default(),
        });
        inner.queues.insert(number, Arc::clone(&queue));
        drop(inner);
        Ok(Listener { bus: self.clone(), number, queue, left: wants.once.then_some(1) })
    }

    /// A subscriber with a handler, which runs as a job of the part that `tasks` belong to: one event at a time, each for at most
    /// [`limits::EVENT_HANDLER_TIMEOUT`]. One that takes longer is cancelled, one that panics is logged; both are counted, and the next event
    /// is handled all the same.
    ///
    /// # Errors
    ///
    /// [`BusFull`].
    pub fn subscribe<F, H>(&self, tasks: &Tasks, wants: Wants, handler: H) -> Result<Subscription, BusFull>
    where
        H: FnMut(Arc<Stamped>) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        self.subscribe_within(tasks, wants, (limits::EVENT_HANDLER_TIMEOUT, handler))
    }

    /// As [`subscribe`](Self::subscribe), with a handler that has a deadline of its own.
    ///
    /// # Errors
    ///
    /// [`BusFull`].
    pub fn subscribe_within<F, H>(&self, tasks: &Tasks, wants: Wants, (limit, mut handler): (Duration, H)) -> Result<Subscription, BusFull>
    where
        H: FnMut(Arc<Stamped>) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let mut listener = self.listen(wants)?;
        let (end, stopping) = (CancellationToken::new(), tasks.stopping());
        let ended = end.clone();
        tasks.spawn_job(format!("bus.{}", listener.queue.name), async move {
            let work = async {
                while let Some(stamped) = listener.recv().await {
                    handle(&listener.queue, limit, &mut handler, stamped).await;
                }
            };
            tokio::select! {
                () = work => {}
                () = ended.cancelled() => {}
                () = stopping.cancelled() => {}
            }
        });
        Ok(Subscription { _end: end.drop_guard() })
    }
}

async fn handle<F, H>(queue: &Queue, limit: Duration, handler: &mut H, stamped: Arc<Stamped>)
where
    H: FnMut(Arc<Stamped>) -> F,
    F: Future<Output = ()>,
{
    let (name, topic, n) = (&queue.name, stamped.event.topic().name, stamped.n);
    // The call itself may panic as well as what it gives.
    match tokio::time::timeout(limit, caught(async { handler(stamped).await })).await {
        Ok(Ok(())) => {}
        Ok(Err(panic)) => {
            queue.counts.panicked.fetch_add(1, Ordering::Relaxed);
            tracing::error!(subscriber = %name, topic, n, panic, "a handler panicked");
        }
        Err(_) => {
            queue.counts.timed_out.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(subscriber = %name, topic, n, limit_ms = limit.as_millis(), "a handler took too long and was cancelled");
        }
    }
}
