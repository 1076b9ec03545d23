//! Carries what is new in a store into a repository, one manifest after the other.

use std::ops::ControlFlow;
use std::sync::Arc;

use std::time::Duration;

use mobo_core::backup::RepositoryId;
use mobo_core::backup::keys::BackupKey;
use mobo_core::backup::manifest::{Anchor, Manifest, Retained};
use mobo_core::backup::vault::Vault;
use mobo_core::ids::{Chain, LaneKey, ProjectId, Seq};
use mobo_core::limits;
use mobo_core::store::{HubStore, StoreError, Turn};
use mobo_core::time::Eff;
use mobo_core::trust::KeyPair;

use super::carry::{Plan, carry, record};
use super::opened::{Next, Open};
use super::overheard::Overheard;
use super::projects::projects;
use super::standing::noted;
use super::whose::{still_there, written_twice};
use super::{BackupFailure, Fresh, Repository};

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
    /// Not now, if another hub of the store ships: that one has what is new here, too.
    pub waits: bool,
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

/// Carries what is new, whenever it is asked to. One at a time for a repository: hubs of one store take turns, and of two others, one finds its
/// manifest's number taken.
#[derive(Debug)]
pub struct Shipper {
    owner: Owner,
    vault: Arc<dyn Vault>,
    key: BackupKey,
    bytes_per_s: u64,
    open: Option<Open>,
    /// One that somebody else has written in the place of the next one.
    taken: Option<(RepositoryId, Anchor)>,
    /// This hub's turn among those of its store, and whether it goes on behind this shipment.
    turn: Option<Box<dyn Turn>>,
    goes_on: bool,
    /// Since when another hub has had its turn whenever this one looked.
    waiting_since: Option<Eff>,
    overheard: Overheard,
    heard: Vec<(LaneKey, Seq, Chain)>,
}

/// How a shipment went: it came to an end, with what was shipped; or another hub of the store is further, and it is to begin again behind that.
type Gone = ControlFlow<Option<Shipped>>;

impl Shipper {
    /// Of a store into a vault, under a backup key. At most so many bytes in a second; 0 for no limit.
    #[must_use]
    pub fn new(owner: Owner, vault: Arc<dyn Vault>, (key, bytes_per_s): (BackupKey, u64)) -> Self {
        let (overheard, heard) = (Overheard::default(), Vec::new());
        Self { owner, vault, key, bytes_per_s, open: None, taken: None, turn: None, goes_on: false, waiting_since: None, overheard, heard }
    }

    /// The newest manifest, once the repository was opened: also one that another hub of the store has written.
    #[must_use]
    pub fn head(&self) -> Option<&(Anchor, Manifest)> {
        self.open.as_ref().and_then(Open::newest)
    }

    /// The lanes that became safe by what another hub of the store has shipped, with their ends, since this was asked last.
    pub fn heard(&mut self) -> Vec<(LaneKey, Seq, Chain)> {
        std::mem::take(&mut self.heard)
    }

    /// Keeps the other hubs of the store from the repository, until [`let_others`](Self::let_others): what comes out of the next shipment
    /// stays the newest.
    ///
    /// # Errors
    ///
    /// [`BackupFailure::Busy`] where another one has its turn now; the store's.
    pub async fn keep_others(&mut self) -> Result<(), BackupFailure> {
        self.goes_on = self.begin_turn(limits::BACKUP_TURN_WAIT).await?;
        if self.goes_on { Ok(()) } else { Err(BackupFailure::Busy) }
    }

    /// Lets the other hubs of the store have their turns.
    pub async fn let_others(&mut self) {
        self.goes_on = false;
        if let Some(mut turn) = self.turn.take()
            && let Err(error) = turn.end().await
        {
            tracing::debug!(%error, "a turn at the repository ends with its connection");
        }
    }

    /// True while another hub of the store has its turn: what this one said last of its backups still holds.
    #[must_use]
    pub const fn is_waiting(&self) -> bool {
        self.waiting_since.is_some()
    }

    /// The turn that keeps the others away; `None` where nothing does.
    pub fn turn(&mut self) -> Option<&mut (dyn Turn + 'static)> {
        self.turn.as_deref_mut()
    }

