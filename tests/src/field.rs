//! A fleet in the field: real processes behind wires of our own, writing at a steady rate while everything that happens to devices happens
//! to them. Then it heals, and everything that was acknowledged must be everywhere, once.

#![allow(clippy::indexing_slicing, reason = "a harness of tests: the panic is the report")]

pub mod backlog;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::cli::Cli;
use crate::cluster::{Cluster, Place, digest, quiet_address};
use crate::http::Client;
use crate::process::{Launch, Node};
use crate::proxy::{Proxy, Weather};
use crate::seed::{Rng, Seed};
use crate::wait;

/// Counters that all devices add to.
const SHARED: u64 = 7;
/// Longest wait for convergence: a run that takes longer is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(120);

/// One run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Plan {
    /// Devices.
    pub devices: usize,
    /// Writes of each device in a second.
    pub writes_per_s: u64,
    /// How long.
    pub duration: Duration,
    /// Where the hub keeps its rows.
    pub place: Place,
}

/// What came of it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Outcome {
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Writes without an answer: they may have happened, or not.
    pub unanswered: u64,
    /// What was done to the fleet, and how often.
    pub faults: BTreeMap<&'static str, u64>,
    /// From the end of the last fault until everything was equal everywhere and nothing was pending.
    pub healed_in: Duration,
    /// Datagrams that were carried, dropped, repeated.
    pub datagrams: [u64; 3],
}

/// Runs it.
///
/// # Panics
///
/// When something that was acknowledged is not there, or is there twice, or the fleet does not converge.
#[must_use]
pub fn run(plan: &Plan, seed: &Seed) -> Outcome {
    let mut rng = seed.rng();
    let mut fleet = Fleet::deploy(plan, &mut rng);
    let journals: Vec<Arc<Journal>> = (0..plan.devices).map(|_| Arc::default()).collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (number, journal) in journals.iter().enumerate() {
            let (address, stop) = (fleet.devices[number].address.clone(), &stop);
            let pause = Duration::from_secs(1) / u32::try_from(plan.writes_per_s).expect("a rate");
            scope.spawn(move || keep_writing((number, &address), journal, pause, stop));
        }
        fleet.suffer(plan.duration, &mut rng);
        stop.store(true, Ordering::Relaxed);
    });
    fleet.heal();
    let healed = Instant::now();
    fleet.wait_converged();
    let healed_in = healed.elapsed();
    fleet.judge(&journals);
    let total = |count: fn(&Journal) -> u64| journals.iter().map(|journal| count(journal)).sum();
    let datagrams = fleet
        .devices
        .iter()
        .map(|device| device.wire.counts())
        .fold([0; 3], |sum, counts| [sum[0] + counts[0], sum[1] + counts[1], sum[2] + counts[2]]);
    Outcome {
        acknowledged: total(|journal| journal.acknowledged.load(Ordering::Relaxed)),
        unanswered: total(|journal| journal.unanswered.load(Ordering::Relaxed)),
        faults: fleet.faults,
        healed_in,
        datagrams,
    }
}

/// What one device was asked, and what it answered.
#[derive(Debug, Default)]
struct Journal {
    acknowledged: AtomicU64,
    unanswered: AtomicU64,
    /// Records that it acknowledged, and how much it added to each shared counter for sure, and perhaps.
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    records: Vec<String>,
    shared: BTreeMap<u64, (u64, u64)>,
}

fn keep_writing((device, address): (usize, &str), journal: &Journal, pause: Duration, stop: &AtomicBool) {
    let mut client = Client::new(address).with_timeout(Duration::from_secs(10));
    let (mut due, mut n) = (Instant::now(), 0_u64);
    while !stop.load(Ordering::Relaxed) {
        due += pause;
        std::thread::park_timeout(due.saturating_duration_since(Instant::now()));
        n += 1;
        // Every third write adds to a counter that others add to.
        let shared = n.is_multiple_of(3).then_some(n % SHARED);
        let id = shared.map_or_else(|| format!("d{device}-{n:06}"), |number| format!("shared-{number}"));
        let body = json!({ "id": id, "title": format!("Pump {n}"), "hours": { "$inc": 1 } }).to_string();
        let headers = [("content-type", "application/json"), ("prefer", "resolution=merge-duplicates")];
        let answer = client.send("POST", "/rest/v1/work_orders", &headers, body.as_bytes());
        let sure = match answer {
            Ok(answer) if answer.status == 201 => true,
            Ok(answer) => panic!("a device refused a write with {}: {}", answer.status, answer.text()),
            Err(_) => false,
        };
        let count = if sure { &journal.acknowledged } else { &journal.unanswered };
        count.fetch_add(1, Ordering::Relaxed);
        let mut told = journal.told.lock().expect("nobody panics with it");
        match shared {
            Some(number) => {
                let (least, most) = told.shared.entry(number).or_default();
                *least += u64::from(sure);
                *most += 1;
            }
            None if sure => told.records.push(id),
            None => {}
        }
        if !sure {
            client = Client::new(address).with_timeout(Duration::from_secs(10));
            due = Instant::now().max(due);
        }
    }
}

