//! What a reader of the code has found in backups: each case is one that went wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mobo_core::backup::BackupError;
use mobo_core::backup::manifest::{Anchor, Manifest, Member};
use mobo_core::backup::vault::{KEYS, ObjectName, SNAPSHOTS, Vault, VaultError};
use mobo_core::ids::{Incarnation, ProjectId, Timeline};
use mobo_core::limits;
use mobo_core::store::{Fork, SoleTurn};
use mobo_hub::backup::{Asked, BackupFailure, Repository, points, sweep, sweep_keys};

use super::rig::{Fault, KEY, MemoryVault, Rig, bring_back, held, repository, runtime, verdict};

const NEWS: Asked = Asked { snapshot: false, due: false, anew: false, copied: false, waits: false };
const SNAPSHOT: Asked = Asked { snapshot: true, ..NEWS };
const DUE: Asked = Asked { due: true, ..NEWS };

/// What is in the vault comes back as what is in the store.
async fn comes_back(rig: &Rig, vault: &Arc<MemoryVault>) {
    let folder = tempfile::tempdir().unwrap();
    bring_back(vault, folder.path(), &[], |_| {}).await.unwrap();
    let want = Rig::everything(&rig.world.store, &rig.world).await;
    assert_eq!(held(folder.path().join("hub.db"), &rig.world).await, want);
}

/// A store of four shipments, and an image of it after two of them; it has just been put back to that.
async fn went_back(seed: u64) -> (Rig, Arc<MemoryVault>, Anchor) {
    let mut rig = Rig::new(seed).await;
    let vault = MemoryVault::with(BTreeMap::new());
    let mut shipper = rig.shipper(&vault);
    let mut image = Vec::new();
    for round in 0..4 {
        rig.write().await;
        rig.ship(&mut shipper, NEWS).await.unwrap();
        if round == 1 {
            image = rig.image().await;
            shipper = rig.shipper(&vault);
        }
    }
    rig.put_back(&image).await;
    (rig, vault, shipper.head().unwrap().0)
}

/// Goal: a store that was put back under a live repository ships nothing on top of what it does not hold; on a new timeline it goes on with a
/// snapshot.
// faults: B-6
#[test]
fn a_store_that_went_back_is_found_out() {
    runtime().block_on(async {
        let (rig, vault, head) = went_back(21).await;
        let (before, mut shipper) = (vault.objects(), rig.shipper(&vault));
        assert_eq!(rig.ship(&mut shipper, NEWS).await, Err(BackupFailure::WentBack(head)));
        assert_eq!(vault.objects(), before, "nothing was shipped");
        let (fresh, incarnation) = (Timeline([7; 16]), Incarnation::new(78).unwrap());
        let fork = Fork { from: rig.world.timeline, fresh, incarnation, foreign: Vec::new(), now: rig.world.now() };
        rig.world.store.fork_timeline(rig.world.project, fork).await.unwrap();
        let next = rig.ship_at(&mut shipper, NEWS, 0).await.unwrap().unwrap();
        assert_eq!((next.number, next.base, next.timeline), (head.number + 1, head.number + 1, fresh));
        assert_eq!(verdict(&vault, vec![head]).await.unwrap().damages, []);
        comes_back(&rig, &vault).await;
    });
}

/// The same where more was written since than is gone, so that the figures say nothing: what is shipped stands by itself.
// faults: B-6
#[test]
fn a_store_that_went_back_and_on_ships_what_stands_by_itself() {
    runtime().block_on(async {
        let (rig, vault, head) = went_back(22).await;
        rig.write_here(0..60).await;
        let mut shipper = rig.shipper(&vault);
        let next = rig.ship_at(&mut shipper, NEWS, 0).await.unwrap().unwrap();
        assert!(next.is_base() && next.number == head.number + 1, "{next:?}");
        comes_back(&rig, &vault).await;
        rig.write_here(60..61).await;
        let next = rig.ship_at(&mut shipper, NEWS, 0).await.unwrap().unwrap();
        assert!(!next.is_base(), "and then what is new is enough");
        comes_back(&rig, &vault).await;
    });
}

