//! The device's side: opens links.

use std::time::Duration;

use mobo_core::future::BoxFuture;
use mobo_core::ids::{ProjectId, PublicKey};
use mobo_core::limits;
use mobo_core::link::{Dialer, Link, LinkError};
use mobo_core::trust::KeyPair;
use mobo_protocol::sealed::{broker_password, topic};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::client::{Client, Connection, Event, Failure, connect};
use super::packet_bytes_max;
use crate::address::Address;
use crate::sealed::{Carrier, SealedLink, Setup, Source, dial, random};

/// Opens links to the hub of a project behind addresses such as `mqtt://user:password@broker:1883`.
///
/// Without a user name the device shows the hub's embedded broker who it is. `?version=5` or `?version=3.1.1` asks for one version of MQTT.
#[derive(Clone, Debug)]
pub struct MqttDialer {
    keys: KeyPair,
    project: ProjectId,
    keepalive: Duration,
}

impl MqttDialer {
    /// A dialer of the device that holds `keys`.
    #[must_use]
    pub const fn new(keys: KeyPair, project: ProjectId) -> Self {
        Self::with_keepalive(keys, project, limits::KEEPALIVE)
    }

    /// The same; a peer that is silent for 1.5 times `keepalive` is dead. Both ends should agree.
    #[must_use]
    pub const fn with_keepalive(keys: KeyPair, project: ProjectId, keepalive: Duration) -> Self {
        Self { keys, project, keepalive }
    }

    async fn open(&self, text: &str, hub: PublicKey) -> Result<SealedLink, LinkError> {
        let (carrier, source, setup) = self.way(text, hub).await?;
        dial(carrier, source, &self.keys, hub, setup).await
    }

    /// The way to the broker, without a link on it.
    pub(super) async fn way(&self, text: &str, hub: PublicKey) -> Result<(Box<dyn Carrier>, Box<dyn Source>, Setup), LinkError> {
        let broker = Address::parse(text, &[("mqtt", 1883)])?;
        let peer = broker.to_string();
        let unreachable = |failure: Failure| match failure {
            Failure::WrongHub => LinkError::WrongPeer { peer: peer.clone() },
            Failure::Version(why) | Failure::Other(why) => LinkError::Unreachable { peer: peer.clone(), why },
        };
        let login = broker.login.clone().unwrap_or_else(|| broker_password(&self.keys, &hub));
        let device = self.keys.device();
        let (up_topic, down_topic) = (topic(self.project, device, true), topic(self.project, device, false));
        // A copy of this device must not end its connections: brokers keep one for each id.
        let id = format!("{device}-{:08x}", u32::from_be_bytes(random()?));
        let (up_id, down_id) = (format!("{id}-u"), format!("{id}-d"));
        let (up, down) = tokio::join!(connect(&broker, &login, &up_id), async {
            let mut down = connect(&broker, &login, &down_id).await?;
            down.hear(&down_topic).await.map(|()| down)
        });
        let (up, down) = (up.map_err(unreachable)?, down.map_err(unreachable)?);
        let limit = up.packet_bytes_max.min(down.packet_bytes_max);
        let setup = Setup { is_device: true, peer, keepalive: self.keepalive, packet_bytes_max: packet_bytes_max(limit, &up_topic) };
        let (away, here) = halves(up, down, (up_topic, down_topic));
        Ok((Box::new(away), Box::new(here), setup))
    }
}

impl Dialer for MqttDialer {
    fn transport(&self) -> &'static str {
        "mqtt"
    }

    fn dial(&self, address: String, hub: PublicKey) -> BoxFuture<'_, Result<Box<dyn Link>, LinkError>> {
        Box::pin(async move { self.open(&address, hub).await.map(|link| Box::new(link) as Box<dyn Link>) })
    }
}

fn halves(up: Connection, down: Connection, (up_topic, down_topic): (String, String)) -> (Away, Here) {
    let (arrived, here) = mpsc::channel(limits::MQTT_QUEUE_MAX);
    let Connection { client, events: mut up_events, .. } = up;
    let mut sending = JoinSet::new();
    let lost = arrived.clone();
    sending.spawn(async move {
        loop {
            match up_events.next().await {
                Ok(Event::Left) => return,
                Ok(Event::Connected(_) | Event::Subscribed(_) | Event::Message { .. }) => {}
                Err(failure) => {
                    let _ = lost.send(Err(ended(failure))).await;
                    return;
                }
            }
        }
    });
    let mut hearing = JoinSet::new();
    let Connection { client: hears, events: mut down_events, .. } = down;
    hearing.spawn(async move {
        // The client's half is kept: without it the connection would end.
        let _hears = hears;
        loop {
            let packet = match down_events.next().await {
                Ok(Event::Message { topic, payload }) if topic == down_topic => Ok(payload),
                Ok(Event::Message { .. } | Event::Connected(_) | Event::Subscribed(_) | Event::Left) => continue,
                Err(failure) => Err(ended(failure)),
            };
            let is_over = packet.is_err();
            if arrived.send(packet).await.is_err() || is_over {
                return;
            }
        }
    });
    (Away { client, topic: up_topic, sending }, Here { here, _hearing: hearing })
}

fn ended(failure: Failure) -> LinkError {
    LinkError::Closed(format!("the connection to the broker broke: {}", failure.why()))
}

/// The connection that publishes; its task ends with it.
struct Away {
    client: Client,
    topic: String,
    sending: JoinSet<()>,
}

impl Carrier for Away {
    fn send(&mut self, packet: Vec<u8>) -> BoxFuture<'_, Result<(), LinkError>> {
        Box::pin(async move { self.client.publish(&self.topic, packet).await.map_err(LinkError::Closed) })
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let left = async {
                self.client.leave().await;
                while self.sending.join_next().await.is_some() {}
            };
            let _ = timeout(Duration::from_secs(1), left).await;
        })
    }
}

/// The connection that hears; its task ends with it.
struct Here {
    here: mpsc::Receiver<Result<Vec<u8>, LinkError>>,
    _hearing: JoinSet<()>,
}

impl Source for Here {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<u8>, LinkError>> {
        Box::pin(async move {
            let packet = self.here.recv().await;
            packet.unwrap_or_else(|| Err(LinkError::Closed("the connection to the broker is over".into())))
        })
    }
}
