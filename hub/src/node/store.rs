//! The store's part: opens the database, and merges.

use std::sync::Arc;

use mobo_adapters::desk::NotingDesk;
use mobo_adapters::sqlite::{SqliteHubStore, VERSION_MIN, version};
use mobo_core::ids::{Incarnation, ProjectId, Timeline};
use mobo_core::kernel::{Check, ComponentSpec, Fault, Vital};
use mobo_core::limits;
use mobo_core::message::TimelineInfo;
use mobo_core::store::{HubRow, HubStore, SqlRefused, StoreError};
use mobo_core::time::Eff;
use mobo_core::trust::KeyPair;
use mobo_runtime::component::{BoxFuture, Component, timed};
use mobo_runtime::fingerprint;
use mobo_runtime::machine::{self, Machine};
use mobo_runtime::slot::Slot;
use mobo_runtime::tasks::Tasks;
use tokio::sync::{Mutex, watch};

use super::{Hub, Opened, STORE, VERSION, store_fault};
use crate::auth::{Accounts, AuthError};
use crate::history::History;
use crate::hub_time::HubTime;
use crate::identity::offer_key;
use crate::merger::Merger;
use crate::postgres::PostgresHubStore;
use crate::settings;
use crate::witness;

pub(super) struct StorePart {
    hub: Arc<Hub>,
    /// The database, where it is a file of ours.
    file: Slot<Arc<SqliteHubStore>>,
}

impl StorePart {
    pub(super) fn new(hub: Arc<Hub>) -> Self {
        Self { hub, file: Slot::default() }
    }

    async fn open(&self, url: &str) -> Result<(Opened, Arc<dyn NotingDesk>), StoreError> {
        let (store, desk): (Arc<dyn HubStore>, Arc<dyn NotingDesk>) = if url == "sqlite" {
            let store = Arc::new(SqliteHubStore::open(&self.hub.folder.join(super::STORE_FILE))?);
            self.file.fill(Arc::clone(&store));
            (Arc::clone(&store) as _, store)
        } else if is_postgres(url) {
            let store = Arc::new(PostgresHubStore::open(url).await?);
            (Arc::clone(&store) as _, store)
        } else {
            // Not shown: what nobody understands may hold a password anywhere.
            return Err(StoreError::Refused("store.url is neither `sqlite` nor a postgres://user:password@host:5432/database".to_owned()));
        };
        let opened = assemble(store, &self.hub.keys, Arc::new(self.hub.clock)).await?;
        let seen_file = self.hub.folder.join(witness::SEEN_FILE);
        let seen = witness::settle(opened.store.as_ref(), &opened.history, witness::read(&seen_file).as_ref()).await?;
        witness::keep(&seen_file, &seen);
        if let Some(file) = self.file.get() {
            let is_copy = settle_place(&file, &opened.history, fingerprint::of(&self.hub.folder.join(super::STORE_FILE))).await?;
            let mark = self.hub.folder.join(super::backup::COPIED_FILE);
            if is_copy && let Err(error) = std::fs::write(&mark, "") {
                return Err(StoreError::Unavailable(format!("{}: {error}", mark.display())));
            }
        }
        Ok((opened, desk))
    }

    async fn accounts(&self, opened: &Opened, desk: Arc<dyn NotingDesk>) -> Result<Arc<Accounts>, AuthError> {
        let hub = &self.hub;
        let issuer = hub.config.get(&settings::AUTH_URL);
        Accounts::open(desk, Arc::clone(&opened.time), (&hub.keys, hub.clock), (opened.project, issuer), hub.rights.clone()).await
    }
}

pub(super) fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

impl Component for StorePart {
    fn spec(&self) -> ComponentSpec {
        ComponentSpec::required(STORE, VERSION)
    }

