//! One reader of the log for all subscribers.
//!
//! It runs while anybody subscribes, keeps the latest changes in memory, and wakes those who wait. Nothing is kept for a subscriber but its
//! place: whoever is further behind than the memory reaches reads from the store, a few at a time.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use mobo_core::ids::CollectionId;
use mobo_core::limits;
use mobo_core::live::{LiveChange, LiveHead, LivePage, LivePoint};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::backend::{Backend, BackendError};

/// The log of a node, as its subscribers share it.
pub(crate) struct Feed {
    backend: Arc<dyn Backend>,
    ring: Mutex<Ring>,
    /// Counts what the reader has read.
    news: watch::Sender<u64>,
    catching_up: Semaphore,
    /// Held while a collection is begun to be followed.
    beginning: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("head", &self.ring().head).finish_non_exhaustive()
    }
}

/// The end of the log, in memory.
#[derive(Debug, Default)]
struct Ring {
    head: LiveHead,
    /// Everything behind this number that was read is in `changes`.
    after: u64,
    changes: VecDeque<Arc<LiveChange>>,
    bytes: usize,
    /// How many subscribers each collection has; those with none are followed until it runs out.
    wanted: BTreeMap<CollectionId, usize>,
    /// True while the reader runs.
    reading: bool,
}

/// Why a subscriber must read its collections again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Lost {
    /// What it has missed is not in the log any more, or never was in this one.
    Expired,
    /// It does not keep up.
    Slow,
}

impl Lost {
    /// The word for clients.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Slow => "slow",
        }
    }
}

/// A subscriber's place in the log.
#[derive(Debug)]
pub(crate) struct Subscription {
    feed: Arc<Feed>,
    news: watch::Receiver<u64>,
    /// Everything up to here was given.
    at: LivePoint,
    /// What is subscribed, and from which number.
    from: BTreeMap<CollectionId, u64>,
    /// How many changes it is given together: more each time, for one that goes on taking them.
    rows_max: u32,
    /// A page that is being read from the store: it is read once, however often its reader turns to something else.
    paging: Option<JoinHandle<Paged>>,
}

/// Changes of a page, and up to where they go; nothing where the store could not be asked.
type Paged = Result<Option<(Vec<Arc<LiveChange>>, u64)>, Lost>;

enum Step {
    Changes(Vec<Arc<LiveChange>>, u64),
    Wait,
    Page,
    Lost(Lost),
}

impl Feed {
    pub(crate) fn new(backend: Arc<dyn Backend>) -> Arc<Self> {
        Arc::new(Self {
            backend,
            ring: Mutex::default(),
            news: watch::Sender::new(0),
            catching_up: Semaphore::new(limits::LIVE_CATCH_UP_MAX),
            beginning: tokio::sync::Mutex::default(),
        })
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Subscribes to these collections, from a place of the past or from the end of the log. False: the log does not reach back to that
    /// place, and the subscription begins at the end.
    ///
    /// # Errors
    ///
    /// The backend's.
    pub(crate) async fn subscribe(
        self: &Arc<Self>,
        collections: &[CollectionId],
        from: Option<LivePoint>,
    ) -> Result<(Subscription, bool), BackendError> {
        let news = self.news.subscribe();
        let mut subscription = Subscription {
            feed: Arc::clone(self),
            news,
            at: LivePoint { log: 0, n: 0 },
            from: BTreeMap::new(),
            rows_max: limits::LIVE_FIRST_PAGE_ROWS_MAX,
            paging: None,
        };
        for collection in collections {
            if !subscription.from.contains_key(collection) {
                self.want(*collection).await?;
                subscription.from.insert(*collection, 0);
            }
        }
        subscription.restart();
        let Some(from) = from else { return Ok((subscription, true)) };
        let head = self.ring().head.clone();
        // Another hub of this store may have read further.
        let head = if from.n > head.head { self.backend.changes(from.n, 1).await?.head } else { head };
        let is_whole = collections.iter().all(|collection| head.holds(*collection, from)) && !collections.is_empty();
        if !is_whole || head.head - from.n > limits::LIVE_BEHIND_MAX {
            return Ok((subscription, false));
        }
        subscription.at = from;
        subscription.from.values_mut().for_each(|number| *number = from.n);
        Ok((subscription, true))
    }

    /// Has a collection followed, and the log read.
    async fn want(self: &Arc<Self>, collection: CollectionId) -> Result<(), BackendError> {
        let _one_at_a_time = self.beginning.lock().await;
        {
            let mut ring = self.ring();
            if ring.reading && ring.since(collection).is_some() {
                *ring.wanted.entry(collection).or_default() += 1;
                return Ok(());
            }
        }
        let head = self.backend.follow(vec![collection]).await?;
        let mut ring = self.ring();
        if ring.reading && ring.head.log == head.log {
            // The numbers come with the changes; only who is followed is news.
            ring.head.follows = head.follows;
        } else {
            ring.restart(head);
        }
        *ring.wanted.entry(collection).or_default() += 1;
        if !std::mem::replace(&mut ring.reading, true) {
            tokio::spawn(read(Arc::downgrade(self)));
        }
        Ok(())
    }

    fn unwant(&self, collection: CollectionId) {
        let mut ring = self.ring();
        if let Some(count) = ring.wanted.get_mut(&collection) {
            *count = count.saturating_sub(1);
        }
    }

    fn take(&self, page: LivePage) -> bool {
        let more = page.read < page.head.head;
        self.ring().take(page);
        self.news.send_modify(|count| *count += 1);
        more
    }
}

impl Ring {
    fn restart(&mut self, head: LiveHead) {
        self.after = head.head;
        self.head = head;
        self.changes.clear();
        self.bytes = 0;
    }

