//! Hello, Welcome, Refence.

use mobo_core::cbor::{Malformed, Reader, Writer};
use mobo_core::ids::{BootId, Chain, DeviceId, Incarnation, Lane, Ordinal, Position, ProjectId, Seq, Signature, Timeline};
use mobo_core::limits;
use mobo_core::message::{
    AckProof, BucketReport, Closed, Hello, LaneReport, LaneStatus, Message, Parent, Refence, RefenceReason, SignedHello, TimelineInfo,
    TimelineParent, Welcome,
};
use mobo_core::time::{Eff, Moment, Mono, Wall, WallQuality};

use crate::frame::{distinct, kind, list, need};
use crate::pull::{bucket, decode_grant_body, encode_grant_body, heads, lane, seq, seq_or_none, write_heads};

pub(crate) fn encode_hello(w: &mut Writer, signed: &SignedHello) -> u8 {
    w.map(2).u64(0).bytes(&signed.bytes).u64(1).bytes(signed.signature.as_bytes());
    kind::HELLO
}

pub(crate) fn decode_hello(r: &mut Reader<'_>) -> Result<Message, Malformed> {
    let (mut bytes, mut signature) = (None, None);
    r.each_key(|key, r| {
        match key {
            0 => bytes = Some(r.bytes()?.to_vec()),
            1 => signature = Some(Signature(r.fixed()?)),
            _ => r.skip()?,
        }
        Ok(())
    })?;
    let bytes = need(bytes, "hello")?;
    let hello = decode_hello_bytes(&bytes)?;
    Ok(Message::Hello(Box::new(SignedHello { hello, bytes, signature: need(signature, "signature")? })))
}

/// The bytes of a hello: what its device signs.
#[must_use]
pub fn hello_bytes(hello: &Hello) -> Vec<u8> {
    let mut w = Writer::new();
    let before = [hello.parent.is_some(), hello.ordinal.is_some(), hello.session.is_some()];
    let optional = before.into_iter().chain([hello.checkpoint.is_some(), hello.told.is_some()]);
    w.map(13 + optional.filter(|present| *present).count());
    w.u64(0).u64(u64::from(hello.proto_min)).u64(1).u64(u64::from(hello.proto_max)).u64(2).u64(hello.features);
    w.u64(3).u64(hello.project.get()).u64(4).bytes(hello.device.as_bytes()).u64(5).u64(hello.incarnation.get());
    if let Some(parent) = hello.parent {
        w.u64(6).array(2).u64(parent.incarnation.get()).u64(parent.seq.map_or(0, Seq::get));
    }
    if let Some(ordinal) = hello.ordinal {
        w.u64(7).u64(u64::from(ordinal.0));
    }
    if let Some((timeline, session)) = hello.session {
        w.u64(8).array(2).bytes(timeline.as_bytes()).u64(session);
    }
    w.u64(9).bytes(&hello.nonce).u64(10).array(hello.lanes.len());
    for report in &hello.lanes {
        encode_lane_report(&mut w, report);
    }
    w.u64(11).array(hello.buckets.len());
    for report in &hello.buckets {
        w.array(3).u64(report.bucket.get()).bytes(report.timeline.as_bytes()).u64(report.cursor.0);
    }
    w.u64(12).u64(hello.schema_rev).u64(13).array(4).bytes(hello.now.boot.as_bytes()).u64(hello.now.mono.0);
    w.i64(hello.now.wall.0).u64(u64::from(hello.now.quality.code())).u64(14).u64(u64::from(hello.frame_bytes_max));
    w.u64(15).array(2).bytes(&hello.certificate.0).bytes(hello.certificate.1.as_bytes());
    if let Some((checkpoint, signature)) = &hello.checkpoint {
        w.u64(16).array(2).bytes(checkpoint).bytes(signature.as_bytes());
    }
    if let Some(told) = hello.told {
        w.u64(17).i64(told.0);
    }
    w.into_bytes()
}

