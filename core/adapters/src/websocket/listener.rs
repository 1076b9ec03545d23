//! The hub's side: takes links.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mobo_core::future::BoxFuture;
use mobo_core::limits;
use mobo_core::link::{Link, LinkError, Listener};
use mobo_core::trust::KeyPair;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::way::{Bytes, config, halves};
use crate::sealed::{OpenLinks, Setup, accept};

/// Takes links from devices, on connections that somebody else accepted and upgraded.
#[derive(Debug)]
pub struct WsListener {
    address: SocketAddr,
    keys: KeyPair,
    keepalive: Duration,
    links: OpenLinks,
    handshakes: Arc<Semaphore>,
}

impl WsListener {
    /// The listener of the hub that holds `keys`, behind `address`.
    #[must_use]
    pub fn new(address: SocketAddr, keys: &KeyPair) -> Self {
        Self::with_keepalive(address, keys, limits::KEEPALIVE)
    }

    /// The same; a peer that is silent for 1.5 times `keepalive` is dead. Both ends should agree.
    #[must_use]
    pub fn with_keepalive(address: SocketAddr, keys: &KeyPair, keepalive: Duration) -> Self {
        let handshakes = Arc::new(Semaphore::new(limits::HANDSHAKES_MAX));
        Self { address, keys: keys.clone(), keepalive, links: OpenLinks::default(), handshakes }
    }

    /// Makes a link of a connection that speaks WebSocket from here on; `peer` is who it is, for people. Ready when that has worked or
    /// failed.
    pub async fn take<S: Bytes>(&self, stream: S, peer: String) {
        // More than that at the same time are dropped, which tells the device to come again.
        let Ok(_place) = self.handshakes.try_acquire() else { return };
        if !self.links.is_open() {
            return;
        }
        let (carrier, source) = halves(WebSocketStream::from_raw_socket(stream, Role::Server, Some(config())).await);
        let setup = Setup { is_device: false, peer: peer.clone(), keepalive: self.keepalive, packet_bytes_max: limits::PACKET_BYTES_MAX };
        match timeout(limits::HELLO_TIMEOUT, accept(carrier, source, &self.keys, setup)).await {
            Ok(Ok(link)) => self.links.ready(link),
            Ok(Err(error)) => tracing::debug!(peer, %error, "a newcomer did not become a link"),
            Err(_) => tracing::debug!(peer, "a newcomer took too long to become a link"),
        }
    }
}

impl Listener for WsListener {
    fn accept(&self) -> BoxFuture<'_, Result<Box<dyn Link>, LinkError>> {
        Box::pin(async move { self.links.next().await.map(|link| Box::new(link) as Box<dyn Link>) })
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.links.close())
    }
}
