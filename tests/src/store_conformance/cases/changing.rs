//! Rights, rules and refusals: what changes while devices are in the field.

use std::collections::BTreeSet;

use mobo_core::author::Intent;
use mobo_core::ids::{FieldId, Lane, Position, Seq};
use mobo_core::merge::{Grants, Outcome, Prepared, Retry, Rights};
use mobo_core::message::Code;
use mobo_core::schema::{Field, FieldChanges, FieldType, Kind, altered};
use mobo_core::store::{PullRequest, QuarantineStatus, RebucketBatch, Rebucketed};
use mobo_core::time::Eff;
use serde_json::{Value as Json, json};

use crate::store_conformance::world::{START, collection, only_code};
use crate::store_conformance::{Device, Place, World};

/// A grant, another right on it, its end: each is what the row says next, and what was taken away stays on record with its time.
pub async fn grants_come_and_go(place: Box<dyn Place>) {
    let world = World::new(place, 51).await;
    let (store, project) = (&world.store, world.project);
    let device = Device::enrolled(&world, "a", &["all"]).await;
    let stranger = Device::enrolled(&world, "b", &["all"]).await;
    let of = |device: &Device| store.device(project, device.id());
    let key = || "site:a".to_owned();
    assert!(store.grant(project, device.id(), key(), false).await.unwrap());
    let row = of(&device).await.unwrap().unwrap();
    assert_eq!((row.grants, row.ended), (vec![("all".to_owned(), true), (key(), false)], vec![]));
    assert!(store.grant(project, device.id(), key(), true).await.unwrap());
    assert!(store.ungrant(project, device.id(), key(), Eff(START + 7)).await.unwrap());
    assert!(
        store.ungrant(project, device.id(), key(), Eff(START + 9)).await.unwrap(),
        "taken away twice is taken away since the first time"
    );
    let row = of(&device).await.unwrap().unwrap();
    assert_eq!((row.grants, row.ended), (vec![("all".to_owned(), true)], vec![(key(), Eff(START + 7))]));
    assert!(store.grant(project, device.id(), key(), false).await.unwrap());
    assert!(store.ungrant(project, device.id(), key(), Eff(START + 11)).await.unwrap());
    let row = of(&device).await.unwrap().unwrap();
    assert_eq!(row.ended, [(key(), Eff(i64::MIN))], "what it might only read, it has not written in time either");
    assert!(store.ungrant(project, device.id(), "never".to_owned(), Eff(START)).await.unwrap(), "its claims may have given it that");
    assert_eq!(of(&device).await.unwrap().unwrap().ended, [("never".to_owned(), Eff(START)), (key(), Eff(i64::MIN))]);
    assert_eq!(of(&stranger).await.unwrap().unwrap().grants, [("all".to_owned(), true)]);
    let nobody = Device::row(&mobo_core::trust::KeyPair::from_secret(&[3; 32]), "nobody", &[]).id;
    assert!(!store.grant(project, nobody, key(), true).await.unwrap());
    assert!(!store.ungrant(project, nobody, key(), Eff(0)).await.unwrap());
}

/// What was made before a bucket was taken away is merged though it comes late; what was made later is refused; and a record can be put
/// neither into a bucket, nor taken out of one, by a device that may not write there (D9).
pub async fn rights_are_judged_before_and_after(place: Box<dyn Place>) {
    let world = World::new(place, 52).await;
    let mut device = Device::enrolled(&world, "a", &["site:a", "line:1"]).await;
    let line = |n| json!({"site": "a", "line": n});
    device.write(&world, "pumps", Intent::Put, ("p", line(1)));
    let merged = world.merged(device.push_last(&world)).await;
    let then = merged.effs[0];
    let refused = [json!({"site": "b"}), json!({"line": 2}), json!({"site": "b", "line": null}), json!({"site": null, "line": null})];
    for fields in refused {
        device.write(&world, "pumps", Intent::Patch, ("p", fields.clone()));
        assert_eq!(only_code(&world.answered(device.push_last(&world)).await), Code::FORBIDDEN, "{fields}");
    }
    // Of a record that is in no bucket, only the hub knows.
    world.merged(world.local("pumps", Intent::Insert, "hidden", &json!({}))).await;
    device.write(&world, "pumps", Intent::Put, ("hidden", line(1)));
    assert_eq!(only_code(&world.answered(device.push_last(&world)).await), Code::FORBIDDEN);

    for (ended, want) in [(Eff(then.0 - 1), Some(Code::FORBIDDEN)), (Eff(i64::MAX), None), (Eff(i64::MIN), Some(Code::FORBIDDEN))] {
        let live: BTreeSet<String> = ["line:1".to_owned()].into();
        device.rights = Rights::Buckets(Grants { live, ended: [("site:a".to_owned(), ended)].into(), owes_offers: false });
        device.write(&world, "pumps", Intent::Put, (&format!("late{}", ended.0), json!({"site": "a"})));
        let merged = world.answered(device.push_last(&world)).await;
        assert_eq!(merged.rejects.first().map(|reject| reject.code), want, "{ended:?}");
    }
    world.is_sound().await;
}

