//! SQL that other programs write into the tables of this hub's file, taken in as writes of the hub's own (replication.md D10, rule R24).
//!
//! The triggers keep each record as it was before the first statement that touched it. The intake makes it that again, and merges the
//! difference to what the table said, in one entry where it fits. It runs at the beginning of every job that works on records, under the
//! write lock: no merge ever sees a row that was not taken in, and a transaction of somebody else's, committed as a whole, is in one intake as
//! a whole.

use std::sync::Arc;

use mobo_core::author::{Edit, Intent};
use mobo_core::ids::{BootId, BucketId, DeviceId, Lane, LaneKey, Nonce, Position, ProjectId, RecordId};
use mobo_core::json::value_to_json;
use mobo_core::limits;
use mobo_core::merge::{HubAuthor, LocalBody, LocalWrite, Outcome, Prepared, SeenEdit};
use mobo_core::record::RecordState;
use mobo_core::schema::{Collection, FieldType, Schema};
use mobo_core::store::{MergeBatch, MergeReport};
use mobo_core::table::TableState;
use mobo_core::time::{Moment, Mono, Wall, WallQuality};
use rusqlite::{Connection, OptionalExtension};
use serde_json::{Map, json};

use super::schema::Schemas;
use super::{identity, merge};
use crate::sqlite::error::Failure;
use crate::sqlite::intake::scan::{self, RawId, Scan, Touched, Written, increment, shown};
use crate::sqlite::intake::{before, waits};
use crate::sqlite::records::StoredRecord;
use crate::sqlite::table::quoted;

/// Does `work` once nothing waits; what was taken in for that is told with its report.
pub(super) fn first(
    connection: &Connection,
    schemas: &Schemas,
    batch: MergeBatch,
    work: impl FnOnce(&Connection, &Schemas, MergeBatch) -> Result<MergeReport, Failure>,
) -> Result<MergeReport, Failure> {
    let taken = take(connection, schemas, &batch)?;
    Ok(work(connection, schemas, batch)?.behind(taken.unwrap_or_default()))
}

/// Takes in what waits, by what holds for a batch; `None` where nothing does.
pub(super) fn take(connection: &Connection, schemas: &Schemas, batch: &MergeBatch) -> Result<Option<MergeReport>, Failure> {
    if !waits(connection)? {
        return Ok(None);
    }
    let schema = schemas.of(connection, batch.project)?;
    let hub = identity::current(connection)?;
    let author = HubAuthor { device: DeviceId::of(&hub.key), incarnation: hub.incarnation };
    let batch = MergeBatch { schema: Arc::clone(&schema), submissions: Vec::new(), ..batch.clone() };
    let mut intake = Intake { connection, schemas, batch, author, report: MergeReport::default() };
    for collection in touched(connection, &schema)? {
        intake.collection(collection)?;
    }
    connection.prepare_cached("DELETE FROM mobo_intake")?.execute([])?;
    Ok(Some(intake.report))
}

/// The position from which on a bucket may not be read yet: a record that stands there was written by SQL since it was merged.
pub(super) fn held_from(
    connection: &Connection,
    schema: &Schema,
    (bucket, from): (BucketId, Position),
) -> Result<Option<Position>, Failure> {
    let mut held: Option<i64> = None;
    for collection in touched(connection, schema)? {
        let (before, id) = (before(collection), collection.id.sql());
        let sql = format!(
            "SELECT min(position) FROM (SELECT _position AS position FROM {before} WHERE mobo_was = 1 AND _bucket = ?1 \
             UNION ALL SELECT h.position FROM mobo_hidden h JOIN {before} s ON s.id = h.id WHERE h.collection = {id} AND h.bucket = ?1 \
             UNION ALL SELECT m.position FROM mobo_member m JOIN {before} s ON s.id = m.id WHERE m.collection = {id} AND m.bucket = ?1) \
             WHERE position > ?2"
        );
        let first: Option<i64> = connection.prepare_cached(&sql)?.query_row((bucket.sql(), from.0.cast_signed()), |row| row.get(0))?;
        held = held.into_iter().chain(first).min();
    }
    Ok(held.map(|position| Position(position.cast_unsigned())))
}

