//! What the hub delivers: the base is replaced, own pending writes stay on top, and nothing is applied twice (R14, R20, I4).

use mobo_adapters::sqlite::edge::{ApplyError, Mismatch, Standing};
use mobo_core::author::Intent;
use mobo_core::ids::{Lane, Timeline};
use mobo_core::message::{Batch, ItemBody};
use serde_json::json;

use crate::world::{Device, World, edit, seq};

async fn apply(device: &Device, batches: Vec<Batch>) {
    for batch in batches {
        device.store.apply(batch).await.unwrap();
    }
}

/// The order in which an ack and the delivery of the same entry arrive does not matter.
#[tokio::test]
async fn acks_and_batches_arrive_in_any_order() {
    for batch_first in [true, false] {
        let world = World::new().await;
        let device = world.device("a", &["all"]).await;
        device.write(&world, "orders", Intent::Put, "o1", json!({"title": "mine", "hours": 5})).await;
        let answer = device.push(&world, Lane::State, None, 50).await.unwrap();
        let (batches, checkpoint) = device.pull(&world, 100).await;
        if batch_first {
            apply(&device, batches).await;
            assert_eq!((device.store.counts().await.unwrap().pending, device.count("SELECT count(*) FROM mobo_overlay")), (1, 0));
            device.take(answer).await;
        } else {
            device.take(answer).await;
            assert_eq!((device.store.counts().await.unwrap().pending, device.count("SELECT count(*) FROM mobo_overlay")), (0, 1));
            apply(&device, batches).await;
        }
        assert!(device.store.checkpoint(checkpoint.unwrap()).await.unwrap().equal());
        assert_eq!(device.row(&world, "orders", "o1").await["hours"], 5, "counted once");
        assert_eq!(device.count("SELECT count(*) FROM mobo_overlay"), 0);
        assert_eq!(device.store.counts().await.unwrap().pending, 0);
        device.is_sound().await;
    }
}

/// A delivered row that holds the first of two own entries keeps the second on top, exactly.
#[tokio::test]
async fn r14_a_partly_merged_overlay_stays_exact() {
    let world = World::new().await;
    let device = world.device("a", &["all"]).await;
    let other = world.device("b", &["all"]).await;
    device.write(&world, "orders", Intent::Put, "o1", json!({"title": "first", "hours": 5})).await;
    device.write(&world, "orders", Intent::Patch, "o1", json!({"title": "second", "hours": {"$inc": 7}})).await;
    device.push(&world, Lane::State, None, 1).await.unwrap();
    world.write("orders", vec![edit(Intent::Patch, "o1", json!({"n": 3, "hours": {"$inc": 100}}))]).await;
    let (batches, checkpoint) = device.pull(&world, 100).await;
    assert_eq!(batches[0].own_merged.iter().find(|own| own.0 == Lane::State).unwrap().2, seq(1));
    apply(&device, batches).await;
    assert!(device.store.checkpoint(checkpoint.unwrap()).await.unwrap().equal(), "digests are over what was delivered");
    let row = device.row(&world, "orders", "o1").await;
    assert_eq!((&row["title"], &row["hours"], &row["n"]), (&json!("second"), &json!(112), &json!(3)));
    device.is_sound().await;
    device.sync(&world).await;
    other.sync(&world).await;
    for rows in [device.rows(&world, "orders").await, other.rows(&world, "orders").await] {
        assert_eq!(rows, world.rows("orders").await);
        assert_eq!(rows[0]["hours"], 112);
    }
}

