//! The device as a board: which parts it is made of, and what they share.

mod gate;
mod ingest;
mod store;
mod uplink;
mod vitals;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use mobo_adapters::mqtt::ingest::IngestStatus;
use mobo_adapters::sqlite::edge::{EdgeStore, Identity, Keep};
use mobo_core::ids::{DeviceId, Incarnation, ProjectId};
use mobo_core::kernel::{Check, ComponentName, ExitReason};
use mobo_core::link::Dialer;
use mobo_core::rights::Access;
use mobo_core::schema::Schema;
use mobo_core::store::StoreError;
use mobo_core::time::Eff;
use mobo_core::trust::KeyPair;
use mobo_gate::auth::token::VerifyKey;
use mobo_protocol::JoinToken;
use mobo_runtime::clock::Clock;
use mobo_runtime::config::{Config, listed};
use mobo_runtime::console::Console;
use mobo_runtime::control::ControlSocket;
use mobo_runtime::data_dir::DataDir;
use mobo_runtime::key_file::{self, KeyFileError};
use mobo_runtime::metrics::{self, Bound, MetricsPart, Pages};
use mobo_runtime::motherboard::{BoardHandle, Motherboard};
use mobo_runtime::reload::{Reloader, reload_teller};
use mobo_runtime::slot::Slot;
use mobo_runtime::state::State;
use mobo_runtime::{entropy, ground};
use tokio::sync::{Notify, watch};

use crate::control::Desk;
use crate::join::{JoinError, enrol};
use crate::metrics::EdgeMetrics;
use crate::patience::WaitingRoom;
use crate::routes::Routes;
use crate::settings;
use crate::uplink::{LinkStatus, Uplink};

/// Version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The name of the store's part.
pub const STORE: ComponentName = ComponentName::fixed("store");
/// The name of the uplink's part.
pub const UPLINK: ComponentName = ComponentName::fixed("uplink");
/// The name of the HTTP part.
pub const GATE: ComponentName = ComponentName::fixed("gate");

/// The name of the part that hears plain sensors.
pub const INGEST: ComponentName = ComponentName::fixed("ingest");
/// The name of the part that reports how the machine is.
pub const VITALS: ComponentName = ComponentName::fixed("vitals");

/// The device's key in its folder.
pub const KEY_FILE: &str = "device.key";
/// The way to the hub that worked where the preferred one did not, in its folder.
pub const ROUTE_FILE: &str = "route";
/// What a device remembers of how long it waits between tries, while its hub is away.
pub const PAUSES_FILE: &str = "pauses";
/// The device's database in its folder.
pub const STORE_FILE: &str = "edge.db";

/// What the parts of a device share. Each part fills in what it owns, before a part that needs it is loaded.
pub struct Edge {
    /// Its settings.
    pub config: Config,
    /// Its folder.
    pub folder: PathBuf,
    /// Its clocks.
    pub clock: Clock,
    /// Its keys.
    pub keys: KeyPair,
    /// How the link is.
    pub link: watch::Sender<LinkStatus>,
    /// Wakes the uplink.
    pub wake: Arc<Notify>,
    /// The ways to the hub.
    pub routes: Arc<Routes>,
    /// How the ingest of plain sensors is.
    pub ingest: watch::Sender<IngestStatus>,
    /// Where writers wait for the hub.
    pub waiting_room: WaitingRoom,
    store: Slot<Arc<EdgeStore>>,
    known: RwLock<Known>,
    /// Held from the look at the store until what was seen is known: of two looks, the later one has the last word.
    refreshing: tokio::sync::Mutex<()>,
    http: Slot<SocketAddr>,
    metrics: Slot<Bound>,
    /// Addresses that an operator gave the uplink in place of the settings', until the node stops.
    swapped: Slot<String>,
    board: OnceLock<BoardHandle>,
    /// Counts changes of what users and keys may here.
    pub(crate) rights: watch::Sender<u64>,
}

/// What readers want without waiting.
#[derive(Debug, Default)]
struct Known {
    schema: Arc<Schema>,
    project: Option<ProjectId>,
    callers: Arc<Callers>,
}

