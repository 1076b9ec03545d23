//! What the hub refuses: told, taken back, written again, tried again or let go; and edits whose bucket was taken away.

use mobo_adapters::sqlite::edge::{InboxRow, InboxStatus, WriteError};
use mobo_core::author::Intent;
use mobo_core::ids::{Lane, LaneKey};
use mobo_core::merge::{Grants, Outcome, Prepared, Retry, Rights};
use mobo_core::message::{Code, Grant};
use mobo_core::schema::Kind;
use mobo_core::store::{HubStore, StoreError};
use serde_json::{Map, Value as Json, json};

use crate::world::{Answer, Device, World, collection, edit, seq};

async fn world() -> World {
    let mut world = World::new().await;
    world.create(collection(800_000_000_000_000, "tasks", Kind::Document, "title:text rank:int likes:counter", &["rank:{rank}"])).await;
    world
}

fn map(fields: &Json) -> Map<String, Json> {
    fields.as_object().cloned().unwrap()
}

async fn push(device: &Device, world: &World) -> Answer {
    device.push(world, Lane::State, device.acked(Lane::State).await, 50).await.unwrap()
}

fn codes(answer: &Answer) -> Vec<Code> {
    answer.rejects.iter().map(|reject| reject.code).collect()
}

async fn refused(device: &Device, n: u64) -> InboxRow {
    device.store.refused(n).await.unwrap().unwrap()
}

/// The hub's operator retries an entry of a device's log under these rights.
async fn retry_at_hub(world: &World, device: &Device, number: u64, buckets: &[&str]) -> Outcome {
    let incarnation = device.store.node().await.unwrap().incarnation.unwrap();
    let lane = LaneKey { device: device.keys.device(), incarnation, lane: Lane::State };
    let rights = Rights::Buckets(buckets.iter().map(|bucket| (*bucket).to_owned()).collect());
    world.outcome(Prepared::Retry(Box::new(Retry { lane, seq: seq(number), rights }))).await
}

/// What was written on top of a refused change of a document is written again without it: nothing of it is lost, and nothing counts twice,
/// whichever refusals are heard, how often and in which order.
#[tokio::test]
async fn what_builds_on_a_refused_change_is_written_again() {
    let orders: [&[usize]; 4] = [&[0, 1, 2, 3], &[0, 0, 1, 1, 3, 2], &[0], &[3, 2, 1, 0]];
    for order in orders {
        let world = world().await;
        let device = world.device("a", &["rank:1"]).await;
        device.write(&world, "tasks", Intent::Put, "t", json!({"title": "pump", "rank": 1, "likes": 1})).await;
        device.sync(&world).await;
        device.write(&world, "tasks", Intent::Patch, "t", json!({"rank": 2, "likes": {"$inc": 5000}})).await;
        device.write(&world, "tasks", Intent::Patch, "t", json!({"likes": {"$inc": 10}})).await;
        device.write(&world, "tasks", Intent::Patch, "t", json!({"title": "pump 7", "likes": {"$inc": 100}})).await;
        device.write(&world, "tasks", Intent::Patch, "t", json!({"title": "pump 7 is loud"})).await;
        let mut answer = push(&device, &world).await;
        assert_eq!(codes(&answer), [Code::FORBIDDEN, Code::BLOCKED, Code::BLOCKED, Code::BLOCKED]);
        let all = std::mem::take(&mut answer.rejects);
        answer.rejects = order.iter().map(|index| all[*index].clone()).collect();
        let in_order = order[0] == 0;
        device.take(answer).await;
        let row = device.row(&world, "tasks", "t").await;
        let open = device.store.inbox(None, 10).await.unwrap();
        if in_order {
            assert_eq!((&row["title"], &row["rank"], &row["likes"]), (&json!("pump 7 is loud"), &json!(1), &json!(111)), "{order:?}");
            let [first] = open.as_slice() else { panic!("{open:?}") };
            assert_eq!((first.seq, first.code), (seq(2), Code::FORBIDDEN.0));
            let edits = first.edits.as_ref().unwrap();
            assert_eq!(edits[0].edit, edit(Intent::Patch, "t", json!({"rank": 2, "likes": {"$inc": 5000}})));
            for (n, was, now) in [(2, 3, 6), (3, 4, 7), (4, 5, 8)] {
                let row = refused(&device, n).await;
                assert_eq!((row.seq, row.status, row.blocked_by), (seq(was), InboxStatus::Retried, Some(first.n)));
                assert_eq!(row.next.map(|next| next.2), Some(seq(now)));
            }
        } else {
            // Not how a hub says it; but nothing is lost either way: what could not be written again waits for somebody.
            assert_eq!(open.len() + usize::try_from(device.count("SELECT count(*) FROM mobo_inbox WHERE status = 1")).unwrap(), 4);
            assert_eq!(row["rank"], 1);
        }
        device.sync(&world).await;
        assert_eq!(device.rows(&world, "tasks").await, world.rows("tasks").await);
        if in_order {
            assert_eq!(device.row(&world, "tasks", "t").await["likes"], 111);
        }
    }
}

