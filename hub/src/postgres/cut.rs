//! Everything in a database as of one moment: a transaction that only reads, with a cursor for what is being read.

use std::fmt::Write as _;

use mobo_core::limits;
use mobo_core::store::transfer::{Cell, Row, Table, TableName};
use mobo_core::store::{BACKUP_OWN, Cut, CutTable, Filter, StoreFuture};
use sqlx::{AssertSqlSafe, Row as _};

use super::error::Failure;
use super::session::Tx;
use super::table::quoted;
use super::transfer::binary::{self, Form};
use super::transfer::{forms, name_in_sql, tables};

#[derive(Debug)]
pub(super) struct PostgresCut {
    tx: Tx,
    open: Option<(TableName, Vec<Form>)>,
}

impl PostgresCut {
    pub(super) const fn new(tx: Tx) -> Self {
        Self { tx, open: None }
    }

    async fn shut(&mut self) -> Result<(), Failure> {
        match self.open.take() {
            Some(_) => self.tx.script("CLOSE cut".to_owned()).await,
            None => Ok(()),
        }
    }
}

impl Cut for PostgresCut {
    fn tables(&mut self) -> StoreFuture<'_, Vec<CutTable>> {
        Box::pin(async {
            self.shut().await?;
            Ok(cut_tables(&mut self.tx).await?)
        })
    }

    fn open(&mut self, table: Table, filter: Filter) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            self.shut().await?;
            let forms = forms(&mut self.tx, &table).await?;
            let columns: Vec<String> = table.columns.iter().map(|column| quoted(column)).collect();
            let source = merged(&mut self.tx, &table).await?;
            let from = format!("SELECT {} FROM {source}{}", columns.join(", "), condition(&filter));
            self.tx.script(format!("DECLARE cut NO SCROLL CURSOR FOR {from}")).await?;
            self.open = Some((table.name, forms));
            Ok(())
        })
    }

    fn next(&mut self) -> StoreFuture<'_, Vec<Row>> {
        Box::pin(async {
            let Some((name, forms)) = &self.open else { return Ok(Vec::new()) };
            // Each cursor has the same name and other columns: no plan of it may be kept.
            let fetch = format!("FETCH {} FROM cut", limits::MOVE_ROWS_MAX);
            let rows = self.tx.rows(sqlx::query(AssertSqlSafe(fetch)).persistent(false)).await?;
            let is_last = rows.len() < limits::MOVE_ROWS_MAX;
            let page = rows.iter().map(|row| binary::decode(row, forms, name)).collect::<Result<Vec<Row>, Failure>>()?;
            if is_last {
                self.shut().await?;
            }
            Ok(page)
        })
    }

    fn end(&mut self) -> StoreFuture<'_, ()> {
        Box::pin(async {
            self.open = None;
            Ok(self.tx.reset().await?)
        })
    }
}

/// The rows of a table as they were merged last. What SQL has written into them since is in no record yet, and no row that anybody can restore.
async fn merged(tx: &mut Tx, table: &Table) -> Result<String, Failure> {
    const LOOK: &str = "SELECT id FROM mobo.collection c WHERE name = $1 AND EXISTS (SELECT FROM mobo.intake i WHERE i.collection = c.id)";
    let name = name_in_sql(table);
    let TableName::Collection(collection) = &table.name else { return Ok(name) };
    let Some(row) = tx.row(sqlx::query(LOOK).bind(collection)).await? else { return Ok(name) };
    let id: i64 = row.try_get(0)?;
    Ok(format!(
        "(SELECT r.* FROM {name} r WHERE NOT EXISTS (SELECT FROM mobo.intake i WHERE i.collection = {id} AND i.id = r.id) UNION ALL \
         SELECT (jsonb_populate_record(NULL::{name}, f.old)).* FROM (SELECT DISTINCT ON (i.id) i.old FROM mobo.intake i \
         WHERE i.collection = {id} ORDER BY i.id, i.n) f WHERE f.old IS NOT NULL) merged"
    ))
}

