//! Rows on their way into objects.

use std::sync::Arc;
use std::time::Duration;

use mobo_core::backup::BackupError;
use mobo_core::backup::change::{Body, Deed};
use mobo_core::backup::manifest::Member;
use mobo_core::backup::seal::{self, Kind};
use mobo_core::limits;
use mobo_core::store::transfer::{Row, TableName};

use super::{BackupFailure, Repository};

/// Collects rows, and writes an object whenever there are enough: what is held in memory is one of them.
#[derive(Debug)]
pub(super) struct Packer<'r> {
    repository: &'r Repository,
    kind: Kind,
    number: u64,
    body: Body,
    members: Vec<Member>,
    bytes_per_s: u64,
}

impl<'r> Packer<'r> {
    /// For the manifest of that number. At most so many bytes go out in a second; 0 is as many as go.
    pub(super) fn new(repository: &'r Repository, (kind, number): (Kind, u64), bytes_per_s: u64) -> Self {
        Self { repository, kind, number, body: Body::default(), members: Vec::new(), bytes_per_s }
    }

    /// Adds a row.
    pub(super) async fn add(&mut self, deed: Deed, (table, columns): (&TableName, &[String]), row: Row) -> Result<(), BackupFailure> {
        let ends = self.kind == Kind::Snapshot && self.body.bytes() >= limits::BACKUP_PART_BYTES_MIN && ends_part(&row);
        self.body.add(deed, (table, columns), row);
        if ends || self.body.bytes() >= limits::BACKUP_BODY_BYTES { self.flush().await } else { Ok(()) }
    }

    /// Clears a table.
    pub(super) fn clear(&mut self, table: &TableName) {
        self.body.clear(table);
    }

    /// Writes what is left; gives all objects.
    pub(super) async fn finish(mut self) -> Result<Vec<Member>, BackupFailure> {
        self.flush().await?;
        Ok(self.members)
    }

    async fn flush(&mut self) -> Result<(), BackupFailure> {
        if self.body.is_empty() {
            return Ok(());
        }
        let (body, rows) = self.body.take();
        let (keyring, kind) = (Arc::clone(self.repository.keyring()), self.kind);
        let number = if kind == Kind::Segment { self.number } else { 0 };
        let sealing = tokio::task::spawn_blocking(move || seal::seal(&keyring, kind, number, &body));
        let broken = |error: tokio::task::JoinError| BackupError::Damaged { object: "a new object".to_owned(), why: error.to_string() };
        let sealed = sealing.await.map_err(broken)??;
        if self.members.iter().any(|member| member.name == sealed.name) {
            return Ok(());
        }
        let member = self.repository.keep_object(sealed, rows).await?;
        if let Some(pause_ms) = member.bytes.saturating_mul(1_000).checked_div(self.bytes_per_s) {
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        }
        self.members.push(member);
        Ok(())
    }
}

/// Says of one row in about 64 that a part may end with it: wherever rows come or go, the parts behind end where they ended before.
fn ends_part(row: &Row) -> bool {
    let mut content = mobo_core::store::transfer::Content::default();
    content.add(row, &[]);
    content.digest.0.first().is_some_and(|byte| byte % 64 == 0)
}
