//! What goes into the board and what comes out: two closed enums, and the words of its state.

use std::fmt;
use std::time::Duration;

use super::command::{Command, CommandId, Done, Refusal};
use crate::kernel::{Check, ComponentName, ComponentState, Fault, Health, Vital};
use crate::limits;
use crate::time::Instant;

/// Everything that can happen to a board. There is no other way in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Input {
    /// Begin.
    Boot {
        /// What the node looked at before there was a board: folder, lock, settings. One that failed refuses the boot.
        checks: Vec<Check>,
        /// The node was not shut down cleanly: parts verify what they own before they start.
        unclean: bool,
    },
    /// A part has answered [`Effect::Ask`].
    Answer {
        /// Which question.
        turn: Turn,
        /// What it answers.
        answer: Answer,
    },
    /// A part has answered [`Effect::Probe`].
    Probed {
        /// Which question.
        turn: Turn,
        /// How it is.
        vital: Vital,
    },
    /// A task that a part lives by is over.
    Exited {
        /// Which part.
        component: ComponentName,
        /// In which of its lives the task was spawned; one of an earlier life changes nothing.
        life: u64,
        /// How the task ended.
        reason: String,
    },
    /// An operator wants something of a part; answered by [`Effect::Answered`].
    Command {
        /// Which command the answer is for.
        id: CommandId,
        /// What is wanted.
        command: Command,
    },
    /// Stop in order. Said again, it changes nothing.
    Stop,
    /// A person or a service manager sent a signal: the first stops in order, the second ends at once.
    Signal,
    /// The instant of [`Board::poll_timeout`](super::Board::poll_timeout) has come.
    Timeout,
}

/// The number of a question; never used again.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Turn(pub u64);

/// What a part is asked to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Ask {
    /// Look at its settings and test itself, changing nothing; answer [`Answer::Checks`].
    Check,
    /// Open what it owns.
    Load,
    /// Look at what it has opened, after a crash; answer [`Answer::Checks`].
    Verify,
    /// Go to work.
    Start,
    /// Finish and close.
    Stop,
    /// Mend itself; a fault asks for a restart.
    Recover,
    /// Replace what fills its socket by what is at this address, without stopping.
    Swap(String),
}

impl Ask {
    /// The words in checks and sentences.
    #[must_use]
    pub const fn words(&self) -> &'static str {
        match self {
            Self::Check => "self-test",
            Self::Load => "load",
            Self::Verify => "verify",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Recover => "recover",
            Self::Swap(_) => "swap",
        }
    }

    /// How long the answer may take.
    #[must_use]
    pub const fn timeout(&self) -> Duration {
        match self {
            Self::Check => limits::CHECK_TIMEOUT,
            Self::Load => limits::LOAD_TIMEOUT,
            Self::Verify => limits::VERIFY_TIMEOUT,
            Self::Start => limits::START_TIMEOUT,
            Self::Stop => limits::STOP_TIMEOUT,
            Self::Recover => limits::RECOVER_TIMEOUT,
            Self::Swap(_) => limits::SWAP_TIMEOUT,
        }
    }
}

/// What a part answers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// What it found; no checks is a pass.
    Checks(Vec<Check>),
    /// How it went. Of a stop: its tasks are over, and a fault makes it unclean.
    Did(Result<(), Fault>),
    /// How a swap went, with a sentence for the operator.
    Swapped(Result<String, Fault>),
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
    /// Ask a part for something; answer [`Input::Answer`]. At most one such question is open.
    Ask {
        /// Which question.
        turn: Turn,
        /// Which part.
        component: ComponentName,
        /// What for.
        ask: Ask,
        /// The part's life: each load begins another.
        life: u64,
        /// When the board gives up on it.
        deadline: Instant,
    },
    /// Ask a part how it is; answer [`Input::Probed`]. There is at most one such question for each part.
    Probe {
        /// Which question.
        turn: Turn,
        /// Which part.
        component: ComponentName,
        /// When the board gives up on it.
        deadline: Instant,
    },
    /// Nobody waits for the answer to this probe any more: drop the call.
    CutProbe(Turn),
    /// Cut whatever a part still does, now: the open question and its tasks. No answer.
    Abort(ComponentName),
    /// Drop the open question to a part; its tasks go on. No answer.
    Drop(ComponentName),
    /// The end of a command.
    Answered {
        /// Which command.
        id: CommandId,
        /// What came of it.
        result: Result<Done, Refusal>,
    },
    /// Something that others may want to know.
    Tell(News),
    /// The board serves.
    Ready {
        /// Some part is out.
        degraded: bool,
    },
    /// The board stops serving; parts stop one after the other from here on.
    Stopping(ExitReason),
    /// Nothing is left to do: leave the process with this.
    Exit(ExitReason),
}

/// What happened to a part, for the log and the bus.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum News {
    /// A part went from one state to another.
    State {
        /// Which part.
        component: ComponentName,
        /// What it was.
        from: ComponentState,
        /// What it is.
        to: ComponentState,
        /// Why it failed; absent otherwise.
        detail: Option<String>,
    },
    /// A part's health changed.
    Health {
        /// Which part.
        component: ComponentName,
        /// What it was.
        from: Health,
        /// What it is.
        to: Health,
        /// What was found; absent when all is well.
        detail: Option<String>,
    },
    /// A part that failed is started again after a pause.
    Restart {
        /// Which part.
        component: ComponentName,
        /// Its failures since the boot.
        failures: u64,
        /// How long the pause is.
        pause: Duration,
    },
    /// A part has failed too often, or is trusted again.
    Circuit {
        /// Which part.
        component: ComponentName,
        /// True when it is left alone now, false when it is started again.
        open: bool,
        /// Its failures since the boot.
        failures: u64,
    },
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
    /// A part is out that the board can be without, or that an operator stopped; the rest serves.
    Degraded,
    /// A required part is out; it is started again when its time comes.
    Critical,
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
            Self::Critical => "critical",
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
    /// A second signal came.
    Forced,
}

impl ExitReason {
    /// The exit code of the process: 0 only after a clean stop that somebody asked for.
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self {
            Self::Stopped => 0,
            Self::Unclean(_) | Self::Refused(_) | Self::Forced => 1,
        }
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (words, failures) = match self {
            Self::Stopped => ("stopped", [].as_slice()),
            Self::Unclean(failures) => ("stopped, but not cleanly", failures.as_slice()),
            Self::Refused(failures) => ("boot refused", failures.as_slice()),
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
