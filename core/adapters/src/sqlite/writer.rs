//! The one connection that writes, on a thread of its own.
//!
//! Jobs wait in a bounded queue. The thread takes what waits, runs each job in a savepoint of one transaction, and syncs once for all of
//! them: under load a sync is shared by many (group commit). A job that fails takes back only what it did itself. An answer is given when
//! what it says is durable.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use mobo_core::limits;
use mobo_core::store::StoreError;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::error::Failure;
use crate::meter::Charged;

/// The way to the thread. Dropping it lets the thread finish what waits and end.
#[derive(Debug)]
pub(crate) struct Writer {
    jobs: Mutex<Option<mpsc::Sender<Box<dyn Job>>>>,
    ended: Mutex<Option<oneshot::Receiver<()>>>,
    counters: Arc<Counters>,
}

/// What the thread has done so far.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Transactions that were committed: about the number of syncs.
    pub(crate) commits: AtomicU64,
    /// Jobs that were committed.
    pub(crate) jobs: AtomicU64,
}

impl Writer {
    /// Starts the thread on a connection.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] when the system gives no thread.
    pub(crate) fn start(connection: Connection) -> Result<Self, StoreError> {
        let (writer, inline) = Self::inline(connection);
        let (end, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name("sqlite-writer".to_owned())
            .spawn(move || {
                inline.work();
                let _ = end.send(());
            })
            .map_err(|error| StoreError::Unavailable(format!("no thread for the writer: {error}")))?;
        Ok(Self { ended: Mutex::new(Some(ended)), ..writer })
    }

    /// A writer without a thread: its jobs are done when its other half is told to.
    pub(crate) fn inline(connection: Connection) -> (Self, InlineWriter) {
        let (jobs, queue) = mpsc::channel(limits::COMMIT_QUEUE_MAX);
        let counters = Arc::new(Counters::default());
        let (carry_at, truncate_at) = (limits::SQLITE_WAL_PAGES, limits::SQLITE_WAL_PAGES_MAX);
        let desk = Desk { connection, counters: Arc::clone(&counters), poison: None, carry_at, truncate_at };
        (Self { jobs: Mutex::new(Some(jobs)), ended: Mutex::new(None), counters }, InlineWriter { desk, queue })
    }

    /// Runs `work` in the next transaction. Ready when that is durable; when it failed, nothing of `work` has happened.
    ///
    /// The work goes on if the caller stops waiting.
    ///
    /// # Errors
    ///
    /// What `work` says, or why the transaction could not be committed.
    pub(crate) async fn run<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let charged = Charged::now();
        let work = move |connection: &Connection| charged.count(|| work(connection));
        self.enqueue(Box::new(Task { work: Some(work), done: None, answer })).await?;
        answered.await.map_err(|_| closed())?
    }

    /// Once for all kinds of work: the program is smaller.
    async fn enqueue(&self, job: Box<dyn Job>) -> Result<(), StoreError> {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(closed)?;
        jobs.send(job).await.map_err(|_| closed())
    }

    /// What the thread has done so far.
    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Finishes what waits, carries the log over into the database, and closes the connection.
    pub(crate) async fn close(&self) {
        drop(self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take());
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(ended) = ended {
            let _ = ended.await;
        }
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable("it is closed".to_owned())
}

/// A job, whatever it gives.
trait Job: Send {
    /// Does the work. Called once.
    fn run(&mut self, connection: &Connection) -> Result<(), StoreError>;

    /// Tells the caller, once the transaction's end is known.
    fn settle(self: Box<Self>, end: Result<(), StoreError>);
}

impl std::fmt::Debug for dyn Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job")
    }
}

struct Task<T, F> {
    work: Option<F>,
    done: Option<T>,
    answer: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Job for Task<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> Result<T, Failure> + Send,
{
    fn run(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let Some(work) = self.work.take() else { return Ok(()) };
        // One record that makes the code panic must not take the store away from all the others.
        let done = catch_unwind(AssertUnwindSafe(|| work(connection))).map_err(|_| {
            StoreError::Refused("this write met a defect in mobo and was taken back; please report it with the log".to_owned())
        })?;
        self.done = Some(done.map_err(StoreError::from)?);
        Ok(())
    }

    fn settle(self: Box<Self>, end: Result<(), StoreError>) {
        let Self { done, answer, .. } = *self;
        let lost = || StoreError::Unavailable("the work was not done".to_owned());
        let _ = answer.send(end.and_then(|()| done.ok_or_else(lost)));
    }
}

/// The half of a writer that does the jobs: on a thread of its own, or whenever somebody who has only one thread says so.
pub struct InlineWriter {
    desk: Desk,
    queue: mpsc::Receiver<Box<dyn Job>>,
}

impl std::fmt::Debug for InlineWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InlineWriter").field("waiting", &self.queue.len()).finish_non_exhaustive()
    }
}

impl InlineWriter {
    /// Commits what waits, as one group; false when nothing does.
    pub fn turn(&mut self) -> bool {
        let Ok(first) = self.queue.try_recv() else { return false };
        self.desk.serve(first, &mut self.queue);
        true
    }

    /// Why nothing can be written any more; `None` while all is well.
    #[must_use]
    pub fn poison(&self) -> Option<&StoreError> {
        self.desk.poison.as_ref()
    }

