//! Users' tokens: JSON web tokens (RFC 7519) with one of three signatures, and the keys that they are checked with (RFC 7517).
//!
//! A token names its key, and the key its algorithm: what the token says of it must agree, so that no token chooses how it is checked. Tokens
//! without a signature, or with a shared secret, are not known here at all.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use mobo_core::limits;
use mobo_core::time::Wall;
use ring::signature::{ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey};
use serde_json::{Map, Value as Json, json};

/// What a token claims.
pub type Claims = Map<String, Json>;

/// A text of the form of a token. Nothing is said of what it is worth; its `Debug` does not show it.
#[derive(Clone, Eq, PartialEq)]
pub struct Token {
    text: String,
    kid: String,
    algorithm: Algorithm,
    issuer: String,
}

/// How a token is signed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
    /// RSA with SHA-256, 2048 bits at least: what other issuers use.
    Rs256,
}

impl Algorithm {
    const ALL: [Self; 3] = [Self::Es256, Self::EdDsa, Self::Rs256];

    /// The word in `alg`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
            Self::Rs256 => "RS256",
        }
    }
}

/// Why a token is not good.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TokenError {
    /// Nobody whom this node knows has issued it with a key that is known.
    #[error("the token is of an issuer or of a key that is not known here")]
    UnknownKey,
    /// The signature is of something else.
    #[error("the token's signature is not good")]
    Signature,
    /// Its time is over.
    #[error("JWT expired")]
    Expired,
    /// Its time has not come.
    #[error("the token is not valid yet")]
    NotYet,
    /// It is for somebody else.
    #[error("the token is meant for another audience")]
    Audience,
    /// It does not say what a token must.
    #[error("the token's claims are not what they must be: {0}")]
    Claims(&'static str),
    /// The sign-in that it came from has ended, or its user is gone or shut out.
    #[error("the session of this token has ended")]
    Ended,
    /// It is of another project than the key beside it.
    #[error("the token is of another project than the key")]
    OtherProject,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("kid", &self.kid).field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl Token {
    /// The token of a text; `None` for what is none, or is signed in a way that is not known here.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > limits::USER_TOKEN_BYTES_MAX {
            return None;
        }
        let mut parts = text.split('.');
        let (head, body, signature) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || BASE64.decode(signature).is_err() {
            return None;
        }
        let (head, body) = (object(head)?, object(body)?);
        // Extensions that must be understood are not.
        if head.contains_key("crit") {
            return None;
        }
        let word = |from: &Claims, name: &str| from.get(name).and_then(Json::as_str).map(str::to_owned);
        let algorithm = word(&head, "alg").and_then(|alg| Algorithm::ALL.into_iter().find(|known| known.name() == alg))?;
        Some(Self { text: text.to_owned(), kid: word(&head, "kid")?, algorithm, issuer: word(&body, "iss")? })
    }

    /// The key that it says it is signed with.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Who it says has issued it.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The whole token, which opens everything that its user may.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it claims, once key, signature and time are found good. `audience` is asked for where there is one.
    ///
    /// # Errors
    ///
    /// [`TokenError`].
    pub fn verify(&self, keys: &[VerifyKey], audience: Option<&str>, now: Wall) -> Result<Claims, TokenError> {
        let key = keys.iter().find(|key| key.kid == self.kid && key.public.algorithm() == self.algorithm).ok_or(TokenError::UnknownKey)?;
        let (signed, signature) = self.text.rsplit_once('.').ok_or(TokenError::Signature)?;
        let signature = BASE64.decode(signature).map_err(|_| TokenError::Signature)?;
        if !key.public.verifies(signed.as_bytes(), &signature) {
            return Err(TokenError::Signature);
        }
        let body = signed.split_once('.').and_then(|(_, body)| object(body)).ok_or(TokenError::Claims("they are not JSON"))?;
        check_times(&body, now.0.div_euclid(1_000_000))?;
        check_audience(&body, audience)?;
        Ok(body)
    }
}

fn object(part: &str) -> Option<Claims> {
    match serde_json::from_slice(&BASE64.decode(part).ok()?).ok()? {
        Json::Object(members) => Some(members),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_) => None,
    }
}

fn check_times(claims: &Claims, now: i64) -> Result<(), TokenError> {
    let skew = i64::try_from(limits::TOKEN_SKEW.as_secs()).unwrap_or_default();
    let time = |name: &str| match claims.get(name) {
        None => Ok(None),
        #[allow(clippy::cast_possible_truncation, reason = "a time beyond 64 bits saturates")]
        Some(value) => value.as_f64().map(|seconds| Some(seconds as i64)).ok_or(TokenError::Claims("a time is not a number")),
    };
    let expires = time("exp")?.ok_or(TokenError::Claims("exp is missing"))?;
    if expires.saturating_add(skew) <= now {
        return Err(TokenError::Expired);
    }
    if [time("nbf")?, time("iat")?].into_iter().flatten().any(|from| from.saturating_sub(skew) > now) {
        return Err(TokenError::NotYet);
    }
    Ok(())
}

