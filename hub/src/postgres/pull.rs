//! What changed in some buckets since a device last read them, all in one snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use mobo_core::digest::Digest;
use mobo_core::ids::{BucketId, CollectionId, DeviceId, Incarnation, Lane, Position, ProjectId, RecordId, RecordKey, Seq, Ver};
use mobo_core::limits;
use mobo_core::schema::{Kind, Schema};
use mobo_core::store::{BucketPage, PullItem, PullPage, PullRequest, PullState};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row};

use super::Inner;
use super::devices::{lane, seq};
use super::error::{Failure, known};
use super::look;
use super::schemas;
use super::session::Tx;
use super::stored::{self, Deliverable};
use super::table::table;

/// States that are read at once: with the largest of them, no more than a few batches' worth of memory.
const SLICE: usize = 128;
/// Few states are smaller: of so many a page has room, more changes than that are not looked for at once.
const SMALL_BYTES: usize = 256;

/// The page that a request asks for.
pub(super) async fn pull(tx: &mut Tx, store: &Inner, request: &PullRequest) -> Result<PullPage, Failure> {
    let schema = schemas::current(tx, &store.known, request.project).await?;
    let heads = heads(tx, request).await?;
    let own_merged = own_merged(tx, request.project, request.device).await?;
    let mut reader = Reader { project: request.project, sql: positions(&schema), schema: &schema, room: Room::of(request) };
    let mut buckets = Vec::with_capacity(request.wants.len());
    for (bucket, from) in &request.wants {
        let Some((head, digest)) = heads.get(bucket) else { continue };
        let (items, damaged, decisions) = (Vec::new(), Vec::new(), Vec::new());
        let page = BucketPage { bucket: *bucket, from: *from, to: *head, head: *head, digest: *digest, items, damaged, decisions };
        buckets.push(if from < head { reader.fill(tx, page).await? } else { page });
    }
    for page in buckets.iter_mut().filter(|page| !page.items.is_empty()) {
        page.decisions = look::open_of(tx, request.project, &page.items).await?;
    }
    Ok(PullPage { buckets, own_merged })
}

async fn heads(tx: &mut Tx, request: &PullRequest) -> Result<BTreeMap<BucketId, (Position, Digest)>, Failure> {
    let ids: Vec<i64> = request.wants.iter().map(|(bucket, _)| bucket.sql()).collect();
    let look = sqlx::query("SELECT id, head, digest FROM mobo.bucket WHERE project = $1 AND id = ANY($2)");
    let mut heads = BTreeMap::new();
    for row in tx.rows(look.bind(request.project.sql()).bind(ids)).await? {
        let id = known(BucketId::from_sql(row.try_get(0)?), "bucket")?;
        heads.insert(id, (position(row.try_get(1)?)?, Digest(row.try_get(2)?)));
    }
    Ok(heads)
}

async fn own_merged(tx: &mut Tx, project: ProjectId, device: DeviceId) -> Result<Vec<(Lane, Incarnation, Seq)>, Failure> {
    // The youngest logs first: what is left out says nothing, and the oldest have nothing to say any more.
    let look = sqlx::query(
        "SELECT l.lane, l.incarnation, l.last FROM mobo.lane l LEFT JOIN mobo.incarnation i USING (project, device, incarnation) \
         WHERE l.project = $1 AND l.device = $2 AND l.last > 0 ORDER BY i.ordinal DESC NULLS LAST, l.lane, l.incarnation LIMIT $3",
    );
    let mut merged = Vec::new();
    for row in tx.rows(look.bind(project.sql()).bind(device.0).bind(limits::OWN_MERGED_MAX as i64)).await? {
        let incarnation = known(Incarnation::from_sql(row.try_get(1)?), "incarnation")?;
        merged.push((lane(row.try_get(0)?)?, incarnation, known(seq(row.try_get(2)?), "seq")?));
    }
    Ok(merged)
}

/// A `SELECT` of what has a position in bucket `$1` above `$2`: each table of a collection, and the tables that all collections share.
fn positions(schema: &Schema) -> String {
    let mut sql = String::from("SELECT collection, id, position, present FROM (");
    for collection in schema.iter().filter(|collection| collection.kind == Kind::Table) {
        let _ = write!(
            sql,
            "(SELECT {}::int8 AS collection, id, _position AS position, true AS present FROM {} \
             WHERE _bucket = $1 AND _position > $2 ORDER BY _position LIMIT $3) UNION ALL ",
            collection.id.sql(),
            table(collection)
        );
    }
    for (name, present) in [("hidden", "true"), ("document", "true"), ("member", "present")] {
        let separator = if name == "hidden" { "" } else { " UNION ALL " };
        let _ = write!(
            sql,
            "{separator}(SELECT collection, id, position, {present} AS present FROM mobo.{name} \
             WHERE bucket = $1 AND position > $2 ORDER BY position LIMIT $3)"
        );
    }
    sql.push_str(") AS changed ORDER BY position LIMIT $3");
    sql
}

/// What may still be put into the page.
struct Room {
    items: usize,
    bytes: usize,
    /// One record is always delivered: otherwise a large one would never be.
    empty: bool,
}

