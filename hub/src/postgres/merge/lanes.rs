//! The lanes of a batch: locked first, then read.

use std::collections::{BTreeMap, BTreeSet};

use mobo_core::entry::chain_start;
use mobo_core::ids::{BootId, Chain, DeviceId, Eid, Incarnation, Lane, LaneKey, Ordinal, ProjectId, Seq};
use mobo_core::limits;
use mobo_core::merge::time::{Boots, LaneTime};
use mobo_core::merge::{KeptEntry, LaneReads, LaneState, LaneWants};
use mobo_core::time::{Eff, Mono};
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::postgres::devices::{lane, seq};
use crate::postgres::error::{Failure, known};
use crate::postgres::quarantine;
use crate::postgres::session::Tx;

/// What there is of the wanted lanes.
pub(super) enum Found {
    /// All that can be there.
    All(LaneReads),
    /// These belong to known logs and have no row yet.
    Missing(Vec<LaneKey>),
}

/// Locks the wanted lanes in ascending order, then reads them and what else decides which entries are new.
pub(super) async fn lock_and_read(tx: &mut Tx, project: ProjectId, wants: &LaneWants) -> Result<Found, Failure> {
    let keys = LaneKeys::of(&wants.lanes);
    let lock = sqlx::query(
        "SELECT device, incarnation, lane FROM mobo.lane l JOIN unnest($2::bytea[], $3::int8[], $4::int2[]) AS w(device, incarnation, lane) \
         USING (device, incarnation, lane) WHERE l.project = $1 ORDER BY l.device, l.incarnation, l.lane FOR UPDATE OF l",
    );
    let locked = tx.rows(lock.bind(project.sql()).bind(&keys.devices).bind(&keys.incarnations).bind(&keys.lanes)).await?;
    let locked = locked.iter().map(key).collect::<Result<BTreeSet<LaneKey>, Failure>>()?;

    let logs = read_logs(tx, project, &keys.devices).await?;
    let lanes = read_lanes(tx, project, &keys, &logs).await?;
    // One that came to be after the lock was not locked: it is missing, too.
    let is_missing = |key: &&LaneKey| !locked.contains(*key) && logs.contains_key(&(key.device, key.incarnation));
    let missing: Vec<LaneKey> = wants.lanes.iter().filter(is_missing).copied().collect();
    if !missing.is_empty() {
        return Ok(Found::Missing(missing));
    }
    let known = read_known(tx, project, wants, &lanes).await?;
    let retries = read_kept(tx, project, &logs, &wants.retries).await?;
    let mut eids = quarantine::eids(&retries);
    eids.extend(&wants.origins);
    let origins = read_origins(tx, project, &eids).await?;
    let boots = read_boots(tx, project, &keys.devices).await?;
    Ok(Found::All(LaneReads { lanes, known, origins, boots, retries }))
}

/// Makes the rows of lanes without entries, so that there is something to lock.
pub(super) async fn make(tx: &mut Tx, project: ProjectId, missing: &[LaneKey]) -> Result<(), Failure> {
    let keys = LaneKeys::of(missing);
    let logs = read_logs(tx, project, &keys.devices).await?;
    let chains: Vec<[u8; 32]> = missing.iter().map(|key| chain_start(project, key).0).collect();
    let mut begins = Vec::with_capacity(missing.len());
    for key in missing {
        begins.push(begin(tx, project, &logs, key).await?.0);
    }
    let insert = sqlx::query(
        "INSERT INTO mobo.lane(project, device, incarnation, lane, last, chain, eff) SELECT $1, w.device, w.incarnation, w.lane, 0, w.chain, w.eff \
         FROM unnest($2::bytea[], $3::int8[], $4::int2[], $5::bytea[], $6::int8[]) AS w(device, incarnation, lane, chain, eff) \
         ORDER BY w.device, w.incarnation, w.lane ON CONFLICT DO NOTHING",
    );
    let insert = insert.bind(project.sql()).bind(keys.devices).bind(keys.incarnations).bind(keys.lanes).bind(chains).bind(begins);
    tx.run(insert).await.map(|_| ())
}