    fn take(&mut self, page: LivePage) {
        if page.head.log != self.head.log || page.head.head < self.head.head {
            // The store has gone back in time.
            self.restart(page.head);
            return;
        }
        let mut follows = page.head.follows;
        // What was begun since this page was read is not in it.
        let begun = self.head.follows.iter().filter(|(id, since)| *since > page.head.head && follows.iter().all(|(other, _)| other != id));
        follows.extend(begun.copied().collect::<Vec<_>>());
        self.head = LiveHead { head: page.read, follows, ..page.head };
        for change in page.changes {
            self.bytes += change.bytes;
            self.changes.push_back(Arc::new(change));
        }
        while self.changes.len() > limits::LIVE_RING_MAX || self.bytes > limits::LIVE_RING_BYTES_MAX {
            let Some(oldest) = self.changes.pop_front() else { break };
            self.after = oldest.n;
            self.bytes -= oldest.bytes;
        }
    }

    /// Since which number a collection is followed.
    fn since(&self, collection: CollectionId) -> Option<u64> {
        self.head.follows.iter().find(|(followed, _)| *followed == collection).map(|(_, since)| *since)
    }

    /// What a subscriber at that place gets next.
    fn step(&self, at: LivePoint, from: &BTreeMap<CollectionId, u64>, rows_max: u32) -> Step {
        let is_whole = |(id, from): (&CollectionId, &u64)| self.since(*id).is_some_and(|since| since <= at.n.max(*from));
        if at.log != self.head.log || !from.iter().all(is_whole) {
            return Step::Lost(Lost::Expired);
        }
        if at.n >= self.head.head {
            return Step::Wait;
        }
        if self.head.head - at.n > limits::LIVE_BEHIND_MAX {
            return Step::Lost(Lost::Slow);
        }
        if at.n < self.after {
            return Step::Page;
        }
        let first = self.changes.partition_point(|change| change.n <= at.n);
        let some: Vec<_> = self.changes.iter().skip(first).take(rows_max as usize).cloned().collect();
        // Numbers that no change has are of other projects.
        let all = first + some.len() >= self.changes.len();
        let upto = some.last().filter(|_| !all).map_or(self.head.head, |change| change.n);
        Step::Changes(some, upto)
    }
}

impl Subscription {
    /// Everything up to here was given, or is not for this subscriber.
    pub(crate) const fn at(&self) -> LivePoint {
        self.at
    }

    /// Begins again at the end of the log.
    pub(crate) fn restart(&mut self) {
        self.paging = None;
        let ring = self.feed.ring();
        self.at = ring.head.point();
        let since = |collection| ring.since(collection).unwrap_or_default();
        // One that is followed since a moment ago may be ahead of what was read.
        self.from.iter_mut().for_each(|(collection, from)| *from = since(*collection).max(ring.head.head));
    }

