//! A store in memory: records are authored and merged by the core, and read by scanning.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{self, AtomicUsize};
use std::sync::{Arc, Mutex};

use mobo_core::author::{EditError, Writer, author};
use mobo_core::engine::Author;
use mobo_core::future::BoxFuture;
use mobo_core::ids::{CollectionId, DeviceId, FieldId, Incarnation, Lane, Ordinal, ProjectId, RecordId, RecordKey, Ver};
use mobo_core::live::{LiveHead, LivePage};
use mobo_core::overlay::provisional;
use mobo_core::query::{Order, Page, Row, Select, columns};
use mobo_core::record::RecordState;
use mobo_core::schema::{Collection, Field, FieldType, Kind, Schema};
use mobo_core::stream::{Column, Segment};
use mobo_core::time::Wall;
use mobo_core::value::Value;
use mobo_gate::auth::token::TokenError;
use mobo_gate::backend::BackendFuture;
use mobo_gate::key::{ApiKey, KeyHash, KeyKind};
use mobo_gate::{
    AckLevel, Backend, BackendError, Caller, Credential, NodeKind, Patience, Policies, Principal, Readiness, Role, WriteDone, WriteRequest,
};
use tokio::sync::{Semaphore, watch};

/// The node's time: 2026-02-03T04:05:06Z.
pub(crate) const NOW_US: i64 = 1_770_091_506_000_000;

#[derive(Debug)]
pub(crate) struct Memory {
    node: NodeKind,
    schema: Arc<Schema>,
    tables: Mutex<Tables>,
    /// Who is let in.
    pub(crate) keys: Mutex<BTreeMap<KeyHash, Role>>,
    /// Who may what.
    pub(crate) policies: Mutex<Arc<Policies>>,
    /// Counts changes of it.
    pub(crate) rights: watch::Sender<u64>,
    /// How often anybody was asked who he is.
    pub(crate) asked: AtomicUsize,
    /// Entries that were written.
    pub(crate) entries: AtomicUsize,
    /// What reads and writes fail with.
    pub(crate) failure: Mutex<Option<BackendError>>,
    /// Lets one read or write of the collection `slow` pass for each permit.
    pub(crate) turnstile: Semaphore,
    /// Reads and writes of `slow` that have begun.
    pub(crate) waiting: Semaphore,
}

#[derive(Clone, Debug, Default)]
struct Tables {
    records: BTreeMap<RecordKey, RecordState>,
    samples: Vec<(CollectionId, BTreeMap<String, Value>)>,
    ops: u64,
}

/// The key for a role.
pub(crate) fn key(role: Role) -> ApiKey {
    let (kind, fill) = match role {
        Role::Admin => (KeyKind::Secret, 1),
        Role::Service => (KeyKind::Secret, 2),
        Role::Anon | Role::Authenticated | Role::Named(_) => (KeyKind::Public, 3),
    };
    ApiKey::generate(kind, [fill; 20])
}

fn collection(id: u64, name: &str, kind: Kind, fields: &[(&str, FieldType)]) -> Collection {
    let field = |(n, (name, kind)): (u64, &(&str, FieldType))| Field {
        id: FieldId::new(id * 100 + n).unwrap(),
        name: (*name).to_owned(),
        kind: *kind,
        retired: *name == "old",
        references: None,
    };
    Collection {
        id: CollectionId::new(id).unwrap(),
        name: name.to_owned(),
        kind,
        rev: 1,
        fields: (1..).zip(fields).map(field).collect(),
        rules: Vec::new(),
        lane: if kind == Kind::Stream { Lane::Telemetry } else { Lane::State },
        store: "default".to_owned(),
    }
}

impl Memory {
    pub(crate) fn new(node: NodeKind) -> Self {
        use FieldType::{Bool, Bytes, Counter, Float, Int, Json, List, Text, Timestamp};
        let orders = [
            ("title", Text),
            ("status", Text),
            ("hours", Counter),
            ("rank", Int),
            ("load", Float),
            ("open", Bool),
            ("due", Timestamp),
            ("meta", Json),
            ("raw", Bytes),
            ("old", Text),
        ];
        let schema = Schema::new(
            1,
            [
                collection(1, "work_orders", Kind::Table, &orders),
                collection(2, "notes", Kind::Document, &[("body", Text), ("tags", List), ("likes", Counter)]),
                collection(3, "vitals", Kind::Stream, &[("cpu", Float), ("host", Text)]),
                collection(4, "slow", Kind::Table, &[]),
                collection(5, "broken", Kind::Table, &[]),
            ],
        );
        Self {
            node,
            schema: Arc::new(schema),
            tables: Mutex::default(),
            keys: Mutex::new([Role::Admin, Role::Service, Role::Anon].into_iter().map(|role| (key(role.clone()).hash(), role)).collect()),
            policies: Mutex::default(),
            rights: watch::Sender::new(0),
            asked: AtomicUsize::new(0),
            entries: AtomicUsize::new(0),
            failure: Mutex::new(None),
            turnstile: Semaphore::new(0),
            waiting: Semaphore::new(0),
        }
    }