/// A refused entry in the middle takes back what it did, and nothing else.
#[tokio::test]
async fn r14_a_refused_entry_is_taken_back_alone() {
    let world = World::new().await;
    let device = world.device("a", &["site:x"]).await;
    for (id, fields) in [("p", json!({"site": "x", "runs": 1})), ("q", json!({"site": "x", "speed": 1.5}))] {
        device.write(&world, "pumps", Intent::Put, id, fields).await;
    }
    device.sync(&world).await;
    let pumps = world.collection("pumps").id;
    device.write(&world, "pumps", Intent::Patch, "p", json!({"runs": {"$inc": 10}})).await;
    let moved = vec![
        edit(Intent::Patch, "p", json!({"site": "forbidden", "runs": {"$inc": 100}})),
        edit(Intent::Patch, "q", json!({"speed": 9.5})),
    ];
    device.store.write(pumps, moved, None).await.unwrap();
    device.write(&world, "pumps", Intent::Patch, "p", json!({"runs": {"$inc": 1000}})).await;
    assert_eq!(device.row(&world, "pumps", "p").await["runs"], 1111);
    let answer = device.push(&world, Lane::State, device.acked(Lane::State).await, 50).await.unwrap();
    let [reject] = answer.rejects.as_slice() else { panic!("{:?}", answer.rejects) };
    assert_eq!(reject.seq, seq(4));
    for _ in 0..2 {
        device.store.rejected(reject.clone()).await.unwrap();
        let (p, q) = (device.row(&world, "pumps", "p").await, device.row(&world, "pumps", "q").await);
        assert_eq!((&p["runs"], &p["site"], &q["speed"]), (&json!(1011), &json!("x"), &json!(1.5)));
    }
    device.take(answer).await;
    let inbox = device.store.inbox(None, 10).await.unwrap();
    assert_eq!((inbox.len(), inbox[0].seq, inbox[0].record.as_ref()), (1, seq(4), Some(&world.key("pumps", "p"))));
    assert_eq!(device.store.counts().await.unwrap().rejected, 1);
    device.sync(&world).await;
    assert_eq!(device.rows(&world, "pumps").await, world.rows("pumps").await);
    assert_eq!(device.row(&world, "pumps", "p").await["runs"], 1011);
}

/// A record that was refused at birth is gone, and so is one whose refusal was lost on the way, once the hub says that it is past it.
#[tokio::test]
async fn what_the_hub_never_took_is_not_shown_for_ever() {
    for refusal_arrives in [true, false] {
        let world = World::new().await;
        let device = world.device("a", &["site:x"]).await;
        device.write(&world, "pumps", Intent::Put, "p", json!({"site": "elsewhere"})).await;
        let mut answer = device.push(&world, Lane::State, None, 50).await.unwrap();
        if !refusal_arrives {
            answer.rejects.clear();
        }
        device.take(answer).await;
        assert_eq!(device.rows(&world, "pumps").await.len(), usize::from(!refusal_arrives));
        let compared = device.catch_up(&world).await;
        assert_eq!(compared.changed.len(), usize::from(!refusal_arrives));
        assert_eq!(device.rows(&world, "pumps").await, [json!(null); 0]);
        assert_eq!(device.count("SELECT count(*) FROM mobo_base"), 0);
    }
}

#[tokio::test]
async fn i4_duplicates_gaps_and_old_batches_change_nothing() {
    let world = World::new().await;
    let device = world.device("a", &["all"]).await;
    let write = async |n: i64| world.write("orders", vec![edit(Intent::Put, &format!("o{n}"), json!({ "n": n }))]).await;
    write(1).await;
    let (first, _) = device.pull(&world, 100).await;
    apply(&device, first.clone()).await;
    write(2).await;
    let (second, _) = device.pull(&world, 100).await;
    write(3).await;
    let third = Batch { from: second[0].to, to: mobo_core::ids::Position(second[0].to.0 + 1), items: vec![], ..second[0].clone() };
    let before = device.store.counts().await.unwrap();
    let foreign = Batch { timeline: Timeline([8; 16]), ..second[0].clone() };
    let unknown = Batch { bucket: mobo_core::ids::BucketId::new(1).unwrap(), ..second[0].clone() };
    for batch in [first[0].clone(), third, foreign, unknown] {
        assert!(matches!(device.store.apply(batch).await, Err(ApplyError::Mismatch(_))));
    }
    assert_eq!(device.store.counts().await.unwrap(), before);
    match device.store.apply(first[0].clone()).await {
        Err(ApplyError::Mismatch(Mismatch::Cursor { from, cursor })) => assert_eq!((from.0, cursor), (0, first[0].to)),
        other => panic!("{other:?}"),
    }
    apply(&device, second.clone()).await;
    assert!(device.store.apply(second[0].clone()).await.is_err());
    device.sync(&world).await;
    assert_eq!(device.rows(&world, "orders").await, world.rows("orders").await);
}

#[tokio::test]
async fn a_batch_that_the_schema_cannot_read_is_not_applied() {
    let world = World::new().await;
    let device = world.device("a", &["all"]).await;
    world.write("orders", vec![edit(Intent::Put, "o1", json!({"n": 1})), edit(Intent::Put, "o2", json!({"n": 1}))]).await;
    let (batches, _) = device.pull(&world, 100).await;
    let mut unknown = batches[0].clone();
    unknown.items[1].collection = mobo_core::ids::CollectionId::new(99).unwrap();
    let mut broken = batches[0].clone();
    broken.items[1].body = ItemBody::State { epoch: 0, bytes: vec![0xff] };
    for batch in [unknown, broken] {
        assert!(matches!(device.store.apply(batch).await, Err(ApplyError::NeedsSchema { .. })));
        assert_eq!((device.cursor("all").await.0, device.rows(&world, "orders").await.len()), (0, 0));
    }
    apply(&device, batches).await;
    assert_eq!(device.rows(&world, "orders").await.len(), 2);
}

