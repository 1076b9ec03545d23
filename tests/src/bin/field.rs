//! The matrix of the field: 5 and 10 devices, each writing 10, 20, 30 and 40 times a second for 100 s, with partitions, bad weather,
//! SIGKILL and SIGSTOP mixed. Prints one line of JSON for each run; exit code 1 if any took longer than [`HEALED_MAX`] to heal. Anything
//! that is lost, doubled or stuck ends it with a panic that has the seed.
//!
//! ```text
//! cargo build --release --workspace --bins && cargo run --release -p mobo-tests --bin field [seconds]
//! ```

#![allow(clippy::print_stdout, reason = "its output is its purpose")]

use std::process::ExitCode;
use std::time::Duration;

use mobo_tests::cluster::Place;
use mobo_tests::field::{Plan, report, run};
use mobo_tests::seed::Seed;

/// After the end of the last fault.
const HEALED_MAX: Duration = Duration::from_secs(11);

fn main() -> ExitCode {
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(100);
    let mut slow = 0;
    for devices in [5, 10] {
        for writes_per_s in [10, 20, 30, 40] {
            let seed = Seed::from_env();
            let plan = Plan { devices, writes_per_s, duration: Duration::from_secs(seconds), place: Place::Sqlite };
            let outcome = run(&plan, &seed);
            println!("{}", report(&plan, &seed, &outcome));
            slow += u32::from(outcome.healed_in > HEALED_MAX);
        }
    }
    if slow == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
