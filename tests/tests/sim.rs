//! The simulated world with a fixed set of seeds; fresh ones are for `cargo run --release -p mobo-tests --bin sim -- --seeds N`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use mobo_tests::sim::{Fault, Faults, Outcome, Plan, disks, power, run, run_plan};

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
const SEEDS: [std::ops::RangeInclusive<u64>; 2] = [1..=36, 30_012..=30_012];

#[test]
fn one_seed_is_one_run() {
    let [first, second] = [run(5, Faults::All, false), run(5, Faults::All, false)];
    assert_eq!(first.trace, second.trace);
    assert_eq!(first.counts, second.counts);
}

/// No link lets an ack overtake the refusals before it. Where frames come in any order it does, and a link that breaks then, or a device that
/// cannot store the refusal, leaves nobody who knows of it; and what the device would have written again it has let go by then. The model does not
/// ask for that.
#[test]
fn a_refusal_that_its_ack_has_overtaken_may_be_lost() {
    for seed in [920_057, 930_991, 700_392] {
        holds(run(seed, Faults::All, false));
    }
}

/// The hub's API adds to a record that it saw, and a delete that waited is merged before it: so it makes the record anew, with nothing else in it.
#[test]
fn a_write_of_the_hub_is_merged_behind_what_waits() {
    holds(run(952_972, Faults::All, false));
}

/// At a sample of all writes and syncs; `sim --power-cuts` takes every one.
// faults: S-1, S-2, S-3
#[test]
fn a_power_cut_damages_nothing_and_loses_nothing_that_was_told() {
    let cuts = power::run(1, STRIDE);
    assert!(cuts.failures.is_empty(), "{}", cuts.failures.join("\n"));
    assert!(cuts.transactions >= 200 && cuts.cuts >= cuts.ops / STRIDE && cuts.nested > cuts.cuts, "{cuts:?}");
}

/// Writes and syncs between two cuts.
const STRIDE: u64 = 149;

#[track_caller]
fn holds(outcome: Outcome) -> Outcome {
    if let Some(failure) = &outcome.failure {
        panic!("seed {}\n{failure}", outcome.seed);
    }
    outcome
}

/// Whatever page cannot be read, the device says so or does not need it, and with the page back everything is there.
// faults: S-5
#[test]
fn a_page_that_cannot_be_read_loses_nothing() {
    let mut patient = disks::patient(1);
    let done: Vec<disks::Done> = (0..patient.pages()).map(|page| patient.without_page(page)).collect();
    assert!(done.len() > 20 && done.iter().any(|done| !done.booted), "{} pages", done.len());
    assert!(done.iter().any(|done| done.unread > 0 && done.shown > done.unread), "one page does not take all the others with it");
}

/// It goes on reading, refuses writes, asks the disk a few times and no more, and takes writes again once it was started on a disk that does.
// faults: S-11
#[test]
fn a_disk_that_takes_no_writes_is_not_worn_by_them() {
    let mut patient = disks::patient(2);
    let (done, refused) = patient.read_only();
    assert!(done.booted && !done.wrote && done.unread == 0 && done.shown > 100, "{done:?}");
    assert!((1..=BUSY_MAX).contains(&refused), "the disk has refused {refused} writes");
}

/// Writes that a disk may have to refuse for one write of a user.
const BUSY_MAX: u64 = 10;

/// What one local write costs a card, its ack and its way back included.
// faults: S-13
#[test]
fn a_write_costs_the_disk_no_more_than_it_may() {
    let patient = disks::patient(3);
    let (bytes, syncs) = (patient.tally.bytes / patient.writes, patient.tally.syncs as f64 / patient.writes as f64);
    assert!(bytes <= BYTES_PER_WRITE_MAX, "{bytes} bytes for a write: {:?} for {}", patient.tally, patient.writes);
    assert!(syncs <= SYNCS_PER_WRITE_MAX, "{syncs:.1} syncs for a write: {:?} for {}", patient.tally, patient.writes);
}

const BYTES_PER_WRITE_MAX: u64 = 100_000;
const SYNCS_PER_WRITE_MAX: f64 = 6.0;

