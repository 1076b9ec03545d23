//! What an operator does with a hub: collections, devices, keys, and looking at how it is. The control socket calls these.

mod changing;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

pub use changing::Late;
use mobo_core::buckets::{ALL, is_bucket_key, is_claim};
use mobo_core::ids::{CollectionId, DeviceId, FieldId, Lane, ProjectId};
use mobo_core::limits;
use mobo_core::rights::Scope;
use mobo_core::schema::{Collection, Field, FieldType, Kind, Schema, SchemaError, check_collection};
use mobo_core::store::{ApiKeyRow, DeviceRow, Invite, StoreError};
use mobo_core::time::Eff;
use mobo_core::trust::secret_hash;
use mobo_gate::key::{ApiKey, KeyKind};
use mobo_protocol::JoinToken;
use mobo_runtime::entropy;

use crate::advertise::{Listening, addresses};
use crate::node::{Hub, WS_PATH};
use crate::settings;

/// Why an operator's command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The command does not make sense as it is.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// Likewise.
    #[error("{0}")]
    Usage(String),
    /// There is no such thing.
    #[error("{what} \"{name}\" does not exist{}", near.as_ref().map(|near| format!("; perhaps you meant \"{near}\"")).unwrap_or_default())]
    NoSuch {
        /// A collection, a device, a key.
        what: &'static str,
        /// What was asked for.
        name: String,
        /// A similar name.
        near: Option<String>,
    },
    /// The store cannot.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system has no randomness.
    #[error(transparent)]
    NoEntropy(#[from] entropy::NoEntropy),
    /// A bundle was not imported.
    #[error(transparent)]
    Import(#[from] crate::bundles::ImportError),
}

/// A collection to be made.
#[derive(Clone, Debug)]
pub struct NewCollection {
    /// Its name.
    pub name: String,
    /// Its kind; by default a table when fields are declared, a document otherwise.
    pub kind: Option<String>,
    /// `name:type`, each.
    pub fields: Vec<String>,
    /// Bucket templates.
    pub buckets: Vec<String>,
    /// `events` or `telemetry`, for streams.
    pub lane: Option<String>,
}

/// A key to be made.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// The project.
    pub project: ProjectId,
    /// A label; empty for that of its role.
    pub name: String,
    /// The name of its role.
    pub role: String,
    /// Parts of the role to which it is held.
    pub scopes: Vec<String>,
    /// How long it works; `None` until it is revoked.
    pub ttl: Option<Duration>,
}

impl Hub {
    /// Makes a collection and tells the sessions.
    ///
    /// # Errors
    ///
    /// [`AdminError`].
    pub async fn create_collection(&self, new: &NewCollection) -> Result<Collection, AdminError> {
        let opened = self.opened()?;
        if opened.history.era().recovering {
            // The ids that a collection had may still come back with it (rule R18).
            return Err(AdminError::Usage(
                "this hub still collects what its devices hold: make collections when `mobo-hub recover status` says that it has ended"
                    .to_owned(),
            ));
        }
        let _one_at_a_time = opened.schema_lock.lock().await;
        let known = opened.store.schema(opened.project).await?;
        let collection = define(new, &known)?;
        check_collection(&collection)?;
        if known.by_name(&collection.name).is_some() {
            return Err(AdminError::Usage(format!("collection \"{}\" exists already", collection.name)));
        }
        if known.iter().count() >= limits::COLLECTIONS_MAX {
            return Err(SchemaError::TooMany { what: "collections of a project", max: limits::COLLECTIONS_MAX }.into());
        }
        let schema = opened.store.create_collection(opened.project, collection.clone()).await?;
        opened.changed(schema);
        Ok(collection)
    }

    /// The collections.
    ///
    /// # Errors
    ///
    /// While the store is not open.
    pub fn schema(&self) -> Result<Arc<Schema>, StoreError> {
        Ok(Arc::clone(&self.opened()?.schema.borrow()))
    }

