//! Who wrote each change of a document, and when.

use std::collections::{BTreeMap, BTreeSet};

use mobo_core::cbor::{Reader, Writer};
use mobo_core::document::{Actor, ChangeId};
use mobo_core::ids::{CollectionId, ProjectId, RecordId, RecordKey};
use mobo_core::limits;
use mobo_core::merge::{ChangeWrite, Rivals};
use mobo_core::stamp::Stamp;
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::error::{Failure, known};
use super::session::Tx;

/// Keeps the stamps of new changes; a stamp that stands, stands.
pub(super) async fn write(tx: &mut Tx, project: ProjectId, changes: &[ChangeWrite]) -> Result<(), Failure> {
    for some in changes.chunks(limits::POSTGRES_ROWS_MAX) {
        let at = Places::of(some.iter().map(|write| (&write.key, &write.change)));
        let stamps: Vec<Vec<u8>> = some.iter().map(|write| encode(&write.stamp)).collect();
        let insert = sqlx::query(
            "INSERT INTO mobo.change(project, collection, id, actor, seq, stamp) \
             SELECT $1, u.* FROM unnest($2::int8[], $3::text[], $4::bytea[], $5::int8[], $6::bytea[]) AS u ON CONFLICT DO NOTHING",
        );
        tx.run(insert.bind(project.sql()).bind(at.collections).bind(at.ids).bind(at.actors).bind(at.seqs).bind(stamps)).await?;
    }
    Ok(())
}

/// The stamps of some changes, as far as they are known.
pub(super) async fn rivals(tx: &mut Tx, project: ProjectId, wanted: &BTreeSet<(RecordKey, ChangeId)>) -> Result<Rivals, Failure> {
    let wanted: Vec<&(RecordKey, ChangeId)> = wanted.iter().collect();
    let mut found = Rivals::new();
    for some in wanted.chunks(limits::POSTGRES_ROWS_MAX) {
        let at = Places::of(some.iter().map(|(key, change)| (key, change)));
        let look = sqlx::query(
            "SELECT c.actor, c.seq, c.stamp, c.collection, c.id FROM mobo.change c \
             JOIN unnest($2::int8[], $3::text[], $4::bytea[], $5::int8[]) AS w(collection, id, actor, seq) \
             ON c.collection = w.collection AND c.id = w.id AND c.actor = w.actor AND c.seq = w.seq WHERE c.project = $1",
        );
        for row in tx.rows(look.bind(project.sql()).bind(at.collections).bind(at.ids).bind(at.actors).bind(at.seqs)).await? {
            let collection = known(CollectionId::from_sql(row.try_get(3)?), "collection")?;
            let id = RecordId::new(row.try_get::<String, _>(4)?).map_err(|error| Failure::damaged(error.to_string()))?;
            let (change, stamp) = read(&row)?;
            found.insert((RecordKey { collection, id }, change), stamp);
        }
    }
    Ok(found)
}

/// The stamps of all changes of a record.
pub(super) async fn of(tx: &mut Tx, project: ProjectId, key: &RecordKey) -> Result<BTreeMap<ChangeId, Stamp>, Failure> {
    let look = sqlx::query("SELECT actor, seq, stamp FROM mobo.change WHERE project = $1 AND collection = $2 AND id = $3");
    let look = look.bind(project.sql()).bind(key.collection.sql()).bind(key.id.as_str());
    tx.rows(look).await?.iter().map(read).collect()
}

fn read(row: &PgRow) -> Result<(ChangeId, Stamp), Failure> {
    let seq = known(u64::try_from(row.try_get::<i64, _>(1)?).ok(), "position of a change")?;
    Ok((ChangeId { actor: Actor(row.try_get(0)?), seq }, decode(row.try_get(2)?)?))
}

/// A stamp as it is kept.
pub(super) fn encode(stamp: &Stamp) -> Vec<u8> {
    let mut writer = Writer::new();
    stamp.encode(&mut writer);
    writer.into_bytes()
}

/// A stamp that was kept.
pub(super) fn decode(stamp: &[u8]) -> Result<Stamp, Failure> {
    Ok(Stamp::decode(&mut Reader::new(stamp))?)
}

/// Changes as arrays to be bound.
#[derive(Default)]
struct Places<'k> {
    collections: Vec<i64>,
    ids: Vec<&'k str>,
    actors: Vec<[u8; 16]>,
    seqs: Vec<i64>,
}

impl<'k> Places<'k> {
    fn of(changes: impl Iterator<Item = (&'k RecordKey, &'k ChangeId)>) -> Self {
        let mut places = Self::default();
        for (key, change) in changes {
            places.collections.push(key.collection.sql());
            places.ids.push(key.id.as_str());
            places.actors.push(change.actor.0);
            places.seqs.push(change.seq.cast_signed());
        }
        places
    }
}
