//! How much one connection may say in a second.

use std::time::Duration;

use tokio::time::Instant;

/// Counts within a second, and begins again with the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    since: Instant,
    count: u32,
}

impl Pace {
    pub(crate) fn begin(now: Instant) -> Self {
        Self { since: now, count: 0 }
    }

    /// Counts one more; false where that is more than `max` in this second.
    pub(crate) fn admits(&mut self, max: u32, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) > Duration::from_secs(1) {
            *self = Self::begin(now);
        }
        self.count = self.count.saturating_add(1);
        self.count <= max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_so_many_and_the_next_as_many_again() {
        let now = Instant::now();
        let mut pace = Pace::begin(now);
        let later = now + Duration::from_millis(1_001);
        assert_eq!([(); 3].map(|()| pace.admits(2, now)), [true, true, false]);
        assert_eq!([(); 3].map(|()| pace.admits(2, later)), [true, true, false]);
    }
}
