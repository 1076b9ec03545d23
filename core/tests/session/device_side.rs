//! The device.

use super::*;

/// A batch with own entries of a log in it, up to the last of the numbers.
fn merged(incarnation: u64, numbers: &[u64]) -> Batch {
    let own_merged = vec![(Lane::State, Incarnation::new(incarnation).unwrap(), seq(numbers[3]))];
    Batch { own_merged, ..batch(numbers[0], numbers[1], numbers[2]) }
}

/// A batch that names rows of the device's own.
fn named(numbers: &[u64]) -> Batch {
    let own = OwnRows { incarnation: Incarnation::new(4).unwrap(), sameness: [0; 16], runs: vec![] };
    Batch { own: Some(Box::new(own)), ..batch(numbers[0], numbers[1], numbers[2]) }
}

/// One event of a device's session, by its word.
fn device_input(word: &str) -> device::Input {
    let (verb, rest) = word.split_once(' ').unwrap_or((word, ""));
    let numbers: Vec<u64> = rest.split(['.', ' ']).filter_map(|part| part.parse().ok()).collect();
    let message = |message| device::Input::Message(Box::new(message));
    match verb {
        "welcome" => message(Message::Welcome(Box::new(welcome()))),
        "newer" => message(Message::Welcome(Box::new(Welcome { schema_rev: 2, ..welcome() }))),
        "welcomeback" => message(Message::Welcome(Box::new(welcome_with(numbers[0])))),
        "admitted" => device::Input::Admitted(vec![(BUCKET, Position(numbers[0]))]),
        "parted" => device::Input::Parted(Box::new(push(numbers[0], 1))),
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
        "named" => message(Message::Batch(named(&numbers))),
        "reject" => message(Message::Reject(refused(numbers[0]))),
        "rejectparent" => message(Message::Reject(Reject { incarnation: Incarnation::new(3).unwrap(), ..refused(numbers[0]) })),
        "merged" => message(Message::Batch(merged(4, &numbers))),
        "othersmerged" => message(Message::Batch(merged(3, &numbers))),
        "applied" => device::Input::Applied { bucket: BUCKET, cursor: Position(numbers[0]) },
        "checkpoint" => message(Message::Checkpoint(checkpoint(numbers[0]))),
        "schema" => message(Message::Schema(SchemaUpdate { timeline: TIMELINE, rev: 2, definitions: vec![], more: false })),
        "unreadable" => device::Input::NeedsSchema { bucket: BUCKET, cursor: Position(numbers[0]) },
        "unmade" => device::Input::NeedsSpelling(BUCKET, Position(numbers[0])),
        "grant" => message(Message::Grant(Grant { bucket: BUCKET, key: "all".to_owned(), write: true })),
        "revoke" => message(Message::Revoke(BUCKET)),
        "equal" => device::Input::Compared { equal: true, diverged: vec![] },
        "behind" => device::Input::Compared { equal: false, diverged: vec![] },
        "diverged" => device::Input::Compared { equal: false, diverged: vec![BUCKET] },
        "error" => message(error(Code::BUSY, rest == "fatal")),
        "refence" => message(Message::Refence(behind())),
        "bye" => message(Message::Bye),
        "ping" => message(Message::Ping(Ping { boot: BootId([1; 8]), mono: Mono(0), hub_time: Eff(0) })),
        "hello" => message(Message::Hello(Box::new(signed_hello()))),
        "resync" => message(Message::Resync { bucket: BUCKET, floor: Position(0) }),
        "sweep" => message(Message::Sweep { bucket: BUCKET, to: Position(9) }),
        "audit" => message(Message::Audit(Audit { bucket: BUCKET, at: Position(0), prefix: vec![], parts: vec![] })),
        "moved" | "left" | "foreign" => device::Input::Moved(moved(verb, &numbers)),
        "former" => device::Input::Former(numbers.first().map(|first| Box::new(of_former(push(*first, 1))))),
        "ackformer" => message(Message::Ack(Ack { incarnation: Incarnation::new(3).unwrap(), ..ack(numbers[0]) })),
        "nackformer" | "forkformer" => message(Message::Nack(Nack {
            lane: Lane::State,
            incarnation: Incarnation::new(3).unwrap(),
            expect: seq(numbers[0]),
            code: if verb == "forkformer" { Code::BROKEN_CHAIN } else { Code::GAP },
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

/// One bucket to be offered. With it a lane with that many entries, or the tail of a log that was left behind, or a timeline that the hub does
/// not know.
fn moved(verb: &str, numbers: &[u64]) -> Moved {
    let offers = vec![BUCKET];
    match verb {
        "left" => {
            let former = vec![Former { incarnation: Incarnation::new(3).unwrap(), lane: Lane::State, tail: Tail::Last }];
            Moved { offers, former, ..Moved::default() }
        }
        "foreign" => Moved { offers, timelines: vec![Timeline([7; 16])], ..Moved::default() },
        _ => Moved { offers, lasts: vec![(Lane::State, seq(numbers[0]))], ..Moved::default() },
    }
}

fn behind() -> Refence {
    Refence { lane: Lane::State, hub_last: None, chains: vec![], reason: RefenceReason::Behind, closed: None }
}

fn refused(number: u64) -> Reject {
    let (incarnation, detail) = (Incarnation::new(4).unwrap(), String::new());
    Reject { lane: Lane::State, incarnation, seq: seq(number), code: Code::FORBIDDEN, detail, record: None, hub_ver: Ver(0) }
}

fn device_effect(effect: &device::Effect) -> String {
    match effect {
        device::Effect::Send(_, message) => format!(">{}", name(message)),
        device::Effect::Read(lane, after, _) => format!("read {} {}", lane.number(), after.map_or(0, Seq::get)),
        device::Effect::ReadFormer(Former { tail: Tail::Last, .. }, _) => "readformer last".to_owned(),
        device::Effect::ReadFormer(Former { tail: Tail::Behind(after), .. }, _) => format!("readformer {}", after.map_or(0, Seq::get)),
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

/// A device that has other entries than its hub authored all again that it had heard no ack of, and some of that the hub had under their first
/// names: put back, it met both.
#[test]
fn r15_a_device_that_parts_from_its_hub_asks_how_far_both_go_together() {
    const PARTED: &str = "open; welcome; parted 8";
    device_row(PARTED, ">push 8");
    device_row(&format!("{PARTED}; refence"), "refence, close Refenced");
    device_row(&format!("{PARTED}; appended; grant; admitted 3; moved 8; parted 9"), "");
    // What the hub refused of the log that it has under that name is none of this one's entries.
    device_row(&format!("{LIVE}; reject 9"), "rejected");
    device_row(&format!("{PARTED}; reject 9; ack 9; gap 9; batch 1 2 3"), "");
    // Of what it refused of the log before, the next log is not told. A device that had lost that word once did not hear it again.
    device_row(&format!("{PARTED}; rejectparent 9"), "rejected");
    device_row(&format!("{PARTED}; +14; timeout"), "");
    device_row(&format!("{PARTED}; +15; timeout"), "close Silent");
    device_row(&format!("{LIVE}; parted 8"), "");
}

/// Acks travel on streams of their own. A delivery that came before them made the device write again what the hub had taken, or had it show an
/// increment twice for a moment.
#[test]
fn what_is_delivered_waits_for_the_acks_of_own_entries_in_it() {
    let pushed = format!("{LIVE}; appended; entries 1 2; entries 3 1; none 0");
    device_row(&format!("{pushed}; merged 1 3 4 2"), "");
    device_row(&format!("{pushed}; merged 1 3 4 2; batch 1 4 5; checkpoint 1; sweep"), "");
    device_row(&format!("{pushed}; merged 1 3 4 2; batch 1 4 5; checkpoint 1; sweep; ack 2"), "acked, apply, apply, compare, sweep");
    device_row(&format!("{pushed}; merged 1 3 4 3; ack 2"), "acked");
    device_row(&format!("{pushed}; merged 1 3 4 3; ack 2; ack 3"), "acked, apply");
    // What is sent again is waited for, too.
    device_row(&format!("{pushed}; merged 1 3 4 2; gap 1"), "read 0 0");
    device_row(&format!("{pushed}; merged 1 3 4 2; gap 1; entries 1 3; ack 2"), "acked, apply");
    device_row(&format!("{pushed}; merged 1 3 4 2; stop"), ">bye, close Stopped");
    // What is pulled anew is not kept.
    device_row(&format!("{pushed}; merged 1 3 4 2; resync; ack 2"), "acked");
    device_row(&format!("{pushed}; merged 1 3 4 2; resync; merged 1 3 4 2; ack 2"), "acked");
    // The hub has more than was sent here, by a bundle: what was sent is waited for.
    device_row(&format!("{pushed}; merged 1 3 4 4; ack 2"), "acked");
    device_row(&format!("{pushed}; merged 1 3 4 4; ack 2; ack 3"), "acked, apply");
    device_row(&format!("{LIVE}; merged 1 3 4 4"), "apply");
    // Nothing is on its way: it is of an earlier log, or was acknowledged before.
    device_row(&format!("{pushed}; othersmerged 1 3 4 2"), "apply");
    device_row(&format!("{pushed}; ack 2; merged 1 3 4 2"), "apply");
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
    let asked = "open; welcomeback 5; undecided 3; admitted 3";
    device_row(&format!("{asked}; merged 1 3 4 5"), "");
    device_row(&format!("{asked}; merged 1 3 4 2"), "apply");
    device_row(&format!("{asked}; merged 1 3 4 5; none 0"), "apply, read 1 0");
    device_row(&format!("{again}; merged 1 3 4 5"), "");
    device_row(&format!("{again}; merged 1 3 4 5; ack 5"), "acked, apply");
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

/// What broke: a batch that the store took in behind the word that its bucket may not be read any more brought its cursor back, and when the
/// bucket was granted again, nobody pulled it.
#[test]
fn a_bucket_that_is_granted_again_is_pulled_from_the_start() {
    device_row(&format!("{LIVE}; revoke"), "revoked");
    device_row(&format!("{LIVE}; revoke; grant"), "granted, >pull 0");
    device_row(&format!("{LIVE}; grant"), "granted");
    device_row(&format!("{LIVE}; batch 1 3 5; revoke; applied 5; grant"), "granted, >pull 0");
    let mut session = DeviceSession::new(Instant(0), device::Settings { keepalive: None }, signed_hello());
    for word in LIVE.split("; ").skip(1) {
        session.handle(Instant(0), device_input(word));
    }
    while session.poll_effect().is_some() {}
    for word in ["batch 1 3 5", "revoke", "grant"] {
        session.handle(Instant(0), device_input(word));
    }
    let got: Vec<_> = std::iter::from_fn(|| session.poll_effect()).map(|effect| device_effect(&effect)).collect();
    assert_eq!(got, ["revoked", "granted", ">pull 0"], "the batch would tell of a cursor that is gone");
}

/// What broke: a grant that came while the store took in the welcome was pulled at once, and forgotten when the store said where to pull from;
/// a revocation was forgotten likewise, and the bucket pulled.
#[test]
fn what_is_granted_before_the_welcome_is_taken_in_is_pulled_after_it() {
    device_row("open; welcome; grant", "");
    device_row("open; welcome; grant; admitted 3", ">pull 3, granted, read 0 0");
    device_row("open; welcome; revoke; admitted 3", ">pull 3, revoked, read 0 0");
    device_row("open; welcome; revoke; grant; admitted 3", ">pull 3, revoked, granted, >pull 0, read 0 0");
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
fn a_device_that_cannot_make_what_is_named_pulls_it_spelled_out() {
    device_row(&format!("{LIVE}; named 1 3 5"), "apply");
    device_row(&format!("{LIVE}; named 1 3 5; unmade 3"), ">pull 3 spelled");
    device_row(&format!("{LIVE}; named 1 3 5; unmade 3; named 1 3 5"), "");
    device_row(&format!("{LIVE}; named 1 3 5; unmade 3; named 2 3 5"), "close Violation");
    device_row(&format!("{LIVE}; named 1 3 5; revoke; unmade 3; grant; named 2 0 2"), "apply");
    device_row(&format!("{LIVE}; batch 1 3 5; batch 1 5 7; unmade 3"), ">pull 3 spelled");
    device_row(&format!("{LIVE}; batch 1 3 5; unmade 3; batch 1 3 5"), "");
    device_row(&format!("{LIVE}; batch 1 3 5; unmade 3; batch 2 3 5"), "apply");
    // And so does all that it pulls in this session.
    device_row(&format!("{LIVE}; batch 1 3 5; unmade 3; batch 2 3 5; applied 5; batch 2 8 9"), ">pull 5 spelled");
    device_row(&format!("{LIVE}; batch 1 3 5; applied 5; batch 1 8 9"), ">pull 5");
    // What the hub has another digest of is not made of what may be wrong.
    device_row(&format!("{LIVE}; batch 1 3 5; applied 5; checkpoint 1; diverged"), ">cursorack, >pull 0 spelled");
    device_row(&format!("{LIVE}; revoke; unmade 3"), "");
    device_row("open; unmade 3", "");
}

/// A program that had joined and synced did not know the collections yet.
#[test]
fn a_device_is_not_done_before_it_has_the_collections_of_the_hub() {
    let live = LIVE.replace("welcome", "newer");
    device_row(&format!("{live}; checkpoint 1; equal"), ">cursorack");
    device_row(&format!("{live}; checkpoint 1; equal; schema"), "putschema, drained");
    device_row(&format!("{live}; schema; checkpoint 1; equal"), ">cursorack, drained");
}

#[test]
fn a_checkpoint_is_compared_and_says_when_everything_is_done() {
    device_row(&format!("{LIVE}; checkpoint 1"), "compare");
    device_row(&format!("{LIVE}; checkpoint 6"), "");
    device_row(&format!("{LIVE}; checkpoint 1; equal"), ">cursorack, drained");
    device_row(&format!("{LIVE}; checkpoint 1; behind"), ">cursorack");
    device_row(&format!("{LIVE}; checkpoint 1; diverged"), ">cursorack, >pull 0 spelled");
    device_row(&format!("{LIVE}; checkpoint 1; diverged; batch 2 0 3; checkpoint 2; diverged"), ">cursorack");
    device_row(&format!("{LIVE}; checkpoint 1; diverged; batch 2 0 3; behind; checkpoint 2; diverged; batch 2 3 4"), "");
    device_row(
        &format!("{LIVE}; checkpoint 1; diverged; batch 2 0 3; checkpoint 2; equal; checkpoint 2; diverged"),
        ">cursorack, >pull 0 spelled",
    );
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
    // That something may have been delivered on a timeline that the hub has forgotten is told before anything is offered.
    device_row("open; welcome; foreign", ">offer");
    device_row("open; welcome; foreign; appended", "");
    device_row("open; welcome; foreign; joined", "readdefinitions");
    device_row("open; welcome; foreign; joined; definitions", ">schemaoffer");
    device_row("open; welcome; foreign; joined; definitions; schema", "putschema, readoffer, read 0 0");
    device_row("open; welcome; foreign; joined; definitions; schema; page; joined", "offered, resume");
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
    device_row("open; welcome; left; definitions; schema", "putschema, readformer last, read 0 0");
    device_row(&format!("{LEFT}; former 5"), ">push 5");
    // The hub has it, and so all before it.
    device_row(&format!("{LEFT}; former 5; ackformer 5"), "acked, readoffer");
    device_row(&format!("{LEFT}; former 5; ack 5"), "acked");
    device_row(&format!("{LEFT}; former"), "readoffer");
    // The hub has less.
    device_row(&format!("{LEFT}; former 5; nackformer 2"), "readformer 1");
    device_row(&format!("{LEFT}; former 5; nackformer 1; former 1; ackformer 1"), "acked, readformer 1");
    device_row(&format!("{LEFT}; former 5; nackformer 2; former 2; ackformer 2; former"), "readoffer");
    device_row(&format!("{LEFT}; former 5; nackformer 2; former 2; nackformer 2"), "gaveup, readoffer");
    // It has something else in its place, or less than is kept.
    device_row(&format!("{LEFT}; former 5; forkformer 2"), "gaveup, readoffer");
    device_row(&format!("{LEFT}; former 5; nackformer 2; former"), "readoffer");
    device_row(&format!("{LEFT}; former 5; appended; entries 1 1; ackformer 5; page; joined"), "offered, resume");
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
