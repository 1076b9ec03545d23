//! Live latency: a write on one device, until another device shows it.
//!
//! One record is written again and again, its `priority` counting up; a write has arrived when the second device shows its number or a
//! higher one. The second device is asked over its own HTTP API, one question after the other with [`PAUSE`] in between: the time between
//! two answers is the error of each figure, and stands in the report.

use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use crate::http::Client;
use crate::place::Binaries;
use crate::plan::Plan;
use crate::records::{COLLECTION, id, make};
use crate::report::{Report, millis, percentile, say};
use crate::rig::{Rig, insert};
use crate::{measure, report};

/// Between two writes.
const EVERY: Duration = Duration::from_millis(10);
/// Between an answer of the second device and the next question.
const PAUSE: Duration = Duration::from_millis(1);
/// Longest wait for the last write.
const PATIENCE: Duration = Duration::from_secs(60);
/// A write that starts this much after its turn is late.
const LATE: Duration = Duration::from_millis(1);
/// Appends with fsync, to know the disk.
const FSYNCS: usize = 200;

/// One write: when it was sent, and when the first device had answered.
#[derive(Clone, Copy, Debug)]
struct Write {
    due: Instant,
    sent: Instant,
    answered: Instant,
}

/// One answer of the second device: when, and the highest number it showed.
#[derive(Clone, Copy, Debug)]
struct Sight {
    at: Instant,
    number: usize,
}

/// From the moment a write is sent to the first device until the second one shows it.
pub(crate) async fn run(plan: &Plan, binaries: &Binaries, mut report: Report) -> anyhow::Result<Report> {
    let rig = Rig::start(plan, binaries, &mut report).await?;
    let (one, two) = (rig.device("device-1").await?, rig.device("device-2").await?);
    let (first, second) = (one.http(None).await?, two.http(None).await?);
    insert(&first, &make(plan.seed, 1), 1).await?;
    // Connections are opened, statements prepared and caches warm before the clock starts.
    let warm = look(&second, 1, Instant::now() + PATIENCE);
    tokio::try_join!(write(&first, 1, 1), warm)?;

    let count = usize::try_from(plan.duration().as_millis() / EVERY.as_millis())?;
    say!("w3: {count} writes, one every {} ms", EVERY.as_millis());
    let stretch = measure::Stretch::start(&rig, &[&one, &two])?;
    let deadline = Instant::now() + plan.duration() + PATIENCE;
    // Numbers from 2: the warm-up has written 1.
    let (writes, sights) = tokio::try_join!(write(&first, 2, count), look(&second, count + 1, deadline))?;
    report.put("writes", count);
    report.put_all(stretch.finish(count, "write")?);
    report.put_all(latencies(&writes, &sights, 2));
    put_fsync(&mut report, &one.folder)?;
    rig.finish(vec![one, two]).await?;
    Ok(report)
}

/// Writes numbers `from` and up, each in its turn; one that is behind its turn goes at once.
async fn write(client: &Client, from: usize, count: usize) -> anyhow::Result<Vec<Write>> {
    let path = format!("/rest/v1/{COLLECTION}?id=eq.{}", id(0));
    let mut turns = tokio::time::interval(EVERY);
    turns.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut writes = Vec::with_capacity(count);
    for number in from..from + count {
        let due = turns.tick().await.into_std();
        let sent = Instant::now();
        client.write(Method::PATCH, &path, &json!({ "priority": 1_000 + number })).await?;
        writes.push(Write { due, sent, answered: Instant::now() });
    }
    Ok(writes)
}

/// Asks until `last` is shown.
async fn look(client: &Client, last: usize, deadline: Instant) -> anyhow::Result<Vec<Sight>> {
    let path = format!("/rest/v1/{COLLECTION}?id=eq.{}&select=priority", id(0));
    let mut sights = Vec::new();
    loop {
        let rows = client.read(&path).await?;
        let shown = rows.get(0).and_then(|row| row.get("priority")).and_then(Value::as_u64).unwrap_or_default();
        let number = usize::try_from(shown)?.saturating_sub(1_000);
        sights.push(Sight { at: Instant::now(), number });
        if number >= last {
            return Ok(sights);
        }
        anyhow::ensure!(Instant::now() < deadline, "write {last} does not arrive: the second device shows {number}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// What the times come to; `from` is the number of the first write.
fn latencies(writes: &[Write], sights: &[Sight], from: usize) -> serde_json::Map<String, Value> {
    let mut figures = serde_json::Map::new();
    let mut put = |name: &str, value: Value| figures.insert(name.to_owned(), value);
    let (mut arrivals, mut rest) = (Vec::new(), sights.iter().peekable());
    for (number, write) in (from..).zip(writes) {
        while rest.next_if(|sight| sight.number < number).is_some() {}
        if let Some(sight) = rest.peek() {
            arrivals.push(sight.at.saturating_duration_since(write.sent));
        }
    }
    let mut answers: Vec<Duration> = writes.iter().map(|write| write.answered - write.sent).collect();
    let mut gaps: Vec<Duration> = sights.windows(2).filter_map(|pair| Some(pair.last()?.at - pair.first()?.at)).collect();
    for (name, share) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0)] {
        put(&format!("latency_{name}_ms"), millis(percentile(&mut arrivals, share)));
    }
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        put(&format!("local_ack_{name}_ms"), millis(percentile(&mut answers, share)));
    }
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        put(&format!("resolution_{name}_ms"), millis(percentile(&mut gaps, share)));
    }
    put("seen", json!(arrivals.len()));
    put("late_writes", json!(writes.iter().filter(|write| write.sent.saturating_duration_since(write.due) > LATE).count()));
    put("observed_by", json!("GET on the second device, 1 ms between answer and question; its CPU is in client_cpu_s"));
    figures
}

/// How long the disk takes to keep 4 KiB: what a durable write cannot beat.
fn put_fsync(report: &mut Report, folder: &std::path::Path) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut file = tempfile::tempfile_in(folder)?;
    let mut times = Vec::with_capacity(FSYNCS);
    for _ in 0..FSYNCS {
        file.write_all(&[7; 4_096])?;
        let started = Instant::now();
        file.sync_data()?;
        times.push(started.elapsed());
    }
    report.put("disk_fsync_p50_ms", report::millis(percentile(&mut times, 0.5)));
    report.put("disk_fsync_p99_ms", report::millis(percentile(&mut times, 0.99)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_has_arrived_with_the_first_sight_of_it_or_of_a_later_one() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let write = |ms| Write { due: at(ms), sent: at(ms), answered: at(ms + 1) };
        let writes = [write(10), write(20), write(30)];
        let sights = [(5, 0), (15, 2), (25, 2), (40, 4)].map(|(ms, number)| Sight { at: at(ms), number });
        let figures = latencies(&writes, &sights, 2);
        // Write 2 after 5 ms; 3 and 4 together at 40, after 20 and 10 ms.
        assert_eq!((&figures["latency_p50_ms"], &figures["latency_max_ms"]), (&json!(10.0), &json!(20.0)));
        assert_eq!((&figures["seen"], &figures["late_writes"]), (&json!(3), &json!(0)));
        assert_eq!(figures["resolution_p99_ms"], json!(15.0));
    }
}
