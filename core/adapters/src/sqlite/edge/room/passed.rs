//! How far a lane was looked through for samples that may give way: of what lies up to there, nothing may, or it has already. Without it, whoever
//! makes room would walk past the whole backlog of a stream that stops, for each entry that is appended.

use mobo_core::ids::{Incarnation, Lane};
use rusqlite::Connection;

use super::super::fault::{Try, first};
use super::super::meta;
use super::Room;

/// A place in a lane, and what it holds for: another log, definition or policy may let go what was passed, and so may a hub that has lost what
/// it had acknowledged.
#[derive(Debug)]
pub(super) struct Passed {
    key: String,
    holds_for: String,
    acked: i64,
}

impl Passed {
    pub(super) fn of(conn: &Connection, room: &Room, (incarnation, lane): (Incarnation, Lane)) -> Try<Self> {
        let changes = meta::get::<i64>(conn, meta::SCHEMA_CHANGES)?.unwrap_or_default();
        let holds_for = format!("{} {changes} {:?} {:?}", incarnation.sql(), room.others, room.streams);
        let mut lanes = conn.prepare_cached("SELECT acked FROM mobo_lane WHERE incarnation = ?1 AND lane = ?2")?;
        let acked = first(lanes.query((incarnation.sql(), lane.number()))?, |row| Ok(row.get(0)?))?;
        Ok(Self { key: format!("{}{}", meta::ROOM_PASSED, lane.number()), holds_for, acked: acked.unwrap_or_default() })
    }

    /// Up to where it was looked through; 0 where that holds no more.
    pub(super) fn read(&self, conn: &Connection) -> Try<i64> {
        let kept = meta::get::<String>(conn, &self.key)?.unwrap_or_default();
        let mut words = kept.splitn(3, ' ');
        let mut number = || words.next().and_then(|word| word.parse::<i64>().ok());
        let (seq, acked) = (number(), number());
        let holds = words.next() == Some(&self.holds_for) && acked.is_some_and(|acked| acked <= self.acked);
        Ok(seq.filter(|_| holds).unwrap_or_default())
    }

    pub(super) fn keep(&self, conn: &Connection, seq: i64) -> Try<()> {
        meta::set(conn, &self.key, format!("{seq} {} {}", self.acked, self.holds_for))
    }
}
