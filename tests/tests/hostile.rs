//! A device that lies: enrolled, with a good key, and with bytes that no honest device makes.
//!
//! faults: X-3, X-5, X-6, X-7, H-15

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::wildcard_enum_match_arm, reason = "a test: the panic is the report")]

use std::time::{Duration, Instant};

use automerge::legacy::OpId;
use automerge::{Automerge, Change, ChangeHash, ExpandedChange};
use mobo_core::author::{Intent, RecordOp};
use mobo_core::document::{DocumentOp, genesis};
use mobo_core::entry::{Entry, Payload};
use mobo_core::ids::{CollectionId, DeviceId, Incarnation, Lane, ProjectId, RecordKey, Seq};
use mobo_core::link::Channel;
use mobo_core::message::{Code, Message, Push};
use mobo_core::table::TableOp;
use mobo_core::trust::KeyPair;
use mobo_core::value::Value as FieldValue;
use mobo_tests::cluster::{Cluster, Place};
use mobo_tests::http::Client;
use mobo_tests::wait;
use mobo_tests::wire::{self, Refused, Session, WireDevice, random};
use serde_json::{Value, json};

/// Who is not told of a revocation goes on for ever; the rest is room for a machine that is busy.
const PROMPT: Duration = Duration::from_secs(20);
const COLLECTIONS: &[&[&str]] = &[
    &["work_orders", "title:text", "n:int", "hours:counter"],
    &["secrets", "site:text", "title:text", "--bucket", "site:{site}"],
    &["notes", "--kind", "document", "body:text", "count:int", "tags:list"],
    &["vitals", "--kind", "stream", "cpu:float"],
];

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(future)
}

/// Whatever was tried: the hub is whole, and nothing in it has panicked.
#[track_caller]
fn unharmed(cluster: &Cluster) {
    cluster.healthy();
    let stderr = cluster.hub().stderr();
    assert!(!stderr.contains("panicked at"), "{stderr}");
}

/// Goal: an entry that lies goes to quarantine with its code; its neighbours are merged, and the record that it was about is as it was.
/// Method: each lie is sealed between two honest entries and pushed in one push. Lies about documents are told in real automerge changes,
/// encoded again so that their checksums fit; one of them is shown to break automerge when nothing stands before it.
#[test]
fn lies_in_entries_are_quarantined_alone() {
    lies(Place::Sqlite);
}

/// The same on Postgres.
#[test]
fn lies_in_entries_are_quarantined_alone_on_postgres() {
    lies(Place::Postgres);
}

fn lies(place: Place) {
    let cluster = Cluster::boot(place);
    cluster.create(COLLECTIONS);
    let mut api = cluster.api();
    let codes = block_on(async {
        let mut device = WireDevice::enrol(&cluster.invite("liar")).await.unwrap();
        let session = device.connect().await.unwrap();
        let mut codes = Vec::new();
        for (name, code, lie) in LIES {
            tell(&mut device, &session, &mut api, (name, *code, lie)).await;
            codes.push(code.name().to_owned());
        }
        // What builds on a refused change is refused by that name, also when it is honest in itself.
        device.write("notes", Intent::Patch, ("a forged actor", json!({"count": 3})));
        let last = device.sealed[&Lane::State].len() as u64;
        let pushed = session.push(device.push(Lane::State, last)).await.unwrap();
        assert_eq!(pushed.rejects.iter().map(|reject| reject.code).collect::<Vec<_>>(), [Code::BLOCKED]);
        codes.push(Code::BLOCKED.name().to_owned());
        // A row on the lane for events.
        let RecordOp::Table(op) = device.edit("work_orders", Intent::Merge, ("on another lane", json!({"n": 1}))) else { unreachable!() };
        device.seal(Lane::Events, 2, mobo_core::table::op::encode_payload(&[op], None));
        let pushed = session.push(device.push(Lane::Events, 1)).await.unwrap();
        assert_eq!(pushed.rejects.iter().map(|reject| reject.code).collect::<Vec<_>>(), [Code::WRONG_KIND]);
        codes.push(Code::WRONG_KIND.name().to_owned());
        session.close().await;
        codes
    });
    let listed = cluster.cli().args(["quarantine", "list", "-o", "json"]).run().expect_success().json();
    let mut listed: Vec<&str> = listed.as_array().unwrap().iter().map(|entry| entry["code"].as_str().unwrap()).collect();
    let mut kept: Vec<&str> = codes.iter().map(String::as_str).filter(|code| *code != "lost").collect();
    listed.sort_unstable();
    kept.sort_unstable();
    assert_eq!(listed, kept, "everything that was refused is kept, but for what the device has lost itself");
    unharmed(&cluster);
}

