//! The hub as a board: which parts it is made of, and what they share.

mod backup;
mod gate;
mod ingest;
mod link;
mod mqtt;
mod store;
mod tls;
mod vault;
mod ws;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use mobo_adapters::desk::NotingDesk;
use mobo_adapters::mqtt::ingest::IngestStatus;
use mobo_adapters::websocket::WsListener;
use mobo_core::ids::{ProjectId, Timeline};
use mobo_core::kernel::{Cache, Check, ComponentName, ExitReason, Fault};
use mobo_core::limits;
use mobo_core::link::Listener;
use mobo_core::merge::Prepared;
use mobo_core::rights::Scope;
use mobo_core::schema::Schema;
use mobo_core::store::{HubStore, MergeBatch, StoreError};
use mobo_core::time::Eff;
use mobo_core::trust::KeyPair;
use mobo_gate::backend::Role;
use mobo_runtime::clock::Clock;
use mobo_runtime::config::{Config, Define};
use mobo_runtime::console::Console;
use mobo_runtime::control::ControlSocket;
use mobo_runtime::data_dir::DataDir;
use mobo_runtime::ground;
use mobo_runtime::key_file::KeyFileError;
use mobo_runtime::machine;
use mobo_runtime::metrics::{self, Bound, MetricsPart, Pages};
use mobo_runtime::motherboard::{BoardHandle, Motherboard};
use mobo_runtime::reload::{Reloader, reload_teller};
use mobo_runtime::slot::Slot;
use mobo_runtime::state::State;
use tokio::sync::{Mutex, watch};

pub use backup::BACKUP_KEY_FILE;
pub use store::{assemble, settle_place};

pub(crate) use backup::{Backups, COPIED_FILE, Job, Prune, Pruned};

use crate::auth::Accounts;
use crate::control::Desk;
use crate::history::History;
use crate::hub_time::HubTime;
use crate::ingest::Inbox;
use crate::merger::MergeQueue;
use crate::metrics::HubMetrics;
use crate::otlp::{self, OtlpPart};
use crate::publish::{self, PublishPart};
use crate::sessions::Sessions;
use crate::webhooks::{self, WebhooksPart};
use crate::{identity, settings};

/// Version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The hub's SQLite file in its folder.
pub const STORE_FILE: &str = "hub.db";

/// The name of the store's part.
pub const STORE: ComponentName = ComponentName::fixed("store");
/// The name of the QUIC part.
pub const QUIC: ComponentName = ComponentName::fixed("link.quic");
/// The name of the MQTT part.
pub const MQTT: ComponentName = ComponentName::fixed("link.mqtt");
/// The name of the WebSocket part.
pub const WS: ComponentName = ComponentName::fixed("link.ws");
/// Where the gate takes WebSocket sessions.
pub const WS_PATH: &str = "/sync/v1";
/// The name of the backup's target.
pub const VAULT: ComponentName = ComponentName::fixed("store.vault");
/// The name of the part that backs up.
pub const BACKUP: ComponentName = ComponentName::fixed("backup");
/// The name of the part that hears plain sensors.
pub const INGEST: ComponentName = ComponentName::fixed("ingest");
/// The name of the HTTP part.
pub const GATE: ComponentName = ComponentName::fixed("gate");

/// What the parts of a hub share. Each part fills in what it owns when it loads, before a part that needs it is loaded, and takes it out
/// again when it stops.
pub struct Hub {
    /// Its settings.
    pub config: Config,
    /// Its folder.
    pub folder: PathBuf,
    /// Its clocks.
    pub clock: Clock,
    /// Its keys.
    pub keys: KeyPair,
    /// The board.
    pub board: BoardHandle,
    opened: Slot<Arc<Opened>>,
    merges: Slot<MergeQueue>,
    listener: Slot<Arc<dyn Listener>>,
    sessions: Slot<Arc<Sessions>>,
    http: Slot<SocketAddr>,
    metrics: Slot<Bound>,
    mqtt: Slot<String>,
    ws: Slot<Arc<WsListener>>,
    vault: Slot<Arc<vault::Target>>,
    pub(crate) backups: Backups,
    accounts: Slot<Arc<Accounts>>,
    noting: Slot<Arc<dyn NotingDesk>>,
    /// How the ingest of plain sensors is.
    pub(crate) ingest: watch::Sender<IngestStatus>,
    verified: std::sync::Mutex<Cache<[u8; 32], Verified>>,
    /// Counts changes of what users and keys may.
    pub(crate) rights: watch::Sender<u64>,
}

/// An API key that the store knows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Verified {
    /// The project that it belongs to.
    pub project: ProjectId,
    /// Its label.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Parts of that to which it is held.
    pub scopes: Vec<Scope>,
    /// The count of changes of rights when it was looked up: after another one it is looked up again.
    pub as_of: u64,
    /// When it ends, by the hub's time; `None` for one that does not.
    pub expires: Option<Eff>,
}

