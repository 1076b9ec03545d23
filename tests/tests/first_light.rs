//! The first promise, by hand: a hub, two devices, the hub away, writes everywhere, the hub back, one truth.
//!
//! The commands are those of the README, the databases are read as any other program would read them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use std::time::Duration;

use mobo_tests::cluster::{Cluster, Place, digest};
use mobo_tests::postgres::Database;
use mobo_tests::process::Node;
use mobo_tests::wait;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(90);

const WORK_ORDERS: &[&str] =
    &["work_orders", "title:text", "status:text", "hours:counter", "priority:int", "cost:float", "done:bool", "due:timestamp", "meta:json"];
const NOTES: &[&str] = &["notes", "--kind", "document", "title:text", "body:text", "tags:list", "likes:counter", "meta:json"];
const VITALS: &[&str] = &["vitals", "--kind", "stream", "cpu:float", "state:text"];

/// Goal: what two devices wrote while the hub was away is all there when it is back, on every node, once.
/// Method: the flow of the README with real processes; then digests, counters, texts and samples are compared, and the databases read.
// faults: N-1
#[test]
fn the_hub_goes_away_and_comes_back_on_sqlite() {
    by_hand(Place::Sqlite);
}

/// The same on Postgres.
// faults: N-1
#[test]
fn the_hub_goes_away_and_comes_back_on_postgres() {
    by_hand(Place::Postgres);
}

fn by_hand(place: Place) {
    let mut cluster = Cluster::boot(place);
    cluster.create(&[WORK_ORDERS, NOTES, VITALS]);
    let (mut one, mut two) = (cluster.device("one"), cluster.device("two"));
    together(&one, &two);
    let before = cluster.converge(&[&one, &two]);

    cluster.stop_hub();
    apart(&one, &two);
    for device in [&one, &two] {
        let status = device.status();
        assert!(status["pending"].as_u64().unwrap() > 0, "{status}");
        assert_eq!(status["health"], "healthy", "a device without its hub is a whole device: {status}");
    }
    cluster.start_hub();
    let after = cluster.converge(&[&one, &two]);
    assert_ne!(before, after);

    nothing_is_lost(&cluster, [&one, &two]);
    plain_tables(&cluster, [&one, &two]);
    cluster.healthy();
    for device in [&mut one, &mut two] {
        run(device, &["health", "check"]);
        assert_eq!(device.terminate().code(), Some(0));
    }
    cluster.stop_hub();
}