/// Seals a lie.
type Lie = fn(&mut WireDevice, &str);

const LIES: &[(&str, Code, Lie)] = &[
    ("a forged actor", Code::FORGED_ACTOR, |device, id| change(device, id, |change| change.actor_id = vec![9; 16].into())),
    ("a poison change", Code::BAD_CHANGE, poison),
    ("a gap in the author's changes", Code::BAD_CHANGE, |device, id| change(device, id, |change| change.seq += 1)),
    ("counters at their end", Code::BAD_CHANGE, |device, id| {
        change(device, id, |change| change.start_op = u64::from(u32::MAX).try_into().unwrap());
    }),
    ("an unknown dependency", Code::MISSING_DEPENDENCY, |device, id| change(device, id, |change| change.deps.push(ChangeHash([7; 32])))),
    ("bytes that are no change", Code::BAD_CHANGE, |device, id| document(device, id, |op| op.changes = vec![vec![0x85; 40]])),
    ("an epoch to come", Code::BAD_EPOCH, |device, id| document(device, id, |op| op.epoch = 1)),
    ("an unknown collection", Code::UNKNOWN_COLLECTION, |device, id| {
        row(device, id, |op| op.key.collection = CollectionId::new(77).unwrap());
    }),
    ("a row for documents", Code::WRONG_KIND, |device, id| {
        let notes = device.collection("notes").id;
        row(device, id, |op| op.key.collection = notes);
    }),
    ("a text for an integer", Code::BAD_VALUE, |device, id| {
        let field = device.collection("work_orders").field("n").unwrap().id;
        row(device, id, |op| drop(op.fields.insert(field, FieldValue::Text("ten".to_owned()).to_cbor())));
    }),
    ("a text over its limit", Code::BAD_VALUE, |device, id| {
        let field = device.collection("work_orders").field("title").unwrap().id;
        row(device, id, |op| drop(op.fields.insert(field, FieldValue::Text("x".repeat(65_537)).to_cbor())));
    }),
    ("somebody else's bucket", Code::FORBIDDEN, |device, id| {
        device.write("secrets", Intent::Merge, (id, json!({"site": "plant-4", "title": "mine now"})));
    }),
    ("a payload of noise", Code::BAD_PAYLOAD, |device, _| device.seal(Lane::State, 2, vec![0xff; 100])),
    ("samples of noise", Code::BAD_PAYLOAD, |device, _| device.seal(Lane::State, 3, vec![0xa0; 100])),
    ("an engine to come", Code::UNKNOWN_ENGINE, |device, _| device.seal(Lane::State, 9, vec![0xa0])),
    ("a header of noise", Code::BAD_PAYLOAD, |device, _| {
        device.seal_entry(Lane::State, Entry { header: vec![0xff; 60], payload: Payload::Present(vec![0xa0]) });
    }),
    ("a payload that was dropped", Code::LOST, |device, id| {
        device.write("work_orders", Intent::Merge, (id, json!({"n": 1})));
        let lane = device.sealed.get_mut(&Lane::State).unwrap();
        let whole = lane.pop().unwrap();
        lane.push(Entry { payload: Payload::Lost(whole.payload.hash()), header: whole.header });
    }),
];

