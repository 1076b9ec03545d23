//! What devices still have after a hub went back in time comes in any order: a deletion before what it deletes, and an increment twice, once
//! in a row that another device gives back and once authored again (rules R10, R15, R18).

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

mod memory;

use std::collections::{BTreeMap, BTreeSet};

use memory::*;
use mobo_core::entry::{Entry, Header, Payload, Provenance, chain_next, chain_start};
use mobo_core::ids::*;
use mobo_core::limits;
use mobo_core::merge::{Outcome, Prepared, Rights, prepare_push};
use mobo_core::message::{Code, Push, PushedEntry};
use mobo_core::record::RecordState;
use mobo_core::stamp::Origin;
use mobo_core::table::past::{self, Known, PastEntry, PastWrite, RowLog};
use mobo_core::table::{Action, TableOp, op::encode_payload};
use mobo_core::time::{Eff, Moment, Mono, Wall, WallQuality};
use mobo_core::trust::{KeyPair, LaneHead, Statement};
use mobo_core::value::Value;

/// A device's log of one entry.
struct Log {
    keys: KeyPair,
    incarnation: u64,
    entry: Entry,
    at: u64,
}

impl Log {
    fn new((device, incarnation): (u8, u64), at: u64, (payload, provenance): (Vec<u8>, Option<Provenance>)) -> Self {
        let moment = Moment { boot: BootId([1; 8]), mono: Mono(at), wall: Wall(0), quality: WallQuality::None };
        let header = Header { engine: 2, moment, nonce: Nonce(at.to_le_bytes()), timeline: None, provenance, life: None };
        Self { keys: KeyPair::from_secret(&[device; 32]), incarnation, entry: Entry::seal(&header, payload), at }
    }

    fn lane(&self) -> LaneKey {
        LaneKey { device: self.keys.device(), incarnation: Incarnation::new(self.incarnation).unwrap(), lane: Lane::State }
    }

    fn prepared(&self, rights: &str) -> Prepared {
        let prev_chain = chain_start(PROJECT, &self.lane());
        let head_chain = chain_next(prev_chain, &self.entry);
        let head = LaneHead { project: PROJECT, lane: self.lane(), last: Seq::FIRST, chain: head_chain };
        let push = Push {
            lane: Lane::State,
            incarnation: self.lane().incarnation,
            first: Seq::FIRST,
            prev_chain,
            entries: vec![PushedEntry { entry: self.entry.clone(), eff: Some(Eff(i64::try_from(self.at).unwrap())) }],
            head_chain,
            signature: Statement::Push(&head).sign(&self.keys),
            on_behalf: None,
        };
        let rights = Rights::Buckets(BTreeSet::from([rights.to_owned()]).into());
        prepare_push(PROJECT, self.lane(), &self.keys.public(), push, rights).unwrap()
    }

    /// Lets the log in, and merges its entry; what it was refused for.
    fn merge(&self, hub: &mut MemoryHub, rights: &str) -> Option<Code> {
        hub.admit(self.lane().device, self.lane().incarnation, u32::try_from(self.incarnation).unwrap());
        let outcome = hub.merge(vec![self.prepared(rights)]).remove(0);
        hub.check();
        let Outcome::Merged(merged) = outcome else { panic!("{outcome:?}") };
        merged.rejects.first().map(|reject| reject.code)
    }
}

fn payload(action: Action, texts: &[(FieldId, &str)], hours: i128) -> Vec<u8> {
    let fields = texts.iter().map(|(field, text)| (*field, Value::Text((*text).into()).to_cbor())).collect();
    let deltas: BTreeMap<_, _> = (hours != 0).then_some((HOURS, hours)).into_iter().collect();
    encode_payload(&[TableOp { key: key(), action, before_us: 0, base_ver: Ver(0), fields, deltas }], None)
}

/// An entry that no hub has answered, authored again in a log of its own.
fn again(incarnation: u64, log: &Log, hours: i128) -> Log {
    let (before, eid) = (log.lane().incarnation, log.entry.eid().unwrap());
    let origin = Provenance { incarnation: before, lane: Lane::State, seq: Seq::FIRST, eid, sole: false, life: None };
    Log::new((1, incarnation), log.at, (payload(Action::Put, &[(SITE, "a")], hours), Some(origin)))
}

fn key() -> RecordKey {
    RecordKey { collection: ORDERS, id: RecordId::new("r").unwrap() }
}

fn hub(recovering: bool) -> MemoryHub {
    MemoryHub { clock: 1_000, recovering, ..MemoryHub::default() }
}

/// It was refused as a write to a record in no bucket, and the record was there again once its put had come.
#[test]
fn r18_a_deletion_that_comes_before_what_it_deletes_is_merged_while_the_hub_recovers() {
    let put = Log::new((1, 1), 10, (payload(Action::Put, &[(TITLE, "t"), (SITE, "a")], 5), None));
    let delete = Log::new((2, 2), 20, (payload(Action::Delete, &[], -5), None));
    // Who deletes while the hub recovers or not, under which rights; what becomes of it, and whether the record is there in the end.
    let cases =
        [(true, "site:a", None, false), (true, "else", Some(Code::FORBIDDEN), true), (false, "site:a", Some(Code::FORBIDDEN), true)];
    for (recovering, rights, refused, visible) in cases {
        let mut hub = hub(recovering);
        assert_eq!(delete.merge(&mut hub, rights), refused, "{rights}");
        assert_eq!(put.merge(&mut hub, "site:a"), None);
        assert_eq!(hub.rows().contains_key("r"), visible, "{rights}, recovering: {recovering}");
    }
}

