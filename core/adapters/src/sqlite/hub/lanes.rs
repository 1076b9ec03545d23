//! Logs and lanes: what is known of them when their device arrives, and when its entries are merged.

use std::collections::BTreeSet;
use std::collections::btree_map::Entry;

use mobo_core::entry::chain_start;
use mobo_core::ids::{BootId, Chain, DeviceId, Incarnation, Lane, LaneKey, Ordinal, ProjectId, Seq};
use mobo_core::limits;
use mobo_core::merge::time::{Boots, LaneTime};
use mobo_core::merge::{LaneReads, LaneState, LaneWants};
use mobo_core::message::LaneStatus;
use mobo_core::session::hub::LANE_CREDIT_BYTES;
use mobo_core::store::{Admission, Arrival, TOO_MANY_LOGS};
use mobo_core::time::{Eff, Mono};
use rusqlite::{Connection, OptionalExtension};

use super::{entries, quarantine};
use crate::sqlite::error::{Failure, known};

/// Takes note of a hello. The hub's own log comes through here, too, and is no device's.
pub(super) fn arrive(connection: &Connection, project: ProjectId, arrival: &Arrival) -> Result<Admission, Failure> {
    let (id, device) = ((project.sql(), arrival.device.as_bytes()), arrival.device);
    let sql = "UPDATE mobo_device SET seen_us = ?3 WHERE project = ?1 AND id = ?2";
    connection.prepare_cached(sql)?.execute((id.0, id.1, arrival.now.0))?;
    if let Some((boot, offset)) = arrival.boot {
        let sql = "INSERT INTO mobo_boot(project, device, boot, offset_us) VALUES (?1, ?2, ?3, ?4) \
                   ON CONFLICT (project, device, boot) DO UPDATE SET offset_us = min(offset_us, excluded.offset_us)";
        connection.prepare_cached(sql)?.execute((id.0, id.1, boot.as_bytes(), offset))?;
        forget_boots(connection, id, boot)?;
    }
    note_log(connection, project, arrival)?;
    let (session, confirmed) = session(connection, project, arrival)?;
    let log = known(log(connection, project, device, arrival.incarnation)?, "log")?;
    let lanes = Lane::ALL.map(|lane| status(connection, project, &LaneKey { device, incarnation: arrival.incarnation, lane }));
    Ok(Admission { ordinal: log.ordinal, fenced: log.fenced, session, confirmed, lanes: lanes.into_iter().collect::<Result<_, _>>()? })
}

/// Of the boots of a device, those that began last stay, and this one: a merge reads them all.
fn forget_boots(connection: &Connection, (project, device): (i64, &[u8]), boot: BootId) -> Result<(), Failure> {
    let sql = "DELETE FROM mobo_boot WHERE project = ?1 AND device = ?2 AND boot <> ?3 AND boot NOT IN \
               (SELECT boot FROM mobo_boot WHERE project = ?1 AND device = ?2 ORDER BY offset_us DESC, boot LIMIT ?4)";
    connection.prepare_cached(sql)?.execute((project, device, boot.as_bytes(), limits::DEVICE_BOOTS_MAX))?;
    Ok(())
}

/// Of the logs of a device that have no entry, and that no other goes on from, the newest stay; what is forgotten is noted anew when it comes
/// again. Of the others there may be so many, and no more: a merge reads them, and an honest device begins a new one once in a blue moon.
fn bound_logs(connection: &Connection, project: ProjectId, arrival: &Arrival) -> Result<(), Failure> {
    let sql = "DELETE FROM mobo_incarnation AS i WHERE project = ?1 AND device = ?2 AND incarnation <> ?3 AND fenced = 0 \
               AND ordinal <= (SELECT max(ordinal) FROM mobo_incarnation WHERE project = ?1 AND device = ?2) - ?4 \
               AND NOT EXISTS (SELECT 1 FROM mobo_lane l WHERE l.project = ?1 AND l.device = ?2 AND l.incarnation = i.incarnation) \
               AND NOT EXISTS (SELECT 1 FROM mobo_incarnation c WHERE c.project = ?1 AND c.device = ?2 AND c.parent = i.incarnation)";
    let (device, incarnation) = (arrival.device.as_bytes(), arrival.incarnation.sql());
    connection.prepare_cached(sql)?.execute((project.sql(), device, incarnation, limits::DEVICE_EMPTY_LOGS_MAX))?;
    let sql = "SELECT count(*) FROM mobo_incarnation WHERE project = ?1 AND device = ?2";
    let logs: u32 = connection.prepare_cached(sql)?.query_row((project.sql(), device), |row| row.get(0))?;
    if logs > limits::DEVICE_LOGS_MAX {
        return Err(Failure::refused(TOO_MANY_LOGS));
    }
    Ok(())
}