    /// Nobody else can have a turn now.
    async fn has_turn(&mut self) -> Result<(), BackupFailure> {
        let turn = self.turn.as_mut().ok_or(BackupFailure::Busy)?;
        if turn.holds().await? { Ok(()) } else { Err(BackupFailure::Busy) }
    }

    /// True when this hub has its turn.
    async fn begin_turn(&mut self, patience: Duration) -> Result<bool, BackupFailure> {
        if let Some(turn) = &mut self.turn {
            if turn.holds().await? {
                return Ok(true);
            }
            self.turn = None;
        }
        self.turn = self.owner.store.turn(patience).await?;
        Ok(self.turn.is_some())
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

    /// Goes on under another backup key, with a new data key. Only while [others are kept away](Self::keep_others): what they go on with is
    /// the keyring of before.
    ///
    /// # Errors
    ///
    /// The vault's, and [`BackupFailure::Busy`] without a turn; everything is as it was then.
    pub async fn rotate(&mut self, key: BackupKey, data: [u8; 32]) -> Result<(), BackupFailure> {
        self.has_turn().await?;
        let open = self.open.as_mut().ok_or_else(|| BackupFailure::Refused("there is no backup yet: make one first".to_owned()))?;
        open.repository = open.repository.rotate(&key, data).await?;
        self.key = key;
        Ok(())
    }

    /// Ships what is new, at `now`; `None` when nothing is, and where another hub of the store ships it.
    ///
    /// # Errors
    ///
    /// [`BackupFailure`]. Nothing is safe that was not; the next call goes on where this one was.
    pub async fn ship(&mut self, now: Eff, fresh: Fresh, asked: Asked) -> Result<Option<Shipped>, BackupFailure> {
        let patience = if asked.waits { Duration::ZERO } else { limits::BACKUP_TURN_WAIT };
        if !self.begin_turn(patience).await? {
            let since = *self.waiting_since.get_or_insert(now);
            return match asked.waits {
                true if now.0 - since.0 > micros(limits::BACKUP_TURN_LONG) => Err(BackupFailure::Refused(long_turn(now.0 - since.0))),
                true => Ok(None),
                false => Err(BackupFailure::Busy),
            };
        }
        self.waiting_since = None;
        let shipped = self.ship_in_turn(now, fresh, asked).await;
        if !self.goes_on {
            self.let_others().await;
        }
        shipped
    }

    async fn ship_in_turn(&mut self, now: Eff, fresh: Fresh, mut asked: Asked) -> Result<Option<Shipped>, BackupFailure> {
        for _ in 0..limits::BACKUP_GOES_MAX {
            self.is_alone(asked.anew).await?;
            let mut open = match self.open.take() {
                Some(open) => open,
                None => Open::open(&self.owner, (&self.vault, &self.key), ((fresh.repository, fresh.data), asked.anew)).await?,
            };
            match self.ship_into(&mut open, (now, &fresh.projects), asked).await {
                // What a person must look at is looked at again from the start.
                Err(error @ (BackupFailure::Refused(_) | BackupFailure::WentBack(_))) => return Err(error),
                Err(BackupFailure::Taken(found)) => self.taken = Some((open.repository.keyring().repository, found)),
                // Whether a snapshot is due is known once it is seen what the other one has done. A retirement is of what was there before.
                Ok(Gone::Continue(())) if open.retiring.is_none() => asked.due = false,
                Ok(Gone::Continue(())) => return Err(BackupFailure::Busy),
                Ok(Gone::Break(shipped)) => {
                    self.open = Some(open);
                    return Ok(shipped);
                }
                Err(error) => {
                    self.open = Some(open);
                    return Err(error);
                }
            }
        }
        let why = "other hubs of this store were faster each time, or the store does not take down what was written".to_owned();
        Err(StoreError::Unavailable(why).into())
    }

    /// Nobody else ships into the repository but hubs of the same store, which note what they ship, or what they were about to.
    async fn is_alone(&mut self, anew: bool) -> Result<(), BackupFailure> {
        let Some((repository, found)) = self.taken.filter(|_| !anew) else {
            self.taken = None;
            return Ok(());
        };
        let mut cut = self.owner.store.cut().await?;
        let noted = noted(cut.as_mut(), repository).await?;
        cut.end().await?;
        let is_noted = noted.anchor().is_some_and(|newest| newest.number > found.number);
        if !is_noted && !noted.knows(&found) {
            return Err(written_twice(&self.vault.place(), found));
        }
        self.taken = None;
        Ok(())
    }

    /// Takes the keys of projects that are gone out of the repository. `None` where there are none; else the repository, whose older keyrings
    /// are to be removed by whoever may. What is left in the store is in the next backup, which must be a snapshot. Likewise only while others
    /// are kept away.
    ///
    /// # Errors
    ///
    /// The vault's, and the store's, and [`BackupFailure::Busy`] without a turn; everything is as it was then.
    pub async fn shred(&mut self) -> Result<Option<Repository>, BackupFailure> {
        self.has_turn().await?;
        let Some(open) = &mut self.open else { return Ok(None) };
        let mut cut = self.owner.store.cut().await?;
        let staying = projects(cut.as_mut()).await?;
        cut.end().await?;
        let Some(shredded) = open.repository.shred(&self.key, &staying).await? else { return Ok(None) };
        open.repository = shredded.clone();
        Ok(Some(shredded))
    }

    async fn ship_into(&mut self, open: &mut Open, (now, secret): (Eff, &[u8; 32]), asked: Asked) -> Result<Gone, BackupFailure> {
        let store = Arc::clone(&self.owner.store);
        let mut cut = store.cut().await?;
        let noted = match open.look(cut.as_mut(), now, asked).await? {
            Next::Ship(noted) => noted,
            Next::Reopen => {
                cut.end().await?;
                return Ok(Gone::Continue(()));
            }
            Next::StandBy(newest) => {
                self.heard.extend(self.overheard.hear(cut.as_mut()).await?);
                cut.end().await?;
                open.see(newest).await?;
                return Ok(Gone::Break(None));
            }
        };
        if now.0 - open.looked_us >= micros(limits::BACKUP_IDLE) {
            if let Some((anchor, _)) = &open.head {
                still_there(&open.repository, anchor).await?;
            }
            open.looked_us = now.0;
        }
        let is_base = open.marks.is_none() || asked.snapshot || open.is_due(asked.due, now);
        open.tried_us = is_base.then_some(now.0).or(open.tried_us);
        if let Some(admitted) = open.repository.admit(&self.key, &projects(cut.as_mut()).await?, secret).await? {
            open.repository = admitted;
        }
        let plan = Plan { is_base, now, bytes_per_s: self.bytes_per_s };
        let Some((manifest, anchor, gathered)) = carry(cut, (open, store.as_ref()), plan).await? else { return Ok(Gone::Break(None)) };
        let row = record(self.vault.place(), &manifest, (anchor, &gathered), open.marks.as_ref());
        let safe = gathered.lanes.iter().map(|(lane, last, _)| (*lane, *last)).collect();
        // The repository is further, whatever becomes of the record: what is shipped next goes on behind it, and has all of this again.
        open.head = Some((anchor, manifest.clone()));
        match store.note_backup(self.owner.project, row, safe).await {
            Ok(true) => {}
            Ok(false) => return Ok(Gone::Continue(())),
            Err(error) => {
                // Without room, nothing is noted, and the store stands where it stood.
                open.excused = noted.filter(|_| matches!(error, StoreError::Full(_)));
                if let Some(marks) = &mut open.marks {
                    marks.doubt(&gathered.marks);
                }
                return Err(error.into());
            }
        }
        open.settle(&manifest, gathered.marks);
        self.overheard = Overheard::default();
        Ok(Gone::Break(Some(Shipped { manifest, anchor, safe: gathered.lanes })))
    }
}

fn long_turn(waited_us: i64) -> String {
    let minutes = waited_us / 60_000_000;
    format!(
        "another hub of this store has been at the backups for {minutes} minutes, and nothing new is safe meanwhile: look at that hub, or stop it"
    )
}

pub(super) fn micros(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
