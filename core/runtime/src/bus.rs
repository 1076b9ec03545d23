//! The event bus of a node: whoever publishes waits for nobody, and whoever listens can harm nobody.
//!
//! A listener has a queue with a bound and a rule for what it drops; the urgent overtakes the rest in it. It either takes events itself
//! ([`Listener::recv`]) or gives a handler ([`Bus::subscribe`]), which runs on a task of its own with a deadline for each event. Both are
//! unsubscribed by dropping them.

mod listener;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mobo_core::kernel::{DropRule, Event, Filter, History, Stamped, TopicSpec, Topics, TopicsError, topics};
use mobo_core::limits;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;

pub use listener::{Listener, SubscriberReport, Subscription, Trouble};

use listener::Queue;

/// The bus of a node. Clones share it.
#[derive(Clone)]
pub struct Bus(Arc<Shared>);

struct Shared {
    clock: Clock,
    inner: Mutex<Inner>,
    closed: CancellationToken,
}

struct Inner {
    topics: Topics,
    history: History<Arc<Stamped>>,
    published: u64,
    refused: u64,
    queues: BTreeMap<u64, Arc<Queue>>,
    next: u64,
    /// The troubles of subscribers that are gone.
    gone: Trouble,
}

/// What somebody wants to hear, and how.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Wants {
    /// Who it is, for the log and for counts.
    pub name: String,
    /// Which topics.
    pub filter: Filter,
    /// How many events may wait; at most [`limits::SUBSCRIBER_QUEUE_MAX`].
    pub queue_max: usize,
    /// What a full queue drops.
    pub rule: DropRule,
    /// How many of the last events to begin with.
    pub replay: usize,
    /// True for who wants only one.
    pub once: bool,
}

impl Wants {
    /// All topics from now on, in a queue of the greatest length that drops the oldest.
    #[must_use]
    pub fn all(name: impl Into<String>) -> Self {
        let (filter, queue_max) = (Filter::All, limits::SUBSCRIBER_QUEUE_MAX);
        Self { name: name.into(), filter, queue_max, rule: DropRule::Oldest, replay: 0, once: false }
    }

    /// The same, of these topics only.
    #[must_use]
    pub fn of(mut self, filter: Filter) -> Self {
        self.filter = filter;
        self
    }

    /// The same, for one event only.
    #[must_use]
    pub const fn once(mut self) -> Self {
        self.once = true;
        self
    }
}

/// The bus has as many subscribers as it takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the bus has {max} subscribers already: end one of them", max = limits::SUBSCRIBERS_MAX)]
pub struct BusFull;

/// What a bus did so far.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct BusReport {
    /// Events published.
    pub published: u64,
    /// Events of topics that nobody registered: a mistake in the program.
    pub refused: u64,
    /// Every subscriber of now.
    pub subscribers: Vec<SubscriberReport>,
    /// The troubles of all subscribers, of those that are gone as well.
    pub trouble: Trouble,
}

impl Bus {
    /// A bus with the topics of a node.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let mut known = Topics::default();
        for topic in topics::ALL {
            if let Err(error) = known.register(topic) {
                tracing::error!(%error, "a topic is not published");
            }
        }
        let history = History::new(limits::EVENT_HISTORY_MAX);
        let inner = Inner { topics: known, history, published: 0, refused: 0, queues: BTreeMap::new(), next: 0, gone: Trouble::default() };
        Self(Arc::new(Shared { clock, inner: Mutex::new(inner), closed: CancellationToken::new() }))
    }

    /// Registers a topic of a part's own. The same one again changes nothing.
    ///
    /// # Errors
    ///
    /// [`TopicsError`].
    pub fn register(&self, topic: &'static TopicSpec) -> Result<(), TopicsError> {
        self.inner().topics.register(topic)
    }

    /// Every topic with its schema, by name.
    #[must_use]
    pub fn topics(&self) -> Vec<&'static TopicSpec> {
        self.inner().topics.iter().collect()
    }

    /// Publishes an event, and gives its number; `None` for one whose topic is not registered. Never waits.
    pub fn publish(&self, event: Event) -> Option<u64> {
        let at = self.0.clock.wall();
        let mut inner = self.inner();
        if !inner.topics.has(event.topic()) {
            inner.refused += 1;
            drop(inner);
            tracing::error!(topic = event.topic().name, "an event of a topic that is not registered was not published");
            return None;
        }
        inner.published += 1;
        let n = inner.published;
        let stamped = Arc::new(Stamped { n, at, event });
        inner.history.push(Arc::clone(&stamped));
        inner.queues.values().for_each(|queue| queue.push(&stamped));
        Some(n)
    }

    /// The last `count` events that a filter takes, oldest first.
    #[must_use]
    pub fn history(&self, filter: &Filter, count: usize) -> Vec<Arc<Stamped>> {
        let inner = self.inner();
        inner.history.last(count, |stamped| filter.takes(stamped.event.topic())).into_iter().cloned().collect()
    }

    /// What it did so far.
    #[must_use]
    pub fn report(&self) -> BusReport {
        let inner = self.inner();
        let subscribers: Vec<_> = inner.queues.values().map(|queue| queue.report()).collect();
        let mut trouble = inner.gone;
        subscribers.iter().for_each(|report| trouble.add(report));
        BusReport { published: inner.published, refused: inner.refused, subscribers, trouble }
    }

    /// Ends the bus: listeners hear what waits for them, and then that there is no more. Waits until they have, within
    /// [`limits::BUS_DRAIN_TIMEOUT`].
    pub(crate) async fn close(&self) {
        self.0.closed.cancel();
        let queues: Vec<Arc<Queue>> = self.inner().queues.values().cloned().collect();
        let drained = async {
            for queue in &queues {
                queue.drained().await;
            }
        };
        if tokio::time::timeout(limits::BUS_DRAIN_TIMEOUT, drained).await.is_err() {
            let held_by: Vec<String> =
                queues.iter().map(|queue| queue.report()).filter(|one| one.waiting > 0).map(|one| one.name).collect();
            tracing::warn!(?held_by, "subscribers did not take the last events in time");
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus").field("report", &self.report()).finish_non_exhaustive()
    }
}
