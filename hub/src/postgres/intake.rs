//! SQL that was written into the tables of collections, taken in as writes of the hub's own (rule R24).
//!
//! Triggers note each row as it was and as it is. The intake takes what is committed, makes each row again what it was before the first
//! statement that touched it, and merges what was done to it, a transaction as one entry, in the order in which they were committed. A merge
//! that finds a record of its own waiting here takes it in first, and begins again: no merge works on a row that nobody has stamped.

mod claim;
mod notes;

use std::collections::BTreeSet;

use mobo_core::ids::{BootId, DeviceId, Lane, Nonce, RecordKey, Ver};
use mobo_core::limits;
use mobo_core::merge::{HubAuthor, LocalBody, LocalWrite, Outcome, Prepared};
use mobo_core::store::{MergeBatch, MergeReport};
use mobo_core::time::{Moment, Mono, Wall, WallQuality};
use sqlx::Row;

use super::Inner;
use super::error::{Failure, known};
use super::hub;
use super::merge::{self, Attempt, Waiting};
use super::schemas;
use super::session::{Purpose, Tx};
use notes::{Noted, Said, Work};

/// One intake at a time, in all hubs of the database. Any number, as long as it is the same in every hub.
const LOCK: i64 = 0x6d6f_626f_696e_746b;

/// True if something waits.
pub(super) async fn waits(tx: &mut Tx) -> Result<bool, Failure> {
    let row = tx.row(sqlx::query("SELECT EXISTS (SELECT 1 FROM mobo.intake)")).await?;
    Ok(known(row, "answer")?.try_get(0)?)
}

/// True if one of these records waits.
pub(super) async fn touches(tx: &mut Tx, keys: &BTreeSet<RecordKey>) -> Result<bool, Failure> {
    if keys.is_empty() || !waits(tx).await? {
        return Ok(false);
    }
    let (collections, ids): (Vec<i64>, Vec<&str>) = keys.iter().map(|key| (key.collection.sql(), key.id.as_str())).unzip();
    let look = sqlx::query(
        "SELECT EXISTS (SELECT 1 FROM mobo.intake i JOIN unnest($1::int8[], $2::text[]) AS w(collection, id) USING (collection, id))",
    );
    let row = tx.row(look.bind(collections).bind(ids)).await?;
    Ok(known(row, "answer")?.try_get(0)?)
}

/// Takes in the oldest of what is committed, and a bounded part of it; `None` when there is nothing.
pub(super) async fn take_in(store: &Inner, batch: &MergeBatch) -> Result<Option<MergeReport>, Failure> {
    let mut tx = Tx::begin(&store.pool, Purpose::Read).await?;
    let waits = waits(&mut tx).await;
    if !tx.finish(waits).await? {
        return Ok(None);
    }
    let mut attempt = 0;
    loop {
        let mut tx = Tx::begin(&store.pool, Purpose::Merge).await?;
        match taking(&mut tx, store, batch).await {
            Ok(Attempt::Done(report, keys)) => {
                let report = tx.finish(Ok(report)).await?;
                store.known.keep_buckets(batch.project, keys);
                return Ok(Some(report));
            }
            Ok(Attempt::LanesMissing(missing)) => {
                tx.rollback().await?;
                merge::make_lanes(store, batch.project, &missing).await?;
            }
            Ok(Attempt::Nothing(report)) => return tx.finish(Ok(Some(report))).await,
            Ok(Attempt::Waiting) => return tx.finish(Err(Failure::damaged("an intake waits for itself"))).await,
            // What was written meanwhile is taken in together with the rest.
            Err(failure) if failure.is_met() && attempt < limits::MERGE_RETRIES_MAX => {
                tx.rollback().await?;
                attempt += 1;
            }
            Err(failure) => return tx.finish(Err(failure)).await,
        }
    }
}

