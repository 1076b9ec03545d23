//! Links over WebSocket, for devices that only get through a proxy (SPEC.md, section 19.4). Each packet is one binary message.
//!
//! The hub has no socket of its own for them: its HTTP gate takes the upgrade at `/sync/v1` and gives the connection to a [`WsListener`].
//! TLS is the business of the proxy before the hub; frames are sealed from end to end all the same.

mod dialer;
mod listener;
mod way;

#[cfg(test)]
mod tests;

pub use dialer::WsDialer;
pub use listener::WsListener;
