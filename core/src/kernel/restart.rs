//! When a part that failed is started again: pauses that double, a little chance in each, and a circuit that opens on one that fails
//! again and again.

use std::collections::VecDeque;
use std::time::Duration;

use crate::limits;
use crate::time::Instant;

/// How restarts are spaced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RestartPolicy {
    /// The pause after a first failure.
    pub pause_min: Duration,
    /// The longest pause.
    pub pause_max: Duration,
    /// So many failures within `window` open the circuit; at least 1.
    pub failures_max: usize,
    /// See `failures_max`.
    pub window: Duration,
    /// After so long without a failure the pauses are short again.
    pub steady: Duration,
    /// An open circuit is tried once after this long.
    pub retry: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            pause_min: limits::RESTART_PAUSE_MIN,
            pause_max: limits::RESTART_PAUSE_MAX,
            failures_max: limits::RESTART_FAILURES_MAX,
            window: limits::RESTART_WINDOW,
            steady: limits::RESTART_STEADY,
            retry: limits::CIRCUIT_RETRY,
        }
    }
}

/// What follows a failure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Next {
    /// It is started again after this pause.
    After(Duration),
    /// It has failed too often: its circuit is open, and it is left alone until somebody closes it, or for [`RestartPolicy::retry`].
    Open,
}

/// The failures of one part.
#[derive(Clone, Debug)]
pub struct Restarts {
    policy: RestartPolicy,
    /// Failures within the window, oldest first; at most `failures_max`.
    recent: VecDeque<Instant>,
    streak: u32,
    due: Option<Instant>,
    open: bool,
    total: u64,
}

impl Restarts {
    /// A part that has not failed.
    #[must_use]
    pub const fn new(policy: RestartPolicy) -> Self {
        Self { policy, recent: VecDeque::new(), streak: 0, due: None, open: false, total: 0 }
    }

    /// Notes a failure. `entropy` is 64 random bits.
    pub fn failed(&mut self, now: Instant, entropy: u64) -> Next {
        let policy = self.policy;
        if self.recent.back().is_some_and(|last| now.since(*last) > policy.steady.saturating_add(policy.pause_max)) {
            self.streak = 0;
        }
        while self.recent.front().is_some_and(|first| now.since(*first) > policy.window) {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
        self.total = self.total.saturating_add(1);
        // One that was tried with its circuit open has had its try.
        if self.open || self.recent.len() >= policy.failures_max.max(1) {
            self.recent.truncate(policy.failures_max.max(1));
            self.open = true;
            self.due = Some(now.after(policy.retry));
            return Next::Open;
        }
        let base = policy.pause_min.saturating_mul(1_u32.checked_shl(self.streak).unwrap_or(u32::MAX)).min(policy.pause_max);
        self.streak = self.streak.saturating_add(1);
        let pause = base / 2 + part(base / 2, entropy);
        self.due = Some(now.after(pause));
        Next::After(pause)
    }

    /// Forgets failures, and closes the circuit: somebody has looked. True when it was open.
    pub fn close(&mut self) -> bool {
        self.recent.clear();
        (self.streak, self.due) = (0, None);
        std::mem::replace(&mut self.open, false)
    }

    /// The part works since `since`: when that is [`RestartPolicy::steady`] ago, a circuit that was tried is closed. True when it was open.
    pub fn steady(&mut self, now: Instant, since: Instant) -> bool {
        let is_steady = now.since(since) >= self.policy.steady;
        self.open && is_steady && self.close()
    }

    /// When it may be started again; `None` when it may at once.
    #[must_use]
    pub const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// True when it may be started now.
    #[must_use]
    pub fn may_start(&self, now: Instant) -> bool {
        self.due.is_none_or(|due| due <= now)
    }

    /// True while the circuit is open.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.open
    }

    /// Failures since the board was made.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }
}

/// How long a node waits before it first turns to others. After a clean stop not at all; after a power cut its neighbours come back in
/// the same moment, so that each draws a pause of its own. `entropy` is 64 random bits.
#[must_use]
pub fn first_pause(unclean: bool, entropy: u64) -> Duration {
    if unclean { part(limits::POWER_RETURN_STAGGER, entropy) } else { Duration::ZERO }
}

