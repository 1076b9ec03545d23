//! Which way leads to the hub: QUIC where it gets through, else MQTT, else WebSocket.
//!
//! The preferred transport gets a head start of [`limits::FALLBACK_AFTER`]; then the next one is tried beside it, and the first link wins. What
//! worked is remembered, also over a restart, and goes first next time; after [`limits::TRANSPORT_RETRY`] the preferred one is asked again.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mobo_adapters::mqtt::MqttDialer;
use mobo_adapters::quic::QuicDialer;
use mobo_adapters::websocket::WsDialer;
use mobo_core::future::BoxFuture;
use mobo_core::ids::{ProjectId, PublicKey};
use mobo_core::limits;
use mobo_core::link::{Dialer, Link, LinkError};
use mobo_core::trust::KeyPair;
use mobo_runtime::config::listed;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

/// A transport, the preferred one first.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Transport {
    /// QUIC, over UDP.
    Quic,
    /// MQTT, over a broker.
    Mqtt,
    /// WebSocket, through proxies.
    Ws,
}

impl Transport {
    const ALL: [Self; 3] = [Self::Quic, Self::Mqtt, Self::Ws];

    /// The word in settings and in `status`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Mqtt => "mqtt",
            Self::Ws => "ws",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|transport| transport.word() == word)
    }

    /// What an address is for: `host:port` is QUIC's.
    fn of(address: &str) -> Self {
        match address.split_once("://").map(|(scheme, _)| scheme) {
            Some("mqtt" | "mqtts") => Self::Mqtt,
            Some("ws" | "wss" | "http" | "https") => Self::Ws,
            Some(_) | None => Self::Quic,
        }
    }
}

/// Makes the dialer of one transport for a device of a project; `None` where it needs to know the project, and there is none.
type Make = fn(&KeyPair, Option<ProjectId>, Transport) -> Option<Box<dyn Dialer>>;

/// What came of asking one transport.
type Attempt = (Transport, Result<Box<dyn Link>, LinkError>);

/// All ways to the hub, as one dialer: it takes several addresses at once, with commas between them.
pub struct Routes {
    keys: KeyPair,
    /// The only transport, where the settings name one.
    only: Option<Transport>,
    /// Where what worked is written down.
    file: Option<PathBuf>,
    make: Make,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    project: Option<ProjectId>,
    /// The transport of the last link.
    current: Option<Transport>,
    /// What worked where the preferred transport did not.
    detour: Option<Detour>,
}

#[derive(Clone, Debug)]
struct Detour {
    transport: Transport,
    /// Why the preferred one was not taken.
    why: String,
    /// When the preferred one is asked again.
    until: Instant,
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes").field("only", &self.only).field("known", &self.known).finish_non_exhaustive()
    }
}

impl Routes {
    /// The ways of the device that holds `keys`. `choice` is `auto` or a transport's word; what worked is kept in `file`.
    #[must_use]
    pub fn new(keys: KeyPair, choice: &str, file: Option<PathBuf>) -> Self {
        Self::with(keys, Transport::from_word(choice), file, dialer)
    }

    fn with(keys: KeyPair, only: Option<Transport>, file: Option<PathBuf>, make: Make) -> Self {
        let detour = file.as_ref().and_then(|file| std::fs::read_to_string(file).ok()).and_then(|text| {
            let (word, why) = text.split_once('\n')?;
            let (transport, until) = (Transport::from_word(word)?, Instant::now() + limits::TRANSPORT_RETRY);
            Some(Detour { transport, why: why.trim_end().to_owned(), until })
        });
        let known = Mutex::new(Known { detour: detour.filter(|_| only.is_none()), ..Known::default() });
        Self { keys, only, file, make, known }
    }

    /// Says which project the device belongs to: MQTT needs it.
    pub fn belong_to(&self, project: Option<ProjectId>) {
        self.known().project = project;
    }

