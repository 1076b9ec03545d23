//! The receiving half of a link: whole frames out of the bytes of several streams.
//!
//! There is no task and no queue: a frame is read when it is asked for, so what waits stays within QUIC's windows, and a reader that stops
//! stops its peer.

use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, ready};

use mobo_core::link::{Channel, LinkError};
use quinn::{Connection, ReadError, RecvStream};

use super::channel_of;
use super::ended::ended;
use crate::framing::missing_bytes;

/// The streams of one link that are read.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    streams: Vec<Incoming>,
    channels: BTreeSet<Channel>,
    /// The stream that is read first next time, so that none starves another.
    turn: usize,
}

enum Event {
    Frame(Result<Vec<u8>, LinkError>),
    Opened(Result<RecvStream, quinn::ConnectionError>),
}

impl Inbox {
    /// The streams that it holds.
    #[cfg(test)]
    pub(super) fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Reads the control stream too.
    pub(super) fn add_control(&mut self, stream: RecvStream) {
        self.channels.insert(Channel::Control);
        self.streams.push(Incoming { stream, channel: Some(Channel::Control), frame: Vec::new(), is_over: false });
    }

    /// The next whole frame of any stream. Everything that arrived comes before the end of the connection. Dropping the future loses
    /// nothing.
    pub(super) async fn next(&mut self, connection: &Connection) -> Result<Vec<u8>, LinkError> {
        loop {
            let mut opened = pin!(connection.accept_uni());
            let event = poll_fn(|context| match self.poll_frame(context, connection) {
                Poll::Ready(frame) => Poll::Ready(Event::Frame(frame)),
                Poll::Pending => opened.as_mut().poll(context).map(Event::Opened),
            })
            .await;
            match event {
                Event::Frame(frame) => return frame,
                Event::Opened(Ok(stream)) => {
                    self.streams.push(Incoming { stream, channel: None, frame: Vec::new(), is_over: false });
                }
                Event::Opened(Err(error)) => {
                    // Bytes may have arrived between the two looks.
                    let last = poll_fn(|context| Poll::Ready(self.poll_frame(context, connection))).await;
                    return if let Poll::Ready(frame) = last { frame } else { Err(ended(error)) };
                }
            }
        }
    }

    /// Asks each stream once, in turn. Pending also when all are over.
    fn poll_frame(&mut self, context: &mut Context<'_>, connection: &Connection) -> Poll<Result<Vec<u8>, LinkError>> {
        // Its peer may open others in their place, as many as it likes.
        self.streams.retain(|stream| !stream.is_over);
        let count = self.streams.len();
        for offset in 0..count {
            let index = (self.turn + offset) % count;
            let Some(stream) = self.streams.get_mut(index) else { continue };
            if stream.channel.is_none() {
                let sender = !connection.side();
                match stream.poll_channel(context, sender) {
                    Poll::Ready(Ok(Some(channel))) if self.channels.insert(channel) => {}
                    Poll::Ready(Ok(Some(channel))) => return broken(format!("it opened a second stream for {channel:?}")),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Ready(Ok(None)) | Poll::Pending => continue,
                }
            }
            if let Poll::Ready(frame) = stream.poll_frame(context) {
                match frame.transpose() {
                    Some(frame) => {
                        self.turn = index + 1;
                        return Poll::Ready(frame);
                    }
                    None => continue,
                }
            }
        }
        Poll::Pending
    }
}

/// One stream that is read.
#[derive(Debug)]
struct Incoming {
    stream: RecvStream,
    /// `None` until its first byte is here.
    channel: Option<Channel>,
    /// What is here of the next frame.
    frame: Vec<u8>,
    is_over: bool,
}

impl Incoming {
    /// What the stream carries; `None` when it ended without saying so.
    fn poll_channel(&mut self, context: &mut Context<'_>, sender: quinn::Side) -> Poll<Result<Option<Channel>, LinkError>> {
        let Some(byte) = ready!(self.poll_bytes(context, 1))? else { return Poll::Ready(Ok(None)) };
        let byte = byte.first().copied().unwrap_or(u8::MAX);
        self.channel = channel_of(byte, sender);
        match self.channel {
            Some(channel) => Poll::Ready(Ok(Some(channel))),
            None => broken(format!("a stream begins with {byte}, which is no channel that it may send")),
        }
    }

    /// The next whole frame; `None` when there will be no more.
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Vec<u8>>, LinkError>> {
        loop {
            let missing = missing_bytes(&self.frame)?;
            if missing == 0 {
                return Poll::Ready(Ok(Some(std::mem::take(&mut self.frame))));
            }
            match ready!(self.poll_bytes(context, missing))? {
                Some(bytes) => self.frame.extend_from_slice(&bytes),
                None => return Poll::Ready(Ok(None)),
            }
        }
    }

    /// At most `bytes_max` of what has arrived; `None` at the end of the stream, and when the connection is lost.
    fn poll_bytes(&mut self, context: &mut Context<'_>, bytes_max: usize) -> Poll<Result<Option<bytes::Bytes>, LinkError>> {
        if self.is_over {
            return Poll::Ready(Ok(None));
        }
        // The future holds no bytes: what it does not give now, the next one gives.
        match ready!(pin!(self.stream.read_chunk(bytes_max, true)).poll(context)) {
            Ok(Some(chunk)) => return Poll::Ready(Ok(Some(chunk.bytes))),
            Ok(None) if !self.frame.is_empty() => return broken("a stream ends inside a frame".into()),
            Err(ReadError::Reset(_)) => return broken("it reset a stream".into()),
            // A lost connection is reported once, when everything that arrived has been read.
            Ok(None)
            | Err(ReadError::ConnectionLost(_) | ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected) => {}
        }
        (self.is_over, self.frame) = (true, Vec::new());
        Poll::Ready(Ok(None))
    }
}

fn broken<T>(why: String) -> Poll<Result<T, LinkError>> {
    Poll::Ready(Err(LinkError::Protocol(why)))
}
