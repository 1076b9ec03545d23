//! What readers see of a record, by the hash of its state: what an ETag says. The state itself is not read for that.

use mobo_core::ids::{ProjectId, RecordId, StateHash};
use mobo_core::query::{Page, Select};
use mobo_core::schema::{Collection, Kind};
use mobo_core::store::Shown;
use mobo_core::table::row;
use rusqlite::{Connection, Row};

use crate::sqlite::error::{Failure, known};
use crate::sqlite::intake::before;
use crate::sqlite::select::{select, select_and};
use crate::sqlite::table::quoted;

/// What readers see of a record.
pub(super) fn of(connection: &Connection, project: ProjectId, (collection, id): (&Collection, &RecordId)) -> Result<Shown, Failure> {
    if collection.kind == Kind::Stream {
        return Ok(Shown::Nothing);
    }
    let sql = format!("SELECT 1{} FROM {} WHERE id = ?1", columns(project, collection), quoted(&collection.name));
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([id.as_str()])?;
    rows.next()?.map_or(Ok(Shown::Nothing), |row| read(row, 1, collection.kind))
}

/// Rows, and what readers see of the record that their filter names. Run it in a snapshot.
pub(super) fn with_rows(connection: &Connection, query: &Select, id: &RecordId) -> Result<(Page, Shown), Failure> {
    let collection = &query.collection;
    if !query.embeds.is_empty() || collection.kind == Kind::Stream {
        return Ok((select(connection, query)?, of(connection, query.project, (collection, id))?));
    }
    let mut shown = None;
    let take = |row: &Row<'_>, first| {
        shown = Some(read(row, first, collection.kind)?);
        Ok(())
    };
    let page = select_and(connection, query, (&columns(query.project, collection), take))?;
    match shown.filter(|_| page.rows.len() == 1) {
        Some(shown) => Ok((page, shown)),
        // Another filter, or a limit, keeps it out.
        None => Ok((page, of(connection, query.project, (collection, id))?)),
    }
}

/// What tells it, behind other columns: where the hash is, and whether SQL has written the row since.
fn columns(project: ProjectId, collection: &Collection) -> String {
    let (table, id) = (quoted(&collection.name), collection.id.sql());
    match collection.kind {
        Kind::Table | Kind::Stream => {
            format!(", _mobo, EXISTS (SELECT 1 FROM {} AS mobo_w WHERE mobo_w.id = {table}.id)", before(collection))
        }
        Kind::Document => format!(
            ", (SELECT state_hash FROM mobo_document AS mobo_d WHERE mobo_d.project = {} AND mobo_d.collection = {id} \
             AND mobo_d.id = {table}.id), 0",
            project.sql()
        ),
    }
}

fn read(row: &Row<'_>, first: usize, kind: Kind) -> Result<Shown, Failure> {
    if row.get(first + 1)? {
        return Ok(Shown::Unsettled);
    }
    let bytes = row.get_ref(first)?.as_bytes().unwrap_or_default();
    Ok(Shown::State(match kind {
        Kind::Table => row::decode_meta(bytes)?.state_hash,
        Kind::Document | Kind::Stream => known(StateHash::from_slice(bytes), "state hash")?,
    }))
}
