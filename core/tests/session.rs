//! The session machines as tables: what happened on the left, what each side asks for on the right. Every (state, event) pair that a peer
//! or a driver can cause has a row.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]
#![allow(clippy::wildcard_enum_match_arm, reason = "what has no word of its own here is shown by its name")]

use std::sync::Arc;
use std::time::Duration;

use mobo_core::digest::Digest;
use mobo_core::entry::{Entry, Payload};
use mobo_core::ids::*;
use mobo_core::limits;
use mobo_core::merge::{Hint, Merged, Outcome};
use mobo_core::message::*;
use mobo_core::recover::{Former, Moved};
use mobo_core::session::hub::HubIdentity;
use mobo_core::session::{DeviceSession, HubSession, device, hub};
use mobo_core::store::{BucketPage, PullPage};
use mobo_core::time::{Eff, Instant, Moment, Mono, Wall, WallQuality};
use mobo_core::trust::{KeyPair, OfferKey};

const BUCKET: BucketId = BucketId::new(9).unwrap();
const TIMELINE: Timeline = Timeline([7; 16]);

fn seq(n: u64) -> Seq {
    Seq::new(n).unwrap()
}

fn moment() -> Moment {
    Moment { boot: BootId([1; 8]), mono: Mono(5), wall: Wall(0), quality: WallQuality::None }
}

fn signed_hello() -> SignedHello {
    let hello = Hello {
        proto_min: 1,
        proto_max: 1,
        features: 0,
        project: ProjectId::new(1).unwrap(),
        device: DeviceId([3; 16]),
        incarnation: Incarnation::new(4).unwrap(),
        parent: None,
        ordinal: None,
        session: None,
        nonce: [0; 16],
        lanes: vec![],
        buckets: vec![],
        checkpoint: None,
        schema_rev: 1,
        now: moment(),
        frame_bytes_max: 0,
        certificate: (vec![], Signature([0; 64])),
    };
    SignedHello { hello, bytes: vec![], signature: Signature([0; 64]) }
}

fn welcome() -> Welcome {
    Welcome {
        proto: 1,
        features: 0,
        timeline: TimelineInfo { timeline: TIMELINE, parents: vec![] },
        session: 1,
        ordinal: Ordinal(1),
        hub_time: Eff(0),
        lanes: vec![],
        grants: vec![Grant { bucket: BUCKET, key: "all".into(), write: true }],
        revokes: vec![],
        schema_rev: 1,
        frame_bytes_max: 0,
        keepalive_ms: 0,
        recovering: false,
    }
}

/// A hub that has so many entries of the state lane.
fn welcome_with(last: u64) -> Welcome {
    let status = LaneStatus { lane: Lane::State, last: Some(seq(last)), chain: Chain([0; 32]), safe: None, credit_bytes: 0 };
    Welcome { lanes: vec![status], ..welcome() }
}

fn push(first: u64, entries: usize) -> Push {
    let entry = PushedEntry { entry: Entry { header: vec![], payload: Payload::Present(vec![]) }, eff: None };
    Push {
        lane: Lane::State,
        incarnation: Incarnation::new(4).unwrap(),
        first: seq(first),
        prev_chain: Chain([0; 32]),
        entries: vec![entry; entries],
        head_chain: Chain([0; 32]),
        signature: Signature([0; 64]),
        on_behalf: None,
    }
}

fn of_former(push: Push) -> Push {
    Push { incarnation: Incarnation::new(3).unwrap(), ..push }
}

fn ack(n: u64) -> Ack {
    Ack {
        lane: Lane::State,
        incarnation: Incarnation::new(4).unwrap(),
        acked: seq(n),
        chain: Chain([0; 32]),
        safe: None,
        credit_bytes: 0,
        eff_first: seq(n),
        effs: vec![],
        signature: Signature([0; 64]),
    }
}

fn batch(pull: u64, from: u64, to: u64) -> Batch {
    let (from, to) = (Position(from), Position(to));
    Batch { pull, timeline: TIMELINE, bucket: BUCKET, from, to, items: vec![], own_merged: vec![], more: false }
}

fn checkpoint(pull: u64) -> Checkpoint {
    Checkpoint { pull, timeline: TIMELINE, heads: vec![], own_merged: vec![], signature: None }
}

fn error(code: Code, fatal: bool) -> Message {
    Message::Error(PeerError { code, detail: "no".into(), fatal, retry_after_ms: 0 })
}

