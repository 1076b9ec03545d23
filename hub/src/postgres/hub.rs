//! The hub itself: its identity, its history, its time.

use mobo_core::cbor::{Malformed, Reader, Writer};
use mobo_core::ids::{BucketId, Incarnation, Position, ProjectId, PublicKey, Timeline};
use mobo_core::message::{TimelineInfo, TimelineParent};
use mobo_core::store::HubRow;
use mobo_core::time::Eff;
use sqlx::Row;

use super::error::{Failure, known};
use super::session::Tx;

/// The project that a hub begins with.
const PROJECT: &str = "default";

/// The hub of this store; `first`, and the project under the id given, are written when there is none yet.
pub(super) async fn hub(tx: &mut Tx, first: &HubRow, project: ProjectId) -> Result<(HubRow, ProjectId), Failure> {
    let insert =
        sqlx::query("INSERT INTO mobo.hub(one, hub_key, incarnation, timeline, time_us) VALUES (1, $1, $2, $3, $4) ON CONFLICT DO NOTHING")
            .bind(first.key.as_bytes())
            .bind(first.incarnation.sql())
            .bind(first.timeline.timeline.as_bytes())
            .bind(first.time.0);
    if tx.run(insert).await? == 1 {
        write_parents(tx, &first.timeline.parents).await?;
    }
    let insert = sqlx::query("INSERT INTO mobo.project(id, name) VALUES ($1, $2) ON CONFLICT DO NOTHING");
    tx.run(insert.bind(project.sql()).bind(PROJECT)).await?;
    Ok((read(tx).await?, read_project(tx).await?))
}

/// Writes the history of a new timeline, with the log that the hub itself begins on it.
pub(super) async fn set_history(tx: &mut Tx, history: &TimelineInfo, incarnation: Incarnation) -> Result<(), Failure> {
    let set = sqlx::query("UPDATE mobo.hub SET timeline = $1, incarnation = $2");
    tx.run(set.bind(history.timeline.as_bytes()).bind(incarnation.sql())).await?;
    tx.run(sqlx::query("DELETE FROM mobo.timeline_parent")).await?;
    write_parents(tx, &history.parents).await
}

async fn write_parents(tx: &mut Tx, parents: &[TimelineParent]) -> Result<(), Failure> {
    for (depth, parent) in (1_i32..).zip(parents) {
        let insert = sqlx::query("INSERT INTO mobo.timeline_parent(depth, timeline, heads) VALUES ($1, $2, $3)")
            .bind(depth)
            .bind(parent.timeline.as_bytes())
            .bind(encode_heads(&parent.heads));
        tx.run(insert).await?;
    }
    Ok(())
}

/// Raises the time reservation to at least `until`, and gives what it is now.
pub(super) async fn reserve_time(tx: &mut Tx, until: Eff) -> Result<Eff, Failure> {
    let raise = sqlx::query("UPDATE mobo.hub SET time_us = greatest(time_us, $1) RETURNING time_us").bind(until.0);
    let row = tx.row(raise).await?.ok_or_else(|| Failure::damaged("the store has lost its hub"))?;
    Ok(Eff(row.try_get(0)?))
}

/// The hub as it is on record.
pub(super) async fn read(tx: &mut Tx) -> Result<HubRow, Failure> {
    let row = tx.row(sqlx::query("SELECT hub_key, incarnation, timeline, time_us FROM mobo.hub")).await?;
    let row = row.ok_or_else(|| Failure::damaged("the store has lost its hub"))?;
    let mut parents = Vec::new();
    for parent in tx.rows(sqlx::query("SELECT timeline, heads FROM mobo.timeline_parent ORDER BY depth")).await? {
        let heads: Vec<u8> = parent.try_get(1)?;
        parents.push(TimelineParent { timeline: Timeline(parent.try_get(0)?), heads: decode_heads(&heads)? });
    }
    Ok(HubRow {
        key: PublicKey(row.try_get(0)?),
        incarnation: known(Incarnation::from_sql(row.try_get(1)?), "incarnation")?,
        timeline: TimelineInfo { timeline: Timeline(row.try_get(2)?), parents },
        time: Eff(row.try_get(3)?),
    })
}

async fn read_project(tx: &mut Tx) -> Result<ProjectId, Failure> {
    let row = tx.row(sqlx::query("SELECT id FROM mobo.project WHERE name = $1").bind(PROJECT)).await?;
    let row = row.ok_or_else(|| Failure::damaged("the store has lost its project"))?;
    known(ProjectId::from_sql(row.try_get(0)?), "project")
}

/// `[[bucket, position], …]`
fn encode_heads(heads: &[(BucketId, Position)]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.array(heads.len());
    for (bucket, position) in heads {
        writer.array(2).u64(bucket.get()).u64(position.0);
    }
    writer.into_bytes()
}

fn decode_heads(bytes: &[u8]) -> Result<Vec<(BucketId, Position)>, Malformed> {
    let mut reader = Reader::new(bytes);
    let len = reader.array()?;
    let head = |reader: &mut Reader<'_>| {
        let bucket = BucketId::new(reader.u64()?).ok_or_else(|| Malformed::what("bucket"))?;
        Ok((bucket, Position(reader.u63()?)))
    };
    let heads = (0..len).map(|_| reader.tuple(2, head)).collect();
    reader.end()?;
    heads
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_come_back() {
        let heads = vec![(BucketId::new(7).unwrap(), Position(9)), (BucketId::new(u64::MAX >> 1).unwrap(), Position(0))];
        assert_eq!(decode_heads(&encode_heads(&heads)).unwrap(), heads);
        assert!(decode_heads(&[0x81, 0x82, 0, 0]).is_err());
    }
}
