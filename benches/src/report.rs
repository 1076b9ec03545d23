//! The line of JSON that a run ends with, and words for whoever watches.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::place::Binaries;
use crate::plan::Plan;

/// Tells whoever watches, on standard error.
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        // Nobody watches a closed standard error.
        let _ = writeln!(std::io::stderr(), $($words)*);
    }};
}
pub(crate) use say;

/// One run's figures, in the order in which they were added.
#[derive(Clone, Debug)]
pub(crate) struct Report(Map<String, Value>);

impl Report {
    /// What was run, of which version, on what machine.
    pub(crate) fn begin(plan: &Plan, binaries: &Binaries) -> Self {
        let mut report = Self(Map::new());
        let (commit, changed) = version(&binaries.folder);
        let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        report.put("bench", plan.bench.name());
        report.put("kind", plan.kind.name());
        report.put("build", binaries.build.as_str());
        report.put("commit", commit);
        report.put("uncommitted_changes", changed);
        report.put("cores", cores);
        report.put("load_1min", load());
        report.put("seed", plan.seed);
        report
    }

    /// Adds a figure.
    pub(crate) fn put(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// Adds all figures of another list.
    pub(crate) fn put_all(&mut self, figures: Map<String, Value>) {
        self.0.extend(figures);
    }

    /// Adds the figures of another run under its name.
    pub(crate) fn put_run(&mut self, name: &str, run: Self) {
        self.0.insert(name.to_owned(), Value::Object(run.0));
    }

    /// Prints the line.
    pub(crate) fn print(self) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", Value::Object(self.0))?;
        out.flush()
    }
}

/// A number with so many digits behind the point as help anybody.
pub(crate) fn rounded(number: f64) -> Value {
    let scale = if number.abs() < 10.0 { 1_000.0 } else { 10.0 };
    json!((number * scale).round() / scale)
}

/// Seconds, to the millisecond.
pub(crate) fn seconds(span: Duration) -> Value {
    json!((span.as_secs_f64() * 1_000.0).round() / 1_000.0)
}

/// Milliseconds, to the microsecond.
pub(crate) fn millis(span: Duration) -> Value {
    json!((span.as_secs_f64() * 1_000_000.0).round() / 1_000.0)
}

/// The value below which `share` of the values are, by the nearest rank; zero when there are none.
pub(crate) fn percentile(values: &mut [Duration], share: f64) -> Duration {
    values.sort_unstable();
    let rank = (share * values.len() as f64).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// The commit of the tree that the binaries lie in, and whether files differ from it; null where there is no git.
fn version(folder: &Path) -> (Value, Value) {
    let git = |args: &[&str]| {
        let output = Command::new("git").arg("-C").arg(folder).args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"]);
    let changed = git(&["status", "--porcelain", "--untracked-files=no", ":/"]).map(|list| !list.is_empty());
    (json!(commit), json!(changed))
}

/// How busy the machine was in the last minute; null where that is not known.
fn load() -> Value {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    json!(text.split(' ').next().and_then(|first| first.parse::<f64>().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let mut values: Vec<Duration> = (1..=20).rev().map(Duration::from_millis).collect();
        for (share, want) in [(0.0, 1), (0.5, 10), (0.95, 19), (0.99, 20), (1.0, 20)] {
            assert_eq!(percentile(&mut values, share), Duration::from_millis(want), "{share}");
        }
        assert_eq!(percentile(&mut [], 0.5), Duration::ZERO);
    }

    #[test]
    fn numbers_keep_what_matters() {
        for (number, want) in [(1.234_56, 1.235), (123.456, 123.5), (0.0, 0.0)] {
            assert_eq!(rounded(number), json!(want));
        }
        assert_eq!(seconds(Duration::from_micros(1_234_567)), json!(1.235));
        assert_eq!(millis(Duration::from_nanos(1_234_567)), json!(1.235));
    }
}