/// Records move between buckets; a device sees them as long as it holds one of theirs (D5, R20).
#[tokio::test]
async fn r20_records_come_and_go_with_their_buckets() {
    let world = World::new().await;
    let device = world.device("a", &["site:x", "line:1"]).await;
    let narrow = world.device("b", &["site:x"]).await;
    let put = async |fields| world.write("pumps", vec![edit(Intent::Merge, "p", fields)]).await;
    let steps = [
        (json!({"site": "x", "line": 1}), true, true),
        (json!({"line": 2, "runs": {"$inc": 1}}), true, true),
        (json!({"site": "y"}), false, false),
        (json!({"line": 1}), true, false),
        (json!({"site": "x", "speed": 2.5}), true, true),
        (json!({"line": null}), true, true),
        (json!({"site": null, "line": 1}), true, false),
    ];
    for (fields, wide, close) in steps {
        put(fields.clone()).await;
        for (device, want) in [(&device, wide), (&narrow, close)] {
            device.sync(&world).await;
            assert_eq!(device.rows(&world, "pumps").await.len(), usize::from(want), "{fields}");
        }
    }
    // A pending write survives the leave of its record, and its merge ends it.
    narrow.write(&world, "pumps", Intent::Put, "q", json!({"site": "x"})).await;
    narrow.sync(&world).await;
    narrow.write(&world, "pumps", Intent::Patch, "q", json!({"runs": {"$inc": 3}})).await;
    world.write("pumps", vec![edit(Intent::Patch, "q", json!({"site": "y"}))]).await;
    narrow.catch_up(&world).await;
    assert_eq!(narrow.row(&world, "pumps", "q").await["runs"], 3, "what is pending stays");
    narrow.push_all(&world).await;
    narrow.catch_up(&world).await;
    assert_eq!(narrow.rows(&world, "pumps").await, [json!(null); 0]);
    assert_eq!(narrow.store.counts().await.unwrap().rejected, 1, "it may not write there any more");
}

#[tokio::test]
async fn deleted_records_stay_as_tombstones_and_revive() {
    let world = World::new().await;
    let (a, b) = (world.device("a", &["all"]).await, world.device("b", &["all"]).await);
    a.write(&world, "orders", Intent::Put, "o", json!({"hours": 5, "title": "t"})).await;
    a.sync(&world).await;
    b.sync(&world).await;
    b.write(&world, "orders", Intent::Delete, "o", json!({})).await;
    assert_eq!(b.row(&world, "orders", "o").await, json!(null));
    b.sync(&world).await;
    a.sync(&world).await;
    assert_eq!(a.row(&world, "orders", "o").await, json!(null));
    assert_eq!(a.count("SELECT count(*) FROM mobo_hidden WHERE position IS NOT NULL"), 1, "kept, with its place");
    a.write(&world, "orders", Intent::Put, "o", json!({"hours": 2})).await;
    assert_eq!(a.row(&world, "orders", "o").await["hours"], 2);
    a.sync(&world).await;
    b.sync(&world).await;
    assert_eq!(b.rows(&world, "orders").await, world.rows("orders").await);
    assert_eq!((b.row(&world, "orders", "o").await["hours"].clone(), a.count("SELECT count(*) FROM mobo_hidden")), (json!(2), 0));
}

// faults: X-16
#[tokio::test]
async fn a_revoked_bucket_takes_its_records_along_but_not_what_is_pending() {
    let world = World::new().await;
    let mut device = world.device("a", &["all", "site:x"]).await;
    world.write("pumps", (0..9).map(|n| edit(Intent::Put, &format!("p{n}"), json!({"site": "x"}))).collect()).await;
    world.write("orders", vec![edit(Intent::Put, "o", json!({}))]).await;
    device.sync(&world).await;
    device.write(&world, "pumps", Intent::Patch, "p3", json!({"speed": 1.5})).await;
    device.grants.retain(|grant| grant.key == "all");
    let admitted = device.hello(&world).await;
    assert_eq!((admitted.cursors.len(), admitted.forked, admitted.changed.len()), (1, None, 9));
    let left: Vec<_> = device.rows(&world, "pumps").await.into_iter().map(|row| row["id"].clone()).collect();
    assert_eq!((left, device.rows(&world, "orders").await.len()), (vec![json!("p3")], 1));
    device.sync(&world).await;
    assert_eq!(device.rows(&world, "pumps").await, [json!(null); 0]);
}

