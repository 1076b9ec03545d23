//! Related records in one answer: along declared references, there and back, in one statement, and never past a policy.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use mobo_tests::cluster::{Cluster, Place};
use mobo_tests::http::Client;
use serde_json::{Value, json};

const SITES: &[&str] = &["sites", "name:text", "city:text", "owner:text", "code:int", "opened:timestamp", "plan:bytes"];
const PUMPS: &[&str] = &["pumps", "site:ref:sites", "spare:ref(sites)", "name:text", "rank:int"];
const READINGS: &[&str] = &["readings", "--kind", "stream", "pump:ref:pumps", "bar:float"];

fn world(place: Place) -> (Cluster, Client) {
    let cluster = Cluster::boot(place);
    cluster.create(&[SITES, PUMPS, READINGS]);
    let mut api = cluster.api();
    let sites = json!([
        { "id": "n", "name": "North", "city": "Kiel", "owner": "ada", "code": 7, "opened": "2026-01-02T03:04:05.000006Z", "plan": "AAE=" },
        { "id": "s", "name": "South", "city": "Ulm", "owner": "bob" },
    ]);
    let pumps = json!([
        { "id": "a", "site": "n", "spare": "s", "name": "one", "rank": 2 },
        { "id": "b", "site": "n", "name": "two", "rank": 1 },
        { "id": "c", "site": "s", "spare": "n", "name": "three", "rank": 3 },
        { "id": "d", "site": "gone", "name": "four", "rank": 4 },
        { "id": "e", "name": "five", "rank": 5 },
    ]);
    let readings = json!([
        { "at": "2026-03-01T00:00:00Z", "pump": "a", "bar": 1.5 },
        { "at": "2026-03-01T00:00:01Z", "pump": "b", "bar": 2.5 },
        { "at": "2026-03-01T00:00:02Z", "pump": "a", "bar": 0.5 },
    ]);
    for (name, rows) in [("sites", sites), ("pumps", pumps), ("readings", readings)] {
        api.post(&format!("/rest/v1/{name}"), &rows).unwrap().expect_status(201);
    }
    (cluster, api)
}