/// Makes the next record entry of the device's newest log later than that, whatever the hub knows of the device's clock.
pub(in crate::postgres) async fn begin_above(tx: &mut Tx, project: ProjectId, (device, eff): (DeviceId, Eff)) -> Result<(), Failure> {
    let newest = sqlx::query("SELECT incarnation FROM mobo.incarnation WHERE project = $1 AND device = $2 ORDER BY ordinal DESC LIMIT 1");
    let newest = tx.row(newest.bind(project.sql()).bind(device.0)).await?;
    let newest: Option<i64> = newest.map(|row| row.try_get(0)).transpose()?;
    let Some(incarnation) = newest.and_then(Incarnation::from_sql) else { return Ok(()) };
    let key = LaneKey { device, incarnation, lane: Lane::State };
    make(tx, project, &[key]).await?;
    let raise =
        sqlx::query("UPDATE mobo.lane SET eff = $5 WHERE project = $1 AND device = $2 AND incarnation = $3 AND lane = $4 AND eff < $5");
    let raise = raise.bind(project.sql()).bind(device.0).bind(incarnation.sql()).bind(i16::from(key.lane.number())).bind(eff.0);
    tx.run(raise).await.map(|_| ())
}

/// [`begin`], for one log.
pub(in crate::postgres) async fn begins(tx: &mut Tx, project: ProjectId, key: &LaneKey) -> Result<Eff, Failure> {
    let logs = read_logs(tx, project, &[key.device.0]).await?;
    begin(tx, project, &logs, key).await
}

/// The time above which a log starts: that of its fork entry or, where no ancestor has one, of the enrolment (R5).
async fn begin(tx: &mut Tx, project: ProjectId, logs: &Logs, key: &LaneKey) -> Result<Eff, Failure> {
    for (incarnation, fork) in line(logs, key.device, key.incarnation) {
        let Some(fork) = fork else { continue };
        let look = sqlx::query(
            "SELECT eff FROM mobo.entry WHERE project = $1 AND device = $2 AND incarnation = $3 AND lane = $4 AND seq <= $5 \
             ORDER BY seq DESC LIMIT 1",
        );
        let look = look.bind(project.sql()).bind(key.device.0).bind(incarnation.sql()).bind(i16::from(Lane::State.number()));
        if let Some(row) = tx.row(look.bind(fork.get().cast_signed())).await? {
            return Ok(Eff(row.try_get(0)?));
        }
    }
    let look = sqlx::query("SELECT enrolled_us FROM mobo.device WHERE project = $1 AND id = $2");
    let row = tx.row(look.bind(project.sql()).bind(key.device.0)).await?;
    // The hub's own log belongs to no device.
    Ok(Eff(row.map(|row| row.try_get(0)).transpose()?.unwrap_or_default()))
}

/// Lanes as arrays to be bound.
pub(super) struct LaneKeys {
    pub(super) devices: Vec<[u8; 16]>,
    pub(super) incarnations: Vec<i64>,
    pub(super) lanes: Vec<i16>,
}

impl LaneKeys {
    pub(super) fn of<'k>(keys: impl IntoIterator<Item = &'k LaneKey>) -> Self {
        let mut arrays = Self { devices: Vec::new(), incarnations: Vec::new(), lanes: Vec::new() };
        for key in keys {
            arrays.devices.push(key.device.0);
            arrays.incarnations.push(key.incarnation.sql());
            arrays.lanes.push(i16::from(key.lane.number()));
        }
        arrays
    }
}

/// A log: its number, the log that it continues and up to where, and whether it is closed.
struct Log {
    ordinal: Ordinal,
    parent: Option<(Incarnation, Option<Seq>)>,
    fenced: bool,
}

type Logs = BTreeMap<(DeviceId, Incarnation), Log>;

async fn read_logs(tx: &mut Tx, project: ProjectId, devices: &[[u8; 16]]) -> Result<Logs, Failure> {
    let look = sqlx::query(
        "SELECT device, incarnation, ordinal, parent, parent_seq, fenced FROM mobo.incarnation WHERE project = $1 AND device = ANY($2)",
    );
    let mut logs = Logs::new();
    for row in tx.rows(look.bind(project.sql()).bind(devices)).await? {
        let ordinal = Ordinal(known(u32::try_from(row.try_get::<i32, _>(2)?).ok(), "ordinal")?);
        let parent = row.try_get::<Option<i64>, _>(3)?.and_then(Incarnation::from_sql);
        let fork = row.try_get::<Option<i64>, _>(4)?.and_then(seq);
        let key = (DeviceId(row.try_get(0)?), incarnation(&row, 1)?);
        logs.insert(key, Log { ordinal, parent: parent.map(|parent| (parent, fork)), fenced: row.try_get(5)? });
    }
    Ok(logs)
}

