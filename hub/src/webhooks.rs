//! The part that tells an app's own servers what happens in its channels: the webhooks of Pusher's protocol.
//!
//! What happens waits in a bounded queue for each address, and goes out in batches, in order. A receiver that takes nothing is tried again with
//! pauses that grow, for as long as Pusher does; what is older, or has no place, is given up, counted and told. An event may come twice, where an
//! answer was lost. Channels are of one node, and so is what is told of them: each hub of a store tells its own.

mod receiver;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use mobo_core::backoff::Backoff;
use mobo_core::kernel::{Check, ComponentName, ComponentSpec, Fault, Vital};
use mobo_core::limits;
use mobo_gate::{HookBatch, HookKind, HookQueue, Hooks, PusherApp};
use mobo_runtime::component::{BoxFuture, Component};
use mobo_runtime::config::{Define, Setting, listed};
use mobo_runtime::entropy;
use mobo_runtime::metrics::{Counter, Counters, Metric};
use mobo_runtime::serving::WEBHOOK_URLS;
use mobo_runtime::tasks::Tasks;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::node::{Hub, VERSION};
use crate::outgoing::Trouble;
use crate::settings;
use receiver::Receiver;

/// What is told.
pub static WEBHOOK_EVENTS: Setting<String> = Setting::new(
    "pusher.webhook_events",
    "channel_occupied,channel_vacated,member_added,member_removed,cache_miss,client_event",
    "0.1.0",
    "What pusher.webhook_urls are told of, with commas between several.",
)
.checked(|text| {
    let is_none = |name: &&str| HookKind::from_name(name).is_none();
    listed(text)
        .find(is_none)
        .map(|name| format!("no list of events: there is no {name:?}, but {}", HookKind::ALL.map(HookKind::name).join(", ")))
});

static SENT: Counter = Counter::new("mobo_webhook_events_sent_total", "Events that a receiver of webhooks took.");
static FAILED: Counters<1> = Counters::new("mobo_webhook_failed_total", ["reason"], "Webhooks that a receiver did not take, by why.");
static DROPPED: Counters<1> = Counters::new("mobo_webhook_events_dropped_total", ["reason"], "Events that were given up, by why.");

/// The metrics of this module.
pub static METRICS: &[&dyn Metric] = &[&SENT, &FAILED, &DROPPED];

/// The part. It is optional, and idle without an address.
pub struct WebhooksPart {
    hub: Arc<Hub>,
    /// What the settings say, looked at once: their addresses bring the machine's certificates with them.
    wanted: Result<Option<Wanted>, Fault>,
    hooks: Option<Hooks>,
    standings: Vec<Arc<Standing>>,
}

/// How it goes with one receiver.
#[derive(Debug, Default)]
struct Standing(Mutex<Said>);

#[derive(Debug, Default)]
struct Said {
    /// Where that is, and why it takes nothing, while it does not.
    trouble: Option<String>,
    dropped: u64,
    /// Of those, the ones that the log was not told of.
    untold: u64,
    told: Option<Instant>,
}

impl std::fmt::Debug for WebhooksPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhooksPart").field("hooks", &self.hooks).finish_non_exhaustive()
    }
}

impl WebhooksPart {
    /// Its name on the board.
    pub const NAME: ComponentName = ComponentName::fixed("webhooks");

    /// A part that tells of the channels of this hub. It is plugged in before the gate, and so stops after it: what a stop brings about is told.
    #[must_use]
    pub fn new(hub: Arc<Hub>) -> Self {
        let wanted = wanted(&hub);
        let told = wanted.as_ref().ok().and_then(Option::as_ref);
        let hooks = told.map(|wanted| Hooks::new(wanted.kinds.iter().copied(), wanted.receivers.len()));
        let standings = hooks.iter().flat_map(Hooks::queues).map(|_| Arc::default()).collect();
        Self { hub, wanted, hooks, standings }
    }

    /// Where the gate puts what is to be told; `None` where nobody is told anything.
    #[must_use]
    pub fn hooks(&self) -> Option<Hooks> {
        self.hooks.clone()
    }
}

/// Who is told, and of what.
struct Wanted {
    receivers: Vec<Arc<Receiver>>,
    kinds: Vec<HookKind>,
}

