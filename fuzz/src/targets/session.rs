//! The session machines: a list of frames from a peer that may say anything at any time, with what the machine's own side makes of it.
//!
//! An input is frames, one after the other, and single bytes from 0x80 on: what happens on this side (time passes, the store answers,
//! somebody writes). Both must answer everything, stop when they say so, and never ask for something without end.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use mobo_core::digest::Digest;
use mobo_core::ids::{
    BootId, BucketId, Chain, DeviceId, Incarnation, Lane, LaneKey, Ordinal, Position, ProjectId, Seq, Signature, Timeline,
};
use mobo_core::merge::{Hint, Merged, Outcome, Rights, prepare_push};
use mobo_core::message::{
    Code, Grant, Hello, Message, Offer, OfferAck, Push, PushedEntry, Refence, SchemaUpdate, SignedHello, TimelineInfo, Welcome,
};
use mobo_core::recover::Moved;
use mobo_core::session::hub::{HubIdentity, Refusal};
use mobo_core::session::{DeviceSession, HubSession, device, hub};
use mobo_core::store::{BucketPage, PullPage};
use mobo_core::time::{Eff, Instant, Moment, Mono, Wall, WallQuality};
use mobo_core::trust::{KeyPair, OfferKey};

use super::{Answer, answer, shape};
use crate::mutate::leb128;

/// Frames and events of one input that are looked at.
const STEPS_MAX: usize = 64;
/// What one event may ask for: more is a machine that goes round in circles.
const EFFECTS_MAX: usize = 4_096;

static KEYS: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::from_secret(&[0x22; 32]));

/// The ids of the golden vectors, so that their frames are about this device.
struct World {
    project: ProjectId,
    incarnation: Incarnation,
    bucket: BucketId,
    timeline: Timeline,
}

fn world() -> World {
    // 1 is an id like any other.
    let (project, incarnation, bucket) = (ProjectId::new(1), Incarnation::new(4), BucketId::new(9));
    let (Some(project), Some(incarnation), Some(bucket)) = (project, incarnation, bucket) else { unreachable!("they are not 0") };
    World { project, incarnation, bucket, timeline: Timeline([7; 16]) }
}

enum Step {
    Frame(Box<Message>),
    Event(u8),
}

/// Cuts an input into what happens.
fn steps(mut bytes: &[u8]) -> Vec<Step> {
    let mut steps = Vec::new();
    while let (Some((first, rest)), true) = (bytes.split_first(), steps.len() < STEPS_MAX) {
        if *first >= 0x80 {
            steps.push(Step::Event(first & 0x7f));
            bytes = rest;
            continue;
        }
        let whole = mobo_protocol::frame_bytes(bytes).ok().flatten().and_then(|length| bytes.split_at_checked(length));
        let (frame, rest) = match whole {
            Some((frame, rest)) => (frame.to_vec(), rest),
            // A length that does not fit hides a body that may.
            None => match bytes.split_first_chunk::<2>() {
                Some((head, body)) => ([&head[..], &leb128(body.len() as u64), body].concat(), &[][..]),
                None => return steps,
            },
        };
        if let Ok(message) = mobo_protocol::decode(&frame) {
            steps.push(Step::Frame(Box::new(message)));
        }
        bytes = rest;
    }
    steps
}

/// The device's machine, whatever a hub says.
pub(super) fn device(bytes: &[u8]) -> Answer {
    let world = world();
    let settings = device::Settings { keepalive: Some(Duration::from_secs(10)) };
    let mut now = Instant(0);
    let mut session = DeviceSession::new(now, settings, hello(&world));
    let mut said = Vec::new();
    let mut held = Vec::new();
    for step in steps(bytes) {
        let mut inputs = VecDeque::from([match step {
            Step::Frame(message) => device::Input::Message(message),
            Step::Event(event) => {
                now = now.after(Duration::from_secs(u64::from(event & 15)));
                device_event(event, &world)
            }
        }]);
        let mut asked = 0;
        while let Some(input) = inputs.pop_front() {
            session.handle(now, input);
            while let Some(effect) = session.poll_effect() {
                asked += 1;
                assert!(asked < EFFECTS_MAX, "one event asks for more and more: {effect:?}");
                said.push(shape(&format!("{effect:?}")));
                if let device::Effect::Close(_) = effect {
                    assert!(session.poll_effect().is_none() && session.poll_timeout().is_none(), "nothing comes after the end");
                    return answer(&said);
                }
                inputs.extend(device_answer(effect, &world, &mut held));
            }
        }
    }
    said.truncate(32);
    answer(&(said, session.is_live()))
}

