//! Connections that only read, each read in one snapshot.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use mobo_core::store::StoreError;
use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::error::Failure;
use super::open::open_reader_on;

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
        Self { pool: Arc::new(Pool { path, cache_kib, idle: Mutex::default(), permits, connections_max, vfs }) }
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
        let reading = tokio::task::spawn_blocking(move || {
            let done = pool.read(work);
            drop(permit);
            done
        });
        let broken = |error| StoreError::Refused(format!("this read met a defect in mobo ({error}); please report it with the log"));
        Ok(reading.await.map_err(broken)??)
    }

    /// Waits for the reads under way and closes the connections.
    pub(crate) async fn close(&self) {
        let _all = self.pool.permits.acquire_many(u32::try_from(self.pool.connections_max).unwrap_or(u32::MAX)).await;
        self.pool.permits.close();
        self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
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