/// What is known once the store is open.
pub struct Opened {
    /// The store.
    pub store: Arc<dyn HubStore>,
    /// The project.
    pub project: ProjectId,
    /// The hub's history.
    pub history: Arc<History>,
    /// The hub's time.
    pub time: Arc<HubTime>,
    /// The collections; changed under `schema_lock`.
    pub schema: watch::Sender<Arc<Schema>>,
    /// Held while a collection is made.
    pub schema_lock: Mutex<()>,
}

impl Opened {
    /// A batch for the store, by what holds now.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] without randomness.
    pub(crate) fn batch(&self, submissions: Vec<Prepared>) -> Result<MergeBatch, StoreError> {
        let era = self.history.era();
        Ok(MergeBatch {
            project: self.project,
            schema: Arc::clone(&self.schema.borrow()),
            timeline: era.timeline.timeline,
            now: self.time.now(),
            entropy: machine::random(self.time.machine())?,
            recovering: era.recovering,
            submissions,
        })
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("folder", &self.folder).field("keys", &self.keys).finish_non_exhaustive()
    }
}

impl Opened {
    /// Lets everybody know the collections as they were just stored, unless somebody stored newer ones meanwhile.
    pub(crate) fn changed(&self, schema: Schema) {
        self.schema.send_if_modified(|held| {
            let is_news = schema.rev >= held.rev;
            if is_news {
                *held = Arc::new(schema);
            }
            is_news
        });
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("store", &self.store).field("project", &self.project).finish_non_exhaustive()
    }
}

impl Hub {
    /// What the store's part has opened.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] while it is not open.
    pub fn opened(&self) -> Result<Arc<Opened>, StoreError> {
        self.opened.get().ok_or_else(|| StoreError::Unavailable("the store is not open yet".to_owned()))
    }

    /// The way into the store.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] while the hub does not merge.
    pub fn merges(&self) -> Result<MergeQueue, StoreError> {
        self.merges.get().ok_or_else(|| StoreError::Unavailable("the hub is starting".to_owned()))
    }

    /// The sessions, once they are taken.
    #[must_use]
    pub fn sessions(&self) -> Option<Arc<Sessions>> {
        self.sessions.get()
    }

    /// The keys that were looked up a moment ago: a lookup is a round trip to the store, for every request. A key that another hub on the
    /// same store revokes is believed for [`limits::KEY_CACHE_TTL`] at most.
    pub(crate) fn verified(&self) -> std::sync::MutexGuard<'_, Cache<[u8; 32], Verified>> {
        self.verified.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Who may use the API, once the store is open.
    #[must_use]
    pub fn accounts(&self) -> Option<Arc<Accounts>> {
        self.accounts.get()
    }

    /// Where messages of sensors go, once the store is open.
    pub(crate) fn inbox(&self) -> Result<Inbox, StoreError> {
        let closed = || StoreError::Unavailable("the store is not open yet".to_owned());
        let (desk, opened) = (self.noting.get().ok_or_else(closed)?, self.opened()?);
        Ok(Inbox { desk, opened, clock: self.clock, merges: self.merges.get() })
    }

    /// Where the API answers.
    #[must_use]
    pub fn http(&self) -> Option<SocketAddr> {
        self.http.get()
    }

    /// Whether the API speaks TLS.
    #[must_use]
    pub fn is_private(&self) -> bool {
        !self.config.get(&settings::TLS_CERT).is_empty()
    }

    /// The address of the API as people and programs write it.
    #[must_use]
    pub fn url(&self, address: SocketAddr) -> String {
        format!("{}://{address}", if self.is_private() { "https" } else { "http" })
    }

    /// Where devices connect.
    #[must_use]
    pub fn quic(&self) -> Option<SocketAddr> {
        self.listener.get().map(|listener| listener.address())
    }

    /// Where devices connect over MQTT: the address of the hub's own broker, or the URL of another, without its password.
    #[must_use]
    pub fn mqtt(&self) -> Option<String> {
        self.mqtt.get()
    }

    /// Where metrics are read.
    #[must_use]
    pub fn metrics(&self) -> Option<SocketAddr> {
        self.metrics.get().and_then(|bound| bound.address())
    }

    /// The hub's history.
    #[must_use]
    pub fn timeline(&self) -> Option<Timeline> {
        self.opened.get().map(|opened| opened.history.era().timeline.timeline)
    }
}