fn name(message: &Message) -> String {
    let text = format!("{message:?}");
    let name = text.split(['(', ' ', '{']).next().unwrap().to_lowercase();
    match message {
        Message::Pull(pull) => format!("{name} {}", pull.wants.iter().map(|(_, at)| at.0.to_string()).collect::<Vec<_>>().join(",")),
        Message::Push(push) => format!("{name} {}", push.first.get()),
        Message::Ack(ack) => format!("{name} {}", ack.acked.get()),
        Message::Nack(nack) => format!("{name} {}", nack.expect.get()),
        Message::Batch(batch) => format!("{name} {}..{}", batch.from.0, batch.to.0),
        Message::Checkpoint(checkpoint) if checkpoint.heads.is_empty() => format!("{name} of nothing"),
        Message::Error(error) => format!("{name} {}", error.code.name()),
        _ => name,
    }
}

/// One event of a device's session, by its word.
fn device_input(word: &str) -> device::Input {
    let (verb, rest) = word.split_once(' ').unwrap_or((word, ""));
    let numbers: Vec<u64> = rest.split(['.', ' ']).filter_map(|part| part.parse().ok()).collect();
    let message = |message| device::Input::Message(Box::new(message));
    match verb {
        "welcome" => message(Message::Welcome(Box::new(welcome()))),
        "welcomeback" => message(Message::Welcome(Box::new(welcome_with(numbers[0])))),
        "admitted" => device::Input::Admitted(vec![(BUCKET, Position(numbers[0]))]),
        "undecided" => device::Input::Undecided(vec![(Lane::State, seq(numbers[0]))]),
        "none" => device::Input::Entries(Lane::from_number(numbers[0] as u8).unwrap(), None),
        "entries" => device::Input::Entries(Lane::State, Some(Box::new(push(numbers[0], numbers[1] as usize)))),
        "appended" => device::Input::Appended(Lane::State),
        "ack" => message(Message::Ack(ack(numbers[0]))),
        "gap" => message(Message::Nack(Nack {
            lane: Lane::State,
            incarnation: Incarnation::new(4).unwrap(),
            expect: seq(numbers[0]),
            code: Code::GAP,
        })),
        "batch" => message(Message::Batch(batch(numbers[0], numbers[1], numbers[2]))),
        "applied" => device::Input::Applied { bucket: BUCKET, cursor: Position(numbers[0]) },
        "checkpoint" => message(Message::Checkpoint(checkpoint(numbers[0]))),
        "schema" => message(Message::Schema(SchemaUpdate { timeline: TIMELINE, rev: 2, definitions: vec![], more: false })),
        "unreadable" => device::Input::NeedsSchema { bucket: BUCKET, cursor: Position(numbers[0]) },
        "equal" => device::Input::Compared { equal: true, diverged: vec![] },
        "behind" => device::Input::Compared { equal: false, diverged: vec![] },
        "diverged" => device::Input::Compared { equal: false, diverged: vec![BUCKET] },
        "error" => message(error(Code::BUSY, rest == "fatal")),
        "refence" => {
            message(Message::Refence(Refence { lane: Lane::State, hub_last: None, chains: vec![], reason: RefenceReason::Behind }))
        }
        "bye" => message(Message::Bye),
        "ping" => message(Message::Ping(Ping { boot: BootId([1; 8]), mono: Mono(0), hub_time: Eff(0) })),
        "hello" => message(Message::Hello(Box::new(signed_hello()))),
        "resync" => message(Message::Resync { bucket: BUCKET, floor: Position(0) }),
        "sweep" => message(Message::Sweep { bucket: BUCKET, to: Position(9) }),
        "audit" => message(Message::Audit(Audit { bucket: BUCKET, at: Position(0), prefix: vec![], parts: vec![] })),
        // One bucket to be offered, and a lane with that many entries.
        "moved" => device::Input::Moved(Moved { offers: vec![BUCKET], lasts: vec![(Lane::State, seq(numbers[0]))], former: vec![] }),
        // The same, and the tail of a log that was left behind.
        "left" => {
            let former = Former { incarnation: Incarnation::new(3).unwrap(), lane: Lane::State, after: None };
            device::Input::Moved(Moved { offers: vec![BUCKET], lasts: vec![], former: vec![former] })
        }
        "former" => device::Input::Former(numbers.first().map(|first| Box::new(of_former(push(*first, 1))))),
        "ackformer" => message(Message::Ack(Ack { incarnation: Incarnation::new(3).unwrap(), ..ack(numbers[0]) })),
        "nackformer" => message(Message::Nack(Nack {
            lane: Lane::State,
            incarnation: Incarnation::new(3).unwrap(),
            expect: seq(numbers[0]),
            code: Code::GAP,
        })),
        "definitions" => device::Input::Definitions(SchemaUpdate { timeline: TIMELINE, rev: 1, definitions: vec![], more: false }),
        "page" => {
            let offer = Offer { bucket: BUCKET, timeline: TIMELINE, rows: vec![], more: !numbers.is_empty() };
            device::Input::Offer(Box::new(offer), numbers.first().map(|at| Position(*at)))
        }
        "joined" => message(Message::OfferAck(OfferAck { bucket: BUCKET, joined: 1, refused: 0 })),
        "unsupported" => message(error(Code::UNSUPPORTED, false)),
        "later" => message(Message::Ignored { kind: 99 }),
        "broken" => device::Input::StoreFailed("disk".into()),
        "stop" => device::Input::Stop,
        "timeout" => device::Input::Timeout(moment()),
        _ => panic!("{word}"),
    }
}

