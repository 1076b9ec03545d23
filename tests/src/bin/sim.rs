//! Runs the simulated world with fresh seeds, for as long as one likes.

use std::process::ExitCode;

fn main() -> ExitCode {
    mobo_tests::sim::cli::main()
}