/// A store may go back while the hub runs, too: a database fails over to a copy that lags. Its own record says so.
// faults: B-6
#[test]
fn a_store_that_goes_back_under_a_running_hub_is_found_out() {
    runtime().block_on(async {
        let mut rig = Rig::new(23).await;
        let vault = MemoryVault::with(BTreeMap::new());
        let mut shipper = rig.shipper(&vault);
        for _ in 0..3 {
            rig.write().await;
            rig.ship(&mut shipper, NEWS).await.unwrap();
        }
        rig.sql("UPDATE mobo_backup SET number = number - 1, hash = zeroblob(32)");
        assert_eq!(rig.ship(&mut shipper, NEWS).await, Ok(None), "it holds what the newest manifest says");
        rig.write().await;
        assert!(rig.ship_at(&mut shipper, NEWS, 0).await.unwrap().unwrap().is_base(), "that is not certain any more");
        rig.sql("DELETE FROM mobo_backup; UPDATE mobo_bucket SET head = head - 1 WHERE head > 0");
        assert!(matches!(rig.ship(&mut shipper, NEWS).await, Err(BackupFailure::WentBack(_))));
        let anew = Asked { anew: true, ..SNAPSHOT };
        assert!(rig.ship(&mut shipper, anew).await.unwrap().is_some(), "somebody knows why");
    });
}

/// What could not be read again is not written: neither a manifest nor a keyring.
#[test]
fn what_nobody_could_read_is_not_written() {
    runtime().block_on(async {
        let mut rig = Rig::new(24).await;
        let vault = MemoryVault::with(BTreeMap::new());
        rig.write().await;
        let mut shipper = rig.shipper(&vault);
        rig.ship(&mut shipper, NEWS).await.unwrap();
        let (head, before) = (shipper.head().unwrap().1.clone(), vault.objects());
        let repository = repository(&vault).await.unwrap().unwrap();
        let member =
            |n: usize| Member { name: ObjectName::parse(&format!("snapshots/{n:032x}")).unwrap(), bytes: 1, hash: [0; 32], rows: 1 };
        let of = |count: usize| Manifest { number: 2, base: 2, members: (0..count).map(member).collect(), ..head.clone() };
        assert!(matches!(repository.publish(&of(limits::BACKUP_MEMBERS_MAX + 1)).await, Err(BackupFailure::Refused(_))));
        let projects = |count: u64| (100..100 + count).map(|id| ProjectId::new(id).unwrap()).collect::<BTreeSet<_>>();
        let most = limits::BACKUP_KEYS_MAX as u64;
        assert!(matches!(repository.admit(&KEY, &projects(most + 1), &[1; 32]).await, Err(BackupFailure::Refused(_))));
        assert_eq!(vault.objects(), before);
        assert!(repository.admit(&KEY, &projects(most), &[1; 32]).await.unwrap().is_some());
        assert!(repository.publish(&of(limits::BACKUP_MEMBERS_MAX)).await.is_ok());
    });
}

/// A keyring whose answer was lost is adopted by whoever goes on, with other random keys in hand; and what a rotation has left that was cut
/// short goes with the other old keyrings, so that an erased project stays erased.
// faults: B-10
#[test]
fn a_keyring_that_a_lost_answer_left_is_adopted() {
    runtime().block_on(async {
        let mut rig = Rig::new(25).await;
        let vault = MemoryVault::with(BTreeMap::new());
        rig.write().await;
        rig.ship(&mut rig.shipper(&vault), NEWS).await.unwrap();
        let lost = || vault.fail(0..1, Fault::After);
        let found = repository(&vault).await.unwrap().unwrap();
        let (one, two) = (ProjectId::new(8).unwrap(), ProjectId::new(9).unwrap());
        lost();
        assert!(found.admit(&KEY, &BTreeSet::from([one]), &[1; 32]).await.is_err());
        vault.mend();
        let admitted = found.admit(&KEY, &BTreeSet::from([one, two]), &[2; 32]).await.unwrap().unwrap();
        assert_eq!((admitted.keyring().generation, admitted.keyring().others.keys.len()), (3, 2));
        let next = mobo_core::backup::keys::BackupKey([8; 32]);
        lost();
        assert!(admitted.rotate(&next, [1; 32]).await.is_err());
        vault.mend();
        // The hub goes on under its old key meanwhile, and erases a project.
        let shredded = admitted.shred(&KEY, &BTreeSet::from([two])).await.unwrap().unwrap();
        let swept = sweep_keys(vault.as_ref(), &shredded).await.unwrap();
        assert_eq!(swept.removed, 4, "three of its own, and one that the rotation has left");
        let keys: Vec<ObjectName> = vault.objects().into_keys().filter(|name| name.as_str().starts_with(KEYS)).collect();
        assert_eq!(keys, [shredded.keys().clone()]);
        lost();
        assert!(shredded.rotate(&next, [2; 32]).await.is_err());
        vault.mend();
        let rotated = shredded.rotate(&next, [3; 32]).await.unwrap();
        assert_eq!(rotated.keyring().keys.len(), 2);
        let opened = Repository::open(Arc::clone(&vault) as Arc<dyn Vault>, &next).await.unwrap().unwrap();
        assert_eq!(opened.keyring().keys, rotated.keyring().keys);
        // Of two hubs in one repository, neither removes what the other needs.
        assert!(matches!(sweep_keys(vault.as_ref(), &shredded).await, Err(BackupFailure::Refused(_))));
    });
}

