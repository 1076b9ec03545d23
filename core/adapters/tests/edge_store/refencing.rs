//! One identity used twice: both people's writes are kept, each exactly once (R15, D2, I11).

use mobo_adapters::sqlite::edge::{Keep, Reached};
use mobo_core::author::Intent;
use mobo_core::ids::{Incarnation, Lane};
use mobo_core::level::AckLevel;
use mobo_core::merge::Outcome;
use mobo_core::message::{Code, Refence, RefenceReason};
use mobo_core::schema::FieldChanges;
use serde_json::json;

use crate::world::{Device, World, edit, seq};

/// What a hub orders: its chains at the positions that the device may hold.
async fn order(world: &World, device: &Device, lane: Lane) -> Refence {
    let report = device.store.report().await.unwrap();
    let incarnation = report.node.incarnation.unwrap();
    let key = mobo_core::ids::LaneKey { device: device.keys.device(), incarnation, lane };
    let last = report.lanes.iter().find(|report| report.lane == lane).map_or(0, |report| report.last.get());
    let mut chains = Vec::new();
    for number in 1..=last {
        let chain = mobo_core::store::HubStore::chain_at(&world.hub, world.project, key, seq(number)).await.unwrap();
        chains.extend(chain.map(|chain| (seq(number), chain)));
    }
    Refence { lane, hub_last: chains.last().map(|last| last.0), chains, reason: RefenceReason::Forked, closed: None }
}

async fn refence(world: &World, device: &Device, order: Option<Refence>) -> mobo_adapters::sqlite::edge::Refenced {
    let refenced = device.store.refence(order, Incarnation::from_entropy(world.draw())).await.unwrap();
    device.is_sound().await;
    assert_eq!(device.hello(world).await.forked, None);
    refenced
}

/// A cloned card: both copies wrote, both were offline (I-1).
// faults: I-1, I-2
#[tokio::test]
async fn r15_i1_a_clone_and_its_original_both_keep_their_writes() {
    let world = World::new().await;
    let device = world.device("a", &["all"]).await;
    device.write(&world, "orders", Intent::Put, "shared", json!({"hours": 1, "title": "before"})).await;
    device.sync(&world).await;
    device.write(&world, "orders", Intent::Patch, "shared", json!({"hours": {"$inc": 10}})).await;
    let clone = device.clone_to(&world, "clone").await;
    device.write(&world, "orders", Intent::Patch, "shared", json!({"hours": {"$inc": 100}})).await;
    device.append(&world, &[0.5, 0.75]).await;
    device.sync(&world).await;
    for n in 0..3 {
        clone.write(&world, "orders", Intent::Put, &format!("clone{n}"), json!({ "n": n })).await;
    }
    clone.write(&world, "orders", Intent::Patch, "shared", json!({"hours": {"$inc": 1000}, "title": "clone"})).await;
    clone.append(&world, &[0.25]).await;
    let before = clone.rows(&world, "orders").await;
    // What the hub says to the clone's push: another log.
    let outgoing = clone.outgoing(Lane::State, clone.acked(Lane::State).await, 50).await.unwrap();
    let outcome = world.outcome(clone.submission(&world, Lane::State, outgoing)).await;
    assert!(matches!(outcome, Outcome::Refence { .. }), "{outcome:?}");
    assert_eq!(clone.hello(&world).await.forked, Some(Lane::State), "the clone can see it by itself");
    let refenced = refence(&world, &clone, Some(order(&world, &clone, Lane::State).await)).await;
    // The entry that both had before the fork is at the hub already: it counts as acknowledged.
    assert_eq!((refenced.settled, refenced.reauthored, refenced.dropped), (1, 5, 0));
    assert_eq!(clone.rows(&world, "orders").await, before, "nothing changes for whoever looks");
    clone.sync(&world).await;
    device.sync(&world).await;
    for rows in [clone.rows(&world, "orders").await, device.rows(&world, "orders").await] {
        assert_eq!(rows, world.rows("orders").await);
        assert_eq!(rows.iter().find(|row| row["id"] == "shared").unwrap()["hours"], 1111);
    }
    assert_eq!(world.rows("vitals").await.len(), 3);
}

