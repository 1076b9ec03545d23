//! The hub's desk: what the control socket is asked, and the JSON that it answers. File permissions are the authority here.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mobo_core::limits;
use mobo_core::schema::{Collection, SchemaError};
use mobo_core::store::StoreError;
use mobo_runtime::component::BoxFuture;
use mobo_runtime::control::{ControlError, EventSink, Handler};
use serde_json::{Value, json};

use crate::admin::{AdminError, NewCollection};
use crate::node::{Hub, VERSION};
use crate::settings;

mod accounts;
mod backup;
mod board;
mod conflicts;
mod grants;
mod health;
mod ledger;
mod quarantine;
mod recovery;
mod restoring;

/// Answers the control socket.
#[derive(Debug)]
pub struct Desk(Arc<Hub>);

impl Desk {
    /// The desk of a hub.
    #[must_use]
    pub fn new(hub: Arc<Hub>) -> Self {
        Self(hub)
    }
}

impl Handler for Desk {
    fn call(&self, verb: String, args: Value, out: EventSink) -> BoxFuture<'_, Result<Value, ControlError>> {
        Box::pin(async move { self.respond(&verb, &args, &out).await })
    }
}

fn explain(error: &AdminError) -> ControlError {
    let text = error.to_string();
    match error {
        AdminError::Schema(SchemaError::BadRule { .. }) => ControlError::usage("bad_rule", text, "see `mobo-hub collection create --help`"),
        AdminError::Schema(_) | AdminError::Usage(_) => ControlError::usage("usage", text, "see `mobo-hub --help`"),
        AdminError::NoSuch { what: "record", .. } => ControlError::no_such(
            "no_such",
            text,
            "a record is there once a device or the API has written it: look with GET /rest/v1/{collection}",
        ),
        AdminError::NoSuch { what, .. } => ControlError::no_such("no_such", text, format!("`mobo-hub {what} list` shows what there is")),
        AdminError::Store(StoreError::Unavailable(_) | StoreError::Contended(_)) => {
            ControlError::failed("unavailable", text, "wait until `mobo-hub status` says ready, then try again")
        }
        AdminError::Store(StoreError::Full(_)) => ControlError::failed("full", text, "free some space, then try again"),
        AdminError::Store(StoreError::BadValue(_) | StoreError::Refused(_)) => {
            ControlError::usage("refused", text, "do what the sentence says")
        }
        AdminError::Store(StoreError::Poisoned(_) | StoreError::Damaged(_)) => {
            ControlError::failed("store", text, "run `mobo-hub health check`, and restart the hub")
        }
        AdminError::Import(_) => {
            ControlError::failed("import", text, "nothing is lost: the device keeps its entries until it has heard of them")
        }
        AdminError::NoEntropy(_) => ControlError::failed("entropy", text, "wait until the machine has gathered randomness"),
    }
}

