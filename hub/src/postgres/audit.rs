//! Health checks: what is stored against what it is recomputed to. Rows are read in pages, in the order of their key, from one snapshot.

use std::collections::BTreeMap;

use mobo_core::digest::Digest;
use mobo_core::entry::{Entry, Payload, chain_next, chain_start};
use mobo_core::ids::{BucketId, Chain, DeviceId, Incarnation, LaneKey, Position, ProjectId, RecordKey, Seq};
use mobo_core::limits;
use mobo_core::schema::{Collection, Schema};
use mobo_core::store::{BucketAudit, LaneAudit};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row};

use super::devices::{lane, seq};
use super::error::{Failure, known};
use super::known::Known;
use super::schemas;
use super::session::Tx;
use super::stored::{Found, Source};

type Audits = BTreeMap<BucketId, BucketAudit>;

/// Recomputes the digest of every bucket of a project.
pub(super) async fn of_project(tx: &mut Tx, known: &Known, project: ProjectId) -> Result<Vec<BucketAudit>, Failure> {
    let schema = schemas::current(tx, known, project).await?;
    buckets(tx, project, &schema).await
}

/// The same, by a schema that is known.
pub(super) async fn buckets(tx: &mut Tx, project: ProjectId, schema: &Schema) -> Result<Vec<BucketAudit>, Failure> {
    let mut audits = Audits::new();
    let look = sqlx::query("SELECT id, key, head, digest FROM mobo.bucket WHERE project = $1 ORDER BY id").bind(project.sql());
    for row in tx.rows(look).await? {
        let audit = bucket(&row)?;
        audits.insert(audit.bucket, audit);
    }
    for collection in schema.iter() {
        for source in Source::of(collection.kind) {
            audit_homes(tx, (project, collection), *source, &mut audits).await?;
            audit_members(tx, (project, collection), *source, &mut audits).await?;
        }
        note_members(tx, collection, &mut audits).await?;
    }
    Ok(audits.into_values().collect())
}

fn bucket(row: &PgRow) -> Result<BucketAudit, Failure> {
    Ok(BucketAudit {
        bucket: known(BucketId::from_sql(row.try_get(0)?), "bucket")?,
        key: row.try_get(1)?,
        head: Position(known(u64::try_from(row.try_get::<i64, _>(2)?).ok(), "head")?),
        position_max: Position(0),
        stored: Digest(row.try_get(3)?),
        computed: Digest::default(),
        damaged: Vec::new(),
    })
}

/// Adds each record to its first bucket.
async fn audit_homes(
    tx: &mut Tx,
    (project, collection): (ProjectId, &Collection),
    source: Source,
    audits: &mut Audits,
) -> Result<(), Failure> {
    let sql = format!("{} AND r.id > $3 ORDER BY r.id LIMIT $4", source.select_shown(collection));
    let mut after = String::new();
    loop {
        let look = sqlx::query(AssertSqlSafe(sql.clone())).bind(project.sql()).bind(collection.id.sql()).bind(&after);
        let rows = tx.rows(look.bind(page())).await?;
        for row in &rows {
            let found = source.read(row, collection)?;
            if let Some((bucket, position)) = found.home
                && let Some(audit) = audits.get_mut(&bucket)
            {
                audit.position_max = audit.position_max.max(position);
                add(audit, &found);
                if !source.is_shown(row, collection, &found)? {
                    note(&mut audit.damaged, &found.key);
                }
            }
            after = found.key.id.as_str().to_owned();
        }
        if rows.len() < limits::POSTGRES_ROWS_MAX {
            return Ok(());
        }
    }
}

/// Adds each record to the buckets beyond its first that it is in.
async fn audit_members(
    tx: &mut Tx,
    (project, collection): (ProjectId, &Collection),
    source: Source,
    audits: &mut Audits,
) -> Result<(), Failure> {
    let select = source.select(collection);
    let sql = format!(
        "SELECT r.*, m.bucket AS of_bucket FROM ({select}) r JOIN mobo.member m ON m.collection = $2 AND m.id = r.id AND m.present \
         WHERE (m.id, m.bucket) > ($3, $4) ORDER BY m.id, m.bucket LIMIT $5"
    );
    let (mut id, mut bucket) = (String::new(), 0_i64);
    loop {
        let look = sqlx::query(AssertSqlSafe(sql.clone())).bind(project.sql()).bind(collection.id.sql()).bind(&id).bind(bucket);
        let rows = tx.rows(look.bind(page())).await?;
        for row in &rows {
            let found = source.read(row, collection)?;
            bucket = row.try_get("of_bucket")?;
            if let Some(audit) = BucketId::from_sql(bucket).and_then(|bucket| audits.get_mut(&bucket)) {
                add(audit, &found);
            }
            id = found.key.id.as_str().to_owned();
        }
        if rows.len() < limits::POSTGRES_ROWS_MAX {
            return Ok(());
        }
    }
}

