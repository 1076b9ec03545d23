//! The simulated network: links that break, and what is on its way on them.

use std::collections::BTreeMap;

use mobo_core::link::Channel;

/// The end of a link.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum End {
    Device,
    Hub,
}

impl End {
    pub(super) const fn other(self) -> Self {
        match self {
            Self::Device => Self::Hub,
            Self::Hub => Self::Device,
        }
    }

    pub(super) const fn arrow(self) -> &'static str {
        match self {
            Self::Device => "<-",
            Self::Hub => "->",
        }
    }
}

/// A link between a device and the hub.
#[derive(Debug)]
pub(super) struct LinkState {
    pub(super) device: usize,
    pub(super) device_open: bool,
    pub(super) hub_open: bool,
    /// True: nothing gets through any more, in either direction.
    pub(super) cut: bool,
    /// The last frame of each channel arrives then: others follow it.
    pub(super) last: BTreeMap<(End, Channel), u64>,
    /// Until when a thin line is busy with what was sent to that end.
    pub(super) busy_until: BTreeMap<End, u64>,
    /// Frames that wait for a partition to end.
    pub(super) held: Vec<(End, Channel, Vec<u8>)>,
}

impl LinkState {
    pub(super) const fn new(device: usize) -> Self {
        Self { device, device_open: true, hub_open: true, cut: false, last: BTreeMap::new(), busy_until: BTreeMap::new(), held: Vec::new() }
    }

    pub(super) const fn is_open(&self, end: End) -> bool {
        match end {
            End::Device => self.device_open,
            End::Hub => self.hub_open,
        }
    }

    pub(super) const fn close(&mut self, end: End) {
        match end {
            End::Device => self.device_open = false,
            End::Hub => self.hub_open = false,
        }
    }
}
