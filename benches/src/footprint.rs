//! What a device takes of its machine: room on disk for the program, memory, time to boot, and wear of the SD card.
//!
//! Bytes to disk are what the kernel charges the process with (`write_bytes` of `/proc/PID/io`): pages of the database and of its log, each
//! time that they are written, checkpoints included. On a file system in memory they are 0. The file system's own journal is not in them.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hyper::Method;
use serde_json::{Value, json};

use crate::measure::{peak_kib, rss_kib};
use crate::node::{Launch, Node};
use crate::place::Binaries;
use crate::plan::Plan;
use crate::records::{self, COLLECTION};
use crate::report::{Report, millis, percentile, rounded, say};
use crate::rig::{Rig, insert};

/// Records that fill a device, when nobody says otherwise.
const RECORDS: usize = 50_000;
/// Starts on a new folder.
const STARTS: usize = 10;
/// Lone changes: each waits until it is durable.
const LONE: usize = 500;
/// Writers at the same time, for syncs under load.
const WRITERS: usize = 16;
/// How long they write.
const LOAD: Duration = Duration::from_secs(5);
/// Samples of one append.
const SAMPLES: usize = 100;

/// One device against a hub, from its program to its wear.
pub(crate) async fn run(plan: &Plan, binaries: &Binaries, mut report: Report) -> anyhow::Result<Report> {
    report.put("binary_bytes", fs::metadata(&binaries.edge)?.len());
    report.put("stripped_bytes", stripped(&binaries.edge)?);
    boots(binaries, &mut report).await?;

    let count = plan.records_or(RECORDS);
    let rig = Rig::start(plan, binaries, &mut report).await?;
    rig.hub.ask("collection create", json!({ "name": STREAM, "kind": "stream", "fields": ["sensor:text", "celsius:float"] })).await?;
    let device = rig.device("device").await?;
    report.put("idle_rss_kib", rss_kib(device.pid)?);

    say!("footprint: {LONE} lone changes, {LONE} appends of {SAMPLES} samples");
    let client = device.http(None).await?;
    let made = records::make(plan.seed, count);
    insert(&client, made.get(..LONE.min(count)).unwrap_or_default(), LONE).await?;
    rig.converge(&[&device]).await?;
    let before = Wear::of(&device).await?;
    for number in 0..LONE {
        let path = format!("/rest/v1/{COLLECTION}?id=eq.{}", records::id(number));
        client.write(Method::PATCH, &path, &json!({ "priority": number })).await?;
    }
    before.put(&device, &mut report, ("change", LONE)).await?;
    let before = Wear::of(&device).await?;
    for number in 0..LONE {
        let sample = |n: usize| json!({ "sensor": "press-3", "celsius": (number + n) as f64 / 8.0 });
        client.write(Method::POST, &format!("/rest/v1/{STREAM}"), &(0..SAMPLES).map(sample).collect()).await?;
    }
    before.put(&device, &mut report, ("sample", LONE * SAMPLES)).await?;
    load(&device, &mut report).await?;

    say!("footprint: {count} records");
    insert(&client, made.get(LONE.min(count)..).unwrap_or_default(), plan.batch).await?;
    rig.converge(&[&device]).await?;
    report.put("records", count);
    report.put("rss_with_records_kib", rss_kib(device.pid)?);
    report.put("peak_rss_kib", peak_kib(device.pid)?);
    report.put("folder_bytes", folder_bytes(&device.folder)?);
    rig.finish(vec![device]).await?;
    Ok(report)
}

const STREAM: &str = "climate";

/// Many writers at once: how many writes and syncs that makes in a second.
async fn load(device: &Node, report: &mut Report) -> anyhow::Result<()> {
    say!("footprint: {WRITERS} writers for {} s", LOAD.as_secs());
    let before = Wear::of(device).await?;
    let end = Instant::now() + LOAD;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let client = device.http(None).await?;
        writers.spawn(async move {
            let mut written = 0_usize;
            while Instant::now() < end {
                let path = format!("/rest/v1/{COLLECTION}?id=eq.{}", records::id(writer));
                client.write(Method::PATCH, &path, &json!({ "priority": written })).await?;
                written += 1;
            }
            anyhow::Ok(written)
        });
    }
    let mut written = 0;
    while let Some(done) = writers.join_next().await {
        written += done??;
    }
    let after = Wear::of(device).await?;
    let syncs = after.commits - before.commits;
    report.put("load_writes_per_s", rounded(written as f64 / LOAD.as_secs_f64()));
    report.put("load_commits_per_s", rounded(syncs as f64 / LOAD.as_secs_f64()));
    report.put("load_disk_bytes_per_change", rounded((after.disk - before.disk) as f64 / written.max(1) as f64));
    Ok(())
}

/// What a device has written so far.
#[derive(Clone, Copy, Debug)]
struct Wear {
    /// Bytes to disk.
    disk: u64,
    /// Transactions; each is one sync of the log.
    commits: u64,
}

impl Wear {
    async fn of(device: &Node) -> anyhow::Result<Self> {
        let status = device.status().await?;
        let commits = status.pointer("/store/commits").and_then(Value::as_u64).context("the device does not count its commits")?;
        let text = fs::read_to_string(format!("/proc/{}/io", device.pid)).context("the kernel does not account for IO")?;
        let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        let disk = line.and_then(|line| line.trim().parse().ok()).context("no write_bytes in /proc/PID/io")?;
        Ok(Self { disk, commits })
    }

    /// Adds the figures of `count` things since then.
    async fn put(self, device: &Node, report: &mut Report, (what, count): (&str, usize)) -> anyhow::Result<()> {
        let now = Self::of(device).await?;
        let per = |number: u64| rounded(number as f64 / count as f64);
        report.put(&format!("disk_bytes_per_{what}"), per(now.disk - self.disk));
        report.put(&format!("commits_per_{what}"), per(now.commits - self.commits));
        Ok(())
    }
}

async fn boots(binaries: &Binaries, report: &mut Report) -> anyhow::Result<()> {
    let home = tempfile::Builder::new().prefix("mobo-bench.").tempdir()?;
    let (mut times, mut alone) = (Vec::with_capacity(STARTS), 0);
    for number in 0..STARTS {
        let node = Launch::new(&format!("edge-{number}"), &binaries.edge, home.path()).boot().await?;
        times.push(node.booted_in);
        alone = rss_kib(node.pid)?;
        node.stop().await?;
    }
    report.put("boot_p50_ms", millis(percentile(&mut times, 0.5)));
    report.put("boot_max_ms", millis(percentile(&mut times, 1.0)));
    report.put("booted_rss_kib", alone);
    Ok(())
}

/// The size without symbols: what is shipped.
fn stripped(program: &Path) -> anyhow::Result<u64> {
    let place = tempfile::NamedTempFile::new()?;
    let done = std::process::Command::new("strip").arg("-s").arg("-o").arg(place.path()).arg(program).status();
    anyhow::ensure!(done.context("strip is not installed: it is in binutils")?.success(), "strip failed");
    Ok(fs::metadata(place.path())?.len())
}

fn folder_bytes(folder: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)?.flatten() {
        bytes += entry.metadata()?.len();
    }
    Ok(bytes)
}
