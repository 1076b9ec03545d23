//! A hub that goes back in time, and a device that has begun a new log before or since: every entry that it keeps comes back, each once (R15, R22).
//!
//! Nothing is joined of what devices offer here: what is at the hub in the end has come back in entries.

use std::path::PathBuf;

use mobo_adapters::sqlite::edge::{Keep, Pending, Refenced};
use mobo_core::author::Intent;
use mobo_core::entry::Header;
use mobo_core::ids::{Incarnation, Lane, LaneKey, Seq};
use mobo_core::merge::Outcome;
use mobo_core::message::{Closed, Code, Nack, Refence, RefenceReason, SchemaUpdate};
use mobo_core::recover::{Flow, Former, Moved, Step};
use mobo_core::store::HubStore;
use serde_json::json;

use crate::world::{Device, World, edit, seq};

/// What a device does on a new timeline, but that nobody joins its offers. Gives the entries and bytes of each push of a former log.
async fn give_back(world: &World, device: &Device, moved: Moved) -> Vec<(usize, usize)> {
    device.push_all(world).await;
    let nothing = SchemaUpdate { timeline: world.timeline, rev: 1, definitions: vec![], more: false };
    let (mut flow, mut pushes) = (Flow::new(Moved { lasts: vec![], ..moved }), Vec::new());
    let mut first = flow.first();
    while let Step::Name(bucket, _) = first {
        first = flow.joined(bucket).1;
    }
    assert_eq!(first, Step::Define);
    flow.definitions_offered(&nothing);
    flow.definitions_came(&nothing);
    let mut step = flow.pushed(|_| None);
    loop {
        step = match step {
            Step::ReadFormer(former) => {
                let Pending::Entries(outgoing) = device.store.former(former, (1_000, 1 << 20)).await.unwrap() else {
                    device.store.strand(former).await.unwrap();
                    step = flow.former_sent(None);
                    continue;
                };
                let last = seq(outgoing.first.get() + outgoing.entries.len() as u64 - 1);
                pushes.push((outgoing.entries.len(), outgoing.entries.iter().map(|pushed| pushed.entry.bytes()).sum()));
                assert_eq!(flow.former_sent(Some(last)), Step::Wait);
                let (incarnation, lane) = (former.incarnation, former.lane);
                let nack = |expect, code| Nack { lane, incarnation, expect, code };
                match world.outcome(device.submission(world, lane, outgoing).giving_back()).await {
                    Outcome::Merged(merged) => {
                        let answer = Device::answer((lane, incarnation), merged);
                        let acked = answer.ack.acked;
                        device.take(answer).await;
                        flow.former_acked((incarnation, lane), acked)
                    }
                    Outcome::Nack { expect, code } => given_up(device, flow.former_refused(&nack(expect, code))).await,
                    Outcome::Refence { hub_last, .. } => {
                        given_up(device, flow.former_refused(&nack(Seq::after(hub_last), Code::BROKEN_CHAIN))).await
                    }
                    Outcome::Refused(error) => panic!("{error}"),
                }
            }
            Step::Read(bucket, after) => {
                let (_, more) = device.store.offer(bucket, after).await.unwrap();
                flow.sent(more);
                let (done, step) = flow.joined(bucket);
                if let Some(bucket) = done {
                    device.store.offered(bucket).await.unwrap();
                }
                step
            }
            Step::Wait | Step::Name(..) | Step::Define => panic!("nothing goes on: {flow:?}"),
            Step::Done => break,
        }
    }
    device.store.given_back().await.unwrap();
    pushes
}

async fn given_up(device: &Device, (step, former): (Step, Option<Former>)) -> Step {
    if let Some(former) = former {
        device.store.strand(former).await.unwrap();
    }
    step
}

/// Says hello to a hub on a new timeline and gives back.
pub(crate) async fn come_back(world: &World, device: &Device) -> Vec<(usize, usize)> {
    let admitted = device.hello(world).await;
    assert_eq!(admitted.forked, None);
    let pushes = give_back(world, device, admitted.moved.unwrap()).await;
    device.sync(world).await;
    pushes
}

pub(crate) async fn put(world: &World, device: &Device, ids: impl Iterator<Item = String>) {
    for id in ids {
        device.write(world, "orders", Intent::Put, &id, json!({"title": "x".repeat(1_000), "hours": 1})).await;
    }
}