/// The log ended with an increment of which nobody knew whether the hub had it. The hub did, has lost it, and another device gives it back.
#[test]
fn r10_an_increment_that_comes_back_in_a_row_and_authored_again_counts_once() {
    let first = Log::new((1, 1), 10, (payload(Action::Put, &[(SITE, "a")], 3), None));
    let mut before = hub(false);
    first.merge(&mut before, "site:a");
    let row = before.records[&key()].state.clone().unwrap();
    let eid = first.entry.eid().unwrap();
    let origin = |sole| Provenance { incarnation: first.lane().incarnation, lane: Lane::State, seq: Seq::FIRST, eid, sole, life: None };
    let again = |incarnation, sole| Log::new((1, incarnation), 10, (payload(Action::Put, &[(SITE, "a")], 3), Some(origin(sole))));
    let join = |hub: &mut MemoryHub| {
        let schema = schema();
        let collection = schema.get(ORDERS).unwrap();
        let stored = hub.records.get(&key()).map(|stored| stored.state.clone().unwrap());
        let state = stored.unwrap_or_else(|| RecordState::empty(collection, &key()).unwrap());
        let columns = state.join(collection, &row).unwrap().project(collection).unwrap();
        columns[collection.fields.iter().position(|field| field.id == HOURS).unwrap()].clone()
    };
    for (logs, sum) in [(vec![], 3), (vec![again(2, true)], 3), (vec![again(2, true), again(3, true)], 3), (vec![again(2, false)], 6)] {
        let mut hub = hub(true);
        logs.iter().for_each(|log| assert_eq!(log.merge(&mut hub, "site:a"), None));
        assert_eq!(join(&mut hub), Value::Int(sum), "{} authored again", logs.len());
    }
}

/// What broke: of two copies of a device, both had an entry that no hub had answered, and each authored it again in a log of its own. The hub
/// lost the one, which came back with a row, so that the other was news to it. One device alone did the same: what it authored again was
/// acknowledged and lost, and its second log ended as well.
#[test]
fn r15_what_no_hub_had_answered_and_two_logs_author_again_counts_once() {
    let first = Log::new((1, 1), 10, (payload(Action::Put, &[(SITE, "a")], 3), None));
    let other = Log::new((1, 1), 11, (payload(Action::Put, &[(SITE, "a")], 4), None));
    let state = |log: &Log| {
        let mut hub = hub(true);
        assert_eq!(log.merge(&mut hub, "site:a"), None);
        hub.records[&key()].state.clone().unwrap()
    };
    let schema = schema();
    let collection = schema.get(ORDERS).unwrap();
    let at = collection.fields.iter().position(|field| field.id == HOURS).unwrap();
    // The same entry in two logs, and the other entry that another copy wrote in its place.
    for (second, sum) in [(again(3, &first, 3), 3), (again(3, &other, 4), 7)] {
        let (here, there) = (state(&again(2, &first, 3)), state(&second));
        for joined in [here.join(collection, &there), there.join(collection, &here)] {
            assert_eq!(joined.unwrap().project(collection).unwrap()[at], Value::Int(sum));
        }
    }
}

/// A device that was away for long has many of them, and a row keeps only so many apart: the rest is not refused for it.
#[test]
fn r10_what_is_authored_again_counts_apart_as_long_as_there_is_room() {
    let most = limits::TALLIES_APART_MAX as u64;
    let mut hub = hub(false);
    for number in 1..=most + 2 {
        let first = Log::new((1, 1), 10 + number, (payload(Action::Put, &[(SITE, "a")], 1), None));
        assert_eq!(again(1 + number, &first, 1).merge(&mut hub, "site:a"), None);
    }
    let Ok(RecordState::Table(state)) = &hub.records[&key()].state else { panic!() };
    assert_eq!(state.counter(HOURS), i64::try_from(most).unwrap() + 2);
    let device = KeyPair::from_secret(&[1; 32]).device();
    let in_their_logs = (2..=most + 3).filter(|number| {
        let incarnation = Incarnation::new(*number).unwrap();
        state.counters[&HOURS].contains_key(&Origin { device, incarnation })
    });
    assert_eq!(in_their_logs.collect::<Vec<_>>(), [most + 2, most + 3]);
}

/// What was is told from the kept entries, which must count for the same logs as when they were merged.
#[test]
fn r10_the_log_of_a_row_gives_it_as_it_is_where_it_was_authored_again() {
    for sole in [false, true] {
        let first = Log::new((1, 1), 10, (payload(Action::Put, &[(SITE, "a")], 3), None));
        let eid = first.entry.eid().unwrap();
        let origin =
            Provenance { incarnation: first.lane().incarnation, lane: Lane::State, seq: Seq::new(7).unwrap(), eid, sole, life: None };
        let log = Log::new((1, 2), 10, (payload(Action::Put, &[(SITE, "a")], 3), Some(origin)));
        let mut hub = hub(true);
        assert_eq!(log.merge(&mut hub, "site:a"), None);
        let Ok(RecordState::Table(state)) = &hub.records[&key()].state else { panic!() };
        let Payload::Present(payload) = log.entry.payload.clone() else { panic!() };
        let (lane, header) = (log.lane(), log.entry.header.clone());
        let eff = hub.entries[&(lane, Seq::FIRST)].1;
        let before = Eff(i64::MIN);
        let entry = PastEntry { lane, ordinal: Ordinal(2), seq: Seq::FIRST, eff, before, retried: false, header, payload };
        let log = RowLog { writes: vec![PastWrite::of(entry, &key()).unwrap()], ..RowLog::default() };
        let schema = schema();
        let told = past::steps(schema.get(ORDERS).unwrap(), state, &log, (None, 10));
        assert_eq!((told.known, told.steps.len()), (Known::Whole, 1), "{sole}");
    }
}
