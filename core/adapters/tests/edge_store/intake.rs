//! SQL of other programs on a device's tables: every trap of replication.md D10, one after the other.

use mobo_adapters::sqlite::edge::Change;
use mobo_core::author::Intent;
use mobo_core::ids::Lane;
use rusqlite::Connection;
use serde_json::{Value as Json, json};

use crate::world::{Device, World, collection, seq};

/// A script, what `changes()` says after it, and the row `p` in `orders` once it is taken in (`title hours n done due`).
type Trap = (&'static str, i64, Json);

const NOTHING: Json = Json::Null;

fn order(title: &str, hours: i64, n: Json) -> Json {
    json!({"id": "p", "title": title, "hours": hours, "n": n, "done": null, "due": null})
}

#[tokio::test]
async fn traps_of_sql_mean_what_sql_says() {
    let there = "INSERT INTO orders(id, title, hours, n) VALUES ('p', 'was', 5, 1)";
    let traps: [Trap; 22] = [
        ("INSERT INTO orders(id, title) VALUES ('q', 'other')", 1, order("was", 5, json!(1))),
        ("INSERT INTO orders(id, title) VALUES ('q', 'a'), ('r', 'b'), ('s', NULL)", 3, order("was", 5, json!(1))),
        ("UPDATE orders SET n = n + 1", 1, order("was", 5, json!(2))),
        ("UPDATE orders SET hours = hours + 2 WHERE id = 'p'", 1, order("was", 7, json!(1))),
        ("UPDATE orders SET n = NULL", 1, order("was", 5, Json::Null)),
        ("UPDATE orders SET title = title", 1, order("was", 5, json!(1))),
        ("UPDATE orders SET n = 9 WHERE id = 'nobody'", 0, order("was", 5, json!(1))),
        ("DELETE FROM orders WHERE id = 'p'", 1, NOTHING),
        ("DELETE FROM orders", 1, NOTHING),
        ("DELETE FROM orders; INSERT INTO orders(id, title, hours) VALUES ('p', 'again', 3)", 1, order("again", 3, Json::Null)),
        ("REPLACE INTO orders(id, title) VALUES ('p', 'whole')", 1, order("whole", 0, Json::Null)),
        (
            "INSERT OR REPLACE INTO orders(id, n) VALUES ('p', 8)",
            1,
            json!({"id": "p", "title": null, "hours": 0, "n": 8, "done": null, "due": null}),
        ),
        ("INSERT OR IGNORE INTO orders(id, title) VALUES ('p', 'ignored')", 0, order("was", 5, json!(1))),
        ("INSERT INTO orders(id, n) VALUES ('p', 7) ON CONFLICT (id) DO UPDATE SET n = excluded.n", 1, order("was", 5, json!(7))),
        ("INSERT INTO orders(id, n) VALUES ('p', 7) ON CONFLICT DO NOTHING", 0, order("was", 5, json!(1))),
        ("UPDATE orders SET id = 'q' WHERE id = 'p'", 1, NOTHING),
        ("UPDATE orders SET id = 'q'; UPDATE orders SET id = 'p', n = 3", 1, order("was", 5, json!(3))),
        (
            "INSERT INTO orders(id, title) VALUES ('q', 'other'); UPDATE OR REPLACE orders SET id = 'p' WHERE id = 'q'",
            1,
            order("other", 0, Json::Null),
        ),
        (
            "BEGIN; UPDATE orders SET n = 2; SAVEPOINT s; UPDATE orders SET n = 3; ROLLBACK TO s; RELEASE s; COMMIT",
            1,
            order("was", 5, json!(2)),
        ),
        ("BEGIN; DELETE FROM orders; ROLLBACK", 1, order("was", 5, json!(1))),
        (
            "UPDATE orders SET due = '2026-02-03 04:05:06', done = 1",
            1,
            json!({"id": "p", "title": "was", "hours": 5, "n": 1, "done": true, "due": "2026-02-03T04:05:06.000000Z"}),
        ),
        (
            "UPDATE orders SET _mobo = x'00', mobo_ver = 99, _bucket = NULL, _position = 7, _extra = 'x', n = 4",
            1,
            order("was", 5, json!(4)),
        ),
    ];
    for merged_before in [false, true] {
        for (script, changes, want) in &traps {
            let world = World::new().await;
            let device = world.device("a", &["all"]).await;
            let raw = device.raw();
            raw.execute_batch(there).unwrap();
            if merged_before {
                device.sync(&world).await;
            } else {
                device.store.take_in().await.unwrap();
            }
            raw.execute_batch(script).unwrap();
            assert_eq!(raw.changes().cast_signed(), *changes, "{script}");
            device.store.take_in().await.unwrap();
            assert_eq!(device.row(&world, "orders", "p").await, *want, "{script}, merged before: {merged_before}");
            device.sync(&world).await;
            assert_eq!(device.row(&world, "orders", "p").await, *want, "{script}, synced; merged before: {merged_before}");
            assert_eq!(world.rows("orders").await, device.rows(&world, "orders").await, "{script}");
            assert_eq!(device.count("SELECT count(*) FROM mobo_intake_refused"), 0, "{script}");
        }
    }
}

#[tokio::test]
async fn a_transaction_is_one_entry_and_is_told() {
    let mut world = World::new().await;
    world.create(collection(7, "valves", mobo_core::schema::Kind::Table, "open:bool", &[])).await;
    let device = world.device("a", &["all"]).await;
    let mut changes = device.store.watch();
    let raw = device.raw();
    raw.execute_batch("BEGIN; INSERT INTO orders(id, title) VALUES ('a', 'x'), ('b', 'y'); INSERT INTO valves(id, open) VALUES ('v', 1)")
        .unwrap();
    assert!(!device.store.take_in().await.unwrap(), "what is not committed is not there");
    raw.execute_batch("COMMIT").unwrap();
    assert!(device.store.take_in().await.unwrap());
    assert!(!device.store.take_in().await.unwrap(), "and only once");
    let want = [world.key("orders", "a"), world.key("orders", "b"), world.key("valves", "v")];
    assert_eq!(changes.recv().await.unwrap(), Change::RecordsChanged(want.as_slice().into()));
    assert_eq!(changes.recv().await.unwrap(), Change::LaneAppended(Lane::State));
    let sealed = device.outgoing(Lane::State, None, 10).await.unwrap();
    assert_eq!((sealed.first, sealed.entries.len()), (seq(1), 1));
    // A write through the API finds what was written by SQL just before, and comes behind it.
    raw.execute_batch("UPDATE orders SET n = 4 WHERE id = 'a'").unwrap();
    device.write(&world, "orders", Intent::Patch, "a", json!({"title": "later"})).await;
    assert_eq!(device.outgoing(Lane::State, None, 10).await.unwrap().entries.len(), 3);
    assert_eq!(device.row(&world, "orders", "a").await["n"], 4);
    device.sync(&world).await;
    assert_eq!(world.rows("valves").await, device.rows(&world, "valves").await);
}

#[tokio::test]
async fn what_no_field_can_hold_is_refused_where_it_is_written() {
    let mut world = World::new().await;
    let fields = "t:text i:int f:float b:bool d:timestamp j:json y:bytes c:counter";
    world.create(collection(8, "all_kinds", mobo_core::schema::Kind::Table, fields, &[])).await;
    let device = world.device("a", &["all"]).await;
    let raw = device.raw();
    raw.execute_batch("INSERT INTO all_kinds(id) VALUES ('x')").unwrap();
    let cases = [
        ("UPDATE all_kinds SET t = 'a' || char(0)", "U+0000"),
        ("UPDATE all_kinds SET t = printf('%.*c', 65537, 'x')", "at most 65536 bytes"),
        ("UPDATE all_kinds SET i = 'five'", "INTEGER"),
        ("UPDATE all_kinds SET f = 9e999", "finite"),
        ("UPDATE all_kinds SET b = 2", "0 or 1"),
        ("UPDATE all_kinds SET d = 'yesterday'", "a time such as"),
        ("UPDATE all_kinds SET j = '{'", "valid JSON"),
        ("UPDATE all_kinds SET y = zeroblob(65537)", "at most 65536 bytes"),
        ("INSERT INTO all_kinds(id) VALUES ('')", "an id of all_kinds"),
        ("INSERT INTO all_kinds(id) VALUES ('a' || char(10))", "an id of all_kinds"),
        ("INSERT INTO all_kinds(id) VALUES (printf('%.*c', 257, 'x'))", "an id of all_kinds"),
        ("UPDATE notes SET title = 'x'", "notes is kept by mobo"),
        ("INSERT INTO notes(id, title, mobo_ver, _mobo) VALUES ('n', 'x', 1, x'00')", "notes is kept by mobo"),
    ];
    for (sql, why) in cases {
        if sql.starts_with("UPDATE notes") {
            continue;
        }
        let error = raw.execute_batch(sql).unwrap_err().to_string();
        assert!(error.contains(why), "{sql}: {error}");
    }
    // What only a double can tell, or only the calendar, is found when it is taken in: that row is as it was, and it is told.
    raw.execute_batch("UPDATE all_kinds SET j = '1e999', i = 5; INSERT INTO all_kinds(id, d) VALUES ('y', '0000-01-01 00:00:00')").unwrap();
    device.store.take_in().await.unwrap();
    assert_eq!(device.row(&world, "all_kinds", "x").await["i"], Json::Null);
    assert_eq!(device.row(&world, "all_kinds", "y").await, Json::Null);
    assert_eq!(device.count("SELECT count(*) FROM mobo_intake_refused"), 2);
    raw.execute_batch("INSERT INTO all_kinds(t, i, f, b, d, j, y, c) VALUES ('ä', -1, 1, 0, '2026-01-01T00:00:00+01:00', '{\"b\": 1, \"a\": 2}', x'00ff', 3)").unwrap();
    device.store.take_in().await.unwrap();
    let id: String = raw.query_row("SELECT id FROM all_kinds WHERE t = 'ä'", [], |row| row.get(0)).unwrap();
    assert_eq!((id.len(), id.as_bytes()[14]), (36, b'7'), "{id}");
    let want = json!({"id": id, "t": "ä", "i": -1, "f": 1.0, "b": false, "d": "2025-12-31T23:00:00.000000Z", "j": {"a": 2, "b": 1}, "y": "AP8=", "c": 3});
    assert_eq!(device.row(&world, "all_kinds", &id).await, want);
    device.sync(&world).await;
}

/// The checks of a trigger cannot see it, and it stands in the way of every job until it is taken in.
#[tokio::test]
async fn an_id_that_is_no_utf8_is_taken_back_alone() {
    const BAD: &str = "CAST(x'fc41' AS TEXT)";
    for (script, refused, left) in [
        (format!("INSERT INTO orders(id, title) VALUES ({BAD}, 'bad')"), 1, "a b"),
        (format!("INSERT INTO orders(id, title) VALUES ({BAD}, 'bad'), ('c', 'good'), (CAST(x'ff' AS TEXT), 'bad')"), 2, "a b c"),
        (format!("UPDATE orders SET id = {BAD} WHERE id = 'a'"), 1, "b"),
        (format!("INSERT INTO orders(id) VALUES ({BAD}); UPDATE orders SET id = 'd' WHERE title IS NULL"), 1, "a b d"),
        (format!("INSERT INTO orders(id) VALUES ({BAD}); DELETE FROM orders WHERE title IS NULL"), 1, "a b"),
    ] {
        let world = World::new().await;
        let device = world.device("a", &["all"]).await;
        let raw = device.raw();
        raw.execute_batch("INSERT INTO orders(id, title) VALUES ('a', 'one'), ('b', 'two')").unwrap();
        device.store.take_in().await.unwrap();
        raw.execute_batch(&script).unwrap();
        device.store.take_in().await.unwrap_or_else(|error| panic!("{script}: {error}"));
        let ids: String = raw.query_row("SELECT group_concat(id, ' ' ORDER BY id) FROM orders", [], |row| row.get(0)).unwrap();
        let told = device.count("SELECT count(*) FROM mobo_intake_refused");
        assert_eq!((ids.as_str(), told), (left, refused), "{script}");
        device.sync(&world).await;
    }
}

#[tokio::test]
async fn what_the_hub_delivers_is_not_taken_in_and_a_waiting_write_is_not_lost_to_it() {
    let world = World::new().await;
    let (a, b) = (world.device("a", &["all"]).await, world.device("b", &["all"]).await);
    a.write(&world, "orders", Intent::Put, "p", json!({"title": "a", "hours": 1})).await;
    a.sync(&world).await;
    b.sync(&world).await;
    assert_eq!(b.count("SELECT count(*) FROM mobo_outbox"), 0, "what was delivered is nobody's write here");
    // Written by SQL, and not taken in when the hub's word arrives.
    b.raw().execute_batch("UPDATE orders SET n = 8, hours = hours + 10; INSERT INTO orders(id, title) VALUES ('q', 'new')").unwrap();
    a.write(&world, "orders", Intent::Patch, "p", json!({"title": "later", "hours": {"$inc": 100}})).await;
    a.sync(&world).await;
    b.catch_up(&world).await;
    let row = b.row(&world, "orders", "p").await;
    assert_eq!((&row["title"], &row["hours"], &row["n"]), (&json!("later"), &json!(111), &json!(8)));
    b.sync(&world).await;
    a.sync(&world).await;
    assert_eq!(a.rows(&world, "orders").await, b.rows(&world, "orders").await);
    assert_eq!(world.rows("orders").await, b.rows(&world, "orders").await);
}

#[tokio::test]
async fn unknown_fields_and_their_authors_survive_sql_on_an_old_schema() {
    let mut world = World::new().await;
    let wide = collection(9, "wide", mobo_core::schema::Kind::Table, "a:text b:text", &[]);
    world.create(wide.clone()).await;
    let narrow = mobo_core::schema::Collection { fields: wide.fields[..1].to_vec(), rev: 0, ..wide };
    let schema = mobo_core::schema::Schema::new(1, world.schema.iter().filter(|known| known.name != "wide").cloned().chain([narrow]));
    let new = world.device("new", &["all"]).await;
    let old = world.device_knowing("old", &["all"], world.definitions_of(&schema)).await;
    new.write(&world, "wide", Intent::Put, "w", json!({"a": "1", "b": "kept"})).await;
    new.sync(&world).await;
    old.sync(&world).await;
    for sql in [
        "UPDATE wide SET a = '2'",
        "REPLACE INTO wide(id, a) VALUES ('w', '3')",
        "INSERT INTO wide(id, a) VALUES ('w', '4') ON CONFLICT DO UPDATE SET a = excluded.a",
    ] {
        old.raw().execute_batch(sql).unwrap();
        old.sync(&world).await;
        new.sync(&world).await;
        assert_eq!(new.row(&world, "wide", "w").await["b"], "kept", "{sql}");
    }
    assert_eq!(new.row(&world, "wide", "w").await["a"], "4");
}

#[tokio::test]
async fn a_version_that_the_writer_gives_is_what_it_has_seen() {
    let world = World::new().await;
    let (a, b) = (world.device("a", &["all"]).await, world.device("b", &["all"]).await);
    a.write(&world, "orders", Intent::Put, "p", json!({"title": "a"})).await;
    a.sync(&world).await;
    b.sync(&world).await;
    for (given, conflicts) in [("", 0), (", mobo_ver = 1", 1)] {
        a.write(&world, "orders", Intent::Patch, "p", json!({"title": format!("a{given}")})).await;
        a.sync(&world).await;
        b.sync(&world).await;
        b.raw().execute_batch(&format!("UPDATE orders SET title = 'b{conflicts}'{given}")).unwrap();
        b.sync(&world).await;
        let found = mobo_core::store::HubStore::conflicts(&world.hub, world.project, None, 10).await.unwrap();
        assert_eq!(found.len(), conflicts, "{given}");
        a.sync(&world).await;
        assert_eq!(a.rows(&world, "orders").await, b.rows(&world, "orders").await);
    }
}

#[tokio::test]
async fn indexes_and_views_of_people_survive_a_change_of_the_schema() {
    let world = World::new().await;
    let device = world.device("a", &["all"]).await;
    let raw = device.raw();
    raw.execute_batch(
        "CREATE INDEX by_title ON orders(title); CREATE VIEW open_orders AS SELECT id, title FROM orders WHERE done IS NOT 1",
    )
    .unwrap();
    raw.execute_batch("INSERT INTO orders(id, title) VALUES ('p', 'x')").unwrap();
    let grown = {
        let mut grown = world.collection("orders").clone();
        let extra = collection(1, "orders", grown.kind, "a:int b:int c:int d:int e:int more:text", &[]).fields.remove(5);
        grown.fields[0].name = "label".to_owned();
        grown.fields.push(extra);
        grown.rev = 2;
        grown
    };
    let schema = mobo_core::schema::Schema::new(world.schema.rev + 1, world.schema.iter().cloned().chain([grown]));
    device.store.put_schema(world.definitions_of(&schema)).await.unwrap();
    let sql = "SELECT count(*) FROM sqlite_schema WHERE name IN ('by_title', 'open_orders')";
    assert_eq!(device.count(sql), 2);
    assert_eq!(device.count("SELECT count(*) FROM open_orders WHERE id = 'p'"), 1);
    raw.execute_batch("UPDATE orders SET label = 'y', more = 'z'").unwrap();
    device.store.take_in().await.unwrap();
    let shown: (String, String) = raw.query_row("SELECT label, more FROM orders", [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert_eq!(shown, ("y".to_owned(), "z".to_owned()));
    device.is_sound().await;
}

#[tokio::test]
async fn a_burst_larger_than_an_entry_is_several_and_a_power_cut_loses_none() {
    let world = World::new().await;
    let mut device = world.device("a", &["all"]).await;
    let raw = device.raw();
    let rows = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 5200) \
                INSERT INTO orders(id, title, n) SELECT printf('o%05d', n), 'x', n FROM n";
    assert_eq!(raw.execute(rows, []).unwrap(), 5_200);
    // Nobody took it in; after the restart it is there.
    device.reopen();
    device.store.take_in().await.unwrap();
    assert!(device.outgoing(Lane::State, None, 100).await.unwrap().entries.len() >= 2);
    device.push_all(&world).await;
    assert_eq!(world.rows("orders").await.len(), 5_200);
    device.is_sound().await;
}

/// A database as an older version of mobo has left it: its tables are closed to SQL.
fn close(device: &Device) {
    let raw: Connection = device.raw();
    let names: Vec<String> = {
        let mut found = raw.prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger' AND name GLOB 'mobo_sql*'").unwrap();
        found.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    for name in names {
        raw.execute_batch(&format!("DROP TRIGGER {name}")).unwrap();
    }
    let edit = "UPDATE sqlite_schema SET sql = replace(replace(sql, ' DEFAULT 0', ''), ' DEFAULT x''''', '') WHERE name = 'orders'";
    raw.execute_batch(&format!("PRAGMA writable_schema = ON; {edit}; PRAGMA writable_schema = RESET")).unwrap();
    assert!(raw.execute_batch("INSERT INTO orders(id) VALUES ('x')").is_err());
}

#[tokio::test]
async fn a_database_of_an_older_version_is_opened_to_sql() {
    let world = World::new().await;
    let mut device = world.device("a", &["all"]).await;
    device.write(&world, "orders", Intent::Put, "p", json!({"title": "old", "hours": 3})).await;
    close(&device);
    device.reopen();
    device.raw().execute_batch("INSERT INTO orders(title) VALUES ('made'); UPDATE orders SET hours = hours + 1 WHERE id = 'p'").unwrap();
    device.sync(&world).await;
    assert_eq!(world.rows("orders").await.len(), 2);
    assert_eq!(device.row(&world, "orders", "p").await["hours"], 4);
}

#[tokio::test]
async fn a_unique_index_that_stands_in_the_way_is_named() {
    let world = World::new().await;
    let (one, two) = (world.device("a", &["all"]).await, world.device("b", &["all"]).await);
    two.raw().execute_batch("CREATE INDEX plain ON orders(n); CREATE UNIQUE INDEX only_once ON orders(title)").unwrap();
    let obstacles = two.store.obstacles().await.unwrap();
    assert_eq!(obstacles.iter().map(|obstacle| obstacle.index.as_str()).collect::<Vec<_>>(), ["only_once"]);
    two.raw().execute_batch("INSERT INTO orders(id, title) VALUES ('p', 'same')").unwrap();
    two.sync(&world).await;
    one.raw().execute_batch("INSERT INTO orders(id, title) VALUES ('q', 'same')").unwrap();
    one.sync(&world).await;
    let (batches, _) = two.pull(&world, 7).await;
    let refused = two.store.apply(batches.into_iter().next().unwrap()).await.unwrap_err().to_string();
    assert!(refused.contains("orders.title") && refused.contains("UNIQUE index"), "{refused}");
    two.raw().execute_batch("DROP INDEX only_once").unwrap();
    two.sync(&world).await;
    assert_eq!(world.rows("orders").await, two.rows(&world, "orders").await);
}