fn wanted(hub: &Hub) -> Result<Option<Wanted>, Fault> {
    let config = &hub.config;
    let (urls, events) = (config.get(&WEBHOOK_URLS), config.get(&WEBHOOK_EVENTS));
    let urls: Vec<&str> = listed(&urls).collect();
    if urls.is_empty() {
        return Ok(None);
    }
    let key = WEBHOOK_URLS.definition().key;
    if urls.len() > limits::WEBHOOK_URLS_MAX {
        return Err(Fault::new(format!("{key} has {} addresses", urls.len()), format!("keep {} of them", limits::WEBHOOK_URLS_MAX)));
    }
    let (id, app_key) = (config.get(&settings::PUSHER_ID), config.get(&settings::PUSHER_KEY));
    let secret = config.get(&settings::PUSHER_SECRET).filter(|secret| !secret.is_empty() && !id.is_empty() && !app_key.is_empty());
    let Some(secret) = secret else {
        return Err(Fault::new(format!("{key} is set, and there is no app"), "set pusher.id, pusher.key and pusher.secret, too"));
    };
    let app = Arc::new(PusherApp::new(&id, &app_key, &secret));
    let receivers: Result<Vec<_>, String> = urls.iter().map(|url| Receiver::at(url, Arc::clone(&app)).map(Arc::new)).collect();
    let receivers = receivers.map_err(|why| Fault::new(why, format!("look at {key}")))?;
    let kind = |name: &str| {
        let known = || HookKind::ALL.map(HookKind::name).join(", ");
        let why = || Fault::new(format!("{} names \"{name}\"", WEBHOOK_EVENTS.definition().key), format!("there are {}", known()));
        HookKind::from_name(name).ok_or_else(why)
    };
    let kinds = listed(&events).map(kind).collect::<Result<Vec<_>, _>>()?;
    Ok(Some(Wanted { receivers, kinds }))
}

impl Component for WebhooksPart {
    fn spec(&self) -> ComponentSpec {
        ComponentSpec::optional(Self::NAME, VERSION)
    }

    fn post(&self) -> BoxFuture<'_, Vec<Check>> {
        Box::pin(async {
            match &self.wanted {
                Ok(None) => Vec::new(),
                Ok(Some(Wanted { receivers, .. })) => {
                    let shown: Vec<&str> = receivers.iter().map(|receiver| receiver.shown()).collect();
                    vec![Check::pass("webhooks", format!("what happens in channels is told to {}", shown.join(", ")))]
                }
                Err(Fault { reason, advice }) => vec![Check::fail("webhooks", reason.clone(), advice.clone())],
            }
        })
    }

    fn start(&self, tasks: Tasks) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let (Some(wanted), Some(hooks)) = (self.wanted.as_ref().map_err(Fault::clone)?, &self.hooks) else { return Ok(()) };
            let (stopping, clock) = (tasks.stopping(), self.hub.clock);
            let senders: Vec<_> = wanted
                .receivers
                .iter()
                .map(Arc::clone)
                .zip(hooks.queues())
                .zip(&self.standings)
                .map(|((receiver, queue), standing)| {
                    let now_ms: Box<dyn Fn() -> i64 + Send + Sync> = Box::new(move || clock.wall().0.div_euclid(1_000));
                    let pauses = Backoff::new(limits::WEBHOOK_RETRY_MIN, limits::WEBHOOK_RETRY_MAX);
                    Sender { receiver, queue: Arc::clone(queue), standing: Arc::clone(standing), now_ms, pauses }.run(stopping.clone())
                })
                .collect();
            tasks.spawn("webhooks.send", async { drop(join_all(senders).await) });
            Ok(())
        })
    }

    /// A receiver that is away is nothing that a restart of this part would mend.
    fn health(&self) -> BoxFuture<'_, Vital> {
        Box::pin(async {
            let told = self.standings.iter().filter_map(|standing| {
                let said = standing.said();
                let trouble = said.trouble.as_ref()?;
                Some(if said.dropped == 0 { trouble.clone() } else { format!("{trouble} ({} events were given up)", said.dropped) })
            });
            let told: Vec<String> = told.collect();
            if told.is_empty() { Vital::Fine } else { Vital::Worn(format!("webhooks wait: {}", told.join("; "))) }
        })
    }

    fn stop(&self, _: Instant) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }
}