fn device_event(event: u8, world: &World) -> device::Input {
    let lane = Lane::from_number(event & 3).unwrap_or(Lane::State);
    match event >> 4 {
        0 | 1 => device::Input::Timeout(moment()),
        2 => device::Input::Appended(lane),
        3 => device::Input::Undecided(vec![(lane, Seq::FIRST)]),
        4 => device::Input::NeedsSchema { bucket: world.bucket, cursor: Position(u64::from(event & 7)) },
        5 => {
            let timelines = vec![Timeline([8; 16]); usize::from(event & 4) / 4];
            device::Input::Moved(Moved { offers: vec![world.bucket], lasts: vec![(lane, Seq::FIRST)], timelines, ..Moved::default() })
        }
        6 => device::Input::StoreFailed("the drill".to_owned()),
        7 => device::Input::NeedsSpelling(world.bucket, Position(u64::from(event & 7))),
        _ => device::Input::Compared { equal: event & 1 == 0, diverged: vec![world.bucket] },
    }
}

/// What a store makes of it: each lane has one entry to push.
fn device_answer(effect: device::Effect, world: &World, pushed: &mut Vec<Lane>) -> Option<device::Input> {
    Some(match effect {
        device::Effect::Admit(welcome) => device::Input::Admitted(welcome.grants.iter().map(|grant| (grant.bucket, Position(0))).collect()),
        device::Effect::ReadFormer(..) => device::Input::Former(None),
        device::Effect::ReadDefinitions => device::Input::Definitions(schema(world)),
        device::Effect::ReadOffer(bucket, after) => {
            let offer = Offer { bucket, timeline: world.timeline, rows: vec![], more: after.is_none() };
            device::Input::Offer(Box::new(offer), after.is_none().then_some(Position(1)))
        }
        device::Effect::Resume => device::Input::Admitted(vec![(world.bucket, Position(0))]),
        device::Effect::Read(lane, after, _) => {
            let fresh = !pushed.contains(&lane);
            pushed.push(lane);
            device::Input::Entries(lane, fresh.then(|| Box::new(push(world, lane, Seq::after(after)))))
        }
        device::Effect::Apply(batch) => device::Input::Applied { bucket: batch.bucket, cursor: batch.to },
        device::Effect::Compare(checkpoint) => device::Input::Compared { equal: checkpoint.heads.is_empty(), diverged: vec![] },
        device::Effect::Send(..)
        | device::Effect::GaveUp(..)
        | device::Effect::Offered(_)
        | device::Effect::Resync(_)
        | device::Effect::Sweep(..)
        | device::Effect::Acked(_)
        | device::Effect::Rejected(_)
        | device::Effect::Refence(_)
        | device::Effect::PutSchema(_)
        | device::Effect::PutAccess(_)
        | device::Effect::Granted(_)
        | device::Effect::Revoked(_)
        | device::Effect::Drained
        | device::Effect::Close(_) => return None,
    })
}

