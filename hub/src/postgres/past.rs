//! Which entries wrote which rows: an index of the log that is made when somebody asks, and what it tells of one row.

use mobo_core::ids::{DeviceId, Incarnation, Lane, LaneKey, Ordinal, ProjectId, RecordKey, Seq};
use mobo_core::limits;
use mobo_core::store::{PastStore, StoreFuture};
use mobo_core::table::past::{Gathering, PastEntry, RowLog, rows_of};
use mobo_core::time::Eff;
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::PostgresHubStore;
use super::error::{Failure, known};
use super::merge::lane_begins;
use super::session::{Purpose, Tx};

/// One hub at a time goes on with the index. Any number, as long as it is the same in every hub.
const LOCK: i64 = 0x6d6f_626f_7472_6163;
/// Entries that are read together.
const PAGE: usize = 250;

impl PastStore for PostgresHubStore {
    fn trace(&self, project: ProjectId) -> StoreFuture<'_, bool> {
        Box::pin(async move {
            let mut tx = self.begin(Purpose::Write).await?;
            let left = trace(&mut tx, project).await;
            Ok(tx.finish(left).await?)
        })
    }

    fn past(&self, project: ProjectId, key: RecordKey) -> StoreFuture<'_, RowLog> {
        Box::pin(async move {
            let mut tx = self.begin(Purpose::Read).await?;
            let log = past(&mut tx, project, &key).await;
            Ok(tx.finish(log).await?)
        })
    }
}

/// A log, up to where it is in the index, and how many entries may still be taken into it.
struct Behind {
    device: DeviceId,
    incarnation: Incarnation,
    after: i64,
    most: i64,
}

