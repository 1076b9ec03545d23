//! How healthy one part is: a machine that believes neither one good answer nor one bad one.

#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use crate::time::Instant;

/// How healthy a part is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Health {
    /// It answers, and finds nothing wrong.
    Healthy,
    /// It was out and answers again; it is believed after some more answers.
    Recovering,
    /// It works, and a person should look; or it has not answered once.
    Degraded,
    /// It has not answered for some rounds.
    Critical,
    /// It does not work. What it can do about it, it was asked to do.
    Failed,
}

impl Health {
    /// The word in tables and JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Recovering => "recovering",
            Self::Degraded => "degraded",
            Self::Critical => "critical",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// What a part says when it is asked how it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Vital {
    /// All is well.
    Fine,
    /// It works, and a person should look: why, as a sentence without a full stop.
    Worn(String),
    /// It does not work: why, likewise.
    Failing(String),
}

/// How often parts are asked, and how much it takes to change an opinion.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HealthPolicy {
    /// From the answer of one round to the next round.
    pub interval: Duration,
    /// Longest wait for an answer; none within it is a failing one.
    pub timeout: Duration,
    /// A failing answer is asked for again so often before the round counts as failing.
    pub retries: u32,
    /// Failing rounds in a row after which a part has failed; at least 1. After one it is degraded, half-way it is critical.
    pub failed_after: u32,
    /// Passing rounds in a row after which a part is believed again; at least 1.
    pub recovered_after: u32,
}

impl Default for HealthPolicy {
    fn default() -> Self {
        Self { interval: Duration::from_secs(10), timeout: Duration::from_secs(5), retries: 1, failed_after: 3, recovered_after: 3 }
    }
}

impl HealthPolicy {
    /// Failing rounds in a row after which a part is critical.
    #[must_use]
    pub const fn critical_after(&self) -> u32 {
        self.failed_after.div_ceil(2)
    }

    /// The longest time from a part's hanging to the moment at which it counts as failed.
    #[must_use]
    pub const fn notices_within(&self) -> Duration {
        let round = self.timeout.saturating_mul(self.retries.saturating_add(1)).saturating_add(self.interval);
        round.saturating_mul(self.failed_after)
    }
}

/// A part's health went from one state to another.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HealthChange {
    /// What it was.
    pub from: Health,
    /// What it is.
    pub to: Health,
    /// Why; absent when all is well.
    pub detail: Option<String>,
}

/// The opinion on one part.
///
/// **Contract.** [`watch`](Self::watch) when the part begins to work, [`pause`](Self::pause) when it no longer does. While
/// [`is_due`](Self::is_due), ask the part and say so with [`asked`](Self::asked); its answer, or that none came, goes into
/// [`answered`](Self::answered). Read [`poll_timeout`](Self::poll_timeout) after each call.
#[derive(Clone, Debug)]
pub struct Monitor {
    policy: HealthPolicy,
    health: Health,
    detail: Option<String>,
    /// Rounds in a row.
    failing: u32,
    passing: u32,
    fine: u32,
    tries: u32,
    timer: Timer,
    changes: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Timer {
    Paused,
    /// When to ask.
    Next(Instant),
    /// When to give up on the answer.
    Asked(Instant),
}

impl Monitor {
    /// An opinion on a part that does not work yet: the best.
    #[must_use]
    pub const fn new(policy: HealthPolicy) -> Self {
        Self { policy, health: Health::Healthy, detail: None, failing: 0, passing: 0, fine: 0, tries: 0, timer: Timer::Paused, changes: 0 }
    }

    /// The part works from now on; it is first asked `offset` into an interval, so that parts take turns. One that had failed recovers.
    pub fn watch(&mut self, now: Instant, offset: Duration) -> Option<HealthChange> {
        (self.failing, self.passing, self.fine, self.tries) = (0, 0, 0, 0);
        self.timer = Timer::Next(now.after(self.policy.interval.min(offset)));
        let to = if self.health == Health::Healthy { Health::Healthy } else { Health::Recovering };
        self.turn(to, self.detail.clone())
    }

    /// The part stopped as it was told to: nothing is asked, and nothing is held against it.
    pub fn pause(&mut self) {
        self.timer = Timer::Paused;
    }

