use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};

use super::*;

const NOW: i64 = 1_770_000_000;

/// Both kinds that we sign with in tests, and what signs.
type Signer = Box<dyn Fn(&[u8]) -> Vec<u8>>;

fn signer(kid: &str, algorithm: Algorithm) -> (VerifyKey, Signer) {
    let random = SystemRandom::new();
    match algorithm {
        Algorithm::EdDsa => {
            let pair = Ed25519KeyPair::from_pkcs8(Ed25519KeyPair::generate_pkcs8(&random).unwrap().as_ref()).unwrap();
            let public = PublicKey::EdDsa(pair.public_key().as_ref().to_vec());
            (VerifyKey { kid: kid.to_owned(), public }, Box::new(move |bytes| pair.sign(bytes).as_ref().to_vec()))
        }
        Algorithm::Es256 | Algorithm::Rs256 => {
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
            let public = PublicKey::Es256(pair.public_key().as_ref().to_vec());
            (VerifyKey { kid: kid.to_owned(), public }, Box::new(move |bytes| pair.sign(&random, bytes).unwrap().as_ref().to_vec()))
        }
    }
}

fn made(key: &VerifyKey, sign: &Signer, claims: &Json) -> String {
    let claims = claims.as_object().unwrap();
    issue(key, claims, |bytes| Ok::<_, ()>(sign(bytes))).unwrap()
}

#[track_caller]
fn check(claims: Json, audience: Option<&str>, want: Result<(), TokenError>) {
    let (key, sign) = signer("a", Algorithm::Es256);
    let token = Token::parse(&made(&key, &sign, &claims)).unwrap();
    assert_eq!(token.verify(&[key], audience, Wall(NOW * 1_000_000)).map(|_| ()), want, "{claims} {audience:?}");
}

// faults: X-9, SR-7
#[test]
fn times_and_audience_are_kept_with_a_little_skew() {
    check(json!({ "iss": "i", "exp": NOW + 1 }), None, Ok(()));
    check(json!({ "iss": "i", "exp": NOW - 29 }), None, Ok(()));
    check(json!({ "iss": "i", "exp": NOW - 30 }), None, Err(TokenError::Expired));
    check(json!({ "iss": "i" }), None, Err(TokenError::Claims("exp is missing")));
    check(json!({ "iss": "i", "exp": "tomorrow" }), None, Err(TokenError::Claims("a time is not a number")));
    check(json!({ "iss": "i", "exp": 1e300 }), None, Ok(()));
    check(json!({ "iss": "i", "exp": NOW + 9, "nbf": NOW + 30 }), None, Ok(()));
    check(json!({ "iss": "i", "exp": NOW + 99, "nbf": NOW + 31 }), None, Err(TokenError::NotYet));
    check(json!({ "iss": "i", "exp": NOW + 99, "iat": NOW + 31 }), None, Err(TokenError::NotYet));
    check(json!({ "iss": "i", "exp": NOW + 9, "aud": "us" }), Some("us"), Ok(()));
    check(json!({ "iss": "i", "exp": NOW + 9, "aud": ["x", "us"] }), Some("us"), Ok(()));
    check(json!({ "iss": "i", "exp": NOW + 9, "aud": "x" }), Some("us"), Err(TokenError::Audience));
    check(json!({ "iss": "i", "exp": NOW + 9 }), Some("us"), Err(TokenError::Audience));
}

// faults: X-9, SR-7
#[test]
fn a_token_does_not_choose_how_it_is_checked() {
    let claims = json!({ "iss": "i", "exp": NOW + 9 });
    let now = Wall(NOW * 1_000_000);
    for algorithm in [Algorithm::Es256, Algorithm::EdDsa] {
        let (key, sign) = signer("a", algorithm);
        let text = made(&key, &sign, &claims);
        let token = Token::parse(&text).unwrap();
        assert_eq!((token.kid(), token.issuer()), ("a", "i"));
        token.verify(std::slice::from_ref(&key), None, now).unwrap();
        let read = VerifyKey::of_jwks(&json!({ "keys": [key.to_jwk(), { "kty": "oct", "kid": "a", "k": "AAAA" }] }));
        assert_eq!(read, std::slice::from_ref(&key), "a JWKS gives the key back, and no shared secret");
        // Another key of that name, the same key by another name, another algorithm.
        let (other, _) = signer("a", algorithm);
        assert_eq!(token.verify(&[other], None, now), Err(TokenError::Signature));
        let renamed = VerifyKey { kid: "b".to_owned(), ..key.clone() };
        assert_eq!(token.verify(&[renamed], None, now), Err(TokenError::UnknownKey));
        let (foreign, _) = signer("a", if algorithm == Algorithm::EdDsa { Algorithm::Es256 } else { Algorithm::EdDsa });
        assert_eq!(token.verify(&[foreign], None, now), Err(TokenError::UnknownKey));
        // Every byte of the text counts.
        let mut signed = 0;
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            let verdict = Token::parse(&changed).map(|token| token.verify(std::slice::from_ref(&key), None, now));
            assert!(!matches!(verdict, Some(Ok(_))) || changed == text, "byte {at}");
            signed += usize::from(verdict.is_some());
        }
        assert!(signed > 0);
    }
    let spelled = |head: &str| format!("{}.{}.AAAA", BASE64.encode(head), BASE64.encode(claims.to_string()));
    for bad in [
        r#"{"alg":"none","kid":"a"}"#,
        r#"{"alg":"HS256","kid":"a"}"#,
        r#"{"alg":"ES256"}"#,
        r#"{"kid":"a"}"#,
        "[]",
        "x",
        r#"{"alg":"ES256","kid":"a","crit":["b64"]}"#,
    ] {
        assert_eq!(Token::parse(&spelled(bad)), None, "{bad}");
    }
    for bad in ["", "a.b", "a.b.c.d", "eyJhbGciOiJub25lIn0.e30.", &"x".repeat(limits::USER_TOKEN_BYTES_MAX + 1)] {
        assert_eq!(Token::parse(bad), None, "{bad}");
    }
}
