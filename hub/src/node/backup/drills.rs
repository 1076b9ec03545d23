//! The task that tries restores, when they are due or asked for, beside everything else.

use std::sync::Arc;
use std::time::Duration;

use mobo_core::backup::keys::BackupKey;
use mobo_core::backup::schedule::Timetable;
use mobo_core::kernel::{Vital, topics};
use mobo_core::limits;
use mobo_core::trust;
use mobo_runtime::key_file;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::{BACKUP_KEY_FILE, Hub};
use crate::backup::{BackupFailure, Drills, Repository, clear_drill, drill};
use crate::settings::backup::{DRILL, DRILL_AGE, JITTER, When};

/// A drill that was asked for.
pub(crate) type Wanted = oneshot::Sender<Result<Value, BackupFailure>>;

/// What drills have come to, for health: everything in the hub's time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Proven {
    /// From when on a missing drill counts: when the oldest snapshot was taken, or this hub was started.
    pub(crate) since_us: i64,
    /// The last good one.
    pub(crate) good_us: Option<i64>,
}

/// When something of this hub is due.
pub(super) fn timetable(hub: &Hub, schedule: When) -> Timetable {
    let jitter = hub.config.get(&JITTER);
    let seed = trust::checksum(hub.keys.public().as_bytes());
    Timetable {
        schedule: schedule.0,
        jitter_us: u64::try_from(jitter.as_micros()).unwrap_or(u64::MAX),
        seed: u64::from(u32::from_be_bytes(seed)),
    }
}

pub(super) struct Drilling {
    pub(super) hub: Arc<Hub>,
}

impl Drilling {
    pub(super) async fn run(self, mut wanted: mpsc::Receiver<Wanted>, stopping: CancellationToken) {
        let drills = Drills::of(&self.hub.folder, self.hub.keys.public());
        if let Err(error) = clear_drill(&self.hub.folder) {
            tracing::warn!(%error, "what a drill has left is still there");
        }
        let mut last = drills.all().last().map(|drill| drill.at_us);
        let good_us = drills.last_good().map(|drill| drill.at_us);
        self.hub.backups.prove(|proven| proven.good_us = good_us);
        let mut every = tokio::time::interval(limits::DRILL_LOOK);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                Some(reply) = wanted.recv() => {
                    let done = self.drill(&drills, &stopping).await;
                    last = drills.all().last().map(|drill| drill.at_us).max(last);
                    let _ = reply.send(done);
                }
                _ = every.tick() => {
                    if self.is_due(last) {
                        if let Err(error) = self.drill(&drills, &stopping).await {
                            tracing::warn!(%error, "a drill was not made");
                        }
                        // A failed one is tried at its next time, and shown until then.
                        last = self.hub.opened().ok().map(|opened| opened.time.now().0).max(last);
                    }
                }
            }
        }
    }

    /// True where backups run, and the time of a drill has come since the last one or, before the first, since the oldest snapshot.
    fn is_due(&self, last: Option<i64>) -> bool {
        let report = self.hub.backups.report();
        let (Some(_), None, Ok(opened)) = (report.last, report.problem, self.hub.opened()) else { return false };
        let now = opened.time.now().0;
        let since = self.hub.backups.prove(|proven| {
            if proven.since_us == 0 {
                proven.since_us = report.last.map_or(now, |last| last.taken_us);
            }
            proven.since_us
        });
        timetable(&self.hub, self.hub.config.get(&DRILL)).due(last.unwrap_or(since), now).is_some()
    }

    async fn drill(&self, drills: &Drills, stopping: &CancellationToken) -> Result<Value, BackupFailure> {
        let off = || BackupFailure::Refused("backups are off: set backup.url first".to_owned());
        let (target, opened) = (self.hub.vault.get().ok_or_else(off)?, self.hub.opened()?);
        let known: Vec<_> = self.hub.backups.report().last.map(|last| last.anchor).into_iter().collect();
        let started_us = opened.time.now().0;
        let trying = async {
            let vault = target.vault().await?;
            let keys = key_file::load_or_create(&self.hub.folder.join(BACKUP_KEY_FILE));
            let key = BackupKey(keys.map_err(|error| BackupFailure::Refused(error.to_string()))?.secret());
            let repository = Repository::open(vault, &key).await?;
            let none = || BackupFailure::Refused("there is no backup in this vault".to_owned());
            drill(&repository.ok_or_else(none)?, &known, &self.hub.folder).await
        };
        let done = tokio::select! {
            done = trying => done,
            () = stopping.cancelled() => return Err(BackupFailure::Refused("the hub is stopping".to_owned())),
        };
        let ended_us = opened.time.now().0;
        let place = self.hub.backups.report().place.unwrap_or_else(|| target.address.clone());
        let report = drills.keep(&self.hub.keys, (started_us, ended_us), &place, &done)?;
        let detail = match &done {
            Ok(restored) => restored.anchor.to_string(),
            Err(error) => error.to_string(),
        };
        crate::metrics::backup::drilled(done.is_ok());
        if done.is_ok() {
            self.hub.backups.prove(|proven| proven.good_us = Some(ended_us));
        } else {
            tracing::error!(target: "alarm", detail, "a backup could not be restored: run `mobo-hub backup verify`");
        }
        self.hub.board.tell(topics::backup("drill", done.is_ok(), Some(detail)));
        Ok(report)
    }
}

/// What is wrong with the drills of a hub; `None` where nothing is.
pub(super) fn complaint(hub: &Hub) -> Option<Vital> {
    if hub.config.get(&DRILL).is_never() || hub.backups.report().last.is_none() {
        return None;
    }
    let proven = hub.backups.prove(|proven| *proven);
    let from = proven.good_us.unwrap_or(proven.since_us);
    let age = hub.opened().ok()?.time.now().0.saturating_sub(from);
    let max = i64::try_from(hub.config.get(&DRILL_AGE).as_micros()).unwrap_or(i64::MAX);
    if from == 0 || age <= max {
        return None;
    }
    let days = Duration::from_micros(age.unsigned_abs()).as_secs() / 86_400;
    Some(Vital::Worn(format!("no backup was restored for {days} days, so nobody knows that one can be: run `mobo-hub backup drill`")))
}