pub(crate) fn named(name: &str, numbers: std::ops::RangeInclusive<u64>) -> impl Iterator<Item = String> {
    let name = name.to_owned();
    numbers.map(move |number| format!("{name}{number}"))
}

pub(crate) async fn new_log(world: &World, device: &Device, order: Option<Refence>) -> Refenced {
    let refenced = device.store.refence(order, Incarnation::from_entropy(world.draw())).await.unwrap();
    device.is_sound().await;
    refenced
}

/// What the hub has, each with what was counted.
async fn orders(world: &World) -> Vec<(String, i64)> {
    let rows = world.rows("orders").await.into_iter();
    rows.map(|row| (row["id"].as_str().unwrap().to_owned(), row["hours"].as_i64().unwrap())).collect()
}

/// A device that wrote `kept` entries under a log that it has left behind, all of them acknowledged, and a copy of its hub after so many.
async fn left_behind(copied_after: u64, kept: u64) -> (World, Device, PathBuf) {
    let world = World::new().await;
    let device = world.device("a", &["all"]).await;
    put(&world, &device, named("o", 1..=copied_after)).await;
    device.sync(&world).await;
    let copy = world.copy_of_hub();
    put(&world, &device, named("o", copied_after + 1..=kept)).await;
    device.sync(&world).await;
    new_log(&world, &device, None).await;
    (world, device, copy)
}

/// What broke: in each session the former log was pushed from the first entry that was kept, whatever the hub had of it, so that a link that is cut
/// after some pushes never came to the offers.
#[tokio::test]
async fn r22_of_a_former_log_the_hub_gets_what_it_lacks_and_one_entry() {
    for (copied_after, kept, want) in [(40, 40, vec![1]), (39, 40, vec![1]), (36, 40, vec![1, 4]), (0, 3, vec![1, 3])] {
        let (mut world, device, copy) = left_behind(copied_after, kept).await;
        world.goes_back(&copy).await;
        let pushes = come_back(&world, &device).await;
        let entries: Vec<usize> = pushes.iter().map(|push| push.0).collect();
        assert_eq!(entries, want, "{copied_after} of {kept}");
        assert!(pushes[0].1 < 1_500, "{pushes:?}");
        let back = orders(&world).await;
        assert_eq!(back.len() as u64, kept);
        assert!(back.iter().all(|(_, hours)| *hours == 1), "{back:?}");
    }
}

/// What the hub of this timeline has acknowledged to its end is not pushed again in the next session, and on the next timeline it is.
#[tokio::test]
async fn r22_a_former_log_that_is_given_back_is_done() {
    let (mut world, device, copy) = left_behind(2, 5).await;
    world.goes_back(&copy).await;
    let first = device.hello(&world).await.moved.unwrap();
    assert_eq!(first.former.len(), 1);
    assert_eq!(give_back(&world, &device, Moved { offers: vec![], ..first.clone() }).await.len(), 2);
    let second = device.hello(&world).await.moved.unwrap();
    assert_eq!((second.former.len(), second.offers.len()), (0, first.offers.len()), "the link broke before anything was offered");
    world.goes_back(&copy).await;
    assert_eq!(device.hello(&world).await.moved.unwrap().former.len(), 1);
}

/// The hub is back before what is kept: nothing of the lane can follow, and what it did is in the rows that are offered.
#[tokio::test]
async fn r22_a_former_log_that_was_trimmed_is_given_up() {
    let (mut world, device, copy) = left_behind(2, 6).await;
    let bytes = device.store.counts().await.unwrap().kept_bytes;
    assert!((3..=4).contains(&device.store.trim(Keep { age_us: u64::MAX, bytes_max: bytes / 2 }).await.unwrap()));
    world.goes_back(&copy).await;
    let pushes = come_back(&world, &device).await;
    assert_eq!(pushes.len(), 1, "one entry, and the hub says that it lacks others: {pushes:?}");
    assert_eq!(orders(&world).await.len(), 2);
}

