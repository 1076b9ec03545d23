//! The part that backs up: every second while anything is new, beside everything else, and never in its way.

mod drills;
mod keys;
mod pruning;
mod shared;

use std::sync::Arc;

use mobo_core::backoff::Backoff;
use mobo_core::backup::manifest::Anchor;
use mobo_core::backup::vault::VaultError;
use mobo_core::kernel::{Check, ComponentSpec, Fault, Vital, topics};
use mobo_core::limits;
use mobo_core::store::StoreError;
use mobo_runtime::component::{BoxFuture, Component};
use mobo_runtime::machine;
use mobo_runtime::tasks::Tasks;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

pub(crate) use drills::Proven;
pub(crate) use pruning::{Prune, Pruned};
pub(crate) use shared::{Backups, Job, Last, Report};

use super::vault::Target;
use super::{BACKUP, Hub, STORE, VAULT, VERSION, store_fault};
use crate::backup::{Asked, BackupFailure, Fresh, Owner, Shipped, Shipper, take_restored};
use crate::{metrics, settings};

/// The backup key's file in the data folder.
pub const BACKUP_KEY_FILE: &str = "backup.key";
/// Says that the data folder is a copy, and has not shipped anything yet.
pub(crate) const COPIED_FILE: &str = "copied";
/// Where the next one waits until the vault has its keyring.
const NEXT_KEY_FILE: &str = "backup.key.next";

pub(super) struct BackupPart(pub(super) Arc<Hub>);

impl Component for BackupPart {
    fn spec(&self) -> ComponentSpec {
        ComponentSpec::optional(BACKUP, VERSION).needing([STORE, VAULT])
    }

    fn post(&self) -> BoxFuture<'_, Vec<Check>> {
        Box::pin(async { Vec::new() })
    }

    fn start(&self, tasks: Tasks) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let merges = self.0.merges().map_err(|error| store_fault(&error, ""))?;
            if let Some(what) = take_restored(&self.0.folder) {
                self.0.board.tell(topics::backup("restore", true, Some(what)));
            }
            let (jobs, asked) = mpsc::channel(1);
            self.0.backups.jobs.fill(jobs);
            let (drills, wanted) = mpsc::channel(1);
            self.0.backups.drills.fill(drills);
            let drilling = drills::Drilling { hub: Arc::clone(&self.0) };
            tasks.spawn("drill", drilling.run(wanted, tasks.stopping()));
            let running = Running {
                hub: Arc::clone(&self.0),
                open: None,
                base: None,
                pause: Backoff::new(limits::BACKUP_RETRY_MIN, limits::BACKUP_RETRY_MAX),
            };
            let (shipping, stopping) = (self.0.backups.shipping.clone(), tasks.stopping());
            tasks.spawn("ship", async move { shipping.charge(running.run(asked, (merges.hints(), merges.bytes()), stopping)).await });
            Ok(())
        })
    }

    fn health(&self) -> BoxFuture<'_, Vital> {
        Box::pin(async {
            match self.0.backups.report().problem {
                None => drills::complaint(&self.0).unwrap_or(Vital::Fine),
                Some((why, since)) => {
                    let minutes = since.elapsed().as_secs() / 60;
                    Vital::Worn(format!("backups stand still for {minutes} minutes, and nothing new is safe: {why}"))
                }
            }
        })
    }

    fn recover(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }

    fn stop(&self, _: Instant) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async {
            self.0.backups.jobs.take();
            self.0.backups.drills.take();
            Ok(())
        })
    }
}

struct Running {
    hub: Arc<Hub>,
    open: Option<(Arc<Target>, Shipper)>,
    /// The newest snapshot and when it was taken: the last run of the schedule.
    base: Option<(u64, i64)>,
    pause: Backoff,
}

