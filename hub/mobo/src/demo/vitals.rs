//! Real telemetry: what this machine measures of itself, ten times a second, written to each device through its API.

use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Map, Value, json};
use sysinfo::{Disks, Networks, System};

use super::collections::VITALS;
use super::http::{Client, Lost};
use super::journal::{Entry, Journal, Outcome, Written};
use super::writers::{Target, acknowledged};

/// Time from one sample to the next.
const BEAT: Duration = Duration::from_millis(100);
/// Beats between two looks at the disks, which change slowly.
const DISK_BEATS: u64 = 10;

/// The telemetry of one device, while it runs.
#[derive(Debug)]
pub(super) struct Vitals {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    target: Option<Target>,
    stopped: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Vitals {
    /// Begins to measure, and to write to `target`.
    pub(super) fn start<W: Write + Send + 'static>(target: Target, journal: Arc<Journal<W>>) -> anyhow::Result<Self> {
        let name = target.name;
        let shared = Arc::new(Shared::default());
        shared.state().target = Some(target);
        let stream = Stream { name, journal, shared: Arc::clone(&shared), client: None };
        let thread = std::thread::Builder::new().name(format!("vitals of {name}")).spawn(move || stream.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Goes on writing at a new address: the device has been restarted. The samples in between were not taken.
    pub(super) fn move_to(&self, target: Target) {
        self.shared.state().target = Some(target);
    }

    /// Ends it, and says what went wrong meanwhile.
    pub(super) fn stop(mut self) -> anyhow::Result<()> {
        self.end();
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(anyhow::anyhow!("the telemetry panicked")),
            None => Ok(()),
        }
    }

    fn end(&self) {
        self.shared.state().stopped = true;
        self.shared.changed.notify_all();
    }
}

impl Drop for Vitals {
    fn drop(&mut self) {
        self.end();
    }
}

struct Stream<W> {
    name: &'static str,
    journal: Arc<Journal<W>>,
    shared: Arc<Shared>,
    client: Option<Client>,
}

impl<W: Write> Stream<W> {
    fn run(mut self) -> anyhow::Result<()> {
        let mut meter = Meter::open()?;
        let mut due = Instant::now();
        while self.wait(due) {
            self.take(meter.read())?;
            // A device that was slow is not asked for the beats that it missed.
            due = (due + BEAT).max(Instant::now());
        }
        Ok(())
    }

    /// Waits for the next beat; false when there is none.
    fn wait(&self, due: Instant) -> bool {
        let mut state = self.shared.state();
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if state.stopped || left.is_zero() {
                return !state.stopped;
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn take(&mut self, sample: Map<String, Value>) -> anyhow::Result<()> {
        if let Some(target) = self.shared.state().target.take() {
            self.client = Some(target.client());
        }
        let Some(client) = &mut self.client else { return Ok(()) };
        let sent_us = self.journal.now_us();
        let answer = client.send("POST", &format!("/rest/v1/{}", VITALS.name), Some(&Value::Object(sample.clone())));
        let outcome = match answer {
            Ok(answer) => {
                acknowledged(&answer).map(|()| Outcome::Acknowledged).with_context(|| format!("{} refused a sample", self.name))?
            }
            Err(Lost::Unknown(_)) => Outcome::Unknown,
            Err(Lost::Unsent(_)) => return Ok(()),
        };
        let (origin, known_us) = (self.name.to_owned(), self.journal.now_us());
        let entry = Entry { origin, round: 0, sent_us, known_us, outcome, write: Written::Sample(sample) };
        self.journal.tell(&entry).context("the judge has gone")
    }
}

/// This machine's instruments.
struct Meter {
    system: System,
    disks: Disks,
    networks: Networks,
    beats: u64,
}

impl Meter {
    fn open() -> anyhow::Result<Self> {
        let unreadable = "this machine does not let itself be measured";
        Ok(Self {
            system: System::new().context(unreadable)?,
            disks: Disks::new_with_refreshed_list().context(unreadable)?,
            networks: Networks::new_with_refreshed_list().context(unreadable)?,
            beats: 0,
        })
    }

    fn read(&mut self) -> Map<String, Value> {
        self.system.refresh_cpu_usage();
        self.system.refresh_memory();
        self.networks.refresh(true);
        if self.beats.is_multiple_of(DISK_BEATS) {
            self.disks.refresh(true);
        }
        self.beats += 1;
        let disk_total: u64 = self.disks.iter().map(sysinfo::Disk::total_space).sum();
        let disk_free: u64 = self.disks.iter().map(sysinfo::Disk::available_space).sum();
        let received: u64 = self.networks.values().map(sysinfo::NetworkData::total_received).sum();
        let sent: u64 = self.networks.values().map(sysinfo::NetworkData::total_transmitted).sum();
        let sample = json!({
            "cpu": percent(f64::from(self.system.global_cpu_usage()), 100.0),
            "memory": percent(bytes(self.system.used_memory()), bytes(self.system.total_memory())),
            "disk": percent(bytes(disk_total.saturating_sub(disk_free)), bytes(disk_total)),
            "net_rx": received,
            "net_tx": sent,
        });
        if let Value::Object(sample) = sample { sample } else { Map::new() }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share of it is shown with two digits")]
fn bytes(count: u64) -> f64 {
    count as f64
}

/// With two digits: a number that every database gives back as it was.
fn percent(part: f64, whole: f64) -> f64 {
    let share = if whole > 0.0 { part / whole * 100.0 } else { 0.0 };
    if share.is_finite() { (share * 100.0).round() / 100.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_can_be_measured() {
        let mut meter = Meter::open().unwrap();
        for _ in 0..3 {
            let sample = meter.read();
            for (field, kind) in VITALS.fields {
                let value = &sample[*field];
                let fits = if *kind == "int" { value.is_u64() } else { value.as_f64().is_some_and(|share| (0.0..=100.0).contains(&share)) };
                assert!(fits, "{field}: {value}");
            }
            assert_eq!(sample.len(), VITALS.fields.len());
        }
    }

    #[test]
    fn percents_have_two_digits() {
        assert_eq!([percent(1.0, 3.0), percent(0.0, 0.0), percent(f64::NAN, 100.0)], [33.33, 0.0, 0.0]);
    }
}