fn check_audience(claims: &Claims, wanted: Option<&str>) -> Result<(), TokenError> {
    let Some(wanted) = wanted else { return Ok(()) };
    let is_ours = match claims.get("aud") {
        Some(Json::String(one)) => one == wanted,
        Some(Json::Array(several)) => several.iter().any(|one| one == wanted),
        _ => false,
    };
    if is_ours { Ok(()) } else { Err(TokenError::Audience) }
}

/// A key that tokens are checked with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VerifyKey {
    /// Its name.
    pub kid: String,
    /// The key.
    pub public: PublicKey,
}

/// A public key of one of the algorithms.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PublicKey {
    /// A point on P-256: 0x04, x, y.
    Es256(Vec<u8>),
    /// 32 bytes.
    EdDsa(Vec<u8>),
    /// Modulus and exponent, big-endian.
    Rs256 {
        /// The modulus.
        n: Vec<u8>,
        /// The exponent.
        e: Vec<u8>,
    },
}

impl PublicKey {
    const fn algorithm(&self) -> Algorithm {
        match self {
            Self::Es256(_) => Algorithm::Es256,
            Self::EdDsa(_) => Algorithm::EdDsa,
            Self::Rs256 { .. } => Algorithm::Rs256,
        }
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let verified = match self {
            Self::Es256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature),
            Self::EdDsa(key) => UnparsedPublicKey::new(&ED25519, key).verify(message, signature),
            Self::Rs256 { n, e } => RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature),
        };
        verified.is_ok()
    }
}

impl VerifyKey {
    /// Reads a key of a JWKS; `None` for one that is not for signatures, has no name, or is of another kind.
    #[must_use]
    pub fn from_jwk(jwk: &Json) -> Option<Self> {
        let word = |name: &str| jwk.get(name).and_then(Json::as_str);
        let bytes = |name: &str| BASE64.decode(word(name)?).ok();
        if word("use").is_some_and(|usage| usage != "sig") {
            return None;
        }
        let public = match (word("kty")?, word("crv")) {
            ("EC", Some("P-256")) => {
                let (x, y) = (bytes("x")?, bytes("y")?);
                if x.len() != 32 || y.len() != 32 {
                    return None;
                }
                PublicKey::Es256([&[4], x.as_slice(), y.as_slice()].concat())
            }
            ("OKP", Some("Ed25519")) => PublicKey::EdDsa(bytes("x").filter(|x| x.len() == 32)?),
            ("RSA", _) => PublicKey::Rs256 { n: bytes("n")?, e: bytes("e")? },
            _ => return None,
        };
        if word("alg").is_some_and(|alg| alg != public.algorithm().name()) {
            return None;
        }
        Some(Self { kid: word("kid")?.to_owned(), public })
    }

    /// The key as a JWKS has it.
    #[must_use]
    pub fn to_jwk(&self) -> Json {
        let mut jwk = match &self.public {
            PublicKey::Es256(point) => {
                let (x, y) = point.get(1..).unwrap_or_default().split_at_checked(32).unwrap_or_default();
                json!({ "kty": "EC", "crv": "P-256", "x": BASE64.encode(x), "y": BASE64.encode(y) })
            }
            PublicKey::EdDsa(x) => json!({ "kty": "OKP", "crv": "Ed25519", "x": BASE64.encode(x) }),
            PublicKey::Rs256 { n, e } => json!({ "kty": "RSA", "n": BASE64.encode(n), "e": BASE64.encode(e) }),
        };
        if let Json::Object(members) = &mut jwk {
            members.insert("kid".to_owned(), self.kid.as_str().into());
            members.insert("alg".to_owned(), self.public.algorithm().name().into());
            members.insert("use".to_owned(), "sig".into());
            members.insert("key_ops".to_owned(), json!(["verify"]));
        }
        jwk
    }

    /// The keys of a JWKS that are known here.
    #[must_use]
    pub fn of_jwks(jwks: &Json) -> Vec<Self> {
        let keys = jwks.get("keys").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
        keys.iter().take(limits::JWKS_KEYS_MAX).filter_map(Self::from_jwk).collect()
    }
}

/// The text of a token with these claims; `sign` gives the signature over what it gets, in the form of RFC 7518.
pub fn issue<E>(key: &VerifyKey, claims: &Claims, sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>) -> Result<String, E> {
    let head = json!({ "alg": key.public.algorithm().name(), "kid": key.kid, "typ": "JWT" });
    let signed = format!("{}.{}", BASE64.encode(head.to_string()), BASE64.encode(Json::Object(claims.clone()).to_string()));
    let signature = sign(signed.as_bytes())?;
    Ok(format!("{signed}.{}", BASE64.encode(signature)))
}

#[cfg(test)]
mod tests;
