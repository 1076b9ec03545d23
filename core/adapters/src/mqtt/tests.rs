//! MQTT over the embedded broker against the suite of all links, and what only it can get wrong.

use std::any::Any;
use std::net::SocketAddr;
use std::time::Duration;

use mobo_core::future::BoxFuture;
use mobo_core::ids::{ProjectId, PublicKey};
use mobo_core::limits;
use mobo_core::link::{Channel, Dialer, Link, LinkError, Listener};
use mobo_core::trust::KeyPair;
use mobo_protocol::sealed::{broker_password, hub_filter, topic};
use rumqttc::v5;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use super::client::connect;
use super::{MqttDialer, MqttListener, MqttSettings};
use crate::address::Address;
use crate::broker::EmbeddedBroker;
use crate::link_conformance::{self as conformance, Rig, Wire, frame, soon};
use crate::sealed::tests::{TcpWire, send_raw};

const PROJECT: ProjectId = match ProjectId::new(42) {
    Some(project) => project,
    None => panic!("not 0"),
};
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// A hub's listener and the broker before it.
#[derive(Debug)]
struct Brokered {
    broker: EmbeddedBroker,
    listener: MqttListener,
}

impl Brokered {
    async fn open(keys: &KeyPair, keepalive: Duration) -> Self {
        let broker = EmbeddedBroker::bind(LOOPBACK, keys, PROJECT).await.unwrap();
        let (address, login) = (broker.address(), broker.hub_login());
        let settings = MqttSettings { broker: broker.url(), login, address, project: PROJECT, keepalive };
        let listener = MqttListener::start(keys, settings).unwrap();
        let mut connected = listener.connected();
        soon("the hub's connection", connected.wait_for(Result::is_ok)).await.unwrap();
        Self { broker, listener }
    }
}

impl Listener for Brokered {
    fn accept(&self) -> BoxFuture<'_, Result<Box<dyn Link>, LinkError>> {
        self.listener.accept()
    }

    fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.listener.close().await;
            self.broker.close().await;
        })
    }
}

struct MqttRig;

fn url(hub: SocketAddr) -> String {
    format!("mqtt://{hub}")
}

/// Another one for each call: devices share nothing.
fn device() -> KeyPair {
    KeyPair::from_secret(&crate::sealed::random().unwrap())
}

impl Rig for MqttRig {
    fn listen<'a>(&'a self, keys: &'a KeyPair, keepalive: Duration) -> BoxFuture<'a, Box<dyn Listener>> {
        Box::pin(async move { Box::new(Brokered::open(keys, keepalive).await) as Box<dyn Listener> })
    }

    fn dialer(&self, keepalive: Duration) -> Box<dyn Dialer> {
        Box::new(MqttDialer::with_keepalive(device(), PROJECT, keepalive))
    }

    fn address(&self, hub: SocketAddr) -> String {
        url(hub)
    }

    fn wire(&self, hub: SocketAddr) -> BoxFuture<'_, Box<dyn Wire>> {
        Box::pin(async move { Box::new(TcpWire::to(hub).await) as Box<dyn Wire> })
    }

    fn send_raw(&self, hub: SocketAddr, key: PublicKey, bytes: Vec<u8>) -> BoxFuture<'_, Box<dyn Any + Send>> {
        Box::pin(async move {
            let keys = device();
            let dialer = MqttDialer::new(keys.clone(), PROJECT);
            let (carrier, source, _) = dialer.way(&url(hub), key).await.unwrap();
            send_raw(carrier, source, &keys, key, bytes).await
        })
    }
}

conformance::conforms!(MqttRig);

fn hub_keys() -> KeyPair {
    KeyPair::from_secret(&[3; 32])
}

async fn exchange(hub: &Brokered, address: &str, keys: KeyPair) {
    let dialer = MqttDialer::new(keys, PROJECT);
    let both = async { tokio::join!(dialer.dial(address.to_owned(), hub_keys().public()), hub.accept()) };
    let (device, taken) = soon("a link", both).await;
    let (device, taken) = (device.unwrap(), taken.unwrap());
    for (from, to, channel) in [(&device, &taken, Channel::Control), (&taken, &device, Channel::Down)] {
        let sent = async { tokio::join!(from.send(channel, frame(1, 1, 300_000)), to.recv()) };
        let (sent, got) = soon("a frame", sent).await;
        sent.unwrap();
        assert!(got.unwrap() == frame(1, 1, 300_000));
    }
    soon("closed", device.close("done")).await;
}