/// Entries that the hub has merged, while the device does not know, are not counted twice, whether or not the hub can name them.
#[tokio::test]
async fn r15_what_the_hub_has_under_its_old_name_is_not_merged_again() {
    for (hub_names_chains, again) in [(true, false), (false, false), (false, true)] {
        let world = World::new().await;
        let device = world.device("a", &["all"]).await;
        device.write(&world, "orders", Intent::Put, "o", json!({"hours": 1})).await;
        device.write(&world, "orders", Intent::Patch, "o", json!({"hours": {"$inc": 10}})).await;
        device.append(&world, &[0.5]).await;
        let lost = device.push(&world, Lane::State, None, 50).await.unwrap();
        device.push(&world, Lane::Telemetry, None, 50).await.unwrap();
        assert_eq!(lost.rejects, []);
        device.write(&world, "orders", Intent::Patch, "o", json!({"hours": {"$inc": 100}})).await;
        let order = if hub_names_chains { Some(order(&world, &device, Lane::State).await) } else { None };
        let refenced = refence(&world, &device, order).await;
        assert_eq!((refenced.settled, refenced.reauthored), if hub_names_chains { (2, 2) } else { (0, 4) });
        if again {
            // The answer to the new log's push is lost, and the device is refenced once more: the first sealing is what counts.
            device.push(&world, Lane::State, None, 2).await.unwrap();
            refence(&world, &device, None).await;
        }
        assert_eq!(device.row(&world, "orders", "o").await["hours"], 111);
        device.sync(&world).await;
        assert_eq!((device.rows(&world, "orders").await, device.rows(&world, "vitals").await.len()), (world.rows("orders").await, 1));
        assert_eq!(device.row(&world, "orders", "o").await["hours"], 111);
        assert_eq!(world.rows("vitals").await, device.rows(&world, "vitals").await);
    }
}

/// An image of last week that is put back: the hub has more than the device (I-3).
// faults: I-3
#[tokio::test]
async fn i3_a_restored_image_goes_on_under_a_new_log() {
    let world = World::new().await;
    let device = world.device("a", &["all"]).await;
    device.write(&world, "orders", Intent::Put, "old", json!({"hours": 1})).await;
    device.sync(&world).await;
    let image = device.clone_to(&world, "image").await;
    device.write(&world, "orders", Intent::Patch, "old", json!({"hours": {"$inc": 10}})).await;
    device.sync(&world).await;
    assert_eq!(image.hello(&world).await.forked, Some(Lane::State));
    image.write(&world, "orders", Intent::Patch, "old", json!({"hours": {"$inc": 100}})).await;
    refence(&world, &image, Some(order(&world, &image, Lane::State).await)).await;
    let node = image.store.node().await.unwrap();
    assert_eq!(node.parent.unwrap().seq, Some(seq(1)));
    image.sync(&world).await;
    assert_eq!(image.row(&world, "orders", "old").await["hours"], 111);
    assert_eq!(image.rows(&world, "orders").await, world.rows("orders").await);
}

#[tokio::test]
async fn documents_are_authored_again_by_their_new_log() {
    let world = World::new().await;
    let device = world.device("a", &["all"]).await;
    device.write(&world, "notes", Intent::Put, "n", json!({"title": "one", "tags": ["a"], "likes": 1, "rank": 1})).await;
    device.sync(&world).await;
    let clone = device.clone_to(&world, "clone").await;
    device.write(&world, "notes", Intent::Patch, "n", json!({"title": "one two", "likes": {"$inc": 10}})).await;
    device.sync(&world).await;
    clone.write(&world, "notes", Intent::Patch, "n", json!({"title": "zero one", "tags": ["a", "b"], "likes": {"$inc": 100}})).await;
    clone.write(&world, "notes", Intent::Patch, "n", json!({"rank": 7, "likes": {"$inc": 1000}})).await;
    clone.write(&world, "notes", Intent::Put, "m", json!({"title": "new", "likes": 5})).await;
    clone.write(&world, "notes", Intent::Put, "gone", json!({"title": "short life"})).await;
    clone.write(&world, "notes", Intent::Delete, "gone", json!({})).await;
    let before = clone.rows(&world, "notes").await;
    let refenced = refence(&world, &clone, Some(order(&world, &clone, Lane::State).await)).await;
    assert_eq!((refenced.reauthored, refenced.dropped), (5, 0));
    assert_eq!(clone.rows(&world, "notes").await, before);
    clone.sync(&world).await;
    device.sync(&world).await;
    for rows in [clone.rows(&world, "notes").await, device.rows(&world, "notes").await] {
        assert_eq!(rows, world.rows("notes").await);
        let n = rows.iter().find(|row| row["id"] == "n").unwrap();
        assert_eq!(
            (&n["title"], &n["likes"], &n["tags"], &n["rank"]),
            (&json!("zero one two"), &json!(1111), &json!(["a", "b"]), &json!(7))
        );
        assert_eq!(rows.len(), 2);
    }
}

