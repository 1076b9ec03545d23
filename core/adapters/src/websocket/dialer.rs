//! The device's side: opens links.

use std::time::Duration;

use mobo_core::future::BoxFuture;
use mobo_core::ids::PublicKey;
use mobo_core::limits;
use mobo_core::link::{Dialer, Link, LinkError};
use mobo_core::trust::KeyPair;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::Error;

use super::way::{config, halves};
use crate::address::Address;
use crate::sealed::{SealedLink, Setup, dial};

/// Opens links to hubs behind addresses such as `ws://host:port/sync/v1`.
#[derive(Clone, Debug)]
pub struct WsDialer {
    keys: KeyPair,
    keepalive: Duration,
}

impl WsDialer {
    /// A dialer of the device that holds `keys`.
    #[must_use]
    pub const fn new(keys: KeyPair) -> Self {
        Self::with_keepalive(keys, limits::KEEPALIVE)
    }

    /// The same; a peer that is silent for 1.5 times `keepalive` is dead. Both ends should agree.
    #[must_use]
    pub const fn with_keepalive(keys: KeyPair, keepalive: Duration) -> Self {
        Self { keys, keepalive }
    }

    async fn open(&self, text: &str, hub: PublicKey) -> Result<SealedLink, LinkError> {
        let address = Address::parse(text, &[("ws", 80)])?;
        let peer = address.to_string();
        let unreachable = |why: String| LinkError::Unreachable { peer: peer.clone(), why };
        let opened = async {
            let stream = TcpStream::connect(address.place()).await.map_err(|error| unreachable(error.to_string()))?;
            // Without it small packets are late, and nothing else.
            let _ = stream.set_nodelay(true);
            let upgraded = client_async_with_config(peer.as_str(), stream, Some(config())).await;
            upgraded.map(|(socket, _)| socket).map_err(|error| unreachable(refused(&error)))
        };
        let socket = timeout(limits::HELLO_TIMEOUT, opened).await;
        let socket = socket.unwrap_or_else(|_| Err(unreachable("nothing there answers".into())))?;
        let (carrier, source) = halves(socket);
        let setup = Setup { is_device: true, peer, keepalive: self.keepalive, packet_bytes_max: limits::PACKET_BYTES_MAX };
        dial(carrier, source, &self.keys, hub, setup).await
    }
}

fn refused(error: &Error) -> String {
    if let Error::Http(response) = error {
        return format!("it answers HTTP {}, where a hub takes WebSocket sessions", response.status());
    }
    format!("it does not take WebSocket sessions: {error}")
}

impl Dialer for WsDialer {
    fn transport(&self) -> &'static str {
        "ws"
    }

    fn dial(&self, address: String, hub: PublicKey) -> BoxFuture<'_, Result<Box<dyn Link>, LinkError>> {
        Box::pin(async move { self.open(&address, hub).await.map(|link| Box::new(link) as Box<dyn Link>) })
    }
}
