//! The MQTT client, in the two versions of the protocol that brokers speak. Everything that is rumqttc's is here.

use std::time::Duration;

use mobo_core::limits;
use rumqttc::{mqttbytes, v5};
use tokio::time::{Instant, timeout, timeout_at};

use crate::address::Address;

/// User name and password.
pub(super) type Login = (String, String);

/// How long a publish may wait at the broker.
const MESSAGE_EXPIRY_S: u32 = 60;

/// How long a connection may take to come up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// A connection to a broker that is up.
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) events: Events,
    /// The longest MQTT packet that the broker takes.
    pub(super) packet_bytes_max: usize,
}

/// The sending half.
#[derive(Clone, Debug)]
pub(super) enum Client {
    V5(v5::AsyncClient),
    V4(rumqttc::AsyncClient),
}

/// The half that does the work, and says what comes of it.
pub(super) struct Events {
    events: Either,
    /// When the broker was heard last.
    heard: Instant,
}

enum Either {
    V5(Box<v5::EventLoop>),
    V4(Box<rumqttc::EventLoop>),
}

/// What the broker said.
#[derive(Debug)]
pub(super) enum Event {
    /// The connection is up; with the broker's limit, where it names one.
    Connected(Option<u32>),
    /// The answer to a subscription: whether it is granted.
    Subscribed(bool),
    /// Something was published.
    Message { topic: String, payload: Vec<u8> },
    /// This end has left.
    Left,
}

/// Why a connection is none.
#[derive(Debug)]
pub(super) enum Failure {
    /// The broker does not speak this version, or did not like the first packet enough to answer it.
    Version(String),
    /// It is the embedded broker of another hub.
    WrongHub,
    /// Anything else.
    Other(String),
}

impl Failure {
    pub(super) fn why(self) -> String {
        match self {
            Self::Version(why) | Self::Other(why) => why,
            Self::WrongHub => "it is the broker of another hub".into(),
        }
    }
}

/// Connects to a broker: with MQTT 5, or with 3.1.1 where it does not speak 5. An option `version` of the address names one of them.
pub(super) async fn connect(broker: &Address, login: &Login, id: &str) -> Result<Connection, Failure> {
    let wanted = broker.option("version");
    if wanted != Some("3.1.1") {
        match start(broker, login, id, true).await {
            Ok(connection) => return Ok(connection),
            Err(Failure::Version(_)) if wanted.is_none() => {}
            Err(failure) => return Err(failure),
        }
    }
    start(broker, login, id, false).await
}

async fn start(broker: &Address, login: &Login, id: &str, is_v5: bool) -> Result<Connection, Failure> {
    let (client, events) = if is_v5 { build_v5(broker, login, id) } else { build_v4(broker, login, id) };
    let mut events = Events { events, heard: Instant::now() };
    let connected = async {
        loop {
            if let Event::Connected(limit) = events.next().await? {
                return Ok(limit);
            }
        }
    };
    let limit = match timeout(CONNECT_TIMEOUT, connected).await {
        Ok(connected) => connected?,
        Err(_) => return Err(Failure::Other("the broker does not answer".into())),
    };
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    if limit < limits::PACKET_BYTES_MIN {
        return Err(Failure::Other(format!("the broker takes only {limit} bytes at once, and {} are needed", limits::PACKET_BYTES_MIN)));
    }
    Ok(Connection { client, events, packet_bytes_max: limit })
}

fn packet_limit() -> u32 {
    u32::try_from(limits::PACKET_BYTES_MAX + 1_024).unwrap_or(u32::MAX)
}

fn build_v5(broker: &Address, (user, password): &Login, id: &str) -> (Client, Either) {
    let mut options = v5::MqttOptions::new(id, broker.socket_host(), broker.port);
    options
        .set_credentials(user, password)
        .set_clean_start(true)
        .set_keep_alive(limits::MQTT_KEEPALIVE)
        .set_connection_timeout(CONNECT_TIMEOUT.as_secs())
        .set_session_expiry_interval(Some(0))
        .set_max_packet_size(Some(packet_limit()))
        // Its memory of what is in flight is as large as this; with QoS 0 nothing ever is.
        .set_outgoing_inflight_upper_limit(8);
    let mut network = options.network_options();
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    let (client, events) = v5::AsyncClient::new(options, limits::MQTT_QUEUE_MAX);
    (Client::V5(client), Either::V5(Box::new(events)))
}

