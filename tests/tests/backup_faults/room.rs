//! A store that has no room to note what its hub is about to write into the vault.

use std::collections::BTreeMap;

use mobo_core::store::StoreError;
use mobo_hub::backup::BackupFailure;
use mobo_tests::postgres::Database;

use super::rig::{MemoryVault, Rig, runtime, verdict};
use super::twice::{NEWS, comes_back};

/// From here on the disk of the database is full for what a hub notes of its next manifest.
const FULL: &str = "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                    RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$; \
                    CREATE TRIGGER full_disk BEFORE INSERT ON mobo.backup_tried FOR EACH STATEMENT EXECUTE FUNCTION full_disk()";
const ROOM: &str = "DROP TRIGGER full_disk ON mobo.backup_tried; DROP FUNCTION full_disk()";

/// Goal: a hub whose store has no room publishes nothing that its store would not know, says so, and goes on by itself when there is room.
/// Method: Postgres says that its disk is full, as it does, when the note is written.
///
/// What broke: the manifest was published all the same, and after the death of that hub nobody knew whose it was.
// faults: B-3, H-9
#[test]
fn a_store_without_room_publishes_nothing_that_it_would_not_know() {
    runtime().block_on(async {
        let mut rig = Rig::at(Box::new(Database::fresh()), 49).await;
        let vault = MemoryVault::with(BTreeMap::new());
        let mut shipper = rig.shipper(&vault);
        rig.write().await;
        let first = rig.ship_at(&mut shipper, NEWS, 0).await.unwrap().unwrap();
        let manifests = || vault.objects().keys().filter(|name| name.as_str().starts_with("manifests/")).count();
        let before = manifests();
        rig.world.place.sql(FULL).await.unwrap();
        rig.write().await;
        for _ in 0..2 {
            let refused = rig.ship_at(&mut shipper, NEWS, 0).await;
            assert!(matches!(&refused, Err(BackupFailure::Store(StoreError::Full(_)))), "{refused:?}");
        }
        assert_eq!(manifests(), before, "the vault is as it was");
        assert_eq!(verdict(&vault, Vec::new()).await.unwrap().damages, []);
        rig.world.place.sql(ROOM).await.unwrap();
        let next = rig.ship_at(&mut shipper, NEWS, 0).await.unwrap().unwrap();
        assert_eq!((next.number, next.is_base()), (first.number + 1, false), "it goes on behind the last one");
        comes_back(&rig, &vault).await;
    });
}
