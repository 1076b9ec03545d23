//! Two hubs with the same keys and one vault: a folder was copied, a machine was cloned. Their states must never be mixed.
//!
//! What broke: whichever hub found the other's manifest in its way opened the repository again, took the other's state for its own of another
//! time, and put a snapshot of its own on top; the other did the same, and so on, each of them safe, and each of them gone from a restore.

use std::collections::BTreeMap;
use std::sync::Arc;

use mobo_core::ids::{Incarnation, Timeline};
use mobo_core::store::Fork;
use mobo_hub::backup::{Asked, BackupFailure, Shipper};

use super::rig::{MemoryVault, Rig, bring_back, held, runtime, verdict};

pub(super) const NEWS: Asked = Asked { snapshot: false, due: false, anew: false, copied: false, waits: false };
const COPIED: Asked = Asked { copied: true, ..NEWS };
const ANEW: Asked = Asked { snapshot: true, anew: true, ..NEWS };

/// A hub that has shipped once, and a copy of it as it was then.
async fn twins(seed: u64) -> (Rig, Rig, Arc<MemoryVault>) {
    let (mut one, mut other) = (Rig::new(seed).await, Rig::new(seed).await);
    let vault = MemoryVault::with(BTreeMap::new());
    one.write().await;
    one.ship(&mut one.shipper(&vault), NEWS).await.unwrap().unwrap();
    let image = one.image().await;
    other.put_back(&image).await;
    (one, other, vault)
}

/// As a hub does that finds itself in another file than before.
pub(super) async fn fork(rig: &Rig, fresh: u8) {
    let incarnation = Incarnation::new(u64::from(fresh)).unwrap();
    let from = rig.world.store.current().await.unwrap().timeline.timeline;
    let fork = Fork { from, fresh: Timeline([fresh; 16]), incarnation, foreign: Vec::new(), now: rig.world.now() };
    rig.world.store.fork_timeline(rig.world.project, fork).await.unwrap();
}

/// It is refused, in these words, and leaves the vault as it is.
async fn is_refused(rig: &Rig, shipper: &mut Shipper, vault: &Arc<MemoryVault>, (asked, words): (Asked, &str)) {
    let before = vault.objects().keys().filter(|name| name.as_str().starts_with("manifests/")).count();
    let done = rig.ship(shipper, asked).await;
    let Err(BackupFailure::Refused(why)) = &done else { panic!("{done:?}, and not {words}") };
    assert!(why.contains(words) && why.contains("--anew"), "{why}");
    assert_eq!(vault.objects().keys().filter(|name| name.as_str().starts_with("manifests/")).count(), before);
}

pub(super) async fn comes_back(rig: &Rig, vault: &Arc<MemoryVault>) {
    let folder = tempfile::tempdir().unwrap();
    bring_back(vault, folder.path(), &[], |_| {}).await.unwrap();
    let want = Rig::everything(&rig.world.store, &rig.world).await;
    assert_eq!(held(folder.path().join("hub.db"), &rig.world).await, want);
    assert_eq!(verdict(vault, Vec::new()).await.unwrap().damages, []);
}

/// Goal: of a hub and a copy of its folder only one ships, and the other one says why it does not, also after a restart. Method: both ship in
/// turn; a copy has a timeline of its own.
// faults: B-8
#[test]
fn a_copy_of_a_hub_does_not_ship_beside_it() {
    runtime().block_on(async {
        let (one, other, vault) = twins(41).await;
        let (mut first, mut second) = (one.shipper(&vault), other.shipper(&vault));
        one.write_here(0..3).await;
        one.ship(&mut first, NEWS).await.unwrap().unwrap();
        // The copy starts, and finds what was written since it was made.
        fork(&other, 8).await;
        for _ in 0..2 {
            is_refused(&other, &mut second, &vault, (COPIED, "is a copy of another one")).await;
        }
        comes_back(&one, &vault).await;
        // Somebody thinks that the first one is gone for good.
        other.ship(&mut second, ANEW).await.unwrap().unwrap();
        comes_back(&other, &vault).await;
        one.write_here(3..6).await;
        for _ in 0..2 {
            is_refused(&one, &mut first, &vault, (NEWS, "was written by somebody else")).await;
        }
        first = one.shipper(&vault);
        is_refused(&one, &mut first, &vault, (NEWS, "does not go on from that")).await;
        other.write_here(10..13).await;
        other.ship(&mut second, NEWS).await.unwrap().unwrap();
        comes_back(&other, &vault).await;
        // And finds that it is not: now the copy is in the way, whose timeline comes from that of the first one.
        one.ship(&mut first, ANEW).await.unwrap().unwrap();
        one.write_here(6..9).await;
        one.ship(&mut first, NEWS).await.unwrap().unwrap();
        other.write_here(13..16).await;
        is_refused(&other, &mut second, &vault, (NEWS, "was written by somebody else")).await;
        is_refused(&other, &mut other.shipper(&vault), &vault, (NEWS, "does not go on from that")).await;
        comes_back(&one, &vault).await;
    });
}

/// Goal: the same where nothing tells the two apart but what each of them has written: a machine was cloned while it ran.
// faults: B-8
#[test]
fn a_hub_that_runs_notices_a_clone_of_its_machine() {
    runtime().block_on(async {
        let (one, other, vault) = twins(42).await;
        let (mut first, mut second) = (one.shipper(&vault), other.shipper(&vault));
        // Both run: what they hold is the same yet.
        other.ship(&mut second, NEWS).await.unwrap().unwrap();
        one.ship(&mut first, NEWS).await.unwrap().unwrap();
        one.write_here(0..3).await;
        one.ship(&mut first, NEWS).await.unwrap().unwrap();
        other.write_here(10..12).await;
        for _ in 0..3 {
            is_refused(&other, &mut second, &vault, (NEWS, "was written by somebody else")).await;
        }
        comes_back(&one, &vault).await;
        one.write_here(3..4).await;
        one.ship(&mut first, NEWS).await.unwrap().unwrap();
        other.ship(&mut second, ANEW).await.unwrap().unwrap();
        comes_back(&other, &vault).await;
        one.write_here(4..5).await;
        is_refused(&one, &mut first, &vault, (NEWS, "was written by somebody else")).await;
    });
}
