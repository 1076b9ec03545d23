//! Letting a device in, and what it may do from then on.

use std::sync::Arc;

use mobo_core::limits;
use mobo_core::link::Channel;
use mobo_core::message::{AccessUpdate, Message, SignedHello};
use mobo_core::session::CloseReason;
use mobo_core::session::hub::Input;
use mobo_runtime::outbox::{Frames, TooSlow};

use super::{Conversation, Done, Finished};
use crate::admission::Turned;
use crate::sessions::Order;

impl<F: Frames> Conversation<F> {
    pub(super) fn admit(&mut self, hello: Box<SignedHello>) {
        let (binding, door) = (self.binding.clone(), Arc::clone(&self.sessions.door));
        self.start(async move {
            match door.hello(&hello, &binding).await {
                Ok(guest) => Done(Finished::Guest(Box::new(guest))),
                Err(Turned::Away(refusal)) => Done::input(Input::Admitted(Err(refusal))),
                Err(Turned::Store(error)) => Done::input(Input::StoreFailed(error.to_string())),
            }
        });
    }

    /// The welcome is on its way: the session is one of those that are live.
    pub(super) async fn welcomed(&mut self) -> Result<(), TooSlow> {
        let Some(log) = self.session.log() else { return Ok(()) };
        let device = log.0;
        self.place = None;
        self.registered = Some(self.sessions.enter(log, (self.teller.clone(), self.revoked.clone())));
        self.sessions.teller.live(device);
        self.look_for_the_other();
        // Refusals come before any ack that would cover them.
        for reject in std::mem::take(&mut self.unheard).into_iter().filter(|_| mobo_core::protect!("reject.told-again", true)) {
            // One that goes missing here would be gone for good: the next ack says that it was told.
            self.frames.room(Channel::Control).await?;
            self.send(Channel::Control, &Message::Reject(reject))?;
        }
        self.tell_access();
        // Registered first, looked at again then: a change of rights finds this session, or this finds the change.
        self.schema_changed();
        Ok(())
    }

    /// What users and keys may has changed.
    pub(crate) fn rights_changed(&mut self) {
        if self.registered.is_some() {
            self.tell_access();
        }
    }

    /// Tells the device who may use its API, where that is news in this session.
    fn tell_access(&mut self) {
        let Some(access) = self.sessions.door.accounts.as_ref().map(|accounts| accounts.access()) else { return };
        if self.access.as_ref() == Some(&access) {
            return;
        }
        if access.len() > limits::ACCESS_BYTES_MAX {
            tracing::warn!(
                bytes = access.len(),
                "there are more keys and policies than a device is told of: it goes on with what it knows"
            );
            return;
        }
        let update = AccessUpdate { hub_time: self.sessions.door.time.now(), text: access.to_string() };
        // A device that reads so slowly hears of it when it connects anew.
        if self.send(Channel::Control, &Message::Access(update)).is_ok() {
            self.access = Some(access);
        }
    }

    /// Tells a device that was revoked, whatever else was still to be said, as far as it listens.
    pub(crate) async fn expel(&mut self) -> CloseReason {
        self.order(Order::Revoked);
        let told = tokio::time::timeout(limits::REVOCATION_MAX / 2, self.carry_out()).await;
        told.ok().flatten().unwrap_or(CloseReason::Silent)
    }

    /// Asks what the device may do now, once it is known.
    pub(super) fn look_up_rights(&mut self) {
        let (Some(device), door) = (self.device(), Arc::clone(&self.sessions.door)) else { return };
        self.asked += 1;
        let asked = self.asked;
        self.start(async move {
            let row = match door.store.device(door.project(), device).await {
                Ok(Some(row)) if row.revoked.is_none() => row,
                Ok(_) => return Done::input(Input::Revoked),
                Err(error) => return Done::input(Input::StoreFailed(error.to_string())),
            };
            match door.rights(&row).await {
                Ok((rights, grants)) => Done(Finished::Rights(asked, rights, grants)),
                Err(error) => Done::input(Input::StoreFailed(error.to_string())),
            }
        });
    }
}
