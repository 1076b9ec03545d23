//! Backups: what a repository is made of, and how it proves that it is whole.
//!
//! [`vault`] is the socket for the place that keeps a repository's objects.

pub mod retention;
pub mod schedule;
pub mod vault;
