//! What was: who wrote a record, from which device, what merges decided, and the record as it was.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use std::collections::BTreeSet;
use std::time::Duration;

use mobo_tests::cluster::{Cluster, Place};
use mobo_tests::http::Client;
use mobo_tests::process::Node;
use mobo_tests::wait;
use serde_json::{Map, Value, json};

const NOTES: &[&str] = &["notes", "--kind", "document", "title:text", "rank:int", "likes:counter"];
const ORDERS: &[&str] = &["orders", "title:text", "n:int", "hours:counter"];

fn documents(place: Place) {
    let mut cluster = Cluster::boot(place);
    cluster.create(&[NOTES]);
    let device = cluster.device("pi");
    let mut api = cluster.api();
    api.post("/rest/v1/notes", &json!({ "id": "n", "title": "Pump", "rank": 1 })).unwrap().expect_status(201);
    api.patch("/rest/v1/notes?id=eq.n", &json!({ "rank": 2, "likes": { "$inc": 5 } })).unwrap().expect_status(204);
    cluster.converge(&[&device]);
    // Both sides write while they cannot reach each other: a merge decides.
    cluster.stop_hub();
    device.cli().args(["patch", "notes", "n", r#"{"rank": 7}"#]).run().expect_success();
    cluster.start_hub();
    cluster.converge(&[&device]);
    let mut api = client(&cluster, "later");

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

    for (path, status, code) in [
        ("/rest/v1/notes/n/history?limit=0", 400, "22P02"),
        ("/rest/v1/notes/n/history?after=00", 400, "PGRST100"),
        ("/rest/v1/notes/n/history?order=at", 400, "PGRST100"),
        ("/rest/v1/notes?at=2020-01-01T00:00:00Z", 400, "PGRST100"),
        ("/rest/v1/notes?id=eq.n&at=yesterday", 400, "22P02"),
        ("/rest/v1/notes?id=eq.n&at=00000000", 404, "MB404"),
        ("/rest/v1/notes/nobody/history", 404, "PGRST116"),
        ("/rest/v1/note/n/history", 404, "PGRST205"),
    ] {
        assert_eq!(api.get(path).unwrap().expect_status(status).json()["code"], code, "{path}");
    }
    // A device has all changes of a document, and does not know when others made theirs.
    let mut local = device.http();
    let here = local.get("/rest/v1/notes/n/history").unwrap().expect_status(200).json();
    let versions = |history: &Value| -> BTreeSet<String> {
        history["changes"].as_array().unwrap().iter().map(|change| change["version"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(versions(&here), versions(&history), "{here}");
    assert_eq!(local.get(&at(&of(2)["version"])).unwrap().expect_status(200).json(), json!([{ "rank": 1, "likes": 0 }]));
    assert_eq!(local.get(&at(&of(2)["at"])).unwrap().expect_status(400).json()["code"], "PGRST127");
}

/// A client with a key of that name.
fn client(cluster: &Cluster, name: &str) -> Client {
    let key = cluster.cli().args(["key", "create", "--role", "service", "--name", name]).run().expect_success().text();
    cluster.hub().http().with_header("apikey", &key)
}

/// Two devices write one row while they cannot reach the hub; then somebody writes it by SQL, it is deleted, and it comes back.
fn lived(cluster: &mut Cluster, [pi, pump]: [&Node; 2]) {
    let mut api = client(cluster, "first");
    api.post("/rest/v1/orders", &json!({ "id": "w", "title": "Pump", "n": 1, "hours": 2 })).unwrap().expect_status(201);
    cluster.converge(&[pi, pump]);
    cluster.stop_hub();
    pi.cli().args(["patch", "orders", "w", r#"{"n": 7}"#]).run().expect_success();
    pump.cli().args(["patch", "orders", "w", r#"{"n": 9, "hours": {"$inc": 3}}"#]).run().expect_success();
    cluster.start_hub();
    cluster.converge(&[pi, pump]);
    let store = cluster.database.as_ref().map_or_else(|| "sqlite".to_owned(), |database| database.url());
    let sql = "UPDATE orders SET title = 'by SQL' WHERE id = 'w'";
    cluster.cli().args(["--set", &format!("store.url={store}"), "sql", sql]).run().expect_success();
    let mut api = client(cluster, "later");
    wait::until("the SQL to be taken in", Duration::from_secs(60), || {
        let changes = api.get("/rest/v1/orders/w/history").unwrap().expect_status(200).json()["changes"].as_array().unwrap().len();
        (changes == 4).then_some(())
    });
    api.delete("/rest/v1/orders?id=eq.w").unwrap().expect_status(204);
    api.post("/rest/v1/orders", &json!({ "id": "w", "title": "again" })).unwrap().expect_status(201);
    cluster.converge(&[pi, pump]);
}

/// Each change names the row before it, and leads from one row to the next; what is read at its version and at its time is the row after it.
fn goes_from_row_to_row(api: &mut Client, changes: &[Value]) {
    let mut row: Option<Map<String, Value>> = None;
    for change in changes.iter().rev() {
        for (field, values) in change["changed"].as_object().unwrap() {
            let before = row.as_ref().and_then(|row| row.get(field)).cloned().unwrap_or(Value::Null);
            assert_eq!(values["from"], before, "{field} of {change}");
        }
        let mut after = row.unwrap_or_default();
        after.extend(change["changed"].as_object().unwrap().iter().map(|(field, values)| (field.clone(), values["to"].clone())));
        row = (change["action"] != "delete").then_some(after);
        let want: Vec<Value> = row.iter().map(|row| json!({ "title": row["title"], "n": row.get("n"), "hours": row["hours"] })).collect();
        for at in [&change["version"], &change["at"]] {
            let path = format!("/rest/v1/orders?id=eq.w&select=title,n,hours&at={}", at.as_str().unwrap());
            assert_eq!(api.get(&path).unwrap().expect_status(200).json(), json!(want), "{path}");
        }
    }
}

fn rows(place: Place) {
    let mut cluster = Cluster::boot(place);
    cluster.create(&[ORDERS]);
    let (pi, pump) = (cluster.device("pi"), cluster.device("pump"));
    lived(&mut cluster, [&pi, &pump]);
    let mut api = client(&cluster, "reader");
    let history = api.get("/rest/v1/orders/w/history").unwrap().expect_status(200).json();
    let changes = history["changes"].as_array().unwrap();
    assert_eq!((&history["complete"], &history["since"], &history["next"]), (&json!(true), &Value::Null, &Value::Null), "{history}");
    let of = |name: &str| changes.iter().map(|change| change[name].as_str().unwrap_or("-")).collect::<Vec<_>>();
    assert_eq!(of("action"), ["insert", "delete", "update", "update", "update", "insert"], "{history}");
    assert_eq!((of("by")[0], of("by")[1], of("by")[5]), ("key:later", "key:later", "key:first"), "{history}");
    assert_eq!(BTreeSet::from([of("device")[3], of("device")[4]]), BTreeSet::from(["pi", "pump"]), "{history}");
    assert_eq!((of("device")[2], &changes[2]["changed"]), ("hub", &json!({ "title": { "from": "Pump", "to": "by SQL" } })), "{history}");
    goes_from_row_to_row(&mut api, changes);
    assert_eq!(api.get("/rest/v1/orders?id=eq.w&at=2020-01-01T00:00:00Z").unwrap().expect_status(200).json(), json!([]));
    // What a merge decided, with the changes that it was between.
    let decision = &history["decisions"][0];
    let (winner, loser) = (&decision["winner"], &decision["loser"]);
    let values = BTreeSet::from([winner["value"].as_i64().unwrap(), loser["value"].as_i64().unwrap()]);
    assert_eq!((&decision["field"], &decision["kind"], values), (&json!("n"), &json!("concurrent"), BTreeSet::from([7, 9])), "{history}");
    assert_eq!((&winner["version"], &loser["version"]), (&changes[3]["version"], &changes[4]["version"]), "{history}");
    // In pages.
    let (mut path, mut paged) = ("/rest/v1/orders/w/history?limit=4".to_owned(), Vec::new());
    for count in [4, 2] {
        let answer = api.get(&path).unwrap().expect_status(200);
        let page = answer.json();
        assert_eq!(page["changes"].as_array().unwrap().len(), count, "{page}");
        paged.extend(page["changes"].as_array().unwrap().clone());
        assert_eq!(answer.header("link").is_some(), page["next"].is_string(), "{page}");
        path = format!("/rest/v1/orders/w/history?limit=4&after={}", page["next"].as_str().unwrap_or_default());
    }
    assert_eq!(&paged, changes);
    on_a_device(&pi, &history);
    for_somebody(&cluster);
}

/// A device tells its own writes and what stands; what a row was, it refuses by name.
fn on_a_device(device: &Node, history: &Value) {
    let mut local = device.http();
    let here = local.get("/rest/v1/orders/w/history").unwrap().expect_status(200).json();
    assert_eq!((&here["complete"], &here["record"]), (&json!(false), &history["record"]), "{here}");
    let own = here["changes"].as_array().unwrap().iter().find(|change| change["device"] == "pi");
    assert_eq!(own.map(|change| &change["changed"]), Some(&json!({ "n": { "to": 7 } })), "{here}");
    assert_eq!(
        (&here["changes"][0]["device"], &here["changes"][0]["changed"]["title"]),
        (&json!("hub"), &json!({ "to": "again" })),
        "{here}"
    );
    let refused = local.get("/rest/v1/orders?id=eq.w&at=2020-01-01T00:00:00Z").unwrap().expect_status(400).json();
    assert_eq!(refused["code"], "PGRST127", "{refused}");
}

/// The rows and fields of a policy hold for what was, too; and who may not see a record as it is sees nothing of what it was.
fn for_somebody(cluster: &Cluster) {
    let run = |words: &[&str]| cluster.cli().args(words).run().expect_success().text();
    run(&["policy", "set", "orders", "--role", "anon", "--allow", "read", "--where", "n=lt.5", "--field", "title,n"]);
    let key = run(&["key", "create", "--role", "anon", "--name", "somebody"]);
    let (mut api, mut anon) = (client(cluster, "writer"), cluster.hub().http().with_header("apikey", &key));
    api.post("/rest/v1/orders", &json!({ "id": "s", "title": "one", "n": 1, "hours": 4 })).unwrap().expect_status(201);
    for n in [9, 2, 3] {
        api.patch("/rest/v1/orders?id=eq.s", &json!({ "n": n, "hours": { "$inc": 1 } })).unwrap().expect_status(204);
    }
    let all = api.get("/rest/v1/orders/s/history").unwrap().expect_status(200).json();
    let seen = anon.get("/rest/v1/orders/s/history").unwrap().expect_status(200).json();
    let changed: Vec<&Value> = seen["changes"].as_array().unwrap().iter().map(|change| &change["changed"]).collect();
    let (last, first) =
        (json!({ "n": { "from": 2, "to": 3 } }), json!({ "title": { "from": null, "to": "one" }, "n": { "from": null, "to": 1 } }));
    assert_eq!(changed, [&last, &first], "{seen}");
    assert_eq!(seen["record"], json!({ "id": "s", "title": "one", "n": 3 }), "{seen}");
    for (nth, want) in [(3, json!([{ "title": "one", "n": 1 }])), (2, json!([])), (1, json!([{ "title": "one", "n": 2 }]))] {
        let version = all["changes"][nth]["version"].as_str().unwrap();
        let rows = anon.get(&format!("/rest/v1/orders?id=eq.s&select=title,n&at={version}")).unwrap().expect_status(200).json();
        assert_eq!(rows, want, "after change {nth} of {all}");
    }
    api.patch("/rest/v1/orders?id=eq.s", &json!({ "n": 9 })).unwrap().expect_status(204);
    anon.get("/rest/v1/orders/s/history").unwrap().expect_status(404);
    let version = all["changes"][3]["version"].as_str().unwrap();
    let rows = anon.get(&format!("/rest/v1/orders?id=eq.s&select=title&at={version}")).unwrap().expect_status(200).json();
    assert_eq!(rows, json!([]), "it was his, and is not");
}

#[test]
fn documents_are_told_by_a_hub_on_sqlite() {
    documents(Place::Sqlite);
}

#[test]
fn documents_are_told_by_a_hub_on_postgres() {
    documents(Place::Postgres);
}

#[test]
fn rows_are_told_by_a_hub_on_sqlite() {
    rows(Place::Sqlite);
}

#[test]
fn rows_are_told_by_a_hub_on_postgres() {
    rows(Place::Postgres);
}
