//! When an entry was made that is authored again, and of which no hub has decided that yet: after what its log holds from before (rule R5).

use mobo_core::entry::Header;
use mobo_core::ids::{BootId, Incarnation, Lane};
use mobo_core::time::{Eff, Moment, Mono, Wall, WallQuality};
use rusqlite::Connection;

use super::fault::{Try, first};
use super::meta;

const TOLD: &str = "told_eff";

/// The last entry of a lane of which a hub has decided when it was made.
///
/// A restored hub may have lost it, and begins the new log at what it has. By a clock that was set back, what is authored again would come before
/// what the same device did earlier, and lose to it: so its wall clock is taken to show what it must have shown at the least.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Floor {
    eff: Option<Eff>,
    /// Where the entry is still kept.
    clock: Option<(BootId, Mono)>,
}

impl Floor {
    /// Before the first pending entry of a lane.
    pub(super) fn before_pending(conn: &Connection, (incarnation, lane): (Incarnation, Lane)) -> Try<Self> {
        let sql = "SELECT eff, header FROM mobo_outbox WHERE incarnation = ?1 AND lane = ?2 AND eff IS NOT NULL AND seq < coalesce(
                     (SELECT min(seq) FROM mobo_outbox WHERE incarnation = ?1 AND lane = ?2 AND state = 0), 0) ORDER BY seq DESC LIMIT 1";
        let mut statement = conn.prepare_cached(sql)?;
        let kept = first(statement.query((incarnation.sql(), lane.number()))?, |row| {
            let moment = Header::decode(&row.get::<_, Vec<u8>>(1)?).ok().map(|header| header.moment);
            Ok(Self { eff: Some(Eff(row.get(0)?)), clock: moment.map(|moment| (moment.boot, moment.mono)) })
        })?;
        let trimmed = || Ok(Self { eff: meta::get(conn, &trimmed_key(lane))?.map(Eff), clock: None });
        kept.map_or_else(trimmed, Ok)
    }

    /// The moment of the lane's next entry, whose effective time is `eff` where a hub has decided it.
    pub(super) fn raise(&mut self, moment: Moment, eff: Option<Eff>) -> Moment {
        if eff.is_some() {
            *self = Self { eff, clock: Some((moment.boot, moment.mono)) };
            return moment;
        }
        let Some(floor) = self.eff else { return moment };
        let passed = match self.clock {
            Some((boot, mono)) if boot == moment.boot => moment.mono.0.saturating_sub(mono.0).max(1),
            _ => 1,
        };
        let low = Wall(floor.plus(passed).0);
        match moment.quality {
            WallQuality::None => Moment { wall: low, quality: WallQuality::Set, ..moment },
            WallQuality::Set | WallQuality::Synchronised => Moment { wall: moment.wall.max(low), ..moment },
        }
    }
}

/// The latest time of an entry of a lane, of those of which a hub has decided it.
pub(super) fn last(conn: &Connection, (incarnation, lane): (Incarnation, Lane)) -> Try<Option<Eff>> {
    let sql = "SELECT eff FROM mobo_outbox WHERE incarnation = ?1 AND lane = ?2 AND eff IS NOT NULL ORDER BY seq DESC LIMIT 1";
    let mut statement = conn.prepare_cached(sql)?;
    let kept = first(statement.query((incarnation.sql(), lane.number()))?, |row| Ok(Eff(row.get(0)?)))?;
    let trimmed = || Ok(meta::get(conn, &trimmed_key(lane))?.map(Eff));
    kept.map_or_else(trimmed, |kept| Ok(Some(kept)))
}

/// The latest time at which any hub has said that an entry of this device was made, kept or not.
pub(super) fn told(conn: &Connection) -> Try<Option<Eff>> {
    Ok(meta::get(conn, TOLD)?.map(Eff))
}

/// Notes what an ack says.
pub(super) fn tell(conn: &Connection, eff: Eff) -> Try<()> {
    raise(conn, TOLD, eff)
}

/// Notes when an entry was made that is kept no more. Those of a log that was left behind may go after later ones.
pub(super) fn trimmed(conn: &Connection, lane: Lane, eff: Eff) -> Try<()> {
    raise(conn, &trimmed_key(lane), eff)
}

fn raise(conn: &Connection, key: &str, eff: Eff) -> Try<()> {
    let sql = "INSERT INTO mobo_meta VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = max(value, excluded.value)";
    conn.prepare_cached(sql)?.execute((key, eff.0))?;
    Ok(())
}

fn trimmed_key(lane: Lane) -> String {
    format!("{}{}", meta::TRIMMED_EFF, lane.number())
}