/// Notes the positions that memberships use.
async fn note_members(tx: &mut Tx, collection: &Collection, audits: &mut Audits) -> Result<(), Failure> {
    let look = sqlx::query("SELECT bucket, max(position) FROM mobo.member WHERE collection = $1 GROUP BY bucket");
    for row in tx.rows(look.bind(collection.id.sql())).await? {
        let position = Position(known(u64::try_from(row.try_get::<i64, _>(1)?).ok(), "position")?);
        if let Some(audit) = BucketId::from_sql(row.try_get(0)?).and_then(|bucket| audits.get_mut(&bucket)) {
            audit.position_max = audit.position_max.max(position);
        }
    }
    Ok(())
}

/// A record whose row does not fit its own hash adds nothing: the bucket's digest then differs, too.
fn add(audit: &mut BucketAudit, found: &Found) {
    match &found.state {
        Ok(state) => audit.computed = audit.computed.plus(Digest::of(&found.key, state.state_hash())),
        Err(_) => note(&mut audit.damaged, &found.key),
    }
}

fn note(damaged: &mut Vec<RecordKey>, key: &RecordKey) {
    if damaged.len() < limits::AUDIT_DAMAGED_MAX && !damaged.contains(key) {
        damaged.push(key.clone());
    }
}

/// Recomputes the chain of every lane.
pub(super) async fn lanes(tx: &mut Tx, project: ProjectId) -> Result<Vec<LaneAudit>, Failure> {
    let look = sqlx::query(
        "SELECT device, incarnation, lane, last, chain FROM mobo.lane WHERE project = $1 AND last > 0 ORDER BY device, incarnation, lane",
    );
    let mut audits = Vec::new();
    for row in tx.rows(look.bind(project.sql())).await? {
        let device = DeviceId(row.try_get(0)?);
        let incarnation = known(Incarnation::from_sql(row.try_get(1)?), "incarnation")?;
        let key = LaneKey { device, incarnation, lane: lane(row.try_get(2)?)? };
        let (last, chain) = (known(seq(row.try_get(3)?), "seq")?, Chain(row.try_get(4)?));
        audits.push(audit_lane(tx, project, key, (last, chain)).await?);
    }
    Ok(audits)
}

async fn audit_lane(tx: &mut Tx, project: ProjectId, key: LaneKey, (last, head): (Seq, Chain)) -> Result<LaneAudit, Failure> {
    let mut walk = Walk { chain: chain_start(project, &key), next: Seq::FIRST, entries: 0, broken_at: None };
    let mut after = 0_i64;
    loop {
        let look = sqlx::query(
            "SELECT seq, eid IS NULL, chain, header, payload FROM mobo.entry \
             WHERE project = $1 AND device = $2 AND incarnation = $3 AND lane = $4 AND seq > $5 ORDER BY seq LIMIT $6",
        );
        let look = look.bind(project.sql()).bind(key.device.0).bind(key.incarnation.sql()).bind(i16::from(key.lane.number()));
        let rows = tx.rows(look.bind(after).bind(page())).await?;
        for row in &rows {
            after = row.try_get(0)?;
            walk.step(row)?;
        }
        if rows.len() < limits::POSTGRES_ROWS_MAX {
            break;
        }
    }
    let ends = walk.next == last.next() && walk.chain == head;
    let broken_at = walk.broken_at.or(if ends { None } else { Some(last.min(walk.next)) });
    Ok(LaneAudit { lane: key, last, entries: walk.entries, broken_at })
}

struct Walk {
    chain: Chain,
    next: Seq,
    entries: u64,
    broken_at: Option<Seq>,
}

impl Walk {
    fn step(&mut self, row: &PgRow) -> Result<(), Failure> {
        let at = known(seq(row.try_get(0)?), "seq")?;
        let (lost, stored) = (row.try_get(1)?, Chain(row.try_get(2)?));
        let (header, payload): (Option<Vec<u8>>, Option<Vec<u8>>) = (row.try_get(3)?, row.try_get(4)?);
        let chain = match (header, payload) {
            (Some(header), Some(payload)) => chain_next(self.chain, &entry(lost, header, payload)),
            // Its bytes were let go once they were safe: its word for the chain is all there is.
            _ => stored,
        };
        if (at != self.next || chain != stored) && self.broken_at.is_none() {
            self.broken_at = Some(at.min(self.next));
        }
        // What follows is checked against what is stored: one broken entry is one finding.
        (self.chain, self.next) = (stored, at.next());
        self.entries += 1;
        Ok(())
    }
}

fn entry(lost: bool, header: Vec<u8>, payload: Vec<u8>) -> Entry {
    // A hash of another length cannot give the stored chain either.
    let payload = if lost { Payload::Lost(payload.try_into().unwrap_or_default()) } else { Payload::Present(payload) };
    Entry { header, payload }
}

fn page() -> i64 {
    i64::try_from(limits::POSTGRES_ROWS_MAX).unwrap_or(i64::MAX)
}
