//! A writer that waits until its write is safer than on this device alone.

use std::sync::Arc;

use mobo_adapters::sqlite::edge::{EdgeStore, Reached, Sealed};
use mobo_core::level::{AckLevel, Patience};
use mobo_core::limits;
use mobo_gate::backend::BackendError;
use tokio::sync::Semaphore;

/// Lets so many writers wait at the same time; more are answered at once, with the level that their writes have. The work of a device must
/// not stand still behind those who wait for a hub that is away.
#[derive(Clone, Debug)]
pub struct WaitingRoom(Arc<Semaphore>);

impl Default for WaitingRoom {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(limits::WAITERS_MAX)))
    }
}

impl WaitingRoom {
    /// How safe an entry is once the writer's patience is over; `None` for a write without an entry.
    ///
    /// # Errors
    ///
    /// [`BackendError::Rejected`] when the hub has refused the entry meanwhile. The write is durable in every other case, also when the store
    /// cannot say how far it has come.
    pub async fn level(&self, store: &EdgeStore, at: Option<Sealed>, patience: Option<Patience>) -> Result<AckLevel, BackendError> {
        let (Some(at), Some(patience)) = (at, patience) else { return Ok(AckLevel::Local) };
        let Ok(_place) = self.0.try_acquire() else { return Ok(AckLevel::Local) };
        let reached = match tokio::time::timeout(patience.timeout, store.wait_for(at, patience.level)).await {
            Ok(reached) => reached,
            Err(_) => store.level(at).await,
        };
        match reached {
            Ok(Reached::Level(level)) => Ok(level),
            Ok(Reached::Refused { code, detail }) => Err(BackendError::Rejected(format!("{detail} ({})", code.name()))),
            Ok(Reached::Moved(_)) | Err(_) => Ok(AckLevel::Local),
        }
    }
}