async fn taking(tx: &mut Tx, store: &Inner, batch: &MergeBatch) -> Result<Attempt, Failure> {
    tx.patient().await?;
    tx.standing = Some(BTreeSet::new());
    tx.run(sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK)).await?;
    let schema = schemas::current(tx, &store.known, batch.project).await?;
    let hub = hub::read(tx).await?;
    let author = HubAuthor { device: DeviceId::of(&hub.key), incarnation: hub.incarnation };
    // Lanes before records, as everybody locks them.
    let lanes = sqlx::query("SELECT lane FROM mobo.lane WHERE project = $1 AND device = $2 AND incarnation = $3 ORDER BY lane FOR UPDATE");
    tx.rows(lanes.bind(batch.project.sql()).bind(author.device.0).bind(author.incarnation.sql())).await?;
    let claimed = claim::claim(tx, &schema).await?;
    let batch = MergeBatch { schema, submissions: Vec::new(), ..batch.clone() };
    let mut intake = Intake { store, batch, author, keys: Vec::new(), report: MergeReport::default(), is_changed: false };
    let mut rest = claimed.as_slice();
    while !rest.is_empty() {
        // As many whole transactions as are few rows, or a longer one in pieces.
        let mut rows = 0_usize;
        let fit = rest.iter().take_while(|claimed| {
            rows = rows.saturating_add(claimed.rows);
            rows <= limits::HUB_INTAKE_ROWS_MAX
        });
        let (now, later) = rest.split_at(fit.count().max(1));
        rest = later;
        let txids: Vec<i64> = now.iter().map(|claimed| claimed.txid).collect();
        let said = said(tx, &txids).await?;
        loop {
            let noted = noted(tx, &txids).await?;
            if noted.is_empty() {
                break;
            }
            if let Some(other) = intake.take(tx, &noted, &said).await? {
                return Ok(other);
            }
            intake.sweep(tx, limits::HUB_INTAKE_ROWS_MAX).await?;
        }
    }
    intake.sweep(tx, 0).await?;
    Ok(if intake.is_changed { Attempt::Done(intake.report, intake.keys) } else { Attempt::Nothing(intake.report) })
}

/// Takes some notes of transactions, the oldest first.
async fn noted(tx: &mut Tx, txids: &[i64]) -> Result<Vec<Noted>, Failure> {
    let take = sqlx::query(
        "DELETE FROM mobo.intake WHERE n IN (SELECT n FROM mobo.intake WHERE txid = ANY($1) ORDER BY n LIMIT $2) \
         RETURNING n, txid, collection, id, old::text, new::text",
    );
    let rows_max = i64::try_from(limits::HUB_INTAKE_ROWS_MAX).unwrap_or(i64::MAX);
    let rows = tx.rows(take.bind(txids).bind(rows_max)).await?;
    let mut noted = rows.iter().map(notes::note).collect::<Result<Vec<Noted>, Failure>>()?;
    noted.sort_unstable_by_key(|noted| noted.n);
    Ok(noted)
}

/// Takes what transactions say to have read.
async fn said(tx: &mut Tx, txids: &[i64]) -> Result<Said, Failure> {
    let take = sqlx::query("DELETE FROM mobo.intake_seen WHERE txid = ANY($1) RETURNING txid, collection, id, ver").bind(txids);
    let mut said = Said::new();
    for row in tx.rows(take).await? {
        let ver = Ver(u64::try_from(row.try_get::<i64, _>(3)?).unwrap_or_default());
        let least = said.entry((row.try_get(0)?, notes::key(&row, 1)?)).or_insert(ver);
        *least = ver.min(*least);
    }
    Ok(said)
}

/// An intake at work.
struct Intake<'s> {
    store: &'s Inner,
    batch: MergeBatch,
    author: HubAuthor,
    keys: merge::BucketKeys,
    report: MergeReport,
    is_changed: bool,
}

