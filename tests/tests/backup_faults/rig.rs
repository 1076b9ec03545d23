//! A store that random devices write to, and a vault in memory that fails when it is told to.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mobo_adapters::sqlite::SqliteHubStore;
use mobo_core::author::Intent;
use mobo_core::backup::keys::BackupKey;
use mobo_core::backup::manifest::{Anchor, Manifest};
use mobo_core::backup::vault::{Listed, ObjectName, Pruner, Vault, VaultError, VaultFuture};
use mobo_core::backup::verify::{Scope, Verdict};
use mobo_core::future::BoxFuture;
use mobo_core::limits;
use mobo_core::store::{HubStore, StoreError};
use mobo_core::time::Eff;
use mobo_core::trust::KeyPair;
use mobo_hub::backup::{Asked, BackupFailure, Fresh, Owner, Point, Repository, Restored, Shipper, Step, Target, restore, verify};
use mobo_hub::migrate::Place as StorePlace;
use mobo_runtime::clock::Clock;
use mobo_tests::seed::Seed;
use mobo_tests::store_conformance::{Device, Place, World, samples};
use serde_json::json;

pub(super) const KEY: BackupKey = BackupKey([7; 32]);

/// How a vault fails.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fault {
    /// The operation does nothing.
    Before,
    /// It is done, and its answer is lost.
    After,
    /// There is no room.
    Full,
}

/// A vault in memory that fails at chosen operations.
#[derive(Debug, Default)]
pub(super) struct MemoryVault {
    pub(super) objects: Mutex<BTreeMap<ObjectName, Vec<u8>>>,
    pub(super) operations: AtomicU64,
    /// From which operation on, and up to which.
    pub(super) fails: Mutex<Option<(Range<u64>, Fault)>>,
    /// For how long objects are locked, as it says.
    pub(super) locks: Mutex<Option<Duration>>,
}

impl MemoryVault {
    pub(super) fn fail(&self, operations: Range<u64>, fault: Fault) {
        *self.fails.lock().unwrap() = Some((operations, fault));
        self.operations.store(0, Ordering::Relaxed);
    }

    pub(super) fn mend(&self) {
        *self.fails.lock().unwrap() = None;
    }

    pub(super) fn with(objects: BTreeMap<ObjectName, Vec<u8>>) -> Arc<Self> {
        Arc::new(Self { objects: Mutex::new(objects), ..Self::default() })
    }

    pub(super) fn objects(&self) -> BTreeMap<ObjectName, Vec<u8>> {
        self.objects.lock().unwrap().clone()
    }

    pub(super) fn run<T>(&self, work: impl FnOnce(&mut BTreeMap<ObjectName, Vec<u8>>) -> Result<T, VaultError>) -> Result<T, VaultError> {
        let operation = self.operations.fetch_add(1, Ordering::Relaxed);
        let fault = self.fails.lock().unwrap().clone().filter(|(range, _)| range.contains(&operation)).map(|(_, fault)| fault);
        let away = || VaultError::Unavailable("a fault of the test".to_owned());
        match fault {
            Some(Fault::Before) => return Err(away()),
            Some(Fault::Full) => return Err(VaultError::Full("a fault of the test".to_owned())),
            Some(Fault::After) | None => {}
        }
        let done = work(&mut self.objects.lock().unwrap());
        if fault == Some(Fault::After) { Err(away()) } else { done }
    }
}

impl Pruner for MemoryVault {
    fn vault(&self) -> &dyn Vault {
        self
    }

    fn delete(&self, name: &ObjectName) -> VaultFuture<'_, ()> {
        let done = self.run(|objects| {
            objects.remove(name);
            Ok(())
        });
        Box::pin(async { done })
    }
}

impl Vault for MemoryVault {
    fn place(&self) -> String {
        "memory".to_owned()
    }

    fn lock(&self) -> Option<Duration> {
        *self.locks.lock().unwrap()
    }

