//! What a part answers when it is asked to test itself, and what it says when it fails.

use std::fmt;
use std::time::Duration;

/// How one check came out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// As it should be.
    Pass,
    /// The part works, and a person should look at it.
    Warn,
    /// The part cannot work.
    Fail,
}

impl Verdict {
    /// The word in JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One line of the power-on self-test.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Check {
    /// What was looked at: `port`, `disk space`, `schema`.
    pub name: String,
    /// How it came out.
    pub verdict: Verdict,
    /// What was found, with figures.
    pub detail: String,
    /// What to do about it; absent when it passed.
    pub advice: Option<String>,
    /// How long the look took; zero when nobody measured.
    pub took: Duration,
}

impl Check {
    /// A check that passed.
    #[must_use]
    pub fn pass(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { name: name.into(), verdict: Verdict::Pass, detail: detail.into(), advice: None, took: Duration::ZERO }
    }

    /// A check that found something to look at, and what to do about it.
    #[must_use]
    pub fn warn(name: impl Into<String>, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warn, advice: Some(advice.into()), ..Self::pass(name, detail) }
    }

    /// A check that failed, and what to do about it.
    #[must_use]
    pub fn fail(name: impl Into<String>, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fail, ..Self::warn(name, detail, advice) }
    }

    /// The same check with the time that it took.
    #[must_use]
    pub fn taking(self, took: Duration) -> Self {
        Self { took, ..self }
    }
}

/// Why a part could not do what it was asked, and what a person can do about it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fault {
    /// What happened, as a sentence without a full stop.
    pub reason: String,
    /// What to do.
    pub advice: String,
}

impl Fault {
    /// A fault with its advice.
    #[must_use]
    pub fn new(reason: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { reason: reason.into(), advice: advice.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.advice)
    }
}

impl std::error::Error for Fault {}