/// Who may use this device's API, as the hub said last.
#[derive(Debug, Default)]
pub(crate) struct Callers {
    /// Keys and policies.
    pub(crate) access: Access,
    /// What users' tokens are checked with.
    pub(crate) keys: Vec<VerifyKey>,
    /// The hub's time when it was said: it is not earlier now, whatever this device's clock says.
    pub(crate) hub_time: Eff,
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edge").field("folder", &self.folder).field("keys", &self.keys).finish_non_exhaustive()
    }
}

/// Why a device has not joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinFailure {
    /// It belongs to a hub already.
    #[error("this device has joined the hub {hub} already, as {device}")]
    Joined {
        /// The hub's key.
        hub: String,
        /// The device.
        device: DeviceId,
    },
    /// The hub could not be asked, or said no.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The store could not keep it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system has no randomness.
    #[error(transparent)]
    NoEntropy(#[from] entropy::NoEntropy),
}

impl Edge {
    /// A device that is not on a board yet.
    ///
    /// # Errors
    ///
    /// When its key cannot be read or made.
    pub fn new(config: Config, folder: &DataDir) -> Result<Self, KeyFileError> {
        let keys = key_file::load_or_create(&folder.join(KEY_FILE))?;
        let routes = Routes::new(keys.clone(), &config.get(&settings::TRANSPORT), Some(folder.join(ROUTE_FILE)));
        Ok(Self {
            clock: Clock::start()?,
            keys,
            routes: Arc::new(routes),
            folder: folder.path().to_owned(),
            config,
            link: watch::Sender::default(),
            ingest: watch::Sender::default(),
            wake: Arc::default(),
            waiting_room: WaitingRoom::default(),
            store: Slot::default(),
            known: RwLock::default(),
            refreshing: tokio::sync::Mutex::default(),
            http: Slot::default(),
            metrics: Slot::default(),
            swapped: Slot::default(),
            rights: watch::Sender::new(0),
            board: OnceLock::new(),
        })
    }

    /// Opens the store, if it is not open.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn open(&self) -> Result<(), StoreError> {
        if self.store.get().is_none() {
            let store = Arc::new(store::open(self)?);
            store::settle(self, &store).await?;
            self.store.fill(store);
        }
        self.refresh().await
    }

    /// Reads again what readers want without waiting: the collections, and the project.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let _one_at_a_time = self.refreshing.lock().await;
        let store = self.store()?;
        let (schema, node) = (store.schema().await?, store.node().await?);
        let project = node.identity.map(|identity| identity.project);
        let said = store.access().await?;
        let callers = said.and_then(|said| {
            let access = Access::from_text(&said.text)?;
            let keys = access.jwks.iter().filter_map(VerifyKey::from_jwk).collect();
            Some(Callers { access, keys, hub_time: said.hub_time })
        });
        self.routes.belong_to(project);
        let known = Known { schema, project, callers: Arc::new(callers.unwrap_or_default()) };
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
        Ok(())
    }

    /// Who may use the device's API; nobody but programs on it where the hub has not said yet.
    pub(crate) fn callers(&self) -> Arc<Callers> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner).callers)
    }

    /// The collections.
    #[must_use]
    pub fn schema(&self) -> Arc<Schema> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner).schema)
    }

    /// The project; `None` before the device has joined.
    #[must_use]
    pub fn project(&self) -> Option<ProjectId> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).project
    }

    /// The store.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] while it is not open.
    pub fn store(&self) -> Result<Arc<EdgeStore>, StoreError> {
        self.store.get().ok_or_else(|| StoreError::Unavailable("the store is not open yet".to_owned()))
    }

    /// Where the device's API answers.
    #[must_use]
    pub fn http(&self) -> Option<SocketAddr> {
        self.http.get()
    }

    /// Where metrics are read.
    #[must_use]
    pub fn metrics(&self) -> Option<SocketAddr> {
        self.metrics.get().and_then(|bound| bound.address())
    }

    /// The board that it is on; `None` for a command that works without one.
    #[must_use]
    pub fn board(&self) -> Option<&BoardHandle> {
        self.board.get()
    }

    /// Joins the hub of a token, once.
    ///
    /// # Errors
    ///
    /// [`JoinFailure`].
    pub async fn join(&self, token: &JoinToken) -> Result<Identity, JoinFailure> {
        let store = self.store()?;
        if let Some(identity) = store.node().await?.identity {
            return Err(JoinFailure::Joined { hub: identity.hub_key.to_string(), device: identity.device });
        }
        self.routes.belong_to(Some(token.project));
        let joined = enrol(self.routes.as_ref(), token, &self.keys).await?;
        let identity = Identity {
            project: token.project,
            device: joined.device,
            hub_key: token.hub,
            hub_addresses: token.addresses.clone(),
            certificate: joined.signed.certificate,
            certificate_signature: joined.signed.signature,
        };
        store.join(identity.clone(), Incarnation::from_entropy(entropy::bytes()?)).await?;
        self.refresh().await?;
        self.wake.notify_one();
        Ok(identity)
    }

    /// The way to the hub.
    ///
    /// # Errors
    ///
    /// While the store is not open.
    pub fn uplink(&self) -> Result<Arc<Uplink>, StoreError> {
        let set = self.swapped.get().unwrap_or_else(|| self.config.get(&settings::HUB_URL));
        let addresses = listed(&set);
        let age = self.config.get(&settings::OUTBOX_KEEP);
        Ok(Arc::new(Uplink {
            store: self.store()?,
            keys: self.keys.clone(),
            dialer: Arc::clone(&self.routes) as Arc<dyn Dialer>,
            machine: Arc::new(self.clock),
            addresses: addresses.map(|address| address.trim_start_matches("quic://").to_owned()).collect(),
            keep: Keep {
                age_us: u64::try_from(age.as_micros()).unwrap_or(u64::MAX),
                bytes_max: self.config.get(&settings::OUTBOX_BYTES).0,
            },
            status: self.link.clone(),
            wake: Arc::clone(&self.wake),
            pauses: Some(self.folder.join(PAUSES_FILE)),
        }))
    }
}