/// Boots a hub and runs it until it is told to stop.
///
/// # Errors
///
/// What stands before any part can be tested: the key file, or the system's randomness.
pub async fn run(config: Config, folder: DataDir) -> Result<ExitReason, KeyFileError> {
    let clock = Clock::start()?;
    let keys = identity::load_or_create(folder.path())?;
    let mut board = Motherboard::new(format!("mobo-hub {VERSION}"), clock, Console::stderr());
    let hub = Arc::new(Hub {
        folder: folder.path().to_owned(),
        config,
        clock,
        keys,
        board: board.handle(),
        opened: Slot::default(),
        merges: Slot::default(),
        listener: Slot::default(),
        sessions: Slot::default(),
        http: Slot::default(),
        metrics: Slot::default(),
        mqtt: Slot::default(),
        ws: Slot::default(),
        vault: Slot::default(),
        backups: Backups::default(),
        accounts: Slot::default(),
        noting: Slot::default(),
        ingest: watch::Sender::default(),
        verified: std::sync::Mutex::new(Cache::new(limits::KEY_CACHE_MAX, limits::KEY_CACHE_TTL)),
        rights: watch::Sender::new(0),
    });
    let (state, was_clean) = State::open(folder.path());
    board.remembers(state, was_clean);
    board.configured(hub.config.clone());
    ground::checks(folder.path(), &[identity::KEY_FILE], &clock).into_iter().for_each(|check| board.checked(check));
    board.checked(Check::pass("hub key", format!("{}", hub.keys.public())));
    board.plug(ControlSocket::new(folder.path(), Arc::new(Desk::new(Arc::clone(&hub)))));
    board.plug(Reloader::new(&hub.config).telling(reload_teller(board.handle())));
    let (measured, pages) = metrics_part(&hub);
    board.plug(measured);
    board.plug(OtlpPart::new(Arc::clone(&hub), pages));
    board.plug(PublishPart::new(Arc::clone(&hub)));
    board.plug(store::StorePart::new(Arc::clone(&hub)));
    board.plug(vault::VaultPart(Arc::clone(&hub)));
    board.plug(backup::BackupPart(Arc::clone(&hub)));
    board.plug(link::QuicPart::new(Arc::clone(&hub)));
    board.plug(mqtt::MqttPart::new(Arc::clone(&hub)));
    board.plug(ws::WsPart(Arc::clone(&hub)));
    board.plug(ingest::IngestPart(Arc::clone(&hub)));
    let webhooks = WebhooksPart::new(Arc::clone(&hub));
    let hooks = webhooks.hooks();
    board.plug(webhooks);
    board.plug(gate::GatePart::new(Arc::clone(&hub), hooks));
    let announced = Arc::clone(&hub);
    board.announce(move || addresses(&announced));
    Ok(board.run().await)
}

fn metrics_part(hub: &Arc<Hub>) -> (MetricsPart, Pages) {
    let collect = Arc::new(HubMetrics::new(Arc::clone(hub)));
    let all = [crate::metrics::ALL, crate::metrics::backup::ALL, metrics::http::ALL, otlp::METRICS, publish::METRICS, webhooks::METRICS];
    let pages = Pages::new(&all, collect);
    let part = MetricsPart::new(hub.config.get(&metrics::LISTEN), pages.clone());
    hub.metrics.fill(part.bound());
    (part, pages)
}

fn addresses(hub: &Hub) -> Vec<String> {
    let http = hub.http().map(|address| format!("API      {}", hub.url(address)));
    let quic = hub.quic().map(|address| format!("devices  {address} (QUIC)"));
    let store =
        hub.opened.get().map(|opened| format!("project  {} on timeline {}", opened.project, opened.history.era().timeline.timeline));
    let mqtt = hub.mqtt().map(|address| format!("devices  {address} (MQTT)"));
    let ws = hub.http().filter(|_| !hub.is_private()).map(|address| format!("devices  ws://{address}{} (WebSocket)", WS_PATH));
    http.into_iter().chain(quic).chain(mqtt).chain(ws).chain(store).collect()
}

/// What keeps a part from loading, and what to do about it.
pub(crate) fn store_fault(error: &StoreError, url: &str) -> Fault {
    let advice = match error {
        StoreError::Unavailable(_) if url.starts_with("postgres") => {
            format!("check that Postgres is running and that {} is right", settings::STORE_URL.definition().key)
        }
        StoreError::Unavailable(_) | StoreError::Contended(_) | StoreError::Poisoned(_) => {
            "try again; if it stays, look at the disk".to_owned()
        }
        StoreError::Full(_) => "free some space, then boot again".to_owned(),
        StoreError::Damaged(_) => "restore a backup into a new data folder".to_owned(),
        StoreError::BadValue(_) | StoreError::Refused(_) => "do what the sentence says".to_owned(),
    };
    Fault::new(error.to_string(), advice)
}
