//! What the parts of a board may know of it and ask of it.

use std::collections::BTreeMap;

use mobo_core::kernel::{BoardState, Command, ComponentName, ComponentReport, Done, Event, Health, Refusal};
use mobo_core::time::{Instant, Wall};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::Message;
use crate::bus::Bus;
use crate::clock::Clock;

/// A view of a running board. Clones see the same board.
#[derive(Clone, Debug)]
pub struct BoardHandle {
    report: watch::Receiver<BoardReport>,
    stop: CancellationToken,
    board: mpsc::Sender<Message>,
    bus: Bus,
    clock: Clock,
}

/// The board and its parts at one moment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BoardReport {
    /// The whole.
    pub state: BoardState,
    /// The health of the whole; of worth once it has booted.
    pub health: Health,
    /// Every part, in boot order.
    pub components: Vec<ComponentReport>,
    /// Where each part answers.
    pub listens: BTreeMap<ComponentName, Vec<String>>,
    /// The node was not shut down cleanly before this boot.
    pub unclean: bool,
}

impl Default for BoardReport {
    fn default() -> Self {
        Self { state: BoardState::Booting, health: Health::Recovering, components: Vec::new(), listens: BTreeMap::new(), unclean: false }
    }
}

impl BoardReport {
    /// One word for `status`: the health of the whole, `starting` before it serves and `stopping` after.
    #[must_use]
    pub const fn health_word(&self) -> &'static str {
        match self.state {
            BoardState::Booting => "starting",
            BoardState::Stopping | BoardState::Stopped => "stopping",
            BoardState::Failed => "failed",
            BoardState::Ready | BoardState::Degraded | BoardState::Critical => self.health.word(),
        }
    }
}

impl BoardHandle {
    pub(super) fn new(
        report: watch::Receiver<BoardReport>,
        stop: CancellationToken,
        board: mpsc::Sender<Message>,
        (bus, clock): (Bus, Clock),
    ) -> Self {
        Self { report, stop, board, bus, clock }
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

    /// Starts, stops, restarts or swaps a part, and waits until that is done. The command is carried out even if its caller stops waiting.
    ///
    /// # Errors
    ///
    /// [`Refusal`] says why not, and what to do.
    pub async fn command(&self, command: Command) -> Result<Done, Refusal> {
        let (reply, done) = oneshot::channel();
        let sent = self.board.send(Message::Command(command, reply)).await;
        match (sent, done.await) {
            (Ok(()), Ok(result)) => result,
            _ => Err(Refusal::Stopping),
        }
    }

    /// Says that hot settings have new values: every part is given them in [`Component::configure`](crate::component::Component::configure).
    /// Never waits.
    pub fn settings_changed(&self) {
        if self.board.try_send(Message::Settings).is_err() {
            let board = self.board.clone();
            // A board that is over has no use for it.
            tokio::spawn(async move { drop(board.send(Message::Settings).await) });
        }
    }

    /// The bus of the node.
    #[must_use]
    pub const fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Tells everybody who listens. Never waits.
    pub fn tell(&self, event: Event) {
        self.bus.publish(event);
    }

    /// What the wall clock showed at an instant of a report, as far as it is right now.
    #[must_use]
    pub fn wall_at(&self, instant: Instant) -> Wall {
        let ago = i64::try_from(self.clock.now().since(instant).as_micros()).unwrap_or(i64::MAX);
        Wall(self.clock.wall().0.saturating_sub(ago))
    }
}
