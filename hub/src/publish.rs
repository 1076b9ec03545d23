//! The part that publishes committed changes to an external server of Pusher's protocol, where clients of that server listen.
//!
//! Each change of the collections that are named goes, in the order of the commits, to the channel `private-{collection}` as an event `insert`,
//! `update` or `delete`. What waits, waits in the log of committed changes: a server that is away costs no memory, and what it has not taken when
//! the log drops it is given up, counted and told. An event may come twice, when an answer was lost or another hub went on: its `position`
//! tells. Of the hubs of a store one publishes at a time. What is committed while this part runs nowhere is not published.

mod events;
mod server;
mod turn;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mobo_core::backoff::Backoff;
use mobo_core::ids::CollectionId;
use mobo_core::kernel::{Check, ComponentName, ComponentSpec, Fault, Vital, topics};
use mobo_core::limits;
use mobo_core::live::LivePoint;
use mobo_core::schema::Schema;
use mobo_core::store::StoreError;
use mobo_gate::PusherApp;
use mobo_runtime::component::{BoxFuture, Component};
use mobo_runtime::config::{Define, Setting, listed};
use mobo_runtime::entropy;
use mobo_runtime::metrics::{Counter, Counters, Metric};
use mobo_runtime::tasks::Tasks;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::node::{Hub, Opened, STORE, VERSION, store_fault};
use crate::outgoing::Trouble;
use events::{Waiting, events_of, waiting};
use server::Server;
use turn::{Turn, Whose};

/// Where the server is.
pub static URL: Setting<String> = Setting::new(
    "publish.url",
    "",
    "0.1.0",
    "Where a server of Pusher's protocol takes events, such as https://soketi.example.com:6001. Of the hubs of a store that have it, one publishes at a time. Empty: nothing is published.",
);
/// Which app of it.
pub static APP: Setting<String> = Setting::new("publish.app", "", "0.1.0", "The id of the app at publish.url.");
/// Its key.
pub static KEY: Setting<String> = Setting::new("publish.key", "", "0.1.0", "The key of that app.");
/// What proves that we may.
pub static SECRET: Setting<Option<String>> = Setting::new("publish.secret", "", "0.1.0", "The secret of that app.").secret();
/// What is published.
pub static COLLECTIONS: Setting<String> = Setting::new(
    "publish.collections",
    "",
    "0.1.0",
    "The collections whose changes are published, with commas between them: each to the channel private-NAME, whole rows, to whoever that server lets in.",
);

static SENT: Counter = Counter::new("mobo_publish_sent_total", "Changes that the external server took.");
static FAILED: Counters<1> =
    Counters::new("mobo_publish_failed_total", ["reason"], "Requests that the external server did not take, by why.");
static DROPPED: Counters<1> = Counters::new("mobo_publish_dropped_total", ["reason"], "Changes that were given up, by why.");

/// The metrics of this module.
pub static METRICS: &[&dyn Metric] = &[&SENT, &FAILED, &DROPPED];

/// The part. It is optional, and idle without an address.
pub struct PublishPart {
    hub: Arc<Hub>,
    standing: Arc<Mutex<Standing>>,
}

/// How publishing goes.
#[derive(Debug, Default)]
struct Standing {
    /// Why the server takes nothing, while it does not.
    trouble: Option<String>,
    /// Changes that were given up since this was last told.
    untold: u64,
    /// All of them.
    dropped: u64,
}

impl std::fmt::Debug for PublishPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PublishPart").field("standing", &self.standing).finish_non_exhaustive()
    }
}

impl PublishPart {
    /// Its name on the board.
    pub const NAME: ComponentName = ComponentName::fixed("publish");

    /// A part that publishes the changes of this hub.
    #[must_use]
    pub fn new(hub: Arc<Hub>) -> Self {
        Self { hub, standing: Arc::default() }
    }

    /// The server and the names of what it gets; `None` where nothing is published.
    fn wanted(&self) -> Result<Option<(Server, Vec<String>)>, Fault> {
        let config = &self.hub.config;
        let url = config.get(&URL);
        if url.is_empty() {
            return Ok(None);
        }
        let (app, key) = (config.get(&APP), config.get(&KEY));
        let secret = config.get(&SECRET).filter(|secret| !secret.is_empty() && !app.is_empty() && !key.is_empty());
        let names: Vec<String> = listed(&config.get(&COLLECTIONS)).map(str::to_owned).collect();
        let (Some(secret), false) = (secret, names.is_empty()) else {
            let needed = [&APP, &KEY, &COLLECTIONS].map(|setting| setting.definition().key).join(", ");
            let why = format!("{} is set, and {needed} or {} is not", URL.definition().key, SECRET.definition().key);
            return Err(Fault::new(why, "set all of them, or none"));
        };
        let server = Server::at(&url, &app, PusherApp::new(&app, &key, &secret));
        server.map(|server| Some((server, names))).map_err(|why| Fault::new(why, format!("look at {}", URL.definition().key)))
    }
}

