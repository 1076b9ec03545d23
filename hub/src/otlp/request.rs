//! Metrics as a collector takes them: OTLP 1.x, `ExportMetricsServiceRequest` in JSON.
//!
//! 64-bit integers are strings and enums are numbers, as the protocol's JSON mapping has it. All sums are cumulative since the process
//! began: a request that is lost costs resolution, no counts.

use std::collections::BTreeMap;

use mobo_runtime::metrics::{Exposition, Kind, Sample, Written};
use serde_json::{Value, json};

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`.
const CUMULATIVE: u8 = 2;

/// Who measured, and over which time.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    /// `mobo-hub`.
    pub service: &'static str,
    /// Of the program.
    pub version: &'static str,
    /// Which of several nodes of this service it is.
    pub instance: String,
    /// When the process began to count, in ns since 1970.
    pub began_ns: u64,
    /// Now, in ns since 1970.
    pub now_ns: u64,
}

/// The body of a request to `/v1/metrics`.
pub(super) fn of(page: &Exposition, origin: &Origin) -> Value {
    let attributes = [("service.name", origin.service), ("service.version", origin.version), ("service.instance.id", &origin.instance)];
    let metrics: Vec<Value> = page.families().iter().map(|written| metric(written, origin)).collect();
    json!({ "resourceMetrics": [{
        "resource": { "attributes": attributes.map(|(key, value)| attribute(key, value)) },
        "scopeMetrics": [{ "scope": { "name": "mobo", "version": origin.version }, "metrics": metrics }],
    }] })
}

fn attribute(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

fn metric(written: &Written, origin: &Origin) -> Value {
    let points = || -> Vec<Value> { written.samples.iter().map(|sample| number(sample, origin)).collect() };
    let (form, content) = match written.kind {
        Kind::Gauge => ("gauge", json!({ "dataPoints": points() })),
        Kind::Counter => ("sum", json!({ "dataPoints": points(), "aggregationTemporality": CUMULATIVE, "isMonotonic": true })),
        Kind::Histogram => {
            ("histogram", json!({ "dataPoints": histograms(&written.samples, origin), "aggregationTemporality": CUMULATIVE }))
        }
    };
    json!({ "name": written.name, "description": written.help, form: content })
}

fn number(sample: &Sample, origin: &Origin) -> Value {
    let mut point = point(&sample.labels, origin);
    point.insert("asDouble".to_owned(), json!(sample.value));
    Value::Object(point)
}

fn point(labels: &[(String, String)], origin: &Origin) -> serde_json::Map<String, Value> {
    let attributes: Vec<Value> = labels.iter().map(|(key, value)| attribute(key, value)).collect();
    let mut point = serde_json::Map::new();
    point.insert("attributes".to_owned(), Value::Array(attributes));
    point.insert("startTimeUnixNano".to_owned(), json!(origin.began_ns.to_string()));
    point.insert("timeUnixNano".to_owned(), json!(origin.now_ns.to_string()));
    point
}

#[derive(Default)]
struct Spread {
    bounds: Vec<f64>,
    /// How many were below each bound, and then all.
    below: Vec<f64>,
    sum: f64,
    count: f64,
}

/// One point for each set of labels; Prometheus counts what is below a bound, OTLP what is between two.
fn histograms(samples: &[Sample], origin: &Origin) -> Vec<Value> {
    let mut spreads: BTreeMap<Vec<(String, String)>, Spread> = BTreeMap::new();
    for sample in samples {
        let (bounds, labels): (Vec<_>, Vec<_>) = sample.labels.iter().cloned().partition(|(name, _)| name == "le");
        let spread = spreads.entry(labels).or_default();
        match sample.suffix {
            "_sum" => spread.sum = sample.value,
            "_count" => spread.count = sample.value,
            _ => {
                let bound = bounds.first().and_then(|(_, bound)| bound.parse().ok()).filter(|bound: &f64| bound.is_finite());
                spread.bounds.extend(bound);
                spread.below.push(sample.value);
            }
        }
    }
    spreads.into_iter().map(|(labels, spread)| histogram(&labels, &spread, origin)).collect()
}

fn histogram(labels: &[(String, String)], spread: &Spread, origin: &Origin) -> Value {
    let before = std::iter::once(0.0).chain(spread.below.iter().copied());
    let between: Vec<String> = spread.below.iter().zip(before).map(|(below, before)| whole(below - before)).collect();
    let mut point = point(labels, origin);
    point.insert("count".to_owned(), json!(whole(spread.count)));
    point.insert("sum".to_owned(), json!(spread.sum));
    point.insert("bucketCounts".to_owned(), json!(between));
    point.insert("explicitBounds".to_owned(), json!(spread.bounds));
    Value::Object(point)
}

fn whole(count: f64) -> String {
    format!("{:.0}", count.max(0.0))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mobo_runtime::metrics::{Counters, Durations, Metric};

    use super::*;

    #[test]
    fn each_kind_of_metric_has_its_form() {
        let calls = Counters::new("mobo_calls_total", ["method"], "Calls.");
        calls.add(["GET"], 3);
        let took = Durations::new("mobo_took_seconds", ["what"], "How long.");
        [1, 3, 3, 60_000].iter().for_each(|ms| took.observe(["it"], Duration::from_millis(*ms)));
        let mut page = Exposition::default();
        calls.expose(&mut page);
        took.expose(&mut page);
        page.gauge("mobo_up", "Up.", 1.0);
        let origin = Origin { service: "mobo-hub", version: "1", instance: "me".to_owned(), began_ns: 5, now_ns: 7 };
        let body = of(&page, &origin);

        let resource = &body["resourceMetrics"][0];
        assert_eq!(resource["resource"]["attributes"][0], json!({ "key": "service.name", "value": { "stringValue": "mobo-hub" } }));
        let metrics = &resource["scopeMetrics"][0]["metrics"];
        let point = json!({
            "attributes": [{ "key": "method", "value": { "stringValue": "GET" } }],
            "startTimeUnixNano": "5", "timeUnixNano": "7", "asDouble": 3.0,
        });
        let sum = json!({ "dataPoints": [point], "aggregationTemporality": 2, "isMonotonic": true });
        assert_eq!(metrics[0], json!({ "name": "mobo_calls_total", "description": "Calls.", "sum": sum }));
        let spread = &metrics[1]["histogram"]["dataPoints"][0];
        assert_eq!((&spread["count"], &spread["sum"]), (&json!("4"), &json!(60.007)));
        let (counts, bounds) = (spread["bucketCounts"].as_array().unwrap(), spread["explicitBounds"].as_array().unwrap());
        assert_eq!(counts.len(), bounds.len() + 1, "the last is beyond every bound");
        let of = |bound: f64| counts[bounds.iter().position(|known| *known == json!(bound)).unwrap()].as_str().unwrap();
        assert_eq!((of(0.001), of(0.005), of(0.01), counts.last().unwrap().as_str().unwrap()), ("1", "2", "0", "1"));
        assert_eq!(spread["attributes"].as_array().unwrap().len(), 1, "the bound is no attribute");
        assert_eq!(metrics[2]["gauge"]["dataPoints"][0]["asDouble"], json!(1.0));
    }
}