/// Pushes a lie between two honest entries, and looks at what became of all three.
async fn tell(device: &mut WireDevice, session: &Session, api: &mut Client, (name, code, lie): (&str, Code, &Lie)) {
    let first = device.sealed.get(&Lane::State).map_or(1, |entries| entries.len() as u64 + 1);
    device.write("notes", Intent::Merge, (name, json!({"body": "as it was", "count": 1, "tags": ["a"]})));
    lie(device, name);
    device.write("work_orders", Intent::Merge, (&format!("after {name}"), json!({"title": name, "hours": 1})));
    let pushed = session.push(device.push(Lane::State, first)).await.unwrap_or_else(|refused| panic!("{name}: {refused:?}"));
    let told: Vec<(u64, Code)> = pushed.rejects.iter().map(|reject| (reject.seq.get(), reject.code)).collect();
    assert_eq!(told, [(first + 1, code)], "{name}: {:?}", pushed.rejects);
    assert_eq!(pushed.ack.acked.get(), first + 2, "{name}: its position is used");
    assert!(!pushed.rejects[0].detail.is_empty(), "{name}: people are told why");

    let mut get = |path: &str| api.get(path).unwrap().expect_status(200).json();
    let id = name.replace(' ', "%20");
    let note = json!([{"id": name, "body": "as it was", "count": 1, "tags": ["a"]}]);
    assert_eq!(get(&format!("/rest/v1/notes?id=eq.{id}")), note, "{name}: its document is as it was");
    let after = get(&format!("/rest/v1/work_orders?id=eq.after%20{id}"));
    assert_eq!((after.as_array().unwrap().len(), &after[0]["hours"]), (1, &json!(1)), "{name}: its neighbour is merged");
    for collection in ["work_orders", "secrets"] {
        assert_eq!(get(&format!("/rest/v1/{collection}?id=eq.{id}")), json!([]), "{name}: nothing of it is merged");
    }
    // The document loads and takes honest edits.
    let edit = api.patch(&format!("/rest/v1/notes?id=eq.{id}"), &json!({"tags": {"$push": ["b"]}})).unwrap();
    assert_eq!(edit.status, 204, "{name}: {}", edit.text());
}

/// A lie about a document's change.
fn change(device: &mut WireDevice, id: &str, tell: impl FnOnce(&mut ExpandedChange)) {
    document(device, id, |op| {
        let mut expanded = Change::try_from(op.changes[0].as_slice()).unwrap().decode();
        tell(&mut expanded);
        op.changes = vec![Change::from(expanded).raw_bytes().to_vec()];
    });
}

/// A lie about a document.
fn document(device: &mut WireDevice, id: &str, tell: impl FnOnce(&mut DocumentOp)) {
    let edit = json!({"body": {"$splice": [0, 0, "never "]}, "count": 2});
    let RecordOp::Document(mut op) = device.edit("notes", Intent::Patch, (id, edit)) else { unreachable!() };
    tell(&mut op);
    device.seal_op(RecordOp::Document(op));
}

/// A lie about a row.
fn row(device: &mut WireDevice, id: &str, tell: impl FnOnce(&mut TableOp)) {
    let RecordOp::Table(mut op) = device.edit("work_orders", Intent::Merge, (id, json!({"title": "x", "n": 1}))) else { unreachable!() };
    tell(&mut op);
    device.seal_op(RecordOp::Table(op));
}

