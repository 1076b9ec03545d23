//! Cold bootstrap: a new device joins a hub that holds everything.

use serde_json::json;

use crate::place::Binaries;
use crate::plan::Plan;
use crate::report::{Report, say};
use crate::rig::{Rig, insert, noun, number, text};
use crate::{measure, records};

/// Records, when nobody says otherwise.
const RECORDS: usize = 50_000;

/// From `join` on a booted device with an empty folder until its digest is the hub's.
pub(crate) async fn run(plan: &Plan, binaries: &Binaries, mut report: Report) -> anyhow::Result<Report> {
    let count = plan.records_or(RECORDS);
    let rig = Rig::start(plan, binaries, &mut report).await?;
    say!("w4: writing {count} {} on the hub", noun(plan.kind));
    let key = rig.hub.ask("key create", json!({ "role": "service", "name": "bench" })).await?;
    let client = rig.hub.http(Some(text(&key, "key"))).await?;
    insert(&client, &records::make(plan.seed, count), 1_000).await?;

    let device = rig.newcomer("device").await?;
    say!("w4: a new device joins");
    let stretch = measure::Stretch::start(&rig, &[&device])?;
    rig.join(&device).await?;
    rig.converge(&[&device]).await?;
    report.put("records", count);
    report.put_all(stretch.finish(count, "record")?);
    let held = number(&device.status().await?, "records");
    anyhow::ensure!(held == count as u64, "the device has {held} records, not {count}");
    rig.finish(vec![device]).await?;
    Ok(report)
}