fn encode_lane_report(w: &mut Writer, report: &LaneReport) {
    w.array(3 + usize::from(report.proof.is_some()));
    w.u64(u64::from(report.lane.number())).u64(report.last.get()).bytes(report.chain.as_bytes());
    if let Some(proof) = &report.proof {
        w.array(4).bytes(proof.timeline.as_bytes()).u64(proof.acked.get()).bytes(proof.chain.as_bytes());
        w.bytes(proof.signature.as_bytes());
    }
}

fn decode_hello_bytes(bytes: &[u8]) -> Result<Hello, Malformed> {
    let mut r = Reader::new(bytes);
    let (mut project, mut device, mut incarnation, mut now, mut certificate) = (None, None, None, None, None);
    let (mut proto_min, mut proto_max, mut features, mut schema_rev, mut frame_bytes_max) = (0, 0, 0, 0, 0);
    let (mut parent, mut ordinal, mut session, mut nonce) = (None, None, None, None);
    let (mut checkpoint, mut told) = (None, None);
    let (mut lanes, mut buckets) = (Vec::new(), Vec::new());
    r.each_key(|key, r| {
        match key {
            0 => proto_min = r.u32()?,
            1 => proto_max = r.u32()?,
            2 => features = r.u64()?,
            3 => project = ProjectId::new(r.u64()?),
            4 => device = Some(DeviceId(r.fixed()?)),
            5 => incarnation = Incarnation::new(r.u64()?),
            6 => parent = Some(decode_parent(r)?),
            7 => ordinal = Some(Ordinal(r.u32()?)),
            8 => session = Some(r.tuple(2, |r| Ok((Timeline(r.fixed()?), r.u63()?)))?),
            9 => nonce = Some(r.fixed()?),
            10 => lanes = distinct(list(r, Lane::ALL.len(), decode_lane_report)?, |report| report.lane)?,
            11 => buckets = distinct(list(r, limits::BUCKETS_PER_DEVICE_MAX, decode_bucket_report)?, |report| report.bucket)?,
            12 => schema_rev = r.u63()?,
            13 => now = Some(decode_moment(r)?),
            14 => frame_bytes_max = r.u32()?,
            15 => certificate = Some(decode_signed(r)?),
            16 => checkpoint = Some(decode_signed(r)?),
            17 => told = Some(Eff(r.i64()?)),
            _ => r.skip()?,
        }
        Ok(())
    })?;
    r.end()?;
    Ok(Hello {
        proto_min,
        proto_max,
        features,
        project: need(project, "project")?,
        device: need(device, "device")?,
        incarnation: need(incarnation, "incarnation")?,
        parent,
        ordinal,
        session,
        nonce: need(nonce, "nonce")?,
        lanes,
        buckets,
        schema_rev,
        now: need(now, "now")?,
        frame_bytes_max,
        certificate: need(certificate, "certificate")?,
        checkpoint,
        told,
    })
}

/// Bytes and a signature over what they say.
fn decode_signed(r: &mut Reader<'_>) -> Result<(Vec<u8>, Signature), Malformed> {
    r.tuple(2, |r| Ok((r.bytes()?.to_vec(), Signature(r.fixed()?))))
}

fn decode_parent(r: &mut Reader<'_>) -> Result<Parent, Malformed> {
    r.tuple(2, |r| Ok(Parent { incarnation: need(Incarnation::new(r.u64()?), "incarnation")?, seq: seq_or_none(r)? }))
}

fn decode_moment(r: &mut Reader<'_>) -> Result<Moment, Malformed> {
    r.tuple(4, |r| {
        Ok(Moment { boot: BootId(r.fixed()?), mono: Mono(r.u63()?), wall: Wall(r.i64()?), quality: WallQuality::from_code(r.u8()?) })
    })
}

