//! One open link.

use std::fmt;
use std::sync::{Mutex as StdMutex, OnceLock, PoisonError};

use mobo_core::future::BoxFuture;
use mobo_core::limits;
use mobo_core::link::{Channel, Link, LinkError};
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use tokio::sync::{Mutex, OnceCell};
use tokio::time::timeout;

use super::ended::ended;
use super::inbox::Inbox;
use super::outbox::{Outbox, Outgoing, priority};
use super::{CODE_BROKEN, CODE_DONE};
use crate::reasons::reason_bytes;

/// An open QUIC link, of either end. Dropping it closes it at once.
pub(super) struct QuicLink {
    /// First, because fields are dropped in this order.
    open: Open,
    binding: Vec<u8>,
    peer: String,
    control: OnceCell<Control>,
    outbox: Outbox,
    inbox: Mutex<Inbox>,
    /// Set when the peer broke the protocol: it says more than the connection's own error.
    broken: OnceLock<LinkError>,
}

impl QuicLink {
    /// The device's end of `connection`; `peer` is the address as it was dialled.
    pub(super) async fn dialled(connection: Connection, endpoint: Endpoint, peer: &str) -> Result<Self, LinkError> {
        let (send, recv) = connection.open_bi().await.map_err(ended)?;
        let link = Self::new(connection, peer.to_owned(), Some(endpoint))?;
        Ok(Self { control: OnceCell::new_with(Some(Control::new(send, recv))), ..link })
    }

    /// The hub's end of `connection`. Its control stream comes with the device's first frame.
    pub(super) fn accepted(connection: Connection) -> Result<Self, LinkError> {
        let peer = connection.remote_address().to_string();
        Self::new(connection, peer, None)
    }

    fn new(connection: Connection, peer: String, endpoint: Option<Endpoint>) -> Result<Self, LinkError> {
        let mut binding = vec![0; 32];
        connection
            .export_keying_material(&mut binding, b"mobo channel 1", b"")
            .map_err(|_| LinkError::Protocol("its handshake gives nothing to bind signatures to".into()))?;
        let (control, outbox, inbox) = (OnceCell::new(), Outbox::default(), Mutex::default());
        Ok(Self { open: Open { connection, endpoint }, binding, peer, control, outbox, inbox, broken: OnceLock::new() })
    }

    /// The control stream; the hub waits until the device opens it.
    async fn control(&self) -> Result<&Control, LinkError> {
        let accepted = async || self.connection().accept_bi().await.map(|(send, recv)| Control::new(send, recv));
        self.control.get_or_try_init(accepted).await.map_err(ended)
    }

    async fn send_frame(&self, channel: Channel, frame: Vec<u8>) -> Result<(), LinkError> {
        let sent = match self.outbox.outgoing(channel) {
            None => self.control().await?.outgoing.lock().await.send(frame).await,
            Some(outgoing) => {
                let mut outgoing = outgoing.lock().await;
                outgoing.open(self.connection(), channel).await?;
                outgoing.send(frame).await
            }
        };
        sent.map_err(|error| self.broken.get().cloned().unwrap_or(error))
    }

    async fn next_frame(&self) -> Result<Vec<u8>, LinkError> {
        let mut inbox = self.inbox.lock().await;
        if let Some(error) = self.broken.get() {
            return Err(error.clone());
        }
        let control = self.control().await?;
        let stream = control.incoming.lock().unwrap_or_else(PoisonError::into_inner).take();
        stream.into_iter().for_each(|stream| inbox.add_control(stream));
        let frame = inbox.next(self.connection()).await;
        if let Err(error @ LinkError::Protocol(why)) = &frame {
            let _ = self.broken.set(error.clone());
            self.connection().close(CODE_BROKEN, reason_bytes(why));
        }
        frame
    }

    async fn close_after_delivery(&self, reason: &str) {
        let delivery = async {
            self.outbox.deliver().await?;
            match self.control.get() {
                Some(control) => control.outgoing.lock().await.deliver().await,
                None => Ok(()),
            }
        };
        // It fails when the peer is gone, and lasts when the peer does not read: nothing more can be done in either case.
        let _ = timeout(limits::LINK_CLOSE_TIMEOUT, delivery).await;
        self.connection().close(CODE_DONE, reason_bytes(reason));
        if let Some(endpoint) = &self.open.endpoint {
            // A program that ends before the farewell is on its way would leave the hub to wait for its timeout.
            let _ = timeout(limits::LINK_CLOSE_TIMEOUT, endpoint.wait_idle()).await;
        }
    }

    fn connection(&self) -> &Connection {
        &self.open.connection
    }
}

impl Link for QuicLink {
    fn send(&self, channel: Channel, frame: Vec<u8>) -> BoxFuture<'_, Result<(), LinkError>> {
        Box::pin(self.send_frame(channel, frame))
    }

    fn recv(&self) -> BoxFuture<'_, Result<Vec<u8>, LinkError>> {
        Box::pin(self.next_frame())
    }

    fn binding(&self) -> Vec<u8> {
        self.binding.clone()
    }

    fn peer(&self) -> String {
        self.peer.clone()
    }

    fn bytes(&self) -> (u64, u64) {
        let stats = self.connection().stats();
        (stats.udp_tx.bytes, stats.udp_rx.bytes)
    }

    fn close(&self, reason: &str) -> BoxFuture<'_, ()> {
        let reason = reason.to_owned();
        Box::pin(async move { self.close_after_delivery(&reason).await })
    }
}

impl fmt::Debug for QuicLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicLink").field("peer", &self.peer).field("side", &self.connection().side()).finish_non_exhaustive()
    }
}

/// The connection, and the device's socket, which is its own and lives as long.
struct Open {
    connection: Connection,
    endpoint: Option<Endpoint>,
}

impl Drop for Open {
    /// Closes before the streams are dropped: they would end as if their last frame was whole.
    fn drop(&mut self) {
        self.connection.close(CODE_DONE, b"it was dropped");
    }
}

struct Control {
    outgoing: Mutex<Outgoing>,
    /// Until the inbox takes it.
    incoming: StdMutex<Option<RecvStream>>,
}

impl Control {
    fn new(send: SendStream, recv: RecvStream) -> Self {
        // It fails only for a stream that is over, which the first write reports.
        let _ = send.set_priority(priority(Channel::Control));
        Self { outgoing: Mutex::new(Outgoing::on(send)), incoming: StdMutex::new(Some(recv)) }
    }
}
