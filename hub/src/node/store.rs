//! The store's part: opens the database, and merges.

use std::sync::Arc;

use mobo_adapters::sqlite::{SqliteHubStore, VERSION_MIN, version};
use mobo_core::ids::{Incarnation, ProjectId, Timeline};
use mobo_core::kernel::{Check, ComponentSpec, Fault};
use mobo_core::merge::HubAuthor;
use mobo_core::message::TimelineInfo;
use mobo_core::session::hub::HubIdentity;
use mobo_core::store::{HubRow, HubStore, StoreError};
use mobo_core::time::Eff;
use mobo_core::trust::KeyPair;
use mobo_runtime::component::{BoxFuture, Component};
use mobo_runtime::machine::{self, Machine};
use mobo_runtime::tasks::Tasks;
use tokio::sync::{Mutex, watch};

use super::{Hub, Opened, STORE, VERSION, store_fault};
use crate::admission::register_hub_log;
use crate::hub_time::HubTime;
use crate::identity::offer_key;
use crate::merger::Merger;
use crate::postgres::PostgresHubStore;
use crate::settings;

pub(super) struct StorePart(pub(super) Arc<Hub>);

impl Component for StorePart {
    fn spec(&self) -> ComponentSpec {
        ComponentSpec::required(STORE, VERSION)
    }

    fn post(&self) -> BoxFuture<'_, Vec<Check>> {
        Box::pin(async move {
            let found = version();
            let name = "SQLite version";
            let check = if found < VERSION_MIN {
                let advice = "build mobo with its bundled SQLite: older ones can corrupt a database when its log is reset";
                Check::fail(name, format!("{found} is older than {VERSION_MIN}"), advice)
            } else {
                Check::pass(name, found.to_string())
            };
            vec![check]
        })
    }

    fn load(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let url = self.0.config.get(&settings::STORE_URL);
            let opened = open(&self.0, &url).await.map_err(|error| store_fault(&error, &url))?;
            let _ = self.0.opened.set(opened);
            Ok(())
        })
    }

    fn start(&self, tasks: Tasks) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let opened = self.0.opened().map_err(|error| store_fault(&error, ""))?;
            opened.time.keep_ahead(&tasks);
            let merger = Merger {
                store: Arc::clone(&opened.store),
                project: opened.project,
                timeline: opened.timeline.timeline,
                time: Arc::clone(&opened.time),
                schema: opened.schema.subscribe(),
            };
            let _ = self.0.merges.set(merger.spawn(&tasks));
            Ok(())
        })
    }

    fn stop(&self, _: tokio::time::Instant) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            if let Ok(opened) = self.0.opened() {
                opened.store.close().await;
            }
            Ok(())
        })
    }
}

async fn open(hub: &Hub, url: &str) -> Result<Opened, StoreError> {
    let store: Arc<dyn HubStore> = if url == "sqlite" {
        Arc::new(SqliteHubStore::open(&hub.folder.join(super::STORE_FILE))?)
    } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        Arc::new(PostgresHubStore::open(url).await?)
    } else {
        // Not shown: what nobody understands may hold a password anywhere.
        return Err(StoreError::Refused("store.url is neither `sqlite` nor a postgres://user:password@host:5432/database".to_owned()));
    };
    assemble(store, &hub.keys, Arc::new(hub.clock)).await
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
    let identity = Arc::new(HubIdentity { project, timeline: row.timeline.timeline, keys: keys.clone(), offer: offer_key(keys) });
    register_hub_log(store.as_ref(), &identity, row.incarnation, &time, machine.boot()).await?;
    let schema = Arc::new(store.schema(project).await?);
    Ok(Opened {
        author: HubAuthor { device: keys.device(), incarnation: row.incarnation },
        store,
        project,
        timeline: row.timeline,
        identity,
        time,
        schema: watch::Sender::new(schema),
        schema_lock: Mutex::new(()),
    })
}
