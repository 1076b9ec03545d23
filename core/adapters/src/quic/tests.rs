//! QUIC against the suite of all links, and what only QUIC can get wrong. Everything here runs over real sockets of this machine.

mod rig;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mobo_core::ids::Lane;
use mobo_core::link::{Channel, Dialer, Link, LinkError, Listener};
use mobo_core::trust::KeyPair;
use quinn::{Endpoint, ServerConfig, VarInt};

use super::credentials::server_tls;
use super::inbox::Inbox;
use super::listener::Admission;
use super::{QuicDialer, QuicListener, QuicSettings};
use crate::link_conformance::{self as conformance, frame, soon};
use rig::{QuicRig, RawDevice};
use wire::UdpWire;

conformance::conforms!(QuicRig);

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

fn keys() -> KeyPair {
    KeyPair::from_secret(&[3; 32])
}

/// A hub, and a link to it from both sides that has carried one frame.
async fn open(listener: &QuicListener, address: SocketAddr) -> (Box<dyn Link>, Box<dyn Link>) {
    let dialer = QuicDialer::new(None);
    let both = async { tokio::join!(dialer.dial(address.to_string(), keys().public()), listener.accept()) };
    let (device, hub) = soon("a link", both).await;
    let (device, hub) = (device.unwrap(), hub.unwrap());
    device.send(Channel::Control, frame(0, 0, 0)).await.unwrap();
    assert_eq!(soon("a frame", hub.recv()).await, Ok(frame(0, 0, 0)));
    (device, hub)
}

// faults: X-12
#[tokio::test]
async fn streams_that_break_the_rules_end_the_connection() {
    type Act = for<'a> fn(&'a RawDevice) -> mobo_core::future::BoxFuture<'a, ()>;
    let cases: [(&str, Act); 6] = [
        ("begins with 4", |device| Box::pin(async { device.open_uni(&[4]).await.hold() })),
        ("begins with 16", |device| Box::pin(async { device.open_uni(&[16]).await.hold() })),
        ("second stream for Lane(Events)", |device| {
            Box::pin(async {
                device.open_uni(&[1]).await.hold();
                device.open_uni(&[1]).await.hold();
            })
        }),
        ("ends inside a frame", |device| Box::pin(async { device.open_uni(&[0, 4, 0, 9, 1]).await.finish() })),
        ("reset a stream", |device| Box::pin(async { device.open_uni(&[0, 4, 0, 9, 1]).await.reset() })),
        ("over the limit", |device| Box::pin(async { device.open_uni(&[2, 4, 0, 0xff, 0xff, 0xff, 0xff, 1]).await.hold() })),
    ];
    let listener = QuicListener::bind(LOOPBACK, &keys()).unwrap();
    for (want, act) in cases {
        let (device, hub) = tokio::join!(RawDevice::connect(listener.address(), keys().public()), listener.accept());
        let hub = hub.unwrap();
        device.send_control(&frame(0, 0, 0)).await;
        assert_eq!(soon("the first frame", hub.recv()).await, Ok(frame(0, 0, 0)));
        act(&device).await;
        let error = soon(want, hub.recv()).await.unwrap_err();
        assert!(matches!(&error, LinkError::Protocol(why) if why.contains(want)), "{want}: {error}");
        let (code, reason) = soon("told", device.closed()).await;
        assert!(code == VarInt::from_u32(1) && reason.contains(want), "{want}: {code} {reason}");
    }
}

#[tokio::test]
async fn a_stream_that_ends_between_frames_is_fine() {
    let listener = QuicListener::bind(LOOPBACK, &keys()).unwrap();
    let (device, hub) = tokio::join!(RawDevice::connect(listener.address(), keys().public()), listener.accept());
    let hub = hub.unwrap();
    device.send_control(&frame(0, 0, 0)).await;
    device.open_uni(&[&[3][..], &frame(3, 1, 9)].concat()).await.finish();
    device.open_uni(&[]).await.finish();
    device.send_control(&frame(0, 1, 0)).await;
    let mut got = [soon("1", hub.recv()).await, soon("2", hub.recv()).await, soon("3", hub.recv()).await];
    got.sort_by_key(|frame| frame.clone().unwrap());
    assert_eq!(got, [Ok(frame(0, 0, 0)), Ok(frame(0, 1, 0)), Ok(frame(3, 1, 9))]);
}

