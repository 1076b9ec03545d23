//! What the parts of a board may know of it and ask of it.

use mobo_core::kernel::{BoardState, ComponentReport};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A view of a running board. Clones see the same board.
#[derive(Clone, Debug)]
pub struct BoardHandle {
    report: watch::Receiver<BoardReport>,
    stop: CancellationToken,
}

/// The board and its parts at one moment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BoardReport {
    /// The whole.
    pub state: BoardState,
    /// Every part, in boot order.
    pub components: Vec<ComponentReport>,
}

impl Default for BoardReport {
    fn default() -> Self {
        Self { state: BoardState::Booting, components: Vec::new() }
    }
}

impl BoardHandle {
    pub(super) const fn new(report: watch::Receiver<BoardReport>, stop: CancellationToken) -> Self {
        Self { report, stop }
    }

    /// How the board is now.
    #[must_use]
    pub fn report(&self) -> BoardReport {
        self.report.borrow().clone()
    }

    /// The state of the whole now.
    #[must_use]
    pub fn state(&self) -> BoardState {
        self.report.borrow().state
    }

    /// Waits until the board is as `wanted` says, and gives that state; `None` when the board is over first.
    pub async fn until(&mut self, wanted: impl Fn(BoardState) -> bool) -> Option<BoardState> {
        self.report.wait_for(|report| wanted(report.state)).await.ok().map(|report| report.state)
    }

    /// Asks the board to stop in order. Said again, it changes nothing.
    pub fn stop(&self) {
        self.stop.cancel();
    }
}
