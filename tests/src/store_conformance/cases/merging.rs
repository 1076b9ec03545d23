//! What merges do to records, lanes and ledgers.

use std::collections::BTreeMap;
use std::sync::Arc;

use mobo_core::author::{EditError, Intent};
use mobo_core::ids::{FieldId, Incarnation, Lane, LaneKey, Position, Seq, Ver};
use mobo_core::merge::{LocalBody, Merged, Outcome, Prepared};
use mobo_core::message::{Code, PushedEntry, RefenceReason};
use mobo_core::schema::Kind;
use mobo_core::store::{ConflictRow, PullRequest};
use mobo_core::table::{Action, TableOp};
use mobo_core::time::Eff;
use mobo_core::value::Value;
use serde_json::json;

use crate::store_conformance::world::{START, World, only_code};
use crate::store_conformance::{Device, Place, samples};

/// Puts, patches, deletes, counters, documents and samples arrive where SQL reads them.
pub async fn gives_rows_documents_and_samples(place: Box<dyn Place>) {
    let world = World::new(place, 10).await;
    let (mut a, mut b) = (Device::enrolled(&world, "a", &["all"]).await, Device::enrolled(&world, "b", &["all"]).await);
    a.write(&world, "work_orders", Intent::Put, ("w-1", json!({"title": "oil", "hours": 2, "done": false})));
    a.write(&world, "work_orders", Intent::Patch, ("w-1", json!({"title": "oil the pump", "hours": {"$inc": 3}})));
    a.write(&world, "work_orders", Intent::Put, ("w-2", json!({"title": "gone"})));
    a.write(&world, "work_orders", Intent::Delete, ("w-2", json!({})));
    a.write(&world, "notes", Intent::Put, ("n-1", json!({"title": "hello", "tags": ["x"], "likes": 1, "rank": 4})));
    a.append(&world, &samples(&world, &[0.5, 0.25]));
    b.write(&world, "work_orders", Intent::Put, ("w-1", json!({"title": "oil", "hours": 10})));
    b.write(&world, "notes", Intent::Put, ("n-1", json!({"likes": 2, "state": {"k": 1}})));
    let report = world.merge(vec![a.push_all(&world), a.push_from(&world, Lane::Telemetry, 1), b.push_all(&world)]).await;
    assert!(report.outcomes.iter().all(|outcome| matches!(outcome, Outcome::Merged(merged) if merged.rejects.is_empty())), "{report:?}");
    let all = world.bucket("all").await;
    let counts = world.store.counts(world.project).await.unwrap();
    let (_, _, head, digest) = counts.buckets[0].clone();
    assert_eq!(report.hints.iter().map(|hint| (hint.bucket, hint.head, hint.digest)).collect::<Vec<_>>(), [(all, head, digest)]);
    assert_eq!((counts.records, counts.devices, head.0), (2, 2, 3), "{counts:?}");

    let rows = world.rows("work_orders").await;
    assert_eq!(rows.len(), 1);
    assert_eq!((&rows[0]["id"], &rows[0]["hours"]), (&json!("w-1"), &json!(15)));
    let notes = world.rows("notes").await;
    assert_eq!((&notes[0]["likes"], &notes[0]["title"]), (&json!(3), &json!("hello")), "{notes:?}");
    let vitals = world.rows("vitals").await;
    assert_eq!(vitals.iter().map(|row| row["cpu"].clone()).collect::<Vec<_>>(), [json!(0.5), json!(0.25)]);
    assert_eq!(vitals[0]["device"], json!(a.id().to_string()));
    assert_ne!(vitals[0]["at"], vitals[1]["at"]);
    assert_eq!(world.store.record(world.project, world.key("work_orders", "w-2")).await.unwrap().unwrap().ver, Ver(1));
    assert!(world.store.record(world.project, world.key("work_orders", "never")).await.unwrap().is_none());
    world.is_sound().await;
}

