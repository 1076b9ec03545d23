//! The one queue into the store: pushes of all sessions and writes of the API, merged in micro-batches.
//!
//! While one batch commits, the next gathers: a lone write waits for nobody, a crowd shares one transaction (replication.md D4).

mod cost;
mod parts;

use std::fmt;
use std::sync::Arc;

use mobo_core::ids::ProjectId;
use mobo_core::kernel::topics;
use mobo_core::limits;
use mobo_core::merge::{Hint, Outcome, Prepared};
use mobo_core::schema::Schema;
use mobo_core::store::{HubStore, MergeBatch, MergeReport, StoreError};
use mobo_core::time::Eff;
use mobo_runtime::bus::Bus;
use mobo_runtime::machine;
use mobo_runtime::tasks::Tasks;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

pub(crate) use self::cost::kept;
use self::parts::Merges;
use crate::history::History;
use crate::hub_time::HubTime;
use crate::metrics;

struct Job {
    submission: Prepared,
    reply: oneshot::Sender<Result<Outcome, StoreError>>,
}

/// What a commit changed, for live sessions.
#[derive(Clone, Debug)]
pub enum News {
    /// These buckets.
    Buckets(Arc<Vec<Hint>>),
    /// It is not known: a merge failed that may have been committed. Every session looks at its buckets again.
    Unknown,
}

/// Hands submissions to the merger.
#[derive(Clone)]
pub struct MergeQueue {
    jobs: mpsc::Sender<Job>,
    news: broadcast::Sender<News>,
    bytes: watch::Sender<u64>,
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

    /// Tells what a commit beside the queue has changed.
    pub fn tell(&self, hints: Vec<Hint>) {
        if !hints.is_empty() {
            let _ = self.news.send(News::Buckets(Arc::new(hints)));
        }
    }

    /// What changed, after each commit, and after each merge that may have been one.
    #[must_use]
    pub fn hints(&self) -> broadcast::Receiver<News> {
        self.news.subscribe()
    }

    /// About how many bytes of payload went into the store since the hub was started; grows with each batch, and wakes whoever waits for it
    /// every [`limits::BACKUP_STEP_BYTES`].
    #[must_use]
    pub fn bytes(&self) -> watch::Receiver<u64> {
        self.bytes.subscribe()
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
    pub history: Arc<History>,
    /// The hub's time.
    pub time: Arc<HubTime>,
    /// The collections.
    pub schema: watch::Receiver<Arc<Schema>>,
    /// Whom to tell of decisions; nobody in a simulator.
    pub bus: Option<Bus>,
}

impl Merger {
    /// Starts merging and gives the queue to it.
    #[must_use]
    pub fn spawn(self, tasks: &Tasks) -> MergeQueue {
        let ((queue, mut desk), stopping) = (self.desk(), tasks.stopping());
        tasks.spawn("merge", async move {
            loop {
                let first = tokio::select! {
                    biased;
                    job = desk.inbox.recv() => job,
                    () = stopping.cancelled() => {
                        desk.inbox.close();
                        desk.inbox.recv().await
                    }
                };
                let Some(first) = first else { return };
                desk.merge(first).await;
            }
        });
        queue
    }

    /// The queue, and the other end of it, which merges only when it is told to.
    #[must_use]
    pub fn desk(self) -> (MergeQueue, MergeDesk) {
        let (jobs, inbox) = mpsc::channel(limits::MERGE_QUEUE_MAX);
        let (news, _) = broadcast::channel(limits::HINTS_MAX);
        let bytes = watch::Sender::new(0);
        (MergeQueue { jobs, news: news.clone(), bytes: bytes.clone() }, MergeDesk { merger: self, inbox, news, bytes })
    }
}

/// The end of the queue at which submissions are merged.
pub struct MergeDesk {
    merger: Merger,
    inbox: mpsc::Receiver<Job>,
    news: broadcast::Sender<News>,
    bytes: watch::Sender<u64>,
}

impl fmt::Debug for MergeDesk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MergeDesk").field("waiting", &self.inbox.len()).finish_non_exhaustive()
    }
}

