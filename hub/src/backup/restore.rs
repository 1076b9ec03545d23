//! Brings a hub back from a repository, on a machine that has nothing but the backup key.
//!
//! Everything is built beside its place, in `DIR/restore`: a SQLite file gets the snapshot and the segments behind it, its digests and chains
//! are recomputed from its rows and compared with what the manifest says, and it begins a new timeline (rule R17). Only then it takes its
//! place, at once: renamed to `DIR/hub.db`, or moved into Postgres in one transaction. Killed anywhere, it is run again: what is half built
//! is built anew, what is built is used, and what has taken its place is found there.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mobo_adapters::sqlite::SqliteHubStore;
use mobo_adapters::sqlite::hub::transfer::Import;
use mobo_core::backup::manifest::{Anchor, Manifest};
use mobo_core::backup::verify::check;
use mobo_core::backup::{BackupError, change};
use mobo_core::ids::Timeline;
use mobo_core::limits;
use mobo_core::recover::knows;
use mobo_core::store::transfer::{Row, TableName};
use mobo_core::store::{HubStore, StoreError};
use mobo_runtime::machine::Machine;
use tokio::sync::mpsc;

use super::drill::has_room;
use super::placing::{Begun, aside, into_postgres, placed, private, rename, timeline_of, vacant};
use super::repository::{get, newest_number};
use super::{BackupFailure, Repository, StateHash};
use crate::migrate::{self, Place};
use crate::node::{COPIED_FILE, assemble};

/// Which moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Point {
    /// The newest one.
    Newest,
    /// That of a manifest.
    Number(u64),
    /// The last one at or before this time, in µs.
    At(i64),
}

/// Where to.
#[derive(Clone, Debug)]
pub struct Target {
    /// The hub's data folder.
    pub folder: PathBuf,
    /// The database.
    pub place: Place,
    /// A file that is in its place is moved aside, once what takes it is ready.
    pub replaces: bool,
}

/// How far a restore is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// What will be brought back, before anything is: the manifest, and the newest one.
    Begins(Box<(Manifest, Manifest)>),
    /// So many of so many objects were applied.
    Applied(u64, u64),
    /// Digests and chains are being recomputed.
    Auditing,
    /// It takes its place.
    Placing,
}

/// What was restored.
#[derive(Clone, Debug, PartialEq)]
pub struct Restored {
    /// The manifest.
    pub manifest: Manifest,
    /// What proves it.
    pub anchor: Anchor,
    /// The newest manifest of the repository.
    pub newest: Manifest,
    /// The timeline that it goes on under.
    pub timeline: Timeline,
    /// Bytes that were read.
    pub bytes: u64,
    /// Rows that were applied.
    pub rows: u64,
}

/// The folder beside the place, in the data folder.
const FOLDER: &str = "restore";
/// A database that is being built.
const BUILDING: &str = "building.db";
/// One that is whole.
const READY: &str = "ready.db";
/// What is built.
const POINT: &str = "point";

