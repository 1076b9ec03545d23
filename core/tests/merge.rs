//! The pure merge against a hub in memory: exactly once, in order, whatever arrives how often and in which batch.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

mod memory;

use std::collections::{BTreeMap, BTreeSet};

use memory::*;
use mobo_core::author::{Edit, Intent};
use mobo_core::entry::{Entry, Header, Payload, Provenance, chain_next, chain_start};
use mobo_core::ids::*;
use mobo_core::merge::{LocalBody, LocalWrite, Merged, Outcome, Prepared, Retry, Rights, prepare_push};
use mobo_core::message::{Code, Push, PushedEntry, RefenceReason};
use mobo_core::table::{Action, TableOp, op::encode_payload};
use mobo_core::time::{Eff, Moment, Mono, Wall, WallQuality};
use mobo_core::trust::{KeyPair, LaneHead, Statement};
use mobo_core::value::Value;

/// A device that seals entries.
struct Device {
    keys: KeyPair,
    incarnation: Incarnation,
    entries: Vec<Entry>,
    chains: Vec<Chain>,
    mono: u64,
    rights: Rights,
}

impl Device {
    fn new(n: u8) -> Self {
        let keys = KeyPair::from_secret(&[n; 32]);
        let mut device = Self {
            keys,
            incarnation: Incarnation::new(u64::from(n)).unwrap(),
            entries: vec![],
            chains: vec![],
            mono: 0,
            rights: Rights::Buckets(["site:a".to_owned(), "site:b".to_owned()].into()),
        };
        device.chains.push(chain_start(PROJECT, &device.lane()));
        device
    }

    fn lane(&self) -> LaneKey {
        LaneKey { device: self.keys.device(), incarnation: self.incarnation, lane: Lane::State }
    }

    fn seal_with(&mut self, payload: Vec<u8>, provenance: Option<Provenance>) {
        self.mono += 10;
        let moment = Moment { boot: BootId([1; 8]), mono: Mono(self.mono), wall: Wall(0), quality: WallQuality::None };
        let nonce = Nonce(self.mono.to_le_bytes());
        let entry = Entry::seal(&Header { engine: 2, moment, nonce, timeline: None, provenance, life: None }, payload);
        self.chains.push(chain_next(*self.chains.last().unwrap(), &entry));
        self.entries.push(entry);
    }

    /// `put id site title hours`
    fn put(&mut self, id: &str, site: &str, title: &str, hours: i128) {
        let op = op(id, Action::Put, &[(TITLE, title), (SITE, site)], hours);
        self.seal_with(encode_payload(&[op], None), None);
    }

    fn push(&self, first: usize, last: usize) -> Push {
        let lane = self.lane();
        let head = LaneHead { project: PROJECT, lane, last: Seq::new(last as u64).unwrap(), chain: self.chains[last] };
        Push {
            lane: Lane::State,
            incarnation: self.incarnation,
            first: Seq::new(first as u64).unwrap(),
            prev_chain: self.chains[first - 1],
            entries: self.entries[first - 1..last].iter().map(|entry| PushedEntry { entry: entry.clone(), eff: None }).collect(),
            head_chain: self.chains[last],
            signature: Statement::Push(&head).sign(&self.keys),
            on_behalf: None,
        }
    }

    fn prepared(&self, first: usize, last: usize) -> Prepared {
        prepare_push(PROJECT, self.lane(), &self.keys.public(), self.push(first, last), self.rights.clone()).unwrap()
    }
}

fn op(id: &str, action: Action, texts: &[(FieldId, &str)], hours: i128) -> TableOp {
    TableOp {
        key: RecordKey { collection: ORDERS, id: RecordId::new(id).unwrap() },
        action,
        before_us: 0,
        base_ver: Ver(0),
        fields: texts.iter().map(|(field, text)| (*field, Value::Text((*text).into()).to_cbor())).collect(),
        deltas: (hours != 0).then_some((HOURS, hours)).into_iter().collect::<BTreeMap<_, _>>(),
    }
}

fn hub(devices: &[&Device]) -> MemoryHub {
    let mut hub = MemoryHub::default();
    for (n, device) in (1..).zip(devices) {
        hub.admit(device.keys.device(), device.incarnation, n);
        hub.boots.insert(device.keys.device(), [(BootId([1; 8]), 0)].into());
    }
    hub
}

