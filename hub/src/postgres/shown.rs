//! What readers see of a record, by the hash of its state: what an ETag says. The state itself is not read for that.

use mobo_core::ids::{ProjectId, RecordId, StateHash};
use mobo_core::query::{Page, Select};
use mobo_core::schema::{Collection, Kind};
use mobo_core::store::Shown;
use mobo_core::table::row;
use sqlx::postgres::{PgPool, PgRow};
use sqlx::{AssertSqlSafe, Row};

use super::error::{Failure, known};
use super::select::{self, select, select_and};
use super::session::{self, Tx};
use super::table::{quoted, table};

/// What readers see of a record.
pub(super) async fn of(tx: &mut Tx, project: ProjectId, (collection, id): (&Collection, &RecordId)) -> Result<Shown, Failure> {
    if collection.kind == Kind::Stream {
        return Ok(Shown::Nothing);
    }
    let sql = format!("SELECT 1{} FROM {} WHERE id = $1", columns(project, collection), table(collection));
    match tx.row(sqlx::query(AssertSqlSafe(sql)).bind(id.as_str())).await? {
        Some(row) => read(&row, 1, collection.kind),
        None => Ok(Shown::Nothing),
    }
}

/// Rows, and what readers see of the record that their filter names, where one statement tells both: it gives that record.
pub(super) async fn at_once(pool: &PgPool, query: &Select) -> Result<Option<(Page, Shown)>, Failure> {
    let collection = &query.collection;
    if query.count || !query.embeds.is_empty() || collection.kind == Kind::Stream {
        return Ok(None);
    }
    let found = session::alone(pool, select::rows(query, &columns(query.project, collection))?).await?;
    let mut shown = None;
    let rows = select::read(query, &found, |row, first| {
        shown = Some(read(row, first, collection.kind)?);
        Ok(())
    })?;
    Ok(shown.filter(|_| rows.len() == 1).map(|shown| (Page { rows, total: None }, shown)))
}

/// Rows, and what readers see of the record that their filter names.
pub(super) async fn with_rows(tx: &mut Tx, query: &Select, id: &RecordId) -> Result<(Page, Shown), Failure> {
    let collection = &query.collection;
    if !query.embeds.is_empty() || collection.kind == Kind::Stream {
        return Ok((select(tx, query).await?, of(tx, query.project, (collection, id)).await?));
    }
    let mut shown = None;
    let take = |row: &PgRow, first| {
        shown = Some(read(row, first, collection.kind)?);
        Ok(())
    };
    let page = select_and(tx, query, (&columns(query.project, collection), take)).await?;
    match shown.filter(|_| page.rows.len() == 1) {
        Some(shown) => Ok((page, shown)),
        // Another filter, or a limit, keeps it out.
        None => Ok((page, of(tx, query.project, (collection, id)).await?)),
    }
}

/// What tells it, behind other columns: where the hash is, and whether SQL has written the row since.
fn columns(project: ProjectId, collection: &Collection) -> String {
    let (name, id) = (quoted(&collection.name), collection.id.sql());
    match collection.kind {
        Kind::Table | Kind::Stream => {
            format!(", _mobo, EXISTS (SELECT 1 FROM mobo.intake AS mobo_w WHERE mobo_w.collection = {id} AND mobo_w.id = {name}.id)")
        }
        Kind::Document => format!(
            ", (SELECT state_hash FROM mobo.document AS mobo_d WHERE mobo_d.project = {} AND mobo_d.collection = {id} \
             AND mobo_d.id = {name}.id), false",
            project.sql()
        ),
    }
}

fn read(row: &PgRow, first: usize, kind: Kind) -> Result<Shown, Failure> {
    if row.try_get(first + 1)? {
        return Ok(Shown::Unsettled);
    }
    let bytes: Vec<u8> = row.try_get(first)?;
    Ok(Shown::State(match kind {
        Kind::Table => row::decode_meta(&bytes)?.state_hash,
        Kind::Document | Kind::Stream => known(StateHash::from_slice(&bytes), "state hash")?,
    }))
}