/// The rows of a collection as they were merged last, for a FROM.
pub(super) fn merged(connection: &Connection, collection: &Collection, columns: &str) -> Result<String, Failure> {
    let (table, before) = (quoted(&collection.name), before(collection));
    let waits = connection.prepare_cached("SELECT 1 FROM mobo_intake WHERE collection = ?1")?.exists([collection.id.sql()])?;
    Ok(if waits {
        format!(
            "(SELECT {columns} FROM {table} t WHERE NOT EXISTS (SELECT 1 FROM {before} s WHERE s.id = t.id) \
             UNION ALL SELECT {columns} FROM {before} WHERE mobo_was = 1)"
        )
    } else {
        table
    })
}

/// The collections that were written.
fn touched<'s>(connection: &Connection, schema: &'s Schema) -> Result<Vec<&'s Collection>, Failure> {
    let mut statement = connection.prepare_cached("SELECT collection FROM mobo_intake ORDER BY collection")?;
    let touched: Vec<i64> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(schema.iter().filter(|collection| touched.contains(&collection.id.sql())).collect())
}

/// An intake at work.
struct Intake<'c> {
    connection: &'c Connection,
    schemas: &'c Schemas,
    batch: MergeBatch,
    author: HubAuthor,
    report: MergeReport,
}

impl Intake<'_> {
    /// Takes in what was written into one table, in the order of the ids.
    fn collection(&mut self, collection: &Collection) -> Result<(), Failure> {
        let mut scan = Scan::new(self.connection, self.batch.project, collection)?;
        loop {
            let written = scan.next(limits::ENTRY_OPS_MAX)?;
            if written.is_empty() {
                break;
            }
            let (mut edits, mut bytes) = (Vec::new(), 0);
            for written in written {
                match written {
                    Written::Nameless(id) => {
                        scan::put_back(self.connection, collection, &id)?;
                        self.refuse(collection, &id, "its id is no text of UTF-8 without control characters")?;
                    }
                    Written::Record(row) => {
                        let id = RawId::from(&row.key.id);
                        scan::put_back(self.connection, collection, &id)?;
                        match edit(collection, &row) {
                            Ok(None) => {}
                            Ok(Some(edit)) => {
                                bytes += serde_json::Value::Object(edit.edit.fields.clone()).to_string().len() + 128;
                                if bytes > limits::ENTRY_PAYLOAD_BYTES_MAX / 2 {
                                    self.merge(collection, std::mem::take(&mut edits))?;
                                    bytes = 0;
                                }
                                edits.push(edit);
                            }
                            Err(why) => self.refuse(collection, &id, &why)?,
                        }
                    }
                }
            }
            self.merge(collection, edits)?;
        }
        scan.finish()
    }

    /// Merges edits as one entry; where one of them cannot be done, each as its own.
    fn merge(&mut self, collection: &Collection, edits: Vec<SeenEdit>) -> Result<(), Failure> {
        let Some(why) = self.merged(collection, edits.clone())? else { return Ok(()) };
        if let [only] = edits.as_slice() {
            return self.refuse(collection, &RawId::from(&only.edit.id), &why);
        }
        for edit in edits {
            let id: RecordId = edit.edit.id.clone();
            if let Some(why) = self.merged(collection, vec![edit])? {
                self.refuse(collection, &RawId::from(&id), &why)?;
            }
        }
        Ok(())
    }

    /// Merges edits as one entry; says why nothing of it was done, where that is so.
    fn merged(&mut self, collection: &Collection, edits: Vec<SeenEdit>) -> Result<Option<String>, Failure> {
        if edits.is_empty() {
            return Ok(None);
        }
        let (lane, random) = (self.author.lane(Lane::State), self.batch.entropy.first_chunk().copied().map_or(0, u64::from_le_bytes));
        // By where it is in the log: what says the same as an earlier one is another entry (rule R15), in this call and in the next.
        let nonce = Nonce(random.wrapping_add(last(self.connection, self.batch.project, &lane)?.cast_unsigned()).to_le_bytes());
        let moment = Moment { boot: BootId([0; 8]), mono: Mono(0), wall: Wall(self.batch.now.0), quality: WallQuality::Set };
        let (body, author) = (LocalBody::Seen(edits), Some("sql".to_owned()));
        let write = LocalWrite { lane, collection: collection.id, body, moment, nonce, author, bounds: None };
        let batch = MergeBatch { submissions: vec![Prepared::Local(Box::new(write))], ..self.batch.clone() };
        let mut report = merge::merge(self.connection, self.schemas, batch)?;
        let refused = report.outcomes.drain(..).find_map(|outcome| match outcome {
            Outcome::Refused(error) => Some(error.to_string()),
            Outcome::Merged(merged) => merged.rejects.first().map(|reject| reject.detail.clone()),
            Outcome::Nack { .. } | Outcome::Refence { .. } => Some("the hub's own log does not continue".to_owned()),
        });
        self.report = report.behind(std::mem::take(&mut self.report));
        Ok(refused)
    }

    /// Says why a row is as it was before.
    fn refuse(&mut self, collection: &Collection, id: &RawId, why: &str) -> Result<(), Failure> {
        let id = id.lossy();
        tracing::warn!(collection = collection.name, id, why, "a row that was written by SQL cannot be taken in: it is as it was before");
        let sql = "INSERT INTO mobo_intake_refused(collection, id, detail, at_us) VALUES (?1, ?2, ?3, ?4)";
        self.connection.prepare_cached(sql)?.execute((collection.id.sql(), id, why, self.batch.now.0))?;
        // A program that repeats itself fills nothing.
        let oldest = self.connection.last_insert_rowid() - i64::try_from(limits::INTAKE_REFUSED_MAX).unwrap_or(i64::MAX);
        self.connection.prepare_cached("DELETE FROM mobo_intake_refused WHERE n <= ?1")?.execute([oldest])?;
        Ok(())
    }
}