impl Running {
    async fn run(
        mut self,
        mut asked: mpsc::Receiver<Job>,
        (mut news, mut bytes): (broadcast::Receiver<crate::merger::News>, watch::Receiver<u64>),
        stopping: CancellationToken,
    ) {
        let mut every = tokio::time::interval(limits::BACKUP_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut due = Instant::now();
        // How many bytes there must have been for a shipment before its second, where that may be.
        let mut full = None;
        loop {
            tokio::select! {
                biased;
                () = stopping.cancelled() => break,
                Some(job) = asked.recv() => if unless(&stopping, self.job(job)).await.is_none() { break },
                () = reaches(&mut bytes, full) => {
                    drain(&mut news);
                    let Some(next) = unless(&stopping, self.ship(&bytes)).await else { break };
                    (due, full) = next;
                    every.reset();
                }
                _ = every.tick() => {
                    let is_news = drain(&mut news) && self.is_well();
                    if Instant::now() >= due || is_news {
                        let Some(next) = unless(&stopping, self.ship(&bytes)).await else { break };
                        (due, full) = next;
                    }
                }
            }
        }
        // What was merged since is shipped yet, if the vault is quick. A snapshot is not begun any more.
        if self.is_well() {
            let _ = tokio::time::timeout(limits::BACKUP_LAST, self.shipment(Asked { waits: true, ..Asked::default() })).await;
        }
    }

    fn is_well(&self) -> bool {
        self.hub.backups.report().problem.is_none()
    }

    /// Ships what is new, or everything where the schedule says so. Says when to look again, and after how many bytes not to wait for that:
    /// where the vault is quick enough for more than one shipment in a second.
    async fn ship(&mut self, bytes: &watch::Receiver<u64>) -> (Instant, Option<u64>) {
        let (began, before) = (Instant::now(), *bytes.borrow());
        let asked = Asked { due: self.snapshot_is_due().await, waits: true, ..Asked::default() };
        let pause = match self.shipment(asked).await {
            Ok(_) => limits::BACKUP_LOOK,
            Err(_) => {
                let entropy = machine::random(&self.hub.clock).map_or(0, u64::from_be_bytes);
                self.pause.next_pause(entropy, None)
            }
        };
        let may_hurry = self.is_well() && began.elapsed() <= limits::BACKUP_HURRY_MAX;
        (Instant::now() + pause, may_hurry.then_some(before + limits::BACKUP_EVERY_BYTES))
    }

    /// True where the time of a snapshot has come since the last one was taken. That one is the schedule's memory: it outlives the hub, and a
    /// run that was missed is made up for once.
    async fn snapshot_is_due(&mut self) -> bool {
        let Some((_, shipper)) = &self.open else { return false };
        let (Some((_, head)), Some(repository)) = (shipper.head(), shipper.repository()) else { return false };
        if self.base.is_none_or(|(number, _)| number != head.base) {
            let Ok(Some((_, base))) = repository.manifest(head.base).await else { return false };
            self.base = Some((base.number, base.taken_us));
        }
        let (Some((_, taken_us)), Ok(opened)) = (self.base, self.hub.opened()) else { return false };
        let table = drills::timetable(&self.hub, self.hub.config.get(&settings::backup::SCHEDULE));
        table.due(taken_us, opened.time.now().0).is_some()
    }

    async fn job(&mut self, job: Job) {
        match job {
            Job::Create(asked, reply) => {
                let shipped = if self.has_target() { self.shipment(asked).await } else { Err(off()) };
                let event = match &shipped {
                    Ok(Some(shipped)) => topics::backup("create", true, Some(shipped.anchor.to_string())),
                    Ok(None) => topics::backup("create", true, None),
                    Err(error) => topics::backup("create", false, Some(error.to_string())),
                };
                self.hub.board.tell(event);
                let _ = reply.send(shipped);
            }
            Job::Prune(ask, reply) => {
                let done = match self.keep_others().await {
                    Ok(()) => self.prune(ask).await,
                    Err(error) => Err(error),
                };
                self.let_others().await;
                let _ = reply.send(done);
            }
            Job::Shred(reply) => {
                let done = match self.keep_others().await {
                    Ok(()) => self.shred(None).await,
                    Err(error) => Err(error),
                };
                self.let_others().await;
                let _ = reply.send(done);
            }
            Job::Hold((number, hold), reply) => {
                let done = match self.keep_others().await {
                    Ok(()) => self.hold(number, hold).await,
                    Err(error) => Err(error),
                };
                self.let_others().await;
                let _ = reply.send(done);
            }
            Job::Rotate(reply) => {
                let done = match self.keep_others().await {
                    Ok(()) => self.rotate().await,
                    Err(error) => Err(error),
                };
                self.let_others().await;
                let _ = reply.send(done);
            }
        }
    }

    async fn shipment(&mut self, asked: Asked) -> Result<Option<Shipped>, BackupFailure> {
        let shipped = self.try_ship(asked).await;
        let is_waiting = shipped == Ok(None) && self.open.as_ref().is_some_and(|(_, shipper)| shipper.is_waiting());
        if is_waiting || shipped == Err(BackupFailure::Busy) {
            // It passes, and what is new becomes safe by the other hub.
            return shipped;
        }
        metrics::backup::shipped(&shipped);
        let was_well = self.hub.backups.report().problem.is_none();
        match &shipped {
            Ok(_) if !self.has_target() => self.hub.backups.change(|report| *report = Report::default()),
            Ok(shipped) => {
                self.pause.reset();
                if !was_well {
                    tracing::warn!("backups go on");
                    self.hub.board.tell(topics::backup("ship", true, None));
                }
                self.told(shipped.as_ref());
            }
            Err(error) => {
                let why = format!("{error}; {}", advice(error));
                if was_well {
                    tracing::error!(target: "alarm", why, "nothing new is safe: backups stand still");
                    self.hub.board.tell(topics::backup("ship", false, Some(why.clone())));
                }
                self.hub.backups.change(|report| {
                    let since = report.problem.as_ref().map_or_else(Instant::now, |(_, since)| *since);
                    report.problem = Some((why, since));
                });
            }
        }
        shipped
    }

    fn has_target(&self) -> bool {
        self.hub.vault.get().is_some()
    }

    /// What is safe now is told to whoever waits for it.
    fn told(&mut self, shipped: Option<&Shipped>) {
        let head = self.open.as_ref().and_then(|(_, shipper)| shipper.head());
        let last = head.map(|(anchor, head)| Last { anchor: *anchor, taken_us: head.taken_us, totals: head.totals });
        let place = self.open.as_ref().map(|(_, shipper)| shipper.place());
        self.hub.backups.change(|report| *report = Report { place, last, problem: None });
        let heard = self.open.as_mut().map(|(_, shipper)| shipper.heard()).unwrap_or_default();
        if let Some(sessions) = self.hub.sessions() {
            sessions.safe(&heard);
            shipped.inspect(|shipped| sessions.safe(&shipped.safe));
        }
    }

    async fn try_ship(&mut self, asked: Asked) -> Result<Option<Shipped>, BackupFailure> {
        let Some(target) = self.hub.vault.get() else {
            self.open = None;
            return Ok(None);
        };
        if self.open.as_ref().is_none_or(|(open, _)| !Arc::ptr_eq(open, &target)) {
            let vault = target.vault().await?;
            let opened = self.hub.opened()?;
            let owner = Owner { store: Arc::clone(&opened.store), project: opened.project, keys: self.hub.keys.clone() };
            let limit = self.hub.config.get(&settings::BACKUP_RATE).0;
            self.open = Some((target, Shipper::new(owner, vault, (self.key(BACKUP_KEY_FILE)?, limit))));
        }
        let clock = &self.hub.clock;
        let fresh = Fresh { repository: machine::random(clock)?, data: machine::random(clock)?, projects: machine::random(clock)? };
        let now = self.hub.opened()?.time.now();
        let Some((_, shipper)) = &mut self.open else { return Ok(None) };
        let copied = self.hub.folder.join(COPIED_FILE);
        let asked = Asked { copied: copied.exists(), ..asked };
        let shipped = match shipper.ship(now, fresh, asked).await {
            Err(BackupFailure::WentBack(anchor)) => {
                went_back(&self.hub, anchor).await?;
                shipper.ship(now, fresh, asked).await
            }
            shipped => shipped,
        };
        // From here on the vault has a state of its own timeline.
        if asked.copied && matches!(shipped, Ok(Some(_))) {
            std::fs::remove_file(&copied).map_err(|error| StoreError::Unavailable(format!("{}: {error}", copied.display())))?;
        }
        shipped
    }
}

/// The store is older than its own newest backup: the hub goes on under a new timeline, and its devices give back what they hold (rule R17).
async fn went_back(hub: &Hub, anchor: Anchor) -> Result<(), BackupFailure> {
    let history = &hub.opened()?.history;
    tracing::error!(
        target: "alarm",
        %anchor,
        "the store holds less than this backup of it: it was put back to an older state, and the hub goes on under a new timeline. What only \
         its API has written since is in the backups up to this one: `mobo-hub restore --collection … --at NUMBER` brings it back"
    );
    hub.board.tell(topics::backup("ship", false, Some(BackupFailure::WentBack(anchor).to_string())));
    Ok(history.fork(history.era().timeline.timeline, Vec::new()).await?)
}

/// What comes out of it; `None` where the part is to stop before that.
async fn unless<T>(stopping: &CancellationToken, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = stopping.cancelled() => None,
        done = work => Some(done),
    }
}

