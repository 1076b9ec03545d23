//! SQL by hand on the hub's database: an ordinary connection. What it writes into the tables of collections is taken in like any program's.

use mobo_core::store::StoreError;
use mobo_runtime::command::{SqlAnswer, SqlAnswers};
use serde_json::{Map, Value as Json, json};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Column as _, Row, TypeInfo as _, ValueRef as _};

use super::address::Address;

/// A connection for people.
#[derive(Debug)]
pub struct PostgresShell(PgConnection);

impl PostgresShell {
    /// Connects to the database at a URL.
    ///
    /// # Errors
    ///
    /// As for [`open`](super::PostgresHubStore::open).
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        Ok(Self(Address::parse(url)?.connect().await?.0))
    }

    /// Runs statements; the rows are those of all that gave some.
    pub async fn run(&mut self, sql: &str) -> SqlAnswers {
        if sql.trim().trim_matches(';').is_empty() {
            return (Vec::new(), None);
        }
        let query = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        let answer = if gives_rows(sql) {
            query.fetch_all(&mut self.0).await.map(|rows| SqlAnswer::Rows(rows.iter().map(shown).collect()))
        } else {
            query.execute(&mut self.0).await.map(|done| SqlAnswer::Changed(done.rows_affected()))
        };
        match answer {
            Ok(answer) => (vec![answer], None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        }
    }
}

fn gives_rows(sql: &str) -> bool {
    let lower = sql.trim_start().to_ascii_lowercase();
    ["select", "with", "show", "table", "values", "explain"].iter().any(|word| lower.starts_with(word)) || lower.contains("returning")
}

/// A row by its columns: numbers and booleans as such, everything else as Postgres writes it.
fn shown(row: &PgRow) -> Map<String, Json> {
    let cell = |index: usize| -> Json {
        let Ok(raw) = row.try_get_raw(index) else { return Json::Null };
        let name = raw.type_info().name().to_owned();
        let Some(text) = raw.as_str().ok().filter(|_| !raw.is_null()) else { return Json::Null };
        match name.as_str() {
            "INT2" | "INT4" | "INT8" => text.parse::<i64>().map_or_else(|_| json!(text), |number| json!(number)),
            "FLOAT4" | "FLOAT8" => text.parse::<f64>().map_or_else(|_| json!(text), |number| json!(number)),
            "BOOL" => json!(text == "t"),
            _ => json!(text),
        }
    };
    row.columns().iter().enumerate().map(|(index, column)| (column.name().to_owned(), cell(index))).collect()
}