fn build_v4(broker: &Address, (user, password): &Login, id: &str) -> (Client, Either) {
    let mut options = rumqttc::MqttOptions::new(id, broker.socket_host(), broker.port);
    let packet = usize::try_from(packet_limit()).unwrap_or(usize::MAX);
    options
        .set_credentials(user, password)
        .set_clean_session(true)
        .set_keep_alive(limits::MQTT_KEEPALIVE)
        .set_max_packet_size(packet, packet)
        .set_inflight(8);
    let (client, mut events) = rumqttc::AsyncClient::new(options, limits::MQTT_QUEUE_MAX);
    events.network_options.set_tcp_nodelay(true);
    events.network_options.set_connection_timeout(CONNECT_TIMEOUT.as_secs());
    (Client::V4(client), Either::V4(Box::new(events)))
}

impl Client {
    /// Publishes a packet; ready when the client has taken it.
    pub(super) async fn publish(&self, topic: &str, payload: Vec<u8>) -> Result<(), String> {
        match self {
            Self::V5(client) => {
                let expiry = v5::mqttbytes::v5::PublishProperties {
                    message_expiry_interval: Some(MESSAGE_EXPIRY_S),
                    ..v5::mqttbytes::v5::PublishProperties::default()
                };
                let published = client.publish_with_properties(topic, v5::mqttbytes::QoS::AtMostOnce, false, payload, expiry);
                published.await.map_err(|error| error.to_string())
            }
            Self::V4(client) => client.publish(topic, mqttbytes::QoS::AtMostOnce, false, payload).await.map_err(|error| error.to_string()),
        }
    }

    /// Asks to hear a topic.
    pub(super) async fn subscribe(&self, filter: &str) -> Result<(), String> {
        match self {
            Self::V5(client) => client.subscribe(filter, v5::mqttbytes::QoS::AtMostOnce).await.map_err(|error| error.to_string()),
            Self::V4(client) => client.subscribe(filter, mqttbytes::QoS::AtMostOnce).await.map_err(|error| error.to_string()),
        }
    }

    /// Leaves, after what was published before.
    pub(super) async fn leave(&self) {
        // It fails where the connection is gone already.
        match self {
            Self::V5(client) => drop(client.disconnect().await),
            Self::V4(client) => drop(client.disconnect().await),
        }
    }
}

impl Connection {
    /// Hears a topic; ready when the broker has granted it.
    pub(super) async fn hear(&mut self, filter: &str) -> Result<(), Failure> {
        self.client.subscribe(filter).await.map_err(Failure::Other)?;
        let granted = async {
            loop {
                if let Event::Subscribed(granted) = self.events.next().await? {
                    return Ok(granted);
                }
            }
        };
        match timeout(CONNECT_TIMEOUT, granted).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => {
                Err(Failure::Other(format!("the broker does not permit to hear {filter}: see the rights that it gives this user")))
            }
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(Failure::Other("the broker does not answer".into())),
        }
    }
}

impl Events {
    /// The next event. After an error the connection is over: this client is never reconnected, but built anew, because it can end up in
    /// reconnecting for ever. So it is, too, when the broker gives no sign of life.
    pub(super) async fn next(&mut self) -> Result<Event, Failure> {
        loop {
            let deadline = self.heard + 3 * limits::MQTT_KEEPALIVE;
            let polled = timeout_at(deadline, async {
                match &mut self.events {
                    Either::V5(events) => events.poll().await.map(read_v5).map_err(|error| failure_v5(&error)),
                    Either::V4(events) => events.poll().await.map(read_v4).map_err(|error| failure_v4(&error)),
                }
            });
            let (is_heard, event) = polled.await.map_err(|_| Failure::Other("the broker has fallen silent".into()))??;
            if is_heard {
                self.heard = Instant::now();
            }
            if let Some(event) = event {
                return Ok(event);
            }
        }
    }
}