impl Component for PublishPart {
    fn spec(&self) -> ComponentSpec {
        ComponentSpec::optional(Self::NAME, VERSION).needing([STORE])
    }

    fn post(&self) -> BoxFuture<'_, Vec<Check>> {
        Box::pin(async {
            match self.wanted() {
                Ok(None) => Vec::new(),
                Ok(Some((server, names))) => {
                    vec![Check::pass("publish", format!("changes of {} go to {}", names.join(", "), server.shown()))]
                }
                Err(Fault { reason, advice }) => vec![Check::fail("publish", reason, advice)],
            }
        })
    }

    fn start(&self, tasks: Tasks) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let Some((server, names)) = self.wanted()? else { return Ok(()) };
            let (hub, standing) = (Arc::clone(&self.hub), Arc::clone(&self.standing));
            let drawn = entropy::bytes().map_err(|error| Fault::new(error.to_string(), "look at the system's randomness"))?;
            let mut publisher = Publisher { hub, standing, server, names, turn: Turn::new(drawn), place: None, renewed: None };
            // What is committed once this part works is published.
            let opened = self.hub.opened().map_err(|error| store_fault(&error, ""))?;
            if let Err(trouble) = publisher.follow(&opened).await {
                publisher.fails(&trouble);
            }
            tasks.spawn("publish.send", publisher.run((opened.schema.subscribe(), tasks.stopping())));
            Ok(())
        })
    }

    /// A server that is away is nothing that a restart of this part would mend.
    fn health(&self) -> BoxFuture<'_, Vital> {
        Box::pin(async {
            let standing = locked(&self.standing);
            match &standing.trouble {
                None => Vital::Fine,
                Some(why) if standing.dropped == 0 => Vital::Worn(format!("changes wait to be published: {why}")),
                Some(why) => Vital::Worn(format!("changes wait to be published, and {} were given up: {why}", standing.dropped)),
            }
        })
    }

    fn stop(&self, _: Instant) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }
}

fn locked(standing: &Mutex<Standing>) -> MutexGuard<'_, Standing> {
    standing.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Publisher {
    hub: Arc<Hub>,
    standing: Arc<Mutex<Standing>>,
    server: Server,
    names: Vec<String>,
    turn: Turn,
    /// Everything up to here was published, or given up.
    place: Option<LivePoint>,
    /// When the log was last told that these are followed, and which.
    renewed: Option<(Instant, Vec<CollectionId>)>,
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self { reason: "store", detail: error.to_string() }
    }
}

