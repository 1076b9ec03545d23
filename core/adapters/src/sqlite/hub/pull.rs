//! What changed in some buckets since a cursor, in one snapshot.
//!
//! Each record stands at its latest position only, so that reading on from any cursor gives the same as reading from the start (I19). A
//! bucket's records lie in several tables; they are merged by position as they are read.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use mobo_core::digest::Digest;
use mobo_core::ids::{BucketId, CollectionId, Incarnation, Lane, Position, ProjectId, RecordId, RecordKey, Seq, Ver};
use mobo_core::limits;
use mobo_core::schema::{Collection, Kind, Schema};
use mobo_core::store::{BucketPage, PullItem, PullPage, PullRequest, PullState};
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, Rows};

use super::{intake, ledger};
use crate::sqlite::error::{Failure, known};
use crate::sqlite::records::{Deliverable, RecordReader, Shape, number};

/// Answers a request.
pub(super) fn pull(connection: &Connection, schema: &Schema, request: &PullRequest) -> Result<PullPage, Failure> {
    let mut pulling = Pulling {
        connection,
        schema,
        project: request.project,
        readers: BTreeMap::new(),
        items_left: request.items_max,
        bytes_left: request.bytes_max,
        is_empty: true,
    };
    let mut buckets = Vec::with_capacity(request.wants.len());
    for (bucket, from) in &request.wants {
        buckets.extend(pulling.bucket(*bucket, *from)?);
    }
    ledger::tell(connection, request.project, &mut buckets)?;
    Ok(PullPage { buckets, own_merged: own_merged(connection, request)? })
}

fn own_merged(connection: &Connection, request: &PullRequest) -> Result<Vec<(Lane, Incarnation, Seq)>, Failure> {
    // The youngest logs first: what is left out says nothing, and the oldest have nothing to say any more.
    let mut statement = connection.prepare_cached(
        "SELECT l.lane, l.incarnation, l.last FROM mobo_lane l LEFT JOIN mobo_incarnation i USING (project, device, incarnation) \
         WHERE l.project = ?1 AND l.device = ?2 AND l.last > 0 ORDER BY i.ordinal DESC, l.lane, l.incarnation LIMIT ?3",
    )?;
    let mut rows = statement.query((request.project.sql(), request.device.as_bytes(), limits::OWN_MERGED_MAX as i64))?;
    let mut merged = Vec::new();
    while let Some(row) = rows.next()? {
        let incarnation = known(Incarnation::from_sql(row.get(1)?), "incarnation")?;
        merged.push((known(Lane::from_number(row.get(0)?), "lane")?, incarnation, known(Seq::new(number(row, 2)?), "position")?));
    }
    Ok(merged)
}

struct Pulling<'p> {
    connection: &'p Connection,
    schema: &'p Schema,
    project: ProjectId,
    readers: BTreeMap<CollectionId, RecordReader<'p>>,
    items_left: usize,
    bytes_left: usize,
    /// Nothing is in the page yet: the first record goes in whatever its size.
    is_empty: bool,
}

impl<'p> Pulling<'p> {
    fn bucket(&mut self, bucket: BucketId, from: Position) -> Result<Option<BucketPage>, Failure> {
        let mut statement = self.connection.prepare_cached("SELECT head, digest FROM mobo_bucket WHERE project = ?1 AND id = ?2")?;
        let found = statement.query_row((self.project.sql(), bucket.sql()), |row| Ok((row.get::<_, i64>(0)?, row.get(1)?)));
        let Some((head, digest)) = found.optional()? else { return Ok(None) };
        let head = Position(head.cast_unsigned());
        let mut page =
            BucketPage { bucket, from, to: from, head, digest: Digest(digest), items: vec![], damaged: vec![], decisions: vec![] };
        if from >= head {
            page.to = head;
            return Ok(Some(page));
        }
        // Nothing is said of what SQL has written since it was merged.
        let held = intake::held_from(self.connection, self.schema, (bucket, from))?;
        let last = held.map_or(head, |held| Position(held.0 - 1));
        let mut statements = statements(self.connection, self.schema)?;
        let mut changes = Changes::new(&mut statements, (bucket, from))?;
        while let Some(change) = changes.next()? {
            if change.position > last {
                break;
            }
            if !self.take(&mut page, change)? {
                return Ok(Some(page));
            }
        }
        page.to = last;
        Ok(Some(page))
    }

    /// Puts a change into the page; false when the page is full.
    fn take(&mut self, page: &mut BucketPage, change: Change) -> Result<bool, Failure> {
        if self.items_left == 0 {
            return Ok(false);
        }
        let position = change.position;
        let item = match self.item(change)? {
            Ok(item) => item,
            Err(key) => {
                page.damaged.push(key);
                page.to = position;
                self.items_left -= 1;
                return Ok(true);
            }
        };
        let bytes = item.state.as_ref().map_or(0, |state| state.bytes.len());
        if bytes > self.bytes_left && !self.is_empty {
            return Ok(false);
        }
        self.is_empty = false;
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        self.items_left -= 1;
        page.to = position;
        page.items.push(item);
        Ok(true)
    }

