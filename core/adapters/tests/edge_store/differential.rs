//! The same random SQL on a plain table and on a replicated one gives the same answers and the same rows, here and at the hub.
//!
//! `MOBO_SQL_SCRIPTS` says how many scripts (100 by default), `MOBO_SQL_SEED` with which one to begin.

use mobo_core::schema::Kind;
use rusqlite::Connection;
use rusqlite::types::Value;

use crate::world::{Rng, World, collection};

const PLAIN: &str = "CREATE TABLE things(id TEXT PRIMARY KEY, a TEXT, n INTEGER, f REAL, b BLOB) STRICT, WITHOUT ROWID";
const ROWS: &str = "SELECT id, a, n, f, b FROM things ORDER BY id";

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn rows(connection: &Connection, sql: &str) -> Result<Vec<Vec<Value>>, String> {
    let mut statement = connection.prepare(sql).map_err(|error| error.to_string())?;
    let columns = statement.column_count();
    let found = statement.query_map([], |row| (0..columns).map(|column| row.get(column)).collect());
    found.and_then(Iterator::collect).map_err(|error| error.to_string())
}

fn id(rng: &mut Rng) -> String {
    format!("'k{}'", rng.below(6))
}

fn value(rng: &mut Rng, column: u64) -> String {
    match (rng.below(8), column) {
        (0, _) => "NULL".to_owned(),
        (1, _) => "'text'".to_owned(),
        (2, _) => "x'00ff'".to_owned(),
        (n, 0) => format!("'it''s ä {n}'"),
        (n, 1) => format!("{}", n.cast_signed() - 4),
        (n, 2) => format!("{n}.25e{}", rng.below(300)),
        (n, _) => format!("x'0{n}'"),
    }
}

fn column(rng: &mut Rng) -> (u64, &'static str) {
    let at = rng.below(4);
    (at, ["a", "n", "f", "b"][usize::try_from(at).unwrap()])
}

/// One statement. The same clause stands for all, so that some fail in the middle of what they do.
fn statement(rng: &mut Rng) -> String {
    let clause = ["", "", " OR REPLACE", " OR IGNORE", " OR ABORT", " OR FAIL", " OR ROLLBACK"][usize::try_from(rng.below(7)).unwrap()];
    let (at, name) = column(rng);
    match rng.below(18) {
        0..=3 => format!("INSERT{clause} INTO things(id, {name}) VALUES ({}, {})", id(rng), value(rng, at)),
        4 => {
            let row = |rng: &mut Rng| format!("({}, {}, {}, {}, {})", id(rng), value(rng, 0), value(rng, 1), value(rng, 2), value(rng, 3));
            format!("INSERT{clause} INTO things(id, a, n, f, b) VALUES {}, {}, {}", row(rng), row(rng), row(rng))
        }
        5 => format!("REPLACE INTO things(id, {name}) VALUES ({}, {})", id(rng), value(rng, at)),
        6 => format!(
            "INSERT INTO things(id, {name}) VALUES ({}, {}) ON CONFLICT (id) DO UPDATE SET {name} = excluded.{name}",
            id(rng),
            value(rng, at)
        ),
        7 => format!(
            "INSERT INTO things(id, n) VALUES ({}, 1) ON CONFLICT (id) DO UPDATE SET n = coalesce(n, 0) + 1 WHERE n IS NOT 3",
            id(rng)
        ),
        8 => format!("INSERT INTO things(id) VALUES ({}) ON CONFLICT DO NOTHING", id(rng)),
        9 => format!("UPDATE{clause} things SET {name} = {} WHERE id = {}", value(rng, at), id(rng)),
        10 => format!("UPDATE{clause} things SET {name} = {}", value(rng, at)),
        11 => format!("UPDATE{clause} things SET id = {} WHERE id = {}", id(rng), id(rng)),
        12 => format!("UPDATE{clause} things SET id = 'k' || (substr(id, 2) + 1), n = n + 1 WHERE id > {}", id(rng)),
        13 => format!("DELETE FROM things WHERE id = {}", id(rng)),
        14 => format!("DELETE FROM things WHERE {name} IS NULL"),
        15 => "DELETE FROM things".to_owned(),
        16 => format!("INSERT{clause} INTO things(id, a) SELECT 'k' || (substr(id, 2) + 1), a FROM things WHERE id < 'k9'"),
        _ => format!("INSERT{clause} INTO things(id, n) VALUES ({}, 5), ({}, NULL)", id(rng), id(rng)),
    }
}

