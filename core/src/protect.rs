//! Names for protections, so that a test can take them away one at a time and see whether anybody notices.
//!
//! `protect!("lane.gap", first > expect)` is the condition under which a protection steps in. In a normal build it is that condition and
//! nothing else. In a build with the feature `mutants`, one protection can be off on the current thread: its condition is false then.
//! The list of protections is not kept anywhere: `sim --mutants` finds them in the source. Each name stands once. Where several places guard
//! the same thing one behind the other (`log.forked:push`, `log.forked:hello`), they are one protection by the name before the colon: each
//! alone would not be missed.

/// The condition under which the protection of this name steps in.
#[cfg(not(feature = "mutants"))]
#[macro_export]
macro_rules! protect {
    ($name:literal, $condition:expr) => {
        $crate::protect::as_it_is($condition)
    };
}

/// The condition, as it is.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
#[must_use]
pub const fn as_it_is(condition: bool) -> bool {
    condition
}

/// The condition under which the protection of this name steps in; false while it is [off](crate::protect::switch_off).
#[cfg(feature = "mutants")]
#[macro_export]
macro_rules! protect {
    ($name:literal, $condition:expr) => {
        $crate::protect::is_on($name) && $condition
    };
}

#[cfg(feature = "mutants")]
mod switch {
    use std::cell::{Cell, RefCell};

    std::thread_local! {
        static OFF: RefCell<Option<String>> = const { RefCell::new(None) };
        static MISSED: Cell<bool> = const { Cell::new(false) };
    }

    /// Takes the protection of this name away on this thread; `None` gives all back.
    pub fn switch_off(name: Option<&str>) {
        OFF.with(|off| *off.borrow_mut() = name.map(str::to_owned));
        MISSED.set(false);
    }

    /// True if the protection was needed, or would have been looked at, since it was taken away.
    #[must_use]
    pub fn was_missed() -> bool {
        MISSED.get()
    }

    /// False for the protection that is off.
    #[must_use]
    pub fn is_on(name: &str) -> bool {
        let whole = name.split_once(':').map_or(name, |(whole, _)| whole);
        let off = OFF.with(|off| off.borrow().as_deref() == Some(whole));
        if off {
            MISSED.set(true);
        }
        !off
    }
}

#[cfg(feature = "mutants")]
pub use switch::{is_on, switch_off, was_missed};
