//! A body that goes on for as long as somebody writes to it.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::Frame;
use tokio::sync::mpsc;

/// Parts of a body that wait for its reader.
const PARTS_MAX: usize = 4;

struct Flow(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Flow {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|part| part.map(|part| Ok(Frame::data(part))))
    }
}

/// A body, and what writes to it; it ends when the writer is dropped.
pub(crate) fn flow() -> (mpsc::Sender<Bytes>, Body) {
    let (writer, parts) = mpsc::channel(PARTS_MAX);
    (writer, Body::new(Flow(parts)))
}
