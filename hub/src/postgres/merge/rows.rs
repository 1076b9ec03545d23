//! Writes records: one statement for each collection and each place that rows can be in, whatever their number.

use mobo_core::cbor::Writer;
use mobo_core::ids::ProjectId;
use mobo_core::limits;
use mobo_core::merge::{Place, RecordWrite};
use mobo_core::record::RecordState;
use mobo_core::schema::{Collection, Kind, Schema};
use mobo_core::table::extra::extra;
use mobo_core::table::row::{self, RowMeta};
use mobo_core::value::Value;
use sqlx::AssertSqlSafe;

use super::copy;
use crate::postgres::cells::Column;
use crate::postgres::error::Failure;
use crate::postgres::live;
use crate::postgres::session::Tx;
use crate::postgres::table::{quoted, table};

/// Writes the records of a batch, which are ascending by key.
pub(super) async fn write(tx: &mut Tx, project: ProjectId, schema: &Schema, records: &[RecordWrite]) -> Result<(), Failure> {
    for group in records.chunk_by(|a, b| a.key.collection == b.key.collection) {
        let Some(collection) = group.first().and_then(|first| schema.get(first.key.collection)) else { continue };
        for some in group.chunks(limits::POSTGRES_ROWS_MAX) {
            write_some(tx, project, collection, some).await?;
        }
    }
    Ok(())
}

async fn write_some(tx: &mut Tx, project: ProjectId, collection: &Collection, records: &[RecordWrite]) -> Result<(), Failure> {
    let before = live::before(tx, collection, records).await?;
    write_places(tx, project, collection, records).await?;
    if let Some(before) = before {
        live::changed(tx, collection, before, records);
    }
    Ok(())
}

async fn write_places(tx: &mut Tx, project: ProjectId, collection: &Collection, records: &[RecordWrite]) -> Result<(), Failure> {
    let (visible, hidden): (Vec<&RecordWrite>, Vec<&RecordWrite>) = records.iter().partition(|record| record.columns.is_some());
    let was_visible: Vec<&str> = ids(hidden.iter().filter(|record| record.before == Place::Visible));
    if !was_visible.is_empty() {
        let sql = match &mut tx.standing {
            None => format!("DELETE FROM {} WHERE id = ANY($1)", table(collection)),
            Some(standing) => {
                standing.extend(hidden.iter().map(|record| record.key.clone()));
                format!("UPDATE {} SET {BLANK} WHERE id = ANY($1)", table(collection))
            }
        };
        tx.run(sqlx::query(AssertSqlSafe(sql)).bind(was_visible)).await?;
    }
    match collection.kind {
        Kind::Table => {
            let was_hidden: Vec<&str> = ids(visible.iter().filter(|record| record.before == Place::Hidden));
            if !was_hidden.is_empty() {
                let delete = sqlx::query("DELETE FROM mobo.hidden WHERE project = $1 AND collection = $2 AND id = ANY($3)");
                tx.run(delete.bind(project.sql()).bind(collection.id.sql()).bind(was_hidden)).await?;
            }
            write_hidden(tx, project, collection, &hidden).await?;
        }
        Kind::Document => write_documents(tx, project, collection, records).await?,
        Kind::Stream => {}
    }
    let (there, new): (Vec<&RecordWrite>, Vec<&RecordWrite>) = visible.into_iter().partition(|record| record.before == Place::Visible);
    write_visible(tx, collection, &there, Met::Known).await?;
    // The rows of those that are there are locked; others may have come meanwhile.
    match &mut tx.standing {
        None if new.len() >= copy::COPIED_MIN => copy::write(tx, collection, &new).await,
        None => write_visible(tx, collection, &new, Met::Unknown).await,
        Some(standing) => {
            new.iter().for_each(|record| _ = standing.remove(&record.key));
            write_visible(tx, collection, &new, Met::Standing).await
        }
    }
}