/// What broke: an entry that the hub had acknowledged, and not delivered yet, stayed laid over its row for good where the hub could not take its log
/// back. Everybody else saw another row, and the hub never got what the device still kept.
#[tokio::test]
async fn r22_what_is_still_shown_of_a_log_that_is_given_up_is_authored_again() {
    for (later, want) in [(None, "kept"), (Some("later"), "later")] {
        let mut world = World::new().await;
        let device = world.device("a", &["all"]).await;
        let copy = world.copy_of_hub();
        put(&world, &device, named("o", 1..=2)).await;
        device.sync(&world).await;
        device.write(&world, "orders", Intent::Merge, "shared", json!({"title": "kept", "hours": {"$inc": 10}})).await;
        device.push_all(&world).await;
        new_log(&world, &device, None).await;
        assert_eq!(device.store.trim(Keep { age_us: u64::MAX, bytes_max: 0 }).await.unwrap(), 2);
        world.goes_back(&copy).await;
        if let Some(title) = later {
            world.write("orders", vec![edit(Intent::Put, "shared", json!({ "title": title, "hours": 1 }))]).await;
        }
        come_back(&world, &device).await;
        device.sync(&world).await;
        let rows = world.rows("orders").await;
        assert_eq!(device.rows(&world, "orders").await, rows, "{later:?}");
        let shared = rows.iter().find(|row| row["id"] == "shared").unwrap();
        assert_eq!((&shared["title"], &shared["hours"]), (&json!(want), &json!(10 + u64::from(later.is_some()))), "{later:?}");
        assert_eq!(device.count("SELECT count(*) FROM mobo_overlay") + device.count("SELECT count(*) FROM mobo_outbox WHERE state = 0"), 0);
    }
}

/// What broke: a welcome had said that the hub has an entry, whose ack was lost; a restored hub took that back. Authored again, the entry did not say
/// that rows may have it, and counted once more beside the row that another device offered.
#[tokio::test]
async fn r10_what_any_hub_said_to_have_is_known_when_it_is_authored_again() {
    let cases = [("nothing", false, false), ("a welcome", false, true), ("an ack", false, true), ("nothing", true, true)];
    for (heard, is_lived, want) in cases {
        let mut world = World::new().await;
        let device = world.device("a", &["all"]).await;
        let copy = world.copy_of_hub();
        put(&world, &device, named("o", 1..=1)).await;
        let answer = device.push(&world, Lane::State, None, 50).await.unwrap();
        match heard {
            "an ack" => device.take(answer).await,
            "a welcome" => assert_eq!(device.hello(&world).await.forked, None),
            _ => {}
        }
        if !is_lived {
            // Entries of an earlier version do not say in which life of the log they were written.
            device.raw().execute("DELETE FROM mobo_meta WHERE key = 'is_lived'", []).unwrap();
        }
        world.goes_back(&copy).await;
        device.hello(&world).await;
        assert_eq!(new_log(&world, &device, None).await.reauthored, 1, "{heard}");
        let outgoing = device.outgoing(Lane::State, None, 50).await.unwrap();
        let header = Header::decode(&outgoing.entries[0].entry.header).unwrap();
        assert_eq!(header.provenance.map(|first| (first.seq, first.sole)), Some((seq(1), want)), "{heard}");
    }
}

/// The hub's order at a hello, as it writes it.
pub(crate) async fn order(world: &World, device: &Device, reason: RefenceReason) -> Refence {
    let report = device.store.report().await.unwrap();
    let incarnation = report.node.incarnation.unwrap();
    let admission = world.arrive(&device.keys, incarnation, None).await;
    let (mut shared, mut chains) = (Vec::new(), Vec::new());
    for status in &admission.lanes {
        let own = report.lanes.iter().find(|own| own.lane == status.lane);
        let (Some(own), Some(last)) = (own, status.last) else { continue };
        let key = LaneKey { device: device.keys.device(), incarnation, lane: status.lane };
        let at = last.min(own.last);
        shared.push((status.lane, at, world.hub.chain_at(world.project, key, at).await.unwrap().unwrap()));
        if status.lane == Lane::State {
            for number in 1..=at.get() {
                chains.push((seq(number), world.hub.chain_at(world.project, key, seq(number)).await.unwrap().unwrap()));
            }
        }
    }
    world.hub.fence(world.project, device.keys.device(), incarnation).await.unwrap();
    let closed = Some(Closed { timeline: world.timeline, shared });
    Refence { lane: Lane::State, hub_last: admission.lanes[0].last, chains, reason, closed }
}