/// The part `entropy` / 2^64 of `span`.
fn part(span: Duration, entropy: u64) -> Duration {
    let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(u64::try_from((u128::from(nanos) * u128::from(entropy)) >> 64).unwrap_or(u64::MAX))
}

/// Random numbers from a seed: for jitter, and for nothing that an attacker may not guess.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 bits of SplitMix64.
    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: u64 = u64::MAX;

    /// Failures at these seconds; the answers, in ms, `open` for an open circuit.
    #[track_caller]
    fn check(at_s: &[u64], entropy: u64, want: &str) -> Restarts {
        let policy = RestartPolicy {
            pause_min: Duration::from_secs(1),
            pause_max: Duration::from_secs(8),
            failures_max: 5,
            window: Duration::from_secs(100),
            steady: Duration::from_secs(20),
            retry: Duration::from_secs(300),
        };
        let mut restarts = Restarts::new(policy);
        let said: Vec<String> = at_s
            .iter()
            .map(|at| match restarts.failed(Instant::default().after(Duration::from_secs(*at)), entropy) {
                Next::After(pause) => (pause.as_secs_f64() * 1e3).round().to_string(),
                Next::Open => "open".to_owned(),
            })
            .collect();
        assert_eq!(said.join(" "), want);
        restarts
    }

    // faults: C-1
    #[test]
    fn pauses_double_up_to_a_cap_and_then_the_circuit_opens() {
        check(&[0, 2, 5, 10], MOST, "1000 2000 4000 8000");
        check(&[0, 2, 5, 10], 0, "500 1000 2000 4000");
        let opened = check(&[0, 2, 5, 10, 19, 30], MOST, "1000 2000 4000 8000 open open");
        assert!(opened.is_open() && opened.total() == 6);
    }

    #[test]
    fn seldom_failures_never_open_it_and_find_short_pauses_again() {
        check(&[0, 30, 60, 90, 120, 150, 180], MOST, "1000 1000 1000 1000 1000 1000 1000");
        check(&[0, 5, 10, 200, 203], MOST, "1000 2000 4000 1000 2000");
    }

    #[test]
    fn an_open_circuit_is_tried_seldom_and_closed_by_a_person_or_by_a_steady_run() {
        let at = |seconds| Instant::default().after(Duration::from_secs(seconds));
        let mut restarts = check(&[0, 1, 2, 3, 4], MOST, "1000 2000 4000 8000 open");
        assert!(!restarts.may_start(at(303)) && restarts.may_start(at(304)));
        assert!(!restarts.steady(at(304), at(304)), "it has only just begun, however long ago it failed");
        assert_eq!(restarts.failed(at(310), MOST), Next::Open, "one try, not a new row of them");
        assert!(!restarts.steady(at(629), at(610)), "not yet");
        assert!(restarts.steady(at(630), at(610)) && !restarts.is_open() && restarts.may_start(at(630)));
        let mut restarts = check(&[0, 1, 2, 3, 4], MOST, "1000 2000 4000 8000 open");
        assert!(restarts.close() && !restarts.close() && restarts.may_start(at(4)));
        assert_eq!(restarts.failed(at(5), 0), Next::After(Duration::from_millis(500)));
    }

    /// Goal: a street whose power comes back does not knock on its hub in one moment.
    /// Method: 10,000 devices boot in the same instant and draw their first pause; none of 100 equal slices of time gets more than twice its share.
    // faults: C-6
    #[test]
    fn a_fleet_comes_back_one_by_one_after_a_power_cut() {
        let mut slices = [0_u32; 100];
        for device in 0..10_000 {
            let pause = first_pause(true, Dice::new(device).roll());
            assert!(pause < limits::POWER_RETURN_STAGGER);
            let slice = pause.as_nanos() * 100 / limits::POWER_RETURN_STAGGER.as_nanos();
            slices[usize::try_from(slice).unwrap()] += 1;
        }
        assert!(slices.iter().all(|count| *count < 200), "{slices:?}");
        assert_eq!(first_pause(false, MOST), Duration::ZERO, "after a clean stop nobody waits");
    }
}
