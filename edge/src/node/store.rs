//! The store's part.

use std::sync::Arc;

use mobo_adapters::sqlite::edge::EdgeStore;
use mobo_adapters::sqlite::{VERSION_MIN, version};
use mobo_core::kernel::{Check, ComponentSpec, Fault};
use mobo_core::store::StoreError;
use mobo_runtime::component::{BoxFuture, Component};
use mobo_runtime::tasks::Tasks;

use super::{Edge, STORE, STORE_FILE, VERSION};

pub(super) struct StorePart(pub(super) Arc<Edge>);

pub(super) async fn open(edge: &Edge) -> Result<EdgeStore, StoreError> {
    EdgeStore::open(&edge.folder.join(STORE_FILE)).await
}

impl Component for StorePart {
    fn spec(&self) -> ComponentSpec {
        ComponentSpec::required(STORE, VERSION)
    }

    fn post(&self) -> BoxFuture<'_, Vec<Check>> {
        Box::pin(async move {
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
            self.0.open().await.map_err(|error| {
                let advice = match error {
                    StoreError::Full(_) => "free some space, then boot again",
                    StoreError::Damaged(_) => "move the data folder away and join again; what is in it is kept for a look",
                    StoreError::Unavailable(_) | StoreError::Poisoned(_) | StoreError::Refused(_) => "look at the data folder and the disk",
                };
                Fault::new(error.to_string(), advice)
            })
        })
    }

    fn start(&self, _: Tasks) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }

    fn stop(&self, _: tokio::time::Instant) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            if let Ok(store) = self.0.store() {
                store.close().await;
            }
            Ok(())
        })
    }
}
