//! Pull, Batch, Checkpoint, and the smaller frames about buckets.

use mobo_core::cbor::{Malformed, Reader, Writer};
use mobo_core::digest::Digest;
use mobo_core::ids::{BucketId, CollectionId, Incarnation, Lane, Mac, Position, RecordId, Seq, Signature, Timeline, Ver};
use mobo_core::limits;
use mobo_core::message::{Audit, Batch, Checkpoint, Decision, Grant, Item, ItemBody, Message, OwnRows, OwnRun, Pull};
use mobo_core::stamp::Stamp;
use mobo_core::time::Eff;

use crate::frame::{distinct, kind, list, need};

pub(crate) fn encode_pull(w: &mut Writer, pull: &Pull) -> u8 {
    w.map(4 + usize::from(pull.takes_own)).u64(0).u64(pull.pull).u64(1);
    write_heads(w, &pull.wants);
    w.u64(2).u64(u64::from(pull.credit_bytes)).u64(3).bool(pull.live);
    if pull.takes_own {
        w.u64(4).bool(true);
    }
    kind::PULL
}

pub(crate) fn decode_pull(r: &mut Reader<'_>) -> Result<Message, Malformed> {
    let (mut pull, mut wants, mut credit_bytes, mut live, mut takes_own) = (0, Vec::new(), 0, false, false);
    r.each_key(|key, r| {
        match key {
            0 => pull = r.u64()?,
            1 => wants = heads(r)?,
            2 => credit_bytes = r.u32()?,
            3 => live = r.bool()?,
            4 => takes_own = r.bool()?,
            _ => r.skip()?,
        }
        Ok(())
    })?;
    Ok(Message::Pull(Pull { pull, wants, credit_bytes, live, takes_own }))
}

pub(crate) fn encode_batch(w: &mut Writer, batch: &Batch) -> u8 {
    w.map(8 + usize::from(!batch.decisions.is_empty()) + usize::from(batch.own.is_some()))
        .u64(0)
        .u64(batch.pull)
        .u64(1)
        .bytes(batch.timeline.as_bytes())
        .u64(2)
        .u64(batch.bucket.get());
    w.u64(3).u64(batch.from.0).u64(4).u64(batch.to.0).u64(5);
    encode_items(w, &batch.items);
    w.u64(6);
    encode_merged(w, &batch.own_merged);
    w.u64(7).bool(batch.more);
    if !batch.decisions.is_empty() {
        w.u64(9).array(batch.decisions.len());
        batch.decisions.iter().for_each(|decision| encode_decision(w, decision));
    }
    if let Some(own) = &batch.own {
        encode_own(w.u64(10), own);
    }
    kind::BATCH
}

pub(crate) fn decode_batch(r: &mut Reader<'_>) -> Result<Message, Malformed> {
    let (mut pull, mut timeline, mut of, mut from, mut to) = (0, None, None, None, None);
    let (mut items, mut own_merged, mut more, mut decisions, mut own) = (Vec::new(), Vec::new(), false, Vec::new(), None);
    r.each_key(|key, r| {
        match key {
            0 => pull = r.u64()?,
            1 => timeline = Some(Timeline(r.fixed()?)),
            2 => of = Some(bucket(r)?),
            3 => from = Some(Position(r.u63()?)),
            4 => to = Some(Position(r.u63()?)),
            5 => items = list(r, limits::BATCH_ITEMS_MAX, decode_item)?,
            6 => own_merged = decode_merged(r)?,
            7 => more = r.bool()?,
            9 => decisions = list(r, limits::BATCH_DECISIONS_MAX, decode_decision)?,
            10 => own = Some(Box::new(decode_own(r)?)),
            _ => r.skip()?,
        }
        Ok(())
    })?;
    let (timeline, bucket, from, to) = (need(timeline, "timeline")?, need(of, "bucket")?, need(from, "from")?, need(to, "to")?);
    if items.len() + own.as_ref().map_or(0, |own| own.rows()) > limits::BATCH_ITEMS_MAX {
        return Err(Malformed::what("too many records"));
    }
    Ok(Message::Batch(Batch { pull, timeline, bucket, from, to, items, own_merged, more, decisions, own }))
}

/// `[incarnation, sameness, [[place, seq, op, ver, MACs one behind the other], …]]`.
fn encode_own(w: &mut Writer, own: &OwnRows) {
    w.array(3).u64(own.incarnation.get()).bytes(&own.sameness).array(own.runs.len());
    for run in &own.runs {
        w.array(5).u64(u64::from(run.place)).u64(run.seq.get()).u64(u64::from(run.op)).u64(run.ver.0);
        w.bytes(&run.macs.iter().flat_map(|mac| mac.0).collect::<Vec<u8>>());
    }
}

