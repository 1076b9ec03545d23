//! What shipping costs a hub that is written to. The hub itself counts the time of processors that its shipping takes, on whichever thread;
//! that is set against all that the hub takes in the same stretch. Stretches with and without shipping take turns in one run, too: their
//! difference holds what shipping does to the rest of the hub, but it is small beside what two equal stretches differ by.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use hyper::Method;
use serde_json::{Value, json};

use crate::http::Client;
use crate::measure;
use crate::plan::Plan;
use crate::records;
use crate::report::{Report, rounded, say};
use crate::rig::{Rig, write_all};

/// Records that are written in a second.
const RATE: usize = 5_000;
/// Records that are written at once, a hundredth of a second's.
const BEAT: usize = 50;
/// How they come: each in a request of its own, several requests beside each other, which is what 5,000 writes a second are; and those of a
/// beat in one request, which costs the hub least of all, and so makes most of what shipping costs.
const LOADS: [(&str, usize); 2] = [("single", 1), ("lots", BEAT)];
/// Stretches of each kind.
const PAIRS: usize = 4;

/// What a stretch of writes at an even pace took.
#[derive(Clone, Copy, Debug, Default)]
struct Stretch {
    written: usize,
    took: Duration,
    hub: Duration,
    /// Of that, for shipping.
    shipping: Duration,
    database: Duration,
}

impl Stretch {
    fn and(self, other: Self) -> Self {
        Self {
            written: self.written + other.written,
            took: self.took + other.took,
            hub: self.hub + other.hub,
            shipping: self.shipping + other.shipping,
            database: self.database + other.database,
        }
    }

    fn hub_us(self) -> f64 {
        1e6 * self.hub.as_secs_f64() / self.written.max(1) as f64
    }

    fn shipping_us(self) -> f64 {
        1e6 * self.shipping.as_secs_f64() / self.written.max(1) as f64
    }

    /// The part of the hub's own time that shipping is.
    fn shipping_percent(self) -> f64 {
        100.0 * self.shipping.as_secs_f64() / self.hub.as_secs_f64().max(1e-9)
    }

    fn database_us(self) -> f64 {
        1e6 * self.database.as_secs_f64() / self.written.max(1) as f64
    }
}

/// Writes new records behind the first `count`, with shipping and without in turn; gives how many.
pub(crate) async fn measure(rig: &Rig, client: &Client, (plan, count): (&Plan, usize), report: &mut Report) -> anyhow::Result<usize> {
    let mut written = count;
    for (name, lot) in LOADS {
        say!("backup: {RATE} records/s, {lot} in each request, {PAIRS} times shipped and {PAIRS} times not");
        let mut pairs = Vec::new();
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
                let stretch = stretch(rig, client, (plan, written), (lot, ships)).await?;
                written += stretch.written;
                if let Some(one) = both.get_mut(usize::from(ships)) {
                    *one = stretch;
                }
            }
            pairs.push(both);
        }
        compare(report, name, &pairs);
    }
    rig.hub.ask("component start", json!({ "name": "backup" })).await?;
    rig.hub.ask("backup create", json!({})).await?;
    Ok(written - count)
}

/// New records at [`RATE`], or as many as the hub takes, `lot` in each request. Where they are shipped, the last of them are shipped at its end.
async fn stretch(rig: &Rig, client: &Client, (plan, first): (&Plan, usize), (lot, ships): (usize, bool)) -> anyhow::Result<Stretch> {
    let seconds = usize::try_from(plan.seconds.div_ceil(4))?;
    let mut records = records::make(plan.seed + first as u64, RATE * seconds);
    for (number, record) in records.iter_mut().enumerate() {
        if let Some(id) = record.get_mut("id") {
            *id = Value::String(records::id(first + number));
        }
    }
    let path = format!("/rest/v1/{}", records::COLLECTION);
    let write = |lot: &[Value]| (Method::POST, path.clone(), Value::Array(lot.to_vec()));
    let beats: Vec<Vec<_>> = records.chunks(BEAT).map(|beat| beat.chunks(lot).map(write).collect()).collect();
    let mut beat = tokio::time::interval(Duration::from_secs(1) * u32::try_from(BEAT)? / u32::try_from(RATE)?);
    let database = || rig.database_pid().map(measure::cpu_of_family).transpose().map(Option::unwrap_or_default);
    let shipping_before = shipping(rig).await?;
    let (began, before, database_before) = (Instant::now(), measure::cpu(rig.hub.pid)?, database()?);
    for writes in beats {
        beat.tick().await;
        write_all(client, writes).await?;
    }
    let took = began.elapsed();
    if ships {
        rig.hub.ask("backup create", json!({})).await?;
    }
    let (hub, database) = (measure::cpu(rig.hub.pid)?, database()?);
    let (hub, database) = (hub.saturating_sub(before), database.saturating_sub(database_before));
    let shipping = shipping(rig).await?.saturating_sub(shipping_before);
    Ok(Stretch { written: records.len(), took, hub, shipping, database })
}

/// What shipping has taken so far, as the hub counts it.
async fn shipping(rig: &Rig) -> anyhow::Result<Duration> {
    let status = rig.hub.status().await?;
    let seconds = status.pointer("/backup/cpu_s").and_then(Value::as_f64).context("the hub does not say what its shipping takes")?;
    Ok(Duration::try_from_secs_f64(seconds)?)
}

/// The part of the hub's own time, and of one core, as the hub counts it: of all stretches, beside each of them. Then the same by difference:
/// the median of the pairs, beside each of them.
fn compare(report: &mut Report, load: &str, pairs: &[[Stretch; 2]]) {
    let sum = |of: usize| pairs.iter().filter_map(|both| both.get(of)).fold(Stretch::default(), |sum, one| sum.and(*one));
    let (without, with) = (sum(0), sum(1));
    let mut more: Vec<f64> = pairs.iter().map(|[without, with]| with.hub_us() - without.hub_us()).collect();
    let mut database: Vec<f64> = pairs.iter().map(|[without, with]| with.database_us() - without.database_us()).collect();
    let (middle, per_s) = (median(&mut more), with.written as f64 / with.took.as_secs_f64());
    let mut put = |name: &str, value: Value| report.put(&format!("{load}_{name}"), value);
    put("records_per_s", rounded(per_s));
    put("cpu_us_per_record", rounded(without.hub_us()));
    put("shipping_cpu_us_per_record", rounded(with.shipping_us()));
    put("shipping_percent_of_hub", rounded(with.shipping_percent()));
    put("shipping_percent_of_hub_of_stretches", pairs.iter().map(|[_, with]| rounded(with.shipping_percent())).collect());
    put("shipping_percent_of_core", rounded(1e-4 * with.shipping_us() * per_s));
    put("shipping_difference_us_per_record", rounded(middle));
    put("shipping_difference_us_per_record_of_pairs", more.iter().copied().map(rounded).collect());
    if with.database > Duration::ZERO {
        put("database_cpu_us_per_record", rounded(without.database_us()));
        put("shipping_database_cpu_us_per_record", rounded(median(&mut database)));
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
