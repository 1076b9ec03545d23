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

    /// Waits until half of a channel's queue is free: for whoever has many frames to send that no credit bounds, before each of them. The
    /// other half is for what does not wait.
    ///
    /// # Errors
    ///
    /// [`TooSlow`] when that takes longer than [`limits::PEER_DEAD_AFTER`].
    fn room(&mut self, channel: Channel) -> impl Future<Output = Result<(), TooSlow>> + Send;
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

    async fn room(&mut self, channel: Channel) -> Result<(), TooSlow> {
        let Some(queue) = self.queues.get(&channel) else { return Ok(()) };
        // A queue that is closed has a broken link behind it.
        let half = tokio::time::timeout(limits::PEER_DEAD_AFTER, queue.reserve_many(limits::OUTBOX_FRAMES_MAX / 2));
        half.await.map(drop).map_err(|_| TooSlow)
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("link", &self.link).field("channels", &self.queues.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use mobo_core::future::BoxFuture;
    use mobo_core::link::LinkError;
    use tokio::sync::Semaphore;

    use super::*;

    /// A peer that takes as many frames as it has permits.
    #[derive(Debug)]
    struct Reader {
        permits: Semaphore,
        taken: Mutex<Vec<u8>>,
    }

    impl Link for Reader {
        fn send(&self, _: Channel, frame: Vec<u8>) -> BoxFuture<'_, Result<(), LinkError>> {
            Box::pin(async move {
                self.permits.acquire().await.unwrap().forget();
                self.taken.lock().unwrap().extend(frame);
                Ok(())
            })
        }

        fn recv(&self) -> BoxFuture<'_, Result<Vec<u8>, LinkError>> {
            Box::pin(std::future::pending())
        }

        fn bytes(&self) -> (u64, u64) {
            (0, 0)
        }

        fn close(&self, _: &str) -> BoxFuture<'_, ()> {
            Box::pin(std::future::ready(()))
        }

        fn binding(&self) -> Vec<u8> {
            Vec::new()
        }

        fn peer(&self) -> String {
            "a reader".to_owned()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_frames_wait_for_a_slow_peer_and_end_with_one_that_is_dead() {
        for (permits, want) in [(5_000, Ok(())), (300, Err(TooSlow))] {
            let link = Arc::new(Reader { permits: Semaphore::new(permits), taken: Mutex::default() });
            let mut outbox = Outbox::new(Arc::clone(&link) as Arc<dyn Link>);
            let mut sent = Vec::new();
            let all: Result<(), TooSlow> = async {
                for number in 0..2_000_u32 {
                    outbox.room(Channel::Control).await?;
                    outbox.send(Channel::Control, vec![number as u8])?;
                    sent.push(number as u8);
                }
                Ok(())
            }
            .await;
            assert_eq!(all, want, "a peer that takes {permits} frames");
            for _ in 0..limits::OUTBOX_FRAMES_MAX / 2 - 1 {
                assert_eq!(outbox.send(Channel::Control, Vec::new()), Ok(()), "there is room for what does not wait");
            }
            outbox.finish().await;
            let taken = link.taken.lock().unwrap();
            assert!(sent.starts_with(&taken) && taken.len() == permits.min(2_000), "{} of {}", taken.len(), sent.len());
        }
    }
}