    /// The record as it is delivered; its key alone when its row does not fit its own hash, or is not there.
    fn item(&mut self, change: Change) -> Result<Result<PullItem, RecordKey>, Failure> {
        let Change { key, present, found, .. } = change;
        let stored = match found {
            Some(found) => Some(found),
            None => {
                let Some(collection) = self.schema.get(key.collection) else { return Ok(Err(key)) };
                self.reader(collection)?.deliverable(&key.id)?
            }
        };
        if !present {
            let ver = stored.map_or(Ver(0), |stored| stored.ver);
            return Ok(Ok(PullItem { key, ver, state: None }));
        }
        let Some(Deliverable { state: Ok((epoch, bytes)), ver, state_hash: hash }) = stored else { return Ok(Err(key)) };
        Ok(Ok(PullItem { key, ver, state: Some(PullState { epoch, bytes, hash }) }))
    }

    fn reader(&mut self, collection: &'p Collection) -> Result<&mut RecordReader<'p>, Failure> {
        Ok(match self.readers.entry(collection.id) {
            std::collections::btree_map::Entry::Occupied(reader) => reader.into_mut(),
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(RecordReader::new(self.connection, self.project, collection)?)
            }
        })
    }
}

/// One record's place in a bucket.
struct Change {
    position: Position,
    key: RecordKey,
    present: bool,
    /// The record, where it stands with its place.
    found: Option<Deliverable>,
}

/// Where a bucket's records are: `position, id, collection, present`; of a table, its rows.
fn statements<'c>(connection: &'c Connection, schema: &'c Schema) -> Result<Vec<(Option<&'c Collection>, CachedStatement<'c>)>, Failure> {
    const REST: [&str; 3] = [
        "SELECT position, id, collection, 1 FROM mobo_hidden WHERE bucket = ?1 AND position > ?2 ORDER BY position",
        "SELECT position, id, collection, 1 FROM mobo_document WHERE bucket = ?1 AND position > ?2 ORDER BY position",
        "SELECT position, id, collection, present FROM mobo_member WHERE bucket = ?1 AND position > ?2 ORDER BY position",
    ];
    let table = |collection: &'c Collection| {
        // Few of all: they come by the index, whatever the statistics say.
        let sql = Shape::new(collection).select("WHERE _bucket = ?1 AND unlikely(_position > ?2) ORDER BY _position");
        Ok((Some(collection), connection.prepare_cached(&sql)?))
    };
    let tables = schema.iter().filter(|collection| collection.kind == Kind::Table).map(table);
    let rest = REST.iter().map(|sql| Ok((None, connection.prepare_cached(sql)?)));
    tables.chain(rest).collect()
}

/// The changes of one bucket, by position, out of several tables.
struct Changes<'s> {
    sources: Vec<(Option<Shape<'s>>, Rows<'s>)>,
    /// The next position of each source, smallest first.
    next: BinaryHeap<Reverse<(Position, usize)>>,
    heads: Vec<Option<Change>>,
}

impl<'s> Changes<'s> {
    fn new<'c: 's>(
        statements: &'s mut [(Option<&'c Collection>, CachedStatement<'c>)],
        (bucket, from): (BucketId, Position),
    ) -> Result<Self, Failure> {
        let mut sources = Vec::with_capacity(statements.len());
        for (collection, statement) in statements {
            sources.push((collection.map(Shape::new), statement.query((bucket.sql(), from.0.cast_signed()))?));
        }
        let heads = sources.iter().map(|_| None).collect();
        let mut changes = Self { heads, next: BinaryHeap::with_capacity(sources.len()), sources };
        for source in 0..changes.sources.len() {
            changes.advance(source)?;
        }
        Ok(changes)
    }

    fn next(&mut self) -> Result<Option<Change>, Failure> {
        let Some(Reverse((_, source))) = self.next.pop() else { return Ok(None) };
        let change = self.heads.get_mut(source).and_then(Option::take);
        self.advance(source)?;
        Ok(change)
    }

    fn advance(&mut self, source: usize) -> Result<(), Failure> {
        let (Some((shape, rows)), Some(head)) = (self.sources.get_mut(source), self.heads.get_mut(source)) else { return Ok(()) };
        if let Some(row) = rows.next()? {
            let change = change(row, shape.as_ref())?;
            self.next.push(Reverse((change.position, source)));
            *head = Some(change);
        }
        Ok(())
    }
}

fn change(row: &Row<'_>, shape: Option<&Shape<'_>>) -> Result<Change, Failure> {
    if let Some(shape) = shape {
        let (position, key) = (Position(shape.position(row)?), shape.key(row)?);
        return Ok(Change { position, key, present: true, found: Some(shape.deliverable(row)?) });
    }
    let collection = known(CollectionId::from_sql(row.get(2)?), "collection")?;
    let id = known(RecordId::new(row.get::<_, String>(1)?).ok(), "record id")?;
    Ok(Change { position: Position(number(row, 0)?), key: RecordKey { collection, id }, present: row.get(3)?, found: None })
}
