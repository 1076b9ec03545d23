//! The hub itself: who it is, its history, its time, its buckets.

use mobo_core::cbor::{Reader, Writer};
use mobo_core::digest::Digest;
use mobo_core::ids::{BucketId, Incarnation, Position, ProjectId, PublicKey, Timeline};
use mobo_core::message::{TimelineInfo, TimelineParent};
use mobo_core::store::HubRow;
use mobo_core::time::Eff;
use rusqlite::{Connection, OptionalExtension};

use crate::sqlite::error::{Failure, known};

/// The project that every store has.
const DEFAULT_PROJECT: &str = "default";

/// The hub of this store; `first` is written when there is none yet.
pub(super) fn hub(connection: &Connection, first: &HubRow, project: ProjectId) -> Result<(HubRow, ProjectId), Failure> {
    let row = match stored(connection)? {
        Some(row) => row,
        None => {
            write(connection, first)?;
            first.clone()
        }
    };
    let sql = "INSERT INTO mobo_project(id, name) VALUES (?1, ?2) ON CONFLICT (name) DO NOTHING";
    connection.execute(sql, (project.sql(), DEFAULT_PROJECT))?;
    let id = connection.query_row("SELECT id FROM mobo_project WHERE name = ?1", [DEFAULT_PROJECT], |row| row.get(0))?;
    let project = known(ProjectId::from_sql(id), "project")?;
    Ok((row, project))
}

/// Raises the reservation of the hub's time.
pub(super) fn reserve_time(connection: &Connection, until: Eff) -> Result<Eff, Failure> {
    let mut statement = connection.prepare_cached("UPDATE mobo_hub SET time_us = max(time_us, ?1) RETURNING time_us")?;
    let time: Option<i64> = statement.query_row([until.0], |row| row.get(0)).optional()?;
    time.map(Eff).ok_or_else(|| Failure::refused("the store has no hub yet"))
}

/// Buckets by key; missing ones are made under the ids given.
pub(super) fn ensure_buckets(
    connection: &Connection,
    project: ProjectId,
    keys: Vec<(String, BucketId)>,
) -> Result<Vec<(String, BucketId)>, Failure> {
    let found = keys.into_iter().map(|(key, fresh)| {
        let (id, _, _) = bucket(connection, project, &key, fresh)?;
        Ok((key, id))
    });
    found.collect()
}

/// Id, head and digest of the bucket of that key, which is made under the id `fresh` when there is none.
pub(super) fn bucket(
    connection: &Connection,
    project: ProjectId,
    key: &str,
    fresh: BucketId,
) -> Result<(BucketId, Position, Digest), Failure> {
    let mut find = connection.prepare_cached("SELECT id, head, digest FROM mobo_bucket WHERE project = ?1 AND key = ?2")?;
    let found = find.query_row((project.sql(), key), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()?;
    let Some((id, head, digest)) = found else {
        let mut make = connection.prepare_cached("INSERT INTO mobo_bucket(project, id, key, digest) VALUES (?1, ?2, ?3, ?4)")?;
        make.execute((project.sql(), fresh.sql(), key, Digest::default().0))?;
        return Ok((fresh, Position(0), Digest::default()));
    };
    Ok((known(BucketId::from_sql(id), "bucket")?, Position(i64::cast_unsigned(head)), Digest(digest)))
}

/// The hub as it is on record.
pub(super) fn current(connection: &Connection) -> Result<HubRow, Failure> {
    stored(connection)?.ok_or_else(|| Failure::refused("the store has no hub yet"))
}

/// Writes the history of a new timeline, with the log that the hub itself begins on it.
pub(super) fn set_history(connection: &Connection, history: &TimelineInfo, incarnation: Incarnation) -> Result<(), Failure> {
    let sql = "UPDATE mobo_hub SET timeline = ?1, incarnation = ?2";
    connection.execute(sql, (history.timeline.as_bytes(), incarnation.sql()))?;
    connection.execute("DELETE FROM mobo_timeline_parent", [])?;
    write_parents(connection, &history.parents)
}

fn stored(connection: &Connection) -> Result<Option<HubRow>, Failure> {
    let sql = "SELECT hub_key, incarnation, timeline, time_us FROM mobo_hub";
    let mut statement = connection.prepare_cached(sql)?;
    let row = statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).optional()?;
    let Some((key, incarnation, timeline, time)) = row else { return Ok(None) };
    let mut statement = connection.prepare_cached("SELECT timeline, heads FROM mobo_timeline_parent ORDER BY depth")?;
    let mut rows = statement.query([])?;
    let mut parents = Vec::new();
    while let Some(row) = rows.next()? {
        parents.push(TimelineParent { timeline: Timeline(row.get(0)?), heads: decode_heads(&row.get::<_, Vec<u8>>(1)?)? });
    }
    Ok(Some(HubRow {
        key: PublicKey(key),
        incarnation: known(Incarnation::from_sql(incarnation), "incarnation")?,
        timeline: TimelineInfo { timeline: Timeline(timeline), parents },
        time: Eff(time),
    }))
}

fn write(connection: &Connection, row: &HubRow) -> Result<(), Failure> {
    let sql = "INSERT INTO mobo_hub(one, hub_key, incarnation, timeline, time_us) VALUES (1, ?1, ?2, ?3, ?4)";
    connection.execute(sql, (row.key.as_bytes(), row.incarnation.sql(), row.timeline.timeline.as_bytes(), row.time.0))?;
    write_parents(connection, &row.timeline.parents)
}

fn write_parents(connection: &Connection, parents: &[TimelineParent]) -> Result<(), Failure> {
    for (depth, parent) in (1_i64..).zip(parents) {
        let sql = "INSERT INTO mobo_timeline_parent(depth, timeline, heads) VALUES (?1, ?2, ?3)";
        connection.execute(sql, (depth, parent.timeline.as_bytes(), encode_heads(&parent.heads)))?;
    }
    Ok(())
}

fn encode_heads(heads: &[(BucketId, Position)]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.array(heads.len());
    for (bucket, position) in heads {
        writer.array(2).u64(bucket.get()).u64(position.0);
    }
    writer.into_bytes()
}

fn decode_heads(bytes: &[u8]) -> Result<Vec<(BucketId, Position)>, Failure> {
    let mut reader = Reader::new(bytes);
    let heads = (0..reader.array()?).map(|_| {
        let (bucket, position) = reader.tuple(2, |reader| Ok((reader.u64()?, reader.u63()?)))?;
        Ok((known(BucketId::new(bucket), "bucket")?, Position(position)))
    });
    heads.collect()
}
