//! The store's part.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mobo_adapters::sqlite::edge::{Change, EdgeStore, FullPolicy, Room, Sources};
use mobo_adapters::sqlite::{VERSION_MIN, version};
use mobo_core::ids::{Incarnation, Nonce};
use mobo_core::kernel::{Check, ComponentSpec, Fault, Vital};
use mobo_core::limits;
use mobo_core::store::StoreError;
use mobo_runtime::component::{BoxFuture, Component, timed};
use mobo_runtime::config::listed;
use mobo_runtime::entropy;
use mobo_runtime::fingerprint;
use mobo_runtime::folder_watch::FolderWatch;
use mobo_runtime::tasks::Tasks;

use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::{Edge, STORE, STORE_FILE, VERSION};
use crate::settings;

pub(super) struct StorePart(pub(super) Arc<Edge>);

pub(super) fn open(edge: &Edge) -> Result<EdgeStore, StoreError> {
    let clock = edge.clock;
    let sources = Sources { moment: Arc::new(move || clock.moment()), nonce: Arc::new(nonce) };
    let store = EdgeStore::open(&edge.folder.join(STORE_FILE), sources)?;
    store.set_room(room(edge).map_err(StoreError::Refused)?);
    Ok(store)
}

/// How much room the store may take, by the settings.
fn room(edge: &Edge) -> Result<Room, String> {
    let bytes_max = edge.config.get(&settings::STORE_BYTES).0;
    let reserve_bytes = edge.config.get(&settings::STORE_RESERVE).0.min(bytes_max / 2);
    let (mut streams, mut others) = (BTreeMap::new(), FullPolicy::default());
    let text = edge.config.get(&settings::STORE_FULL);
    for part in listed(&text) {
        let (stream, word) = part.split_once('=').map_or((None, part), |(stream, word)| (Some(stream.trim()), word.trim()));
        let unknown = || format!("store.full: \"{word}\" is none of drop_oldest, thin and stop");
        let policy = FullPolicy::from_word(word).ok_or_else(unknown)?;
        match stream {
            Some(stream) => drop(streams.insert(stream.to_owned(), policy)),
            None => others = policy,
        }
    }
    Ok(Room { bytes_max, reserve_bytes, streams, others })
}

/// Before anything is written: a copy of another device's folder goes on under a log of its own.
pub(super) async fn settle(edge: &Edge, store: &EdgeStore) -> Result<(), StoreError> {
    let fresh = entropy::bytes().map_err(|error| StoreError::Unavailable(error.to_string()))?;
    let now = fingerprint::of(&edge.folder.join(STORE_FILE));
    if let Some(refenced) = store.settle_fingerprint(now, Incarnation::from_entropy(fresh)).await? {
        tracing::error!(
            target: "alarm",
            incarnation = %refenced.incarnation,
            reauthored = refenced.reauthored,
            lost = refenced.lost,
            "this folder was copied or brought back from a backup: it goes on under a new log; what could not be written again there, if \
             anything, is in `mobo-edge quarantine list`. If the original is in \
             use as well, one of the two should get a new data folder and join as a device of its own"
        );
    }
    Ok(())
}

/// A nonce must only differ from others of the same log; should the system have no randomness to give, a count does that.
fn nonce() -> Nonce {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    Nonce(entropy::bytes().unwrap_or_else(|_| COUNT.fetch_add(1, Ordering::Relaxed).to_le_bytes()))
}

/// Takes in what other programs write, as soon as the system tells of a change in the folder: a commit writes into the log of the database.
async fn intake(store: Arc<EdgeStore>, folder: PathBuf, stopping: CancellationToken) {
    let mut watch = FolderWatch::writes(&folder);
    if let Err(error) = &watch {
        tracing::warn!(%error, "the data folder cannot be watched: SQL of other programs is looked for by the clock");
    }
    loop {
        // Frames reach the log before their commit is seen, and the system tells of the frames.
        let taken = store.take_in_next().await;
        if let Err(error) = &taken {
            tracing::debug!(%error, "what other programs wrote by SQL is not taken in yet");
        }
        let changed = async {
            match (&mut watch, taken) {
                (Ok(watch), Ok(())) => while !watch.next().await.iter().any(|name| is_log(name)) {},
                (Ok(_) | Err(_), Ok(()) | Err(_)) => tokio::time::sleep(limits::INTAKE_POLL).await,
            }
        };
        tokio::select! {
            () = changed => {}
            () = stopping.cancelled() => return,
        }
    }
}

/// True for the log of the database, and where the system could not tell which file it was.
fn is_log(name: &Path) -> bool {
    name.extension().is_some_and(|extension| extension == "db-wal" || extension == "toml")
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
                    StoreError::Unavailable(_)
                    | StoreError::Contended(_)
                    | StoreError::Poisoned(_)
                    | StoreError::BadValue(_)
                    | StoreError::Refused(_) => "look at the data folder and the disk",
                };
                Fault::new(error.to_string(), advice)
            })
        })
    }

    fn start(&self, tasks: Tasks) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let (edge, stopping) = (Arc::clone(&self.0), tasks.stopping());
            let store = self.0.store().map_err(|error| Fault::new(error.to_string(), "look at the data folder"))?;
            let mut changes = store.watch();
            tasks.spawn("intake", intake(Arc::clone(&store), self.0.folder.clone(), tasks.stopping()));
            tasks.spawn("schema", async move {
                loop {
                    let change = tokio::select! {
                        change = changes.recv() => change,
                        () = stopping.cancelled() => return,
                    };
                    if matches!(change, Ok(Change::SchemaChanged | Change::AccessChanged) | Err(RecvError::Lagged(_))) {
                        if let Err(error) = edge.refresh().await {
                            tracing::warn!(%error, "the collections cannot be read");
                        }
                        // Whoever has a connection open is asked again who he is.
                        edge.rights.send_modify(|count| *count += 1);
                    }
                }
            });
            Ok(())
        })
    }

    fn verify(&self) -> BoxFuture<'_, Vec<Check>> {
        Box::pin(async move {
            let look = async {
                let Ok(store) = self.0.store() else { return Check::warn("database", "not open", "see the log") };
                match store.audit().await {
                    Ok(audit) if audit.is_clean() => Check::pass("database", "whole, from its pages to its digests"),
                    // What differs from the hub is pulled again; nothing of it is a reason not to serve.
                    Ok(_) => Check::warn("database", "some rows do not fit their hashes", "run `mobo-edge health check`"),
                    Err(error) => Check::fail("database", error.to_string(), "move the data folder away and join again"),
                }
            };
            vec![timed(look).await]
        })
    }

    fn health(&self) -> BoxFuture<'_, Vital> {
        Box::pin(async move {
            let store = match self.0.store() {
                Ok(store) => store,
                Err(error) => return Vital::Failing(error.to_string()),
            };
            match store.obstacles().await {
                Ok(obstacles) => obstacles.first().map_or(Vital::Fine, |obstacle| Vital::Worn(obstacle.to_string())),
                Err(error) => Vital::Failing(error.to_string()),
            }
        })
    }

    fn swap(&self, _: String) -> BoxFuture<'_, Result<String, Fault>> {
        Box::pin(async {
            Err(Fault::new("a device keeps what it wrote in one database, for good", "join with another data folder for another one"))
        })
    }

    fn stop(&self, _: tokio::time::Instant) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            if let Some(store) = self.0.store.take() {
                store.close().await;
            }
            Ok(())
        })
    }
}
