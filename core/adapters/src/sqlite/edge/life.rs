//! Which life of its log this run of the program writes in (`mobo_core::life`).
//!
//! A run draws its mark when it opens the database, and says so there with the first entry that it seals: one that writes nothing leaves no
//! trace, and a full disk does not keep it from starting.

use mobo_core::ids::Nonce;
use mobo_core::life::Life;
use rusqlite::Connection;

use super::Sources;
use super::fault::Try;
use super::meta;

/// Begins a run of the program; `conn` is the one that writes.
pub(super) fn begin(conn: Connection, sources: &Sources) -> Try<Connection> {
    conn.execute_batch("CREATE TEMP TABLE mobo_run (drawn BLOB NOT NULL)")?;
    conn.execute("INSERT INTO temp.mobo_run VALUES (?1)", [(sources.nonce)().0])?;
    Ok(conn)
}

fn drawn(conn: &Connection) -> Try<Nonce> {
    Ok(Nonce(conn.prepare_cached("SELECT drawn FROM temp.mobo_run")?.query_one([], |row| row.get(0))?))
}

/// A log begins: this run is its first life, and no other is.
pub(super) fn first(conn: &Connection) -> Try<()> {
    meta::set_lived(conn)?;
    meta::set_life(conn, (0, Life::mark(drawn(conn)?)))
}

/// The life that is written in now; `None` for the first one of a log. It is begun if this run has not.
pub(super) fn now(conn: &Connection) -> Try<Option<Life>> {
    let drawn = drawn(conn)?;
    let mark = Life::mark(drawn);
    let number = match meta::life(conn)? {
        Some((number, known)) if known == mark => return Ok(Life::of(number, drawn)),
        Some((number, _)) => number.saturating_add(1),
        // A version that did not say in which life it writes has begun it.
        None => 1,
    };
    let life = Life::of(number, drawn);
    meta::set_life(conn, (life.map_or(0, Life::number), mark))?;
    Ok(life)
}