/// Any push any number of times changes nothing twice (I4), and a decision is never taken twice (R7).
pub async fn is_idempotent(place: Box<dyn Place>) {
    let world = World::new(place, 11).await;
    let mut device = Device::enrolled(&world, "a", &["all"]).await;
    for n in 0..5 {
        device.write(&world, "work_orders", Intent::Merge, ("w", json!({"n": n, "hours": {"$inc": 1}})));
    }
    device.append(&world, &samples(&world, &[0.5]));
    let samples_push = device.push_from(&world, Lane::Telemetry, 1);
    let first = world.merged(device.push_all(&world)).await;
    world.merged(samples_push.clone()).await;
    assert_eq!((first.acked.get(), first.effs.len()), (5, 5));
    assert!(first.effs.is_sorted_by(|a, b| a < b), "R5: effective time increases in a lane");
    let before = (world.rows("work_orders").await, world.store.counts(world.project).await.unwrap());
    for from in [1, 3, 5] {
        let again = world.merged(device.push_from(&world, Lane::State, from)).await;
        let want = Merged { eff_first: Seq::new(from).unwrap(), effs: first.effs[from as usize - 1..].to_vec(), ..first.clone() };
        assert_eq!(again, want, "from {from}");
    }
    // Twice in one batch, and half of it new.
    device.write(&world, "work_orders", Intent::Merge, ("w", json!({"hours": {"$inc": 1}})));
    let report = world.merge(vec![device.push_from(&world, Lane::State, 1), device.push_all(&world), samples_push]).await;
    let effs = |outcome: &Outcome| match outcome {
        Outcome::Merged(merged) => merged.effs.clone(),
        other @ (Outcome::Nack { .. } | Outcome::Refence { .. } | Outcome::Refused(_)) => panic!("{other:?}"),
    };
    assert_eq!(effs(&report.outcomes[0])[..5], first.effs[..]);
    let after = (world.rows("work_orders").await, world.store.counts(world.project).await.unwrap());
    assert_eq!((&before.0[0]["hours"], &after.0[0]["hours"]), (&json!(5), &json!(6)), "exactly one more");
    assert_eq!(after.1.buckets[0].2.0, before.1.buckets[0].2.0 + 1, "R28: one position for one record and batch");
    assert_eq!(world.rows("vitals").await.len(), 1);
    // R7: what another hub had decided is kept, when it does not lie in the future.
    let mut other = Device::enrolled(&world, "b", &["all"]).await;
    let entry = other.write(&world, "work_orders", Intent::Put, ("x", json!({}))).unwrap();
    let given = Eff(START - 5);
    let push = other.push_entries(&world, Lane::State, (1, vec![PushedEntry { entry, eff: Some(given) }]));
    assert!(world.merged(push).await.effs[0] > given, "not before the enrolment");
    world.is_sound().await;
}

/// A gap, a fork, a closed log and an unknown one are told, and change nothing.
pub async fn refuses_what_does_not_continue(place: Box<dyn Place>) {
    let world = World::new(place, 12).await;
    let mut device = Device::enrolled(&world, "a", &["all"]).await;
    for n in 0..4 {
        device.write(&world, "work_orders", Intent::Put, ("w", json!({"n": n})));
    }
    let gap = world.outcome(device.push_from(&world, Lane::State, 2)).await;
    assert_eq!(gap, Outcome::Nack { expect: Seq::FIRST, code: Code::GAP });
    let head = device.lanes[&Lane::State][..2].to_vec();
    world.merged(device.push(&world, Lane::State, (1, &head))).await;
    let gap = world.outcome(device.push_from(&world, Lane::State, 4)).await;
    assert_eq!(gap, Outcome::Nack { expect: Seq::new(3).unwrap(), code: Code::GAP });
    // The same identity, another history.
    let mut fork = head.clone();
    fork[1].header.push(0);
    let forked = |hub_last: u64| Outcome::Refence { hub_last: Seq::new(hub_last), reason: RefenceReason::Forked };
    assert_eq!(world.outcome(device.push(&world, Lane::State, (1, &fork))).await, forked(2));
    let rest = device.lanes[&Lane::State][2..].to_vec();
    let mut clone = device.lanes[&Lane::State].clone();
    clone[1].header.push(0);
    device.lanes.insert(Lane::State, clone);
    assert_eq!(world.outcome(device.push(&world, Lane::State, (3, &rest))).await, forked(2), "the chain before it is another");
    let rows = world.rows("work_orders").await;
    assert_eq!(rows[0]["n"], json!(1));

    world.store.fence(world.project, device.id(), device.incarnation).await.unwrap();
    assert_eq!(world.outcome(device.push_all(&world)).await, forked(2), "a closed log");
    device.incarnation = Incarnation::new(123).unwrap();
    assert_eq!(world.outcome(device.push_all(&world)).await, forked(0), "a log that never said hello");
    assert_eq!(world.rows("work_orders").await, rows);
    world.is_sound().await;
}

