//! The join token: one line that carries everything a device needs to enrol.
//!
//! `mobo1.` and the base64url (no padding) of `{ 0: project, 1: fingerprint, 2: secret, 3: [address, …], 4: expires, 5: name, ? 6: [address, …],
//! ? 7: masks }`,
//! followed by 4 bytes of its blake3, so that a token that lost a character is told from one that is wrong.

use mobo_core::cbor::{Malformed, Reader, Writer};
use mobo_core::ids::{ProjectId, PublicKey};
use mobo_core::limits;
use mobo_core::trust::checksum;

use crate::frame::{list, need};

const PREFIX: &str = "mobo1.";
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// What a device needs to enrol.
#[derive(Clone, Eq, PartialEq)]
pub struct JoinToken {
    /// The project.
    pub project: ProjectId,
    /// The hub's public key: the device talks to nobody else.
    pub hub: PublicKey,
    /// The invitation's secret, good for one use.
    pub secret: Vec<u8>,
    /// Where the hub may be found: `host:port` is QUIC, others are URLs such as `mqtt://host:port` and `ws://host:port/sync/v1`. In the
    /// token URLs stand apart, under a key that devices of the first version pass over.
    pub addresses: Vec<String>,
    /// When the invitation ends: microseconds since 1970 UTC, by the hub's clock.
    pub expires_us: i64,
    /// The label of the device; empty where the invitation gives none.
    pub name: String,
    /// True if the hub takes a masked secret ([`mobo_core::trust::mask_secret`]): hubs of the first days did not.
    pub masks: bool,
}

impl std::fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinToken").field("addresses", &self.addresses).field("name", &self.name).finish_non_exhaustive()
    }
}

/// A text that is not a join token.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TokenError {
    /// It does not start like one.
    #[error("this is not a join token: a token starts with mobo1. and is one line printed by `mobo-hub device invite`")]
    NotAToken,
    /// It starts like one, but characters are missing or wrong.
    #[error("the join token is damaged: copy the whole line that `mobo-hub device invite` printed")]
    Damaged,
}

impl JoinToken {
    /// The one-line text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let (urls, plain): (Vec<&String>, Vec<&String>) = self.addresses.iter().partition(|address| address.contains("://"));
        let mut w = Writer::new();
        w.map(6 + usize::from(!urls.is_empty()) + usize::from(self.masks));
        w.u64(0).u64(self.project.get()).u64(1).bytes(self.hub.as_bytes()).u64(2).bytes(&self.secret);
        w.u64(3).array(plain.len());
        for address in plain {
            w.text(address);
        }
        w.u64(4).i64(self.expires_us).u64(5).text(&self.name);
        if !urls.is_empty() {
            w.u64(6).array(urls.len());
            for url in urls {
                w.text(url);
            }
        }
        if self.masks {
            w.u64(7).bool(true);
        }
        let mut bytes = w.into_bytes();
        let check = checksum(&bytes);
        bytes.extend_from_slice(&check);
        format!("{PREFIX}{}", to_base64url(&bytes))
    }

    /// Reads a token; white space around it does not matter.
    ///
    /// # Errors
    ///
    /// [`TokenError`].
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim().strip_prefix(PREFIX).ok_or(TokenError::NotAToken)?;
        let bytes = from_base64url(text).ok_or(TokenError::Damaged)?;
        let (body, check) = bytes.split_last_chunk::<4>().ok_or(TokenError::Damaged)?;
        if checksum(body) != *check {
            return Err(TokenError::Damaged);
        }
        Self::decode(body).map_err(|_| TokenError::Damaged)
    }

    fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(body);
        let (mut project, mut hub, mut secret) = (None, None, None);
        let (mut addresses, mut urls, mut expires_us, mut name) = (Vec::new(), Vec::new(), 0, String::new());
        let mut masks = false;
        r.each_key(|key, r| {
            match key {
                0 => project = ProjectId::new(r.u64()?),
                1 => hub = Some(PublicKey(r.fixed()?)),
                2 => secret = Some(r.bytes()?.to_vec()),
                3 => addresses = list(r, limits::TOKEN_ADDRESSES_MAX, |r| Ok(r.text()?.to_owned()))?,
                4 => expires_us = r.i64()?,
                5 => r.text()?.clone_into(&mut name),
                6 => urls = list(r, limits::TOKEN_ADDRESSES_MAX, |r| Ok(r.text()?.to_owned()))?,
                7 => masks = r.bool()?,
                _ => r.skip()?,
            }
            Ok(())
        })?;
        r.end()?;
        addresses.append(&mut urls);
        let (project, hub) = (need(project, "project")?, need(hub, "hub")?);
        Ok(Self { project, hub, secret: need(secret, "secret")?, addresses, expires_us, name, masks })
    }
}

fn to_base64url(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| (word << 8) | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for index in 0..=chunk.len() {
            let digit = (word >> (18 - 6 * index)) & 0x3f;
            text.push(ALPHABET.get(digit as usize).copied().map_or('A', char::from));
        }
    }
    text
}

fn from_base64url(text: &str) -> Option<Vec<u8>> {
    if text.len() > limits::TOKEN_BYTES_MAX || text.len() % 4 == 1 {
        return None;
    }
    let digits: Option<Vec<u32>> =
        text.bytes().map(|byte| ALPHABET.iter().position(|digit| *digit == byte).and_then(|digit| u32::try_from(digit).ok())).collect();
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for chunk in digits?.chunks(4) {
        let word = chunk.iter().fold(0_u32, |word, digit| (word << 6) | digit) << (6 * (4 - chunk.len()));
        bytes.extend_from_slice(word.to_be_bytes().get(1..chunk.len())?);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_copying_and_nothing_else() {
        for len in 0..5 {
            let token = JoinToken {
                project: ProjectId::new(7).unwrap(),
                hub: PublicKey([9; 32]),
                secret: vec![5; 16 + len],
                addresses: ["127.0.0.1:8443", "mqtt://127.0.0.1:1883", "ws://127.0.0.1:8000/sync/v1"].map(String::from)[..1 + len % 3]
                    .into(),
                expires_us: 1,
                name: "pump".into(),
                masks: len > 1,
            };
            let text = token.to_text();
            assert_eq!(JoinToken::parse(&format!(" {text}\n")), Ok(token));
            assert_eq!(JoinToken::parse(&text[..text.len() - 1]), Err(TokenError::Damaged));
            assert_eq!(JoinToken::parse(&text.replacen('o', "0", 2)), Err(TokenError::NotAToken));
        }
        assert_eq!(JoinToken::parse("hello"), Err(TokenError::NotAToken));
        assert_eq!(JoinToken::parse("mobo1.###"), Err(TokenError::Damaged));
    }
}