fn off() -> BackupFailure {
    BackupFailure::Refused("backups are off: set backup.url, or `mobo-hub component swap store.vault /path`".to_owned())
}

/// Waits until so many bytes were merged; for ever without a number.
async fn reaches(bytes: &mut watch::Receiver<u64>, full: Option<u64>) {
    let Some(full) = full else { return std::future::pending().await };
    if bytes.wait_for(|total| *total >= full).await.is_err() {
        std::future::pending().await
    }
}

/// True if anything was merged since.
fn drain(news: &mut broadcast::Receiver<crate::merger::News>) -> bool {
    let mut any = false;
    loop {
        match news.try_recv() {
            Ok(_) | Err(broadcast::error::TryRecvError::Lagged(_)) => any = true,
            Err(broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed) => return any,
        }
    }
}

/// What to do about it.
fn advice(error: &BackupFailure) -> &'static str {
    match error {
        BackupFailure::Vault(VaultError::Full(_)) => "make room in the vault; nothing is dropped, and it catches up by itself",
        BackupFailure::Vault(VaultError::Unavailable(_)) => {
            "see that the vault can be reached; nothing is dropped, and it catches up by itself"
        }
        BackupFailure::Vault(_) => "look at the vault and its credentials",
        BackupFailure::Format(_) => "run `mobo-hub backup verify`",
        BackupFailure::Store(_) => "look at the store: `mobo-hub health check`",
        BackupFailure::WentBack(_) => "the hub goes on under a new timeline",
        BackupFailure::Taken(_) => "see that no other hub ships there",
        BackupFailure::Busy => "wait for the other hub",
        BackupFailure::Refused(_) => "do what the sentence says",
    }
}
