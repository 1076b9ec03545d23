//! How the machine is, from `/proc` and `/sys`: what any device can report without another program.

use std::fs;
use std::path::Path;

/// The figures of one moment; what the machine does not tell is absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vitals {
    /// Busy time of all processors since the last reading, in percent; absent in the first one.
    pub cpu: Option<f64>,
    /// Load average of one minute.
    pub load: Option<f64>,
    /// Memory that is not available, in percent.
    pub memory: Option<f64>,
    /// Swap that is used, in percent; absent without swap.
    pub swap: Option<f64>,
    /// The hottest sensor, in degrees Celsius.
    pub temperature: Option<f64>,
    /// Room that is used on the file system of the data folder, in percent.
    pub disk: Option<f64>,
    /// Room that is free there, in bytes.
    pub disk_free: Option<i64>,
    /// Time since the machine was started, in seconds.
    pub uptime: Option<i64>,
    /// Memory of this process, in bytes.
    pub rss: Option<i64>,
}

/// Reads them, again and again.
#[derive(Debug, Default)]
pub struct VitalsReader {
    last: Option<Ticks>,
}

/// Clock ticks since the machine was started.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Ticks {
    busy: u64,
    all: u64,
}

impl VitalsReader {
    /// The figures of now; `folder` is the data folder.
    pub fn read(&mut self, folder: &Path) -> Vitals {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (memory, ticks) = (text("/proc/meminfo"), ticks(&text("/proc/stat")));
        let cpu = self.last.zip(ticks).and_then(|(last, now)| busy(last, now));
        self.last = ticks.or(self.last);
        let disk = rustix::fs::statvfs(folder).ok().filter(|found| found.f_blocks > 0);
        Vitals {
            cpu,
            load: first_number(&text("/proc/loadavg")),
            memory: used(kib(&memory, "MemTotal:"), kib(&memory, "MemAvailable:")),
            swap: used(kib(&memory, "SwapTotal:"), kib(&memory, "SwapFree:")),
            temperature: hottest(Path::new("/sys/class/thermal")),
            disk: disk.as_ref().and_then(|found| used(Some(found.f_blocks), Some(found.f_bavail))),
            disk_free: disk.and_then(|found| i64::try_from(found.f_bavail.saturating_mul(found.f_frsize)).ok()),
            uptime: first_number(&text("/proc/uptime")).map(|seconds| seconds as i64),
            rss: kib(&text("/proc/self/status"), "VmRSS:").and_then(|kib| i64::try_from(kib * 1_024).ok()),
        }
    }
}

/// Bytes that are free for others than root on the disk of a folder; `None` where nobody knows.
#[must_use]
pub fn free_bytes(folder: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(folder).ok().filter(|found| found.f_blocks > 0)?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

/// The line of all processors: user, nice, system, idle, iowait, irq, softirq, steal; what guests take is in user.
fn ticks(stat: &str) -> Option<Ticks> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let numbers: Vec<u64> = line.split_ascii_whitespace().take(8).filter_map(|number| number.parse().ok()).collect();
    let all: u64 = numbers.iter().sum();
    let idle: u64 = numbers.iter().skip(3).take(2).sum();
    (numbers.len() >= 4).then_some(Ticks { busy: all - idle, all })
}

fn busy(last: Ticks, now: Ticks) -> Option<f64> {
    let all = now.all.checked_sub(last.all).filter(|all| *all > 0)?;
    Some(percent(now.busy.saturating_sub(last.busy), all))
}

fn kib(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.split_ascii_whitespace().next()?.parse().ok())
}

fn used(all: Option<u64>, free: Option<u64>) -> Option<f64> {
    let all = all.filter(|all| *all > 0)?;
    Some(percent(all.saturating_sub(free?), all))
}

/// With one decimal: more would only be noise that takes room on the wire.
fn percent(part: u64, all: u64) -> f64 {
    (part as f64 / all as f64 * 1_000.0).round() / 10.0
}

fn first_number(text: &str) -> Option<f64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

fn hottest(folder: &Path) -> Option<f64> {
    let zones = fs::read_dir(folder).ok()?.flatten();
    let milli = zones.filter_map(|zone| fs::read_to_string(zone.path().join("temp")).ok()?.trim().parse::<i64>().ok());
    milli.max().map(|milli| milli as f64 / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read_as_it_is_written() {
        let one = ticks("cpu  100 0 50 800 50 0 0 0 7 0\ncpu0 1 2 3 4\n");
        let two = ticks("cpu  130 0 70 830 70 0 0 0 7 0\n");
        assert_eq!(one, Some(Ticks { busy: 150, all: 1_000 }));
        assert_eq!(busy(one.unwrap(), two.unwrap()), Some(50.0));
        assert_eq!((busy(one.unwrap(), one.unwrap()), ticks("cpu 1 2"), ticks("")), (None, None, None));
        let memory = "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable: 334 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n";
        assert_eq!(used(kib(memory, "MemTotal:"), kib(memory, "MemAvailable:")), Some(66.6));
        assert_eq!(used(kib(memory, "SwapTotal:"), kib(memory, "SwapFree:")), None);
        assert_eq!((first_number("0.42 1 2\n"), first_number("")), (Some(0.42), None));
    }

    #[test]
    fn the_hottest_zone_counts() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(hottest(folder.path()), None);
        for (zone, text) in [("thermal_zone0", "41200\n"), ("thermal_zone1", "55700\n"), ("cooling", "")] {
            fs::create_dir(folder.path().join(zone)).unwrap();
            fs::write(folder.path().join(zone).join("temp"), text).unwrap();
        }
        assert_eq!(hottest(folder.path()), Some(55.7));
    }

    #[test]
    fn this_machine_has_figures() {
        let mut reader = VitalsReader::default();
        let first = reader.read(Path::new("/"));
        assert!(first.cpu.is_none() && first.uptime.is_some() && first.disk_free.is_some(), "{first:?}");
        for share in [first.memory, first.disk].into_iter().flatten() {
            assert!((0.0..=100.0).contains(&share), "{first:?}");
        }
    }
}