/// The hub's machine, whatever a device says.
pub(super) fn hub(bytes: &[u8]) -> Answer {
    let world = world();
    let keys = KeyPair::from_secret(&[0x11; 32]);
    let identity = HubIdentity { project: world.project, timeline: world.timeline, keys, offer: OfferKey([0x44; 32]) };
    let mut now = Instant(0);
    let mut session = HubSession::new(now, Arc::new(identity), Some(Duration::from_secs(10)));
    let mut said = Vec::new();
    for step in steps(bytes) {
        let mut inputs = VecDeque::from([match step {
            Step::Frame(message) => hub::Input::Message(message),
            Step::Event(event) => {
                now = now.after(Duration::from_secs(u64::from(event & 15)));
                hub_event(event, &world)
            }
        }]);
        let mut asked = 0;
        while let Some(input) = inputs.pop_front() {
            session.handle(now, input);
            while let Some(effect) = session.poll_effect() {
                asked += 1;
                assert!(asked < EFFECTS_MAX, "one event asks for more and more: {effect:?}");
                said.push(shape(&format!("{effect:?}")));
                if let hub::Effect::Close(_) = effect {
                    assert!(session.poll_effect().is_none() && session.poll_timeout().is_none(), "nothing comes after the end");
                    return answer(&said);
                }
                inputs.extend(hub_answer(effect, &world));
            }
        }
    }
    said.truncate(32);
    answer(&(said, session.device()))
}

fn hub_event(event: u8, world: &World) -> hub::Input {
    let head = Position(u64::from(event & 15));
    match event >> 4 {
        0 | 1 => hub::Input::Timeout,
        2 => hub::Input::Hints(Arc::new(vec![Hint { bucket: world.bucket, head, digest: Digest::default() }])),
        3 => hub::Input::HintsLost,
        4 => hub::Input::Schema(Arc::new(schema(world))),
        5 => hub::Input::Rights(if event & 1 == 0 { grants(world) } else { Vec::new() }),
        6 => hub::Input::Revoked,
        _ => hub::Input::StoreFailed("the drill".to_owned()),
    }
}

fn hub_answer(effect: hub::Effect, world: &World) -> Option<hub::Input> {
    Some(match effect {
        hub::Effect::Admit(hello) if hello.hello.lanes.len() > 3 => {
            let reason = mobo_core::message::RefenceReason::Behind;
            hub::Input::Admitted(Err(Refusal::Refence(Refence { lane: Lane::State, hub_last: None, chains: vec![], reason, closed: None })))
        }
        hub::Effect::Admit(_) => hub::Input::Admitted(Ok(Box::new(welcome(world)))),
        hub::Effect::Merge(lane, push) => {
            let (acked, chain) = (push.first, push.head_chain);
            match prepare_push(world.project, lane, &KEYS.public(), *push, Rights::Buckets(["all".to_owned()].into_iter().collect())) {
                Err(code) => hub::Input::PushRefused(lane, code),
                Ok(_) => hub::Input::Merged(lane, merged(acked, chain)),
            }
        }
        hub::Effect::Pull(wants) => hub::Input::Page(Box::new(page(wants))),
        hub::Effect::Join(offer, _) => hub::Input::Joined(OfferAck { bucket: offer.bucket, joined: offer.rows.len() as u64, refused: 0 }),
        hub::Effect::Adopt(update, _) => {
            let refused = update.definitions.iter().any(|definition| definition.collection.is_none());
            hub::Input::Adopted(Arc::new(schema(world)), refused.then(|| "not one of ours".to_owned()))
        }
        hub::Effect::Enrol(_) => {
            let error =
                mobo_core::message::PeerError { code: Code::TOKEN_INVALID, detail: "no".to_owned(), fatal: true, retry_after_ms: 0 };
            hub::Input::Enrolled(Err(error))
        }
        hub::Effect::Refence(lane, hub_last, reason) => {
            hub::Input::Admitted(Err(Refusal::Refence(Refence { lane: lane.lane, hub_last, chains: vec![], reason, closed: None })))
        }
        hub::Effect::Send(..) | hub::Effect::OfferedAll | hub::Effect::Pong(_) | hub::Effect::Cursors(_) | hub::Effect::Close(_) => {
            return None;
        }
    })
}

fn merged(acked: Seq, chain: Chain) -> Outcome {
    Outcome::Merged(Merged { acked, chain, eff_first: acked, effs: vec![Eff(1)], rejects: vec![], changed: vec![] })
}

