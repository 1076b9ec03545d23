//! The log of committed changes, on a device.

use std::time::Duration;

use mobo_core::ids::{CollectionId, ProjectId};
use mobo_core::live::{LiveHead, LivePage, LiveStore};
use mobo_core::store::StoreFuture;
use rusqlite::Connection;

use super::EdgeStore;
use super::fault::Try;
use super::meta::Log;
use crate::sqlite::live;

impl LiveStore for EdgeStore {
    fn follow(&self, project: ProjectId, collections: Vec<CollectionId>, lasts: Duration) -> StoreFuture<'_, LiveHead> {
        let follow = move |conn: &Connection| live::follow(conn, history(conn)?, (project, &collections), lasts);
        Box::pin(async move { self.inner.writer.run(follow).await })
    }

    fn changes(&self, project: ProjectId, after: u64, rows_max: u32) -> StoreFuture<'_, LivePage> {
        Box::pin(self.inner.readers.read(move |conn| live::changes(conn, history(conn)?, (project, after, rows_max))))
    }
}

/// In another incarnation, which a restored image starts, the same number means another change.
fn history(conn: &Connection) -> Try<u64> {
    Ok(Log::read(conn)?.map_or(0, |log| log.incarnation.get()))
}