/// An edit that a new log cannot make is not forgotten: it waits for somebody's word, like one that the hub refused.
///
/// What broke: the entry was superseded by nothing, the row showed what it had been before, and no inbox, status or log said so.
// faults: I-1
#[tokio::test]
async fn what_cannot_be_written_again_is_in_the_inbox() {
    let mut world = World::new().await;
    let device = world.device("a", &["all"]).await;
    device.write(&world, "notes", Intent::Put, "n", json!({"title": "one", "rank": 1})).await;
    device.sync(&world).await;
    device.write(&world, "notes", Intent::Patch, "n", json!({"rank": 7})).await;
    device.write(&world, "notes", Intent::Patch, "n", json!({"title": "two", "rank": 8})).await;
    world.alter("notes", &FieldChanges { retire: vec!["rank".to_owned()], ..FieldChanges::default() }).await;
    device.store.put_schema(world.definitions()).await.unwrap();
    let refenced = refence(&world, &device, None).await;
    assert_eq!((refenced.reauthored, refenced.dropped, refenced.lost), (1, 1, 2));
    let mut inbox = device.store.inbox(None, 10).await.unwrap();
    inbox.sort_by_key(|row| row.n);
    let told: Vec<_> =
        inbox.iter().map(|row| (row.record.as_ref().unwrap().id.to_string(), row.edits.clone().unwrap()[0].edit.fields.clone())).collect();
    let want = |rank: i64| ("n".to_owned(), json!({ "rank": rank }).as_object().unwrap().clone());
    assert_eq!(told, [want(7), want(8)]);
    assert!(inbox.iter().all(|row| row.detail.contains("\"rank\" was retired")), "{inbox:?}");
    device.sync(&world).await;
    assert_eq!(world.rows("notes").await[0]["title"], "two");
    assert_eq!(device.store.inbox(None, 10).await.unwrap().len(), 2, "until somebody decides");
}

#[tokio::test]
async fn a_new_log_before_anything_was_acknowledged_keeps_everything() {
    let world = World::new().await;
    let mut device = world.device("a", &["all"]).await;
    let orders = world.collection("orders").id;
    device.store.write(orders, vec![edit(Intent::Put, "o", json!({"hours": 7}))], Some("ann".to_owned())).await.unwrap();
    for _ in 0..3 {
        refence(&world, &device, None).await;
        device.reopen();
    }
    assert_eq!(device.row(&world, "orders", "o").await["hours"], 7);
    device.sync(&world).await;
    assert_eq!(device.rows(&world, "orders").await, world.rows("orders").await);
}

/// What broke: a write that was authored again in a log, acknowledged there, and left behind with that log was followed to no log but the last
/// one. Whoever waited for the hub's word on it waited for ever.
#[tokio::test]
async fn a_write_is_followed_through_all_logs() {
    let world = World::new().await;
    let device = world.device("a", &["all"]).await;
    let written = device.write(&world, "orders", Intent::Put, "o", json!({"hours": 1})).await.entry.unwrap();
    let reached = async || {
        let mut at = written;
        loop {
            match device.store.level(at).await.unwrap() {
                Reached::Moved(to) => at = to,
                reached @ (Reached::Level(_) | Reached::Refused { .. }) => return reached,
            }
        }
    };
    refence(&world, &device, None).await;
    assert_eq!(reached().await, Reached::Level(AckLevel::Local));
    refence(&world, &device, None).await;
    assert_eq!(reached().await, Reached::Level(AckLevel::Local));
    device.sync(&world).await;
    assert_eq!(reached().await, Reached::Level(AckLevel::Hub));
    refence(&world, &device, None).await;
    assert_eq!(reached().await, Reached::Level(AckLevel::Hub), "in the log before the last");
}