/// Every question, with the answer that PostgREST gives.
fn questions() -> Vec<(&'static str, Value)> {
    vec![
        ("pumps?id=eq.a&select=name,site:sites!site(name,city)", json!([{ "name": "one", "site": { "name": "North", "city": "Kiel" } }])),
        (
            "pumps?id=eq.a&select=site(*)",
            json!([{ "site": {
                "id": "n", "name": "North", "city": "Kiel", "owner": "ada", "code": 7, "opened": "2026-01-02T03:04:05.000006Z", "plan": "AAE=",
            } }]),
        ),
        // What is not there is null, whether nothing is named or nothing is found.
        ("pumps?id=in.(d,e)&select=id,site(name)", json!([{ "id": "d", "site": null }, { "id": "e", "site": null }])),
        (
            "sites?select=id,pumps!site(id)",
            json!([{ "id": "n", "pumps": [{ "id": "a" }, { "id": "b" }] }, { "id": "s", "pumps": [{ "id": "c" }] }]),
        ),
        ("sites?id=eq.n&select=id,pumps!site(id)&pumps.rank=lt.2", json!([{ "id": "n", "pumps": [{ "id": "b" }] }])),
        ("sites?id=eq.n&pumps.order=rank&select=id,pumps!site(id)&pumps.limit=1", json!([{ "id": "n", "pumps": [{ "id": "b" }] }])),
        ("sites?id=eq.n&pumps.order=rank&select=id,pumps!site(id)&pumps.offset=1", json!([{ "id": "n", "pumps": [{ "id": "a" }] }])),
        ("sites?id=eq.s&select=pumps!site(id)&pumps.or=(rank.eq.9,name.like.t*)", json!([{ "pumps": [{ "id": "c" }] }])),
        // Without !inner a filter narrows the related rows only, with it those around them, too.
        (
            "pumps?id=in.(a,c)&select=id,site(city)&site.city=eq.Ulm",
            json!([{ "id": "a", "site": null }, { "id": "c", "site": { "city": "Ulm" } }]),
        ),
        ("pumps?select=id,site!inner(city)&site.city=eq.Ulm", json!([{ "id": "c", "site": { "city": "Ulm" } }])),
        ("pumps?select=id,site!inner()&site.city=eq.Kiel", json!([{ "id": "a" }, { "id": "b" }])),
        ("pumps?select=id,site()&site=is.null", json!([{ "id": "d" }, { "id": "e" }])),
        ("sites?select=id,pumps!spare!inner(id)&pumps.rank=gt.2", json!([{ "id": "n", "pumps": [{ "id": "c" }] }])),
        ("pumps?select=id,site(name)&order=site(city).desc,id&limit=2", json!([{ "id": "d", "site": null }, { "id": "e", "site": null }])),
        ("pumps?select=id,site!inner()&order=site(city).desc,id&limit=2", json!([{ "id": "c" }, { "id": "a" }])),
        // Members of the one record among those of the row, and collections inside of collections.
        ("pumps?id=in.(a,e)&select=id,...site(town:city)", json!([{ "id": "a", "town": "Kiel" }, { "id": "e", "town": null }])),
        (
            "sites?id=eq.n&select=id,pumps!site(id,readings(bar))&pumps.readings.order=at.desc&pumps.readings.limit=1",
            json!([{ "id": "n", "pumps": [{ "id": "a", "readings": [{ "bar": 0.5 }] }, { "id": "b", "readings": [{ "bar": 2.5 }] }] }]),
        ),
        (
            "readings?bar=gt.2&select=bar,pump(name,...site(city),spare(id))",
            json!([{ "bar": 2.5, "pump": { "name": "two", "city": "Kiel", "spare": null } }]),
        ),
        (
            "pumps?id=eq.a&select=site(when:opened::text,code::text)",
            json!([{ "site": { "when": "2026-01-02T03:04:05.000006Z", "code": "7" } }]),
        ),
    ]
}

fn ask(api: &mut Client) {
    for (path, want) in questions() {
        assert_eq!(api.get(&format!("/rest/v1/{path}")).unwrap().expect_status(200).json(), want, "{path}");
    }
    for (path, status, code) in [
        ("pumps?select=sites(name)", 300, "PGRST201"),
        ("pumps?select=pump(name)", 400, "PGRST200"),
        ("pumps?select=readings!rank(bar)", 400, "PGRST200"),
        ("pumps?select=id&site.city=eq.Ulm", 400, "PGRST108"),
        ("sites?select=id,pumps!site(id)&order=pumps(rank)", 400, "PGRST118"),
        ("sites?select=id,pumps!site(id)&pumps.colour=eq.red", 400, "42703"),
        ("sites?select=id,pumps!site(colour)", 400, "42703"),
        ("sites?select=id,...pumps!site(id)", 400, "PGRST127"),
        ("sites?select=id,pumps!site(rank.sum())", 400, "PGRST123"),
        ("pumps?select=id,...site(id)", 400, "PGRST100"),
        ("pumps?select=site(pumps!site(site(pumps!site(site(id)))))", 400, "PGRST100"),
        ("pumps?id=eq.a&select=site(code::bool,name::int)", 400, "22P02"),
    ] {
        let refused = api.get(&format!("/rest/v1/{path}")).unwrap().expect_status(status).json();
        assert_eq!(refused["code"], code, "{path}: {refused}");
    }
    let counted =
        api.send("GET", "/rest/v1/pumps?select=id,site!inner()&limit=1", &[("prefer", "count=exact")], b"").unwrap().expect_status(206);
    assert_eq!(counted.header("content-range"), Some("0-0/3"));
    let csv = api.send("GET", "/rest/v1/pumps?id=eq.b&select=id,site(city)", &[("accept", "text/csv")], b"").unwrap().expect_status(200);
    assert_eq!(csv.text().trim(), "id,site\nb,\"{\"\"city\"\":\"\"Kiel\"\"}\"");
}

