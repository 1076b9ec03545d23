//! The device's desk: what the control socket is asked, and the JSON that it answers. File permissions are the authority here.

mod conflicts;
mod quarantine;
pub(crate) mod records;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mobo_adapters::sqlite::edge::{EdgeCounts, EdgeStore};
use mobo_core::ids::RecordKey;
use mobo_core::store::StoreError;
use mobo_gate::backend::BackendError;
use mobo_protocol::JoinToken;
use mobo_runtime::board_desk;
use mobo_runtime::component::BoxFuture;
use mobo_runtime::control::{ControlError, EventSink, Handler};
use mobo_runtime::motherboard::BoardHandle;
use mobo_runtime::output::Failure;
use serde_json::{Value, json};

use crate::bundles::{self, BundlesError};
use crate::node::{Edge, JoinFailure, VERSION};
use crate::settings;
use crate::uplink::LinkState;

/// Answers the control socket.
#[derive(Debug)]
pub struct Desk {
    edge: Arc<Edge>,
    board: BoardHandle,
}

impl Desk {
    /// The desk of a device.
    #[must_use]
    pub fn new(edge: Arc<Edge>, board: BoardHandle) -> Self {
        Self { edge, board }
    }
}

impl Handler for Desk {
    fn call(&self, verb: String, args: Value, out: EventSink) -> BoxFuture<'_, Result<Value, ControlError>> {
        Box::pin(async move {
            match board_desk::answer(&self.board, &verb, &args, &out).await {
                Some(answer) => answer,
                None => self.answer(&verb, &args).await,
            }
        })
    }
}

fn store_error(error: &StoreError) -> ControlError {
    ControlError::failed("store", error.to_string(), "run `mobo-edge status`; if it stays, restart the device")
}

fn backend_error(error: &BackendError) -> ControlError {
    let text = error.to_string();
    match error {
        BackendError::Edit(_)
        | BackendError::BadValue(_)
        | BackendError::Refused(_)
        | BackendError::TooLarge(_)
        | BackendError::Token(_) => ControlError::usage("refused", text, "correct what the sentence names, then write again"),
        BackendError::Rejected(_) => ControlError::failed("rejected", text, "`mobo-edge quarantine list` shows what was refused and why"),
        BackendError::Full(_) => ControlError::failed("full", text, "free some space, then write again; reading and syncing go on"),
        BackendError::Unavailable(_) | BackendError::Damaged(_) => {
            ControlError::failed("store", text, "run `mobo-edge health check`; if it stays, restart the device")
        }
    }
}

/// Writes a bundle, or takes in a receipt.
///
/// # Errors
///
/// A sentence that says why, and what to do.
pub async fn bundle(edge: &Edge, verb: &str, args: &Value) -> Result<Value, ControlError> {
    let path = Path::new(args.get("file").and_then(Value::as_str).unwrap_or_default());
    let uplink = edge.uplink().map_err(|error| store_error(&error))?;
    let done = if verb == "backup export" {
        bundles::export(&uplink, path, args.get("all") == Some(&json!(true))).await
    } else {
        bundles::import(&uplink, path).await
    };
    done.map_err(|error| match error {
        BundlesError::Store(error @ StoreError::Refused(_)) => {
            ControlError::failed("refused", error.to_string(), "do what the sentence says")
        }
        BundlesError::Store(error) => store_error(&error),
        other @ (BundlesError::File { .. } | BundlesError::Bundle(_) | BundlesError::Foreign) => {
            ControlError::failed("bundle", other.to_string(), "nothing is lost: this device keeps its entries until its hub has them")
        }
    })
}

/// What the user is told of a join that did not happen.
#[must_use]
pub fn explain_join(failure: &JoinFailure) -> Failure {
    let text = failure.to_string();
    match failure {
        JoinFailure::Joined { .. } => Failure::failed(text, "to join another hub, start with an empty data folder"),
        JoinFailure::Join(error) => Failure::failed(text, error.advice()),
        JoinFailure::Store(_) | JoinFailure::NoEntropy(_) => Failure::failed(text, "look at the data folder and the disk"),
    }
}