/// Restores. `known` must be in the chain.
///
/// # Errors
///
/// [`BackupFailure`]. The target is empty or complete, and the same call may be made again.
pub async fn restore(
    repository: &Repository,
    (point, known): (Point, &[Anchor]),
    target: &Target,
    machine: Arc<dyn Machine>,
    mut progress: impl FnMut(Step),
) -> Result<Restored, BackupFailure> {
    let chain = chain(repository, point, known).await?;
    let (Some((anchor, manifest)), newest) = (chain.manifests.last().cloned(), chain.newest.clone()) else {
        return Err(BackupFailure::Refused("there is no backup in this vault".to_owned()));
    };
    progress(Step::Begins(Box::new((manifest.clone(), newest.clone()))));
    let folder = target.folder.join(FOLDER);
    let mut restored = Restored { manifest, anchor, newest, timeline: Timeline([0; 16]), bytes: 0, rows: 0 };
    let (ready, point) = (folder.join(READY), folder.join(POINT));
    let begun = Begun::read(&point);
    let is_same = begun.as_ref().is_some_and(|begun| begun.anchor == anchor);
    if let Some(begun) = begun.filter(|_| is_same && !ready.exists())
        && let Some(timeline) = placed(target, &begun, (restored.manifest.timeline, &folder)).await?
    {
        // It has taken its place already; only tidying was left.
        restored.timeline = timeline;
        is_no_copy(target)?;
        return clear(&folder).map(|()| restored);
    }
    vacant(target)?;
    if !(is_same && ready.exists()) {
        clear(&folder)?;
        private(&folder)?;
        Begun { anchor, placing: None, is_bare: false }.keep(&point)?;
        build(repository, &chain.manifests, &folder.join(BUILDING), &mut restored, &mut progress).await?;
        fork(repository, &folder.join(BUILDING), (&machine, &chain.timelines)).await?;
        rename(&folder.join(BUILDING), &ready)?;
    }
    progress(Step::Placing);
    restored.timeline = timeline_of(&ready).await?;
    match &target.place {
        Place::Sqlite(path) => {
            vacant(target)?;
            Begun { anchor, placing: Some(restored.timeline.to_string()), is_bare: false }.keep(&point)?;
            aside(path)?;
            rename(&ready, path)?;
        }
        Place::Postgres(url) => into_postgres(&ready, url, restored.timeline).await?,
    }
    is_no_copy(target)?;
    clear(&folder)?;
    Ok(restored)
}

/// What is restored is nobody's copy, whatever was in the folder before: a person has said which state goes on.
fn is_no_copy(target: &Target) -> Result<(), BackupFailure> {
    let mark = target.folder.join(COPIED_FILE);
    match std::fs::remove_file(&mark) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(disk(&mark, &error)),
        _ => Ok(()),
    }
}

/// Builds the newest state in a scratch folder, proves that it is what its manifest says, and removes it again. `known` must be in the chain.
///
/// # Errors
///
/// [`BackupFailure`]: whatever a restore would have failed with.
pub(super) async fn replay(repository: &Repository, known: &[Anchor], folder: &Path) -> Result<Restored, BackupFailure> {
    let replayed = unpack(repository, (Point::Newest, known), folder, |_| {}).await;
    clear(folder)?;
    replayed.map(|(restored, _)| restored)
}

/// Builds a state in a scratch folder, and proves that it is what its manifest says. It is nobody's: no timeline begins. Gives its file.
pub(super) async fn unpack(
    repository: &Repository,
    (point, known): (Point, &[Anchor]),
    folder: &Path,
    mut progress: impl FnMut(Step),
) -> Result<(Restored, PathBuf), BackupFailure> {
    let chain = chain(repository, point, known).await?;
    let none = || BackupFailure::Refused("there is no backup in this vault".to_owned());
    let (anchor, manifest) = chain.manifests.last().cloned().ok_or_else(none)?;
    progress(Step::Begins(Box::new((manifest.clone(), chain.newest.clone()))));
    clear(folder)?;
    private(folder)?;
    let members = chain.manifests.iter().flat_map(|(_, manifest)| &manifest.members);
    has_room(folder, members.map(|member| member.bytes).sum())?;
    let (timeline, file) = (manifest.timeline, folder.join(BUILDING));
    let mut restored = Restored { manifest, anchor, newest: chain.newest, timeline, bytes: 0, rows: 0 };
    build(repository, &chain.manifests, &file, &mut restored, &mut progress).await?;
    Ok((restored, file))
}

/// The manifests from a base to a point, oldest first, and the newest of all.
struct Chain {
    manifests: Vec<(Anchor, Manifest)>,
    newest: Manifest,
    /// The timelines of all manifests from there up to the newest, that one's first.
    timelines: Vec<Timeline>,
}

