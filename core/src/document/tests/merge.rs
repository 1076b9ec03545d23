//! What people did apart from each other, together again.

use super::*;
use crate::document::{Actor, ChangeId, conflict};
use crate::engine::ConflictKind;
use crate::message::Code;

/// Two people who begin with `before` edit apart; both orders of merging must give `want` and, on the second person's arrival, as many
/// conflicts as `fields` names (the empty name is the record as a whole).
#[track_caller]
fn check(before: Json, edits: [(Intent, Json); 2], want: Json, fields: &[&str]) {
    let mut first = Person::new(1);
    if !before.is_null() {
        first.edit(Intent::Put, before);
    }
    let mut people = [first.fork(2), first.fork(3)];
    for (person, (intent, fields)) in people.iter_mut().zip(&edits) {
        person.edit(*intent, fields.clone());
    }
    let [a, b] = people.each_ref().map(|person| person.sent.clone());
    let [mut left, mut right] = people;
    let conflicts = left.take_all(&b);
    assert_eq!(left.row(), want, "{edits:?}");
    assert_eq!(right.take_all(&a).len(), conflicts.len(), "whoever comes second, the decision is the same");
    assert_eq!(DocumentEngine.state_hash(&left.document), DocumentEngine.state_hash(&right.document), "R8");
    let found: Vec<FieldId> = conflicts.iter().filter_map(|conflict| conflict.field).collect();
    assert_eq!(found, fields.iter().filter(|name| !name.is_empty()).map(|name| field(name)).collect::<Vec<_>>(), "{conflicts:#?}");
    assert_eq!(conflicts.len(), fields.len(), "{conflicts:#?}");
    assert_eq!(row(&collection(), &Document::load(key(), 0, left.document.saved.clone()).unwrap()), want, "as stored");
}

#[test]
fn two_devices_that_create_one_record_offline_merge_field_by_field() {
    let (put, null) = (Intent::Put, json!(null));
    check(
        null.clone(),
        [(put, json!({"body": "x", "count": 1})), (put, json!({"done": true, "tags": ["t"]}))],
        json!({"body": "x", "count": 1, "done": true, "tags": ["t"]}),
        &[],
    );
    check(null, [(put, json!({})), (put, json!({"hours": 2}))], json!({"hours": 2}), &[]);
}

#[test]
fn both_edits_of_one_text_are_kept() {
    let edit = |text: &str| (Intent::Patch, json!({ "body": text }));
    let before = json!({"body": "the quick fox jumps"});
    let merged = json!({"body": "the very quick fox jumps high"});
    check(before.clone(), [edit("the very quick fox jumps"), edit("the quick fox jumps high")], merged, &[]);
    // Two places in one commit: what lies between is nobody's.
    let merged = json!({"body": "A quick brown fox jumps!"});
    check(before, [edit("A quick fox jumps!"), edit("the quick brown fox jumps")], merged, &[]);
}

#[test]
fn both_edits_of_one_list_are_kept() {
    let edit = |tags: Json| (Intent::Patch, json!({ "tags": tags }));
    let before = json!({"tags": [1, 2, 3]});
    check(before.clone(), [edit(json!({"$push": [4]})), edit(json!({"$splice": [0, 1, [0]]}))], json!({"tags": [0, 2, 3, 4]}), &[]);
    check(before, [edit(json!([1, 3])), edit(json!([1, 2]))], json!({"tags": [1]}), &[]);
}

#[test]
fn counters_add_up() {
    let add = |n: i64| (Intent::Patch, json!({"hours": {"$inc": n}}));
    check(json!({"done": true}), [add(2), add(3)], json!({"done": true, "hours": 5}), &[]);
    check(json!({"hours": 10}), [(Intent::Patch, json!({"hours": 12})), add(3)], json!({"hours": 15}), &[]);
    check(json!(null), [(Intent::Put, json!({"hours": 2})), (Intent::Put, json!({"hours": 3}))], json!({"hours": 5}), &[]);
}

#[test]
fn r12_one_register_written_twice_is_a_decision() {
    let set = |n: i64| (Intent::Patch, json!({ "count": n }));
    // Equal counters: the greater actor wins.
    check(json!({"count": 1}), [set(2), set(3)], json!({"count": 3}), &["count"]);
    check(json!({"count": 1}), [set(2), set(2)], json!({"count": 2}), &[]);
    check(json!({"count": 1}), [set(2), (Intent::Patch, json!({"done": true}))], json!({"count": 2, "done": true}), &[]);
}

