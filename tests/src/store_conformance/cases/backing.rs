//! What a store knows of its backups, and how far it is.

use mobo_core::author::Intent;
use mobo_core::backup::RepositoryId;
use mobo_core::backup::manifest::Anchor;
use mobo_core::limits;
use mobo_core::store::BackupRow;
use serde_json::json;

use crate::store_conformance::{Place, World};

/// A manifest is noted once it was tried, and not behind one that is newer; those before it are forgotten.
pub async fn notes_what_was_tried(place: Box<dyn Place>) {
    let world = World::new(place, 90).await;
    let store = &world.store;
    let anchor = |number: u64| Anchor { number, hash: [u8::try_from(number).unwrap(); 32] };
    let [one, other] = [1, 2].map(|byte| RepositoryId([byte; 16]));
    let note = async |repository: RepositoryId, number: u64| {
        let (place, anchor) = ("somewhere".to_owned(), anchor(number));
        let row = BackupRow { repository, place, anchor, taken_us: 1, base: 1, heads: Vec::new() };
        store.note_backup(world.project, row, Vec::new()).await.unwrap()
    };
    let noted = async || store.backup().await.unwrap().map(|row| (row.repository, row.anchor.number));
    assert!(!note(one, 5).await, "nobody was about to write it");
    assert_eq!(noted().await, None);
    for number in [5, 6, 7, 8] {
        store.try_backup(one, anchor(number)).await.unwrap();
    }
    assert!(!note(other, 6).await, "it is of another repository");
    assert!(note(one, 6).await);
    assert!(!note(one, 5).await && !note(one, 6).await, "a newer one was noted since");
    assert_eq!(noted().await, Some((one, 6)));
    assert!(note(one, 8).await && !note(one, 7).await);
    assert_eq!(noted().await, Some((one, 8)));
    // By somebody's word, an older one may follow.
    store.try_backup(one, anchor(3)).await.unwrap();
    assert!(note(one, 3).await);
    assert_eq!(noted().await, Some((one, 3)));
    for number in 0..=u64::try_from(limits::BACKUP_TRIED_MAX).unwrap() {
        store.try_backup(other, anchor(number)).await.unwrap();
    }
    assert!(!note(other, 0).await, "only the last ones are kept");
    assert_eq!(world.sql("SELECT count(*) FROM {own}backup_tried").await, limits::BACKUP_TRIED_MAX.to_string());
    assert!(note(other, 1).await);
    assert!(store.turn(std::time::Duration::ZERO).await.unwrap().is_some());
}

/// The positions of all buckets together are known without any of them being told.
pub async fn knows_how_far_it_is(place: Box<dyn Place>) {
    let world = World::new(place, 91).await;
    let mut before = 0;
    for n in 0..5 {
        for (collection, fields) in [("work_orders", json!({ "title": "t" })), ("pumps", json!({ "site": format!("s{n}") }))] {
            world.outcome(world.local(collection, Intent::Put, &format!("id-{n}"), &fields)).await;
        }
        let heads = world.store.heads(world.project).await.unwrap();
        let sum: u64 = heads.iter().map(|(_, head)| head.0).sum();
        assert_eq!(world.store.positions(world.project).await.unwrap(), sum);
        assert!(sum > before, "{sum} after {before}");
        before = sum;
    }
}
