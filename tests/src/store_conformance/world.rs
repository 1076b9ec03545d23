//! A hub's store with a few collections, a clock and short ways to use it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use mobo_core::author::{Edit, Intent};
use mobo_core::ids::{
    BootId, BucketId, CollectionId, FieldId, Incarnation, Lane, LaneKey, Nonce, ProjectId, RecordId, RecordKey, Timeline,
};
use mobo_core::merge::{HubAuthor, LocalBody, LocalWrite, Merged, Outcome, Prepared};
use mobo_core::message::{Code, TimelineInfo};
use mobo_core::query::{self, Order, Select};
use mobo_core::record::RecordState;
use mobo_core::schema::{Collection, Field, FieldType, Kind, Schema};
use mobo_core::store::{Arrival, HubRow, HubStore, MergeBatch, MergeReport, StoreError};
use mobo_core::table::past::{self, Known};
use mobo_core::time::{Eff, Moment, Mono, Wall, WallQuality};
use mobo_core::trust::KeyPair;
use serde_json::{Map, Value as Json};

use super::Place;
use crate::seed::Seed;

/// How often a batch is sent that is kept waiting for its locks.
const TRIES: usize = 10;

/// When the world begins: hub time in microseconds.
pub(super) const START: i64 = 1_770_000_000_000_000;

/// A store under test.
#[derive(Debug)]
pub struct World {
    /// Where it is.
    pub place: Box<dyn Place>,
    /// The store.
    pub store: Arc<dyn HubStore>,
    /// The project `default`.
    pub project: ProjectId,
    /// The hub's history.
    pub timeline: Timeline,
    /// The hub as an author.
    pub hub: HubAuthor,
    /// The collections.
    pub schema: Arc<Schema>,
    now: AtomicI64,
    drawn: AtomicU64,
    seed: u64,
}

/// `FIELD:TYPE …`, as on the command line; field ids count from 1, times a hundred for each collection.
#[must_use]
pub(super) fn collection(number: u64, name: &str, kind: Kind, fields: &str, rules: &[&str]) -> Collection {
    let field = |(index, field): (u64, &str)| {
        let (name, kind) = field.split_once(':').expect("FIELD:TYPE");
        let id = FieldId::new(number * 100 + index + 1).expect("not 0");
        Field { id, name: name.to_owned(), kind: FieldType::from_name(kind).expect("a type"), retired: false, references: None }
    };
    Collection {
        id: CollectionId::new(number).expect("not 0"),
        name: name.to_owned(),
        kind,
        rev: 1,
        fields: (0..).zip(fields.split(' ')).map(field).collect(),
        rules: rules.iter().map(|rule| (*rule).to_owned()).collect(),
        lane: if kind == Kind::Stream { Lane::Telemetry } else { Lane::State },
        store: "default".to_owned(),
    }
}

/// The collections of every world.
#[must_use]
pub(super) fn collections() -> Vec<Collection> {
    let every = "title:text hours:counter n:int ratio:float done:bool due:timestamp meta:json photo:bytes";
    vec![
        collection(1, "work_orders", Kind::Table, every, &[]),
        collection(2, "pumps", Kind::Table, "site:text line:int speed:float runs:counter", &["site:{site}", "line:{line}"]),
        collection(3, "notes", Kind::Document, "title:text tags:list likes:counter state:json rank:int", &[]),
        collection(4, "vitals", Kind::Stream, "cpu:float state:text ok:bool", &[]),
    ]
}