fn parts(manifest: &Manifest) -> BTreeSet<ObjectName> {
    manifest.members.iter().map(|member| member.name.clone()).collect()
}

/// Goal: verify refuses what a restore refuses: an object is there as each manifest says that names it. Method: of two snapshots that name the
/// same parts, the older one has another hash of one of them.
///
/// What broke: a name was looked at once, as the newest manifest has it.
// faults: B-5
#[test]
fn a_part_is_what_each_manifest_says() {
    runtime().block_on(async {
        let mut rig = Rig::new(26).await;
        let vault = MemoryVault::with(BTreeMap::new());
        rig.write().await;
        let mut shipper = rig.shipper(&vault);
        let mut anchor = rig.ship(&mut shipper, NEWS).await.unwrap().unwrap();
        let found = repository(&vault).await.unwrap().unwrap();
        let (_, whole) = found.manifest(anchor.number).await.unwrap().unwrap();
        let mut other = whole.members.clone();
        other[0].hash = [7; 32];
        for members in [other, whole.members.clone()] {
            let number = anchor.number + 1;
            let manifest = Manifest { number, base: number, previous: anchor.hash, members, ..whole.clone() };
            anchor = found.publish(&manifest).await.unwrap();
        }
        let damages = verdict(&vault, vec![anchor]).await.unwrap().damages;
        assert!(matches!(damages.as_slice(), [BackupError::Damaged { object, .. }] if *object == whole.members[0].name.to_string()));
        let folder = tempfile::tempdir().unwrap();
        bring_back(&vault, folder.path(), &[anchor], |_| {}).await.unwrap();
    });
}

/// A part that rots in the vault is written again under another name, as long as the hub has what was in it.
// faults: B-5
#[test]
fn a_part_that_rots_is_written_again() {
    runtime().block_on(async {
        let mut rig = Rig::new(26).await;
        let vault = MemoryVault::with(BTreeMap::new());
        let mut shipper = rig.shipper(&vault);
        rig.write().await;
        let first = rig.ship_at(&mut shipper, NEWS, 0).await.unwrap().unwrap();
        // Nothing changes but who was seen, so that a snapshot would have the same part.
        let mut objects = vault.objects();
        for (_, bytes) in objects.iter_mut().filter(|(name, _)| name.as_str().starts_with(SNAPSHOTS)) {
            *bytes.last_mut().unwrap() ^= 1;
        }
        *vault.objects.lock().unwrap() = objects;
        for _ in 0..2 {
            let next = rig.ship_at(&mut shipper, SNAPSHOT, 0).await.unwrap().unwrap();
            assert!(parts(&next).is_disjoint(&parts(&first)), "{next:?}");
            comes_back(&rig, &vault).await;
        }
        let damaged = verdict(&vault, Vec::new()).await.unwrap().damages;
        assert!(matches!(&damaged[..], [BackupError::Damaged { .. }, ..]), "the old backup is damaged, and that is said: {damaged:?}");
    });
}

/// A snapshot that does not come about keeps nothing back: what is new goes on, and the snapshot has its next try a while later.
// faults: B-11
#[test]
fn what_is_new_goes_on_where_a_snapshot_fails() {
    runtime().block_on(async {
        let mut rig = Rig::new(27).await;
        let vault = MemoryVault::with(BTreeMap::new());
        let mut shipper = rig.shipper(&vault);
        rig.write().await;
        rig.ship(&mut shipper, NEWS).await.unwrap();
        rig.write().await;
        vault.fail(0..u64::MAX, Fault::Before);
        assert!(matches!(rig.ship(&mut shipper, DUE).await, Err(BackupFailure::Vault(VaultError::Unavailable(_)))));
        vault.mend();
        assert!(!rig.ship_at(&mut shipper, DUE, 1).await.unwrap().unwrap().is_base());
        comes_back(&rig, &vault).await;
        let later = i64::try_from(limits::BACKUP_SNAPSHOT_RETRY.as_secs()).unwrap() + 1;
        assert!(rig.ship_at(&mut shipper, DUE, later).await.unwrap().unwrap().is_base());
        comes_back(&rig, &vault).await;
    });
}

