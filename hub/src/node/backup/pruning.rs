//! Retiring old backups, removing them, and holding some. All of it between two shipments, so that nobody writes meanwhile.

use std::collections::BTreeSet;

use mobo_core::backup::manifest::{Manifest, Retained};
use mobo_core::backup::retention::{Plan, Point, plan};
use mobo_core::kernel::topics;

use super::Running;
use crate::backup::{Access, Asked, BackupFailure, Base, Drills, Repository, Swept, open_pruner, points, sweep};
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
    pub(super) async fn prune(&mut self, ask: Prune) -> Result<Pruned, BackupFailure> {
        self.shipment(Asked::default()).await?;
        let (repository, newest) = self.standing()?;
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
        let (Some((target, _)), access) = (&self.open, Access::pruner(&self.hub.config, ask.credential)) else { return Err(off()) };
        let address = target.address.clone();
        let opening = tokio::task::spawn_blocking(move || open_pruner(&address, &access)).await;
        // Opened before anything is retired: without the right to remove, nothing changes.
        let pruner = opening.map_err(|error| BackupFailure::Refused(error.to_string()))??;
        let floor = plan.floor.unwrap_or(newest.floor).max(newest.floor);
        let stays = |base: &&Base| base.anchor.number < floor && !plan.dropped().any(|number| number == base.anchor.number);
        let kept = bases.iter().rev().filter(stays).map(|base| (base.anchor.number, base.anchor.hash)).collect();
        let retained = Retained { kept, held: newest.retained.held.clone() };
        self.retire(&newest, floor, retained).await?;
        let (repository, newest) = self.standing()?;
        let staying = points(&repository, &newest).await?;
        let swept = sweep(pruner.as_ref(), &newest, &staying).await?;
        crate::metrics::backup::pruned(&swept);
        self.hub.board.tell(topics::backup("prune", true, Some(format!("{} objects, {} bytes", swept.removed, swept.bytes))));
        Ok(Pruned { plan, bases, swept: Some(swept) })
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
