//! The command line.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::PathBuf;
use std::time::Duration;

use crate::targets::{self, Target};

/// What to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Mode {
    /// Print the names of the targets.
    List,
    /// Give the target what is kept.
    Replay,
    /// Walk, in a supervised process.
    Walk,
    /// Walk through all targets, one after the other.
    All,
    /// Be the process that walks.
    Worker,
}

#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) mode: Mode,
    pub(crate) target: &'static Target,
    pub(crate) time: Duration,
    /// Ends a walk after so many tries, if that comes first; with [`Mode::All`], after so many over all targets.
    pub(crate) executions: Option<u64>,
    pub(crate) seed: u64,
    /// Where crashers go instead of this package's own folder.
    pub(crate) crashers: Option<PathBuf>,
}

impl Command {
    pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let seed = RandomState::new().build_hasher().finish();
        let (mut mode, mut target, mut time, mut executions) = (Mode::Walk, None, None, None);
        let (mut seed, mut crashers) = (seed, None);
        while let Some(flag) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{flag} needs a value"));
            match flag.as_str() {
                "--list" => mode = Mode::List,
                "--all" => mode = Mode::All,
                "--replay" => mode = Mode::Replay,
                "--worker" => mode = Mode::Worker,
                "--target" => target = Some(find(&value()?)?),
                "--seconds" => time = Some(Duration::from_secs(number(&flag, &value()?)?)),
                "--executions" => executions = Some(number(&flag, &value()?)?),
                "--seed" => seed = number(&flag, &value()?)?,
                "--crashers" => crashers = Some(PathBuf::from(value()?)),
                _ => return Err(format!("there is no flag {flag}")),
            }
        }
        let target = match (target, mode) {
            (Some(target), _) => target,
            (None, Mode::List | Mode::All) => targets::TARGETS.first().ok_or("there are no targets")?,
            (None, _) => return Err("--target is missing".into()),
        };
        // Whoever counts tries waits for them.
        let time = time.unwrap_or(if executions.is_some() { Duration::from_secs(3_600) } else { Duration::from_secs(60) });
        Ok(Self { mode, target, time, executions, seed, crashers })
    }
}

fn find(name: &str) -> Result<&'static Target, String> {
    targets::all().find(|target| target.name == name).ok_or_else(|| {
        let names: Vec<_> = targets::TARGETS.iter().map(|target| target.name).collect();
        format!("there is no target {name}: there are {}", names.join(", "))
    })
}

fn number(flag: &str, text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{flag} is {text:?}: give it a whole number"))
}
