//! What the hub has committed of the device's lanes, and how long entries are kept past that (rules R7, R21).

use mobo_core::entry::{Header, Payload};
use mobo_core::ids::{Incarnation, Lane, Seq};
use mobo_core::message::Ack;
use mobo_core::schema::{Kind, Schema};
use mobo_core::time::Eff;
use rusqlite::Connection;

use super::answers::{Acknowledged, Keep};
use super::fault::{Try, all, first};
use super::floor;
use super::meta::{self, Log};
use super::outbox::{self, EntryState, seq_sql};
use super::stream;
use crate::sqlite::error::known;

/// Takes an ack in. Positions never go back; effective times are kept as the hub that speaks now decided them.
pub(super) fn take(conn: &Connection, schema: &Schema, ack: &Ack) -> Try<Acknowledged> {
    let Some(log) = Log::read(conn)? else { return Ok(Acknowledged::Foreign) };
    let Some(row) = outbox::lane(conn, ack.incarnation, ack.lane)? else { return Ok(Acknowledged::Foreign) };
    if mobo_core::protect!("log.forked:ack", ack.acked > row.last || !fits(conn, ack)?) {
        return Ok(Acknowledged::Foreign);
    }
    let mut seq = ack.eff_first;
    for eff in &ack.effs {
        if seq <= ack.acked {
            decide(conn, (&log, schema), (ack.incarnation, ack.lane, seq), *eff)?;
        }
        seq = seq.next();
    }
    if let Some(last) = ack.effs.last() {
        floor::tell(conn, *last)?;
    }
    if let Some(timeline) = log.timeline.filter(|_| Some(ack.acked) >= row.acked) {
        let sql = "UPDATE mobo_lane SET proof_timeline = ?3, proof_chain = ?4, proof_signature = ?5, proof_seq = ?6
                   WHERE incarnation = ?1 AND lane = ?2";
        conn.prepare_cached(sql)?.execute((
            ack.incarnation.sql(),
            ack.lane.number(),
            timeline.as_bytes(),
            ack.chain.as_bytes(),
            ack.signature.as_bytes(),
            seq_sql(ack.acked),
        ))?;
    }
    advance(conn, (ack.incarnation, ack.lane), ack.acked, ack.safe)?;
    Ok(if Some(ack.acked) > row.acked { Acknowledged::Advanced } else { Acknowledged::Known })
}

/// True if the hub's chain at that position is this log's, as far as it is still kept.
fn fits(conn: &Connection, ack: &Ack) -> Try<bool> {
    Ok(match outbox::chain_at(conn, ack.incarnation, ack.lane, ack.acked)? {
        Some(chain) => chain == ack.chain,
        None => outbox::is_trimmed(conn, ack.incarnation, ack.lane, ack.acked)?,
    })
}

/// Takes in how far a welcome says that a lane is committed, and when the last entry was made. Gives the first kept entry up to there of which
/// this device has not heard what became of it: its ack was lost, and its refusal may have been. From there on the lane is pushed again.
pub(super) fn welcomed(
    conn: &Connection,
    (incarnation, lane): (Incarnation, Lane),
    last: Seq,
    (safe, eff): (Option<Seq>, Option<Eff>),
) -> Try<Option<Seq>> {
    if let Some(eff) = eff {
        decided_anew(conn, (incarnation, lane, last), eff)?;
    }
    let unheard = unheard(conn, (incarnation, lane), last)?;
    let heard = unheard.map_or(Some(last), |unheard| Seq::new(unheard.get() - 1));
    raise(conn, (incarnation, lane), last, safe)?;
    if let Some(heard) = heard {
        settle(conn, (incarnation, lane), heard)?;
    }
    Ok(unheard)
}

/// Raises what counts as committed and as safe; entries up to there are not pending any more.
pub(super) fn advance(conn: &Connection, lane: (Incarnation, Lane), acked: Seq, safe: Option<Seq>) -> Try<()> {
    raise(conn, lane, acked, safe)?;
    settle(conn, lane, acked)
}