/// The sequence that lost acknowledged entries:
///
/// 1. A device has log A, entries 1 to 3, which its hub has. The hub is copied, and so is the device's folder.
/// 2. The device writes 4 to 6, and samples. The hub acknowledges them.
/// 3. The hub is put back to the copy and starts a new timeline.
/// 4. The copy of the device comes first. Its hello shows log A, too: it is behind, so the hub closes A; or it writes 4' to 6' into A.
/// 5. The device comes, for the first time since: **its hello is answered by an order to refence**, not by a welcome. It begins log B and authors
///    again what was pending. 4 to 6 were not: they were acknowledged, by a hub that is no more.
/// 6. In its next session it gives back the tail of A, and the hub refuses it: A is closed, or goes on otherwise. Nobody else has 4 to 6.
///
/// Now a closed log takes what its device gives back, if it continues the log; and the order says on which timeline the hub is and what both have,
/// so that a device finds what was acknowledged by another life of the hub and cannot follow, and authors it again.
// faults: H-5, I-1
#[tokio::test]
async fn r22_a_device_that_is_refenced_at_its_first_hello_gives_back_what_was_acknowledged() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Copied {
        /// The copy of the device has less than the hub, and says so.
        Behind,
        /// It has written as many entries as the device.
        AsFar,
        /// Fewer: the hub cannot see it, the device does.
        Less,
        /// More.
        Further,
    }
    for case in [Copied::Behind, Copied::AsFar, Copied::Less, Copied::Further] {
        let mut world = World::new().await;
        let device = world.device("a", &["all"]).await;
        put(&world, &device, named("o", 1..=2)).await;
        device.sync(&world).await;
        let behind = device.clone_to(&world, "behind").await;
        put(&world, &device, named("o", 3..=3)).await;
        device.sync(&world).await;
        let (copy, level) = (world.copy_of_hub(), device.clone_to(&world, "level").await);
        put(&world, &device, named("o", 4..=6)).await;
        device.append(&world, &[0.5, 0.75]).await;
        device.sync(&world).await;
        world.goes_back(&copy).await;

        let (clone, theirs) = match case {
            Copied::Behind => (&behind, 0),
            Copied::AsFar => (&level, 3),
            Copied::Less => (&level, 2),
            Copied::Further => (&level, 5),
        };
        if case == Copied::Behind {
            let refence = order(&world, clone, RefenceReason::Behind).await;
            new_log(&world, clone, Some(refence)).await;
        }
        put(&world, clone, named("c", 1..=theirs)).await;
        come_back(&world, clone).await;

        put(&world, &device, named("p", 1..=1)).await;
        let refenced = if case == Copied::Less {
            let admitted = device.hello(&world).await;
            assert_eq!(admitted.forked, Some(Lane::State));
            new_log(&world, &device, None).await
        } else {
            let refence = order(&world, &device, RefenceReason::Forked).await;
            new_log(&world, &device, Some(refence)).await
        };
        // Where the hub says what both have, only what is behind that; where the device finds out by itself, all that it keeps.
        let want = match case {
            Copied::Behind => 1,
            Copied::AsFar | Copied::Further => 4,
            Copied::Less => 7 + 1,
        };
        assert_eq!(refenced.reauthored, want, "{case:?}: {refenced:?}");
        come_back(&world, &device).await;
        let mut want: Vec<(String, i64)> =
            named("c", 1..=theirs).chain(named("o", 1..=6)).chain(["p1".to_owned()]).map(|id| (id, 1)).collect();
        want.sort();
        assert_eq!(orders(&world).await, want, "{case:?}");
        assert_eq!(world.rows("vitals").await.len(), 2, "{case:?}: samples are in no row that is offered");
        assert_eq!(device.rows(&world, "vitals").await.len(), 2, "{case:?}");
        // Once more, in another session, changes nothing.
        device.hello(&world).await;
        device.sync(&world).await;
        assert_eq!(orders(&world).await, want, "{case:?}");
    }
}

/// What broke: the places of such an entry were a copy's by then, and the hub said that it has merged the log beyond it. The device took that for
/// its own entry, let it go, and it was nowhere.
#[tokio::test]
async fn r22_what_a_hub_has_merged_of_a_copy_says_nothing_of_a_log_that_is_given_up() {
    for further in [1, 3] {
        let mut world = World::new().await;
        let device = world.device("a", &["all"]).await;
        put(&world, &device, named("o", 1..=2)).await;
        device.sync(&world).await;
        let (copy, clone) = (world.copy_of_hub(), device.clone_to(&world, "clone").await);
        device.write(&world, "orders", Intent::Merge, "shared", json!({"title": "kept", "hours": {"$inc": 10}})).await;
        device.push_all(&world).await;
        // The hub that is put back is behind that time, and the device has written meanwhile.
        device.raw().execute("UPDATE mobo_outbox SET eff = eff + 1000000000000 WHERE seq = 3", []).unwrap();
        new_log(&world, &device, None).await;
        device.write(&world, "orders", Intent::Merge, "shared", json!({"title": "later"})).await;
        world.goes_back(&copy).await;
        put(&world, &clone, named("c", 1..=further)).await;
        come_back(&world, &clone).await;
        come_back(&world, &device).await;
        device.sync(&world).await;
        let rows = world.rows("orders").await;
        assert_eq!(device.rows(&world, "orders").await, rows, "{further}");
        let shared = rows.iter().find(|row| row["id"] == "shared").unwrap();
        assert_eq!((&shared["title"], &shared["hours"]), (&json!("later"), &json!(10)), "{further}");
        assert_eq!(rows.len() as u64, 3 + further);
        assert_eq!(device.count("SELECT count(*) FROM mobo_overlay") + device.count("SELECT count(*) FROM mobo_outbox WHERE state = 0"), 0);
    }
}