    fn post(&self) -> BoxFuture<'_, Vec<Check>> {
        Box::pin(async move {
            let url = self.hub.config.get(&settings::STORE_URL);
            if is_postgres(&url) {
                return vec![timed(reachable(&url)).await];
            }
            let (found, name) = (version(), "SQLite version");
            vec![if found < VERSION_MIN {
                let advice = "build mobo with its bundled SQLite: older ones can corrupt a database when its log is reset";
                Check::fail(name, format!("{found} is older than {VERSION_MIN}"), advice)
            } else {
                Check::pass(name, found.to_string())
            }]
        })
    }

    fn load(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let url = self.hub.config.get(&settings::STORE_URL);
            let (opened, desk) = self.open(&url).await.map_err(|error| store_fault(&error, &url))?;
            let accounts = self.accounts(&opened, Arc::clone(&desk)).await.map_err(|error| {
                if let AuthError::Store(error) = &error {
                    return store_fault(error, &url);
                }
                Fault::new(error.to_string(), "do what the sentence says")
            })?;
            self.hub.accounts.fill(accounts);
            self.hub.noting.fill(desk);
            self.hub.opened.fill(Arc::new(opened));
            Ok(())
        })
    }

    fn verify(&self) -> BoxFuture<'_, Vec<Check>> {
        Box::pin(async move {
            // Postgres has recovered by itself before it answered.
            let Some(store) = self.file.get() else { return Vec::new() };
            let look = async {
                match store.quick_check().await {
                    Ok(()) => Check::pass("database", "its pages hold together"),
                    Err(error) => {
                        let Fault { reason, advice } = store_fault(&error, "");
                        Check::fail("database", reason, advice)
                    }
                }
            };
            vec![timed(look).await]
        })
    }

    fn start(&self, tasks: Tasks) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let opened = self.hub.opened().map_err(|error| store_fault(&error, ""))?;
            opened.time.keep_ahead(&tasks);
            opened.history.keep_up(&tasks);
            self.hub.accounts().inspect(|accounts| accounts.keep_up(&tasks));
            let merger = Merger {
                bus: Some(self.hub.board.bus().clone()),
                store: Arc::clone(&opened.store),
                project: opened.project,
                history: Arc::clone(&opened.history),
                time: Arc::clone(&opened.time),
                schema: opened.schema.subscribe(),
            };
            self.hub.merges.fill(merger.spawn(&tasks));
            let (hub, stopping) = (Arc::clone(&self.hub), tasks.stopping());
            tasks.spawn("witness", witness::run(hub.folder.join(witness::SEEN_FILE), Arc::clone(&opened), tasks.stopping()));
            tasks.spawn("rebucket", crate::rebucket::run(hub, stopping));
            tasks.spawn("intake", crate::intake::run(Arc::clone(&self.hub), tasks.stopping()));
            if is_postgres(&self.hub.config.get(&settings::STORE_URL)) {
                tasks.spawn("elsewhere", crate::elsewhere::run(Arc::clone(&self.hub), tasks.stopping()));
            }
            Ok(())
        })
    }

    /// A write that changes nothing: a store that only reads is not well.
    fn health(&self) -> BoxFuture<'_, Vital> {
        Box::pin(async move {
            let Ok(opened) = self.hub.opened() else { return Vital::Failing("the store is not open".to_owned()) };
            let now = opened.time.now();
            if let Err(error) = opened.store.reserve_time(now).await {
                return Vital::Failing(error.to_string());
            }
            match opened.store.sql_refused().await {
                Ok(refused) => written_in_vain(refused, now).map_or(Vital::Fine, Vital::Worn),
                Err(error) => Vital::Failing(error.to_string()),
            }
        })
    }

    /// A database elsewhere comes back by itself, and is used again then; a file is opened anew.
    fn recover(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            if is_postgres(&self.hub.config.get(&settings::STORE_URL)) {
                return Ok(());
            }
            Err(Fault::new("the database does not take writes", "it is opened anew; look at the disk when it stays"))
        })
    }

    fn swap(&self, _: String) -> BoxFuture<'_, Result<String, Fault>> {
        Box::pin(async {
            let advice = "move what is stored with `mobo-hub store migrate`, then set store.url and restart: one setting and one restart";
            Err(Fault::new("what is stored must be moved while nobody writes", advice))
        })
    }

    fn stop(&self, _: tokio::time::Instant) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            self.hub.merges.take();
            self.hub.accounts.take();
            self.hub.noting.take();
            self.file.take();
            if let Some(opened) = self.hub.opened.take() {
                opened.store.close().await;
            }
            Ok(())
        })
    }
}

/// What programs have written by SQL in vain, while that is news: their statements had succeeded.
fn written_in_vain(refused: SqlRefused, now: Eff) -> Option<String> {
    let age = now.0.saturating_sub(refused.last?.0);
    let is_news = age <= i64::try_from(limits::INTAKE_REFUSED_WORN.as_micros()).unwrap_or(i64::MAX);
    let count = refused.count;
    is_news.then(|| {
        format!(
            "{count} rows that SQL wrote could not be taken in and are what they were before, the last one within a day: the table \
             intake_refused beside them says which ones and why"
        )
    })
}

async fn reachable(url: &str) -> Check {
    match PostgresHubStore::version_at(url).await {
        Ok((version, place)) => Check::pass("Postgres", format!("{version} at {place}")),
        Err(error) => {
            let Fault { reason, advice } = store_fault(&error, url);
            Check::fail("Postgres", reason, advice)
        }
    }
}

/// Looks whether this is the file, on the machine, that the hub ran on last. In a copy of its folder somebody may have brought an older state
/// back without a word, and whoever pushes first would be given positions that others hold already: so a copy goes on under a new timeline
/// (rule R17). True if it does.
///
/// # Errors
///
/// The store's.
pub async fn settle_place(store: &SqliteHubStore, history: &History, now: Vec<u8>) -> Result<bool, StoreError> {
    let known = store.fingerprint().await?;
    if known.as_ref() == Some(&now) {
        return Ok(false);
    }
    let is_copy = mobo_core::protect!("history.copied", known.is_some());
    if is_copy {
        history.fork(history.era().timeline.timeline, Vec::new()).await?;
    }
    store.set_fingerprint(now).await?;
    Ok(is_copy)
}

/// What the parts of a hub share, around an open store: who the hub is, its history, its time.
///
/// # Errors
///
/// The store's, and [`StoreError::Refused`] when it belongs to another hub.
pub async fn assemble(store: Arc<dyn HubStore>, keys: &KeyPair, machine: Arc<dyn Machine>) -> Result<Opened, StoreError> {
    let random = machine.as_ref();
    let first = HubRow {
        key: keys.public(),
        incarnation: Incarnation::from_entropy(machine::random(random)?),
        timeline: TimelineInfo { timeline: Timeline(machine::random(random)?), parents: Vec::new() },
        time: Eff(machine.wall().0),
    };
    let (row, project) = store.hub(first, ProjectId::from_entropy(machine::random(random)?)).await?;
    if row.key != keys.public() {
        return Err(StoreError::Refused(format!(
            "this store belongs to another hub ({}): put that hub's hub.key into the data folder, or use another store",
            row.key
        )));
    }
    let time = Arc::new(HubTime::start(Arc::clone(&machine), Arc::clone(&store), row.time).await?);
    let schema = watch::Sender::new(Arc::new(store.schema(project).await?));
    let history = History::open(Arc::clone(&store), Arc::clone(&time), (project, keys, offer_key(keys)), schema.clone()).await?;
    Ok(Opened { store, project, history: Arc::new(history), time, schema, schema_lock: Mutex::new(()) })
}