#[test]
fn a_conflict_names_both_sides() {
    let mut first = Person::new(1);
    first.edit(Intent::Put, json!({"count": 1}));
    let (mut a, mut b) = (first.fork(2), first.fork(3));
    a.edit(Intent::Patch, json!({"count": 2}));
    b.edit(Intent::Patch, json!({"count": 3}));
    let conflicts = a.take_all(&b.sent);
    let [Conflict { field: Some(found), kind: ConflictKind::Concurrent, loser, loser_value, winner, winner_value }] = conflicts.as_slice()
    else {
        panic!("{conflicts:?}");
    };
    assert_eq!(*found, field("count"));
    assert_eq!([loser_value, winner_value].map(|value| value_to_json(value, FieldType::Int)), [json!(2), json!(3)]);
    assert_eq!(winner.device, origin(3).device, "the operation that was merged has its stamp");
    assert_eq!((loser.ordinal, loser.seq, loser.op), (Ordinal(0), Seq::FIRST, 3), "its rival says which automerge operation it was");
    let rival = conflict::rival(loser).unwrap();
    assert_eq!(rival, ChangeId { actor: Actor::of(origin(2)), seq: 1 });
    assert_eq!(conflict::origin_of(rival.actor, [origin(1), origin(2)].into_iter()), Some(origin(2)));
    assert_eq!(conflict::origin_of(rival.actor, [origin(3)].into_iter()), None);
    assert_eq!(conflict::rival(winner), None);
    let mut c = a.fork(4);
    c.edit(Intent::Patch, json!({"count": 3}));
    assert!(c.try_edit(Intent::Patch, &json!({"count": 3})).unwrap().is_none(), "to write the winner again settles it, once");
    a.edit(Intent::Patch, json!({"count": 4}));
    assert!(b.take_all(&a.sent[..1]).len() == 1 && b.take_all(&a.sent[1..]).is_empty(), "whoever has seen both decides");
    assert_eq!(b.row(), json!({"count": 4}));
}

#[test]
fn a_delete_wins_over_a_concurrent_edit_and_says_so() {
    let before = json!({"count": 1});
    let delete = (Intent::Delete, json!({}));
    check(before.clone(), [delete.clone(), (Intent::Patch, json!({"count": 2}))], json!(null), &[""]);
    check(before, [delete.clone(), delete], json!(null), &[]);
}

#[test]
fn a_later_put_revives_with_what_the_deleter_had_not_seen() {
    let mut a = Person::new(1);
    a.edit(Intent::Put, json!({"body": "x", "hours": 5}));
    let mut b = a.fork(2);
    b.edit(Intent::Patch, json!({"hours": {"$inc": 3}}));
    a.edit(Intent::Delete, json!({})).edit(Intent::Put, json!({"done": true}));
    a.take_all(&b.sent);
    assert_eq!(a.row(), json!({"done": true, "hours": 3}));
}

#[test]
fn a_delete_wins_over_a_revival_that_did_not_know_of_it() {
    let mut a = Person::new(1);
    a.edit(Intent::Put, json!({"count": 1}));
    let mut b = a.fork(2);
    b.edit(Intent::Delete, json!({}));
    a.edit(Intent::Delete, json!({})).edit(Intent::Put, json!({"count": 2}));
    a.take_all(&b.sent);
    assert_eq!(a.row(), json!(null));
    assert_eq!(a.edit(Intent::Put, json!({"count": 3})).row(), json!({"count": 3}));
}

#[test]
fn i20_a_field_of_a_newer_schema_survives_an_older_node() {
    let mut new = Person::new(1);
    new.edit(Intent::Put, json!({"body": "x", "count": 1, "hours": 2, "tags": ["t"]}));
    let mut old = new.fork(2);
    old.collection = collection_of(&["count"]);
    assert_eq!(old.row(), json!({"count": 1}));
    old.edit(Intent::Patch, json!({"count": 2}));
    // Both containers that the older node does not know, and their edits, pass it.
    new.edit(Intent::Patch, json!({"body": "xy", "hours": {"$inc": 1}, "tags": {"$push": ["u"]}, "done": true}));
    old.take_all(&new.sent[1..]);
    new.document = Document::load(key(), 0, old.document.saved.clone()).unwrap();
    assert_eq!(new.row(), json!({"body": "xy", "count": 2, "done": true, "hours": 3, "tags": ["t", "u"]}));
}

#[test]
fn a_field_that_is_declared_later_begins_on_every_node_alike() {
    let mut a = Person::new(1);
    a.collection = collection_of(&["count"]);
    a.edit(Intent::Put, json!({"count": 1}));
    let mut b = a.fork(2);
    (a.collection, b.collection) = (collection(), collection());
    assert_eq!(a.row(), json!({"count": 1}));
    a.edit(Intent::Patch, json!({"body": "a", "hours": 1}));
    b.edit(Intent::Patch, json!({"tags": ["b"], "hours": 1}));
    a.take_all(&b.sent);
    assert_eq!(a.row(), json!({"body": "a", "count": 1, "hours": 2, "tags": ["b"]}));
}

