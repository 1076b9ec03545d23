//! A short day in the field; `cargo run --release -p mobo-tests --bin field` is the long one.

use std::time::Duration;

use mobo_tests::cluster::Place;
use mobo_tests::field::{Plan, report, run};
use mobo_tests::seed::Seed;

/// Goal: a fleet whose wires are cut, delayed, lossy and doubling, and whose processes are killed and frozen while all of them write, loses
/// nothing, does nothing twice, and is equal everywhere soon after it has healed.
// faults: N-1, H-1, H-13
#[test]
fn a_fleet_survives_the_field() {
    let seed = Seed::from_env();
    let plan = Plan { devices: 4, writes_per_s: 10, duration: Duration::from_secs(15), place: Place::Sqlite };
    let outcome = run(&plan, &seed);
    println!("{}", report(&plan, &seed, &outcome));
    assert!(outcome.faults.values().sum::<u64>() >= 5, "{outcome:?}");
    // Of 600, on a machine that may be busy with other things.
    assert!(outcome.acknowledged >= 60, "{outcome:?}");
    assert!(outcome.healed_in < Duration::from_secs(90), "{outcome:?}");
}