#[tokio::test]
async fn streams_that_are_over_are_forgotten() {
    let tls = server_tls(&keys()).unwrap();
    let endpoint = Endpoint::server(ServerConfig::with_crypto(Arc::new(tls)), LOOPBACK).unwrap();
    let accept = async { endpoint.accept().await.unwrap().await.unwrap() };
    let (device, hub) = tokio::join!(RawDevice::connect(endpoint.local_addr().unwrap(), keys().public()), accept);
    device.send_control(&frame(0, 0, 0)).await;
    let mut inbox = Inbox::default();
    inbox.add_control(soon("the control stream", hub.accept_bi()).await.unwrap().1);
    // Fewer than may be open at once: nothing waits for the reader.
    for _ in 0..50 {
        device.open_uni(&[]).await.finish();
    }
    device.open_uni(&[&[3][..], &frame(3, 1, 9)].concat()).await.hold();
    // Streams are accepted in the order in which they were opened: the others came before this one.
    while soon("a frame", inbox.next(&hub)).await != Ok(frame(3, 1, 9)) {}
    let ended = async {
        while inbox.streams() > 2 {
            device.send_control(&frame(0, 1, 0)).await;
            inbox.next(&hub).await.unwrap();
        }
    };
    soon("the end of all that are over", ended).await;
}

#[tokio::test]
async fn each_end_sends_its_own_channels_only() {
    let listener = QuicListener::bind(LOOPBACK, &keys()).unwrap();
    let (device, hub) = open(&listener, listener.address()).await;
    let up = Channel::Lane(Lane::State);
    for (link, channel) in [(&device, Channel::Down), (&hub, up)] {
        assert!(matches!(link.send(channel, frame(0, 0, 0)).await, Err(LinkError::Protocol(_))), "{channel:?}");
    }
    hub.send(Channel::Down, frame(1, 1, 1)).await.unwrap();
    assert_eq!(soon("the link goes on", device.recv()).await, Ok(frame(1, 1, 1)));
}

#[tokio::test]
async fn urgent_channels_overtake() {
    let listener = QuicListener::bind(LOOPBACK, &keys()).unwrap();
    let lane = Channel::Lane;
    for (lazy, urgent) in [
        (lane(Lane::State), Channel::Control),
        (lane(Lane::Events), lane(Lane::State)),
        (lane(Lane::Telemetry), lane(Lane::Events)),
        (lane(Lane::Blobs), lane(Lane::Events)),
    ] {
        let (device, hub) = open(&listener, listener.address()).await;
        // Both are begun before anything is sent, and the first is far from sent when the second is.
        let sent = async { tokio::join!(device.send(lazy, frame(1, 1, 900_000)), device.send(urgent, frame(2, 2, 100_000))) };
        let received = async { (hub.recv().await.unwrap(), hub.recv().await.unwrap()) };
        let ((first, second), (received, later)) = soon("both frames", async { tokio::join!(sent, received) }).await;
        assert_eq!((first, second), (Ok(()), Ok(())));
        for (received, want) in [(received, frame(2, 2, 100_000)), (later, frame(1, 1, 900_000))] {
            assert!(received == want, "{urgent:?} before {lazy:?}");
        }
    }
}

// faults: N-5, X-12
#[tokio::test]
async fn a_link_outlives_a_change_of_its_address() {
    let listener = QuicListener::bind(LOOPBACK, &keys()).unwrap();
    let wire = UdpWire::to(listener.address()).await;
    let (device, hub) = open(&listener, wire.way_in()).await;
    for number in 1..4 {
        wire.take_another_port();
        device.send(Channel::Control, frame(0, number, 9_000)).await.unwrap();
        assert_eq!(soon("up", hub.recv()).await, Ok(frame(0, number, 9_000)));
        hub.send(Channel::Down, frame(1, number, 90_000)).await.unwrap();
        assert_eq!(soon("down", device.recv()).await, Ok(frame(1, number, 90_000)));
    }
}

#[tokio::test]
async fn a_link_that_is_dropped_is_closed_and_not_broken() {
    let listener = QuicListener::bind(LOOPBACK, &keys()).unwrap();
    let (device, hub) = open(&listener, listener.address()).await;
    let lane = Channel::Lane(Lane::Blobs);
    // More than the window: the frame stands half way when its link goes.
    let cut = tokio::time::timeout(Duration::from_millis(100), device.send(lane, frame(1, 1, 1 << 20))).await;
    assert!(cut.is_err(), "{cut:?}");
    drop(device);
    assert_eq!(soon("the end", hub.recv()).await, Err(LinkError::Closed("it was dropped".into())));
}