/// A row that a row which is written meets in the table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Met {
    /// What it was.
    Known,
    /// Nobody knows: it is left as it is.
    Unknown,
    /// What only stands there: it is changed in place. Any other is left as it is.
    Standing,
}

/// Writes rows of a collection's table.
///
/// # Errors
///
/// [`Failure::Met`] where a row is there that was not.
async fn write_visible(tx: &mut Tx, collection: &Collection, records: &[&RecordWrite], met: Met) -> Result<(), Failure> {
    if records.is_empty() {
        return Ok(());
    }
    let mut columns: Vec<Column<'_>> = collection.fields.iter().map(|field| Column::of(field.kind, records.len())).collect();
    for record in records {
        let values = record.columns.as_deref().unwrap_or_default();
        for (index, column) in columns.iter_mut().enumerate() {
            column.push(values.get(index).unwrap_or(&Value::Null));
        }
    }
    let mobo: Vec<Vec<u8>> = records.iter().map(|record| mobo(record, Some(collection))).collect();
    let extra: Vec<Option<String>> = records.iter().map(|record| extra_of(record, collection)).collect();
    let (buckets, positions) = homes(records);
    let mut statement = sqlx::query(AssertSqlSafe(upsert(collection, &columns, met)))
        .bind(ids(records))
        .bind(vers(records))
        .bind(extra)
        .bind(mobo)
        .bind(buckets)
        .bind(positions);
    for column in columns {
        statement = column.bind(statement);
    }
    let written = tx.run(statement).await?;
    if written == records.len() as u64 { Ok(()) } else { Err(Failure::Met) }
}

/// What makes a row one that only stands there.
pub(in crate::postgres) const BLANK: &str = "_mobo = '', _extra = NULL, _bucket = NULL, _position = NULL";

