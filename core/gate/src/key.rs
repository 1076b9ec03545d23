//! API keys: `mobo_pub_…` names an app, `mobo_sec_…` is a secret of a backend or an administrator.
//!
//! ```text
//! key = "mobo_" ("pub" / "sec") "_" base32( 20 random bytes ‖ first 5 bytes of SHA-256(prefix ‖ the random bytes) )
//! ```
//! 160 bits cannot be guessed, so one SHA-256 is enough at rest. The checksum tells a mistyped or foreign token before anything is looked
//! up, and lets a scanner find leaked keys.

use std::fmt;

use ring::digest::{SHA256, digest};

const ENTROPY_BYTES: usize = 20;
const CHECKSUM_BYTES: usize = 5;
const BODY_CHARS: usize = (ENTROPY_BYTES + CHECKSUM_BYTES) * 8 / 5;
const PREFIX_CHARS: usize = 9;
/// Random characters that may be shown, so that people can tell keys apart.
const SHOWN_CHARS: usize = 6;
/// Lower case without the digits that look like letters: no key has a capital or a hyphen to lose.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// What a key is for, which its prefix says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyKind {
    /// May be in an app that anybody can read: for the role `anon`.
    Public,
    /// Must stay on servers: for the roles `service` and `admin`.
    Secret,
}

impl KeyKind {
    /// How keys of this kind begin.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Public => "mobo_pub_",
            Self::Secret => "mobo_sec_",
        }
    }
}

/// SHA-256 of a whole key: what a store keeps.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct KeyHash(pub [u8; 32]);

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(")?;
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("…)")
    }
}

/// A well-formed key. Its `Debug` shows no more of it than [`shown`](Self::shown).
#[derive(Clone, Eq, PartialEq)]
pub struct ApiKey {
    kind: KeyKind,
    text: String,
}

/// A text that is not a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "this is not a mobo key: one begins with mobo_pub_ or mobo_sec_, followed by {BODY_CHARS} characters of which the last ones must fit the others"
)]
pub struct BadKey;

impl ApiKey {
    /// A new key of fresh randomness.
    #[must_use]
    pub fn generate(kind: KeyKind, entropy: [u8; ENTROPY_BYTES]) -> Self {
        let mut body = entropy.to_vec();
        body.extend_from_slice(&checksum(kind, &entropy));
        Self { kind, text: format!("{}{}", kind.prefix(), encode(&body)) }
    }

    /// The key for a text, if its checksum fits.
    ///
    /// # Errors
    ///
    /// [`BadKey`] for everything else. It says nothing about the text.
    pub fn parse(text: &str) -> Result<Self, BadKey> {
        let kind = kind_of(text).ok_or(BadKey)?;
        let body = text.strip_prefix(kind.prefix()).and_then(decode).ok_or(BadKey)?;
        let (entropy, sum) = body.split_at_checked(ENTROPY_BYTES).ok_or(BadKey)?;
        if sum != checksum(kind, entropy) {
            return Err(BadKey);
        }
        Ok(Self { kind, text: text.to_owned() })
    }

    /// What it is for.
    #[must_use]
    pub const fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The whole key: shown to its owner once, and never logged.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What is kept of it.
    #[must_use]
    pub fn hash(&self) -> KeyHash {
        let mut hash = KeyHash([0; 32]);
        hash.0.copy_from_slice(digest(&SHA256, self.text.as_bytes()).as_ref());
        hash
    }

    /// The part that may be shown and logged: the prefix and the first 6 random characters.
    #[must_use]
    pub fn shown(&self) -> &str {
        self.text.get(..PREFIX_CHARS + SHOWN_CHARS).unwrap_or_default()
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({}…)", self.shown())
    }
}

/// True for a text that begins like a key of ours, whole or not.
#[must_use]
pub fn kind_of(text: &str) -> Option<KeyKind> {
    [KeyKind::Public, KeyKind::Secret].into_iter().find(|kind| text.starts_with(kind.prefix()))
}

fn checksum(kind: KeyKind, entropy: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut sum = [0; CHECKSUM_BYTES];
    let hash = digest(&SHA256, &[kind.prefix().as_bytes(), entropy].concat());
    sum.iter_mut().zip(hash.as_ref()).for_each(|(to, from)| *to = *from);
    sum
}

/// Five bytes are eight characters; `bytes` is a multiple of five.
fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(BODY_CHARS);
    for group in bytes.chunks(5) {
        let number = group.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        let letters = (0..8).rev().map(|at| number >> (at * 5) & 31);
        text.extend(letters.filter_map(|letter| ALPHABET.get(usize::try_from(letter).ok()?)).map(|letter| char::from(*letter)));
    }
    text
}

fn decode(text: &str) -> Option<Vec<u8>> {
    if text.len() != BODY_CHARS {
        return None;
    }
    let mut bytes = Vec::with_capacity(ENTROPY_BYTES + CHECKSUM_BYTES);
    for group in text.as_bytes().chunks(8) {
        let digit = |letter: &u8| ALPHABET.iter().position(|known| known == letter);
        let number = group.iter().try_fold(0_u64, |number, letter| Some(number << 5 | u64::try_from(digit(letter)?).ok()?))?;
        bytes.extend(number.to_be_bytes().into_iter().skip(3));
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_its_kind_and_its_entropy_for_ever() {
        for (kind, fill, want) in [
            (KeyKind::Public, 0, "mobo_pub_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
            (KeyKind::Secret, 0xff, "mobo_sec_77777777777777777777777777777777"),
        ] {
            let key = ApiKey::generate(kind, [fill; ENTROPY_BYTES]);
            assert!(key.text().starts_with(want), "{}", key.text());
            assert_eq!(key.text().len(), PREFIX_CHARS + BODY_CHARS);
            assert_eq!(ApiKey::parse(key.text()), Ok(key.clone()));
            assert_eq!(key.kind(), kind);
            assert_eq!(format!("{key:?}"), format!("ApiKey({}…)", &want[..15]));
        }
        let golden = ApiKey::generate(KeyKind::Secret, std::array::from_fn(|n| u8::try_from(n).unwrap()));
        assert_eq!(golden.text(), "mobo_sec_aaaqeayeaudaocajbifqydiob4ibceqt3ufehhpb");
        assert_eq!(format!("{:?}", golden.hash()), "KeyHash(0a6837cb…)");
    }

    #[test]
    fn every_single_slip_is_found_before_a_lookup() {
        let key = ApiKey::generate(KeyKind::Secret, [7; ENTROPY_BYTES]);
        for at in 0..key.text().len() {
            for letter in ['a', 'b', '7', 'A', '_', '1'] {
                let mut slip: Vec<char> = key.text().chars().collect();
                if slip[at] != letter {
                    slip[at] = letter;
                    let slip: String = slip.into_iter().collect();
                    assert_eq!(ApiKey::parse(&slip), Err(BadKey), "{slip}");
                }
            }
        }
        let other_kind = key.text().replace("_sec_", "_pub_");
        for bad in ["", "mobo_sec_", "sb_secret_x", &key.text()[1..], &format!("{}a", key.text()), &other_kind, "mobo_sec_ä"] {
            assert_eq!(ApiKey::parse(bad), Err(BadKey), "{bad}");
        }
    }
}
