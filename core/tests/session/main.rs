//! The session machines as tables: what happened on the left, what each side asks for on the right. Every (state, event) pair that a peer
//! or a driver can cause has a row.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]
#![allow(clippy::wildcard_enum_match_arm, reason = "what has no word of its own here is shown by its name")]

mod device_side;
mod hub_side;

use std::sync::Arc;
use std::time::Duration;

use mobo_core::digest::Digest;
use mobo_core::entry::{Entry, Payload};
use mobo_core::ids::*;
use mobo_core::limits;
use mobo_core::merge::{Hint, Merged, Outcome};
use mobo_core::message::*;
use mobo_core::record::RecordState;
use mobo_core::recover::{Former, Moved, Tail};
use mobo_core::session::hub::HubIdentity;
use mobo_core::session::{DeviceSession, HubSession, device, hub};
use mobo_core::stamp::Stamp;
use mobo_core::store::{BucketPage, PullItem, PullPage, PullState};
use mobo_core::table::TableState;
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
        told: None,
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
    let status = LaneStatus { lane: Lane::State, last: Some(seq(last)), chain: Chain([0; 32]), safe: None, credit_bytes: 0, eff: None };
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
    Batch {
        pull,
        timeline: TIMELINE,
        bucket: BUCKET,
        from,
        to,
        items: vec![],
        own_merged: vec![],
        more: false,
        decisions: vec![],
        own: None,
    }
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
        Message::Pull(pull) => {
            let from = pull.wants.iter().map(|(_, at)| at.0.to_string()).collect::<Vec<_>>().join(",");
            format!("{name} {from}{}", if pull.takes_own { "" } else { " spelled" })
        }
        Message::Push(push) => format!("{name} {}", push.first.get()),
        Message::Ack(ack) => format!("{name} {}", ack.acked.get()),
        Message::Nack(nack) => format!("{name} {}", nack.expect.get()),
        Message::Batch(batch) => format!("{name} {}..{}", batch.from.0, batch.to.0),
        Message::Checkpoint(checkpoint) if checkpoint.heads.is_empty() => format!("{name} of nothing"),
        Message::Error(error) => format!("{name} {}", error.code.name()),
        _ => name,
    }
}