    /// The part has failed by itself.
    pub fn lost(&mut self, why: String) -> Option<HealthChange> {
        self.timer = Timer::Paused;
        self.turn(Health::Failed, Some(why))
    }

    /// True when the part is to be asked now.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        matches!(self.timer, Timer::Next(at) if at <= now)
    }

    /// The part was asked; gives when to give up on its answer.
    pub fn asked(&mut self, now: Instant) -> Instant {
        let deadline = now.after(self.policy.timeout);
        self.timer = Timer::Asked(deadline);
        deadline
    }

    /// True when the part was asked and its time is up.
    #[must_use]
    pub fn is_late(&self, now: Instant) -> bool {
        matches!(self.timer, Timer::Asked(deadline) if deadline <= now)
    }

    /// What a late answer counts as.
    #[must_use]
    pub fn silence(&self) -> Vital {
        Vital::Failing(format!("no answer to a health check within {} s", self.policy.timeout.as_secs_f32()))
    }

    /// The part has answered, or not in time.
    pub fn answered(&mut self, now: Instant, vital: Vital) -> Option<HealthChange> {
        if !matches!(self.timer, Timer::Asked(_)) {
            return None;
        }
        if matches!(vital, Vital::Failing(_)) && self.tries < self.policy.retries {
            self.tries += 1;
            self.timer = Timer::Next(now);
            return None;
        }
        self.tries = 0;
        self.timer = Timer::Next(now.after(self.policy.interval));
        let (to, detail) = match vital {
            Vital::Failing(why) => (self.failed_round(), Some(why)),
            Vital::Worn(why) => (self.passed_round(false), Some(why)),
            Vital::Fine => (self.passed_round(true), None),
        };
        // What was wrong stays in sight until the part is believed.
        let keep = detail.is_none() && to != Health::Healthy;
        let detail = if keep { self.detail.clone() } else { detail };
        self.turn(to, detail)
    }

    /// True when the part should try to mend itself now: when it has just failed, and again after as many rounds as that took.
    #[must_use]
    pub const fn wants_recovery(&self) -> bool {
        matches!(self.health, Health::Failed)
            && self.tries == 0
            && self.failing > 0
            && self.failing.is_multiple_of(self.policy.failed_after)
    }

    /// When something is to be done; `None` while nobody is asked.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Instant> {
        match self.timer {
            Timer::Paused => None,
            Timer::Next(at) | Timer::Asked(at) => Some(at),
        }
    }

    /// The opinion.
    #[must_use]
    pub const fn health(&self) -> Health {
        self.health
    }

    /// What was last found wrong; absent when healthy.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// How often the opinion has changed.
    #[must_use]
    pub const fn changes(&self) -> u64 {
        self.changes
    }

    fn failed_round(&mut self) -> Health {
        self.failing = self.failing.saturating_add(1);
        (self.passing, self.fine) = (0, 0);
        let policy = self.policy;
        let grown = if self.failing >= policy.failed_after {
            Health::Failed
        } else if self.failing >= policy.critical_after() && policy.failed_after > 1 && self.failing > 1 {
            Health::Critical
        } else {
            Health::Degraded
        };
        // One that recovers has been down already: it is down again only after as long a row as the first time.
        if self.health == Health::Recovering && grown != Health::Failed {
            return Health::Recovering;
        }
        self.health.max(grown)
    }

    fn passed_round(&mut self, fine: bool) -> Health {
        self.failing = 0;
        self.passing = self.passing.saturating_add(1);
        self.fine = if fine { self.fine.saturating_add(1) } else { 0 };
        let believed = self.policy.recovered_after.max(1);
        if self.fine >= believed || (self.health == Health::Healthy && fine) {
            return Health::Healthy;
        }
        match self.health {
            Health::Healthy | Health::Degraded => Health::Degraded,
            Health::Failed => Health::Recovering,
            // It works, and is worn.
            Health::Recovering | Health::Critical if self.passing >= believed => Health::Degraded,
            current @ (Health::Recovering | Health::Critical) => current,
        }
    }

    fn turn(&mut self, to: Health, detail: Option<String>) -> Option<HealthChange> {
        let from = std::mem::replace(&mut self.health, to);
        self.detail.clone_from(&detail);
        if from == to {
            return None;
        }
        self.changes = self.changes.saturating_add(1);
        Some(HealthChange { from, to, detail })
    }
}
