//! How what was restored takes its place: once, never over anything, and known again where it was cut short.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use mobo_adapters::sqlite::SqliteHubStore;
use mobo_core::backup::manifest::Anchor;
use mobo_core::ids::Timeline;
use mobo_core::store::{HubStore, RecoveryStore, StoreError};
use mobo_runtime::data_dir::replace_file;

use super::BackupFailure;
use super::restore::{Target, broken, disk};
use crate::migrate::{self, Place};
use crate::postgres::PostgresHubStore;

/// What stands in front of a restore that is about to take its place.
const PLACING: &str = "placing";
/// What stands in front of one that is being built. The first version wrote nothing there, and nothing else later.
const BUILDING: &str = "building";
/// The files of a SQLite database, by what is behind its name.
const FILES: [&str; 4] = ["", "-wal", "-shm", "-journal"];

/// What a restore has begun.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Begun {
    /// The manifest that is brought back.
    pub(super) anchor: Anchor,
    /// The timeline that it begins, once it is about to take its place.
    pub(super) placing: Option<String>,
    /// The first version has written this: nobody knows how far it came.
    pub(super) is_bare: bool,
}

impl Begun {
    /// What is noted in this file; `None` for nothing, and for what nobody has written so.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        let mut words = text.split_whitespace();
        let (first, second, third) = (words.next()?, words.next(), words.next());
        match (first, second) {
            (PLACING, Some(anchor)) => Some(Self { anchor: Anchor::parse(anchor)?, placing: Some(third?.to_owned()), is_bare: false }),
            (BUILDING, Some(anchor)) => Some(Self { anchor: Anchor::parse(anchor)?, placing: None, is_bare: false }),
            (anchor, _) => Some(Self { anchor: Anchor::parse(anchor)?, placing: None, is_bare: true }),
        }
    }

    /// Notes it.
    pub(super) fn keep(&self, path: &Path) -> Result<(), BackupFailure> {
        let text = match &self.placing {
            Some(timeline) => format!("{PLACING} {} {timeline}", self.anchor),
            None => format!("{BUILDING} {}", self.anchor),
        };
        replace_file(path, text.as_bytes()).map_err(|error| disk(path, &error))
    }
}

/// The timeline of a file that has taken its place, if it is the one that was about to, or has gone on from it. Of what the first version has
/// begun, with nothing half built beside it: if the file has gone on from the timeline of what is restored, as a restore does.
pub(super) async fn placed(target: &Target, begun: &Begun, (from, beside): (Timeline, &Path)) -> Result<Option<Timeline>, BackupFailure> {
    let Place::Sqlite(path) = &target.place else { return Ok(None) };
    let is_begun = begun.placing.is_some() || begun.is_bare && !half_built(beside);
    if !is_begun || !path.exists() {
        return Ok(None);
    }
    let store = open(path).await?;
    let current = store.current().await;
    store.close().await;
    let row = current?.timeline;
    let mut parents = row.parents.iter().map(|parent| parent.timeline);
    let is_it = match &begun.placing {
        Some(expected) => std::iter::once(row.timeline).chain(parents).any(|timeline| timeline.to_string() == *expected),
        None => parents.any(|parent| parent == from),
    };
    Ok(is_it.then_some(row.timeline))
}

/// True where a database stands beside the place that has not taken it.
fn half_built(folder: &Path) -> bool {
    let is_database = |entry: fs::DirEntry| entry.file_name().to_string_lossy().contains(".db");
    fs::read_dir(folder).is_ok_and(|entries| entries.flatten().any(is_database))
}

/// Nothing is in the place: no database, and no log of one, which would be played into the restored one.
pub(super) fn vacant(target: &Target) -> Result<(), BackupFailure> {
    let Place::Sqlite(path) = &target.place else { return Ok(()) };
    let taken = FILES.iter().map(|end| with(path, end)).find(|path| path.exists()).filter(|_| !target.replaces);
    let Some(taken) = taken else { return Ok(()) };
    let is_log = taken != *path;
    let what = if is_log { "what an earlier store has left" } else { "a store" };
    Err(BackupFailure::Refused(format!(
        "there is {what} already, {}: restore into another folder, or with --force, which moves it aside",
        taken.display()
    )))
}

