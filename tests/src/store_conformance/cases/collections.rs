//! Collections, their tables, and buckets.

use mobo_core::ids::BucketId;
use mobo_core::schema::Kind;
use mobo_core::store::StoreError;
use serde_json::json;

use crate::store_conformance::Place;
use crate::store_conformance::world::{World, collection, collections};
use mobo_core::author::Intent;

/// What was declared comes back, and is a typed table that any SQL tool reads and none writes (R27).
pub async fn have_plain_tables(place: Box<dyn Place>) {
    let world = World::new(place, 1).await;
    let schema = world.store.schema(world.project).await.unwrap();
    assert_eq!(schema, *world.schema);
    assert_eq!(schema.rev, 4, "one for each collection");
    let declared: Vec<_> = collections();
    assert_eq!(schema.iter().cloned().collect::<Vec<_>>(), declared);

    let fields =
        json!({"title": "oil", "hours": 2, "n": 7, "ratio": 0.5, "done": true, "due": "2026-02-03T04:05:06Z", "meta": {"b": 1, "a": []}});
    world.merged(world.local("work_orders", Intent::Insert, "w-1", &fields)).await;
    world.merged(world.local("notes", Intent::Insert, "n-1", &json!({"rank": 3, "likes": 2}))).await;
    let cases = [
        ("SELECT title FROM work_orders WHERE id = 'w-1'", "oil"),
        ("SELECT hours + n FROM work_orders", "9"),
        ("SELECT ratio * 2 FROM work_orders", "1"),
        ("SELECT count(*) FROM work_orders WHERE done AND photo IS NULL", "1"),
        ("SELECT rank + likes FROM notes", "5"),
        ("SELECT mobo_ver FROM work_orders", "1"),
        ("SELECT count(*) FROM vitals", "0"),
    ];
    for (sql, want) in cases {
        let got = world.sql(sql).await;
        assert!(got == want || got == format!("{want}.0"), "{sql}: {got}");
    }
    // Tables take SQL in where the store can tell what it did; documents and streams never do.
    for write in ["UPDATE notes SET title = 'by hand'", "DELETE FROM notes WHERE id = 'n-1'", "DELETE FROM vitals"] {
        // A statement that touches no row is refused by one database and changes nothing in the other.
        if let Err(sentence) = world.place.sql(write).await {
            assert!(sentence.contains("is kept by mobo: write through its API"), "{write}: {sentence}");
        } else {
            assert!(write.contains("vitals"), "{write} must be refused");
        }
    }
    assert_eq!(world.rows("work_orders").await[0]["title"], json!("oil"));
    world.is_sound().await;
}

/// A name is taken once, and only names that SQL can hold are taken.
pub async fn have_names_of_their_own(place: Box<dyn Place>) {
    let world = World::new(place, 2).await;
    let refused = [
        collection(9, "work_orders", Kind::Table, "a:text", &[]),
        collection(1, "other", Kind::Table, "a:text", &[]),
        collection(9, "mobo_x", Kind::Table, "a:text", &[]),
        collection(9, "Select", Kind::Table, "a:text", &[]),
        collection(9, "x\"; DROP TABLE pumps; --", Kind::Table, "a:text", &[]),
        collection(9, "x", Kind::Table, "id:text", &[]),
        collection(9, "x", Kind::Stream, "at:text", &[]),
        collection(9, "x", Kind::Table, "xmin:int", &[]),
        collection(9, "x", Kind::Document, "a:text ctid:text", &[]),
        collection(9, "x", Kind::Stream, "oid:int", &[]),
        collection(9, "x", Kind::Table, "a:list", &[]),
        collection(9, "x", Kind::Table, "a:text", &["{nope}"]),
    ];
    for collection in refused {
        let name = collection.name.clone();
        let answer = world.store.create_collection(world.project, collection).await;
        assert!(matches!(answer, Err(StoreError::Refused(_))), "{name}: {answer:?}");
    }
    assert_eq!(world.store.schema(world.project).await.unwrap(), *world.schema, "nothing has changed");
    // Words of SQL are names like any other.
    let schema = world.store.create_collection(world.project, collection(9, "select", Kind::Table, "order:int from:text", &[])).await;
    assert_eq!(schema.unwrap().rev, 5);
    assert_eq!(world.sql("SELECT count(*) FROM \"select\" WHERE \"order\" IS NULL").await, "0");
}

/// A bucket has one id for ever, whoever asks first.
pub async fn know_their_buckets(place: Box<dyn Place>) {
    let world = World::new(place, 3).await;
    let id = |number| BucketId::new(number).unwrap();
    let ensure = |keys: Vec<(String, BucketId)>| world.store.ensure_buckets(world.project, keys);
    let first = ensure(vec![("b".to_owned(), id(11)), ("a".to_owned(), id(12))]).await.unwrap();
    assert_eq!(first, [("b".to_owned(), id(11)), ("a".to_owned(), id(12))]);
    let second = ensure(vec![("a".to_owned(), id(13)), ("c".to_owned(), id(14))]).await.unwrap();
    assert_eq!(second, [("a".to_owned(), id(12)), ("c".to_owned(), id(14))]);
    let counts = world.store.counts(world.project).await.unwrap();
    let buckets: Vec<_> = counts.buckets.iter().map(|bucket| (bucket.0, bucket.1.as_str(), bucket.2.0)).collect();
    assert_eq!(buckets, [(id(12), "a", 0), (id(11), "b", 0), (id(14), "c", 0)]);
    // A merge finds them, and makes what is missing.
    world.merged(world.local("pumps", Intent::Insert, "p", &json!({"site": "x", "line": 1}))).await;
    assert_ne!(world.bucket("site:x").await, world.bucket("line:1").await);
}
