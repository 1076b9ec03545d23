//! The one queue into the store: pushes of all sessions and writes of the API, merged in micro-batches.
//!
//! While one batch commits, the next gathers: a lone write waits for nobody, a crowd shares one transaction (replication.md D4).

use std::fmt;
use std::sync::Arc;

use mobo_core::engine::Refusal;
use mobo_core::ids::{ProjectId, Timeline};
use mobo_core::limits;
use mobo_core::merge::prepare::{Content, PreparedEntry, PreparedPush};
use mobo_core::merge::{Hint, LocalBody, Outcome, Prepared};
use mobo_core::message::Code;
use mobo_core::schema::Schema;
use mobo_core::store::{HubStore, MergeBatch, MergeReport, StoreError};
use mobo_runtime::entropy;
use mobo_runtime::tasks::Tasks;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::hub_time::HubTime;

/// How often one push alone may fail before its entries go to quarantine.
const ATTEMPTS_MAX: u32 = 3;

struct Job {
    submission: Prepared,
    reply: oneshot::Sender<Result<Outcome, StoreError>>,
}

/// Hands submissions to the merger.
#[derive(Clone)]
pub struct MergeQueue {
    jobs: mpsc::Sender<Job>,
    hints: broadcast::Sender<Arc<Vec<Hint>>>,
}

impl fmt::Debug for MergeQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MergeQueue").field("waiting", &(self.jobs.max_capacity() - self.jobs.capacity())).finish_non_exhaustive()
    }
}

/// What became of a submission, once it is known.
pub type Verdict = oneshot::Receiver<Result<Outcome, StoreError>>;

impl MergeQueue {
    /// Queues a submission; waits while the queue is full. Submissions of one caller keep their order.
    pub async fn submit(&self, submission: Prepared) -> Verdict {
        let (reply, verdict) = oneshot::channel();
        // A merger that is gone drops the reply, which the receiver sees.
        let _ = self.jobs.send(Job { submission, reply }).await;
        verdict
    }

    /// Queues a submission and waits for what becomes of it.
    ///
    /// # Errors
    ///
    /// The store's; [`StoreError::Unavailable`] when the hub is stopping.
    pub async fn merge(&self, submission: Prepared) -> Result<Outcome, StoreError> {
        self.submit(submission).await.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Changed buckets, after each commit.
    #[must_use]
    pub fn hints(&self) -> broadcast::Receiver<Arc<Vec<Hint>>> {
        self.hints.subscribe()
    }
}

/// The error of a merger that is gone.
#[must_use]
pub fn stopped() -> StoreError {
    StoreError::Unavailable("the hub is stopping".to_owned())
}

/// What the merger works with.
#[derive(Debug)]
pub struct Merger {
    /// The store.
    pub store: Arc<dyn HubStore>,
    /// The project.
    pub project: ProjectId,
    /// The hub's history.
    pub timeline: Timeline,
    /// The hub's time.
    pub time: Arc<HubTime>,
    /// The collections.
    pub schema: watch::Receiver<Arc<Schema>>,
}

impl Merger {
    /// Starts merging and gives the queue to it.
    #[must_use]
    pub fn spawn(self, tasks: &Tasks) -> MergeQueue {
        let (jobs, mut inbox) = mpsc::channel(limits::MERGE_QUEUE_MAX);
        let (hints, _) = broadcast::channel(limits::HINTS_MAX);
        let (queue, stopping) = (MergeQueue { jobs, hints: hints.clone() }, tasks.stopping());
        tasks.spawn("merge", async move {
            loop {
                let first = tokio::select! {
                    biased;
                    job = inbox.recv() => job,
                    () = stopping.cancelled() => {
                        inbox.close();
                        inbox.recv().await
                    }
                };
                let Some(first) = first else { return };
                let batch = gather(first, &mut inbox);
                let report = self.run(batch).await;
                if !report.is_empty() {
                    let _ = hints.send(Arc::new(report));
                }
            }
        });
        queue
    }

    /// Merges a batch and answers everybody in it; gives what changed.
    async fn run(&self, batch: Vec<Job>) -> Vec<Hint> {
        let (submissions, replies): (Vec<Prepared>, Vec<_>) = batch.into_iter().map(|job| (job.submission, job.reply)).unzip();
        match self.merge(submissions.clone()).await {
            Ok(report) => {
                for (outcome, reply) in report.outcomes.into_iter().zip(replies) {
                    let _ = reply.send(Ok(outcome));
                }
                report.hints
            }
            // The store is away or broken: everybody tries again later. Nothing was lost, nothing is done twice.
            Err(error @ (StoreError::Unavailable(_) | StoreError::Full(_) | StoreError::Poisoned(_))) => {
                tracing::warn!(%error, submissions = replies.len(), "a batch was not merged");
                for reply in replies {
                    let _ = reply.send(Err(error.clone()));
                }
                Vec::new()
            }
            Err(StoreError::Damaged(why) | StoreError::Refused(why)) => self.one_by_one(submissions, replies, &why).await,
        }
    }

