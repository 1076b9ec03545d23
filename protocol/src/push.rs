//! Push, Ack, Nack, Reject.

use mobo_core::cbor::{Malformed, Reader, Writer};
use mobo_core::entry::{Entry, Payload};
use mobo_core::ids::{Chain, DeviceId, Seq, Signature, Ver};
use mobo_core::limits;
use mobo_core::message::{Ack, Code, Message, Nack, Push, PushedEntry, Reject};
use mobo_core::time::Eff;

use crate::frame::{kind, list, need};
use crate::pull::{incarnation, lane, record, seq, seq_or_none};

pub(crate) fn encode_push(w: &mut Writer, push: &Push) -> u8 {
    w.map(7 + usize::from(push.on_behalf.is_some()));
    w.u64(0).u64(u64::from(push.lane.number())).u64(1).u64(push.incarnation.get()).u64(2).u64(push.first.get());
    w.u64(3).bytes(push.prev_chain.as_bytes()).u64(4).array(push.entries.len());
    for pushed in &push.entries {
        encode_entry(w, pushed);
    }
    w.u64(5).bytes(push.head_chain.as_bytes()).u64(6).bytes(push.signature.as_bytes());
    if let Some(device) = push.on_behalf {
        w.u64(7).bytes(device.as_bytes());
    }
    kind::PUSH
}

/// `[header, payload]`, `[header, payload, eff]`, `[header, null, eff | null, payload hash]`.
fn encode_entry(w: &mut Writer, pushed: &PushedEntry) {
    match (&pushed.entry.payload, pushed.eff) {
        (Payload::Present(payload), None) => {
            w.array(2).bytes(&pushed.entry.header).bytes(payload);
        }
        (Payload::Present(payload), Some(eff)) => {
            w.array(3).bytes(&pushed.entry.header).bytes(payload).i64(eff.0);
        }
        (Payload::Lost(hash), eff) => {
            w.array(4).bytes(&pushed.entry.header).null();
            match eff {
                Some(eff) => w.i64(eff.0),
                None => w.null(),
            };
            w.bytes(hash);
        }
    }
}

fn decode_entry(r: &mut Reader<'_>) -> Result<PushedEntry, Malformed> {
    let parts = r.array()?;
    let header = r.bytes()?;
    if parts < 2 || header.len() > limits::ENTRY_HEADER_BYTES_MAX {
        return Err(Malformed::what("entry"));
    }
    let payload = if r.null()? { None } else { Some(r.bytes()?.to_vec()) };
    let eff = if parts < 3 || r.null()? { None } else { Some(Eff(r.i64()?)) };
    let lost = if parts < 4 || r.null()? { None } else { Some(r.fixed()?) };
    (4..parts).try_for_each(|_| r.skip())?;
    let payload = match (payload, lost) {
        (Some(payload), _) if payload.len() <= limits::ENTRY_PAYLOAD_BYTES_MAX => Payload::Present(payload),
        (None, Some(hash)) => Payload::Lost(hash),
        _ => return Err(Malformed::what("payload")),
    };
    Ok(PushedEntry { entry: Entry { header: header.to_vec(), payload }, eff })
}

pub(crate) fn decode_push(r: &mut Reader<'_>) -> Result<Message, Malformed> {
    let (mut on, mut log, mut first, mut prev, mut head, mut signature) = (None, None, None, None, None, None);
    let (mut entries, mut on_behalf) = (Vec::new(), None);
    r.each_key(|key, r| {
        match key {
            0 => on = Some(lane(r)?),
            1 => log = Some(incarnation(r)?),
            2 => first = Some(seq(r)?),
            3 => prev = Some(Chain(r.fixed()?)),
            4 => entries = list(r, limits::PUSH_ENTRIES_MAX, decode_entry)?,
            5 => head = Some(Chain(r.fixed()?)),
            6 => signature = Some(Signature(r.fixed()?)),
            7 => on_behalf = Some(DeviceId(r.fixed()?)),
            _ => r.skip()?,
        }
        Ok(())
    })?;
    if entries.is_empty() {
        return Err(Malformed::what("a push without entries"));
    }
    Ok(Message::Push(Push {
        lane: need(on, "lane")?,
        incarnation: need(log, "incarnation")?,
        first: need(first, "first")?,
        prev_chain: need(prev, "chain")?,
        entries,
        head_chain: need(head, "chain")?,
        signature: need(signature, "signature")?,
        on_behalf,
    }))
}

