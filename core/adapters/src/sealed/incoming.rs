//! What arrived and was not read yet.

use bytes::BytesMut;
use mobo_core::limits;
use mobo_core::link::{Channel, LinkError};

use super::{CHANNELS, permits};
use crate::framing::missing_bytes;

/// The receiving half of a link.
#[derive(Debug)]
pub(super) struct Incoming {
    channels: Vec<Stream>,
    /// The channel that is read first next time, so that none starves another.
    turn: usize,
}

#[derive(Debug)]
struct Stream {
    channel: Channel,
    /// Bytes that nobody has asked for yet, within the window.
    waiting: BytesMut,
    /// What was read of the next frame.
    frame: Vec<u8>,
    /// Bytes that were read since the peer was told.
    read_bytes: u32,
    /// Bytes that the peer may still send.
    window_bytes: u32,
}

impl Incoming {
    /// Of a device, or of a hub.
    pub(super) fn new(is_device: bool) -> Self {
        let stream = |channel| Stream {
            channel,
            waiting: BytesMut::new(),
            frame: Vec::new(),
            read_bytes: 0,
            window_bytes: limits::LINK_WINDOW_BYTES,
        };
        Self { channels: CHANNELS.into_iter().filter(|channel| permits(*channel, !is_device)).map(stream).collect(), turn: 0 }
    }

    /// Takes in bytes of a channel.
    pub(super) fn arrived(&mut self, channel: Channel, bytes: &[u8]) -> Result<(), LinkError> {
        let broken = |why: &str| LinkError::Protocol(format!("{why} on {channel:?}"));
        let stream = self.channels.iter_mut().find(|stream| stream.channel == channel).ok_or_else(|| broken("it must not send"))?;
        let left = u32::try_from(bytes.len()).ok().and_then(|bytes| stream.window_bytes.checked_sub(bytes));
        stream.window_bytes = left.ok_or_else(|| broken("it sends more than the window"))?;
        stream.waiting.extend_from_slice(bytes);
        Ok(())
    }

    /// The next whole frame of any channel.
    pub(super) fn next_frame(&mut self) -> Result<Option<Vec<u8>>, LinkError> {
        let count = self.channels.len();
        for offset in 0..count {
            let index = (self.turn + offset) % count;
            let Some(stream) = self.channels.get_mut(index) else { continue };
            if let Some(frame) = stream.next_frame()? {
                self.turn = index + 1;
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    /// What the peer is to be told: so many bytes of a channel were read.
    pub(super) fn credit(&mut self) -> Option<(Channel, u32)> {
        let stream = self.channels.iter_mut().find(|stream| stream.read_bytes >= limits::LINK_CREDIT_BYTES)?;
        stream.window_bytes += stream.read_bytes;
        Some((stream.channel, std::mem::take(&mut stream.read_bytes)))
    }

    /// True if [`Self::credit`] has something to say.
    pub(super) fn has_credit(&self) -> bool {
        self.channels.iter().any(|stream| stream.read_bytes >= limits::LINK_CREDIT_BYTES)
    }
}

impl Stream {
    fn next_frame(&mut self) -> Result<Option<Vec<u8>>, LinkError> {
        loop {
            let missing = missing_bytes(&self.frame)?;
            if missing == 0 {
                return Ok(Some(std::mem::take(&mut self.frame)));
            }
            let taken = self.waiting.split_to(missing.min(self.waiting.len()));
            if taken.is_empty() {
                // An idle channel keeps no memory.
                self.waiting = BytesMut::new();
                return Ok(None);
            }
            self.frame.extend_from_slice(&taken);
            // At most a window: it fits.
            self.read_bytes += u32::try_from(taken.len()).unwrap_or(0);
        }
    }
}
