//! The hub's side: takes links.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mobo_core::future::BoxFuture;
use mobo_core::ids::{DeviceId, ProjectId};
use mobo_core::limits;
use mobo_core::link::{Link, LinkError, Listener};
use mobo_core::trust::KeyPair;
use mobo_protocol::sealed::{LinkId, Packet, Refusal, RefusalReason, answer, hub_filter, topic};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::client::{Client, Connection, Event, Failure, connect};
use super::packet_bytes_max;
use crate::address::Address;
use crate::sealed::{Carrier, Conversation, OpenLinks, SealedLink, Setup, random};

/// What a hub needs to take links over a broker. It prints without user name and password.
#[derive(Clone)]
pub struct MqttSettings {
    /// The broker: `mqtt://user:password@host:port`.
    pub broker: String,
    /// User name and password, where the address has none.
    pub login: (String, String),
    /// Where the hub itself listens, if at all: its embedded broker.
    pub address: SocketAddr,
    /// The project whose devices it hears.
    pub project: ProjectId,
    /// A peer that is silent for 1.5 times this long is dead.
    pub keepalive: Duration,
}

impl fmt::Debug for MqttSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MqttSettings").field("address", &self.address).field("project", &self.project).finish_non_exhaustive()
    }
}

/// Takes links from devices over a broker. It comes back to a broker that goes away, for as long as it is open.
#[derive(Debug)]
pub struct MqttListener {
    hub: Arc<Hub>,
    connected: watch::Receiver<Result<(), String>>,
    serving: tokio::sync::Mutex<JoinSet<()>>,
}

#[derive(Debug)]
struct Hub {
    keys: KeyPair,
    broker: Address,
    settings: MqttSettings,
    known: Mutex<BTreeMap<LinkId, Known>>,
    links: OpenLinks,
}

/// A link by its name.
#[derive(Debug)]
struct Known {
    conversation: Arc<Conversation>,
    /// Until its first packet has arrived.
    opening: Option<SealedLink>,
}

impl MqttListener {
    /// The listener of the hub that holds `keys`. To be called inside a tokio runtime. It connects in the background: see
    /// [`Self::connected`].
    ///
    /// # Errors
    ///
    /// [`LinkError::Unreachable`] when the broker's address cannot be read.
    pub fn start(keys: &KeyPair, settings: MqttSettings) -> Result<Self, LinkError> {
        let broker = Address::parse(&settings.broker, &[("mqtt", 1883)])?;
        let hub = Arc::new(Hub { keys: keys.clone(), broker, settings, known: Mutex::default(), links: OpenLinks::default() });
        let (state, connected) = watch::channel(Err("it is not connected yet".to_owned()));
        let mut serving = JoinSet::new();
        serving.spawn(Arc::clone(&hub).serve(state));
        Ok(Self { hub, connected, serving: tokio::sync::Mutex::new(serving) })
    }

    /// Whether the broker is there, and if not, why.
    #[must_use]
    pub fn connected(&self) -> watch::Receiver<Result<(), String>> {
        self.connected.clone()
    }

    /// The broker's address, without user name and password.
    #[must_use]
    pub fn broker(&self) -> String {
        self.hub.broker.to_string()
    }
}

impl Listener for MqttListener {
    fn accept(&self) -> BoxFuture<'_, Result<Box<dyn Link>, LinkError>> {
        Box::pin(async move { self.hub.links.next().await.map(|link| Box::new(link) as Box<dyn Link>) })
    }

    fn address(&self) -> SocketAddr {
        self.hub.settings.address
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.hub.links.close().await;
            self.serving.lock().await.shutdown().await;
        })
    }
}