/// Generation of the new session of a log, and the highest one that its device has ever shown.
fn session(connection: &Connection, project: ProjectId, arrival: &Arrival) -> Result<(u64, u64), Failure> {
    let shown = arrival.session.min(i64::MAX.cast_unsigned() - 1).cast_signed();
    let sql = "UPDATE mobo_incarnation SET session = 1 + max(session, ?4), confirmed = max(confirmed, ?4) \
               WHERE project = ?1 AND device = ?2 AND incarnation = ?3 RETURNING session, confirmed";
    let key = (project.sql(), arrival.device.as_bytes(), arrival.incarnation.sql());
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_row((key.0, key.1, key.2, shown), |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)));
    let (session, confirmed) = found.optional()?.unwrap_or_default();
    Ok((session.cast_unsigned(), confirmed.cast_unsigned()))
}

/// Closes a log.
pub(super) fn fence(connection: &Connection, project: ProjectId, device: DeviceId, incarnation: Incarnation) -> Result<(), Failure> {
    let sql = "UPDATE mobo_incarnation SET fenced = 1 WHERE project = ?1 AND device = ?2 AND incarnation = ?3";
    connection.prepare_cached(sql)?.execute((project.sql(), device.as_bytes(), incarnation.sql()))?;
    Ok(())
}

/// Reads what the first step of a merge asks for.
pub(super) fn read(connection: &Connection, project: ProjectId, wants: &LaneWants) -> Result<LaneReads, Failure> {
    let mut reads = LaneReads::default();
    for key in &wants.lanes {
        if let Some(log) = log(connection, project, key.device, key.incarnation)? {
            reads.lanes.insert(*key, state(connection, project, key, log)?);
        }
        if let Entry::Vacant(place) = reads.boots.entry(key.device) {
            place.insert(boots(connection, project, key.device)?);
        }
    }
    for (key, first, last) in &wants.ranges {
        entries::known_in(connection, project, (key, *first, *last), &mut reads.known)?;
    }
    for (device, eid) in &wants.origins {
        if entries::is_known(connection, project, *device, eid)? {
            reads.origins.insert((*device, *eid));
        }
    }
    quarantine::read_kept(connection, project, &wants.retries, &mut reads)?;
    Ok(reads)
}

/// What is on record of a log.
struct Log {
    ordinal: Ordinal,
    fenced: bool,
    parent: Option<(Incarnation, Option<Seq>)>,
}

fn log(connection: &Connection, project: ProjectId, device: DeviceId, incarnation: Incarnation) -> Result<Option<Log>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT ordinal, fenced, parent, parent_seq FROM mobo_incarnation WHERE project = ?1 AND device = ?2 AND incarnation = ?3",
    )?;
    let row = statement.query_row((project.sql(), device.as_bytes(), incarnation.sql()), |row| {
        Ok((row.get(0)?, row.get(1)?, row.get::<_, Option<i64>>(2)?, row.get::<_, Option<i64>>(3)?))
    });
    let Some((ordinal, fenced, parent, parent_seq)) = row.optional()? else { return Ok(None) };
    let parent = parent.and_then(Incarnation::from_sql);
    let parent = parent.map(|parent| (parent, parent_seq.and_then(|seq| Seq::new(seq.cast_unsigned()))));
    Ok(Some(Log { ordinal: Ordinal(ordinal), fenced, parent }))
}