impl World {
    /// A fresh store. Everything in it follows from the seed.
    pub async fn new(place: Box<dyn Place>, seed: u64) -> Self {
        let store = place.open().await.expect("a fresh store opens");
        let mut secret = [0; 32];
        Seed::fixed(seed).rng().fill(&mut secret);
        let keys = KeyPair::from_secret(&secret);
        let timeline = Timeline([9; 16]);
        let first = HubRow {
            key: keys.public(),
            incarnation: Incarnation::new(77).expect("not 0"),
            timeline: TimelineInfo { timeline, parents: Vec::new() },
            time: Eff(START),
        };
        let hub = HubAuthor { device: keys.device(), incarnation: first.incarnation };
        let (_, project) = store.hub(first, ProjectId::new(5).expect("not 0")).await.expect("a hub");
        // Devices have a little of their past to write before the hub's time is theirs, too.
        let (now, drawn) = (AtomicI64::new(START + 10_000), AtomicU64::new(0));
        let mut world = Self { place, store, project, timeline, hub, schema: Arc::default(), now, drawn, seed };
        let arrival = Arrival {
            device: hub.device,
            incarnation: hub.incarnation,
            parent: None,
            ordinal: None,
            boot: Some((BootId([0; 8]), 0)),
            now: Eff(START),
            session: 0,
        };
        world.store.arrive(project, arrival).await.expect("the hub's own log is registered");
        for collection in collections() {
            world.create(collection).await;
        }
        world
    }

    /// Makes a collection.
    pub async fn create(&mut self, collection: Collection) {
        self.schema = Arc::new(self.store.create_collection(self.project, collection).await.expect("a collection"));
    }

    /// The collection of that name.
    #[must_use]
    pub fn collection(&self, name: &str) -> &Collection {
        self.schema.by_name(name).expect("a collection of this world")
    }

    /// The key of a record.
    #[must_use]
    pub fn key(&self, collection: &str, id: &str) -> RecordKey {
        RecordKey { collection: self.collection(collection).id, id: RecordId::new(id).expect("an id") }
    }

    /// The hub's time: a millisecond later with each call.
    pub fn now(&self) -> Eff {
        Eff(self.now.fetch_add(1_000, Ordering::Relaxed))
    }