/// A hidden record is nowhere in SQL, keeps what it was, and comes back (R9).
pub async fn hides_and_revives(place: Box<dyn Place>) {
    let world = World::new(place, 13).await;
    let mut device = Device::enrolled(&world, "a", &["all"]).await;
    let mut steps = vec![];
    for collection in ["work_orders", "notes"] {
        let counter = if collection == "notes" { "likes" } else { "hours" };
        let number = if collection == "notes" { "rank" } else { "n" };
        for (intent, fields, want) in [
            (Intent::Put, json!({"title": "x", counter: 3, number: 1}), Some((3, Some(1)))),
            (Intent::Delete, json!({}), None),
            (Intent::Put, json!({"title": "y", counter: 4}), Some((4, None))),
            (Intent::Delete, json!({}), None),
        ] {
            steps.push((collection, counter, number, intent, fields, want));
        }
    }
    for (collection, counter, number, intent, fields, want) in steps {
        device.write(&world, collection, intent, ("w", fields.clone()));
        world.merged(device.push_last(&world)).await;
        let rows = world.rows(collection).await;
        let got = rows.first().map(|row| (row[counter].as_i64().unwrap(), row[number].as_i64()));
        assert_eq!(got.map(|got| got.0), want.map(|want| want.0), "{collection} {intent:?} {fields}: {rows:?}");
        if collection == "work_orders" {
            assert_eq!(got, want, "{fields}");
        }
        assert!(world.store.record(world.project, world.key(collection, "w")).await.unwrap().is_some(), "its end is on record");
        world.is_sound().await;
    }
    // A patch of what was never put is kept, and nowhere to be seen.
    let key = world.key("work_orders", "p");
    let title = world.collection("work_orders").fields[0].id;
    let fields = BTreeMap::from([(title, Value::Text("early".into()).to_cbor())]);
    let patch = TableOp { key, action: Action::Patch, before_us: 0, base_ver: Ver(0), fields, deltas: BTreeMap::new() };
    device.rows(&world, &[patch]);
    world.merged(device.push_last(&world)).await;
    assert_eq!(world.rows("work_orders").await, Vec::<serde_json::Value>::new());
    assert_eq!(world.store.counts(world.project).await.unwrap().records, 0);
    // A put by somebody who does not know the field leaves it: revived, it shows what was patched.
    let put = TableOp {
        key: world.key("work_orders", "p"),
        action: Action::Put,
        before_us: 0,
        base_ver: Ver(0),
        fields: BTreeMap::new(),
        deltas: BTreeMap::new(),
    };
    device.rows(&world, std::slice::from_ref(&put));
    device.rows(&world, &[TableOp { action: Action::Delete, ..put.clone() }]);
    device.rows(&world, &[put]);
    let first = device.lanes[&Lane::State].len() as u64 - 2;
    for (seq, want) in [(first, Some(json!("early"))), (first + 1, None), (first + 2, Some(json!(null)))] {
        let entry = device.lanes[&Lane::State][seq as usize - 1].clone();
        world.merged(device.push(&world, Lane::State, (seq, &[entry]))).await;
        assert_eq!(world.rows("work_orders").await.first().map(|row| row["title"].clone()), want);
        world.is_sound().await;
    }
}

