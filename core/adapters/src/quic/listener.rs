//! The hub's side: takes links.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use mobo_core::future::BoxFuture;
use mobo_core::limits;
use mobo_core::link::{Link, LinkError, Listener};
use mobo_core::trust::KeyPair;
use quinn::{Endpoint, Incoming, ServerConfig, TokioRuntime};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::CODE_DONE;
use super::credentials::{server_endpoint, server_tls};
use super::ended::unreachable;
use super::link::QuicLink;
use super::transport::QuicSettings;
use crate::reasons::{bind_advice, reason_bytes};

/// Takes links from devices.
///
/// Handshakes run beside each other while somebody waits in `accept`; a newcomer that fails or dawdles holds up nobody. Under load
/// newcomers must prove their address first, and above the limits they are refused.
#[derive(Debug)]
pub struct QuicListener {
    endpoint: Endpoint,
    address: SocketAddr,
    limits: Admission,
    handshakes: Mutex<JoinSet<Result<QuicLink, LinkError>>>,
}

/// How many are let in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Admission {
    /// Connections, those in their handshake included.
    pub(super) connections_max: usize,
    /// Handshakes in work.
    pub(super) handshakes_max: usize,
    /// Handshakes in work of peers that have not proved their address.
    pub(super) handshakes_unproven_max: usize,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            connections_max: limits::SESSIONS_MAX,
            handshakes_max: limits::HANDSHAKES_MAX,
            handshakes_unproven_max: limits::HANDSHAKES_UNPROVEN_MAX,
        }
    }
}

impl QuicListener {
    /// Listens at `address` as the hub that holds `keys`; port 0 takes a free one. To be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`LinkError::CannotListen`].
    pub fn bind(address: SocketAddr, keys: &KeyPair) -> Result<Self, LinkError> {
        Self::bind_with(address, keys, QuicSettings::default())
    }

    /// The same with other settings.
    ///
    /// # Errors
    ///
    /// [`LinkError::CannotListen`].
    pub fn bind_with(address: SocketAddr, keys: &KeyPair, settings: QuicSettings) -> Result<Self, LinkError> {
        Self::bind_within(address, keys, settings, Admission::default())
    }

    pub(super) fn bind_within(address: SocketAddr, keys: &KeyPair, settings: QuicSettings, limits: Admission) -> Result<Self, LinkError> {
        let cannot = |why: String| LinkError::CannotListen { address, why };
        let mut config = ServerConfig::with_crypto(Arc::new(server_tls(keys).map_err(cannot)?));
        config
            .transport_config(settings.transport())
            .max_incoming(limits::INCOMING_MAX)
            .incoming_buffer_size(limits::INCOMING_BYTES_MAX)
            .incoming_buffer_size_total(limits::INCOMING_BYTES_MAX * limits::INCOMING_MAX as u64);
        let endpoint = server_endpoint(keys).map_err(cannot)?;
        let (endpoint, address) = UdpSocket::bind(address)
            .and_then(|socket| Endpoint::new(endpoint, Some(config), socket, Arc::new(TokioRuntime)))
            .and_then(|endpoint| endpoint.local_addr().map(|address| (endpoint, address)))
            .map_err(|error| cannot(bind_advice(&error, "UDP")))?;
        Ok(Self { endpoint, address, limits, handshakes: Mutex::default() })
    }

    async fn next(&self) -> Result<QuicLink, LinkError> {
        let mut handshakes = self.handshakes.lock().await;
        loop {
            tokio::select! {
                Some(done) = handshakes.join_next() => match done {
                    Ok(Ok(link)) => return Ok(link),
                    Ok(Err(error)) => tracing::debug!(%error, "a newcomer did not become a link"),
                    Err(error) => tracing::error!(%error, "a handshake was cut"),
                },
                incoming = self.endpoint.accept(), if handshakes.len() < self.limits.handshakes_max => match incoming {
                    Some(incoming) => self.admit(incoming, &mut handshakes),
                    None => return Err(LinkError::Closed("this listener was closed".into())),
                },
            }
        }
    }

    fn admit(&self, incoming: Incoming, handshakes: &mut JoinSet<Result<QuicLink, LinkError>>) {
        if self.endpoint.open_connections() >= self.limits.connections_max {
            tracing::warn!(peer = %incoming.remote_address(), max = self.limits.connections_max, "refused a newcomer: the hub is full");
            incoming.refuse();
        } else if handshakes.len() >= self.limits.handshakes_unproven_max && !incoming.remote_address_validated() && incoming.may_retry() {
            // It fails only where `may_retry` says so.
            let _ = incoming.retry();
        } else {
            handshakes.spawn(handshake(incoming));
        }
    }

    async fn close_all(&self) {
        self.endpoint.close(CODE_DONE, reason_bytes("the hub is stopping"));
        let _ = timeout(limits::LINK_CLOSE_TIMEOUT, self.endpoint.wait_idle()).await;
    }
}

impl Listener for QuicListener {
    fn accept(&self) -> BoxFuture<'_, Result<Box<dyn Link>, LinkError>> {
        Box::pin(async move { self.next().await.map(|link| Box::new(link) as Box<dyn Link>) })
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.close_all())
    }
}

async fn handshake(incoming: Incoming) -> Result<QuicLink, LinkError> {
    let peer = incoming.remote_address().to_string();
    let connection = timeout(limits::HELLO_TIMEOUT, incoming).await.unwrap_or(Err(quinn::ConnectionError::TimedOut));
    QuicLink::accepted(connection.map_err(|error| unreachable(&peer, &error))?)
}
