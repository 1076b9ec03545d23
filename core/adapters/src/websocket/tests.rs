//! WebSocket against the suite of all links, and what only it can get wrong. Everything here runs over real sockets of this machine.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mobo_core::future::BoxFuture;
use mobo_core::ids::PublicKey;
use mobo_core::link::{Channel, Dialer, Link, LinkError, Listener};
use mobo_core::trust::KeyPair;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::{accept_async, client_async};

use super::way::halves;
use super::{WsDialer, WsListener};
use crate::link_conformance::{self as conformance, Rig, Wire, soon};
use crate::sealed::tests::{TcpWire, send_raw};

const LOOPBACK: &str = "127.0.0.1:0";

/// A gate that does nothing but upgrade, before a listener.
#[derive(Debug)]
struct Gate {
    listener: Arc<WsListener>,
    _accepting: JoinSet<()>,
}

impl Gate {
    async fn open(keys: &KeyPair, keepalive: Duration) -> Self {
        let socket = TcpListener::bind(LOOPBACK).await.unwrap();
        let listener = Arc::new(WsListener::with_keepalive(socket.local_addr().unwrap(), keys, keepalive));
        let behind = Arc::clone(&listener);
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut newcomers = JoinSet::new();
            while let Ok((stream, peer)) = socket.accept().await {
                let behind = Arc::clone(&behind);
                newcomers.spawn(async move {
                    if let Ok(socket) = accept_async(stream).await {
                        behind.take(socket.into_inner(), peer.to_string()).await;
                    }
                });
            }
        });
        Self { listener, _accepting: accepting }
    }
}

impl Listener for Gate {
    fn accept(&self) -> BoxFuture<'_, Result<Box<dyn Link>, LinkError>> {
        self.listener.accept()
    }

    fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.listener.close()
    }
}

struct WsRig;

fn url(hub: SocketAddr) -> String {
    format!("ws://{hub}/sync/v1")
}

fn device() -> KeyPair {
    KeyPair::from_secret(&[5; 32])
}

impl Rig for WsRig {
    fn listen<'a>(&'a self, keys: &'a KeyPair, keepalive: Duration) -> BoxFuture<'a, Box<dyn Listener>> {
        Box::pin(async move { Box::new(Gate::open(keys, keepalive).await) as Box<dyn Listener> })
    }

    fn dialer(&self, keepalive: Duration) -> Box<dyn Dialer> {
        Box::new(WsDialer::with_keepalive(device(), keepalive))
    }

    fn address(&self, hub: SocketAddr) -> String {
        url(hub)
    }

    fn wire(&self, hub: SocketAddr) -> BoxFuture<'_, Box<dyn Wire>> {
        Box::pin(async move { Box::new(TcpWire::to(hub).await) as Box<dyn Wire> })
    }

    fn send_raw(&self, hub: SocketAddr, key: PublicKey, bytes: Vec<u8>) -> BoxFuture<'_, Box<dyn Any + Send>> {
        Box::pin(async move {
            let stream = TcpStream::connect(hub).await.unwrap();
            let (carrier, source) = halves(client_async(url(hub), stream).await.unwrap().0);
            send_raw(carrier, source, &device(), key, bytes).await
        })
    }
}

conformance::conforms!(WsRig);

#[tokio::test]
async fn what_is_no_hub_is_told_apart() {
    let silent = TcpListener::bind(LOOPBACK).await.unwrap();
    let other = TcpListener::bind(LOOPBACK).await.unwrap();
    // Held, and not listened at: nobody else comes to be there.
    let held = tokio::net::TcpSocket::new_v4().unwrap();
    held.bind(LOOPBACK.parse().unwrap()).unwrap();
    let gone = held.local_addr().unwrap();
    let (silent_at, other_at) = (silent.local_addr().unwrap(), other.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = other.accept().await.unwrap();
        let mut request = [0; 1_024];
        let _ = stream.read(&mut request).await.unwrap();
        stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    });
    let dialer = WsDialer::new(device());
    let hub = KeyPair::from_secret(&[3; 32]).public();
    for (address, want) in [
        (url(other_at), "HTTP 404"),
        (url(gone), "refused"),
        (format!("http://{silent_at}/sync/v1"), "no scheme that fits"),
        ("ws:///sync/v1".to_owned(), "names no host"),
        (url(silent_at), "nothing there answers"),
    ] {
        let error = soon("an error", dialer.dial(address, hub)).await.unwrap_err();
        assert!(matches!(&error, LinkError::Unreachable { why, .. } if why.contains(want)), "{want}: {error}");
    }
}

#[tokio::test]
async fn a_link_that_is_dropped_is_closed_and_not_broken() {
    let keys = KeyPair::from_secret(&[3; 32]);
    let gate = Gate::open(&keys, Duration::from_secs(10)).await;
    let dialer = WsDialer::new(device());
    let both = async { tokio::join!(dialer.dial(url(gate.address()), keys.public()), gate.accept()) };
    let (device, hub) = soon("a link", both).await;
    let (device, hub) = (device.unwrap(), hub.unwrap());
    let cut = tokio::time::timeout(
        Duration::from_millis(100),
        device.send(Channel::Lane(mobo_core::ids::Lane::Blobs), conformance::frame(1, 1, 1 << 20)),
    );
    assert!(cut.await.is_err(), "more than the window");
    drop(device);
    assert_eq!(soon("the end", hub.recv()).await, Err(LinkError::Closed("it was dropped".into())));
}