    /// Invites one device with these buckets and claims (`NAME=VALUE`, each): the token that it joins with, within `ttl`.
    ///
    /// # Errors
    ///
    /// [`AdminError`].
    pub async fn invite(&self, name: &str, rights: &(Vec<String>, Vec<String>), ttl: Duration) -> Result<JoinToken, AdminError> {
        let (buckets, claims) = rights;
        let opened = self.opened()?;
        if name.len() > limits::NAME_BYTES_MAX || name.chars().any(char::is_control) {
            return Err(AdminError::Usage(format!(
                "a device's name has at most {} bytes and no control characters",
                limits::NAME_BYTES_MAX
            )));
        }
        if let Some(bad) = buckets.iter().find(|key| !is_bucket_key(key)) {
            return Err(AdminError::Usage(format!("\"{bad}\" cannot be a bucket's key: it holds no spaces or braces")));
        }
        if buckets.len() > limits::BUCKETS_PER_DEVICE_MAX {
            return Err(AdminError::Usage(format!("a device holds at most {} buckets", limits::BUCKETS_PER_DEVICE_MAX)));
        }
        let claims = claims.iter().map(|claim| parse_claim(claim)).collect::<Result<BTreeSet<_>, _>>()?;
        if claims.len() > limits::CLAIMS_MAX {
            return Err(AdminError::Usage(format!("a device has at most {} claims", limits::CLAIMS_MAX)));
        }
        let claims = claims.into_iter().collect();
        let buckets: BTreeSet<String> = buckets.iter().cloned().collect();
        let buckets = if buckets.is_empty() { vec![ALL.to_owned()] } else { buckets.into_iter().collect() };
        let secret = entropy::bytes::<16>()?.to_vec();
        let ttl = ttl.min(limits::INVITE_TTL_MAX);
        let expires = opened.time.now().plus(u64::try_from(ttl.as_micros()).unwrap_or(u64::MAX));
        let invite = Invite { secret_hash: secret_hash(&secret), name: name.to_owned(), buckets, claims, expires };
        opened.store.invite(opened.project, invite).await?;
        Ok(JoinToken {
            project: opened.project,
            hub: self.keys.public(),
            secret,
            addresses: self.advertised(),
            expires_us: expires.0,
            name: name.to_owned(),
            masks: true,
        })
    }

    fn advertised(&self) -> Vec<String> {
        let listening = Listening { quic: self.quic(), mqtt: self.mqtt(), http: self.http().filter(|_| !self.is_private()) };
        addresses(&self.config.get(&settings::QUIC_ADVERTISE), &listening, WS_PATH)
    }

    /// The device of that name or id.
    ///
    /// # Errors
    ///
    /// [`AdminError`].
    pub async fn device(&self, name: &str) -> Result<DeviceRow, AdminError> {
        let opened = self.opened()?;
        let devices = opened.store.devices(opened.project).await?;
        let wanted = |device: &&DeviceRow| device.name == name || (name.len() >= 6 && device.id.to_string().starts_with(name));
        let mut found = devices.iter().filter(wanted);
        match (found.next(), found.next()) {
            (Some(device), None) => Ok(device.clone()),
            (Some(_), Some(_)) => Err(AdminError::Usage(format!("\"{name}\" fits several devices: give the whole id"))),
            (None, _) => {
                let near = mobo_core::names::nearest(name, devices.iter().map(|device| device.name.as_str())).map(str::to_owned);
                Err(AdminError::NoSuch { what: "device", name: name.to_owned(), near })
            }
        }
    }

    /// Revokes a device: refused at its next hello, and its session ends now.
    ///
    /// # Errors
    ///
    /// [`AdminError`].
    pub async fn revoke(&self, name: &str) -> Result<DeviceId, AdminError> {
        let opened = self.opened()?;
        let device = self.device(name).await?;
        opened.store.revoke(opened.project, device.id, opened.time.now()).await?;
        if let Some(sessions) = self.sessions() {
            sessions.revoked(device.id);
        }
        Ok(device.id)
    }

    /// Makes an API key; its text is shown this once.
    ///
    /// # Errors
    ///
    /// [`AdminError`].
    pub async fn create_key(&self, new: &NewKey) -> Result<(String, ApiKeyRow), AdminError> {
        let opened = self.opened()?;
        let accounts = self.accounts().ok_or_else(|| StoreError::Unavailable("the store is not open yet".to_owned()))?;
        let role = accounts.known_role(new.project, &new.role).await?;
        let scopes: Option<Vec<Vec<Scope>>> = new.scopes.iter().map(|scope| Scope::parse(scope)).collect();
        let scopes = scopes.ok_or_else(|| {
            AdminError::Usage("a scope is read, create, update, delete or write, for one collection as in read:orders".to_owned())
        })?;
        let kind = if role.is_trusted() { KeyKind::Secret } else { KeyKind::Public };
        let key = ApiKey::generate(kind, entropy::bytes()?);
        let now = opened.time.now();
        let row = ApiKeyRow {
            id: CollectionId::from_entropy(entropy::bytes()?).get(),
            name: if new.name.is_empty() { role.name().to_owned() } else { new.name.clone() },
            prefix: key.shown().to_owned(),
            hash: key.hash().0,
            role: role.name().to_owned(),
            scopes: scopes.concat().iter().map(Scope::to_text).collect(),
            created: now,
            expires: new.ttl.map(|ttl| now.plus(u64::try_from(ttl.as_micros()).unwrap_or(u64::MAX))),
            revoked: None,
        };
        opened.store.create_key(new.project, row.clone()).await?;
        Ok((key.text().to_owned(), row))
    }
}

