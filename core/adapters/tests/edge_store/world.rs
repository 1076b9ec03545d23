//! A hub's store, devices' stores, and what passes between them, piece by piece.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use mobo_adapters::sqlite::edge::{Compared, EdgeStore, Identity, Keep, Outgoing, Pending, Sources, Standing, Written};
use mobo_adapters::sqlite::hub::SqliteHubStore;
use mobo_core::author::{Edit, Intent};
use mobo_core::cbor::Writer;
use mobo_core::ids::{
    BootId, BucketId, CollectionId, FieldId, Incarnation, Lane, LaneKey, Mac, Nonce, Position, ProjectId, RecordId, RecordKey, Seq,
    Signature, StateHash, Timeline,
};
use mobo_core::merge::{HubAuthor, LocalBody, LocalWrite, Merged, Outcome, Prepared, Rights, prepare_push};
use mobo_core::message::{
    Ack, Batch, Checkpoint, Decision, Definition, Grant, Item, ItemBody, Parent, Push, Reject, SchemaUpdate, TimelineInfo, TimelineParent,
    Welcome,
};
use mobo_core::query::Select;
use mobo_core::schema::{Collection, Field, FieldChanges, FieldType, Kind, Schema, altered};
use mobo_core::store::{
    Admission, Arrival, ConflictRow, DeviceRow, Fork, HubRow, HubStore, Invite, MergeBatch, PullRequest, RecoveryStore,
};
use mobo_core::stream::{Column, Segment};
use mobo_core::time::{Eff, Moment, Mono, Wall, WallQuality};
use mobo_core::trust::{KeyPair, LaneHead, OfferKey, Statement};
use mobo_core::value::Value;
use serde_json::Value as Json;
use tempfile::TempDir;

/// When the world begins: hub time in microseconds.
pub(crate) const START: i64 = 1_770_000_000_000_000;

/// What a device says of the machine's clock: wrong by a year, so that nothing can rely on it.
pub(crate) const DEVICE_WALL: i64 = START - 365 * 86_400_000_000;

/// Small randomness that can be played again (splitmix64).
#[derive(Clone)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// `FIELD:TYPE …`, as on the command line.
pub(crate) fn collection(number: u64, name: &str, kind: Kind, fields: &str, rules: &[&str]) -> Collection {
    let field = |(index, field): (u64, &str)| {
        let (name, kind) = field.split_once(':').unwrap();
        let id = FieldId::new(number * 100 + index + 1).unwrap();
        Field { id, name: name.to_owned(), kind: FieldType::from_name(kind).unwrap(), retired: false, references: None }
    };
    Collection {
        id: CollectionId::new(number).unwrap(),
        name: name.to_owned(),
        kind,
        rev: 1,
        fields: (0..).zip(fields.split(' ')).map(field).collect(),
        rules: rules.iter().map(|rule| (*rule).to_owned()).collect(),
        lane: if kind == Kind::Stream { Lane::Telemetry } else { Lane::State },
        store: "default".to_owned(),
    }
}

/// A hub.
pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) hub: SqliteHubStore,
    pub(crate) project: ProjectId,
    pub(crate) timeline: Timeline,
    /// What welcomes say of the history before that.
    pub(crate) parents: Vec<TimelineParent>,
    pub(crate) schema: Arc<Schema>,
    author: HubAuthor,
    now: AtomicI64,
    drawn: AtomicU64,
}

