//! What becomes of a device's pushes.

use std::sync::Arc;

use mobo_core::ids::LaneKey;
use mobo_core::limits;
use mobo_core::merge::{Rights, prepare_push};
use mobo_core::message::{Code, Push};
use mobo_core::session::hub::{Input, Refusal};
use mobo_core::store::{Arrival, StoreError};
use mobo_runtime::outbox::Frames;

use super::{Conversation, Done, Finished, Sessions};
use crate::merger::kept;

impl<F: Frames> Conversation<F> {
    /// Checks a push here, in order, and queues it; only waiting for the verdict is left to the side.
    pub(super) async fn merge(&mut self, lane: LaneKey, push: Push) {
        let is_former = self.session.log() != Some((lane.device, lane.incarnation));
        if is_former && self.former.insert(lane.incarnation) {
            if self.former.len() > limits::FORMER_LOGS_MAX {
                return self.feed(Input::PushRefused(lane, Code::UNSUPPORTED));
            }
            if let Err(error) = note_former(Arc::clone(&self.sessions), lane).await {
                return self.feed(Input::StoreFailed(error.to_string()));
            }
        }
        let Some((key, rights)) = &self.guest else { return };
        let rights = if self.session.owes_offers() { rights.clone().owing_offers() } else { rights.clone() };
        let prepared = match prepare_push(self.identity.project, lane, key, push, rights) {
            Ok(prepared) if is_former => prepared.giving_back(),
            Ok(prepared) => prepared,
            Err(code) => return self.feed(Input::PushRefused(lane, code)),
        };
        let door = &self.sessions.door;
        if let Err(wait) = door.paces.spend(lane.device, kept(&prepared), door.time.machine().now()) {
            return self.feed(Input::Admitted(Err(Refusal::Error(wait))));
        }
        let verdict = self.sessions.merges.submit(prepared).await;
        let push = self.verdicts.pushes;
        self.verdicts.pushes += 1;
        self.start(async move {
            let verdict = match verdict.await {
                Ok(Ok(outcome)) => Input::Merged(lane, outcome),
                Ok(Err(error)) => Input::StoreFailed(error.to_string()),
                Err(_) => Input::Stop,
            };
            Done(Finished::Verdict(push, verdict))
        });
    }

    pub(super) fn judged(&mut self, push: u64, verdict: Input) {
        self.verdicts.early.insert(push, verdict);
        while let Some(verdict) = self.verdicts.early.remove(&self.verdicts.told) {
            self.verdicts.told += 1;
            self.answered(verdict);
        }
    }

    fn answered(&mut self, verdict: Input) {
        let merged = matches!(verdict, Input::Merged(..));
        self.feed(verdict);
        // What it has merged into a bucket that was taken away from it, no batch brings back: the next checkpoint tells it.
        if merged && matches!(&self.guest, Some((_, Rights::Buckets(grants))) if !grants.ended.is_empty()) {
            self.feed(Input::HintsLost);
        }
    }
}

/// A restored hub may never have heard of a log that the device has left behind.
async fn note_former(sessions: Arc<Sessions>, lane: LaneKey) -> Result<(), StoreError> {
    let (now, project) = (sessions.door.time.now(), sessions.door.project());
    let LaneKey { device, incarnation, .. } = lane;
    let arrival = Arrival { device, incarnation, parent: None, ordinal: None, boot: None, now, session: 0 };
    sessions.store.arrive(project, arrival).await.map(drop)
}
