//! The test of the tests: takes each protection of the product away, one at a time, and looks whether the simulated world notices.
//!
//! The protections are found in the source, wherever `protect!("name", …)` stands. Where several places guard the same thing one behind the
//! other, what stands before a `:` in their names is the same, and they are taken away together.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The folders of what is shipped.
const SHIPPED: [&str; 4] = ["core", "edge", "hub", "protocol"];

/// The names of the protections in a text, with the lines that they stand in.
#[must_use]
pub fn names_in(text: &str) -> Vec<(String, usize)> {
    let mut names = Vec::new();
    for (at, word) in text.match_indices("protect!(") {
        let rest = text[at + word.len()..].trim_start();
        if let Some((name, _)) = rest.strip_prefix('"').and_then(|rest| rest.split_once('"')) {
            names.push((name.to_owned(), 1 + text[..at].matches('\n').count()));
        }
    }
    names
}

/// All protections of what is shipped: name and place.
#[must_use]
pub fn names() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut names = Vec::new();
    for folder in SHIPPED {
        for file in rust_files(&root.join(folder)) {
            let place = file.strip_prefix(&root).unwrap_or(&file).display().to_string();
            if place.ends_with("core/src/protect.rs") {
                continue;
            }
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            names.extend(names_in(&text).into_iter().map(|(name, line)| (name, format!("{place}:{line}"))));
        }
    }
    names.sort();
    names
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// Runs `sim --mutants`; each protection whose name holds `only` is tried with at most so many seeds.
#[cfg(not(feature = "mutants"))]
#[must_use]
pub fn main(_: u64, _: &str) -> ExitCode {
    eprintln!("{} protections can be taken away in a build of their own: add --features mutants", names().len());
    ExitCode::from(2)
}

/// Runs `sim --mutants`; each protection whose name holds `only` is tried with at most so many seeds.
#[cfg(feature = "mutants")]
#[must_use]
pub fn main(seeds_max: u64, only: &str) -> ExitCode {
    trying::main(seeds_max, only)
}

/// Runs the world of a seed that leans towards a protection, without it, and prints its trace; with it where a `+` stands before its name.
#[cfg(not(feature = "mutants"))]
#[must_use]
pub fn trace(_: u64, name: &str) -> ExitCode {
    main(0, name)
}

/// Runs the world of a seed that leans towards a protection, without it, and prints its trace; with it where a `+` stands before its name.
#[cfg(feature = "mutants")]
#[must_use]
pub fn trace(seed: u64, name: &str) -> ExitCode {
    let is_on = name.starts_with('+');
    let name = name.trim_start_matches('+');
    mobo_core::protect::switch_off(Some(name).filter(|_| !is_on));
    let outcome = super::run_leaning(seed, name, true);
    for (what, count) in &outcome.counts {
        println!("{count:>12}  {what}");
    }
    match outcome.failure {
        None => ExitCode::SUCCESS,
        Some(failure) => {
            println!("{}: {}", failure.violation.invariant, failure.violation.what);
            ExitCode::FAILURE
        }
    }
}

#[cfg(feature = "mutants")]
mod trying {
    use std::collections::BTreeMap;
    use std::process::ExitCode;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use mobo_core::protect;

    use crate::sim::Failure;

    /// Of 100 protections, so many must be missed when they are gone.
    const CAUGHT_PERCENT_MIN: usize = 95;

    enum Fate {
        Caught {
            runs: u64,
            by: &'static str,
        },
        /// It was looked at, and nothing went wrong without it.
        Unnoticed,
        /// No run came near it.
        Unreached,
    }

    pub(super) fn main(seeds_max: u64, only: &str) -> ExitCode {
        std::panic::set_hook(Box::new(|_| {}));
        let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, place) in super::names().into_iter().filter(|(name, _)| name.contains(only)) {
            let whole = name.split(':').next().unwrap_or_default().to_owned();
            names.entry(whole).or_default().push(place);
        }
        let fates = each(names.into_iter().collect(), |(name, places)| {
            let fate = fate(name, seeds_max);
            let places = places.join(", ");
            match &fate {
                Fate::Caught { runs, by } => println!("caught by {by} in run {runs}: {name} ({places})"),
                Fate::Unnoticed => println!("NOT NOTICED: {name} ({places})"),
                Fate::Unreached => println!("NOT REACHED: {name} ({places})"),
            }
            fate
        });
        let caught = fates.iter().filter(|fate| matches!(fate, Fate::Caught { .. })).count();
        println!("{caught} of {} protections are missed when they are gone", fates.len());
        if caught * 100 >= fates.len() * CAUGHT_PERCENT_MIN { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// Runs worlds that lean towards the protection without it; one that breaks something must hold with it.
    fn fate(name: &str, seeds_max: u64) -> Fate {
        let mut reached = false;
        for seed in 1..=seeds_max {
            protect::switch_off(Some(name));
            let failure = crate::sim::run_leaning(seed, name, false).failure;
            reached |= protect::was_missed();
            protect::switch_off(None);
            let Some(failure) = failure else { continue };
            match crate::sim::run_leaning(seed, name, false).failure {
                None => return Fate::Caught { runs: seed, by: failure.violation.invariant },
                // That is a finding of its own: of the product, or of what the world demands.
                Some(Failure { violation, .. }) => {
                    println!("seed {seed} of {name} fails with it as well: {}: {}", violation.invariant, violation.what);
                }
            }
        }
        if reached { Fate::Unnoticed } else { Fate::Unreached }
    }

    /// Does something with each of them, on all processors.
    fn each<T: Sync, R: Send>(items: Vec<T>, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
        let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(|| {
                    while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let result = work(item);
                        done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(result);
                    }
                });
            }
        });
        done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
