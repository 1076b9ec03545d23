//! The two halves of a WebSocket, as sealed links want them.

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use mobo_core::future::BoxFuture;
use mobo_core::limits;
use mobo_core::link::LinkError;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::sealed::{Carrier, Source};

/// A stream of bytes under a WebSocket.
pub trait Bytes: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Bytes for S {}

/// No message is longer than a packet, and an idle connection holds little memory.
pub(super) fn config() -> WebSocketConfig {
    let packet = Some(limits::PACKET_BYTES_MAX);
    WebSocketConfig::default().read_buffer_size(4 * 1024).write_buffer_size(0).max_message_size(packet).max_frame_size(packet)
}

/// The two halves of an open WebSocket.
pub(super) fn halves<S: Bytes>(socket: WebSocketStream<S>) -> (Box<dyn Carrier>, Box<dyn Source>) {
    let (sink, stream) = socket.split();
    (Box::new(Away(sink)), Box::new(Here(stream)))
}

struct Away<S>(SplitSink<WebSocketStream<S>, Message>);

impl<S: Bytes> Carrier for Away<S> {
    fn send(&mut self, packet: Vec<u8>) -> BoxFuture<'_, Result<(), LinkError>> {
        Box::pin(async move { self.0.send(Message::Binary(packet.into())).await.map_err(ended) })
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // It fails only where the connection is gone already.
            let _ = self.0.close().await;
        })
    }
}

struct Here<S>(SplitStream<WebSocketStream<S>>);

impl<S: Bytes> Source for Here<S> {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<u8>, LinkError>> {
        Box::pin(async move {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Binary(packet))) => return Ok(packet.into()),
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                    Some(Ok(Message::Text(_))) => return Err(LinkError::Protocol("it sent text over its WebSocket".into())),
                    Some(Ok(Message::Close(_))) | None => return Err(LinkError::Closed("the connection was closed".into())),
                    Some(Err(error)) => return Err(ended(error)),
                }
            }
        })
    }
}

fn ended(error: Error) -> LinkError {
    match error {
        Error::Capacity(_) | Error::Protocol(_) | Error::Utf8(_) | Error::AttackAttempt => LinkError::Protocol(error.to_string()),
        Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Io(_)
        | Error::Tls(_)
        | Error::WriteBufferFull(_)
        | Error::Url(_)
        | Error::Http(_)
        | Error::HttpFormat(_) => LinkError::Closed(format!("the connection broke: {error}")),
    }
}
