//! What comes off the wire, or out of a mail.

use mobo_core::trust;
use mobo_protocol::{JoinToken, Message};

use super::{Answer, answer, outcome, shape};
use crate::mutate::leb128;

/// The frame decoder: on the bytes as they are, and once more with a length that fits, so that a changed body is looked at.
pub(super) fn frame(bytes: &[u8]) -> Answer {
    let fitted = bytes.split_first_chunk::<2>().map(|(head, body)| [&head[..], &leb128(body.len() as u64), body].concat());
    answer(&(decode_frame(bytes), fitted.map(|bytes| decode_frame(&bytes))))
}

fn decode_frame(bytes: &[u8]) -> String {
    let length = mobo_protocol::frame_bytes(bytes);
    match mobo_protocol::decode(bytes) {
        Ok(message) => {
            assert_eq!(length, Ok(Some(bytes.len())), "a frame is as long as its header says");
            let again = mobo_protocol::encode(&message);
            // What a later version sent is passed over, and never sent on.
            let sent_on = !matches!(message, Message::Ignored { .. });
            assert!(
                !sent_on || mobo_protocol::decode(&again).as_ref() == Ok(&message),
                "{message:?} is another message when it is sent on"
            );
            shape(&format!("{message:?}"))
        }
        Err(error) => shape(&error.to_string()),
    }
}

pub(super) fn frame_seeds() -> Vec<Vec<u8>> {
    let plain = [mobo_protocol::encode(&Message::Bye), mobo_protocol::encode(&Message::Ignored { kind: 255 })];
    // An empty body of every type.
    plain.into_iter().chain((0..64).map(|kind| vec![kind, 0, 1, 0xa0])).collect()
}

/// The join token: as text, and as a body with a fitting checksum.
pub(super) fn token(bytes: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(bytes);
    let fitted = token_text(bytes);
    answer(&[text.as_ref(), &fitted].map(|text| {
        let token = JoinToken::parse(text).inspect(|token| {
            assert_eq!(JoinToken::parse(&token.to_text()).as_ref(), Ok(token), "a token that is printed again stays the same");
        });
        outcome(&token)
    }))
}

/// `mobo1.` and the base64url of the body with its checksum.
fn token_text(body: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bytes = [body, &trust::checksum(body)].concat();
    let mut text = String::from("mobo1.");
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0, |bits, byte| bits << 8 | usize::from(*byte)) << (8 * (3 - chunk.len()));
        let digits = (0..=chunk.len()).map(|place| (bits >> (18 - 6 * place)) & 63);
        text.extend(digits.filter_map(|digit| ALPHABET.get(digit)).map(|byte| char::from(*byte)));
    }
    text
}

pub(super) fn token_seeds() -> Vec<Vec<u8>> {
    // { 0: project, 1: key, 2: secret, 3: [address], 4: expires, 5: name }
    let key = [&[0x58, 32][..], &[7; 32]].concat();
    let parts: [&[u8]; 13] = [
        &[0xa6],
        &[0],
        &[0x19, 1, 0],
        &[1],
        &key,
        &[2],
        &[0x42, 1, 2],
        &[3],
        &[0x81, 0x63, b'h', b':', b'1'],
        &[4],
        &[5],
        &[5],
        &[0x61, b'p'],
    ];
    let body = parts.concat();
    vec![token_text(&body).into_bytes(), body]
}