/// Moves what is in the place aside, under names that are free.
pub(super) fn aside(path: &Path) -> Result<(), BackupFailure> {
    if !FILES.iter().any(|end| with(path, end).exists()) {
        return Ok(());
    }
    let names =
        (1..).map(|number| with(path, &if number == 1 { ".before-restore".to_owned() } else { format!(".before-restore-{number}") }));
    let mut free = names.filter(|name| !FILES.iter().any(|end| with(name, end).exists()));
    let Some(to) = free.next() else { return Ok(()) };
    for end in FILES {
        if with(path, end).exists() {
            rename(&with(path, end), &with(&to, end))?;
        }
    }
    Ok(())
}

/// Makes a folder that only its owner can look into, and that nobody else has made.
pub(super) fn private(folder: &Path) -> Result<(), BackupFailure> {
    DirBuilder::new().mode(0o700).create(folder).map_err(|error| disk(folder, &error))
}

fn with(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

async fn open(place: &Path) -> Result<SqliteHubStore, BackupFailure> {
    let path = place.to_owned();
    Ok(tokio::task::spawn_blocking(move || SqliteHubStore::open(&path)).await.map_err(broken)??)
}

/// The timeline that a file is on.
pub(super) async fn timeline_of(place: &Path) -> Result<Timeline, BackupFailure> {
    let store = open(place).await?;
    let current = store.current().await;
    store.close().await;
    Ok(current?.timeline.timeline)
}

/// Moves what is built into Postgres in one transaction, unless that was done already.
pub(super) async fn into_postgres(ready: &Path, url: &str, timeline: Timeline) -> Result<(), BackupFailure> {
    let moved = migrate::migrate(&Place::Sqlite(ready.to_owned()), &Place::Postgres(url.to_owned()), |_| {}).await;
    let Err(StoreError::Refused(why)) = moved else { return Ok(moved.map(|_| ())?) };
    let store = PostgresHubStore::open(url).await?;
    let current = store.current().await;
    store.close().await;
    match current {
        Ok(hub) if hub.timeline.timeline == timeline => Ok(()),
        Ok(_) | Err(_) => Err(BackupFailure::Refused(why)),
    }
}

/// Renames a file, for good.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), BackupFailure> {
    let moved = || {
        fs::rename(from, to)?;
        let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::File::open(folder)?.sync_all()
    };
    moved().map_err(|error| disk(to, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(folder: &Path, replaces: bool) -> Target {
        Target { folder: folder.to_owned(), place: Place::Sqlite(folder.join("hub.db")), replaces }
    }

    /// A log that an earlier database has left would be played into the restored one.
    #[test]
    fn a_place_is_vacant_when_nothing_of_a_database_is_there() {
        for end in FILES {
            let folder = tempfile::tempdir().unwrap();
            assert_eq!(vacant(&target(folder.path(), false)), Ok(()));
            fs::write(folder.path().join(format!("hub.db{end}")), "x").unwrap();
            assert!(matches!(vacant(&target(folder.path(), false)), Err(BackupFailure::Refused(_))), "{end}");
            assert_eq!(vacant(&target(folder.path(), true)), Ok(()));
        }
    }

    /// What was moved aside once stays as it is when that is done again.
    #[test]
    fn nothing_that_was_moved_aside_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (file, read) = (folder.path().join("hub.db"), |name: &str| fs::read_to_string(folder.path().join(name)).ok());
        aside(&file).unwrap();
        for n in 1..=3 {
            fs::write(&file, format!("store {n}")).unwrap();
            fs::write(with(&file, "-wal"), format!("log {n}")).unwrap();
            aside(&file).unwrap();
            assert!(!file.exists() && !with(&file, "-wal").exists());
        }
        for (end, n) in [("", 1), ("-2", 2), ("-3", 3)] {
            assert_eq!(read(&format!("hub.db.before-restore{end}")), Some(format!("store {n}")));
            assert_eq!(read(&format!("hub.db.before-restore{end}-wal")), Some(format!("log {n}")));
        }
    }

    #[test]
    fn what_was_begun_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let (path, anchor) = (folder.path().join("point"), Anchor { number: 7, hash: [3; 32] });
        assert_eq!(Begun::read(&path), None);
        for placing in [None, Some("00ff".to_owned())] {
            let begun = Begun { anchor, placing, is_bare: false };
            begun.keep(&path).unwrap();
            assert_eq!(Begun::read(&path), Some(begun));
        }
        fs::write(&path, anchor.to_string()).unwrap();
        assert_eq!(Begun::read(&path), Some(Begun { anchor, placing: None, is_bare: true }));
        for bad in ["", "placing", "placing x y", "building", "building x", "other"] {
            fs::write(&path, bad).unwrap();
            assert_eq!(Begun::read(&path), None, "{bad}");
        }
    }
}
