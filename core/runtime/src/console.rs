//! What a person sees while a node boots and stops: stage by stage, a tick or a cross per check, and what to do about a cross.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use mobo_core::kernel::{Check, ComponentName, ExitReason, Stage, Verdict};

use crate::output::tame;

/// Where the boot is told. A console that cannot be written to is no reason not to boot: such errors are dropped.
pub struct Console {
    out: Box<dyn Write + Send>,
    colour: bool,
}

impl Console {
    /// Standard error, in colour when that is a terminal and `NO_COLOR` is not set.
    #[must_use]
    pub fn stderr() -> Self {
        Self { out: Box::new(io::stderr()), colour: io::stderr().is_terminal() && !crate::output::no_colour() }
    }

    /// Any other place, without colour.
    #[must_use]
    pub fn plain(out: Box<dyn Write + Send>) -> Self {
        Self { out, colour: false }
    }

    pub(crate) fn title(&mut self, title: &str) {
        self.line(format_args!("{}", self.painted(BOLD, title)));
    }

    pub(crate) fn stage(&mut self, stage: Stage) {
        let number = Stage::ALL.iter().position(|other| *other == stage).map_or(0, |index| index + 1);
        let heading = format!("[{number}/{}] {}", Stage::ALL.len(), stage.words());
        self.line(format_args!("{}", self.painted(BOLD, &heading)));
    }

    pub(crate) fn check(&mut self, component: &ComponentName, check: &Check) {
        let (mark, colour) = match check.verdict {
            Verdict::Pass => ("✓", GREEN),
            Verdict::Warn => ("!", YELLOW),
            Verdict::Fail => ("✗", RED),
        };
        let took = if check.took.is_zero() { String::new() } else { format!(" ({})", Took(check.took)) };
        let mark = self.painted(colour, mark);
        self.line(format_args!("  {mark} {component:<14} {:<14} {}{took}", check.name, tame(&check.detail)));
        if let Some(advice) = &check.advice {
            self.line(format_args!("      → {}", tame(advice)));
        }
    }

    pub(crate) fn ready(&mut self, degraded: bool, took: Duration, addresses: &[String]) {
        let words = if degraded { "degraded: an optional component is out" } else { "ready" };
        let words = self.painted(if degraded { YELLOW } else { GREEN }, words);
        self.line(format_args!("  {words} ({})", Took(took)));
        addresses.iter().for_each(|address| self.line(format_args!("    {address}")));
    }

    pub(crate) fn stopping(&mut self, reason: &ExitReason) {
        if *reason == ExitReason::Stopped {
            self.line(format_args!("stopping"));
        } else {
            self.line(format_args!("stopping: {reason}"));
        }
    }

    pub(crate) fn exit(&mut self, reason: &ExitReason) {
        let words = reason.to_string();
        let words = if reason.code() == 0 { words } else { self.painted(RED, &words) };
        self.line(format_args!("{words}"));
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        // In one piece, so that no log line comes in between.
        let _ = self.out.write_all(format!("{line}\n").as_bytes());
    }

    fn painted(&self, colour: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console").field("colour", &self.colour).finish_non_exhaustive()
    }
}

const BOLD: &str = "1";
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";

/// A short span with two or three figures.
struct Took(Duration);

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        if micros < 1_000 {
            write!(f, "{micros} µs")
        } else if micros < 1_000_000 {
            write!(f, "{:.1} ms", self.0.as_secs_f64() * 1e3)
        } else {
            write!(f, "{:.1} s", self.0.as_secs_f64())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        for (micros, want) in [(0, "0 µs"), (999, "999 µs"), (1_250, "1.2 ms"), (41_000, "41.0 ms"), (2_500_000, "2.5 s")] {
            assert_eq!(Took(Duration::from_micros(micros)).to_string(), want);
        }
    }

    #[test]
    fn colour_is_only_paint() {
        let mut console = Console::plain(Box::new(io::sink()));
        assert_eq!(console.painted(RED, "x"), "x");
        console.colour = true;
        assert_eq!(console.painted(RED, "x"), "\x1b[31mx\x1b[0m");
    }
}