fn device_effect(effect: &device::Effect) -> String {
    match effect {
        device::Effect::Send(_, message) => format!(">{}", name(message)),
        device::Effect::Read(lane, after, _) => format!("read {} {}", lane.number(), after.map_or(0, Seq::get)),
        device::Effect::Close(reason) => format!("close {}", format!("{reason:?}").split(['(', ' ']).next().unwrap()),
        other => format!("{other:?}").split(['(', ' ']).next().unwrap().to_lowercase(),
    }
}

/// Runs a script; `+N` lets N seconds pass. The answer is what was asked for after the last event.
#[track_caller]
fn device_row(script: &str, want: &str) {
    let settings = device::Settings { keepalive: Some(Duration::from_secs(10)) };
    let (mut now, mut got) = (Instant(0), String::new());
    let mut session = DeviceSession::new(now, settings, signed_hello());
    for word in script.split("; ") {
        if let Some(seconds) = word.strip_prefix('+') {
            now = now.after(Duration::from_secs(seconds.parse().unwrap()));
            continue;
        }
        if word != "open" {
            session.handle(now, device_input(word));
        }
        got = std::iter::from_fn(|| session.poll_effect()).map(|effect| device_effect(&effect)).collect::<Vec<_>>().join(", ");
    }
    assert_eq!(got, want, "after {script}");
}

const LIVE: &str = "open; welcome; admitted 3; none 0; none 1; none 2; none 3";

#[test]
fn a_device_says_hello_and_waits() {
    device_row("open", ">hello");
    device_row("open; welcome", "admit");
    device_row("open; batch 1 0 1", "close Violation");
    device_row("open; ack 1", "close Violation");
    device_row("open; error fatal", "close Refused");
    device_row("open; error soft", "");
    device_row("open; refence", "refence, close Refenced");
    device_row("open; bye", "close PeerLeft");
    device_row("open; later", "");
    device_row("open; stop", ">bye, close Stopped");
    device_row("open; broken", "close Store");
    device_row("open; +14; timeout", "");
    device_row("open; +15; timeout", "close Silent");
    device_row("open; bye; welcome", "");
}

#[test]
fn a_live_device_pulls_and_pushes_urgent_lanes_first() {
    device_row("open; welcome; admitted 3", ">pull 3, read 0 0");
    device_row("open; welcome; admitted 3; none 0", "read 1 0");
    device_row("open; welcome; admitted 3; entries 1 2", ">push 1, read 0 2");
    device_row(&format!("{LIVE}; appended"), "read 0 0");
    device_row(&format!("{LIVE}; appended; entries 1 2; none 0; ack 2"), "acked");
    device_row(&format!("{LIVE}; appended; entries 1 1; entries 2 1; entries 3 1; entries 4 1"), ">push 4");
    device_row(&format!("{LIVE}; appended; entries 1 1; entries 2 1; entries 3 1; entries 4 1; ack 1"), "acked, read 0 4");
    device_row(&format!("{LIVE}; appended; entries 5 3; none 0; gap 2"), "read 0 1");
    // A word that comes after the ack of what it asks for.
    device_row(&format!("{LIVE}; appended; entries 1 3; none 0; ack 3; gap 2"), "");
}

/// What a store could not take, and everything behind it, is told again in the next session.
#[test]
fn nothing_is_taken_in_behind_what_the_store_could_not_take() {
    let mut session = DeviceSession::new(Instant(0), device::Settings { keepalive: None }, signed_hello());
    for word in LIVE.split("; ").skip(1).chain(["ack 1", "broken", "ack 2"]) {
        session.handle(Instant(0), device_input(word));
    }
    let got: Vec<_> = std::iter::from_fn(|| session.poll_effect()).map(|effect| device_effect(&effect)).collect();
    assert_eq!(got, ["close Store"]);
}

