//! SQL in at both ends: Python's stock `sqlite3` on a device, `psycopg` in the hub's Postgres, both while they cannot reach each other.
//!
//! `MOBO_TEST_PYTHON` names a Python that has `psycopg`, as `tests/run` brings it; without it, psql writes the same statements.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use std::path::Path;
use std::time::Duration;

use mobo_tests::cli::Cli;
use mobo_tests::cluster::{Cluster, Place};
use mobo_tests::postgres::Database;
use mobo_tests::process::Node;
use mobo_tests::wait;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);

/// What both ends show; counters and floats in the words of both databases.
const ROWS: &str =
    "SELECT id, coalesce(site, '-'), coalesce(CAST(round(setpoint) AS INTEGER), -1), CAST(runs AS INTEGER) FROM pumps ORDER BY id";

/// Runs Python statements with a connection `db` to a device's database.
#[track_caller]
fn on_device(device: &Node, script: &str) -> String {
    let path = device.folder().join("edge.db");
    let head = format!("import sqlite3\ndb = sqlite3.connect({path:?}, timeout=30)\n");
    python("python3", &format!("{head}{script}\ndb.close()\n"))
}

/// Runs transactions in Postgres, each a list of statements.
#[track_caller]
fn in_postgres(database: &Database, transactions: &[&[&str]]) {
    let Ok(program) = std::env::var("MOBO_TEST_PYTHON") else {
        for statements in transactions {
            database.rows(&format!("BEGIN; {}; COMMIT", statements.join("; ")));
        }
        return;
    };
    let url = database.url();
    let mut script = format!("import psycopg\ndb = psycopg.connect({url:?})\n");
    for statements in transactions {
        for statement in *statements {
            script.push_str(&format!("db.execute({statement:?})\n"));
        }
        script.push_str("db.commit()\n");
    }
    python(&program, &script);
}

#[track_caller]
fn python(program: &str, script: &str) -> String {
    Cli::program(program).args(["-c", script]).run().expect_success().text()
}

fn device_rows(path: &Path) -> Vec<Vec<String>> {
    let reader = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut statement = reader.prepare(ROWS).unwrap();
    let text = |row: &rusqlite::Row<'_>, column: usize| -> rusqlite::Result<String> {
        Ok(match row.get::<_, rusqlite::types::Value>(column)? {
            rusqlite::types::Value::Integer(number) => number.to_string(),
            rusqlite::types::Value::Text(text) => text,
            other @ (rusqlite::types::Value::Null | rusqlite::types::Value::Real(_) | rusqlite::types::Value::Blob(_)) => {
                format!("{other:?}")
            }
        })
    };
    let rows = statement.query_map([], |row| (0..4).map(|column| text(row, column)).collect::<rusqlite::Result<Vec<String>>>());
    rows.unwrap().map(Result::unwrap).collect()
}