/// A change that says to overwrite what nobody wrote. Its checksum fits; automerge alone does not survive it.
fn poison(device: &mut WireDevice, id: &str) {
    let honest = device.sealed[&Lane::State].last().unwrap().clone();
    change(device, id, |change| {
        for op in &mut change.operations {
            op.pred = vec![OpId(4_000_000, vec![3; 16].into())].into();
        }
    });
    let (Payload::Present(before), Payload::Present(lie)) = (honest.payload, device.sealed[&Lane::State].last().unwrap().payload.clone())
    else {
        unreachable!()
    };
    let key = mobo_core::document::op::decode_payload(&before).unwrap()[0].key.clone();
    let changes = |payload: &[u8]| -> Vec<Change> {
        let ops = mobo_core::document::op::decode_payload(payload).unwrap();
        ops[0].changes.iter().map(|bytes| Change::try_from(bytes.as_slice()).unwrap()).collect()
    };
    let outcome = std::panic::catch_unwind(|| {
        let mut doc = Automerge::new();
        doc.apply_changes(fresh(device, &key)).unwrap();
        doc.apply_changes(changes(&before)).unwrap();
        doc.apply_changes(changes(&lie))?;
        Automerge::load(&doc.save())
    });
    assert!(!matches!(outcome, Ok(Ok(_))), "automerge has learned to refuse this: find another poison");
}

fn fresh(device: &WireDevice, key: &RecordKey) -> Vec<Change> {
    device.collection("notes").fields.iter().filter_map(|field| genesis::change(key, field.id, field.kind)).collect()
}

/// Goal: a push whose chain, signature or author does not hold, and bytes that are no frame, end the session and change nothing.
/// Method: each is sent in a session of its own by an enrolled device, whose honest push is taken right afterwards.
// faults: X-1
#[test]
fn pushes_and_frames_that_do_not_hold_end_the_session() {
    let cluster = Cluster::boot(Place::Sqlite);
    cluster.create(COLLECTIONS);
    block_on(async {
        let mut device = WireDevice::enrol(&cluster.invite("liar")).await.unwrap();
        device.connect().await.unwrap().close().await;
        device.write("work_orders", Intent::Merge, ("w-1", json!({"title": "honest", "hours": 1})));
        device.write("work_orders", Intent::Merge, ("w-1", json!({"title": "honest", "hours": {"$inc": 1}})));
        for (name, code, lie) in BAD_PUSHES {
            let mut push = device.push(Lane::State, 1);
            lie(&device, &mut push);
            let session = device.connect().await.unwrap_or_else(|refused| panic!("before {name}: {refused:?}"));
            match session.push(push).await {
                Err(Refused::Error(error)) => assert_eq!((error.code, error.fatal), (*code, true), "{name}: {error:?}"),
                other => panic!("{name}: {other:?}"),
            }
            assert!(session.next().await.is_err(), "{name}: the session is over");
        }
        for (name, channel, bytes) in bad_frames() {
            let session = device.connect().await.unwrap_or_else(|refused| panic!("before {name}: {refused:?}"));
            // The hub may hang up before all of it is sent.
            let _ = session.send_raw(channel, bytes).await;
            while let Ok(message) = session.next().await {
                let expected = matches!(&message, Message::Error(error) if error.fatal) || matches!(message, Message::Schema(_));
                assert!(expected, "{name}: {message:?}");
            }
        }
        // A frame of a later version and a gap are no lies: the hub says so, and the session goes on.
        let session = device.connect().await.unwrap();
        session.send_raw(Channel::Control, vec![99, 0, 1, 0xa0]).await.unwrap();
        match session.next().await.unwrap() {
            Message::Error(error) => assert_eq!((error.code, error.fatal), (Code::UNSUPPORTED, false), "{error:?}"),
            other => panic!("{other:?}"),
        }
        session.send(Channel::Lane(Lane::State), &Message::Push(device.push(Lane::State, 2))).await.unwrap();
        match session.next().await.unwrap() {
            Message::Nack(nack) => assert_eq!((nack.expect, nack.code), (Seq::FIRST, Code::GAP)),
            other => panic!("{other:?}"),
        }
        let pushed = session.push(device.push(Lane::State, 1)).await.unwrap();
        assert_eq!((pushed.rejects.as_slice(), pushed.ack.acked.get()), (&[][..], 2));
        session.close().await;
    });
    let rows = cluster.api().get("/rest/v1/work_orders?select=id,title,hours").unwrap().json();
    assert_eq!(rows, json!([{"id": "w-1", "title": "honest", "hours": 2}]));
    assert_eq!(cluster.hub().status()["quarantined"], 0);
    unharmed(&cluster);
}

