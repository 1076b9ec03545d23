//! What the system knows of this process, under the names that every Prometheus client gives it.

use std::fs;

use super::{Exposition, Kind};

/// Clock ticks in a second, as `/proc` counts them: the same on every Linux that this is built for.
const TICKS_PER_SECOND: f64 = 100.0;

/// Adds what `/proc` says; what it does not say is left out.
pub(super) fn expose(out: &mut Exposition) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    if let Some(cpu) = cpu_seconds(&stat) {
        out.family("process_cpu_seconds_total", Kind::Counter, "Processor time that this process has used.").sample(&[], cpu);
    }
    let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
    if let Some(start) = start_seconds(&stat, &boot) {
        out.gauge("process_start_time_seconds", "When this process was started, in seconds since 1970.", start);
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let sizes = [
        ("VmRSS:", "process_resident_memory_bytes", "Memory that this process holds.", 1_024.0),
        ("VmSize:", "process_virtual_memory_bytes", "Addresses that this process uses.", 1_024.0),
        ("Threads:", "process_threads", "Threads of this process.", 1.0),
    ];
    for (key, name, help, unit) in sizes {
        if let Some(number) = number_after(&status, key) {
            out.gauge(name, help, number * unit);
        }
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        out.gauge("process_open_fds", "Files and sockets that this process has open.", files.count() as f64);
    }
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    if let Some(max) = number_after(&limits, "Max open files") {
        out.gauge("process_max_fds", "Files and sockets that this process may have open.", max);
    }
}

/// The fields behind the name, which may hold anything but a closing bracket; the first is the state.
fn fields(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace()
}

fn field(stat: &str, position: usize) -> Option<f64> {
    fields(stat).nth(position)?.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((field(stat, 11)? + field(stat, 12)?) / TICKS_PER_SECOND)
}

fn start_seconds(stat: &str, boot: &str) -> Option<f64> {
    Some(number_after(boot, "btime")? + field(stat, 19)? / TICKS_PER_SECOND)
}

fn number_after(text: &str, key: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.split_ascii_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read_as_it_is_written() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 4 0 1234 5678 90\n";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(start_seconds(stat, "cpu 1 2\nbtime 1700000000\n"), Some(1_700_000_012.34));
        assert_eq!(number_after("VmSize:\t  12 kB\nVmRSS:\t  8 kB\n", "VmRSS:"), Some(8.0));
        assert_eq!((cpu_seconds(""), number_after("", "x")), (None, None));
    }

    #[test]
    fn this_process_has_all_of_them() {
        let mut out = Exposition::default();
        expose(&mut out);
        let text = out.finish();
        assert_eq!(text.lines().filter(|line| !line.starts_with('#')).count(), 7, "{text}");
    }
}
