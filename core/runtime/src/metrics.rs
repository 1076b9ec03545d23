//! What a node counts and measures, for Prometheus.
//!
//! Each metric is a `static` with its name and meaning, as settings are; whoever does something counts it there. A node lists its metrics
//! once, and a [`MetricsPart`] shows them on `metrics.listen`, together with what it can only say when asked ([`Collect`]) and what the
//! system knows of the process.
//!
//! Names follow Prometheus: base units, `_total` for what only grows. No label holds the id of a user, device or record: those belong to
//! [`Collect::devices`], which has an address of its own and is asked less often.

pub mod board;
mod exposition;
pub mod http;
mod listen;
mod process;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mobo_core::limits;

pub use exposition::{Exposition, Family, Kind, Sample, Written};
pub use listen::{Bound, Collect, LISTEN, MetricsPart, Pages, SETTINGS};

/// A metric as lists hold it.
pub trait Metric: fmt::Debug + Sync {
    /// Adds its series as they are now.
    fn expose(&self, out: &mut Exposition);
}

/// A number that only grows.
#[derive(Debug)]
pub struct Counter {
    name: &'static str,
    help: &'static str,
    value: AtomicU64,
}

impl Counter {
    /// A counter at 0. Its name ends in `_total`.
    #[must_use]
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        Self { name, help, value: AtomicU64::new(0) }
    }

    /// Adds.
    pub fn add(&self, amount: u64) {
        self.value.fetch_add(amount, Ordering::Relaxed);
    }

    /// The sum so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }
}

impl Metric for Counter {
    fn expose(&self, out: &mut Exposition) {
        out.family(self.name, Kind::Counter, self.help).sample(&[], self.get() as f64);
    }
}

/// A number that goes up and down.
#[derive(Debug)]
pub struct Gauge {
    name: &'static str,
    help: &'static str,
    value: AtomicI64,
}

impl Gauge {
    /// A gauge at 0.
    #[must_use]
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        Self { name, help, value: AtomicI64::new(0) }
    }

    /// Puts a value in the place of the one before.
    pub fn set(&self, value: i64) {
        self.value.store(value, Ordering::Relaxed);
    }

    /// Adds to it, or takes away.
    pub fn add(&self, amount: i64) {
        self.value.fetch_add(amount, Ordering::Relaxed);
    }

    /// The value now.
    #[must_use]
    pub fn get(&self) -> i64 {
        self.value.load(Ordering::Relaxed)
    }
}

impl Metric for Gauge {
    fn expose(&self, out: &mut Exposition) {
        out.family(self.name, Kind::Gauge, self.help).sample(&[], self.get() as f64);
    }
}

/// Counters that differ by labels. Label values are few: beyond [`limits::METRIC_SERIES_MAX`] of them, `other` takes the rest.
#[derive(Debug)]
pub struct Counters<const LABELS: usize> {
    name: &'static str,
    help: &'static str,
    labels: [&'static str; LABELS],
    values: Mutex<BTreeMap<[String; LABELS], u64>>,
}

impl<const LABELS: usize> Counters<LABELS> {
    /// No counters yet; each begins when it is first added to.
    #[must_use]
    pub const fn new(name: &'static str, labels: [&'static str; LABELS], help: &'static str) -> Self {
        Self { name, help, labels, values: Mutex::new(BTreeMap::new()) }
    }

    /// Adds to the counter with these label values.
    pub fn add(&self, values: [&str; LABELS], amount: u64) {
        let mut known = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let series = series(&known, values);
        *known.entry(series).or_default() += amount;
    }
}

impl<const LABELS: usize> Metric for Counters<LABELS> {
    fn expose(&self, out: &mut Exposition) {
        let known = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let mut family = out.family(self.name, Kind::Counter, self.help);
        for (values, count) in &*known {
            family.sample(&pairs(&self.labels, values), *count as f64);
        }
    }
}

/// Upper bounds of durations from half a millisecond to 30 seconds, in seconds.
const SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

/// Durations, counted by their length. They differ by labels as [`Counters`] do.
#[derive(Debug)]
pub struct Durations<const LABELS: usize> {
    name: &'static str,
    help: &'static str,
    labels: [&'static str; LABELS],
    values: Mutex<BTreeMap<[String; LABELS], Spread>>,
}

#[derive(Debug, Default)]
struct Spread {
    /// How many were not longer than each bound, and longer than the one before.
    counts: [u64; SECONDS.len()],
    count: u64,
    sum: Duration,
}

impl<const LABELS: usize> Durations<LABELS> {
    /// No durations yet. Its name ends in `_seconds`.
    #[must_use]
    pub const fn new(name: &'static str, labels: [&'static str; LABELS], help: &'static str) -> Self {
        Self { name, help, labels, values: Mutex::new(BTreeMap::new()) }
    }