    /// Fresh bytes that follow from the seed and from how often they were drawn.
    pub fn draw<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        let drawn = self.drawn.fetch_add(1, Ordering::Relaxed);
        Seed::fixed(self.seed ^ (drawn + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)).rng().fill(&mut bytes);
        bytes
    }

    /// Merges a batch; one that others have kept waiting too long for their locks is sent again, as a device does.
    pub async fn merge(&self, submissions: Vec<Prepared>) -> MergeReport {
        for _ in 0..TRIES {
            match self.store.merge(self.batch(submissions.clone())).await {
                Err(StoreError::Contended(_)) => {}
                merged => return merged.expect("a merge"),
            }
        }
        panic!("others hold the locks of this batch all the time");
    }

    /// A batch of this project.
    pub fn batch(&self, submissions: Vec<Prepared>) -> MergeBatch {
        let (now, entropy, schema) = (self.now(), self.draw(), Arc::clone(&self.schema));
        MergeBatch { project: self.project, schema, timeline: self.timeline, now, entropy, recovering: false, submissions }
    }

    /// Merges one push, which must be merged without a reject.
    pub async fn merged(&self, submission: Prepared) -> Merged {
        let merged = self.answered(submission).await;
        assert_eq!(merged.rejects, [], "nothing is wrong with it");
        merged
    }

    /// Merges one push, rejects and all.
    pub async fn answered(&self, submission: Prepared) -> Merged {
        match self.outcome(submission).await {
            Outcome::Merged(merged) => merged,
            other @ (Outcome::Nack { .. } | Outcome::Refence { .. } | Outcome::Refused(_)) => panic!("not merged: {other:?}"),
        }
    }

    /// What becomes of one submission.
    pub async fn outcome(&self, submission: Prepared) -> Outcome {
        let report = self.merge(vec![submission]).await;
        let [outcome] = <[Outcome; 1]>::try_from(report.outcomes).expect("one outcome for one submission");
        outcome
    }

    /// A write through the hub's own API.
    pub fn local(&self, collection: &str, intent: Intent, id: &str, fields: &Json) -> Prepared {
        let collection = self.collection(collection);
        let fields: Map<String, Json> = fields.as_object().cloned().unwrap_or_default();
        let edit = Edit { id: RecordId::new(id).expect("an id"), intent, fields };
        let (collection, lane) = (collection.id, self.hub.lane(collection.lane));
        self.local_write(collection, lane, LocalBody::Edits(vec![edit]))
    }

    /// The same, for any body.
    pub fn local_write(&self, collection: CollectionId, lane: LaneKey, body: LocalBody) -> Prepared {
        let moment = Moment { boot: BootId([0; 8]), mono: Mono(1), wall: Wall(START), quality: WallQuality::Set };
        Prepared::Local(Box::new(LocalWrite { lane, collection, body, moment, nonce: Nonce(self.draw()), author: None, bounds: None }))
    }

    /// All rows of a collection, by key.
    pub async fn rows(&self, collection: &str) -> Vec<Json> {
        self.select(self.all(collection)).await
    }

    /// A query for everything.
    #[must_use]
    pub fn all(&self, collection: &str) -> Select {
        let collection = Arc::new(self.collection(collection).clone());
        Select { limit: 100_000, ..Select::all(self.project, collection) }
    }

    /// The rows that a query gives.
    pub async fn select(&self, select: Select) -> Vec<Json> {
        self.store.select(select).await.expect("rows").rows.into_iter().map(Json::Object).collect()
    }

    /// The one column of the rows that a query gives, as one text.
    pub async fn column(&self, mut select: Select, name: &str) -> String {
        select.columns.retain(|selected| selected.operand.column.name == name);
        let rows = self.select(select).await;
        let text = |row: &Json| row[name].as_str().map_or_else(|| row[name].to_string(), str::to_owned);
        rows.iter().map(text).collect::<Vec<_>>().join(" ")
    }

    /// A key of an order.
    #[must_use]
    pub fn order(&self, collection: &str, name: &str, descending: bool) -> Order {
        let column = query::columns(self.collection(collection)).into_iter().find(|column| column.name == name).expect("a column");
        Order { operand: column.into(), through: None, descending, nulls_first: descending }
    }

    /// The id of a bucket, which is there.
    pub async fn bucket(&self, key: &str) -> BucketId {
        let counts = self.store.counts(self.project).await.expect("counts");
        counts.buckets.iter().find(|bucket| bucket.1 == key).unwrap_or_else(|| panic!("no bucket {key} in {counts:?}")).0
    }

    /// Runs SQL that gives one value.
    pub async fn sql(&self, statement: &str) -> String {
        self.place.sql(statement).await.expect("it runs").expect("it gives a value")
    }

    /// Everything that must hold of a store after any schedule: digests, heads, lanes, pages.
    pub async fn is_sound(&self) {
        for bucket in self.store.audit_buckets(self.project).await.expect("an audit") {
            assert_eq!(bucket.damaged, [], "{bucket:?}");
            assert_eq!(bucket.stored, bucket.computed, "R29: {bucket:?}");
            assert!(bucket.position_max <= bucket.head, "R28: {bucket:?}");
        }
        for lane in self.store.audit_lanes(self.project).await.expect("an audit") {
            assert_eq!(lane.broken_at, None, "{lane:?}");
            assert_eq!(lane.entries, lane.last.get(), "R28: {lane:?}");
        }
        self.tells_the_past().await;
    }

    /// The log of each row that is shown gives that row (R8), and so every row that it has been.
    async fn tells_the_past(&self) {
        self.traced().await;
        for collection in self.schema.iter().filter(|collection| collection.kind == Kind::Table) {
            for row in self.rows(&collection.name).await {
                let key = self.key(&collection.name, row["id"].as_str().expect("a key"));
                // One that was written by SQL, and not taken in yet, is no record.
                let Some(record) = self.store.record(self.project, key.clone()).await.expect("a record") else { continue };
                let RecordState::Table(state) = record.state else { panic!("{key:?} is no row") };
                let log = self.store.past(self.project, key.clone()).await.expect("its log");
                let told = past::steps(collection, &state, &log, (None, 1));
                assert_eq!(told.known, Known::Whole, "{key:?} is {state:?} and was {log:?}");
            }
        }
    }

    /// Takes all entries into the index of the past; says in how many transactions.
    pub async fn traced(&self) -> usize {
        let mut steps = 1;
        while self.store.trace(self.project).await.expect("an index") {
            steps += 1;
        }
        steps
    }
}

/// The code of the only reject.
#[must_use]
pub(super) fn only_code(merged: &Merged) -> Code {
    assert_eq!(merged.rejects.len(), 1, "{:?}", merged.rejects);
    merged.rejects[0].code
}