/// Rules that change place every record anew, in batches that can be cut off anywhere; who reads sees each leave and arrive once, and a
/// deleted one stays where it was.
pub async fn rules_change_in_batches(place: Box<dyn Place>) {
    let mut world = World::new(place, 53).await;
    world.create(collection(8, "tasks", Kind::Document, "site:json rank:int", &["rank:{rank}"])).await;
    let mut device = Device::enrolled(&world, "a", &["site:a", "line:1", "line:2", "line:3", "rank:1"]).await;
    for n in 0..23 {
        device.write(&world, "pumps", Intent::Put, (&format!("p{n:02}"), json!({"site": "a", "line": n % 3 + 1})));
    }
    device.write(&world, "pumps", Intent::Delete, ("p05", json!({})));
    for n in 0..5 {
        device.write(&world, "tasks", Intent::Put, (&format!("t{n}"), json!({"rank": 1})));
    }
    world.merged(device.push_all(&world)).await;
    let site = world.bucket("site:a").await;
    let before = head(&world, "site:a").await;
    let (pumps, tasks) = (world.collection("pumps").id, world.collection("tasks").id);
    let alter = |id, rules: &[&str]| world.store.alter_rules(world.project, id, rules.iter().map(|rule| (*rule).to_owned()).collect());
    assert!(alter(pumps, &["speed:{speed}"]).await.is_err(), "no bucket is named by a float");
    let schema = alter(pumps, &["line:{line}", "kind:pump"]).await.unwrap();
    assert_eq!((schema.rev, schema.get(pumps).unwrap().rev), (world.schema.rev + 1, 2));
    assert_eq!(alter(pumps, &["line:{line}", "kind:pump"]).await.unwrap().rev, schema.rev, "nothing has changed");
    // Whoever gathered a batch before merges it by the rules that are in force.
    device.rights = Rights::All;
    device.write(&world, "pumps", Intent::Put, ("p99", json!({"site": "a", "line": 1})));
    world.merged(device.push_last(&world)).await;
    let schema = alter(tasks, &["task:{id}"]).await.unwrap();
    world.schema = schema.into();

    let moving = world.store.rebucketing(world.project).await.unwrap();
    let shown = moving.iter().map(|moving| (moving.collection, moving.rules.join(" "), moving.total)).collect::<Vec<_>>();
    assert_eq!(shown, [(pumps, "site:{site} line:{line}".to_owned(), 23), (tasks, "rank:{rank}".to_owned(), 5)]);
    let mut seen = Vec::new();
    while let Some(step) = world.store.rebucket(batch(&world, 10)).await.unwrap() {
        world.is_sound().await;
        assert!(step.progress.done <= step.progress.total + 1, "{step:?}");
        let left = world.store.rebucketing(world.project).await.unwrap();
        assert_eq!(left.contains(&step.progress), !step.finished, "{left:?}");
        seen.push(step);
        if seen.len() == 2 {
            // As after a crash: what was done is done, the next goes on.
            world.store = world.place.open().await.unwrap();
        }
    }
    let done =
        |id| seen.iter().rfind(|step| step.progress.collection == id).map(|step: &Rebucketed| (step.progress.done, step.progress.moved));
    assert_eq!(done(pumps), Some((24, 22)), "all were visited; the deleted one and the new one were right already");
    assert_eq!(done(tasks), Some((5, 5)));
    assert_eq!(members(&world, "site:a").await, ["p05"], "R20: those who hold it hear of its end");
    assert_eq!(members(&world, "kind:pump").await.len(), 23);
    assert_eq!(members(&world, "task:t3").await, ["t3"]);
    assert_eq!(members(&world, "rank:1").await, [""; 0]);
    assert_eq!(head(&world, "site:a").await, before + 22, "R28: one position for each that left");
    let page = pull(&world, "site:a", before).await;
    assert!(page.iter().all(|(_, present)| !present) && page.len() == 22, "{page:?}");
    assert_eq!(world.bucket("site:a").await, site);
    world.is_sound().await;
}

