//! What the board knows about a part before and while it runs.

use std::borrow::Cow;
use std::fmt;

use super::health::Health;
use crate::limits;
use crate::time::Instant;

/// The name of a part: 1 to [`limits::NAME_BYTES_MAX`] of `a-z 0-9 . _ -`, as in `store.sqlite`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ComponentName(Cow<'static, str>);

impl ComponentName {
    /// The name for a text that is known when compiling. Use it in a `const`, so that a bad one does not build.
    ///
    /// # Panics
    ///
    /// When the text is no name.
    #[must_use]
    pub const fn fixed(text: &'static str) -> Self {
        assert!(is_name(text.as_bytes()), "a component's name is a-z 0-9 . _ -");
        Self(Cow::Borrowed(text))
    }

    /// The name for a text from outside.
    ///
    /// # Errors
    ///
    /// [`BadComponentName`] when it is empty, too long, or has other characters.
    pub fn new(text: impl Into<String>) -> Result<Self, BadComponentName> {
        let text = text.into();
        if is_name(text.as_bytes()) { Ok(Self(Cow::Owned(text))) } else { Err(BadComponentName) }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

const fn is_name(mut bytes: &[u8]) -> bool {
    if bytes.is_empty() || bytes.len() > limits::NAME_BYTES_MAX {
        return false;
    }
    while let [first, rest @ ..] = bytes {
        if !matches!(first, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-') {
            return false;
        }
        bytes = rest;
    }
    true
}

impl fmt::Display for ComponentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A text that cannot name a part.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a component's name is 1 to {max} characters of a-z 0-9 . _ -", max = limits::NAME_BYTES_MAX)]
pub struct BadComponentName;

/// What a part says about itself before anything is asked of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ComponentSpec {
    /// Unique on the board.
    pub name: ComponentName,
    /// Shown in `component list`.
    pub version: Cow<'static, str>,
    /// Parts that must run before this one starts, and until it has stopped.
    pub needs: Vec<ComponentName>,
    /// Without a required part the board does not boot, and is critical when it loses it; without an optional one it is degraded.
    pub required: bool,
    /// Why no operator can stop it by itself; absent when one can.
    pub kept: Option<&'static str>,
}

impl ComponentSpec {
    /// A part that the board cannot be without, and that needs nothing.
    #[must_use]
    pub const fn required(name: ComponentName, version: &'static str) -> Self {
        Self { name, version: Cow::Borrowed(version), needs: Vec::new(), required: true, kept: None }
    }

    /// A part that the board can be without, and that needs nothing.
    #[must_use]
    pub const fn optional(name: ComponentName, version: &'static str) -> Self {
        Self { name, version: Cow::Borrowed(version), needs: Vec::new(), required: false, kept: None }
    }

    /// The same part, needing these as well.
    #[must_use]
    pub fn needing(mut self, needs: impl IntoIterator<Item = ComponentName>) -> Self {
        self.needs.extend(needs);
        self
    }

    /// The same part, which no operator can stop by itself: `why`, as a sentence without a full stop. The board restarts it all the same
    /// when it fails.
    #[must_use]
    pub const fn kept(mut self, why: &'static str) -> Self {
        self.kept = Some(why);
        self
    }
}

/// Where a part is in its life.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ComponentState {
    /// Nothing was asked of it but to test itself.
    Unloaded,
    /// It opens what it owns.
    Loading,
    /// It is open and does nothing.
    Loaded,
    /// It is being put to work.
    Starting,
    /// It works.
    Running,
    /// It finishes its work and closes what it owns.
    Stopping,
    /// It has stopped, because the board did or an operator wished so.
    Stopped,
    /// It failed, or what it needs did; the report's detail says which.
    Failed,
}

impl ComponentState {
    /// The word in tables and JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unloaded => "unloaded",
            Self::Loading => "loading",
            Self::Loaded => "loaded",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

/// One line of `component list`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ComponentReport {
    /// Its name.
    pub name: ComponentName,
    /// Its version.
    pub version: Cow<'static, str>,
    /// Where it is in its life.
    pub state: ComponentState,
    /// What it needs.
    pub needs: Vec<ComponentName>,
    /// True when the board does not boot without it.
    pub required: bool,
    /// False once an operator has stopped it.
    pub enabled: bool,
    /// How healthy it is; absent while it is not meant to work.
    pub health: Option<Health>,
    /// When it came to its state.
    pub since: Instant,
    /// Failures since the boot.
    pub failures: u64,
    /// True when it has failed too often to be started again soon.
    pub circuit_open: bool,
    /// Why it failed, or what its last health check found; absent when all is well.
    pub detail: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        for bad in ["", "Store", "a b", "ä", "store/sqlite", &"x".repeat(limits::NAME_BYTES_MAX + 1)] {
            assert_eq!(ComponentName::new(bad), Err(BadComponentName), "{bad:?}");
        }
        assert_eq!(ComponentName::new("store.sqlite-2_b").unwrap(), ComponentName::fixed("store.sqlite-2_b"));
    }
}