/// What differs is found, flagged, pulled anew, and what the hub does not have goes: never a pending write.
#[tokio::test]
async fn r13_a_divergence_is_found_and_healed() {
    let damages = [
        "UPDATE orders SET title = 'changed by hand' WHERE id = 'o3'",
        "DELETE FROM orders WHERE id = 'o3'",
        "UPDATE mobo_bucket SET digest = zeroblob(32)",
        "UPDATE orders SET _mobo = x'a0' WHERE id = 'o5'",
        "UPDATE orders SET title = 'shown wrong' WHERE id = 'mine'",
        "INSERT INTO orders SELECT 'ghost', title, hours, n, done, due, mobo_ver, _extra, _mobo, _bucket, _position FROM orders WHERE id = 'o3'",
    ];
    for (damage, digest_breaks) in damages.into_iter().zip([false, false, true, true, false, false]) {
        let world = World::new().await;
        let device = world.device("a", &["all"]).await;
        world.write("orders", (0..9).map(|n| edit(Intent::Put, &format!("o{n}"), json!({"n": n, "title": "t"}))).collect()).await;
        device.sync(&world).await;
        device.write(&world, "orders", Intent::Put, "mine", json!({"n": 7})).await;
        device.raw().execute_batch(&format!("UPDATE mobo_flag SET applying = 1; {damage}; UPDATE mobo_flag SET applying = 0")).unwrap();
        assert!(!device.store.audit().await.unwrap().is_clean(), "{damage}");
        world.write("orders", vec![edit(Intent::Patch, "o5", json!({"n": 33}))]).await;
        let compared = device.catch_up(&world).await;
        assert_eq!(compared.buckets[0].1 == Standing::Diverged, digest_breaks, "{damage}");
        if !digest_breaks {
            // What no digest shows, a health check finds.
            let audit = device.store.audit().await.unwrap();
            let again = device.store.repair(audit).await.unwrap();
            if damage.contains("mine") {
                // It was never delivered: it is laid anew over what it stands on.
                assert_eq!((again.len(), device.row(&world, "orders", "mine").await["title"].clone()), (0, json!(null)));
                device.is_sound().await;
                continue;
            }
            assert_eq!(again, [compared.buckets[0].0], "{damage}");
        }
        let counts = device.store.counts().await.unwrap();
        assert_eq!((counts.buckets[0].cursor.0, counts.buckets[0].diverged > 0), (0, digest_breaks), "{damage}");
        assert!(counts.buckets[0].unconfirmed >= 8, "{damage}");
        let compared = device.catch_up(&world).await;
        assert!(compared.equal(), "{damage}");
        let counts = device.store.counts().await.unwrap();
        assert_eq!((counts.buckets[0].diverged, counts.buckets[0].unconfirmed, counts.pending), (0, 0, 1), "{damage}");
        assert_eq!(device.row(&world, "orders", "mine").await["n"], 7, "{damage}");
        assert!(device.store.audit().await.unwrap().is_clean(), "{damage}");
        device.sync(&world).await;
        assert_eq!(device.rows(&world, "orders").await, world.rows("orders").await, "{damage}");
    }
}

/// Where the hub cannot deliver a record that its digest counts, the device keeps its own copy and does not pull for ever.
#[tokio::test]
async fn r13_a_hub_that_lacks_a_record_does_not_take_the_devices_copy() {
    let world = World::new().await;
    let device = world.device("a", &["all"]).await;
    world.write("orders", (0..4).map(|n| edit(Intent::Put, &format!("o{n}"), json!({ "n": n }))).collect()).await;
    device.sync(&world).await;
    let want = device.rows(&world, "orders").await;
    device.raw().execute_batch("UPDATE mobo_bucket SET digest = zeroblob(32)").unwrap();
    // The first checkpoint resets the bucket; the pull from the start leaves a record out.
    let torn = async |device: &Device| {
        let (mut batches, checkpoint) = device.pull(&world, 100).await;
        for batch in &mut batches {
            batch.items.retain(|item| item.id.as_str() != "o2");
        }
        apply(device, batches).await;
        device.store.checkpoint(checkpoint.unwrap()).await.unwrap()
    };
    for standing in [Standing::Diverged, Standing::Disputed, Standing::Disputed] {
        let compared = torn(&device).await;
        assert_eq!((compared.buckets[0].1, compared.equal()), (standing, false));
        assert_eq!(compared.diverged().is_empty(), standing == Standing::Disputed, "pulled again once");
        assert_eq!(device.rows(&world, "orders").await, want, "nothing is lost");
    }
    let counts = device.store.counts().await.unwrap();
    assert_eq!((counts.buckets[0].diverged, counts.buckets[0].unconfirmed), (3, 1), "and it is told");
    // The next session tries again, once however often the link breaks, and finds the hub repaired.
    assert_eq!(device.hello(&world).await.cursors[0].1.0, 0);
    let (batches, _) = device.pull(&world, 100).await;
    apply(&device, batches).await;
    assert!(device.hello(&world).await.cursors[0].1.0 > 0);
    assert!(device.catch_up(&world).await.equal());
    let counts = device.store.counts().await.unwrap();
    assert_eq!((counts.buckets[0].diverged, counts.buckets[0].unconfirmed), (0, 0));
    device.sync(&world).await;
    assert_eq!(device.rows(&world, "orders").await, want);
}

