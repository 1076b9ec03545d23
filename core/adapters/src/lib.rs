//! What **plugs** into the sockets of the board. One module each, one cargo feature each.

#[cfg(feature = "quic")]
pub mod quic;
#[cfg(feature = "sqlite")]
pub mod sqlite;

#[cfg(test)]
#[cfg(feature = "quic")]
mod link_conformance;