/// The last position of a log of the hub's own; 0 for none.
fn last(connection: &Connection, project: ProjectId, lane: &LaneKey) -> Result<i64, Failure> {
    let sql = "SELECT last FROM mobo_lane WHERE project = ?1 AND device = ?2 AND incarnation = ?3 AND lane = ?4";
    let mut statement = connection.prepare_cached(sql)?;
    let key = (project.sql(), lane.device.as_bytes(), lane.incarnation.sql(), lane.lane.number());
    Ok(statement.query_row(key, |row| row.get(0)).optional()?.unwrap_or_default())
}

/// The difference between what was and what is, as somebody would write it; the error says why it cannot be taken in.
fn edit(collection: &Collection, row: &Touched) -> Result<Option<SeenEdit>, String> {
    let empty = TableState::default();
    let (state, ver) = match &row.was {
        None => (&empty, None),
        Some(StoredRecord { state: Ok(RecordState::Table(state)), ver, .. }) => (state, Some(*ver)),
        Some(StoredRecord { state: Ok(RecordState::Document(_)), .. }) => return Err("it is a document".to_owned()),
        Some(StoredRecord { state: Err(why), .. }) => {
            return Err(format!("the record that it changes is damaged: {why}; run `mobo-hub health check`"));
        }
    };
    let seen = |intent, fields, seen| {
        let edit = Edit { id: row.key.id.clone(), intent, fields };
        Ok(Some(SeenEdit { collection: collection.id, edit, seen }))
    };
    let Some((cells, given)) = &row.now else {
        return if state.is_visible() { seen(Intent::Delete, Map::new(), None) } else { Ok(None) };
    };
    let is_put = row.whole || !state.is_visible();
    let mut fields = Map::new();
    for (field, cell) in collection.fields.iter().zip(cells).filter(|(field, _)| !field.retired) {
        let value = cell.as_ref().map_err(|why| format!("field \"{}\" {why}", field.name))?;
        if field.kind == FieldType::Counter {
            let delta = i64::try_from(increment(state, field.id, value)).map_err(|_| format!("field \"{}\" counts too far", field.name))?;
            if delta != 0 {
                fields.insert(field.name.clone(), json!({ "$inc": delta }));
            }
        } else if is_put || shown(state, field.id) != *value {
            fields.insert(field.name.clone(), value_to_json(value, field.kind));
        }
    }
    if !is_put && fields.is_empty() {
        return Ok(None);
    }
    let intent = if is_put { Intent::Put } else { Intent::Patch };
    seen(intent, fields, ver.and_then(|ver| row.seen(*given, ver)))
}
