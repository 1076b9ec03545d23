//! A disk in memory for SQLite, that can lose power at every write and sync.
//!
//! What a program has written and not synced is, after a cut, there or not: each sector of 512 bytes of each write by itself, in any order.
//! A [`Disk`] can also fail a write or a sync, be full, and lie about syncs. SQLite reaches it through a file system of the name [`NAME`];
//! files of one disk are in the folder [`Disk::folder`].
//!
//! Locks and shared memory work between connections of one process, so a store may open readers beside its writer.

mod callbacks;
mod disk;
mod file;
mod tape;

pub use disk::{Disk, Failure, Image, Tally};
pub use tape::{Player, Tape};

/// The name of the file system: for `Connection::open_with_flags_and_vfs`.
pub const NAME: &str = "mobo-simulated";

#[cfg(test)]
mod tests;
