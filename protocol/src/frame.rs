//! Frames: `type u8 | flags u8 | length varint | body`. The body is a CBOR map with small integer keys.

use mobo_core::cbor::{Malformed, Reader, Writer};
use mobo_core::limits;
use mobo_core::message::Message;

use crate::{enrol, hello, pull, push, recover};

/// Longest frame header: two bytes and a varint of a 32-bit length.
pub const FRAME_HEADER_BYTES_MAX: usize = 7;

/// A receiver that does not know the type may pass the frame over.
const IGNORABLE: u8 = 0b0000_0001;

/// Why bytes are not a message.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// Not what the protocol says. The session ends.
    #[error("malformed frame: {0}")]
    Malformed(String),
    /// The body is over the limit. The session ends.
    #[error("a frame body of {bytes} bytes is over the limit of {max}", max = limits::FRAME_BODY_BYTES_MAX)]
    TooLong {
        /// Its length.
        bytes: u64,
    },
    /// A type or flag of a later version that must not be passed over. Answered with a typed `unsupported`.
    #[error("frame type {kind} with flags {flags:#x} is not supported by this version")]
    Unsupported {
        /// The type.
        kind: u8,
        /// The flags.
        flags: u8,
    },
}

impl From<Malformed> for DecodeError {
    fn from(error: Malformed) -> Self {
        Self::Malformed(error.0)
    }
}

pub(crate) mod kind {
    pub(crate) const HELLO: u8 = 1;
    pub(crate) const WELCOME: u8 = 2;
    pub(crate) const REFENCE: u8 = 3;
    pub(crate) const PUSH: u8 = 4;
    pub(crate) const ACK: u8 = 5;
    pub(crate) const NACK: u8 = 6;
    pub(crate) const REJECT: u8 = 7;
    pub(crate) const PULL: u8 = 8;
    pub(crate) const BATCH: u8 = 9;
    pub(crate) const CHECKPOINT: u8 = 10;
    pub(crate) const CURSOR_ACK: u8 = 11;
    pub(crate) const GRANT: u8 = 12;
    pub(crate) const REVOKE: u8 = 13;
    pub(crate) const RESYNC: u8 = 14;
    pub(crate) const SWEEP: u8 = 15;
    pub(crate) const FETCH: u8 = 16;
    pub(crate) const AUDIT: u8 = 17;
    pub(crate) const OFFER: u8 = 18;
    pub(crate) const OFFER_ACK: u8 = 19;
    pub(crate) const SCHEMA: u8 = 20;
    pub(crate) const SCHEMA_OFFER: u8 = 21;
    // 22 to 24: blobs; 25: fragments; 32, 33: have and want between devices.
    pub(crate) const PING: u8 = 26;
    pub(crate) const PONG: u8 = 27;
    pub(crate) const ERROR: u8 = 28;
    pub(crate) const BYE: u8 = 29;
    pub(crate) const ENROL: u8 = 30;
    pub(crate) const ENROLLED: u8 = 31;
    pub(crate) const ACCESS: u8 = 34;
}

/// The frame of a message. The caller keeps bodies under [`limits::FRAME_BODY_BYTES_MAX`] by building batches within their limits.
#[must_use]
pub fn encode(message: &Message) -> Vec<u8> {
    let mut body = Writer::new();
    let kind = encode_body(message, &mut body);
    let body = body.into_bytes();
    let mut frame = Vec::with_capacity(body.len() + FRAME_HEADER_BYTES_MAX);
    let flags = if matches!(message, Message::CursorAck(_) | Message::Access(_) | Message::Ignored { .. }) { IGNORABLE } else { 0 };
    frame.extend_from_slice(&[kind, flags]);
    put_varint(&mut frame, body.len() as u64);
    frame.extend_from_slice(&body);
    frame
}