/// The ack of 3 to 5 was lost: the welcome says that the hub has them, and not what it decided.
#[test]
fn r7_entries_whose_ack_was_lost_are_pushed_again() {
    device_row("open; welcomeback 5; admitted 3", ">pull 3, read 0 5");
    device_row("open; welcomeback 5; undecided 3", "");
    device_row("open; welcomeback 5; undecided 3; admitted 3", ">pull 3, read 0 2");
    device_row("open; welcomeback 5; undecided 1; admitted 3", ">pull 3, read 0 0");
    let again = "open; welcomeback 5; undecided 3; admitted 3; entries 3 3; none 0; none 1; none 2; none 3";
    device_row(&format!("{again}; equal"), ">cursorack");
    device_row(&format!("{again}; equal; ack 5"), "acked, drained");
    device_row(&format!("{again}; ack 5; appended"), "read 0 5");
}

#[test]
fn i4_a_device_takes_a_batch_iff_it_continues_its_cursor() {
    device_row(&format!("{LIVE}; batch 1 3 5"), "apply");
    device_row(&format!("{LIVE}; batch 1 3 5; batch 1 3 5"), "");
    device_row(&format!("{LIVE}; batch 1 3 5; batch 1 5 6"), "apply");
    device_row(&format!("{LIVE}; batch 1 4 6"), ">pull 3");
    device_row(&format!("{LIVE}; batch 1 0 3"), "");
    device_row(&format!("{LIVE}; batch 7 3 5"), "");
    device_row("open; welcome; batch 1 3 5", "");
}

/// Schemas and batches come on different streams.
#[test]
fn a_batch_that_is_ahead_of_its_schema_is_pulled_again_behind_it() {
    device_row(&format!("{LIVE}; schema"), "putschema");
    device_row(&format!("{LIVE}; batch 1 3 5; unreadable 3"), "");
    device_row(&format!("{LIVE}; batch 1 3 5; unreadable 3; batch 1 5 6"), "");
    device_row(&format!("{LIVE}; batch 1 3 5; unreadable 3; batch 1 3 5"), "");
    device_row(&format!("{LIVE}; batch 1 3 5; unreadable 3; schema"), "putschema, >pull 3");
    device_row(&format!("{LIVE}; batch 1 3 5; unreadable 3; schema; schema"), "putschema");
    device_row(&format!("{LIVE}; batch 1 3 5; unreadable 3; schema; batch 2 3 6"), "apply");
    device_row(&format!("{LIVE}; batch 1 3 5; unreadable 3; checkpoint 1; behind"), ">cursorack");
    device_row("open; unreadable 3", "");
    // What came before the store could answer.
    for (queued, want) in [("batch 1 5 6", ""), ("schema", "putschema, >pull 3"), ("schema; batch 1 5 6", "putschema, >pull 3")] {
        let mut session = DeviceSession::new(Instant(0), device::Settings { keepalive: None }, signed_hello());
        for word in LIVE.split("; ").skip(1).chain(["batch 1 3 5"]) {
            session.handle(Instant(0), device_input(word));
        }
        let taken: Vec<_> = std::iter::from_fn(|| session.poll_effect()).collect();
        assert_eq!(taken.last().map(device_effect).unwrap(), "apply");
        for word in queued.split("; ").chain(["unreadable 3"]) {
            session.handle(Instant(0), device_input(word));
        }
        let got: Vec<_> = std::iter::from_fn(|| session.poll_effect()).map(|effect| device_effect(&effect)).collect();
        assert_eq!(got.join(", "), want, "{queued}");
    }
}

#[test]
fn a_checkpoint_is_compared_and_says_when_everything_is_done() {
    device_row(&format!("{LIVE}; checkpoint 1"), "compare");
    device_row(&format!("{LIVE}; checkpoint 6"), "");
    device_row(&format!("{LIVE}; checkpoint 1; equal"), ">cursorack, drained");
    device_row(&format!("{LIVE}; checkpoint 1; behind"), ">cursorack");
    device_row(&format!("{LIVE}; checkpoint 1; diverged"), ">cursorack, >pull 0");
    device_row(&format!("{LIVE}; checkpoint 1; diverged; batch 2 0 3; checkpoint 2; diverged"), ">cursorack");
    device_row(&format!("{LIVE}; checkpoint 1; diverged; batch 2 0 3; behind; checkpoint 2; diverged; batch 2 3 4"), "");
    device_row(&format!("{LIVE}; checkpoint 1; diverged; batch 2 0 3; checkpoint 2; equal; checkpoint 2; diverged"), ">cursorack, >pull 0");
    device_row(&format!("{LIVE}; appended; entries 1 1; none 0; equal"), ">cursorack");
    device_row(&format!("{LIVE}; appended; entries 1 1; none 0; equal; ack 1"), "acked, drained");
}

