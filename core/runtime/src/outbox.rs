//! Sending on a link without waiting: one writer for each channel, behind a bounded queue.
//!
//! A session's driver must go on receiving while it sends, or two peers with full windows wait for each other for ever. What it may have
//! queued is bounded by the credits of the protocol; a peer that makes the queue overflow all the same is too slow, and loses its link.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use mobo_core::limits;
use mobo_core::link::{Channel, Link};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// The sending half of a link.
pub struct Outbox {
    link: Arc<dyn Link>,
    queues: BTreeMap<Channel, mpsc::Sender<Vec<u8>>>,
    writers: JoinSet<()>,
}

/// A queue is full: the peer does not read.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the peer reads too slowly")]
pub struct TooSlow;

/// Where a session's driver puts its frames: an [`Outbox`] on a link, or a simulator's network.
pub trait Frames: fmt::Debug {
    /// Queues a frame. A broken link shows when receiving, not here.
    ///
    /// # Errors
    ///
    /// [`TooSlow`] when the queue is full.
    fn send(&mut self, channel: Channel, frame: Vec<u8>) -> Result<(), TooSlow>;
}

impl Outbox {
    /// The sending half of `link`.
    #[must_use]
    pub fn new(link: Arc<dyn Link>) -> Self {
        Self { link, queues: BTreeMap::new(), writers: JoinSet::new() }
    }

    /// Waits until everything queued was taken by the transport, the link broke, or a peer that does not read has had its time.
    pub async fn finish(mut self) {
        self.queues.clear();
        let written = async { while self.writers.join_next().await.is_some() {} };
        if tokio::time::timeout(limits::LINK_CLOSE_TIMEOUT, written).await.is_err() {
            self.writers.abort_all();
        }
    }
}

impl Frames for Outbox {
    fn send(&mut self, channel: Channel, frame: Vec<u8>) -> Result<(), TooSlow> {
        let queue = self.queues.entry(channel).or_insert_with(|| {
            let (queue, mut frames) = mpsc::channel::<Vec<u8>>(limits::OUTBOX_FRAMES_MAX);
            let link = Arc::clone(&self.link);
            self.writers.spawn(async move {
                while let Some(frame) = frames.recv().await {
                    if link.send(channel, frame).await.is_err() {
                        return;
                    }
                }
            });
            queue
        });
        match queue.try_send(frame) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(TooSlow),
        }
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("link", &self.link).field("channels", &self.queues.len()).finish()
    }
}