impl World {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let hub = SqliteHubStore::open(&folder.path().join("hub.db")).unwrap();
        let keys = KeyPair::from_secret(&[1; 32]);
        let timeline = Timeline([9; 16]);
        let first = HubRow {
            key: keys.public(),
            incarnation: Incarnation::new(77).unwrap(),
            timeline: TimelineInfo { timeline, parents: Vec::new() },
            time: Eff(START),
        };
        let author = HubAuthor { device: keys.device(), incarnation: first.incarnation };
        let (_, project) = hub.hub(first, ProjectId::new(5).unwrap()).await.unwrap();
        let (now, drawn) = (AtomicI64::new(START), AtomicU64::new(0));
        let mut world = Self { folder, hub, project, timeline, parents: Vec::new(), schema: Arc::default(), author, now, drawn };
        world.arrive(&keys, author.incarnation, None).await;
        let collections = [
            collection(1, "orders", Kind::Table, "title:text hours:counter n:int done:bool due:timestamp", &[]),
            collection(2, "pumps", Kind::Table, "site:text line:int speed:float runs:counter", &["site:{site}", "line:{line}"]),
            collection(3, "notes", Kind::Document, "title:text tags:list likes:counter rank:int", &[]),
            collection(4, "vitals", Kind::Stream, "cpu:float", &[]),
        ];
        for collection in collections {
            world.create(collection).await;
        }
        world
    }

    pub(crate) fn key(&self, collection: &str, id: &str) -> RecordKey {
        RecordKey { collection: self.collection(collection).id, id: RecordId::new(id).unwrap() }
    }

    pub(crate) fn schema_of(&self, id: CollectionId) -> &Collection {
        self.schema.get(id).unwrap()
    }

    pub(crate) fn collection(&self, name: &str) -> &Collection {
        self.schema.by_name(name).unwrap()
    }

    /// The hub's time, a millisecond later with each call.
    pub(crate) fn now(&self) -> Eff {
        Eff(self.now.fetch_add(1_000, Ordering::Relaxed))
    }

    pub(crate) fn draw<const N: usize>(&self) -> [u8; N] {
        let mut rng = Rng(self.drawn.fetch_add(1, Ordering::Relaxed));
        std::array::from_fn(|_| rng.next().to_le_bytes()[0])
    }

    pub(crate) async fn arrive(&self, keys: &KeyPair, incarnation: Incarnation, parent: Option<Parent>) -> Admission {
        let (device, now) = (keys.device(), self.now());
        let boot = Some((BootId([7; 8]), START));
        let arrival = Arrival { device, incarnation, parent, ordinal: None, boot, now, session: 0 };
        self.hub.arrive(self.project, arrival).await.unwrap()
    }

    /// A write through the hub's own API.
    pub(crate) async fn write(&self, collection: &str, edits: Vec<Edit>) {
        let collection = self.collection(collection);
        let moment = Moment { boot: BootId([0; 8]), mono: Mono(1), wall: Wall(START), quality: WallQuality::Set };
        let (lane, body) = (self.author.lane(collection.lane), LocalBody::Edits(edits));
        let local = LocalWrite { lane, collection: collection.id, body, moment, nonce: Nonce(self.draw()), author: None, bounds: None };
        let merged = self.merge(Prepared::Local(Box::new(local))).await;
        assert_eq!(merged.rejects, []);
    }

    pub(crate) async fn outcome(&self, submission: Prepared) -> Outcome {
        let (now, entropy, schema) = (self.now(), self.draw(), Arc::clone(&self.schema));
        let (project, timeline) = (self.project, self.timeline);
        let batch = MergeBatch { project, schema, timeline, now, entropy, recovering: false, submissions: vec![submission] };
        self.hub.merge(batch).await.unwrap().outcomes.remove(0)
    }

    pub(crate) async fn merge(&self, submission: Prepared) -> Merged {
        let outcome = self.outcome(submission).await;
        let Outcome::Merged(merged) = outcome else { panic!("not merged: {outcome:?}") };
        merged
    }

    /// Takes in what was written by SQL on the hub.
    pub(crate) async fn take_in(&self) {
        let (project, schema, timeline) = (self.project, Arc::clone(&self.schema), self.timeline);
        let (now, entropy) = (self.now(), self.draw());
        let batch = MergeBatch { project, schema, timeline, now, entropy, recovering: false, submissions: Vec::new() };
        self.hub.take_in(batch).await.unwrap();
    }

    /// A copy of the hub's database, as it is now.
    pub(crate) fn copy_of_hub(&self) -> PathBuf {
        let path = self.folder.path().join("copy.db");
        self.raw().execute("VACUUM INTO ?1", [path.to_str().unwrap()]).unwrap();
        path
    }

    /// That copy takes the hub's place, and goes on under a new timeline.
    pub(crate) async fn goes_back(&mut self, copy: &std::path::Path) {
        self.hub = SqliteHubStore::open(copy).unwrap();
        let (fresh, now) = (Timeline(self.draw()), self.now());
        let fork = Fork { from: self.timeline, fresh, incarnation: Incarnation::new(78).unwrap(), foreign: Vec::new(), now };
        self.timeline = RecoveryStore::fork_timeline(&self.hub, self.project, fork).await.unwrap().timeline.timeline;
    }

    /// The hub's database, as any other program has it.
    pub(crate) fn raw(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.folder.path().join("hub.db")).unwrap()
    }

    /// Makes a collection on the hub.
    pub(crate) async fn create(&mut self, collection: Collection) {
        self.schema = Arc::new(self.hub.create_collection(self.project, collection).await.unwrap());
    }

    /// Changes the fields of a collection on the hub.
    pub(crate) async fn alter(&mut self, collection: &str, changes: &FieldChanges) {
        let altered = altered(self.collection(collection), changes).unwrap();
        self.schema = Arc::new(self.hub.alter_fields(self.project, altered).await.unwrap());
    }

    pub(crate) fn definitions(&self) -> SchemaUpdate {
        self.definitions_of(&self.schema)
    }

    pub(crate) fn definitions_of(&self, schema: &Schema) -> SchemaUpdate {
        let definition = |collection: &Collection| {
            let mut writer = Writer::new();
            collection.encode(&mut writer);
            Definition { bytes: writer.into_bytes(), collection: Some(collection.clone()), mac: Mac([3; 16]) }
        };
        let definitions = schema.iter().map(definition).collect();
        SchemaUpdate { timeline: self.timeline, rev: schema.rev, definitions, more: false }
    }

    pub(crate) async fn buckets(&self, keys: &[&str]) -> Vec<Grant> {
        let keys = keys.iter().map(|key| ((*key).to_owned(), BucketId::from_entropy(self.draw()))).collect();
        let buckets = self.hub.ensure_buckets(self.project, keys).await.unwrap();
        buckets.into_iter().map(|(key, bucket)| Grant { bucket, key, write: true }).collect()
    }

    /// Everything in a collection, as the hub shows it.
    pub(crate) async fn rows(&self, collection: &str) -> Vec<Json> {
        shown(self.hub.select(everything(self.project, self.collection(collection))).await.unwrap().rows)
    }

    /// A device that is enrolled and may read and write these buckets.
    pub(crate) async fn device(&self, name: &str, buckets: &[&str]) -> Device {
        self.device_knowing(name, buckets, self.definitions()).await
    }

    /// The same, with a schema of its own.
    pub(crate) async fn device_knowing(&self, name: &str, buckets: &[&str], schema: SchemaUpdate) -> Device {
        let keys = KeyPair::from_secret(&self.draw());
        let labels: Vec<String> = buckets.iter().map(|bucket| (*bucket).to_owned()).collect();
        let secret_hash = self.draw();
        let invite = Invite { secret_hash, name: name.to_owned(), buckets: labels.clone(), claims: Vec::new(), expires: Eff(i64::MAX) };
        self.hub.invite(self.project, invite).await.unwrap();
        let row = DeviceRow {
            id: keys.device(),
            key: keys.public(),
            name: name.to_owned(),
            certificate: Vec::new(),
            enrolled: Eff(START),
            revoked: None,
            seen: None,
            grants: labels.iter().map(|label| (label.clone(), true)).collect(),
            claims: Vec::new(),
            ended: Vec::new(),
        };
        self.hub.enrol(self.project, secret_hash, row).await.unwrap();
        let path = self.folder.path().join(format!("{name}.db"));
        let mono = Arc::new(AtomicU64::new(0));
        let grants = self.buckets(buckets).await;
        let store = open(&path, &mono);
        let identity = Identity {
            project: self.project,
            device: keys.device(),
            hub_key: KeyPair::from_secret(&[1; 32]).public(),
            hub_addresses: vec!["127.0.0.1:1".to_owned()],
            certificate: vec![1],
            certificate_signature: Signature([0; 64]),
        };
        store.join(identity, Incarnation::from_entropy(self.draw())).await.unwrap();
        let device = Device { store, keys, grants, path, mono };
        device.hello(self).await;
        device.store.put_schema(schema).await.unwrap();
        device
    }
}

