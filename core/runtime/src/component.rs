//! The contract between a part and the board that it is plugged into.

use std::future::Future;
use std::pin::Pin;

use mobo_core::kernel::{Check, ComponentSpec, Fault};
use tokio::time::Instant;

use crate::tasks::Tasks;

/// A boxed future, so that [`Component`] can be a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A part of a node.
///
/// The board calls `post`, `load`, `start` and `stop` in this order, at most once each, and waits for one part at a time. Each call has a
/// deadline (`mobo_core::limits`: `CHECK_TIMEOUT`, `LOAD_TIMEOUT`, `START_TIMEOUT`, `STOP_TIMEOUT`); past it the future is dropped. A
/// panic in a call is a fault of this part alone.
pub trait Component: Send + Sync + 'static {
    /// Who this is and what it needs. Read once, before anything else.
    fn spec(&self) -> ComponentSpec;

    /// Tests itself without changing anything: files, versions, ports, space. No check is a pass; use [`timed`] for a check that waits.
    fn post(&self) -> BoxFuture<'_, Vec<Check>>;

    /// Opens what the part owns: files, databases, sockets. It must not answer anybody yet. By default there is nothing to open.
    ///
    /// # Errors
    ///
    /// A [`Fault`] takes this part, and all that need it, off the board.
    fn load(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }

    /// Goes to work and returns. What must go on is spawned on `tasks`.
    ///
    /// # Errors
    ///
    /// A [`Fault`] takes this part, and all that need it, off the board; tasks that were spawned are cut.
    fn start(&self, tasks: Tasks) -> BoxFuture<'_, Result<(), Fault>>;

    /// Finishes and closes. Called for every part that was loaded, also when it never started, after its tasks were told to wind down
    /// ([`Tasks::stopping`]); the board then waits for them until `deadline`.
    ///
    /// # Errors
    ///
    /// A [`Fault`] makes the stop unclean, which the exit code shows.
    fn stop(&self, deadline: Instant) -> BoxFuture<'_, Result<(), Fault>>;
}

/// The check that `look` gives, with the time that it took.
pub async fn timed(look: impl Future<Output = Check>) -> Check {
    let began = Instant::now();
    look.await.taking(began.elapsed())
}
