//! Hubs of one store, and what one of them leaves behind: a manifest that it did not live to note, a place that was pruned, rows that came and went.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use mobo_adapters::sqlite::SqliteHubStore;
use mobo_core::backup::keys::BackupKey;
use mobo_core::backup::manifest::Retained;
use mobo_core::backup::vault::{Listed, ObjectName, Vault, VaultFuture};
use mobo_core::backup::verify::Scope;
use mobo_core::ids::Timeline;
use mobo_core::store::{HubStore, RecoveryStore as _, SoleTurn};
use mobo_core::time::Eff;
use mobo_hub::backup::{Asked, BackupFailure, Fresh, Owner, Point, Repository, Shipper, points, restore, sweep, verify};
use mobo_runtime::clock::Clock;

use super::rig::{KEY, MemoryVault, Rig, bring_back, held, repository, runtime, target};
use super::twice::{NEWS, comes_back, fork};

const WAITS: Asked = Asked { waits: true, ..NEWS };
const SNAPSHOT: Asked = Asked { snapshot: true, ..NEWS };
/// Notes can be written again.
const NOTES: &str = "DROP INDEX no_notes";

/// From here on every note of a manifest fails, as if the hub had died just before it: no index takes what it would say.
async fn no_notes(rig: &Rig) {
    let number = rig.world.store.backup().await.unwrap().unwrap().anchor.number;
    let poison = format!("abs(CASE WHEN number > {number} THEN -9223372036854775808 ELSE 0 END)");
    rig.sql(&format!("CREATE INDEX no_notes ON mobo_backup({poison})"));
}

/// The same vault by another name, as another hub may have it.
#[derive(Debug)]
struct Elsewhere(Arc<MemoryVault>);

impl Vault for Elsewhere {
    fn place(&self) -> String {
        "the same, elsewhere".to_owned()
    }

    fn put(&self, name: &ObjectName, bytes: Arc<Vec<u8>>) -> VaultFuture<'_, ()> {
        self.0.put(name, bytes)
    }

    fn get(&self, name: &ObjectName, range: Option<Range<u64>>) -> VaultFuture<'_, Vec<u8>> {
        self.0.get(name, range)
    }

    fn head(&self, name: &ObjectName) -> VaultFuture<'_, Option<u64>> {
        self.0.head(name)
    }

    fn list(&self, prefix: &str, after: Option<&ObjectName>) -> VaultFuture<'_, Vec<Listed>> {
        self.0.list(prefix, after)
    }
}

/// A hub of the same store that has the vault under another name.
fn another(rig: &Rig, vault: &Arc<MemoryVault>) -> Shipper {
    let owner = Owner { store: Arc::clone(&rig.world.store), project: rig.world.project, keys: rig.keys.clone() };
    Shipper::new(owner, Arc::new(Elsewhere(Arc::clone(vault))), (KEY, 0))
}

/// An empty vault, and two hubs of one store that ship into it.
async fn two(seed: u64) -> (Rig, Arc<MemoryVault>, Shipper, Shipper) {
    let rig = Rig::new(seed).await;
    let vault = MemoryVault::with(BTreeMap::new());
    let (first, second) = (rig.shipper(&vault), another(&rig, &vault));
    (rig, vault, first, second)
}

/// Goal: two hubs of one store take turns, as they may, and nobody is alarmed: what one has shipped, the other one finds noted. Method: both
/// ship what is new, in turn.
///
/// What broke: the other one's manifest was found by its number only, so each turn began with a refusal and an alarm.
// faults: B-8
#[test]
fn hubs_of_one_store_take_turns() {
    runtime().block_on(async {
        let (mut rig, vault, mut first, mut second) = two(43).await;
        for round in 0..4 {
            for shipper in [&mut first, &mut second] {
                rig.write().await;
                assert!(rig.ship(shipper, NEWS).await.unwrap().is_some(), "round {round}");
                comes_back(&rig, &vault).await;
            }
        }
    });
}

/// Goal: of two hubs of one store, one ships, and the other one leaves it to that; it knows the newest backup, and tells its own devices what
/// is safe. Where the first one says nothing for a while, it goes on itself.
// faults: B-8
#[test]
fn a_hub_leaves_shipping_to_another_one() {
    runtime().block_on(async {
        let (mut rig, vault, mut first, mut second) = two(44).await;
        rig.write().await;
        rig.ship(&mut first, NEWS).await.unwrap().unwrap();
        rig.ship(&mut second, NEWS).await.unwrap();
        let mut told = BTreeMap::new();
        for round in 0..3 {
            rig.write().await;
            for _ in 0..2 {
                assert_eq!(rig.ship(&mut first, WAITS).await.unwrap(), None, "round {round}");
            }
            rig.ship(&mut second, WAITS).await.unwrap().unwrap();
            assert_eq!(rig.ship(&mut first, WAITS).await.unwrap(), None, "round {round}");
            assert_eq!(first.head(), second.head(), "round {round}");
            for (lane, seq, _) in first.heard() {
                assert!(told.insert(lane, seq).is_none_or(|before| before < seq), "round {round}: once");
            }
        }
        let lanes = rig.world.store.audit_lanes(rig.world.project).await.unwrap();
        assert_eq!(told, lanes.iter().map(|lane| (lane.lane, lane.last)).collect(), "everything that is safe was told");
        rig.write().await;
        let taken = rig.ship_at(&mut first, WAITS, 20).await.unwrap().unwrap();
        assert_eq!(taken.number, second.head().unwrap().0.number + 1);
        comes_back(&rig, &vault).await;
    });
}

