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
use mobo_runtime::component::{BoxFuture, Component};
use mobo_runtime::entropy;
use mobo_runtime::tasks::Tasks;
use tokio::sync::{Mutex, watch};

use super::{Hub, Opened, STORE, VERSION, store_fault};
use crate::admission::register_hub_log;
use crate::hub_time::HubTime;
use crate::identity::offer_key;
use crate::merger::Merger;
use crate::postgres::PostgresHubStore;
use crate::settings;

/// The SQLite file in the data folder.
pub(super) const FILE: &str = "hub.db";

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
        Arc::new(SqliteHubStore::open(&hub.folder.join(FILE))?)
    } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        Arc::new(PostgresHubStore::open(url).await?)
    } else {
        // Not shown: what nobody understands may hold a password anywhere.
        return Err(StoreError::Refused("store.url is neither `sqlite` nor a postgres://user:password@host:5432/database".to_owned()));
    };
    let first = HubRow {
        key: hub.keys.public(),
        incarnation: Incarnation::from_entropy(random()?),
        timeline: TimelineInfo { timeline: Timeline(random()?), parents: Vec::new() },
        time: Eff(hub.clock.wall().0),
    };
    let (row, project) = store.hub(first, ProjectId::from_entropy(random()?)).await?;
    if row.key != hub.keys.public() {
        return Err(StoreError::Refused(format!(
            "this store belongs to another hub ({}): put that hub's hub.key into the data folder, or use another store",
            row.key
        )));
    }
    let time = Arc::new(HubTime::start(hub.clock, Arc::clone(&store), row.time).await?);
    let identity = Arc::new(HubIdentity { project, timeline: row.timeline.timeline, keys: hub.keys.clone(), offer: offer_key(&hub.keys) });
    register_hub_log(store.as_ref(), &identity, row.incarnation, &time, hub.clock.boot()).await?;
    let schema = Arc::new(store.schema(project).await?);
    Ok(Opened {
        author: HubAuthor { device: hub.keys.device(), incarnation: row.incarnation },
        store,
        project,
        timeline: row.timeline,
        identity,
        time,
        schema: watch::Sender::new(schema),
        schema_lock: Mutex::new(()),
    })
}

fn random<const N: usize>() -> Result<[u8; N], StoreError> {
    entropy::bytes().map_err(|error| StoreError::Unavailable(error.to_string()))
}
