//! What a part has opened, for those who need it: there from its load to its stop, and another one after each restart.

use std::fmt;
use std::sync::{PoisonError, RwLock};

/// A place that a part fills and empties, and that others look into. Whoever took something out of it may keep it for as long as a
/// request takes; who needs the part for longer says so in its spec, and is stopped before it.
pub struct Slot<T>(RwLock<Option<T>>);

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self(RwLock::new(None))
    }
}

impl<T: Clone> Slot<T> {
    /// What is in it now.
    #[must_use]
    pub fn get(&self) -> Option<T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts something in, in place of what was there.
    pub fn fill(&self, value: T) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(value);
    }

    /// Empties it, and gives what was there.
    pub fn take(&self) -> Option<T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<T> fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let full = self.0.read().unwrap_or_else(PoisonError::into_inner).is_some();
        f.debug_struct("Slot").field("full", &full).finish_non_exhaustive()
    }
}