#[test]
fn r16_a_change_that_is_there_is_a_successful_no_op() {
    let mut a = Person::new(1);
    a.edit(Intent::Put, json!({"count": 1})).edit(Intent::Patch, json!({"count": 2}));
    let before = a.document.clone();
    let sent = a.sent.clone();
    assert!(a.take_all(&sent).is_empty());
    assert_eq!(a.document.saved, before.saved);
    // Also when another entry brings it: the same change in a new log.
    assert!(a.take(&Sent { device: 9, ..sent[0].clone() }).unwrap().is_empty());
}

#[test]
fn r30_another_generation_is_refused() {
    let mut a = Person::new(1);
    a.edit(Intent::Put, json!({"count": 1}));
    let mut sent = a.sent[0].clone();
    sent.op.epoch = 1;
    let mut document = Document::empty(key());
    assert_eq!(apply(&collection(), &mut document, &sent).unwrap_err().code, Code::BAD_EPOCH);
    assert_eq!(Document::load(key(), 1, a.document.saved.clone()).unwrap_err().code, Code::BAD_EPOCH);
    assert_eq!(DocumentEngine.rebase(&document, 1, &[]).unwrap_err().code, Code::BAD_EPOCH);
    assert_eq!(DocumentEngine.squash(&document).unwrap_err().code, Code::UNSUPPORTED);
    document.epoch = 1;
    assert_eq!(apply(&collection(), &mut document, &a.sent[0]).unwrap_err().code, Code::BAD_EPOCH);
}

#[test]
fn a_damaged_document_is_found_wherever_the_byte_is() {
    let mut a = Person::new(1);
    a.edit(Intent::Put, json!({"body": "some text", "count": 1, "tags": [1, 2]}));
    let saved = a.document.saved.clone();
    for index in 0..saved.len() {
        let mut damaged = saved.clone();
        damaged[index] ^= 1;
        assert_eq!(Document::load(key(), 0, damaged.clone()).map(|_| ()).unwrap_err().code, Code::CORRUPT_RECORD, "byte {index}");
        let mut document = Document { saved: damaged, shown: None, ..a.document.clone() };
        let mut b = a.fork(2);
        b.edit(Intent::Patch, json!({"count": 2}));
        assert_eq!(apply(&collection(), &mut document, &b.sent[0]).map(|_| ()).unwrap_err().code, Code::CORRUPT_RECORD, "byte {index}");
    }
}

/// What several people did, each edit after all that it knew of.
fn schedule(seed: u64) -> Vec<Sent> {
    let mut seeded = Seeded(seed);
    let mut people: Vec<Person> = (1..=3).map(Person::new).collect();
    let mut all: Vec<Sent> = Vec::new();
    for step in 0..14 {
        let index = seeded.below(people.len());
        if step % 4 == 3 {
            // Someone hears of everything.
            for sent in all.clone() {
                people[index].take(&sent).unwrap();
            }
        }
        let before = people[index].sent.len();
        let (intent, fields) = any_edit(&mut seeded, step);
        people[index].try_edit(intent, &fields).unwrap();
        all.extend_from_slice(&people[index].sent[before..]);
    }
    all
}

fn any_edit(seeded: &mut Seeded, step: u64) -> (Intent, Json) {
    let intent = *seeded.pick(&[Intent::Put, Intent::Patch, Intent::Patch, Intent::Patch, Intent::Patch, Intent::Delete]);
    let intent = if step < 2 { Intent::Put } else { intent };
    let fields = match seeded.below(7) {
        0 => json!({ "body": format!("text {step}") }),
        1 => json!({ "body": {"$splice": [0, 0, format!("{step}")]} }),
        2 => json!({ "tags": {"$push": [step, {"step": step}]} }),
        3 => json!({ "tags": [step] }),
        4 => json!({ "hours": {"$inc": step} }),
        5 => json!({ "count": step, "done": step.is_multiple_of(2), "extra": {"s": [step]} }),
        _ => json!({ "due": "2026-02-03T04:05:06Z", "ratio": 0.5, "blob": "AA==" }),
    };
    (intent, if intent == Intent::Delete { json!({}) } else { fields })
}

/// Another order in which the same entries could have arrived: each after what it builds on, which a refusal tells.
fn shuffled(sent: &[Sent], seeded: &mut Seeded) -> Document {
    let mut waiting = sent.to_vec();
    for index in (1..waiting.len()).rev() {
        waiting.swap(index, seeded.below(index + 1));
    }
    let mut document = Document::empty(key());
    while !waiting.is_empty() {
        let before = waiting.len();
        waiting.retain(|sent| match apply(&collection(), &mut document, sent) {
            Ok(_) => false,
            Err(refusal) => {
                assert_eq!(refusal.code, Code::MISSING_DEPENDENCY, "{refusal}");
                true
            }
        });
        assert!(waiting.len() < before, "something always fits");
    }
    document
}

