//! A way for datagrams between one device and a hub, that can be cut, and whose far end can change its port as a NAT does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::LOOPBACK;
use crate::link_conformance::Wire;

pub(super) struct UdpWire {
    way_in: SocketAddr,
    is_cut: Arc<AtomicBool>,
    another_port: Arc<Notify>,
    retries: Arc<AtomicU32>,
    task: JoinHandle<()>,
}

impl UdpWire {
    pub(super) async fn to(hub: SocketAddr) -> Self {
        let near = UdpSocket::bind(LOOPBACK).await.unwrap();
        let way_in = near.local_addr().unwrap();
        let (is_cut, another_port, retries) = (Arc::<AtomicBool>::default(), Arc::<Notify>::default(), Arc::<AtomicU32>::default());
        let carrier = Carrier { near, hub, is_cut: is_cut.clone(), another_port: another_port.clone(), retries: retries.clone() };
        let task = tokio::spawn(carrier.carry());
        Self { way_in, is_cut, another_port, retries, task }
    }

    pub(super) fn way_in(&self) -> SocketAddr {
        self.way_in
    }

    /// How often the hub asked a newcomer to prove its address.
    pub(super) fn retries_seen(&self) -> u32 {
        self.retries.load(Ordering::SeqCst)
    }

    /// From now on the hub sees the device come from elsewhere.
    pub(super) fn take_another_port(&self) {
        self.another_port.notify_one();
    }
}

impl Wire for UdpWire {
    fn address(&self) -> SocketAddr {
        self.way_in
    }

    fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
    }
}

impl Drop for UdpWire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Carrier {
    near: UdpSocket,
    hub: SocketAddr,
    is_cut: Arc<AtomicBool>,
    another_port: Arc<Notify>,
    retries: Arc<AtomicU32>,
}

impl Carrier {
    async fn carry(self) {
        let (mut far, mut device) = (self.far().await, None);
        let (mut up, mut down) = ([0; 65_536], [0; 65_536]);
        loop {
            // A lost datagram is what networks do.
            tokio::select! {
                biased;
                () = self.another_port.notified() => far = self.far().await,
                Ok((bytes, from)) = self.near.recv_from(&mut up) => {
                    device = Some(from);
                    if !self.is_cut.load(Ordering::SeqCst) {
                        let _ = far.send(&up[..bytes]).await;
                    }
                }
                Ok(bytes) = far.recv(&mut down) => {
                    if let (Some(device), false) = (device, self.is_cut.load(Ordering::SeqCst)) {
                        self.retries.fetch_add(u32::from(is_retry(&down[..bytes])), Ordering::SeqCst);
                        let _ = self.near.send_to(&down[..bytes], device).await;
                    }
                }
            }
        }
    }

    async fn far(&self) -> UdpSocket {
        let socket = UdpSocket::bind(LOOPBACK).await.unwrap();
        socket.connect(self.hub).await.unwrap();
        socket
    }
}

/// A long header of type 3 (RFC 9000, 17.2.5).
fn is_retry(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| first & 0xb0 == 0xb0)
}
