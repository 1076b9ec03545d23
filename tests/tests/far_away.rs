//! Devices that are far away: behind narrow, slow and lossy wires, and after a long time alone.

use std::time::Duration;

use mobo_tests::field::backlog::{Plan, report, run};
use mobo_tests::proxy::Weather;
use mobo_tests::seed::Seed;

#[track_caller]
fn comes_home(changes: u64, weather: Weather) {
    let seed = Seed::from_env();
    let plan = Plan { changes, records: changes.div_ceil(10), weather, timeout: Duration::from_secs(240) };
    let outcome = run(&plan, &seed);
    println!("{}", report(&plan, &seed, &outcome));
    // With the room that a debug build takes.
    assert!(outcome.device_kib_max <= 96 * 1024, "{outcome:?}");
    assert!(outcome.longest_pause <= Duration::from_secs(60), "each connected minute makes progress: {outcome:?}");
}

/// Goal: what a device wrote while it was alone arrives once each, over a wire that takes its time, and the device stays small.
/// `cargo run --release -p mobo-tests --bin field backlog` is the long one.
// faults: N-6, N-17
#[test]
fn a_backlog_goes_over_a_narrow_wire() {
    comes_home(1_200, Weather { bits_per_s: 2_000_000, delay: Duration::from_millis(25), ..Weather::default() });
}

// faults: N-6
#[test]
fn a_device_on_2g_gets_through() {
    comes_home(20, Weather { bits_per_s: 20_000, delay: Duration::from_millis(350), lost_per_mille: 30, ..Weather::default() });
}

// faults: N-6
#[test]
fn a_device_behind_a_satellite_gets_through() {
    comes_home(200, Weather { delay: Duration::from_millis(300), lost_per_mille: 20, ..Weather::default() });
}
