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
use mobo_core::backup::BackupError;
use mobo_core::backup::keys::{BackupKey, Keyring};
use mobo_core::backup::manifest::{self, Anchor};
use mobo_core::backup::vault::{KEYS, Listed, ObjectName, Vault, VaultError, VaultFuture};
use mobo_core::backup::verify::{Scope, Verdict, Verify, Want};
use mobo_core::future::BoxFuture;
use mobo_core::limits;
use mobo_core::store::{HubStore, StoreError};
use mobo_core::trust::KeyPair;
use mobo_hub::backup::{Asked, BackupFailure, Fresh, Owner, Point, Repository, Restored, Shipper, Step, Target, restore, verify};
use mobo_hub::migrate::Place as StorePlace;
use mobo_runtime::clock::Clock;
use mobo_tests::seed::{Rng, Seed};
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
        let fresh = Fresh { repository: [3; 16], data: [4; 32], projects: [5; 32] };
        Ok(shipper.ship(self.world.now(), fresh, asked).await?.map(|shipped| shipped.anchor))
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

/// A repository with one thing changed.
struct Mutant<'w> {
    whole: &'w BTreeMap<ObjectName, Vec<u8>>,
    /// What is there instead; `None` for what is gone.
    changed: BTreeMap<ObjectName, Option<Vec<u8>>>,
    what: String,
}

impl<'w> Mutant<'w> {
    /// The nth one. `None` where what was drawn changes nothing.
    fn draw(whole: &'w BTreeMap<ObjectName, Vec<u8>>, newest: u64, n: u32, rng: &mut Rng) -> Option<Self> {
        let names: Vec<&ObjectName> = whole.keys().collect();
        let (name, other) = (*rng.pick(&names), *rng.pick(&names));
        let mut bytes = whole[name].clone();
        let place = rng.below(bytes.len() as u64) as usize;
        let (what, instead) = match n % 6 {
            0 => {
                bytes[place] ^= 1 << rng.below(8);
                (format!("a bit of {name} at {place}"), Some(bytes))
            }
            1 => (format!("{name} cut to {place}"), Some(bytes[..place].to_vec())),
            2 => (format!("{name} gone"), None),
            3 => (format!("{name} empty"), Some(Vec::new())),
            4 => (format!("{name} and {other} swapped"), Some(whole[other].clone())),
            _ => {
                let back = rng.below(newest);
                let later = |name: &&ObjectName| manifest::number(name).is_some_and(|number| number > back);
                let changed = whole.keys().filter(later).map(|name| (name.clone(), None)).collect();
                return Some(Self { whole, changed, what: format!("rolled back to {back}") });
            }
        };
        let mut changed = BTreeMap::from([(name.clone(), instead)]);
        if n % 6 == 4 {
            changed.insert(other.clone(), Some(whole[name].clone()));
        }
        changed.retain(|name, bytes| bytes.as_ref() != whole.get(name));
        (!changed.is_empty()).then_some(Self { whole, changed, what })
    }

    fn get(&self, name: &ObjectName) -> Option<&[u8]> {
        match self.changed.get(name) {
            Some(changed) => changed.as_deref(),
            None => self.whole.get(name).map(Vec::as_slice),
        }
    }

    fn objects(&self) -> BTreeMap<ObjectName, Vec<u8>> {
        self.whole.keys().filter_map(|name| Some((name.clone(), self.get(name)?.to_vec()))).collect()
    }

    /// What the core finds in it, asked for one object after the other, as the hub does: a keyring that does not open is found, too.
    fn verdict(&self, known: Anchor) -> Result<Verdict, BackupError> {
        let ring = self.whole.keys().find(|name| name.as_str().starts_with(KEYS)).unwrap();
        let Some(bytes) = self.get(ring) else { return Ok(Verdict::default()) };
        let ring = Keyring::unwrap(&KEY, ring, bytes)?;
        let there = self.whole.keys().filter(|name| self.get(name).is_some());
        let newest = there.filter_map(manifest::number).max().unwrap_or(0);
        let mut verify = Verify::new(&ring, newest, Scope { read_above: 0, known: vec![known] });
        while let Some(want) = verify.want() {
            match want {
                Want::Bytes(name) => verify.bytes(self.get(&name)),
                Want::Size(name) => verify.size(self.get(&name).map(|bytes| bytes.len() as u64)),
            }
        }
        Ok(verify.verdict().clone())
    }
}

/// Goal: every damage to a repository is found without restoring it, and none is restored in silence. Method: random mutations of a
/// repository of a few snapshots and segments: a flipped bit, a cut, an empty, swapped or missing object, a rollback; each is verified by the
/// core, over what is in memory; six of 20 by the hub as well, and six of 120 are restored. `MOBO_MUTATIONS` says how many; 300 by default.
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
        let want = Rig::everything(&rig.world.store, &rig.world).await;
        let (mut tried, mut restored) = (0, 0);
        for n in 0..count {
            let Some(mutant) = Mutant::draw(&whole, anchor.number, n, &mut rng) else { continue };
            tried += 1;
            let found = mutant.verdict(anchor);
            let is_found = |found: &Verdict| !found.damages.is_empty() || found.newest.is_none();
            assert!(found.as_ref().map_or(true, is_found), "{}: {found:?}", mutant.what);
            if n % 20 >= 6 {
                continue;
            }
            let vault = MemoryVault::with(mutant.objects());
            let found = verdict(&vault, vec![anchor]).await;
            assert!(found.as_ref().map_or(true, is_found), "{}: {found:?}", mutant.what);
            if n % 120 < 6 {
                let folder = tempfile::tempdir().unwrap();
                // A part of the repository that a restore of the newest moment does not need may be damaged.
                if bring_back(&vault, folder.path(), &[anchor], |_| {}).await.is_ok() {
                    restored += 1;
                    assert_eq!(held(folder.path().join("hub.db"), &rig.world).await, want, "{}", mutant.what);
                }
            }
        }
        eprintln!("{tried} mutations, all found; {restored} did not touch what a restore needs");
        assert!(tried > count / 2, "{tried} of {count}");
    });
}