// faults: N-5
#[test]
fn n5_a_silent_hub_is_pinged_and_given_up_within_one_and_a_half_keepalives() {
    device_row(&format!("{LIVE}; +9; timeout"), "");
    device_row(&format!("{LIVE}; +10; timeout"), ">ping");
    device_row(&format!("{LIVE}; +10; timeout; +4; timeout"), "");
    device_row(&format!("{LIVE}; +10; timeout; +5; timeout"), "close Silent");
    device_row(&format!("{LIVE}; +10; timeout; +4; later; +9; timeout"), "");
    device_row(&format!("{LIVE}; ping"), ">pong");
}

/// A device on a new timeline: what comes before what, and that a link may break anywhere.
#[test]
fn r18_a_device_offers_before_it_pulls() {
    const MOVED: &str = "open; welcome; moved 1";
    device_row(MOVED, "readdefinitions");
    device_row(&format!("{MOVED}; definitions"), ">schemaoffer");
    device_row(&format!("{MOVED}; appended"), "");
    // The hub's definitions are here: what is kept is pushed, and acknowledged.
    const PUSHED: &str = "open; welcome; moved 1; definitions; schema; entries 1 1; none 0; none 1; none 2; none 3";
    device_row(&format!("{MOVED}; definitions; schema"), "putschema, read 0 0");
    device_row(PUSHED, "");
    device_row(&format!("{PUSHED}; ack 1"), "acked, readoffer");
    device_row(&format!("{PUSHED}; ack 1; page 7"), ">offer");
    device_row(&format!("{PUSHED}; ack 1; page 7; joined"), "readoffer");
    device_row(&format!("{PUSHED}; ack 1; page 7; joined; page"), ">offer");
    device_row(&format!("{PUSHED}; ack 1; page 7; joined; page; joined"), "offered, resume");
    device_row(&format!("{PUSHED}; ack 1; page; joined; admitted 3"), ">pull 3");
    // Nothing else makes it pull, and nothing touches what is not offered.
    device_row(&format!("{PUSHED}; batch 0 0 3"), "");
    device_row(&format!("{PUSHED}; sweep"), "");
    device_row(&format!("{PUSHED}; resync"), "close Violation");
    device_row(&format!("{PUSHED}; ack 1; page; unsupported"), "close Refused");
}

/// What is kept of logs that were left behind goes up between the two, one push at a time, and no lane of this log takes their acks for its own.
#[test]
fn r22_a_device_pushes_what_it_keeps_of_former_logs_before_it_offers() {
    const LEFT: &str = "open; welcome; left; definitions; schema; none 0; none 1; none 2; none 3";
    device_row("open; welcome; left; definitions; schema", "putschema, readformer, read 0 0");
    device_row(&format!("{LEFT}; former 5"), ">push 5");
    device_row(&format!("{LEFT}; former 5; ackformer 5"), "acked, readformer");
    device_row(&format!("{LEFT}; former 5; ack 5"), "acked");
    device_row(&format!("{LEFT}; former 5; ackformer 5; former"), "readoffer");
    device_row(&format!("{LEFT}; former 5; nackformer 2"), "readoffer");
    device_row(&format!("{LEFT}; former 5; appended; entries 1 1; ackformer 5; former; page; joined"), "offered, resume");
    // One that belongs to nothing: it is kept, and moves nothing.
    device_row(&format!("{LIVE}; ackformer 5"), "acked");
    device_row(&format!("{LIVE}; nackformer 5"), "");
}

#[test]
fn a_live_device_answers_what_it_cannot_do_and_ends_what_makes_no_sense() {
    device_row(&format!("{LIVE}; audit"), ">error unsupported");
    device_row(&format!("{LIVE}; resync"), "resync, >pull 0");
    device_row(&format!("{LIVE}; sweep"), "sweep");
    device_row(&format!("{LIVE}; hello"), "close Violation");
    device_row(&format!("{LIVE}; refence"), "refence, close Refenced");
    device_row(&format!("{LIVE}; error fatal"), "close Refused");
    device_row(&format!("{LIVE}; broken"), "close Store");
    device_row(&format!("{LIVE}; stop"), ">bye, close Stopped");
}