    pub(crate) fn fail(&self, error: Option<BackendError>) {
        *self.failure.lock().unwrap() = error;
    }

    fn check(&self) -> Result<(), BackendError> {
        self.failure.lock().unwrap().clone().map_or(Ok(()), Err)
    }

    fn write_now(&self, write: &WriteRequest) -> Result<WriteDone, BackendError> {
        self.check()?;
        let collection = &*write.collection;
        let me = Author {
            device: DeviceId([1; 16]),
            incarnation: Incarnation::new(1).unwrap(),
            ordinal: Ordinal(1),
            ancestors: BTreeSet::new(),
        };
        let mut tables = self.tables.lock().unwrap();
        let mut after = tables.clone();
        let mut changed = Vec::new();
        for edit in &write.edits {
            let key = RecordKey { collection: collection.id, id: edit.id.clone() };
            let state = after.records.get(&key).cloned().or_else(|| RecordState::empty(collection, &key)).unwrap();
            let writer = Writer { collection, device: me.device, incarnation: me.incarnation, base_ver: Ver(0) };
            let Some(op) = author(&writer, &state, edit)? else { continue };
            after.ops += 1;
            let refused = |refusal: mobo_core::engine::Refusal| BackendError::Edit(EditError::Refused(refusal.to_string()));
            let state = provisional(collection, &state, &op, (&me, after.ops)).map_err(refused)?;
            if let Some(bounds) = &write.bounds {
                let empty = RecordState::empty(collection, &key).unwrap();
                bounds.allows(collection, edit, (after.records.get(&key).unwrap_or(&empty), &state))?;
            }
            changed.push(edit.id.clone());
            after.records.insert(key, state);
        }
        *tables = after;
        self.entries.fetch_add(1, atomic::Ordering::Relaxed);
        Ok(WriteDone { changed, level: self.level() })
    }

    fn append_now(&self, collection: &Collection, segment: &Segment) -> Result<AckLevel, BackendError> {
        self.check()?;
        let decoded = segment.encode(collection).map_err(|bad| BackendError::TooLarge(bad.to_string()))?;
        let segment = Segment::decode(&decoded, collection).unwrap();
        let mut tables = self.tables.lock().unwrap();
        for (n, before) in segment.before_us.iter().enumerate() {
            let at = Value::Timestamp(NOW_US - i64::try_from(*before).unwrap());
            let mut row = BTreeMap::from([("at".to_owned(), at), ("device".to_owned(), Value::Text("01".repeat(16)))]);
            for (id, column) in &segment.columns {
                let Column::Typed(values) = column else { panic!("a field that nobody declared") };
                row.insert(collection.field_by_id(*id).unwrap().name.clone(), values[n].clone());
            }
            tables.samples.push((collection.id, row));
        }
        self.entries.fetch_add(1, atomic::Ordering::Relaxed);
        Ok(self.level())
    }

    fn select_now(&self, select: &Select) -> Result<Page, BackendError> {
        self.check()?;
        let mut rows = self.all_rows(&select.collection);
        rows.retain(|row| select.filter.lets_through(row));
        // Stable: rows that tie keep the order of their key.
        let by = |order: &Order, row: &BTreeMap<String, Value>| order.operand.of(row.value(&order.operand.column));
        rows.sort_by(|a, b| {
            select.order.iter().map(|order| order.compare(&by(order, a), &by(order, b))).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
        });
        let total = select.count.then_some(rows.len() as u64);
        let window = rows.into_iter().skip(usize::try_from(select.offset).unwrap()).take(usize::try_from(select.limit).unwrap());
        let needed = select.needed();
        let shown = |row: BTreeMap<String, Value>| {
            select.row(&needed, needed.iter().map(|column| row.value(column)).collect()).map_err(BackendError::BadValue)
        };
        Ok(Page { rows: window.map(shown).collect::<Result<_, _>>()?, total })
    }