fn note_log(connection: &Connection, project: ProjectId, arrival: &Arrival) -> Result<(), Failure> {
    let (device, incarnation) = (arrival.device.as_bytes(), arrival.incarnation.sql());
    let parent = arrival.parent.map(|parent| parent.incarnation.sql());
    let parent_seq = arrival.parent.and_then(|parent| parent.seq).map(|seq| seq.get().cast_signed());
    // The number that it had before a restore, if nobody has it now; else the next.
    let sql = "INSERT INTO mobo_incarnation(project, device, incarnation, ordinal, parent, parent_seq) \
               SELECT ?1, ?2, ?3, CASE WHEN ?4 IS NULL OR EXISTS (SELECT 1 FROM mobo_incarnation WHERE project = ?1 AND device = ?2 AND \
               ordinal = ?4) THEN 1 + coalesce((SELECT max(ordinal) FROM mobo_incarnation WHERE project = ?1 AND device = ?2), 0) \
               ELSE ?4 END, ?5, ?6 WHERE true \
               ON CONFLICT (project, device, incarnation) DO UPDATE SET parent = coalesce(parent, excluded.parent), \
               parent_seq = coalesce(parent_seq, excluded.parent_seq)";
    let ordinal = arrival.ordinal.map(|ordinal| ordinal.0);
    connection.prepare_cached(sql)?.execute((project.sql(), device, incarnation, ordinal, parent, parent_seq))?;
    // The hub's own log comes through here, too.
    if arrival.boot.is_some() { bound_logs(connection, project, arrival) } else { Ok(()) }
}

fn status(connection: &Connection, project: ProjectId, key: &LaneKey) -> Result<LaneStatus, Failure> {
    let sql = "SELECT last, chain, safe, eff FROM mobo_lane WHERE project = ?1 AND device = ?2 AND incarnation = ?3 AND lane = ?4";
    let mut statement = connection.prepare_cached(sql)?;
    let row = statement.query_row((project.sql(), key.device.as_bytes(), key.incarnation.sql(), key.lane.number()), |row| {
        Ok((row.get::<_, i64>(0)?, row.get(1)?, row.get::<_, i64>(2)?, Some(Eff(row.get(3)?))))
    });
    let (last, chain, safe, eff) = row.optional()?.unwrap_or((0, chain_start(project, key).0, 0, None));
    let (last, safe) = (Seq::new(last.cast_unsigned()), Seq::new(safe.cast_unsigned()));
    Ok(LaneStatus { lane: key.lane, last, chain: Chain(chain), safe, credit_bytes: LANE_CREDIT_BYTES, eff: eff.filter(|_| last.is_some()) })
}

fn state(connection: &Connection, project: ProjectId, key: &LaneKey, log: Log) -> Result<LaneState, Failure> {
    let (ancestors, begin) = origins_of(connection, project, key.device, &log)?;
    let fenced = log.fenced;
    let sql = "SELECT last, chain, eff, boot, mono FROM mobo_lane WHERE project = ?1 AND device = ?2 AND incarnation = ?3 AND lane = ?4";
    let mut statement = connection.prepare_cached(sql)?;
    let row = statement.query_row((project.sql(), key.device.as_bytes(), key.incarnation.sql(), key.lane.number()), |row| {
        let clock = (row.get::<_, Option<[u8; 8]>>(3)?, row.get::<_, Option<i64>>(4)?);
        Ok((row.get::<_, i64>(0)?, row.get(1)?, row.get(2)?, clock))
    });
    let Some((last, chain, eff, (boot, mono))) = row.optional()? else {
        return Ok(LaneState { fenced, ..LaneState::fresh(project, key, log.ordinal, ancestors, begin) });
    };
    let clock = boot.zip(mono).map(|(boot, mono)| (BootId(boot), Mono(mono.cast_unsigned())));
    // 0 is none: Postgres makes the row of a lane before its first entry, to have something to lock, and a move brings it here; and so does
    // what is to begin above an offered row.
    let last = Seq::new(last.cast_unsigned());
    Ok(LaneState { last, chain: Chain(chain), time: LaneTime { eff: Eff(eff), clock }, ordinal: log.ordinal, ancestors, fenced })
}

