//! One WebSocket: frames in, notes out, and an end that says why.

use std::future::Future;
use std::pin::pin;

use futures_util::{SinkExt as _, StreamExt as _};
use mobo_core::limits;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::rooms::{Mail, Note};
use crate::gate::Gate;
use crate::upgrade::Stream;

/// What a client says.
pub(crate) enum Heard<'m> {
    /// Text.
    Text(&'m str),
    /// Bytes.
    Binary(&'m [u8]),
}

/// Why a connection is closed: a code of the protocol and a sentence.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Close(pub(crate) u16, pub(crate) String);

/// What speaks a protocol on a socket. Answers go into its mailbox.
pub(crate) trait Speaker: Send {
    /// Closed with this while the node stops.
    const STOPPING: u16;
    /// Closed with this when it does not keep up.
    const SLOW: u16;

    /// Takes a message.
    fn heard(&mut self, heard: Heard<'_>) -> impl Future<Output = Result<(), Close>> + Send;

    /// Does what is due before anything else, and gives what is to be sent of it. It is never dropped before it is done, so that nobody's haste
    /// keeps it from being done.
    fn tend(&mut self) -> impl Future<Output = Vec<Note>> + Send {
        async { Vec::new() }
    }

    /// Works on what nobody in a room says; ready whenever a piece of it is done, with what is to be sent. It may be dropped while it waits.
    fn work(&mut self) -> impl Future<Output = Result<Vec<Note>, Close>> + Send;

    /// Nothing was heard for [`limits::WS_SILENCE`]: asks whether somebody is there.
    fn silence(&mut self) -> Option<Note>;

    /// Says goodbye to others.
    fn leave(&mut self);
}

/// Speaks until either side closes.
pub(crate) async fn converse<S: Speaker>(gate: &Gate, stream: Stream, mut speaker: S, mut mail: Mail) {
    let message = Some(limits::WS_MESSAGE_BYTES_MAX);
    let config =
        WebSocketConfig::default().read_buffer_size(4 * 1024).write_buffer_size(0).max_message_size(message).max_frame_size(message);
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
    let close = speak(gate.closed(), &mut socket, &mut speaker, &mut mail).await;
    speaker.leave();
    if let Some(Close(code, reason)) = close {
        // A frame of control holds 125 bytes.
        let reason = reason.get(..reason.floor_char_boundary(120)).unwrap_or_default();
        let frame = CloseFrame { code: CloseCode::from(code), reason: Utf8Bytes::from(reason.to_owned()) };
        // Whoever does not take it is gone anyway.
        let _ = timeout(limits::WS_WRITE_TIMEOUT, async {
            socket.close(Some(frame)).await?;
            while let Some(Ok(_)) = socket.next().await {}
            Ok::<_, tokio_tungstenite::tungstenite::Error>(())
        })
        .await;
    }
}

/// `None`: the other side has gone.
async fn speak<S, T>(closed: impl Future<Output = ()>, socket: &mut WebSocketStream<T>, speaker: &mut S, mail: &mut Mail) -> Option<Close>
where
    S: Speaker,
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut closed = pin!(closed);
    let (mut heard_at, mut asked) = (Instant::now(), false);
    loop {
        if let Err(end) = send_all::<S, T>(socket, speaker.tend().await).await {
            return end;
        }
        // None of them goes first: whoever never ends would keep the others from their turn.
        tokio::select! {
            () = &mut closed => return Some(Close(S::STOPPING, "this node stops".to_owned())),
            note = mail.next() => {
                let Some(note) = note else { return Some(Close(S::SLOW, "too much waits for this client".to_owned())) };
                if let Err(end) = send::<S, T>(socket, note).await {
                    return end;
                }
            }
            message = socket.next() => {
                (heard_at, asked) = (Instant::now(), false);
                let done = match message? {
                    Ok(Message::Text(text)) => speaker.heard(Heard::Text(&text)).await,
                    Ok(Message::Binary(bytes)) => speaker.heard(Heard::Binary(&bytes)).await,
                    Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => Ok(()),
                    Ok(Message::Close(_)) => {
                        farewell(socket).await;
                        return None;
                    }
                    Err(_) => return None,
                };
                if let Err(close) = done {
                    return Some(close);
                }
            }
            () = sleep_until(heard_at + limits::WS_SILENCE) => {
                if std::mem::replace(&mut asked, true) {
                    return Some(Close(4201, "nothing was heard for too long".to_owned()));
                }
                heard_at = Instant::now();
                if let Some(note) = speaker.silence() && let Err(end) = send::<S, T>(socket, note).await {
                    return end;
                }
            }
            notes = speaker.work() => {
                let notes = match notes {
                    Ok(notes) => notes,
                    Err(close) => return Some(close),
                };
                // What waits for this client goes first: the answer that opens a channel comes before its changes.
                for _ in 0..mail.waiting() {
                    let Some(note) = mail.next().await else { break };
                    if let Err(end) = send::<S, T>(socket, note).await {
                        return end;
                    }
                }
                if let Err(end) = send_all::<S, T>(socket, notes).await {
                    return end;
                }
            }
        }
    }
}

/// Answers a close, which goes out while the end is read: clients take a connection that ends without it for one that was cut.
async fn farewell<T: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<T>) {
    // Whoever does not take it is gone anyway.
    let _ = timeout(limits::WS_WRITE_TIMEOUT, async { while let Some(Ok(_)) = socket.next().await {} }).await;
}