/// What cannot be merged is kept and told, its position is used, and its neighbours are not affected (I14).
pub async fn quarantines_and_goes_on(place: Box<dyn Place>) {
    let world = World::new(place, 14).await;
    let mut device = Device::enrolled(&world, "a", &["all"]).await;
    let good = |n: i64| ("w", json!({"n": n, "hours": {"$inc": 1}}));
    device.write(&world, "work_orders", Intent::Merge, good(1));
    device.seal(&world, Kind::Table, vec![0xff]);
    device.write(&world, "work_orders", Intent::Merge, good(2));
    let mut op = TableOp {
        key: world.key("work_orders", "w"),
        action: Action::Patch,
        before_us: 0,
        base_ver: Ver(0),
        fields: BTreeMap::new(),
        deltas: BTreeMap::new(),
    };
    op.fields.insert(world.collection("work_orders").fields[2].id, Value::Text("no number".into()).to_cbor());
    let mut unknown = op.clone();
    unknown.key.collection = mobo_core::ids::CollectionId::new(999).unwrap();
    // All or nothing: the first operation alone would have been good.
    let fine =
        TableOp { fields: BTreeMap::new(), deltas: BTreeMap::from([(world.collection("work_orders").fields[1].id, 100)]), ..op.clone() };
    device.rows(&world, &[fine.clone(), op.clone()]);
    device.rows(&world, &[unknown]);
    device.write(&world, "work_orders", Intent::Merge, good(3));
    let lost = device.rows(&world, &[fine]);
    device.lanes.get_mut(&Lane::State).unwrap().pop();
    device.lanes.get_mut(&Lane::State).unwrap().push(Device::lost(&lost));
    device.write(&world, "pumps", Intent::Put, ("p", json!({"site": "elsewhere"})));
    device.write(&world, "work_orders", Intent::Merge, good(4));
    let merged = world.answered(device.push_all(&world)).await;
    assert_eq!(merged.acked.get(), 9, "every position is used");
    let codes: Vec<_> = merged.rejects.iter().map(|reject| (reject.seq.get(), reject.code)).collect();
    let want = [(2, Code::BAD_PAYLOAD), (4, Code::BAD_VALUE), (5, Code::UNKNOWN_COLLECTION), (7, Code::LOST), (8, Code::FORBIDDEN)];
    assert_eq!(codes, want);
    let rows = world.rows("work_orders").await;
    assert_eq!((&rows[0]["n"], &rows[0]["hours"]), (&json!(4), &json!(4)));
    assert_eq!(world.rows("pumps").await.len(), 0);
    let kept = world.store.quarantine(world.project, None, 10).await.unwrap();
    let kept: Vec<_> = kept.iter().map(|entry| (entry.seq.get(), entry.code, entry.record.clone().map(|record| record.1))).collect();
    let want = [(8, 33, Some("p".to_owned())), (5, 31, Some("w".to_owned())), (4, 32, Some("w".to_owned())), (2, 30, None)];
    assert_eq!(kept, want, "newest first");
    assert_eq!(world.store.quarantine(world.project, None, 1).await.unwrap().len(), 1);
    assert_eq!(world.store.counts(world.project).await.unwrap().quarantined, 4, "what is lost is on record, but nothing to look into");
    world.answered(device.push_all(&world)).await;
    assert_eq!(world.store.counts(world.project).await.unwrap().quarantined, 4, "told again, kept once");

    // What builds on a refused change of a document is refused by that name, also in a later batch.
    let mut writer = Device::enrolled(&world, "b", &["all"]).await;
    writer.write(&world, "notes", Intent::Put, ("n", json!({"rank": 1})));
    writer.write(&world, "notes", Intent::Patch, ("n", json!({"rank": 2})));
    writer.write(&world, "notes", Intent::Patch, ("n", json!({"rank": 3})));
    let dropped = Device::lost(&writer.lanes[&Lane::State][1]);
    writer.lanes.get_mut(&Lane::State).unwrap()[1] = dropped;
    let two = writer.lanes[&Lane::State][..2].to_vec();
    assert_eq!(only_code(&world.answered(writer.push(&world, Lane::State, (1, &two))).await), Code::LOST);
    assert_eq!(only_code(&world.answered(writer.push_last(&world)).await), Code::MISSING_DEPENDENCY);
    writer.write(&world, "notes", Intent::Patch, ("n", json!({"rank": 4})));
    assert_eq!(only_code(&world.answered(writer.push_last(&world)).await), Code::BLOCKED);
    assert_eq!(world.rows("notes").await[0]["rank"], json!(1));
    world.is_sound().await;
}

