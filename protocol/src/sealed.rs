//! Sealed links: what makes a link of a way that nobody trusts, such as an MQTT broker or a proxy (SPEC.md, section 19).
//!
//! Both ends agree on keys by ephemeral X25519, which each signs: the device with its own key, the hub with the one that the device pinned.
//! From then on every packet has a MAC and a counter, so that what was forged, repeated, lost or swapped on the way is found out.

mod agreement;
mod packet;

pub use agreement::{Agreed, Opening, Refusal, RefusalReason, Refused, answer, broker_password};
pub use packet::{CONTENT_OVERHEAD_BYTES, Content, Opened, Opener, Packet, Sealer};

/// The version of sealed links that this crate speaks.
pub const LINK_VERSION: u64 = 1;

/// A link's random name, made by the device: several may share one topic.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LinkId(pub [u8; 8]);

/// The MQTT topic on which a device is heard, or on which it hears: `m/<project>/<device>/u` and `/d`.
#[must_use]
pub fn topic(project: mobo_core::ids::ProjectId, device: mobo_core::ids::DeviceId, up: bool) -> String {
    format!("m/{}/{device}/{}", project.get(), if up { 'u' } else { 'd' })
}

/// The filter by which a hub hears all devices of a project.
#[must_use]
pub fn hub_filter(project: mobo_core::ids::ProjectId) -> String {
    format!("m/{}/+/u", project.get())
}
