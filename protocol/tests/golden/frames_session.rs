//! Frames that open, keep and end a session, and those about rights and schema.

use mobo_core::ids::{Chain, Lane, Ordinal, Position, Seq, Timeline};
use mobo_core::message::{
    AccessUpdate, AckProof, BucketReport, Closed, Code, Definition, Enrol, Enrolled, Grant, Hello, LaneReport, LaneStatus, Parent,
    PeerError, Ping, Refence, RefenceReason, SchemaUpdate, SignedHello, TimelineInfo, TimelineParent, Welcome,
};
use mobo_core::rights::Access;
use mobo_core::schema::Collection;
use mobo_core::time::{Eff, Moment, Mono, Wall, WallQuality};
use mobo_core::trust::{LaneHead, Statement, checkpoint_bytes, mask_secret};
use mobo_protocol::{Message, hello_bytes};

use crate::vectors::Frame;
use crate::world::{
    BINDING, BOOT, BUCKET, INCARNATION, OLD_TIMELINE, OTHER_BUCKET, PARENT, PROJECT, SECRET, TIMELINE, definition_bytes, device, hub,
    lane_key, moment, notes, offer_key, orders, seq, signed_certificate, vitals,
};

pub(crate) fn cases() -> Vec<Frame> {
    let mut cases = admission();
    cases.extend(upkeep());
    cases
}

fn frame(name: &'static str, about: &'static str, message: Message) -> Frame {
    Frame { name, about, message }
}

