//! The whole grammar over one gate: cursors, CSV and forms, PUT, versions, keys of writes, quotas.

use axum::http::StatusCode;
use mobo_gate::{NodeKind, Rates, Settings};
use serde_json::{Value as Json, json};

use crate::World;

async fn world() -> World {
    let world = World::new(NodeKind::Edge);
    let rows: Vec<Json> =
        (0..7).map(|n| json!({"id": format!("r{n}"), "title": format!("t{}", n % 3), "rank": (n % 2 == 0).then_some(n)})).collect();
    world.send("POST /rest/v1/work_orders", Json::from(rows), 201).await;
    world
}

#[tokio::test]
async fn cursors_lead_through_all_rows_once() {
    let world = world().await;
    for order in ["", "rank.desc", "rank.asc.nullsfirst,title.desc", "title,rank.desc.nullslast", "id.desc"] {
        let sorted = if order.is_empty() { String::new() } else { format!("&order={order}") };
        let all = world.rows(&format!("/rest/v1/work_orders?select=id{sorted}")).await;
        let mut line = format!("GET /rest/v1/work_orders?select=id&limit=2{sorted}");
        let mut found = Vec::new();
        loop {
            let answer = world.ask(&line, &[], "").await;
            assert_eq!(answer.status, StatusCode::OK, "{line}: {}", answer.text);
            found.extend(answer.json().as_array().unwrap().clone());
            let link = answer.header("link").to_owned();
            let Some((path, _)) = link.strip_prefix('<').and_then(|link| link.split_once(">; rel=\"next\"")) else { break };
            line = format!("GET {path}");
            assert!(found.len() < 20, "{order} has no end");
        }
        assert_eq!(Json::from(found), all, "{order}");
    }
    let first = world.ask("GET /rest/v1/work_orders?limit=2", &[], "").await;
    let (path, _) = first.header("link").trim_start_matches('<').split_once('>').unwrap();
    let other = world.ask(&format!("GET {path}&order=title"), &[], "").await;
    other.is_problem("a cursor of another order", 400, "PGRST100", "another order");
    let offset = world.ask(&format!("GET {path}&offset=1"), &[], "").await;
    offset.is_problem("a cursor with an offset", 400, "PGRST100", "without an offset");
}

#[tokio::test]
async fn csv_and_forms_come_and_go() {
    let world = World::new(NodeKind::Edge);
    let csv = "id,title,rank,open\r\na,\"x, \"\"y\"\"\",7,true\r\nb,,NULL,\r\n";
    let answer = world.ask("POST /rest/v1/work_orders", &[("content-type", "text/csv")], csv).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let form =
        world.ask("POST /rest/v1/work_orders", &[("content-type", "application/x-www-form-urlencoded")], "id=c&title=a+b%26&rank=3").await;
    assert_eq!(form.status, 201, "{}", form.text);
    let read = world.ask("GET /rest/v1/work_orders?select=id,name:title,rank,open&order=id", &[("accept", "text/csv")], "").await;
    assert_eq!(read.text, "id,name,rank,open\na,\"x, \"\"y\"\"\",7,true\nb,\"\",,\nc,a b&,3,\n");
    assert_eq!(read.header("content-type"), "text/csv; charset=utf-8");
}

#[tokio::test]
async fn versions_stop_lost_updates() {
    let world = world().await;
    let one = "/rest/v1/work_orders?id=eq.r1";
    let read = world.ask(&format!("GET {one}"), &[], "").await;
    let tag = read.header("etag").to_owned();
    assert!(tag.starts_with('"') && tag.len() > 10, "{read:?}");
    let again = world.ask(&format!("GET {one}&select=title"), &[("if-none-match", &tag)], "").await;
    assert_eq!(
        (again.status, again.text.as_str(), again.header("etag")),
        (304, "", tag.as_str()),
        "of the record, not of what is shown of it"
    );
    let json = ("content-type", "application/json");
    let patch = |tag: String, body: &'static str| {
        let world = &world;
        async move { world.ask(&format!("PATCH {one}"), &[json, ("if-match", &tag)], body).await }
    };
    assert_eq!(patch(tag.clone(), "{\"title\":\"mine\"}").await.status, 204);
    patch(tag.clone(), "{\"title\":\"theirs\"}").await.is_problem("a lost update", 412, "MB412", "its new ETag");
    assert_eq!(patch("*".to_owned(), "{\"title\":\"any\"}").await.status, 204);
    // A version in the body is looked at in the same transaction.
    let stale = world.ask(&format!("PATCH {one}"), &[json], format!("{{\"mobo_ver\":{tag},\"rank\":1}}")).await;
    stale.is_problem("a stale version", 412, "MB412", "changed meanwhile");
    world.ask(&format!("DELETE {one}"), &[("if-match", &tag)], "").await.is_problem("a stale removal", 412, "MB412", "");
    let fresh = world.ask(&format!("GET {one}"), &[], "").await.header("etag").to_owned();
    assert_eq!(world.ask(&format!("DELETE {one}"), &[("if-match", &fresh)], "").await.status, 204);
    assert_eq!(world.ask(&format!("GET {one}"), &[], "").await.header("etag"), "");
}

