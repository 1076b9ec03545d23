//! A merge: the four steps of `mobo_core::merge` on one connection. The writer runs one merge after another, so that everything it reads is
//! locked by that alone.

use std::collections::{BTreeMap, BTreeSet};

use mobo_core::digest::Digest;
use mobo_core::ids::{BucketId, DeviceId, Incarnation, Position, ProjectId, RecordKey};
use mobo_core::merge::{BucketState, BucketWants, Context, Membership, Merge, Rivals, Stored};
use mobo_core::schema::{Kind, Schema};
use mobo_core::stamp::Origin;
use mobo_core::store::{MergeBatch, MergeReport};
use rusqlite::{CachedStatement, Connection, OptionalExtension};

use super::schema::Schemas;
use super::{changes, identity, lanes, write};
use crate::sqlite::error::{Failure, known};
use crate::sqlite::records::{RecordReader, StoredRecord};
use crate::sqlite::table::quoted;

/// Merges a batch.
pub(super) fn merge(connection: &Connection, schemas: &Schemas, batch: MergeBatch) -> Result<MergeReport, Failure> {
    let MergeBatch { project, schema, timeline, now, entropy, recovering, submissions } = batch;
    // Rules may have changed since the batch was gathered, and records are placed by those that are in force.
    let current = schemas.of(connection, project)?;
    let schema = if current.rev > schema.rev { current } else { schema };
    let merge = Merge::new(Context { project, schema: &schema, timeline, now, entropy, recovering }, submissions);
    let lanes = lanes::read(connection, project, &merge.wants())?;
    let admitted = merge.admit(lanes);
    let read = read_records(connection, project, &schema, admitted.wants())?;
    let applied = admitted.apply(read.records, &read.blocked);
    if applied.is_empty() {
        return Ok(MergeReport { outcomes: applied.place(Vec::new(), Rivals::new()).outcomes, ..MergeReport::default() });
    }
    let wants = applied.wants();
    let rivals = changes::rivals(connection, project, &wants.rivals)?;
    let placed = applied.place(read_buckets(connection, project, wants)?, rivals);
    write::write(connection, project, (&schema, now), &placed.writes)?;
    Ok(MergeReport { outcomes: placed.outcomes, hints: placed.hints, conflicts: placed.writes.decided() })
}

#[derive(Default)]
pub(super) struct Read {
    pub(super) records: BTreeMap<RecordKey, Stored>,
    pub(super) blocked: BTreeSet<(RecordKey, Origin)>,
}

pub(super) fn read_records(
    connection: &Connection,
    project: ProjectId,
    schema: &Schema,
    keys: &BTreeSet<RecordKey>,
) -> Result<Read, Failure> {
    let mut read = Read::default();
    let mut members = Members::new(connection, project)?;
    let mut blocked =
        connection.prepare_cached("SELECT device, incarnation FROM mobo_blocked WHERE project = ?1 AND collection = ?2 AND id = ?3")?;
    let mut reader = None;
    let keys: Vec<&RecordKey> = keys.iter().collect();
    for key in present(connection, project, schema, &keys)? {
        let Some(collection) = schema.get(key.collection) else { continue };
        let reader = match &mut reader {
            Some((id, reader)) if *id == key.collection => reader,
            other => &mut other.insert((key.collection, RecordReader::new(connection, project, collection)?)).1,
        };
        if let Some(record) = reader.read(&key.id)? {
            read.records.insert(key.clone(), members.stored(key, record)?);
        }
        if collection.kind == Kind::Document {
            let mut rows = blocked.query((project.sql(), key.collection.sql(), key.id.as_str()))?;
            while let Some(row) = rows.next()? {
                let incarnation = known(Incarnation::from_sql(row.get(1)?), "incarnation")?;
                read.blocked.insert((key.clone(), Origin { device: DeviceId(row.get(0)?), incarnation }));
            }
        }
    }
    Ok(read)
}

/// Keys that are looked for at once.
const PROBED: usize = 64;