/// What broke: of a write that was authored again, what it was before goes first where room is short. From then on it was said to be on this
/// device alone, and whoever waited for the hub's word on it waited for ever.
#[tokio::test]
async fn a_write_is_followed_when_what_it_was_is_gone() {
    let world = World::new().await;
    let device = world.device("a", &["all"]).await;
    let write = async |id: &str| device.write(&world, "orders", Intent::Put, id, json!({"hours": 1})).await.entry.unwrap();
    let (one, two) = (write("one").await, write("two").await);
    let trim = || device.store.trim(Keep { age_us: u64::MAX, bytes_max: 0 });
    for log in 0..2 {
        refence(&world, &device, None).await;
        assert_eq!(trim().await.unwrap(), 2, "what they were is dropped");
        for written in [one, two] {
            let moved = device.store.level(written).await.unwrap();
            let Reached::Moved(to) = moved else { panic!("{moved:?} in log {log}") };
            assert_eq!(device.store.level(to).await.unwrap(), Reached::Level(AckLevel::Local), "log {log}");
        }
    }
    device.sync(&world).await;
    for what in ["kept", "dropped as well"] {
        let moved = device.store.level(one).await.unwrap();
        let moved = if let Reached::Moved(to) = moved { device.store.level(to).await.unwrap() } else { moved };
        assert_eq!(moved, Reached::Level(AckLevel::Hub), "what they are is {what}");
        assert_eq!(trim().await.unwrap(), u64::from(what == "kept") * 2);
    }
}

/// Both copies of a card author the same pending edit of a document again. The hub takes the first one in, so the other copy's later edits
/// build on a change that the hub never gets: they are written again on what it has, whichever way its word comes, and count once.
#[tokio::test]
async fn r15_edits_of_a_document_survive_a_copy_that_was_faster() {
    for case in ["refusals first", "delivery first", "refused one by one", "not pushed yet"] {
        let world = World::new().await;
        let device = world.device("a", &["all"]).await;
        device.write(&world, "notes", Intent::Put, "n", json!({"title": "one", "likes": 1, "rank": 1})).await;
        device.sync(&world).await;
        device.write(&world, "notes", Intent::Patch, "n", json!({"likes": {"$inc": 10}, "rank": 2})).await;
        let clone = device.clone_to(&world, "clone").await;
        refence(&world, &device, None).await;
        refence(&world, &clone, None).await;
        clone.write(&world, "notes", Intent::Patch, "n", json!({"likes": {"$inc": 100}, "rank": 3})).await;
        clone.write(&world, "notes", Intent::Patch, "n", json!({"likes": {"$inc": 1000}, "title": "one two"})).await;
        clone.write(&world, "notes", Intent::Put, "m", json!({"likes": 7})).await;
        device.sync(&world).await;
        let mut answers = Vec::new();
        if case != "not pushed yet" {
            let entries_max = if case == "refused one by one" { 1 } else { 50 };
            let mut after = clone.acked(Lane::State).await;
            while let Some(answer) = clone.push(&world, Lane::State, after, entries_max).await {
                after = Some(answer.ack.acked);
                answers.push(answer);
            }
            let refused: Vec<Code> = answers.iter().flat_map(|answer| &answer.rejects).map(|reject| reject.code).collect();
            assert_eq!(refused, [Code::MISSING_DEPENDENCY, Code::BLOCKED], "{case}");
        }
        if case == "delivery first" {
            clone.catch_up(&world).await;
        }
        for answer in answers {
            clone.take(answer).await;
            let n = clone.row(&world, "notes", "n").await;
            assert_eq!(
                (&n["likes"], &n["rank"], &n["title"]),
                (&json!(1111), &json!(3), &json!("one two")),
                "{case}: nothing is taken back"
            );
        }
        for copy in [&clone, &clone, &device] {
            copy.sync(&world).await;
        }
        for rows in [clone.rows(&world, "notes").await, device.rows(&world, "notes").await] {
            assert_eq!(rows, world.rows("notes").await, "{case}");
            let n = rows.iter().find(|row| row["id"] == "n").unwrap();
            assert_eq!((&n["likes"], &n["rank"], &n["title"]), (&json!(1111), &json!(3), &json!("one two")), "{case}");
        }
        assert_eq!(clone.store.inbox(None, 10).await.unwrap(), [], "{case}: nobody has to decide anything");
        let open = mobo_core::store::HubStore::quarantine(&world.hub, world.project, None, 10).await.unwrap();
        assert_eq!(open, [], "{case}: nor at the hub");
    }
}