    /// The addresses by transport, in the order in which they are tried.
    fn plan(&self, addresses: &str) -> Vec<(Transport, Vec<String>)> {
        let addresses: Vec<&str> = listed(addresses).collect();
        let mut order = Transport::ALL.to_vec();
        if let Some(detour) = self.known().detour.as_ref().filter(|detour| detour.until > Instant::now()) {
            order.sort_by_key(|transport| *transport != detour.transport);
        }
        order.retain(|transport| self.only.is_none_or(|only| only == *transport));
        let of = |transport: Transport| {
            let fits = |address: &&&str| Transport::of(address) == transport;
            (transport, addresses.iter().filter(fits).map(|address| (*address).to_owned()).collect::<Vec<_>>())
        };
        order.into_iter().map(of).filter(|(_, addresses)| !addresses.is_empty()).collect()
    }

    async fn open(&self, addresses: &str, hub: PublicKey) -> Result<Box<dyn Link>, LinkError> {
        let plan = self.plan(addresses);
        let preferred = plan.iter().map(|(transport, _)| *transport).min();
        let mut left = plan.into_iter();
        let mut attempts: JoinSet<Attempt> = JoinSet::new();
        let mut failures: Vec<(Transport, LinkError)> = Vec::new();
        let mut begun = Vec::new();
        loop {
            if let Some((transport, addresses)) = left.next() {
                begun.push(transport);
                match (self.make)(&self.keys, self.project(), transport) {
                    Some(dialer) => drop(attempts.spawn(async move { (transport, try_each(dialer.as_ref(), addresses, hub).await) })),
                    None => continue,
                }
            } else if attempts.is_empty() {
                return Err(first_failure(failures, self.only));
            }
            let patience =
                if left.len() > 0 { Instant::now() + limits::FALLBACK_AFTER } else { Instant::now() + Duration::from_secs(3_600) };
            match timeout_at(patience, attempts.join_next()).await {
                Ok(Some(Ok((transport, Ok(link))))) => {
                    self.opened(transport, preferred.filter(|preferred| begun.contains(preferred)), &failures);
                    return Ok(link);
                }
                Ok(Some(Ok((transport, Err(error))))) => failures.push((transport, error)),
                Ok(Some(Err(_)) | None) | Err(_) => {}
            }
        }
    }

    /// Remembers what worked. `asked` is the preferred transport, if it was asked.
    fn opened(&self, transport: Transport, asked: Option<Transport>, failures: &[(Transport, LinkError)]) {
        let mut known = self.known();
        known.current = Some(transport);
        let Some(asked) = asked else { return };
        if asked == transport {
            if known.detour.take().is_some() {
                self.write_down(None);
            }
            return;
        }
        let failed = failures.iter().find(|(failed, _)| *failed == asked);
        let why = failed.map_or_else(
            || {
                let advice =
                    if asked == Transport::Quic { ": UDP is blocked, or the path carries less than 1280 bytes at once" } else { "" };
                format!("{} did not answer within {} s{advice}", asked.word(), limits::FALLBACK_AFTER.as_secs_f32())
            },
            |(_, error)| format!("{}: {error}", asked.word()),
        );
        tracing::warn!(transport = transport.word(), why, "took another way to the hub");
        let detour = Detour { transport, why, until: Instant::now() + limits::TRANSPORT_RETRY };
        self.write_down(Some(&detour));
        known.detour = Some(detour);
    }

    /// Asks the preferred transport again and again, while another one is in use.
    async fn improve(&self, addresses: &str, hub: PublicKey) -> Box<dyn Link> {
        loop {
            let Some((current, until)) = self.on_detour() else { return std::future::pending().await };
            sleep_until(until).await;
            let preferred = self.plan(addresses).into_iter().min_by_key(|(transport, _)| *transport);
            let Some((transport, addresses)) = preferred.filter(|(transport, _)| *transport < current) else {
                return std::future::pending().await;
            };
            let dialer = (self.make)(&self.keys, self.project(), transport);
            if let Some(dialer) = dialer
                && let Ok(link) = try_each(dialer.as_ref(), addresses, hub).await
            {
                self.opened(transport, Some(transport), &[]);
                return link;
            }
            if let Some(detour) = &mut self.known().detour {
                detour.until = Instant::now() + limits::TRANSPORT_RETRY;
            }
        }
    }

