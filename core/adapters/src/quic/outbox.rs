//! The sending half of a link: one stream for each channel, opened by its first frame.

use bytes::Bytes;
use mobo_core::ids::Lane;
use mobo_core::link::{Channel, LinkError};
use quinn::{Connection, SendStream, Side};
use tokio::sync::Mutex;

use super::ended::{ended, undelivered, unwritable};
use super::first_byte;

/// The unidirectional channels of one end.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    state: Mutex<Outgoing>,
    events: Mutex<Outgoing>,
    telemetry: Mutex<Outgoing>,
    blobs: Mutex<Outgoing>,
    down: Mutex<Outgoing>,
}

impl Outbox {
    /// Where `channel` is sent; `None` for control, which is no unidirectional channel.
    pub(super) fn outgoing(&self, channel: Channel) -> Option<&Mutex<Outgoing>> {
        match channel {
            Channel::Control => None,
            Channel::Lane(Lane::State) => Some(&self.state),
            Channel::Lane(Lane::Events) => Some(&self.events),
            Channel::Lane(Lane::Telemetry) => Some(&self.telemetry),
            Channel::Lane(Lane::Blobs) => Some(&self.blobs),
            Channel::Down => Some(&self.down),
        }
    }

    /// Waits until the peer's transport holds everything that was sent here.
    pub(super) async fn deliver(&self) -> Result<(), LinkError> {
        for outgoing in [&self.state, &self.events, &self.telemetry, &self.blobs, &self.down] {
            outgoing.lock().await.deliver().await?;
        }
        Ok(())
    }
}

/// The sending end of one channel.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    stream: Option<SendStream>,
    /// What the stream has not taken of the last frame. It is here, and not in the future that sends, so that dropping the future cannot
    /// leave half a frame before the next one.
    unsent: Bytes,
}

impl Outgoing {
    /// An open stream.
    pub(super) fn on(stream: SendStream) -> Self {
        Self { stream: Some(stream), unsent: Bytes::new() }
    }

    /// Opens the channel's stream, unless it is open.
    pub(super) async fn open(&mut self, connection: &Connection, channel: Channel) -> Result<(), LinkError> {
        if self.stream.is_some() {
            return Ok(());
        }
        let permitted = match channel {
            Channel::Control => false,
            Channel::Lane(_) => connection.side() == Side::Client,
            Channel::Down => connection.side() == Side::Server,
        };
        let (true, Some(first_byte)) = (permitted, first_byte(channel)) else {
            return Err(LinkError::Protocol(format!("this end must not send on {channel:?}")));
        };
        let stream = connection.open_uni().await.map_err(ended)?;
        // It fails only for a stream that is over, which the first write reports.
        let _ = stream.set_priority(priority(channel));
        self.stream = Some(stream);
        self.unsent = Bytes::copy_from_slice(&[first_byte]);
        Ok(())
    }

    /// Sends what is left of an earlier frame, then `frame`.
    pub(super) async fn send(&mut self, frame: Vec<u8>) -> Result<(), LinkError> {
        self.flush().await?;
        self.unsent = frame.into();
        self.flush().await
    }

    /// Ends the stream and waits until the peer's transport holds all of it.
    pub(super) async fn deliver(&mut self) -> Result<(), LinkError> {
        self.flush().await?;
        let Some(stream) = &mut self.stream else { return Ok(()) };
        // A stream that is over has been finished by an earlier close.
        let _ = stream.finish();
        stream.stopped().await.map_err(undelivered).map(|_| ())
    }

    async fn flush(&mut self) -> Result<(), LinkError> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        while !self.unsent.is_empty() {
            stream.write_chunks(std::slice::from_mut(&mut self.unsent)).await.map_err(unwritable)?;
        }
        Ok(())
    }
}

/// Who goes first when the path is narrow; higher is sooner.
pub(super) fn priority(channel: Channel) -> i32 {
    match channel {
        Channel::Control => 3,
        Channel::Lane(Lane::State) | Channel::Down => 2,
        Channel::Lane(Lane::Events) => 1,
        Channel::Lane(Lane::Telemetry | Lane::Blobs) => 0,
    }
}