fn identity() -> Arc<HubIdentity> {
    let keys = KeyPair::from_secret(&[1; 32]);
    Arc::new(HubIdentity { project: ProjectId::new(1).unwrap(), timeline: TIMELINE, keys, offer: OfferKey([0; 32]) })
}

fn page(from: u64, to: u64, head: u64) -> PullPage {
    let bucket = BucketPage {
        bucket: BUCKET,
        from: Position(from),
        to: Position(to),
        head: Position(head),
        digest: Digest::default(),
        items: vec![],
        damaged: vec![],
    };
    PullPage { buckets: vec![bucket], own_merged: vec![] }
}

fn hub_input(word: &str) -> hub::Input {
    let (verb, rest) = word.split_once(' ').unwrap_or((word, ""));
    let numbers: Vec<u64> = rest.split(['.', ' ']).filter_map(|part| part.parse().ok()).collect();
    let message = |message| hub::Input::Message(Box::new(message));
    let lane = LaneKey { device: DeviceId([3; 16]), incarnation: Incarnation::new(4).unwrap(), lane: Lane::State };
    let refuse = PeerError { code: Code::REVOKED, detail: "no".into(), fatal: true, retry_after_ms: 0 };
    match verb {
        "hello" => message(Message::Hello(Box::new(signed_hello()))),
        "enrol" => {
            let (key, signature) = (PublicKey([0; 32]), Signature([0; 64]));
            message(Message::Enrol(Enrol { secret: vec![], masked: false, key, name: String::new(), signature }))
        }
        "admitted" => hub::Input::Admitted(Ok(Box::new(welcome()))),
        "takes" => hub::Input::Admitted(Ok(Box::new(Welcome { features: FORMER_LOGS, ..welcome() }))),
        "has" => hub::Input::Admitted(Ok(Box::new(welcome_with(numbers[0])))),
        "recovering" => hub::Input::Admitted(Ok(Box::new(Welcome { recovering: true, ..welcome() }))),
        "joined" => hub::Input::Joined(OfferAck { bucket: BUCKET, joined: 1, refused: 0 }),
        "audit" => message(Message::Audit(Audit { bucket: BUCKET, at: Position(0), prefix: vec![], parts: vec![] })),
        "schemaoffer" => message(Message::SchemaOffer(SchemaUpdate { timeline: TIMELINE, rev: 1, definitions: vec![], more: false })),
        "adopted" | "refused" if !rest.is_empty() || verb == "adopted" => {
            let update = SchemaUpdate { timeline: TIMELINE, rev: 2, definitions: vec![], more: false };
            hub::Input::Adopted(Arc::new(update), (verb == "refused").then(|| "taken".to_owned()))
        }
        "refused" => hub::Input::Admitted(Err(hub::Refusal::Error(refuse))),
        "enrolled" => hub::Input::Enrolled(Ok(Enrolled { certificate: vec![], signature: Signature([0; 64]) })),
        "token" => hub::Input::Enrolled(Err(PeerError { code: Code::TOKEN_USED, ..refuse })),
        "push" => message(Message::Push(push(numbers[0], 1))),
        "other" => message(Message::Push(Push { incarnation: Incarnation::new(5).unwrap(), ..push(1, 1) })),
        "merged" => {
            let merged =
                Merged { acked: seq(numbers[0]), chain: Chain([0; 32]), eff_first: seq(1), effs: vec![], rejects: vec![], changed: vec![] };
            hub::Input::Merged(lane, Outcome::Merged(merged))
        }
        "gap" => hub::Input::Merged(lane, Outcome::Nack { expect: seq(numbers[0]), code: Code::GAP }),
        "fork" => hub::Input::Merged(lane, Outcome::Refence { hub_last: None, reason: RefenceReason::Forked }),
        "forkformer" => {
            let lane = LaneKey { incarnation: Incarnation::new(5).unwrap(), ..lane };
            hub::Input::Merged(lane, Outcome::Refence { hub_last: Some(seq(3)), reason: RefenceReason::Forked })
        }
        "forged" => hub::Input::PushRefused(lane, Code::BAD_SIGNATURE),
        "pull" => {
            let wants = vec![(BUCKET, Position(numbers[0]))];
            message(Message::Pull(Pull { pull: 1, wants, credit_bytes: 1000, live: rest.ends_with("live") }))
        }
        "steal" => {
            let wants = vec![(BucketId::new(77).unwrap(), Position(0))];
            message(Message::Pull(Pull { pull: 1, wants, credit_bytes: 1000, live: true }))
        }
        "page" => hub::Input::Page(Box::new(page(numbers[0], numbers[1], numbers[2]))),
        "torn" => {
            let mut page = page(numbers[0], numbers[1], numbers[2]);
            page.buckets[0].damaged.push(RecordKey { collection: CollectionId::new(1).unwrap(), id: RecordId::new("o").unwrap() });
            hub::Input::Page(Box::new(page))
        }
        "hint" => hub::Input::Hints(Arc::new(vec![Hint { bucket: BUCKET, head: Position(numbers[0]), digest: Digest::default() }])),
        "lost" => hub::Input::HintsLost,
        "read" => message(Message::CursorAck(vec![])),
        "offer" => message(Message::Offer(Offer { bucket: BUCKET, timeline: TIMELINE, rows: vec![], more: false })),
        "pong" => message(Message::Pong(Ping { boot: BootId([1; 8]), mono: Mono(0), hub_time: Eff(0) })),
        "ping" => message(Message::Ping(Ping { boot: BootId([1; 8]), mono: Mono(0), hub_time: Eff(0) })),
        "ack" => message(Message::Ack(ack(1))),
        "bye" => message(Message::Bye),
        "safe" => hub::Input::Safe(Lane::State, seq(numbers[0]), Chain([0; 32])),
        "revoked" => hub::Input::Revoked,
        "broken" => hub::Input::StoreFailed("disk".into()),
        "stop" => hub::Input::Stop,
        "timeout" => hub::Input::Timeout,
        _ => panic!("{word}"),
    }
}

