//! Streams: samples come in, in any spelling, and are never changed.

use std::sync::atomic::Ordering;

use mobo_gate::NodeKind;
use serde_json::{Value as Json, json};

use crate::{Headers, World, Wrong};

const VITALS: &str = "/rest/v1/vitals";

#[track_caller]
fn column<'r>(rows: &'r Json, name: &str) -> Vec<&'r Json> {
    rows.as_array().unwrap().iter().map(|row| &row[name]).collect()
}

#[tokio::test]
async fn samples_are_taken_now_or_when_they_say() {
    let world = World::new(NodeKind::Hub);
    let key = crate::memory::key(mobo_gate::Role::Service);
    let apikey = ("apikey", key.text());
    let body = json!([
        { "cpu": 1 },
        { "cpu": 0.5, "host": "a", "at": "2026-02-03T04:05:05.5Z" },
        { "host": "later", "at": "2026-02-03T04:05:07Z" },
        { "cpu": null, "at": null },
        { "cpu": 2.5, "at": "2026-02-02T04:05:06+00:00" },
    ]);
    let answer = world.ask(&format!("POST {VITALS}"), &[apikey, ("prefer", "count=exact")], body.to_string()).await;
    assert_eq!((answer.status, answer.text.as_str(), answer.header("mobo-ack")), (201, "", "hub"));
    assert_eq!(answer.header("content-range"), "*/5");
    let lines = "{\"cpu\":9}\n{\"cpu\":10}";
    let answer = world.ask(&format!("POST {VITALS}"), &[apikey, ("content-type", "application/x-ndjson; charset=utf-8")], lines).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    assert_eq!(world.memory.entries.load(Ordering::Relaxed), 2, "one request is one entry");

    let rows = world.ask(&format!("GET {VITALS}?limit=5"), &[apikey], "").await.json();
    let now = "2026-02-03T04:05:06.000000Z";
    assert_eq!(column(&rows, "at"), [now, "2026-02-03T04:05:05.500000Z", now, now, "2026-02-02T04:05:06.000000Z"]);
    assert_eq!(column(&rows, "cpu"), [&json!(1.0), &json!(0.5), &json!(null), &json!(null), &json!(2.5)]);
    assert_eq!(column(&rows, "host"), [&json!(null), &json!("a"), &json!("later"), &json!(null), &json!(null)]);
    let hot = world.ask(&format!("GET {VITALS}?cpu=gt.1&order=cpu.desc&select=cpu,device"), &[apikey], "").await.json();
    assert_eq!(column(&hot, "cpu"), [&json!(10.0), &json!(9.0), &json!(2.5)]);
    assert_eq!(hot[0]["device"], "01".repeat(16));
}

#[tokio::test]
async fn what_is_no_sample_is_refused_whole() {
    let world = World::new(NodeKind::Edge);
    let post = format!("POST {VITALS}");
    let cases: [(&str, &str, Headers<'_>, &str, Wrong<'_>); 11] = [
        ("a field that is not there", &post, &[], r#"[{"cpu":1},{"cpv":2}]"#, (400, "PGRST204", "Perhaps you meant the column 'cpu'")),
        ("an id", &post, &[], r#"{"id":"a"}"#, (400, "PGRST204", "'id' column of 'vitals'")),
        ("a device", &post, &[], r#"{"device":"00"}"#, (400, "PGRST204", "'device' column")),
        ("a value of another type", &post, &[], r#"[{"cpu":1},{"cpu":"hot"}]"#, (400, "22P02", "field \\\"cpu\\\"")),
        ("a time without an offset", &post, &[], r#"{"at":"2026-02-03T04:05:06"}"#, (400, "22P02", "field \\\"at\\\"")),
        (
            "a broken line",
            &post,
            &[("content-type", "application/x-ndjson")],
            "{\"cpu\":1}\n{\"cpu\"",
            (400, "PGRST102", "line 2 column 6"),
        ),
        ("no body", &post, &[], "", (400, "PGRST102", "the body is empty")),
        ("representation", &post, &[("prefer", "return=representation")], "{}", (400, "PGRST127", "return=representation")),
        ("a change", "PATCH /rest/v1/vitals?cpu=eq.1", &[], r#"{"cpu":2}"#, (405, "25006", "stream")),
        ("a method that nothing has", "OPTIONS /rest/v1/vitals", &[], "", (405, "PGRST117", "it takes GET, HEAD, POST")),
        ("a removal", "DELETE /rest/v1/vitals?cpu=eq.1", &[], "", (405, "25006", "stream")),
    ];
    for (name, line, headers, body, (status, code, words)) in cases {
        let answer = world.ask(line, headers, body.to_owned()).await;
        answer.is_problem(name, status, code, words);
        assert_eq!(answer.header("allow"), if status == 405 { "GET, HEAD, POST" } else { "" }, "{name}");
    }
    assert_eq!(world.rows(VITALS).await, json!([]));
    assert_eq!(world.memory.entries.load(Ordering::Relaxed), 0);
    assert_eq!(world.send(&post, json!([]), 201).await.header("mobo-ack"), "", "no samples, no entry");
    let most = vec![json!({}); 5_001];
    let many = world.ask(&post, &[], Json::from(most).to_string()).await;
    many.is_problem("more samples than a request takes", 413, "54000", "at most 5000 rows");
}
