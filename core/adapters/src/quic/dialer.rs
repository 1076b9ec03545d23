//! The device's side: opens links.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mobo_core::future::BoxFuture;
use mobo_core::ids::PublicKey;
use mobo_core::limits;
use mobo_core::link::{Dialer, Link, LinkError};
use quinn::{ClientConfig, Endpoint};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::credentials::{SERVER_NAME, client_tls};
use super::ended::unreachable;
use super::link::QuicLink;
use super::transport::QuicSettings;

/// Opens links to hubs. Each link has a socket of its own.
#[derive(Clone, Debug, Default)]
pub struct QuicDialer {
    bind: Option<SocketAddr>,
    settings: QuicSettings,
}

impl QuicDialer {
    /// A dialer that sends from `bind`, or from wherever the system sees fit. A `bind` of one IP version reaches only hubs of that version.
    #[must_use]
    pub fn new(bind: Option<SocketAddr>) -> Self {
        Self::with_settings(bind, QuicSettings::default())
    }

    /// The same with other settings.
    #[must_use]
    pub const fn with_settings(bind: Option<SocketAddr>, settings: QuicSettings) -> Self {
        Self { bind, settings }
    }

    /// Tries all addresses behind `address`: the next one joins when the last one failed or takes its time. The first link wins.
    async fn open(&self, address: &str, hub: PublicKey) -> Result<QuicLink, LinkError> {
        let mut candidates = self.resolve(address).await?.into_iter();
        let mut attempts = JoinSet::new();
        let mut failure = unreachable_because(address, "its name has no address that this device can reach");
        loop {
            match candidates.next() {
                Some(candidate) => {
                    let (dialer, address) = (self.clone(), address.to_owned());
                    attempts.spawn(async move { dialer.open_at(candidate, &address, hub).await });
                }
                None if attempts.is_empty() => return Err(failure),
                None => {}
            }
            let patience = if candidates.len() > 0 { limits::DIAL_STAGGER } else { limits::HELLO_TIMEOUT };
            match timeout(patience, attempts.join_next()).await {
                Ok(Some(Ok(Ok(link)))) => return Ok(link),
                // That somebody else answers is worth more to a person than that another address is dead.
                Ok(Some(Ok(Err(error)))) if !matches!(failure, LinkError::WrongPeer { .. }) => failure = error,
                Ok(Some(Ok(Err(_)) | Err(_)) | None) | Err(_) => {}
            }
        }
    }

    async fn open_at(&self, hub_address: SocketAddr, address: &str, hub: PublicKey) -> Result<QuicLink, LinkError> {
        let because = |why: String| unreachable_because(address, &why);
        let any = if hub_address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let bind = self.bind.unwrap_or(SocketAddr::new(any, 0));
        let endpoint = Endpoint::client(bind).map_err(|error| because(format!("no socket can be opened at {bind}: {error}")))?;
        let (tls, refused) = client_tls(hub).map_err(because)?;
        let mut config = ClientConfig::new(Arc::new(tls));
        config.transport_config(self.settings.transport());
        let connecting = endpoint.connect_with(config, hub_address, SERVER_NAME).map_err(|error| because(error.to_string()))?;
        match timeout(limits::HELLO_TIMEOUT, connecting).await {
            Ok(Ok(connection)) => QuicLink::dialled(connection, endpoint, address).await,
            Ok(Err(_)) if refused.load(Ordering::Relaxed) => Err(LinkError::WrongPeer { peer: address.to_owned() }),
            Ok(Err(error)) => Err(unreachable(address, &error)),
            Err(_) => Err(unreachable(address, &quinn::ConnectionError::TimedOut)),
        }
    }

    async fn resolve(&self, address: &str) -> Result<Vec<SocketAddr>, LinkError> {
        let found = timeout(limits::HELLO_TIMEOUT, tokio::net::lookup_host(address)).await;
        let found = found.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        let found = found.map_err(|error| unreachable_because(address, &format!("its name cannot be resolved: {error}")))?;
        let can_reach = |hub: &SocketAddr| self.bind.is_none_or(|bind| bind.is_ipv4() == hub.is_ipv4());
        Ok(found.filter(can_reach).take(limits::DIAL_ADDRESSES_MAX).collect())
    }
}

impl Dialer for QuicDialer {
    fn transport(&self) -> &'static str {
        "quic"
    }

    fn dial(&self, address: String, hub: PublicKey) -> BoxFuture<'_, Result<Box<dyn Link>, LinkError>> {
        Box::pin(async move { self.open(&address, hub).await.map(|link| Box::new(link) as Box<dyn Link>) })
    }
}

fn unreachable_because(peer: &str, why: &str) -> LinkError {
    LinkError::Unreachable { peer: peer.to_owned(), why: why.to_owned() }
}
