//! The device's store against a real hub's store: what is written here and there comes together, whatever is lost on the way.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::too_many_arguments, reason = "a test: the panic is the report")]

mod applying;
mod bootstrap;
mod decided;
mod differential;
mod diverging;
mod documents;
mod going_back;
mod ingest;
mod intake;
mod keeping;
mod lives;
mod offering;
mod own;
mod parked;
mod random;
mod refencing;
mod refusals;
mod room;
mod together;
mod versions;
mod world;
mod writing;
