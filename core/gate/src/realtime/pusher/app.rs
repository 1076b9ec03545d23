//! An app of the Pusher protocol, and what is signed with its secret.

use std::fmt::{self, Write as _};

use md5::{Digest as _, Md5};
use mobo_core::limits;
use ring::hmac;

use super::hooks::Hooks;

/// An app that servers publish for and clients connect to.
#[derive(Clone)]
pub struct PusherApp {
    /// In the address of the HTTP API.
    pub id: String,
    /// In the address that clients connect to.
    pub key: String,
    secret: hmac::Key,
    /// Where its own servers are told what happens in its channels.
    hooks: Option<Hooks>,
    /// Whether those in a channel are told how many they are.
    counts: bool,
}

impl fmt::Debug for PusherApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PusherApp").field("id", &self.id).field("key", &self.key).finish_non_exhaustive()
    }
}

impl PusherApp {
    /// The app of these words.
    #[must_use]
    pub fn new(id: &str, key: &str, secret: &str) -> Self {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        Self { id: id.to_owned(), key: key.to_owned(), secret, hooks: None, counts: false }
    }

    /// The same, of whose channels these are told.
    #[must_use]
    pub fn telling(self, hooks: Option<Hooks>) -> Self {
        Self { hooks, ..self }
    }

    /// The same; those in a channel that is not one of presence are told how many they are, if `counts`.
    #[must_use]
    pub fn counting(self, counts: bool) -> Self {
        Self { counts, ..self }
    }

    pub(super) const fn hooks(&self) -> Option<&Hooks> {
        self.hooks.as_ref()
    }

    pub(super) const fn counts(&self) -> bool {
        self.counts
    }

    /// What proves a webhook of this body: the header `X-Pusher-Signature`.
    #[must_use]
    pub fn sign_webhook(&self, body: &[u8]) -> String {
        hex(hmac::sign(&self.secret, body).as_ref())
    }

    /// What stands behind the `?` of a server's request for this app, so that it proves itself. `now_s` in seconds since 1970.
    #[must_use]
    pub fn sign_request(&self, (method, path): (&str, &str), body: &[u8], now_s: i64) -> String {
        // In the order of their names, which is the order that is signed.
        let query = format!("auth_key={}&auth_timestamp={now_s}&auth_version=1.0&body_md5={}", self.key, hex(Md5::digest(body).as_slice()));
        let proof = hmac::sign(&self.secret, format!("{method}\n{path}\n{query}").as_bytes());
        format!("{query}&auth_signature={}", hex(proof.as_ref()))
    }

    /// What proves this text: `KEY:hex`.
    pub(super) fn sign(&self, text: &str) -> String {
        format!("{}:{}", self.key, hex(hmac::sign(&self.secret, text.as_bytes()).as_ref()))
    }

    /// True if `auth` is `KEY:hex` of this text. It takes the same time whatever is wrong.
    pub(super) fn has_signed(&self, text: &str, auth: &str) -> bool {
        let signature = auth.strip_prefix(self.key.as_str()).and_then(|rest| rest.strip_prefix(':')).unwrap_or_default();
        self.proves(text, signature)
    }

    fn proves(&self, text: &str, signature: &str) -> bool {
        let bytes = unhex(signature).unwrap_or_default();
        hmac::verify(&self.secret, text.as_bytes(), &bytes).is_ok()
    }

    /// Whether a request of a server is signed, as far as its head says; `Err` says what is wrong. `query` is decoded, `now_s` in seconds
    /// since 1970. What was sent with it is checked by [`check_body`](Self::check_body).
    pub(super) fn check_head(&self, (method, path): (&str, &str), query: &[(String, String)], now_s: i64) -> Result<(), &'static str> {
        let word = |name: &str| query.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str());
        if word("auth_key") != self.key || word("auth_version") != "1.0" {
            return Err("auth_key or auth_version is another one");
        }
        let skew = word("auth_timestamp").parse::<i64>().map_or(i64::MAX, |at| now_s.saturating_sub(at).saturating_abs());
        if skew.unsigned_abs() > limits::PUBLISH_CLOCK_SKEW.as_secs() {
            return Err("auth_timestamp is too far from this node's time");
        }
        let mut signed: Vec<String> = query
            .iter()
            .filter(|(name, _)| name != "auth_signature")
            .map(|(name, value)| format!("{}={value}", name.to_ascii_lowercase()))
            .collect();
        signed.sort_unstable();
        let text = format!("{method}\n{path}\n{}", signed.join("&"));
        if self.proves(&text, word("auth_signature")) { Ok(()) } else { Err("auth_signature does not fit") }
    }

    /// Whether this is the body that was signed for.
    pub(super) fn check_body(query: &[(String, String)], body: &[u8]) -> Result<(), &'static str> {
        let signed = query.iter().find(|(key, _)| key == "body_md5").map_or("", |(_, value)| value.as_str());
        if body.is_empty() || signed == hex(&Md5::digest(body)) { Ok(()) } else { Err("body_md5 is not that of the body") }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let (pairs, rest) = digits.as_deref()?.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_the_documentation() {
        // The worked example of Pusher's documentation of private channels.
        let app = PusherApp::new("3", "278d425bdf160c739803", "7ad3773142a6692b25b8");
        let auth = "278d425bdf160c739803:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4";
        assert_eq!(app.sign("1234.1234:private-foobar"), auth);
        assert!(app.has_signed("1234.1234:private-foobar", auth));
        for bad in
            ["", ":", "278d425bdf160c739803:", &auth[1..], &auth[..auth.len() - 1], &auth.replace("58", "59"), "278d425bdf160c739803:zz"]
        {
            assert!(!app.has_signed("1234.1234:private-foobar", bad), "{bad}");
        }
        assert!(!app.has_signed("1234.1234:private-other", auth));
    }

    #[test]
    fn requests_of_servers_are_signed_over_everything() {
        // The worked example of Pusher's documentation of the HTTP API.
        let app = PusherApp::new("3", "278d425bdf160c739803", "7ad3773142a6692b25b8");
        let body = br#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
        let query = |changed: (&str, &str)| -> Vec<(String, String)> {
            let words = [
                ("auth_key", "278d425bdf160c739803"),
                ("auth_timestamp", "1353088179"),
                ("auth_version", "1.0"),
                ("body_md5", "ec365a775a4cd0599faeb73354201b6f"),
                ("auth_signature", "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c"),
            ];
            words.map(|(name, value)| (name.to_owned(), if name == changed.0 { changed.1 } else { value }.to_owned())).to_vec()
        };
        let at = ("POST", "/apps/3/events");
        assert_eq!(app.check_head(at, &query(("", "")), 1_353_088_179), Ok(()));
        let words: Vec<String> = query(("", "")).into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(app.sign_request(at, body, 1_353_088_179), words.join("&"), "what we send is signed likewise");
        assert!(app.check_head(at, &query(("", "")), 1_353_088_179 + 601).is_err());
        assert!(app.check_head(("POST", "/apps/3/batch_events"), &query(("", "")), 1_353_088_179).is_err());
        assert_eq!(PusherApp::check_body(&query(("", "")), body), Ok(()));
        assert!(PusherApp::check_body(&query(("", "")), b"{}").is_err());
        assert!(PusherApp::check_body(&[], b"{}").is_err());
        for changed in ["auth_key", "auth_timestamp", "auth_version", "body_md5", "auth_signature"] {
            assert!(app.check_head(at, &query((changed, "1353088180")), 1_353_088_179).is_err(), "{changed}");
        }
    }
}