/// Fields come, get other labels and retire: the next who reads sees the rows by the labels of now, and no row was written for it.
pub async fn fields_change_and_rows_stay(place: Box<dyn Place>) {
    let mut world = World::new(place, 54).await;
    world.merged(world.local("pumps", Intent::Insert, "p", &json!({"site": "a", "line": 2, "speed": 0.5}))).await;
    let (pumps, before) = (world.collection("pumps").clone(), head(&world, "site:a").await);
    let field = Field { id: FieldId::new(990).unwrap(), name: "speed".to_owned(), kind: FieldType::Text, retired: false, references: None };
    let labels = ("speed".to_owned(), "speed_before".to_owned());
    let changes = FieldChanges { rename: vec![labels.clone()], retire: vec![labels.1], add: vec![field] };
    let next = altered(&pumps, &changes).unwrap();
    let schema = world.store.alter_fields(world.project, next.clone()).await.unwrap();
    assert_eq!((schema.rev, schema.get(pumps.id)), (world.schema.rev + 1, Some(&next)));
    assert!(world.store.alter_fields(world.project, next).await.is_err(), "the same again is not the next");
    world.schema = schema.into();
    assert_eq!(head(&world, "site:a").await, before, "no position was used");
    world.is_sound().await;
    world.merged(world.local("pumps", Intent::Patch, "p", &json!({"speed": "fast"}))).await;
    world.store = world.place.open().await.unwrap();
    assert_eq!(world.store.schema(world.project).await.unwrap().rev, world.schema.rev);
    let rows = world.rows("pumps").await;
    assert_eq!((&rows[0]["line"], &rows[0]["speed"]), (&json!(2), &json!("fast")), "{rows:?}");
    world.is_sound().await;
}

fn batch(world: &World, records_max: usize) -> RebucketBatch {
    let (schema, now, entropy) = (world.schema.clone(), world.now(), world.draw());
    RebucketBatch { project: world.project, schema, timeline: world.timeline, now, entropy, records_max }
}

async fn head(world: &World, key: &str) -> u64 {
    let counts = world.store.counts(world.project).await.unwrap();
    counts.buckets.iter().find(|bucket| bucket.1 == key).unwrap().2.0
}

/// What a pull from a position gives: ids, and whether they are there.
async fn pull(world: &World, key: &str, from: u64) -> Vec<(String, bool)> {
    let (bucket, device) = (world.bucket(key).await, world.hub.device);
    let wants = vec![(bucket, Position(from))];
    let request = PullRequest { project: world.project, device, wants, items_max: 1_000, bytes_max: 1 << 20 };
    let page = world.store.pull(request).await.unwrap();
    page.buckets[0].items.iter().map(|item| (item.key.id.to_string(), item.state.is_some())).collect()
}

async fn members(world: &World, key: &str) -> Vec<String> {
    let mut ids: Vec<String> = pull(world, key, 0).await.into_iter().filter(|(_, present)| *present).map(|(id, _)| id).collect();
    ids.sort_unstable();
    ids
}

