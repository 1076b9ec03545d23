//! Changes broken at random, their checksums put right: none escapes as a panic, none poisons the document.
//!
//! Half of them are broken in their bytes, half in what they say (and then encoded as automerge does it, so that they get far). Each has
//! its own seed, which a failure prints; `MOBO_MUTATIONS=100000` makes as many.
//!
//! faults: X-3

use automerge::legacy::{ElementId, Key, ObjectId, Op, OpId, OpType};
use automerge::{Change, ExpandedChange, ScalarValue};

use super::guard::{body, sealed, with_change};
use super::*;

const MUTATIONS: usize = 20_000;
const SEED: u64 = 0x006d_6f62_6f21;

/// A document in several states, and honest changes that fit one of them.
struct Corpus {
    documents: Vec<Document>,
    /// With the index of the document that each fits.
    sent: Vec<(usize, Sent)>,
}

fn corpus() -> Corpus {
    let mut first = Person::new(1);
    first.edit(Intent::Put, json!({"body": "some text", "count": 1, "ratio": 0.5, "tags": [1, "two", {"three": 3}], "hours": 4}));
    let mut corpus = Corpus { documents: vec![Document::empty(key()), first.document.clone()], sent: vec![(0, first.sent[0].clone())] };
    let edits = [
        json!({"count": 2, "done": true, "extra": {"a": [1]}, "due": "2026-02-03T04:05:06Z", "blob": "AAEC"}),
        json!({"body": {"$splice": [5, 4, "words, and more"]}}),
        json!({"body": "some longer text!"}),
        json!({"tags": {"$push": ["x", 2.5, null]}}),
        json!({"tags": {"$splice": [0, 2, [true]]}}),
        json!({"hours": {"$inc": -2}}),
        json!({"body": {"$splice": [0, 0, "¡"]}, "hours": {"$inc": 1}, "tags": [9], "count": 7, "ratio": null}),
    ];
    let base = first.clone();
    for (device, fields) in (2..).zip(edits) {
        let mut apart = base.fork(device);
        apart.edit(Intent::Patch, fields);
        corpus.sent.push((1, apart.sent[0].clone()));
        // Half of them are merged and make up the second document, with concurrent values in it.
        if device % 2 == 0 {
            first.take_all(&apart.sent);
        }
    }
    corpus.documents.push(first.document.clone());
    for (device, fields) in (20..).zip([json!({"count": 9, "body": "all new"}), json!({"tags": [], "hours": 0}), json!({"body": null})]) {
        let mut apart = first.fork(device);
        apart.edit(Intent::Patch, fields);
        corpus.sent.push((2, apart.sent[0].clone()));
    }
    let mut gone = first.fork(30);
    gone.edit(Intent::Delete, json!({})).edit(Intent::Put, json!({"body": "back"}));
    corpus.sent.push((2, gone.sent[0].clone()));
    corpus
}

#[test]
fn changes_with_broken_bytes_neither_panic_nor_poison() {
    run(broken_bytes);
}

#[test]
fn changes_with_broken_content_neither_panic_nor_poison() {
    run(|seeded, change, corpus| broken_content(seeded, change, corpus).unwrap_or_default());
}

/// Half of the mutations.
fn run(mutate: impl Fn(&mut Seeded, &[u8], &Corpus) -> Vec<u8>) {
    silence_automerge();
    let corpus = corpus();
    for (document, sent) in &corpus.sent {
        apply(&collection(), &mut corpus.documents[*document].clone(), sent).expect("the corpus is honest");
    }
    let mut tally = Tally::default();
    let mutations = mutations() / 2;
    for mutation in 0..mutations {
        let seed = SEED.wrapping_add(mutation as u64);
        let mut seeded = Seeded(seed);
        let (document, sent) = seeded.pick(&corpus.sent);
        let broken = with_change(sent, mutate(&mut seeded, &sent.op.changes[0], &corpus));
        match std::panic::catch_unwind(|| tell(&corpus.documents[*document], &broken)) {
            Ok(Ok(accepted)) => tally.count(accepted),
            Ok(Err(why)) => panic!("seed {seed:#x} poisoned the document: {why}; {:02x?}", broken.op.changes[0]),
            Err(_) => panic!("seed {seed:#x} escaped as a panic; {:02x?}", broken.op.changes[0]),
        }
    }
    // A wall that nothing passes, or that nothing reaches, would prove nothing.
    assert!(tally.accepted > mutations / 1_000 && tally.refused > mutations / 2, "{tally:?}");
}

#[derive(Debug, Default)]
struct Tally {
    accepted: usize,
    refused: usize,
}

impl Tally {
    fn count(&mut self, accepted: bool) {
        *(if accepted { &mut self.accepted } else { &mut self.refused }) += 1;
    }
}

/// Whether the change is accepted. Either way the document must load and say the same as before it was stored.
fn tell(document: &Document, sent: &Sent) -> Result<bool, String> {
    let mut after = document.clone();
    let accepted = apply(&collection(), &mut after, sent).is_ok();
    if !accepted {
        let same = after.saved == document.saved && after.heads() == document.heads();
        return if same { Ok(false) } else { Err("refused, and changed".into()) };
    }
    let loaded = Document::load(key(), 0, after.saved.clone()).map_err(|refusal| refusal.to_string())?;
    let same = loaded.heads() == after.heads() && row(&collection(), &loaded) == row(&collection(), &after);
    if !same {
        return Err("it says something else once it is loaded".into());
    }
    // It can still be written.
    let mut person = Person { document: loaded, ..Person::new(99) };
    person
        .try_edit(Intent::Put, &json!({"body": "later", "count": 1_000, "tags": ["later"], "hours": 0}))
        .map_err(|error| error.to_string())?;
    Ok(true)
}