/// Runs of a device's program: what each draws begins with its own number.
static RUNS: AtomicU64 = AtomicU64::new(1);

fn open(path: &std::path::Path, mono: &Arc<AtomicU64>) -> EdgeStore {
    let (clock, counter) = (Arc::clone(mono), AtomicU64::new(RUNS.fetch_add(1, Ordering::Relaxed) << 41));
    let moment = move || {
        let mono = Mono(clock.fetch_add(1_000, Ordering::Relaxed));
        Moment { boot: BootId([7; 8]), mono, wall: Wall(DEVICE_WALL + mono.0.cast_signed()), quality: WallQuality::Set }
    };
    let nonce = move || Nonce(counter.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    EdgeStore::open(path, Sources { moment: Arc::new(moment), nonce: Arc::new(nonce) }).unwrap()
}

/// A decision as a session tells it.
fn told(row: ConflictRow) -> Decision {
    let ConflictRow { collection, id, field, kind, loser, loser_stamp, winner, winner_stamp, at } = row;
    let text = |value: Json| (!value.is_null()).then(|| value.to_string());
    let id = RecordId::new(id).unwrap();
    Decision { collection, id, field, kind, loser_stamp, loser: text(loser), winner_stamp, winner: text(winner), at }
}

pub(crate) fn everything(project: ProjectId, collection: &Collection) -> Select {
    Select { limit: 100_000, ..Select::all(project, Arc::new(collection.clone())) }
}

fn shown(rows: Vec<serde_json::Map<String, Json>>) -> Vec<Json> {
    rows.into_iter().map(Json::Object).collect()
}

pub(crate) fn edit(intent: Intent, id: &str, fields: Json) -> Edit {
    Edit { id: RecordId::new(id).unwrap(), intent, fields: fields.as_object().cloned().unwrap_or_default() }
}

pub(crate) fn seq(number: u64) -> Seq {
    Seq::new(number).unwrap()
}

/// A device.
pub(crate) struct Device {
    pub(crate) store: EdgeStore,
    pub(crate) keys: KeyPair,
    pub(crate) grants: Vec<Grant>,
    pub(crate) path: PathBuf,
    mono: Arc<AtomicU64>,
}

/// The hub's answer to a push.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) ack: Ack,
    pub(crate) rejects: Vec<Reject>,
}

