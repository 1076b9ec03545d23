//! What a device may read and write, from its welcome on; of rights that change it hears at once (replication.md D5).

use super::up::Up;
use super::{HubSession, Message, State};
use crate::link::Channel;
use crate::message::{Grant, Welcome};

impl HubSession {
    pub(super) fn admitted(&mut self, welcome: Box<Welcome>) {
        self.state = State::Live;
        self.granted = welcome.grants.iter().map(|grant| (grant.bucket, grant.write)).collect();
        self.owes_offers |= welcome.recovering;
        self.up = Up::from_welcome(&welcome);
        self.send(Channel::Control, Message::Welcome(welcome));
    }

    /// Tells the device what it may read and write now, as far as that is news.
    pub(super) fn rights(&mut self, grants: Vec<Grant>) {
        if self.state != State::Live {
            return;
        }
        let gone: Vec<_> = self.granted.keys().copied().filter(|bucket| grants.iter().all(|grant| grant.bucket != *bucket)).collect();
        for bucket in gone {
            self.granted.remove(&bucket);
            if crate::protect!("rights.stop-reading", true) {
                self.down.cursors.remove(&bucket);
            }
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
