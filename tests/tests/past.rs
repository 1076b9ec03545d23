//! What was: who wrote a record, from which device, what merges decided, and the record as it was.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use mobo_tests::cluster::{Cluster, Place};
use serde_json::{Value, json};

const NOTES: &[&str] = &["notes", "--kind", "document", "title:text", "rank:int", "likes:counter"];
const ORDERS: &[&str] = &["orders", "title:text", "n:int"];

fn told(place: Place) {
    let mut cluster = Cluster::boot(place);
    cluster.create(&[NOTES, ORDERS]);
    let device = cluster.device("pi");
    let mut api = cluster.api();
    api.post("/rest/v1/notes", &json!({ "id": "n", "title": "Pump", "rank": 1 })).unwrap().expect_status(201);
    api.patch("/rest/v1/notes?id=eq.n", &json!({ "rank": 2, "likes": { "$inc": 5 } })).unwrap().expect_status(204);
    api.post("/rest/v1/orders", &json!({ "id": "w", "title": "Pump", "n": 1 })).unwrap().expect_status(201);
    cluster.converge(&[&device]);
    // Both sides write while they cannot reach each other: a merge decides.
    cluster.stop_hub();
    device.cli().args(["patch", "notes", "n", r#"{"rank": 7}"#]).run().expect_success();
    device.cli().args(["patch", "orders", "w", r#"{"n": 7}"#]).run().expect_success();
    cluster.start_hub();
    cluster.converge(&[&device]);
    let mut api =
        cluster.hub().http().with_header("apikey", &cluster.cli().args(["key", "create", "--name", "later"]).run().expect_success().text());

    let history = api.get("/rest/v1/notes/n/history").unwrap().expect_status(200).json();
    let of = |n: usize| &history["changes"][n];
    assert_eq!(history["changes"].as_array().unwrap().len(), 3, "{history}");
    assert_eq!((&of(0)["device"], &of(0)["action"]), (&json!("pi"), &json!("update")), "{history}");
    assert_eq!(of(0)["changed"], json!({ "rank": { "from": 2, "to": 7 } }), "{history}");
    assert_eq!((&of(1)["device"], &of(1)["by"]), (&json!("hub"), &json!("key:test")), "{history}");
    assert_eq!(of(1)["changed"], json!({ "rank": { "from": 1, "to": 2 }, "likes": { "from": 0, "to": 5 } }), "{history}");
    assert_eq!((&of(2)["action"], &of(2)["changed"]["title"]["to"]), (&json!("insert"), &json!("Pump")), "{history}");
    assert_eq!((&history["record"]["rank"], &history["complete"]), (&json!(7), &json!(true)), "{history}");

    let at = |moment: &Value| format!("/rest/v1/notes?id=eq.n&select=rank,likes&at={}", moment.as_str().unwrap());
    for (n, want) in
        [(2, json!([{ "rank": 1, "likes": 0 }])), (1, json!([{ "rank": 2, "likes": 5 }])), (0, json!([{ "rank": 7, "likes": 5 }]))]
    {
        assert_eq!(api.get(&at(&of(n)["version"])).unwrap().expect_status(200).json(), want, "after change {n}");
        assert_eq!(api.get(&at(&of(n)["at"])).unwrap().expect_status(200).json(), want, "at the time of change {n}");
    }
    let long_ago = api.get(&at(&json!("2020-01-01T00:00:00Z"))).unwrap().expect_status(200).json();
    assert_eq!(long_ago, json!([]), "nobody had written it");

    let history = api.get("/rest/v1/orders/w/history").unwrap().expect_status(200).json();
    assert_eq!((&history["complete"], &history["record"]["n"]), (&json!(false), &json!(7)), "{history}");
    assert_eq!(
        (&history["changes"][0]["device"], &history["changes"][0]["changed"]),
        (&json!("pi"), &json!({ "n": { "to": 7 } })),
        "{history}"
    );
    for (path, status, code) in [
        ("/rest/v1/orders?id=eq.w&at=2020-01-01T00:00:00Z", 400, "PGRST127"),
        ("/rest/v1/notes?at=2020-01-01T00:00:00Z", 400, "PGRST100"),
        ("/rest/v1/notes?id=eq.n&at=yesterday", 400, "22P02"),
        ("/rest/v1/notes?id=eq.n&at=00000000", 404, "MB404"),
        ("/rest/v1/notes/nobody/history", 404, "PGRST116"),
        ("/rest/v1/note/n/history", 404, "PGRST205"),
    ] {
        assert_eq!(api.get(path).unwrap().expect_status(status).json()["code"], code, "{path}");
    }
    // A device knows what stands, not who wrote it.
    let refused = device.http().get("/rest/v1/notes/n/history").unwrap().expect_status(400).json();
    assert_eq!(refused["code"], "PGRST127", "{refused}");
}

#[test]
fn what_was_is_told_by_a_hub_on_sqlite() {
    told(Place::Sqlite);
}

#[test]
fn what_was_is_told_by_a_hub_on_postgres() {
    told(Place::Postgres);
}
