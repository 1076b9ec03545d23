//! One WebSocket: frames in, notes out, and an end that says why.

use std::future::Future;

use futures_util::{SinkExt as _, StreamExt as _};
use mobo_core::limits;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::rooms::{Mail, Note};
use crate::gate::Gate;
use crate::upgrade::Stream;

/// What a client says.
pub(super) enum Heard<'m> {
    /// Text.
    Text(&'m str),
    /// Bytes.
    Binary(&'m [u8]),
}

/// Why a connection is closed: a code of the protocol and a sentence.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Close(pub(super) u16, pub(super) String);

/// What speaks a protocol on a socket. Answers go into its mailbox.
pub(super) trait Speaker: Send {
    /// Closed with this while the node stops.
    const STOPPING: u16;
    /// Closed with this when it does not keep up.
    const SLOW: u16;

    /// Takes a message.
    fn heard(&mut self, heard: Heard<'_>) -> impl Future<Output = Result<(), Close>> + Send;

    /// Works on what nobody in a room says; ready whenever a piece of it is done, with what is to be sent. It may be dropped while it waits.
    fn work(&mut self) -> impl Future<Output = Result<Vec<Note>, Close>> + Send;

    /// Nothing was heard for [`limits::WS_SILENCE`]: asks whether somebody is there.
    fn silence(&mut self) -> Option<Note>;

    /// Says goodbye to others.
    fn leave(&mut self);
}

/// Speaks until either side closes.
pub(super) async fn converse<S: Speaker>(gate: &Gate, stream: Stream, mut speaker: S, mut mail: Mail) {
    let message = Some(limits::WS_MESSAGE_BYTES_MAX);
    let config =
        WebSocketConfig::default().read_buffer_size(4 * 1024).write_buffer_size(0).max_message_size(message).max_frame_size(message);
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
    let close = speak(gate, &mut socket, &mut speaker, &mut mail).await;
    speaker.leave();
    if let Some(Close(code, reason)) = close {
        let reason: String = reason.chars().take(100).collect();
        let frame = CloseFrame { code: CloseCode::from(code), reason: Utf8Bytes::from(reason) };
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
async fn speak<S: Speaker>(gate: &Gate, socket: &mut WebSocketStream<Stream>, speaker: &mut S, mail: &mut Mail) -> Option<Close> {
    let (mut heard_at, mut asked) = (Instant::now(), false);
    loop {
        tokio::select! {
            biased;
            () = gate.closed() => return Some(Close(S::STOPPING, "this node stops".to_owned())),
            note = mail.next() => {
                let Some(note) = note else { return Some(Close(S::SLOW, "too much waits for this client".to_owned())) };
                if let Err(end) = send::<S>(socket, note).await {
                    return end;
                }
            }
            message = socket.next() => {
                (heard_at, asked) = (Instant::now(), false);
                let done = match message? {
                    Ok(Message::Text(text)) => speaker.heard(Heard::Text(&text)).await,
                    Ok(Message::Binary(bytes)) => speaker.heard(Heard::Binary(&bytes)).await,
                    Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => Ok(()),
                    Ok(Message::Close(_)) | Err(_) => return None,
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
                if let Some(note) = speaker.silence() && let Err(end) = send::<S>(socket, note).await {
                    return end;
                }
            }
            notes = speaker.work() => {
                let notes = match notes {
                    Ok(notes) => notes,
                    Err(close) => return Some(close),
                };
                for note in notes {
                    if let Err(end) = send::<S>(socket, note).await {
                        return end;
                    }
                }
            }
        }
    }
}

/// Sends a note, or says how the connection ends.
async fn send<S: Speaker>(socket: &mut WebSocketStream<Stream>, note: Note) -> Result<(), Option<Close>> {
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
