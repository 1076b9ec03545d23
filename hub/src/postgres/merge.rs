//! The merge on Postgres: lock, read in a later statement, let `mobo_core::merge` decide, write, commit.
//!
//! READ COMMITTED is enough: whatever decides is read after it was locked, and locks are taken in one order everywhere — lanes, records,
//! buckets, each ascending. Nothing is decided by absence, except under a lock that every maker of that thing takes.

mod buckets;
mod conflicts;
mod copy;
mod lanes;
mod log;
mod records;
mod rows;
mod samples;

pub(super) use buckets::{ensure as ensure_buckets, lock_and_read as lock_and_read_buckets};
pub(super) use lanes::{begin_above, begins as lane_begins};
use mobo_core::backoff::Backoff;
use mobo_core::ids::ProjectId;
use mobo_core::limits;
use mobo_core::merge::{Context, Merge, Placed, Rivals, Writes};
use mobo_core::schema::Schema;
use mobo_core::store::{MergeBatch, MergeReport, StoreError};
use mobo_core::time::Eff;
pub(super) use records::lock_and_read as lock_and_read_records;
pub(super) use rows::BLANK;

use super::Inner;
use super::changes;
use super::error::Failure;
use super::intake;
use super::live;
use super::quarantine;
use super::schemas;
use super::session::{Purpose, Tx};

/// Merges a batch, all of it or nothing; tries again what a retry can mend. Whoever cannot have a batch as a whole is told to part it.
pub(super) async fn merge(store: &Inner, batch: &MergeBatch) -> Result<MergeReport, StoreError> {
    let several = batch.submissions.len() > 1;
    let attempts = if several { limits::MERGE_RETRIES_MAX + 1 } else { limits::MERGE_ATTEMPTS_ALONE_MAX };
    let mut pause = Backoff::new(limits::MERGE_RETRY_MIN, limits::MERGE_RETRY_MAX);
    let mut attempt = 1;
    loop {
        match once(store, batch).await {
            Err(failure) if failure.is_retryable() && attempt < attempts => {
                tokio::time::sleep(pause.next_pause(jitter(&batch.entropy, attempt), None)).await;
                attempt += 1;
            }
            // Postgres has taken the transaction back: each of these errors says so.
            Err(failure) if several && (failure.is_retryable() || failure.is_locked_out()) => {
                return Err(match failure {
                    Failure::Sql(error) => StoreError::Contended(error.to_string()),
                    Failure::Store(error) => error,
                    Failure::Met => StoreError::Contended("SQL has made one of its records".to_owned()),
                });
            }
            done => return Ok(done?),
        }
    }
}

/// 64 bits for one pause; another hub that waits for the same rows draws others.
fn jitter(entropy: &[u8; 32], attempt: u32) -> u64 {
    let at = usize::try_from(attempt).unwrap_or_default() * 8 % entropy.len();
    entropy.get(at..).and_then(|bytes| bytes.first_chunk().copied()).map_or(u64::MAX, u64::from_le_bytes)
}

async fn once(store: &Inner, batch: &MergeBatch) -> Result<MergeReport, Failure> {
    let mut before = MergeReport::default();
    let several = batch.submissions.len() > 1;
    let patience = if several { limits::MERGE_LOCK_TIMEOUT } else { limits::MERGE_LOCK_TIMEOUT_ALONE };
    loop {
        let mut tx = Tx::begin(&store.pool, Purpose::MergeWithin(patience)).await?;
        match attempt(&mut tx, store, batch, Waiting::Matters).await {
            Ok(Attempt::Done(report, keys)) => {
                let report = tx.finish(Ok(report)).await?;
                store.known.keep_buckets(batch.project, keys);
                store.known.keep_heads(batch.project, batch.timeline, &report.hints);
                return Ok(report.behind(before));
            }
            Ok(Attempt::Nothing(report)) => {
                tx.rollback().await?;
                return Ok(report.behind(before));
            }
            Ok(Attempt::LanesMissing(missing)) => {
                tx.rollback().await?;
                make_lanes(store, batch.project, &missing).await?;
            }
            Ok(Attempt::Waiting) => {
                tx.rollback().await?;
                if let Some(report) = intake::take_in(store, batch).await? {
                    before = MergeReport { outcomes: Vec::new(), ..report }.behind(before);
                }
            }
            Err(failure) => return tx.finish(Err(failure)).await,
        }
    }
}