type PushLie = fn(&WireDevice, &mut Push);

const BAD_PUSHES: &[(&str, Code, PushLie)] = &[
    ("a chain that does not come out", Code::BROKEN_CHAIN, |device, push| {
        push.head_chain.0[0] ^= 1;
        push.signature = device.sign_head(push);
    }),
    ("an entry that was changed on its way", Code::BROKEN_CHAIN, |_, push| {
        let Payload::Present(payload) = &mut push.entries[0].entry.payload else { unreachable!() };
        *payload.last_mut().unwrap() ^= 1;
    }),
    ("a signature that does not fit", Code::BAD_SIGNATURE, |_, push| push.signature.0[5] ^= 1),
    ("somebody else's signature", Code::BAD_SIGNATURE, |device, push| {
        let thief = device.with_keys(KeyPair::from_secret(&random()));
        push.signature = thief.sign_head(push);
    }),
    ("somebody else's name", Code::UNSUPPORTED, |_, push| push.on_behalf = Some(DeviceId([7; 16]))),
    ("another log", Code::UNSUPPORTED, |_, push| push.incarnation = Incarnation::new(7).unwrap()),
];

fn bad_frames() -> Vec<(&'static str, Channel, Vec<u8>)> {
    let lane = Channel::Lane(Lane::State);
    vec![
        ("noise on the control stream", Channel::Control, vec![0xff; 200]),
        ("noise in a frame", lane, [&[4, 0, 0x80, 0x01][..], &[0x5a; 128]].concat()),
        ("a frame of 2^32 bytes", Channel::Control, vec![4, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]),
        ("a frame over the limit", lane, [&[4, 0, 0x81, 0x80, 0x40][..], &vec![0; (1 << 20) + 1]].concat()),
        ("a push that is cut short", lane, vec![4, 0, 3, 0xa1, 0x00, 0x00]),
        ("a hello without a body", Channel::Control, vec![1, 0, 1, 0xa0]),
        ("nested a thousand times", lane, [&[4, 0, 0xe9, 0x07][..], &[0x81; 1_001]].concat()),
    ]
}

/// Goal: nobody comes in who is not who they say, here and now.
/// Method: hellos of an enrolled device, each with one lie; and one that was good on another connection.
// faults: SR-5
#[test]
fn hellos_that_do_not_hold_are_refused() {
    let cluster = Cluster::boot(Place::Sqlite);
    cluster.create(COLLECTIONS);
    block_on(async {
        let mut device = WireDevice::enrol(&cluster.invite("honest")).await.unwrap();
        let other = WireDevice::enrol(&cluster.invite("other")).await.unwrap();
        let stranger = device.with_keys(KeyPair::from_secret(&random()));
        let thief = device.with_keys(other.keys.clone());
        let refused = async |mut who: WireDevice, lie: fn(&mut mobo_core::message::Hello), code: Code, what: &str| {
            let link = wire::dial(&who.token).await;
            let mut hello = who.hello();
            lie(&mut hello);
            let hello = who.sign(hello, &link.binding());
            check(who.greet(link, hello).await.map(drop), code, what);
        };
        refused(device.clone(), |hello| hello.project = ProjectId::new(7).unwrap(), Code::WRONG_PROJECT, "another project").await;
        refused(device.clone(), |hello| hello.proto_min = 99, Code::VERSION, "a version to come").await;
        refused(device.clone(), |hello| hello.proto_max = 0, Code::VERSION, "no version").await;
        refused(stranger, |_| {}, Code::UNKNOWN_DEVICE, "a key that nobody enrolled").await;

        // In another's name, signed with a key of one's own.
        let link = wire::dial(&device.token).await;
        let hello = thief.sign(device.hello(), &link.binding());
        check(device.clone().greet(link, hello).await.map(drop), Code::BAD_SIGNATURE, "another's name");
        // A hello that was good on another connection.
        let (first, second) = (wire::dial(&device.token).await, wire::dial(&device.token).await);
        let hello = device.sign(device.hello(), &first.binding());
        check(device.clone().greet(second, hello.clone()).await.map(drop), Code::BAD_SIGNATURE, "a hello from elsewhere");
        device.greet(first, hello).await.unwrap().close().await;
        // A push before any hello.
        let link = wire::dial(&device.token).await;
        device.write("work_orders", Intent::Merge, ("w-1", json!({"title": "too early"})));
        wire::send(link.as_ref(), Channel::Control, &Message::Push(device.push(Lane::State, 1))).await.unwrap();
        assert!(wire::next(link.as_ref()).await.is_err(), "the hub hangs up");
    });
    assert_eq!(cluster.hub().status()["records"], 0);
    unharmed(&cluster);
}