fn raise(conn: &Connection, (incarnation, lane): (Incarnation, Lane), acked: Seq, safe: Option<Seq>) -> Try<()> {
    let safe = safe.map_or(0, |safe| seq_sql(safe.min(acked)));
    let sql = "UPDATE mobo_lane SET acked = max(acked, ?3), reached = max(reached, ?3), safe = max(safe, ?4) WHERE incarnation = ?1 AND lane = ?2";
    conn.prepare_cached(sql)?.execute((incarnation.sql(), lane.number(), seq_sql(acked), safe))?;
    Ok(())
}

fn settle(conn: &Connection, (incarnation, lane): (Incarnation, Lane), acked: Seq) -> Try<()> {
    let sql = "UPDATE mobo_outbox SET state = 1 WHERE incarnation = ?1 AND lane = ?2 AND seq <= ?3 AND state = 0";
    conn.prepare_cached(sql)?.execute((incarnation.sql(), lane.number(), seq_sql(acked)))?;
    Ok(())
}

/// True if a hub has said once that it has an entry, by an ack or a welcome, and whatever a restored one has lost of it since.
pub(super) fn was_reached(conn: &Connection, (incarnation, lane, seq): (Incarnation, Lane, Seq)) -> Try<bool> {
    let sql = "SELECT ?3 <= reached FROM mobo_lane WHERE incarnation = ?1 AND lane = ?2";
    let mut statement = conn.prepare_cached(sql)?;
    let reached = first(statement.query((incarnation.sql(), lane.number(), seq_sql(seq)))?, |row| Ok(row.get::<_, bool>(0)?))?;
    Ok(reached.unwrap_or_default())
}