impl Hub {
    /// Connects again and again.
    async fn serve(self: Arc<Self>, state: watch::Sender<Result<(), String>>) {
        let mut pause = limits::BROKER_RETRY_MIN;
        loop {
            let why = match self.connect().await {
                Ok((up, down)) => {
                    pause = limits::BROKER_RETRY_MIN;
                    tracing::info!(broker = %self.broker, "connected to the broker");
                    let _ = state.send_replace(Ok(()));
                    self.carry(up, down).await
                }
                Err(why) => why,
            };
            // What was under way is lost, so no link can go on.
            self.links.lost("the connection to the broker broke");
            self.known().clear();
            let told = state.send_if_modified(|state| std::mem::replace(state, Err(why.clone())) != Err(why.clone()));
            if told {
                tracing::warn!(broker = %self.broker, why, "not connected to the broker: trying again");
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(limits::BROKER_RETRY_MAX);
        }
    }

    async fn connect(&self) -> Result<(Connection, Connection), String> {
        let login = self.broker.login.as_ref().unwrap_or(&self.settings.login);
        let id = format!("hub-{:016x}", u64::from_be_bytes(random().map_err(|error| error.to_string())?));
        let (publishes, hears) = (format!("{id}-d"), format!("{id}-u"));
        let down = connect(&self.broker, login, &publishes).await.map_err(Failure::why)?;
        let mut up = connect(&self.broker, login, &hears).await.map_err(Failure::why)?;
        up.hear(&hub_filter(self.settings.project)).await.map_err(Failure::why)?;
        Ok((up, down))
    }

    /// Hands over packets until a connection breaks; says why it did.
    async fn carry(self: &Arc<Self>, mut up: Connection, down: Connection) -> String {
        let limit = up.packet_bytes_max.min(down.packet_bytes_max);
        let Connection { client, events: mut down_events, .. } = down;
        let publishing = async {
            loop {
                if let Err(failure) = down_events.next().await {
                    return failure.why();
                }
            }
        };
        let hearing = async {
            loop {
                match up.events.next().await {
                    Ok(Event::Message { topic, payload }) => self.packet(&client, limit, &topic, &payload),
                    Ok(Event::Connected(_) | Event::Subscribed(_) | Event::Left) => {}
                    Err(failure) => return failure.why(),
                }
            }
        };
        tokio::select! {
            why = publishing => why,
            why = hearing => why,
        }
    }

    /// Takes in what a device published. Never waits.
    fn packet(self: &Arc<Self>, client: &Client, limit: usize, heard_on: &str, payload: &[u8]) {
        match Packet::decode(payload) {
            Ok(Packet::Open(open)) => self.open(client, limit, heard_on, open),
            Ok(Packet::Sealed(link, sealed)) => {
                let mut known = self.known();
                let Some(found) = known.get_mut(&link) else { return };
                if found.conversation.packet(sealed) {
                    let opened = found.opening.take();
                    drop(known);
                    opened.into_iter().for_each(|link| self.links.ready(link));
                }
            }
            Ok(Packet::Accept(..) | Packet::Refuse(..)) | Err(_) => {}
        }
    }

    fn open(self: &Arc<Self>, client: &Client, limit: usize, heard_on: &str, open: &[u8]) {
        let Ok(secret) = random() else { return };
        // The topic says who the broker thinks it is: an answer goes there and nowhere else.
        let Some(down) = heard_on.strip_suffix('u').map(|stem| format!("{stem}d")) else { return };
        let away = |link, first| Away { hub: Arc::clone(self), client: client.clone(), topic: down.clone(), link, first: Some(first) };
        let packet_bytes_max = packet_bytes_max(limit, &down);
        let (accept, agreed) = match answer(&self.keys, open, secret, packet_bytes_max) {
            Ok(agreed) => agreed,
            Err((packet, refusal)) => {
                tracing::debug!(topic = heard_on, detail = refusal.detail, "an opening was refused");
                packet.into_iter().for_each(|packet| away(LinkId([0; 8]), packet).refuse());
                return;
            }
        };
        let device = DeviceId::of(&agreed.device);
        if heard_on != topic(self.settings.project, device, true) {
            tracing::info!(topic = heard_on, %device, "a device asked for a link on the topic of another");
            return;
        }
        let link = agreed.link;
        let mut known = self.known();
        // It may have been carried twice.
        if known.contains_key(&link) || !self.links.is_open() {
            return;
        }
        let opening = known.values().filter(|known| known.opening.is_some()).count();
        if opening >= limits::LINKS_OPENING_MAX {
            let refusal = Refusal { reason: RefusalReason::Busy, detail: "the hub has too many links in work".into() };
            return away(link, Packet::Refuse(link, refusal).encode()).refuse();
        }
        let setup = Setup {
            is_device: false,
            peer: format!("{device} over {}", self.broker),
            keepalive: self.settings.keepalive,
            packet_bytes_max,
        };
        let (started, conversation) = SealedLink::start(agreed, Box::new(away(link, accept)), setup);
        known.insert(link, Known { conversation, opening: Some(started) });
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<LinkId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Publishes one link's packets to its device.
struct Away {
    hub: Arc<Hub>,
    client: Client,
    topic: String,
    link: LinkId,
    /// The answer to the opening, before everything else.
    first: Option<Vec<u8>>,
}

impl Away {
    /// Sends the first packet alone, and does not wait for it.
    fn refuse(mut self) {
        tokio::spawn(async move {
            if let Some(packet) = self.first.take() {
                let _ = self.client.publish(&self.topic, packet).await;
            }
        });
    }
}

impl Carrier for Away {
    fn send(&mut self, packet: Vec<u8>) -> BoxFuture<'_, Result<(), LinkError>> {
        Box::pin(async move {
            for packet in self.first.take().into_iter().chain([packet]) {
                self.client.publish(&self.topic, packet).await.map_err(LinkError::Closed)?;
            }
            Ok(())
        })
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let forgotten = self.hub.known().remove(&self.link);
            drop(forgotten);
        })
    }
}