/// A write that was sealed twice counts once, whichever of the two arrives first (R15).
pub async fn applies_a_provenance_once(place: Box<dyn Place>) {
    let world = World::new(place, 15).await;
    let mut device = Device::enrolled(&world, "a", &["all"]).await;
    for _ in 0..3 {
        device.write(&world, "work_orders", Intent::Merge, ("w", json!({"hours": {"$inc": 1}})));
    }
    device.append(&world, &samples(&world, &[0.5]));
    let old = device.lanes.clone();
    let provenances: Vec<_> = (1..=3).map(|seq| device.provenance(Lane::State, seq)).collect();
    let of_samples = device.provenance(Lane::Telemetry, 1);
    // The hub has the first two and the samples; the device does not know, and seals everything again.
    world.merged(device.push(&world, Lane::State, (1, &old[&Lane::State][..2]))).await;
    world.merged(device.push(&world, Lane::Telemetry, (1, &old[&Lane::Telemetry]))).await;
    let payload = |entry: &mobo_core::entry::Entry| match &entry.payload {
        mobo_core::entry::Payload::Present(bytes) => bytes.clone(),
        mobo_core::entry::Payload::Lost(_) => panic!("it is there"),
    };
    for round in 1..=2 {
        device.refence(&world, Seq::new(0)).await;
        for (entry, provenance) in old[&Lane::State].iter().zip(&provenances) {
            device.seal_again(&world, Kind::Table, payload(entry), Some(*provenance));
        }
        device.seal_again(&world, Kind::Stream, payload(&old[&Lane::Telemetry][0]), Some(of_samples));
        let merged = world.merged(device.push_all(&world)).await;
        assert_eq!(merged.acked.get(), 3, "their positions are used");
        world.merged(device.push_from(&world, Lane::Telemetry, 1)).await;
        assert_eq!(world.rows("work_orders").await[0]["hours"], json!(3), "round {round}");
        assert_eq!(world.rows("vitals").await.len(), 1, "round {round}");
    }
    assert_eq!(world.sql("SELECT count(*) FROM {own}entry WHERE outcome = 3").await, "7", "known under their provenance");
    world.is_sound().await;
}

/// Decisions that somebody may want to see are on record once (R12), outside digests.
pub async fn notes_conflicts(place: Box<dyn Place>) {
    let world = World::new(place, 16).await;
    let (mut a, mut b) = (Device::enrolled(&world, "a", &["all"]).await, Device::enrolled(&world, "b", &["all"]).await);
    // b writes later, and has not seen what a wrote.
    b.tick();
    a.write(&world, "work_orders", Intent::Put, ("w", json!({"title": "by a", "n": 1, "due": "2026-02-03T04:05:06Z"})));
    b.write(&world, "work_orders", Intent::Put, ("w", json!({"title": "by b", "n": 1, "meta": {"k": [1]}})));
    world.merge(vec![a.push_all(&world), b.push_all(&world)]).await;
    world.merge(vec![a.push_all(&world), b.push_all(&world)]).await;
    let conflicts = world.store.conflicts(world.project, None, 10).await.unwrap();
    let fields = &world.collection("work_orders").fields;
    let name = |id: u64| fields.iter().find(|field| field.id.get() == id).map_or("?", |field| field.name.as_str());
    let mut seen: Vec<_> = conflicts.iter().map(|row| (name(row.field), row.loser.clone(), row.winner.clone())).collect();
    seen.sort_by_key(|row| row.0);
    let due = json!("2026-02-03T04:05:06.000000Z");
    let want = [("due", due, json!(null)), ("meta", json!(null), json!({"k": [1]})), ("title", json!("by a"), json!("by b"))];
    assert_eq!(seen, want);
    assert!(conflicts.iter().all(|row| row.loser_stamp.device == a.id() && row.winner_stamp.device == b.id() && row.kind == 1));
    assert_eq!(world.store.counts(world.project).await.unwrap().conflicts, 3);
    assert_eq!(world.store.conflicts(world.project, None, 2).await.unwrap().len(), 2);
    // Whoever holds the record is told with it, and with others of nothing.
    assert_eq!(told(&world, &b, 0).await, conflicts);
    let head = world.store.counts(world.project).await.unwrap().buckets[0].2;
    b.tick();
    b.write(&world, "work_orders", Intent::Put, ("other", json!({"title": "x"})));
    world.merged(b.push_last(&world)).await;
    assert_eq!(told(&world, &b, head.0).await, []);
    let key = world.key("work_orders", "w");
    let title = fields.iter().find(|field| field.name == "title").unwrap().id.get();
    assert_eq!(world.store.settle_conflicts(world.project, key, Some(title)).await.unwrap(), 1);
    let rest: Vec<_> = conflicts.iter().filter(|row| row.field != title).cloned().collect();
    assert_eq!(told(&world, &b, 0).await, rest, "what is settled is told to nobody");
    // A delete by somebody who has not seen the row: one decision about the record as a whole.
    let key = world.key("work_orders", "w");
    let delete = TableOp { key, action: Action::Delete, before_us: 0, base_ver: Ver(0), fields: BTreeMap::new(), deltas: BTreeMap::new() };
    a.rows(&world, &[delete]);
    world.merged(a.push_last(&world)).await;
    let whole = world.store.conflicts(world.project, None, 1).await.unwrap().remove(0);
    assert_eq!((whole.field, whole.kind, whole.loser, whole.loser_stamp.device), (0, 2, json!(null), b.id()));
    world.is_sound().await;
}