fn encode_body(message: &Message, w: &mut Writer) -> u8 {
    match message {
        Message::Hello(hello) => hello::encode_hello(w, hello),
        Message::Welcome(welcome) => hello::encode_welcome(w, welcome),
        Message::Refence(refence) => hello::encode_refence(w, refence),
        Message::Push(push) => push::encode_push(w, push),
        Message::Ack(ack) => push::encode_ack(w, ack),
        Message::Nack(nack) => push::encode_nack(w, nack),
        Message::Reject(reject) => push::encode_reject(w, reject),
        Message::Pull(pull) => pull::encode_pull(w, pull),
        Message::Batch(batch) => pull::encode_batch(w, batch),
        Message::Checkpoint(checkpoint) => pull::encode_checkpoint(w, checkpoint),
        Message::CursorAck(cursors) => pull::encode_cursor_ack(w, cursors),
        Message::Grant(grant) => pull::encode_grant(w, grant),
        Message::Revoke(bucket) => pull::encode_bucket(w, *bucket, None, kind::REVOKE),
        Message::Resync { bucket, floor } => pull::encode_bucket(w, *bucket, Some(*floor), kind::RESYNC),
        Message::Sweep { bucket, to } => pull::encode_bucket(w, *bucket, Some(*to), kind::SWEEP),
        Message::Fetch { pull, records } => pull::encode_fetch(w, *pull, records),
        Message::Audit(audit) => pull::encode_audit(w, audit),
        Message::Offer(offer) => recover::encode_offer(w, offer),
        Message::OfferAck(ack) => recover::encode_offer_ack(w, ack),
        Message::Schema(update) => recover::encode_schema(w, update, kind::SCHEMA),
        Message::SchemaOffer(update) => recover::encode_schema(w, update, kind::SCHEMA_OFFER),
        Message::Access(update) => enrol::encode_access(w, update),
        Message::Enrol(enrol) => enrol::encode_enrol(w, enrol),
        Message::Enrolled(enrolled) => enrol::encode_enrolled(w, enrolled),
        Message::Ping(ping) => enrol::encode_ping(w, ping, kind::PING),
        Message::Pong(ping) => enrol::encode_ping(w, ping, kind::PONG),
        Message::Error(error) => enrol::encode_error(w, error),
        Message::Bye => {
            w.map(0);
            kind::BYE
        }
        Message::Ignored { kind } => {
            w.map(0);
            *kind
        }
    }
}

/// The message of exactly one frame.
///
/// # Errors
///
/// [`DecodeError`]; the same bytes always give the same answer, and no input panics or allocates more than its own size.
pub fn decode(bytes: &[u8]) -> Result<Message, DecodeError> {
    let total = frame_bytes(bytes)?.ok_or_else(|| Malformed::what("a frame cut short"))?;
    let (Some(&[kind, flags]), true) = (bytes.first_chunk::<2>(), total == bytes.len()) else {
        return Err(Malformed::what("bytes behind the frame").into());
    };
    if flags & !IGNORABLE != 0 {
        return unknown(kind, flags);
    }
    let (_, header) = varint(bytes.get(2..).unwrap_or_default())?.ok_or_else(|| Malformed::what("length"))?;
    let mut r = Reader::new(bytes.get(2 + header..).unwrap_or_default());
    let message = match decode_body(kind, &mut r)? {
        Some(message) => message,
        None => return unknown(kind, flags),
    };
    r.end()?;
    Ok(message)
}

fn unknown(kind: u8, flags: u8) -> Result<Message, DecodeError> {
    if flags & IGNORABLE == 0 { Err(DecodeError::Unsupported { kind, flags }) } else { Ok(Message::Ignored { kind }) }
}

