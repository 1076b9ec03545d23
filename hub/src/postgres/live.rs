//! The log of committed changes: written by the transaction that makes the changes, as its last words.
//!
//! Who begins to follow a collection holds the lock of the rules alone for a moment: merges that began before it are through by then, and
//! every later one reads that it is to log.

use std::collections::BTreeMap;
use std::time::Duration;

use mobo_core::ids::{CollectionId, ProjectId, RecordId};
use mobo_core::json::value_to_json;
use mobo_core::limits;
use mobo_core::live::{LiveHead, LivePage, LiveStore, LoggedRow, history_of, log_number};
use mobo_core::merge::{RecordWrite, SampleWrite};
use mobo_core::query::{ColumnType, columns};
use mobo_core::rfc3339;
use mobo_core::schema::Collection;
use mobo_core::store::StoreFuture;
use mobo_core::stream;
use mobo_core::time::Eff;
use mobo_core::value::Value;
use serde_json::{Map, Value as Json};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row};

use super::error::{Failure, known};
use super::session::{Purpose, SCHEMA_LOCK, Tx};
use super::table::{quoted, table};
use super::{PostgresHubStore, cells, hub};

/// What a transaction logs.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// The collections that somebody follows.
    follows: Vec<i64>,
    /// True where somebody does not any more.
    ended: bool,
    rows: Vec<PendingRow>,
}

#[derive(Debug)]
struct PendingRow {
    collection: i64,
    count: i64,
    before: Option<String>,
    after: Option<String>,
}

/// What is followed, as columns of a query over `mobo.project`.
pub(super) const FOLLOWS: &str = "ARRAY(SELECT collection FROM mobo.live_follow), \
     EXISTS(SELECT 1 FROM mobo.live_follow WHERE until_us <= (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)";

impl Pending {
    /// Takes in the columns of [`FOLLOWS`], which begin at `first`.
    pub(super) fn read(&mut self, row: &PgRow, first: usize) -> Result<(), Failure> {
        (self.follows, self.ended) = (row.try_get(first)?, row.try_get(first + 1)?);
        Ok(())
    }

    fn has(&self, collection: &Collection) -> bool {
        self.follows.contains(&collection.id.sql())
    }
}

/// The rows of these records as readers see them now, by id; `None` where nobody follows the collection.
pub(super) async fn before(
    tx: &mut Tx,
    collection: &Collection,
    records: &[RecordWrite],
) -> Result<Option<BTreeMap<String, String>>, Failure> {
    if !tx.live.has(collection) {
        return Ok(None);
    }
    let columns = columns(collection);
    // A row without a state is what SQL has made of a record that is not there yet.
    let names: Vec<String> = columns.iter().map(|column| quoted(&column.name)).collect();
    let sql = format!("SELECT {} FROM {} WHERE id = ANY($1) AND _mobo <> ''", names.join(", "), table(collection));
    let ids: Vec<&str> = records.iter().map(|record| record.key.id.as_str()).collect();
    let mut shown = BTreeMap::new();
    for row in tx.rows(sqlx::query(AssertSqlSafe(sql)).bind(ids)).await? {
        let mut members = Map::new();
        for (index, column) in columns.iter().enumerate() {
            let json = match column.kind {
                ColumnType::Key => Json::from(row.try_get::<String, _>(index)?),
                ColumnType::Field(kind) => value_to_json(&known(cells::value(&row, index, kind)?, "value in a column")?, kind),
            };
            members.insert(column.name.clone(), json);
        }
        shown.insert(row.try_get(0)?, Json::Object(members).to_string());
    }
    Ok(Some(shown))
}

/// Notes what became of records, where readers see a difference.
pub(super) fn changed(tx: &mut Tx, collection: &Collection, mut before: BTreeMap<String, String>, records: &[RecordWrite]) {
    for record in records {
        let was = before.remove(record.key.id.as_str());
        let is = record.columns.as_deref().map(|values| shown(collection, &record.key.id, values));
        if was != is {
            tx.live.rows.push(PendingRow { collection: collection.id.sql(), count: 1, before: was, after: is });
        }
    }
}

fn shown(collection: &Collection, id: &RecordId, values: &[Value]) -> String {
    let mut row = Map::from_iter([("id".to_owned(), Json::from(id.as_str()))]);
    let fields = collection.fields.iter().zip(values.iter().chain(std::iter::repeat(&Value::Null)));
    row.extend(fields.filter(|(field, _)| !field.retired).map(|(field, value)| (field.name.clone(), value_to_json(value, field.kind))));
    Json::Object(row).to_string()
}

