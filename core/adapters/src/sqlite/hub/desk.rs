//! Statements of the small tables, as SQLite reads them.

use std::sync::{Arc, OnceLock};

use mobo_core::store::{MergeBatch, StoreError, StoreFuture};
use rusqlite::{Connection, params_from_iter};

use super::transfer::{Bound, cell};
use super::{SqliteHubStore, intake, merge};
use crate::desk::{Desk, Done, Noted, NotingDesk, Outcome, Statement, first_refused};
use crate::sqlite::error::Failure;

impl Desk for SqliteHubStore {
    fn run(&self, statements: Vec<Statement>) -> StoreFuture<'_, Outcome> {
        Box::pin(async move {
            // Whatever was missed takes back what came before it, as a failure that carries the place.
            let missed = Arc::new(OnceLock::new());
            let place = Arc::clone(&missed);
            let work = move |connection: &Connection| Ok(Outcome::Done(all(connection, &statements, &place)?));
            match (self.writer.run(work).await, missed.get()) {
                (Err(StoreError::Refused(_)), Some(at)) => Ok(Outcome::Missed(*at)),
                (done, _) => done,
            }
        })
    }
}

impl NotingDesk for SqliteHubStore {
    fn merge_noting(&self, batch: MergeBatch, notes: Vec<Statement>) -> StoreFuture<'_, Noted> {
        Box::pin(async move {
            let (missed, refused) = (Arc::new(OnceLock::new()), Arc::new(OnceLock::new()));
            let (place, why, schemas) = (Arc::clone(&missed), Arc::clone(&refused), Arc::clone(&self.schemas));
            let work = move |connection: &Connection| {
                all(connection, &notes, &place)?;
                let report = intake::first(connection, &schemas, batch, merge::merge)?;
                if let Some(found) = first_refused(&report.outcomes)? {
                    let _ = why.set(found);
                    return Err(Failure::refused("a submission was not merged"));
                }
                Ok(Noted::Done(report))
            };
            match (self.writer.run(work).await, missed.get(), refused.get()) {
                (Err(StoreError::Refused(_)), Some(at), _) => Ok(Noted::Missed(*at)),
                (Err(StoreError::Refused(_)), None, Some((at, why))) => Ok(Noted::Refused(*at, why.clone())),
                (done, _, _) => done,
            }
        })
    }
}

/// Runs statements; fails at one that found nothing and must, and leaves its place.
fn all(connection: &Connection, statements: &[Statement], missed: &OnceLock<usize>) -> Result<Vec<Done>, Failure> {
    let mut done = Vec::with_capacity(statements.len());
    for (at, statement) in statements.iter().enumerate() {
        let step = run(connection, statement)?;
        if statement.must && step.changed == 0 {
            let _ = missed.set(at);
            return Err(Failure::refused("a statement found nothing"));
        }
        done.push(step);
    }
    Ok(done)
}

/// Runs one statement.
fn run(connection: &Connection, statement: &Statement) -> Result<Done, Failure> {
    let mut prepared = connection.prepare_cached(&statement.sql.replace('$', "?"))?;
    let cells = params_from_iter(statement.cells.iter().map(Bound));
    let columns = prepared.column_count();
    if columns == 0 {
        return Ok(Done { rows: Vec::new(), changed: prepared.execute(cells)? as u64 });
    }
    let mut found = prepared.query(cells)?;
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        rows.push((0..columns).map(|column| cell(row.get_ref(column)?)).collect::<Result<Vec<_>, Failure>>()?);
    }
    Ok(Done { changed: rows.len() as u64, rows })
}
