//! Messages of plain sensors that no rule could take: told, tried again, or let go.

use mobo_adapters::desk::{Cell, Desk, Noted, Outcome, Statement};
use mobo_core::ingest::{Parts, RefusedMessage, Row};
use mobo_core::store::StoreError;

use super::{Inbox, first_number};
use crate::auth::rows::{bytes, number, word};

const LIST: &str = "SELECT n, topic, payload, bytes, why, at_us FROM mobo_ingest_refused WHERE n < $1 ORDER BY n DESC LIMIT $2";
const ONE: &str = "SELECT n, topic, payload, bytes, why, at_us FROM mobo_ingest_refused WHERE n = $1";
const COUNT: &str = "SELECT CAST(COUNT(*) AS bigint) FROM mobo_ingest_refused";
const DROP: &str = "DELETE FROM mobo_ingest_refused WHERE n = $1";

/// The newest of them, behind a number; `None` starts the list.
///
/// # Errors
///
/// The store's.
pub async fn list(desk: &dyn Desk, after: Option<u64>, limit: u32) -> Result<Vec<RefusedMessage>, StoreError> {
    let after = after.map_or(i64::MAX, u64::cast_signed);
    read(desk, Statement::new(LIST, [Cell::Int(after), Cell::Int(i64::from(limit))])).await
}

/// One of them.
///
/// # Errors
///
/// The store's.
pub async fn one(desk: &dyn Desk, n: u64) -> Result<Option<RefusedMessage>, StoreError> {
    Ok(read(desk, Statement::new(ONE, [Cell::Int(n.cast_signed())])).await?.into_iter().next())
}

/// How many there are.
///
/// # Errors
///
/// The store's.
pub async fn count(desk: &dyn Desk) -> Result<u64, StoreError> {
    let Outcome::Done(done) = desk.run(vec![Statement::new(COUNT, [])]).await? else { return Ok(0) };
    Ok(done.first().and_then(first_number).map_or(0, i64::cast_unsigned))
}

/// Lets one of them go.
///
/// # Errors
///
/// The store's.
pub async fn let_go(desk: &dyn Desk, n: u64) -> Result<(), StoreError> {
    desk.run(vec![Statement::new(DROP, [Cell::Int(n.cast_signed())])]).await.map(|_| ())
}

/// Takes one of them in by what its rules make of it now; then it is no longer kept aside. Gives the number of its rows.
///
/// # Errors
///
/// [`StoreError::Refused`]: it stays.
pub async fn retry(inbox: &Inbox, n: u64, rows: Vec<Row>) -> Result<u64, StoreError> {
    let schema = std::sync::Arc::clone(&inbox.opened.schema.borrow());
    let parts = Parts::of(rows, &schema, inbox.wall()).map_err(|error| StoreError::Refused(error.to_string()))?;
    let rows = parts.rows();
    match inbox.merge(parts, vec![Statement::must(DROP, [Cell::Int(n.cast_signed())])]).await? {
        Noted::Done(_) => Ok(rows),
        Noted::Refused(_, why) => Err(StoreError::Refused(why)),
        Noted::Missed(_) => Err(StoreError::Refused("somebody else has dealt with it meanwhile".to_owned())),
    }
}

async fn read(desk: &dyn Desk, statement: Statement) -> Result<Vec<RefusedMessage>, StoreError> {
    let Outcome::Done(done) = desk.run(vec![statement]).await? else { return Ok(Vec::new()) };
    let rows = done.iter().flat_map(|step| &step.rows);
    rows.map(|row| message(row).ok_or_else(|| StoreError::Damaged("a message that was kept aside cannot be read".to_owned()))).collect()
}

fn message(row: &[Cell]) -> Option<RefusedMessage> {
    Some(RefusedMessage {
        n: number(row, 0)?.cast_unsigned(),
        topic: word(row, 1)?,
        payload: bytes(row, 2)?,
        bytes: number(row, 3)?.cast_unsigned(),
        why: word(row, 4)?,
        at_us: number(row, 5)?,
    })
}