fn metrics_part(edge: &Arc<Edge>, board: BoardHandle) -> MetricsPart {
    let collect = Arc::new(EdgeMetrics::new(Arc::clone(edge), board));
    let part = MetricsPart::new(edge.config.get(&metrics::LISTEN), Pages::new(&[crate::metrics::ALL, metrics::http::ALL], collect));
    edge.metrics.fill(part.bound());
    part
}

/// Boots a device and runs it until it is told to stop.
///
/// # Errors
///
/// What stands before any part can be tested: the key file, or the system's randomness.
pub async fn run(config: Config, folder: DataDir) -> Result<ExitReason, KeyFileError> {
    // The folder is locked for as long as the board runs.
    let (_, board) = assemble(config, &folder, Console::stderr())?;
    Ok(board.run().await)
}

/// A device on its board, which has not booted.
///
/// # Errors
///
/// As [`run`].
pub fn assemble(config: Config, folder: &DataDir, console: Console) -> Result<(Arc<Edge>, Motherboard), KeyFileError> {
    let edge = Arc::new(Edge::new(config, folder)?);
    let mut board = Motherboard::new(format!("mobo-edge {VERSION}"), edge.clock, console);
    let _ = edge.board.set(board.handle());
    let (state, was_clean) = State::open(folder.path());
    board.remembers(state, was_clean);
    board.configured(edge.config.clone());
    ground::checks(folder.path(), &[KEY_FILE], &edge.clock).into_iter().for_each(|check| board.checked(check));
    board.checked(Check::pass("device key", edge.keys.device().to_string()));
    board.plug(ControlSocket::new(folder.path(), Arc::new(Desk::new(Arc::clone(&edge), board.handle()))));
    board.plug(Reloader::new(&edge.config).telling(reload_teller(board.handle())));
    board.plug(metrics_part(&edge, board.handle()));
    board.plug(store::StorePart(Arc::clone(&edge)));
    board.plug(uplink::UplinkPart::new(Arc::clone(&edge)));
    board.plug(gate::GatePart::new(Arc::clone(&edge)));
    if !edge.config.get(&settings::MQTT_INGEST).is_empty() {
        board.plug(ingest::IngestPart(Arc::clone(&edge)));
    }
    if !edge.config.get(&settings::VITALS_EVERY).is_zero() {
        board.plug(vitals::VitalsPart::new(Arc::clone(&edge)));
    }
    let announced = Arc::clone(&edge);
    board.announce(move || announced.http().map(|address| format!("API      http://{address}")).into_iter().collect());
    Ok((edge, board))
}
