//! Which of the device's buckets a record is in, and what it contributes to their digests (rules R20, R28, R29).
//!
//! A record's first bucket stands with its row, further ones in `mobo_member`. A position from [`UNCONFIRMED`] on means "not named yet by
//! the pull that started over": such a membership counts in no digest, and goes when the pull is complete.

use std::collections::BTreeMap;

use mobo_core::digest::Digest;
use mobo_core::ids::{BucketId, Position, RecordKey, StateHash, Timeline};
use mobo_core::message::{BucketReport, Grant};
use rusqlite::{Connection, Row};

use super::fault::{Try, all, first};
use crate::sqlite::error::known;

/// A bucket and a position in it.
pub(super) type Spot = (BucketId, Position);

/// What is added to the position of a member when a pull starts over.
pub(super) const UNCONFIRMED: i64 = 1 << 62;

/// What is added to that for one whose position is of a timeline before its bucket's: above every position that a hub gives out.
pub(super) const OF_BEFORE: i64 = 1 << 61;

/// True for a member that counts in its bucket's digest.
pub(super) const fn is_confirmed(position: Position) -> bool {
    position.0 < UNCONFIRMED.cast_unsigned()
}

/// True if any record is in more than one bucket.
pub(super) fn has_others(conn: &Connection) -> Try<bool> {
    Ok(conn.prepare_cached("SELECT 1 FROM mobo_member LIMIT 1")?.exists([])?)
}

/// The memberships beyond a record's first bucket.
pub(super) fn others(conn: &Connection, key: &RecordKey) -> Try<Vec<Spot>> {
    let sql = "SELECT bucket, position FROM mobo_member WHERE collection = ?1 AND id = ?2 ORDER BY bucket";
    let mut statement = conn.prepare_cached(sql)?;
    all(statement.query((key.collection.sql(), key.id.as_str()))?, |row| {
        Ok((known(BucketId::from_sql(row.get(0)?), "bucket")?, Position(row.get::<_, i64>(1)?.cast_unsigned())))
    })
}

pub(super) fn put(conn: &Connection, key: &RecordKey, (bucket, position): Spot) -> Try<()> {
    let sql = "INSERT INTO mobo_member (bucket, collection, id, position, present) VALUES (?1, ?2, ?3, ?4, 1)
               ON CONFLICT (bucket, collection, id) DO UPDATE SET position = excluded.position";
    conn.prepare_cached(sql)?.execute((bucket.sql(), key.collection.sql(), key.id.as_str(), position.0.cast_signed()))?;
    Ok(())
}

pub(super) fn remove(conn: &Connection, key: &RecordKey, bucket: BucketId) -> Try<()> {
    let sql = "DELETE FROM mobo_member WHERE bucket = ?1 AND collection = ?2 AND id = ?3";
    conn.prepare_cached(sql)?.execute((bucket.sql(), key.collection.sql(), key.id.as_str()))?;
    Ok(())
}

/// How a bucket is being pulled, as `mobo_bucket.sweep` has it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Sweep {
    /// From its cursor on.
    No,
    /// From the start: what is not named is gone.
    Remove,
    /// From the start, on another timeline: what is not named is kept, for the hub may have forgotten it (rule R18).
    Keep,
}

impl Sweep {
    pub(super) const fn code(self) -> i64 {
        match self {
            Self::No => 0,
            Self::Remove => 1,
            Self::Keep => 2,
        }
    }

    const fn from_code(code: i64) -> Option<Self> {
        match code {
            0 => Some(Self::No),
            1 => Some(Self::Remove),
            2 => Some(Self::Keep),
            _ => None,
        }
    }
}

/// A row of `mobo_bucket`.
#[derive(Clone, Debug)]
pub(super) struct BucketRow {
    pub(super) grant: Grant,
    pub(super) timeline: Timeline,
    pub(super) cursor: Position,
    pub(super) digest: Digest,
    pub(super) checked: Position,
    pub(super) diverged: u32,
    pub(super) sweep: Sweep,
}