/// One key, one policy and one signing key.
fn access() -> AccessUpdate {
    let key = r#"{"hash":"3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c","name":"app","role":"anon","scopes":["read:work_orders"],"expires":1770000000000000}"#;
    let policy =
        format!(r#"{{"collection":"{}","role":"anon","action":"read","where":"open=is.true","fields":["title"]}}"#, orders().id.get());
    let jwk = r#"{"kty":"EC","crv":"P-256","kid":"k","x":"AA","y":"AA"}"#;
    let text = format!(r#"{{"issuer":"mobo:hub","jwks":[{jwk}],"keys":[{key}],"policies":[{policy}]}}"#);
    let read = Access::from_text(&text).unwrap();
    assert_eq!((read.keys.len(), read.policies.iter().count(), read.to_text()), (1, 1, text.clone()), "as the hub writes it");
    AccessUpdate { hub_time: Eff(1_760_000_000_000_000), text }
}

fn admission() -> Vec<Frame> {
    vec![
        frame(
            "hello-first",
            "Hello of a device that has just enrolled: no lanes, no clock.\nThe signature is over the channel binding of 32 x b1.",
            hello(&first()),
        ),
        frame(
            "hello-full",
            "Hello with everything: parent, ordinal, session, two lanes (one with the hub's signed ack), two buckets\non two timelines, and the hub's signed checkpoint.",
            hello(&full()),
        ),
        frame(
            "hello-told",
            "The first hello again, of a device whose log ended at a hub that is lost: key 17, when the last entry was made of which one has told it.",
            hello(&Hello { told: Some(Eff(1_760_000_000_000_000)), ..first() }),
        ),
        frame(
            "welcome-first",
            "Welcome on a hub's first timeline: no parents, empty lanes, one grant.",
            Message::Welcome(Box::new(welcome(false))),
        ),
        frame(
            "welcome-restored",
            "Welcome after a restore: a timeline with a parent and its heads, two lanes with chains, grants, a revoke, recovering.",
            Message::Welcome(Box::new(welcome(true))),
        ),
        frame(
            "welcome-times",
            "Welcome that says when the last entry of a lane was made, as this hub has decided it; of a lane without entries it says nothing.",
            Message::Welcome(Box::new(welcome_with_times())),
        ),
        frame(
            "refence-behind",
            "Refence: the device has less than the hub. The hub's chains at positions that the device may hold.",
            refence(RefenceReason::Behind, Some(seq(9)), 2),
        ),
        frame(
            "refence-forked",
            "Refence: the chains differ, and the hub has nothing on this lane.",
            refence(RefenceReason::Forked, None, 0),
        ),
        frame(
            "refence-stale-session",
            "Refence: the session generation is older than the last confirmed one.",
            refence(RefenceReason::StaleSession, Some(seq(3)), 1),
        ),
        frame(
            "refence-closed",
            "Refence of a restored hub at a hello: its timeline, and of two lanes the last position that both have.",
            closed_refence(),
        ),
        frame("enrol", "Enrol with an invitation's secret; the signature covers the channel binding and the secret.", enrol()),
        frame("enrol-masked", "Enrol over a link whose carriers can read: the secret is masked with the channel binding.", enrol_masked()),
        frame("enrolled", "Enrolled: the certificate and the hub's signature over it.", enrolled()),
    ]
}

fn upkeep() -> Vec<Frame> {
    let (grant, ping) = (grants().remove(0), Ping { boot: BOOT, mono: Mono(5), hub_time: Eff(0) });
    let busy = PeerError { code: Code::BUSY, detail: "the hub is full; try again".into(), fatal: true, retry_after_ms: 5_000 };
    let unsupported = PeerError { code: Code::UNSUPPORTED, detail: "offers are not taken yet".into(), fatal: false, retry_after_ms: 0 };
    vec![
        frame("grant", "Grant of a bucket, with the right to write.", Message::Grant(grant)),
        frame("revoke", "Revoke of a bucket.", Message::Revoke(BUCKET)),
        frame(
            "schema",
            "Schema: three definitions with their MACs, nothing follows.",
            Message::Schema(schema(&[orders(), notes(), vitals()], false)),
        ),
        frame(
            "schema-offer",
            "SchemaOffer: a definition that a restored hub may have lost, on the timeline on which it was delivered; more follows.",
            Message::SchemaOffer(schema(&[orders()], true)),
        ),
        frame("ping", "Ping of a device.", Message::Ping(ping)),
        frame("pong", "Pong of a hub, with its time.", Message::Pong(Ping { hub_time: Eff(1_760_000_000_000_000), ..ping })),
        frame("error-busy", "Error that ends the session and says when to come back.", Message::Error(busy)),
        frame(
            "error-unsupported",
            "Error that answers a request which this version does not do; the session goes on.",
            Message::Error(unsupported),
        ),
        frame("bye", "Bye: an empty map.", Message::Bye),
        frame("access", "Access: the hub's time, and who may use the API of the project, as JSON. Ignorable.", Message::Access(access())),
    ]
}

fn hello(hello: &Hello) -> Message {
    let bytes = hello_bytes(hello);
    let signature = Statement::Hello { binding: &BINDING, hello: &bytes }.sign(&device());
    Message::Hello(Box::new(SignedHello { hello: hello.clone(), bytes, signature }))
}

fn first() -> Hello {
    Hello {
        proto_min: 1,
        proto_max: 1,
        features: 0,
        project: PROJECT,
        device: device().device(),
        incarnation: PARENT,
        parent: None,
        ordinal: None,
        session: None,
        nonce: *b"hello-nonce-0016",
        lanes: vec![],
        buckets: vec![],
        schema_rev: 0,
        now: Moment { boot: BOOT, mono: Mono(12_000_000), wall: Wall(0), quality: WallQuality::None },
        frame_bytes_max: 1 << 20,
        certificate: signed_certificate(),
        checkpoint: None,
        told: None,
    }
}

fn full() -> Hello {
    let head = LaneHead { project: PROJECT, lane: lane_key(Lane::State), last: seq(40), chain: Chain([0xc4; 32]) };
    let signature = Statement::Ack(&head, OLD_TIMELINE).sign(&hub());
    let proof = AckProof { timeline: OLD_TIMELINE, acked: head.last, chain: head.chain, signature };
    let checkpoint = checkpoint_bytes(TIMELINE, &[(BUCKET, Position(70_000), mobo_core::digest::Digest([0xd1; 32]))]);
    let signature = Statement::Checkpoint(&checkpoint).sign(&hub());
    Hello {
        incarnation: INCARNATION,
        parent: Some(Parent { incarnation: PARENT, seq: Some(seq(17)) }),
        ordinal: Some(Ordinal(2)),
        session: Some((TIMELINE, 31)),
        lanes: vec![
            LaneReport { lane: Lane::State, last: seq(42), chain: Chain([0xc5; 32]), proof: Some(proof) },
            LaneReport { lane: Lane::Telemetry, last: seq(1), chain: Chain([0xc6; 32]), proof: None },
        ],
        buckets: vec![
            BucketReport { bucket: BUCKET, timeline: TIMELINE, cursor: Position(70_000) },
            BucketReport { bucket: OTHER_BUCKET, timeline: OLD_TIMELINE, cursor: Position(0) },
        ],
        schema_rev: 5,
        now: moment(),
        checkpoint: Some((checkpoint, signature)),
        told: None,
        ..first()
    }
}

fn grants() -> Vec<Grant> {
    vec![Grant { bucket: BUCKET, key: "site:plant-4".into(), write: true }, Grant { bucket: OTHER_BUCKET, key: "all".into(), write: false }]
}

fn welcome(restored: bool) -> Welcome {
    let status =
        |lane, last: Option<Seq>, chain| LaneStatus { lane, last, chain: Chain([chain; 32]), safe: None, credit_bytes: 1 << 20, eff: None };
    let first = Welcome {
        proto: 1,
        features: 0,
        timeline: TimelineInfo { timeline: OLD_TIMELINE, parents: vec![] },
        session: 1,
        ordinal: Ordinal(1),
        hub_time: Eff(1_760_000_000_000_000),
        lanes: vec![status(Lane::State, None, 0xc0)],
        grants: grants().split_off(1),
        revokes: vec![],
        schema_rev: 0,
        frame_bytes_max: 1 << 20,
        keepalive_ms: 10_000,
        recovering: false,
    };
    if !restored {
        return first;
    }
    let heads = vec![(BUCKET, Position(65_536)), (OTHER_BUCKET, Position(12))];
    let state = LaneStatus { safe: Some(seq(38)), ..status(Lane::State, Some(seq(40)), 0xc4) };
    Welcome {
        timeline: TimelineInfo { timeline: TIMELINE, parents: vec![TimelineParent { timeline: OLD_TIMELINE, heads }] },
        session: 32,
        ordinal: Ordinal(2),
        lanes: vec![state, status(Lane::Telemetry, None, 0xc0)],
        grants: grants(),
        revokes: vec![mobo_core::ids::BucketId::new(3).unwrap()],
        schema_rev: 4,
        recovering: true,
        ..first
    }
}

fn welcome_with_times() -> Welcome {
    let mut welcome = welcome(true);
    welcome.lanes.iter_mut().for_each(|status| status.eff = status.last.map(|_| Eff(1_760_000_000_000_001)));
    welcome
}

fn refence(reason: RefenceReason, hub_last: Option<Seq>, chains: u8) -> Message {
    let chains = (1..=chains).map(|index| (seq(u64::from(index) * 3), Chain([0xc0 + index; 32]))).collect();
    Message::Refence(Refence { lane: Lane::State, hub_last, chains, reason, closed: None })
}

fn closed_refence() -> Message {
    let shared = vec![(Lane::State, seq(9), Chain([0xc3; 32])), (Lane::Telemetry, seq(300), Chain([0xc4; 32]))];
    let closed = Some(Closed { timeline: TIMELINE, shared });
    Message::Refence(Refence { lane: Lane::State, hub_last: Some(seq(12)), chains: vec![], reason: RefenceReason::Forked, closed })
}

fn schema(collections: &[Collection], more: bool) -> SchemaUpdate {
    let timeline: Timeline = if more { OLD_TIMELINE } else { TIMELINE };
    let definition = |collection: &Collection| {
        let bytes = definition_bytes(collection);
        let mac = offer_key().schema(PROJECT, collection.id, timeline, &bytes);
        Definition { bytes, collection: Some(collection.clone()), mac }
    };
    SchemaUpdate { timeline, rev: 6, definitions: collections.iter().map(definition).collect(), more }
}

fn enrol() -> Message {
    let signature = Statement::Enrol { binding: &BINDING, secret: &SECRET }.sign(&device());
    Message::Enrol(Enrol { secret: SECRET.to_vec(), masked: false, key: device().public(), name: "pump-house".into(), signature })
}

fn enrol_masked() -> Message {
    let signature = Statement::Enrol { binding: &BINDING, secret: &SECRET }.sign(&device());
    let secret = mask_secret(&BINDING, &SECRET).unwrap();
    Message::Enrol(Enrol { secret, masked: true, key: device().public(), name: "pump-house".into(), signature })
}

fn enrolled() -> Message {
    let (certificate, signature) = signed_certificate();
    Message::Enrolled(Enrolled { certificate, signature })
}