/// The time above which a lane of this log begins.
pub(super) fn begin(connection: &Connection, project: ProjectId, key: &LaneKey) -> Result<Eff, Failure> {
    let log = known(log(connection, project, key.device, key.incarnation)?, "log")?;
    Ok(origins_of(connection, project, key.device, &log)?.1)
}

/// Makes the next record entry of the device's newest log later than that, whatever the hub knows of the device's clock.
pub(super) fn begin_above(connection: &Connection, project: ProjectId, (device, eff): (DeviceId, Eff)) -> Result<(), Failure> {
    let sql = "SELECT incarnation FROM mobo_incarnation WHERE project = ?1 AND device = ?2 ORDER BY ordinal DESC LIMIT 1";
    let mut statement = connection.prepare_cached(sql)?;
    let newest: Option<i64> = statement.query_row((project.sql(), device.as_bytes()), |row| row.get(0)).optional()?;
    let Some(incarnation) = newest.and_then(Incarnation::from_sql) else { return Ok(()) };
    let key = LaneKey { device, incarnation, lane: Lane::State };
    let (chain, eff) = (chain_start(project, &key), eff.max(begin(connection, project, &key)?));
    // 0 is no entry yet.
    let sql = "INSERT INTO mobo_lane(project, device, incarnation, lane, last, chain, eff) VALUES (?1, ?2, ?3, ?4, 0, ?5, ?6) \
               ON CONFLICT (project, device, incarnation, lane) DO UPDATE SET eff = max(eff, excluded.eff)";
    let key = (project.sql(), device.as_bytes(), incarnation.sql(), key.lane.number());
    connection.prepare_cached(sql)?.execute((key.0, key.1, key.2, key.3, chain.as_bytes(), eff.0))?;
    Ok(())
}

/// The logs that a log continues, and the time above which it starts: that of its fork entry or, where no ancestor has one, the enrolment.
fn origins_of(connection: &Connection, project: ProjectId, device: DeviceId, first: &Log) -> Result<(BTreeSet<Ordinal>, Eff), Failure> {
    let (mut ancestors, mut begin) = (BTreeSet::new(), None);
    let mut parent = first.parent;
    while let Some((incarnation, seq)) = parent {
        let key = LaneKey { device, incarnation, lane: Lane::State };
        if begin.is_none()
            && let Some(seq) = seq
        {
            begin = entries::eff_at_or_before(connection, project, &key, seq)?;
        }
        let Some(log) = log(connection, project, device, incarnation)? else { break };
        // A log that would continue itself is a forged one: its line ends here.
        if log.ordinal == first.ordinal || ancestors.len() >= limits::LOG_LINE_MAX || !ancestors.insert(log.ordinal) {
            break;
        }
        parent = log.parent;
    }
    if let Some(begin) = begin {
        return Ok((ancestors, begin));
    }
    let mut statement = connection.prepare_cached("SELECT enrolled_us FROM mobo_device WHERE project = ?1 AND id = ?2")?;
    let enrolled: Option<i64> = statement.query_row((project.sql(), device.as_bytes()), |row| row.get(0)).optional()?;
    Ok((ancestors, Eff(enrolled.unwrap_or_default())))
}

fn boots(connection: &Connection, project: ProjectId, device: DeviceId) -> Result<Boots, Failure> {
    let mut statement = connection.prepare_cached("SELECT boot, offset_us FROM mobo_boot WHERE project = ?1 AND device = ?2")?;
    let boots = statement.query_map((project.sql(), device.as_bytes()), |row| Ok((BootId(row.get(0)?), row.get(1)?)))?;
    Ok(boots.collect::<Result<_, _>>()?)
}