pub(crate) fn encode_ack(w: &mut Writer, ack: &Ack) -> u8 {
    w.map(9);
    w.u64(0).u64(u64::from(ack.lane.number())).u64(1).u64(ack.incarnation.get()).u64(2).u64(ack.acked.get());
    w.u64(3).bytes(ack.chain.as_bytes()).u64(4).u64(ack.safe.map_or(0, Seq::get)).u64(5).u64(u64::from(ack.credit_bytes));
    w.u64(6).u64(ack.eff_first.get()).u64(7).array(ack.effs.len());
    let mut previous = 0;
    for eff in &ack.effs {
        w.i64(eff.0.wrapping_sub(previous));
        previous = eff.0;
    }
    w.u64(8).bytes(ack.signature.as_bytes());
    kind::ACK
}

pub(crate) fn decode_ack(r: &mut Reader<'_>) -> Result<Message, Malformed> {
    let (mut on, mut log, mut acked, mut chain, mut eff_first, mut signature) = (None, None, None, None, None, None);
    let (mut safe, mut credit_bytes, mut effs) = (None, 0, Vec::new());
    r.each_key(|key, r| {
        match key {
            0 => on = Some(lane(r)?),
            1 => log = Some(incarnation(r)?),
            2 => acked = Some(seq(r)?),
            3 => chain = Some(Chain(r.fixed()?)),
            4 => safe = seq_or_none(r)?,
            5 => credit_bytes = r.u32()?,
            6 => eff_first = Some(seq(r)?),
            7 => effs = decode_effs(r)?,
            8 => signature = Some(Signature(r.fixed()?)),
            _ => r.skip()?,
        }
        Ok(())
    })?;
    Ok(Message::Ack(Ack {
        lane: need(on, "lane")?,
        incarnation: need(log, "incarnation")?,
        acked: need(acked, "acked")?,
        chain: need(chain, "chain")?,
        safe,
        credit_bytes,
        eff_first: need(eff_first, "eff_first")?,
        effs,
        signature: need(signature, "signature")?,
    }))
}

fn decode_effs(r: &mut Reader<'_>) -> Result<Vec<Eff>, Malformed> {
    let mut previous = 0_i64;
    list(r, limits::PUSH_ENTRIES_MAX, |r| {
        previous = previous.wrapping_add(r.i64()?);
        Ok(Eff(previous))
    })
}

pub(crate) fn encode_nack(w: &mut Writer, nack: &Nack) -> u8 {
    w.map(4).u64(0).u64(u64::from(nack.lane.number())).u64(1).u64(nack.incarnation.get());
    w.u64(2).u64(nack.expect.get()).u64(3).u64(u64::from(nack.code.0));
    kind::NACK
}

pub(crate) fn decode_nack(r: &mut Reader<'_>) -> Result<Message, Malformed> {
    let (mut on, mut log, mut expect, mut code) = (None, None, None, Code(0));
    r.each_key(|key, r| {
        match key {
            0 => on = Some(lane(r)?),
            1 => log = Some(incarnation(r)?),
            2 => expect = Some(seq(r)?),
            3 => code = code_of(r)?,
            _ => r.skip()?,
        }
        Ok(())
    })?;
    Ok(Message::Nack(Nack { lane: need(on, "lane")?, incarnation: need(log, "incarnation")?, expect: need(expect, "expect")?, code }))
}

pub(crate) fn encode_reject(w: &mut Writer, reject: &Reject) -> u8 {
    w.map(6 + usize::from(reject.record.is_some()));
    w.u64(0).u64(u64::from(reject.lane.number())).u64(1).u64(reject.incarnation.get()).u64(2).u64(reject.seq.get());
    w.u64(3).u64(u64::from(reject.code.0)).u64(4).text(&reject.detail);
    if let Some((collection, id)) = &reject.record {
        w.u64(5).array(2).u64(collection.get()).text(id.as_str());
    }
    w.u64(6).u64(reject.hub_ver.0);
    kind::REJECT
}

pub(crate) fn decode_reject(r: &mut Reader<'_>) -> Result<Message, Malformed> {
    let (mut on, mut log, mut at, mut blamed) = (None, None, None, None);
    let (mut code, mut detail, mut hub_ver) = (Code(0), String::new(), Ver(0));
    r.each_key(|key, r| {
        match key {
            0 => on = Some(lane(r)?),
            1 => log = Some(incarnation(r)?),
            2 => at = Some(seq(r)?),
            3 => code = code_of(r)?,
            4 => r.text()?.clone_into(&mut detail),
            5 => blamed = Some(record(r)?),
            6 => hub_ver = Ver(r.u63()?),
            _ => r.skip()?,
        }
        Ok(())
    })?;
    Ok(Message::Reject(Reject {
        lane: need(on, "lane")?,
        incarnation: need(log, "incarnation")?,
        seq: need(at, "seq")?,
        code,
        detail,
        record: blamed,
        hub_ver,
    }))
}

pub(crate) fn code_of(r: &mut Reader<'_>) -> Result<Code, Malformed> {
    u16::try_from(r.u32()?).map(Code).map_err(|_| Malformed::what("code"))
}