/// The first kept entry of a lane up to a position whose effective time is not known, or is from before the hub went back in time.
fn unheard(conn: &Connection, (incarnation, lane): (Incarnation, Lane), last: Seq) -> Try<Option<Seq>> {
    let after_restore = if mobo_core::protect!("ack.heard-again", true) { "OR state = 0" } else { "" };
    let sql = format!(
        "SELECT seq FROM mobo_outbox WHERE incarnation = ?1 AND lane = ?2 AND seq <= ?3 AND (eff IS NULL {after_restore}) ORDER BY seq LIMIT 1"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    first(statement.query((incarnation.sql(), lane.number(), seq_sql(last)))?, |row| {
        known(outbox::seq(row.get(0)?), "position of an entry")
    })
}

/// A hub that was put back has got an entry from a copy of this device, which had not heard when it was made, and has decided that once more: what
/// is kept of that up to there does not count any more, and is asked for (rule R7).
fn decided_anew(conn: &Connection, (incarnation, lane, last): (Incarnation, Lane, Seq), eff: Eff) -> Try<()> {
    let place = (incarnation.sql(), lane.number(), seq_sql(last));
    let sql = "SELECT 1 FROM mobo_outbox WHERE incarnation = ?1 AND lane = ?2 AND seq = ?3 AND eff <> ?4";
    // The log is looked through in this case only.
    if conn.prepare_cached(sql)?.exists((place.0, place.1, place.2, eff.0))? {
        let sql = "UPDATE mobo_outbox SET state = 0 WHERE incarnation = ?1 AND lane = ?2 AND seq <= ?3 AND state = 1";
        conn.prepare_cached(sql)?.execute(place)?;
    }
    Ok(())
}

/// True if the hub's word on an entry was heard: one that it had refused would be marked so.
pub(super) fn is_heard(conn: &Connection, (incarnation, lane, seq): (Incarnation, Lane, Seq)) -> Try<bool> {
    let sql = "SELECT state = 1 AND eff IS NOT NULL FROM mobo_outbox WHERE incarnation = ?1 AND lane = ?2 AND seq = ?3";
    let mut statement = conn.prepare_cached(sql)?;
    let heard = first(statement.query((incarnation.sql(), lane.number(), seq_sql(seq)))?, |row| Ok(row.get::<_, bool>(0)?))?;
    Ok(heard.unwrap_or_default())
}

/// Keeps the effective time of an entry that is committed; its samples get their real times.
fn decide(conn: &Connection, (log, schema): (&Log, &Schema), (incarnation, lane, seq): (Incarnation, Lane, Seq), eff: Eff) -> Try<()> {
    // Both at once, and in the room that was left for them: what is said of an entry stands behind all of its payload.
    let sql = "UPDATE mobo_outbox SET eff = ?4, eff_room = NULL, state = max(state, 1)
               WHERE incarnation = ?1 AND lane = ?2 AND seq = ?3 AND eff IS NOT ?4";
    let changed = conn.prepare_cached(sql)?.execute((incarnation.sql(), lane.number(), seq_sql(seq), eff.0))?;
    if changed == 0 || lane == Lane::State {
        return Ok(());
    }
    let Some(row) = outbox::entry(conn, incarnation, lane, seq)? else { return Ok(()) };
    let kind = Header::decode(&row.entry.header).ok().and_then(|header| header.kind());
    let (Some(Kind::Stream), Payload::Present(payload)) = (kind, &row.entry.payload) else { return Ok(()) };
    stream::retime(conn, schema, (log.lane(incarnation, lane), seq), payload, eff)
}

/// Drops entries that the hub has made safe, or has committed where there is no backup, once they are old or too many (rule R21).
/// Where room is short, stream entries go as soon as they are committed.
///
/// A lane is trimmed from its start only, and never past an entry that is pending or still shown over a delivered row.
///
/// Age is told by the hub's times of the entries, so that a clock that jumps drops nothing.
pub(super) fn trim(conn: &Connection, keep: &Keep) -> Try<u64> {
    let lanes = lanes(conn)?;
    let mut trimmed = 0;
    if let Some(newest) = newest(conn)? {
        let oldest = newest.before(keep.age_us);
        for (incarnation, lane) in &lanes {
            while let Some((seq, eff)) = oldest_of(conn, *incarnation, *lane)?
                && eff.is_some_and(|eff| eff < oldest)
                && may_go(conn, (*incarnation, *lane, seq), false)?
            {
                trimmed += drop_first(conn, (*incarnation, *lane, seq))?;
            }
        }
    }
    for hard in [true, false] {
        for (incarnation, lane) in lanes.iter().filter(|(_, lane)| !hard || *lane != Lane::State) {
            while bytes(conn)? > keep.bytes_max
                && let Some((seq, _)) = oldest_of(conn, *incarnation, *lane)?
                && may_go(conn, (*incarnation, *lane, seq), hard)?
            {
                trimmed += drop_first(conn, (*incarnation, *lane, seq))?;
            }
        }
    }
    Ok(trimmed)
}

/// Drops the first entry of a stream's lane, if the hub has it; says how many went.
pub(super) fn drop_acked(conn: &Connection, incarnation: Incarnation, lane: Lane) -> Try<u64> {
    let Some((seq, _)) = oldest_of(conn, incarnation, lane)? else { return Ok(0) };
    if may_go(conn, (incarnation, lane, seq), true)? { drop_first(conn, (incarnation, lane, seq)) } else { Ok(0) }
}

/// Bytes of the sealed entries in the outbox.
pub(super) fn bytes(conn: &Connection) -> Try<u64> {
    Ok(u64::try_from(meta::get::<i64>(conn, meta::OUTBOX_BYTES)?.unwrap_or_default()).unwrap_or_default())
}

/// All lanes of all logs, the most voluminous kinds first.
pub(super) fn lanes(conn: &Connection) -> Try<Vec<(Incarnation, Lane)>> {
    let mut statement = conn.prepare_cached("SELECT incarnation, lane FROM mobo_lane ORDER BY lane DESC, incarnation")?;
    all(statement.query([])?, |row| {
        Ok((known(Incarnation::from_sql(row.get(0)?), "incarnation")?, known(Lane::from_number(row.get(1)?), "lane")?))
    })
}

/// The first entry of a lane that is kept, and a time that it is not younger than: its own, or that of the next that has one.
fn oldest_of(conn: &Connection, incarnation: Incarnation, lane: Lane) -> Try<Option<(Seq, Option<Eff>)>> {
    let sql = "SELECT seq, (SELECT n.eff FROM mobo_outbox n WHERE n.incarnation = o.incarnation AND n.lane = o.lane AND n.seq >= o.seq
                 AND n.eff IS NOT NULL ORDER BY n.seq LIMIT 1)
               FROM mobo_outbox o WHERE incarnation = ?1 AND lane = ?2 ORDER BY seq LIMIT 1";
    let mut statement = conn.prepare_cached(sql)?;
    first(statement.query((incarnation.sql(), lane.number()))?, |row| {
        Ok((known(outbox::seq(row.get(0)?), "position of an entry")?, row.get::<_, Option<i64>>(1)?.map(Eff)))
    })
}