fn answered(place: Place) {
    let (cluster, mut api) = world(place);
    ask(&mut api);
    // The tag of a row would not change with those around it.
    let shown = api.get("/rest/v1/pumps?id=eq.a&select=site(city)").unwrap().expect_status(200);
    assert_eq!(shown.header("etag"), None);
    let changed = api.send(
        "PATCH",
        "/rest/v1/pumps?id=eq.e&select=id,site(city)",
        &[("prefer", "return=representation"), ("content-type", "application/json")],
        br#"{"site":"s"}"#,
    );
    assert_eq!(changed.unwrap().expect_status(200).json(), json!([{ "id": "e", "site": { "city": "Ulm" } }]));
    let refused = api.delete("/rest/v1/pumps?select=id,site!inner()&site.city=eq.Ulm").unwrap().expect_status(400).json();
    assert_eq!(refused["code"], "PGRST127", "{refused}");
    let contract = api.get("/openapi.json").unwrap().expect_status(200).json();
    assert_eq!(contract["components"]["schemas"]["pumps"]["properties"]["site"]["x-references"], "sites");
    let shown = cluster.cli().args(["collection", "show", "pumps", "-o", "json"]).run().expect_success().json();
    assert_eq!((&shown["fields"][0]["type"], &shown["fields"][0]["references"]), (&json!("text"), &json!("sites")), "{shown}");

    // A reference may come later, and name the collection itself.
    cluster.cli().args(["collection", "alter", "pumps", "--add", "feeds:ref:pumps"]).run().expect_success();
    api.patch("/rest/v1/pumps?id=in.(a,b)", &json!({ "feeds": "c" })).unwrap().expect_status(204);
    for (path, want) in [
        ("pumps?id=eq.a&select=id,feeds(id)", json!([{ "id": "a", "feeds": { "id": "c" } }])),
        ("pumps?id=eq.c&select=id,pumps!feeds(id)", json!([{ "id": "c", "pumps": [{ "id": "a" }, { "id": "b" }] }])),
    ] {
        assert_eq!(api.get(&format!("/rest/v1/{path}")).unwrap().expect_status(200).json(), want, "{path}");
    }
    for (fields, want) in [
        (["x", "s:ref:site"], "perhaps you meant \"sites\""),
        (["x", "s:ref:readings"], "is a stream"),
        (["x", "s:references sites"], "NAME:ref:COLLECTION"),
    ] {
        let refused = cluster.cli().args(["collection", "create"]).args(fields).run();
        assert!(refused.stderr.contains(want), "{fields:?}: {}", refused.stderr);
    }
    let refused = cluster.cli().args(["collection", "create", "x", "--kind", "document", "s:ref:sites"]).run();
    assert!(refused.stderr.contains("edited together"), "{}", refused.stderr);
}

#[test]
fn related_records_come_along_at_a_hub_on_sqlite() {
    answered(Place::Sqlite);
}

#[test]
fn related_records_come_along_at_a_hub_on_postgres() {
    answered(Place::Postgres);
}

