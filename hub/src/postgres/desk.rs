//! Statements of the small tables, as Postgres reads them.

use std::sync::Arc;

use mobo_adapters::desk::{Desk, Done, Noted, NotingDesk, Outcome, Statement, first_refused};
use mobo_core::limits;
use mobo_core::store::transfer::Cell;
use mobo_core::store::{MergeBatch, MergeReport, StoreFuture};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Column, Row, TypeInfo};

use super::error::Failure;
use super::merge::{self, Attempt, Waiting};
use super::session::{Purpose, Tx};
use super::{Inner, PostgresHubStore, apart, intake};

impl Desk for PostgresHubStore {
    fn run(&self, statements: Vec<Statement>) -> StoreFuture<'_, Outcome> {
        Box::pin(async move {
            let mut tx = self.begin(Purpose::Write).await?;
            match all(&mut tx, &statements).await {
                Ok(Outcome::Missed(at)) => {
                    tx.rollback().await?;
                    Ok(Outcome::Missed(at))
                }
                done => Ok(tx.finish(done).await?),
            }
        })
    }
}

impl NotingDesk for PostgresHubStore {
    fn merge_noting(&self, batch: MergeBatch, notes: Vec<Statement>) -> StoreFuture<'_, Noted> {
        let inner = Arc::clone(&self.inner);
        Box::pin(apart(async move || Ok(noting(&inner, &batch, &notes).await?)))
    }
}

/// Merges, with notes in the same transaction. They come first, as their rows are locked before any that is merged, by everybody.
async fn noting(store: &Inner, batch: &MergeBatch, notes: &[Statement]) -> Result<Noted, Failure> {
    let mut before = MergeReport::default();
    loop {
        let mut tx = Tx::begin(&store.pool, Purpose::MergeWithin(limits::MERGE_LOCK_TIMEOUT_ALONE)).await?;
        // Who stands still in here keeps the turn: the database ends that when the turn would have ended.
        let idle = limits::INGEST_TURN.as_millis();
        tx.run(sqlx::query(AssertSqlSafe(format!("SET LOCAL idle_in_transaction_session_timeout = {idle}")))).await?;
        let step = match all(&mut tx, notes).await {
            Ok(Outcome::Missed(at)) => {
                tx.rollback().await?;
                return Ok(Noted::Missed(at));
            }
            Ok(Outcome::Done(_)) => merge::attempt(&mut tx, store, batch, Waiting::Matters).await,
            Err(failure) => Err(failure),
        };
        let (report, keys) = match step {
            Ok(Attempt::Done(report, keys)) => (report, keys),
            Ok(Attempt::Nothing(report)) => (report, Vec::new()),
            Ok(Attempt::LanesMissing(missing)) => {
                tx.rollback().await?;
                merge::make_lanes(store, batch.project, &missing).await?;
                continue;
            }
            Ok(Attempt::Waiting) => {
                tx.rollback().await?;
                if let Some(report) = intake::take_in(store, batch).await? {
                    before = MergeReport { outcomes: Vec::new(), ..report }.behind(before);
                }
                continue;
            }
            Err(failure) => return tx.finish(Err(failure)).await,
        };
        match first_refused(&report.outcomes) {
            Ok(None) => {}
            Ok(Some((at, why))) => {
                tx.rollback().await?;
                return Ok(Noted::Refused(at, why));
            }
            Err(error) => return tx.finish(Err(error.into())).await,
        }
        let report = tx.finish(Ok(report)).await?;
        store.known.keep_buckets(batch.project, keys);
        store.known.keep_heads(batch.project, batch.timeline, &report.hints);
        return Ok(Noted::Done(report.behind(before)));
    }
}

/// Runs statements up to one that found nothing, and must.
async fn all(tx: &mut Tx, statements: &[Statement]) -> Result<Outcome, Failure> {
    let mut done = Vec::with_capacity(statements.len());
    for (at, statement) in statements.iter().enumerate() {
        let step = run(tx, statement).await?;
        if statement.must && step.changed == 0 {
            return Ok(Outcome::Missed(at));
        }
        done.push(step);
    }
    Ok(Outcome::Done(done))
}

/// Runs one statement.
async fn run(tx: &mut Tx, statement: &Statement) -> Result<Done, Failure> {
    // The text is ours: `Statement` holds nothing else.
    // A statement that is kept prepared keeps the types of its first cells, and nothing tells the type of a null.
    let is_kept = !statement.cells.contains(&Cell::Null);
    let mut query = sqlx::query(AssertSqlSafe(statement.sql.replace("mobo_", "mobo."))).persistent(is_kept);
    for cell in &statement.cells {
        query = match cell {
            Cell::Null => query.bind(None::<String>),
            Cell::Int(number) => query.bind(*number),
            Cell::Real(number) => query.bind(*number),
            Cell::Text(text) => query.bind(text.clone()),
            Cell::Bytes(bytes) => query.bind(bytes.clone()),
        };
    }
    let gives = statement.sql.starts_with("SELECT") || statement.sql.contains("RETURNING");
    if !gives {
        return Ok(Done { rows: Vec::new(), changed: tx.run(query).await? });
    }
    let rows = tx.rows(query).await?.iter().map(cells).collect::<Result<Vec<_>, _>>()?;
    Ok(Done { changed: rows.len() as u64, rows })
}

fn cells(row: &PgRow) -> Result<Vec<Cell>, Failure> {
    let cell = |(n, column): (usize, &sqlx::postgres::PgColumn)| {
        Ok(match column.type_info().name() {
            "INT8" => row.try_get::<Option<i64>, _>(n)?.map_or(Cell::Null, Cell::Int),
            "BYTEA" => row.try_get::<Option<Vec<u8>>, _>(n)?.map_or(Cell::Null, Cell::Bytes),
            "TEXT" => row.try_get::<Option<String>, _>(n)?.map_or(Cell::Null, Cell::Text),
            other => return Err(Failure::damaged(format!("the column {} is a {other}", column.name()))),
        })
    };
    row.columns().iter().enumerate().map(cell).collect()
}
