//! What stands in the nodes' databases, read with nothing but SQL, as any other program would.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Map, Value};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use super::rules::View;
use super::{Database, Witness, evidence};
use crate::demo::collections::{NOTES, Shape, VITALS, WORK_ORDERS};

/// Longest wait for a database.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What a node's database holds.
pub(super) fn view(node: &Witness, nodes: &[Witness]) -> anyhow::Result<View> {
    let shapes = [&WORK_ORDERS, &NOTES, &VITALS];
    let [orders, notes, vitals] = match &node.database {
        Database::Sqlite(file) => sqlite(file, shapes)?,
        Database::Postgres(url) => postgres(url, shapes)?,
    };
    let mut view = View { name: format!("{}, database", node.name), ..View::default() };
    view.records.insert(WORK_ORDERS.name.to_owned(), evidence::by_id(orders)?);
    view.records.insert(NOTES.name.to_owned(), evidence::by_id(notes)?);
    view.samples = evidence::by_device(vitals, node, nodes)?;
    Ok(view)
}

type Rows = Vec<Map<String, Value>>;

fn columns(shape: &Shape) -> Vec<&'static str> {
    let key = if shape.kind == "stream" { "device" } else { "id" };
    std::iter::once(key).chain(shape.fields.iter().map(|(name, _)| *name)).collect()
}

fn query(shape: &Shape, table: &str) -> String {
    format!("SELECT {} FROM {table}", columns(shape).join(", "))
}

fn sqlite<const N: usize>(file: &Path, shapes: [&Shape; N]) -> anyhow::Result<[Rows; N]> {
    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(TIMEOUT)?;
    let mut all = [const { Rows::new() }; N];
    for (rows, shape) in all.iter_mut().zip(shapes) {
        let mut statement = connection.prepare(&query(shape, shape.name))?;
        let names = columns(shape);
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            let cell = |(index, name): (usize, &&'static str)| {
                anyhow::Ok(((*name).to_owned(), from_sqlite(row.get_ref(index)?, kind(shape, name))?))
            };
            rows.push(names.iter().enumerate().map(cell).collect::<anyhow::Result<_>>()?);
        }
    }
    Ok(all)
}

/// The type of a column; keys are text.
fn kind(shape: &Shape, column: &str) -> &'static str {
    shape.fields.iter().find(|(name, _)| *name == column).map_or("text", |(_, kind)| kind)
}

/// SQLite keeps JSON and lists as text.
fn from_sqlite(value: ValueRef<'_>, kind: &str) -> anyhow::Result<Value> {
    Ok(match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => number.into(),
        ValueRef::Text(text) if matches!(kind, "json" | "list") => serde_json::from_slice(text)?,
        ValueRef::Text(text) => std::str::from_utf8(text)?.into(),
        ValueRef::Blob(_) => anyhow::bail!("a column of bytes, where there should be {kind}"),
    })
}

fn postgres<const N: usize>(url: &str, shapes: [&Shape; N]) -> anyhow::Result<[Rows; N]> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let reading = async {
        let mut connection = PgConnection::connect(url).await?;
        let mut all = [const { Rows::new() }; N];
        for (rows, shape) in all.iter_mut().zip(shapes) {
            // The names are constants of the demo.
            let sql = format!("SELECT row_to_json(found)::text FROM ({}) found", query(shape, &format!("public.{}", shape.name)));
            for row in sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut connection).await? {
                rows.push(serde_json::from_str(&row.try_get::<String, _>(0)?)?);
            }
        }
        connection.close().await?;
        anyhow::Ok(all)
    };
    runtime.block_on(async { tokio::time::timeout(TIMEOUT, reading).await }).context("Postgres took too long to answer")?
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_of_sqlite_are_read_as_they_are_meant() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.db");
        let connection = Connection::open(&file).unwrap();
        connection
            .execute_batch(
                "CREATE TABLE notes(id TEXT, body TEXT, tags TEXT, meta TEXT, mobo_ver INTEGER);
                 INSERT INTO notes VALUES ('n', 'x', '[\"a\"]', '{\"b\":[1]}', 1), ('m', NULL, NULL, NULL, 1);
                 CREATE TABLE vitals(device TEXT, cpu REAL, memory REAL, disk REAL, net_rx INTEGER, net_tx INTEGER);
                 INSERT INTO vitals VALUES ('d', 1.5, 2.0, NULL, 7, 8);",
            )
            .unwrap();
        let [notes, vitals] = sqlite(&file, [&NOTES, &VITALS]).unwrap();
        let notes: Vec<Value> = notes.into_iter().map(Value::Object).collect();
        let want = [
            json!({"id": "n", "body": "x", "tags": ["a"], "meta": {"b": [1]}}),
            json!({"id": "m", "body": null, "tags": null, "meta": null}),
        ];
        assert_eq!(notes, want);
        let want = json!({"device": "d", "cpu": 1.5, "memory": 2.0, "disk": null, "net_rx": 7, "net_tx": 8});
        assert_eq!(vitals.into_iter().map(Value::Object).collect::<Vec<_>>(), [want]);
        assert!(sqlite(&file, [&WORK_ORDERS]).is_err(), "a table that is missing is an error, not an empty one");
        assert!(sqlite(&folder.path().join("b.db"), [&NOTES]).is_err(), "no file is made");
    }
}
