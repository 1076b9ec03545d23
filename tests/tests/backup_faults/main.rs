//! Repositories under faults: a vault that fails at every operation, every kind of damage, and restores that are cut short.
//!
//! In process: the shipper and the restore of the hub over a store that random devices write to, and a vault in memory.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

mod found;
mod rig;
mod room;
mod turns;
mod twice;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use mobo_core::backup::BackupError;
use mobo_core::backup::keys::Keyring;
use mobo_core::backup::manifest::{self, Anchor};
use mobo_core::backup::vault::{KEYS, ObjectName};
use mobo_core::backup::verify::{Scope, Verdict, Verify, Want};
use mobo_hub::backup::Asked;
use mobo_tests::seed::{Rng, Seed};

use rig::{Fault, KEY, MemoryVault, Rig, bring_back, held, runtime, verdict};

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
            let asked = Asked { snapshot: rng.chance(15), anew: false, ..Asked::default() };
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
                let cut = rig.ship(&mut shipper, Asked { snapshot: n % 2 == 0, anew: false, ..Asked::default() }).await;
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
            rig.ship(&mut shipper, Asked { snapshot: round == 3, anew: false, ..Asked::default() }).await.unwrap();
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