/// Goal: a hub that is killed between a manifest and its note stops no other hub of its store, and not itself: what was about to be written is
/// on record. Method: notes fail, then another hub goes on that had the repository open, and one that begins.
///
/// What broke: the other one took the manifest for one of a stranger, and was refused for good.
// faults: B-8, B-3
#[test]
fn a_hub_that_is_killed_before_its_note_stops_nobody() {
    runtime().block_on(async {
        let (mut rig, vault, mut first, mut second) = two(45).await;
        for shipper in [&mut first, &mut second] {
            rig.write().await;
            rig.ship(shipper, NEWS).await.unwrap().unwrap();
        }
        for begins in [false, true] {
            rig.write().await;
            no_notes(&rig).await;
            assert!(rig.ship(&mut rig.shipper(&vault), NEWS).await.is_err());
            rig.sql(NOTES);
            rig.write().await;
            if begins {
                second = rig.shipper(&vault);
            }
            let before = second.head().map(|(anchor, _)| anchor.number);
            let shipped = rig.ship_at(&mut second, NEWS, 0).await.unwrap().unwrap();
            assert!(before.is_none_or(|before| shipped.number == before + 2), "behind the one that nobody has noted");
            assert!(!shipped.is_base(), "what is new is enough");
            comes_back(&rig, &vault).await;
        }
    });
}

/// Goal: a hub that was away while another one shipped and pruned goes on behind that one, and not in the gap.
///
/// What broke: it wrote its next manifest where the old ones had been removed, and noted it as the newest.
// faults: B-8
#[test]
fn nothing_is_written_where_it_was_pruned() {
    runtime().block_on(async {
        let (mut rig, vault, mut first, mut second) = two(46).await;
        for turn in 0..3 {
            rig.write().await;
            rig.ship(if turn == 1 { &mut second } else { &mut first }, NEWS).await.unwrap().unwrap();
        }
        rig.write().await;
        let base = rig.ship(&mut first, SNAPSHOT).await.unwrap().unwrap().number;
        first.retire(base, Retained::default());
        let newest = rig.ship_at(&mut first, NEWS, 0).await.unwrap().unwrap();
        let bases = points(&repository(&vault).await.unwrap().unwrap(), &newest).await.unwrap();
        assert!(sweep((vault.as_ref(), &mut SoleTurn), &newest, &bases).await.unwrap().removed > 0);
        rig.write().await;
        assert_eq!(rig.ship_at(&mut second, NEWS, 0).await.unwrap().unwrap().number, newest.number + 1);
        comes_back(&rig, &vault).await;
    });
}

/// Goal: a hub changes the backup key, or takes keys away, only in its turn; and one that has the old key yet does not go on beside it. Method:
/// a rotation without a turn, one in a turn, and a shipment of another hub of the store.
///
/// What broke: a rotation took no turn, and the other hub went on under the old key: the data keys that it gave out were in keyrings that
/// nobody finds who has the new one.
// faults: B-8, B-10
#[test]
fn a_backup_key_is_changed_in_a_turn_and_for_all_hubs() {
    runtime().block_on(async {
        let (mut rig, vault, mut first, mut second) = two(49).await;
        for shipper in [&mut first, &mut second] {
            rig.write().await;
            rig.ship(shipper, NEWS).await.unwrap().unwrap();
        }
        rig.ship(&mut first, NEWS).await.unwrap();
        let (before, next) = (vault.objects(), BackupKey([8; 32]));
        assert_eq!(first.rotate(next.clone(), [9; 32]).await, Err(BackupFailure::Busy));
        assert!(matches!(first.shred().await, Err(BackupFailure::Busy)));
        assert_eq!(vault.objects(), before, "nothing was written");
        first.keep_others().await.unwrap();
        first.rotate(next.clone(), [9; 32]).await.unwrap();
        rig.write().await;
        rig.ship(&mut first, SNAPSHOT).await.unwrap().unwrap();
        first.let_others().await;
        rig.write().await;
        // It is said while the other hub ships, not only once that is gone.
        for (mut behind, asked) in [(second, WAITS), (another(&rig, &vault), NEWS)] {
            let refused = rig.ship(&mut behind, asked).await;
            assert!(matches!(&refused, Err(BackupFailure::Refused(why)) if why.contains(&next.id())), "{refused:?}");
        }
        rig.ship(&mut first, NEWS).await.unwrap().unwrap();
        let opened = Repository::open(Arc::clone(&vault) as Arc<dyn Vault>, &next).await.unwrap().unwrap();
        assert_eq!(verify(&opened, Scope::default(), |_| {}).await.unwrap().damages, []);
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(Clock::start().unwrap());
        restore(&opened, (Point::Newest, &[]), &target(folder.path()), clock, |_| {}).await.unwrap();
        let want = Rig::everything(&rig.world.store, &rig.world).await;
        assert_eq!(held(folder.path().join("hub.db"), &rig.world).await, want);
    });
}