fn upsert(collection: &Collection, columns: &[Column<'_>], met: Met) -> String {
    use std::fmt::Write as _;
    let (mut names, mut values, mut sets) = (String::new(), String::new(), String::new());
    let (mut arrays, mut aliases) = (String::new(), String::new());
    for (index, (field, column)) in collection.fields.iter().zip(columns).enumerate() {
        let name = quoted(&field.name);
        let _ = write!(names, ", {name}");
        let _ = write!(values, ", u.c{index}{}", column.cast());
        let _ = write!(sets, ", {name} = excluded.{name}");
        let _ = write!(arrays, ", ${}::{}", index + 7, column.array_type());
        let _ = write!(aliases, ", c{index}");
    }
    let name = table(collection);
    let update = format!(
        "DO UPDATE SET mobo_ver = excluded.mobo_ver, _extra = excluded._extra, _mobo = excluded._mobo, _bucket = excluded._bucket, \
         _position = excluded._position{sets}"
    );
    let conflict = match met {
        Met::Known => update,
        Met::Unknown => "DO NOTHING".to_owned(),
        Met::Standing => format!("{update} WHERE t._mobo = ''"),
    };
    format!(
        "INSERT INTO {name} AS t(id, mobo_ver, _extra, _mobo, _bucket, _position{names}) \
         SELECT u.id, u.ver, u.extra::jsonb, u.mobo, u.bucket, u.position{values} \
         FROM unnest($1::text[], $2::int8[], $3::text[], $4::bytea[], $5::int8[], $6::int8[]{arrays}) \
         AS u(id, ver, extra, mobo, bucket, position{aliases}) ON CONFLICT (id) {conflict}"
    )
}

async fn write_hidden(tx: &mut Tx, project: ProjectId, collection: &Collection, records: &[&RecordWrite]) -> Result<(), Failure> {
    if records.is_empty() {
        return Ok(());
    }
    let rows: Vec<Vec<u8>> = records.iter().map(|record| mobo(record, None)).collect();
    let (buckets, positions) = homes(records);
    let upsert = sqlx::query(
        "INSERT INTO mobo.hidden(project, collection, id, ver, row, bucket, position) \
         SELECT $1, $2, u.id, u.ver, u.row, u.bucket, u.position \
         FROM unnest($3::text[], $4::int8[], $5::bytea[], $6::int8[], $7::int8[]) AS u(id, ver, row, bucket, position) \
         ON CONFLICT (project, collection, id) DO UPDATE SET ver = excluded.ver, row = excluded.row, bucket = excluded.bucket, \
         position = excluded.position",
    );
    let upsert = upsert.bind(project.sql()).bind(collection.id.sql()).bind(ids(records)).bind(vers(records)).bind(rows);
    tx.run(upsert.bind(buckets).bind(positions)).await.map(|_| ())
}

async fn write_documents(tx: &mut Tx, project: ProjectId, collection: &Collection, records: &[RecordWrite]) -> Result<(), Failure> {
    let records: Vec<&RecordWrite> = records.iter().collect();
    let (epochs, docs): (Vec<i32>, Vec<Vec<u8>>) = records
        .iter()
        .map(|record| {
            let (epoch, doc) = record.state.encode();
            (epoch.cast_signed(), doc)
        })
        .unzip();
    let hashes: Vec<[u8; 32]> = records.iter().map(|record| record.state_hash.0).collect();
    let visible: Vec<bool> = records.iter().map(|record| record.columns.is_some()).collect();
    let (buckets, positions) = homes(&records);
    let upsert = sqlx::query(
        "INSERT INTO mobo.document(project, collection, id, ver, epoch, doc, state_hash, visible, bucket, position) \
         SELECT $1, $2, u.id, u.ver, u.epoch, u.doc, u.hash, u.visible, u.bucket, u.position \
         FROM unnest($3::text[], $4::int8[], $5::int4[], $6::bytea[], $7::bytea[], $8::bool[], $9::int8[], $10::int8[]) \
         AS u(id, ver, epoch, doc, hash, visible, bucket, position) ON CONFLICT (project, collection, id) DO UPDATE SET \
         ver = excluded.ver, epoch = excluded.epoch, doc = excluded.doc, state_hash = excluded.state_hash, visible = excluded.visible, \
         bucket = excluded.bucket, position = excluded.position",
    );
    let upsert = upsert.bind(project.sql()).bind(collection.id.sql()).bind(ids(&records)).bind(vers(&records)).bind(epochs);
    tx.run(upsert.bind(docs).bind(hashes).bind(visible).bind(buckets).bind(positions)).await.map(|_| ())
}

/// The `_mobo` column. Without a collection every value is inline. That of a document's row says only which state it shows.
pub(super) fn mobo(record: &RecordWrite, beside: Option<&Collection>) -> Vec<u8> {
    let meta = RowMeta { ver: record.ver, mac: None, state_hash: record.state_hash };
    match (&record.state, beside) {
        (RecordState::Table(state), Some(collection)) => row::encode(state, &meta, collection),
        (RecordState::Table(state), None) => row::encode_inline(state, &meta),
        (RecordState::Document(_), _) => {
            let mut writer = Writer::new();
            writer.map(2).u64(5).u64(meta.ver.0).u64(8).bytes(meta.state_hash.as_bytes());
            writer.into_bytes()
        }
    }
}

pub(super) fn extra_of(record: &RecordWrite, collection: &Collection) -> Option<String> {
    match &record.state {
        RecordState::Table(state) => extra(state, collection),
        RecordState::Document(_) => None,
    }
}

fn ids<'r>(records: impl IntoIterator<Item = &'r &'r RecordWrite>) -> Vec<&'r str> {
    records.into_iter().map(|record| record.key.id.as_str()).collect()
}

fn vers(records: &[&RecordWrite]) -> Vec<i64> {
    records.iter().map(|record| record.ver.0.cast_signed()).collect()
}

fn homes(records: &[&RecordWrite]) -> (Vec<Option<i64>>, Vec<Option<i64>>) {
    records.iter().map(|record| record.home.map(|(bucket, at)| (bucket.sql(), at.0.cast_signed())).unzip()).unzip()
}