/// Where objects are locked, an unchanged part of an old snapshot is not the part of a new one for longer than it is locked.
#[test]
fn a_snapshot_has_no_part_that_is_free_soon() {
    const DAY_S: i64 = 86_400;
    runtime().block_on(async {
        let mut rig = Rig::new(28).await;
        let vault = MemoryVault::with(BTreeMap::new());
        *vault.locks.lock().unwrap() = Some(Duration::from_secs(30 * 86_400));
        let mut shipper = rig.shipper(&vault);
        rig.write().await;
        let half = 15 * DAY_S;
        // From the beginning of a half on.
        let begins = half - rig.world.now().0 / 1_000_000 % half + 1;
        let first = rig.ship_at(&mut shipper, SNAPSHOT, begins).await.unwrap().unwrap();
        let same = rig.ship_at(&mut shipper, SNAPSHOT, begins + 14 * DAY_S).await.unwrap().unwrap();
        let next = rig.ship_at(&mut shipper, SNAPSHOT, begins + 16 * DAY_S).await.unwrap().unwrap();
        assert!(!parts(&same).is_empty() && parts(&next).is_disjoint(&parts(&first)));
        comes_back(&rig, &vault).await;
    });
}

/// Whoever removes looks first whether the newest backup is where its credential reaches.
// faults: B-8
#[test]
fn nothing_is_removed_in_another_vault() {
    runtime().block_on(async {
        let mut rig = Rig::new(29).await;
        let (one, other) = (MemoryVault::with(BTreeMap::new()), MemoryVault::with(BTreeMap::new()));
        rig.write().await;
        rig.ship(&mut rig.shipper(&one), NEWS).await.unwrap();
        let mut shipper = rig.shipper(&other);
        rig.ship(&mut shipper, Asked { anew: true, ..NEWS }).await.unwrap();
        let newest = shipper.head().unwrap().1.clone();
        let bases = points(&repository(&other).await.unwrap().unwrap(), &newest).await.unwrap();
        let before = one.objects();
        assert!(matches!(sweep((one.as_ref(), &mut SoleTurn), &newest, &bases).await, Err(BackupFailure::Refused(_))));
        assert_eq!(one.objects(), before);
        assert_eq!(sweep((other.as_ref(), &mut SoleTurn), &newest, &bases).await.unwrap().removed, 0);
    });
}

/// The audit log is shipped line by line, also that of a project that is gone, and after a restart.
#[test]
fn the_audit_log_is_shipped_by_its_end() {
    runtime().block_on(async {
        let mut rig = Rig::new(30).await;
        let vault = MemoryVault::with(BTreeMap::new());
        let project = rig.world.project.sql();
        let lines = |project: i64, range: std::ops::Range<i32>| -> String {
            let line = |n| format!("INSERT INTO mobo_audit VALUES ({project}, {n}, 0, 'e', 'a', 's', '{{}}', zeroblob(32));");
            range.map(line).collect()
        };
        rig.write().await;
        rig.sql(&lines(project, 1..200));
        let mut shipper = rig.shipper(&vault);
        rig.ship(&mut shipper, NEWS).await.unwrap();
        let rows = |manifest: &Manifest| manifest.members.iter().map(|member| member.rows).sum::<u64>();
        rig.sql(&lines(project, 200..203));
        let few = rig.ship_at(&mut shipper, NEWS, 0).await.unwrap().unwrap();
        assert!(rows(&few) < 100, "three lines, and what belongs to the moment: {few:?}");
        assert_eq!(rig.ship(&mut shipper, NEWS).await.unwrap(), None);
        rig.sql("INSERT INTO mobo_project(id, name) VALUES (6, 'other')");
        rig.sql(&lines(6, 1..3));
        rig.ship(&mut shipper, NEWS).await.unwrap();
        rig.sql("DELETE FROM mobo_project WHERE id = 6");
        rig.sql(&lines(6, 3..4));
        rig.ship(&mut shipper, NEWS).await.unwrap().unwrap();
        rig.sql(&lines(project, 203..205));
        rig.ship(&mut rig.shipper(&vault), NEWS).await.unwrap().unwrap();
        let folder = tempfile::tempdir().unwrap();
        bring_back(&vault, folder.path(), &[], |_| {}).await.unwrap();
        let count = "SELECT count(*) FROM mobo_audit WHERE project = ?1";
        let restored = rusqlite::Connection::open(folder.path().join("hub.db")).unwrap();
        let counts = [project, 6].map(|project| restored.query_row(count, [project], |row| row.get::<_, i64>(0)).unwrap());
        assert_eq!(counts, [204, 3]);
    });
}