fn decode_own(r: &mut Reader<'_>) -> Result<OwnRows, Malformed> {
    let run = |r: &mut Reader<'_>| {
        let (place, seq, op, ver) = (r.u32()?, seq(r)?, r.u32()?, Ver(r.u63()?));
        let (macs, []) = r.bytes()?.as_chunks() else { return Err(Malformed::what("MACs of named rows")) };
        Ok(OwnRun { place, seq, op, ver, macs: macs.iter().map(|mac| Mac(*mac)).collect() })
    };
    r.tuple(3, |r| {
        let (incarnation, sameness) = (incarnation(r)?, r.fixed()?);
        Ok(OwnRows { incarnation, sameness, runs: list(r, limits::BATCH_ITEMS_MAX, |r| r.tuple(5, run))? })
    })
}

/// `[collection, id, field or 0, kind, loser's stamp, loser, winner's stamp, winner, at]`, values as JSON or null.
fn encode_decision(w: &mut Writer, decision: &Decision) {
    w.array(9).u64(decision.collection.get()).text(decision.id.as_str()).u64(decision.field).u64(u64::from(decision.kind));
    for (stamp, value) in [(&decision.loser_stamp, &decision.loser), (&decision.winner_stamp, &decision.winner)] {
        stamp.encode(w);
        match value {
            Some(value) => w.text(value),
            None => w.null(),
        };
    }
    w.i64(decision.at.0);
}

fn decode_decision(r: &mut Reader<'_>) -> Result<Decision, Malformed> {
    r.tuple(9, |r| {
        let collection = need(CollectionId::new(r.u64()?), "collection")?;
        let (id, field, kind) = (record_id(r)?, r.u63()?, r.u8()?);
        let (loser_stamp, loser) = (Stamp::decode(r)?, json(r)?);
        let (winner_stamp, winner) = (Stamp::decode(r)?, json(r)?);
        Ok(Decision { collection, id, field, kind, loser_stamp, loser, winner_stamp, winner, at: Eff(r.i64()?) })
    })
}

/// A value of a decision; nobody looks into it here.
fn json(r: &mut Reader<'_>) -> Result<Option<String>, Malformed> {
    if r.null()? {
        return Ok(None);
    }
    label(r, limits::DECISION_VALUE_BYTES_MAX).map(Some)
}

/// `[collection, id, ver, mac, epoch, bytes]` for a state, `[collection, id, ver, mac]` for a leave.
pub(crate) fn encode_items(w: &mut Writer, items: &[Item]) {
    w.array(items.len());
    for item in items {
        w.array(if item.body == ItemBody::Leave { 4 } else { 6 });
        w.u64(item.collection.get()).text(item.id.as_str()).u64(item.ver.0).bytes(item.mac.as_bytes());
        if let ItemBody::State { epoch, bytes } = &item.body {
            w.u64(u64::from(*epoch)).bytes(bytes);
        }
    }
}

pub(crate) fn decode_item(r: &mut Reader<'_>) -> Result<Item, Malformed> {
    let parts = r.array()?;
    let collection = need(CollectionId::new(r.u64()?), "collection")?;
    let id = record_id(r)?;
    let (ver, mac) = (Ver(r.u63()?), Mac(r.fixed()?));
    let body = match parts {
        4 => ItemBody::Leave,
        6.. => ItemBody::State { epoch: r.u32()?, bytes: r.bytes()?.to_vec() },
        _ => return Err(Malformed::what("item")),
    };
    (6..parts).try_for_each(|_| r.skip())?;
    Ok(Item { collection, id, ver, body, mac })
}

fn encode_merged(w: &mut Writer, merged: &[(Lane, Incarnation, Seq)]) {
    w.array(merged.len());
    for (lane, incarnation, seq) in merged {
        w.array(3).u64(u64::from(lane.number())).u64(incarnation.get()).u64(seq.get());
    }
}

fn decode_merged(r: &mut Reader<'_>) -> Result<Vec<(Lane, Incarnation, Seq)>, Malformed> {
    let merged = list(r, limits::OWN_MERGED_MAX, |r| r.tuple(3, |r| Ok((lane(r)?, incarnation(r)?, seq(r)?))))?;
    distinct(merged, |merged| (merged.0, merged.1))
}

