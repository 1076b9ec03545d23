//! The matrix of the field: 5 and 10 devices, each writing 10, 20, 30 and 40 times a second for 100 s, with partitions, bad weather,
//! SIGKILL and SIGSTOP mixed. Prints one line of JSON for each run; exit code 1 if any took longer than [`HEALED_MAX`] to heal. Anything
//! that is lost, doubled or stuck ends it with a panic that has the seed.
//!
//! ```text
//! cargo build --release --workspace --bins && cargo run --release -p mobo-tests --bin field [seconds]
//! cargo run --release -p mobo-tests --bin field backlog [changes] [kbit/s]
//! ```
//!
//! The second form is a device that was away for long: so many changes are made while there is no hub, 100,000 unless it says otherwise, and
//! then they go over a wire of so many kbit/s, 2,000 unless it says otherwise. Exit code 1 if the device took more than [`RSS_KIB_MAX`].

#![allow(clippy::print_stdout, reason = "its output is its purpose")]

use std::process::ExitCode;
use std::time::Duration;

use mobo_tests::cluster::Place;
use mobo_tests::field::{Plan, backlog, report, run};
use mobo_tests::proxy::Weather;
use mobo_tests::seed::Seed;

/// After the end of the last fault.
const HEALED_MAX: Duration = Duration::from_secs(11);

/// Of the device, in a backlog.
const RSS_KIB_MAX: u64 = 64 * 1024;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).peekable();
    if args.next_if(|word| word == "backlog").is_some() {
        let mut number = |default| args.next().and_then(|text| text.parse().ok()).unwrap_or(default);
        return backlog(number(100_000), number(2_000));
    }
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

fn backlog(changes: u64, kbit_per_s: u64) -> ExitCode {
    let seed = Seed::from_env();
    let weather = Weather { bits_per_s: kbit_per_s * 1_000, delay: Duration::from_millis(25), ..Weather::default() };
    let plan = backlog::Plan { changes, records: changes.div_ceil(10), weather, timeout: Duration::from_secs(3_600) };
    let outcome = backlog::run(&plan, &seed);
    println!("{}", backlog::report(&plan, &seed, &outcome));
    if outcome.device_kib_max <= RSS_KIB_MAX { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