async fn chain(repository: &Repository, point: Point, known: &[Anchor]) -> Result<Chain, BackupFailure> {
    let at_least = known.iter().map(|known| known.number).max().unwrap_or(0);
    let newest = newest_number(repository.vault().as_ref(), at_least).await?;
    let gone = |number: u64, why: String| BackupError::Damaged { object: format!("manifest {number}"), why };
    if newest < at_least {
        return Err(gone(at_least, format!("the newest one is {newest}: the repository was rolled back, or it is another one")).into());
    }
    if newest == 0 {
        return Err(BackupFailure::Refused("there is no backup in this vault".to_owned()));
    }
    let (mut number, mut expected, mut base, mut timelines) = (newest, None, None, Vec::new());
    let (mut found, mut first): (Vec<(Anchor, Manifest)>, Option<Manifest>) = (Vec::new(), None);
    loop {
        let (anchor, manifest) = repository.manifest(number).await?.ok_or_else(|| gone(number, "it is gone".to_owned()))?;
        let is_known = known.iter().all(|known| known.number != number || known.hash == anchor.hash);
        if expected.is_some_and(|expected| expected != anchor.hash) || !is_known {
            return Err(gone(number, "it is not the one that was written".to_owned()).into());
        }
        expected = Some(manifest.previous);
        if !timelines.contains(&manifest.timeline) {
            timelines.push(manifest.timeline);
        }
        first.get_or_insert_with(|| manifest.clone());
        let fits = match point {
            Point::Newest => true,
            Point::Number(wanted) => number <= wanted,
            Point::At(time) => manifest.taken_us <= time,
        };
        if fits || base.is_some() {
            base.get_or_insert(manifest.base);
            found.push((anchor, manifest.clone()));
        }
        if base == Some(number) {
            break;
        }
        // The newest one says where the chain begins; those before it know only the floor of their own time.
        let floor = first.as_ref().map_or(manifest.floor, |first| first.floor);
        if number <= floor {
            let newest = first.unwrap_or(manifest);
            return kept(repository, point, (newest, timelines)).await;
        }
        number -= 1;
    }
    found.reverse();
    match (first, point) {
        (Some(_), Point::Number(wanted)) if found.last().is_some_and(|(anchor, _)| anchor.number != wanted) => {
            Err(BackupFailure::Refused(format!("there is no manifest {wanted}: the newest is {newest}")))
        }
        (Some(newest), _) => Ok(Chain { manifests: found, newest, timelines }),
        (None, _) => Err(BackupFailure::Refused("there is no backup in this vault".to_owned())),
    }
}

/// A base below the floor that stays alone: the wanted one, or the last one at or before the wanted time.
async fn kept(repository: &Repository, point: Point, (newest, timelines): (Manifest, Vec<Timeline>)) -> Result<Chain, BackupFailure> {
    for (number, hash) in newest.retained.kept.iter().rev() {
        if matches!(point, Point::Number(wanted) if wanted != *number) {
            continue;
        }
        let found = repository.manifest(*number).await?.filter(|(anchor, base)| anchor.hash == *hash && base.is_base());
        let why = || BackupError::Damaged { object: format!("manifest {number}"), why: "it is not the one that is kept".to_owned() };
        let found = found.ok_or_else(why)?;
        if !matches!(point, Point::At(time) if found.1.taken_us > time) {
            return Ok(Chain { manifests: vec![found], newest, timelines });
        }
    }
    Err(BackupFailure::Refused("there is no backup that old: see `mobo-hub backup list`".to_owned()))
}

