//! Repositories under faults: a vault that fails at every operation, every kind of damage, and restores that are cut short.
//!
//! In process: the shipper and the restore of the hub over a store that random devices write to, and a vault in memory.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use mobo_adapters::sqlite::SqliteHubStore;
use mobo_core::author::Intent;
use mobo_core::backup::keys::BackupKey;
use mobo_core::backup::manifest::Anchor;
use mobo_core::backup::vault::{Listed, ObjectName, Vault, VaultError, VaultFuture};
use mobo_core::backup::verify::{Scope, Verdict};
use mobo_core::future::BoxFuture;
use mobo_core::limits;
use mobo_core::store::{HubStore, StoreError};
use mobo_core::trust::KeyPair;
use mobo_hub::backup::{Asked, BackupFailure, Owner, Point, Repository, Restored, Shipper, Step, Target, restore, verify};
use mobo_hub::migrate::Place as StorePlace;
use mobo_runtime::clock::Clock;
use mobo_tests::seed::Seed;
use mobo_tests::store_conformance::{Device, Place, World, samples};
use serde_json::json;

const KEY: BackupKey = BackupKey([7; 32]);

/// How a vault fails.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fault {
    /// The operation does nothing.
    Before,
    /// It is done, and its answer is lost.
    After,
    /// There is no room.
    Full,
}

/// A vault in memory that fails at chosen operations.
#[derive(Debug, Default)]
struct MemoryVault {
    objects: Mutex<BTreeMap<ObjectName, Vec<u8>>>,
    operations: AtomicU64,
    /// From which operation on, and up to which.
    fails: Mutex<Option<(Range<u64>, Fault)>>,
}

impl MemoryVault {
    fn fail(&self, operations: Range<u64>, fault: Fault) {
        *self.fails.lock().unwrap() = Some((operations, fault));
        self.operations.store(0, Ordering::Relaxed);
    }

    fn mend(&self) {
        *self.fails.lock().unwrap() = None;
    }

    fn with(objects: BTreeMap<ObjectName, Vec<u8>>) -> Arc<Self> {
        Arc::new(Self { objects: Mutex::new(objects), ..Self::default() })
    }

    fn objects(&self) -> BTreeMap<ObjectName, Vec<u8>> {
        self.objects.lock().unwrap().clone()
    }

