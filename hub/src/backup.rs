//! Backups of a running hub: what is new goes to the vault, again and again; and what comes back from there.
//!
//! The format and its checks are `mobo_core::backup`. Here is what waits: [`Repository`] reads and writes objects, [`Shipper`] carries what
//! the store holds into it, [`restore`](fn@restore) brings it back, and [`verify`](fn@verify) looks at all of it.

mod carry;
mod changes;
mod drill;
mod gather;
mod looked;
mod marks;
mod news;
mod opened;
mod overheard;
mod pack;
mod pages;
mod part;
mod place;
mod placing;
mod points;
mod projects;
mod prune;
mod records;
mod repository;
mod restore;
mod ship;
mod standing;
mod state;
mod verify;
mod whose;

use mobo_core::backup::BackupError;
use mobo_core::backup::manifest::Anchor;
use mobo_core::backup::vault::VaultError;
use mobo_core::store::StoreError;

pub use drill::{DRILLS, Drill, Drills, clear_drill, drill};
pub use looked::Looked;
pub use news::{note_restored, take_restored};
pub use part::{Part, Wanted, fields};
pub use place::{Access, open_pruner, open_vault};
pub use points::{Base, points};
pub use projects::Fresh;
pub use prune::{Swept, sweep, sweep_keys};
pub(crate) use repository::answer;
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
    /// The store holds less than this manifest of its own says: it went back in time, and must go on under a new timeline (rule R17).
    #[error("the store holds less than its own backup {0} says: it has gone back in time, to an older copy of it")]
    WentBack(Anchor),
    /// Somebody else has written this manifest in the place of the next one.
    #[error("the manifest {0} was written by somebody else meanwhile")]
    Taken(Anchor),
    /// Another hub of the store is at the repository. It passes.
    #[error("another hub of this store writes a backup at the moment: try again when it has")]
    Busy,
    /// It must not go on without a person: the sentence says why, and what to do.
    #[error("{0}")]
    Refused(String),
}
