//! What a device pulls, and how far it has read.

use std::collections::BTreeMap;
use std::sync::Arc;

use mobo_core::ids::{BucketId, Position};
use mobo_core::limits;
use mobo_core::session::hub::Input;
use mobo_core::store::{PullPage, PullRequest};
use mobo_runtime::outbox::Frames;

use super::{Conversation, Done, Finished};
use crate::metrics;

/// How far the device has read: one note at a time, and of those that come meanwhile the newest.
#[derive(Debug, Default)]
pub(super) struct Noting {
    busy: bool,
    next: BTreeMap<BucketId, Position>,
}

impl<F: Frames> Conversation<F> {
    pub(super) fn pull(&mut self, wants: Vec<(BucketId, Position)>) {
        let Some(device) = self.session.device() else { return };
        let request = PullRequest {
            project: self.identity.project,
            device,
            wants,
            items_max: limits::BATCH_ITEMS_MAX,
            bytes_max: limits::BATCH_BYTES_MAX,
        };
        let store = Arc::clone(&self.sessions.store);
        self.start(async move {
            Done::input(match metrics::timed("pull", store.pull(request)).await {
                Ok(page) => {
                    if is_held_up(&page) {
                        tokio::time::sleep(limits::HUB_INTAKE_LOOK).await;
                    }
                    for key in page.buckets.iter().flat_map(|bucket| &bucket.damaged) {
                        tracing::error!(collection = %key.collection, id = %key.id, "a stored record is damaged and was not delivered");
                    }
                    Input::Page(Box::new(page))
                }
                Err(error) => Input::StoreFailed(error.to_string()),
            })
        });
    }

    pub(super) fn cursors(&mut self, at: Vec<(BucketId, Position)>) {
        let Some(device) = self.session.device() else { return };
        if self.noting.busy {
            self.noting.next.extend(at);
            return;
        }
        self.noting.busy = true;
        let (store, project) = (Arc::clone(&self.sessions.store), self.identity.project);
        let now = self.sessions.door.time.now();
        self.start(async move {
            if let Err(error) = store.cursors(project, device, at, now).await {
                tracing::debug!(%error, "cursors were not noted");
            }
            Done(Finished::Noted)
        });
    }

    /// The note is written; what has come meanwhile is the next.
    pub(super) fn noted(&mut self) {
        self.noting.busy = false;
        let next = std::mem::take(&mut self.noting.next);
        if !next.is_empty() {
            self.cursors(next.into_iter().collect());
        }
    }
}

/// True if there is more, and none of it here: something must happen in the store first, and asking again at once would be asking all the time.
fn is_held_up(page: &PullPage) -> bool {
    page.buckets.iter().any(|bucket| bucket.from < bucket.head) && page.buckets.iter().all(|bucket| bucket.to == bucket.from)
}