/// Everybody is connected: what one writes, the other reads.
fn together(one: &Node, two: &Node) {
    let everything = json!({
        "title": "Check pump 7", "status": "new", "hours": {"$inc": 2}, "priority": 3, "cost": 12.5, "done": false,
        "due": "2026-03-01T08:00:00Z", "meta": {"parts": ["seal", 2]},
    });
    wait::until("the collections on the device", SOON, || {
        (one.cli().args(["put", "work_orders", "wo-1", &everything.to_string()]).run().code == Some(0)).then_some(())
    });
    run(one, &["put", "work_orders", "wo-2", r#"{"title": "Paint the gate", "hours": 1}"#]);
    run(one, &["put", "notes", "n-1", r#"{"title": "Pump 7", "body": "It is loud.", "tags": ["pump"], "likes": 1}"#]);
    run(one, &["append", "vitals", r#"{"cpu": 0.5, "state": "calm"}"#]);
    let get = |id: &str| two.cli().args(["get", "work_orders", id, "-o", "json"]).run();
    wait::until("the record on the other device", SOON, || (get("wo-2").code == Some(0)).then_some(()));
    let read = get("wo-1").json();
    let want = json!({
        "id": "wo-1", "title": "Check pump 7", "status": "new", "hours": 2, "priority": 3, "cost": 12.5, "done": false,
        "due": "2026-03-01T08:00:00.000000Z", "meta": {"parts": ["seal", 2]},
    });
    assert_eq!(read, want);
    wait::until("the note on the other device", SOON, || (two.cli().args(["get", "notes", "n-1"]).run().code == Some(0)).then_some(()));
}

/// Nobody is connected: both devices write, over the command line and over HTTP.
fn apart(one: &Node, two: &Node) {
    let mut http_two = two.http();
    // Different fields and the same field of one record, and a counter from both.
    run(one, &["patch", "work_orders", "wo-1", r#"{"priority": 1, "status": "urgent", "hours": {"$inc": 3}}"#]);
    http_two.patch("/rest/v1/work_orders?id=eq.wo-1", &json!({"cost": 99.25, "status": "waiting", "hours": {"$inc": 4}})).unwrap();
    // A record each, and one that goes.
    run(one, &["put", "work_orders", "wo-one", r#"{"title": "made on one"}"#]);
    let rows = json!([{"id": "wo-two", "title": "made on two", "hours": 7}, {"id": "wo-three", "title": "made on two"}]);
    http_two.post("/rest/v1/work_orders", &rows).unwrap().expect_status(201);
    run(two, &["delete", "work_orders", "wo-2"]);
    // One text from both ends, one list, one counter.
    run(one, &["patch", "notes", "n-1", r#"{"body": "Today: It is loud.", "tags": {"$push": ["one"]}, "likes": {"$inc": 10}}"#]);
    let edit = json!({"body": "It is loud. Call Ada.", "tags": {"$push": ["two"]}, "likes": {"$inc": 100}});
    http_two.patch("/rest/v1/notes?id=eq.n-1", &edit).unwrap();
    // Samples.
    run(one, &["append", "vitals", r#"[{"cpu": 1.5}, {"cpu": 2.5}]"#]);
    http_two.post("/rest/v1/vitals", &json!([{"cpu": 3.5, "state": "busy"}])).unwrap().expect_status(201);
    // Each sees at once what it wrote itself.
    let mine = run(one, &["get", "work_orders", "wo-1"]);
    assert_eq!((&mine["hours"], &mine["priority"], &mine["cost"]), (&json!(5), &json!(1), &json!(12.5)));
    let gone = two.cli().args(["get", "work_orders", "wo-2"]).run().expect_code(4);
    assert!(gone.stderr.contains("\"wo-2\" does not exist"), "{}", gone.stderr);
}

fn nothing_is_lost(cluster: &Cluster, devices: [&Node; 2]) {
    let mut api = cluster.api();
    let mut at_hub = |path: &str| api.get(path).unwrap().expect_status(200).json();
    let orders = at_hub("/rest/v1/work_orders?order=id");
    let ids: Vec<&str> = orders.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["wo-1", "wo-one", "wo-three", "wo-two"]);
    let merged = &orders[0];
    assert_eq!((&merged["hours"], &merged["priority"], &merged["cost"]), (&json!(9), &json!(1), &json!(99.25)));
    assert!(merged["status"] == "urgent" || merged["status"] == "waiting", "one of both is kept: {merged}");
    assert_eq!(orders[3]["hours"], 7);

    let notes = at_hub("/rest/v1/notes");
    assert_eq!((&notes[0]["body"], &notes[0]["likes"]), (&json!("Today: It is loud. Call Ada."), &json!(111)));
    let mut tags: Vec<&str> = notes[0]["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap()).collect();
    tags.sort_unstable();
    assert_eq!(tags, ["one", "pump", "two"]);

    let samples = at_hub("/rest/v1/vitals?select=cpu");
    let mut cpu: Vec<f64> = samples.as_array().unwrap().iter().map(|sample| sample["cpu"].as_f64().unwrap()).collect();
    cpu.sort_by(f64::total_cmp);
    assert_eq!(cpu, [0.5, 1.5, 2.5, 3.5]);

    for device in devices {
        let mut http = device.http();
        assert_eq!(http.get("/rest/v1/work_orders?order=id").unwrap().json(), orders);
        assert_eq!(http.get("/rest/v1/notes").unwrap().json(), notes);
    }
    let status = cluster.hub().status();
    assert_eq!((&status["records"], &status["quarantined"]), (&json!(5), &json!(0)), "{status}");
    assert_eq!(digest(&status), digest(&devices[0].status()));
    // Whose word did not count is on record.
    let conflicts = cluster.cli().args(["conflict", "list", "-o", "json"]).run().expect_success().json();
    let fields: Vec<&Value> = conflicts.as_array().unwrap().iter().map(|conflict| &conflict["field"]).collect();
    assert_eq!(fields, [&json!("status")], "{conflicts}");
}

/// `work_orders` is a plain table with typed columns at both ends, open to read; what cannot be taken in is closed to writes that would be
/// lost.
fn plain_tables(cluster: &Cluster, devices: [&Node; 2]) {
    for device in devices {
        in_sqlite(&device.folder().join("edge.db"));
    }
    match &cluster.database {
        Some(database) => in_postgres(database),
        None => in_sqlite(&cluster.folder("hub").join("hub.db")),
    }
}

fn in_sqlite(path: &std::path::Path) {
    let reader = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let text = |sql: &str| -> String { reader.query_row(sql, [], |row| row.get(0)).unwrap_or_else(|error| panic!("{sql}: {error}")) };
    let columns =
        "SELECT group_concat(name || ' ' || type, ', ') FROM pragma_table_info('work_orders') WHERE name NOT LIKE '\\_%' ESCAPE '\\'";
    assert_eq!(
        text(columns),
        "id TEXT, title TEXT, status TEXT, hours INTEGER, priority INTEGER, cost REAL, done INTEGER, due TEXT, meta TEXT, mobo_ver INTEGER"
    );
    let row = "SELECT id || '|' || title || '|' || hours || '|' || priority || '|' || cost || '|' || done || '|' || due || '|' || meta
               FROM work_orders WHERE id = 'wo-1'";
    assert_eq!(text(row), r#"wo-1|Check pump 7|9|1|99.25|0|2026-03-01T08:00:00.000000Z|{"parts":["seal",2]}"#);
    assert_eq!(text("SELECT typeof(hours) || typeof(cost) FROM work_orders WHERE id = 'wo-1'"), "integerreal");
    assert_eq!(text("SELECT body FROM notes"), "Today: It is loud. Call Ada.");

    let writer = Connection::open(path).unwrap();
    for sql in ["INSERT INTO notes(id) VALUES ('x')", "UPDATE notes SET title = 'x'", "DELETE FROM notes"] {
        let refused = writer.execute(sql, []).unwrap_err().to_string();
        assert!(refused.contains("table notes is kept by mobo: write through its API or on a device"), "{sql}: {refused}");
    }
}

fn in_postgres(database: &Database) {
    let columns = "select string_agg(column_name || ' ' || data_type, ', ' order by ordinal_position) from information_schema.columns
                   where table_schema = 'public' and table_name = 'work_orders' and column_name not like '\\_%'";
    assert_eq!(
        database.value(columns),
        "id text, title text, status text, hours bigint, priority bigint, cost double precision, done boolean, \
         due timestamp with time zone, meta jsonb, mobo_ver bigint"
    );
    let row = "select id, title, hours, priority, cost, done, due at time zone 'utc', meta->'parts'->>0 from work_orders where id = 'wo-1'";
    assert_eq!(database.rows(row), [["wo-1", "Check pump 7", "9", "1", "99.25", "f", "2026-03-01 08:00:00", "seal"]]);
    assert_eq!(database.value("select body from notes"), "Today: It is loud. Call Ada.");
    for sql in [
        "insert into notes(id, mobo_ver, _mobo) values ('x', 1, '')",
        "update notes set title = 'x'",
        "delete from notes",
        "truncate work_orders",
    ] {
        let refused = database.try_rows(sql).unwrap_err();
        assert!(refused.contains("is kept by mobo: write through its API or on a device"), "{sql}: {refused}");
    }
}

/// A verb that succeeds, and what it printed.
#[track_caller]
fn run(device: &Node, words: &[&str]) -> Value {
    device.cli().args(words).args(["-o", "json"]).run().expect_success().json()
}
