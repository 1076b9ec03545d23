//! One open link.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use mobo_core::future::BoxFuture;
use mobo_core::link::{Channel, Link, LinkError};
use mobo_protocol::sealed::Agreed;
use tokio::sync::Mutex;

use super::conversation::Conversation;
use super::pump::Pump;
use super::{CHANNELS, Carrier, Setup};

/// An open sealed link, of either end. Dropping it closes it at once.
pub(crate) struct SealedLink {
    conversation: Arc<Conversation>,
    binding: [u8; 32],
    peer: String,
    /// Who sends on a channel: one after the other.
    turns: BTreeMap<Channel, Mutex<()>>,
}

impl SealedLink {
    /// Starts a link that was agreed; its packets are to be given to the conversation.
    pub(crate) fn start(agreed: Agreed, carrier: Box<dyn Carrier>, setup: Setup) -> (Self, Arc<Conversation>) {
        let conversation = Arc::new(Conversation::new(&setup, agreed.opener));
        let pump = Pump {
            conversation: Arc::clone(&conversation),
            sealer: agreed.sealer,
            carrier,
            packet_bytes_max: setup.packet_bytes_max.min(agreed.packet_bytes_max),
            keepalive: setup.keepalive,
        };
        tokio::spawn(pump.run());
        let turns = CHANNELS.into_iter().map(|channel| (channel, Mutex::default())).collect();
        (Self { conversation: Arc::clone(&conversation), binding: agreed.binding, peer: setup.peer, turns }, conversation)
    }

    /// What its packets are to be given to.
    pub(crate) fn conversation(&self) -> Arc<Conversation> {
        Arc::clone(&self.conversation)
    }
}

impl Link for SealedLink {
    fn send(&self, channel: Channel, frame: Vec<u8>) -> BoxFuture<'_, Result<(), LinkError>> {
        Box::pin(async move {
            let _turn = match self.turns.get(&channel) {
                Some(turn) => Some(turn.lock().await),
                None => None,
            };
            self.conversation.send(channel, frame).await
        })
    }

    fn recv(&self) -> BoxFuture<'_, Result<Vec<u8>, LinkError>> {
        Box::pin(self.conversation.next_frame())
    }

    fn binding(&self) -> Vec<u8> {
        self.binding.to_vec()
    }

    fn peer(&self) -> String {
        self.peer.clone()
    }

    fn bytes(&self) -> (u64, u64) {
        self.conversation.bytes()
    }

    fn close(&self, reason: &str) -> BoxFuture<'_, ()> {
        let reason = reason.to_owned();
        Box::pin(async move { self.conversation.close(&reason).await })
    }
}

impl Drop for SealedLink {
    fn drop(&mut self) {
        self.conversation.leave("it was dropped", true);
    }
}

impl fmt::Debug for SealedLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedLink").field("peer", &self.peer).finish_non_exhaustive()
    }
}