impl Device {
    /// Opens the store again, as after a power cut: nothing is closed.
    pub(crate) fn reopen(&mut self) {
        self.store = open(&self.path, &self.mono);
    }

    /// A copy of its data folder, as it is on disk now.
    pub(crate) async fn clone_to(&self, world: &World, name: &str) -> Self {
        let path = world.folder.path().join(format!("{name}.db"));
        self.raw().execute("VACUUM INTO ?1", [path.to_str().unwrap()]).unwrap();
        let mono = Arc::new(AtomicU64::new(self.mono.load(Ordering::Relaxed)));
        let keys = KeyPair::from_secret(&self.keys.secret());
        Self { store: open(&path, &mono), keys, grants: self.grants.clone(), path, mono }
    }

    /// A plain connection to its database.
    pub(crate) fn raw(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(&self.path).unwrap()
    }

    /// What each of these questions finds in its database.
    pub(crate) fn found(&self, questions: &[&str]) -> Vec<Vec<Vec<rusqlite::types::Value>>> {
        let raw = self.raw();
        let rows = |sql: &&str| {
            let mut statement = raw.prepare(sql).unwrap();
            let columns = statement.column_count();
            statement.query_map([], |row| (0..columns).map(|column| row.get(column)).collect()).unwrap().map(Result::unwrap).collect()
        };
        questions.iter().map(rows).collect()
    }

