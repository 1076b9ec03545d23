//! What a stretch of a run cost: seconds of the wall and of processors, memory, bytes on the wire.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use crate::node::Node;
use crate::relay::Traffic;
use crate::report::{rounded, seconds};
use crate::rig::Rig;

/// User and system seconds that a process has used so far, from `/proc/PID/stat`; counted in ticks of the clock (10 ms, usually).
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    Ok(ticks(Stat::of(pid)?.own))
}

/// The same of a process, what it started, and what that left behind.
pub(crate) fn cpu_of_family(pid: u32) -> anyhow::Result<Duration> {
    let head = Stat::of(pid)?;
    let mut total = head.own + head.ended;
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(child) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // One that ends while we look is counted by its parent.
        if let Ok(child) = Stat::of(child)
            && child.parent == pid
        {
            total += child.own + child.ended;
        }
    }
    Ok(ticks(total))
}

/// Memory that a process has in use, in KiB.
pub(crate) fn rss_kib(pid: u32) -> anyhow::Result<u64> {
    memory(pid, "VmRSS:")
}

/// The most that it had in use since its start, or since [`forget_peak`], in KiB.
pub(crate) fn peak_kib(pid: u32) -> anyhow::Result<u64> {
    memory(pid, "VmHWM:")
}

/// Lets the peak be counted from now on.
pub(crate) fn forget_peak(pid: u32) -> anyhow::Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("the kernel does not let the peak of memory be counted anew")
}

struct Stat {
    parent: u32,
    /// Ticks of itself.
    own: u64,
    /// Ticks of its children that have ended and were waited for.
    ended: u64,
}

impl Stat {
    fn of(pid: u32) -> anyhow::Result<Self> {
        let path = format!("/proc/{pid}/stat");
        let text = fs::read_to_string(&path).with_context(|| format!("{path} cannot be read: the process is gone"))?;
        Self::parse(&text).with_context(|| format!("{path} is not as this version knows it: {text}"))
    }

    fn parse(text: &str) -> Option<Self> {
        // The name of the program may hold anything, also parentheses; what is behind the last one is numbers.
        let (_, rest) = text.rsplit_once(')')?;
        let field = |number: usize| rest.split_whitespace().nth(number).and_then(|field| field.parse::<u64>().ok());
        Some(Self { parent: u32::try_from(field(1)?).ok()?, own: field(11)? + field(12)?, ended: field(13)? + field(14)? })
    }
}

fn ticks(count: u64) -> Duration {
    Duration::from_secs_f64(count as f64 / rustix::param::clock_ticks_per_second().max(1) as f64)
}

fn memory(pid: u32, key: &str) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("{path} cannot be read: the process is gone"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.split_whitespace().next()).and_then(|number| number.parse().ok());
    number.with_context(|| format!("{path} has no {key}"))
}

/// A stretch of a run, from its start on.
#[derive(Debug)]
pub(crate) struct Stretch<'r> {
    rig: &'r Rig,
    clients: Vec<&'r Node>,
    before: Costs,
    /// Peaks before the stretch: of all clients, and of the hub.
    earlier_peaks_kib: (u64, u64),
    started: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Costs {
    clients: Duration,
    hub: Duration,
    database: Option<Duration>,
    bench: Duration,
    traffic: Traffic,
}

