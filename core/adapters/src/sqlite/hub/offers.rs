//! What devices offer on a new timeline, joined in the steps of a merge; and definitions that come back with them (rules R18, R19).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mobo_core::ids::{DeviceId, Eid, Incarnation, Lane, ProjectId, Seq, Timeline};
use mobo_core::limits;
use mobo_core::merge::{Context, Joining, Offered, RefusedOffer, Rivals};
use mobo_core::message::{Definition, ItemBody};
use mobo_core::recover::{self, Adoption};
use mobo_core::schema::{Collection, Schema};
use mobo_core::store::{MergeBatch, OfferBatch, OfferReport, StoreError, told_before};
use mobo_core::table::again::Counted;
use mobo_core::time::Eff;
use rusqlite::{Connection, OptionalExtension as _};

use super::schema::Schemas;
use super::{identity, intake, lanes, merge, rebucket, schema, write};
use crate::sqlite::error::{Failure, known};

/// Joins a page of an offer. What SQL has written is taken in first, on this timeline.
pub(super) fn join(connection: &Connection, schemas: &Schemas, project: ProjectId, batch: &OfferBatch) -> Result<OfferReport, Failure> {
    let current = schemas.of(connection, project)?;
    let schema = if current.rev > batch.schema.rev { current } else { batch.schema.clone() };
    let history = identity::current(connection)?.timeline;
    let own = MergeBatch {
        project,
        schema: Arc::clone(&schema),
        timeline: history.timeline,
        now: batch.now,
        entropy: batch.entropy,
        recovering: true,
        submissions: Vec::new(),
    };
    let taken = intake::take(connection, schemas, &own)?.unwrap_or_default();
    let heads: BTreeMap<_, _> = history.parents.first().map(|parent| parent.heads.iter().copied().collect()).unwrap_or_default();
    let (timeline, now, entropy) = (history.timeline, batch.now, batch.entropy);
    let context = Context { project, schema: &schema, timeline, now, entropy, recovering: true };
    let bucket: Option<String> = connection
        .prepare_cached("SELECT key FROM mobo_bucket WHERE project = ?1 AND id = ?2")?
        .query_row((project.sql(), batch.offer.bucket.sql()), |row| row.get(0))
        .optional()?;
    let (offer, key, timelines, bucket) = (&batch.offer, &batch.key, &batch.timelines, bucket.as_deref());
    let offered = Offered { offer, key, timelines, heads: &heads, bucket };
    let joining = Joining::new(context, &offered);
    if let Some(latest) = joining.latest_of(batch.device) {
        lanes::begin_above(connection, project, (batch.device, latest))?;
    }
    let read = merge::read_records(connection, project, &schema, &joining.wants())?;
    let counted = counted(connection, project, &joining.doubtful(&read.records))?;
    let (applied, joined) = joining.knowing(counted).join(read.records);
    let mut report = OfferReport { joined: joined.joined, refused: joined.refused, hints: Vec::new(), latest: joined.latest };
    if !applied.is_empty() {
        let buckets = merge::read_buckets(connection, project, applied.wants())?;
        let placed = applied.place(buckets, Rivals::new());
        write::write(connection, project, (&schema, batch.now), &placed.writes)?;
        report.hints = placed.hints;
    }
    told_before(&mut report.hints, taken.hints);
    let mut room = if report.refused.is_empty() { 0 } else { room(connection, project, batch.device)? };
    let mut kept = 0;
    for refused in &report.refused {
        if room == 0 {
            break;
        }
        let added = keep(connection, project, (batch.device, batch.offer.timeline, batch.now), (batch.offer.bucket.sql(), refused))?;
        (room, kept) = (room - added, kept + added);
    }
    let sql = "UPDATE mobo_recovery SET joined = joined + ?1, refused = refused + ?2";
    connection.execute(sql, (report.joined.cast_signed(), i64::try_from(kept).unwrap_or(i64::MAX)))?;
    Ok(report)
}

