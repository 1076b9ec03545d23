//! How safe a write of this device is, and waiting until it is safer.

use mobo_core::entry::Header;
use mobo_core::ids::{Chain, Eid, Incarnation, Lane, Seq};
use mobo_core::level::AckLevel;
use mobo_core::message::Code;
use mobo_core::store::StoreError;
use rusqlite::Connection;
use tokio::sync::broadcast::error::RecvError;

use super::EdgeStore;
use super::answers::{Change, Sealed};
use super::fault::{Try, first};
use super::outbox::{self, EntryState, LaneRow, seq_sql};
use super::overlays;
use crate::sqlite::error::known;

/// How far an entry has come.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Reached {
    /// This level.
    Level(AckLevel),
    /// The hub refused it; what it did is taken back.
    Refused {
        /// Why, for programs.
        code: Code,
        /// Why, for people.
        detail: String,
    },
    /// It was authored again in a new log: follow it there.
    Moved(Sealed),
}

impl EdgeStore {
    /// How far an entry has come.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn level(&self, at: Sealed) -> Result<Reached, StoreError> {
        self.read(move |conn, _| level(conn, &at)).await
    }

    /// Waits until an entry has reached a level, or is refused. Give it a deadline: a hub may be away for months.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn wait_for(&self, mut at: Sealed, wanted: AckLevel) -> Result<Reached, StoreError> {
        let mut changes = self.watch();
        loop {
            match self.level(at).await? {
                Reached::Level(level) if level < wanted => {}
                Reached::Moved(to) => {
                    at = to;
                    continue;
                }
                reached @ (Reached::Level(_) | Reached::Refused { .. }) => return Ok(reached),
            }
            loop {
                match changes.recv().await {
                    Ok(Change::LaneSettled(lane)) if lane == at.lane => break,
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => return self.level(at).await,
                }
            }
        }
    }
}

fn level(conn: &Connection, at: &Sealed) -> Try<Reached> {
    let key = (at.incarnation.sql(), at.lane.number(), seq_sql(at.seq));
    let sql = "SELECT state, payload IS NULL FROM mobo_outbox WHERE incarnation = ?1 AND lane = ?2 AND seq = ?3";
    let state = first(conn.prepare_cached(sql)?.query(key)?, |row| Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?)))?;
    if state.is_some_and(|(_, lost)| lost) {
        let detail = "it was dropped on this device for want of room, before the hub had it".to_owned();
        return Ok(Reached::Refused { code: Code::LOST, detail });
    }
    let state = state.map(|(state, _)| state);
    if state == Some(EntryState::Rejected.code()) {
        if !overlays::of_entry(conn, (at.incarnation, at.lane, at.seq))?.is_empty() {
            // It waits to be written again, and to be followed there.
            return Ok(Reached::Level(AckLevel::Local));
        }
        let (code, detail) =
            refusal(conn, at)?.unwrap_or((Code::INTERNAL, "the hub refused it, and why is not on record any more".to_owned()));
        return Ok(Reached::Refused { code, detail });
    }
    if state == Some(EntryState::Superseded.code())
        && let Some(moved) = successor(conn, at)?
    {
        return Ok(Reached::Moved(moved));
    }
    let Some(row) = outbox::lane(conn, at.incarnation, at.lane)? else { return Ok(Reached::Level(AckLevel::Local)) };
    let level = level_in(&row, at.seq);
    let is_gone = state.is_none() && row.trimmed.is_some_and(|(trimmed, _)| trimmed >= at.seq);
    // Of a stream, what went may have been dropped for want of room.
    let may_live_on = level == AckLevel::Local && is_gone && at.lane == Lane::State;
    if may_live_on { lives_on(conn, at) } else { Ok(Reached::Level(level)) }
}

