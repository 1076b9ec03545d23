//! The teller of the story: plain lines for people on standard error, and a bar below them where that is a terminal.

use std::io::{IsTerminal as _, Write as _};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

/// Tells what happens.
#[derive(Debug)]
pub(super) struct Narrator {
    bar: Option<ProgressBar>,
    began: Instant,
}

impl Narrator {
    /// A teller of `steps` steps.
    pub(super) fn new(steps: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(steps as u64);
            let style = ProgressStyle::with_template("  [{bar:40}] {pos}/{len} writes acknowledged, {elapsed}  {msg}");
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar, began: Instant::now() }
    }

    /// One step further.
    pub(super) fn step(&self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    /// Says a sentence, with the time that has passed.
    pub(super) fn say(&self, sentence: &str) {
        self.print(&format!("{:>6.1} s  {sentence}", self.began.elapsed().as_secs_f64()));
    }

    /// Shows a text as it is, indented.
    pub(super) fn show(&self, text: &str) {
        text.lines().for_each(|line| self.print(&format!("          {line}")));
    }

    /// Says what is being waited for.
    pub(super) fn waiting(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(what.to_owned());
        }
    }

    /// Takes the bar away.
    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn print(&self, line: &str) {
        // A reader who has gone is no reason to end the story.
        let print = || drop(writeln!(std::io::stderr(), "{line}"));
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}
