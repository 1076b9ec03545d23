//! Documents on a device: the same rules, by automerge.

use mobo_core::author::Intent;
use mobo_core::ids::{Lane, Mac};
use mobo_core::merge::{Grants, Rights};
use mobo_core::message::{Code, Definition};
use mobo_core::schema::{Collection, Kind};
use serde_json::json;

use crate::world::{World, collection, edit};

#[tokio::test]
async fn two_people_edit_one_note_while_both_are_offline() {
    let world = World::new().await;
    let (a, b) = (world.device("a", &["all"]).await, world.device("b", &["all"]).await);
    a.write(&world, "notes", Intent::Put, "n", json!({"title": "pump is loud", "tags": ["x"], "likes": 2})).await;
    b.write(&world, "notes", Intent::Put, "n2", json!({"title": "other"})).await;
    a.sync(&world).await;
    b.sync(&world).await;
    a.write(&world, "notes", Intent::Patch, "n", json!({"title": "pump 7 is loud", "likes": {"$inc": 1}})).await;
    b.write(&world, "notes", Intent::Patch, "n", json!({"title": "pump is very loud", "tags": ["x", "y"], "likes": {"$inc": 4}})).await;
    b.write(&world, "notes", Intent::Patch, "n", json!({"likes": {"$inc": 10}})).await;
    a.sync(&world).await;
    // A delivered document under two own changes, one of them on its way.
    b.push(&world, Lane::State, b.acked(Lane::State).await, 1).await.unwrap();
    b.catch_up(&world).await;
    let row = b.row(&world, "notes", "n").await;
    assert_eq!((&row["title"], &row["likes"]), (&json!("pump 7 is very loud"), &json!(17)));
    b.is_sound().await;
    b.sync(&world).await;
    a.sync(&world).await;
    for rows in [a.rows(&world, "notes").await, b.rows(&world, "notes").await] {
        assert_eq!(rows, world.rows("notes").await);
        assert_eq!(rows.len(), 2);
    }
}

#[tokio::test]
async fn a_refused_document_goes_back_to_what_was_delivered() {
    let world = World::new().await;
    let device = world.device("a", &["all"]).await;
    device.write(&world, "notes", Intent::Put, "n", json!({"title": "kept", "likes": 1})).await;
    device.sync(&world).await;
    device.write(&world, "notes", Intent::Patch, "n", json!({"title": "refused", "likes": {"$inc": 5}})).await;
    let answer = device.push(&world, Lane::State, device.acked(Lane::State).await, 50).await.unwrap();
    let reject = mobo_core::message::Reject {
        lane: Lane::State,
        incarnation: answer.ack.incarnation,
        seq: answer.ack.acked,
        code: mobo_core::message::Code::FORBIDDEN,
        detail: "not here".to_owned(),
        record: Some((world.collection("notes").id, mobo_core::ids::RecordId::new("n").unwrap())),
        hub_ver: mobo_core::ids::Ver(1),
    };
    device.store.rejected(reject).await.unwrap();
    let row = device.row(&world, "notes", "n").await;
    assert_eq!((&row["title"], &row["likes"]), (&json!("kept"), &json!(1)));
    device.is_sound().await;
}

