//! Tables and documents: reading, writing, and what answers say.

use std::sync::atomic::Ordering;

use mobo_gate::NodeKind;
use serde_json::json;

use crate::{Headers, World};

const ORDERS: &str = "/rest/v1/work_orders";

async fn three_orders() -> World {
    let world = World::new(NodeKind::Edge);
    let rows = json!([
        { "id": "a", "title": "Pump", "rank": 3, "open": true, "due": "2026-02-03T05:05:06+01:00", "meta": { "b": 1, "a": [1.0] } },
        { "id": "b", "title": "Valve", "rank": 1, "load": 0.5, "hours": 2, "raw": "AAE=" },
        { "id": 7, "title": "Ölfilter, groß", "open": false },
    ]);
    world.send(&format!("POST {ORDERS}"), rows, 201).await;
    world
}

#[tokio::test]
async fn rows_come_back_as_they_were_written() {
    let world = three_orders().await;
    let want = json!([
        { "id": "7", "title": "Ölfilter, groß", "status": null, "hours": 0, "rank": null, "load": null, "open": false, "due": null, "meta": null, "raw": null },
        { "id": "a", "title": "Pump", "status": null, "hours": 0, "rank": 3, "load": null, "open": true,
          "due": "2026-02-03T04:05:06.000000Z", "meta": { "a": [1], "b": 1 }, "raw": null },
        { "id": "b", "title": "Valve", "status": null, "hours": 2, "rank": 1, "load": 0.5, "open": null, "due": null, "meta": null, "raw": "AAE=" },
    ]);
    assert_eq!(world.rows(ORDERS).await, want);
    let note = json!({ "id": "n", "body": "Hi", "tags": ["x"], "likes": 1 });
    world.send("POST /rest/v1/notes", note.clone(), 201).await;
    world.send("PATCH /rest/v1/notes?id=eq.n", json!({ "likes": { "$inc": 2 }, "body": "Hi all" }), 204).await;
    let now = json!([{ "id": "n", "body": "Hi all", "tags": ["x"], "likes": 3 }]);
    assert_eq!(world.rows("/rest/v1/notes").await, now);
    let headers = [("prefer", "return=representation, resolution=merge-duplicates, count=exact"), ("content-type", "application/json")];
    for (line, body, range) in
        [("PATCH /rest/v1/notes?id=eq.n", r#"{"body":"Hi all"}"#, "0-0/1"), ("POST /rest/v1/notes", r#"{"id":"n","likes":3}"#, "*/1")]
    {
        let same = world.ask(line, &headers, body).await;
        assert_eq!((same.json(), same.header("content-range")), (now.clone(), range), "{line}: what is so already is shown, too");
    }
}

#[tokio::test]
async fn queries_find_rows() {
    let world = three_orders().await;
    let cases = [
        ("id=eq.a", "a"),
        ("id=in.(b,7,x)", "7 b"),
        ("title=eq.%C3%96lfilter,+gro%C3%9F", "7"),
        ("rank=gte.1&rank=lt.3", "b"),
        ("rank=not.eq.1", "a"),
        ("rank=is.null", "7"),
        ("rank=not.is.null&order=rank.desc", "a b"),
        ("order=rank", "b a 7"),
        ("order=rank.desc", "7 a b"),
        ("order=rank.desc.nullslast", "a b 7"),
        ("order=open.nullsfirst,id.desc", "b 7 a"),
        ("open=eq.true", "a"),
        ("load=lte.0.5", "b"),
        ("due=eq.2026-02-03T04:05:06Z", "a"),
        ("meta=eq.%7B%22b%22:1,%22a%22:[1]%7D", "a"),
        ("raw=eq.AAE%3D", "b"),
        ("hours=gt.0", "b"),
        ("order=id&limit=1&offset=1", "a"),
        ("limit=0", ""),
        ("offset=3", ""),
    ];
    for (query, want) in cases {
        let rows = world.rows(&format!("{ORDERS}?{query}")).await;
        let ids: Vec<&str> = rows.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap()).collect();
        assert_eq!(ids.join(" "), want, "{query}");
    }
    assert_eq!(world.rows(&format!("{ORDERS}?select=name:title,rank&id=eq.a")).await, json!([{ "name": "Pump", "rank": 3 }]));
}

#[tokio::test]
async fn answers_say_which_rows_they_hold() {
    let world = three_orders().await;
    let count = ("prefer", "count=exact");
    let cases: [(&str, Headers<'_>, u16, &str); 9] = [
        ("", &[], 200, "0-2/*"),
        ("", &[count], 200, "0-2/3"),
        ("limit=2", &[count], 206, "0-1/3"),
        ("limit=2&offset=2", &[count], 206, "2-2/3"),
        ("", &[("range", "1-1"), ("range-unit", "items"), count], 206, "1-1/3"),
        ("id=eq.x", &[], 200, "*/*"),
        ("id=eq.x", &[count], 200, "*/0"),
        ("limit=0", &[count], 206, "*/3"),
        ("offset=3", &[count], 206, "*/3"),
    ];
    for (query, headers, status, content_range) in cases {
        for method in ["GET", "HEAD"] {
            let answer = world.ask(&format!("{method} {ORDERS}?{query}"), headers, "").await;
            assert_eq!((answer.status, answer.header("content-range")), (status, content_range), "{method} {query}");
            assert_eq!(answer.header("range-unit"), "items");
            assert_eq!(answer.header("vary"), "Accept, Prefer, Range");
            assert_eq!(answer.header("content-type"), "application/json; charset=utf-8");
            assert_eq!(answer.text.is_empty(), method == "HEAD");
        }
    }
    let whole = world.ask(&format!("GET {ORDERS}"), &[], "").await.text.len();
    assert_eq!(world.ask(&format!("HEAD {ORDERS}"), &[], "").await.header("content-length"), whole.to_string());
    let behind = world.ask(&format!("GET {ORDERS}?offset=4"), &[count], "").await;
    behind.is_problem("offset behind the end", 416, "PGRST103", "only 3 rows");
}

#[tokio::test]
async fn one_row_is_an_object_where_it_is_asked_for() {
    let world = three_orders().await;
    let object = ("accept", "application/vnd.pgrst.object+json");
    let answer = world.ask(&format!("GET {ORDERS}?id=eq.a&select=id,load"), &[object], "").await;
    assert_eq!(answer.json(), json!({ "id": "a", "load": null }));
    assert_eq!(answer.header("content-type"), "application/vnd.pgrst.object+json; charset=utf-8");
    let stripped = ("accept", "text/html, application/vnd.pgrst.object+json;nulls=stripped, */*;q=0.1");
    assert_eq!(world.ask(&format!("GET {ORDERS}?id=eq.a&select=id,load"), &[stripped], "").await.json(), json!({ "id": "a" }));
    let entries = world.memory.entries.load(Ordering::Relaxed);
    let representation = ("prefer", "return=representation");
    for (line, body, rows) in [
        (format!("GET {ORDERS}?id=eq.x"), "", 0),
        (format!("GET {ORDERS}"), "", 3),
        (format!("POST {ORDERS}"), r#"[{},{}]"#, 2),
        (format!("PATCH {ORDERS}?id=in.(a,b)"), r#"{"rank":9}"#, 2),
        (format!("DELETE {ORDERS}?id=eq.x"), "", 0),
    ] {
        let answer = world.ask(&line, &[object, representation], body).await;
        answer.is_problem(&line, 406, "PGRST116", &format!("The result contains {rows} rows"));
    }
    assert_eq!(world.memory.entries.load(Ordering::Relaxed), entries, "nothing was written");
    let one = world.ask(&format!("POST {ORDERS}?select=id,rank"), &[object, representation], r#"{"id":"c","rank":1}"#).await;
    assert_eq!((one.status, one.json()), (201, json!({ "id": "c", "rank": 1 })));
}

#[tokio::test]
async fn inserts_say_what_was_asked_for() {
    let world = World::new(NodeKind::Edge);
    let line = format!("POST {ORDERS}");
    let minimal = world.ask(&line, &[], r#"{"id":"a"}"#).await;
    assert_eq!((minimal.status, minimal.text.as_str(), minimal.header("mobo-ack")), (201, "", "local"));
    let headers = world.ask(&line, &[("prefer", "return=headers-only, count=exact")], r#"{"id":"ä/b &c"}"#).await;
    assert_eq!(headers.header("location"), "/rest/v1/work_orders?id=eq.%C3%A4%2Fb%20%26c");
    assert_eq!(headers.header("content-range"), "*/1");
    assert_eq!(headers.header("preference-applied"), "return=headers-only, count=exact");
    let found = world.rows(headers.header("location")).await;
    assert_eq!(found[0]["id"], "ä/b &c");
    let full = world
        .ask(&format!("{line}?select=id,key:title"), &[("prefer", "return=representation")], r#"[{"id":"z","title":"Z"},{"id":"y"}]"#)
        .await;
    assert_eq!(
        (full.status, full.json()),
        (201, json!([{ "id": "z", "key": "Z" }, { "id": "y", "key": null }])),
        "in the order of the request"
    );
    let made = world.ask(&line, &[("prefer", "return=representation")], r#"{"title":"without an id"}"#).await.json();
    assert_eq!(made[0]["id"].as_str().unwrap().len(), 36, "{made}");
    let entries = world.memory.entries.load(Ordering::Relaxed);
    let lines = world.ask(&line, &[("content-type", "application/x-ndjson")], "{\"id\":\"l1\"}\n\n{\"id\":\"l2\"}\r\n").await;
    assert_eq!(lines.status, 201, "{}", lines.text);
    assert_eq!(world.rows(&format!("{ORDERS}?id=in.(l1,l2)&select=id")).await, json!([{ "id": "l1" }, { "id": "l2" }]));
    assert_eq!(world.memory.entries.load(Ordering::Relaxed), entries + 1, "one request is one entry");
    let nothing = world.send(&line, json!([]), 201).await;
    assert_eq!(nothing.header("mobo-ack"), "");
    assert_eq!(world.memory.entries.load(Ordering::Relaxed), entries + 1, "an empty array writes nothing");
    world.send(&format!("{line}?columns=id,%22title%22"), json!({ "id": "k", "title": "K", "rank": 1, "nonsense": 1 }), 201).await;
    assert_eq!(world.rows(&format!("{ORDERS}?id=eq.k&select=title,rank")).await, json!([{ "title": "K", "rank": null }]));
}

#[tokio::test]
async fn a_duplicate_fails_merges_or_is_passed_over() {
    let world = three_orders().await;
    let line = format!("POST {ORDERS}?on_conflict=id");
    let twice = world.ask(&line, &[], r#"[{"id":"new"},{"id":"a","title":"X"}]"#).await;
    twice.is_problem("insert of what is there", 409, "23505", "Key (id)=(a) already exists.");
    let within = world.ask(&line, &[], r#"[{"id":"new"},{"id":"new"}]"#).await;
    within.is_problem("the same id twice in one request", 409, "23505", "Key (id)=(new) already exists.");
    assert_eq!(world.rows(&format!("{ORDERS}?id=eq.new")).await, json!([]), "all or nothing");

    let body = r#"[{"id":"a","title":"Pump 2","hours":{"$inc":3}},{"id":"c","title":"C"}]"#;
    let merged = world.ask(&line, &[("prefer", "resolution=merge-duplicates")], body).await;
    assert_eq!((merged.status, merged.header("preference-applied")), (201, "resolution=merge-duplicates"));
    let rows = world.rows(&format!("{ORDERS}?id=in.(a,c)&select=id,title,rank,hours")).await;
    assert_eq!(
        rows,
        json!([{ "id": "a", "title": "Pump 2", "rank": 3, "hours": 3 }, { "id": "c", "title": "C", "rank": null, "hours": 0 }]),
        "fields that are not given stay"
    );

    let prefer = ("prefer", "resolution=ignore-duplicates, return=representation");
    let ignored = world.ask(&format!("{line}&select=id"), &[prefer], r#"[{"id":"a","title":"no"},{"id":"d"}]"#).await;
    assert_eq!((ignored.status, ignored.json()), (201, json!([{ "id": "d" }])), "only what was inserted");
    assert_eq!(world.rows(&format!("{ORDERS}?id=eq.a&select=title")).await, json!([{ "title": "Pump 2" }]));
}

#[tokio::test]
async fn changes_touch_what_the_filters_let_through() {
    let world = three_orders().await;
    let patched = world.send(&format!("PATCH {ORDERS}?rank=gte.1"), json!({ "status": "due", "hours": { "$inc": 2 } }), 204).await;
    assert_eq!((patched.text.as_str(), patched.header("content-range"), patched.header("mobo-ack")), ("", "0-1/*", "local"));
    let hours = world.rows(&format!("{ORDERS}?select=id,status,hours")).await;
    assert_eq!(
        hours,
        json!([
            { "id": "7", "status": null, "hours": 0 },
            { "id": "a", "status": "due", "hours": 2 },
            { "id": "b", "status": "due", "hours": 4 },
        ])
    );
    let headers = [("prefer", "return=representation, count=exact"), ("content-type", "application/json")];
    let shown = world.ask(&format!("PATCH {ORDERS}?id=eq.a&select=id,hours"), &headers, r#"{"id":"a","hours":10}"#).await;
    assert_eq!((shown.status, shown.header("content-range"), shown.json()), (200, "0-0/1", json!([{ "id": "a", "hours": 10 }])));
    let none = world.ask(&format!("PATCH {ORDERS}?id=eq.x"), &headers, r#"{"rank":1}"#).await;
    assert_eq!((none.status, none.header("content-range"), none.json()), (200, "*/0", json!([])));
    let entries = world.memory.entries.load(Ordering::Relaxed);
    world.send(&format!("PATCH {ORDERS}?id=eq.a"), json!({}), 204).await;
    assert_eq!(world.memory.entries.load(Ordering::Relaxed), entries, "no field, no entry");
    world.send(&format!("PATCH {ORDERS}?order=id.desc&limit=1&id=not.is.null"), json!({ "rank": 99 }), 204).await;
    assert_eq!(world.rows(&format!("{ORDERS}?rank=eq.99&select=id")).await, json!([{ "id": "b" }]), "a limit is kept");

    let gone = world.ask(&format!("DELETE {ORDERS}?id=in.(a,x)&select=id,title"), &headers, "").await;
    assert_eq!((gone.status, gone.header("content-range"), gone.json()), (200, "0-0/1", json!([{ "id": "a", "title": "Pump" }])));
    assert_eq!(world.ask(&format!("DELETE {ORDERS}?id=eq.a"), &[], "").await.status, 204, "gone already");
    world.send(&format!("POST {ORDERS}"), json!({ "id": "a" }), 201).await;
    let revived = world.rows(&format!("{ORDERS}?id=eq.a&select=title,hours")).await;
    assert_eq!(revived, json!([{ "title": null, "hours": 0 }]), "a revived row starts anew");
    let all = [("prefer", "handling=strict, max-affected=3")];
    assert_eq!(world.ask(&format!("DELETE {ORDERS}"), &all, "").await.status, 204);
    assert_eq!(world.rows(ORDERS).await, json!([]));
}