impl BucketRow {
    /// A bucket that is yet to be pulled.
    pub(super) fn fresh(grant: Grant, timeline: Timeline) -> Self {
        let (cursor, checked, digest) = (Position(0), Position(0), Digest::default());
        Self { grant, timeline, cursor, digest, checked, diverged: 0, sweep: Sweep::No }
    }

    pub(super) fn report(&self) -> BucketReport {
        BucketReport { bucket: self.grant.bucket, timeline: self.timeline, cursor: self.cursor }
    }
}

const BUCKET: &str = "SELECT id, key, write, timeline, cursor, digest, checked, diverged, sweep FROM mobo_bucket";

pub(super) fn bucket(conn: &Connection, id: BucketId) -> Try<Option<BucketRow>> {
    let mut statement = conn.prepare_cached(&format!("{BUCKET} WHERE id = ?1"))?;
    first(statement.query([id.sql()])?, bucket_row)
}

/// All buckets that the device holds, by id.
pub(super) fn buckets(conn: &Connection) -> Try<Vec<BucketRow>> {
    let mut statement = conn.prepare_cached(&format!("{BUCKET} ORDER BY id"))?;
    all(statement.query([])?, bucket_row)
}

fn bucket_row(row: &Row<'_>) -> Try<BucketRow> {
    let bucket = known(BucketId::from_sql(row.get(0)?), "bucket")?;
    Ok(BucketRow {
        grant: Grant { bucket, key: row.get(1)?, write: row.get(2)? },
        timeline: Timeline(row.get(3)?),
        cursor: Position(row.get::<_, i64>(4)?.cast_unsigned()),
        digest: Digest(row.get(5)?),
        checked: Position(row.get::<_, i64>(6)?.cast_unsigned()),
        diverged: row.get(7)?,
        sweep: known(Sweep::from_code(row.get(8)?), "state of a bucket")?,
    })
}

pub(super) fn put_bucket(conn: &Connection, bucket: &BucketRow) -> Try<()> {
    let sql = "INSERT INTO mobo_bucket (id, key, write, timeline, cursor, digest, checked, diverged, sweep)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
               ON CONFLICT (id) DO UPDATE SET key = excluded.key, write = excluded.write, timeline = excluded.timeline,
                 cursor = excluded.cursor, digest = excluded.digest, checked = excluded.checked, diverged = excluded.diverged,
                 sweep = excluded.sweep";
    conn.prepare_cached(sql)?.execute((
        bucket.grant.bucket.sql(),
        &bucket.grant.key,
        bucket.grant.write,
        bucket.timeline.as_bytes(),
        bucket.cursor.0.cast_signed(),
        &bucket.digest.0,
        bucket.checked.0.cast_signed(),
        bucket.diverged,
        bucket.sweep.code(),
    ))?;
    Ok(())
}

/// Digests of buckets while a job changes them.
#[derive(Debug, Default)]
pub(super) struct Digests(BTreeMap<BucketId, Digest>);

impl Digests {
    /// Replaces what a record contributes to a bucket. A bucket that the device does not hold any more has no digest.
    pub(super) fn replace(
        &mut self,
        conn: &Connection,
        bucket: BucketId,
        key: &RecordKey,
        (old, new): (Option<StateHash>, Option<StateHash>),
    ) -> Try<()> {
        if old == new {
            return Ok(());
        }
        let mut digest = match self.0.get(&bucket) {
            Some(digest) => *digest,
            None => match self::bucket(conn, bucket)? {
                Some(row) => row.digest,
                None => return Ok(()),
            },
        };
        if let Some(old) = old.filter(|_| mobo_core::protect!("edge.digest-old", true)) {
            digest = digest.minus(Digest::of(key, old));
        }
        if let Some(new) = new {
            digest = digest.plus(Digest::of(key, new));
        }
        self.0.insert(bucket, digest);
        Ok(())
    }

    /// Writes the digests that were changed.
    pub(super) fn store(self, conn: &Connection) -> Try<()> {
        let mut statement = conn.prepare_cached("UPDATE mobo_bucket SET digest = ?2 WHERE id = ?1")?;
        for (bucket, digest) in self.0 {
            statement.execute((bucket.sql(), &digest.0))?;
        }
        Ok(())
    }
}
