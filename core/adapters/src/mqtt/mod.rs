//! Links over an MQTT broker (SPEC.md, section 19.3): one that somebody runs, or the hub's embedded one.
//!
//! The broker carries packets and proves nothing: what it loses, repeats or swaps ends the link, and the session starts anew on the next
//! one from what both stores have. Everything is published with QoS 0, so there is no acknowledgement by a broker that could be taken for
//! one of the hub, and none of the client's own memory of messages in flight, which a broken connection would make unreliable anyway.
//!
//! Each end has two connections, one that publishes and one that hears. A broker may stop reading from a connection that does not take what
//! it sends there, and the client stops reading while it sends: with one connection both could wait for each other for ever.

mod client;
mod dialer;
pub mod ingest;
mod listener;
mod sensors;

#[cfg(test)]
#[cfg(feature = "broker")]
mod tests;

pub use dialer::MqttDialer;
pub use listener::{MqttListener, MqttSettings};
pub use sensors::{SensorMessage, Sensors};

use mobo_core::limits;

/// Bytes around a payload in its publish: the header, the length of the topic, and the properties.
const PUBLISH_OVERHEAD_BYTES: usize = 64;

/// The longest packet that fits a broker's limit on this topic.
fn packet_bytes_max(broker: usize, topic: &str) -> usize {
    broker.saturating_sub(PUBLISH_OVERHEAD_BYTES + topic.len()).min(limits::PACKET_BYTES_MAX)
}
