//! Retiring old backups, removing them, and holding some. All of it between two shipments, and while no other hub of the store has its turn, so
//! that nobody writes meanwhile.

use std::collections::BTreeSet;
use std::sync::Arc;

use mobo_core::backup::manifest::{Manifest, Retained};
use mobo_core::backup::retention::{Plan, Point, plan};
use mobo_core::backup::vault::{Pruner, VaultError};
use mobo_core::kernel::topics;

use super::super::vault::Target;
use super::Running;
use crate::backup::{Access, Asked, BackupFailure, Base, Drills, Repository, Swept, answer, open_pruner, points, sweep, sweep_keys};
use crate::settings::backup::RETENTION;

/// What to prune.
#[derive(Debug)]
pub(crate) struct Prune {
    /// Only say what would go.
    pub(crate) dry_run: bool,
    /// Key id and secret of whoever may remove, for this once; `None` for those of the settings.
    pub(crate) credential: Option<(String, String)>,
}

/// What became of the old backups.
#[derive(Debug)]
pub(crate) struct Pruned {
    /// Which ones stay, and why.
    pub(crate) plan: Plan,
    /// All of them.
    pub(crate) bases: Vec<Base>,
    /// What was removed; `None` where nothing should be.
    pub(crate) swept: Option<Swept>,
}

impl Running {
    /// Keeps the other hubs of this store from the repository: what one of them has found in the vault, and is about to name, must stay there.
    pub(super) async fn keep_others(&mut self) -> Result<(), BackupFailure> {
        // The first shipment opens the repository.
        self.shipment(Asked::default()).await?;
        match &mut self.open {
            Some((_, shipper)) => shipper.keep_others().await,
            None => Ok(()),
        }
    }

    /// Lets them go on.
    pub(super) async fn let_others(&mut self) {
        if let Some((_, shipper)) = &mut self.open {
            shipper.let_others().await;
        }
    }

    pub(super) async fn prune(&mut self, ask: Prune) -> Result<Pruned, BackupFailure> {
        self.shipment(Asked::default()).await?;
        let (repository, newest) = self.standing()?;
        let target = self.target();
        let bases = points(&repository, &newest).await?;
        let drilled: BTreeSet<u64> = self.drills().all().iter().filter(|drill| drill.ok).map(|drill| drill.base).collect();
        let point = |base: &Base| {
            let number = base.anchor.number;
            let (verified, held) = (drilled.contains(&number), newest.retained.held.contains(&number));
            Point { number, taken_us: base.manifest.taken_us, verified, held }
        };
        let plan = plan(&bases.iter().map(point).collect::<Vec<_>>(), &self.hub.config.get(&RETENTION).0);
        if ask.dry_run {
            return Ok(Pruned { plan, bases, swept: None });
        }
        // Opened before anything is retired: without the right to remove, nothing changes.
        let pruner = self.pruner(ask.credential.clone()).await?;
        let floor = plan.floor.unwrap_or(newest.floor).max(newest.floor);
        let stays = |base: &&Base| base.anchor.number < floor && !plan.dropped().any(|number| number == base.anchor.number);
        let kept = bases.iter().rev().filter(stays).map(|base| (base.anchor.number, base.anchor.hash)).collect();
        let retained = Retained { kept, held: newest.retained.held.clone() };
        self.retire(&newest, floor, retained).await?;
        // Meanwhile backups may go somewhere else: what stays there says nothing of what may go here.
        let is_same = |now: &Option<Arc<Target>>| target.as_ref().zip(now.as_ref()).is_some_and(|(was, now)| Arc::ptr_eq(was, now));
        if !is_same(&self.target()) {
            return Err(BackupFailure::Refused("backups have gone to another vault meanwhile: prune again".to_owned()));
        }
        let (repository, newest) = self.standing()?;
        let staying = points(&repository, &newest).await?;
        let turn = self.open.as_mut().and_then(|(_, shipper)| shipper.turn()).ok_or(BackupFailure::Busy)?;
        let swept = sweep((pruner.as_ref(), turn), &newest, &staying).await?;
        crate::metrics::backup::pruned(&swept);
        self.hub.board.tell(topics::backup("prune", true, Some(format!("{} objects, {} bytes", swept.removed, swept.bytes))));
        // What is locked goes another time: the next run finds it.
        if let Err(error) = self.shred(ask.credential).await {
            tracing::warn!(%error, "older keyrings of erased projects are still in the vault: prune again when they may be removed");
        }
        Ok(Pruned { plan, bases, swept: Some(swept) })
    }