/// Applies every object to a new database, and proves that it holds what the last manifest says.
async fn build(
    repository: &Repository,
    manifests: &[(Anchor, Manifest)],
    place: &Path,
    restored: &mut Restored,
    progress: &mut impl FnMut(Step),
) -> Result<(), BackupFailure> {
    let total = manifests.iter().map(|(_, manifest)| manifest.members.len() as u64).sum();
    let (ready, mut coming) = mpsc::channel::<Vec<change::Change>>(limits::MOVE_PAGES_MAX);
    let target = place.to_owned();
    let applying = tokio::task::spawn_blocking(move || -> Result<Import, StoreError> {
        let mut import = Import::begin(&target)?;
        while let Some(changes) = coming.blocking_recv() {
            import.apply(&changes)?;
        }
        Ok(import)
    });
    let mut done = 0;
    let mut fetched = Ok(());
    'all: for (_, manifest) in manifests {
        for member in &manifest.members {
            match object(repository, (manifest.number, member)).await {
                Ok(changes) => {
                    if ready.send(changes).await.is_err() {
                        break 'all;
                    }
                }
                Err(error) => {
                    fetched = Err(error);
                    break 'all;
                }
            }
            (done, restored.bytes, restored.rows) = (done + 1, restored.bytes + member.bytes, restored.rows + member.rows);
            progress(Step::Applied(done, total));
        }
    }
    drop(ready);
    let import = applying.await.map_err(broken)?;
    fetched?;
    let import = import?;
    progress(Step::Auditing);
    let want = restored.manifest.state;
    let settling = tokio::task::spawn_blocking(move || -> Result<(), StoreError> {
        let (buckets, lanes) = import.audit()?;
        migrate::sound(&buckets, &lanes)?;
        if heads(&import)? != want {
            return Err(StoreError::Damaged("what was restored is not what the manifest says: please report it".to_owned()));
        }
        import.settle()
    });
    Ok(settling.await.map_err(broken)??)
}

async fn object(
    repository: &Repository,
    (number, member): (u64, &mobo_core::backup::manifest::Member),
) -> Result<Vec<change::Change>, BackupFailure> {
    let bytes = get(repository.vault().as_ref(), &member.name).await?;
    let (keyring, member) = (Arc::clone(repository.keyring()), member.clone());
    let opening = tokio::task::spawn_blocking(move || check(&keyring, (number, &member), bytes.as_deref()));
    Ok(opening.await.map_err(broken)??)
}

/// The hash over the heads of a restored database. Blocks.
fn heads(import: &Import) -> Result<[u8; 32], StoreError> {
    let mut state = StateHash::default();
    for table in import.tables()? {
        let TableName::Own(name) = &table.name else { continue };
        if name != "lane" && name != "bucket" {
            continue;
        }
        let (pages, mut coming) = mpsc::channel::<Vec<Row>>(limits::MOVE_PAGES_MAX);
        std::thread::scope(|scope| {
            let adding = scope.spawn(|| {
                let mut added = Ok(());
                while let Some(page) = coming.blocking_recv() {
                    added = added.and_then(|()| page.iter().try_for_each(|row| state.add(name, &table.columns, row)));
                }
                added
            });
            let read = import.read(&table, &pages);
            drop(pages);
            let added = adding.join().unwrap_or_else(|_| Err(StoreError::Damaged("this restore met a defect in mobo".to_owned())));
            read.and(added)
        })?;
    }
    Ok(state.hash())
}

pub(super) fn broken(error: tokio::task::JoinError) -> BackupFailure {
    BackupFailure::Store(StoreError::Refused(format!("this restore met a defect in mobo ({error}); please report it with the log")))
}

/// Begins the new timeline, with the hub's own keys out of the backup. Where the hub has lived on later timelines than that of the point, it comes
/// from them as well: its devices do, and its newest backup is of one of them.
async fn fork(repository: &Repository, place: &Path, (machine, later): (&Arc<dyn Machine>, &[Timeline])) -> Result<(), BackupFailure> {
    let path = place.to_owned();
    let opened = tokio::task::spawn_blocking(move || SqliteHubStore::open(&path)).await.map_err(broken)??;
    let store: Arc<dyn HubStore> = Arc::new(opened);
    let forked = async {
        let opened = assemble(Arc::clone(&store), &repository.keyring().hub, Arc::clone(machine)).await?;
        let known = opened.history.era().timeline.clone();
        let foreign = later.iter().copied().filter(|timeline| !knows(&known, *timeline)).collect();
        opened.history.fork(known.timeline, foreign).await
    };
    let forked = forked.await;
    store.close().await;
    Ok(forked?)
}

pub(super) fn clear(folder: &Path) -> Result<(), BackupFailure> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(disk(folder, &error)),
        _ => Ok(()),
    }
}

pub(super) fn disk(path: &Path, error: &io::Error) -> BackupFailure {
    BackupFailure::Store(StoreError::Unavailable(format!("{}: {error}", path.display())))
}