async fn trace(tx: &mut Tx, project: ProjectId) -> Result<bool, Failure> {
    const BEHIND: &str = "SELECT l.device, l.incarnation, coalesce(t.seq, 0) FROM mobo.lane l LEFT JOIN mobo.traced t \
                          ON t.project = l.project AND t.device = l.device AND t.incarnation = l.incarnation \
                          WHERE l.project = $1 AND l.lane = $2 AND l.last > coalesce(t.seq, 0)";
    let behind = || sqlx::query(BEHIND).bind(project.sql()).bind(i16::from(Lane::State.number()));
    if tx.rows(behind()).await?.is_empty() {
        return Ok(false);
    }
    tx.row(sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK)).await?;
    // Another hub may have gone on with it meanwhile.
    let mut most = i64::try_from(limits::TRACE_ENTRIES_MAX).unwrap_or(i64::MAX);
    for row in tx.rows(behind()).await? {
        let (device, after) = (DeviceId(row.try_get(0)?), row.try_get(2)?);
        let log = Behind { device, incarnation: known(Incarnation::from_sql(row.try_get(1)?), "incarnation")?, after, most };
        let (taken, is_all) = trace_log(tx, project, &log).await?;
        most -= taken;
        if !is_all {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Takes the next entries of a log into the index: how many, and whether these were all.
async fn trace_log(tx: &mut Tx, project: ProjectId, log: &Behind) -> Result<(i64, bool), Failure> {
    let look = sqlx::query(
        "SELECT seq, eff, header, payload FROM \
         (SELECT *, sum(coalesce(length(payload), 0)) OVER (ORDER BY seq) - coalesce(length(payload), 0) AS ahead \
          FROM (SELECT seq, eff, header, payload FROM mobo.entry WHERE project = $1 AND device = $2 AND incarnation = $3 AND lane = $4 \
                AND seq > $5 ORDER BY seq LIMIT $6) AS page) AS sized WHERE ahead < $7 ORDER BY seq",
    );
    let look = look.bind(project.sql()).bind(log.device.0).bind(log.incarnation.sql()).bind(i16::from(Lane::State.number()));
    let bytes_max = i64::try_from(limits::TRACE_BYTES_MAX).unwrap_or(i64::MAX);
    // One more than is taken tells whether there are more.
    let found = tx.rows(look.bind(log.after).bind(log.most.saturating_add(1)).bind(bytes_max)).await?;
    let taken = found.len().min(usize::try_from(log.most).unwrap_or_default());
    let (mut collections, mut ids, mut effs, mut seqs) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut done = log.after;
    for row in found.iter().take(taken) {
        done = row.try_get(0)?;
        let (header, payload): (Option<Vec<u8>>, Option<Vec<u8>>) = (row.try_get(2)?, row.try_get(3)?);
        for key in rows_of(&header.unwrap_or_default(), &payload.unwrap_or_default()) {
            collections.push(key.collection.sql());
            ids.push(key.id.as_str().to_owned());
            effs.push(row.try_get::<i64, _>(1)?);
            seqs.push(done);
        }
    }
    let insert = sqlx::query(
        "INSERT INTO mobo.trace(project, device, incarnation, collection, id, eff, seq) \
         SELECT $1, $2, $3, u.* FROM unnest($4::int8[], $5::text[], $6::int8[], $7::int8[]) AS u ON CONFLICT DO NOTHING",
    );
    let insert = insert.bind(project.sql()).bind(log.device.0).bind(log.incarnation.sql());
    tx.run(insert.bind(collections).bind(ids).bind(effs).bind(seqs)).await?;
    let note = sqlx::query(
        "INSERT INTO mobo.traced(project, device, incarnation, seq) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (project, device, incarnation) DO UPDATE SET seq = excluded.seq",
    );
    tx.run(note.bind(project.sql()).bind(log.device.0).bind(log.incarnation.sql()).bind(done)).await?;
    let last = last(tx, project, log).await?;
    Ok((i64::try_from(taken).unwrap_or(i64::MAX), last.is_none_or(|last| last <= done)))
}

async fn last(tx: &mut Tx, project: ProjectId, log: &Behind) -> Result<Option<i64>, Failure> {
    let look = sqlx::query("SELECT last FROM mobo.lane WHERE project = $1 AND device = $2 AND incarnation = $3 AND lane = $4");
    let look = look.bind(project.sql()).bind(log.device.0).bind(log.incarnation.sql()).bind(i16::from(Lane::State.number()));
    Ok(match tx.row(look).await? {
        Some(row) => Some(row.try_get(0)?),
        None => None,
    })
}

async fn past(tx: &mut Tx, project: ProjectId, key: &RecordKey) -> Result<RowLog, Failure> {
    let mut gathering = Gathering::new(key, restored(tx).await?);
    let mut offset = 0;
    loop {
        let rows = page(tx, project, (key, offset)).await?;
        for row in &rows {
            if !gathering.goes_on() {
                return Ok(gathering.finish());
            }
            gathering.take(entry(tx, project, row).await?);
        }
        // A page ends where it is large, too.
        if rows.is_empty() {
            return Ok(gathering.finish());
        }
        offset += rows.len();
    }
}

/// The last ones first, at most [`limits::HISTORY_PAGE_BYTES_MAX`] of them, but at least one. One that was refused and is merged all the same was
/// tried again.
async fn page(tx: &mut Tx, project: ProjectId, (key, offset): (&RecordKey, usize)) -> Result<Vec<PgRow>, Failure> {
    let look = sqlx::query(
        "SELECT p.device, p.incarnation, p.seq, p.eff, p.header, p.payload, i.ordinal, \
         (SELECT b.eff FROM mobo.entry b WHERE b.project = $1 AND b.device = p.device AND b.incarnation = p.incarnation \
          AND b.lane = $4 AND b.seq = p.seq - 1), \
         EXISTS (SELECT 1 FROM mobo.quarantine q WHERE q.project = $1 AND q.device = p.device AND q.incarnation = p.incarnation \
          AND q.lane = $4 AND q.seq = p.seq) \
         FROM (SELECT *, sum(coalesce(length(payload), 0)) OVER (ORDER BY eff DESC, device, incarnation, seq) \
          - coalesce(length(payload), 0) AS ahead FROM \
          (SELECT t.device, t.incarnation, t.seq, t.eff, e.header, e.payload FROM mobo.trace t LEFT JOIN mobo.entry e \
           ON e.project = t.project AND e.device = t.device AND e.incarnation = t.incarnation AND e.lane = $4 AND e.seq = t.seq \
           WHERE t.project = $1 AND t.collection = $2 AND t.id = $3 AND coalesce(e.outcome, 0) = 0 \
           ORDER BY t.eff DESC, t.device, t.incarnation, t.seq LIMIT $5 OFFSET $6) AS page) AS p \
         LEFT JOIN mobo.incarnation i ON i.project = $1 AND i.device = p.device AND i.incarnation = p.incarnation \
         WHERE p.ahead < $7 ORDER BY p.eff DESC, p.device, p.incarnation, p.seq",
    );
    let look = look.bind(project.sql()).bind(key.collection.sql()).bind(key.id.as_str()).bind(i16::from(Lane::State.number()));
    let [limit, offset, bytes] = [PAGE, offset, limits::HISTORY_PAGE_BYTES_MAX].map(|number| i64::try_from(number).unwrap_or(i64::MAX));
    tx.rows(look.bind(limit).bind(offset).bind(bytes)).await
}

/// An entry; `None` where its bytes are kept no more.
async fn entry(tx: &mut Tx, project: ProjectId, row: &PgRow) -> Result<Option<PastEntry>, Failure> {
    let (header, payload): (Option<Vec<u8>>, Option<Vec<u8>>) = (row.try_get(4)?, row.try_get(5)?);
    let ordinal: Option<i32> = row.try_get(6)?;
    let (Some(header), Some(payload), Some(ordinal)) = (header, payload, ordinal) else { return Ok(None) };
    let lane = LaneKey {
        device: DeviceId(row.try_get(0)?),
        incarnation: known(Incarnation::from_sql(row.try_get(1)?), "incarnation")?,
        lane: Lane::State,
    };
    let before = match row.try_get::<Option<i64>, _>(7)? {
        Some(eff) => Eff(eff),
        None => lane_begins(tx, project, &lane).await?,
    };
    Ok(Some(PastEntry {
        lane,
        ordinal: Ordinal(known(u32::try_from(ordinal).ok(), "ordinal")?),
        seq: known(Seq::new(row.try_get::<i64, _>(2)?.cast_unsigned()), "position in a lane")?,
        eff: Eff(row.try_get(3)?),
        before,
        retried: row.try_get(8)?,
        header,
        payload,
    }))
}

async fn restored(tx: &mut Tx) -> Result<Option<Eff>, Failure> {
    Ok(match tx.row(sqlx::query("SELECT since_us FROM mobo.recovery")).await? {
        Some(row) => Some(Eff(row.try_get(0)?)),
        None => None,
    })
}