/// Waits until everything is exchanged, what was written a moment ago included, or for the end of patience; gives what it has come to.
///
/// The report is the one that ended the wait: a later look may fall into the moment in which the uplink looks for more.
///
/// # Errors
///
/// When the store cannot say.
pub async fn sync_drained(edge: &Edge, timeout: Duration) -> Result<Value, StoreError> {
    edge.wake.notify_one();
    let mut status = edge.link.subscribe();
    let drained = async {
        while status.wait_for(|status| status.drained).await.is_ok() {
            let report = sync_report(edge).await?;
            // A write of a moment ago counts, also where the uplink is too busy to have heard of it.
            if report.get("drained") == Some(&json!(true)) || status.changed().await.is_err() {
                // Who waited for the hub may use at once what it said: the part that hears of a new collection may not have run yet.
                edge.refresh().await?;
                return Ok(report);
            }
        }
        sync_report(edge).await
    };
    match tokio::time::timeout(timeout, drained).await {
        Ok(report) => report,
        Err(_elapsed) => sync_report(edge).await,
    }
}

/// The link is read before the counts: what is drained then and has nothing pending after it was exchanged whole.
async fn sync_report(edge: &Edge) -> Result<Value, StoreError> {
    let link = edge.link.borrow().clone();
    let counts = edge.store()?.counts().await?;
    Ok(json!({
        "drained": link.drained && counts.pending == 0,
        "pending": counts.pending,
        "rejected": counts.rejected,
        "link": link.state.word(),
        "last_error": link.last_error,
    }))
}

impl Desk {
    async fn answer(&self, verb: &str, args: &Value) -> Result<Value, ControlError> {
        match verb {
            "status" => self.status().await.map_err(|error| store_error(&error)),
            "shutdown" => {
                self.board.stop();
                Ok(json!({ "stopping": true }))
            }
            "config pending" => Ok(mobo_runtime::command::pending(&self.edge.config)),
            "health check" => self.health_check().await.map_err(|error| store_error(&error)),
            "join" => self.join(args).await,
            "backup export" | "backup import" => bundle(&self.edge, verb, args).await,
            "sync" => {
                let timeout = args.get("timeout_ms").and_then(Value::as_u64).unwrap_or(60_000);
                sync_drained(&self.edge, Duration::from_millis(timeout)).await.map_err(|error| store_error(&error))
            }
            "quarantine list" | "quarantine show" | "quarantine retry" | "quarantine drop" => {
                quarantine::answer(&self.edge, verb, args).await
            }
            "conflict list" | "conflict show" | "conflict resolve" => conflicts::answer(&self.edge, verb, args).await,
            "put" | "patch" | "delete" | "get" | "list" | "append" => records::answer(&self.edge, verb, args).await,
            _ => Err(ControlError::usage("verb", format!("the device does not know the verb \"{verb}\""), "see `mobo-edge --help`")),
        }
    }

    async fn join(&self, args: &Value) -> Result<Value, ControlError> {
        let text = args.get("token").and_then(Value::as_str).unwrap_or_default();
        let token = JoinToken::parse(text).map_err(|error| ControlError::usage("token", error.to_string(), "quote the token"))?;
        match self.edge.join(&token).await {
            Ok(identity) => Ok(json!({ "device": identity.device.to_string(), "hub": identity.hub_addresses })),
            Err(failure) => {
                let told = explain_join(&failure);
                Err(ControlError::failed("join", told.message, told.hint))
            }
        }
    }

