//! The hub's history while it runs: on which timeline it is, and how it gets to another (rules R17, R18).
//!
//! Everything that depends on the timeline asks for the [`Era`] when it needs it. Sessions live and die with one: when it changes, they end,
//! and their devices come back into the new one.

mod parked;

use std::fmt;
use std::sync::Arc;

use mobo_core::ids::{DeviceId, Incarnation, ProjectId, Timeline};
use mobo_core::limits;
use mobo_core::merge::{Hint, HubAuthor};
use mobo_core::message::{Offer, SchemaUpdate, TimelineInfo};
use mobo_core::schema::Schema;
use mobo_core::session::hub::HubIdentity;
use mobo_core::store::{Arrival, Fork, HubStore, OfferBatch, OfferReport, StoreError};
use mobo_core::time::Eff;
use mobo_core::trust::{KeyPair, OfferKey};
use mobo_runtime::machine;
use mobo_runtime::tasks::Tasks;
use tokio::sync::watch;

use crate::hub_time::HubTime;

/// What holds on one timeline.
#[derive(Clone, Debug)]
pub struct Era {
    /// Keys, project and timeline, for sessions.
    pub identity: Arc<HubIdentity>,
    /// The timeline and where it comes from.
    pub timeline: TimelineInfo,
    /// The author of the hub's own writes.
    pub author: HubAuthor,
    /// True while devices give back what the hub has lost.
    pub recovering: bool,
    /// The hub's time when it found out that it had gone back; of one that never did, the beginning of all times.
    pub found_out: Eff,
}

/// The hub's history.
pub struct History {
    store: Arc<dyn HubStore>,
    time: Arc<HubTime>,
    eras: watch::Sender<Arc<Era>>,
    schema: watch::Sender<Arc<Schema>>,
    /// One change at a time.
    changing: tokio::sync::Mutex<()>,
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History").field("era", &self.era()).finish_non_exhaustive()
    }
}

