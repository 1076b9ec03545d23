//! A device that was told what the hub expects next goes on with that (replication.md D3 and N-6): else nothing of the lane gets through for as
//! long as the link lasts.

use std::collections::BTreeMap;

use mobo_core::ids::{Incarnation, Lane, Seq};
use mobo_core::message::Message;

use super::net::End;
use super::trace::{Try, Violation};

/// A word may be lost, and be on its way for as long as a link that is blocked stays open: so long a device may not know of any.
const UNKNOWN_US: u64 = 20_000_000;

/// By link and lane, what the hub expects next, and since when it has said so.
#[derive(Debug, Default)]
pub(super) struct Nacks(BTreeMap<(u64, Incarnation, Lane), (Seq, u64)>);

impl Nacks {
    /// Looks at a frame that a session has sent.
    pub(super) fn frame(&mut self, link: u64, (from, message): (End, &Message), at_us: u64) -> Try {
        match (from, message) {
            (End::Hub, Message::Nack(nack)) => {
                let (expect, _) = self.0.entry((link, nack.incarnation, nack.lane)).or_insert((nack.expect, at_us));
                *expect = nack.expect.max(*expect);
            }
            (End::Hub, Message::Ack(ack)) => {
                let key = (link, ack.incarnation, ack.lane);
                if self.0.get(&key).is_some_and(|(expect, _)| *expect <= ack.acked) {
                    self.0.remove(&key);
                }
            }
            (End::Device, Message::Push(push)) => {
                let key = (link, push.incarnation, push.lane);
                let Some((expect, since)) = self.0.get(&key).copied() else { return Ok(()) };
                if push.first <= expect {
                    self.0.remove(&key);
                } else if at_us - since > UNKNOWN_US {
                    let (first, expect) = (push.first.get(), expect.get());
                    let what =
                        format!("entry {first} of lane {} is pushed, and the hub asks for {expect} since {since}", push.lane.number());
                    return Err(Violation::new("N-6", what));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
