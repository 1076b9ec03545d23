//! The hub's binary.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    mobo_hub::cli::run(mobo_hub::cli::Cli::parse())
}
