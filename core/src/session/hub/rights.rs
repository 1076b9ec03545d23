//! Rights that change while a session is live: the device hears of them at once (replication.md D5).

use super::{HubSession, Message, State};
use crate::link::Channel;
use crate::message::Grant;

impl HubSession {
    /// Tells the device what it may read and write now, as far as that is news.
    pub(super) fn rights(&mut self, grants: Vec<Grant>) {
        if self.state != State::Live {
            return;
        }
        let gone: Vec<_> = self.granted.keys().copied().filter(|bucket| grants.iter().all(|grant| grant.bucket != *bucket)).collect();
        for bucket in gone {
            self.granted.remove(&bucket);
            self.down.cursors.remove(&bucket);
            self.down.damaged.remove(&bucket);
            self.send(Channel::Control, Message::Revoke(bucket));
        }
        for grant in grants {
            if self.granted.insert(grant.bucket, grant.write) != Some(grant.write) {
                self.send(Channel::Control, Message::Grant(grant));
            }
        }
    }
}
