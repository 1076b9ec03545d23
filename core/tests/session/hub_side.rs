//! The hub.

use super::*;

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
        decisions: vec![],
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
        "at" => message(Message::Hello(Box::new(hello_at(named(&numbers))))),
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
        "pull" => message(pull_of((BUCKET, numbers[0]), rest.ends_with("live"))),
        "steal" => message(pull_of((BucketId::new(77).unwrap(), 0), true)),
        "page" => hub::Input::Page(Box::new(page(numbers[0], numbers[1], numbers[2]))),
        "torn" => {
            let mut page = page(numbers[0], numbers[1], numbers[2]);
            page.buckets[0].damaged.push(RecordKey { collection: CollectionId::new(1).unwrap(), id: RecordId::new("o").unwrap() });
            hub::Input::Page(Box::new(page))
        }
        "hint" => hub::Input::Hints(Arc::new(vec![Hint { bucket: BUCKET, head: Position(numbers[0]), digest: Digest::default() }])),
        "lost" => hub::Input::HintsLost,
        "read" => message(Message::CursorAck(vec![])),
        "offer" => message(Message::Offer(Offer { bucket: BUCKET, timeline: named(&numbers), rows: vec![], more: false })),
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

fn pull_of((bucket, from): (BucketId, u64), live: bool) -> Message {
    Message::Pull(Pull { pull: 1, wants: vec![(bucket, Position(from))], credit_bytes: 1000, live, takes_own: false })
}

/// The hello of a device that has read a bucket on that timeline.
fn hello_at(timeline: Timeline) -> SignedHello {
    let mut hello = signed_hello();
    hello.hello.buckets.push(BucketReport { bucket: BUCKET, timeline, cursor: Position(3) });
    hello
}

/// The timeline of that number; without one, the hub's own.
fn named(numbers: &[u64]) -> Timeline {
    numbers.first().map_or(TIMELINE, |number| Timeline([u8::try_from(*number).unwrap(); 16]))
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
    // Rows may have been delivered on any timeline that the device has named.
    let mut session = HubSession::new(Instant(0), identity(), None);
    let mut named = Vec::new();
    for word in ["hello", "admitted", "offer 3", "joined", "offer 3", "joined", "offer 4"] {
        session.handle(Instant(0), hub_input(word));
        named.extend(std::iter::from_fn(|| session.poll_effect()).filter_map(|effect| match effect {
            hub::Effect::Join(_, timelines) => Some(timelines.iter().map(|timeline| timeline.0[0]).collect::<Vec<_>>()),
            _ => None,
        }));
    }
    assert_eq!(named, [vec![3], vec![3], vec![3, 4]]);
    // A device that pulls all that it may read has offered it.
    hub_row("hello; recovering; pull 0", "offeredall, pull 0");
    hub_row("hello; recovering; pull 0; page 0 3 3; pull 0", "pull 0");
    hub_row("hello; recovering; steal", "pull -");
    // So has a copy of one that comes when recovery is over; whoever knows this timeline owes nothing.
    hub_row("at 5; admitted; pull 0", "offeredall, pull 0");
    hub_row("at; admitted; pull 0", "pull 0");
    hub_row("hello; admitted; ack", "close Violation");
    hub_row("hello; admitted; ping", "pong");
    hub_row("hello; admitted; read", "cursors");
    hub_row("hello; admitted; stop", ">bye, close Stopped");
    hub_row("hello; admitted; bye", "close PeerLeft");
    hub_row("hello; admitted; +15; timeout", "close Silent");
    hub_row("hello; admitted; +14; ping; +14; timeout", "");
    hub_row("hello; admitted; bye; push 1", "");
}

/// A row that one put made, of this log.
fn put_by(id: &str, device: u8, (of, op): (u64, u32)) -> PullItem {
    let stamp = Stamp { eff: Eff(5), device: DeviceId([device; 16]), ordinal: welcome().ordinal, seq: seq(of), op };
    let state = RecordState::Table(TableState { put: Some(stamp), ..TableState::default() });
    let key = RecordKey { collection: CollectionId::new(1).unwrap(), id: RecordId::new(id).unwrap() };
    PullItem { key, ver: Ver(1), state: Some(PullState { epoch: 0, bytes: state.encode().1, hash: state.state_hash() }) }
}

/// What is sent of a page with these records, to a device that takes its own by name or does not.
fn sent(items: Vec<PullItem>, takes_own: bool) -> Batch {
    let mut session = HubSession::new(Instant(0), identity(), None);
    let pull = Pull { pull: 1, wants: vec![(BUCKET, Position(0))], credit_bytes: 1_000, live: true, takes_own };
    let mut page = page(0, items.len() as u64, items.len() as u64);
    page.buckets[0].items = items;
    let inputs =
        [hub_input("hello"), hub_input("admitted"), hub::Input::Message(Box::new(Message::Pull(pull))), hub::Input::Page(Box::new(page))];
    inputs.into_iter().for_each(|input| session.handle(Instant(0), input));
    let sent = std::iter::from_fn(|| session.poll_effect()).find_map(|effect| match effect {
        hub::Effect::Send(_, message) => match *message {
            Message::Batch(batch) => Some(batch),
            _ => None,
        },
        _ => None,
    });
    sent.unwrap()
}

#[test]
fn a_row_that_the_device_has_made_is_named_to_it() {
    let items = || {
        let left = PullItem { state: None, ..put_by("d", 3, (7, 3)) };
        let again = PullItem { ver: Ver(2), ..put_by("g", 3, (7, 6)) };
        let theirs = [put_by("c", 8, (7, 2)), left];
        let own =
            [put_by("a", 3, (7, 0)), put_by("b", 3, (7, 1)), put_by("e", 3, (7, 4)), put_by("f", 3, (7, 5)), again, put_by("h", 3, (8, 7))];
        let [a, b, e, f, g, h] = own;
        let [c, d] = theirs;
        vec![a, b, c, d, e, f, g, h]
    };
    let spelled = sent(items(), false);
    assert_eq!((spelled.items.len(), &spelled.own), (8, &None));
    let named = sent(items(), true);
    let ids: Vec<&str> = named.items.iter().map(|item| item.id.as_str()).collect();
    assert_eq!(ids, ["c", "d"], "what is somebody else's, and what left");
    let own = named.own.unwrap();
    let runs: Vec<_> = own.runs.iter().map(|run| (run.place, run.seq.get(), run.op, run.ver.0, run.macs.len())).collect();
    assert_eq!(runs, [(0, 7, 0, 1, 2), (4, 7, 4, 1, 2), (6, 7, 6, 2, 1), (7, 8, 7, 1, 1)]);
    assert_eq!((own.incarnation.get(), own.rows()), (4, 6));
    let macs: Vec<Mac> = own.runs.iter().flat_map(|run| run.macs.clone()).collect();
    let of_spelled = spelled.items.iter().filter(|item| !ids.contains(&item.id.as_str()));
    assert_eq!(macs, of_spelled.map(|item| item.mac).collect::<Vec<_>>());
}
