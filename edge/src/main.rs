//! The device's binary.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    mobo_edge::cli::run(mobo_edge::cli::Cli::parse())
}