fn hub_effect(effect: &hub::Effect) -> String {
    match effect {
        hub::Effect::Send(_, message) => format!(">{}", name(message)),
        hub::Effect::Pull(wants) => wants.first().map_or("pull -".into(), |(_, at)| format!("pull {}", at.0)),
        hub::Effect::Close(reason) => format!("close {}", format!("{reason:?}").split(['(', ' ']).next().unwrap()),
        other => format!("{other:?}").split(['(', ' ']).next().unwrap().to_lowercase(),
    }
}

#[track_caller]
fn hub_row(script: &str, want: &str) {
    let (mut now, mut got) = (Instant(0), String::new());
    let mut session = HubSession::new(now, identity(), Some(limits::KEEPALIVE));
    for word in script.split("; ") {
        if let Some(seconds) = word.strip_prefix('+') {
            now = now.after(Duration::from_secs(seconds.parse().unwrap()));
            continue;
        }
        session.handle(now, hub_input(word));
        got = std::iter::from_fn(|| session.poll_effect()).map(|effect| hub_effect(&effect)).collect::<Vec<_>>().join(", ");
    }
    assert_eq!(got, want, "after {script}");
}

// faults: N-10
#[test]
fn a_hub_lets_in_who_says_hello() {
    hub_row("hello", "admit");
    hub_row("hello; admitted", ">welcome");
    hub_row("hello; refused", ">error revoked, close Refused");
    hub_row("enrol", "enrol");
    hub_row("enrol; enrolled", ">enrolled");
    hub_row("enrol; enrolled; hello", "admit");
    hub_row("enrol; token", ">error token_used, close Refused");
    hub_row("push 1", "close Violation");
    hub_row("hello; push 1", "close Violation");
    hub_row("+14; timeout", "");
    hub_row("+15; timeout", "close Silent");
    hub_row("bye", "close PeerLeft");
    // What says nothing of who is there gives nobody more time.
    hub_row("+14; pong; timeout", "");
    hub_row("+14; pong; +1; timeout", "close Silent");
    hub_row("+14; hello; +14; timeout", "");
    hub_row("+14; hello; +14; pong; +1; timeout", "close Silent");
    hub_row("+14; enrol; +14; enrolled; +14; timeout", "");
    hub_row("hello; +14; admitted; +14; timeout", "");
}

/// faults: X-4
#[test]
fn a_hub_holds_no_more_than_a_device_may_have_unanswered() {
    let row = |word: &str, count: usize, want: &str| hub_row(&format!("hello; admitted; {}", vec![word; count].join("; ")), want);
    row("push 1", 16, "merge");
    row("push 1", 17, "close Violation");
    row("push 1; merged 1", 40, ">ack 1");
    row("offer", 2, "close Violation");
    row("offer; joined", 9, ">offerack");
    row("schemaoffer", 4, "adopt");
    row("schemaoffer", 5, "close Violation");
    row("schemaoffer; adopted", 9, ">schema");
}

