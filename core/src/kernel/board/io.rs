//! What goes into the board and what comes out: two closed enums, and the words of its state.

use std::fmt;

use crate::kernel::{Check, ComponentName, Fault};
use crate::time::Instant;

/// Everything that can happen to a board. There is no other way in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Input {
    /// Begin.
    Boot {
        /// What the node looked at before there was a board: folder, lock, settings. One that failed refuses the boot.
        checks: Vec<Check>,
    },
    /// A part has tested itself.
    Checked {
        /// Which part.
        component: ComponentName,
        /// What it found; no checks is a pass.
        checks: Vec<Check>,
    },
    /// A part has loaded.
    Loaded {
        /// Which part.
        component: ComponentName,
        /// How it went.
        result: Result<(), Fault>,
    },
    /// A part has started.
    Started {
        /// Which part.
        component: ComponentName,
        /// How it went.
        result: Result<(), Fault>,
    },
    /// A part has stopped: its tasks are over.
    Stopped {
        /// Which part.
        component: ComponentName,
        /// Whether it could finish its work; a fault makes the stop unclean.
        result: Result<(), Fault>,
    },
    /// A task that a part lives by is over.
    Exited {
        /// Which part.
        component: ComponentName,
        /// How the task ended.
        reason: String,
    },
    /// Stop in order. Said again, it changes nothing.
    Stop,
    /// A person or a service manager sent a signal: the first stops in order, the second ends at once.
    Signal,
    /// The instant of [`Board::poll_timeout`](super::Board::poll_timeout) has come.
    Timeout,
}

/// Everything a board can ask for. The driver carries them out in this order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Effect {
    /// A stage of the boot begins.
    Stage(Stage),
    /// Show a check, or how a step went.
    Show {
        /// Which part; [`Board::NAME`](super::Board::NAME) for the board itself.
        component: ComponentName,
        /// What to show.
        check: Check,
    },
    /// Let a part test itself; answer [`Input::Checked`].
    Check(ComponentName),
    /// Let a part open what it owns; answer [`Input::Loaded`].
    Load(ComponentName),
    /// Put a part to work; answer [`Input::Started`].
    Start(ComponentName),
    /// Let a part finish and close; answer [`Input::Stopped`].
    Stop {
        /// Which part.
        component: ComponentName,
        /// When the board gives up on it.
        deadline: Instant,
    },
    /// Cut whatever a part still does, now. No answer.
    Abort(ComponentName),
    /// The board serves.
    Ready {
        /// Some optional part is out.
        degraded: bool,
    },
    /// The board stops serving; parts stop one after the other from here on.
    Stopping(ExitReason),
    /// Nothing is left to do: leave the process with this.
    Exit(ExitReason),
}

/// The stages of a boot, in order.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Stage {
    /// The node looks at the ground that it stands on.
    PreBoot,
    /// The kernel puts the parts in order.
    KernelInit,
    /// Every part tests itself.
    Post,
    /// Every part opens what it owns.
    Loading,
    /// Every part is put to work.
    Starting,
    /// The board serves.
    Ready,
}

impl Stage {
    /// All stages, first to last.
    pub const ALL: [Self; 6] = [Self::PreBoot, Self::KernelInit, Self::Post, Self::Loading, Self::Starting, Self::Ready];

    /// The words that people read.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::PreBoot => "pre-boot",
            Self::KernelInit => "kernel init",
            Self::Post => "POST",
            Self::Loading => "component loading",
            Self::Starting => "service start",
            Self::Ready => "ready",
        }
    }
}

/// The state of the whole board, as `status` gives it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BoardState {
    /// Not ready yet.
    Booting,
    /// Every part runs.
    Ready,
    /// An optional part is out; the rest serves.
    Degraded,
    /// Parts are being stopped.
    Stopping,
    /// Over, as asked.
    Stopped,
    /// Over, or never ready, because something failed.
    Failed,
}

impl BoardState {
    /// The word in `status -o json`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Booting => "booting",
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

/// One part and what happened to it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure {
    /// Which part.
    pub component: ComponentName,
    /// What happened, as a sentence without a full stop.
    pub reason: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.component, self.reason)
    }
}

/// Why a board is over.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ExitReason {
    /// It was asked to stop, and every part did.
    Stopped,
    /// It was asked to stop, and these parts were cut or failed on the way.
    Unclean(Vec<Failure>),
    /// It never became ready.
    Refused(Vec<Failure>),
    /// A part that it cannot be without failed while it served.
    Failed(Failure),
    /// A second signal came.
    Forced,
}

impl ExitReason {
    /// The exit code of the process: 0 only after a clean stop that somebody asked for.
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self {
            Self::Stopped => 0,
            Self::Unclean(_) | Self::Refused(_) | Self::Failed(_) | Self::Forced => 1,
        }
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (words, failures) = match self {
            Self::Stopped => ("stopped", [].as_slice()),
            Self::Unclean(failures) => ("stopped, but not cleanly", failures.as_slice()),
            Self::Refused(failures) => ("boot refused", failures.as_slice()),
            Self::Failed(failure) => ("a required component failed", std::slice::from_ref(failure)),
            Self::Forced => ("ended at once by a second signal", [].as_slice()),
        };
        f.write_str(words)?;
        for (index, failure) in failures.iter().enumerate() {
            let lead = if index == 0 { ": " } else { "; " };
            write!(f, "{lead}{failure}")?;
        }
        Ok(())
    }
}