/// Both versions of MQTT carry a link, and so does a second one of the same device, as a copy of it would open.
#[tokio::test]
async fn both_versions_of_mqtt_carry_links() {
    let hub = Brokered::open(&hub_keys(), limits::KEEPALIVE).await;
    let keys = device();
    for version in ["", "?version=5", "?version=3.1.1"] {
        exchange(&hub, &format!("{}{version}", url(hub.address())), keys.clone()).await;
    }
    let dialer = MqttDialer::new(keys.clone(), PROJECT);
    let both = async { tokio::join!(dialer.dial(url(hub.address()), hub_keys().public()), hub.accept()) };
    let (first, _hub_end) = soon("a link", both).await;
    exchange(&hub, &url(hub.address()), keys).await;
    let idle = tokio::time::timeout(Duration::from_millis(200), first.as_ref().unwrap().recv()).await;
    assert!(idle.is_err(), "the first link lives on: {idle:?}");
}

/// A device that says hello at the broker may do nothing there but talk to its hub.
// faults: X-6
#[tokio::test]
async fn the_broker_refuses_what_is_not_a_devices_own() {
    let hub = Brokered::open(&hub_keys(), limits::KEEPALIVE).await;
    let (keys, other) = (device(), device());
    let broker = Address::parse(&url(hub.address()), &[("mqtt", 1883)]).unwrap();
    let login = broker_password(&keys, &hub_keys().public());
    let own = keys.device();
    let filters = ["#".to_owned(), "+/+/+/d".into(), topic(PROJECT, other.device(), false), topic(PROJECT, own, true), hub_filter(PROJECT)];
    for version in ["5", "3.1.1"] {
        let broker = Address { query: format!("version={version}"), ..broker.clone() };
        for (n, filter) in filters.iter().enumerate() {
            let mut connection = soon("a connection", connect(&broker, &login, &format!("{own}-{n}"))).await.unwrap();
            let refused = soon("an answer", connection.hear(filter)).await.unwrap_err().why();
            assert!(refused.contains("does not permit"), "{filter}: {refused}");
        }
        let mut connection = connect(&broker, &login, &format!("{own}-own")).await.unwrap();
        soon("an answer", connection.hear(&topic(PROJECT, own, false))).await.unwrap();
    }
    for (id, login) in [
        (format!("{own}-x"), (String::new(), String::new())),
        (format!("{}-x", other.device()), login.clone()),
        ("hub-x".to_owned(), ("hub".to_owned(), "guess".to_owned())),
    ] {
        let refused = soon("an answer", connect(&broker, &login, &id)).await.err().unwrap().why();
        assert!(refused.contains("refuses this user") || refused.contains("another hub"), "{id}: {refused}");
    }
}

/// What a device publishes on the topic of another does not reach it.
// faults: X-6
#[tokio::test]
async fn a_publish_on_a_foreign_topic_reaches_nobody() {
    let hub = Brokered::open(&hub_keys(), limits::KEEPALIVE).await;
    let (keys, other) = (device(), device());
    let broker = Address::parse(&url(hub.address()), &[("mqtt", 1883)]).unwrap();
    let hub_key = hub_keys().public();
    let mut victim = connect(&broker, &broker_password(&other, &hub_key), &format!("{}-d", other.device())).await.unwrap();
    let heard_on = topic(PROJECT, other.device(), false);
    victim.hear(&heard_on).await.unwrap();
    let options = {
        let (user, password) = broker_password(&keys, &hub_key);
        let mut options = v5::MqttOptions::new(format!("{}-x", keys.device()), "127.0.0.1", hub.address().port());
        options.set_credentials(user, password).set_outgoing_inflight_upper_limit(8);
        options
    };
    let (client, mut events) = v5::AsyncClient::new(options, 8);
    tokio::spawn(async move { while events.poll().await.is_ok() {} });
    client.publish(&heard_on, v5::mqttbytes::QoS::AtMostOnce, false, "a lie").await.unwrap();
    // The hub's own word comes through, and is the first that does.
    let admin = connect(&broker, &hub.broker.hub_login(), "hub-test").await.unwrap();
    let mut admin_events = admin.events;
    tokio::spawn(async move { while admin_events.next().await.is_ok() {} });
    let said = async {
        loop {
            if let super::client::Event::Message { payload, .. } = victim.events.next().await.unwrap() {
                return payload;
            }
        }
    };
    let mut said = std::pin::pin!(said);
    let first = soon("a message", async {
        loop {
            admin.client.publish(&heard_on, b"the truth".to_vec()).await.unwrap();
            if let Ok(first) = tokio::time::timeout(Duration::from_millis(300), &mut said).await {
                return first;
            }
        }
    })
    .await;
    assert_eq!(first, b"the truth");
}