/// The logs that a log continues, nearest first, each with the last entry that was kept of it. One that is not known here may be the last.
fn line(logs: &Logs, device: DeviceId, incarnation: Incarnation) -> Vec<(Incarnation, Option<Seq>)> {
    let mut line: Vec<(Incarnation, Option<Seq>)> = Vec::new();
    let mut next = logs.get(&(device, incarnation)).and_then(|log| log.parent);
    while let Some(parent) = next {
        // A device may claim anything for a parent, a circle too.
        if parent.0 == incarnation || line.len() >= limits::LOG_LINE_MAX || line.iter().any(|(known, _)| *known == parent.0) {
            break;
        }
        line.push(parent);
        next = logs.get(&(device, parent.0)).and_then(|log| log.parent);
    }
    line
}

/// The numbers of the logs that a log continues.
fn ancestors(logs: &Logs, device: DeviceId, incarnation: Incarnation) -> BTreeSet<Ordinal> {
    let line = line(logs, device, incarnation);
    line.iter().filter_map(|(parent, _)| logs.get(&(device, *parent))).map(|log| log.ordinal).collect()
}

async fn read_lanes(tx: &mut Tx, project: ProjectId, keys: &LaneKeys, logs: &Logs) -> Result<BTreeMap<LaneKey, LaneState>, Failure> {
    let look = sqlx::query(
        "SELECT device, incarnation, lane, last, chain, eff, boot, mono FROM mobo.lane l \
         JOIN unnest($2::bytea[], $3::int8[], $4::int2[]) AS w(device, incarnation, lane) USING (device, incarnation, lane) \
         WHERE l.project = $1",
    );
    let mut lanes = BTreeMap::new();
    for row in tx.rows(look.bind(project.sql()).bind(&keys.devices).bind(&keys.incarnations).bind(&keys.lanes)).await? {
        let key = key(&row)?;
        let Some(log) = logs.get(&(key.device, key.incarnation)) else { continue };
        let boot = row.try_get::<Option<[u8; 8]>, _>(6)?.map(BootId);
        let mono = row.try_get::<Option<i64>, _>(7)?.map(|mono| Mono(mono.cast_unsigned()));
        let state = LaneState {
            last: seq(row.try_get(3)?),
            chain: Chain(row.try_get(4)?),
            time: LaneTime { eff: Eff(row.try_get(5)?), clock: boot.zip(mono) },
            ordinal: log.ordinal,
            ancestors: ancestors(logs, key.device, key.incarnation),
            fenced: log.fenced,
        };
        lanes.insert(key, state);
    }
    Ok(lanes)
}

type KnownEntries = BTreeMap<(LaneKey, Seq), (Chain, Eff)>;

/// Entries of the wanted ranges that are on record: none, unless something is pushed again.
async fn read_known(
    tx: &mut Tx,
    project: ProjectId,
    wants: &LaneWants,
    lanes: &BTreeMap<LaneKey, LaneState>,
) -> Result<KnownEntries, Failure> {
    let pushed_again = |range: &&(LaneKey, Seq, Seq)| lanes.get(&range.0).is_some_and(|state| Some(range.1) <= state.last);
    let ranges: Vec<&(LaneKey, Seq, Seq)> = wants.ranges.iter().filter(pushed_again).collect();
    let mut entries = KnownEntries::new();
    if ranges.is_empty() {
        return Ok(entries);
    }
    let keys = LaneKeys::of(ranges.iter().map(|range| &range.0));
    let (first, last): (Vec<i64>, Vec<i64>) = ranges.iter().map(|range| (range.1.get().cast_signed(), range.2.get().cast_signed())).unzip();
    let look = sqlx::query(
        "SELECT e.device, e.incarnation, e.lane, e.seq, e.chain, e.eff FROM mobo.entry e \
         JOIN unnest($2::bytea[], $3::int8[], $4::int2[], $5::int8[], $6::int8[]) AS w(device, incarnation, lane, first, last) \
         ON e.device = w.device AND e.incarnation = w.incarnation AND e.lane = w.lane AND e.seq BETWEEN w.first AND w.last \
         WHERE e.project = $1",
    );
    let look = look.bind(project.sql()).bind(keys.devices).bind(keys.incarnations).bind(keys.lanes).bind(first).bind(last);
    for row in tx.rows(look).await? {
        let at = known(seq(row.try_get(3)?), "seq")?;
        entries.insert((key(&row)?, at), (Chain(row.try_get(4)?), Eff(row.try_get(5)?)));
    }
    Ok(entries)
}

