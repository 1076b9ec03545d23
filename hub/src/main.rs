//! The hub's binary.

use std::process::ExitCode;

use clap::Parser;

/// Sessions, merges and requests allocate on every thread: this one keeps them out of each other's way.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    mobo_hub::cli::run(mobo_hub::cli::Cli::parse())
}