/// From the few lanes to one entry of each: the other way round, each ack would look at every entry that is kept.
const NEWEST: &str = "SELECT max(o.eff) FROM mobo_lane l CROSS JOIN mobo_outbox o \
                      ON o.incarnation = l.incarnation AND o.lane = l.lane AND o.seq = l.acked";

/// The hub's time of the last entry that it has committed.
fn newest(conn: &Connection) -> Try<Option<Eff>> {
    let mut statement = conn.prepare_cached(NEWEST)?;
    Ok(statement.query_row([], |row| row.get::<_, Option<i64>>(0))?.map(Eff))
}

/// True if the entry may go; where room is short (`hard`), a stream's as soon as the hub has it.
fn may_go(conn: &Connection, (incarnation, lane, seq): (Incarnation, Lane, Seq), hard: bool) -> Try<bool> {
    let sql = "SELECT o.state, o.seq <= l.acked, o.seq <= l.safe,
                 (SELECT coalesce(max(safe), 0) FROM mobo_lane) > 0,
                 EXISTS (SELECT 1 FROM mobo_overlay v WHERE v.incarnation = ?1 AND v.lane = ?2 AND v.seq = ?3)
               FROM mobo_outbox o JOIN mobo_lane l ON l.incarnation = o.incarnation AND l.lane = o.lane
               WHERE o.incarnation = ?1 AND o.lane = ?2 AND o.seq = ?3";
    let mut statement = conn.prepare_cached(sql)?;
    let key = (incarnation.sql(), lane.number(), seq_sql(seq));
    let (state, acked, safe, has_backup, shown) = statement.query_row(key, |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?, row.get::<_, bool>(2)?, row.get::<_, bool>(3)?, row.get::<_, bool>(4)?))
    })?;
    // What was authored again lives on in its successor.
    let superseded = state == EntryState::Superseded.code();
    let kept_elsewhere = if !mobo_core::protect!("trim.acked:lane", true) {
        true
    } else if has_backup && !(hard && lane != Lane::State) {
        safe
    } else {
        acked
    };
    Ok(!mobo_core::protect!("trim.shown", shown)
        && !mobo_core::protect!("trim.acked:entry", state == EntryState::Pending.code())
        && (superseded || kept_elsewhere))
}

fn drop_first(conn: &Connection, (incarnation, lane, seq): (Incarnation, Lane, Seq)) -> Try<u64> {
    let key = (incarnation.sql(), lane.number(), seq_sql(seq));
    let Some(row) = outbox::entry(conn, incarnation, lane, seq)? else { return Ok(0) };
    let sql = "UPDATE mobo_lane SET trimmed = ?3, trimmed_chain = ?4 WHERE incarnation = ?1 AND lane = ?2";
    conn.prepare_cached(sql)?.execute((key.0, key.1, key.2, row.chain.as_bytes()))?;
    conn.prepare_cached("DELETE FROM mobo_outbox WHERE incarnation = ?1 AND lane = ?2 AND seq = ?3")?.execute(key)?;
    if let Some(eff) = row.eff {
        floor::trimmed(conn, lane, eff)?;
    }
    meta::add(conn, meta::OUTBOX_BYTES, -outbox::sql_len(row.entry.bytes()))?;
    Ok(1)
}