fn parse_claim(text: &str) -> Result<(String, String), AdminError> {
    match text.split_once('=') {
        Some((name, value)) if is_claim(name, value) => Ok((name.to_owned(), value.to_owned())),
        _ => Err(AdminError::Usage(format!(
            "\"{text}\" is not a claim: write NAME=VALUE without spaces or braces, such as site=plant-4; `id` and `device` are taken"
        ))),
    }
}

fn define(new: &NewCollection, known: &Schema) -> Result<Collection, AdminError> {
    let kind = match &new.kind {
        None if new.fields.is_empty() => Kind::Document,
        None => Kind::Table,
        Some(word) => {
            Kind::from_name(word).ok_or_else(|| AdminError::Usage(format!("\"{word}\" is not a kind: use table, document or stream")))?
        }
    };
    let id = CollectionId::from_entropy(entropy::bytes()?);
    let home = Home { id, name: &new.name, kind, known };
    let fields: Result<Vec<Field>, AdminError> = new.fields.iter().map(|text| field(text, &home)).collect();
    let lane = match (kind, new.lane.as_deref()) {
        (Kind::Table | Kind::Document, None) => Lane::State,
        (Kind::Stream, None | Some("telemetry")) => Lane::Telemetry,
        (Kind::Stream, Some("events")) => Lane::Events,
        (_, Some(word)) => {
            return Err(AdminError::Usage(format!("--lane {word}: a stream takes `telemetry` or `events`, others take none")));
        }
    };
    Ok(Collection {
        id,
        name: new.name.clone(),
        kind,
        rev: 1,
        fields: fields?,
        rules: new.buckets.clone(),
        lane,
        store: "default".to_owned(),
    })
}

/// Where a field is to be.
struct Home<'a> {
    id: CollectionId,
    name: &'a str,
    kind: Kind,
    known: &'a Schema,
}

fn field(text: &str, home: &Home<'_>) -> Result<Field, AdminError> {
    let (name, kind) =
        text.split_once(':').ok_or_else(|| AdminError::Usage(format!("\"{text}\" is not a field: write NAME:TYPE, such as title:text")))?;
    let made = |kind, references| {
        Ok(Field { id: FieldId::from_entropy(entropy::bytes()?), name: name.to_owned(), kind, retired: false, references })
    };
    if let Some(target) = reference(kind) {
        return made(FieldType::Text, Some(referred(name, target, home)?));
    }
    if let Some(instead) = instead(kind) {
        return Err(AdminError::Usage(format!("field \"{name}\" cannot be {kind}: {instead}")));
    }
    let kind = FieldType::from_name(kind).ok_or_else(|| SchemaError::UnknownType { name: kind.to_owned() })?;
    made(kind, None)
}

/// The collection in `ref(COLLECTION)`, or in `ref:COLLECTION`, which no shell takes for something else.
fn reference(kind: &str) -> Option<&str> {
    kind.strip_prefix("ref:").or_else(|| kind.strip_prefix("ref(")?.strip_suffix(')'))
}

fn referred(name: &str, target: &str, home: &Home<'_>) -> Result<CollectionId, AdminError> {
    if home.kind == Kind::Document {
        return Err(AdminError::Usage(format!(
            "field \"{name}\": the texts of a document are edited together, letter by letter, and two edits of a reference would name nothing; \
             make a table or a stream, or keep the id in a json field"
        )));
    }
    if target == home.name && home.kind == Kind::Table {
        return Ok(home.id);
    }
    match home.known.by_name(target) {
        Some(found) if found.kind == Kind::Stream => Err(AdminError::Usage(format!(
            "field \"{name}\": \"{target}\" is a stream, and samples have no ids that a reference could name; let the stream name the record"
        ))),
        Some(found) => Ok(found.id),
        None => {
            let near = mobo_core::names::nearest(target, home.known.iter().map(|collection| collection.name.as_str())).map(str::to_owned);
            Err(AdminError::NoSuch { what: "collection", name: target.to_owned(), near })
        }
    }
}

/// What would do in place of something that a table written at several ends cannot have.
fn instead(kind: &str) -> Option<&'static str> {
    let word = |words: &[&str]| kind.split([':', ' ', ',', '(']).any(|part| words.contains(&part.to_ascii_lowercase().as_str()));
    if word(&["serial", "bigserial", "autoincrement", "auto_increment", "identity"]) {
        Some(
            "two nodes that are apart would count to the same number; leave the id out, and a UUID is made, or use a counter for what is counted",
        )
    } else if word(&["unique", "primary", "key"]) {
        Some(
            "two nodes that are apart may both write the same value, and both writes are kept; make it the id of the record, which is unique",
        )
    } else if word(&["references", "foreign"]) {
        Some(
            "a row may arrive before the one that it names, or without it; write NAME:ref:COLLECTION, which reads what is there and refuses nothing",
        )
    } else {
        None
    }
}

/// A point of the hub's time for people.
#[must_use]
pub fn show_time(eff: Eff) -> String {
    mobo_core::rfc3339::format(eff.0)
}