#[test]
fn a_hub_acknowledges_only_what_was_merged() {
    hub_row("hello; admitted; push 1", "merge");
    hub_row("hello; admitted; push 1; merged 1", ">ack 1");
    hub_row("hello; admitted; push 5; gap 2", ">nack 2");
    hub_row("hello; admitted; push 1; fork", "refence");
    hub_row("hello; admitted; push 1; forged", ">error bad_signature, close Refused");
    // What is safe is said of what the device was told of: refusals come before the ack that covers them.
    hub_row("hello; admitted; push 1; merged 1; safe 1", ">ack 1");
    hub_row("hello; admitted; push 1; safe 1", "");
    hub_row("hello; admitted; push 1; safe 1; merged 1", ">ack 1, >ack 1");
    hub_row("hello; admitted; push 1; merged 1; push 2; safe 2", "");
    hub_row("hello; has 2; safe 2", ">ack 2");
    hub_row("hello; has 2; safe 3", "");
    hub_row("hello; admitted; other", ">error unsupported, close Refused");
    hub_row("hello; takes; other", "merge");
    // Nobody is told to begin a new log because of one that was left behind.
    hub_row("hello; takes; other; forkformer", ">nack 4");
    hub_row("hello; admitted; push 1; broken", ">error busy, close Refused");
}

#[test]
fn a_hub_delivers_one_page_at_a_time_and_a_checkpoint_when_nothing_is_due() {
    hub_row("hello; admitted; pull 3 live", "pull 3");
    hub_row("hello; admitted; pull 3 live; page 3 3 3", ">checkpoint");
    hub_row("hello; admitted; pull 3 live; page 3 5 5", ">batch 3..5, >checkpoint");
    hub_row("hello; admitted; pull 3 live; page 3 5 9", ">batch 3..5, pull 5");
    hub_row("hello; admitted; pull 3 live; hint 7", "");
    hub_row("hello; admitted; pull 3 live; hint 7; page 3 7 7", ">batch 3..7, pull 7");
    hub_row("hello; admitted; pull 3 live; page 3 3 3; hint 4", "pull 3");
    hub_row("hello; admitted; pull 3 live; page 3 3 3; hint 3", "");
    hub_row("hello; admitted; pull 3 live; page 3 3 3; lost", "pull 3");
    hub_row("hello; admitted; pull 3; page 3 3 3; hint 4", "");
    hub_row("hello; admitted; steal", "pull -");
    // The device pulled anew while a page was read: the page is for nobody.
    hub_row("hello; admitted; pull 3 live; pull 0 live; page 3 5 5", "pull 0");
}

/// The device cannot have the digest of what it was not sent, and would throw its own good copy away.
#[test]
fn r13_a_hub_gives_no_digest_of_a_bucket_with_damaged_records() {
    hub_row("hello; admitted; pull 0 live; torn 0 5 5", ">batch 0..5, >checkpoint of nothing");
    hub_row("hello; admitted; pull 0 live; torn 0 5 9; page 5 9 9", ">batch 5..9, >checkpoint of nothing");
    hub_row("hello; admitted; pull 0 live; torn 0 5 5; hint 6; page 5 6 6", ">batch 5..6, >checkpoint of nothing");
    hub_row("hello; admitted; pull 0 live; torn 0 5 5; pull 5 live; page 5 5 5", ">checkpoint of nothing");
    hub_row("hello; admitted; pull 0 live; torn 0 5 5; pull 0 live; page 0 5 5", ">batch 0..5, >checkpoint");
}

#[test]
fn a_hub_ends_what_must_end_and_answers_the_rest() {
    hub_row("hello; admitted; revoked", ">error revoked, close Refused");
    hub_row("hello; admitted; audit", ">error unsupported");
    hub_row("hello; admitted; offer", "join");
    hub_row("hello; admitted; offer; joined", ">offerack");
    hub_row("hello; admitted; schemaoffer", "adopt");
    hub_row("hello; admitted; schemaoffer; adopted", ">schema");
    hub_row("hello; admitted; schemaoffer; refused some", ">error wrong_kind, >schema");
    // A device that pulls all that it may read has offered it.
    hub_row("hello; recovering; pull 0", "offeredall, pull 0");
    hub_row("hello; recovering; pull 0; page 0 3 3; pull 0", "pull 0");
    hub_row("hello; recovering; steal", "pull -");
    hub_row("hello; admitted; ack", "close Violation");
    hub_row("hello; admitted; ping", "pong");
    hub_row("hello; admitted; read", "cursors");
    hub_row("hello; admitted; stop", ">bye, close Stopped");
    hub_row("hello; admitted; bye", "close PeerLeft");
    hub_row("hello; admitted; +15; timeout", "close Silent");
    hub_row("hello; admitted; +14; ping; +14; timeout", "");
    hub_row("hello; admitted; bye; push 1", "");
}