    /// The next changes of the subscribed collections, once there are some; waits for ever while nothing is subscribed. It may be dropped
    /// while it waits, and nothing is lost.
    ///
    /// # Errors
    ///
    /// [`Lost`]; [`restart`](Self::restart) goes on.
    pub(crate) async fn next(&mut self) -> Result<Vec<Arc<LiveChange>>, Lost> {
        loop {
            if self.from.is_empty() {
                return std::future::pending().await;
            }
            self.news.borrow_and_update();
            let step = self.feed.ring().step(self.at, &self.from, self.rows_max);
            let (changes, upto) = match step {
                Step::Changes(changes, upto) => (changes, upto),
                Step::Lost(lost) => return Err(lost),
                Step::Wait => {
                    if self.news.changed().await.is_err() {
                        return std::future::pending().await;
                    }
                    continue;
                }
                Step::Page => {
                    let (feed, place, from) = (&self.feed, (self.at, self.rows_max), &self.from);
                    let paging = self.paging.get_or_insert_with(|| tokio::spawn(page(Arc::clone(feed), place, from.clone())));
                    let paged = paging.await;
                    self.paging = None;
                    match paged {
                        Ok(Ok(Some(page))) => page,
                        Ok(Err(lost)) => return Err(lost),
                        Ok(Ok(None)) | Err(_) => continue,
                    }
                }
            };
            self.at.n = upto;
            self.rows_max = (self.rows_max * 2).min(limits::LIVE_PAGE_ROWS_MAX);
            let from = &self.from;
            let is_mine = |change: &Arc<LiveChange>| from.get(&change.collection).is_some_and(|from| change.n > *from);
            let mine: Vec<_> = changes.into_iter().filter(is_mine).collect();
            if !mine.is_empty() {
                return Ok(mine);
            }
        }
    }
}

/// A page from the store, in turn with others who are behind.
async fn page(feed: Arc<Feed>, (at, rows_max): (LivePoint, u32), from: BTreeMap<CollectionId, u64>) -> Paged {
    let Ok(_turn) = feed.catching_up.acquire().await else { return std::future::pending().await };
    match feed.backend.changes(at.n, rows_max).await {
        Ok(page) => {
            let since = |id| page.head.follows.iter().find(|(followed, _)| *followed == id).map(|(_, since)| *since);
            let is_whole = from.iter().all(|(id, from)| since(*id).is_some_and(|since| since <= at.n.max(*from)));
            if !is_whole || page.head.log != at.log || page.head.floor > at.n {
                return Err(Lost::Expired);
            }
            Ok(Some((page.changes.into_iter().map(Arc::new).collect(), page.read)))
        }
        Err(error) => {
            tracing::debug!(%error, "a subscriber cannot read the log");
            sleep(limits::LIVE_RETRY).await;
            Ok(None)
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.from.keys().for_each(|collection| self.feed.unwant(*collection));
    }
}

/// Reads the log until nobody subscribes.
async fn read(feed: Weak<Feed>) {
    let (mut renewed, mut used) = (Instant::now(), Instant::now());
    loop {
        let Some(feed) = feed.upgrade() else { return };
        let (after, wanted) = {
            let mut ring = feed.ring();
            ring.wanted.retain(|_, count| *count > 0);
            if !ring.wanted.is_empty() {
                used = Instant::now();
            } else if used.elapsed() > limits::LIVE_LINGER {
                *ring = Ring::default();
                return;
            }
            (ring.head.head, ring.wanted.keys().copied().collect::<Vec<_>>())
        };
        let committed = feed.backend.committed();
        if renewed.elapsed() > limits::LIVE_FOLLOW_RENEW {
            match feed.backend.follow(wanted).await {
                Ok(_) => renewed = Instant::now(),
                Err(error) => tracing::warn!(%error, "the log of changes is not renewed; trying again"),
            }
        }
        match feed.backend.changes(after, limits::LIVE_PAGE_ROWS_MAX).await {
            Ok(page) => {
                if feed.take(page) {
                    continue;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the log of changes cannot be read; trying again");
                sleep(limits::LIVE_RETRY).await;
                continue;
            }
        }
        drop(feed);
        // Who is not told of a commit looks by itself.
        let _ = timeout(limits::LIVE_POLL, committed).await;
    }
}