impl Intake<'_> {
    /// Merges what was noted; `Some` where that cannot be done yet.
    async fn take(&mut self, tx: &mut Tx, noted: &[Noted], said: &Said) -> Result<Option<Attempt>, Failure> {
        if let Some(standing) = &mut tx.standing {
            standing.extend(noted.iter().filter(|noted| noted.is_insert()).map(|noted| noted.key.clone()));
        }
        let works = notes::works(&self.batch.schema, noted, said);
        for round in notes::rounds(&works, said) {
            let (round, wrong): (Vec<&Work<'_>>, Vec<&Work<'_>>) = round.iter().partition(|work| !work.edits.is_empty());
            for work in wrong {
                refuse(tx, work, work.wrong.as_deref().unwrap_or_default()).await?;
                self.is_changed = true;
            }
            let submissions: Vec<Prepared> = round.iter().filter_map(|work| self.local(work)).collect();
            let own = MergeBatch { submissions, ..self.batch.clone() };
            let report = match merge::attempt(tx, self.store, &own, Waiting::IsTakenIn).await? {
                Attempt::Done(report, keys) => {
                    self.keys.extend(keys);
                    self.is_changed = true;
                    report
                }
                Attempt::Nothing(report) => report,
                other @ (Attempt::LanesMissing(_) | Attempt::Waiting) => return Ok(Some(other)),
            };
            for (outcome, work) in report.outcomes.iter().zip(round) {
                if let Outcome::Refused(error) = outcome {
                    refuse(tx, work, &error.to_string()).await?;
                }
            }
            let before = std::mem::take(&mut self.report);
            self.report = MergeReport { outcomes: Vec::new(), ..report }.behind(before);
        }
        Ok(None)
    }

    /// Takes away the rows that only stand there, where they are more than `most`.
    async fn sweep(&self, tx: &mut Tx, most: usize) -> Result<(), Failure> {
        match tx.standing.take() {
            Some(standing) if standing.len() > most => {
                tx.standing = Some(BTreeSet::new());
                claim::sweep(tx, &self.batch.schema, &standing).await
            }
            standing => {
                tx.standing = standing;
                Ok(())
            }
        }
    }

    fn local(&self, work: &Work<'_>) -> Option<Prepared> {
        let collection = work.edits.first()?.collection;
        let lane = self.author.lane(Lane::State);
        let random = self.batch.entropy.first_chunk().copied().map_or(0, u64::from_le_bytes);
        // The number of its first note is its own: what says the same as an earlier one is another entry (rule R15), in this call and in the next.
        let nonce = Nonce(random.wrapping_add(work.noted.first()?.n.cast_unsigned()).to_le_bytes());
        let moment = Moment { boot: BootId([0; 8]), mono: Mono(0), wall: Wall(self.batch.now.0), quality: WallQuality::Set };
        let body = LocalBody::Seen(work.edits.clone());
        Some(Prepared::Local(Box::new(LocalWrite { lane, collection, body, moment, nonce, author: Some("sql".to_owned()), bounds: None })))
    }
}

async fn refuse(tx: &mut Tx, work: &Work<'_>, why: &str) -> Result<(), Failure> {
    tracing::warn!(why, rows = work.noted.len(), "a transaction of SQL cannot be taken in: its rows are as they were before");
    let collections: Vec<i64> = work.noted.iter().map(|noted| noted.key.collection.sql()).collect();
    let ids: Vec<&str> = work.noted.iter().map(|noted| noted.key.id.as_str()).collect();
    let news: Vec<Option<String>> = work.noted.iter().map(|noted| noted.shown()).collect();
    let insert = sqlx::query(
        "INSERT INTO mobo.intake_refused(collection, id, new, detail) SELECT w.collection, w.id, w.new::jsonb, $4 \
         FROM unnest($1::int8[], $2::text[], $3::text[]) AS w(collection, id, new)",
    );
    tx.run(insert.bind(collections).bind(ids).bind(news).bind(why)).await?;
    // A program that repeats itself fills nothing.
    let cut = sqlx::query("DELETE FROM mobo.intake_refused WHERE n <= (SELECT max(n) FROM mobo.intake_refused) - $1");
    tx.run(cut.bind(i64::try_from(limits::INTAKE_REFUSED_MAX).unwrap_or(i64::MAX))).await.map(|_| ())
}
