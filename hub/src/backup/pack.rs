//! Rows on their way into objects.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mobo_adapters::meter::carried;
use mobo_core::backup::BackupError;
use mobo_core::backup::change::{Body, Deed};
use mobo_core::backup::keys::Keyring;
use mobo_core::backup::manifest::Member;
use mobo_core::backup::packed::PackedRows;
use mobo_core::backup::seal::{self, Kind, Press, Sealed};
use mobo_core::ids::ProjectId;
use mobo_core::limits;
use mobo_core::store::transfer::{Cell, Row, TableName};
use mobo_core::time::Eff;

use super::{BackupFailure, Repository};

/// Where bodies are packed and sealed, one after the other, in the same memory.
#[derive(Debug, Default)]
pub(super) struct Workbench {
    body: Vec<u8>,
    press: Press,
}

impl Workbench {
    /// Seals a body of a project; gives the number of its rows, too.
    fn seal(&mut self, keyring: &Keyring, of: (ProjectId, (Kind, u64)), body: Body) -> Result<(Sealed, u64), BackupError> {
        let rows = body.encode(&mut self.body);
        let sealed = seal::seal_of(keyring, of.0, of.1, (&self.body, &mut self.press));
        // A busy moment is over at some time.
        let needed = 2 * self.body.len();
        self.body.shrink_to(needed);
        self.press.shrink_to(needed);
        Ok((sealed?, rows))
    }
}

fn at(workbench: &Mutex<Workbench>) -> MutexGuard<'_, Workbench> {
    workbench.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Collects rows, and writes an object whenever there are enough: what is held in memory is one of them, and one for each other project. What
/// is of those goes into objects under their own keys, so that it can be erased.
#[derive(Debug)]
pub(super) struct Packer<'r> {
    repository: &'r Repository,
    workbench: Arc<Mutex<Workbench>>,
    kind: Kind,
    number: u64,
    body: Body,
    others: BTreeMap<ProjectId, Body>,
    members: Vec<Member>,
    bytes_per_s: u64,
    /// Counts the times after which parts are written again, where the vault locks them.
    period: Option<u64>,
}

