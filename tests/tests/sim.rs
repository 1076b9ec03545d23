//! The simulated world with a fixed set of seeds; fresh ones are for `cargo run --release -p mobo-tests --bin sim -- --seeds N`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use mobo_tests::sim::{Faults, Outcome, power, run};

/// Runs these seeds on all processors, and says of each that broke something what one needs to look at it.
#[track_caller]
fn hold(seeds: &[u64]) -> Vec<Outcome> {
    let (next, outcomes) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap()) {
                    let outcome = run(*seed, Faults::HubStays, false);
                    outcomes.lock().unwrap().push(outcome);
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().unwrap();
    let failures = outcomes.iter().filter_map(|outcome| Some(format!("seed {}\n{}\n", outcome.seed, outcome.failure.as_ref()?)));
    let failures: Vec<String> = failures.collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    outcomes
}

// faults: S-1, S-3, S-4, S-6, S-7, K-1, K-2, I-1, I-2, I-3, N-1, N-2, N-5, H-1
#[test]
fn nothing_is_lost_doubled_or_different_whatever_happens() {
    let seeds: Vec<u64> = SEEDS.into_iter().flatten().collect();
    let outcomes = hold(&seeds);
    // Faults that are on and never happen would test nothing.
    for what in
        ["power cuts of a device", "power cuts of the hub", "lying disks", "cloned folders", "partitions", "frames lost", "refences"]
    {
        assert!(outcomes.iter().any(|outcome| outcome.counts.contains_key(what)), "no run had any {what}");
    }
}

/// As many as take about a minute without optimisation, all faults among them.
const SEEDS: [std::ops::RangeInclusive<u64>; 2] = [1..=23, 25..=40];

#[test]
fn one_seed_is_one_run() {
    let [first, second] = [run(5, Faults::All, false), run(5, Faults::All, false)];
    assert_eq!(first.trace, second.trace);
    assert_eq!(first.counts, second.counts);
}

/// At a sample of all writes and syncs; `sim --power-cuts` takes every one.
// faults: S-1, S-3
#[test]
fn a_power_cut_damages_nothing_and_loses_nothing_that_was_told() {
    let cuts = power::run(1, STRIDE);
    assert!(cuts.failures.is_empty(), "{}", cuts.failures.join("\n"));
    assert!(cuts.transactions >= 200 && cuts.cuts >= cuts.ops / STRIDE && cuts.nested > cuts.cuts, "{cuts:?}");
}

/// Writes and syncs between two cuts.
const STRIDE: u64 = 149;