    /// Something with these label values took so long.
    pub fn observe(&self, values: [&str; LABELS], took: Duration) {
        let mut known = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let series = series(&known, values);
        let spread = known.entry(series).or_default();
        let seconds = took.as_secs_f64();
        if let Some((_, count)) = SECONDS.iter().zip(&mut spread.counts).find(|(bound, _)| seconds <= **bound) {
            *count += 1;
        }
        spread.count += 1;
        spread.sum += took;
    }
}

impl<const LABELS: usize> Metric for Durations<LABELS> {
    fn expose(&self, out: &mut Exposition) {
        let known = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let mut family = out.family(self.name, Kind::Histogram, self.help);
        for (values, spread) in &*known {
            let labels = pairs(&self.labels, values);
            let mut below = 0;
            for (bound, count) in SECONDS.iter().zip(spread.counts) {
                below += count;
                family.part("_bucket", &[&labels[..], &[("le", &bound.to_string())]].concat(), below as f64);
            }
            family.part("_bucket", &[&labels[..], &[("le", "+Inf")]].concat(), spread.count as f64);
            family.part("_sum", &labels, spread.sum.as_secs_f64());
            family.part("_count", &labels, spread.count as f64);
        }
    }
}

/// The series that these label values belong to.
fn series<V, const LABELS: usize>(known: &BTreeMap<[String; LABELS], V>, values: [&str; LABELS]) -> [String; LABELS] {
    let own = values.map(str::to_owned);
    if known.len() < limits::METRIC_SERIES_MAX || known.contains_key(&own) { own } else { values.map(|_| "other".to_owned()) }
}

fn pairs<'a, const LABELS: usize>(names: &[&'a str; LABELS], values: &'a [String; LABELS]) -> Vec<(&'a str, &'a str)> {
    names.iter().copied().zip(values.iter().map(String::as_str)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(metric: &dyn Metric) -> String {
        let mut out = Exposition::default();
        metric.expose(&mut out);
        out.finish()
    }

    #[test]
    fn metrics_are_written_as_prometheus_reads_them() {
        let counter = Counter::new("mobo_x_total", "Things.\nAll of them.");
        counter.add(2);
        counter.add(3);
        assert_eq!(shown(&counter), "# HELP mobo_x_total Things.\\nAll of them.\n# TYPE mobo_x_total counter\nmobo_x_total 5\n");
        let gauge = Gauge::new("mobo_y", "A level.");
        gauge.set(7);
        gauge.add(-9);
        assert!(shown(&gauge).ends_with("mobo_y -2\n"));
        let counters = Counters::new("mobo_z_total", ["method", "status"], "Calls.");
        counters.add(["GET", "200"], 1);
        counters.add(["GET", "200"], 1);
        counters.add(["a\"b\\c\nd", "404"], 1);
        let want = "mobo_z_total{method=\"GET\",status=\"200\"} 2\nmobo_z_total{method=\"a\\\"b\\\\c\\nd\",status=\"404\"} 1\n";
        assert!(shown(&counters).ends_with(want), "{}", shown(&counters));
    }

    #[test]
    fn durations_are_counted_under_every_bound_that_they_keep() {
        let durations = Durations::new("mobo_d_seconds", ["what"], "How long.");
        for ms in [0, 3, 100, 60_000] {
            durations.observe(["it"], Duration::from_millis(ms));
        }
        let text = shown(&durations);
        for line in [
            "mobo_d_seconds_bucket{what=\"it\",le=\"0.0005\"} 1",
            "mobo_d_seconds_bucket{what=\"it\",le=\"0.005\"} 2",
            "mobo_d_seconds_bucket{what=\"it\",le=\"0.1\"} 3",
            "mobo_d_seconds_bucket{what=\"it\",le=\"30\"} 3",
            "mobo_d_seconds_bucket{what=\"it\",le=\"+Inf\"} 4",
            "mobo_d_seconds_sum{what=\"it\"} 60.103",
            "mobo_d_seconds_count{what=\"it\"} 4",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn series_are_bounded() {
        let counters = Counters::new("mobo_many_total", ["name"], "Many.");
        (0..2 * limits::METRIC_SERIES_MAX).for_each(|name| counters.add([&name.to_string()], 1));
        counters.add(["7"], 1);
        let text = shown(&counters);
        assert_eq!(text.lines().count(), 2 + limits::METRIC_SERIES_MAX + 1);
        assert!(text.contains(&format!("mobo_many_total{{name=\"other\"}} {}\n", limits::METRIC_SERIES_MAX)));
        assert!(text.contains("mobo_many_total{name=\"7\"} 2\n"));
    }
}