/// A hub comes back to a broker that went away; its links are over.
// faults: N-3, N-4
#[tokio::test]
async fn a_hub_outlives_its_broker() {
    let keys = hub_keys();
    let broker = EmbeddedBroker::bind(LOOPBACK, &keys, PROJECT).await.unwrap();
    let (address, login) = (broker.address(), broker.hub_login());
    let wire = TcpListener::bind(LOOPBACK).await.unwrap();
    let way = wire.local_addr().unwrap();
    // The way to the broker is the same before and after: what is behind it changes.
    let behind = std::sync::Arc::new(std::sync::Mutex::new(Some(address)));
    let (told, mut ways) = (std::sync::Arc::clone(&behind), tokio::task::JoinSet::new());
    let carrying = tokio::spawn(async move {
        loop {
            let (mut near, _) = wire.accept().await.unwrap();
            let there = *told.lock().unwrap();
            if let Some(there) = there
                && let Ok(mut far) = tokio::net::TcpStream::connect(there).await
            {
                ways.spawn(async move { drop(tokio::io::copy_bidirectional(&mut near, &mut far).await) });
            }
        }
    });
    let settings = MqttSettings { broker: url(way), login, address: way, project: PROJECT, keepalive: limits::KEEPALIVE };
    let listener = MqttListener::start(&keys, settings).unwrap();
    let mut connected = listener.connected();
    soon("connected", connected.wait_for(Result::is_ok)).await.unwrap();
    let device = MqttDialer::new(device(), PROJECT);
    let both = async { tokio::join!(device.dial(url(address), keys.public()), listener.accept()) };
    let (at_device, at_hub) = soon("a link", both).await;
    let (at_device, at_hub) = (at_device.unwrap(), at_hub.unwrap());
    behind.lock().unwrap().take();
    broker.close().await;
    for link in [at_device, at_hub] {
        let end = soon("the end", link.recv()).await.unwrap_err();
        assert!(matches!(end, LinkError::Closed(_)), "{end}");
    }
    soon("noticed", connected.wait_for(Result::is_err)).await.unwrap();
    carrying.abort();
    soon("closed", listener.close()).await;
}

#[tokio::test]
async fn what_keeps_a_device_from_its_hub_is_said() {
    let hub = Brokered::open(&hub_keys(), limits::KEEPALIVE).await;
    let deaf = TcpListener::bind(LOOPBACK).await.unwrap();
    let babbling = TcpListener::bind(LOOPBACK).await.unwrap();
    let (deaf_at, babbling_at) = (deaf.local_addr().unwrap(), babbling.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = babbling.accept().await {
            let mut bytes = [0; 64];
            let _ = stream.read(&mut bytes).await;
            let _ = stream.try_write(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    // Held, and not listened at: nobody else comes to be there.
    let held = tokio::net::TcpSocket::new_v4().unwrap();
    held.bind(LOOPBACK).unwrap();
    let gone = held.local_addr().unwrap();
    let dialer = MqttDialer::new(device(), PROJECT);
    for (address, want) in [
        (url(gone), "refused"),
        (url(deaf_at), "does not answer"),
        (url(babbling_at), ""),
        (format!("mqtt://somebody:guess@{}", hub.address()), "refuses this user"),
        (format!("mqtts://{}", hub.address()), "no scheme that fits"),
    ] {
        let error = soon("an error", dialer.dial(address.clone(), hub_keys().public())).await.unwrap_err();
        assert!(matches!(&error, LinkError::Unreachable { why, .. } if why.contains(want)), "{address}: {error}");
        assert!(!error.to_string().contains("guess"), "{error}");
    }
    let taken = EmbeddedBroker::bind(hub.address(), &hub_keys(), PROJECT).await.unwrap_err();
    assert!(matches!(&taken, LinkError::CannotListen { why, .. } if why.contains("TCP port is in use")), "{taken}");
}