    /// A batch that cannot be merged as a whole: the one to blame must not take its neighbours with it.
    async fn one_by_one(
        &self,
        submissions: Vec<Prepared>,
        replies: Vec<oneshot::Sender<Result<Outcome, StoreError>>>,
        why: &str,
    ) -> Vec<Hint> {
        tracing::error!(why, submissions = submissions.len(), "a batch could not be merged; merging one by one");
        let mut hints = Vec::new();
        for (submission, reply) in submissions.into_iter().zip(replies) {
            let result = self.alone(submission).await.map(|report| {
                hints.extend(report.hints);
                report.outcomes.into_iter().next()
            });
            let _ = reply.send(match result {
                Ok(Some(outcome)) => Ok(outcome),
                Ok(None) => Err(StoreError::Damaged("the store gave no outcome".to_owned())),
                Err(error) => Err(error),
            });
        }
        hints
    }

    async fn alone(&self, submission: Prepared) -> Result<MergeReport, StoreError> {
        let mut attempt = 1;
        loop {
            match self.merge(vec![submission.clone()]).await {
                Err(StoreError::Damaged(why) | StoreError::Refused(why)) if attempt == ATTEMPTS_MAX => {
                    return match poisoned(&submission, &why) {
                        Some(quarantined) => self.merge(vec![quarantined]).await,
                        None => Err(StoreError::Refused(why)),
                    };
                }
                Err(StoreError::Damaged(_) | StoreError::Refused(_)) => attempt += 1,
                other => return other,
            }
        }
    }

    async fn merge(&self, submissions: Vec<Prepared>) -> Result<MergeReport, StoreError> {
        let entropy = entropy::bytes().map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let schema = Arc::clone(&self.schema.borrow());
        let batch = MergeBatch { project: self.project, schema, timeline: self.timeline, now: self.time.now(), entropy, submissions };
        self.store.merge(batch).await
    }
}

/// The first job and whatever waits behind it, within the limits of one transaction.
fn gather(first: Job, inbox: &mut mpsc::Receiver<Job>) -> Vec<Job> {
    let (mut entries, mut ops) = size(&first.submission);
    let mut batch = vec![first];
    while entries < limits::MERGE_ENTRIES_MAX && ops < limits::MERGE_OPS_MAX {
        let Ok(job) = inbox.try_recv() else { break };
        let (more_entries, more_ops) = size(&job.submission);
        (entries, ops) = (entries + more_entries, ops + more_ops);
        batch.push(job);
    }
    batch
}

fn size(submission: &Prepared) -> (usize, usize) {
    match submission {
        Prepared::Local(write) => match &write.body {
            LocalBody::Edits(edits) => (1, edits.len()),
            LocalBody::Append(segment) => (1, segment.before_us.len()),
        },
        Prepared::Push(push) => {
            let ops = |entry: &Arc<PreparedEntry>| match &entry.content {
                Content::Table(ops) => ops.len(),
                Content::Document(ops) => ops.len(),
                Content::Stream | Content::Lost | Content::Poison(_) => 1,
            };
            (push.entries.len(), push.entries.iter().map(ops).sum())
        }
    }
}

/// The push with every entry marked as what it is: something that this hub cannot merge. Its positions are used, its bytes are kept.
fn poisoned(submission: &Prepared, why: &str) -> Option<Prepared> {
    let Prepared::Push(push) = submission else { return None };
    let refusal = Refusal::new(Code::UNMERGEABLE, format!("merging it failed {ATTEMPTS_MAX} times: {why}"));
    let entry = |entry: &Arc<PreparedEntry>| {
        Arc::new(PreparedEntry {
            seq: entry.seq,
            entry: entry.entry.clone(),
            eid: entry.eid,
            chain: entry.chain,
            header: entry.header.clone(),
            content: Content::Poison(refusal.clone()),
            eff: entry.eff,
        })
    };
    let entries = push.entries.iter().map(entry).collect();
    Some(Prepared::Push(Box::new(PreparedPush { entries, rights: push.rights.clone(), ..PreparedPush::clone(push) })))
}