/// The entries that are to be tried again, as far as they are open.
async fn read_kept(
    tx: &mut Tx,
    project: ProjectId,
    logs: &Logs,
    wanted: &BTreeSet<(LaneKey, Seq)>,
) -> Result<BTreeMap<(LaneKey, Seq), KeptEntry>, Failure> {
    let mut kept = BTreeMap::new();
    for (key, seq) in wanted {
        let Some((entry, chain, eff)) = quarantine::kept(tx, project, key, *seq).await? else { continue };
        let before = match quarantine::eff_before(tx, project, key, *seq).await? {
            Some(before) => before,
            None => begin(tx, project, logs, key).await?,
        };
        kept.insert((*key, *seq), KeptEntry { entry, chain, eff, before });
    }
    Ok(kept)
}

async fn read_origins(tx: &mut Tx, project: ProjectId, wanted: &BTreeSet<(DeviceId, Eid)>) -> Result<BTreeSet<(DeviceId, Eid)>, Failure> {
    if wanted.is_empty() {
        return Ok(BTreeSet::new());
    }
    let (devices, eids): (Vec<[u8; 16]>, Vec<[u8; 16]>) = wanted.iter().map(|(device, eid)| (device.0, eid.0)).unzip();
    let look = sqlx::query(
        "SELECT w.device, w.eid FROM unnest($2::bytea[], $3::bytea[]) AS w(device, eid) \
         WHERE EXISTS (SELECT 1 FROM mobo.entry e WHERE e.project = $1 AND e.device = w.device AND e.eid = w.eid AND e.outcome IN (0, 3)) \
         OR EXISTS (SELECT 1 FROM mobo.entry e WHERE e.project = $1 AND e.device = w.device AND e.origin_eid = w.eid AND e.outcome IN (0, 3))",
    );
    let rows = tx.rows(look.bind(project.sql()).bind(devices).bind(eids)).await?;
    rows.iter().map(|row| Ok((DeviceId(row.try_get(0)?), Eid(row.try_get(1)?)))).collect()
}

async fn read_boots(tx: &mut Tx, project: ProjectId, devices: &[[u8; 16]]) -> Result<BTreeMap<DeviceId, Boots>, Failure> {
    let look = sqlx::query("SELECT device, boot, offset_us FROM mobo.boot WHERE project = $1 AND device = ANY($2)");
    let mut boots: BTreeMap<DeviceId, Boots> = BTreeMap::new();
    for row in tx.rows(look.bind(project.sql()).bind(devices)).await? {
        boots.entry(DeviceId(row.try_get(0)?)).or_default().insert(BootId(row.try_get(1)?), row.try_get(2)?);
    }
    Ok(boots)
}

/// The lane that the first three columns name.
fn key(row: &PgRow) -> Result<LaneKey, Failure> {
    Ok(LaneKey { device: DeviceId(row.try_get(0)?), incarnation: incarnation(row, 1)?, lane: lane(row.try_get(2)?)? })
}

fn incarnation(row: &PgRow, index: usize) -> Result<Incarnation, Failure> {
    known(Incarnation::from_sql(row.try_get(index)?), "incarnation")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_logs_ends_even_in_a_circle() {
        let device = DeviceId([1; 16]);
        let id = |number| Incarnation::new(number).unwrap();
        let log = |number: u64, parent: u64| {
            let ordinal = Ordinal(u32::try_from(number).unwrap());
            let parent = Incarnation::new(parent).map(|parent| (parent, Some(Seq::FIRST)));
            ((device, id(number)), Log { ordinal, parent, fenced: false })
        };
        let logs = Logs::from([log(1, 0), log(2, 1), log(3, 2), log(4, 5), log(5, 4), log(6, 9), log(7, 7)]);
        let cases: [(u64, &[u32], usize); 6] = [(1, &[], 0), (3, &[1, 2], 2), (4, &[5], 1), (5, &[4], 1), (6, &[], 1), (7, &[], 0)];
        for (number, want, length) in cases {
            let found: Vec<u32> = ancestors(&logs, device, id(number)).iter().map(|ordinal| ordinal.0).collect();
            assert_eq!(found, want, "{number}");
            assert_eq!(line(&logs, device, id(number)).len(), length, "{number}");
        }
    }
}
