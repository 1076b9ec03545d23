//! Backups of a running hub: what is new goes to the vault, again and again; and what comes back from there.
//!
//! The format and its checks are `mobo_core::backup`. Here is what waits: [`Repository`] reads and writes objects, [`Shipper`] carries what
//! the store holds into it, [`restore`](fn@restore) brings it back, and [`verify`](fn@verify) looks at all of it.

mod changes;
mod drill;
mod gather;
mod looked;
mod marks;
mod pack;
mod part;
mod place;
mod points;
mod projects;
mod prune;
mod records;
mod repository;
mod restore;
mod ship;
mod state;
mod verify;

use mobo_core::backup::BackupError;
use mobo_core::backup::vault::VaultError;
use mobo_core::store::StoreError;

pub use drill::{DRILLS, Drill, Drills, drill};
pub use looked::Looked;
pub use part::{Part, Wanted, fields};
pub use place::{Access, open_pruner, open_vault};
pub use points::{Base, points};
pub use projects::Fresh;
pub use prune::{Swept, sweep, sweep_keys};
pub use repository::{Repository, newest_number};
pub use restore::{Point, Restored, Step, Target, restore};
pub use ship::{Asked, Owner, Shipped, Shipper};
pub use state::StateHash;
pub use verify::verify;

/// Why a backup, a verification or a restore did not come about, by what the caller does next.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BackupFailure {
    /// The vault: most of it passes.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// What the vault holds.
    #[error(transparent)]
    Format(#[from] BackupError),
    /// The hub's store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It must not go on without a person: the sentence says why, and what to do.
    #[error("{0}")]
    Refused(String),
}