impl<'r> Stretch<'r> {
    /// Starts now.
    pub(crate) fn start(rig: &'r Rig, clients: &[&'r Node]) -> anyhow::Result<Self> {
        let clients = clients.to_vec();
        let earlier_peaks_kib = peaks(&clients, rig)?;
        for node in clients.iter().copied().chain([&rig.hub]) {
            forget_peak(node.pid)?;
        }
        let before = Costs::now(rig, &clients)?;
        Ok(Self { rig, clients, before, earlier_peaks_kib, started: Instant::now() })
    }

    /// Ends now, and gives the figures. `operations` is what the per-operation ones are divided by, `each` its name.
    pub(crate) fn finish(self, operations: usize, each: &str) -> anyhow::Result<Map<String, Value>> {
        let wall = self.started.elapsed();
        let after = Costs::now(self.rig, &self.clients)?;
        let (client_kib, hub_kib) = peaks(&self.clients, self.rig)?;
        let (clients, hub) = (after.clients.saturating_sub(self.before.clients), after.hub.saturating_sub(self.before.hub));
        let database = after.database.zip(self.before.database).map(|(after, before)| after.saturating_sub(before));
        let (up, down) = after.traffic.since(self.before.traffic);
        let per = |number: f64| rounded(number / operations.max(1) as f64);
        let micros = |span: Duration| per(span.as_secs_f64() * 1e6);
        let mut figures = Map::new();
        let mut put = |name: &str, value: Value| figures.insert(name.to_owned(), value);
        put("wall_s", seconds(wall));
        put("clients", json!(self.clients.len()));
        put("client_cpu_s", seconds(clients));
        put("hub_cpu_s", seconds(hub));
        put("database_cpu_s", database.map_or(Value::Null, seconds));
        // The relay's and the bench's own work, which nobody is charged with.
        put("bench_cpu_s", seconds(after.bench.saturating_sub(self.before.bench)));
        put("wire_up_bytes", json!(up.bytes));
        put("wire_down_bytes", json!(down.bytes));
        put("wire_up_datagrams", json!(up.datagrams));
        put("wire_down_datagrams", json!(down.datagrams));
        put("client_peak_rss_kib", json!(client_kib));
        put("hub_peak_rss_kib", json!(hub_kib));
        put("client_peak_rss_kib_whole_run", json!(client_kib.max(self.earlier_peaks_kib.0)));
        put("hub_peak_rss_kib_whole_run", json!(hub_kib.max(self.earlier_peaks_kib.1)));
        put(&format!("{each}_per_s"), rounded(operations as f64 / wall.as_secs_f64()));
        put(&format!("wall_us_per_{each}"), micros(wall));
        put(&format!("client_cpu_us_per_{each}"), micros(clients));
        put(&format!("hub_cpu_us_per_{each}"), micros(hub));
        put(&format!("database_cpu_us_per_{each}"), database.map_or(Value::Null, micros));
        put(&format!("wire_up_bytes_per_{each}"), per(up.bytes as f64));
        put(&format!("wire_down_bytes_per_{each}"), per(down.bytes as f64));
        Ok(figures)
    }
}

impl Costs {
    fn now(rig: &Rig, clients: &[&Node]) -> anyhow::Result<Self> {
        let clients = clients.iter().map(|node| cpu(node.pid)).sum::<anyhow::Result<Duration>>()?;
        let database = rig.database_pid().map(cpu_of_family).transpose()?;
        Ok(Self { clients, hub: cpu(rig.hub.pid)?, database, bench: cpu(std::process::id())?, traffic: rig.relay.traffic() })
    }
}

/// The highest peak of a client, and that of the hub.
fn peaks(clients: &[&Node], rig: &Rig) -> anyhow::Result<(u64, u64)> {
    let mut highest = 0;
    for node in clients {
        highest = highest.max(peak_kib(node.pid)?);
    }
    Ok((highest, peak_kib(rig.hub.pid)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_a_name_of_parentheses_is_read() {
        let text = "7 (a) R (b) S 3 7 7 0 -1 4194304 90 0 0 0 11 22 33 44 20 0 1 0 5 6 7";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.parent, stat.own, stat.ended), (3, 33, 77));
        assert!(Stat::parse("7 (a) S 3").is_none());
    }

    #[test]
    fn a_process_knows_what_it_costs() {
        let own = std::process::id();
        let before = cpu(own).unwrap();
        let mut number = 0_u64;
        while cpu(own).unwrap() == before {
            number = std::hint::black_box(number.wrapping_add(1));
        }
        assert!(cpu_of_family(own).unwrap() >= cpu(own).unwrap().saturating_sub(Duration::from_millis(50)));
        assert!(peak_kib(own).unwrap() >= rss_kib(own).unwrap() / 2);
        assert!(cpu(u32::MAX).is_err());
    }
}
