//! A whole device inside another program.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! use mobo_edge::Node;
//!
//! #[derive(serde::Deserialize, serde::Serialize)]
//! struct Pump {
//!     site: String,
//!     setpoint: f64,
//! }
//!
//! let node = Node::open(folder.path(), &[("http.listen", "127.0.0.1:0")]).await?;
//! // Once in the life of a device, with a line that `mobo-hub device invite` printed: node.join(&token).await?;
//! let pump = Pump { site: "plant-4".to_owned(), setpoint: 21.5 };
//! match node.put("pumps", "7", &pump).await {
//!     Ok(()) => println!("durable here, and on its way to the hub"),
//!     Err(error) => println!("{error}"), // no collection "pumps": this device has not joined a hub
//! }
//! assert!(node.get::<Pump>("pumps", "7").await.is_err());
//! node.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! Everything that the service does, it does: it boots part by part, syncs whenever there is a link, answers its own HTTP API and the commands
//! of `mobo-edge` on its folder. Signals stay the program's own.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mobo_adapters::sqlite::edge::Change;
use mobo_core::kernel::{BoardState, ExitReason};
use mobo_protocol::JoinToken;
use mobo_runtime::command;
use mobo_runtime::console::Console;
use mobo_runtime::control::ControlError;
use mobo_runtime::data_dir::DataDir;
use mobo_runtime::motherboard::BoardHandle;
use mobo_runtime::output::Failure;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinHandle;

use crate::control::{explain_join, records, sync_drained};
use crate::node::{self, Edge};
use crate::settings;

/// A device that runs in this program. Dropping it stops it without waiting; [`stop`](Self::stop) waits.
#[derive(Debug)]
pub struct Node {
    edge: Arc<Edge>,
    board: BoardHandle,
    running: Option<JoinHandle<ExitReason>>,
}

/// Why something was not done: a sentence, and what to do about it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}; {hint}")]
pub struct NodeError {
    /// What happened.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl NodeError {
    fn new(message: impl ToString, hint: &str) -> Self {
        Self { message: message.to_string(), hint: hint.to_owned() }
    }
}

impl From<Failure> for NodeError {
    fn from(failure: Failure) -> Self {
        Self { message: failure.message, hint: failure.hint }
    }
}

impl From<ControlError> for NodeError {
    fn from(error: ControlError) -> Self {
        Self::from(Failure::from(error))
    }
}

impl Node {
    /// Boots a device on a folder, which is made when it is missing, and waits until it serves. `settings` come before those of
    /// `FOLDER/mobo.toml`; `mobo-edge config example` names all.
    ///
    /// # Errors
    ///
    /// When a setting is wrong, another process has the folder, or a part that the device needs does not start.
    pub async fn open(folder: impl AsRef<Path>, settings: &[(&str, &str)]) -> Result<Self, NodeError> {
        let flags: Vec<String> = settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let config = command::load(settings::ALL, &flags, None, folder.as_ref())?;
        let folder = DataDir::open(folder.as_ref()).map_err(|error| NodeError::new(error, "stop what uses it, or use another folder"))?;
        let assembled = node::assemble(config, &folder, Console::plain(Box::new(std::io::sink())));
        let (edge, board) = assembled.map_err(|error| NodeError::new(error, "look at the folder and its owner"))?;
        let mut handle = board.handle();
        let running = tokio::spawn(async move {
            let reason = board.run_embedded().await;
            // Nobody else may open the folder before the last part has closed.
            drop(folder);
            reason
        });
        let over = |state| matches!(state, BoardState::Failed | BoardState::Stopped);
        let serves = |state| matches!(state, BoardState::Ready | BoardState::Degraded | BoardState::Critical);
        match handle.until(|state| over(state) || serves(state)).await {
            Some(state) if serves(state) => Ok(Self { edge, board: handle, running: Some(running) }),
            Some(_) | None => {
                let why = running.await.map_or_else(|error| error.to_string(), |reason| reason.to_string());
                Err(NodeError::new(why, "`mobo-edge boot` on this folder shows each check"))
            }
        }
    }

    /// Joins the hub that a token names. Once: a device that has joined says so.
    ///
    /// # Errors
    ///
    /// When the token is none, the hub cannot be reached or refuses, or the device has joined before.
    pub async fn join(&self, token: &str) -> Result<(), NodeError> {
        let token = JoinToken::parse(token).map_err(|error| NodeError::new(error, "copy the whole line that the hub printed"))?;
        self.edge.join(&token).await.map(drop).map_err(|failure| explain_join(&failure).into())
    }

    /// True for a device that has a hub, reached or not.
    #[must_use]
    pub fn has_joined(&self) -> bool {
        self.edge.project().is_some()
    }

    /// Makes a record or replaces it. When this returns, it is durable on this device.
    ///
    /// # Errors
    ///
    /// When there is no such collection, a field does not fit, or the store has no room.
    pub async fn put<T: Serialize + ?Sized>(&self, collection: &str, id: &str, record: &T) -> Result<(), NodeError> {
        self.edit("put", collection, id, Some(fields(record)?)).await
    }

