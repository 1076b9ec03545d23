//! The deadlines of a shutdown: one list, each layer inside the next.

use std::time::Duration;

use crate::limits;

/// One layer of a shutdown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Layer {
    /// What is waited for.
    pub what: &'static str,
    /// How long at most.
    pub deadline: Duration,
    /// What happens then.
    pub then: &'static str,
}

/// How a node stops, and how long each layer may hold it open. There is no other list: every deadline below is the only one of its kind,
/// and whoever uses one up is named in the log.
///
/// 1. Local commands that are being answered.
/// 2. Requests in work, and links that say goodbye.
/// 3. One part: told to wind down, [`stop`](super::Ask::Stop), its tasks. After [`limits::STOP_NOTICE`] the log names what holds it open.
/// 4. All parts, each before what it needs.
/// 5. Subscribers of the bus hear the last events.
/// 6. A second signal at any time ends the process at once.
pub const SHUTDOWN: [Layer; 6] = [
    Layer { what: "a local command", deadline: limits::CONTROL_GRACE, then: "it is told that the node stops" },
    Layer { what: "requests in work", deadline: limits::HTTP_DRAIN_TIMEOUT, then: "their connections are cut" },
    Layer { what: "one part and its tasks", deadline: limits::STOP_TIMEOUT, then: "it is cut, and the exit code says so" },
    Layer { what: "all parts", deadline: limits::SHUTDOWN_TIMEOUT, then: "what is left is cut" },
    Layer { what: "the last events", deadline: limits::BUS_DRAIN_TIMEOUT, then: "subscribers are dropped" },
    Layer { what: "a second signal", deadline: Duration::ZERO, then: "the process ends" },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_layer_fits_into_the_next() {
        let [command, requests, part, all, ..] = SHUTDOWN;
        for (inner, outer) in [(command, part), (requests, part), (part, all)] {
            assert!(inner.deadline < outer.deadline, "{} and {}", inner.what, outer.what);
        }
        assert!(limits::LINK_CLOSE_TIMEOUT < limits::STOP_TIMEOUT);
    }
}
