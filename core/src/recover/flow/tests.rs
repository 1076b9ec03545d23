//! The order of a recovery, step by step.

use super::*;
use crate::ids::Mac;
use crate::message::Definition;
use crate::schema::{Collection, Kind};

/// A hub's word with these collections, by id and revision.
fn said(collections: &[(u64, u64)]) -> SchemaUpdate {
    let define = |(id, rev): &(u64, u64)| Definition {
        bytes: vec![],
        collection: Some(Collection {
            id: CollectionId::new(*id).unwrap(),
            name: format!("c{id}"),
            kind: Kind::Table,
            rev: *rev,
            fields: vec![],
            rules: vec![],
            lane: Lane::State,
            store: "default".into(),
        }),
        mac: Mac([0; 16]),
    };
    let definitions = collections.iter().map(define).collect();
    SchemaUpdate { timeline: Timeline([1; 16]), rev: 1, definitions, more: false }
}

#[test]
fn pushes_wait_until_the_hub_knows_the_collections_of_this_device() {
    type Said<'a> = &'a [(u64, u64)];
    let cases: [(Said<'_>, bool, bool); 6] = [
        (&[], false, false),
        (&[(1, 1)], false, false),
        (&[(1, 1), (2, 4)], false, false),
        (&[(1, 1), (2, 5)], false, true),
        (&[(1, 2), (2, 6), (3, 1)], false, true),
        (&[(1, 1)], true, true),
    ];
    for (answer, refused, settled) in cases {
        let mut flow = Flow::new(Moved::default());
        flow.definitions_came(&said(&[(1, 9), (2, 9)]));
        assert!(!flow.may_push(), "not offered yet");
        flow.definitions_offered(&said(&[(1, 1), (2, 5)]));
        if refused {
            flow.definitions_refused();
        }
        flow.definitions_came(&said(answer));
        assert_eq!(flow.may_push(), settled, "{answer:?}");
    }
}

#[test]
fn r18_definitions_then_pushes_then_offers_then_pulls() {
    let (a, b) = (BucketId::new(1).unwrap(), BucketId::new(2).unwrap());
    let last = Seq::new(7).unwrap();
    let mut flow = Flow::new(Moved { offers: vec![a, b], lasts: vec![(Lane::State, last)], ..Moved::default() });
    assert!(!flow.may_push() && flow.holds());
    assert_eq!(flow.pushed(|_| Some(last)), Step::Wait, "nothing before the definitions");
    assert_eq!(flow.joined(a), (None, Step::Wait), "an ack that nobody waits for");
    flow.definitions_offered(&said(&[]));
    flow.definitions_came(&said(&[]));
    assert!(flow.may_push());
    assert_eq!(flow.pushed(|_| Seq::new(6)), Step::Wait);
    assert_eq!(flow.pushed(|_| Some(last)), Step::Read(a, None));
    assert_eq!(flow.joined(a), (None, Step::Wait), "not sent yet");
    flow.sent(Some(Position(9)));
    assert_eq!(flow.joined(b), (None, Step::Wait), "another bucket's");
    assert_eq!(flow.joined(a), (None, Step::Read(a, Some(Position(9)))));
    flow.sent(None);
    assert_eq!(flow.joined(a), (Some(a), Step::Read(b, None)));
    flow.sent(None);
    assert!(flow.holds());
    assert_eq!(flow.joined(b), (Some(b), Step::Done));
    assert!(!flow.holds());
}

#[test]
fn r19_timelines_that_the_hub_does_not_know_are_named_before_anything_is_offered() {
    let (a, b) = (BucketId::new(1).unwrap(), BucketId::new(2).unwrap());
    let timelines = [Timeline([3; 16]), Timeline([4; 16])];
    let mut flow = Flow::new(Moved { offers: vec![a, b], timelines: timelines.to_vec(), ..Moved::default() });
    assert_eq!(flow.first(), Step::Name(a, timelines[0]));
    assert_eq!(flow.joined(b), (None, Step::Wait));
    assert_eq!(flow.joined(a), (None, Step::Name(a, timelines[1])));
    assert!(!flow.may_push());
    assert_eq!(flow.joined(a), (None, Step::Define), "no bucket is offered by a name");
    assert!(!flow.may_push());
    flow.definitions_offered(&said(&[]));
    flow.definitions_came(&said(&[]));
    assert_eq!(flow.pushed(|_| None), Step::Read(a, None), "and they are named once");
    let mut nothing = Flow::new(Moved { timelines: timelines[..1].to_vec(), ..Moved::default() });
    let Step::Name(bucket, _) = nothing.first() else { panic!("definitions may bear it") };
    assert_eq!(nothing.joined(bucket), (None, Step::Define));
}

fn seq(number: u64) -> Option<Seq> {
    Seq::new(number)
}

fn tail(number: u64, tail: Tail) -> Former {
    Former { incarnation: Incarnation::new(number).unwrap(), lane: Lane::State, tail }
}

/// A flow that has pushed its own log and comes to these logs.
fn at_former(former: Vec<Former>, bucket: BucketId) -> (Flow, Step) {
    let mut flow = Flow::new(Moved { offers: vec![bucket], former, ..Moved::default() });
    flow.definitions_offered(&said(&[]));
    flow.definitions_came(&said(&[]));
    let step = flow.pushed(|_| None);
    (flow, step)
}

fn nack(of: u64, expect: u64, code: Code) -> Nack {
    Nack { lane: Lane::State, incarnation: Incarnation::new(of).unwrap(), expect: Seq::new(expect).unwrap(), code }
}

#[test]
fn r22_the_tails_of_former_logs_are_pushed_before_anything_is_offered() {
    let bucket = BucketId::new(1).unwrap();
    let log = |number| (Incarnation::new(number).unwrap(), Lane::State);
    let (mut flow, step) = at_former(vec![tail(3, Tail::Last), tail(4, Tail::Last)], bucket);
    assert_eq!(step, Step::ReadFormer(tail(3, Tail::Last)));
    assert_eq!(flow.former_sent(seq(9)), Step::Wait);
    for (of, acked) in [(3, 8), (4, 9)] {
        assert_eq!(flow.former_acked(log(of), seq(acked).unwrap()), Step::Wait, "not what is waited for");
    }
    assert_eq!(flow.former_refused(&nack(4, 1, Code::GAP)), (Step::Wait, None), "not its turn");
    assert_eq!(flow.former_refused(&nack(3, 6, Code::GAP)), (Step::ReadFormer(tail(3, Tail::Behind(seq(5)))), None));
    assert_eq!(flow.former_sent(seq(7)), Step::Wait);
    assert_eq!(flow.former_acked(log(3), seq(7).unwrap()), Step::ReadFormer(tail(3, Tail::Behind(seq(7)))));
    assert_eq!(flow.former_sent(None), Step::ReadFormer(tail(4, Tail::Last)));
    assert_eq!(flow.former_sent(seq(2)), Step::Wait);
    let given_up = Some(tail(4, Tail::Last));
    assert_eq!(flow.former_refused(&nack(4, 1, Code::BROKEN_CHAIN)), (Step::Read(bucket, None), given_up), "what it did is offered");
    assert_eq!(flow.former_acked(log(4), seq(2).unwrap()), Step::Wait);
    assert!(flow.holds());
}

/// It began with the first entry that was kept, in each session: a link that is cut before all of them are through never ended that.
#[test]
fn r22_a_hub_that_has_a_former_log_is_told_one_entry_of_it() {
    let bucket = BucketId::new(1).unwrap();
    let (mut flow, step) = at_former(vec![tail(3, Tail::Last)], bucket);
    assert_eq!(step, Step::ReadFormer(tail(3, Tail::Last)));
    flow.former_sent(seq(40_000));
    assert_eq!(flow.former_acked((Incarnation::new(3).unwrap(), Lane::State), seq(40_000).unwrap()), Step::Read(bucket, None));
    // A hub with nothing at all, and one that goes back while it is given back to.
    let (mut flow, _) = at_former(vec![tail(3, Tail::Last)], bucket);
    flow.former_sent(seq(9));
    assert_eq!(flow.former_refused(&nack(3, 1, Code::GAP)).0, Step::ReadFormer(tail(3, Tail::Behind(None))));
    assert_eq!(flow.former_refused(&nack(3, 1, Code::GAP)), (Step::Wait, None), "nothing was pushed since");
    flow.former_sent(seq(5));
    let given_up = Some(tail(3, Tail::Behind(None)));
    assert_eq!(flow.former_refused(&nack(3, 1, Code::GAP)), (Step::Read(bucket, None), given_up), "no circle");
}

#[test]
fn a_device_without_anything_to_offer_is_done_when_it_has_pushed() {
    let mut flow = Flow::new(Moved::default());
    flow.definitions_offered(&said(&[]));
    flow.definitions_came(&said(&[]));
    assert_eq!(flow.pushed(|_| None), Step::Done);
    assert_eq!(flow.pushed(|_| None), Step::Wait, "once");
}