fn decode_body(kind: u8, r: &mut Reader<'_>) -> Result<Option<Message>, Malformed> {
    Ok(Some(match kind {
        kind::HELLO => hello::decode_hello(r)?,
        kind::WELCOME => hello::decode_welcome(r)?,
        kind::REFENCE => hello::decode_refence(r)?,
        kind::PUSH => push::decode_push(r)?,
        kind::ACK => push::decode_ack(r)?,
        kind::NACK => push::decode_nack(r)?,
        kind::REJECT => push::decode_reject(r)?,
        kind::PULL => pull::decode_pull(r)?,
        kind::BATCH => pull::decode_batch(r)?,
        kind::CHECKPOINT => pull::decode_checkpoint(r)?,
        kind::CURSOR_ACK => pull::decode_cursor_ack(r)?,
        kind::GRANT => pull::decode_grant(r)?,
        kind::REVOKE | kind::RESYNC | kind::SWEEP => pull::decode_bucket(r, kind)?,
        kind::FETCH => pull::decode_fetch(r)?,
        kind::AUDIT => pull::decode_audit(r)?,
        kind::OFFER => recover::decode_offer(r)?,
        kind::OFFER_ACK => recover::decode_offer_ack(r)?,
        kind::SCHEMA => Message::Schema(recover::decode_schema(r)?),
        kind::SCHEMA_OFFER => Message::SchemaOffer(recover::decode_schema(r)?),
        kind::ACCESS => enrol::decode_access(r)?,
        kind::ENROL => enrol::decode_enrol(r)?,
        kind::ENROLLED => enrol::decode_enrolled(r)?,
        kind::PING => Message::Ping(enrol::decode_ping(r)?),
        kind::PONG => Message::Pong(enrol::decode_ping(r)?),
        kind::ERROR => enrol::decode_error(r)?,
        kind::BYE => {
            r.each_key(|_, r| r.skip())?;
            Message::Bye
        }
        _ => return Ok(None),
    }))
}

/// How many bytes the first frame of `bytes` takes, or `None` while its header is incomplete. Bodies over the limit are refused before a
/// byte of them is awaited.
///
/// # Errors
///
/// [`DecodeError::TooLong`], or [`DecodeError::Malformed`] for a length that is not a shortest varint.
pub fn frame_bytes(bytes: &[u8]) -> Result<Option<usize>, DecodeError> {
    let Some((body, header)) = varint(bytes.get(2..).unwrap_or_default())? else { return Ok(None) };
    if body > limits::FRAME_BODY_BYTES_MAX as u64 {
        return Err(DecodeError::TooLong { bytes: body });
    }
    Ok(usize::try_from(body).ok().map(|body| 2 + header + body))
}

/// Reads an array of at most `max` items.
pub(crate) fn list<'b, T>(
    r: &mut Reader<'b>,
    max: usize,
    mut item: impl FnMut(&mut Reader<'b>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let len = r.array()?;
    if len > max {
        return Err(Malformed::what("list too long"));
    }
    (0..len).map(|_| item(r)).collect()
}

/// Refuses a list that names the same thing twice.
pub(crate) fn distinct<T, K: Eq>(items: Vec<T>, key: impl Fn(&T) -> K) -> Result<Vec<T>, Malformed> {
    let repeats = items.iter().enumerate().any(|(index, item)| items.iter().take(index).any(|other| key(other) == key(item)));
    if repeats { Err(Malformed::what("the same thing twice")) } else { Ok(items) }
}

/// Turns the absence of a required part into an error that names it.
pub(crate) fn need<T>(part: Option<T>, name: &str) -> Result<T, Malformed> {
    part.ok_or_else(|| Malformed(format!("{name} is missing or out of range")))
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push((number & 0x7f) as u8);
}

/// An unsigned LEB128 of at most 5 bytes: its value and length, `None` while incomplete.
fn varint(bytes: &[u8]) -> Result<Option<(u64, usize)>, DecodeError> {
    let mut number = 0;
    for (index, byte) in bytes.iter().take(5).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let padded = index > 0 && *byte == 0;
            return if padded { Err(Malformed::what("length not in shortest form").into()) } else { Ok(Some((number, index + 1))) };
        }
    }
    if bytes.len() < 5 { Ok(None) } else { Err(DecodeError::TooLong { bytes: number }) }
}
