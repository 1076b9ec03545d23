//! Which life of its log this run of the program writes in (`mobo_core::life`).
//!
//! A run draws its mark when it opens the database, and says so there with the first entry that it seals: one that writes nothing leaves no
//! trace, and a full disk does not keep it from starting.

use mobo_core::ids::{Lane, Nonce};
use mobo_core::life::Life;
use rusqlite::Connection;

use super::Sources;
use super::fault::Try;
use super::meta::{self, Log};
use super::outbox;

/// Begins a run of the program; `conn` is the one that writes.
pub(super) fn begin(conn: Connection, sources: &Sources) -> Try<Connection> {
    conn.execute_batch("CREATE TEMP TABLE mobo_run (drawn BLOB NOT NULL)")?;
    conn.execute("INSERT INTO temp.mobo_run VALUES (?1)", [(sources.nonce)().0])?;
    Ok(conn)
}

/// The life that is written in now; `None` for the first one of a log. It is begun if this run has not.
pub(super) fn now(conn: &Connection, log: &Log) -> Try<Option<Life>> {
    let drawn = Nonce(conn.prepare_cached("SELECT drawn FROM temp.mobo_run")?.query_one([], |row| row.get(0))?);
    if let Some((number, mark)) = meta::life(conn)? {
        return match mark == Life::mark(drawn) {
            true => Ok(Life::of(number, drawn)),
            false => begun(conn, number.saturating_add(1), drawn),
        };
    }
    // What there is of the log was written by a version that did not say in which life.
    let is_new = outbox::lane(conn, log.incarnation, Lane::State)?.is_none();
    if is_new {
        meta::set_lived(conn)?;
    }
    begun(conn, u32::from(!is_new), drawn)
}

fn begun(conn: &Connection, number: u32, drawn: Nonce) -> Try<Option<Life>> {
    let life = Life::of(number, drawn);
    meta::set_life(conn, (life.map_or(0, Life::number), Life::mark(drawn)))?;
    Ok(life)
}
