//! The thread that one cut after the other is taken on, and what it keeps from one to the next: its connection, and the memory of pages.

use std::sync::mpsc as blocking;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use mobo_core::backup::packed::Rooms;
use mobo_core::store::{CutTable, StoreError};
use rusqlite::Connection;

use crate::meter::Charged;

/// Work of a cut: gives the connection back where it may serve the next one.
type Work = Box<dyn FnOnce(Option<Kept>) -> Option<Kept> + Send>;

/// A connection, with the tables that it found at the version of the schema that is beside them.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) connection: Connection,
    pub(super) tables: Option<(i64, Vec<CutTable>)>,
}

/// Where the thread of the last cut waits for the next one.
#[derive(Debug, Default)]
pub(in crate::sqlite::hub) struct Cuts {
    waiting: Mutex<Waiting>,
    /// Memory for packed rows.
    pub(super) rooms: Rooms,
}

#[derive(Debug, Default)]
struct Waiting {
    desk: Option<Desk>,
    /// Nothing is kept any more.
    is_closed: bool,
}

/// A thread with a connection that waits for work, and ends with its desk.
#[derive(Debug)]
struct Desk {
    work: blocking::SyncSender<(Work, Charged)>,
    thread: JoinHandle<()>,
}

impl Cuts {
    /// Lets the connection of the last cut go. Whatever cut is under way takes its own with it.
    pub(in crate::sqlite::hub) fn close(&self) {
        let mut waiting = self.lock();
        waiting.is_closed = true;
        let desk = waiting.desk.take();
        drop(waiting);
        if let Some(Desk { work, thread }) = desk {
            drop(work);
            // It closes the connection, and has nothing else to do.
            let _ = thread.join();
        }
    }

    /// Does the work of a cut, charged to whom the caller's is: on the thread of the last one with its connection, or on a new one.
    pub(super) fn run(self: &Arc<Self>, work: impl FnOnce(Option<Kept>) -> Option<Kept> + Send + 'static) -> Result<(), StoreError> {
        let waiting = self.lock().desk.take();
        let desk = waiting.map_or_else(Desk::begin, Ok)?;
        let (cuts, sender) = (Arc::clone(self), desk.work.clone());
        let work: Work = Box::new(move |kept| work(kept).filter(|_| cuts.keep(desk)));
        let gone = |_| StoreError::Unavailable("the thread of the backup has ended; it is begun again".to_owned());
        sender.try_send((work, Charged::now())).map_err(gone)
    }

    /// Lets a desk wait for the next cut; false where nothing is kept.
    fn keep(&self, desk: Desk) -> bool {
        let mut waiting = self.lock();
        let is_kept = !waiting.is_closed && waiting.desk.is_none();
        if is_kept {
            waiting.desk = Some(desk);
        }
        is_kept
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Desk {
    fn begin() -> Result<Self, StoreError> {
        // Nobody gives it more work before it waits again.
        let (work, coming) = blocking::sync_channel::<(Work, Charged)>(1);
        let serve = move || {
            let mut kept = None;
            while let Ok((work, charged)) = coming.recv() {
                kept = charged.count(|| work(kept.take()));
            }
        };
        let thread = std::thread::Builder::new().name("cut".to_owned()).spawn(serve);
        let thread = thread.map_err(|error| StoreError::Unavailable(format!("no thread can be started: {error}")))?;
        Ok(Self { work, thread })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::thread::ThreadId;

    use super::*;

    /// True while a thread waits for the next cut.
    pub(in super::super) fn waits(cuts: &Cuts) -> bool {
        cuts.lock().desk.is_some()
    }

    /// True if the thread that waits keeps a connection that knows its tables.
    pub(in super::super) async fn knows_its_tables(cuts: &Arc<Cuts>) -> bool {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let look = move |kept: Option<Kept>| {
            answer.send(kept.as_ref().is_some_and(|kept| kept.tables.is_some())).unwrap();
            kept
        };
        cuts.run(look).unwrap();
        let knows = answered.await.unwrap();
        waiting(cuts).await;
        knows
    }

    /// The thread that waits for the next cut, once it does.
    pub(in super::super) async fn waiting(cuts: &Cuts) -> ThreadId {
        loop {
            if let Some(desk) = &cuts.lock().desk {
                return desk.thread.thread().id();
            }
            tokio::task::yield_now().await;
        }
    }
}