/// What a person decides on a hub where nothing else happens is in the next backup that says who was seen.
#[test]
fn a_decision_on_an_idle_hub_is_shipped() {
    runtime().block_on(async {
        let mut rig = Rig::new(31).await;
        let vault = MemoryVault::with(BTreeMap::new());
        rig.write().await;
        rig.sql(&format!(
            "INSERT INTO mobo_quarantine(n, project, device, incarnation, lane, seq, code, detail, header, at_us) \
             VALUES (1, {}, zeroblob(16), 1, 0, 1, 1, 'x', x'00', 0)",
            rig.world.project.sql()
        ));
        let mut shipper = rig.shipper(&vault);
        rig.ship(&mut shipper, NEWS).await.unwrap();
        let settled_us = rig.world.now().0 + 100_000_000;
        rig.sql(&format!("UPDATE mobo_quarantine SET status = 2, settled_us = {settled_us}"));
        assert!(rig.ship_at(&mut shipper, NEWS, 200).await.unwrap().is_some());
        let folder = tempfile::tempdir().unwrap();
        bring_back(&vault, folder.path(), &[], |_| {}).await.unwrap();
        let restored = rusqlite::Connection::open(folder.path().join("hub.db")).unwrap();
        let status: i64 = restored.query_row("SELECT status FROM mobo_quarantine", [], |row| row.get(0)).unwrap();
        assert_eq!(status, 2);
    });
}

async fn small_repository(seed: u64) -> (Rig, Arc<MemoryVault>, Anchor) {
    let mut rig = Rig::new(seed).await;
    let vault = MemoryVault::with(BTreeMap::new());
    rig.write().await;
    let mut shipper = rig.shipper(&vault);
    rig.ship(&mut shipper, NEWS).await.unwrap();
    (rig, vault, shipper.head().unwrap().0)
}

async fn is_refused(vault: &Arc<MemoryVault>, folder: &Path) {
    let done = bring_back(vault, folder, &[], |_| {}).await;
    assert!(matches!(done, Err(BackupFailure::Refused(_))), "{done:?}");
}

/// Where a hub was started in the place of a restore that was cut short, what it has acknowledged since is neither replaced nor taken for what
/// was restored.
// faults: B-4
#[test]
fn a_restore_that_is_run_again_leaves_a_live_hub_alone() {
    runtime().block_on(async {
        let (rig, vault, anchor) = small_repository(32).await;
        let folder = tempfile::tempdir().unwrap();
        let (file, scratch) = (folder.path().join("hub.db"), folder.path().join("restore"));
        let restored = bring_back(&vault, folder.path(), &[], |_| {}).await.unwrap();
        let want = std::fs::read(&file).unwrap();
        // Killed behind its last step: it has taken its place, and is known again.
        let note = |text: String| {
            std::fs::create_dir_all(&scratch).unwrap();
            std::fs::write(scratch.join("point"), text).unwrap();
        };
        note(format!("placing {anchor} {}", restored.timeline));
        let again = bring_back(&vault, folder.path(), &[], |_| {}).await.unwrap();
        assert_eq!((again.timeline, again.anchor, scratch.exists()), (restored.timeline, anchor, false));
        // Killed before it took its place, or while it was built: what is there is somebody else's.
        let other = "placing 1:00".replace("1:00", &anchor.to_string());
        for text in [format!("building {anchor}"), format!("{other} {}", Timeline([1; 16]))] {
            note(text);
            is_refused(&vault, folder.path()).await;
        }
        // What the first version has left says only what it began: while something stands beside it, nothing has taken its place.
        for left in ["ready.db", "building.db"] {
            note(anchor.to_string());
            std::fs::copy(&file, scratch.join(left)).unwrap();
            is_refused(&vault, folder.path()).await;
            std::fs::remove_file(scratch.join(left)).unwrap();
        }
        let again = bring_back(&vault, folder.path(), &[], |_| {}).await.unwrap();
        assert_eq!((again.timeline, scratch.exists()), (restored.timeline, false));
        assert_eq!(std::fs::read(&file).unwrap(), want);
        // A log that is left behind would be played into what is restored.
        std::fs::remove_file(&file).unwrap();
        std::fs::write(folder.path().join("hub.db-wal"), "left").unwrap();
        is_refused(&vault, folder.path()).await;
        std::fs::remove_file(folder.path().join("hub.db-wal")).unwrap();
        bring_back(&vault, folder.path(), &[], |_| {}).await.unwrap();
        assert_eq!(held(file, &rig.world).await, Rig::everything(&rig.world.store, &rig.world).await);
    });
}