fn decode_lane_report(r: &mut Reader<'_>) -> Result<LaneReport, Malformed> {
    let parts = r.array()?;
    if parts < 3 {
        return Err(Malformed::what("lane"));
    }
    let report = LaneReport { lane: lane(r)?, last: seq(r)?, chain: Chain(r.fixed()?), proof: None };
    if parts == 3 {
        return Ok(report);
    }
    let proof = r.tuple(4, |r| {
        let (timeline, acked, chain) = (Timeline(r.fixed()?), seq(r)?, Chain(r.fixed()?));
        Ok(AckProof { timeline, acked, chain, signature: Signature(r.fixed()?) })
    })?;
    (4..parts).try_for_each(|_| r.skip())?;
    Ok(LaneReport { proof: Some(proof), ..report })
}

fn decode_bucket_report(r: &mut Reader<'_>) -> Result<BucketReport, Malformed> {
    r.tuple(3, |r| Ok(BucketReport { bucket: bucket(r)?, timeline: Timeline(r.fixed()?), cursor: Position(r.u64()?) }))
}

pub(crate) fn encode_welcome(w: &mut Writer, welcome: &Welcome) -> u8 {
    w.map(13);
    w.u64(0).u64(u64::from(welcome.proto)).u64(1).u64(welcome.features);
    w.u64(2).array(2).bytes(welcome.timeline.timeline.as_bytes()).array(welcome.timeline.parents.len());
    for parent in &welcome.timeline.parents {
        w.array(2).bytes(parent.timeline.as_bytes());
        write_heads(w, &parent.heads);
    }
    w.u64(3).u64(welcome.session).u64(4).u64(u64::from(welcome.ordinal.0)).u64(5).i64(welcome.hub_time.0);
    w.u64(6).array(welcome.lanes.len());
    for status in &welcome.lanes {
        let parts = 5 + usize::from(status.eff.is_some());
        w.array(parts).u64(u64::from(status.lane.number())).u64(status.last.map_or(0, Seq::get)).bytes(status.chain.as_bytes());
        w.u64(status.safe.map_or(0, Seq::get)).u64(u64::from(status.credit_bytes));
        if let Some(eff) = status.eff {
            w.i64(eff.0);
        }
    }
    w.u64(7).array(welcome.grants.len());
    for grant in &welcome.grants {
        encode_grant_body(w, grant);
    }
    w.u64(8).array(welcome.revokes.len());
    for bucket in &welcome.revokes {
        w.u64(bucket.get());
    }
    w.u64(9).u64(welcome.schema_rev).u64(10).u64(u64::from(welcome.frame_bytes_max));
    w.u64(11).u64(u64::from(welcome.keepalive_ms)).u64(12).bool(welcome.recovering);
    kind::WELCOME
}

pub(crate) fn decode_welcome(r: &mut Reader<'_>) -> Result<Message, Malformed> {
    let (mut proto, mut timeline, mut session, mut ordinal, mut hub_time, mut schema_rev) = (None, None, None, None, None, None);
    let (mut features, mut frame_bytes_max, mut keepalive_ms, mut recovering) = (0, 0, 0, false);
    let (mut lanes, mut grants, mut revokes) = (Vec::new(), Vec::new(), Vec::new());
    r.each_key(|key, r| {
        match key {
            0 => proto = Some(r.u32()?),
            1 => features = r.u64()?,
            2 => timeline = Some(decode_timeline(r)?),
            3 => session = Some(r.u63()?),
            4 => ordinal = Some(Ordinal(r.u32()?)),
            5 => hub_time = Some(Eff(r.i64()?)),
            6 => lanes = distinct(list(r, Lane::ALL.len(), decode_lane_status)?, |status| status.lane)?,
            7 => grants = distinct(list(r, limits::BUCKETS_PER_DEVICE_MAX, decode_grant_body)?, |grant| grant.bucket)?,
            8 => revokes = distinct(list(r, limits::BUCKETS_PER_DEVICE_MAX, bucket)?, |bucket| *bucket)?,
            9 => schema_rev = Some(r.u63()?),
            10 => frame_bytes_max = r.u32()?,
            11 => keepalive_ms = r.u32()?,
            12 => recovering = r.bool()?,
            _ => r.skip()?,
        }
        Ok(())
    })?;
    Ok(Message::Welcome(Box::new(Welcome {
        proto: need(proto, "proto")?,
        features,
        timeline: need(timeline, "timeline")?,
        session: need(session, "session")?,
        ordinal: need(ordinal, "ordinal")?,
        hub_time: need(hub_time, "hub_time")?,
        lanes,
        grants,
        revokes,
        schema_rev: need(schema_rev, "schema_rev")?,
        frame_bytes_max,
        keepalive_ms,
        recovering,
    })))
}

