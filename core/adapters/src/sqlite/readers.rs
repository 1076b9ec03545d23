//! Connections that only read, each read in one snapshot.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mobo_core::limits;
use mobo_core::store::StoreError;
use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::apart::{self, broken};
use super::error::Failure;
use super::open::open_reader_on;
use crate::meter::carried;

/// A few connections, opened when they are first needed.
#[derive(Clone, Debug)]
pub(crate) struct Readers {
    pool: Arc<Pool>,
}

#[derive(Debug)]
struct Pool {
    path: PathBuf,
    cache_kib: u32,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
    connections_max: usize,
    pace: Pace,
    /// The file system, where it is the caller's; reads run on the caller's thread then.
    vfs: Option<String>,
}

impl Readers {
    /// At most `connections_max` at the same time; others wait.
    pub(crate) fn new(path: PathBuf, connections_max: usize, cache_kib: u32) -> Self {
        Self::on((path, None), connections_max, cache_kib)
    }

    /// The same in a file system of the caller's, where every read runs on the caller's thread.
    pub(crate) fn on((path, vfs): (PathBuf, Option<String>), connections_max: usize, cache_kib: u32) -> Self {
        let permits = Arc::new(Semaphore::new(connections_max));
        let (idle, pace) = (Mutex::default(), Pace::default());
        Self { pool: Arc::new(Pool { path, cache_kib, idle, permits, connections_max, pace, vfs }) }
    }

    /// Where the database is: its path, and the file system where that is the caller's.
    pub(crate) fn place(&self) -> (PathBuf, Option<String>) {
        (self.pool.path.clone(), self.pool.vfs.clone())
    }

    /// Runs `work` in one read transaction: everything that it reads is of one moment, the latest commit before its first statement.
    ///
    /// # Errors
    ///
    /// What `work` says, or [`StoreError::Unavailable`] after [`close`](Self::close).
    pub(crate) async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    {
        let closed = |_| StoreError::Unavailable("it is closed".to_owned());
        let permit = Arc::clone(&self.pool.permits).acquire_owned().await.map_err(closed)?;
        if self.pool.vfs.is_some() {
            return Ok(self.pool.read(work)?);
        }
        let pool = Arc::clone(&self.pool);
        apart::on_a_thread(carried(move || {
            let done = pool.read(work);
            drop(permit);
            done
        }))
        .await
    }

    /// The same for work that looks at a few pages, and so takes less time than waking a thread: it is done where the caller is. Where the disk
    /// makes it slow it goes to threads of its own again, so that no task of the caller's waits for a disk more than now and then.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub(crate) async fn glance<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    {
        if self.pool.pace.is_slow() {
            return self.read(work).await;
        }
        // Nobody is overtaken who waits for a connection.
        let Ok(_permit) = self.pool.permits.try_acquire() else { return self.read(work).await };
        let began = Instant::now();
        let done = catch_unwind(AssertUnwindSafe(|| self.pool.read(work)));
        self.pool.pace.took(began.elapsed());
        Ok(done.map_err(|_| broken("a panic"))??)
    }

    /// Waits for the reads under way and closes the connections.
    pub(crate) async fn close(&self) {
        let _all = self.pool.permits.acquire_many(u32::try_from(self.pool.connections_max).unwrap_or(u32::MAX)).await;
        self.pool.permits.close();
        self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Whether reads of a few pages are quick at present.
#[derive(Debug, Default)]
struct Pace {
    /// As many of the next reads are done elsewhere.
    away: AtomicU32,
    /// As many were, after the last one that was slow; 0 after one that was quick.
    penalty: AtomicU32,
}

impl Pace {
    /// True where this read is better done elsewhere. Counts of a crowd need not be exact.
    fn is_slow(&self) -> bool {
        let away = self.away.load(Ordering::Relaxed);
        if away > 0 {
            self.away.store(away - 1, Ordering::Relaxed);
        }
        away > 0
    }

    /// One took so long: a slow one sends the next ones away, and more of them each time that it comes right after those.
    fn took(&self, time: Duration) {
        let penalty = self.penalty.load(Ordering::Relaxed);
        if time > limits::SQLITE_GLANCE_MAX {
            let more = penalty.saturating_mul(4).clamp(limits::SQLITE_AWAY_MIN, limits::SQLITE_AWAY_MAX);
            self.penalty.store(more, Ordering::Relaxed);
            self.away.store(more, Ordering::Relaxed);
        } else if penalty > 0 {
            self.penalty.store(0, Ordering::Relaxed);
        }
    }
}

impl Pool {
    fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, Failure>) -> Result<T, Failure> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => open_reader_on((&self.path, self.vfs.as_deref()), self.cache_kib)?,
        };
        // After a failure the connection is closed and not used again, and its snapshot goes with it.
        connection.prepare_cached("BEGIN")?.execute(())?;
        let done = work(&connection)?;
        connection.prepare_cached("COMMIT")?.execute(())?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What broke: a disk that is asked for each read kept the caller's tasks waiting for each of them.
    #[test]
    fn slow_reads_go_elsewhere_and_quick_ones_come_back() {
        let pace = Pace::default();
        let (quick, slow) = (limits::SQLITE_GLANCE_MAX, limits::SQLITE_GLANCE_MAX * 2);
        let away = || std::iter::repeat_with(|| pace.is_slow()).take_while(|slow| *slow).count();
        pace.took(quick);
        assert_eq!(away(), 0);
        let mut want = limits::SQLITE_AWAY_MIN;
        while want < limits::SQLITE_AWAY_MAX {
            pace.took(slow);
            assert_eq!(away(), usize::try_from(want).unwrap());
            want = want.saturating_mul(4).min(limits::SQLITE_AWAY_MAX);
        }
        for _ in 0..3 {
            pace.took(slow);
            assert_eq!(away(), usize::try_from(limits::SQLITE_AWAY_MAX).unwrap(), "a disk that stays slow");
        }
        pace.took(quick);
        pace.took(slow);
        assert_eq!(away(), usize::try_from(limits::SQLITE_AWAY_MIN).unwrap(), "a slow one now and then");
    }

    #[tokio::test]
    async fn a_read_that_panics_takes_nothing_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        Connection::open(&path).unwrap().execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t(a); INSERT INTO t VALUES (7)").unwrap();
        let readers = Readers::new(path, 1, 100);
        let seven = |connection: &Connection| Ok(connection.query_row("SELECT a FROM t", [], |row| row.get::<_, i64>(0))?);
        assert_eq!(readers.glance(seven).await, Ok(7));
        let failed = readers.glance(|_| -> Result<(), Failure> { panic!("a defect") }).await;
        assert!(matches!(&failed, Err(StoreError::Refused(why)) if why.contains("defect")), "{failed:?}");
        assert_eq!(readers.glance(seven).await, Ok(7), "its place is free again");
        readers.close().await;
        assert!(matches!(readers.glance(seven).await, Err(StoreError::Unavailable(_))));
    }
}
