//! Carries what is new in a store into a repository, one manifest after the other.

use std::sync::Arc;

use mobo_core::backup::keys::BackupKey;
use mobo_core::backup::manifest::{Anchor, Manifest, Retained};
use mobo_core::backup::vault::{Vault, VaultError};
use mobo_core::ids::{Chain, LaneKey, ProjectId, Seq, Timeline};
use mobo_core::limits;
use mobo_core::store::{Cut, HubStore, StoreError};
use mobo_core::time::Eff;
use mobo_core::trust::KeyPair;

use super::carry::{Plan, carry, record};
use super::marks::Marks;
use super::projects::projects;
use super::repository::newest_number;
use super::standing::{Standing, noted, remembered, stands};
use super::whose::{belongs, foreign, older_copy, rolled_back, still_there, vanished, written_twice};
use super::{BackupFailure, Fresh, Repository};

/// Segments may have so many times the bytes of their snapshot before there is a new one.
const SEGMENTS_PER_SNAPSHOT: u64 = 4;
/// Less than this is no reason for one.
const SEGMENTS_BYTES_MIN: u64 = 64 * 1024 * 1024;

/// What a shipment is asked to be.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Asked {
    /// With a whole snapshot.
    pub snapshot: bool,
    /// The same because its time has come: where one has just failed, what is new goes first.
    pub due: bool,
    /// Also where the repository that the hub remembers is gone or has gone back, or where another hub ships: a person knows why.
    pub anew: bool,
    /// The hub is a copy of one that may be alive: it goes on only where the vault has no newer state.
    pub copied: bool,
}

/// What was shipped.
#[derive(Clone, Debug, PartialEq)]
pub struct Shipped {
    /// The manifest.
    pub manifest: Manifest,
    /// What proves it.
    pub anchor: Anchor,
    /// The lanes that are safe further than before, with their ends.
    pub safe: Vec<(LaneKey, Seq, Chain)>,
}

impl Shipped {
    /// Bytes of its objects.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.manifest.members.iter().map(|member| member.bytes).sum()
    }
}

/// Whose store it is.
#[derive(Clone, Debug)]
pub struct Owner {
    /// The store.
    pub store: Arc<dyn HubStore>,
    /// The project.
    pub project: ProjectId,
    /// The hub's keys.
    pub keys: KeyPair,
}

/// Carries what is new, whenever it is asked to. One at a time for a repository: of two, one finds its manifest's number taken.
#[derive(Debug)]
pub struct Shipper {
    owner: Owner,
    vault: Arc<dyn Vault>,
    key: BackupKey,
    bytes_per_s: u64,
    open: Option<Open>,
    /// Manifests that may have been written, though nobody has said so.
    tried: Vec<[u8; 32]>,
    /// One that somebody else has written in the place of the next one.
    taken: Option<Anchor>,
}

/// A repository, and how far it is.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) repository: Repository,
    pub(super) head: Option<(Anchor, Manifest)>,
    /// The timeline of the last manifest that the store has noted.
    under: Option<Timeline>,
    /// What was shipped; `None` when the next one must be a snapshot.
    pub(super) marks: Option<Marks>,
    /// When everything was shipped, also what only says who was seen.
    pub(super) quiet_us: i64,
    looked_us: i64,
    snapshot_bytes: u64,
    segments_bytes: u64,
    /// What the next manifest says of the old ones, if that is to change.
    pub(super) retiring: Option<(u64, Retained)>,
    /// What the store has noted, where it had no room to note the manifests behind that.
    excused: Option<Anchor>,
    /// When a snapshot was begun that has not come about.
    tried_us: Option<i64>,
}

impl Shipper {
    /// Of a store into a vault, under a backup key. At most so many bytes in a second; 0 for no limit.
    #[must_use]
    pub fn new(owner: Owner, vault: Arc<dyn Vault>, (key, bytes_per_s): (BackupKey, u64)) -> Self {
        Self { owner, vault, key, bytes_per_s, open: None, tried: Vec::new(), taken: None }
    }

    /// The newest manifest, once the repository was opened.
    #[must_use]
    pub fn head(&self) -> Option<&(Anchor, Manifest)> {
        self.open.as_ref().and_then(|open| open.head.as_ref())
    }

    /// Where it goes.
    #[must_use]
    pub fn place(&self) -> String {
        self.vault.place()
    }

    /// The repository, once it was opened.
    #[must_use]
    pub fn repository(&self) -> Option<&Repository> {
        self.open.as_ref().map(|open| &open.repository)
    }

    /// Lets the next manifest say that nothing below this base counts, but for what is retained. It is written also where nothing is new.
    pub fn retire(&mut self, floor: u64, retained: Retained) {
        if let Some(open) = &mut self.open {
            open.retiring = Some((floor, retained));
        }
    }

