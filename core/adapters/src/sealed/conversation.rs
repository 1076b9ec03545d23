//! What the link, its pump and whoever brings its packets share.

use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mobo_core::limits;
use mobo_core::link::{Channel, LinkError};
use mobo_protocol::sealed::{CONTENT_OVERHEAD_BYTES, Content, Opened, Opener};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::incoming::Incoming;
use super::outgoing::Outgoing;
use super::{Setup, permits};
use crate::reasons::{readable, reason_bytes};

/// The state of one end of a link. No call but the `async` ones waits.
#[derive(Debug)]
pub(crate) struct Conversation {
    is_device: bool,
    state: Mutex<State>,
    /// A frame may be whole, or the link over.
    frames: Notify,
    /// A channel may be free, or the link over.
    room: Notify,
    /// The pump may have something to do.
    work: Notify,
}

#[derive(Debug)]
struct State {
    opener: Opener,
    incoming: Incoming,
    outgoing: Outgoing,
    /// When the peer was heard last.
    heard: Instant,
    is_confirmed: bool,
    /// Why the link is over. What arrived before can still be read.
    end: Option<LinkError>,
    closing: Closing,
    /// The last packet, where the peer ended the link or broke the protocol.
    farewell: Option<Saying>,
    sent_bytes: u64,
    received_bytes: u64,
    is_pumped: bool,
}

#[derive(Debug, Eq, PartialEq)]
enum Closing {
    No,
    /// After what is to be sent, or, if hasty, at once.
    Asked {
        reason: String,
        hasty: bool,
    },
    Said,
}

/// What the pump sends.
#[derive(Debug)]
pub(super) enum Saying {
    Piece(Channel, Bytes),
    Credit(Channel, u32),
    Alive,
    Close(bool, Vec<u8>),
    Closed,
}

impl Saying {
    pub(super) fn content(&self) -> Content<'_> {
        match self {
            Self::Piece(channel, bytes) => Content::Piece(*channel, bytes),
            Self::Credit(channel, bytes) => Content::Credit(*channel, *bytes),
            Self::Alive => Content::Alive,
            Self::Close(broken, reason) => Content::Close(*broken, reason),
            Self::Closed => Content::Closed,
        }
    }
}

/// What the pump has to do.
#[derive(Debug)]
pub(super) enum Work {
    Send(Saying),
    Nothing,
    Leave,
}

fn closed_here() -> LinkError {
    LinkError::Closed("this end closed it".into())
}

impl Conversation {
    pub(super) fn new(setup: &Setup, opener: Opener) -> Self {
        let state = State {
            opener,
            incoming: Incoming::new(setup.is_device),
            outgoing: Outgoing::new(setup.is_device),
            heard: Instant::now(),
            is_confirmed: false,
            end: None,
            closing: Closing::No,
            farewell: None,
            sent_bytes: 0,
            received_bytes: 0,
            is_pumped: false,
        };
        Self { is_device: setup.is_device, state: Mutex::new(state), frames: Notify::new(), room: Notify::new(), work: Notify::new() }
    }

    /// Takes in what a sealed packet held. True if it was the peer's, and the next one.
    pub(crate) fn packet(&self, sealed: &[u8]) -> bool {
        let mut state = self.state();
        let opened = match state.opener.open(sealed) {
            Opened::Next(content) => content,
            // Whoever carries packets may repeat or make up some: they change nothing.
            Opened::Repeated | Opened::Forged => return false,
            Opened::Gap(missing) => {
                let why = format!("{missing} packets were lost on the way, or overtaken");
                self.end(&mut state, LinkError::Closed(why));
                return false;
            }
        };
        state.heard = Instant::now();
        state.is_confirmed = true;
        state.received_bytes += (sealed.len() + 9) as u64;
        let taken = match Content::decode(opened) {
            Ok(Some(content)) => self.content(&mut state, &content),
            Ok(None) => Ok(()),
            Err(error) => Err(LinkError::Protocol(error.to_string())),
        };
        if let Err(error) = taken {
            self.broken(&mut state, error);
        }
        true
    }

    fn content(&self, state: &mut State, content: &Content<'_>) -> Result<(), LinkError> {
        match content {
            Content::Piece(channel, bytes) => {
                state.incoming.arrived(*channel, bytes)?;
                self.frames.notify_waiters();
            }
            Content::Credit(channel, bytes) => {
                if !state.outgoing.credited(*channel, *bytes) {
                    return Err(LinkError::Protocol(format!("it gives back what it never got, on {channel:?}")));
                }
                self.work.notify_one();
            }
            Content::Alive => {}
            Content::Close(_, reason) => {
                state.farewell = Some(Saying::Closed);
                self.end(state, LinkError::Closed(readable(reason)));
            }
            Content::Closed => self.end(state, closed_here()),
        }
        Ok(())
    }

    /// The way broke.
    pub(crate) fn lost(&self, error: LinkError) {
        self.end(&mut self.state(), error);
    }

