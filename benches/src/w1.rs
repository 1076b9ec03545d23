//! Bulk catch-up: a device makes records while it is cut off, then it gets its link back.

use std::time::Instant;

use serde_json::Value;

use crate::place::Binaries;
use crate::plan::Plan;
use crate::report::{Report, rounded, say, seconds};
use crate::rig::{Rig, entries, insert, noun, number};
use crate::{floor, measure, records};

/// Records, when nobody says otherwise.
const RECORDS: usize = 50_000;

/// From the link's return until the hub has all, nothing is pending, and the digests are equal.
pub(crate) async fn run(plan: &Plan, binaries: &Binaries, mut report: Report) -> anyhow::Result<Report> {
    let count = plan.records_or(RECORDS);
    let rig = Rig::start(plan, binaries, &mut report).await?;
    let device = rig.device("device").await?;
    rig.cut(&[&device]).await?;

    say!("w1: writing {count} {} on the device, which is cut off", noun(plan.kind));
    let made = records::make(plan.seed, count);
    let json_bytes: usize = made.iter().map(|record| record.to_string().len()).sum();
    let (client, started) = (device.http(None).await?, Instant::now());
    let requests = insert(&client, &made, plan.batch).await?;
    let writing = started.elapsed();
    let written = entries(&device.status().await?);
    report.put("records", count);
    report.put("entries", written);
    report.put("json_bytes_per_record", rounded(json_bytes as f64 / count as f64));
    report.put("local_requests", requests);
    report.put("local_writing_s", seconds(writing));
    report.put("local_writes_per_s", rounded(count as f64 / writing.as_secs_f64()));

    say!("w1: link up");
    let stretch = measure::Stretch::start(&rig, &[&device])?;
    rig.relay.open();
    let hub = rig.converge(&[&device]).await?;
    let figures = stretch.finish(count, "record")?;
    let caught_up_s = figures.get("wall_s").and_then(Value::as_f64).unwrap_or_default();
    report.put_all(figures);
    report.put("hub_records", number(&hub, "records"));
    anyhow::ensure!(number(&hub, "records") == count as u64, "the hub has {} records, not {count}", number(&hub, "records"));

    say!("w1: the floor: the same rows into an empty table");
    let (floor, rows) = floor::measure(&device.folder, rig.database.as_ref()).await?;
    anyhow::ensure!(rows == count as u64, "the floor has {rows} rows, not {count}");
    report.put("floor_s", seconds(floor));
    report.put("times_floor", rounded(caught_up_s / floor.as_secs_f64()));
    rig.finish(vec![device]).await?;
    Ok(report)
}