/// Why an entry was refused, as far as that is on record.
fn refusal(conn: &Connection, at: &Sealed) -> Try<Option<(Code, String)>> {
    let sql = "SELECT code, detail FROM mobo_inbox WHERE incarnation = ?1 AND lane = ?2 AND seq = ?3";
    let key = (at.incarnation.sql(), at.lane.number(), seq_sql(at.seq));
    first(conn.prepare_cached(sql)?.query(key)?, |row| Ok((Code(row.get(0)?), row.get::<_, String>(1)?)))
}

fn level_in(row: &LaneRow, seq: Seq) -> AckLevel {
    match (row.safe >= Some(seq), row.acked >= Some(seq)) {
        (true, _) => AckLevel::Safe,
        (false, true) => AckLevel::Hub,
        (false, false) => AckLevel::Local,
    }
}

/// An entry that went before the hub had it was authored again, and what is kept of that tells where: an entry says which it was first. Of one
/// that was authored again more than once nobody knows which, so it is no further than the least of them.
fn lives_on(conn: &Connection, at: &Sealed) -> Try<Reached> {
    if let Some((code, detail)) = refusal(conn, at)? {
        return Ok(Reached::Refused { code, detail });
    }
    let sql = "SELECT incarnation, seq, chain, header FROM mobo_outbox WHERE lane = ?1 AND incarnation <> ?2 ORDER BY rowid DESC";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query((at.lane.number(), at.incarnation.sql()))?;
    let has_backup = conn.query_row("SELECT coalesce(max(safe), 0) > 0 FROM mobo_lane", [], |row| row.get(0))?;
    let mut least = if has_backup { AckLevel::Safe } else { AckLevel::Hub };
    while let Some(row) = rows.next()? {
        let Some(first) = Header::decode(&row.get::<_, Vec<u8>>(3)?)?.provenance else { continue };
        let incarnation = known(Incarnation::from_sql(row.get(0)?), "incarnation")?;
        let seq = known(outbox::seq(row.get(1)?), "position of an entry")?;
        if (first.incarnation, first.lane, first.seq) == (at.incarnation, at.lane, at.seq) {
            return Ok(Reached::Moved(Sealed { incarnation, lane: at.lane, seq, chain: Chain(row.get(2)?) }));
        }
        let lane = outbox::lane(conn, incarnation, at.lane)?;
        least = least.min(lane.map_or(AckLevel::Local, |lane| level_in(&lane, seq)));
    }
    Ok(Reached::Level(least))
}

/// Where an entry was authored again last, in whichever log; `None` if nothing was left of it to send.
fn successor(conn: &Connection, at: &Sealed) -> Try<Option<Sealed>> {
    let Some(old) = outbox::entry(conn, at.incarnation, at.lane, at.seq)? else { return Ok(None) };
    let origin = |header: &[u8]| -> Try<Option<Eid>> { Ok(Header::decode(header)?.provenance.map(|origin| origin.eid)) };
    let first = origin(&old.entry.header)?.or(old.entry.eid());
    let sql = "SELECT incarnation, seq, chain, header FROM mobo_outbox
               WHERE lane = ?2 AND rowid > (SELECT rowid FROM mobo_outbox WHERE incarnation = ?1 AND lane = ?2 AND seq = ?3)
               ORDER BY rowid DESC";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query((at.incarnation.sql(), at.lane.number(), seq_sql(at.seq)))?;
    while let Some(row) = rows.next()? {
        let eid = origin(&row.get::<_, Vec<u8>>(3)?)?;
        if eid.is_some() && eid == first {
            let incarnation = known(Incarnation::from_sql(row.get(0)?), "incarnation")?;
            let seq = known(outbox::seq(row.get(1)?), "position of an entry")?;
            return Ok(Some(Sealed { incarnation, lane: at.lane, seq, chain: Chain(row.get(2)?) }));
        }
    }
    Ok(None)
}

/// The lanes of a device that wait for a hub's word, for whoever waits with them.
pub(super) fn settled(lanes: impl IntoIterator<Item = Lane>) -> Vec<Change> {
    lanes.into_iter().map(Change::LaneSettled).collect()
}