/// The entries in those places, in whatever log of the device, that were merged as themselves.
fn counted(connection: &Connection, project: ProjectId, places: &BTreeSet<(DeviceId, Seq)>) -> Result<Counted, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT i.incarnation, e.eid FROM mobo_incarnation i JOIN mobo_entry e ON e.project = i.project AND e.device = i.device \
         AND e.incarnation = i.incarnation AND e.lane = ?4 AND e.seq = ?3 \
         WHERE i.project = ?1 AND i.device = ?2 AND e.eid IS NOT NULL AND e.outcome = 0",
    )?;
    let mut counted = Counted::new();
    for (device, seq) in places {
        let mut rows = statement.query((project.sql(), device.as_bytes(), seq.get().cast_signed(), Lane::State.number()))?;
        while let Some(row) = rows.next()? {
            let log = known(Incarnation::from_sql(row.get(0)?), "incarnation")?;
            counted.entry((*device, *seq)).or_default().push((log, Eid(row.get(1)?)));
        }
    }
    Ok(counted)
}

/// How many more refused items of a device are kept: it may offer what it likes.
fn room(connection: &Connection, project: ProjectId, device: DeviceId) -> Result<usize, Failure> {
    let sql = "SELECT count(*) FROM mobo_offer WHERE project = ?1 AND device = ?2";
    let kept: i64 = connection.prepare_cached(sql)?.query_row((project.sql(), device.as_bytes()), |row| row.get(0))?;
    Ok(usize::try_from(i64::from(limits::OFFERS_REFUSED_MAX) - kept).unwrap_or(0))
}

/// How many there are now that were not: none where it is kept already.
fn keep(
    connection: &Connection,
    project: ProjectId,
    (device, timeline, now): (DeviceId, Timeline, Eff),
    (bucket, refused): (i64, &RefusedOffer),
) -> Result<usize, Failure> {
    let (item, code) = (&refused.item, refused.code.0);
    let (epoch, state) = match &item.body {
        ItemBody::State { epoch, bytes } => (*epoch, Some(bytes)),
        ItemBody::Leave => (0, None),
    };
    let sql = "INSERT INTO mobo_offer(project, device, bucket, timeline, collection, id, ver, epoch, state, mac, code, detail, at_us) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13) ON CONFLICT DO NOTHING";
    let added = connection.prepare_cached(sql)?.execute((
        project.sql(),
        device.as_bytes(),
        bucket,
        timeline.as_bytes(),
        item.collection.sql(),
        item.id.as_str(),
        item.ver.0.cast_signed(),
        epoch,
        state,
        item.mac.as_bytes(),
        code,
        &refused.detail,
        now.0,
    ))?;
    Ok(added)
}

/// Takes definitions back.
pub(super) fn adopt(
    connection: &Connection,
    project: ProjectId,
    rev: u64,
    definitions: &[Definition],
) -> Result<(Schema, Vec<String>), Failure> {
    let held = schema::load(connection, project, schema::rev(connection, project)?)?;
    let Adoption { lost, rules, mut refused } = recover::adopt(&held, definitions);
    let mut changed = held.rev < rev;
    for (collection, bytes) in &lost {
        match schema::create(connection, project, collection) {
            Ok(_) => {
                keep_bytes(connection, project, (collection, bytes))?;
                changed = true;
            }
            Err(Failure(StoreError::Refused(_))) => refused.push(collection.name.clone()),
            Err(failure) => return Err(failure),
        }
    }
    for (collection, bytes) in &rules {
        rebucket::alter(connection, project, collection.id, collection.rules.clone())?;
        keep_bytes(connection, project, (collection, bytes))?;
        changed = true;
    }
    if changed {
        // Above what the device has, so that everybody, this device included, is told what there is now.
        let sql = "UPDATE mobo_project SET schema_rev = 1 + max(schema_rev, ?2) WHERE id = ?1";
        connection.execute(sql, (project.sql(), rev.cast_signed()))?;
    }
    Ok((schema::load(connection, project, schema::rev(connection, project)?)?, refused))
}

/// As the device has it: what this version does not understand of a definition belongs to somebody who does.
fn keep_bytes(connection: &Connection, project: ProjectId, (collection, bytes): (&Collection, &[u8])) -> Result<(), Failure> {
    let sql = "UPDATE mobo_collection SET rev = ?3, definition = ?4 WHERE project = ?1 AND id = ?2";
    connection.execute(sql, (project.sql(), collection.id.sql(), collection.rev.cast_signed(), bytes))?;
    Ok(())
}