pub(crate) fn encode_checkpoint(w: &mut Writer, checkpoint: &Checkpoint) -> u8 {
    w.map(4 + usize::from(checkpoint.signature.is_some()));
    w.u64(0).u64(checkpoint.pull).u64(1).bytes(checkpoint.timeline.as_bytes()).u64(2).array(checkpoint.heads.len());
    for (bucket, to, digest) in &checkpoint.heads {
        w.array(3).u64(bucket.get()).u64(to.0).bytes(&digest.0);
    }
    w.u64(3);
    encode_merged(w, &checkpoint.own_merged);
    if let Some(signature) = &checkpoint.signature {
        w.u64(4).bytes(signature.as_bytes());
    }
    kind::CHECKPOINT
}

pub(crate) fn decode_checkpoint(r: &mut Reader<'_>) -> Result<Message, Malformed> {
    let (mut pull, mut timeline, mut found, mut own_merged, mut signature) = (0, None, Vec::new(), Vec::new(), None);
    r.each_key(|key, r| {
        match key {
            0 => pull = r.u64()?,
            1 => timeline = Some(Timeline(r.fixed()?)),
            2 => {
                let head = |r: &mut Reader<'_>| r.tuple(3, |r| Ok((bucket(r)?, Position(r.u63()?), Digest(r.fixed()?))));
                found = distinct(list(r, limits::BUCKETS_PER_DEVICE_MAX, head)?, |head| head.0)?;
            }
            3 => own_merged = decode_merged(r)?,
            4 => signature = Some(Signature(r.fixed()?)),
            _ => r.skip()?,
        }
        Ok(())
    })?;
    Ok(Message::Checkpoint(Checkpoint { pull, timeline: need(timeline, "timeline")?, heads: found, own_merged, signature }))
}

pub(crate) fn encode_cursor_ack(w: &mut Writer, cursors: &[(BucketId, Position)]) -> u8 {
    w.map(1).u64(0);
    write_heads(w, cursors);
    kind::CURSOR_ACK
}

pub(crate) fn decode_cursor_ack(r: &mut Reader<'_>) -> Result<Message, Malformed> {
    let mut cursors = Vec::new();
    r.each_key(|key, r| {
        match key {
            0 => cursors = heads(r)?,
            _ => r.skip()?,
        }
        Ok(())
    })?;
    Ok(Message::CursorAck(cursors))
}

pub(crate) fn encode_grant(w: &mut Writer, grant: &Grant) -> u8 {
    w.map(1).u64(0);
    encode_grant_body(w, grant);
    kind::GRANT
}

pub(crate) fn decode_grant(r: &mut Reader<'_>) -> Result<Message, Malformed> {
    let mut grant = None;
    r.each_key(|key, r| {
        match key {
            0 => grant = Some(decode_grant_body(r)?),
            _ => r.skip()?,
        }
        Ok(())
    })?;
    Ok(Message::Grant(need(grant, "grant")?))
}

pub(crate) fn encode_grant_body(w: &mut Writer, grant: &Grant) {
    w.array(3).u64(grant.bucket.get()).text(&grant.key).bool(grant.write);
}

pub(crate) fn decode_grant_body(r: &mut Reader<'_>) -> Result<Grant, Malformed> {
    r.tuple(3, |r| Ok(Grant { bucket: bucket(r)?, key: label(r, limits::BUCKET_KEY_BYTES_MAX)?, write: r.bool()? }))
}

/// Revoke, Resync and Sweep: `{ 0: bucket, ? 1: position }`.
pub(crate) fn encode_bucket(w: &mut Writer, bucket: BucketId, position: Option<Position>, kind: u8) -> u8 {
    w.map(1 + usize::from(position.is_some())).u64(0).u64(bucket.get());
    if let Some(position) = position {
        w.u64(1).u64(position.0);
    }
    kind
}

pub(crate) fn decode_bucket(r: &mut Reader<'_>, kind: u8) -> Result<Message, Malformed> {
    let (mut of, mut position) = (None, None);
    r.each_key(|key, r| {
        match key {
            0 => of = Some(bucket(r)?),
            1 => position = Some(Position(r.u63()?)),
            _ => r.skip()?,
        }
        Ok(())
    })?;
    let bucket = need(of, "bucket")?;
    Ok(match kind {
        kind::RESYNC => Message::Resync { bucket, floor: need(position, "position")? },
        kind::SWEEP => Message::Sweep { bucket, to: need(position, "position")? },
        _ => Message::Revoke(bucket),
    })
}