/// Where there is nothing to write it to, it waits for its first, and goes after it.
#[tokio::test]
async fn a_refused_birth_keeps_what_was_done_to_it() {
    let world = world().await;
    let device = world.device("a", &["rank:1"]).await;
    device.write(&world, "tasks", Intent::Put, "t", json!({"title": "pump", "rank": 2})).await;
    device.write(&world, "tasks", Intent::Patch, "t", json!({"likes": {"$inc": 10}})).await;
    device.write(&world, "tasks", Intent::Put, "other", json!({"title": "fan", "rank": 1})).await;
    let answer = push(&device, &world).await;
    assert_eq!(codes(&answer), [Code::FORBIDDEN, Code::BLOCKED]);
    device.take(answer).await;
    assert_eq!(device.row(&world, "tasks", "t").await, Json::Null);
    assert_eq!(device.row(&world, "tasks", "other").await["title"], "fan", "its neighbours are not affected");
    let open = device.store.inbox(None, 10).await.unwrap();
    assert_eq!(open.iter().map(|row| (row.n, row.blocked_by)).collect::<Vec<_>>(), [(2, Some(1)), (1, None)]);
    assert_eq!(device.store.inbox(Some(2), 10).await.unwrap().len(), 1, "behind a number");

    assert!(matches!(device.store.retry(2, None).await, Err(WriteError::Edit(_))), "there is nothing to change yet");
    let written = device.store.retry(1, Some(map(&json!({"rank": 1})))).await.unwrap();
    assert_eq!(written.changed, [world.key("tasks", "t")]);
    device.store.retry(2, None).await.unwrap();
    let counts = device.store.counts().await.unwrap();
    assert_eq!((counts.rejected, counts.pending), (0, 2));
    device.sync(&world).await;
    let row = device.row(&world, "tasks", "t").await;
    assert_eq!((&row["title"], &row["rank"], &row["likes"]), (&json!("pump"), &json!(1), &json!(10)));
    assert_eq!(device.rows(&world, "tasks").await, world.rows("tasks").await);
}

/// An entry that is retried at both ends counts once, whoever comes first.
#[tokio::test]
async fn r15_a_retry_at_both_ends_counts_once() {
    for hub_first in [true, false] {
        let world = World::new().await;
        let mut device = world.device("a", &["site:x"]).await;
        device.write(&world, "pumps", Intent::Put, "p", json!({"site": "y", "runs": 7, "speed": 1.5})).await;
        let answer = push(&device, &world).await;
        device.take(answer).await;
        device.grants = world.buckets(&["site:x", "site:y"]).await;
        device.hello(&world).await;
        if hub_first {
            assert!(matches!(retry_at_hub(&world, &device, 1, &["site:y"]).await, Outcome::Merged(merged) if merged.rejects.is_empty()));
        }
        device.store.retry(1, None).await.unwrap();
        device.sync(&world).await;
        if !hub_first {
            let late = retry_at_hub(&world, &device, 1, &["site:y"]).await;
            assert!(matches!(late, Outcome::Refused(_)), "it is not open any more: {late:?}");
            device.sync(&world).await;
        }
        assert_eq!(device.row(&world, "pumps", "p").await["runs"], 7, "{hub_first}");
        assert_eq!(device.rows(&world, "pumps").await, world.rows("pumps").await);
        let row = refused(&device, 1).await;
        assert!(row.status == InboxStatus::Retried && row.settled_us.is_some() && row.next.is_some(), "{row:?}");
    }
}

/// Nothing that was refused is ever gone without a word: it is open, retried, or dropped by somebody.
#[tokio::test]
async fn a_refused_entry_is_decided_about_once() {
    let world = World::new().await;
    let device = world.device("a", &["site:x"]).await;
    let pumps = world.collection("pumps").id;
    let two = ["p", "q"].map(|id| edit(Intent::Put, id, json!({"site": "y"})));
    device.store.write(pumps, two.to_vec(), None).await.unwrap();
    device.write(&world, "pumps", Intent::Put, "r", json!({"site": "y", "speed": 2.5})).await;
    let answer = push(&device, &world).await;
    device.take(answer).await;
    assert_eq!(device.store.counts().await.unwrap().rejected, 2);
    let correction = Some(map(&json!({"site": "x"})));
    assert!(matches!(device.store.retry(1, correction.clone()).await, Err(WriteError::Edit(_))), "which of the two would that be for?");
    device.store.forget_refused(1).await.unwrap();
    for n in [1, 404] {
        assert!(matches!(device.store.forget_refused(n).await, Err(StoreError::Refused(_))));
        assert!(matches!(device.store.retry(n, None).await, Err(WriteError::Store(StoreError::Refused(_)))));
    }
    assert_eq!(refused(&device, 1).await.status, InboxStatus::Dropped);
    assert_eq!(refused(&device, 1).await.edits.unwrap().len(), 2, "what it would have done stays on record");
    assert_eq!(device.store.refused(404).await.unwrap(), None);
    let bad = device.store.retry(2, Some(map(&json!({"speed": "fast"})))).await;
    assert!(matches!(bad, Err(WriteError::Edit(_))), "{bad:?}");
    assert_eq!(refused(&device, 2).await.status, InboxStatus::Open, "a correction that does not fit changes nothing");
    device.store.retry(2, correction).await.unwrap();
    device.sync(&world).await;
    assert_eq!(device.rows(&world, "pumps").await, world.rows("pumps").await);
    assert_eq!(device.row(&world, "pumps", "r").await["speed"], 2.5);
    assert_eq!(device.store.inbox(None, 10).await.unwrap(), []);
}

