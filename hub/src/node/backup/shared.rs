//! What the part that backs up and the desk share.

use std::sync::{Mutex, PoisonError};

use mobo_adapters::meter::Meter;
use mobo_core::backup::manifest::{Anchor, Totals};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::{Proven, Prune, Pruned, drills};
use crate::backup::{Asked, BackupFailure, Shipped};

/// How backups are going.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// Where they go.
    pub(crate) place: Option<String>,
    /// The newest manifest of this boot.
    pub(crate) last: Option<Last>,
    /// Why nothing new becomes safe, since when.
    pub(crate) problem: Option<(String, Instant)>,
}

/// A manifest, for status.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Last {
    /// What proves it.
    pub(crate) anchor: Anchor,
    /// When it was taken.
    pub(crate) taken_us: i64,
    /// What was in it.
    pub(crate) totals: Totals,
}

/// What the part is asked from outside.
pub(crate) enum Job {
    /// A backup now.
    Create(Asked, oneshot::Sender<Result<Option<Shipped>, BackupFailure>>),
    /// Another backup key; gives its id.
    Rotate(oneshot::Sender<Result<String, BackupFailure>>),
    /// What is left of erased projects goes; says of how many keyrings.
    Shred(oneshot::Sender<Result<u64, BackupFailure>>),
    /// Old ones go.
    Prune(Prune, oneshot::Sender<Result<Pruned, BackupFailure>>),
    /// A snapshot stays whatever the policy, or not any more; gives all that do.
    Hold((u64, bool), oneshot::Sender<Result<Vec<u64>, BackupFailure>>),
}

/// What the desk and the part share.
#[derive(Debug, Default)]
pub(crate) struct Backups {
    report: Mutex<Report>,
    pub(super) jobs: mobo_runtime::slot::Slot<mpsc::Sender<Job>>,
    pub(super) drills: mobo_runtime::slot::Slot<mpsc::Sender<drills::Wanted>>,
    proven: Mutex<Proven>,
    /// What shipping takes.
    pub(crate) shipping: Meter,
}

impl Backups {
    /// Looks at what drills have come to, or changes it.
    pub(super) fn prove<T>(&self, look: impl FnOnce(&mut Proven) -> T) -> T {
        look(&mut self.proven.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What drills have come to.
    pub(crate) fn proven(&self) -> Proven {
        self.prove(|proven| *proven)
    }

    /// Restores the newest backup into scratch space; gives the signed report.
    pub(crate) async fn drill(&self) -> Result<serde_json::Value, BackupFailure> {
        let off = || BackupFailure::Refused("backups are off: set backup.url first".to_owned());
        let wanted = self.drills.get().ok_or_else(off)?;
        let (reply, answer) = oneshot::channel();
        wanted.send(reply).await.map_err(|_| off())?;
        answer.await.map_err(|_| off())?
    }

    /// How backups are going.
    pub(crate) fn report(&self) -> Report {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Asks the part.
    pub(crate) async fn ask<T>(&self, job: impl FnOnce(oneshot::Sender<Result<T, BackupFailure>>) -> Job) -> Result<T, BackupFailure> {
        let jobs = self.jobs.get().ok_or_else(super::off)?;
        let (reply, answer) = oneshot::channel();
        jobs.send(job(reply)).await.map_err(|_| super::off())?;
        answer.await.map_err(|_| super::off())?
    }
}
