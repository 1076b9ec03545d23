//! What devices offer on a new timeline, joined in the steps of a merge; and definitions that come back with them (rules R18, R19).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mobo_core::backoff::Backoff;
use mobo_core::ids::{DeviceId, Eid, Incarnation, Lane, ProjectId, Seq, Timeline};
use mobo_core::limits;
use mobo_core::merge::{Context, Joined, Joining, Offered, RefusedOffer, Rivals};
use mobo_core::message::{Definition, ItemBody};
use mobo_core::recover::{self, Adoption};
use mobo_core::schema::{Collection, Schema};
use mobo_core::store::{MergeBatch, OfferBatch, OfferReport, StoreError, told_before};
use mobo_core::table::again::Counted;
use sqlx::Row as _;

use super::Inner;
use super::error::{Failure, known};
use super::intake;
use super::merge;
use super::session::{Purpose, SCHEMA_LOCK, Tx};
use super::{hub, rebucket, schemas};

/// Joins a page of an offer, all of it or nothing; tries again what a retry can mend.
pub(super) async fn join(store: &Inner, project: ProjectId, batch: &OfferBatch) -> Result<OfferReport, StoreError> {
    let mut pause = Backoff::new(limits::MERGE_RETRY_MIN, limits::MERGE_RETRY_MAX);
    let mut attempt = 1;
    let mut before = Vec::new();
    loop {
        let mut tx = Tx::begin(&store.pool, Purpose::Merge).await?;
        let joined = match once(&mut tx, store, project, batch).await {
            Ok(Attempt::Joined(report)) => Ok(report),
            Err(failure) => Err(failure),
            Ok(Attempt::Waiting(timeline)) => {
                tx.rollback().await?;
                let (schema, now, entropy) = (Arc::clone(&batch.schema), batch.now, batch.entropy);
                let own = MergeBatch { project, schema, timeline, now, entropy, recovering: true, submissions: Vec::new() };
                let report = intake::take_in(store, &own).await?;
                before.extend(report.into_iter().flat_map(|report| report.hints));
                continue;
            }
        };
        match tx.finish(joined).await {
            Ok(mut report) => {
                told_before(&mut report.hints, before);
                return Ok(report);
            }
            Err(failure) if failure.is_retryable() && attempt < limits::MERGE_ATTEMPTS_ALONE_MAX => {
                let entropy = batch.entropy.first_chunk().copied().map_or(0, u64::from_le_bytes);
                tokio::time::sleep(pause.next_pause(entropy.rotate_left(attempt), None)).await;
                attempt += 1;
            }
            Err(failure) => return Err(failure.into()),
        }
    }
}

enum Attempt {
    Joined(OfferReport),
    /// SQL was written into one of the records, and must be taken in first, on this timeline.
    Waiting(Timeline),
}

async fn once(tx: &mut Tx, store: &Inner, project: ProjectId, batch: &OfferBatch) -> Result<Attempt, Failure> {
    let current = schemas::current(tx, &store.known, project).await?;
    let schema = if current.rev > batch.schema.rev { &current } else { &batch.schema };
    let history = hub::read(tx).await?.timeline;
    let heads: BTreeMap<_, _> = history.parents.first().map(|parent| parent.heads.iter().copied().collect()).unwrap_or_default();
    let (timeline, now, entropy) = (history.timeline, batch.now, batch.entropy);
    let context = Context { project, schema, timeline, now, entropy, recovering: true };
    let look = sqlx::query("SELECT key FROM mobo.bucket WHERE project = $1 AND id = $2");
    let bucket = tx.row(look.bind(project.sql()).bind(batch.offer.bucket.sql())).await?;
    let bucket: Option<String> = bucket.map(|row| row.try_get(0)).transpose()?;
    let (offer, key, timelines, bucket) = (&batch.offer, &batch.key, &batch.timelines, bucket.as_deref());
    let offered = Offered { offer, key, timelines, heads: &heads, bucket };
    let joining = Joining::new(context, &offered);
    if let Some(latest) = joining.latest_of(batch.device) {
        merge::begin_above(tx, project, (batch.device, latest)).await?;
    }
    let wants = joining.wants();
    let (stored, _) = merge::lock_and_read_records(tx, &store.known, (project, schema), &wants).await?;
    if intake::touches(tx, &wants).await? {
        return Ok(Attempt::Waiting(history.timeline));
    }
    let counted = counted(tx, project, &joining.doubtful(&stored)).await?;
    let (applied, Joined { joined, refused, latest }) = joining.knowing(counted).join(stored);
    let mut report = OfferReport { joined, refused, hints: Vec::new(), latest };
    if !applied.is_empty() {
        let states = merge::lock_and_read_buckets(tx, &store.known, project, &applied.wants()).await?;
        let placed = applied.place(states, Rivals::new());
        merge::write(tx, (project, batch.now), schema, &placed.writes).await?;
        report.hints = placed.hints;
    }
    let mut kept = 0;
    let mut room = if report.refused.is_empty() { 0 } else { room(tx, project, batch).await? };
    for refused in &report.refused {
        if room <= 0 {
            break;
        }
        let added = keep(tx, project, batch, refused).await?;
        (room, kept) = (room - added, kept + added);
    }
    let count = "UPDATE mobo.recovery SET joined = joined + $1, refused = refused + $2";
    tx.run(sqlx::query(count).bind(report.joined.cast_signed()).bind(kept)).await?;
    Ok(Attempt::Joined(report))
}