fn page(wants: Vec<(BucketId, Position)>) -> PullPage {
    let bucket = |(bucket, from): (BucketId, Position)| {
        let digest = Digest::default();
        BucketPage { bucket, from, to: from, head: from, digest, items: vec![], damaged: vec![], decisions: vec![] }
    };
    PullPage { buckets: wants.into_iter().map(bucket).collect(), own_merged: vec![] }
}

fn schema(world: &World) -> SchemaUpdate {
    SchemaUpdate { timeline: world.timeline, rev: 1, definitions: vec![], more: false }
}

fn grants(world: &World) -> Vec<Grant> {
    vec![Grant { bucket: world.bucket, key: "all".to_owned(), write: true }]
}

fn moment() -> Moment {
    Moment { boot: BootId([1; 8]), mono: Mono(5), wall: Wall(0), quality: WallQuality::None }
}

fn hello(world: &World) -> SignedHello {
    let hello = Hello {
        proto_min: 1,
        proto_max: 1,
        features: 0,
        project: world.project,
        device: device_id(),
        incarnation: world.incarnation,
        parent: None,
        ordinal: None,
        session: None,
        nonce: [0; 16],
        lanes: vec![],
        buckets: vec![],
        checkpoint: None,
        told: None,
        schema_rev: 1,
        now: moment(),
        frame_bytes_max: 0,
        certificate: (vec![], Signature([0; 64])),
    };
    SignedHello { bytes: mobo_protocol::hello_bytes(&hello), hello, signature: Signature([0; 64]) }
}

fn device_id() -> DeviceId {
    KEYS.device()
}

fn welcome(world: &World) -> Welcome {
    Welcome {
        proto: 1,
        features: 0,
        timeline: TimelineInfo { timeline: world.timeline, parents: vec![] },
        session: 1,
        ordinal: Ordinal(1),
        hub_time: Eff(0),
        lanes: vec![],
        grants: grants(world),
        revokes: vec![],
        schema_rev: 1,
        frame_bytes_max: 0,
        keepalive_ms: 0,
        recovering: false,
    }
}

/// One entry whose payload is lost: the smallest that there is, rightly chained and signed.
fn push(world: &World, lane: Lane, first: Seq) -> Push {
    use mobo_core::entry::{Entry, Payload, chain_next, chain_start};
    use mobo_core::trust::{LaneHead, Statement};
    let key = LaneKey { device: device_id(), incarnation: world.incarnation, lane };
    let entry = Entry { header: vec![0xa0], payload: Payload::Lost([0; 32]) };
    let prev_chain = chain_start(world.project, &key);
    let head_chain = chain_next(prev_chain, &entry);
    let head = LaneHead { project: world.project, lane: key, last: first, chain: head_chain };
    Push {
        lane,
        incarnation: world.incarnation,
        first,
        prev_chain,
        entries: vec![PushedEntry { entry, eff: None }],
        head_chain,
        signature: Statement::Push(&head).sign(&KEYS),
        on_behalf: None,
    }
}

/// Conversations that go well, for a start.
pub(super) fn device_seeds() -> Vec<Vec<u8>> {
    let world = world();
    let welcomed = mobo_protocol::encode(&Message::Welcome(Box::new(welcome(&world))));
    let events = |events: &[u8]| [welcomed.as_slice(), events].concat();
    vec![welcomed.clone(), events(&[0xa0, 0xa1, 0xa2, 0xf0]), events(&[0xd0, 0xf1, 0x8f, 0x8f]), vec![0x8f, 0x8f], vec![0xd0]]
}

/// The same from the other side.
pub(super) fn hub_seeds() -> Vec<Vec<u8>> {
    let world = world();
    let hello = mobo_protocol::encode(&Message::Hello(Box::new(hello(&world))));
    let pushes: Vec<u8> =
        Lane::ALL.into_iter().flat_map(|lane| mobo_protocol::encode(&Message::Push(push(&world, lane, Seq::FIRST)))).collect();
    let events = [0xa1, 0xb0, 0xc0, 0xd0, 0xd1];
    vec![
        hello.clone(),
        [hello.as_slice(), &pushes].concat(),
        [hello.as_slice(), &events].concat(),
        [hello, pushes, events.to_vec()].concat(),
    ]
}