/// Runs a statement, all of which is taken back where a value is refused for its type: no conflict clause speaks of that.
///
/// Inside a transaction, SQLite leaves behind the rows that an `OR FAIL` or `OR IGNORE` has written before such a value, unless the table has a
/// trigger that may abort. A replicated table has one.
fn by_the_book(plain: &Connection, sql: &str) -> Result<usize, String> {
    let writes = ["INSERT", "UPDATE", "REPLACE", "DELETE"].iter().any(|verb| sql.starts_with(verb));
    if !writes || plain.is_autocommit() {
        return plain.execute(sql, []).map_err(|error| error.to_string());
    }
    plain.execute_batch("SAVEPOINT mobo_statement").unwrap();
    let answer = plain.execute(sql, []).map_err(|error| error.to_string());
    if answer.as_ref().is_err_and(|error| error.starts_with("cannot store ")) {
        // And nothing was changed, by its count either.
        plain.execute_batch("ROLLBACK TO mobo_statement; DELETE FROM things WHERE false").unwrap();
    }
    // Not there any more where the statement has ended the transaction.
    if !plain.is_autocommit() {
        plain.execute_batch("RELEASE mobo_statement").unwrap();
    }
    answer
}

/// A statement about the transaction, and whether one is open after it.
fn transaction(rng: &mut Rng) -> &'static str {
    ["BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT s", "ROLLBACK TO s", "RELEASE s", "BEGIN IMMEDIATE", "COMMIT"]
        [usize::try_from(rng.below(8)).unwrap()]
}

/// Runs a script on a plain table and on a replicated one, `raw`, where `take_in` is called now and then; gives the plain table and what was said.
async fn script(raw: &Connection, seed: u64, take_in: impl AsyncFn()) -> (Connection, Vec<String>) {
    let mut rng = Rng(seed);
    let plain = Connection::open_in_memory().unwrap();
    plain.execute_batch(PLAIN).unwrap();
    let mut said = Vec::new();
    for _ in 0..4 + rng.below(24) {
        let sql = if rng.chance(25) { transaction(&mut rng).to_owned() } else { statement(&mut rng) };
        said.push(sql.clone());
        let want = by_the_book(&plain, &sql);
        let got = raw.execute(&sql, []).map_err(|error| error.to_string());
        assert_eq!(got, want, "seed {seed}: {said:#?}");
        assert_eq!(raw.changes(), plain.changes(), "seed {seed}: {said:#?}");
        assert_eq!(raw.is_autocommit(), plain.is_autocommit(), "seed {seed}: {said:#?}");
        if rng.chance(20) && plain.is_autocommit() {
            take_in().await;
        }
        assert_eq!(rows(raw, ROWS), rows(&plain, ROWS), "seed {seed}: {said:#?}");
    }
    if !plain.is_autocommit() {
        plain.execute_batch("COMMIT").unwrap();
        raw.execute_batch("COMMIT").unwrap();
    }
    (plain, said)
}

fn seeds() -> std::ops::Range<u64> {
    let first = number("MOBO_SQL_SEED", 1);
    first..first + number("MOBO_SQL_SCRIPTS", 100)
}

async fn world() -> World {
    let mut world = World::new().await;
    world.create(collection(6, "things", Kind::Table, "a:text n:int f:float b:bytes", &[])).await;
    world
}

#[tokio::test]
async fn sql_on_a_replicated_table_is_sql() {
    let world = world().await;
    let device = world.device("a", &["all"]).await;
    for seed in seeds() {
        device.raw().execute_batch("DELETE FROM things").unwrap();
        let raw = device.raw();
        let (plain, said) = script(&raw, seed, async || _ = device.store.take_in().await.unwrap()).await;
        if seed.is_multiple_of(4) {
            device.sync(&world).await;
            assert_eq!(world.rows("things").await, device.rows(&world, "things").await, "seed {seed}: {said:#?}");
        } else {
            device.store.take_in().await.unwrap();
        }
        assert_eq!(rows(&raw, ROWS), rows(&plain, ROWS), "seed {seed}, taken in: {said:#?}");
        assert_eq!(device.count("SELECT count(*) FROM mobo_intake_refused"), 0, "seed {seed}: {said:#?}");
    }
    device.sync(&world).await;
}

#[tokio::test]
async fn sql_on_a_table_of_the_hub_is_sql() {
    let world = world().await;
    let device = world.device("a", &["all"]).await;
    for seed in seeds() {
        world.raw().execute_batch("DELETE FROM things").unwrap();
        let raw = world.raw();
        let (plain, said) = script(&raw, seed, async || world.take_in().await).await;
        world.take_in().await;
        assert_eq!(rows(&raw, ROWS), rows(&plain, ROWS), "seed {seed}, taken in: {said:#?}");
        assert_eq!(rows(&raw, "SELECT count(*) FROM mobo_intake_refused"), Ok(vec![vec![Value::Integer(0)]]), "seed {seed}: {said:#?}");
        if seed.is_multiple_of(4) {
            device.sync(&world).await;
            assert_eq!(world.rows("things").await, device.rows(&world, "things").await, "seed {seed}: {said:#?}");
        }
    }
    device.sync(&world).await;
}