impl History {
    /// The history that `store` has on record. The hub's own log is known to the store when this is ready.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn open(
        store: Arc<dyn HubStore>,
        time: Arc<HubTime>,
        (project, keys, offer): (ProjectId, &KeyPair, OfferKey),
        schema: watch::Sender<Arc<Schema>>,
    ) -> Result<Self, StoreError> {
        let era = read(store.as_ref(), &time, (project, keys, offer)).await?;
        Ok(Self { store, time, eras: watch::Sender::new(Arc::new(era)), schema, changing: tokio::sync::Mutex::new(()) })
    }

    /// What holds now.
    #[must_use]
    pub fn era(&self) -> Arc<Era> {
        Arc::clone(&self.eras.borrow())
    }

    /// Tells when it changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Era>> {
        self.eras.subscribe()
    }

    /// Starts a new timeline, unless somebody else has since `from`.
    ///
    /// # Errors
    ///
    /// The store's; it is as before then, or another hub's timeline.
    pub async fn fork(&self, from: Timeline, foreign: Vec<Timeline>) -> Result<(), StoreError> {
        let _one_at_a_time = self.changing.lock().await;
        let era = self.era();
        // Many devices may find it out at once: once for each timeline. And before that is on record: a hub that fails between the two would start on
        // it, and below what the lost one has said.
        if era.timeline.timeline == from {
            self.time.leap().await?;
        }
        let project = era.identity.project;
        let fork = Fork {
            from,
            fresh: Timeline(machine::random(self.time.machine())?),
            incarnation: Incarnation::from_entropy(machine::random(self.time.machine())?),
            foreign,
            now: self.time.now(),
        };
        self.store.fork_timeline(project, fork).await?;
        self.look().await
    }

    /// Looks at what is on record: another hub of this store may have changed it.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let _one_at_a_time = self.changing.lock().await;
        self.look().await
    }

    async fn look(&self) -> Result<(), StoreError> {
        let now = self.era();
        let row = self.store.current().await?;
        let (recovering, _) = recovery(self.store.as_ref(), now.identity.project).await?;
        if row.timeline == now.timeline && row.incarnation == now.author.incarnation && recovering == now.recovering {
            return Ok(());
        }
        let identity = &now.identity;
        let era = read(self.store.as_ref(), &self.time, (identity.project, &identity.keys, identity.offer.clone())).await?;
        if era.timeline != now.timeline {
            tracing::error!(
                target: "alarm",
                was = %now.timeline.timeline,
                is = %era.timeline.timeline,
                "this hub has gone back in time: it was restored from an older copy. It goes on under a new timeline, and its devices give \
                 back what they hold; `mobo-hub status` says which have not been seen yet"
            );
        }
        if now.recovering && !era.recovering {
            tracing::warn!("recovery has ended: every known device has given back what it holds, or an operator said so");
        }
        self.eras.send_replace(Arc::new(era));
        Ok(())
    }

    /// Looks again and again, until the part stops.
    pub fn keep_up(self: &Arc<Self>, tasks: &Tasks) {
        let (history, stopping) = (Arc::clone(self), tasks.stopping());
        tasks.spawn("history", async move {
            let mut every = tokio::time::interval(limits::HISTORY_LOOK);
            loop {
                tokio::select! {
                    () = stopping.cancelled() => return,
                    _ = every.tick() => {}
                }
                if let Err(error) = history.refresh().await {
                    tracing::debug!(%error, "cannot look at the hub's history");
                }
            }
        });
    }

    /// A device has given back all that it holds. What others had pushed before may build on what it pushed: that is tried again. Gives the
    /// buckets that changed.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn offered_all(&self, device: DeviceId) -> Result<Vec<Hint>, StoreError> {
        let project = self.era().identity.project;
        let recovery = self.store.recovery(project).await?;
        // Each of its later sessions offers again, and has nothing to add to what was tried.
        let is_first = recovery.is_some_and(|recovery| recovery.unseen.iter().any(|(unseen, _)| *unseen == device));
        let hints = if is_first { self.try_all_again().await } else { Vec::new() };
        if self.store.offered_all(project, device, self.time.now()).await? {
            self.refresh().await?;
        }
        Ok(hints)
    }

    /// Ends recovery by the operator's word; `None` when none goes on. Gives the buckets that a last try has changed.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn finish(&self) -> Result<Option<Vec<Hint>>, StoreError> {
        let hints = self.try_all_again().await;
        let was = self.store.finish_recovery(self.era().identity.project, self.time.now()).await?;
        self.refresh().await?;
        Ok(was.then_some(hints))
    }

    /// Joins a page of what a device offers; besides those of this history, its rows may have been delivered on the timelines that it names.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn join(&self, device: DeviceId, offer: Offer, named: &[Timeline]) -> Result<OfferReport, StoreError> {
        let era = self.era();
        let batch = OfferBatch {
            device,
            offer,
            schema: Arc::clone(&self.schema.borrow()),
            timelines: timelines(&era.timeline).chain(named.iter().copied()).collect(),
            key: era.identity.offer.clone(),
            now: self.time.now(),
            entropy: machine::random(self.time.machine())?,
        };
        let documents = self.documents_of(&batch.offer);
        let mut report = self.store.join_offer(era.identity.project, batch).await?;
        if let Some(latest) = report.latest
            && let Err(error) = self.time.reach(latest).await
        {
            // What is joined is joined, and is told below.
            tracing::warn!(%error, "the hub's time is behind rows that a device has given back: writes into them lose until it is there");
        }
        report.hints.extend(self.try_again(Some(&documents)).await?);
        for refused in &report.refused {
            let (collection, id, why) = (refused.item.collection, refused.item.id.as_str(), &refused.detail);
            tracing::warn!(%device, %collection, id, why, "an offered record was refused; it is kept");
        }
        Ok(report)
    }

    /// Takes in definitions that a device offers; besides those of this history, they may have been delivered on the timelines that it names.
    /// Gives a sentence about those that cannot be taken.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn adopt(&self, update: SchemaUpdate, named: &[Timeline]) -> Result<Option<String>, StoreError> {
        let era = self.era();
        let identity = &era.identity;
        let mut refused = Vec::new();
        let mut valid = Vec::new();
        for definition in update.definitions {
            // Of a kind of a later version: this one cannot say whose it is, and its owner will.
            let Some(collection) = &definition.collection else { continue };
            let is_ours =
                |timeline: Timeline| identity.offer.schema(identity.project, collection.id, timeline, &definition.bytes) == definition.mac;
            if is_ours(update.timeline) || timelines(&era.timeline).chain(named.iter().copied()).any(is_ours) {
                valid.push(definition);
            } else {
                refused.push(collection.name.clone());
            }
        }
        let (schema, taken) = self.store.adopt(identity.project, update.rev, valid).await?;
        refused.extend(taken);
        self.schema.send_if_modified(|held| {
            let is_newer = schema.rev > held.rev;
            if is_newer {
                *held = Arc::new(schema);
            }
            is_newer
        });
        Ok((!refused.is_empty()).then(|| {
            let names = refused.join(", ");
            tracing::error!(target: "alarm", names, "a device has collections that this restored hub cannot take back: their names have others now");
            format!("these collections cannot be taken back, because something else has their names now: {names}")
        }))
    }
}

fn timelines(info: &TimelineInfo) -> impl Iterator<Item = Timeline> {
    std::iter::once(info.timeline).chain(info.parents.iter().map(|parent| parent.timeline))
}

/// Whether the hub recovers, and when it found out that it had gone back.
async fn recovery(store: &dyn HubStore, project: ProjectId) -> Result<(bool, Eff), StoreError> {
    let last = store.recovery(project).await?;
    Ok(last.map_or((false, Eff(i64::MIN)), |recovery| (recovery.ended.is_none(), recovery.since)))
}

async fn read(store: &dyn HubStore, time: &HubTime, (project, keys, offer): (ProjectId, &KeyPair, OfferKey)) -> Result<Era, StoreError> {
    let row = store.current().await?;
    let identity = Arc::new(HubIdentity { project, timeline: row.timeline.timeline, keys: keys.clone(), offer });
    let author = HubAuthor { device: keys.device(), incarnation: row.incarnation };
    // The log of the hub itself must be known to its store before it can write.
    let arrival = Arrival {
        device: author.device,
        incarnation: author.incarnation,
        parent: None,
        ordinal: None,
        boot: Some((time.machine().boot(), 0)),
        now: time.now(),
        session: 0,
    };
    store.arrive(project, arrival).await?;
    let (recovering, found_out) = recovery(store, project).await?;
    Ok(Era { identity, timeline: row.timeline, author, recovering, found_out })
}

#[cfg(test)]
mod tests;