fn seq(number: u64) -> Seq {
    Seq::new(number).unwrap()
}

fn merged(outcome: &Outcome) -> &Merged {
    let Outcome::Merged(merged) = outcome else { panic!("{outcome:?}") };
    merged
}

#[test]
fn i4_any_push_any_number_of_times_in_any_batch_changes_nothing_twice() {
    let mut device = Device::new(1);
    for n in 0..12 {
        device.put(&format!("r{}", n % 5), if n % 3 == 0 { "a" } else { "b" }, &format!("t{n}"), 1);
    }
    let mut once = hub(&[&device]);
    once.merge(vec![device.prepared(1, 12)]);
    once.check();
    let schedules: [&[&[(usize, usize)]]; 4] = [
        &[&[(1, 4)], &[(1, 4)], &[(3, 9)], &[(1, 12)], &[(12, 12)]],
        &[&[(1, 3), (4, 8), (2, 12)], &[(1, 1)]],
        &[&[(1, 1)], &[(5, 8)], &[(1, 6), (7, 12), (1, 12)]],
        &[&[(1, 6), (1, 6), (7, 12)]],
    ];
    for schedule in schedules {
        let mut hub = hub(&[&device]);
        for batch in schedule {
            hub.merge(batch.iter().map(|(first, last)| device.prepared(*first, *last)).collect());
            hub.check();
        }
        assert_eq!(hub.rows(), once.rows(), "{schedule:?}");
        assert_eq!(hub.quarantined, 0);
        assert!(hub.rows()["r0"].contains("Int(3)"), "{:?}", hub.rows());
    }
}

#[test]
fn a_gap_is_nacked_and_a_fork_is_refenced() {
    let mut device = Device::new(1);
    for n in 0..4 {
        device.put("r", "a", &format!("t{n}"), 0);
    }
    let mut hub = hub(&[&device]);
    hub.merge(vec![device.prepared(1, 2)]);
    assert_eq!(hub.merge(vec![device.prepared(4, 4)]), [Outcome::Nack { expect: Seq::new(3).unwrap(), code: Code::GAP }]);
    let mut clone = Device::new(1);
    clone.put("r", "a", "t0", 0);
    clone.put("r", "a", "something else", 0);
    clone.put("r", "a", "more", 0);
    for (first, last) in [(2, 2), (1, 2), (3, 3), (2, 3)] {
        let outcome = hub.merge(vec![clone.prepared(first, last)]).remove(0);
        assert!(matches!(outcome, Outcome::Refence { .. }), "I11: {first}..{last}: {outcome:?}");
    }
    hub.check();
}

/// A restored hub may have closed a log before it had back what it lost of it. Whoever still speaks for that log is not heard.
#[test]
fn r22_a_closed_log_takes_what_its_device_gives_back_and_nothing_else() {
    let (mut device, mut clone) = (Device::new(1), Device::new(1));
    for n in 0..4 {
        device.put("r", "a", &format!("t{n}"), 1);
        clone.put("r", "a", &format!("t{}", n / 2 * 5), 1);
    }
    let mut hub = hub(&[&device]);
    hub.merge(vec![device.prepared(1, 2)]);
    hub.lanes.get_mut(&device.lane()).unwrap().fenced = true;
    let mut one = |push: Prepared| hub.merge(vec![push]).remove(0);
    let refence = |hub_last| Outcome::Refence { hub_last: Seq::new(hub_last), reason: RefenceReason::Forked };
    assert_eq!(one(device.prepared(3, 4)), refence(2));
    assert_eq!(one(device.prepared(4, 4).giving_back()), Outcome::Nack { expect: Seq::new(3).unwrap(), code: Code::GAP });
    assert_eq!(one(clone.prepared(3, 4).giving_back()), refence(2), "another history");
    assert_eq!(merged(&one(device.prepared(3, 4).giving_back())).acked, Seq::new(4).unwrap());
    assert_eq!(merged(&one(device.prepared(4, 4).giving_back())).acked, Seq::new(4).unwrap(), "once more");
    assert_eq!(one(device.prepared(4, 4)), refence(4), "it is closed as before");
    assert!(hub.rows()["r"].contains("Int(4)"), "{:?}", hub.rows());
    hub.check();
}