/// The keys without those of tables where nothing is between the first and the last of some: what is new there is not looked for by itself.
fn present<'k>(
    connection: &Connection,
    project: ProjectId,
    schema: &Schema,
    keys: &[&'k RecordKey],
) -> Result<Vec<&'k RecordKey>, Failure> {
    let mut found = Vec::new();
    for group in keys.chunk_by(|a, b| a.collection == b.collection) {
        let collection = group.first().and_then(|key| schema.get(key.collection));
        let Some(collection) = collection.filter(|collection| collection.kind == Kind::Table) else {
            found.extend_from_slice(group);
            continue;
        };
        let shown = format!("SELECT 1 FROM {} WHERE id BETWEEN ?1 AND ?2", quoted(&collection.name));
        let hidden = "SELECT 1 FROM mobo_hidden WHERE project = ?1 AND collection = ?2 AND id BETWEEN ?3 AND ?4";
        let (mut shown, mut hidden) = (connection.prepare_cached(&shown)?, connection.prepare_cached(hidden)?);
        for some in group.chunks(PROBED) {
            let [first, .., last] = some else {
                found.extend_from_slice(some);
                continue;
            };
            let (first, last) = (first.id.as_str(), last.id.as_str());
            if shown.exists((first, last))? || hidden.exists((project.sql(), collection.id.sql(), first, last))? {
                found.extend_from_slice(some);
            }
        }
    }
    Ok(found)
}

/// Where records are, besides their homes.
struct Members<'c> {
    project: ProjectId,
    of_record: CachedStatement<'c>,
    key_of: CachedStatement<'c>,
    keys: BTreeMap<BucketId, String>,
}

impl<'c> Members<'c> {
    fn new(connection: &'c Connection, project: ProjectId) -> Result<Self, Failure> {
        let of_record = "SELECT bucket, position, present FROM mobo_member WHERE collection = ?1 AND id = ?2";
        Ok(Self {
            project,
            of_record: connection.prepare_cached(of_record)?,
            key_of: connection.prepare_cached("SELECT key FROM mobo_bucket WHERE project = ?1 AND id = ?2")?,
            keys: BTreeMap::new(),
        })
    }

    fn stored(&mut self, key: &RecordKey, record: StoredRecord) -> Result<Stored, Failure> {
        let mut places: Vec<(BucketId, Position, bool)> =
            record.home.map(|(bucket, position)| (bucket, position, true)).into_iter().collect();
        let mut rows = self.of_record.query((key.collection.sql(), key.id.as_str()))?;
        while let Some(row) = rows.next()? {
            let bucket = known(BucketId::from_sql(row.get(0)?), "bucket")?;
            places.push((bucket, Position(row.get::<_, i64>(1)?.cast_unsigned()), row.get(2)?));
        }
        drop(rows);
        let memberships = places
            .into_iter()
            .map(|(bucket, position, present)| Ok(Membership { bucket, key: self.key_of(bucket)?, position, present }))
            .collect::<Result<_, Failure>>()?;
        let StoredRecord { state, ver, visible, state_hash, .. } = record;
        Ok(Stored { state, ver, visible, state_hash, memberships })
    }

    fn key_of(&mut self, bucket: BucketId) -> Result<String, Failure> {
        if let Some(key) = self.keys.get(&bucket) {
            return Ok(key.clone());
        }
        let key: Option<String> = self.key_of.query_row((self.project.sql(), bucket.sql()), |row| row.get(0)).optional()?;
        let key = known(key, "bucket of a record")?;
        self.keys.insert(bucket, key.clone());
        Ok(key)
    }
}

pub(super) fn read_buckets(connection: &Connection, project: ProjectId, wants: BucketWants) -> Result<Vec<BucketState>, Failure> {
    let mut buckets = BTreeMap::new();
    for (key, fresh) in wants.keys {
        let (id, head, digest) = identity::bucket(connection, project, &key, fresh)?;
        buckets.insert(id, BucketState { id, key, head, digest });
    }
    let mut statement = connection.prepare_cached("SELECT key, head, digest FROM mobo_bucket WHERE project = ?1 AND id = ?2")?;
    for id in wants.ids {
        if buckets.contains_key(&id) {
            continue;
        }
        let row = statement.query_row((project.sql(), id.sql()), |row| {
            Ok((row.get(0)?, Position(row.get::<_, i64>(1)?.cast_unsigned()), Digest(row.get(2)?)))
        });
        let (key, head, digest) = known(row.optional()?, "bucket of a record")?;
        buckets.insert(id, BucketState { id, key, head, digest });
    }
    Ok(buckets.into_values().collect())
}