    /// Goes on under another backup key, with a new data key.
    ///
    /// # Errors
    ///
    /// The vault's; everything is as it was then.
    pub async fn rotate(&mut self, key: BackupKey, data: [u8; 32]) -> Result<(), BackupFailure> {
        let open = self.open.as_mut().ok_or_else(|| BackupFailure::Refused("there is no backup yet: make one first".to_owned()))?;
        open.repository = open.repository.rotate(&key, data).await?;
        self.key = key;
        Ok(())
    }

    /// Ships what is new, at `now`; `None` when nothing is.
    ///
    /// # Errors
    ///
    /// [`BackupFailure`]. Nothing is safe that was not; the next call goes on where this one was.
    pub async fn ship(&mut self, now: Eff, fresh: Fresh, asked: Asked) -> Result<Option<Shipped>, BackupFailure> {
        self.is_alone(asked.anew).await?;
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.open((fresh.repository, fresh.data), asked.anew).await?,
        };
        let shipped = self.ship_into(&mut open, (now, &fresh.projects), asked).await;
        match shipped {
            // What a person must look at is looked at again from the start.
            Err(BackupFailure::Refused(_) | BackupFailure::WentBack(_)) => shipped,
            Err(BackupFailure::Taken(found)) => Err(self.taken(found)),
            _ => {
                self.open = Some(open);
                shipped
            }
        }
    }

    /// What becomes of a manifest that was there already.
    fn taken(&mut self, found: Anchor) -> BackupFailure {
        if self.tried.contains(&found.hash) {
            let why = format!("the backup {found}, whose answer was lost, has been written after all: it goes on behind it");
            return VaultError::Unavailable(why).into();
        }
        self.taken = Some(found);
        written_twice(&self.vault.place(), found)
    }

    /// Nobody else ships into the repository: not since this runs, but another hub of the same store, which notes what it ships.
    async fn is_alone(&mut self, anew: bool) -> Result<(), BackupFailure> {
        let Some(found) = self.taken.filter(|_| !anew) else {
            self.taken = None;
            return Ok(());
        };
        match self.owner.store.backup().await? {
            Some(row) if row.place == self.vault.place() && row.anchor.number >= found.number => self.taken = None,
            Some(_) | None => return Err(written_twice(&self.vault.place(), found)),
        }
        Ok(())
    }

    /// Takes the keys of projects that are gone out of the repository. `None` where there are none; else the repository, whose older keyrings
    /// are to be removed by whoever may. What is left in the store is in the next backup, which must be a snapshot.
    ///
    /// # Errors
    ///
    /// The vault's, and the store's; everything is as it was then.
    pub async fn shred(&mut self) -> Result<Option<Repository>, BackupFailure> {
        let Some(open) = &mut self.open else { return Ok(None) };
        let mut cut = self.owner.store.cut().await?;
        let staying = projects(cut.as_mut()).await?;
        cut.end().await?;
        let Some(shredded) = open.repository.shred(&self.key, &staying).await? else { return Ok(None) };
        open.repository = shredded.clone();
        Ok(Some(shredded))
    }

    async fn ship_into(
        &mut self,
        open: &mut Open,
        (now, secret): (Eff, &[u8; 32]),
        asked: Asked,
    ) -> Result<Option<Shipped>, BackupFailure> {
        if now.0 - open.looked_us >= micros(limits::BACKUP_IDLE) {
            if let Some((anchor, _)) = &open.head {
                still_there(&open.repository, anchor).await?;
            }
            open.looked_us = now.0;
        }
        let mut cut = self.owner.store.cut().await?;
        let noted = open.look(cut.as_mut(), asked).await?;
        let is_base = open.marks.is_none() || asked.snapshot || open.is_due(asked.due, now);
        open.tried_us = is_base.then_some(now.0).or(open.tried_us);
        if let Some(admitted) = open.repository.admit(&self.key, &projects(cut.as_mut()).await?, secret).await? {
            open.repository = admitted;
        }
        let plan = Plan { is_base, now, bytes_per_s: self.bytes_per_s };
        let Some((manifest, anchor, gathered)) = carry(cut, (open, &mut self.tried), plan).await? else { return Ok(None) };
        let row = record(self.vault.place(), &manifest, (anchor, &gathered), open.marks.as_ref());
        let safe = gathered.lanes.iter().map(|(lane, last, _)| (*lane, *last)).collect();
        // The repository is further, whatever becomes of the record: what is shipped next goes on behind it, and has all of this again.
        open.head = Some((anchor, manifest.clone()));
        if let Err(error) = self.owner.store.note_backup(self.owner.project, row, safe).await {
            // Without room, nothing is noted, and the store stands where it stood.
            open.excused = noted.filter(|_| matches!(error, StoreError::Full(_)));
            // What the marks say to be bare may hold what was just shipped.
            if let Some(marks) = &mut open.marks {
                marks.bare.clear();
            }
            return Err(error.into());
        }
        open.settle(&manifest, gathered.marks);
        Ok(Some(Shipped { manifest, anchor, safe: gathered.lanes }))
    }

    async fn open(&self, (id, data): ([u8; 16], [u8; 32]), anew: bool) -> Result<Open, BackupFailure> {
        let Owner { store, project, keys } = &self.owner;
        let record = store.backup().await?;
        let repository = match Repository::open(Arc::clone(&self.vault), &self.key).await? {
            Some(repository) => repository,
            None => {
                if let Some(record) = record.as_ref().filter(|record| !anew && record.place == self.vault.place()) {
                    return Err(vanished(&record.place, record.anchor));
                }
                Repository::create(Arc::clone(&self.vault), &self.key, (*project, keys.clone()), (id, data)).await?
            }
        };
        belongs(&repository, *project, keys)?;
        let record = record.filter(|record| record.repository == repository.keyring().repository);
        let at_least = record.as_ref().map_or(0, |record| record.anchor.number);
        let newest = newest_number(self.vault.as_ref(), at_least).await?;
        let mut head = None;
        if newest > 0 {
            head = repository.manifest(newest).await?;
        }
        let (mut marks, mut under) = (None, None);
        if let Some(record) = record {
            let there = if newest < record.anchor.number { None } else { repository.manifest(record.anchor.number).await? };
            if let Some((_, there)) = there.filter(|(anchor, _)| *anchor == record.anchor) {
                under = Some(there.timeline);
                let timeline = store.current().await?.timeline.timeline;
                let goes_on = head.as_ref().is_some_and(|(_, head)| head.timeline == timeline);
                marks = if goes_on { Some(remembered(store.as_ref(), &record).await?) } else { None };
            } else if !anew {
                return Err(rolled_back(&self.vault.place(), record.anchor, newest));
            }
        }
        let (looked_us, quiet_us) = (i64::MIN / 2, 0);
        let (snapshot_bytes, segments_bytes, retiring, excused, tried_us) = (0, 0, None, None, None);
        Ok(Open { repository, head, under, marks, quiet_us, looked_us, snapshot_bytes, segments_bytes, retiring, excused, tried_us })
    }
}