    fn put(&self, name: &ObjectName, bytes: Arc<Vec<u8>>) -> VaultFuture<'_, ()> {
        let done = self.run(|objects| match objects.contains_key(name) {
            true => Err(VaultError::Exists(name.clone())),
            false => {
                objects.insert(name.clone(), Arc::unwrap_or_clone(bytes));
                Ok(())
            }
        });
        Box::pin(async { done })
    }

    fn get(&self, name: &ObjectName, range: Option<Range<u64>>) -> VaultFuture<'_, Vec<u8>> {
        assert_eq!(range, None, "nobody asks for parts here");
        let done = self.run(|objects| objects.get(name).cloned().ok_or_else(|| VaultError::Gone(name.clone())));
        Box::pin(async { done })
    }

    fn head(&self, name: &ObjectName) -> VaultFuture<'_, Option<u64>> {
        let done = self.run(|objects| Ok(objects.get(name).map(|bytes| bytes.len() as u64)));
        Box::pin(async { done })
    }

    fn list(&self, prefix: &str, after: Option<&ObjectName>) -> VaultFuture<'_, Vec<Listed>> {
        let done = self.run(|objects| {
            let behind = objects.iter().filter(|(name, _)| name.as_str().starts_with(prefix) && after.is_none_or(|after| *name > after));
            let listed = behind.map(|(name, bytes)| Listed { name: name.clone(), bytes: bytes.len() as u64 });
            Ok(listed.take(limits::VAULT_LIST_MAX).collect())
        });
        Box::pin(async { done })
    }
}

/// A SQLite file in a folder.
#[derive(Debug)]
pub(super) struct FilePlace(pub(super) tempfile::TempDir);

impl Place for FilePlace {
    fn open(&self) -> BoxFuture<'_, Result<Arc<dyn HubStore>, StoreError>> {
        Box::pin(async { Ok(Arc::new(SqliteHubStore::open(&self.0.path().join("hub.db"))?) as Arc<dyn HubStore>) })
    }

    fn sql<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<String>, String>> {
        Box::pin(async { Err("not here".to_owned()) })
    }

    fn repair<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async { Err("not here".to_owned()) })
    }
}

/// A store that devices write to, and what it is backed up with.
pub(super) struct Rig {
    pub(super) world: World,
    pub(super) keys: KeyPair,
    pub(super) devices: Vec<Device>,
    pub(super) written: u32,
    pub(super) file: PathBuf,
}