pub(crate) fn encode_fetch(w: &mut Writer, pull: u64, records: &[(CollectionId, RecordId)]) -> u8 {
    w.map(2).u64(0).u64(pull).u64(1).array(records.len());
    for (collection, id) in records {
        w.array(2).u64(collection.get()).text(id.as_str());
    }
    kind::FETCH
}

pub(crate) fn decode_fetch(r: &mut Reader<'_>) -> Result<Message, Malformed> {
    let (mut pull, mut records) = (0, Vec::new());
    r.each_key(|key, r| {
        match key {
            0 => pull = r.u64()?,
            1 => records = list(r, limits::BATCH_ITEMS_MAX, record)?,
            _ => r.skip()?,
        }
        Ok(())
    })?;
    Ok(Message::Fetch { pull, records })
}

pub(crate) fn encode_audit(w: &mut Writer, audit: &Audit) -> u8 {
    w.map(4).u64(0).u64(audit.bucket.get()).u64(1).u64(audit.at.0).u64(2).bytes(&audit.prefix).u64(3).array(audit.parts.len());
    for part in &audit.parts {
        w.bytes(&part.0);
    }
    kind::AUDIT
}

pub(crate) fn decode_audit(r: &mut Reader<'_>) -> Result<Message, Malformed> {
    let (mut of, mut at, mut prefix, mut parts) = (None, Position(0), Vec::new(), Vec::new());
    r.each_key(|key, r| {
        match key {
            0 => of = Some(bucket(r)?),
            1 => at = Position(r.u63()?),
            2 => prefix = half_bytes(r)?,
            3 => parts = list(r, 16, |r| Ok(Digest(r.fixed()?)))?,
            _ => r.skip()?,
        }
        Ok(())
    })?;
    Ok(Message::Audit(Audit { bucket: need(of, "bucket")?, at, prefix, parts }))
}

/// At most the 64 half-bytes of a hash, one in each byte.
fn half_bytes(r: &mut Reader<'_>) -> Result<Vec<u8>, Malformed> {
    let prefix = r.bytes()?;
    if prefix.len() > 64 || prefix.iter().any(|half| *half > 15) {
        return Err(Malformed::what("prefix"));
    }
    Ok(prefix.to_vec())
}

pub(crate) fn write_heads(w: &mut Writer, heads: &[(BucketId, Position)]) {
    w.array(heads.len());
    for (bucket, position) in heads {
        w.array(2).u64(bucket.get()).u64(position.0);
    }
}

pub(crate) fn heads(r: &mut Reader<'_>) -> Result<Vec<(BucketId, Position)>, Malformed> {
    distinct(list(r, limits::BUCKETS_PER_DEVICE_MAX, |r| r.tuple(2, |r| Ok((bucket(r)?, Position(r.u63()?)))))?, |head| head.0)
}

pub(crate) fn bucket(r: &mut Reader<'_>) -> Result<BucketId, Malformed> {
    need(BucketId::new(r.u64()?), "bucket")
}

pub(crate) fn lane(r: &mut Reader<'_>) -> Result<Lane, Malformed> {
    need(Lane::from_number(r.u8()?), "lane")
}

pub(crate) fn seq(r: &mut Reader<'_>) -> Result<Seq, Malformed> {
    need(Seq::new(r.u64()?), "seq")
}

/// A position in a lane, or 0 for "none yet".
pub(crate) fn seq_or_none(r: &mut Reader<'_>) -> Result<Option<Seq>, Malformed> {
    Ok(Seq::new(r.u63()?))
}

pub(crate) fn label(r: &mut Reader<'_>, bytes_max: usize) -> Result<String, Malformed> {
    let text = r.text()?;
    if text.len() <= bytes_max { Ok(text.to_owned()) } else { Err(Malformed::what("label too long")) }
}

pub(crate) fn incarnation(r: &mut Reader<'_>) -> Result<Incarnation, Malformed> {
    need(Incarnation::new(r.u64()?), "incarnation")
}

pub(crate) fn record_id(r: &mut Reader<'_>) -> Result<RecordId, Malformed> {
    RecordId::new(r.text()?).map_err(|_| Malformed::what("record id"))
}

pub(crate) fn record(r: &mut Reader<'_>) -> Result<(CollectionId, RecordId), Malformed> {
    r.tuple(2, |r| Ok((need(CollectionId::new(r.u64()?), "collection")?, record_id(r)?)))
}
