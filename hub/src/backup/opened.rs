//! A repository that is open for shipping, and how far it is.

use std::sync::{Arc, Mutex};

use mobo_core::backup::keys::BackupKey;
use mobo_core::backup::manifest::{Anchor, Manifest, Retained};
use mobo_core::backup::vault::Vault;
use mobo_core::ids::Timeline;
use mobo_core::limits;
use mobo_core::store::Cut;
use mobo_core::time::Eff;

use super::marks::Marks;
use super::pack::Workbench;
use super::repository::newest_number;
use super::ship::{Asked, Owner, micros};
use super::standing::{Standing, noted, remembered, stands};
use super::whose::{belongs, foreign, of_this_key, older_copy, rolled_back, vanished};
use super::{BackupFailure, Repository};

/// Segments may have so many times the bytes of their snapshot before there is a new one.
const SEGMENTS_PER_SNAPSHOT: u64 = 4;
/// Less than this is no reason for one.
const SEGMENTS_BYTES_MIN: u64 = 64 * 1024 * 1024;

/// A repository, and how far it is.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) repository: Repository,
    pub(super) workbench: Arc<Mutex<Workbench>>,
    pub(super) head: Option<(Anchor, Manifest)>,
    /// The timeline of the last manifest that the store has noted.
    under: Option<Timeline>,
    /// What was shipped; `None` when the next one must be a snapshot.
    pub(super) marks: Option<Marks>,
    /// When everything was shipped, also what only says who was seen.
    pub(super) quiet_us: i64,
    /// When the newest manifest was last looked for.
    pub(super) looked_us: i64,
    snapshot_bytes: u64,
    segments_bytes: u64,
    /// What the next manifest says of the old ones, if that is to change.
    pub(super) retiring: Option<(u64, Retained)>,
    /// What the store has noted, where it had no room to note the manifests behind that.
    pub(super) excused: Option<Anchor>,
    /// When a snapshot was begun that has not come about.
    pub(super) tried_us: Option<i64>,
    /// The newest manifest, where another hub of the store has written it since.
    others: Option<(Anchor, Manifest)>,
}

/// What to do, as the store stands to the newest manifest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Next {
    /// Ship. What the store has noted.
    Ship(Option<Anchor>),
    /// Another hub of the store is further: begin behind what it has written.
    Reopen,
    /// Another hub of the store ships, and has a moment ago: its newest manifest.
    StandBy(Anchor),
}

impl Open {
    /// Opens the repository of a store in a vault, or makes one there.
    ///
    /// # Errors
    ///
    /// [`BackupFailure`]; [`BackupFailure::Refused`] where it is not the one that the store has on record, or not all of it.
    pub(super) async fn open(
        Owner { store, project, keys }: &Owner,
        (vault, key): (&Arc<dyn Vault>, &BackupKey),
        ((id, data), anew): (([u8; 16], [u8; 32]), bool),
    ) -> Result<Self, BackupFailure> {
        let record = store.backup().await?;
        let repository = match Repository::open(Arc::clone(vault), key).await? {
            Some(repository) => repository,
            None => {
                if let Some(record) = record.as_ref().filter(|record| !anew && record.place == vault.place()) {
                    return Err(vanished(&record.place, record.anchor));
                }
                Repository::create(Arc::clone(vault), key, (*project, keys.clone()), (id, data)).await?
            }
        };
        belongs(&repository, *project, keys)?;
        let record = record.filter(|record| record.repository == repository.keyring().repository);
        let at_least = record.as_ref().map_or(0, |record| record.anchor.number);
        let newest = newest_number(vault.as_ref(), at_least).await?;
        let mut head = None;
        if newest > 0 {
            head = repository.manifest(newest).await?;
        }
        if let Some((_, head)) = head.as_ref().filter(|_| !anew) {
            of_this_key(&repository, head)?;
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
                return Err(rolled_back(&vault.place(), record.anchor, newest));
            }
        }
        Ok(Self {
            workbench: Arc::default(),
            repository,
            head,
            under,
            marks,
            quiet_us: 0,
            looked_us: i64::MIN / 2,
            snapshot_bytes: 0,
            segments_bytes: 0,
            retiring: None,
            excused: None,
            tried_us: None,
            others: None,
        })
    }

    /// The newest manifest that is known of.
    pub(super) fn newest(&self) -> Option<&(Anchor, Manifest)> {
        self.others.as_ref().or(self.head.as_ref())
    }

    /// Takes note of what another hub of the store has written. Where that cannot be read now, it is another time.
    ///
    /// # Errors
    ///
    /// [`BackupFailure::Refused`] where this hub could not go on from there: it is said while the other one still ships.
    pub(super) async fn see(&mut self, anchor: Anchor) -> Result<(), BackupFailure> {
        if self.newest().is_none_or(|(newest, _)| *newest != anchor)
            && let Ok(Some(found)) = self.repository.manifest(anchor.number).await
        {
            self.others = Some(found);
        }
        self.others.as_ref().map_or(Ok(()), |(_, theirs)| of_this_key(&self.repository, theirs))
    }

    /// Finds out what to do: whether another hub of the store ships, and whether the store has gone back since the newest manifest. Where that
    /// is not certain, the next shipment stands by itself.
    pub(super) async fn look(&mut self, cut: &mut dyn Cut, now: Eff, asked: Asked) -> Result<Next, BackupFailure> {
        let noted = noted(cut, self.repository.keyring().repository).await?;
        let number = self.head.as_ref().map_or(0, |(anchor, _)| anchor.number);
        if let Some((newest, age_us)) = noted.beyond(number, now).filter(|_| !asked.anew) {
            let is_recent = age_us < micros(limits::BACKUP_BESIDE);
            return Ok(if asked.waits && is_recent { Next::StandBy(newest) } else { Next::Reopen });
        }
        let Some((anchor, head)) = &self.head else { return Ok(Next::Ship(noted.anchor())) };
        if noted.knows(anchor) || (noted.anchor().is_some() && noted.anchor() == self.excused) {
            return Ok(Next::Ship(noted.anchor()));
        }
        let place = || self.repository.vault().place();
        let refused = match stands(cut, head, self.under).await? {
            Standing::Behind => Some(BackupFailure::WentBack(*anchor)),
            Standing::Foreign => Some(foreign(&place(), (*anchor, head))),
            Standing::Forked { is_less: true } if asked.copied => Some(older_copy(&place(), *anchor)),
            Standing::Same | Standing::Forked { .. } => return Ok(Next::Ship(noted.anchor())),
            Standing::Unsure => None,
        };
        if let Some(refused) = refused.filter(|_| !asked.anew) {
            cut.end().await?;
            return Err(refused);
        }
        self.marks = None;
        Ok(Next::Ship(noted.anchor()))
    }

    /// True where a snapshot should be, and none has just failed.
    pub(super) fn is_due(&self, asked: bool, now: Eff) -> bool {
        let outgrown = self.segments_bytes > SEGMENTS_BYTES_MIN.max(SEGMENTS_PER_SNAPSHOT * self.snapshot_bytes);
        let long = self.head.as_ref().is_some_and(|(_, head)| head.number - head.base >= limits::BACKUP_SEGMENTS_MAX);
        let has_failed = self.tried_us.is_some_and(|tried| now.0 - tried < micros(limits::BACKUP_SNAPSHOT_RETRY));
        (asked || outgrown || long) && !has_failed
    }

    pub(super) fn settle(&mut self, manifest: &Manifest, mut marks: Marks) {
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