#[test]
fn r7_a_re_push_is_told_the_same_effective_times() {
    let mut device = Device::new(1);
    for n in 0..5 {
        device.put("r", "a", &format!("t{n}"), 0);
    }
    let mut hub = hub(&[&device]);
    let first = merged(&hub.merge(vec![device.prepared(1, 3)])[0]).effs.clone();
    let again = hub.merge(vec![device.prepared(1, 5)]);
    let again = merged(&again[0]);
    assert_eq!(again.effs[..3], first);
    assert_eq!((again.eff_first, again.acked), (Seq::FIRST, Seq::new(5).unwrap()));
    assert!(again.effs.windows(2).all(|pair| pair[0] < pair[1]), "R5: strictly later within a lane");
}

#[test]
fn r15_a_re_authored_entry_is_applied_once() {
    let mut old = Device::new(1);
    old.put("r", "a", "t", 5);
    let mut fresh = Device::new(1);
    fresh.incarnation = Incarnation::new(77).unwrap();
    fresh.chains = vec![chain_start(PROJECT, &fresh.lane())];
    let origin = Provenance {
        incarnation: old.incarnation,
        lane: Lane::State,
        seq: Seq::FIRST,
        eid: old.entries[0].eid().unwrap(),
        sole: false,
        life: None,
    };
    let Payload::Present(payload) = old.entries[0].payload.clone() else { panic!() };
    fresh.seal_with(payload, Some(origin));
    for batches in [vec![vec![0], vec![1]], vec![vec![1], vec![0]], vec![vec![0, 1]], vec![vec![1, 0]], vec![vec![1], vec![1]]] {
        let mut hub = hub(&[&old]);
        hub.admit(fresh.keys.device(), fresh.incarnation, 2);
        for batch in &batches {
            hub.merge(batch.iter().map(|n| if *n == 0 { old.prepared(1, 1) } else { fresh.prepared(1, 1) }).collect());
        }
        hub.check();
        assert!(hub.rows()["r"].contains("Int(5)"), "{batches:?}: {:?}", hub.rows());
    }
}

#[test]
fn i14_poison_uses_its_position_and_its_neighbours_flow() {
    let mut device = Device::new(1);
    device.put("before", "a", "t", 0);
    device.seal_with(b"not cbor".to_vec(), None);
    device.seal_with(encode_payload(&[op("x", Action::Put, &[(HOURS, "a counter as text")], 0)], None), None);
    device.put("elsewhere", "c", "outside my buckets", 0);
    device.put("after", "b", "t", 0);
    let mut hub = hub(&[&device]);
    let outcomes = hub.merge(vec![device.prepared(1, 5)]);
    let codes: Vec<Code> = merged(&outcomes[0]).rejects.iter().map(|reject| reject.code).collect();
    assert_eq!(codes, [Code::BAD_PAYLOAD, Code::BAD_VALUE, Code::FORBIDDEN]);
    assert_eq!(hub.rows().keys().collect::<Vec<_>>(), ["after", "before"]);
    hub.check();
}

#[test]
fn an_entry_is_all_or_nothing() {
    let mut device = Device::new(1);
    device.put("kept", "a", "old", 1);
    let ops = [op("kept", Action::Patch, &[(TITLE, "new")], 1), op("moved", Action::Put, &[(SITE, "c")], 0)];
    device.seal_with(encode_payload(&ops, None), None);
    let mut hub = hub(&[&device]);
    hub.merge(vec![device.prepared(1, 2)]);
    hub.check();
    assert_eq!(hub.rows(), BTreeMap::from([("kept".to_owned(), "Text(\"old\") Text(\"a\") Int(1)".to_owned())]));
}

#[test]
fn a_record_that_moves_leaves_here_and_arrives_there() {
    let mut device = Device::new(1);
    device.put("r", "a", "t", 0);
    device.put("r", "b", "t", 0);
    device.put("r", "a", "t", 0);
    let mut hub = hub(&[&device]);
    for seq in 1..=3 {
        hub.merge(vec![device.prepared(seq, seq)]);
        hub.check();
    }
    let heads: Vec<(String, u64)> = hub.buckets.values().map(|bucket| (bucket.key.clone(), bucket.head.0)).collect();
    assert_eq!(heads, [("site:a".to_owned(), 3), ("site:b".to_owned(), 2)], "R28: in, out, in; in, out");
}

