//! What is to be sent.

use bytes::{Buf as _, Bytes};
use mobo_core::limits;
use mobo_core::link::Channel;

use super::{CHANNELS, permits};

/// The sending half of a link: at most one frame of each channel. It is here, and not in the future that sends, so that dropping the
/// future cannot leave half a frame before the next one.
#[derive(Debug)]
pub(super) struct Outgoing(Vec<Stream>);

#[derive(Debug)]
struct Stream {
    channel: Channel,
    frame: Bytes,
    /// Bytes that the peer has room for.
    window_bytes: u32,
}

impl Outgoing {
    /// Of a device, or of a hub.
    pub(super) fn new(is_device: bool) -> Self {
        let stream = |channel| Stream { channel, frame: Bytes::new(), window_bytes: limits::LINK_WINDOW_BYTES };
        Self(CHANNELS.into_iter().filter(|channel| permits(*channel, is_device)).map(stream).collect())
    }

    /// True when nothing of a channel waits.
    pub(super) fn is_taken(&self, channel: Channel) -> bool {
        self.0.iter().all(|stream| stream.channel != channel || stream.frame.is_empty())
    }

    /// True when nothing waits at all.
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|stream| stream.frame.is_empty())
    }

    /// The next frame of a channel of which nothing waits.
    pub(super) fn put(&mut self, channel: Channel, frame: Vec<u8>) {
        if let Some(stream) = self.0.iter_mut().find(|stream| stream.channel == channel) {
            stream.frame = frame.into();
        }
    }

    /// The peer has read so many bytes of a channel; false if it had never got so many.
    pub(super) fn credited(&mut self, channel: Channel, bytes: u32) -> bool {
        let Some(stream) = self.0.iter_mut().find(|stream| stream.channel == channel) else { return false };
        match stream.window_bytes.checked_add(bytes).filter(|window| *window <= limits::LINK_WINDOW_BYTES) {
            Some(window) => stream.window_bytes = window,
            None => return false,
        }
        true
    }

    /// The next piece to send: of the most urgent channel that the peer has room for.
    pub(super) fn next_piece(&mut self, bytes_max: usize) -> Option<(Channel, Bytes)> {
        let stream = self.0.iter_mut().find(|stream| !stream.frame.is_empty() && stream.window_bytes > 0)?;
        let room = usize::try_from(stream.window_bytes).unwrap_or(usize::MAX);
        let bytes = stream.frame.len().min(bytes_max).min(room);
        let piece = stream.frame.slice(..bytes);
        stream.frame.advance(bytes);
        stream.window_bytes -= u32::try_from(bytes).unwrap_or(stream.window_bytes);
        if stream.frame.is_empty() {
            stream.frame = Bytes::new();
        }
        Some((stream.channel, piece))
    }
}

#[cfg(test)]
mod tests {
    use mobo_core::ids::Lane;

    use super::*;

    #[test]
    fn urgent_channels_go_first_and_none_goes_over_its_window() {
        let window = usize::try_from(limits::LINK_WINDOW_BYTES).unwrap();
        let (blobs, state) = (Channel::Lane(Lane::Blobs), Channel::Lane(Lane::State));
        let mut outgoing = Outgoing::new(true);
        outgoing.put(blobs, vec![1; window + 10]);
        outgoing.put(state, vec![2; 5]);
        outgoing.put(Channel::Down, vec![3; 5]);
        assert_eq!(outgoing.next_piece(100).unwrap(), (state, vec![2; 5].into()));
        assert!(outgoing.is_taken(state) && !outgoing.is_taken(blobs));
        assert_eq!(outgoing.next_piece(window * 2).unwrap().1.len(), window, "no more than the window");
        assert_eq!(outgoing.next_piece(100), None, "a device sends nothing down");
        assert!(!outgoing.credited(Channel::Down, 1) && !outgoing.credited(blobs, limits::LINK_WINDOW_BYTES + 1));
        assert!(outgoing.credited(blobs, 4));
        assert_eq!(outgoing.next_piece(100).unwrap().1.len(), 4);
        assert!(outgoing.credited(blobs, 100));
        assert_eq!(outgoing.next_piece(100).unwrap().1.len(), 6);
        assert!(outgoing.is_empty());
    }
}