/// A hub that is killed says nothing. Devices used to wait for their timeout; the next hub at this address tells them.
#[test]
fn a_restarted_hub_tells_its_devices_at_once() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (device_runtime, hub_runtime) = (runtime(), runtime());
    let listener = hub_runtime.block_on(async { QuicListener::bind(LOOPBACK, &keys()).unwrap() });
    let address = listener.address();
    let (kill, killed) = tokio::sync::oneshot::channel();
    let accepting = std::thread::spawn(move || {
        let hub = hub_runtime.block_on(async {
            let hub = listener.accept().await.unwrap();
            hub.recv().await.unwrap();
            hub.send(Channel::Control, frame(0, 1, 0)).await.unwrap();
            killed.await.unwrap();
            hub
        });
        // All tasks and the socket go before anything is closed, as in a kill.
        drop(hub_runtime);
        drop((hub, listener));
    });
    let device = device_runtime.block_on(async {
        let device = QuicDialer::new(None).dial(address.to_string(), keys().public()).await.unwrap();
        device.send(Channel::Control, frame(0, 0, 0)).await.unwrap();
        assert_eq!(soon("an answer", device.recv()).await, Ok(frame(0, 1, 0)));
        kill.send(()).unwrap();
        device
    });
    // The device stands still meanwhile, so nothing bounces off the closed port.
    accepting.join().unwrap();
    device_runtime.block_on(async {
        let _restarted = QuicListener::bind(address, &keys()).unwrap();
        device.send(Channel::Control, frame(0, 1, 0)).await.unwrap();
        let started = Instant::now();
        let end = soon("the end", device.recv()).await.unwrap_err();
        assert!(matches!(&end, LinkError::Closed(why) if why.contains("restart")), "{end}");
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    });
}

// faults: X-11, N-11
#[tokio::test]
async fn newcomers_are_proved_under_load_and_refused_when_full() {
    let admission = Admission { connections_max: 1, handshakes_max: 4, handshakes_unproven_max: 0 };
    let listener = QuicListener::bind_within(LOOPBACK, &keys(), QuicSettings::default(), admission).unwrap();
    let wire = UdpWire::to(listener.address()).await;
    let address = wire.way_in().to_string();
    let (links, mut taken) = tokio::sync::mpsc::channel(4);
    tokio::spawn(async move {
        while let Ok(link) = listener.accept().await {
            links.send(link).await.unwrap();
        }
    });
    let dialer = QuicDialer::new(None);
    let dial = || soon("an answer", dialer.dial(address.clone(), keys().public()));
    let first = dial().await.unwrap();
    let _hub = soon("a link", taken.recv()).await.unwrap();
    assert!(wire.retries_seen() > 0);
    let refused = dial().await.unwrap_err();
    assert!(matches!(&refused, LinkError::Unreachable { why, .. } if why.contains("no more connections")), "{refused}");
    soon("room is made", first.close("done")).await;
    // The hub forgets a connection a moment after its end.
    let again = async { while dial().await.is_err() {} };
    soon("a place is free again", again).await;
}

#[tokio::test]
async fn what_cannot_be_opened_says_what_to_do() {
    let listener = QuicListener::bind(LOOPBACK, &keys()).unwrap();
    for (address, want) in [(listener.address(), "in use"), ("192.0.2.1:0".parse().unwrap(), "no such address")] {
        let error = QuicListener::bind(address, &keys()).unwrap_err();
        assert!(matches!(&error, LinkError::CannotListen { why, .. } if why.contains(want)), "{error}");
    }
    let quick = QuicSettings { keepalive: Duration::from_millis(100) };
    let silent = std::net::UdpSocket::bind(LOOPBACK).unwrap();
    let silent = silent.local_addr().unwrap().to_string();
    for (bind, address, want) in [
        (None, silent, "nothing there answers"),
        (None, "no port".to_owned(), "cannot be resolved"),
        (Some("[::1]:0".parse().unwrap()), listener.address().to_string(), "no address that this device can reach"),
    ] {
        let dialled = soon("the error", QuicDialer::with_settings(bind, quick).dial(address, keys().public())).await;
        let error = dialled.unwrap_err();
        assert!(matches!(&error, LinkError::Unreachable { why, .. } if why.contains(want)), "{error}");
    }
}

// faults: N-14
#[tokio::test]
async fn a_name_is_tried_at_all_its_addresses() {
    let listener = QuicListener::bind(LOOPBACK, &keys()).unwrap();
    let name = format!("localhost:{}", listener.address().port());
    let dialer = QuicDialer::new(None);
    let both = async { tokio::join!(dialer.dial(name.clone(), keys().public()), listener.accept()) };
    let (device, _hub) = soon("a link", both).await;
    assert_eq!(device.unwrap().peer(), name);
}