/// The last position of the device's state lane, once nothing of its tables waits.
fn last(device: &Node) -> u64 {
    wait::until("the intake to be empty", SOON, || {
        let reader = Connection::open_with_flags(device.folder().join("edge.db"), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let waits: i64 = reader.query_row("SELECT count(*) FROM mobo_intake", [], |row| row.get(0)).unwrap();
        (waits == 0).then_some(())
    });
    let status = device.status();
    let lanes = status["lanes"].as_array().unwrap();
    lanes.iter().find(|lane| lane["lane"] == 0).map_or(0, |lane| lane["last"].as_u64().unwrap())
}

/// Entries of the hub's own, once nothing of its tables waits.
fn own_entries(database: &Database) -> u64 {
    wait::until("the hub's intake to be empty", SOON, || (database.value("SELECT count(*) FROM mobo.intake") == "0").then_some(()));
    let sql = "SELECT count(*) FROM mobo.entry e WHERE NOT EXISTS (SELECT 1 FROM mobo.device d WHERE d.id = e.device)";
    database.value(sql).parse().unwrap()
}

/// Transactions in Postgres: two that know of each other, and at once one of somebody who has read the row before.
fn at_the_hub(database: &Database) {
    let before = own_entries(database);
    let seen = database.value("SELECT mobo_ver FROM pumps WHERE id = 'q1'");
    in_postgres(
        database,
        &[
            &[
                "UPDATE pumps SET setpoint = 20, runs = runs + 5 WHERE id = 'p1'",
                "INSERT INTO pumps(id, site) SELECT 'h' || n, 'hub' FROM generate_series(10, 59) AS n",
                "INSERT INTO pumps(id, site) VALUES ('p2', 'new') ON CONFLICT (id) DO UPDATE SET site = excluded.site",
                "SAVEPOINT s",
                "DELETE FROM pumps",
                "ROLLBACK TO s",
            ],
            &["UPDATE pumps SET site = 'first' WHERE id = 'q1'"],
            // Of somebody who read the row before that: later, and a conflict to be seen, whether the hub has taken the other in or not.
            &[&format!("UPDATE pumps SET site = 'stale', mobo_ver = {seen} WHERE id = 'q1'")],
        ],
    );
    assert_eq!(own_entries(database), before + 3, "a transaction is one entry");
}

/// The open conflicts of a node: of which field, what won and what lost.
fn listed(cli: Cli) -> Vec<String> {
    let conflicts = cli.args(["conflict", "list", "-o", "json"]).run().expect_success().json();
    let line = |one: &Value| format!("{} {} {}: {} over {}", one["kind"], one["id"], one["field"], one["winner"], one["loser"]);
    let mut lines: Vec<String> = conflicts.as_array().unwrap().iter().map(line).collect();
    lines.sort();
    lines
}

/// Goal: whoever holds a record sees on the device what merges decided about it, by commands and by SQL, and settles it there.
/// Method: two devices write one field while their hub is away; one of them decides, while the hub is away again.
#[test]
fn a_device_sees_what_was_decided_and_settles_it() {
    let mut cluster = Cluster::boot(Place::Sqlite);
    cluster.create(&[&["pumps", "site:text", "setpoint:float"]]);
    let (one, two) = (cluster.device("one"), cluster.device("two"));
    let run = |device: &Node, words: &[&str]| device.cli().args(words).args(["-o", "json"]).run();
    one.wait_collection("pumps");
    run(&one, &["put", "pumps", "p1", r#"{"site": "plant-4", "setpoint": 1}"#]).expect_success();
    cluster.converge(&[&one, &two]);
    cluster.stop_hub();
    run(&one, &["patch", "pumps", "p1", r#"{"setpoint": 10, "site": "moved"}"#]).expect_success();
    run(&two, &["patch", "pumps", "p1", r#"{"setpoint": 20}"#]).expect_success();
    assert_eq!(one.status()["conflicts"], 0, "nothing is decided yet");
    cluster.start_hub();
    cluster.converge(&[&one, &two]);
    let shown = run(&one, &["conflict", "show", "pumps", "p1"]).expect_success().json();
    let (won, lost) = (shown[0]["winner"].clone(), shown[0]["loser"].clone());
    assert_eq!(listed(one.cli()), [format!("\"concurrent\" \"p1\" \"setpoint\": {won} over {lost}")]);
    assert_eq!((listed(cluster.cli()), listed(two.cli())), (listed(one.cli()), listed(one.cli())));
    let view = "print(db.execute('SELECT collection, id, field, kind, winner, loser, status FROM mobo_conflicts').fetchall())";
    let row = |status: &str| format!("[('pumps', 'p1', 'setpoint', 'concurrent', '{won}', '{lost}', '{status}')]");
    assert_eq!(on_device(&two, view).trim(), row("open"));

    run(&one, &["conflict", "resolve", "pumps", "p1", "site"]).expect_code(4);
    run(&one, &["conflict", "resolve", "pumps", "p1", "sight"]).expect_code(2);
    run(&one, &["conflict", "show", "pumps", "p2"]).expect_code(4);
    cluster.stop_hub();
    let done = run(&one, &["conflict", "resolve", "pumps", "p1", "setpoint", "--loser"]).expect_success().json();
    assert_eq!(done, json!({"resolved": 1, "value": lost, "ack": "local"}));
    assert_eq!((on_device(&one, view).trim(), one.status()["conflicts"].clone()), (row("settled").as_str(), json!(0)));
    cluster.start_hub();
    cluster.converge(&[&one, &two]);
    assert_eq!((listed(cluster.cli()), listed(one.cli()), listed(two.cli())), (vec![], vec![], vec![]));
    assert_eq!((on_device(&one, view).trim(), on_device(&two, view).trim()), ("[]", "[]"), "the hub has nothing open about it");
    assert_eq!(run(&two, &["get", "pumps", "p1"]).expect_success().json()["setpoint"], lost);
    cluster.healthy();
}

/// What was decided is settled by hand, by an ordinary write, and by a policy.
fn settle(cluster: &Cluster, device: &Node, database: &Database) {
    let hub = |words: &[&str]| cluster.cli().args(words).args(["-o", "json"]).run();
    let open = || hub(&["conflict", "list"]).expect_success().json().as_array().unwrap().len();
    assert_eq!(database.value("SELECT count(*) FROM mobo_conflicts WHERE status = 'open'"), "2");
    assert_eq!(listed(cluster.cli()), listed(device.cli()), "a device is told with the rows");
    let shown = hub(&["conflict", "show", "pumps", "p1"]).expect_success().json();
    assert_eq!((&shown[0]["field"], &shown[0]["loser"]), (&json!("setpoint"), &json!(10.0)), "{shown}");
    hub(&["conflict", "resolve", "pumps", "p1", "setpoint", "--loser"]).expect_success();
    assert_eq!((open(), database.value("SELECT setpoint FROM pumps WHERE id = 'p1'").as_str()), (1, "10"));
    hub(&["conflict", "show", "pumps", "p1"]).expect_code(4);
    // Whoever writes the field on a device that has the row settles it.
    cluster.converge(&[device]);
    on_device(device, "db.execute(\"UPDATE pumps SET site = 'agreed' WHERE id = 'q1'\"); db.commit()");
    wait::until("the conflict to be settled", SOON, || (open() == 0).then_some(()));
    cluster.converge(&[device]);
    assert_eq!(database.value("SELECT site FROM pumps WHERE id = 'q1'"), "agreed");
    assert_eq!(listed(device.cli()), Vec::<String>::new());
    // A field of which nobody wants to hear.
    hub(&["conflict", "policy", "pumps", "site", "log"]).expect_success();
    let seen = database.value("SELECT mobo_ver FROM pumps WHERE id = 'q1'").parse::<u64>().unwrap();
    in_postgres(database, &[&["UPDATE pumps SET site = 'new' WHERE id = 'q1'"]]);
    own_entries(database);
    in_postgres(database, &[&[&format!("UPDATE pumps SET site = 'late', mobo_ver = {seen} WHERE id = 'q1'")]]);
    own_entries(database);
    assert_eq!((open(), database.value("SELECT count(*) FROM mobo_conflicts WHERE loser = '\"new\"'").as_str()), (0, "1"));
    // By hand, in the shells of both nodes.
    let store = format!("store.url={}", database.url());
    let rows = hub(&["--set", &store, "sql", "SELECT id, runs FROM pumps WHERE id = 'p1'"]).expect_success().json();
    assert_eq!(rows, json!([{"id": "p1", "runs": 7}]));
    let shell = device
        .cli()
        .args(["sql", "-o", "json"])
        .input("UPDATE pumps SET site = 'shell'\n WHERE id = 'p2';\nSELECT site FROM pumps WHERE id = 'p2';\n");
    assert_eq!(shell.run().expect_success().json(), json!([{"site": "shell"}]));
    last(device);
    cluster.converge(&[device]);
    assert_eq!(database.value("SELECT site FROM pumps WHERE id = 'p2'"), "shell");
}

/// Goal: programs that know nothing of mobo write rows at both ends while the link is cut; afterwards both ends hold the same rows, what
/// was decided is listed, and no transaction was torn.
/// Method: Python's sqlite3 on the device, psycopg (or psql) in Postgres; the uplink is stopped and started; tables are compared by SQL.
#[test]
fn programs_write_sql_at_both_ends_while_they_are_cut() {
    let cluster = Cluster::boot(Place::Postgres);
    let database = cluster.database.as_ref().unwrap();
    for (field, instead) in
        [("serial_no:unique", "make it the id"), ("n:serial", "use a counter"), ("site:references", "write NAME:ref:COLLECTION")]
    {
        let refused = cluster.cli().args(["collection", "create", "pumps", field]).run().expect_code(2);
        assert!(refused.stderr.contains(instead), "{}", refused.stderr);
    }
    cluster.create(&[&["pumps", "site:text", "setpoint:float", "runs:counter"]]);
    let mut device = cluster.device("one");
    wait::until("the collection on the device", SOON, || (device.cli().args(["list", "pumps"]).run().code == Some(0)).then_some(()));

    // Together: what either writes by SQL, the other has.
    on_device(
        &device,
        "db.executemany('INSERT INTO pumps(id, site, setpoint, runs) VALUES (?, ?, ?, ?)', [('p1', 'x', 1, 1), ('p2', 'x', 2, 2), ('p3', None, 3, 3)]); db.commit()",
    );
    in_postgres(database, &[&["INSERT INTO pumps(id, site, setpoint) VALUES ('q1', 'y', 0.4)"]]);
    last(&device);
    own_entries(database);
    cluster.converge(&[&device]);
    assert_eq!(device_rows(&device.folder().join("edge.db")), database.rows(ROWS));
    assert_eq!(database.value("SELECT count(*) FROM pumps"), "4");

    device.cli().args(["component", "stop", "uplink"]).run().expect_success();
    let before = last(&device);
    let changes = on_device(
        &device,
        "db.execute(\"UPDATE pumps SET setpoint = 10, runs = runs + 1 WHERE id = 'p1'\")\n\
         cursor = db.executemany('INSERT INTO pumps(id, site, runs) VALUES (?, ?, 1)', [('d%02d' % n, 'device') for n in range(50)])\n\
         db.execute(\"INSERT INTO pumps(id, setpoint) VALUES ('p2', 22) ON CONFLICT (id) DO UPDATE SET setpoint = excluded.setpoint\")\n\
         db.execute(\"DELETE FROM pumps WHERE id = 'p3'\")\n\
         db.commit()\n\
         db.execute('DELETE FROM pumps'); db.rollback()\n\
         print(cursor.rowcount)",
    );
    assert_eq!(changes, "50");
    assert_eq!(last(&device), before + 1, "a transaction is one entry");

    at_the_hub(database);

    device.cli().args(["component", "start", "uplink"]).run().expect_success();
    cluster.converge(&[&device]);
    let rows = database.rows(ROWS);
    assert_eq!(device_rows(&device.folder().join("edge.db")), rows);
    assert_eq!(rows.len(), 3 + 50 + 50);
    let row = |id: &str| rows.iter().find(|row| row[0] == id).unwrap().join(" ");
    assert_eq!(row("p1"), "p1 x 20 7", "the later setpoint, and both increments");
    assert_eq!(row("p2"), "p2 new 22 2", "a field from each end");
    assert_eq!(row("q1"), "q1 stale 0 0");
    let want = [r#""concurrent" "p1" "setpoint": 20.0 over 10.0"#, r#""concurrent" "q1" "site": "stale" over "first""#];
    assert_eq!(listed(cluster.cli()), want);
    settle(&cluster, &device, database);
    let status = cluster.hub().status();
    assert_eq!((&status["quarantined"], &status["records"]), (&json!(0), &json!(103)), "{status}");
    cluster.healthy();
    device.cli().args(["health", "check"]).run().expect_success();
    assert_eq!(device.terminate().code(), Some(0));
}