/// What broke: a hub that was put back could not go on with a lane of samples, because it had something else in the same places, or because the
/// device had trimmed what it had lost. No row has samples, and what the device still kept of them was at no hub any more.
#[tokio::test]
async fn r22_samples_of_a_log_that_is_given_up_are_authored_again() {
    for is_forked in [true, false] {
        let mut world = World::new().await;
        let device = world.device("a", &["all"]).await;
        let empty = (!is_forked).then(|| world.copy_of_hub());
        device.append(&world, &[0.5]).await;
        device.sync(&world).await;
        let (copy, clone) = (empty.unwrap_or_else(|| world.copy_of_hub()), device.clone_to(&world, "clone").await);
        for load in [1.0, 2.0] {
            device.append(&world, &[load, load + 0.5]).await;
            device.sync(&world).await;
        }
        new_log(&world, &device, None).await;
        if is_forked {
            device.hello(&world).await;
            device.append(&world, &[3.0]).await;
            device.sync(&world).await;
        } else {
            let bytes_max = device.store.counts().await.unwrap().kept_bytes - 1;
            assert_eq!(device.store.trim(Keep { age_us: u64::MAX, bytes_max }).await.unwrap(), 1);
        }
        let mut want: Vec<_> = world.rows("vitals").await.iter().map(loads).collect();
        want.retain(|(_, load)| is_forked || *load > 0.5);
        assert_eq!(want.len(), if is_forked { 6 } else { 4 });
        world.goes_back(&copy).await;
        if is_forked {
            for load in [7.0, 8.0, 9.0] {
                clone.append(&world, &[load]).await;
            }
            come_back(&world, &clone).await;
        }
        come_back(&world, &device).await;
        device.sync(&world).await;
        let mut back: Vec<_> = world.rows("vitals").await.iter().map(loads).filter(|(_, load)| *load < 7.0).collect();
        back.sort_by(|one, other| one.0.cmp(&other.0));
        want.sort_by(|one, other| one.0.cmp(&other.0));
        assert_eq!(back, want, "each once, and when it was taken; forked: {is_forked}");
        assert_eq!(device.count("SELECT count(*) FROM mobo_outbox WHERE state = 0"), 0);
        assert_eq!(device.rows(&world, "vitals").await.len(), if is_forked { 6 } else { 5 });
        device.hello(&world).await;
        device.sync(&world).await;
        assert_eq!(world.rows("vitals").await.len(), back.len() + if is_forked { 3 } else { 0 });
    }
}

/// When a sample was taken, and what it says.
fn loads(row: &serde_json::Value) -> (String, f64) {
    (row["at"].as_str().unwrap().to_owned(), row["cpu"].as_f64().unwrap())
}

/// Without the word of another timeline, what was acknowledged stays so: a clone that is found out pushes its pending entries and no more.
#[tokio::test]
async fn r15_on_the_timeline_that_acknowledged_them_entries_are_not_authored_again() {
    let world = World::new().await;
    let device = world.device("a", &["all"]).await;
    put(&world, &device, named("o", 1..=3)).await;
    device.sync(&world).await;
    put(&world, &device, named("p", 1..=1)).await;
    let refence = order(&world, &device, RefenceReason::StaleSession).await;
    assert_eq!(new_log(&world, &device, Some(refence)).await.reauthored, 1);
    assert!(device.hello(&world).await.moved.is_none());
    device.sync(&world).await;
    assert_eq!(orders(&world).await.len(), 4);
}