/// The decisions that a pull of the one bucket brings.
async fn told(world: &World, device: &Device, from: u64) -> Vec<ConflictRow> {
    let buckets = world.store.counts(world.project).await.unwrap().buckets;
    let wants = buckets.iter().map(|bucket| (bucket.0, Position(from))).collect();
    let request = PullRequest { project: world.project, device: device.id(), wants, items_max: 100, bytes_max: 1 << 20 };
    world.store.pull(request).await.unwrap().buckets.into_iter().flat_map(|page| page.decisions).collect()
}

/// A field that the hub does not know survives bit for bit, and people see it in `_extra` (I20).
// faults: H-16
pub async fn keeps_unknown_fields(place: Box<dyn Place>) {
    let world = World::new(place, 17).await;
    let mut device = Device::enrolled(&world, "a", &["all"]).await;
    let odd = FieldId::new(4_242).unwrap();
    // A float that is wider than it must be: nobody here would write it so.
    let item = vec![0xfa, 0x3f, 0x80, 0, 0];
    let mut op = TableOp {
        key: world.key("work_orders", "w"),
        action: Action::Put,
        before_us: 0,
        base_ver: Ver(0),
        fields: BTreeMap::new(),
        deltas: BTreeMap::new(),
    };
    op.fields.insert(odd, item.clone());
    op.deltas.insert(FieldId::new(4_243).unwrap(), 7);
    device.rows(&world, &[op]);
    device.write(&world, "work_orders", Intent::Merge, ("w", json!({"title": "x"})));
    device.write(&world, "work_orders", Intent::Delete, ("w", json!({})));
    device.write(&world, "work_orders", Intent::Put, ("w", json!({"title": "y"})));
    for seq in 1..=4_usize {
        let entry = device.lanes[&Lane::State][seq - 1].clone();
        world.merged(device.push(&world, Lane::State, (seq as u64, &[entry]))).await;
        let record = world.store.record(world.project, world.key("work_orders", "w")).await.unwrap().unwrap();
        let mobo_core::record::RecordState::Table(state) = record.state else { panic!("a row") };
        assert_eq!(state.cells[&odd].value, Value::Unknown(item.clone()), "after {seq}");
        world.is_sound().await;
        if seq < 3 {
            let extra: serde_json::Value = serde_json::from_str(&world.sql("SELECT _extra FROM work_orders").await).unwrap();
            assert_eq!(extra, json!({"4242": 1, "4243": 7}));
        }
    }
}