impl Room {
    fn of(request: &PullRequest) -> Self {
        Self { items: request.items_max, bytes: request.bytes_max, empty: true }
    }

    fn takes(&mut self, bytes: usize) -> bool {
        if self.items == 0 || (self.bytes < bytes && !self.empty) {
            return false;
        }
        self.items -= 1;
        self.bytes = self.bytes.saturating_sub(bytes);
        self.empty = false;
        true
    }
}

struct Change {
    key: RecordKey,
    position: Position,
    present: bool,
}

struct Reader<'r> {
    project: ProjectId,
    sql: String,
    schema: &'r Schema,
    room: Room,
}

impl Reader<'_> {
    /// Puts the next records of a bucket into its page, as far as there is room.
    async fn fill(&mut self, tx: &mut Tx, mut page: BucketPage) -> Result<BucketPage, Failure> {
        page.to = page.from;
        while page.to < page.head && self.room.items > 0 {
            let most = self.room.items.min((self.room.bytes / SMALL_BYTES).max(SLICE));
            let changes = self.changes(tx, (page.bucket, page.to), most).await?;
            for some in changes.chunks(SLICE) {
                if !self.fill_some(tx, &mut page, some).await? {
                    return Ok(page);
                }
            }
            if changes.len() < most {
                page.to = page.head;
            }
        }
        Ok(page)
    }

    /// Puts some changes into the page, and says how far it goes then; false when it ends there.
    async fn fill_some(&mut self, tx: &mut Tx, page: &mut BucketPage, changes: &[Change]) -> Result<bool, Failure> {
        let keys: BTreeSet<RecordKey> = changes.iter().map(|change| change.key.clone()).collect();
        let mut records = stored::load_deliverable(tx, self.project, self.schema, &keys).await?;
        let unread = changes.iter().filter(|change| change.present).map(|change| &change.key);
        let unread = unread.filter(|key| records.get(key).is_none_or(|found| found.state.is_err())).cloned().collect();
        let waiting = waiting(tx, &unread).await?;
        for change in changes {
            // SQL that was not taken in yet: in a moment it is, and its record has another position.
            if waiting.contains(&change.key) || !self.add(page, change, records.remove(&change.key)) {
                return Ok(false);
            }
            page.to = change.position;
        }
        Ok(true)
    }

    async fn changes(&self, tx: &mut Tx, (bucket, after): (BucketId, Position), most: usize) -> Result<Vec<Change>, Failure> {
        let look = sqlx::query(AssertSqlSafe(self.sql.clone())).bind(bucket.sql()).bind(after.0.cast_signed());
        let rows = tx.rows(look.bind(i64::try_from(most).unwrap_or(i64::MAX))).await?;
        rows.iter()
            .map(|row| {
                let collection = known(CollectionId::from_sql(row.try_get(0)?), "collection")?;
                let id = RecordId::new(row.try_get::<String, _>(1)?).map_err(|error| Failure::damaged(error.to_string()))?;
                let key = RecordKey { collection, id };
                Ok(Change { key, position: position(row.try_get(2)?)?, present: row.try_get(3)? })
            })
            .collect()
    }

    /// False when there is no room for it.
    fn add(&mut self, page: &mut BucketPage, change: &Change, found: Option<Deliverable>) -> bool {
        let key = change.key.clone();
        let ver = found.as_ref().map_or(Ver(0), |found| found.ver);
        if !change.present {
            let takes = self.room.takes(0);
            if takes {
                page.items.push(PullItem { key, ver, state: None });
            }
            return takes;
        }
        let Some(Deliverable { state: Ok((epoch, bytes)), state_hash: hash, .. }) = found else {
            let takes = self.room.items > 0;
            if takes {
                self.room.items -= 1;
                page.damaged.push(key);
            }
            return takes;
        };
        let state = PullState { epoch, bytes, hash };
        let takes = self.room.takes(state.bytes.len());
        if takes {
            page.items.push(PullItem { key, ver, state: Some(state) });
        }
        takes
    }
}

/// Those of these records that SQL has written into since they were merged last.
async fn waiting(tx: &mut Tx, keys: &BTreeSet<RecordKey>) -> Result<BTreeSet<RecordKey>, Failure> {
    if keys.is_empty() {
        return Ok(BTreeSet::new());
    }
    let (collections, ids): (Vec<i64>, Vec<&str>) = keys.iter().map(|key| (key.collection.sql(), key.id.as_str())).unzip();
    let look = "SELECT DISTINCT i.collection, i.id FROM mobo.intake i JOIN unnest($1::int8[], $2::text[]) AS w(collection, id) USING (collection, id)";
    let rows = tx.rows(sqlx::query(look).bind(collections).bind(ids)).await?;
    let key = |row: &PgRow| {
        let collection = known(CollectionId::from_sql(row.try_get(0)?), "collection")?;
        let id = known(RecordId::new(row.try_get::<String, _>(1)?).ok(), "record id")?;
        Ok(RecordKey { collection, id })
    };
    rows.iter().map(key).collect()
}

fn position(number: i64) -> Result<Position, Failure> {
    known(u64::try_from(number).ok().map(Position), "position")
}