    /// True once a packet of the peer has arrived: it has the keys.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.state().is_confirmed
    }

    /// True once the link is over and the pump has let go of the way.
    pub(crate) fn is_gone(&self) -> bool {
        self.state().is_pumped
    }

    /// Ready when [`Self::is_gone`].
    pub(crate) async fn gone(&self) {
        self.until(&self.frames, |state| state.is_pumped.then_some(())).await;
    }

    /// Ready when the link is over.
    pub(crate) async fn over(&self) {
        self.until(&self.frames, |state| state.end.as_ref().map(|_| ())).await;
    }

    pub(super) async fn send(&self, channel: Channel, frame: Vec<u8>) -> Result<(), LinkError> {
        if !permits(channel, self.is_device) {
            return Err(LinkError::Protocol(format!("this end must not send on {channel:?}")));
        }
        let free = |state: &mut State| match &state.end {
            Some(end) => Some(Err(end.clone())),
            None if state.closing != Closing::No => Some(Err(closed_here())),
            None => state.outgoing.is_taken(channel).then_some(Ok(())),
        };
        self.until(&self.room, free).await?;
        self.state().outgoing.put(channel, frame);
        self.work.notify_one();
        let taken = |state: &mut State| match &state.end {
            _ if state.outgoing.is_taken(channel) => Some(Ok(())),
            Some(end) => Some(Err(end.clone())),
            None => None,
        };
        self.until(&self.room, taken).await
    }

    /// The next whole frame. Everything that arrived comes before the end. Dropping the future loses nothing.
    pub(super) async fn next_frame(&self) -> Result<Vec<u8>, LinkError> {
        let next = |state: &mut State| {
            if let Some(error @ LinkError::Protocol(_)) = &state.end {
                return Some(Err(error.clone()));
            }
            let frame = state.incoming.next_frame();
            if state.incoming.has_credit() {
                self.work.notify_one();
            }
            match frame {
                Ok(Some(frame)) => Some(Ok(frame)),
                Ok(None) => state.end.clone().map(Err),
                Err(error) => {
                    self.broken(state, error.clone());
                    Some(Err(error))
                }
            }
        };
        self.until(&self.frames, next).await
    }

    /// Sends what is to be sent and says goodbye; ready when the peer has it all, or has had its time.
    pub(super) async fn close(&self, reason: &str) {
        self.leave(reason, false);
        let _ = timeout(limits::LINK_CLOSE_TIMEOUT, self.over()).await;
        self.lost(closed_here());
        let _ = timeout(limits::LINK_CLOSE_TIMEOUT, self.gone()).await;
    }

    /// Says goodbye; if hasty, before what is to be sent.
    pub(super) fn leave(&self, reason: &str, hasty: bool) {
        let mut state = self.state();
        if state.end.is_none() && (state.closing == Closing::No || hasty) {
            state.closing = Closing::Asked { reason: reason.to_owned(), hasty };
        }
        drop(state);
        self.room.notify_waiters();
        self.work.notify_one();
    }

    /// What the pump does next, with pieces of packets of at most `packet_bytes_max`.
    pub(super) fn next_work(&self, packet_bytes_max: usize) -> Work {
        let mut state = self.state();
        if let Some(farewell) = state.farewell.take() {
            return Work::Send(farewell);
        }
        if state.end.is_some() {
            return Work::Leave;
        }
        if let Closing::Asked { hasty: true, .. } = state.closing {
            let saying = close(&mut state.closing);
            self.end(&mut state, closed_here());
            return Work::Send(saying);
        }
        if let Some((channel, bytes)) = state.incoming.credit() {
            return Work::Send(Saying::Credit(channel, bytes));
        }
        if let Some((channel, piece)) = state.outgoing.next_piece(packet_bytes_max.saturating_sub(CONTENT_OVERHEAD_BYTES)) {
            if state.outgoing.is_taken(channel) {
                self.room.notify_waiters();
            }
            return Work::Send(Saying::Piece(channel, piece));
        }
        if matches!(state.closing, Closing::Asked { .. }) && state.outgoing.is_empty() {
            return Work::Send(close(&mut state.closing));
        }
        Work::Nothing
    }

    pub(super) async fn work(&self) {
        self.work.notified().await;
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.state().sent_bytes += bytes as u64;
    }

    /// The pump has let go of the way.
    pub(super) fn pumped(&self) {
        self.state().is_pumped = true;
        self.frames.notify_waiters();
    }

    /// How long the peer has been silent.
    pub(super) fn silence(&self) -> Duration {
        self.state().heard.elapsed()
    }

    pub(super) fn bytes(&self) -> (u64, u64) {
        let state = self.state();
        (state.sent_bytes, state.received_bytes)
    }

    fn broken(&self, state: &mut State, error: LinkError) {
        if let (None, LinkError::Protocol(why)) = (&state.end, &error) {
            state.farewell = Some(Saying::Close(true, reason_bytes(why).to_vec()));
        }
        self.end(state, error);
    }

    /// The first end is the end.
    fn end(&self, state: &mut State, error: LinkError) {
        if state.end.is_none() {
            state.end = Some(error);
        }
        self.frames.notify_waiters();
        self.room.notify_waiters();
        self.work.notify_one();
    }

    /// Looks at the state until `probe` answers, each time that `notify` says that it may have changed.
    async fn until<T>(&self, notify: &Notify, mut probe: impl FnMut(&mut State) -> Option<T>) -> T {
        let mut notified = pin!(notify.notified());
        loop {
            notified.as_mut().enable();
            if let Some(answer) = probe(&mut self.state()) {
                return answer;
            }
            notified.as_mut().await;
            notified.set(notify.notified());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn close(closing: &mut Closing) -> Saying {
    match std::mem::replace(closing, Closing::Said) {
        Closing::Asked { reason, .. } => Saying::Close(false, reason_bytes(&reason).to_vec()),
        Closing::No | Closing::Said => Saying::Alive,
    }
}
