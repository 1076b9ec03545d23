//! Joining a hub: the device makes its own key, proves that it holds it, and gets a certificate for it (rule R23).
//!
//! Nothing secret of the hub's is stored: the token's secret is good for this one use, and what stays is the hub's public key, which every
//! later connection must show.

use std::sync::Arc;
use std::time::Duration;

use mobo_core::ids::DeviceId;
use mobo_core::limits;
use mobo_core::link::{Channel, Dialer, Link, LinkError};
use mobo_core::message::{Code, Enrol, Enrolled, Message, PeerError};
use mobo_core::trust::{Certificate, KeyPair, Statement, mask_secret};
use mobo_protocol::JoinToken;

/// Why a device could not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// No address of the token answered.
    #[error("no hub answered: {0}")]
    Link(LinkError),
    /// The hub said no.
    #[error("{}", .0.detail)]
    Refused(PeerError),
    /// The hub did not answer as a hub does.
    #[error("the hub's answer makes no sense: {0}")]
    Protocol(String),
    /// The hub fell silent.
    #[error("the hub took too long to answer")]
    Silent,
}

impl JoinError {
    /// What to do next.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Link(LinkError::WrongPeer { .. }) => "the token is of another hub, or somebody stands between: get a new token",
            Self::Link(_) | Self::Silent => {
                "check that the hub runs, and that one of its addresses (quic.listen, mqtt.listen, http.listen) can be reached from here"
            }
            Self::Refused(error) if matches!(error.code, Code::TOKEN_USED | Code::TOKEN_EXPIRED | Code::TOKEN_INVALID) => {
                "make a new token on the hub with `mobo-hub device invite`"
            }
            Self::Refused(_) => "do what the sentence says, then join again",
            Self::Protocol(_) => "upgrade the older of the two",
        }
    }
}

/// What a device has after it joined.
#[derive(Debug)]
pub struct Joined {
    /// Its certificate.
    pub certificate: Certificate,
    /// The certificate's bytes and the hub's signature.
    pub signed: Enrolled,
    /// The device's id.
    pub device: DeviceId,
}

/// Enrols the holder of `keys` with a token, at the first of its addresses that answers; `dialer` is given all of them at once, with commas
/// between them.
///
/// # Errors
///
/// [`JoinError`]; the same token may be tried again with the same key.
pub async fn enrol(dialer: &dyn Dialer, token: &JoinToken, keys: &KeyPair) -> Result<Joined, JoinError> {
    if token.addresses.is_empty() {
        return Err(JoinError::Protocol("the token names no address".to_owned()));
    }
    let link = dialer.dial(token.addresses.join(","), token.hub).await.map_err(JoinError::Link)?;
    ask(Arc::from(link), token, keys).await
}

async fn ask(link: Arc<dyn Link>, token: &JoinToken, keys: &KeyPair) -> Result<Joined, JoinError> {
    let answer = tokio::time::timeout(limits::HELLO_TIMEOUT, exchange(link.as_ref(), token, keys)).await;
    let _ = tokio::time::timeout(Duration::from_secs(1), link.close("joined")).await;
    let signed = answer.map_err(|_| JoinError::Silent)??;
    check(token, keys, signed)
}

async fn exchange(link: &dyn Link, token: &JoinToken, keys: &KeyPair) -> Result<Enrolled, JoinError> {
    let binding = link.binding();
    let signature = Statement::Enrol { binding: &binding, secret: &token.secret }.sign(keys);
    // Who carries the packets of a link can read them.
    let hidden = mask_secret(&binding, &token.secret).filter(|_| token.masks);
    let masked = hidden.is_some();
    let secret = hidden.unwrap_or_else(|| token.secret.clone());
    let enrol = Enrol { secret, masked, key: keys.public(), name: token.name.clone(), signature };
    link.send(Channel::Control, mobo_protocol::encode(&Message::Enrol(enrol))).await.map_err(JoinError::Link)?;
    loop {
        let frame = link.recv().await.map_err(JoinError::Link)?;
        let message = mobo_protocol::decode(&frame).map_err(|error| JoinError::Protocol(error.to_string()))?;
        if let Message::Enrolled(enrolled) = message {
            return Ok(enrolled);
        }
        if let Message::Error(error) = message {
            return Err(JoinError::Refused(error));
        }
        if !matches!(message, Message::Ignored { .. }) {
            return Err(JoinError::Protocol("not the answer to an enrolment".to_owned()));
        }
    }
}

fn check(token: &JoinToken, keys: &KeyPair, signed: Enrolled) -> Result<Joined, JoinError> {
    let wrong = |why: &str| JoinError::Protocol(why.to_owned());
    if !Statement::Certificate(&signed.certificate).is_signed_by(&token.hub, &signed.signature) {
        return Err(wrong("the certificate is not signed by the hub"));
    }
    let certificate = Certificate::decode(&signed.certificate).map_err(|error| JoinError::Protocol(error.to_string()))?;
    if certificate.key != keys.public() || certificate.project != token.project {
        return Err(wrong("the certificate is of another device or project"));
    }
    Ok(Joined { certificate, signed, device: keys.device() })
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use mobo_core::future::BoxFuture;
    use mobo_core::ids::{ProjectId, PublicKey};

    use super::*;

    /// A link whose carrier reads along.
    #[derive(Debug)]
    struct Overheard {
        binding: Vec<u8>,
        heard: Mutex<Vec<u8>>,
    }

    impl Link for Overheard {
        fn send(&self, _: Channel, frame: Vec<u8>) -> BoxFuture<'_, Result<(), LinkError>> {
            self.heard.lock().unwrap_or_else(PoisonError::into_inner).extend(frame);
            Box::pin(async { Ok(()) })
        }

        fn recv(&self) -> BoxFuture<'_, Result<Vec<u8>, LinkError>> {
            Box::pin(async { Err(LinkError::Silent) })
        }

        fn binding(&self) -> Vec<u8> {
            self.binding.clone()
        }

        fn peer(&self) -> String {
            "a broker".to_owned()
        }

        fn bytes(&self) -> (u64, u64) {
            (0, 0)
        }

        fn close(&self, _: &str) -> BoxFuture<'_, ()> {
            Box::pin(async {})
        }
    }

    // faults: X-15
    #[tokio::test]
    async fn who_carries_a_join_learns_nothing_to_join_with() {
        let (keys, secret) = (KeyPair::from_secret(&[2; 32]), b"only-for-the-hub".to_vec());
        for (masks, binding, is_hidden) in [(true, vec![7; 32], true), (false, vec![7; 32], false), (true, vec![], false)] {
            let token = JoinToken {
                project: ProjectId::new(1).unwrap(),
                hub: PublicKey([1; 32]),
                secret: secret.clone(),
                addresses: vec![],
                expires_us: 0,
                name: String::new(),
                masks,
            };
            let link = Overheard { binding: binding.clone(), heard: Mutex::default() };
            assert!(exchange(&link, &token, &keys).await.is_err());
            let heard = link.heard.into_inner().unwrap();
            assert_eq!(!heard.windows(secret.len()).any(|bytes| bytes == secret), is_hidden, "masks {masks}, binding {}", binding.len());
            let Message::Enrol(enrol) = mobo_protocol::decode(&heard).unwrap() else { panic!("it enrols") };
            let at_hub = if enrol.masked { mask_secret(&binding, &enrol.secret).unwrap() } else { enrol.secret };
            assert_eq!(at_hub, secret, "the hub finds it again");
        }
    }
}
