//! When the rights of a subscriber are asked again.

use mobo_core::limits;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::gate::Gate;

/// Rights are asked again when anything changes that they depend on, and after a while in any case: what ends by itself, such as a token,
/// changes nothing when it does.
#[derive(Debug)]
pub(crate) struct Recheck {
    changes: watch::Receiver<u64>,
    due: Instant,
}

impl Recheck {
    /// Watches from now on: to be made before rights are asked for the first time, so that nothing that changes is missed.
    pub(crate) fn begin(gate: &Gate) -> Self {
        Self { changes: gate.backend().rights_changes(), due: Instant::now() + limits::LIVE_RIGHTS_EVERY }
    }

    /// Ready when they are due, which they are until somebody [takes](Self::take) it. It may be dropped while it waits.
    pub(crate) async fn due(&mut self) {
        let changed = async {
            if self.changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = changed => {}
            () = sleep_until(self.due) => {}
        }
        self.due = Instant::now();
    }

    /// True if they are due; what changes from here on is for the next time.
    pub(crate) fn take(&mut self) -> bool {
        let is_due = self.due <= Instant::now() || self.changes.has_changed().unwrap_or(false);
        if is_due {
            self.changes.mark_unchanged();
            self.due = Instant::now() + limits::LIVE_RIGHTS_EVERY;
        }
        is_due
    }
}
