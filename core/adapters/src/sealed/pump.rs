//! The one task of a link that sends.

use std::sync::Arc;
use std::time::Duration;

use mobo_core::limits;
use mobo_core::link::LinkError;
use mobo_protocol::sealed::Sealer;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Carrier;
use super::conversation::{Conversation, Saying, Work};

/// What the pump works with.
pub(super) struct Pump {
    pub(super) conversation: Arc<Conversation>,
    pub(super) sealer: Sealer,
    pub(super) carrier: Box<dyn Carrier>,
    pub(super) packet_bytes_max: usize,
    pub(super) keepalive: Duration,
}

impl Pump {
    /// Sends until the link is over, then lets go of the way.
    pub(super) async fn run(mut self) {
        // The first packet shows that this end has the keys.
        let mut alive_at = Instant::now();
        loop {
            let saying = match self.conversation.next_work(self.packet_bytes_max) {
                Work::Send(saying) => saying,
                Work::Leave => break,
                Work::Nothing => tokio::select! {
                    () = self.conversation.work() => continue,
                    () = sleep_until(alive_at) => Saying::Alive,
                    () = silence(&self.conversation, self.keepalive) => {
                        self.conversation.lost(LinkError::Silent);
                        continue;
                    }
                },
            };
            alive_at = Instant::now() + self.keepalive / 2;
            if !self.say(&saying).await {
                break;
            }
        }
        let _ = timeout(limits::LINK_CLOSE_TIMEOUT / 4, self.carrier.close()).await;
        self.conversation.pumped();
    }

    /// False when the way takes nothing any more.
    async fn say(&mut self, saying: &Saying) -> bool {
        let packet = self.sealer.seal(&saying.content());
        let bytes = packet.len();
        let sent = tokio::select! {
            sent = self.carrier.send(packet) => sent,
            () = silence(&self.conversation, self.keepalive) => Err(LinkError::Silent),
        };
        match sent {
            Ok(()) => {
                self.conversation.sent(bytes);
                true
            }
            Err(error) => {
                self.conversation.lost(error);
                false
            }
        }
    }
}

/// Ready when the peer has been silent for too long.
async fn silence(conversation: &Conversation, keepalive: Duration) {
    let patience = keepalive + keepalive / 2;
    loop {
        let silence = conversation.silence();
        if silence >= patience {
            return;
        }
        sleep(patience - silence).await;
    }
}
