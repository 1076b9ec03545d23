//! Enrol, Enrolled, Access, Ping, Pong, Error.

use mobo_core::cbor::{Malformed, Reader, Writer};
use mobo_core::ids::{BootId, PublicKey, Signature};
use mobo_core::limits;
use mobo_core::message::{AccessUpdate, Code, Enrol, Enrolled, Message, PeerError, Ping};
use mobo_core::time::{Eff, Mono};

use crate::frame::{kind, need};
use crate::pull::label;
use crate::push::code_of;

pub(crate) fn encode_enrol(w: &mut Writer, enrol: &Enrol) -> u8 {
    w.map(4 + usize::from(enrol.masked)).u64(0).bytes(&enrol.secret).u64(1).bytes(enrol.key.as_bytes()).u64(2).text(&enrol.name);
    w.u64(3).bytes(enrol.signature.as_bytes());
    if enrol.masked {
        w.u64(4).bool(true);
    }
    kind::ENROL
}

pub(crate) fn decode_enrol(r: &mut Reader<'_>) -> Result<Message, Malformed> {
    let (mut secret, mut key_, mut name, mut signature, mut masked) = (None, None, String::new(), None, false);
    r.each_key(|key, r| {
        match key {
            0 => secret = Some(r.bytes()?.to_vec()),
            1 => key_ = Some(PublicKey(r.fixed()?)),
            2 => name = label(r, limits::NAME_BYTES_MAX)?,
            3 => signature = Some(Signature(r.fixed()?)),
            4 => masked = r.bool()?,
            _ => r.skip()?,
        }
        Ok(())
    })?;
    let (secret, key) = (need(secret, "secret")?, need(key_, "key")?);
    Ok(Message::Enrol(Enrol { secret, masked, key, name, signature: need(signature, "signature")? }))
}

pub(crate) fn encode_enrolled(w: &mut Writer, enrolled: &Enrolled) -> u8 {
    w.map(2).u64(0).bytes(&enrolled.certificate).u64(1).bytes(enrolled.signature.as_bytes());
    kind::ENROLLED
}

pub(crate) fn decode_enrolled(r: &mut Reader<'_>) -> Result<Message, Malformed> {
    let (mut certificate, mut signature) = (None, None);
    r.each_key(|key, r| {
        match key {
            0 => certificate = Some(r.bytes()?.to_vec()),
            1 => signature = Some(Signature(r.fixed()?)),
            _ => r.skip()?,
        }
        Ok(())
    })?;
    Ok(Message::Enrolled(Enrolled { certificate: need(certificate, "certificate")?, signature: need(signature, "signature")? }))
}

pub(crate) fn encode_access(w: &mut Writer, update: &AccessUpdate) -> u8 {
    w.map(2).u64(0).i64(update.hub_time.0).u64(1).text(&update.text);
    kind::ACCESS
}

pub(crate) fn decode_access(r: &mut Reader<'_>) -> Result<Message, Malformed> {
    let (mut hub_time, mut text) = (Eff(0), None);
    r.each_key(|key, r| {
        match key {
            0 => hub_time = Eff(r.i64()?),
            1 => text = Some(r.text()?.to_owned()),
            _ => r.skip()?,
        }
        Ok(())
    })?;
    Ok(Message::Access(AccessUpdate { hub_time, text: need(text, "text")? }))
}

pub(crate) fn encode_ping(w: &mut Writer, ping: &Ping, kind: u8) -> u8 {
    w.map(3).u64(0).bytes(ping.boot.as_bytes()).u64(1).u64(ping.mono.0).u64(2).i64(ping.hub_time.0);
    kind
}

pub(crate) fn decode_ping(r: &mut Reader<'_>) -> Result<Ping, Malformed> {
    let (mut boot, mut mono, mut hub_time) = (None, Mono(0), Eff(0));
    r.each_key(|key, r| {
        match key {
            0 => boot = Some(BootId(r.fixed()?)),
            1 => mono = Mono(r.u63()?),
            2 => hub_time = Eff(r.i64()?),
            _ => r.skip()?,
        }
        Ok(())
    })?;
    Ok(Ping { boot: need(boot, "boot")?, mono, hub_time })
}

pub(crate) fn encode_error(w: &mut Writer, error: &PeerError) -> u8 {
    w.map(4).u64(0).u64(u64::from(error.code.0)).u64(1).text(&error.detail).u64(2).bool(error.fatal);
    w.u64(3).u64(u64::from(error.retry_after_ms));
    kind::ERROR
}

pub(crate) fn decode_error(r: &mut Reader<'_>) -> Result<Message, Malformed> {
    let (mut code, mut detail, mut fatal, mut retry_after_ms) = (Code(0), String::new(), false, 0);
    r.each_key(|key, r| {
        match key {
            0 => code = code_of(r)?,
            1 => r.text()?.clone_into(&mut detail),
            2 => fatal = r.bool()?,
            3 => retry_after_ms = r.u32()?,
            _ => r.skip()?,
        }
        Ok(())
    })?;
    Ok(Message::Error(PeerError { code, detail, fatal, retry_after_ms }))
}