    async fn pruner(&self, credential: Option<(String, String)>) -> Result<Arc<dyn Pruner>, BackupFailure> {
        let (Some((target, _)), access) = (&self.open, Access::pruner(&self.hub.config, credential)) else { return Err(off()) };
        let address = target.address.clone();
        let opening = tokio::task::spawn_blocking(move || open_pruner(&address, &access));
        let opened = async { opening.await.unwrap_or_else(|error| Err(VaultError::Unavailable(error.to_string()))) };
        Ok(answer(opened).await?)
    }

    /// Makes what is of erased projects unreadable: their keys go out of the repository, and all keyrings that had them are removed. A snapshot
    /// takes up what the hub still holds of them, such as its audit log. Says how many keyrings went.
    pub(super) async fn shred(&mut self, credential: Option<(String, String)>) -> Result<u64, BackupFailure> {
        self.shipment(Asked::default()).await?;
        let pruner = self.pruner(credential).await?;
        let Some((_, shipper)) = &mut self.open else { return Err(off()) };
        let fresh = shipper.shred().await?;
        // A run that was cut short left older ones.
        let repository = shipper.repository().cloned().ok_or_else(off)?;
        if fresh.is_none() && repository.keyring().others.shredded.is_empty() {
            return Ok(0);
        }
        let swept = sweep_keys(pruner.as_ref(), &repository).await?;
        if fresh.is_some() {
            self.shipment(Asked { snapshot: true, ..Asked::default() }).await?;
            self.hub.board.tell(topics::backup("shred", true, Some(format!("{} keyrings", swept.removed))));
        }
        Ok(swept.removed)
    }

    /// Keeps a snapshot whatever the policy, or lets it go again; gives all that are kept so.
    pub(super) async fn hold(&mut self, number: u64, hold: bool) -> Result<Vec<u64>, BackupFailure> {
        self.shipment(Asked::default()).await?;
        let (repository, newest) = self.standing()?;
        let bases = points(&repository, &newest).await?;
        let mut held: BTreeSet<u64> = newest.retained.held.iter().copied().collect();
        if hold && !bases.iter().any(|base| base.anchor.number == number) {
            let why = format!("{number} is no snapshot of this repository: `mobo-hub backup prune --dry-run` lists them");
            return Err(BackupFailure::Refused(why));
        }
        if hold {
            held.insert(number)
        } else {
            held.remove(&number)
        };
        let held: Vec<u64> = held.into_iter().collect();
        let retained = Retained { held: held.clone(), ..newest.retained.clone() };
        self.retire(&newest, newest.floor, retained).await?;
        Ok(held)
    }

    async fn retire(&mut self, newest: &Manifest, floor: u64, retained: Retained) -> Result<(), BackupFailure> {
        if (floor, &retained) == (newest.floor, &newest.retained) {
            return Ok(());
        }
        if let Some((_, shipper)) = &mut self.open {
            shipper.retire(floor, retained);
        }
        self.shipment(Asked::default()).await.map(|_| ())
    }

    fn target(&self) -> Option<Arc<Target>> {
        self.open.as_ref().map(|(target, _)| Arc::clone(target))
    }

    fn standing(&self) -> Result<(Repository, Manifest), BackupFailure> {
        let shipper = self.open.as_ref().map(|(_, shipper)| shipper).ok_or_else(off)?;
        let head = shipper.head().map(|(_, head)| head.clone());
        shipper.repository().cloned().zip(head).ok_or_else(|| BackupFailure::Refused("there is no backup yet: make one first".to_owned()))
    }

    fn drills(&self) -> Drills {
        Drills::of(&self.hub.folder, self.hub.keys.public())
    }
}

fn off() -> BackupFailure {
    BackupFailure::Refused("backups are off: set backup.url first".to_owned())
}
