//! Two devices edit the same records while they are cut off, then converge.

use std::time::Instant;

use hyper::Method;
use serde_json::{Value, json};

use crate::http::Client;
use crate::place::Binaries;
use crate::plan::Plan;
use crate::report::{Report, rounded, say, seconds};
use crate::rig::{Rig, insert, noun, number, write_all};
use crate::{measure, records};

/// Records, when nobody says otherwise.
const RECORDS: usize = 5_000;

/// From the links' return until the digests of all three nodes are equal.
///
/// One device edits `priority` of every record; the other edits `priority` of every second one, and `pressure` of the rest.
pub(crate) async fn run(plan: &Plan, binaries: &Binaries, mut report: Report) -> anyhow::Result<Report> {
    let count = plan.records_or(RECORDS);
    let rig = Rig::start(plan, binaries, &mut report).await?;
    let (one, two) = (rig.device("device-1").await?, rig.device("device-2").await?);
    let devices = [&one, &two];
    say!("w2: sharing {count} {}", noun(plan.kind));
    let (first, second) = (one.http(None).await?, two.http(None).await?);
    insert(&first, &records::make(plan.seed, count), 1_000).await?;
    rig.converge(&devices).await?;
    let conflicts_before = number(&rig.hub.status().await?, "conflicts");
    rig.cut(&devices).await?;

    say!("w2: both devices edit one field of every record, cut off from each other and from the hub");
    let started = Instant::now();
    tokio::try_join!(edit(&first, count, |_| "priority"), edit(&second, count, |n| if n % 2 == 0 { "priority" } else { "pressure" }))?;
    let editing = started.elapsed();
    report.put("records", count);
    report.put("edits", 2 * count);
    report.put("local_editing_s", seconds(editing));
    report.put("local_edits_per_s", rounded(2.0 * count as f64 / editing.as_secs_f64()));

    say!("w2: links up");
    let stretch = measure::Stretch::start(&rig, &devices)?;
    rig.relay.open();
    let hub = rig.converge(&devices).await?;
    report.put_all(stretch.finish(2 * count, "edit")?);
    report.put("conflicts", number(&hub, "conflicts").saturating_sub(conflicts_before));
    report.put("conflicts_expected", count.div_ceil(2));
    rig.finish(vec![one, two]).await?;
    Ok(report)
}

/// Changes one field of each record, in one request each. No two devices write the same value.
async fn edit(client: &Client, count: usize, field: impl Fn(usize) -> &'static str) -> anyhow::Result<()> {
    let seen = client.read(&format!("/rest/v1/{}?id=eq.{}&select=id", records::COLLECTION, records::id(0))).await?;
    anyhow::ensure!(seen.as_array().is_some_and(|rows| rows.len() == 1), "the device does not have the shared records: {seen}");
    let mark = if field(1) == "priority" { 100 } else { 200 };
    let write = |number: usize| -> (Method, String, Value) {
        let path = format!("/rest/v1/{}?id=eq.{}", records::COLLECTION, records::id(number));
        (Method::PATCH, path, json!({ field(number): mark + number % 100 }))
    };
    write_all(client, (0..count).map(write).collect()).await?;
    Ok(())
}