impl MergeDesk {
    /// True if something waits to be merged.
    #[must_use]
    pub fn waits(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Merges what waits, as one batch; false when nothing does.
    pub async fn turn(&mut self) -> bool {
        let Ok(first) = self.inbox.try_recv() else { return false };
        self.merge(first).await;
        true
    }

    async fn merge(&mut self, first: Job) {
        let batch = gather(first, &mut self.inbox);
        let bytes: u64 = batch.iter().map(|job| cost::bytes(&job.submission)).sum();
        parts::run(&self.merger, batch, &self.news).await;
        self.bytes.send_if_modified(|total| {
            let steps = *total / limits::BACKUP_STEP_BYTES;
            *total += bytes;
            *total / limits::BACKUP_STEP_BYTES > steps
        });
    }
}

impl Merges for Merger {
    async fn merge(&self, submissions: Vec<Prepared>) -> Result<MergeReport, StoreError> {
        let entropy = machine::random(self.time.machine())?;
        let schema = Arc::clone(&self.schema.borrow());
        let era = self.history.era();
        if era.recovering {
            self.time.recall(era.found_out, told(&submissions)).await?;
        }
        let batch = MergeBatch {
            project: self.project,
            schema,
            timeline: era.timeline.timeline,
            recovering: era.recovering,
            now: self.time.now(),
            entropy,
            submissions,
        };
        let schema = Arc::clone(&batch.schema);
        let report = metrics::timed("merge", self.store.merge(batch)).await?;
        metrics::merged(&schema, &report);
        if let (Some(bus), false) = (&self.bus, report.conflicts.is_empty()) {
            let entries = report.outcomes.len() as u64;
            bus.publish(topics::conflicts(report.conflicts.values().sum(), entries));
        }
        Ok(report)
    }
}

/// When entries of these were made, as a hub has decided earlier.
fn told(submissions: &[Prepared]) -> impl Iterator<Item = Eff> + use<'_> {
    let pushes = submissions.iter().filter_map(|submission| match submission {
        Prepared::Push(push) => Some(push),
        Prepared::Local(_) | Prepared::Retry(_) => None,
    });
    pushes.flat_map(|push| &push.entries).filter_map(|entry| entry.eff)
}

/// The first job and whatever waits behind it, within the limits of one transaction.
fn gather(first: Job, inbox: &mut mpsc::Receiver<Job>) -> Vec<Job> {
    let (mut entries, mut cost) = cost::of(&first.submission);
    let mut batch = vec![first];
    while entries < limits::MERGE_ENTRIES_MAX && cost < limits::MERGE_COST_MAX {
        let Ok(job) = inbox.try_recv() else { break };
        let (more_entries, more_cost) = cost::of(&job.submission);
        (entries, cost) = (entries + more_entries, cost + more_cost);
        batch.push(job);
    }
    batch
}

#[cfg(test)]
mod tests {
    use mobo_adapters::sqlite::SqliteHubStore;
    use mobo_core::store::Arrival;
    use mobo_core::trust::KeyPair;
    use mobo_runtime::clock::Clock;

    use super::*;
    use mobo_core::entry::chain_start;
    use mobo_core::ids::Incarnation;

    /// What broke: a hub that had gone back by more than a leap decided anew when the entries were made that devices gave back to it, and rows that
    /// they gave back then had it as before: what was written last lost. A device alone moves no time of a hub that has lost nothing.
    #[tokio::test]
    async fn r7_a_decision_that_is_given_back_stands_while_the_hub_recovers() {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn HubStore> = Arc::new(SqliteHubStore::open(&folder.path().join("hub.db")).unwrap());
        let opened = crate::node::assemble(store, &KeyPair::from_secret(&[7; 32]), Arc::new(Clock::start().unwrap())).await.unwrap();
        for recovering in [false, true] {
            if recovering {
                let lost = opened.history.era().timeline.timeline;
                opened.history.fork(lost, Vec::new()).await.unwrap();
            }
            let Prepared::Push(mut push) = cost::tests::push(vec![cost::tests::document(1)]) else { panic!("a push") };
            push.lane.incarnation = Incarnation::new(5 + u64::from(recovering)).unwrap();
            let (device, incarnation, now) = (push.lane.device, push.lane.incarnation, opened.time.now());
            let arrival = Arrival { device, incarnation, parent: None, ordinal: None, boot: None, now, session: 0 };
            opened.store.arrive(opened.project, arrival).await.unwrap();
            push.prev_chain = chain_start(opened.project, &push.lane);
            let told = now.plus(120_000_000);
            Arc::get_mut(&mut push.entries[0]).unwrap().eff = Some(told);
            let (store, history, time) = (Arc::clone(&opened.store), Arc::clone(&opened.history), Arc::clone(&opened.time));
            let merger = Merger { store, project: opened.project, history, time, schema: opened.schema.subscribe(), bus: None };
            let report = merger.merge(vec![Prepared::Push(push)]).await.unwrap();
            let [Outcome::Merged(merged)] = report.outcomes.as_slice() else { panic!("{:?}", report.outcomes) };
            assert_eq!(merged.effs == [told], recovering, "{:?}, and it was told {told:?}", merged.effs);
            assert_eq!(opened.time.now() >= told, recovering, "recovering: {recovering}");
        }
    }
}