#[track_caller]
fn check(greeting: Result<(), Refused>, code: Code, what: &str) {
    match greeting {
        Err(Refused::Error(error)) => assert_eq!((error.code, error.fatal), (code, true), "{what}: {error:?}"),
        other => panic!("{what}: {other:?}"),
    }
}

/// Goal: a revoked device is out promptly (within 5 s on a machine that has nothing else to do) and stays out; what it wrote before stays, and everybody else goes on.
/// Method: one device of the test and one real one are revoked in the middle of their sessions.
// faults: SR-6
#[test]
fn a_revoked_device_is_dropped_promptly() {
    let cluster = Cluster::boot(Place::Sqlite);
    cluster.create(COLLECTIONS);
    let (loser, keeper) = (cluster.device("loser"), cluster.device("keeper"));
    cluster.converge(&[&loser, &keeper]);
    block_on(async {
        let mut device = WireDevice::enrol(&cluster.invite("wire")).await.unwrap();
        let session = device.connect().await.unwrap();
        device.write("work_orders", Intent::Merge, ("w-1", json!({"title": "before"})));
        session.push(device.push(Lane::State, 1)).await.unwrap();
        let began = Instant::now();
        cluster.cli().args(["device", "revoke", "wire"]).run().expect_success();
        match session.next().await.unwrap() {
            Message::Error(error) => assert_eq!((error.code, error.fatal), (Code::REVOKED, true)),
            other => panic!("{other:?}"),
        }
        assert!(session.next().await.is_err(), "the session is over");
        assert!(began.elapsed() < PROMPT, "it took {:?}", began.elapsed());
        check(device.connect().await.map(drop), Code::REVOKED, "it comes back");
    });
    cluster.cli().args(["device", "revoke", "loser"]).run().expect_success();
    wait::until("the device to hear of it", PROMPT, || (loser.status()["link"]["state"] == "refused").then_some(()));
    loser.cli().args(["put", "work_orders", "w-2", r#"{"title": "still mine"}"#]).run().expect_success();
    let status = loser.status();
    assert!(status["link"]["last_error"].as_str().unwrap().contains("was revoked"), "{status}");
    assert_eq!((&status["pending"], &status["records"]), (&json!(1), &json!(2)), "it keeps what it has, and what it writes: {status}");

    keeper.cli().args(["put", "work_orders", "w-3", r#"{"title": "as ever"}"#]).run().expect_success();
    cluster.converge(&[&keeper]);
    let titles: Value = cluster.api().get("/rest/v1/work_orders?select=title&order=id").unwrap().json();
    assert_eq!(titles, json!([{"title": "before"}, {"title": "as ever"}]));
    unharmed(&cluster);
}