/// I20: what a device does not know survives it, and is shown once it knows.
// faults: H-16
#[tokio::test]
async fn i20_a_field_that_comes_later_shows_what_was_there_before() {
    let mut world = World::new().await;
    let mut older = (*world.schema).clone();
    for (number, name, kind) in [(5, "gauges", Kind::Table), (6, "boards", Kind::Document)] {
        let mut whole = collection(number, name, kind, "title:text hours:counter later:int more:counter", &[]);
        older.insert(Collection { fields: whole.fields[..2].to_vec(), ..whole.clone() });
        whole.rev = 2;
        world.create(whole).await;
    }
    let newer = world.device("newer", &["all"]).await;
    let device = world.device_knowing("older", &["all"], world.definitions_of(&older)).await;
    for name in ["gauges", "boards"] {
        newer.write(&world, name, Intent::Put, "g", json!({"later": 7, "hours": 2, "more": 4})).await;
    }
    newer.sync(&world).await;
    assert!(device.catch_up(&world).await.equal(), "the digest is over all of it");
    device.is_sound().await;
    let odd = "SELECT count(*) FROM gauges WHERE _extra IS NOT NULL";
    assert_eq!((device.count(odd), device.rows_as_known("boards").await), (1, vec![json!({"id": "g", "title": "", "hours": 2})]));
    for name in ["gauges", "boards"] {
        device.write(&world, name, Intent::Patch, "g", json!({"hours": {"$inc": 3}, "title": "x"})).await;
    }
    let rev = device.store.schema().await.unwrap().rev;
    for _ in 0..2 {
        device.store.put_schema(world.definitions()).await.unwrap();
        for name in ["gauges", "boards"] {
            let want = json!({"id": "g", "title": "x", "hours": 5, "later": 7, "more": 4});
            assert_eq!(device.row(&world, name, "g").await, want);
        }
        assert_eq!((device.count(odd), device.store.schema().await.unwrap().rev), (0, rev + 2));
        device.is_sound().await;
    }
    assert_eq!(device.store.definitions().await.unwrap(), world.definitions().definitions);
    device.sync(&world).await;
    newer.sync(&world).await;
    for name in ["gauges", "boards"] {
        assert_eq!(newer.rows(&world, name).await, world.rows(name).await);
        assert_eq!(device.rows(&world, name).await, world.rows(name).await);
    }
}

/// A definition of a kind that a later version brings is kept for that version.
#[tokio::test]
async fn definitions_that_this_version_cannot_use_are_kept_verbatim() {
    let world = World::new().await;
    let device = world.device("a", &["all"]).await;
    let mut update = world.definitions();
    let mut bytes = update.definitions[0].bytes.clone();
    // Key 2, the kind, becomes 9; key 0, the id, another one.
    let kind = bytes.windows(2).rposition(|pair| pair == [2, 2]).unwrap();
    bytes[kind + 1] = 9;
    bytes[2] = 19;
    let name = bytes.windows(6).position(|name| name == b"orders").unwrap();
    bytes[name] = b'b';
    update.definitions = vec![Definition { bytes: bytes.clone(), collection: None, mac: Mac([5; 16]) }];
    device.store.put_schema(update).await.unwrap();
    let kept = device.store.definitions().await.unwrap();
    assert!(kept.contains(&Definition { bytes, collection: None, mac: Mac([5; 16]) }), "{kept:?}");
    assert_eq!(device.store.schema().await.unwrap().iter().count(), world.schema.iter().count());
}

/// The hub lacked what an edit builds on, as one that was restored does, and has got it back when it delivers the document next. The edit lay
/// over what was delivered without a fault, counted as merged, and was gone.
#[tokio::test]
async fn r16_an_edit_that_was_refused_for_what_has_come_back_is_written_again() {
    let world = World::new().await;
    let device = world.device("a", &["all"]).await;
    device.write(&world, "notes", Intent::Put, "n", json!({"title": "one", "likes": 1})).await;
    device.sync(&world).await;
    device.write(&world, "notes", Intent::Patch, "n", json!({"likes": {"$inc": 10}})).await;
    let nowhere = Rights::Buckets(Grants::default());
    let mut answer = device.push_as(&world, Lane::State, device.acked(Lane::State).await, nowhere).await.unwrap();
    assert_eq!(answer.rejects.len(), 1);
    answer.rejects[0].code = Code::MISSING_DEPENDENCY;
    device.take(answer).await;
    world.write("notes", vec![edit(Intent::Patch, "n", json!({"title": "two"}))]).await;
    for _ in 0..2 {
        device.sync(&world).await;
        let row = device.row(&world, "notes", "n").await;
        assert_eq!((&row["title"], &row["likes"]), (&json!("two"), &json!(11)));
    }
    assert_eq!(device.rows(&world, "notes").await, world.rows("notes").await);
    device.is_sound().await;
}
