//! Which transactions are taken in together. Their records are locked, and are then what they were before the first of them.
//!
//! A row holds what all transactions did to it, so whoever takes in one of them takes in all that wrote its records.

use std::collections::BTreeSet;

use mobo_core::ids::{CollectionId, RecordKey};
use mobo_core::limits;
use mobo_core::schema::{Collection, Schema};
use sqlx::{AssertSqlSafe, Row};

use crate::postgres::error::Failure;
use crate::postgres::merge::BLANK;
use crate::postgres::session::Tx;
use crate::postgres::stored::{by_collection, ids};
use crate::postgres::table::{quoted, table};

/// A transaction that is taken in.
pub(super) struct Claimed {
    pub(super) txid: i64,
    /// How many notes there are of it.
    pub(super) rows: usize,
}

/// Locks the records of the oldest transactions, makes their rows what they were, and gives the transactions in the order in which they were
/// committed.
pub(super) async fn claim(tx: &mut Tx, schema: &Schema) -> Result<Vec<Claimed>, Failure> {
    let rows_max = i64::try_from(limits::HUB_INTAKE_ROWS_MAX).unwrap_or(i64::MAX);
    let oldest = sqlx::query("SELECT DISTINCT txid FROM (SELECT txid FROM mobo.intake ORDER BY n LIMIT $1) AS head").bind(rows_max);
    let mut more = txids(tx, oldest).await?;
    let mut taken: Vec<i64> = Vec::new();
    while !more.is_empty() {
        // Before any row, as merges do where a record is not there.
        let insert = sqlx::query(
            "SELECT pg_advisory_xact_lock(c.collection) FROM (SELECT DISTINCT i.collection FROM mobo.intake i \
             WHERE i.txid = ANY($1) AND i.old IS NULL ORDER BY i.collection) AS c",
        );
        tx.rows(insert.bind(&more)).await?;
        for collection in touched(tx, schema, &more).await? {
            // In the order in which everybody locks them.
            let lock = format!("SELECT id FROM {} WHERE id IN ({IDS}) ORDER BY id FOR UPDATE", table(collection));
            tx.rows(sqlx::query(AssertSqlSafe(lock)).bind(collection.id.sql()).bind(&more)).await?;
        }
        taken.append(&mut more);
        // Whoever wrote one of these rows and was done before the lock: the row holds that, too.
        let others = sqlx::query(
            "SELECT DISTINCT o.txid FROM (SELECT DISTINCT i.collection, i.id FROM mobo.intake i JOIN unnest($1::int8[]) AS t(txid) USING (txid)) r \
             JOIN mobo.intake o ON o.collection = r.collection AND o.id = r.id \
             LEFT JOIN unnest($1::int8[]) AS known(txid) ON known.txid = o.txid WHERE known.txid IS NULL",
        );
        more = txids(tx, others.bind(&taken)).await?;
    }
    put_back(tx, schema, &taken).await?;
    let order =
        sqlx::query("SELECT txid, count(*) FROM mobo.intake JOIN unnest($1::int8[]) AS t(txid) USING (txid) GROUP BY txid ORDER BY max(n)");
    let rows = tx.rows(order.bind(&taken)).await?;
    let claimed = |row: &sqlx::postgres::PgRow| {
        let rows = usize::try_from(row.try_get::<i64, _>(1)?).unwrap_or(usize::MAX);
        Ok(Claimed { txid: row.try_get(0)?, rows })
    };
    rows.iter().map(claimed).collect()
}

/// Takes away the rows of records that are not there in the end.
pub(super) async fn sweep(tx: &mut Tx, schema: &Schema, standing: &BTreeSet<RecordKey>) -> Result<(), Failure> {
    for (collection, keys) in by_collection(schema, standing) {
        let sql = format!("DELETE FROM {} WHERE id = ANY($1) AND _mobo = ''", table(collection));
        tx.run(sqlx::query(AssertSqlSafe(sql)).bind(ids(&keys))).await?;
    }
    Ok(())
}

/// The rows of collection `$1` before the first of transactions `$2`.
const FIRST: &str =
    "SELECT DISTINCT ON (i.id) i.id, i.old FROM mobo.intake i WHERE i.collection = $1 AND i.txid = ANY($2) ORDER BY i.id, i.n";

/// The ids that transactions `$2` wrote in collection `$1`.
const IDS: &str = "SELECT i.id FROM mobo.intake i WHERE i.collection = $1 AND i.txid = ANY($2)";

/// Makes rows what they were before anybody touched them, wherever they are now. A row that is there is changed in place: whoever waits for its
/// lock, to write it, finds it. One that was not there before stands without a state until its record is made.
async fn put_back(tx: &mut Tx, schema: &Schema, taken: &[i64]) -> Result<(), Failure> {
    for collection in touched(tx, schema, taken).await? {
        let name = table(collection);
        let rows = format!("SELECT (jsonb_populate_record(NULL::{name}, f.old)).* FROM ({FIRST}) AS f WHERE f.old IS NOT NULL");
        let mut columns =
            String::from("mobo_ver = p.mobo_ver, _extra = p._extra, _mobo = p._mobo, _bucket = p._bucket, _position = p._position");
        for field in &collection.fields {
            let column = quoted(&field.name);
            columns.push_str(&format!(", {column} = p.{column}"));
        }
        for sql in [
            format!("UPDATE {name} t SET {BLANK} FROM ({FIRST}) AS f WHERE t.id = f.id AND f.old IS NULL AND t._mobo <> ''"),
            format!("UPDATE {name} t SET {columns} FROM ({rows}) AS p WHERE t.id = p.id"),
            // It meets what somebody inserts meanwhile, and is not to be taken for that.
            format!("INSERT INTO {name} SELECT p.* FROM ({rows}) AS p WHERE NOT EXISTS (SELECT FROM {name} t WHERE t.id = p.id)"),
        ] {
            tx.run(sqlx::query(AssertSqlSafe(sql)).bind(collection.id.sql()).bind(taken)).await?;
        }
    }
    Ok(())
}

async fn txids(tx: &mut Tx, statement: crate::postgres::session::Statement<'_>) -> Result<Vec<i64>, Failure> {
    tx.rows(statement).await?.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// The collections that transactions wrote, ascending.
async fn touched<'s>(tx: &mut Tx, schema: &'s Schema, txids: &[i64]) -> Result<Vec<&'s Collection>, Failure> {
    let look = sqlx::query("SELECT DISTINCT collection FROM mobo.intake JOIN unnest($1::int8[]) AS t(txid) USING (txid)").bind(txids);
    let rows = tx.rows(look).await?;
    let ids: BTreeSet<CollectionId> =
        rows.iter().filter_map(|row| row.try_get(0).map(CollectionId::from_sql).transpose()).collect::<Result<_, sqlx::Error>>()?;
    Ok(ids.into_iter().filter_map(|id| schema.get(id)).collect())
}