impl<'r> Packer<'r> {
    /// For the manifest of that number, taken now. At most so many bytes go out in a second; 0 is as many as go.
    pub(super) fn new(
        (repository, workbench): (&'r Repository, &Arc<Mutex<Workbench>>),
        (kind, number): (Kind, u64),
        (bytes_per_s, now): (u64, Eff),
    ) -> Self {
        let (body, others, members) = (Body::default(), BTreeMap::new(), Vec::new());
        let period = repository.vault().lock().map(|lock| period(lock, now));
        Self { repository, workbench: Arc::clone(workbench), kind, number, body, others, members, bytes_per_s, period }
    }

    /// Adds a row.
    pub(super) async fn add(&mut self, deed: Deed, (table, columns): (&TableName, &[String]), row: Row) -> Result<(), BackupFailure> {
        if let Some(project) = self.other((table, columns), &row) {
            let body = self.others.entry(project).or_default();
            body.add(deed, (table, columns), row);
            return if body.bytes() >= limits::BACKUP_BODY_BYTES { self.flush_others().await } else { Ok(()) };
        }
        let ends = self.kind == Kind::Snapshot && self.body.bytes() >= part_bytes_min(self.members.len()) && ends_part(&row);
        self.body.add(deed, (table, columns), row);
        if ends || self.body.bytes() >= limits::BACKUP_BODY_BYTES { self.flush().await } else { Ok(()) }
    }

    /// True where whoever adds rows of this table, found by these columns, may add them packed: none of them is of another project with a key
    /// of its own.
    pub(super) fn takes_packed(&self, table: &TableName, equal: &[(String, Cell)]) -> bool {
        let keys = &self.repository.keyring().others.keys;
        let is_of = |project: ProjectId| !keys.contains_key(&project);
        let project = equal.iter().find(|(column, _)| column == "project").map(|(_, project)| project);
        match (table, project) {
            (TableName::Collection(_), _) => true,
            (TableName::Own(_), Some(Cell::Int(project))) => ProjectId::from_sql(*project).is_some_and(is_of),
            (TableName::Own(_), _) => keys.is_empty(),
        }
    }

    /// Adds packed rows, where that [may be](Self::takes_packed).
    pub(super) async fn add_packed(&mut self, of: (&TableName, &[String]), rows: PackedRows) -> Result<(), BackupFailure> {
        self.body.add_packed(Deed::Put, of, rows);
        if self.body.bytes() >= limits::BACKUP_BODY_BYTES { self.flush().await } else { Ok(()) }
    }

    /// The project that a row is of, where that is another one with a key of its own.
    fn other(&self, (table, columns): (&TableName, &[String]), row: &Row) -> Option<ProjectId> {
        let TableName::Own(_) = table else { return None };
        let keys = &self.repository.keyring().others.keys;
        if keys.is_empty() {
            return None;
        }
        let cell = columns.iter().position(|column| column == "project").and_then(|place| row.get(place));
        match cell {
            Some(Cell::Int(project)) => ProjectId::from_sql(*project).filter(|project| keys.contains_key(project)),
            Some(Cell::Null | Cell::Real(_) | Cell::Text(_) | Cell::Bytes(_)) | None => None,
        }
    }

    /// Clears a table.
    pub(super) fn clear(&mut self, table: &TableName) {
        self.body.clear(table);
    }

    /// Writes what is left; gives all objects.
    pub(super) async fn finish(mut self) -> Result<Vec<Member>, BackupFailure> {
        self.flush_others().await?;
        Ok(self.members)
    }

    /// Writes everything, that of other projects last: a table is cleared before any row is put into it.
    async fn flush_others(&mut self) -> Result<(), BackupFailure> {
        self.flush().await?;
        for (project, body) in std::mem::take(&mut self.others) {
            self.write(project, body).await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), BackupFailure> {
        if self.body.is_empty() {
            return Ok(());
        }
        let body = std::mem::take(&mut self.body);
        self.write(self.repository.keyring().project, body).await
    }

    async fn write(&mut self, project: ProjectId, body: Body) -> Result<(), BackupFailure> {
        let (keyring, workbench, kind) = (Arc::clone(self.repository.keyring()), Arc::clone(&self.workbench), self.kind);
        let number = if kind == Kind::Segment { self.number } else { 0 };
        let seal = move || at(&workbench).seal(&keyring, (project, (kind, number)), body);
        let sealing = tokio::task::spawn_blocking(carried(seal));
        let broken = |error: tokio::task::JoinError| BackupError::Damaged { object: "a new object".to_owned(), why: error.to_string() };
        let (mut sealed, rows) = sealing.await.map_err(broken)??;
        if let Some(period) = self.period.filter(|_| kind == Kind::Snapshot) {
            sealed.name = seal::renamed(&sealed.name, "period of the lock", period)?;
        }
        if self.members.iter().any(|member| member.name == sealed.name) {
            return Ok(());
        }
        if self.members.len() >= limits::BACKUP_MEMBERS_MAX {
            let most = limits::BACKUP_MEMBERS_MAX;
            return Err(BackupFailure::Refused(format!("this hub holds more than one manifest can name, {most} parts: please report it")));
        }
        let member = self.repository.keep_object(&sealed, (kind, number), rows).await?;
        at(&self.workbench).press.take_back(sealed);
        if let Some(pause_ms) = member.bytes.saturating_mul(1_000).checked_div(self.bytes_per_s) {
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        }
        self.members.push(member);
        Ok(())
    }
}

/// After how many bytes the next part may end: parts grow with their number.
fn part_bytes_min(parts: usize) -> usize {
    (0..parts / limits::BACKUP_PARTS_OF_A_SIZE).fold(limits::BACKUP_PART_BYTES_MIN, |bytes, _| (2 * bytes).min(limits::BACKUP_BODY_BYTES))
}

/// The number of the half of a lock's time that it is now. An object is locked from when it was written, so that an unchanged part of an
/// old snapshot would be free while a new one needs it: each half has parts of its own, locked for the other half at least.
fn period(lock: Duration, now: Eff) -> u64 {
    let half_us = u64::try_from(lock.as_micros() / 2).unwrap_or(u64::MAX).max(1);
    now.0.max(0).unsigned_abs() / half_us
}

/// Says of one row in about 64 that a part may end with it: wherever rows come or go, the parts behind end where they ended before.
fn ends_part(row: &Row) -> bool {
    let mut content = mobo_core::store::transfer::Content::default();
    content.add(row, &[]);
    content.digest.0.first().is_some_and(|byte| byte % 64 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What one manifest can name is more than any hub holds: at the least, as parts of their smallest size.
    #[test]
    fn parts_grow_so_that_one_manifest_names_them_all() {
        for (parts, bytes) in [(0, 256 << 10), (9_999, 256 << 10), (10_000, 512 << 10), (25_000, 1 << 20), (59_999, 4 << 20)] {
            assert_eq!(part_bytes_min(parts), bytes, "{parts}");
        }
        let all: usize = (0..limits::BACKUP_MEMBERS_MAX).map(part_bytes_min).sum();
        assert!(all > 100 << 30, "{all}");
    }

    #[test]
    fn a_part_is_locked_for_half_of_the_time_at_least() {
        const DAY_US: i64 = 86_400_000_000;
        let lock = Duration::from_secs(30 * 86_400);
        let at = |day: i64| period(lock, Eff(day * DAY_US));
        assert_eq!([at(0), at(14), at(15), at(29), at(30)], [0, 0, 1, 1, 2]);
    }
}