/// The entries in those places, in whatever log of the device, that were merged as themselves.
async fn counted(tx: &mut Tx, project: ProjectId, places: &BTreeSet<(DeviceId, Seq)>) -> Result<Counted, Failure> {
    let mut counted = Counted::new();
    for (device, seq) in places {
        let look = sqlx::query(
            "SELECT i.incarnation, e.eid FROM mobo.incarnation i JOIN mobo.entry e ON e.project = i.project AND e.device = i.device \
             AND e.incarnation = i.incarnation AND e.lane = $4 AND e.seq = $3 \
             WHERE i.project = $1 AND i.device = $2 AND e.eid IS NOT NULL AND e.outcome = 0",
        )
        .bind(project.sql())
        .bind(device.0)
        .bind(seq.get().cast_signed())
        .bind(i16::from(Lane::State.number()));
        for row in tx.rows(look).await? {
            let log = known(Incarnation::from_sql(row.try_get(0)?), "log")?;
            counted.entry((*device, *seq)).or_default().push((log, Eid(row.try_get(1)?)));
        }
    }
    Ok(counted)
}

/// How many more refused items of a device are kept: it may offer what it likes.
async fn room(tx: &mut Tx, project: ProjectId, batch: &OfferBatch) -> Result<i64, Failure> {
    let count = sqlx::query("SELECT count(*) FROM mobo.offer WHERE project = $1 AND device = $2");
    let counted = tx.row(count.bind(project.sql()).bind(batch.device.0)).await?;
    let kept: i64 = counted.map_or(Ok(0), |row| row.try_get(0))?;
    Ok(i64::from(limits::OFFERS_REFUSED_MAX) - kept)
}

/// How many there are now that were not: none where it is kept already.
async fn keep(tx: &mut Tx, project: ProjectId, batch: &OfferBatch, refused: &RefusedOffer) -> Result<i64, Failure> {
    let item = &refused.item;
    let (epoch, state) = match &item.body {
        ItemBody::State { epoch, bytes } => (*epoch, Some(bytes)),
        ItemBody::Leave => (0, None),
    };
    let insert = sqlx::query(
        "INSERT INTO mobo.offer(project, device, bucket, timeline, collection, id, ver, epoch, state, mac, code, detail, at_us) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) ON CONFLICT DO NOTHING",
    )
    .bind(project.sql())
    .bind(batch.device.0)
    .bind(batch.offer.bucket.sql())
    .bind(batch.offer.timeline.0)
    .bind(item.collection.sql())
    .bind(item.id.as_str())
    .bind(item.ver.0.cast_signed())
    .bind(epoch.cast_signed())
    .bind(state)
    .bind(item.mac.0)
    .bind(i32::from(refused.code.0))
    .bind(&refused.detail)
    .bind(batch.now.0);
    let added = tx.run(insert).await?;
    Ok(i64::try_from(added).unwrap_or(i64::MAX))
}

/// Takes definitions back.
pub(super) async fn adopt(tx: &mut Tx, project: ProjectId, rev: u64, definitions: &[Definition]) -> Result<(Schema, Vec<String>), Failure> {
    // As whoever changes rules: nobody places a record meanwhile.
    tx.row(sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(SCHEMA_LOCK)).await?;
    let held = schemas::locked(tx, project).await?;
    let Adoption { lost, rules, mut refused } = recover::adopt(&held, definitions);
    let mut changed = held.rev < rev;
    for (collection, bytes) in &lost {
        tx.script("SAVEPOINT lost".to_owned()).await?;
        match schemas::create(tx, project, collection).await {
            Ok(_) => {
                keep_bytes(tx, project, (collection, bytes)).await?;
                changed = true;
            }
            Err(Failure::Store(StoreError::Refused(_))) => {
                tx.script("ROLLBACK TO SAVEPOINT lost".to_owned()).await?;
                refused.push(collection.name.clone());
            }
            Err(failure) => return Err(failure),
        }
    }
    for (collection, bytes) in &rules {
        rebucket::alter(tx, project, collection.id, collection.rules.clone()).await?;
        keep_bytes(tx, project, (collection, bytes)).await?;
        changed = true;
    }
    if changed {
        // Above what the device has, so that everybody, this device included, is told what there is now.
        let raise = sqlx::query("UPDATE mobo.project SET schema_rev = 1 + greatest(schema_rev, $2) WHERE id = $1");
        tx.run(raise.bind(project.sql()).bind(rev.cast_signed())).await?;
    }
    Ok((schemas::locked(tx, project).await?, refused))
}

/// As the device has it: what this version does not understand of a definition belongs to somebody who does.
async fn keep_bytes(tx: &mut Tx, project: ProjectId, (collection, bytes): (&Collection, &[u8])) -> Result<(), Failure> {
    let update = sqlx::query("UPDATE mobo.collection SET rev = $3, definition = $4 WHERE project = $1 AND id = $2");
    tx.run(update.bind(project.sql()).bind(collection.id.sql()).bind(collection.rev.cast_signed()).bind(bytes)).await?;
    Ok(())
}