/// A bucket that is taken away takes its records along, except those with edits that the hub does not have: these are `detached` until the
/// hub has them, or refuses them.
#[tokio::test]
async fn d5_unsent_edits_survive_the_end_of_a_right() {
    for accepted in [true, false] {
        let world = World::new().await;
        let mut device = world.device("a", &["site:x", "line:1"]).await;
        for id in ["p", "q"] {
            device.write(&world, "pumps", Intent::Put, id, json!({"site": "x", "runs": 1})).await;
        }
        device.write(&world, "pumps", Intent::Put, "shared", json!({"site": "x", "line": 1})).await;
        device.sync(&world).await;
        device.write(&world, "pumps", Intent::Patch, "p", json!({"runs": {"$inc": 10}})).await;
        device.write(&world, "pumps", Intent::Put, "born", json!({"site": "x"})).await;
        let detached =
            async |device: &Device, id: &str| device.store.record(world.key("pumps", id)).await.unwrap().map(|record| record.detached);
        assert_eq!(detached(&device, "p").await, Some(false));

        let x = device.grants.iter().find(|grant| grant.key == "site:x").unwrap().bucket;
        device.grants.retain(|grant| grant.key != "site:x");
        device.store.revoke(x).await.unwrap();
        let states = [
            detached(&device, "p").await,
            detached(&device, "q").await,
            detached(&device, "shared").await,
            detached(&device, "born").await,
        ];
        assert_eq!(states, [Some(true), None, Some(false), Some(true)], "what another bucket holds stays; what is unsent is detached");
        assert_eq!(device.store.counts().await.unwrap().detached.len(), 2);
        assert_eq!(device.row(&world, "pumps", "p").await["runs"], 11);
        device.is_sound().await;

        let until = if accepted { i64::MAX } else { i64::MIN };
        let ended = [("site:x".to_owned(), mobo_core::time::Eff(until))].into();
        let grants = Grants { live: ["line:1".to_owned()].into(), ended, owes_offers: false };
        let answer = device.push_as(&world, Lane::State, device.acked(Lane::State).await, Rights::Buckets(grants)).await.unwrap();
        assert_eq!(codes(&answer), vec![Code::FORBIDDEN; if accepted { 0 } else { 2 }]);
        device.take(answer).await;
        device.catch_up(&world).await;
        assert_eq!(device.store.counts().await.unwrap().detached, []);
        assert_eq!((detached(&device, "p").await, detached(&device, "born").await), (None, None), "the hub has decided: they are gone");
        assert_eq!(device.store.inbox(None, 10).await.unwrap().len(), if accepted { 0 } else { 2 });
        let runs = world.rows("pumps").await.into_iter().find(|row| row["id"] == "p").unwrap()["runs"].clone();
        assert_eq!(runs, if accepted { 11 } else { 1 });
        device.is_sound().await;

        // Granted again, it is all there again, and what was refused can be retried.
        device.grants.push(Grant { bucket: x, key: "site:x".to_owned(), write: true });
        device.hello(&world).await;
        device.catch_up(&world).await;
        if !accepted {
            for n in [1, 2] {
                device.store.retry(n, None).await.unwrap();
            }
        }
        device.sync(&world).await;
        assert_eq!(device.rows(&world, "pumps").await, world.rows("pumps").await);
        assert_eq!(device.row(&world, "pumps", "p").await["runs"], 11);
    }
}

/// Another right on a bucket that is held changes the right and nothing else.
#[tokio::test]
async fn a_changed_right_reads_nothing_again() {
    let world = World::new().await;
    let mut device = world.device("a", &["site:x"]).await;
    device.write(&world, "pumps", Intent::Put, "p", json!({"site": "x"})).await;
    device.sync(&world).await;
    let cursor = device.cursor("site:x").await;
    device.grants[0].write = false;
    device.store.grant(device.grants[0].clone()).await.unwrap();
    assert_eq!(device.cursor("site:x").await, cursor);
    assert!(!device.store.counts().await.unwrap().buckets[0].grant.write);
    device.write(&world, "pumps", Intent::Patch, "p", json!({"line": 1})).await;
    let answer = push(&device, &world).await;
    assert_eq!(codes(&answer), [Code::FORBIDDEN], "a device can always write; whether it may is the hub's to say");
    device.take(answer).await;
    device.sync(&world).await;
    assert_eq!(device.rows(&world, "pumps").await, world.rows("pumps").await);
    let entries = world.hub.refusals(world.project, device.keys.device(), device.store.node().await.unwrap().incarnation.unwrap()).await;
    assert_eq!(entries.unwrap().len(), 1);
}
