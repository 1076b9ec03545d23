//! A hub that has gone back in time refuses changes of documents for what it has lost, and gets that back: nobody has to do anything (R16, R18).

use mobo_core::author::Intent;
use mobo_core::ids::{Incarnation, Lane, Seq};
use mobo_core::limits;
use mobo_core::message::{Code, Reject};
use serde_json::json;

use crate::world::{Device, World, seq};

async fn log(device: &Device) -> Incarnation {
    device.store.report().await.unwrap().node.incarnation.unwrap()
}

/// What the hub says of an entry whose ground it has lost.
async fn refused(world: &World, device: &Device, at: u64, code: Code) -> Reject {
    let incarnation = log(device).await;
    let record = world.key("notes", "n");
    Reject {
        lane: Lane::State,
        incarnation,
        seq: seq(at),
        code,
        detail: "a change builds on one that is not here".to_owned(),
        hub_ver: mobo_core::ids::Ver(0),
        record: Some((record.collection, record.id)),
    }
}

async fn last(device: &Device) -> Option<Seq> {
    let report = device.store.report().await.unwrap();
    report.lanes.iter().find(|report| report.lane == Lane::State).map(|report| report.last)
}

async fn like(world: &World, device: &Device, more: i64) {
    device.write(world, "notes", Intent::Patch, "n", json!({ "likes": { "$inc": more } })).await;
}

/// In the end both have the same, and each like once.
async fn agree(world: &World, device: &Device, likes: i64) {
    device.sync(world).await;
    assert_eq!(device.row(world, "notes", "n").await["likes"], json!(likes));
    assert_eq!(world.rows("notes").await, device.rows(world, "notes").await);
}

async fn begun(world: &World) -> Device {
    let device = world.device("a", &["all"]).await;
    device.write(world, "notes", Intent::Put, "n", json!({ "likes": 1 })).await;
    device.sync(world).await;
    device
}

/// Refused is what was delivered long ago: the device holds it, and gives it back with the document. Before, it was shown as refused, and what
/// was written on top of it was written again, under names that met the first ones when these were merged after all.
#[tokio::test]
async fn a_refusal_of_what_the_delivered_document_holds_says_nothing() {
    for code in [Code::MISSING_DEPENDENCY, Code::BLOCKED, Code::BAD_CHANGE] {
        let world = World::new().await;
        let device = begun(&world).await;
        like(&world, &device, 10).await;
        device.sync(&world).await;
        like(&world, &device, 100).await;
        let written = last(&device).await;
        for at in [1, 2] {
            device.store.rejected(refused(&world, &device, at, code).await).await.unwrap();
        }
        assert_eq!(device.store.inbox(None, 10).await.unwrap(), [], "{code:?}");
        assert_eq!(last(&device).await, written, "{code:?}: nothing is written again");
        agree(&world, &device, 111).await;
    }
}

/// Refused is what waits for the hub, and the hub merges it after all: it is not written again, nor what was made on top of it.
#[tokio::test]
async fn what_was_refused_and_comes_with_the_document_is_not_written_again() {
    let world = World::new().await;
    let device = begun(&world).await;
    like(&world, &device, 10).await;
    like(&world, &device, 100).await;
    let written = last(&device).await;
    device.store.rejected(refused(&world, &device, 2, Code::MISSING_DEPENDENCY).await).await.unwrap();
    device.push_all(&world).await;
    device.catch_up(&world).await;
    assert_eq!((last(&device).await, device.store.inbox(None, 10).await.unwrap()), (written, Vec::new()));
    like(&world, &device, 1_000).await;
    agree(&world, &device, 1_111).await;
}

/// What meets another change of its log in its place is written again on that: it would be refused. The other card of a copied device stands
/// for what a log may have made while it did not see one of its own entries.
#[tokio::test]
async fn an_entry_whose_place_is_taken_is_written_again() {
    let world = World::new().await;
    let device = begun(&world).await;
    let clone = device.clone_to(&world, "clone").await;
    like(&world, &device, 10).await;
    like(&world, &clone, 100).await;
    device.sync(&world).await;
    let written = last(&clone).await;
    for mut batch in clone.pull(&world, 100).await.0 {
        batch.own_merged.clear();
        clone.store.apply(batch).await.unwrap();
    }
    assert_eq!(clone.row(&world, "notes", "n").await["likes"], json!(111), "nothing is taken back");
    assert!(last(&clone).await > written, "it is written again");
    assert_eq!(clone.store.inbox(None, 10).await.unwrap(), [], "nobody has to decide anything");
}