#[test]
fn a_forged_push_is_refused_as_a_whole() {
    let mut device = Device::new(1);
    device.put("r", "a", "t", 0);
    let stranger = KeyPair::from_secret(&[9; 32]);
    let prepare = |push, key: &KeyPair| prepare_push(PROJECT, device.lane(), &key.public(), push, Rights::All).map(|_| ());
    assert_eq!(prepare(device.push(1, 1), &stranger), Err(Code::BAD_SIGNATURE), "X-6");
    let mut broken = device.push(1, 1);
    broken.entries[0].entry.header.push(0);
    assert_eq!(prepare(broken, &device.keys), Err(Code::BROKEN_CHAIN));
    let mut other = device.push(1, 1);
    other.on_behalf = Some(stranger.device());
    assert_eq!(prepare(other, &device.keys), Err(Code::UNSUPPORTED));
    assert_eq!(prepare(device.push(1, 1), &device.keys), Ok(()));
}

#[test]
fn local_writes_are_measured_against_the_locked_record() {
    let hub_keys = KeyPair::from_secret(&[3; 32]);
    let incarnation = Incarnation::new(5).unwrap();
    let lane = LaneKey { device: hub_keys.device(), incarnation, lane: Lane::State };
    let write = |intent, json: &str| {
        let edit = Edit { id: RecordId::new("r").unwrap(), intent, fields: serde_json::from_str(json).unwrap() };
        let moment = Moment { boot: BootId([2; 8]), mono: Mono(0), wall: Wall(0), quality: WallQuality::Set };
        let body = LocalBody::Edits(vec![edit]);
        Prepared::Local(Box::new(LocalWrite { lane, collection: ORDERS, body, moment, nonce: Nonce([0; 8]), author: None, bounds: None }))
    };
    let mut hub = MemoryHub::default();
    hub.admit(lane.device, incarnation, 1);
    let outcomes = hub.merge(vec![
        write(Intent::Insert, r#"{"title":"x","site":"a","hours":2}"#),
        write(Intent::Insert, r#"{"title":"again","site":"a"}"#),
        write(Intent::Patch, r#"{"hours":7}"#),
        write(Intent::Patch, r#"{"hours":{"$inc":1}}"#),
    ]);
    assert!(matches!(outcomes[1], Outcome::Refused(_)), "{outcomes:?}");
    assert_eq!(hub.rows()["r"], "Text(\"x\") Text(\"a\") Int(8)", "a plain number is the difference to what is there");
    hub.merge(vec![write(Intent::Delete, "{}")]);
    assert_eq!(hub.rows(), BTreeMap::new());
    hub.merge(vec![write(Intent::Put, r#"{"site":"a"}"#)]);
    assert_eq!(hub.rows()["r"], "Null Text(\"a\") Int(0)");
    hub.check();
    assert_eq!(hub.conflicts, 0, "one author in order is no conflict");
}

#[test]
fn i8_devices_in_any_order_give_the_same_rows_and_digests() {
    let mut devices: Vec<Device> = (1..=3).map(Device::new).collect();
    for round in 0..6_u64 {
        for (n, device) in devices.iter_mut().enumerate() {
            device.mono += 7 * (n as u64 + 1) + round;
            device.put(&format!("r{}", round % 3), "a", &format!("d{n} {round}"), 1);
        }
    }
    let all: Vec<&Device> = devices.iter().collect();
    let mut seen = BTreeSet::new();
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut hub = hub(&all);
        // Known boots and a late hub: the decision does not depend on when an entry arrives.
        hub.clock = 1_000_000;
        for n in order {
            for seq in 1..=6 {
                hub.merge(vec![devices[n].prepared(seq, seq)]);
            }
        }
        hub.check();
        let rows = hub.rows();
        assert!(rows.values().all(|row| row.ends_with("Int(6)")), "I11b: {rows:?}");
        seen.insert(format!("{rows:?} {}", hub.buckets["site:a"].digest));
    }
    assert_eq!(seen.len(), 1, "{seen:#?}");
}

#[test]
fn a_ghost_of_the_session_in_the_same_batch_is_no_fork() {
    let mut device = Device::new(1);
    for n in 0..6 {
        device.put("r", "a", &format!("t{n}"), 1);
    }
    let mut hub = hub(&[&device]);
    let outcomes = hub.merge(vec![device.prepared(1, 3), device.prepared(4, 6), device.prepared(1, 3), device.prepared(1, 6)]);
    let effs: Vec<&[Eff]> = outcomes.iter().map(|outcome| merged(outcome).effs.as_slice()).collect();
    assert_eq!(effs[0], effs[2], "R7: the same effective times");
    assert_eq!([effs[0], effs[1]].concat(), effs[3]);
    assert_eq!(outcomes.iter().map(|outcome| merged(outcome).acked.get()).collect::<Vec<_>>(), [3, 6, 3, 6], "an ack covers its own push");
    assert!(hub.rows()["r"].contains("Int(6)"));
    hub.check();
}

#[test]
fn a_refused_entry_was_not_merged_before() {
    let mut old = Device::new(1);
    old.put("r", "c", "outside my buckets", 2);
    let mut fresh = Device::new(1);
    fresh.incarnation = Incarnation::new(77).unwrap();
    fresh.chains = vec![chain_start(PROJECT, &fresh.lane())];
    fresh.rights = Rights::Buckets(["site:c".to_owned()].into());
    let origin = Provenance {
        incarnation: old.incarnation,
        lane: Lane::State,
        seq: Seq::FIRST,
        eid: old.entries[0].eid().unwrap(),
        sole: false,
        life: None,
    };
    let Payload::Present(payload) = old.entries[0].payload.clone() else { panic!() };
    fresh.seal_with(payload, Some(origin));
    let mut hub = hub(&[&old]);
    hub.admit(fresh.keys.device(), fresh.incarnation, 2);
    hub.merge(vec![old.prepared(1, 1)]);
    assert_eq!(hub.quarantined, 1);
    hub.merge(vec![fresh.prepared(1, 1)]);
    assert!(hub.rows()["r"].contains("Int(2)"), "{:?}", hub.rows());
}

/// A refused entry that is retried is merged under the stamp of when it was made, once, whatever came of its log meanwhile; and a copy that
/// its device authored again is the same entry, whichever comes first.
#[test]
fn r15_a_retried_entry_is_merged_once_under_its_old_stamp() {
    for copy_first in [false, true] {
        let mut device = Device::new(1);
        device.put("r", "a", "first", 1);
        device.put("q", "c", "refused", 20);
        device.put("q", "c", "last", 300);
        let origin = Provenance {
            incarnation: device.incarnation,
            lane: Lane::State,
            seq: seq(2),
            eid: device.entries[1].eid().unwrap(),
            sole: false,
            life: None,
        };
        let copy = encode_payload(&[op("q", Action::Patch, &[(TITLE, "copy")], 20)], None);
        device.seal_with(copy, Some(origin));
        let mut hub = hub(&[&device]);
        let outcomes = hub.merge(vec![device.prepared(1, 2)]);
        assert_eq!(merged(&outcomes[0]).rejects.iter().map(|reject| reject.seq).collect::<Vec<_>>(), [seq(2)]);
        device.rights = Rights::Buckets(["site:c".to_owned()].into());
        hub.merge(vec![device.prepared(3, if copy_first { 4 } else { 3 })]);
        let retry = |site: &str| {
            let rights = Rights::Buckets([site.to_owned()].into());
            Prepared::Retry(Box::new(Retry { lane: device.lane(), seq: seq(2), rights }))
        };
        let again = hub.merge(vec![retry("site:a")]);
        assert_eq!(merged(&again[0]).rejects[0].code, Code::FORBIDDEN, "nothing has changed: it stays where it is");
        // Twice in one batch, and once more.
        let outcomes = hub.merge(vec![retry("site:c"), retry("site:c")]);
        assert_eq!(merged(&outcomes[0]).rejects, []);
        assert!(matches!(outcomes[1], Outcome::Refused(_)), "{:?}", outcomes[1]);
        assert!(matches!(hub.merge(vec![retry("site:c")])[0], Outcome::Refused(_)));
        if !copy_first {
            hub.merge(vec![device.prepared(4, 4)]);
        }
        // The copy is a later write than both; what came first is the same entry, and so adds nothing the second time.
        let want = if copy_first { "copy" } else { "last" };
        assert!(hub.rows()["q"].starts_with(&format!("Text(\"{want}\") Text(\"c\") Int(320)")), "{copy_first}: {:?}", hub.rows());
        hub.check();
    }
}