/// Notes the samples of entries.
pub(super) fn sampled(tx: &mut Tx, collection: &Collection, segments: &[&SampleWrite]) {
    if !tx.live.has(collection) {
        return;
    }
    for write in segments {
        let device = write.lane.device.to_string();
        let sample = |(index, before_us): (usize, &u64)| {
            let mut row = Map::from_iter([
                ("at".to_owned(), Json::from(rfc3339::format(write.eff.before(*before_us).0))),
                ("device".to_owned(), Json::from(device.as_str())),
            ]);
            row.extend(collection.live_fields().map(|field| {
                let value = match write.segment.columns.get(&field.id) {
                    Some(stream::Column::Typed(values)) => values.get(index),
                    Some(stream::Column::Unknown(_)) | None => None,
                };
                (field.name.clone(), value.map_or(Json::Null, |value| value_to_json(value, field.kind)))
            }));
            Json::Object(row)
        };
        let rows: Vec<Json> = write.segment.before_us.iter().enumerate().map(sample).collect();
        if !rows.is_empty() {
            let count = i64::try_from(rows.len()).unwrap_or(i64::MAX);
            let row = PendingRow { collection: collection.id.sql(), count, before: None, after: Some(Json::Array(rows).to_string()) };
            tx.live.rows.push(row);
        }
    }
}

/// Writes what the transaction has noted. Nothing may be locked after this.
pub(super) async fn flush(tx: &mut Tx, project: ProjectId) -> Result<(), Failure> {
    if std::mem::take(&mut tx.live.ended) {
        forget(tx).await?;
    }
    let rows = std::mem::take(&mut tx.live.rows);
    if rows.is_empty() {
        return Ok(());
    }
    let size = |row: &PendingRow| row.before.as_ref().map_or(0, String::len) + row.after.as_ref().map_or(0, String::len);
    let bytes: i64 = rows.iter().map(|row| i64::try_from(size(row)).unwrap_or(i64::MAX)).sum();
    let count: i64 = rows.iter().map(|row| row.count).sum();
    let advance = sqlx::query("UPDATE mobo.live_log SET head = head + $1, bytes = bytes + $2 RETURNING head, bytes");
    let row = known(tx.row(advance.bind(count).bind(bytes)).await?, "log of changes")?;
    let (head, total): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    let (mut n, mut upto) = (head - count, total - bytes);
    let (mut ns, mut uptos) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
    for row in &rows {
        n += row.count;
        upto += i64::try_from(size(row)).unwrap_or(i64::MAX);
        ns.push(n);
        uptos.push(upto);
    }
    let insert = sqlx::query(
        "INSERT INTO mobo.live(n, count, project, collection, before, after, at_us, bytes) \
         SELECT u.n, u.count, $1, u.collection, u.before, u.after, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, u.bytes \
         FROM unnest($2::int8[], $3::int8[], $4::int8[], $5::text[], $6::text[], $7::int8[]) AS u(n, count, collection, before, after, bytes)",
    );
    let insert = insert
        .bind(project.sql())
        .bind(ns)
        .bind(rows.iter().map(|row| row.count).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.collection).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.before.clone()).collect::<Vec<_>>())
        .bind(rows.into_iter().map(|row| row.after).collect::<Vec<_>>())
        .bind(uptos);
    tx.run(insert).await?;
    let every = limits::LIVE_CUT_EVERY.cast_signed();
    if head / every != (head - count) / every { cut(tx, (head, total), count).await } else { Ok(()) }
}

/// Takes away what is over the bounds: with each call more than was added since the last one.
async fn cut(tx: &mut Tx, (head, total): (i64, i64), added: i64) -> Result<(), Failure> {
    let (rows, bytes) = (head - limits::LIVE_ROWS_MAX.cast_signed(), total - limits::LIVE_BYTES_MAX.cast_signed());
    let cut = sqlx::query(
        "WITH gone AS (DELETE FROM mobo.live WHERE n IN (SELECT n FROM (SELECT n, bytes FROM mobo.live ORDER BY n LIMIT $1) AS old \
         WHERE n <= $2 OR bytes <= $3) RETURNING n) \
         UPDATE mobo.live_log SET floor = greatest(floor, (SELECT max(n) FROM gone)) WHERE EXISTS (SELECT 1 FROM gone)",
    );
    tx.run(cut.bind(limits::LIVE_CUT_ROWS_MAX.cast_signed() + added).bind(rows).bind(bytes)).await.map(|_| ())
}

async fn forget(tx: &mut Tx) -> Result<(), Failure> {
    let forget = "DELETE FROM mobo.live_follow WHERE until_us <= (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    tx.run(sqlx::query(forget)).await.map(|_| ())
}