/// A refused entry is kept whole until somebody retries it, when it is merged once and under its own time, or lets it go.
pub async fn refused_entries_are_retried_or_dropped(place: Box<dyn Place>) {
    let world = World::new(place, 54).await;
    let (store, project) = (&world.store, world.project);
    let mut device = Device::enrolled(&world, "a", &["site:a"]).await;
    device.write(&world, "pumps", Intent::Put, ("p", json!({"site": "b", "speed": 1.5, "runs": {"$inc": 2}})));
    device.write(&world, "pumps", Intent::Put, ("q", json!({"site": "b"})));
    world.answered(device.push_all(&world)).await;
    let rows = store.refusals(project, device.id(), device.incarnation).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.seq.get()).collect::<Vec<_>>(), [1, 2], "by position: as their device has to hear of them");
    let (first, second) = (rows[0].n, rows[1].n);
    let found = store.quarantined(project, first).await.unwrap().unwrap();
    assert_eq!((found.status, found.settled, found.blocked_by, &found.blocks[..]), (QuarantineStatus::Open, None, None, &[][..]));
    assert_eq!((found.header, found.payload), (device.lanes[&Lane::State][0].header.clone(), payload(&device, 0)), "bit for bit");
    assert_eq!(store.quarantined(project, 404).await.unwrap(), None);

    let retry = |seq, site: &str| {
        let rights = Rights::Buckets([site.to_owned()].into());
        Prepared::Retry(Box::new(Retry { lane: device.lane(Lane::State), seq: Seq::new(seq).unwrap(), rights }))
    };
    assert_eq!(only_code(&world.answered(retry(1, "site:c")).await), Code::FORBIDDEN);
    assert_eq!(store.quarantined(project, first).await.unwrap().unwrap().status, QuarantineStatus::Open);
    // Somebody writes later than the refused entry was made, and before it is retried.
    world.merged(world.local("pumps", Intent::Put, "p", &json!({"site": "b", "speed": 9.5, "runs": {"$inc": 40}}))).await;
    assert_eq!(world.answered(retry(1, "site:b")).await.rejects, []);
    assert!(matches!(world.outcome(retry(1, "site:b")).await, Outcome::Refused(_)), "it is in quarantine no more");
    assert_eq!(world.rows("pumps").await, [json!({"id": "p", "site": "b", "line": null, "speed": 9.5, "runs": 42})]);
    let found = store.quarantined(project, first).await.unwrap().unwrap();
    assert!(found.status == QuarantineStatus::Retried && found.settled.is_some(), "{found:?}");

    assert!(store.drop_quarantined(project, second, world.now()).await.unwrap());
    assert!(!store.drop_quarantined(project, second, world.now()).await.unwrap(), "once");
    assert!(!store.drop_quarantined(project, first, world.now()).await.unwrap(), "it was merged");
    assert_eq!(store.quarantined(project, second).await.unwrap().unwrap().status, QuarantineStatus::Dropped);
    assert!(matches!(world.outcome(retry(2, "site:b")).await, Outcome::Refused(_)));
    let rows = store.refusals(project, device.id(), device.incarnation).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.n).collect::<Vec<_>>(), [second], "its device must still hear of it");
    assert_eq!(store.counts(project).await.unwrap().quarantined, 0);
    world.is_sound().await;
}

fn payload(device: &Device, nth: usize) -> Vec<u8> {
    match &device.lanes[&Lane::State][nth].payload {
        mobo_core::entry::Payload::Present(bytes) => bytes.clone(),
        mobo_core::entry::Payload::Lost(_) => panic!("it was not dropped"),
    }
}

/// What builds on a refused change of a document says so, and goes the same way once that is merged.
pub async fn what_a_refused_change_blocks_follows_it(place: Box<dyn Place>) {
    let mut world = World::new(place, 55).await;
    world.create(collection(8, "tasks", Kind::Document, "site:json rank:int likes:counter", &["rank:{rank}"])).await;
    let (store, project) = (&world.store, world.project);
    let mut device = Device::enrolled(&world, "a", &["rank:1"]).await;
    let steps = [json!({"rank": 2, "likes": {"$inc": 1}}), json!({"likes": {"$inc": 10}}), json!({"likes": {"$inc": 100}})];
    for (intent, fields) in [Intent::Put, Intent::Patch, Intent::Patch].into_iter().zip(steps) {
        device.write(&world, "tasks", intent, ("t", fields));
    }
    let merged = world.answered(device.push_all(&world)).await;
    let codes: Vec<Code> = merged.rejects.iter().map(|reject| reject.code).collect();
    assert_eq!(codes, [Code::FORBIDDEN, Code::BLOCKED, Code::BLOCKED]);
    let rows = store.refusals(project, device.id(), device.incarnation).await.unwrap();
    let [first, second, third] = [rows[0].n, rows[1].n, rows[2].n];
    let found = |n| async move { store.quarantined(project, n).await.unwrap().unwrap() };
    assert_eq!(found(first).await.blocks, [second, third]);
    assert_eq!((found(second).await.blocked_by, found(third).await.blocked_by), (Some(first), Some(first)));
    let retry = |seq| {
        let rights = Rights::Buckets(["rank:2".to_owned()].into());
        Prepared::Retry(Box::new(Retry { lane: device.lane(Lane::State), seq: Seq::new(seq).unwrap(), rights }))
    };
    assert_eq!(only_code(&world.answered(retry(2)).await), Code::BLOCKED, "before what it builds on, it cannot be merged");
    for seq in 1..=3 {
        assert_eq!(world.answered(retry(seq)).await.rejects, [], "{seq}");
    }
    let row: &Json = &world.rows("tasks").await[0];
    assert_eq!((&row["rank"], &row["likes"]), (&json!(2), &json!(111)));
    world.is_sound().await;
}