    fn run<T>(&self, work: impl FnOnce(&mut BTreeMap<ObjectName, Vec<u8>>) -> Result<T, VaultError>) -> Result<T, VaultError> {
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

impl Vault for MemoryVault {
    fn place(&self) -> String {
        "memory".to_owned()
    }

    fn put(&self, name: &ObjectName, bytes: Vec<u8>) -> VaultFuture<'_, ()> {
        let done = self.run(|objects| match objects.contains_key(name) {
            true => Err(VaultError::Exists(name.clone())),
            false => {
                objects.insert(name.clone(), bytes);
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
struct FilePlace(tempfile::TempDir);

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
struct Rig {
    world: World,
    keys: KeyPair,
    devices: Vec<Device>,
    written: u32,
}

impl Rig {
    async fn new(seed: u64) -> Self {
        let world = World::new(Box::new(FilePlace(tempfile::tempdir().unwrap())), seed).await;
        let mut secret = [0; 32];
        Seed::fixed(seed).rng().fill(&mut secret);
        let mut devices = Vec::new();
        for name in ["one", "two"] {
            devices.push(Device::enrolled(&world, name, &["all", "site:a", "site:b"]).await);
        }
        Self { world, keys: KeyPair::from_secret(&secret), devices, written: 0 }
    }

    fn shipper(&self, vault: &Arc<MemoryVault>) -> Shipper {
        let owner = Owner { store: Arc::clone(&self.world.store), project: self.world.project, keys: self.keys.clone() };
        Shipper::new(owner, Arc::clone(vault) as Arc<dyn Vault>, (KEY, 0))
    }

    async fn ship(&self, shipper: &mut Shipper, asked: Asked) -> Result<Option<Anchor>, BackupFailure> {
        Ok(shipper.ship(self.world.now(), ([3; 16], [4; 32]), asked).await?.map(|shipped| shipped.anchor))
    }

    /// Rows that come, change, move between buckets and go; documents, samples, writes of the hub, records in no bucket.
    async fn write(&mut self) {
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
    async fn everything(store: &Arc<dyn HubStore>, world: &World) -> String {
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

async fn repository(vault: &Arc<MemoryVault>) -> Result<Option<Repository>, BackupFailure> {
    Repository::open(Arc::clone(vault) as Arc<dyn Vault>, &KEY).await
}

async fn verdict(vault: &Arc<MemoryVault>, known: Vec<Anchor>) -> Result<Verdict, BackupFailure> {
    match repository(vault).await? {
        Some(repository) => verify(&repository, Scope { read_above: 0, known }, |_| {}).await,
        None => Ok(Verdict::default()),
    }
}

async fn bring_back(vault: &Arc<MemoryVault>, folder: &Path, known: &[Anchor], step: impl FnMut(Step)) -> Result<Restored, BackupFailure> {
    let repository = repository(vault).await?.ok_or_else(|| BackupFailure::Refused("no repository".to_owned()))?;
    let target = target(folder);
    restore(&repository, (Point::Newest, known), &target, Arc::new(Clock::start().unwrap()), step).await
}

fn target(folder: &Path) -> Target {
    Target { folder: folder.to_owned(), place: StorePlace::Sqlite(folder.join("hub.db")) }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// What a restored file holds.
async fn held(file: PathBuf, world: &World) -> String {
    let store: Arc<dyn HubStore> = Arc::new(SqliteHubStore::open(&file).unwrap());
    let all = Rig::everything(&store, world).await;
    for bucket in store.audit_buckets(world.project).await.unwrap() {
        assert_eq!((bucket.stored, bucket.damaged.len()), (bucket.computed, 0), "{bucket:?}");
    }
    store.close().await;
    all
}

/// Goal: what is restored is what there was, after any number of segments, snapshots and restarts of the shipper; what is safe is what was
/// shipped. Method: random writes and shipments; the restored database is read like the one that was backed up.
// faults: B-1, B-13
#[test]
fn what_was_shipped_is_what_comes_back() {
    let seed = Seed::from_env();
    runtime().block_on(async {
        let mut rng = seed.rng();
        let mut rig = Rig::new(seed.number()).await;
        let vault = MemoryVault::with(BTreeMap::new());
        let mut shipper = rig.shipper(&vault);
        for round in 0..12 {
            rig.write().await;
            if rng.chance(30) {
                shipper = rig.shipper(&vault);
            }
            let asked = Asked { snapshot: rng.chance(15), anew: false };
            assert!(rig.ship(&mut shipper, asked).await.unwrap().is_some(), "round {round}: there is something new");
            assert_eq!(rig.ship(&mut shipper, Asked::default()).await.unwrap(), None, "round {round}: and then nothing");
        }
        let anchor = shipper.head().unwrap().0;
        let verdict = verdict(&vault, vec![anchor]).await.unwrap();
        assert_eq!((verdict.damages, verdict.newest), (vec![], Some(anchor)));
        let folder = tempfile::tempdir().unwrap();
        let restored = bring_back(&vault, folder.path(), &[anchor], |_| {}).await.unwrap();
        assert_eq!(restored.anchor, anchor);
        let want = Rig::everything(&rig.world.store, &rig.world).await;
        assert_eq!(held(folder.path().join("hub.db"), &rig.world).await, want);
        let lanes = rig.world.store.audit_lanes(rig.world.project).await.unwrap();
        let safe: u64 = restored.manifest.totals.entries;
        assert_eq!(lanes.iter().map(|lane| lane.entries).sum::<u64>(), safe, "every entry is in it");
    });
}

/// Goal: a backup that is cut short at any operation of its vault leaves a repository that verifies, and nothing that is called safe is
/// missing from it; the next one goes on. Method: the nth operation fails, and all behind it, for every n; then the vault is back.
// faults: B-3, B-7, B-11
#[test]
fn a_backup_may_be_cut_short_at_every_operation() {
    runtime().block_on(async {
        let mut rig = Rig::new(11).await;
        let vault = MemoryVault::with(BTreeMap::new());
        let mut shipper = rig.shipper(&vault);
        let mut last = None;
        for (fault, restarts) in [(Fault::Before, true), (Fault::After, true), (Fault::After, false), (Fault::Full, false)] {
            for n in 0.. {
                rig.write().await;
                if restarts {
                    shipper = rig.shipper(&vault);
                }
                vault.fail(n..u64::MAX, fault);
                let cut = rig.ship(&mut shipper, Asked { snapshot: n % 2 == 0, anew: false }).await;
                vault.mend();
                let noted = rig.world.store.backup().await.unwrap().map(|row| row.anchor);
                let whole = verdict(&vault, noted.into_iter().collect()).await.unwrap();
                assert_eq!(whole.damages, [], "{fault:?} at {n}: what the hub calls safe is there, and whole");
                if cut.is_ok() {
                    last = noted;
                    break;
                }
                assert_eq!(noted, last, "{fault:?} at {n}: nothing is safe that was not: {cut:?}");
            }
        }
        rig.ship(&mut shipper, Asked::default()).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        bring_back(&vault, folder.path(), &[], |_| {}).await.unwrap();
        let want = Rig::everything(&rig.world.store, &rig.world).await;
        assert_eq!(held(folder.path().join("hub.db"), &rig.world).await, want);
    });
}

/// Goal: a restore that is cut short anywhere is run again, and completes; until it has, the target is empty. Method: it is dropped at its
/// nth step, for every n, in one folder.
// faults: B-4
#[test]
fn a_restore_may_be_cut_short_at_every_step() {
    let outer = runtime();
    let (rig, vault, head) = outer.block_on(async {
        let mut rig = Rig::new(12).await;
        let vault = MemoryVault::with(BTreeMap::new());
        let mut shipper = rig.shipper(&vault);
        for _ in 0..4 {
            rig.write().await;
            rig.ship(&mut shipper, Asked::default()).await.unwrap();
        }
        (rig, vault, shipper.head().unwrap().0)
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hub.db");
    let mut cuts = 0;
    while !cut_short(&vault, folder.path(), cuts, head) {
        cuts += 1;
    }
    assert!(cuts > 5, "it was cut {cuts} times");
    outer.block_on(async {
        let want = Rig::everything(&rig.world.store, &rig.world).await;
        assert_eq!(held(file, &rig.world).await, want);
    });
}

/// Restores and is cut at the step of that number; true if it came to its end. What was cut has ended when this returns.
fn cut_short(vault: &Arc<MemoryVault>, folder: &Path, at: u32, head: Anchor) -> bool {
    let mortal = runtime();
    mortal.block_on(async {
        let (cut, mut cutting) = tokio::sync::mpsc::channel::<()>(1);
        let mut steps = 0;
        let step = |_| {
            steps += 1;
            if steps > at {
                let _ = cut.try_send(());
            }
        };
        tokio::select! {
            biased;
            Some(()) = cutting.recv() => false,
            restored = bring_back(vault, folder, &[], step) => {
                assert_eq!(restored.unwrap().anchor, head);
                true
            }
        }
    })
}

/// Goal: every damage to a repository is found without restoring it, and none is restored in silence. Method: random mutations of a
/// repository of a few snapshots and segments: a flipped bit, a cut, an empty, swapped, missing or duplicated object, a rollback.
/// `MOBO_MUTATIONS` says how many; 300 by default.
// faults: B-5, B-6, B-12
#[test]
fn every_mutation_is_found() {
    let count: u32 = std::env::var("MOBO_MUTATIONS").map_or(300, |count| count.parse().unwrap());
    let seed = Seed::from_env();
    runtime().block_on(async {
        let mut rng = seed.rng();
        let mut rig = Rig::new(13).await;
        let vault = MemoryVault::with(BTreeMap::new());
        let mut shipper = rig.shipper(&vault);
        for round in 0..6 {
            rig.write().await;
            rig.ship(&mut shipper, Asked { snapshot: round == 3, anew: false }).await.unwrap();
        }
        let (whole, anchor) = (vault.objects(), shipper.head().unwrap().0);
        let names: Vec<ObjectName> = whole.keys().cloned().collect();
        for n in 0..count {
            let mut objects = whole.clone();
            let name = rng.pick(&names).clone();
            let other = rng.pick(&names).clone();
            let bytes = objects.get_mut(&name).unwrap();
            let what = match n % 6 {
                0 => {
                    let place = rng.below(bytes.len() as u64) as usize;
                    bytes[place] ^= 1 << rng.below(8);
                    format!("a bit of {name} at {place}")
                }
                1 => {
                    bytes.truncate(rng.below(bytes.len() as u64) as usize);
                    format!("{name} cut to {}", bytes.len())
                }
                2 => {
                    objects.remove(&name);
                    format!("{name} gone")
                }
                3 => {
                    bytes.clear();
                    format!("{name} empty")
                }
                4 => {
                    let (one, two) = (whole[&name].clone(), whole[&other].clone());
                    objects.insert(name.clone(), two);
                    objects.insert(other.clone(), one);
                    format!("{name} and {other} swapped")
                }
                _ => {
                    let newest = rng.below(anchor.number);
                    objects.retain(|name, _| mobo_core::backup::manifest::number(name).is_none_or(|number| number <= newest));
                    format!("rolled back to {newest}")
                }
            };
            if objects == whole {
                continue;
            }
            let mutant = MemoryVault::with(objects);
            let found = verdict(&mutant, vec![anchor]).await;
            assert!(found.as_ref().map_or(true, |verdict| !verdict.damages.is_empty() || verdict.newest.is_none()), "{what}: {found:?}");
            if n % 20 == 0 {
                let folder = tempfile::tempdir().unwrap();
                let restored = bring_back(&mutant, folder.path(), &[anchor], |_| {}).await;
                // A part of the repository that a restore of the newest moment does not need may be damaged.
                if restored.is_ok() {
                    let want = Rig::everything(&rig.world.store, &rig.world).await;
                    assert_eq!(held(folder.path().join("hub.db"), &rig.world).await, want, "{what}");
                }
            }
        }
    });
}