impl Rig {
    pub(super) async fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hub.db");
        Self { file, ..Self::at(Box::new(FilePlace(folder)), seed).await }
    }

    /// The same in a place that is not a file of its own.
    pub(super) async fn at(place: Box<dyn Place>, seed: u64) -> Self {
        let world = World::new(place, seed).await;
        let mut secret = [0; 32];
        Seed::fixed(seed).rng().fill(&mut secret);
        let mut devices = Vec::new();
        for name in ["one", "two"] {
            devices.push(Device::enrolled(&world, name, &["all", "site:a", "site:b"]).await);
        }
        Self { world, keys: KeyPair::from_secret(&secret), devices, written: 0, file: PathBuf::new() }
    }

    pub(super) fn shipper(&self, vault: &Arc<MemoryVault>) -> Shipper {
        let owner = Owner { store: Arc::clone(&self.world.store), project: self.world.project, keys: self.keys.clone() };
        Shipper::new(owner, Arc::clone(vault) as Arc<dyn Vault>, (KEY, 0))
    }

    pub(super) async fn ship(&self, shipper: &mut Shipper, asked: Asked) -> Result<Option<Anchor>, BackupFailure> {
        Ok(self.ship_at(shipper, asked, 0).await?.map(|manifest| Anchor { number: manifest.number, hash: shipper.head().unwrap().0.hash }))
    }

    /// So many seconds later than it is.
    pub(super) async fn ship_at(&self, shipper: &mut Shipper, asked: Asked, later_s: i64) -> Result<Option<Manifest>, BackupFailure> {
        let fresh = Fresh { repository: [3; 16], data: [4; 32], projects: [5; 32] };
        let now = Eff(self.world.now().0 + later_s * 1_000_000);
        Ok(shipper.ship(now, fresh, asked).await?.map(|shipped| shipped.manifest))
    }

    /// Writes of the hub's own.
    pub(super) async fn write_here(&self, range: Range<u32>) {
        for n in range {
            self.world.outcome(self.world.local("work_orders", Intent::Put, &format!("here-{n}"), &json!({ "n": n }))).await;
        }
    }

    /// The bytes of the database. Nobody writes meanwhile.
    pub(super) async fn image(&mut self) -> Vec<u8> {
        self.world.store.close().await;
        let image = std::fs::read(&self.file).unwrap();
        self.world.store = self.world.place.open().await.unwrap();
        image
    }

    /// The database becomes what it was.
    pub(super) async fn put_back(&mut self, image: &[u8]) {
        self.world.store.close().await;
        std::fs::write(&self.file, image).unwrap();
        self.world.store = self.world.place.open().await.unwrap();
    }

    /// As somebody else writes into the database.
    pub(super) fn sql(&self, sql: &str) {
        rusqlite::Connection::open(&self.file).unwrap().execute_batch(sql).unwrap();
    }

    /// Rows that come, change, move between buckets and go; documents, samples, writes of the hub, records in no bucket.
    pub(super) async fn write(&mut self) {
        self.written += 1;
        let n = self.written;
        let world = &self.world;
        for (device, site) in self.devices.iter_mut().zip(["a", "b"]) {
            let order = (format!("o-{}", n % 5), json!({ "title": format!("t {n}"), "hours": {"$inc": 1} }));
            device.write(world, "work_orders", Intent::Merge, (&order.0, order.1));
            device.write(world, "work_orders", Intent::Put, (&format!("p-{n}-{site}"), json!({ "title": "new", "n": n })));
            if n.is_multiple_of(3) {
                device.write(world, "work_orders", Intent::Delete, (&format!("p-{}-{site}", n - 1), json!({})));
            }
            let pump = json!({ "site": if n.is_multiple_of(2) { "a" } else { "b" }, "speed": 1.5 });
            device.write(world, "pumps", Intent::Put, (&format!("pump-{site}"), pump));
            device.write(world, "notes", Intent::Merge, ("note", json!({ "title": format!("note {n}"), "likes": {"$inc": 1} })));
            device.append(world, &samples(world, &[f64::from(n), 0.5]));
            for lane in device.lanes.keys().copied().collect::<Vec<_>>() {
                world.outcome(device.push_from(world, lane, 1)).await;
            }
        }
        world.outcome(world.local("work_orders", Intent::Put, &format!("hub-{n}"), &json!({ "title": "of the hub" }))).await;
        world.outcome(world.local("pumps", Intent::Put, "nowhere", &json!({ "speed": n }))).await;
    }

    /// Everything that readers see, and every digest.
    pub(super) async fn everything(store: &Arc<dyn HubStore>, world: &World) -> String {
        let mut all = String::new();
        for name in ["work_orders", "pumps", "notes", "vitals"] {
            let mut rows: Vec<String> = Vec::new();
            for row in store.select(world.all(name)).await.unwrap().rows {
                rows.push(serde_json::Value::Object(row).to_string());
            }
            rows.sort();
            all += &format!("{name}: {rows:?}\n");
        }
        let counts = store.counts(world.project).await.unwrap();
        let mut buckets: Vec<String> = counts.buckets.iter().map(|(_, key, head, digest)| format!("{key} {} {digest}", head.0)).collect();
        buckets.sort();
        let devices = store.devices(world.project).await.unwrap();
        let conflicts = store.conflicts(world.project, None, 10_000).await.unwrap().len();
        format!("{all}{buckets:?}\n{} devices, {conflicts} conflicts, {} records", devices.len(), counts.records)
    }
}

pub(super) async fn repository(vault: &Arc<MemoryVault>) -> Result<Option<Repository>, BackupFailure> {
    Repository::open(Arc::clone(vault) as Arc<dyn Vault>, &KEY).await
}

pub(super) async fn verdict(vault: &Arc<MemoryVault>, known: Vec<Anchor>) -> Result<Verdict, BackupFailure> {
    match repository(vault).await? {
        Some(repository) => verify(&repository, Scope { read_above: 0, known }, |_| {}).await,
        None => Ok(Verdict::default()),
    }
}

pub(super) async fn bring_back(
    vault: &Arc<MemoryVault>,
    folder: &Path,
    known: &[Anchor],
    step: impl FnMut(Step),
) -> Result<Restored, BackupFailure> {
    let repository = repository(vault).await?.ok_or_else(|| BackupFailure::Refused("no repository".to_owned()))?;
    let target = target(folder);
    restore(&repository, (Point::Newest, known), &target, Arc::new(Clock::start().unwrap()), step).await
}

pub(super) fn target(folder: &Path) -> Target {
    Target { folder: folder.to_owned(), place: StorePlace::Sqlite(folder.join("hub.db")), replaces: false }
}

pub(super) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// What a restored file holds.
pub(super) async fn held(file: PathBuf, world: &World) -> String {
    let store: Arc<dyn HubStore> = Arc::new(SqliteHubStore::open(&file).unwrap());
    let all = Rig::everything(&store, world).await;
    for bucket in store.audit_buckets(world.project).await.unwrap() {
        assert_eq!((bucket.stored, bucket.damaged.len()), (bucket.computed, 0), "{bucket:?}");
    }
    store.close().await;
    all
}