/// What the hub has taken in under the names that the other card of a copied device gave it is taken off, all of it at once, and what it refused
/// for building on that is written again on what is there, once. What broke: of a chain of such entries one was taken off in each round, and all
/// others were written and pushed again, hundreds of times, because each of them lacked the one before; a checkpoint wrote what was refused
/// again on top of them.
#[tokio::test]
async fn what_the_hub_has_under_other_names_is_not_written_again() {
    for is_delivered_first in [false, true] {
        let world = World::new().await;
        let device = begun(&world).await;
        for more in [10, 20, 30, 40] {
            like(&world, &device, more).await;
        }
        let clone = device.clone_to(&world, "clone").await;
        for copy in [&device, &clone] {
            copy.store.refence(None, Incarnation::from_entropy(world.draw())).await.unwrap();
            copy.hello(&world).await;
        }
        like(&world, &clone, 1_000).await;
        device.sync(&world).await;
        if is_delivered_first {
            clone.catch_up(&world).await;
        }
        let answer = clone.push(&world, Lane::State, clone.acked(Lane::State).await, 50).await.unwrap();
        let refused: Vec<Code> = answer.rejects.iter().map(|reject| reject.code).collect();
        assert_eq!(refused, [Code::MISSING_DEPENDENCY], "four are known, and what was made on top of them has no ground");
        clone.take(answer).await;
        let written = last(&clone).await.unwrap();
        clone.catch_up(&world).await;
        assert_eq!(last(&clone).await, Some(written.next()), "only what was refused is written again");
        assert_eq!(clone.row(&world, "notes", "n").await["likes"], json!(1_101), "each like once");
        agree(&world, &clone, 1_101).await;
        assert_eq!(last(&clone).await, Some(written.next()), "and that once");
        assert_eq!(clone.store.inbox(None, 10).await.unwrap(), [], "nobody has to decide anything");
    }
}

/// The ack of entries that a restored hub was given again is lost: the device asks for the hub's word on them once more, though an earlier hub
/// had said when they happened. What broke: it took them for acknowledged, and never heard of the refusals among them.
#[tokio::test]
async fn the_word_of_a_restored_hub_is_asked_for_again() {
    let mut world = World::new().await;
    let device = begun(&world).await;
    let copy = world.copy_of_hub();
    like(&world, &device, 10).await;
    device.sync(&world).await;
    world.goes_back(&copy).await;
    assert_eq!(device.hello(&world).await.undecided, [], "what the copy has was decided before");
    let lost = device.push(&world, Lane::State, Some(seq(1)), 50).await.unwrap();
    assert_eq!(lost.ack.acked, seq(2));
    assert_eq!(device.hello(&world).await.undecided, [(Lane::State, seq(2))]);
}

/// The device has lost what it wrote last, and so has a hub that went back in time; but that came back with the documents of another device, and
/// has the place of what the device writes now. What broke: it was refused for good, and somebody had to decide about it, where the same refusal
/// heard after the document was none.
#[tokio::test]
async fn a_refusal_because_the_place_is_taken_waits_for_the_document() {
    let world = World::new().await;
    let device = begun(&world).await;
    let lost = device.clone_to(&world, "lost").await;
    like(&world, &lost, 10).await;
    lost.sync(&world).await;
    like(&world, &device, 100).await;
    like(&world, &device, 1_000).await;
    device.store.rejected(refused(&world, &device, 2, Code::BAD_CHANGE).await).await.unwrap();
    device.store.rejected(refused(&world, &device, 3, Code::BLOCKED).await).await.unwrap();
    assert_eq!((last(&device).await, device.store.inbox(None, 10).await.unwrap()), (Some(seq(3)), Vec::new()));
    assert_eq!(device.row(&world, "notes", "n").await["likes"], json!(1_101), "nothing is taken back");
    device.catch_up(&world).await;
    assert_eq!(last(&device).await, Some(seq(5)), "both are written again");
    assert_eq!(device.row(&world, "notes", "n").await["likes"], json!(1_111));
    assert_eq!(device.store.inbox(None, 10).await.unwrap(), [], "nobody has to decide anything");
}

/// A hub that takes an entry in no form is not asked without end.
#[tokio::test]
async fn what_is_refused_again_and_again_is_for_somebody_to_decide() {
    let world = World::new().await;
    let device = begun(&world).await;
    like(&world, &device, 10).await;
    let mut written = seq(2);
    for _ in 0..limits::REDOS_MAX {
        device.store.rejected(refused(&world, &device, written.get(), Code::BAD_CHANGE).await).await.unwrap();
        let mut checkpoint = device.pull(&world, 100).await.1.unwrap();
        checkpoint.own_merged = vec![(Lane::State, log(&device).await, written)];
        device.store.checkpoint(checkpoint).await.unwrap();
        assert_eq!(last(&device).await, Some(written.next()), "it is written again");
        written = written.next();
    }
    assert_eq!(device.store.inbox(None, 10).await.unwrap(), []);
    device.store.rejected(refused(&world, &device, written.get(), Code::BLOCKED).await).await.unwrap();
    assert_eq!(device.store.inbox(None, 10).await.unwrap().len(), 1);
    assert_eq!((last(&device).await, device.row(&world, "notes", "n").await["likes"].clone()), (Some(written), json!(1)));
}
