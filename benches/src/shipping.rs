//! What shipping costs a hub that is written to: stretches with and without it take turns in one run, so that whatever else the machine does is
//! in both.

use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::{Value, json};

use crate::http::Client;
use crate::measure;
use crate::plan::Plan;
use crate::records;
use crate::report::{Report, rounded, say};
use crate::rig::Rig;

/// Records that are written in a second.
const RATE: usize = 5_000;
/// Records of one of the requests.
const LOT: usize = 50;
/// Stretches of each kind.
const PAIRS: usize = 6;

/// What a stretch of writes at an even pace took.
#[derive(Clone, Copy, Debug, Default)]
struct Stretch {
    written: usize,
    took: Duration,
    hub: Duration,
    database: Duration,
}

impl Stretch {
    fn and(self, other: Self) -> Self {
        Self {
            written: self.written + other.written,
            took: self.took + other.took,
            hub: self.hub + other.hub,
            database: self.database + other.database,
        }
    }

    fn hub_us(self) -> f64 {
        1e6 * self.hub.as_secs_f64() / self.written.max(1) as f64
    }

    fn database_us(self) -> f64 {
        1e6 * self.database.as_secs_f64() / self.written.max(1) as f64
    }
}

/// Writes new records behind the first `count`, with shipping and without in turn; gives how many.
pub(crate) async fn measure(rig: &Rig, client: &Client, (plan, count): (&Plan, usize), report: &mut Report) -> anyhow::Result<usize> {
    say!("backup: {RATE} records/s, {PAIRS} times shipped and {PAIRS} times not");
    let (mut written, mut pairs) = (count, Vec::new());
    for pair in 0..PAIRS {
        let mut both = [Stretch::default(); 2];
        // Whatever grows with the run is not always on the same side.
        for ships in [pair % 2 == 0, pair % 2 == 1] {
            let verb = if ships { "component start" } else { "component stop" };
            rig.hub.ask(verb, json!({ "name": "backup" })).await?;
            if ships {
                // What was written without is not this stretch's.
                rig.hub.ask("backup create", json!({})).await?;
            }
            let stretch = stretch(rig, client, (plan, written), ships).await?;
            written += stretch.written;
            if let Some(one) = both.get_mut(usize::from(ships)) {
                *one = stretch;
            }
        }
        pairs.push(both);
    }
    rig.hub.ask("component start", json!({ "name": "backup" })).await?;
    rig.hub.ask("backup create", json!({})).await?;
    compare(report, &pairs);
    Ok(written - count)
}

/// New records at [`RATE`], or as many as the hub takes. Where they are shipped, the last of them are shipped at its end.
async fn stretch(rig: &Rig, client: &Client, (plan, first): (&Plan, usize), ships: bool) -> anyhow::Result<Stretch> {
    let seconds = usize::try_from(plan.seconds.div_ceil(4))?;
    let mut lots = records::make(plan.seed + first as u64, RATE * seconds);
    for (number, record) in lots.iter_mut().enumerate() {
        if let Some(id) = record.get_mut("id") {
            *id = Value::String(records::id(first + number));
        }
    }
    let path = format!("/rest/v1/{}", records::COLLECTION);
    let lots: Vec<Value> = lots.chunks(LOT).map(|lot| Value::Array(lot.to_vec())).collect();
    let mut beat = tokio::time::interval(Duration::from_secs(1) * u32::try_from(LOT)? / u32::try_from(RATE)?);
    let database = || rig.database_pid().map(measure::cpu_of_family).transpose().map(Option::unwrap_or_default);
    let (began, before, database_before) = (Instant::now(), measure::cpu(rig.hub.pid)?, database()?);
    for lot in &lots {
        beat.tick().await;
        client.write(Method::POST, &path, lot).await?;
    }
    let took = began.elapsed();
    if ships {
        rig.hub.ask("backup create", json!({})).await?;
    }
    let (hub, database) = (measure::cpu(rig.hub.pid)?, database()?);
    let (hub, database) = (hub.saturating_sub(before), database.saturating_sub(database_before));
    Ok(Stretch { written: LOT * lots.len(), took, hub, database })
}

/// The part of the hub's own time, and of one core: the median of the pairs, beside the least and the most of them and the difference of all.
fn compare(report: &mut Report, pairs: &[[Stretch; 2]]) {
    let sum = |of: usize| pairs.iter().filter_map(|both| both.get(of)).fold(Stretch::default(), |sum, one| sum.and(*one));
    let (without, with) = (sum(0), sum(1));
    let mut more: Vec<f64> = pairs.iter().map(|[without, with]| with.hub_us() - without.hub_us()).collect();
    let mut database: Vec<f64> = pairs.iter().map(|[without, with]| with.database_us() - without.database_us()).collect();
    let (middle, per_s) = (median(&mut more), with.written as f64 / with.took.as_secs_f64());
    report.put("steady_records_per_s", rounded(per_s));
    report.put("steady_cpu_us_per_record", rounded(without.hub_us()));
    report.put("shipping_cpu_us_per_record", rounded(middle));
    report.put("shipping_cpu_us_per_record_of_pairs", more.iter().copied().map(rounded).collect::<Vec<_>>());
    report.put("shipping_cpu_us_per_record_of_sums", rounded(with.hub_us() - without.hub_us()));
    report.put("shipping_percent_of_hub", rounded(100.0 * middle / with.hub_us().max(1e-9)));
    report.put("shipping_percent_of_core", rounded(1e-4 * middle * per_s));
    report.put(&format!("shipping_percent_of_core_at_{RATE}_per_s"), rounded(1e-4 * middle * RATE as f64));
    if with.database > Duration::ZERO {
        report.put("steady_database_cpu_us_per_record", rounded(without.database_us()));
        report.put("shipping_database_cpu_us_per_record", rounded(median(&mut database)));
    }
}

/// Sorts; zero where there is none.
fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    let at = |place: usize| values.get(place).copied().unwrap_or_default();
    if values.len().is_multiple_of(2) { f64::midpoint(at(middle.saturating_sub(1)), at(middle)) } else { at(middle) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        for (values, want) in [(&mut [][..], 0.0), (&mut [7.0], 7.0), (&mut [9.0, 1.0], 5.0), (&mut [3.0, 100.0, -1.0], 3.0)] {
            assert_eq!(median(values), want);
        }
    }
}
