//! Cold starts: from the start of a process until it says that it is ready, on a new folder and on one that was used.
//!
//! The process is cold; the pages of its program and database are in the machine's cache, as they are after any first start.

use std::path::Path;
use std::time::Duration;

use crate::node::Launch;
use crate::place::Binaries;
use crate::report::{Report, millis, percentile, say};

/// Starts of each.
const STARTS: usize = 20;

/// A hub with SQLite, and a device.
pub(crate) async fn run(binaries: &Binaries, mut report: Report) -> anyhow::Result<Report> {
    report.put("store", "sqlite");
    report.put("starts", STARTS);
    for (role, program) in [("hub", &binaries.hub), ("edge", &binaries.edge)] {
        say!("boot: {STARTS} starts of {role} on a new folder, and {STARTS} on a used one");
        let home = tempfile::Builder::new().prefix("mobo-bench.").tempdir()?;
        let mut fresh = Vec::with_capacity(STARTS);
        for number in 0..STARTS {
            fresh.push(once(&launch(role, &format!("{role}-{number}"), program, home.path())).await?);
        }
        let used = launch(role, &format!("{role}-0"), program, home.path());
        let mut again = Vec::with_capacity(STARTS);
        for _ in 0..STARTS {
            again.push(once(&used).await?);
        }
        for (folder, times) in [("new", &mut fresh), ("used", &mut again)] {
            for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
                report.put(&format!("{role}_{folder}_folder_{name}_ms"), millis(percentile(times, share)));
            }
        }
    }
    Ok(report)
}

fn launch(role: &str, name: &str, program: &Path, home: &Path) -> Launch {
    let launch = Launch::new(name, program, home);
    if role == "hub" { launch.set("quic.listen", "127.0.0.1:0").set("mqtt.listen", "127.0.0.1:0") } else { launch }
}

async fn once(launch: &Launch) -> anyhow::Result<Duration> {
    let node = launch.boot().await?;
    let booted_in = node.booted_in;
    node.stop().await?;
    Ok(booted_in)
}
