//! The links that a hub has open on one listener.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use mobo_core::limits;
use mobo_core::link::LinkError;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Conversation, SealedLink};

/// Links on their way to whoever accepts them, and all that are open.
#[derive(Debug)]
pub(crate) struct OpenLinks {
    open: Mutex<Vec<Weak<Conversation>>>,
    /// None once the listener is closed.
    queue: Mutex<Option<mpsc::Sender<SealedLink>>>,
    ready: tokio::sync::Mutex<mpsc::Receiver<SealedLink>>,
}

impl Default for OpenLinks {
    fn default() -> Self {
        let (queue, ready) = mpsc::channel(limits::LINKS_WAITING_MAX);
        Self { open: Mutex::default(), queue: Mutex::new(Some(queue)), ready: tokio::sync::Mutex::new(ready) }
    }
}

impl OpenLinks {
    /// A device's link is up. Where nobody takes links, or too slowly, it is dropped, which tells the device.
    pub(crate) fn ready(&self, link: SealedLink) {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(queue) = queue else { return };
        let conversation = link.conversation();
        if queue.try_send(link).is_ok() {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            // Doubling bounds both how many dead ones are kept and how often they are looked for.
            if open.len() == open.capacity() {
                open.retain(|link| link.strong_count() > 0);
            }
            open.push(Arc::downgrade(&conversation));
        }
    }

    /// The next link.
    pub(crate) async fn next(&self) -> Result<SealedLink, LinkError> {
        self.ready.lock().await.recv().await.ok_or_else(|| LinkError::Closed("this listener was closed".into()))
    }

    /// True until [`Self::close`].
    pub(crate) fn is_open(&self) -> bool {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Takes no more links and says goodbye on those that are open.
    pub(crate) async fn close(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        let open = std::mem::take(&mut *self.open.lock().unwrap_or_else(PoisonError::into_inner));
        let open: Vec<Arc<Conversation>> = open.iter().filter_map(Weak::upgrade).collect();
        for conversation in &open {
            conversation.leave("the hub is stopping", true);
        }
        let gone = async {
            for conversation in &open {
                conversation.gone().await;
            }
        };
        let _ = timeout(limits::LINK_CLOSE_TIMEOUT, gone).await;
    }

    /// Ends all links at once: the way is gone.
    pub(crate) fn lost(&self, why: &str) {
        for conversation in self.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..).filter_map(|link| link.upgrade()) {
            conversation.lost(LinkError::Closed(why.to_owned()));
        }
    }
}