/// Goal: a policy holds inside of an answer as at its door: a hidden row, a hidden field and a closed collection show nothing, by no way.
fn guarded(place: Place) {
    let (cluster, _) = world(place);
    let run = |words: &[&str]| cluster.cli().args(words).run().expect_success().text();
    run(&["role", "create", "guard"]);
    let mut anon = cluster.hub().http().with_header("apikey", &run(&["key", "create", "--role", "guard", "--name", "guard"]));
    let mut code = |path: &str| anon.get(&format!("/rest/v1/{path}")).unwrap().json()["code"].clone();
    run(&["policy", "set", "pumps", "--role", "guard", "--allow", "read"]);
    // Closed: as if there were no such collection.
    assert_eq!(code("pumps?select=id,site(city)"), code("pumps?select=id,nothing(city)"));
    assert_eq!(code("pumps?select=id,readings(bar)"), "PGRST200");
    run(&["policy", "set", "sites", "--role", "guard", "--allow", "read", "--where", "owner=eq.ada", "--field", "name,city"]);
    for (path, want) in [
        // South is not for this role: its pump names nothing, and it cannot be found by what it holds.
        (
            "pumps?id=in.(a,c)&select=id,site(*)",
            json!([{ "id": "a", "site": { "id": "n", "name": "North", "city": "Kiel" } }, { "id": "c", "site": null }]),
        ),
        ("pumps?select=id,site!inner()&site.city=eq.Ulm", json!([])),
        ("pumps?id=eq.c&select=id,site()&site=is.null", json!([{ "id": "c" }])),
        ("pumps?id=in.(a,c)&select=id,site()&order=site(city).nullsfirst", json!([{ "id": "c" }, { "id": "a" }])),
        ("sites?select=id,pumps!spare(id,...site(city))", json!([{ "id": "n", "pumps": [{ "id": "c", "city": null }] }])),
    ] {
        assert_eq!(anon.get(&format!("/rest/v1/{path}")).unwrap().expect_status(200).json(), want, "{path}");
    }
    let mut code = |path: &str| anon.get(&format!("/rest/v1/{path}")).unwrap().json()["code"].clone();
    for path in [
        "pumps?select=id,site(owner)",
        "pumps?select=id,site(name)&site.owner=eq.bob",
        "pumps?select=id,site!inner()&site.or=(owner.eq.bob,code.eq.7)",
        "pumps?select=id,site(name)&order=site(owner)",
        "sites?select=id,pumps!spare(site(owner))",
    ] {
        assert_eq!(code(path), "42703", "{path}");
    }
    // A reference that is hidden leads nowhere, from neither side.
    run(&["policy", "set", "pumps", "--role", "guard", "--allow", "read", "--field", "name,spare"]);
    for path in ["pumps?select=id,site(name)", "sites?select=id,pumps!site(id)", "pumps?select=spare(pumps!site(id))"] {
        assert_eq!(code(path), "PGRST200", "{path}");
    }
    assert_eq!(code("pumps?id=eq.c&select=sites(name)"), Value::Null, "the one that is left is no choice");
    let contract = anon.get("/openapi.json").unwrap().expect_status(200).json();
    assert_eq!(contract["components"]["schemas"]["pumps"]["properties"].get("site"), None);
}

#[test]
fn policies_hold_inside_of_an_answer_on_sqlite() {
    guarded(Place::Sqlite);
}

#[test]
fn policies_hold_inside_of_an_answer_on_postgres() {
    guarded(Place::Postgres);
}

/// Goal: a device knows the references of its collections, and answers the same with its network cut.
#[test]
fn a_device_answers_alike_without_a_network() {
    let (mut cluster, mut api) = world(Place::Sqlite);
    let device = cluster.device("pi");
    cluster.converge(&[&device]);
    let mut here = device.http();
    // A device holds its own samples only.
    let local = |questions: Vec<(&'static str, Value)>| questions.into_iter().filter(|(path, _)| !path.contains("readings"));
    cluster.stop_hub();
    for (path, want) in local(questions()) {
        assert_eq!(here.get(&format!("/rest/v1/{path}")).unwrap().expect_status(200).json(), want, "{path}");
    }
    here.post("/rest/v1/pumps", &json!({ "id": "f", "site": "s", "name": "six" })).unwrap().expect_status(201);
    let path = "/rest/v1/sites?id=eq.s&select=id,pumps!site(name)";
    let want = json!([{ "id": "s", "pumps": [{ "name": "three" }, { "name": "six" }] }]);
    assert_eq!(here.get(path).unwrap().expect_status(200).json(), want);
    cluster.start_hub();
    cluster.converge(&[&device]);
    assert_eq!(api.get(path).unwrap().expect_status(200).json(), want);
}