/// What broke: a hub that was put back got entries from a copy of a device that had not heard when they were made, and decided that once more. The
/// device had heard what was decided first, found in the welcome that the hub has them, and was never told of it.
#[tokio::test]
async fn r7_what_a_restored_hub_has_decided_anew_is_asked_for() {
    let mut world = World::new().await;
    let device = world.device("a", &["all"]).await;
    let copy = world.copy_of_hub();
    put(&world, &device, named("o", 1..=3)).await;
    let clone = device.clone_to(&world, "clone").await;
    device.sync(&world).await;
    assert_eq!(device.hello(&world).await.undecided, [], "as long as the hub says what it has said, nothing is pushed again");
    world.goes_back(&copy).await;
    clone.hello(&world).await;
    let hub = rusqlite::Connection::open(&copy).unwrap();
    hub.execute("DELETE FROM mobo_boot", []).unwrap();
    clone.push_all(&world).await;
    let decided = |device: &Device| device.raw().query_row("SELECT group_concat(eff) FROM mobo_outbox", [], |row| row.get::<_, String>(0));
    assert_ne!(decided(&device), decided(&clone));
    assert_eq!(device.hello(&world).await.undecided, [(Lane::State, seq(1))]);
    let answer = device.push(&world, Lane::State, None, 50).await.unwrap();
    device.take(answer).await;
    assert_eq!(decided(&device), decided(&clone));
    assert_eq!(device.hello(&world).await.undecided, []);
    assert_eq!(orders(&world).await.len(), 3);
}

/// What broke: the hub had lost what tells when the entries before it were made, nobody knew the boot, and the clock had been set back. So a write
/// that began a new log was taken to be older than what the same device had written before it, and lost to that.
#[tokio::test]
async fn i9_what_begins_a_log_after_lost_entries_is_later_than_these() {
    for (trims_pending, kept) in [(true, 0), (false, 1)] {
        let mut world = World::new().await;
        let device = world.device("a", &["all"]).await;
        let copy = world.copy_of_hub();
        put(&world, &device, named("o", 1..=3)).await;
        device.sync(&world).await;
        let before = device.count("SELECT max(eff) FROM mobo_outbox");
        if trims_pending {
            put(&world, &device, named("o", 3..=3)).await;
        }
        let bytes_max = if trims_pending { 0 } else { 1_500 };
        device.store.trim(Keep { age_us: u64::MAX, bytes_max }).await.unwrap();
        assert_eq!(device.count("SELECT count(*) FROM mobo_outbox WHERE eff IS NOT NULL"), kept);
        if !trims_pending {
            put(&world, &device, named("o", 3..=3)).await;
        }
        world.goes_back(&copy).await;
        device.hello(&world).await;
        assert!(matches!(device.store.pending(Lane::State, None, 9, 1 << 20).await.unwrap(), Pending::Trimmed(_)));
        let again = device.store.begin_again(Incarnation::from_entropy(world.draw())).await.unwrap();
        assert_eq!(again.reauthored, 1);
        device.hello(&world).await;
        rusqlite::Connection::open(&copy).unwrap().execute("DELETE FROM mobo_boot", []).unwrap();
        device.push_all(&world).await;
        let after =
            device.count("SELECT max(eff) FROM mobo_outbox WHERE incarnation = (SELECT value FROM mobo_meta WHERE key = 'incarnation')");
        assert!(after > before, "{after}, and {before} before it");
    }
}

/// What broke: a hub that went back to before its last restore had forgotten the timeline that had begun then, and refused what it had delivered
/// on it: it knows of those that a hello proves, and the timelines of older deliveries are in none.
#[tokio::test]
async fn r19_a_device_names_the_timelines_that_the_hub_has_forgotten() {
    let mut world = World::new().await;
    let device = world.device("a", &["all"]).await;
    let (first, copy) = (world.timeline, world.copy_of_hub());
    let mut known = vec![first];
    for _ in 0..3 {
        world.goes_back(&copy).await;
        let moved = device.hello(&world).await.moved.unwrap();
        // The welcome of this hub names no parents: it has forgotten all.
        assert_eq!(moved.timelines, known);
        give_back(&world, &device, moved).await;
        known.insert(0, world.timeline);
    }
    device.raw().execute("DELETE FROM mobo_meta WHERE key = 'timelines'", []).unwrap();
    world.goes_back(&copy).await;
    assert_eq!(device.hello(&world).await.moved.unwrap().timelines, known[..1], "of a device that kept no list, the last");
}
