//! What **plugs** into the sockets of the board. One module each, one cargo feature each.

#[cfg(feature = "sealed")]
mod address;
#[cfg(feature = "broker")]
pub mod broker;
#[cfg(feature = "sqlite")]
pub mod desk;
#[cfg(any(feature = "quic", feature = "sealed"))]
mod framing;
pub mod meter;
#[cfg(feature = "mqtt")]
pub mod mqtt;
#[cfg(feature = "quic")]
pub mod quic;
#[cfg(any(feature = "quic", feature = "sealed"))]
mod reasons;
#[cfg(feature = "sealed")]
mod sealed;
pub mod sql;
#[cfg(feature = "sqlite")]
pub mod sqlite;
#[cfg(feature = "vault")]
pub mod vault;
#[cfg(feature = "websocket")]
pub mod websocket;

#[cfg(test)]
#[cfg(any(feature = "quic", feature = "sealed"))]
mod link_conformance;