    fn all_rows(&self, collection: &Collection) -> Vec<BTreeMap<String, Value>> {
        let tables = self.tables.lock().unwrap();
        if collection.kind == Kind::Stream {
            return tables.samples.iter().filter(|(id, _)| *id == collection.id).map(|(_, row)| row.clone()).collect();
        }
        let of_it = tables.records.iter().filter(|(key, _)| key.collection == collection.id);
        let row = |(key, state): (&RecordKey, &RecordState)| {
            let values = state.project(collection)?;
            let fields = collection.fields.iter().map(|field| field.name.clone()).zip(values);
            Some(fields.chain([("id".to_owned(), Value::Text(key.id.to_string()))]).collect())
        };
        let rows: Vec<BTreeMap<String, Value>> = of_it.filter_map(row).collect();
        let shown = columns(collection);
        assert!(rows.iter().all(|row| shown.iter().all(|column| row.contains_key(&column.name))));
        rows
    }

    fn level(&self) -> AckLevel {
        match self.node {
            NodeKind::Edge => AckLevel::Local,
            NodeKind::Hub => AckLevel::Hub,
        }
    }
}

impl Backend for Memory {
    fn node(&self) -> NodeKind {
        self.node
    }

    fn project(&self) -> ProjectId {
        ProjectId::new(1).unwrap()
    }

    fn schema(&self) -> Arc<Schema> {
        Arc::clone(&self.schema)
    }

    fn now(&self) -> Wall {
        Wall(NOW_US)
    }

    fn select(&self, select: Select) -> BackendFuture<'_, Page> {
        Box::pin(async move {
            match select.collection.name.as_str() {
                "slow" => {
                    self.waiting.add_permits(1);
                    self.turnstile.acquire().await.unwrap().forget();
                }
                "broken" => panic!("the store is broken"),
                _ => {}
            }
            self.select_now(&select)
        })
    }

    fn tag(&self, collection: Arc<Collection>, id: RecordId) -> BackendFuture<'_, Option<String>> {
        let tables = self.tables.lock().unwrap();
        let state = tables.records.get(&RecordKey { collection: collection.id, id });
        let tag = state.filter(|state| state.project(&collection).is_some()).map(mobo_core::author::tag);
        Box::pin(async { Ok(tag) })
    }

    fn write(&self, write: WriteRequest) -> BackendFuture<'_, WriteDone> {
        Box::pin(async move {
            if write.collection.name == "slow" {
                self.waiting.add_permits(1);
                self.turnstile.acquire().await.unwrap().forget();
            }
            self.write_now(&write)
        })
    }

    fn append(&self, collection: Arc<Collection>, segment: Segment, _: Option<Patience>) -> BackendFuture<'_, AckLevel> {
        Box::pin(async move { self.append_now(&collection, &segment) })
    }

    fn authenticate(&self, credential: Credential) -> BackendFuture<'_, Option<Principal>> {
        self.asked.fetch_add(1, atomic::Ordering::Relaxed);
        let role = match (self.node, credential.caller) {
            (_, Caller::User { .. }) => return Box::pin(async { Err(TokenError::UnknownKey.into()) }),
            (NodeKind::Edge, Caller::Local) => Some(Role::Service),
            (NodeKind::Hub, Caller::Key(hash)) => self.keys.lock().unwrap().get(&hash).cloned(),
            (NodeKind::Edge, Caller::Key(_) | Caller::Stranger) | (NodeKind::Hub, Caller::Local | Caller::Stranger) => None,
        };
        let principal = role.map(|role| Principal::of_role(self.project(), role));
        Box::pin(async move { self.check().map(|()| principal) })
    }

    fn follow(&self, _: Vec<CollectionId>) -> BackendFuture<'_, LiveHead> {
        Box::pin(async { Err(BackendError::Refused("this memory keeps no log of changes".to_owned())) })
    }

    fn changes(&self, _: u64, _: u32) -> BackendFuture<'_, LivePage> {
        Box::pin(async { Err(BackendError::Refused("this memory keeps no log of changes".to_owned())) })
    }

    fn committed(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }

    fn policies(&self) -> Arc<Policies> {
        Arc::clone(&self.policies.lock().unwrap())
    }

    fn rights_changes(&self) -> watch::Receiver<u64> {
        self.rights.subscribe()
    }

    fn readiness(&self) -> BoxFuture<'_, Vec<Readiness>> {
        let state = self.check().map_err(|error| error.to_string());
        Box::pin(async { vec![Readiness::of("store", state), Readiness::of("sync", Ok(()))] })
    }
}
