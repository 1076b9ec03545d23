//! The log of committed changes, on a hub.

use std::time::Duration;

use mobo_core::ids::{CollectionId, ProjectId};
use mobo_core::live::{LiveHead, LivePage, LiveStore, history_of};
use mobo_core::store::StoreFuture;
use rusqlite::Connection;

use super::{SqliteHubStore, identity};
use crate::sqlite::error::Failure;
use crate::sqlite::live;

impl LiveStore for SqliteHubStore {
    fn follow(&self, project: ProjectId, collections: Vec<CollectionId>, lasts: Duration) -> StoreFuture<'_, LiveHead> {
        Box::pin(self.writer.run(move |connection| live::follow(connection, history(connection)?, (project, &collections), lasts)))
    }

    fn changes(&self, project: ProjectId, after: u64, rows_max: u32) -> StoreFuture<'_, LivePage> {
        Box::pin(self.readers.read(move |connection| live::changes(connection, history(connection)?, (project, after, rows_max))))
    }
}

/// On another timeline, the same number means another change.
fn history(connection: &Connection) -> Result<u64, Failure> {
    Ok(history_of(identity::current(connection)?.timeline.timeline))
}