impl Open {
    /// Finds out whether the store has gone back since the newest manifest; gives what it has noted. Where that is not certain, the next
    /// shipment stands by itself.
    async fn look(&mut self, cut: &mut dyn Cut, Asked { anew, copied, .. }: Asked) -> Result<Option<Anchor>, BackupFailure> {
        let noted = noted(cut, self.repository.keyring().repository).await?;
        let Some((anchor, head)) = &self.head else { return Ok(noted) };
        // Of two hubs, the other one has shipped: it is found out by the number.
        let is_further = noted.is_some_and(|noted| noted.number > anchor.number);
        if noted == Some(*anchor) || is_further || (noted.is_some() && noted == self.excused) {
            return Ok(noted);
        }
        let place = || self.repository.vault().place();
        let refused = match stands(cut, head, self.under).await? {
            Standing::Behind => Some(BackupFailure::WentBack(*anchor)),
            Standing::Foreign => Some(foreign(&place(), (*anchor, head))),
            Standing::Forked { is_less: true } if copied => Some(older_copy(&place(), *anchor)),
            Standing::Same | Standing::Forked { .. } => return Ok(noted),
            Standing::Unsure => None,
        };
        if let Some(refused) = refused.filter(|_| !anew) {
            cut.end().await?;
            return Err(refused);
        }
        self.marks = None;
        Ok(noted)
    }

    /// True where a snapshot should be, and none has just failed.
    fn is_due(&self, asked: bool, now: Eff) -> bool {
        let outgrown = self.segments_bytes > SEGMENTS_BYTES_MIN.max(SEGMENTS_PER_SNAPSHOT * self.snapshot_bytes);
        let long = self.head.as_ref().is_some_and(|(_, head)| head.number - head.base >= limits::BACKUP_SEGMENTS_MAX);
        let has_failed = self.tried_us.is_some_and(|tried| now.0 - tried < micros(limits::BACKUP_SNAPSHOT_RETRY));
        (asked || outgrown || long) && !has_failed
    }

    fn settle(&mut self, manifest: &Manifest, mut marks: Marks) {
        let bytes: u64 = manifest.members.iter().map(|member| member.bytes).sum();
        if manifest.is_base() {
            (self.snapshot_bytes, self.segments_bytes, self.tried_us) = (bytes, 0, None);
        } else {
            self.segments_bytes += bytes;
        }
        (self.retiring, self.excused, self.under) = (None, None, Some(manifest.timeline));
        self.quiet_us = marks.taken_us;
        let lists = self.marks.take().filter(|_| !manifest.is_base()).map(|marks| marks.changes).unwrap_or_default();
        marks.changes = lists.and(marks.changes);
        self.marks = Some(marks);
    }
}

pub(super) fn micros(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
