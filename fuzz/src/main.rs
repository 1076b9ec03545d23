//! `mobo-fuzz`: shows the decoders what no honest peer sends. Builds on stable, with nothing beside the crates that it attacks.
//!
//! ```text
//! mobo-fuzz --target frame --seconds 60            a walk from a fresh seed
//! mobo-fuzz --target frame --seconds 60 --seed 7   the same walk again
//! mobo-fuzz --target frame --executions 100000     a walk of so many tries
//! mobo-fuzz --all --executions 5000000             so many over all targets
//! mobo-fuzz --target frame --replay                the corpus and all crashers found so far
//! mobo-fuzz --list                                 the targets
//! ```
//!
//! A walk takes an input of the corpus, changes it ([`mutate`]), and gives it to the target; an input that makes the target answer
//! in a new way joins the pool. It runs in a process of its own with bounded memory, because a stack that overflows and an
//! allocation that fails cannot be caught: whatever ends that process, the input in hand is kept as a crasher, and the walk's
//! seed is printed. Exit code 1 is a crash, 2 a wrong command line.
//!
//! Crashers are kept in `crashers/<target>` for ever, and replayed by the tests: commit them with the fix.

mod command;
mod mutate;
mod shelf;
mod supervise;
mod targets;
mod walk;

use std::process::ExitCode;

use command::{Command, Mode};

fn main() -> ExitCode {
    let command = match Command::parse(std::env::args().skip(1)) {
        Ok(command) => command,
        Err(problem) => {
            eprintln!("error: {problem}\n  hint: mobo-fuzz --target frame --seconds 60 [--seed N], or --list");
            return ExitCode::from(2);
        }
    };
    let fine = match command.mode {
        Mode::List => {
            targets::TARGETS.iter().for_each(|target| println!("{}", target.name));
            true
        }
        Mode::Replay => walk::replay(&command),
        Mode::Walk => supervise::walk(&command),
        Mode::All => supervise::walk_all(&command),
        Mode::Worker => walk::work(&command),
    };
    ExitCode::from(u8::from(!fine))
}
