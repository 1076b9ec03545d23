//! The cases, by subject. Each takes a place of its own.

pub mod auditing;
pub mod backing;
pub mod bounds;
pub mod changing;
pub mod collections;
pub mod fleet;
pub mod ledger;
pub mod live;
pub mod merging;
pub mod offers;
pub mod past;
pub mod pulling;
pub mod reading;
pub mod schedule;
pub mod written;
