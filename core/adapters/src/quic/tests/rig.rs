//! QUIC as the suite of all links wants it, and a device that may break rules.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mobo_core::future::BoxFuture;
use mobo_core::ids::PublicKey;
use mobo_core::link::{Dialer, Listener};
use mobo_core::trust::KeyPair;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, SendStream, VarInt};
use tokio::sync::Mutex;

use super::wire::UdpWire;
use super::{LOOPBACK, QuicDialer, QuicListener, QuicSettings};
use crate::link_conformance::{Rig, Wire};
use crate::quic::credentials::{SERVER_NAME, client_tls};

/// Both ends on this machine.
pub(super) struct QuicRig;

impl Rig for QuicRig {
    fn listen<'a>(&'a self, keys: &'a KeyPair, keepalive: Duration) -> BoxFuture<'a, Box<dyn Listener>> {
        Box::pin(async move { Box::new(QuicListener::bind_with(LOOPBACK, keys, QuicSettings { keepalive }).unwrap()) as Box<dyn Listener> })
    }

    fn dialer(&self, keepalive: Duration) -> Box<dyn Dialer> {
        Box::new(QuicDialer::with_settings(None, QuicSettings { keepalive }))
    }

    fn wire(&self, hub: SocketAddr) -> BoxFuture<'_, Box<dyn Wire>> {
        Box::pin(async move { Box::new(UdpWire::to(hub).await) as Box<dyn Wire> })
    }

    fn send_raw(&self, hub: SocketAddr, key: PublicKey, bytes: Vec<u8>) -> BoxFuture<'_, Box<dyn Any + Send>> {
        Box::pin(async move {
            let device = RawDevice::connect(hub, key).await;
            device.send_control(&bytes).await;
            Box::new(device) as Box<dyn Any + Send>
        })
    }
}

/// A device without manners: streams and bytes as the test wants them.
pub(super) struct RawDevice {
    connection: Connection,
    control: Mutex<SendStream>,
    _endpoint: Endpoint,
}

impl RawDevice {
    pub(super) async fn connect(hub: SocketAddr, key: PublicKey) -> Self {
        let endpoint = Endpoint::client(LOOPBACK).unwrap();
        let config = ClientConfig::new(Arc::new(client_tls(key).unwrap().0));
        let connection = endpoint.connect_with(config, hub, SERVER_NAME).unwrap().await.unwrap();
        let (control, _) = connection.open_bi().await.unwrap();
        Self { connection, control: Mutex::new(control), _endpoint: endpoint }
    }

    pub(super) async fn send_control(&self, bytes: &[u8]) {
        self.control.lock().await.write_all(bytes).await.unwrap();
    }

    pub(super) async fn open_uni(&self, bytes: &[u8]) -> RawStream {
        let mut stream = self.connection.open_uni().await.unwrap();
        stream.write_all(bytes).await.unwrap();
        RawStream(stream)
    }

    /// The code and reason with which the hub closed.
    pub(super) async fn closed(&self) -> (VarInt, String) {
        let end = self.connection.closed().await;
        let ConnectionError::ApplicationClosed(close) = end else { panic!("{end}") };
        (close.error_code, String::from_utf8_lossy(&close.reason).into())
    }
}

pub(super) struct RawStream(SendStream);

impl RawStream {
    /// Leaves it open for as long as the connection.
    pub(super) fn hold(self) {
        std::mem::forget(self.0);
    }

    pub(super) fn finish(mut self) {
        self.0.finish().unwrap();
    }

    pub(super) fn reset(mut self) {
        self.0.reset(VarInt::from_u32(7)).unwrap();
    }
}