fn text(args: &Value, key: &str) -> String {
    args.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn texts(args: &Value, key: &str) -> Vec<String> {
    let items = args.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

impl Desk {
    async fn answer(&self, verb: &str, args: &Value) -> Result<Value, AdminError> {
        if let Some(answer) = self.about_accounts(verb, args).await {
            return answer;
        }
        match verb {
            "status" => Ok(self.status().await),
            "shutdown" => {
                self.0.board.stop();
                Ok(json!({ "stopping": true }))
            }
            "health check" => self.health_check().await,
            "collection create" => self.create_collection(args).await,
            "collection list" => Ok(Value::Array({
                let schema = self.0.schema()?;
                schema.iter().map(|collection| show_collection(collection, &schema)).collect()
            })),
            "collection show" => self.show_collection(&text(args, "name")),
            "device invite" => {
                let ttl = args.get("ttl_ms").and_then(Value::as_u64).map_or(limits::INVITE_TTL, Duration::from_millis);
                let rights = (texts(args, "buckets"), texts(args, "claims"));
                let token = self.0.invite(&text(args, "name"), &rights, ttl).await?;
                Ok(json!({ "token": token.to_text(), "expires": mobo_core::rfc3339::format(token.expires_us) }))
            }
            "device list" => self.devices().await,
            "device import" => {
                let receipt = args.get("receipt").and_then(Value::as_str).map(Path::new);
                Ok(crate::bundles::import(&self.0, Path::new(&text(args, "file")), receipt).await?)
            }
            "device show" => self.show_device(&text(args, "name")).await,
            "collection alter" | "device grant" | "device ungrant" => self.change_rights(verb, args).await,
            "quarantine show" | "quarantine retry" | "quarantine drop" => self.decide(verb, args).await,
            "device revoke" => self.revoke(&text(args, "name")).await,
            "conflict list" => self.conflicts(args).await,
            "conflict show" | "conflict resolve" | "conflict policy" => self.settle(verb, args).await,
            "quarantine list" => self.quarantine(args).await,
            "config pending" => Ok(mobo_runtime::command::pending(&self.0.config)),
            "recover start" => self.recover("start").await,
            "recover finish" => self.recover("finish").await,
            "recover status" => self.recover("status").await,
            "record restore" => self.restore_records(args).await,
            "record show" => self.record(&text(args, "collection"), &text(args, "id")).await,
            _ => Err(AdminError::Usage(format!("the hub does not know the verb \"{verb}\""))),
        }
    }

    async fn status(&self) -> Value {
        let hub = &self.0;
        let report = hub.board.report();
        let opened = hub.opened().ok();
        let (mut counts, mut known, mut problem) = (mobo_core::store::Counts::default(), 0, None);
        let (mut refused, mut aside) = (mobo_core::store::SqlRefused::default(), 0);
        if let Some(opened) = &opened {
            match opened.store.counts(opened.project).await {
                Ok(found) => counts = found,
                Err(error) => problem = Some(error.to_string()),
            }
            known = counts.devices;
            refused = opened.store.sql_refused().await.unwrap_or_default();
            if let Ok(inbox) = hub.inbox() {
                aside = crate::ingest::refused::count(&*inbox.desk).await.unwrap_or_default();
            }
        }
        let live = hub.sessions().map_or(0, |sessions| sessions.live()) as u64;
        let buckets: Vec<Value> = counts
            .buckets
            .iter()
            .map(|(_, key, head, digest)| json!({ "key": key, "head": head.0, "digest": digest.to_string() }))
            .collect();
        let (recovery, unseen) = self.recovery_status().await;
        let state = report.state.word();
        let health = if problem.is_some() { "failed" } else { report.health_word() };
        json!({
            "node": "hub",
            "version": VERSION,
            "id": hub.keys.device().to_string(),
            "state": state,
            "health": health,
            "problem": problem,
            "store": match &opened {
                Some(opened) => opened.store.info().await.map_or_else(|_| json!(null), |info| json!(format!("{} {}", info.kind, info.version))),
                None => json!(null),
            },
            "timeline": hub.timeline().map(|timeline| timeline.to_string()),
            "devices": { "known": known, "live": live, "unseen": unseen, "twice": self.twice().await },
            "recovering": self.recovering(),
            "recovery": recovery,
            "buckets": buckets,
            "rebucketing": self.rebucketing().await,
            "records": counts.records,
            "quarantined": counts.quarantined + aside,
            "conflicts": counts.conflicts,
            "sql_refused": refused.count,
            "backup": self.backup_status(),
            "http": hub.http().map(|address| address.to_string()),
            "metrics": hub.metrics().map(|address| address.to_string()),
            "quic": hub.quic().map(|address| address.to_string()),
            "mqtt": hub.mqtt(),
            "ingest": (!hub.config.get(&settings::MQTT_INGEST).is_empty()).then(|| hub.ingest.borrow().show()),
        })
    }

    async fn create_collection(&self, args: &Value) -> Result<Value, AdminError> {
        let optional = |key| Some(text(args, key)).filter(|text| !text.is_empty());
        let new = NewCollection {
            name: text(args, "name"),
            kind: optional("kind"),
            fields: texts(args, "fields"),
            buckets: texts(args, "buckets"),
            lane: optional("lane"),
        };
        let made = self.0.create_collection(&new).await?;
        Ok(show_collection(&made, &*self.0.schema()?))
    }

    fn show_collection(&self, name: &str) -> Result<Value, AdminError> {
        let schema = self.0.schema()?;
        schema.by_name(name).map(|collection| show_collection(collection, &schema)).ok_or_else(|| no_collection(&schema, name))
    }

    async fn devices(&self) -> Result<Value, AdminError> {
        let opened = self.0.opened()?;
        let devices = opened.store.devices(opened.project).await?;
        Ok(Value::Array(self.show_devices(devices).await?))
    }
}

fn no_collection(schema: &mobo_core::schema::Schema, name: &str) -> AdminError {
    let near = mobo_core::names::nearest(name, schema.iter().map(|collection| collection.name.as_str())).map(str::to_owned);
    AdminError::NoSuch { what: "collection", name: name.to_owned(), near }
}

fn show_collection(collection: &Collection, schema: &mobo_core::schema::Schema) -> Value {
    let show = |field: &mobo_core::schema::Field| {
        let mut shown = json!({ "name": field.name, "type": field.kind.name(), "id": field.id.to_string(), "retired": field.retired });
        if let (Some(target), Some(shown)) = (field.references, shown.as_object_mut()) {
            let name = schema.get(target).map_or_else(|| target.to_string(), |target| target.name.clone());
            shown.insert("references".to_owned(), Value::String(name));
        }
        shown
    };
    let fields: Vec<Value> = collection.fields.iter().map(show).collect();
    json!({
        "name": collection.name, "kind": collection.kind.name(), "id": collection.id.to_string(), "rev": collection.rev,
        "fields": fields, "buckets": collection.rules, "lane": collection.lane.number(),
    })
}