/// The hub's own writes see the record that is there, all or nothing.
pub async fn writes_for_the_hub_itself(place: Box<dyn Place>) {
    let world = World::new(place, 18).await;
    let hours = json!({"hours": 5});
    let merged = world.merged(world.local("work_orders", Intent::Insert, "w", &hours)).await;
    assert_eq!(merged.changed, [world.key("work_orders", "w")]);
    let exists = world.outcome(world.local("work_orders", Intent::Insert, "w", &hours)).await;
    assert!(matches!(exists, Outcome::Refused(EditError::Exists { .. })), "{exists:?}");
    let bad = world.outcome(world.local("work_orders", Intent::Patch, "w", &json!({"n": "x"}))).await;
    assert!(matches!(bad, Outcome::Refused(EditError::BadValue { .. })), "{bad:?}");
    let nothing = world.merged(world.local("work_orders", Intent::Patch, "absent", &hours)).await;
    assert_eq!((nothing.changed.len(), nothing.effs.len()), (0, 0), "nothing to patch, no entry");
    // A plain number on a counter is the difference to what is really there, also inside one batch.
    let set = |number: i64| world.local("work_orders", Intent::Patch, "w", &json!({"hours": number}));
    world.merge(vec![set(7), world.local("work_orders", Intent::Patch, "w", &json!({"hours": {"$inc": 1}})), set(3)]).await;
    assert_eq!(world.rows("work_orders").await[0]["hours"], json!(3));
    let body = LocalBody::Append(samples(&world, &[1.0, 2.0]));
    let vitals = world.collection("vitals");
    world.merged(world.local_write(vitals.id, world.hub.lane(vitals.lane), body)).await;
    assert_eq!(world.rows("vitals").await.len(), 2);
    let lane: LaneKey = world.hub.lane(Lane::State);
    assert!(world.store.chain_at(world.project, lane, Seq::new(4).unwrap()).await.unwrap().is_some());
    world.is_sound().await;
}

/// A new log begins above the fork entry of the one that it continues (R5), and has seen what that one wrote (R12).
pub async fn starts_a_new_log_above_its_parent(place: Box<dyn Place>) {
    let world = World::new(place, 19).await;
    for (name, fork) in [("a", 2), ("b", 1)] {
        let mut device = Device::enrolled(&world, name, &["all"]).await;
        for title in ["one", "two"] {
            device.write(&world, "work_orders", Intent::Put, (name, json!({"title": title})));
        }
        let effs = world.merged(device.push_all(&world)).await.effs;
        let (mut fork, mut floor) = (fork, effs[fork - 1]);
        for generation in 2..=3 {
            device.refence(&world, Seq::new(fork as u64)).await;
            let title = json!({"title": format!("of log {generation}")});
            let entry = device.write(&world, "work_orders", Intent::Put, (name, title)).unwrap();
            // Long ago, by an earlier hub's decision: as early as the lane allows.
            let push = device.push_entries(&world, Lane::State, (1, vec![PushedEntry { entry, eff: Some(Eff(0)) }]));
            floor = floor.plus(1);
            assert_eq!(world.merged(push).await.effs, [floor], "{name}: above the entry at which log {generation} forked off");
            fork = 1;
        }
    }
    assert_eq!(world.store.conflicts(world.project, None, 10).await.unwrap(), [], "an author knows its own past");
    world.is_sound().await;
}

/// Many devices, one bucket, all at once: no position is used twice, no increment lost.
pub async fn runs_from_many_sides_at_once(place: Box<dyn Place>) {
    const DEVICES: usize = 8;
    const ROUNDS: usize = 6;
    let world = Arc::new(World::new(place, 20).await);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..DEVICES {
        let mut device = Device::enrolled(&world, &format!("d{number}"), &["all", "site:x"]).await;
        let world = Arc::clone(&world);
        tasks.spawn(async move {
            for round in 1..=ROUNDS as u64 {
                let own = format!("own-{number}-{round}");
                device.write(&world, "work_orders", Intent::Merge, ("shared", json!({"hours": {"$inc": 1}})));
                device.write(&world, "pumps", Intent::Merge, (&own, json!({"site": "x", "runs": {"$inc": 1}})));
                let push = device.push_from(&world, Lane::State, round * 2 - 1);
                let twice: Vec<Prepared> = vec![push.clone(), push];
                world.merge(twice).await;
            }
        });
    }
    tasks.join_all().await;
    let total = (DEVICES * ROUNDS) as u64;
    assert_eq!(world.rows("work_orders").await[0]["hours"], json!(total));
    let counts = world.store.counts(world.project).await.unwrap();
    assert_eq!(counts.records, total + 1);
    let head = |key: &str| counts.buckets.iter().find(|bucket| bucket.1 == key).unwrap().2.0;
    assert_eq!((head("all"), head("site:x")), (total, total), "R28: one position for one record and merge");
    let version = world.store.record(world.project, world.key("work_orders", "shared")).await.unwrap().unwrap().ver;
    assert_eq!(version, Ver(total));
    world.is_sound().await;
}