/// Whether the broker said it, and what it means here.
type Read = (bool, Option<Event>);

#[allow(clippy::wildcard_enum_match_arm, reason = "everything else is the client's own business")]
fn read_v5(event: v5::Event) -> Read {
    use v5::mqttbytes::v5::{Packet, SubscribeReasonCode};
    match event {
        v5::Event::Incoming(packet) => {
            let event = match packet {
                Packet::ConnAck(ack) => Some(Event::Connected(ack.properties.and_then(|properties| properties.max_packet_size))),
                Packet::SubAck(ack) => {
                    Some(Event::Subscribed(ack.return_codes.iter().all(|code| matches!(code, SubscribeReasonCode::Success(_)))))
                }
                Packet::Publish(publish) => {
                    let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                    Some(Event::Message { topic, payload: publish.payload.into() })
                }
                _ => None,
            };
            (true, event)
        }
        v5::Event::Outgoing(rumqttc::Outgoing::Disconnect) => (false, Some(Event::Left)),
        v5::Event::Outgoing(_) => (false, None),
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "everything else is the client's own business")]
fn read_v4(event: rumqttc::Event) -> Read {
    use rumqttc::{Packet, SubscribeReasonCode};
    match event {
        rumqttc::Event::Incoming(packet) => {
            let event = match packet {
                Packet::ConnAck(_) => Some(Event::Connected(None)),
                Packet::SubAck(ack) => {
                    Some(Event::Subscribed(ack.return_codes.iter().all(|code| matches!(code, SubscribeReasonCode::Success(_)))))
                }
                Packet::Publish(publish) => Some(Event::Message { topic: publish.topic, payload: publish.payload.into() }),
                _ => None,
            };
            (true, event)
        }
        rumqttc::Event::Outgoing(rumqttc::Outgoing::Disconnect) => (false, Some(Event::Left)),
        rumqttc::Event::Outgoing(_) => (false, None),
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "everything else is for people only")]
fn failure_v5(error: &v5::ConnectionError) -> Failure {
    use v5::mqttbytes::v5::ConnectReturnCode as Code;
    match error {
        v5::ConnectionError::ConnectionRefused(Code::UnsupportedProtocolVersion | Code::RefusedProtocolVersion | Code::MalformedPacket)
        | v5::ConnectionError::NotConnAck(_) => Failure::Version(error.to_string()),
        v5::ConnectionError::ConnectionRefused(Code::UseAnotherServer) => Failure::WrongHub,
        v5::ConnectionError::ConnectionRefused(
            Code::NotAuthorized | Code::BadUserNamePassword | Code::Banned | Code::ClientIdentifierNotValid,
        ) => refused(),
        v5::ConnectionError::Io(io) if io.kind() == std::io::ErrorKind::UnexpectedEof => Failure::Version(error.to_string()),
        v5::ConnectionError::MqttState(v5::StateError::Deserialization(_)) => Failure::Version(error.to_string()),
        v5::ConnectionError::Timeout(_) => Failure::Other("the broker does not answer".into()),
        _ => Failure::Other(error.to_string()),
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "everything else is for people only")]
pub(super) fn failure_v4(error: &rumqttc::ConnectionError) -> Failure {
    use rumqttc::ConnectReturnCode as Code;
    match error {
        rumqttc::ConnectionError::ConnectionRefused(Code::NotAuthorized | Code::BadUserNamePassword | Code::BadClientId) => refused(),
        rumqttc::ConnectionError::NetworkTimeout => Failure::Other("the broker does not answer".into()),
        _ => Failure::Other(error.to_string()),
    }
}

fn refused() -> Failure {
    Failure::Other("the broker refuses this user: give its user name and password in the address, mqtt://user:password@host".into())
}