async fn send_all<S: Speaker, T>(socket: &mut WebSocketStream<T>, notes: Vec<Note>) -> Result<(), Option<Close>>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    for note in notes {
        send::<S, T>(socket, note).await?;
    }
    Ok(())
}

/// Sends a note, or says how the connection ends.
async fn send<S: Speaker, T>(socket: &mut WebSocketStream<T>, note: Note) -> Result<(), Option<Close>>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let message = match note {
        Note::Text(text) => Message::text(&*text),
        Note::Binary(bytes) => Message::binary(bytes.to_vec()),
        Note::Close(code, reason) => return Err(Some(Close(code, reason.to_string()))),
    };
    match timeout(limits::WS_WRITE_TIMEOUT, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(None),
        Err(_) => Err(Some(Close(S::SLOW, "this client takes nothing".to_owned()))),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::rooms::{Mailbox, mailbox};
    use super::*;

    /// Has always something to send, and something that is due now and then.
    struct Busy {
        mailbox: Mailbox,
        due: Instant,
    }

    impl Speaker for Busy {
        const STOPPING: u16 = 1001;
        const SLOW: u16 = 1013;

        async fn heard(&mut self, _: Heard<'_>) -> Result<(), Close> {
            self.mailbox.put(Note::text("heard"));
            Ok(())
        }

        async fn tend(&mut self) -> Vec<Note> {
            if self.due > Instant::now() {
                return Vec::new();
            }
            // It takes more than one poll.
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            self.due = Instant::now() + Duration::from_millis(20);
            vec![Note::text("tended")]
        }

        async fn work(&mut self) -> Result<Vec<Note>, Close> {
            Ok(vec![Note::text("worked")])
        }

        fn silence(&mut self) -> Option<Note> {
            None
        }

        fn leave(&mut self) {}
    }

    /// One who always has mail is tended, works and hears all the same, and its end comes.
    #[tokio::test]
    async fn who_is_always_busy_gets_to_everything() {
        let (near, far) = tokio::io::duplex(1 << 20);
        let mut server = WebSocketStream::from_raw_socket(near, Role::Server, None).await;
        let client = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
        let (mailbox, mut mail) = mailbox();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let speaking = tokio::spawn({
            let mut speaker = Busy { mailbox: mailbox.clone(), due: Instant::now() };
            async move { speak(async { drop(ended.await) }, &mut server, &mut speaker, &mut mail).await }
        });
        let filling = tokio::spawn(async move {
            loop {
                // As much as fits beside what is said by others.
                (mailbox.waiting()..8).for_each(|_| mailbox.put(Note::text("mail")));
                tokio::task::yield_now().await;
            }
        });
        let (mut write, mut read) = client.split();
        write.send(Message::text("hello")).await.unwrap();
        let mut missing = std::collections::BTreeSet::from(["mail", "heard", "worked"]);
        let mut tended = 0;
        let all = async {
            while !missing.is_empty() || tended < 3 {
                let Some(Ok(Message::Text(text))) = read.next().await else { panic!("it ended") };
                missing.remove(text.as_str());
                tended += usize::from(text.as_str() == "tended");
            }
            end.send(()).unwrap();
            while let Some(Ok(_)) = read.next().await {}
        };
        timeout(Duration::from_secs(20), all).await.unwrap();
        assert_eq!(speaking.await.unwrap(), Some(Close(1001, "this node stops".to_owned())));
        filling.abort();
    }
}