impl LiveStore for PostgresHubStore {
    fn follow(&self, project: ProjectId, collections: Vec<CollectionId>, lasts: Duration) -> StoreFuture<'_, LiveHead> {
        Box::pin(async move {
            let mut tx = self.begin(Purpose::Write).await?;
            let followed = follow(&mut tx, project, (&collections, lasts)).await;
            Ok(tx.finish(followed).await?)
        })
    }

    fn changes(&self, project: ProjectId, after: u64, rows_max: u32) -> StoreFuture<'_, LivePage> {
        Box::pin(async move {
            let mut tx = self.begin(Purpose::Read).await?;
            let page = changes(&mut tx, (project, after, rows_max)).await;
            Ok(tx.finish(page).await?)
        })
    }
}

async fn follow(tx: &mut Tx, project: ProjectId, (collections, lasts): (&[CollectionId], Duration)) -> Result<LiveHead, Failure> {
    let us = i64::try_from(lasts.as_micros()).unwrap_or(i64::MAX);
    let ids: Vec<i64> = collections.iter().map(|collection| collection.sql()).collect();
    let renew = sqlx::query(
        "UPDATE mobo.live_follow SET until_us = (extract(epoch FROM clock_timestamp()) * 1000000)::bigint + $2 \
         WHERE collection = ANY($1) AND until_us > (extract(epoch FROM clock_timestamp()) * 1000000)::bigint",
    );
    let renewed = tx.run(renew.bind(ids.clone()).bind(us)).await?;
    if renewed < ids.len() as u64 {
        tx.row(sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(SCHEMA_LOCK)).await?;
        forget(tx).await?;
        // One number is left out: what was seen before this is not what is seen from here on.
        tx.run(sqlx::query("UPDATE mobo.live_log SET head = head + 1")).await?;
        let start = sqlx::query(
            "INSERT INTO mobo.live_follow(collection, project, since, until_us) \
             SELECT c, $2, head, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint + $3 FROM unnest($1::int8[]) AS c, mobo.live_log \
             ON CONFLICT (collection) DO NOTHING",
        );
        tx.run(start.bind(ids).bind(project.sql()).bind(us)).await?;
    }
    head(tx).await
}

async fn head(tx: &mut Tx) -> Result<LiveHead, Failure> {
    let history = history_of(hub::read(tx).await?.timeline.timeline);
    let row = known(tx.row(sqlx::query("SELECT log, head, floor FROM mobo.live_log")).await?, "log of changes")?;
    let (head, floor): (i64, i64) = (row.try_get(1)?, row.try_get(2)?);
    let rows = tx.rows(sqlx::query("SELECT collection, since FROM mobo.live_follow ORDER BY collection")).await?;
    let follows = rows.iter().map(|row| {
        let since: i64 = row.try_get(1)?;
        Ok((known(CollectionId::from_sql(row.try_get(0)?), "collection")?, since.cast_unsigned()))
    });
    let follows = follows.collect::<Result<_, Failure>>()?;
    Ok(LiveHead { log: log_number(row.try_get(0)?, history), head: head.cast_unsigned(), floor: floor.cast_unsigned(), follows })
}

async fn changes(tx: &mut Tx, (project, after, rows_max): (ProjectId, u64, u32)) -> Result<LivePage, Failure> {
    let mut page = LivePage { head: head(tx).await?, ..LivePage::default() };
    page.read = page.head.head;
    let look = sqlx::query(
        "SELECT n, count, collection, before, after, at_us FROM \
         (SELECT *, sum(coalesce(length(before), 0) + coalesce(length(after), 0)) OVER (ORDER BY n) \
          - coalesce(length(before), 0) - coalesce(length(after), 0) AS ahead \
          FROM (SELECT * FROM mobo.live WHERE n > $1 AND project = $2 ORDER BY n LIMIT $3) AS page) AS sized WHERE ahead < $4 ORDER BY n",
    );
    let bytes_max = i64::try_from(limits::LIVE_PAGE_BYTES_MAX).unwrap_or(i64::MAX);
    let rows = tx.rows(look.bind(after.cast_signed()).bind(project.sql()).bind(i64::from(rows_max)).bind(bytes_max)).await?;
    let mut last = None;
    for row in &rows {
        let (n, count): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        let logged = LoggedRow {
            n: n.cast_unsigned(),
            count: count.cast_unsigned(),
            collection: known(CollectionId::from_sql(row.try_get(2)?), "collection")?,
            before: row.try_get(3)?,
            after: row.try_get(4)?,
            at: Eff(row.try_get(5)?),
        };
        last = Some(logged.n);
        page.changes.extend(known(logged.changes(after), "row in the log of changes")?);
    }
    // The page may have been cut by its bytes: only what is behind its last row was not read.
    page.read = last.unwrap_or(page.head.head);
    Ok(page)
}