#[derive(Debug)]
struct Device {
    address: String,
    launch: Launch,
    node: Node,
    wire: Proxy,
}

#[derive(Debug)]
struct Fleet {
    cluster: Cluster,
    devices: Vec<Device>,
    faults: BTreeMap<&'static str, u64>,
    /// What ends when.
    pending: Vec<(Instant, End)>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    /// The device's wire is a good one again.
    Wire(usize),
    /// The device goes on.
    Thaw(usize),
    /// The hub goes on.
    ThawHub,
}

impl Fleet {
    fn deploy(plan: &Plan, rng: &mut Rng) -> Self {
        let cluster = Cluster::boot(plan.place);
        cluster.create(&[&["work_orders", "title:text", "hours:counter"]]);
        let hub = cluster.hub().address("quic");
        let devices = (0..plan.devices).map(|number| {
            let wire = Proxy::datagrams(&hub, Seed::fixed(rng.next_u64()).rng());
            let name = format!("device-{number}");
            let token = mobo_protocol::JoinToken::parse(&cluster.invite(&name)).expect("a token");
            // Only the wire leads to the hub.
            let token = mobo_protocol::JoinToken { addresses: vec![wire.address.clone()], ..token };
            let (folder, address) = (cluster.folder(&name), quiet_address());
            Cli::edge(&folder).args(["join", &token.to_text()]).run().expect_success();
            let launch = Launch::edge(folder).set("http.listen", &address);
            let node = launch.clone().boot();
            Device { address, launch, node, wire }
        });
        let devices: Vec<Device> = devices.collect();
        let fleet = Self { cluster, devices, faults: BTreeMap::new(), pending: Vec::new() };
        fleet.wait_converged();
        fleet
    }

    /// Does something to the fleet again and again, for so long.
    fn suffer(&mut self, duration: Duration, rng: &mut Rng) {
        let end = Instant::now() + duration;
        let mut next = Instant::now() + Duration::from_millis(500);
        while Instant::now() < end {
            let due = self.pending.iter().map(|(at, _)| *at).chain([next, end]).min().unwrap_or(end);
            std::thread::park_timeout(due.saturating_duration_since(Instant::now()));
            self.end_what_is_due(Instant::now());
            if Instant::now() >= next {
                self.strike(rng);
                next = Instant::now() + Duration::from_millis(300 + rng.below(1_500));
            }
        }
    }

    fn strike(&mut self, rng: &mut Rng) {
        let device = usize::try_from(rng.below(self.devices.len() as u64)).unwrap_or(0);
        let lasting = Instant::now() + Duration::from_millis(300 + rng.below(5_000));
        let kind = rng.below(16);
        let name = match kind {
            0..=3 => {
                let is_silent = true;
                self.devices[device].wire.set(Weather { is_cut: true, is_silent, ..Weather::default() });
                self.pending.push((lasting, End::Wire(device)));
                "partition"
            }
            4..=7 => {
                let weather = Weather {
                    delay: Duration::from_millis(rng.below(150)),
                    jitter: Duration::from_millis(rng.below(60)),
                    lost_per_mille: rng.below(200),
                    repeated_per_mille: rng.below(100),
                    ..Weather::default()
                };
                self.devices[device].wire.set(weather);
                self.pending.push((lasting, End::Wire(device)));
                "bad weather"
            }
            8..=10 => {
                self.restart(device);
                "device killed"
            }
            11 | 12 => {
                self.devices[device].node.signal(Signal::STOP);
                self.pending.push((lasting, End::Thaw(device)));
                "device frozen"
            }
            13 => {
                for (number, device) in self.devices.iter().enumerate() {
                    device.wire.set(Weather { is_cut: true, is_silent: true, ..Weather::default() });
                    self.pending.push((lasting, End::Wire(number)));
                }
                "everybody cut off"
            }
            14 => {
                self.cluster.hub().signal(Signal::STOP);
                self.pending.push((lasting, End::ThawHub));
                "hub frozen"
            }
            _ => {
                self.pending.retain(|(_, end)| *end != End::ThawHub);
                self.cluster.kill_hub();
                self.cluster.start_hub();
                "hub killed"
            }
        };
        *self.faults.entry(name).or_default() += 1;
    }

