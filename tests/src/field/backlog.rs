//! A device that was away for long: everything that it wrote meanwhile goes over a narrow wire, and it stays small while it does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cli::Cli;
use crate::cluster::{Cluster, Place, digest, quiet_address};
use crate::http::Client;
use crate::process::{Launch, Node};
use crate::proxy::{Proxy, Weather};
use crate::seed::Seed;
use crate::wait;

/// Programs that write on the device at the same time.
const WRITERS: u64 = 8;
/// How often the progress is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// One run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Plan {
    /// Changes that are made while there is no hub, each an entry of its own.
    pub changes: u64,
    /// Records that they are made on.
    pub records: u64,
    /// The wire, once there is one.
    pub weather: Weather,
    /// The longest wait for the end.
    pub timeout: Duration,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// From the first packet until everything was equal and nothing pending.
    pub synced_in: Duration,
    /// How long it took to write.
    pub written_in: Duration,
    /// The most memory that the device has taken, in KiB.
    pub device_kib_max: u64,
    /// The longest time in which the hub got nothing, from the first entry that it got.
    pub longest_pause: Duration,
    /// Bytes that the wire has carried, both ways.
    pub wire_bytes: u64,
}

/// Runs it.
///
/// # Panics
///
/// When a change is lost or counted twice, or the wait is over.
#[must_use]
pub fn run(plan: &Plan, seed: &Seed) -> Outcome {
    let cluster = Cluster::boot(Place::Sqlite);
    cluster.create(&[&["work_orders", "title:text", "hours:counter"]]);
    let wire = Proxy::datagrams(&cluster.hub().address("quic"), seed.rng());
    let (node, address) = device(&cluster, &wire);
    wait::until("the device to know its collections", Duration::from_secs(60), || {
        (node.status()["pending"] == 0 && knows(&node)).then_some(())
    });
    wire.set(Weather { is_cut: true, is_silent: true, ..Weather::default() });
    let began = Instant::now();
    write(plan, &address);
    let written_in = began.elapsed();
    let carried = wire.bytes();
    wire.set(plan.weather);
    let (began, mut longest_pause) = (Instant::now(), Duration::ZERO);
    let (mut left, mut moved, mut seen) = (u64::MAX, Instant::now(), 0);
    wait::until_every("everything to be at the hub", plan.timeout, LOOK, || {
        let status = node.status();
        let pending = status["pending"].as_u64().expect("a number");
        if pending < left {
            // Before the first entry has come through, the device is still finding its hub.
            longest_pause = longest_pause.max(if seen > 1 { moved.elapsed() } else { Duration::ZERO });
            (left, moved, seen) = (pending, Instant::now(), seen + 1);
        }
        (pending == 0 && digest(&status) == digest(&cluster.hub().status())).then_some(())
    });
    let synced_in = began.elapsed();
    judge(plan, &cluster);
    Outcome { synced_in, written_in, device_kib_max: memory_kib_max(node.pid()), longest_pause, wire_bytes: wire.bytes() - carried }
}

fn device(cluster: &Cluster, wire: &Proxy) -> (Node, String) {
    let token = mobo_protocol::JoinToken::parse(&cluster.invite("far-away")).expect("a token");
    let token = mobo_protocol::JoinToken { addresses: vec![wire.address.clone()], ..token };
    let (folder, address) = (cluster.folder("far-away"), quiet_address());
    Cli::edge(&folder).args(["join", &token.to_text()]).run().expect_success();
    (Launch::edge(folder).set("http.listen", &address).boot(), address)
}

fn knows(node: &Node) -> bool {
    node.http().get("/rest/v1/work_orders?limit=1").is_ok_and(|answer| answer.status == 200)
}

fn write(plan: &Plan, address: &str) {
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                let mut client = Client::new(address).with_timeout(Duration::from_secs(60));
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= plan.changes {
                        return;
                    }
                    let id = format!("w-{:06}", n % plan.records);
                    let body = json!({ "id": id, "title": format!("Oil pump {n}"), "hours": { "$inc": 1 } }).to_string();
                    let headers = [("content-type", "application/json"), ("prefer", "resolution=merge-duplicates")];
                    let answer = client.send("POST", "/rest/v1/work_orders", &headers, body.as_bytes()).expect("an answer");
                    assert_eq!(answer.status, 201, "{}", answer.text());
                }
            });
        }
    });
}

/// Each change counted once.
fn judge(plan: &Plan, cluster: &Cluster) {
    let hours = super::hours(&mut cluster.api());
    assert_eq!(hours.len() as u64, plan.records.min(plan.changes), "every record is there");
    assert_eq!(hours.values().sum::<u64>(), plan.changes, "every change is counted, once");
    let status = cluster.hub().status();
    assert_eq!(status["quarantined"], 0, "{status}");
}

/// The most memory that a process has taken so far.
fn memory_kib_max(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux says so");
    line.trim().split(' ').next().and_then(|kib| kib.parse().ok()).expect("a number of KiB")
}

/// What a run is told as, in one line of JSON.
#[must_use]
pub fn report(plan: &Plan, seed: &Seed, outcome: &Outcome) -> Value {
    json!({
        "changes": plan.changes,
        "records": plan.records,
        "kbit_per_s": plan.weather.bits_per_s / 1_000,
        "delay_ms": plan.weather.delay.as_millis(),
        "lost_per_mille": plan.weather.lost_per_mille,
        "seed": seed.number(),
        "written_s": outcome.written_in.as_secs_f64(),
        "synced_s": outcome.synced_in.as_secs_f64(),
        "changes_per_s": plan.changes as f64 / outcome.synced_in.as_secs_f64(),
        "wire_bytes": outcome.wire_bytes,
        "wire_bytes_per_change": outcome.wire_bytes as f64 / plan.changes as f64,
        "longest_pause_s": outcome.longest_pause.as_secs_f64(),
        "device_rss_kib_max": outcome.device_kib_max,
    })
}