    fn work(mut self) {
        while let Some(first) = self.queue.blocking_recv() {
            self.desk.serve(first, &mut self.queue);
        }
        if self.desk.poison.is_none() {
            // Without it the next start would only read a longer log.
            let _ = self.desk.connection.execute_batch("PRAGMA optimize; PRAGMA wal_checkpoint(TRUNCATE);");
        }
    }
}

/// What the writer has before it.
struct Desk {
    connection: Connection,
    counters: Arc<Counters>,
    /// Why nothing can be written any more.
    poison: Option<StoreError>,
    /// Pages in the log that are not in the database yet, at which to carry them over.
    carry_at: i64,
    /// Pages in the log at which to wait for readers, so that it can begin again.
    truncate_at: i64,
}

impl Desk {
    fn serve(&mut self, first: Box<dyn Job>, queue: &mut mpsc::Receiver<Box<dyn Job>>) {
        let mut group = vec![first];
        while group.len() < limits::COMMIT_GROUP_MAX
            && let Ok(next) = queue.try_recv()
        {
            group.push(next);
        }
        self.settle(group);
        self.checkpoint();
    }

    fn settle(&mut self, mut group: Vec<Box<dyn Job>>) {
        let ends = match &self.poison {
            Some(error) => Err(error.clone()),
            None => self.transact(&mut group),
        };
        match ends {
            Ok(ends) => {
                let committed = ends.iter().filter(|end| end.is_ok()).count() as u64;
                self.counters.commits.fetch_add(1, Ordering::Relaxed);
                self.counters.jobs.fetch_add(committed, Ordering::Relaxed);
                group.into_iter().zip(ends).for_each(|(job, end)| job.settle(end));
            }
            Err(error) => {
                // Without a transaction there is nothing to roll back, and the answer would say so.
                let _ = self.execute("ROLLBACK");
                self.note(&error);
                group.into_iter().for_each(|job| job.settle(Err(error.clone())));
            }
        }
    }

    /// All jobs in one transaction; an error means that nothing of any of them has happened.
    fn transact(&self, group: &mut [Box<dyn Job>]) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        self.execute("BEGIN IMMEDIATE")?;
        let mut ends = Vec::with_capacity(group.len());
        for job in group {
            self.execute("SAVEPOINT job")?;
            let end = job.run(&self.connection);
            match &end {
                Ok(()) => {}
                Err(error @ (StoreError::Full(_) | StoreError::Poisoned(_))) if mobo_core::protect!("group.failed-job:write", true) => {
                    return Err(error.clone());
                }
                // SQLite has taken back the whole transaction by itself.
                Err(error) if self.connection.is_autocommit() => return Err(error.clone()),
                Err(_) if mobo_core::protect!("group.failed-job:other", true) => self.execute("ROLLBACK TO job")?,
                Err(_) => {}
            }
            self.execute("RELEASE job")?;
            ends.push(end);
        }
        self.execute("COMMIT")?;
        Ok(ends)
    }

    fn execute(&self, sql: &str) -> Result<(), StoreError> {
        let run = || -> Result<(), Failure> { Ok(self.connection.prepare_cached(sql)?.raw_execute().map(|_| ())?) };
        run().map_err(StoreError::from)
    }

    /// Carries the log over into the database, after everybody has had their answer. Readers may hold it up: then it is tried again later,
    /// and once the log is long the writer waits for them.
    fn checkpoint(&mut self) {
        if self.poison.is_some() {
            return;
        }
        let Ok((pages, done)) = self.carry_over("NOOP") else { return };
        if pages < limits::SQLITE_WAL_PAGES_MAX {
            self.truncate_at = limits::SQLITE_WAL_PAGES_MAX;
        }
        let mode = match () {
            () if pages >= self.truncate_at => "TRUNCATE",
            () if pages - done >= self.carry_at => "PASSIVE",
            () => return,
        };
        let waits = mode == "TRUNCATE";
        if waits {
            let _ = self.connection.busy_timeout(limits::SQLITE_WAL_WAIT);
        }
        let (pages, done) = self.carry_over(mode).unwrap_or_else(|failure| {
            self.note(&failure.into());
            (pages, done)
        });
        if waits {
            let _ = self.connection.busy_timeout(limits::SQLITE_BUSY_TIMEOUT);
        }
        self.carry_at = pages - done + limits::SQLITE_WAL_PAGES;
        // Where the wait was in vain, a reader stays for long, such as a backup: the next wait is far off, so that all of them together are short.
        self.truncate_at = if waits { limits::SQLITE_WAL_PAGES_MAX.max(2 * pages) } else { self.truncate_at };
    }

    /// Pages in the log, and how many of them are in the database.
    fn carry_over(&self, mode: &str) -> Result<(i64, i64), Failure> {
        let mut statement = self.connection.prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?;
        Ok(statement.query_row([], |row| Ok((row.get(1)?, row.get(2)?)))?)
    }

    fn note(&mut self, error: &StoreError) {
        if let StoreError::Poisoned(why) = error {
            tracing::error!(why, "the store failed while writing; it takes no more writes until it is opened again");
            if mobo_core::protect!("writer.poison", true) {
                self.poison.get_or_insert_with(|| error.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests;