fn broken_bytes(seeded: &mut Seeded, change: &[u8], corpus: &Corpus) -> Vec<u8> {
    let mut bytes = body(change).to_vec();
    let other = body(&seeded.pick(&corpus.sent).1.op.changes[0]).to_vec();
    for _ in 0..=seeded.below(3) {
        let at = seeded.below(bytes.len().max(1));
        let from = seeded.below(other.len());
        match seeded.below(8) {
            _ if bytes.is_empty() => bytes.push(0),
            0 | 1 => bytes[at] ^= 1 << seeded.below(8),
            2 => bytes[at] = seeded.next() as u8,
            3 => bytes.insert(at, seeded.next() as u8),
            4 => drop(bytes.drain(at..(at + 1 + seeded.below(8)).min(bytes.len()))),
            5 => {
                let odd: [&[u8]; 6] = [&[0xff, 0xff, 0xff, 0xff, 7], &[0xff; 9], &[0x80, 0x80, 0x80, 0x80, 0x10], &[0x7f], &[0x40], &[0]];
                bytes.splice(at..=at, seeded.pick(&odd).iter().copied());
            }
            6 => drop(bytes.splice(at..at, other[from..(from + 1 + seeded.below(24)).min(other.len())].iter().copied())),
            _ => {
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
    sealed(1, &bytes)
}

/// Something else in an honest change, encoded by automerge; `None` where automerge itself cannot encode it.
fn broken_content(seeded: &mut Seeded, change: &[u8], corpus: &Corpus) -> Option<Vec<u8>> {
    let mut expanded = Change::try_from(change).unwrap().decode();
    let other = Change::try_from(seeded.pick(&corpus.sent).1.op.changes[0].as_slice()).unwrap().decode();
    for _ in 0..=seeded.below(2) {
        match seeded.below(12) {
            0 => expanded.seq = seeded.below(4) as u64,
            1 => expanded.start_op = expanded.start_op.saturating_add(seeded.next() >> (1 + seeded.below(63))),
            2 => expanded.deps.clone_from(&other.deps),
            3 => drop(expanded.deps.pop()),
            4 => expanded.actor_id = other.actor_id.clone(),
            _ => break_operations(seeded, &mut expanded, &other),
        }
    }
    std::panic::catch_unwind(|| Change::from(expanded).raw_bytes().to_vec()).ok()
}

fn break_operations(seeded: &mut Seeded, change: &mut ExpandedChange, other: &ExpandedChange) {
    let borrowed = seeded.pick(&other.operations).clone();
    if change.operations.is_empty() {
        change.operations.push(borrowed);
        return;
    }
    let (at, with) = (seeded.below(change.operations.len()), seeded.below(change.operations.len()));
    match seeded.below(6) {
        0 => change.operations.insert(at, borrowed),
        1 => drop(change.operations.remove(at)),
        2 => change.operations.swap(at, with),
        3 => {
            let again = change.operations[with].clone();
            change.operations.insert(at, again);
        }
        _ => break_operation(seeded, &mut change.operations[at], &borrowed),
    }
}

fn break_operation(seeded: &mut Seeded, op: &mut Op, borrowed: &Op) {
    let odd = |seeded: &mut Seeded| {
        let near = borrowed.pred.iter().next().cloned().unwrap_or_else(|| OpId(3, vec![3; 16].into()));
        OpId(near.0.saturating_add_signed(seeded.below(5) as i64 - 2), near.1)
    };
    let scalars = [
        ScalarValue::Null,
        ScalarValue::Int(i64::MIN),
        ScalarValue::Uint(u64::MAX),
        ScalarValue::F64(f64::NAN),
        ScalarValue::Str("é".into()),
        ScalarValue::Str("two".into()),
        ScalarValue::Bytes(b"[]".to_vec()),
        ScalarValue::counter(5),
        ScalarValue::Timestamp(0),
        ScalarValue::Boolean(true),
    ];
    match seeded.below(8) {
        0 => op.action = borrowed.action.clone(),
        1 => op.action = OpType::Put(seeded.pick(&scalars).clone()),
        2 => op.action = seeded.pick(&[OpType::Delete, OpType::Increment(7), OpType::Increment(i64::MAX), OpType::MarkEnd(true)]).clone(),
        3 => op.key = borrowed.key.clone(),
        4 => op.key = Key::Seq(ElementId::Id(odd(seeded))),
        5 => op.obj = if seeded.below(3) == 0 { ObjectId::Root } else { borrowed.obj.clone() },
        6 => op.pred = if seeded.below(2) == 0 { borrowed.pred.clone() } else { vec![odd(seeded)].into() },
        _ => op.insert = !op.insert,
    }
}

#[expect(clippy::disallowed_methods, reason = "a longer run is asked for from outside")]
fn mutations() -> usize {
    std::env::var("MOBO_MUTATIONS").ok().and_then(|count| count.parse().ok()).unwrap_or(MUTATIONS)
}

/// The panics that the guard catches are not news; all others are printed as ever.
fn silence_automerge() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let inside = info.location().is_some_and(|place| ["/automerge-", "/hexane-"].iter().any(|name| place.file().contains(name)));
        if !inside {
            before(info);
        }
    }));
}