    /// The transport in use and when to ask for a better one, where it is not the preferred one.
    fn on_detour(&self) -> Option<(Transport, Instant)> {
        let known = self.known();
        let (current, detour) = (known.current?, known.detour.as_ref()?);
        (current == detour.transport).then_some((current, detour.until))
    }

    /// Losing it costs a device a moment after its next boot, so a failure is only noted.
    fn write_down(&self, detour: Option<&Detour>) {
        let Some(file) = &self.file else { return };
        let written = match detour {
            Some(Detour { transport, why, .. }) => std::fs::write(file, format!("{}\n{why}\n", transport.word())),
            None => std::fs::remove_file(file),
        };
        if let Err(error) = written {
            tracing::debug!(file = %file.display(), %error, "what worked was not written down");
        }
    }

    fn project(&self) -> Option<ProjectId> {
        self.known().project
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Dialer for Routes {
    fn transport(&self) -> &'static str {
        self.known().current.map_or("quic", Transport::word)
    }

    fn dial(&self, addresses: String, hub: PublicKey) -> BoxFuture<'_, Result<Box<dyn Link>, LinkError>> {
        Box::pin(async move { self.open(&addresses, hub).await })
    }

    fn better(&self, addresses: String, hub: PublicKey) -> BoxFuture<'_, Box<dyn Link>> {
        Box::pin(async move { self.improve(&addresses, hub).await })
    }

    fn detour(&self) -> Option<String> {
        let known = self.known();
        let detour = known.detour.as_ref().filter(|detour| known.current == Some(detour.transport))?;
        Some(format!("{} is used, because {}", detour.transport.word(), detour.why))
    }

    fn pushes_in_flight_max(&self) -> usize {
        match self.known().current {
            Some(Transport::Mqtt) => limits::MQTT_PUSHES_IN_FLIGHT_MAX,
            Some(Transport::Quic | Transport::Ws) | None => limits::PUSHES_IN_FLIGHT_MAX,
        }
    }
}

fn dialer(keys: &KeyPair, project: Option<ProjectId>, transport: Transport) -> Option<Box<dyn Dialer>> {
    Some(match transport {
        Transport::Quic => Box::new(QuicDialer::new(None)),
        Transport::Mqtt => Box::new(MqttDialer::new(keys.clone(), project?)),
        Transport::Ws => Box::new(WsDialer::new(keys.clone())),
    })
}

/// The first link that one transport brings, at its addresses one after the other.
async fn try_each(dialer: &dyn Dialer, addresses: Vec<String>, hub: PublicKey) -> Result<Box<dyn Link>, LinkError> {
    let mut last = LinkError::Closed("there is no address".to_owned());
    for address in addresses {
        match dialer.dial(address, hub).await {
            Ok(link) => return Ok(link),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// What a person should hear: that somebody else answers, else why the preferred transport did not work.
fn first_failure(failures: Vec<(Transport, LinkError)>, only: Option<Transport>) -> LinkError {
    let is_foreign = |error: &LinkError| matches!(error, LinkError::WrongPeer { .. });
    failures.into_iter().min_by_key(|(transport, error)| (!is_foreign(error), *transport)).map_or_else(
        || {
            let way = only.map_or_else(String::new, |only| format!(" for link.transport={}", only.word()));
            let why = "no address of it is known here: set hub.url".to_owned();
            LinkError::Unreachable { peer: format!("the hub{way}"), why }
        },
        |(_, error)| error,
    )
}

#[cfg(test)]
mod tests;