/// Makes lanes that are not in their table yet.
pub(super) async fn make_lanes(store: &Inner, project: ProjectId, missing: &[mobo_core::ids::LaneKey]) -> Result<(), Failure> {
    let mut tx = Tx::begin(&store.pool, Purpose::Write).await?;
    let made = lanes::make(&mut tx, project, missing).await;
    tx.finish(made).await
}

pub(super) type BucketKeys = Vec<(mobo_core::ids::BucketId, String)>;

/// How a transaction goes on.
pub(super) enum Attempt {
    /// Everything is written; and the buckets that it saw.
    Done(MergeReport, BucketKeys),
    /// There is nothing to write.
    Nothing(MergeReport),
    /// These lanes are not in their table yet: there is nothing to lock.
    LanesMissing(Vec<mobo_core::ids::LaneKey>),
    /// SQL was written into one of its records, and must be taken in first.
    Waiting,
}

/// What an attempt does about SQL that was written into its records.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Waiting {
    /// It is to be taken in first.
    Matters,
    /// It is what is being taken in: the rows are what they were before.
    IsTakenIn,
}

/// One attempt in an open transaction.
pub(super) async fn attempt(tx: &mut Tx, store: &Inner, batch: &MergeBatch, waiting: Waiting) -> Result<Attempt, Failure> {
    // Another hub of this database may have made a collection since the caller looked.
    let current = schemas::current(tx, &store.known, batch.project).await?;
    let schema = if current.rev > batch.schema.rev { &current } else { &batch.schema };
    let MergeBatch { project, timeline, now, entropy, recovering, .. } = *batch;
    let context = Context { project, schema, timeline, now, entropy, recovering };
    let merge = Merge::new(context, batch.submissions.clone());
    let reads = match lanes::lock_and_read(tx, batch.project, &merge.wants()).await? {
        lanes::Found::All(reads) => reads,
        lanes::Found::Missing(missing) => return Ok(Attempt::LanesMissing(missing)),
    };
    let admitted = merge.admit(reads);
    let records = admitted.wants();
    let (stored, blocked) = records::lock_and_read(tx, &store.known, (batch.project, schema), records).await?;
    if waiting == Waiting::Matters && intake::touches(tx, records).await? {
        return Ok(Attempt::Waiting);
    }
    let applied = admitted.apply(stored, &blocked);
    if applied.is_empty() {
        let Placed { outcomes, hints, .. } = applied.place(Vec::new(), Rivals::new());
        return Ok(Attempt::Nothing(MergeReport { outcomes, hints, ..MergeReport::default() }));
    }
    let wants = applied.wants();
    // Nobody else writes those of a locked record; the buckets come last.
    let rivals = changes::rivals(tx, batch.project, &wants.rivals).await?;
    let states = buckets::lock_and_read(tx, &store.known, batch.project, &wants).await?;
    store.known.hold(project, timeline, &states)?;
    let keys = states.iter().map(|state| (state.id, state.key.clone())).collect();
    let Placed { writes, outcomes, hints } = applied.place(states, rivals);
    write(tx, (batch.project, batch.now), schema, &writes).await?;
    Ok(Attempt::Done(MergeReport { outcomes, hints, conflicts: writes.decided() }, keys))
}

/// Writes what a merge, or a change of rules, has decided.
pub(super) async fn write(tx: &mut Tx, (project, now): (ProjectId, Eff), schema: &Schema, writes: &Writes) -> Result<(), Failure> {
    rows::write(tx, project, schema, &writes.records).await?;
    samples::write(tx, schema, &writes.samples).await?;
    buckets::write(tx, project, &writes.buckets, &writes.members).await?;
    log::write_lanes(tx, project, &writes.lanes).await?;
    log::write_entries(tx, project, &writes.entries).await?;
    log::write_quarantine(tx, (project, now), schema, &writes.quarantine).await?;
    quarantine::write(tx, (project, now), &writes.retried).await?;
    quarantine::replaced(tx, (project, now), &writes.entries).await?;
    changes::write(tx, project, &writes.changes).await?;
    conflicts::write(tx, (project, now), schema, &writes.conflicts).await?;
    conflicts::settle(tx, project, &writes.settled).await?;
    live::flush(tx, project).await
}
