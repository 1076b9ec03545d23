//! What happened, as a hash of all of it and the last lines of it; and how often what was injected.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

/// Lines that are kept for a report.
const LAST_LINES: usize = 60;

/// What a run broke.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The invariant's id: those of the design (I1 … I20), or `crash` and the like for the simulator's own.
    pub invariant: &'static str,
    /// What was found.
    pub what: String,
}

impl Violation {
    pub(super) fn new(invariant: &'static str, what: impl Into<String>) -> Self {
        Self { invariant, what: what.into() }
    }
}

/// A step of the world.
pub(super) type Try<T = ()> = Result<T, Violation>;

/// The course of a run.
#[derive(Debug, Default)]
pub(super) struct Trace {
    hasher: blake3::Hasher,
    last: VecDeque<String>,
    whole: bool,
    pub(super) counts: BTreeMap<&'static str, u64>,
}

impl Trace {
    pub(super) fn new(whole: bool) -> Self {
        Self { whole, ..Self::default() }
    }

    pub(super) fn say(&mut self, now_us: u64, what: fmt::Arguments<'_>) {
        let line = format!("{:>12.6} {what}", now_us as f64 / 1e6);
        self.hasher.update(line.as_bytes());
        if self.whole {
            eprintln!("{line}");
        }
        if self.last.len() == LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub(super) fn add(&mut self, what: &'static str, count: u64) {
        if count > 0 {
            *self.counts.entry(what).or_default() += count;
        }
    }

    pub(super) fn hash(&self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }

    pub(super) fn last(&self) -> Vec<String> {
        self.last.iter().cloned().collect()
    }
}