#[cfg(test)]
mod tests {
    use mobo_core::entry::Entry;
    use mobo_core::ids::{DeviceId, ProjectId};
    use rusqlite::StatementStatus;

    use super::*;
    use crate::sqlite::open::{Role, open_writer};

    /// A device whose hub made nothing safe for hours spent its CPU on looking at all that it kept, once for each ack.
    #[test]
    fn an_ack_does_not_look_at_all_that_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let conn = open_writer(&folder.path().join("edge.db"), Role::Edge, 1_024).unwrap();
        conn.execute_batch(
            "INSERT INTO mobo_lane(incarnation, lane, last, acked, chain) VALUES (1, 0, 3000, 2000, zeroblob(32));
             INSERT INTO mobo_outbox(incarnation, lane, seq, header, payload_hash, chain, eff, state, sealed_us)
             WITH RECURSIVE n(seq) AS (SELECT 1 UNION ALL SELECT seq + 1 FROM n WHERE seq < 3000)
             SELECT 1, 0, seq, x'00', zeroblob(32), zeroblob(32), 10 * seq, 1, 1 FROM n;",
        )
        .unwrap();
        assert_eq!(newest(&conn).unwrap(), Some(Eff(20_000)));
        let statement = conn.prepare_cached(NEWEST).unwrap();
        let steps = statement.get_status(StatementStatus::VmStep);
        assert!((1..200).contains(&steps), "{steps} steps for one lane: every kept entry was looked at");
    }

    /// What broke: the effective time of an entry stands behind its payload, and made the row longer. So each ack wrote all of it once more: 50
    /// pages for an entry of 200,000 bytes, 64 for the largest.
    // faults: S-13
    #[test]
    fn an_ack_does_not_write_the_payload_again() {
        let folder = tempfile::tempdir().unwrap();
        let conn = open_writer(&folder.path().join("edge.db"), Role::Edge, 1_024).unwrap();
        let (project, incarnation) = (ProjectId::new(5).unwrap(), Incarnation::new(1).unwrap());
        let log = Log { project, device: DeviceId([3; 16]), incarnation, timeline: None, life: None };
        let entry = Entry { header: vec![0; 60], payload: Payload::Present(vec![7; 200_000]) };
        for _ in 0..4 {
            outbox::append(&conn, &log, Lane::State, &entry, 1).unwrap();
        }
        // Two rows of an earlier version, which left no room.
        conn.execute("UPDATE mobo_outbox SET eff_room = NULL WHERE seq <= 2", []).unwrap();
        let frames = || conn.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| row.get::<_, i64>(1)).unwrap();
        let pages = [1, 2, 3, 4].map(|number| {
            let (seq, before) = (Seq::new(number).unwrap(), frames());
            let transaction = conn.unchecked_transaction().unwrap();
            let eff = Eff(1_780_000_000_000_000 + i64::try_from(number).unwrap());
            decide(&conn, (&log, &Schema::default()), (incarnation, Lane::State, seq), eff).unwrap();
            advance(&conn, (incarnation, Lane::State), seq, None).unwrap();
            transaction.commit().unwrap();
            let row = "SELECT eff, state, length(payload), eff_room IS NULL FROM mobo_outbox WHERE seq = ?1";
            let row = conn.query_row(row, [seq_sql(seq)], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).unwrap();
            assert_eq!(row, (eff.0, 1, 200_000, true));
            frames() - before
        });
        assert!(pages[..2].iter().all(|pages| *pages > 48), "{pages:?}: this test would not see what it is for");
        assert!(pages[2..].iter().all(|pages| *pages <= 8), "{pages:?} pages for two acks with no room, and two with");
    }
}
