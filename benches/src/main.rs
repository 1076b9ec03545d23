//! `mobo-bench`: the race. It runs the real binaries over loopback and prints one line of JSON for each run on standard output; what it does
//! meanwhile goes to standard error.
//!
//! One run is one sample: whoever compares two versions runs each several times and takes medians. All that is written comes from a seed.

mod backup;
mod boot;
mod bus;
mod floor;
mod footprint;
mod gate;
mod http;
mod live;
mod measure;
mod node;
mod place;
mod plan;
mod postgres;
mod records;
mod relay;
mod report;
mod rig;
mod shipping;
mod table;
mod w1;
mod w2;
mod w3;
mod w4;
mod w5;

use std::process::ExitCode;

use clap::Parser;

use place::Binaries;
use plan::{Bench, Plan};
use report::{Report, say};

fn main() -> ExitCode {
    let plan = Plan::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say!("mobo-bench cannot start: {error}: look at the limits of this user");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = race(&plan) => outcome,
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted: nothing is printed for a run that did not end")),
        }
    });
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say!("mobo-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs what was asked for, and prints a line after each run.
async fn race(plan: &Plan) -> anyhow::Result<()> {
    if let Some(place) = &plan.serve_raw {
        return gate::serve_raw(place).await;
    }
    let binaries = Binaries::find(plan.profile.as_deref())?;
    if binaries.build == "debug" {
        say!("these are debug binaries: the figures are good for finding faults, and for nothing else");
    }
    let report = || Report::begin(plan, &binaries);
    match plan.bench {
        Bench::W1 => w1::run(plan, &binaries, report()).await?.print()?,
        Bench::W2 => w2::run(plan, &binaries, report()).await?.print()?,
        Bench::W3 => w3::run(plan, &binaries, report()).await?.print()?,
        Bench::W4 => w4::run(plan, &binaries, report()).await?.print()?,
        Bench::W5 => {
            // A hub of its own for each size: memory that was given out once does not come back.
            for devices in plan.fleets() {
                w5::run(plan, &binaries, devices, report()).await?.print()?;
            }
        }
        Bench::Backup => backup::run(plan, &binaries, report()).await?.print()?,
        Bench::Boot => boot::run(&binaries, report()).await?.print()?,
        Bench::Footprint => footprint::run(plan, &binaries, report()).await?.print()?,
        Bench::Table => table::run(plan, &binaries, report()).await?.print()?,
        Bench::Gate => gate::run(plan, &binaries, report()).await?.print()?,
        Bench::Bus => bus::run(plan.seconds, report()).await?.print()?,
    }
    Ok(())
}