async fn cut_tables(tx: &mut Tx) -> Result<Vec<CutTable>, Failure> {
    const LOOK: &str = "SELECT c.oid::regclass::text, a.attname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid \
                        JOIN pg_namespace n ON n.oid = c.relnamespace JOIN unnest(i.indkey) WITH ORDINALITY AS k(attnum, place) ON true \
                        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum \
                        WHERE i.indisprimary AND n.nspname IN ('mobo', 'public') ORDER BY c.oid, k.place";
    let mut keys: Vec<(String, String)> = Vec::new();
    for row in tx.rows(sqlx::query(LOOK)).await? {
        keys.push((row.try_get(0)?, row.try_get(1)?));
    }
    let mut found = Vec::new();
    for table in tables(tx).await? {
        if matches!(&table.name, TableName::Own(name) if BACKUP_OWN.contains(&name.as_str())) {
            continue;
        }
        let name = regclass(tx, &table).await?;
        let key = keys.iter().filter(|(of, _)| *of == name).map(|(_, column)| column.clone()).collect();
        found.push(CutTable { table, key });
    }
    Ok(found)
}

async fn regclass(tx: &mut Tx, table: &Table) -> Result<String, Failure> {
    let row = tx.row(sqlx::query("SELECT to_regclass($1)::text").bind(name_in_sql(table))).await?;
    Ok(row.map(|row| row.try_get::<Option<String>, _>(0)).transpose()?.flatten().unwrap_or_default())
}

/// The WHERE, with its values in it: a cursor takes none from outside.
fn condition(filter: &Filter) -> String {
    let mut parts: Vec<String> = filter.equal.iter().map(|(column, value)| format!("{} = {}", quoted(column), literal(value))).collect();
    parts.extend(filter.above.iter().map(|(column, number)| format!("{} > {number}", quoted(column))));
    parts.extend(filter.among.iter().map(|(column, texts)| {
        let texts: Vec<String> = texts.iter().map(|text| literal(&Cell::Text(text.clone()))).collect();
        format!("{} IN ({})", quoted(column), if texts.is_empty() { "NULL".to_owned() } else { texts.join(", ") })
    }));
    parts.extend(filter.absent.iter().map(|column| format!("{} IS NULL", quoted(column))));
    let mut sql = if parts.is_empty() { String::new() } else { format!(" WHERE {}", parts.join(" AND ")) };
    if let Some((column, _)) = &filter.above {
        let _ = write!(sql, " ORDER BY {}", quoted(column));
    }
    if let Some(limit) = filter.limit {
        let _ = write!(sql, " LIMIT {limit}");
    }
    sql
}

/// A value in SQL, whatever `standard_conforming_strings` says.
fn literal(value: &Cell) -> String {
    match value {
        Cell::Null => "NULL".to_owned(),
        Cell::Int(number) => number.to_string(),
        Cell::Real(number) => format!("'{number:?}'::float8"),
        Cell::Text(text) => format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''")),
        Cell::Bytes(bytes) => format!("decode('{}', 'hex')", mobo_core::backup::hex(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cannot_leave_their_quotes() {
        let filter = Filter {
            equal: vec![("a\"b".into(), Cell::Bytes(vec![0, 255])), ("c".into(), Cell::Int(-1))],
            above: Some(("p".into(), 7)),
            among: Some(("id".into(), vec!["it's".into(), "\\'; DROP TABLE x; --".into()])),
            absent: None,
            limit: Some(5),
        };
        let want = " WHERE \"a\"\"b\" = decode('00ff', 'hex') AND \"c\" = -1 AND \"p\" > 7 AND \
                    \"id\" IN (E'it''s', E'\\\\''; DROP TABLE x; --') ORDER BY \"p\" LIMIT 5";
        assert_eq!(condition(&filter), want);
        assert_eq!(condition(&Filter::default()), "");
    }
}
