//! What an app's own servers are told of its channels: the events of Pusher's webhooks. The gate puts them into queues, one for each receiver, and
//! never waits; the node takes them out and sends them.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mobo_core::limits;
use serde_json::{Value as Json, json};
use tokio::sync::Notify;
use tokio::time::Instant;

/// What a webhook tells.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum HookKind {
    /// A client has said something in a channel.
    ClientEvent,
    /// The first one is in a channel.
    ChannelOccupied,
    /// The last one has left it.
    ChannelVacated,
    /// A user is in a presence channel.
    MemberAdded,
    /// He is in it on no connection any more.
    MemberRemoved,
    /// Somebody came into a cache channel that had nothing to show.
    CacheMiss,
}

impl HookKind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::ClientEvent, Self::ChannelOccupied, Self::ChannelVacated, Self::MemberAdded, Self::MemberRemoved, Self::CacheMiss];

    /// Its name, as Pusher has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClientEvent => "client_event",
            Self::ChannelOccupied => "channel_occupied",
            Self::ChannelVacated => "channel_vacated",
            Self::MemberAdded => "member_added",
            Self::MemberRemoved => "member_removed",
            Self::CacheMiss => "cache_miss",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// The queues of an app's webhooks. Clones share them.
#[derive(Clone)]
pub struct Hooks(Arc<Shared>);

struct Shared {
    wanted: BTreeSet<HookKind>,
    queues: Vec<Arc<HookQueue>>,
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks").field("wanted", &self.0.wanted).field("queues", &self.0.queues.len()).finish()
    }
}

impl Hooks {
    /// Queues for so many receivers, each of which is told of these.
    #[must_use]
    pub fn new(wanted: impl IntoIterator<Item = HookKind>, receivers: usize) -> Self {
        let queues = (0..receivers).map(|_| Arc::default()).collect();
        Self(Arc::new(Shared { wanted: wanted.into_iter().collect(), queues }))
    }

    /// A queue for each receiver, in their order.
    #[must_use]
    pub fn queues(&self) -> &[Arc<HookQueue>] {
        &self.0.queues
    }

    /// Tells of something in a channel, with what more is known of it. Where nobody wants to know, nothing is made.
    pub(super) fn tell(&self, kind: HookKind, channel: &str, more: impl FnOnce() -> Json) {
        if !self.0.wanted.contains(&kind) {
            return;
        }
        let mut event = json!({ "name": kind.name(), "channel": channel });
        if let (Some(members), Json::Object(more)) = (event.as_object_mut(), more()) {
            members.extend(more);
        }
        let event: Arc<str> = event.to_string().into();
        self.0.queues.iter().for_each(|queue| queue.put(&event));
    }

    /// The same with nothing more to say.
    pub fn tell_of(&self, kind: HookKind, channel: &str) {
        self.tell(kind, channel, || json!({}));
    }

    /// Tells of a user in a presence channel.
    pub(super) fn tell_member(&self, kind: HookKind, channel: &str, user: &str) {
        self.tell(kind, channel, || json!({ "user_id": user }));
    }
}

/// What waits for one receiver: at most [`limits::WEBHOOK_QUEUE_EVENTS_MAX`] and [`limits::WEBHOOK_QUEUE_BYTES_MAX`]. What has no place is dropped
/// and counted.
#[derive(Debug, Default)]
pub struct HookQueue {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<(Instant, Arc<str>)>,
    bytes: usize,
    dropped: u64,
}

/// Events that go together.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HookBatch {
    /// How many there are: at least one.
    pub events: usize,
    /// When the first of them happened.
    pub since: Instant,
    body: String,
}

impl HookBatch {
    /// The body of a webhook that is sent at this time, in milliseconds since 1970.
    #[must_use]
    pub fn body(&self, now_ms: i64) -> String {
        format!("{{\"time_ms\":{now_ms},\"events\":[{}]}}", self.body)
    }
}

