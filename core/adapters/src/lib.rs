//! What **plugs** into the sockets of the board. One module each, one cargo feature each.

#[cfg(feature = "sqlite")]
pub mod sqlite;