impl Publisher {
    async fn run(mut self, (mut schema, stopping): (watch::Receiver<Arc<Schema>>, CancellationToken)) {
        let mut pauses = Backoff::new(limits::PUBLISH_RETRY_MIN, limits::PUBLISH_RETRY_MAX);
        loop {
            // From before the log is read, so that no commit is missed.
            let committed = self.hub.merges().ok().map(|merges| merges.hints());
            let pause = match self.step().await {
                Ok(more) => {
                    pauses.reset();
                    self.works();
                    if more { Duration::ZERO } else { limits::LIVE_POLL }
                }
                Err(trouble) => {
                    self.fails(&trouble);
                    pauses.next_pause(entropy::id().unwrap_or_default(), None)
                }
            };
            let is_well = locked(&self.standing).trouble.is_none();
            let hinted = async {
                match committed {
                    Some(mut hints) if is_well => drop(hints.recv().await),
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stopping.cancelled() => return self.end().await,
                () = tokio::time::sleep(pause) => {}
                () = hinted => {}
                // One of the collections may be new.
                Ok(()) = schema.changed() => {}
            }
        }
    }

    /// Publishes the next changes; true when more are there.
    async fn step(&mut self) -> Result<bool, Trouble> {
        let opened = self.hub.opened()?;
        self.follow(&opened).await?;
        if !self.is_our_turn(&opened).await? {
            return Ok(false);
        }
        let Some(mut at) = self.place else { return Ok(false) };
        let page = loop {
            let page = opened.store.changes(opened.project, at.n, limits::LIVE_PAGE_ROWS_MAX).await?;
            let Waiting::Lost { from, lost } = waiting(at, &page) else { break page };
            self.give_up("behind", lost);
            if from.log != at.log {
                // Nobody has told this log yet what it is to keep.
                self.renewed = None;
            }
            self.place = Some(from);
            self.follow(&opened).await?;
            at = self.place.unwrap_or(from);
        };
        let schema = Arc::clone(&opened.schema.borrow());
        for batch in events_of(&page, &schema, &self.names).chunks(limits::EVENT_BATCH_MAX) {
            if !self.is_our_turn(&opened).await? {
                return Ok(false);
            }
            self.send(batch).await?;
        }
        at.n = page.read;
        self.place = Some(at);
        Ok(page.read < page.head.head)
    }

    /// Whether this hub is the one that publishes. While it is not, it keeps up with the one that does.
    async fn is_our_turn(&mut self, opened: &Opened) -> Result<bool, Trouble> {
        let Some(at) = self.place else { return Ok(false) };
        let accounts = self.hub.accounts().ok_or_else(|| StoreError::Unavailable("the store is not open yet".to_owned()))?;
        match self.turn.ask(&accounts, (at, opened.time.now())).await? {
            Whose::Ours => Ok(true),
            Whose::Theirs(place) => {
                // One that knows another log knows less than this one.
                self.place = Some(if place.log == at.log { place } else { at });
                Ok(false)
            }
        }
    }

    /// Sends events. Of those that the server does not take together it gets every one that it takes, and the others are given up.
    async fn send(&mut self, batch: &[events::Event]) -> Result<(), Trouble> {
        let mut parts = vec![batch];
        while let Some(part) = parts.pop() {
            let is_taken = self.server.publish(part, self.hub.clock.wall()).await?;
            if !is_taken && part.len() > 1 {
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([second, first]);
                continue;
            }
            if is_taken {
                SENT.add(part.len() as u64);
            } else {
                self.give_up("refused", part.len() as u64);
            }
            if let (Some(place), Some(last)) = (&mut self.place, part.last()) {
                place.n = last.n;
            }
        }
        Ok(())
    }

    /// Another hub need not wait until the turn is over.
    async fn end(mut self) {
        if let (Some(accounts), Some(at)) = (self.hub.accounts(), self.place)
            && let Err(error) = self.turn.end(&accounts, at).await
        {
            tracing::debug!(%error, "whoever publishes next waits until this turn is over");
        }
    }

    /// Has the log keep the changes of what is published, and begins at its end where it is another one.
    async fn follow(&mut self, opened: &Opened) -> Result<(), Trouble> {
        let schema = Arc::clone(&opened.schema.borrow());
        let ids: Vec<CollectionId> = self.names.iter().filter_map(|name| Some(schema.by_name(name)?.id)).collect();
        let is_fresh = |(at, of): &(Instant, Vec<CollectionId>)| at.elapsed() < limits::LIVE_FOLLOW_RENEW && *of == ids;
        if self.renewed.as_ref().is_some_and(is_fresh) {
            return Ok(());
        }
        if ids.is_empty() {
            // One of that name may be made yet.
            return Ok(());
        }
        let head = opened.store.follow(opened.project, ids.clone(), limits::LIVE_FOLLOW).await?;
        if self.place.is_none_or(|place| place.log != head.log) {
            self.place = Some(head.point());
        }
        self.renewed = Some((Instant::now(), ids));
        Ok(())
    }

    fn give_up(&self, reason: &'static str, count: u64) {
        DROPPED.add([reason], count);
        let mut standing = locked(&self.standing);
        standing.untold = standing.untold.saturating_add(count);
        standing.dropped = standing.dropped.saturating_add(count);
    }

    fn works(&self) {
        let (was_trouble, dropped) = {
            let mut standing = locked(&self.standing);
            (standing.trouble.take().is_some(), std::mem::take(&mut standing.untold))
        };
        if was_trouble || dropped > 0 {
            tracing::info!(server = self.server.shown(), dropped, "changes are published");
            self.hub.board.tell(topics::publishing(true, dropped, None));
        }
    }

    fn fails(&self, trouble: &Trouble) {
        FAILED.add([trouble.reason], 1);
        let dropped = {
            let mut standing = locked(&self.standing);
            let is_news = standing.trouble.replace(trouble.detail.clone()).is_none();
            (is_news || standing.untold > 0).then(|| std::mem::take(&mut standing.untold))
        };
        if let Some(dropped) = dropped {
            tracing::warn!(server = self.server.shown(), why = trouble.detail, dropped, "changes cannot be published; trying again");
            self.hub.board.tell(topics::publishing(false, dropped, Some(trouble.detail.clone())));
        }
    }
}

impl Server {
    /// Sends a batch; false for one that this server will never take.
    async fn publish(&self, batch: &[events::Event], now: mobo_core::time::Wall) -> Result<bool, Trouble> {
        let sent = timeout(limits::PUBLISH_TIMEOUT, self.send(batch, now)).await;
        sent.unwrap_or_else(|_| {
            Err(Trouble { reason: "timeout", detail: format!("no answer within {} s", limits::PUBLISH_TIMEOUT.as_secs()) })
        })
    }
}