impl HookQueue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, event: &Arc<str>) {
        let mut waiting = self.waiting();
        let bytes = waiting.bytes + event.len();
        if waiting.events.len() >= limits::WEBHOOK_QUEUE_EVENTS_MAX || bytes > limits::WEBHOOK_QUEUE_BYTES_MAX {
            waiting.dropped = waiting.dropped.saturating_add(1);
            return;
        }
        waiting.bytes = bytes;
        waiting.events.push_back((Instant::now(), Arc::clone(event)));
        drop(waiting);
        self.arrived.notify_one();
    }

    /// Ready when something waits. One task at a time takes it out.
    pub async fn ready(&self) {
        while self.waiting().events.is_empty() {
            self.arrived.notified().await;
        }
    }

    /// Takes the next events out, in their order; `None` when none wait.
    pub fn take(&self) -> Option<HookBatch> {
        let mut waiting = self.waiting();
        let (since, first) = waiting.events.pop_front()?;
        let (mut body, mut events) = (first.to_string(), 1);
        while events < limits::WEBHOOK_BATCH_MAX
            && let Some((_, next)) = waiting.events.front()
            && body.len() + next.len() < limits::WEBHOOK_BODY_BYTES_MAX
        {
            body.push(',');
            body.push_str(next);
            waiting.events.pop_front();
            events += 1;
        }
        waiting.bytes = waiting.bytes.saturating_sub(body.len() - (events - 1));
        Some(HookBatch { events, since, body })
    }

    /// How many had no place since this was last asked.
    pub fn take_dropped(&self) -> u64 {
        std::mem::take(&mut self.waiting().dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn events_come_out_in_their_order_and_together() {
        let hooks = Hooks::new([HookKind::MemberAdded, HookKind::ChannelOccupied], 2);
        hooks.tell_of(HookKind::ChannelOccupied, "presence-a");
        hooks.tell_member(HookKind::MemberAdded, "presence-a", "7");
        hooks.tell(HookKind::ClientEvent, "presence-a", || unreachable!("nobody wants to know"));
        for queue in hooks.queues() {
            queue.ready().await;
            let batch = queue.take().unwrap();
            let told: Json = serde_json::from_str(&batch.body(5)).unwrap();
            let occupied = json!({ "name": "channel_occupied", "channel": "presence-a" });
            let added = json!({ "name": "member_added", "channel": "presence-a", "user_id": "7" });
            assert_eq!(told, json!({ "time_ms": 5, "events": [occupied, added] }));
            assert_eq!((batch.events, queue.take(), queue.waiting().bytes), (2, None, 0));
        }
        assert!(HookKind::ALL.into_iter().all(|kind| HookKind::from_name(kind.name()) == Some(kind)));
    }

    #[test]
    fn what_has_no_place_is_counted() {
        let hooks = Hooks::new(HookKind::ALL, 1);
        let queue = &hooks.queues()[0];
        (0..limits::WEBHOOK_QUEUE_EVENTS_MAX + 3).for_each(|_| hooks.tell_of(HookKind::CacheMiss, "cache-a"));
        assert_eq!((queue.take_dropped(), queue.take_dropped()), (3, 0));
        let mut taken = 0;
        while let Some(batch) = queue.take() {
            assert!(batch.events <= limits::WEBHOOK_BATCH_MAX);
            taken += batch.events;
        }
        assert_eq!((taken, queue.waiting().bytes), (limits::WEBHOOK_QUEUE_EVENTS_MAX, 0));
        // Few large ones are as many bytes.
        let large = "x".repeat(limits::EVENT_BYTES_MAX);
        (0..100).for_each(|_| hooks.tell(HookKind::ClientEvent, "private-a", || json!({ "data": large })));
        let fit = limits::WEBHOOK_QUEUE_BYTES_MAX / limits::EVENT_BYTES_MAX;
        assert!((100 - fit as u64..=103 - fit as u64).contains(&queue.take_dropped()));
        assert_eq!(queue.take().map(|batch| batch.events), Some(limits::WEBHOOK_BODY_BYTES_MAX / limits::EVENT_BYTES_MAX));
    }
}