/// Goal: of what was shipped and not noted, nothing stays in the backup that is not in the store. Method: a grant comes, changes or goes, the
/// note fails, and it is as it was before.
///
/// What broke: what was shipped was remembered from the last note, so what came and went in between was never taken back.
// faults: B-3
#[test]
fn what_came_and_went_without_a_note_is_gone() {
    runtime().block_on(async {
        let mut rig = Rig::new(47).await;
        let vault = MemoryVault::with(BTreeMap::new());
        let mut shipper = rig.shipper(&vault);
        rig.write().await;
        rig.ship(&mut shipper, NEWS).await.unwrap();
        let there = "SELECT project, device, 'site:x', 1, NULL FROM mobo_grant LIMIT 1";
        let turned = "UPDATE mobo_grant SET write = 1 - write WHERE bucket = 'site:a'";
        let cases = [
            (
                format!("INSERT INTO mobo_grant(project, device, bucket, write, ended_us) {there}"),
                "DELETE FROM mobo_grant WHERE bucket = 'site:x'",
            ),
            (turned.to_owned(), turned),
        ];
        for (change, back) in cases {
            let before = grants(&rig.file);
            rig.sql(&change);
            assert_ne!(grants(&rig.file), before);
            no_notes(&rig).await;
            assert!(rig.ship(&mut shipper, NEWS).await.is_err());
            rig.sql(NOTES);
            rig.sql(back);
            rig.write().await;
            rig.ship(&mut shipper, NEWS).await.unwrap().unwrap();
            let folder = tempfile::tempdir().unwrap();
            bring_back(&vault, folder.path(), &[], |_| {}).await.unwrap();
            assert_eq!(grants(&folder.path().join("hub.db")), before, "{change}");
        }
    });
}

fn grants(file: &std::path::Path) -> Vec<String> {
    let database = rusqlite::Connection::open(file).unwrap();
    let sql = "SELECT hex(device) || ' ' || bucket || ' ' || write FROM mobo_grant ORDER BY 1";
    let mut rows = database.prepare(sql).unwrap();
    rows.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

/// Goal: a hub that is restored from an older moment, before it began its newest timeline, goes on with the same vault; and what is restored is
/// no copy any more, also where the folder was one. Method: a fork, a backup of it, and a restore of what was before.
///
/// What broke: the restored hub did not know the newest manifest's timeline, and was refused as a stranger until somebody said `--anew`.
// faults: B-6, B-13
#[test]
fn an_older_moment_than_the_newest_timeline_goes_on() {
    runtime().block_on(async {
        let mut rig = Rig::new(48).await;
        let vault = MemoryVault::with(BTreeMap::new());
        for timeline in [7, 8] {
            rig.write().await;
            rig.ship(&mut rig.shipper(&vault), NEWS).await.unwrap().unwrap();
            fork(&rig, timeline).await;
        }
        rig.write().await;
        rig.ship(&mut rig.shipper(&vault), NEWS).await.unwrap().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("copied");
        std::fs::write(&mark, "").unwrap();
        let found = repository(&vault).await.unwrap().unwrap();
        let clock = Arc::new(Clock::start().unwrap());
        let restored = restore(&found, (Point::Number(1), &[]), &target(folder.path()), clock, |_| {}).await.unwrap();
        assert!(!mark.exists(), "somebody has said which state goes on");
        let store = Arc::new(SqliteHubStore::open(&folder.path().join("hub.db")).unwrap());
        let parents = store.current().await.unwrap().timeline.parents;
        for known in [Timeline([7; 16]), Timeline([8; 16]), restored.manifest.timeline] {
            assert!(parents.iter().any(|parent| parent.timeline == known), "{known} in {parents:?}");
        }
        let owner = Owner { store: Arc::clone(&store) as Arc<dyn HubStore>, project: rig.world.project, keys: rig.keys.clone() };
        let mut shipper = Shipper::new(owner, Arc::clone(&vault) as Arc<dyn Vault>, (KEY, 0));
        let fresh = Fresh { repository: [3; 16], data: [4; 32], projects: [5; 32] };
        let shipped = shipper.ship(Eff(rig.world.now().0), fresh, NEWS).await;
        let shipped = shipped.unwrap().unwrap().manifest;
        assert_eq!((shipped.number, shipped.is_base(), shipped.timeline), (4, true, restored.timeline));
        store.close().await;
        let newest = bring_back(&vault, tempfile::tempdir().unwrap().path(), &[], |_| {}).await.unwrap();
        assert_eq!(newest.manifest.number, 4);
        // The hub that was there before is not of that history.
        rig.write().await;
        let refused = rig.ship(&mut rig.shipper(&vault), NEWS).await;
        assert!(matches!(&refused, Err(BackupFailure::Refused(why)) if why.contains("does not go on from that")), "{refused:?}");
    });
}
