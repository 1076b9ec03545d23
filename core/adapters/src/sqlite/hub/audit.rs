//! Every bucket's digest recomputed from its rows, and every row against its own hash and columns.

use std::collections::BTreeMap;

use mobo_core::digest::Digest;
use mobo_core::ids::{BucketId, CollectionId, Position, ProjectId, RecordId, RecordKey};
use mobo_core::limits;
use mobo_core::schema::{Collection, Kind, Schema};
use mobo_core::store::BucketAudit;
use rusqlite::Connection;

use crate::sqlite::error::{Failure, known};
use crate::sqlite::open::integrity_check;
use crate::sqlite::records::{RecordReader, Shape, StoredRecord, document, number};

/// Audits every bucket of a project.
pub(super) fn buckets(connection: &Connection, project: ProjectId, schema: &Schema) -> Result<Vec<BucketAudit>, Failure> {
    let mut audit = Audit { connection, project, buckets: stored(connection, project)? };
    for collection in schema.iter() {
        match collection.kind {
            Kind::Table => {
                audit.rows(collection)?;
                audit.hidden(collection)?;
            }
            Kind::Document => audit.documents(collection)?,
            Kind::Stream => {}
        }
    }
    audit.members(schema)?;
    // Where the rows are right, the indexes by which they are read must be, too.
    if audit.buckets.values().all(|bucket| bucket.damaged.is_empty() && bucket.stored == bucket.computed) {
        integrity_check(connection)?;
    }
    Ok(audit.buckets.into_values().collect())
}

fn stored(connection: &Connection, project: ProjectId) -> Result<BTreeMap<BucketId, BucketAudit>, Failure> {
    let mut statement = connection.prepare_cached("SELECT id, key, head, digest FROM mobo_bucket WHERE project = ?1")?;
    let mut rows = statement.query([project.sql()])?;
    let mut buckets = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let bucket = known(BucketId::from_sql(row.get(0)?), "bucket")?;
        let (key, head, stored) = (row.get(1)?, Position(number(row, 2)?), Digest(row.get(3)?));
        let (position_max, computed, damaged) = (Position(0), Digest::default(), Vec::new());
        buckets.insert(bucket, BucketAudit { bucket, key, head, position_max, stored, computed, damaged });
    }
    Ok(buckets)
}

struct Audit<'a> {
    connection: &'a Connection,
    project: ProjectId,
    buckets: BTreeMap<BucketId, BucketAudit>,
}

impl Audit<'_> {
    fn rows(&mut self, collection: &Collection) -> Result<(), Failure> {
        let shape = Shape::new(collection);
        let mut statement = self.connection.prepare_cached(&shape.select(""))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let key = RecordKey { collection: collection.id, id: Shape::id(row)? };
            let stored = shape.visible(row)?;
            let shows = match &stored.state {
                Ok(state) => shape.shows(row, state, stored.ver)?,
                Err(_) => false,
            };
            self.home(&key, &stored, shows);
        }
        Ok(())
    }

    fn hidden(&mut self, collection: &Collection) -> Result<(), Failure> {
        let shape = Shape::new(collection);
        let sql = "SELECT row, ver, bucket, position, id FROM mobo_hidden WHERE project = ?1 AND collection = ?2";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query((self.project.sql(), collection.id.sql()))?;
        while let Some(row) = rows.next()? {
            let key = RecordKey { collection: collection.id, id: known(RecordId::new(row.get::<_, String>(4)?).ok(), "record id")? };
            let stored = shape.hidden(row)?;
            let is_hidden = stored.state.as_ref().is_ok_and(|state| state.project(collection).is_none());
            self.home(&key, &stored, is_hidden);
        }
        Ok(())
    }

    fn documents(&mut self, collection: &Collection) -> Result<(), Failure> {
        let shape = Shape::new(collection);
        let mut projected = self.connection.prepare_cached(&shape.select("WHERE id = ?1"))?;
        let sql = "SELECT doc, ver, bucket, position, epoch, state_hash, mac, visible, id FROM mobo_document \
                   WHERE project = ?1 AND collection = ?2";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query((self.project.sql(), collection.id.sql()))?;
        while let Some(row) = rows.next()? {
            let key = RecordKey { collection: collection.id, id: known(RecordId::new(row.get::<_, String>(8)?).ok(), "record id")? };
            let stored = document(row, &key)?;
            let mut shown = projected.query([key.id.as_str()])?;
            let fits = match (&stored.state, shown.next()?) {
                (Ok(state), Some(row)) => stored.visible && shape.shows(row, state, stored.ver)?,
                (Ok(state), None) => !stored.visible && state.project(collection).is_none(),
                (Err(_), _) => false,
            };
            self.home(&key, &stored, fits);
        }
        Ok(())
    }

    /// The records that are in a bucket besides their home, and those that have left one.
    fn members(&mut self, schema: &Schema) -> Result<(), Failure> {
        let mut statement = self.connection.prepare_cached("SELECT bucket, collection, id, position, present FROM mobo_member")?;
        let mut rows = statement.query([])?;
        let mut readers: BTreeMap<CollectionId, RecordReader<'_>> = BTreeMap::new();
        while let Some(row) = rows.next()? {
            let bucket = known(BucketId::from_sql(row.get(0)?), "bucket")?;
            let Some(audit) = self.buckets.get_mut(&bucket) else { continue };
            audit.position_max = audit.position_max.max(Position(number(row, 3)?));
            if !row.get::<_, bool>(4)? {
                continue;
            }
            let id = known(CollectionId::from_sql(row.get(1)?), "collection")?;
            let key = RecordKey { collection: id, id: known(RecordId::new(row.get::<_, String>(2)?).ok(), "record id")? };
            let reader = match (readers.contains_key(&id), schema.get(id)) {
                (false, Some(collection)) => readers.entry(id).or_insert(RecordReader::new(self.connection, self.project, collection)?),
                (true, _) => known(readers.get_mut(&id), "collection")?,
                (false, None) => {
                    blame(audit, &key);
                    continue;
                }
            };
            match reader.read(&key.id)? {
                Some(stored) if stored.state.is_ok() => audit.computed = audit.computed.plus(Digest::of(&key, stored.state_hash)),
                _ => blame(audit, &key),
            }
        }
        Ok(())
    }

    fn home(&mut self, key: &RecordKey, stored: &StoredRecord, is_right: bool) {
        let Some((bucket, position)) = stored.home else { return };
        let Some(audit) = self.buckets.get_mut(&bucket) else { return };
        audit.position_max = audit.position_max.max(position);
        if stored.state.is_ok() {
            audit.computed = audit.computed.plus(Digest::of(key, stored.state_hash));
        }
        if !is_right {
            blame(audit, key);
        }
    }
}

fn blame(audit: &mut BucketAudit, key: &RecordKey) {
    if audit.damaged.len() < limits::AUDIT_DAMAGED_MAX && !audit.damaged.contains(key) {
        audit.damaged.push(key.clone());
    }
}