fn decode_timeline(r: &mut Reader<'_>) -> Result<TimelineInfo, Malformed> {
    r.tuple(2, |r| {
        let timeline = Timeline(r.fixed()?);
        let parents = list(r, limits::TIMELINE_PARENTS_MAX, |r| {
            r.tuple(2, |r| Ok(TimelineParent { timeline: Timeline(r.fixed()?), heads: heads(r)? }))
        })?;
        Ok(TimelineInfo { timeline, parents })
    })
}

fn decode_lane_status(r: &mut Reader<'_>) -> Result<LaneStatus, Malformed> {
    let parts = r.clone().array()?;
    r.tuple(parts.clamp(5, 6), |r| {
        let (lane, last, chain, safe, credit_bytes) = (lane(r)?, seq_or_none(r)?, Chain(r.fixed()?), seq_or_none(r)?, r.u32()?);
        let eff = if parts > 5 { Some(Eff(r.i64()?)) } else { None };
        Ok(LaneStatus { lane, last, chain, safe, credit_bytes, eff })
    })
}

pub(crate) fn encode_refence(w: &mut Writer, refence: &Refence) -> u8 {
    w.map(4 + usize::from(refence.closed.is_some()));
    w.u64(0).u64(u64::from(refence.lane.number())).u64(1).u64(refence.hub_last.map_or(0, Seq::get));
    w.u64(2).array(refence.chains.len());
    for (seq, chain) in &refence.chains {
        w.array(2).u64(seq.get()).bytes(chain.as_bytes());
    }
    w.u64(3).u64(match refence.reason {
        RefenceReason::Behind => 1,
        RefenceReason::Forked => 2,
        RefenceReason::StaleSession => 3,
    });
    if let Some(closed) = &refence.closed {
        w.u64(4).array(2).bytes(closed.timeline.as_bytes()).array(closed.shared.len());
        for (lane, seq, chain) in &closed.shared {
            w.array(3).u64(u64::from(lane.number())).u64(seq.get()).bytes(chain.as_bytes());
        }
    }
    kind::REFENCE
}

pub(crate) fn decode_refence(r: &mut Reader<'_>) -> Result<Message, Malformed> {
    let (mut on, mut hub_last, mut chains, mut reason, mut closed) = (None, None, Vec::new(), None, None);
    r.each_key(|key, r| {
        match key {
            0 => on = Some(lane(r)?),
            1 => hub_last = seq_or_none(r)?,
            2 => chains = list(r, limits::PUSH_ENTRIES_MAX, |r| r.tuple(2, |r| Ok((seq(r)?, Chain(r.fixed()?)))))?,
            3 => {
                reason = match r.u8()? {
                    1 => Some(RefenceReason::Behind),
                    2 => Some(RefenceReason::Forked),
                    _ => Some(RefenceReason::StaleSession),
                }
            }
            4 => closed = Some(decode_closed(r)?),
            _ => r.skip()?,
        }
        Ok(())
    })?;
    let reason = need(reason, "reason")?;
    Ok(Message::Refence(Refence { lane: need(on, "lane")?, hub_last, chains, reason, closed }))
}

fn decode_closed(r: &mut Reader<'_>) -> Result<Closed, Malformed> {
    r.tuple(2, |r| {
        let timeline = Timeline(r.fixed()?);
        let shared = list(r, Lane::ALL.len(), |r| r.tuple(3, |r| Ok((lane(r)?, seq(r)?, Chain(r.fixed()?)))))?;
        Ok(Closed { timeline, shared: distinct(shared, |(lane, _, _)| *lane)? })
    })
}