impl Standing {
    fn said(&self) -> MutexGuard<'_, Said> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What takes events out of one queue and sends them.
struct Sender {
    receiver: Arc<Receiver>,
    queue: Arc<HookQueue>,
    standing: Arc<Standing>,
    now_ms: Box<dyn Fn() -> i64 + Send + Sync>,
    pauses: Backoff,
}

impl Sender {
    async fn run(mut self, stopping: CancellationToken) {
        loop {
            tokio::select! {
                () = stopping.cancelled() => break,
                () = self.queue.ready() => {}
            }
            // Whatever comes about in the same moment goes together.
            tokio::select! {
                () = stopping.cancelled() => break,
                () = tokio::time::sleep(limits::WEBHOOK_LINGER) => {}
            }
            self.count_dropped();
            if let Some(batch) = self.queue.take() {
                self.deliver(&batch, &stopping).await;
            }
        }
        self.farewell().await;
    }

    /// Sends a batch, and again, until it is taken, too old, or the node stops.
    async fn deliver(&mut self, batch: &HookBatch, stopping: &CancellationToken) {
        let body = batch.body((self.now_ms)());
        loop {
            let Err(trouble) = self.try_once(&body).await else {
                self.pauses.reset();
                return self.works(batch.events);
            };
            self.fails(&trouble);
            let pause = self.pauses.next_pause(entropy::id().unwrap_or_default(), None);
            let is_late = batch.since.elapsed() + pause > limits::WEBHOOK_PATIENCE;
            if is_late {
                self.give_up("late", batch.events as u64);
            }
            tokio::select! {
                () = stopping.cancelled() => {
                    if !is_late {
                        self.give_up("stopped", batch.events as u64);
                    }
                    return;
                }
                () = tokio::time::sleep(pause) => {}
            }
            if is_late {
                return;
            }
            self.count_dropped();
        }
    }

    async fn try_once(&self, body: &str) -> Result<(), Trouble> {
        match timeout(limits::WEBHOOK_TIMEOUT, self.receiver.post(body)).await {
            Ok(done) => done,
            Err(_) => Err(self.receiver.silent()),
        }
    }

    /// What waits when the node stops is sent once, to a receiver that was there until now.
    async fn farewell(&mut self) {
        let is_there = self.standing.said().trouble.is_none();
        let until = Instant::now() + limits::WEBHOOK_FAREWELL;
        while let Some(batch) = self.queue.take() {
            let left = until.saturating_duration_since(Instant::now());
            let body = batch.body((self.now_ms)());
            let is_taken = is_there && left > Duration::ZERO && matches!(timeout(left, self.receiver.post(&body)).await, Ok(Ok(())));
            if is_taken {
                SENT.add(batch.events as u64);
            } else {
                self.give_up("stopped", batch.events as u64);
            }
        }
        let untold = std::mem::take(&mut self.standing.said().untold);
        if untold > 0 {
            tracing::warn!(receiver = self.receiver.shown(), dropped = untold, "events of webhooks were given up");
        }
    }

    fn works(&self, events: usize) {
        SENT.add(events as u64);
        let was_trouble = self.standing.said().trouble.take().is_some();
        if was_trouble {
            let dropped = std::mem::take(&mut self.standing.said().untold);
            tracing::info!(receiver = self.receiver.shown(), dropped, "the receiver takes webhooks again");
        }
    }

    fn fails(&self, trouble: &Trouble) {
        FAILED.add([trouble.reason], 1);
        let is_news = self.standing.said().trouble.replace(trouble.detail.clone()).is_none();
        if is_news {
            tracing::warn!(receiver = self.receiver.shown(), why = trouble.detail, "the receiver takes no webhooks; trying again");
        }
    }

    /// Counts what had no place.
    fn count_dropped(&self) {
        let dropped = self.queue.take_dropped();
        if dropped > 0 {
            self.give_up("full", dropped);
        }
    }

    /// Counts what is given up, and says so, though not each time.
    fn give_up(&self, reason: &'static str, events: u64) {
        DROPPED.add([reason], events);
        let dropped = {
            let mut said = self.standing.said();
            said.dropped = said.dropped.saturating_add(events);
            said.untold = said.untold.saturating_add(events);
            let is_time = said.told.is_none_or(|told| told.elapsed() >= limits::WEBHOOK_TELL_EVERY);
            if is_time {
                said.told = Some(Instant::now());
            }
            if is_time { std::mem::take(&mut said.untold) } else { 0 }
        };
        if dropped > 0 {
            tracing::warn!(receiver = self.receiver.shown(), reason, dropped, "events of webhooks were given up");
        }
    }
}

#[cfg(test)]
mod tests;
