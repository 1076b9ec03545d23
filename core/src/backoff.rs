//! How long to wait before the next attempt to connect: capped, decorrelated jitter, so that a fleet that lost its hub in one moment
//! does not come back in one moment.

use std::time::Duration;

use crate::limits;

/// The pauses of one reconnect loop. Randomness is an argument; nothing here waits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    previous: Duration,
}

impl Default for Backoff {
    /// The pauses between reconnects: [`limits::RECONNECT_MIN`] to [`limits::RECONNECT_MAX`].
    fn default() -> Self {
        Self::new(limits::RECONNECT_MIN, limits::RECONNECT_MAX)
    }
}

impl Backoff {
    /// Pauses from `min` to `max`; a `max` below `min` counts as `min`.
    #[must_use]
    pub const fn new(min: Duration, max: Duration) -> Self {
        let max = if max.as_nanos() < min.as_nanos() { min } else { max };
        Self { min, max, previous: min }
    }

    /// The next pause, drawn evenly from between `min` and three times the previous pause, and at most `max`.
    ///
    /// `entropy` is 64 random bits. `retry_after` is the pause that the peer asked for: the drawn pause comes on top of it, so that those
    /// who were sent away together return one by one. More than [`limits::RETRY_AFTER_MAX`] is not obeyed.
    pub fn next_pause(&mut self, entropy: u64, retry_after: Option<Duration>) -> Duration {
        let span = self.previous.saturating_mul(3).saturating_sub(self.min);
        self.previous = self.min.saturating_add(scale(span, entropy)).min(self.max);
        self.previous.saturating_add(retry_after.unwrap_or_default().min(limits::RETRY_AFTER_MAX))
    }

    /// Sets the longest pause from now on.
    pub const fn set_max(&mut self, max: Duration) {
        self.max = if max.as_nanos() < self.min.as_nanos() { self.min } else { max };
    }

    /// The pause that the next one is drawn from: what a device keeps over a restart.
    #[must_use]
    pub const fn previous(&self) -> Duration {
        self.previous
    }

    /// Goes on from a pause that was kept.
    pub fn resume(&mut self, previous: Duration) {
        self.previous = previous.clamp(self.min, self.max);
    }

    /// Starts again from short pauses. For a session that the peer welcomed: a mere connection proves too little.
    pub const fn reset(&mut self) {
        self.previous = self.min;
    }
}

/// The part `entropy` / 2^64 of `span`.
fn scale(span: Duration, entropy: u64) -> Duration {
    let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    let part = (u128::from(nanos) * u128::from(entropy)) >> 64;
    Duration::from_nanos(u64::try_from(part).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: u64 = 0;
    const MIDDLE: u64 = 1 << 63;
    const MOST: u64 = u64::MAX;

    /// The pauses in ms for a row of random numbers, between 100 ms and 1 s.
    #[track_caller]
    fn check(entropy: &[u64], want_ms: &[u64]) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let pauses: Vec<u64> = entropy.iter().map(|bits| ms_rounded(backoff.next_pause(*bits, None))).collect();
        assert_eq!(pauses, want_ms);
        backoff.reset();
        assert_eq!(ms_rounded(backoff.next_pause(MOST, None)), 300, "as at first");
    }

    fn ms_rounded(pause: Duration) -> u64 {
        u64::try_from((pause.as_nanos() + 500_000) / 1_000_000).unwrap()
    }

    #[test]
    fn pauses_grow_by_chance_up_to_the_cap() {
        check(&[LEAST; 4], &[100; 4]);
        check(&[MOST; 5], &[300, 900, 1_000, 1_000, 1_000]);
        check(&[MIDDLE; 5], &[200, 350, 575, 913, 1_000]);
        check(&[MOST, LEAST, MOST], &[300, 100, 300]);
    }

    #[test]
    fn a_peer_sets_the_floor_within_a_bound() {
        for (asked_s, want_ms) in [(0, 100), (5, 5_100), (3_600, 3_600_100), (86_400, 3_600_100)] {
            let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
            assert_eq!(ms_rounded(backoff.next_pause(LEAST, Some(Duration::from_secs(asked_s)))), want_ms);
            assert_eq!(ms_rounded(backoff.next_pause(MOST, None)), 300, "what was asked for once counts once");
        }
    }

    #[test]
    fn extremes_do_not_overflow() {
        let mut endless = Backoff::new(Duration::MAX, Duration::ZERO);
        assert_eq!(endless.next_pause(MOST, Some(Duration::MAX)), Duration::MAX);
        let mut none = Backoff::new(Duration::ZERO, Duration::ZERO);
        assert_eq!(none.next_pause(MOST, None), Duration::ZERO);
        let mut product = Backoff::default();
        let longest = (0..32).map(|_| product.next_pause(MOST, None)).max();
        assert_eq!(longest, Some(limits::RECONNECT_MAX));
    }
}