/// Three months of writes over a line of 20 kbit/s that loses 3 of 100 packets: nothing is lost, and every connected minute something gets
/// through. `sim --offline 100000` is the whole of it.
// faults: N-6, N-17, X-8
#[test]
fn ninety_days_offline_come_back_over_a_thin_line() {
    let outcome = holds(run_plan(1, Plan::offline(OFFLINE_WRITES)));
    assert!(outcome.counts["writes"] >= OFFLINE_WRITES * 9 / 10, "{:?}", outcome.counts);
    assert!(outcome.counts["packets lost on a thin line"] > 0 && outcome.counts["connected minutes with progress"] > 0);
}

const OFFLINE_WRITES: u64 = 2_500;

/// All devices lose their hub at once and come back to it at once. `sim --herd 10000` is the whole of it.
// faults: N-11, C-6
#[test]
fn a_herd_comes_back_to_its_hub() {
    let outcome = holds(run_plan(1, Plan::herd(HERD)));
    assert!(outcome.counts["kills of the hub"] > 0, "{:?}", outcome.counts);
}

const HERD: usize = 25;

/// A device floods its hub with records, deletions and changes, all signed as they should be: it gets its share, and the others do not notice.
// faults: X-4
#[test]
fn a_device_that_floods_its_hub_is_slowed_down_alone() {
    let outcome = holds(run_plan(1, Plan::flood()));
    assert!(outcome.counts["times that a device was told to wait"] > 3, "{:?}", outcome.counts);
}

/// The hub's clock is ten years off, in either direction, again and again: nobody is shut out, and everything converges.
// faults: K-5
#[test]
fn a_hub_whose_clock_jumps_shuts_nobody_out() {
    for seed in 1..=3 {
        let faults = vec![(Fault::HubClock, 8_000_000), (Fault::KillHub, 20_000_000), (Fault::CutLink, 10_000_000)];
        let plan = Plan { devices: 3, safety_us: 60_000_000, faults, ..Plan::calm() };
        let outcome = holds(run_plan(seed, plan));
        assert!(outcome.counts["jumps of the hub's clock"] > 3, "{:?}", outcome.counts);
    }
}

/// Two devices that drew the same numbers at their first boot have one key, one log and the same nonces: the hub finds out, and both people's
/// writes are kept.
// faults: I-7
#[test]
fn two_devices_of_one_seed_keep_what_both_write() {
    for seed in 1..=3 {
        let plan = Plan { devices: 3, safety_us: 40_000_000, write_every_us: 1_500_000, one_seed: true, ..Plan::calm() };
        let outcome = holds(run_plan(seed, plan));
        assert!(outcome.counts.contains_key("refences"), "nobody noticed: {:?}", outcome.counts);
    }
}

/// Devices are copied, so that they begin new logs, and then the hub goes back to before that: what they keep of the old logs comes back.
// faults: B-1
#[test]
fn what_is_kept_of_logs_that_were_left_behind_comes_back_to_a_restored_hub() {
    let mut pushed = 0;
    for seed in 1..=6 {
        let faults = vec![(Fault::RestoreHub, 9_000_000), (Fault::CloneDevice, 8_000_000), (Fault::CutLink, 10_000_000)];
        let writes = Plan { devices: 2, safety_us: 50_000_000, write_every_us: 1_500_000, mix: [4, 1, 6, 2], ..Plan::calm() };
        let outcome = holds(run_plan(seed, Plan { keep_bytes: 64 << 20, faults, ..writes }));
        pushed += outcome.counts.get("pushes of logs that were left behind").copied().unwrap_or_default();
    }
    assert!(pushed > 0, "no device had such a log when its hub went back");
}

/// Records move between buckets, and rights come and go, while devices are connected and while they are not: everybody sees what they may and nothing
/// else, and of what is refused its author hears.
#[test]
fn records_that_move_and_rights_that_end_leave_nothing_behind() {
    for seed in 1..=6 {
        let faults = vec![(Fault::CutLink, 8_000_000), (Fault::Partition, 12_000_000), (Fault::KillDevice, 12_000_000)];
        let plan = Plan { devices: 3, safety_us: 50_000_000, write_every_us: 5_000_000, faults, ..Plan::calm() };
        let outcome = holds(run_plan(seed, Plan { yards_every_us: Some(500_000), ..plan }));
        for what in ["carts moved by the hub", "rights taken away", "rights given", "writes to carts"] {
            assert!(outcome.counts.contains_key(what), "no {what}: {:?}", outcome.counts);
        }
    }
}