    fn restart(&mut self, number: usize) {
        self.pending.retain(|(_, end)| *end != End::Thaw(number));
        let device = &mut self.devices[number];
        let launch = device.launch.clone();
        // A killed process leaves its port at once; so it goes before its successor comes.
        device.node.signal(Signal::KILL);
        let gone = device.node.wait_exit(Duration::from_secs(10));
        assert!(gone.is_some(), "a killed device is gone");
        device.node = launch.boot();
    }

    fn end_what_is_due(&mut self, now: Instant) {
        let (due, pending): (Vec<_>, Vec<_>) = self.pending.drain(..).partition(|(at, _)| *at <= now);
        self.pending = pending;
        for (_, end) in due {
            match end {
                End::Wire(number) => self.devices[number].wire.set(Weather::default()),
                End::Thaw(number) => self.devices[number].node.signal(Signal::CONT),
                End::ThawHub => self.cluster.hub().signal(Signal::CONT),
            }
        }
    }

    fn heal(&mut self) {
        self.pending.iter_mut().for_each(|(at, _)| *at = Instant::now());
        self.end_what_is_due(Instant::now());
    }

    fn wait_converged(&self) {
        wait::until("the fleet to converge", STUCK_AFTER, || {
            // The hub last: what a device has pushed by then is in what the hub holds.
            let statuses: Vec<Value> = self.devices.iter().map(|device| device.node.status()).collect();
            let want = digest(&self.cluster.hub().status());
            let agrees = |status: &Value| {
                let buckets = status["buckets"].as_array().is_some_and(|buckets| !buckets.is_empty());
                buckets && status["pending"] == 0 && digest(status) == want
            };
            statuses.iter().all(agrees).then_some(())
        });
    }

    /// Every acknowledged record everywhere, once; every shared counter between what was acknowledged and what was asked.
    fn judge(&self, journals: &[Arc<Journal>]) {
        let mut shared: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        let hub = hours(&mut self.cluster.api());
        for (number, journal) in journals.iter().enumerate() {
            let told = journal.told.lock().expect("nobody panics with it");
            let lost: Vec<&String> = told.records.iter().filter(|id| hub.get(*id) != Some(&1)).collect();
            assert!(lost.is_empty(), "device {number}: acknowledged, and not there once: {lost:?}");
            for (counter, (least, most)) in &told.shared {
                let sum = shared.entry(*counter).or_default();
                *sum = (sum.0 + least, sum.1 + most);
            }
        }
        for (counter, (least, most)) in shared {
            let got = hub.get(&format!("shared-{counter}")).copied().unwrap_or_default();
            assert!((least..=most).contains(&got), "counter {counter} is {got}: {least} were acknowledged of {most}");
        }
        assert!(hub.iter().all(|(id, hours)| id.starts_with("shared-") || *hours == 1), "each write is counted once");
        for device in &self.devices {
            assert!(hours(&mut device.node.http()) == hub, "{} holds what the hub holds", device.address);
        }
        let status = self.cluster.hub().status();
        assert_eq!(status["quarantined"], 0, "{status}");
        self.cluster.healthy();
    }
}

/// Id and hours of every record.
fn hours(client: &mut Client) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    loop {
        let path = format!("/rest/v1/work_orders?select=id,hours&order=id&limit=1000&offset={}", all.len());
        let page = client.get(&path).expect("an answer").expect_status(200).json();
        let rows = page.as_array().map(Vec::as_slice).unwrap_or_default();
        all.extend(rows.iter().filter_map(|row| Some((row["id"].as_str()?.to_owned(), row["hours"].as_u64()?))));
        if rows.len() < 1_000 {
            return all;
        }
    }
}

/// What a run is told as, in one line of JSON.
#[must_use]
pub fn report(plan: &Plan, seed: &Seed, outcome: &Outcome) -> Value {
    json!({
        "devices": plan.devices,
        "writes_per_s": plan.writes_per_s,
        "seconds": plan.duration.as_secs(),
        "seed": seed.number(),
        "acknowledged": outcome.acknowledged,
        "unanswered": outcome.unanswered,
        "lost": 0,
        "duplicated": 0,
        "healed_s": outcome.healed_in.as_secs_f64(),
        "faults": outcome.faults,
        "datagrams": { "carried": outcome.datagrams[0], "dropped": outcome.datagrams[1], "repeated": outcome.datagrams[2] },
    })
}
