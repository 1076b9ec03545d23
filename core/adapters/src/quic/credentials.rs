//! Who the hub is: its ed25519 key as TLS shows and pins it, and what it derives for its endpoint.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mobo_core::ids::PublicKey;
use mobo_core::trust::KeyPair;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ConnectionId, ConnectionIdGenerator, EndpointConfig};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ED25519, UnparsedPublicKey};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom, WebPkiSupportedAlgorithms, ring as provider};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::SigningKey;
use rustls::version::TLS13;
use rustls::{CertificateError, DigitallySignedStruct, Error, PeerIncompatible, SignatureScheme};

/// The name that certificates carry and that nobody looks at: the key is what counts.
pub(super) const SERVER_NAME: &str = "hub.mobo.invalid";

/// What stands before the 32 secret bytes of an ed25519 key in PKCS#8 version 1 (RFC 8410, section 7).
const PKCS8_PREFIX: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// What stands before the 32 bytes of an ed25519 key in a SubjectPublicKeyInfo (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

/// TLS of the hub that holds `keys`; `Err` says why it cannot be made.
pub(super) fn server_tls(keys: &KeyPair) -> Result<QuicServerConfig, String> {
    let der = PrivatePkcs8KeyDer::from([&PKCS8_PREFIX[..], &keys.secret()].concat());
    let certificate = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ED25519)
        .and_then(|key| rcgen::CertificateParams::new([SERVER_NAME.to_owned()])?.self_signed(&key))
        .map_err(|error| format!("no certificate could be made from its key: {error}"))?;
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .and_then(|tls| tls.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], der.into()))
        .map_err(|error| format!("its certificate does not serve: {error}"))?;
    tls.alpn_protocols = vec![mobo_protocol::ALPN.to_vec()];
    tls.max_early_data_size = 0;
    tls.send_tls13_tickets = 0;
    QuicServerConfig::try_from(tls).map_err(|error| error.to_string())
}

/// TLS of a device, for one connection to the hub that holds `hub`. The flag tells whether another key was shown.
pub(super) fn client_tls(hub: PublicKey) -> Result<(QuicClientConfig, Arc<AtomicBool>), String> {
    let refused = Arc::new(AtomicBool::new(false));
    let pin = PinnedKey { hub, refused: refused.clone() };
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(client_provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pin))
        .with_no_client_auth();
    tls.alpn_protocols = vec![mobo_protocol::ALPN.to_vec()];
    // A resumed session would not look at the key again.
    tls.resumption = Resumption::disabled();
    tls.enable_sni = false;
    let tls = QuicClientConfig::try_from(tls).map_err(|error| error.to_string())?;
    Ok((tls, refused))
}

/// The endpoint of the hub that holds `keys`.
///
/// The key of its stateless resets follows from its own, so that a hub that was killed tells its devices at their next packet that it has
/// lost them; with a random key they would wait for their timeout.
pub(super) fn server_endpoint(keys: &KeyPair) -> Result<EndpointConfig, String> {
    let identity = hmac::Key::new(hmac::HMAC_SHA256, &keys.secret());
    let reset_key = hmac::sign(&identity, b"mobo quic reset 1");
    let seed = ring::rand::generate::<[u8; 32]>(&SystemRandom::new()).map_err(|_| "the system gives no randomness".to_owned())?;
    let ids = ConnectionIds { seed: Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &seed.expose())), next: Arc::default() };
    let mut endpoint = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, reset_key.as_ref())));
    endpoint.cid_generator(move || Box::new(ids.clone()));
    Ok(endpoint)
}

/// What a device needs of TLS and no more: the hub's key is ed25519, and both ends prefer X25519. All that ring has for other curves and for
/// RSA then stays out of the device's binary.
fn client_provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            provider::cipher_suite::TLS13_AES_256_GCM_SHA384,
            provider::cipher_suite::TLS13_AES_128_GCM_SHA256,
            provider::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![provider::kx_group::X25519],
        // The pinned key is looked at by itself.
        signature_verification_algorithms: WebPkiSupportedAlgorithms { all: &[], mapping: &[] },
        secure_random: &Randomness,
        key_provider: &NoKeys,
    }
}

/// The system's randomness.
#[derive(Debug)]
struct Randomness;

impl SecureRandom for Randomness {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), GetRandomFailed> {
        ring::rand::SecureRandom::fill(&SystemRandom::new(), buffer).map_err(|_| GetRandomFailed)
    }
}

/// A device shows no certificate: it signs inside the session.
#[derive(Debug)]
struct NoKeys;

impl KeyProvider for NoKeys {
    fn load_private_key(&self, _: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        Err(Error::General("a device has no key for TLS".to_owned()))
    }
}

/// Accepts one key, whatever else its certificate says.
#[derive(Debug)]
struct PinnedKey {
    hub: PublicKey,
    refused: Arc<AtomicBool>,
}

impl ServerCertVerifier for PinnedKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = ParsedCertificate::try_from(end_entity).map(|certificate| certificate.subject_public_key_info());
        if shown.is_ok_and(|shown| *shown == *[&SPKI_PREFIX[..], self.hub.as_bytes()].concat()) {
            return Ok(ServerCertVerified::assertion());
        }
        self.refused.store(true, Ordering::Relaxed);
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls13RequiredForQuic))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        _certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // The certificate holds the pinned key, or it was refused above.
        let key = UnparsedPublicKey::new(&ED25519, self.hub.as_bytes());
        if signature.scheme != SignatureScheme::ED25519 || key.verify(message, signature.signature()).is_err() {
            return Err(Error::InvalidCertificate(CertificateError::BadSignature));
        }
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// Unpredictable connection ids. None is refused unseen, because those of an earlier run must be answered with a reset.
#[derive(Clone)]
struct ConnectionIds {
    seed: Arc<hmac::Key>,
    next: Arc<AtomicU64>,
}

impl ConnectionIds {
    const BYTES: usize = 8;
}

impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let hash = hmac::sign(&self.seed, &number.to_le_bytes());
        ConnectionId::new(hash.as_ref().get(..Self::BYTES).unwrap_or_default())
    }

    fn cid_len(&self) -> usize {
        Self::BYTES
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}