// faults: X-16
#[tokio::test]
async fn r18_on_another_timeline_nothing_goes_that_the_hub_may_have_forgotten() {
    let mut world = World::new().await;
    let device = world.device("a", &["all"]).await;
    world.write("orders", vec![edit(Intent::Put, "kept", json!({"n": 1})), edit(Intent::Put, "forgotten", json!({"n": 2}))]).await;
    device.sync(&world).await;
    // The hub comes back from a backup without the second one.
    let restored = World::new().await;
    restored.write("orders", vec![edit(Intent::Put, "kept", json!({"n": 1}))]).await;
    let restored_bucket = restored.buckets(&["all"]).await.remove(0).bucket;
    let (mut batches, checkpoint) = {
        let twin = restored.device("twin", &["all"]).await;
        twin.pull(&restored, 100).await
    };
    world.timeline = Timeline([10; 16]);
    let admitted = device.hello(&world).await;
    let bucket = admitted.cursors[0].0;
    assert_eq!((admitted.cursors[0].1.0, admitted.moved.unwrap().offers), (0, vec![bucket]));
    let mut checkpoint = checkpoint.unwrap();
    batches[0].bucket = bucket;
    batches[0].timeline = world.timeline;
    batches[0].own_merged.clear();
    checkpoint.timeline = world.timeline;
    checkpoint.own_merged.clear();
    for head in &mut checkpoint.heads {
        assert_eq!(head.0, restored_bucket);
        head.0 = bucket;
    }
    // Nothing is pulled, swept or purged before it was offered, in whatever session.
    let refused = device.store.apply(batches[0].clone()).await;
    assert!(matches!(refused, Err(ApplyError::Mismatch(Mismatch::Unoffered(_)))), "{refused:?}");
    device.store.revoke(bucket).await.unwrap();
    assert_eq!(device.hello(&world).await.moved.unwrap().offers, [bucket]);
    let (offer, more) = device.store.offer(bucket, None).await.unwrap();
    let offered: Vec<&str> = offer.rows.iter().map(|item| item.id.as_str()).collect();
    assert_eq!((offered, more), (vec!["forgotten", "kept"], None));
    assert_eq!(device.store.counts().await.unwrap().records, 2, "shown all the while");
    device.store.offered(bucket).await.unwrap();
    assert_eq!(device.hello(&world).await.moved, None);
    apply(&device, batches).await;
    let counts = device.store.counts().await.unwrap();
    assert_eq!((counts.records, counts.buckets[0].unconfirmed), (2, 1), "shown until the pull is complete");
    // A version of the old timeline says nothing about what was seen on the new one.
    for (id, seen) in [("kept", true), ("forgotten", false)] {
        let at = device.write(&world, "orders", Intent::Patch, id, json!({"n": 5})).await.entry.unwrap().seq;
        let entry = device.outgoing(Lane::State, mobo_core::ids::Seq::new(at.get() - 1), 1).await.unwrap().entries.remove(0).entry;
        let mobo_core::entry::Payload::Present(payload) = entry.payload else { panic!() };
        assert_eq!(mobo_core::table::op::decode_payload(&payload).unwrap()[0].base_ver.0 > 0, seen, "{id}");
    }
    // What was offered and is not named by a complete pull is gone: the hub had its say.
    assert!(device.store.checkpoint(checkpoint.clone()).await.unwrap().equal());
    let counts = device.store.counts().await.unwrap();
    assert_eq!(counts.buckets[0].unconfirmed, 0);
    checkpoint.heads.clear();
    assert!(
        !device.store.checkpoint(checkpoint).await.unwrap().equal(),
        "a bucket that the hub does not speak of is not known to be equal"
    );
}