    async fn status(&self) -> Result<Value, StoreError> {
        let link = self.edge.link.borrow().clone();
        let report = self.board.report();
        let state = report.state.word();
        let store = self.edge.store()?;
        let (node, counts) = (store.node().await?, store.counts().await?);
        let lanes: Vec<Value> = counts
            .lanes
            .iter()
            .map(|lane| {
                let number = |seq: Option<mobo_core::ids::Seq>| seq.map_or(0, mobo_core::ids::Seq::get);
                json!({ "lane": lane.lane.number(), "last": lane.last.get(), "hub": number(lane.hub), "safe": number(lane.safe) })
            })
            .collect();
        let buckets: Vec<Value> = counts
            .buckets
            .iter()
            .map(|bucket| json!({ "key": bucket.grant.key, "cursor": bucket.cursor.0, "digest": bucket.digest.to_string() }))
            .collect();
        let schema = self.edge.schema();
        let name = |key: &RecordKey| schema.get(key.collection).map_or_else(|| key.collection.to_string(), |found| found.name.clone());
        let detached: Vec<Value> = counts.detached.iter().map(|key| json!({ "collection": name(key), "id": key.id.as_str() })).collect();
        let diverged = counts.buckets.iter().any(|bucket| bucket.diverged > 0);
        Ok(json!({
            "node": "edge",
            "version": VERSION,
            "device": self.edge.keys.device().to_string(),
            "incarnation": node.incarnation.map(|incarnation| incarnation.to_string()),
            "state": state,
            "health": health_word(report.health_word(), diverged || link.state == LinkState::Refused),
            "link": { "state": link.state.word(), "transport": link.transport, "last_error": link.last_error, "peer": link.peer },
            "lanes": lanes,
            "pending": counts.pending,
            "buckets": buckets,
            "records": counts.records,
            "rejected": counts.rejected,
            "sql_refused": counts.sql_refused,
            "detached": detached,
            "conflicts": store.decisions_count().await?,
            "quarantined": store.refused_messages_count().await?,
            "ingest": (!self.edge.config.get(&settings::MQTT_INGEST).is_empty()).then(|| self.edge.ingest.borrow().show()),
            "kept": { "entries": counts.kept, "bytes": counts.kept_bytes },
            "store": { "commits": store.commits().0, "writes": store.commits().1 },
            "room": self.room(&store, &counts),
            "http": self.edge.http().map(|address| address.to_string()),
            "metrics": self.edge.metrics().map(|address| address.to_string()),
        }))
    }

    /// How much room the store takes, and what was lost for want of it.
    fn room(&self, store: &EdgeStore, counts: &EdgeCounts) -> Value {
        let (room, schema) = (store.room(), self.edge.schema());
        let lost = counts.losses.iter().map(|loss| {
            let stream = schema.get(loss.collection).map_or_else(|| loss.collection.to_string(), |found| found.name.clone());
            json!({ "stream": stream, "samples": loss.samples, "entries": loss.entries })
        });
        let lost: Vec<Value> = lost.collect();
        json!({ "used": counts.used_bytes, "max": room.bytes_max, "reserve": room.reserve_bytes, "lost": lost })
    }

    /// Recomputes digests from rows and chains from entries.
    async fn health_check(&self) -> Result<Value, StoreError> {
        let store = self.edge.store()?;
        let (audit, schema) = (store.audit().await?, self.edge.schema());
        let keys: Vec<_> = store.counts().await?.buckets.into_iter().map(|bucket| bucket.grant).collect();
        let mut checks = vec![json!({ "name": "store", "ok": true, "detail": "readable" })];
        for (bucket, stored, computed) in &audit.buckets {
            let key = keys.iter().find(|grant| grant.bucket == *bucket).map_or_else(|| bucket.to_string(), |grant| grant.key.clone());
            let ok = stored == computed;
            let detail = if ok {
                format!("digest {computed}")
            } else {
                format!("bucket {key} does not fit its digest: stored {stored}, recomputed from its rows {computed}")
            };
            checks.push(json!({
                "name": format!("bucket {key}"), "ok": ok, "detail": detail, "bucket": key,
                "stored": stored.to_string(), "computed": computed.to_string(),
            }));
        }
        for (incarnation, lane, broken) in &audit.lanes {
            let detail = broken.map_or_else(|| "chain whole".to_owned(), |seq| format!("the chain breaks at entry {}", seq.get()));
            let name = format!("lane {} of {incarnation}", lane.number());
            checks.push(json!({ "name": name, "ok": broken.is_none(), "detail": detail }));
        }
        for key in &audit.damaged {
            let collection = schema.get(key.collection).map_or_else(|| key.collection.to_string(), |found| found.name.clone());
            let name = format!("record {collection}/{}", key.id);
            checks.push(
                json!({ "name": name, "ok": false, "detail": "the row does not fit its own hash: it is fetched again at the next connection" }),
            );
        }
        if !audit.is_clean() {
            // What is damaged here is whole at the hub: it is pulled again at the next connection.
            store.repair(audit).await?;
        }
        checks.extend(board_desk::checks(&self.board));
        let ok = checks.iter().all(|check| check.get("ok") == Some(&Value::Bool(true)));
        Ok(json!({ "ok": ok, "health": if ok { "healthy" } else { "failed" }, "checks": checks }))
    }
}

/// A device that differs from its hub, or that its hub refuses, needs somebody to look.
fn health_word(board: &'static str, troubled: bool) -> &'static str {
    if troubled && board == "healthy" { "degraded" } else { board }
}