    pub(crate) fn count(&self, sql: &str) -> i64 {
        self.raw().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// Says hello and takes the welcome in.
    pub(crate) async fn hello(&self, world: &World) -> mobo_adapters::sqlite::edge::Admitted {
        let node = self.store.node().await.unwrap();
        let admission = world.arrive(&self.keys, node.incarnation.unwrap(), node.parent).await;
        let held = self.store.report().await.unwrap().buckets;
        let is_granted = |bucket: &BucketId| self.grants.iter().any(|grant| grant.bucket == *bucket);
        let welcome = Welcome {
            proto: 1,
            features: 0,
            timeline: TimelineInfo { timeline: world.timeline, parents: world.parents.clone() },
            session: admission.session,
            ordinal: admission.ordinal,
            hub_time: world.now(),
            lanes: admission.lanes,
            grants: self.grants.clone(),
            revokes: held.iter().map(|report| report.bucket).filter(|bucket| !is_granted(bucket)).collect(),
            schema_rev: world.schema.rev,
            frame_bytes_max: 1 << 20,
            keepalive_ms: 10_000,
            recovering: false,
        };
        self.store.admit(welcome).await.unwrap()
    }

    pub(crate) async fn write(&self, world: &World, collection: &str, intent: Intent, id: &str, fields: Json) -> Written {
        self.store.write(world.collection(collection).id, vec![edit(intent, id, fields)], None).await.unwrap()
    }

    pub(crate) async fn append(&self, world: &World, cpu: &[f64]) -> Written {
        let collection = world.collection("vitals");
        let column = Column::Typed(cpu.iter().map(|load| Value::Float(*load)).collect());
        let before_us = (0..cpu.len() as u64).rev().map(|second| second * 1_000_000).collect();
        let columns = BTreeMap::from([(collection.fields[0].id, column)]);
        self.store.append(Segment { collection: collection.id, before_us, columns, author: None }).await.unwrap()
    }

    pub(crate) async fn outgoing(&self, lane: Lane, after: Option<Seq>, entries_max: usize) -> Option<Outgoing> {
        match self.store.pending(lane, after, entries_max, 1 << 20).await.unwrap() {
            Pending::Nothing => None,
            Pending::Entries(outgoing) => Some(outgoing),
            Pending::Trimmed(kept) => panic!("trimmed up to {kept:?}"),
        }
    }

    pub(crate) async fn acked(&self, lane: Lane) -> Option<Seq> {
        self.store.counts().await.unwrap().lanes.iter().find(|count| count.lane == lane).and_then(|count| count.hub)
    }

    pub(crate) fn submission(&self, world: &World, lane: Lane, outgoing: Outgoing) -> Prepared {
        let rights = Rights::Buckets(self.grants.iter().filter(|grant| grant.write).map(|grant| grant.key.clone()).collect());
        self.submission_as(world, lane, outgoing, rights)
    }

    fn submission_as(&self, world: &World, lane: Lane, outgoing: Outgoing, rights: Rights) -> Prepared {
        let key = LaneKey { device: self.keys.device(), incarnation: outgoing.incarnation, lane };
        let last = seq(outgoing.first.get() + outgoing.entries.len() as u64 - 1);
        let head = LaneHead { project: world.project, lane: key, last, chain: outgoing.head_chain };
        let push = Push {
            lane,
            incarnation: outgoing.incarnation,
            first: outgoing.first,
            prev_chain: outgoing.prev_chain,
            entries: outgoing.entries,
            head_chain: outgoing.head_chain,
            signature: Statement::Push(&head).sign(&self.keys),
            on_behalf: None,
        };
        prepare_push(world.project, key, &self.keys.public(), push, rights).unwrap()
    }

    /// Pushes what is behind a position; the answer is not taken in yet.
    pub(crate) async fn push(&self, world: &World, lane: Lane, after: Option<Seq>, entries_max: usize) -> Option<Answer> {
        let outgoing = self.outgoing(lane, after, entries_max).await?;
        let incarnation = outgoing.incarnation;
        Some(Self::answer((lane, incarnation), world.merge(self.submission(world, lane, outgoing)).await))
    }

    /// The same of everything behind a position, under other rights.
    pub(crate) async fn push_as(&self, world: &World, lane: Lane, after: Option<Seq>, rights: Rights) -> Option<Answer> {
        let outgoing = self.outgoing(lane, after, 1_000).await?;
        let incarnation = outgoing.incarnation;
        Some(Self::answer((lane, incarnation), world.merge(self.submission_as(world, lane, outgoing, rights)).await))
    }

    pub(crate) fn answer((lane, incarnation): (Lane, Incarnation), merged: Merged) -> Answer {
        let ack = Ack {
            lane,
            incarnation,
            acked: merged.acked,
            chain: merged.chain,
            safe: None,
            credit_bytes: 1 << 20,
            eff_first: merged.eff_first,
            effs: merged.effs,
            signature: Signature([0; 64]),
        };
        Answer { ack, rejects: merged.rejects }
    }

    pub(crate) async fn take(&self, answer: Answer) {
        for reject in answer.rejects {
            self.store.rejected(reject).await.unwrap();
        }
        self.store.acked(answer.ack, Keep::default()).await.unwrap();
    }

    /// What changed for this device, as a session would send it; nothing is applied yet.
    pub(crate) async fn pull(&self, world: &World, items_max: usize) -> (Vec<Batch>, Option<Checkpoint>) {
        let wants = self.store.report().await.unwrap().buckets.iter().map(|report| (report.bucket, report.cursor)).collect();
        let request = PullRequest { project: world.project, device: self.keys.device(), wants, items_max, bytes_max: 1 << 20 };
        let page = world.hub.pull(request).await.unwrap();
        let (mut batches, mut heads, mut more) = (Vec::new(), Vec::new(), false);
        for bucket in page.buckets {
            heads.push((bucket.bucket, bucket.head, bucket.digest));
            more |= bucket.to < bucket.head;
            if bucket.to == bucket.from {
                continue;
            }
            let item = |item: mobo_core::store::PullItem| {
                let hash = item.state.as_ref().map_or(StateHash([0; 32]), |state| state.hash);
                let mac = OfferKey([4; 32]).row(world.project, &item.key, (world.timeline, item.ver), hash);
                let body = match item.state {
                    Some(state) => ItemBody::State { epoch: state.epoch, bytes: state.bytes },
                    None => ItemBody::Leave,
                };
                Item { collection: item.key.collection, id: item.key.id, ver: item.ver, body, mac }
            };
            batches.push(Batch {
                pull: 1,
                timeline: world.timeline,
                bucket: bucket.bucket,
                from: bucket.from,
                to: bucket.to,
                items: bucket.items.into_iter().map(item).collect(),
                own_merged: page.own_merged.clone(),
                more: bucket.to < bucket.head,
                decisions: bucket.decisions.into_iter().map(told).collect(),
                own: None,
            });
        }
        let (pull, timeline, own_merged) = (1, world.timeline, page.own_merged);
        let checkpoint = Checkpoint { pull, timeline, heads, own_merged, signature: None };
        (batches, (!more).then_some(checkpoint))
    }

    /// Pulls to the end and compares.
    pub(crate) async fn catch_up(&self, world: &World) -> Compared {
        loop {
            // A few records come one by one, many are taken in together.
            let items_max = if world.draw::<1>()[0].is_multiple_of(2) { 7 } else { 40 };
            let (batches, checkpoint) = self.pull(world, items_max).await;
            for batch in batches {
                match world.draw::<1>()[0].is_multiple_of(2) && self.store.node().await.unwrap().ordinal.is_some() {
                    true => _ = crate::own::apply(self, world, batch).await,
                    false => _ = self.store.apply(batch).await.unwrap(),
                }
            }
            if let Some(checkpoint) = checkpoint {
                return self.store.checkpoint(checkpoint).await.unwrap();
            }
        }
    }

    /// Pushes everything and takes the answers in.
    pub(crate) async fn push_all(&self, world: &World) {
        self.store.take_in().await.unwrap();
        for lane in [Lane::State, Lane::Telemetry] {
            while let Some(answer) = self.push(world, lane, self.acked(lane).await, 50).await {
                self.take(answer).await;
            }
        }
    }

    /// Pushes, pulls and compares until nothing is left: every bucket must be equal.
    pub(crate) async fn sync(&self, world: &World) {
        self.push_all(world).await;
        let compared = self.catch_up(world).await;
        let unequal: Vec<_> = compared.buckets.iter().filter(|(_, standing)| *standing != Standing::Equal).collect();
        assert!(unequal.is_empty(), "{unequal:?}");
        assert_eq!(compared.buckets.len(), self.grants.len());
        self.is_sound().await;
    }

    /// Everything that can be recomputed is as it is stored.
    pub(crate) async fn is_sound(&self) {
        let audit = self.store.audit().await.unwrap();
        assert!(audit.is_clean(), "{audit:?}");
        let orphans = "SELECT (SELECT count(*) FROM mobo_base b WHERE NOT EXISTS
                         (SELECT 1 FROM mobo_overlay v WHERE v.collection = b.collection AND v.id = b.id))
                       + (SELECT count(*) FROM mobo_overlay v WHERE NOT EXISTS
                         (SELECT 1 FROM mobo_base b WHERE v.collection = b.collection AND v.id = b.id))";
        assert_eq!(self.count(orphans), 0, "a base without an overlay, or the reverse");
    }

    pub(crate) async fn rows(&self, world: &World, collection: &str) -> Vec<Json> {
        shown(self.store.select(everything(world.project, world.collection(collection))).await.unwrap().rows)
    }

    /// Everything in a collection, in the columns that the device knows.
    pub(crate) async fn rows_as_known(&self, collection: &str) -> Vec<Json> {
        let schema = self.store.schema().await.unwrap();
        let project = self.store.node().await.unwrap().identity.unwrap().project;
        shown(self.store.select(everything(project, schema.by_name(collection).unwrap())).await.unwrap().rows)
    }

    /// One row; null when it is not visible.
    pub(crate) async fn row(&self, world: &World, collection: &str, id: &str) -> Json {
        self.rows(world, collection).await.into_iter().find(|row| row["id"] == id).unwrap_or(Json::Null)
    }

    /// Where a bucket is.
    pub(crate) async fn cursor(&self, key: &str) -> Position {
        let counts = self.store.counts().await.unwrap();
        counts.buckets.iter().find(|bucket| bucket.grant.key == key).unwrap().cursor
    }
}