    /// Changes the fields of a record that `fields` holds.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put), and when there is no such record.
    pub async fn patch<T: Serialize + ?Sized>(&self, collection: &str, id: &str, changes: &T) -> Result<(), NodeError> {
        self.edit("patch", collection, id, Some(fields(changes)?)).await
    }

    /// Removes a record.
    ///
    /// # Errors
    ///
    /// As [`patch`](Self::patch).
    pub async fn delete(&self, collection: &str, id: &str) -> Result<(), NodeError> {
        self.edit("delete", collection, id, None).await
    }

    /// A record as it is shown here: what the hub delivered with this device's own changes laid over it; `None` when there is none.
    ///
    /// # Errors
    ///
    /// When there is no such collection, or the record is no `T`.
    pub async fn get<T: DeserializeOwned>(&self, collection: &str, id: &str) -> Result<Option<T>, NodeError> {
        match records::answer(&self.edge, "get", &json!({ "collection": collection, "id": id })).await {
            Ok(row) => typed(row).map(Some),
            Err(error) if error.code == "no_such_record" => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The records of a collection, by id, or the newest samples of a stream; at most `limit`.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub async fn list<T: DeserializeOwned>(&self, collection: &str, limit: u64) -> Result<Vec<T>, NodeError> {
        typed(records::answer(&self.edge, "list", &json!({ "collection": collection, "limit": limit })).await?)
    }

    /// Appends samples to a stream; their time is now, unless they have a field `at`.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    pub async fn append<T: Serialize>(&self, stream: &str, samples: &[T]) -> Result<(), NodeError> {
        records::answer(&self.edge, "append", &json!({ "collection": stream, "value": fields(samples)? })).await?;
        Ok(())
    }

    /// What changes in a collection from now on, by whomever.
    ///
    /// # Errors
    ///
    /// When there is no such collection.
    pub fn watch(&self, collection: &str) -> Result<Watch, NodeError> {
        let hint = "make it on the hub; a device learns of it when it is connected";
        let store = self.edge.store().map_err(|error| NodeError::new(error, "boot again"))?;
        let changes = store.watch();
        let schema = self.edge.schema();
        let found =
            schema.by_name(collection).ok_or_else(|| NodeError::new(format!("this device knows no collection \"{collection}\""), hint))?;
        Ok(Watch { collection: found.id, changes })
    }

    /// Exchanges everything with the hub, both ways; true when nothing is left, false when `timeout` is over first.
    ///
    /// # Errors
    ///
    /// When the store cannot say.
    pub async fn sync(&self, timeout: Duration) -> Result<bool, NodeError> {
        let report = sync_drained(&self.edge, timeout).await.map_err(|error| NodeError::new(error, "boot again"))?;
        Ok(report.get("drained") == Some(&json!(true)))
    }

    /// Finishes what is under way and closes.
    pub async fn stop(mut self) {
        self.board.stop();
        if let Some(running) = self.running.take() {
            // Its panic is in the log.
            let _ = running.await;
        }
    }

    async fn edit(&self, verb: &str, collection: &str, id: &str, value: Option<Value>) -> Result<(), NodeError> {
        records::answer(&self.edge, verb, &json!({ "collection": collection, "id": id, "value": value })).await?;
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.board.stop();
    }
}

/// What changes in a collection.
#[derive(Debug)]
pub struct Watch {
    collection: mobo_core::ids::CollectionId,
    changes: broadcast::Receiver<Change>,
}

/// A change.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Changed {
    /// These records, by their ids; read them to see what they are now.
    Records(Vec<String>),
    /// More than could be told: read what is of interest again.
    Unknown,
}

impl Watch {
    /// The next change; `None` when the device has stopped.
    pub async fn next(&mut self) -> Option<Changed> {
        loop {
            match self.changes.recv().await {
                Ok(Change::RecordsChanged(keys)) => {
                    let ids = keys.iter().filter(|key| key.collection == self.collection).map(|key| key.id.to_string());
                    let ids: Vec<String> = ids.collect();
                    if !ids.is_empty() {
                        return Some(Changed::Records(ids));
                    }
                }
                Ok(Change::LaneAppended(_) | Change::LaneSettled(_) | Change::SchemaChanged | Change::AccessChanged) => {}
                Err(RecvError::Lagged(_)) => return Some(Changed::Unknown),
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

fn fields<T: Serialize + ?Sized>(value: &T) -> Result<Value, NodeError> {
    serde_json::to_value(value)
        .map_err(|error| NodeError::new(format!("this cannot be written as JSON: {error}"), "use maps with text keys"))
}

fn typed<T: DeserializeOwned>(value: Value) -> Result<T, NodeError> {
    serde_json::from_value(value)
        .map_err(|error| NodeError::new(format!("the record is of another form: {error}"), "read it as a serde_json::Value"))
}