#[test]
fn r8_the_same_changes_in_any_order_give_the_same_state() {
    for seed in 0..12 {
        let mut seeded = Seeded(seed);
        let sent = schedule(seed);
        let want = merged(&sent);
        for _ in 0..3 {
            let other = shuffled(&sent, &mut seeded);
            assert_eq!(DocumentEngine.state_hash(&other), DocumentEngine.state_hash(&want), "seed {seed}");
            assert_eq!(row(&collection(), &other), row(&collection(), &want), "seed {seed}");
        }
    }
}

#[test]
fn r11_join_is_commutative_associative_and_idempotent() {
    for seed in 20..28 {
        let sent = schedule(seed);
        let want = merged(&sent);
        let join = |left: &Document, right: &Document| DocumentEngine.join(&collection(), left, right).unwrap();
        let hash = |document: &Document| DocumentEngine.state_hash(document);
        // Each copy is what one person had seen and made.
        let copy = |device: u8| {
            let mut document = Document::empty(key());
            for sent in sent.iter().filter(|sent| sent.device <= device) {
                // Without the others' changes, some of one's own have nothing to build on.
                let _ = apply(&collection(), &mut document, sent);
            }
            document
        };
        let (a, b, c) = (copy(1), copy(2), want.clone());
        assert_eq!(hash(&join(&a, &b)), hash(&join(&b, &a)), "seed {seed}");
        assert_eq!(hash(&join(&join(&a, &b), &c)), hash(&join(&a, &join(&b, &c))), "seed {seed}");
        assert_eq!(hash(&join(&a, &a)), hash(&a));
        assert_eq!(hash(&join(&a, &c)), hash(&want), "seed {seed}");
        assert_eq!(row(&collection(), &join(&a, &c)), row(&collection(), &want), "seed {seed}");
        assert_eq!(hash(&join(&DocumentEngine.empty(), &a)), hash(&a));
    }
}

#[test]
fn a_join_does_not_believe_the_other_side() {
    let mut a = Person::new(1);
    a.edit(Intent::Put, json!({"count": 1}));
    let mut other = a.fork(2);
    other.edit(Intent::Patch, json!({"count": 2}));
    let mut clone = a.fork(2);
    clone.edit(Intent::Patch, json!({"count": 3}));
    // One actor, one position, two contents: a cloned log.
    let refusal = DocumentEngine.join(&collection(), &other.document, &clone.document).unwrap_err();
    assert_eq!(refusal.code, Code::BAD_CHANGE);
    let damaged = Document { saved: vec![1, 2, 3], ..clone.document.clone() };
    assert_eq!(DocumentEngine.join(&collection(), &other.document, &damaged).unwrap_err().code, Code::CORRUPT_RECORD);
}

/// What a merge has loaded to check it is what the next one goes on with: it must be what the bytes say.
#[test]
fn a_document_that_is_still_loaded_merges_like_one_that_is_loaded_again() {
    let mut author = Person::new(1);
    author.edit(Intent::Put, json!({"body": "some text", "count": 1, "tags": [1]}));
    for n in 2..40 {
        author.edit(Intent::Patch, json!({"body": {"$splice": [0, 0, format!("{n} ")]}, "count": n, "hours": {"$inc": n}}));
    }
    let (mut warm, mut cold) = (Document::empty(key()), Document::empty(key()));
    for sent in &author.sent {
        apply(&collection(), &mut warm, sent).unwrap();
        cold = cold.clone();
        assert!(cold.warm.0.is_none(), "a copy holds no loaded document");
        apply(&collection(), &mut cold, sent).unwrap();
        assert_eq!((&warm.saved, warm.heads()), (&cold.saved, cold.heads()));
    }
    // A refused change leaves nothing behind in it.
    let mut stranger = author.fork(2);
    stranger.edit(Intent::Patch, json!({"count": 7}));
    let forged = Sent { device: 9, ..stranger.sent[0].clone() };
    let before = (warm.saved.clone(), warm.heads().to_vec());
    assert!(apply(&collection(), &mut warm, &forged).is_err());
    assert_eq!((warm.saved.clone(), warm.heads().to_vec()), before);
    author.edit(Intent::Patch, json!({"count": 99}));
    apply(&collection(), &mut warm, author.sent.last().unwrap()).unwrap();
    assert_eq!(row(&collection(), &warm), author.row());
}