#[tokio::test]
async fn put_makes_or_replaces_one_record() {
    let world = World::new(NodeKind::Edge);
    let one = "PUT /rest/v1/work_orders?id=eq.p";
    world.send(one, json!({"title": "a", "rank": 1}), 201).await;
    world.send(one, json!({"id": "p", "title": "b"}), 204).await;
    assert_eq!(world.rows("/rest/v1/work_orders?select=id,title,rank").await, json!([{"id": "p", "title": "b", "rank": null}]));
}

/// What broke: `If-None-Match: *`, by which HTTP says "only if it is new", was passed over, and the record was replaced.
#[tokio::test]
async fn put_may_say_that_it_only_makes() {
    let world = World::new(NodeKind::Edge);
    let headers = [("content-type", "application/json"), ("if-none-match", "*")];
    let ask = |body: &'static str| world.ask("PUT /rest/v1/work_orders?id=eq.p", &headers, body);
    assert_eq!(ask(r#"{"title":"first"}"#).await.status, 201);
    ask(r#"{"title":"second"}"#).await.is_problem("what is there", 412, "MB412", "nothing was written");
    assert_eq!(world.rows("/rest/v1/work_orders?select=title").await, json!([{"title": "first"}]));
    // The one schema that there is has the name that clients give it.
    let named = world.ask("GET /rest/v1/work_orders?select=id", &[("accept-profile", "public"), ("content-profile", "x")], "").await;
    assert_eq!((named.status, named.json()), (200, json!([{"id": "p"}])));
}

#[tokio::test]
async fn a_write_with_a_key_happens_once() {
    let world = World::new(NodeKind::Edge);
    let json = ("content-type", "application/json");
    let post = |key: &'static str, body: &'static str| {
        let world = &world;
        async move { world.ask("POST /rest/v1/work_orders", &[json, ("idempotency-key", key), ("prefer", "return=representation")], body).await }
    };
    let first = post("\"k-1\"", "{\"title\":\"a\"}").await;
    assert_eq!((first.status, first.header("idempotent-replayed")), (201, ""), "{}", first.text);
    let second = post("k-1", "{\"title\":\"a\"}").await;
    assert_eq!((second.status, second.header("idempotent-replayed")), (201, "true"));
    assert_eq!(second.text, first.text);
    post("k-1", "{\"title\":\"b\"}").await.is_problem("another write", 422, "MB422", "another request");
    assert_eq!(post("k-2", "{\"title\":\"a\"}").await.status, 201);
    assert_eq!(world.rows("/rest/v1/work_orders").await.as_array().unwrap().len(), 2);
    // A refusal is an answer, too.
    let bad = post("k-3", "{\"titel\":1}").await;
    let again = post("k-3", "{\"titel\":1}").await;
    assert_eq!((bad.status, again.status), (400, 400));
}

// faults: X-14
#[tokio::test]
async fn strangers_who_ask_too_often_are_told_when_to_come_back() {
    let settings = Settings { rates: Rates { guest: 3, key: 100, auth: 2 }, ..Settings::default() };
    let world = World::with(NodeKind::Hub, settings);
    let ask = |headers: &'static [(&'static str, &'static str)]| world.ask_from("192.0.2.1:9", "GET /rest/v1/work_orders", headers, "");
    let first = ask(&[]).await;
    assert_eq!((first.status, first.header("ratelimit-policy"), first.header("x-ratelimit-remaining")), (401, "\"guest\";q=3;w=60", "2"));
    assert!(first.header("ratelimit").starts_with("\"guest\";r=2;t="), "{first:?}");
    ask(&[]).await;
    ask(&[]).await;
    let over = ask(&[]).await;
    over.is_problem("too many", 429, "MB429", "http-problem-types#quota-exceeded");
    assert!((1..=61).contains(&over.header("retry-after").parse::<u32>().unwrap()), "{over:?}");
    // Guessing keys does not help, and is over sooner.
    let guess = |key: &'static str| {
        let world = &world;
        async move { world.ask_from("192.0.2.2:9", "GET /rest/v1/work_orders", &[("apikey", key)], "").await }
    };
    assert_eq!((guess("a").await.status, guess("b").await.status, guess("c").await.status), (401, 401, 429));
    assert_eq!(world.ask("GET /livez", &[("host", "localhost")], "").await.status, 200);
}

#[tokio::test]
async fn trees_and_paths_reach_the_store() {
    let world = world().await;
    let ids = |query: &'static str| {
        let world = &world;
        async move {
            let rows = world.rows(&format!("/rest/v1/work_orders?select=id&{query}")).await;
            rows.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
        }
    };
    assert_eq!(ids("or=(rank.eq.2,and(title.eq.t0,rank.is.null))").await, "r2 r3");
    assert_eq!(ids("title=like(any).%7Bt0,*2%7D&rank=not.is.null").await, "r0 r2 r6");
    assert_eq!(ids("rank=not.in.(0,2)").await, "r4 r6");
    let repeated = "rank.desc,".repeat(300);
    assert_eq!(ids(Box::leak(format!("rank=not.is.null&order={repeated}rank.asc,id").into_boxed_str())).await, "r6 r4 r2 r0");
    assert_eq!(world.rows("/rest/v1/work_orders?select=rank::text&id=eq.r4").await, json!([{"rank": "4"}]));
}
