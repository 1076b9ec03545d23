//! What a hub remembers of its database, because it never changes or because a number says when it does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mobo_core::ids::{BucketId, Position, ProjectId, Timeline};
use mobo_core::limits;
use mobo_core::merge::{BucketState, Hint};
use mobo_core::schema::Schema;

use super::error::Failure;

/// Schemas by project, and buckets with their keys. Only what is committed may be put in here.
#[derive(Debug, Default)]
pub(super) struct Known {
    schemas: Mutex<BTreeMap<ProjectId, Arc<Schema>>>,
    buckets: Mutex<Buckets>,
    heads: Mutex<Heads>,
}

/// Heads that this process has committed, all on one timeline.
#[derive(Debug, Default)]
struct Heads {
    timeline: Option<Timeline>,
    committed: BTreeMap<(ProjectId, BucketId), Position>,
    gone_back: bool,
}

#[derive(Debug, Default)]
struct Buckets {
    keys: BTreeMap<(ProjectId, BucketId), String>,
    ids: BTreeMap<(ProjectId, String), BucketId>,
}

impl Known {
    /// The schema of a project, if it is of that revision.
    pub(super) fn schema(&self, project: ProjectId, rev: u64) -> Option<Arc<Schema>> {
        lock(&self.schemas).get(&project).filter(|schema| schema.rev == rev).map(Arc::clone)
    }

    /// Remembers a schema.
    pub(super) fn keep_schema(&self, project: ProjectId, schema: &Arc<Schema>) {
        lock(&self.schemas).insert(project, Arc::clone(schema));
    }

    /// The key of a bucket.
    pub(super) fn bucket_key(&self, project: ProjectId, id: BucketId) -> Option<String> {
        lock(&self.buckets).keys.get(&(project, id)).cloned()
    }

    /// The bucket of a key.
    pub(super) fn bucket_id(&self, project: ProjectId, key: &str) -> Option<BucketId> {
        lock(&self.buckets).ids.get(&(project, key.to_owned())).copied()
    }

    /// Remembers buckets.
    pub(super) fn keep_buckets(&self, project: ProjectId, keys: impl IntoIterator<Item = (BucketId, String)>) {
        let mut buckets = lock(&self.buckets);
        for (id, key) in keys {
            if buckets.keys.len() >= limits::POSTGRES_BUCKET_KEYS_MAX {
                // Those that are in use come back with the next merge.
                *buckets = Buckets::default();
            }
            buckets.ids.insert((project, key.clone()), id);
            buckets.keys.insert((project, id), key);
        }
    }

    /// Remembers how far buckets are, now that it is committed.
    pub(super) fn keep_heads(&self, project: ProjectId, timeline: Timeline, hints: &[Hint]) {
        let mut heads = lock(&self.heads);
        if heads.timeline != Some(timeline) || heads.committed.len() + hints.len() > limits::POSTGRES_BUCKET_KEYS_MAX {
            *heads = Heads { timeline: Some(timeline), ..Heads::default() };
        }
        for hint in hints {
            let head = heads.committed.entry((project, hint.bucket)).or_default();
            *head = hint.head.max(*head);
        }
    }

    /// Refuses to go on where a locked bucket is not as far as it was: the database was put back to an older state, or a standby that lacks
    /// the last commits took its place. What comes next would be given positions that devices hold already (rule R17).
    pub(super) fn hold(&self, project: ProjectId, timeline: Timeline, states: &[BucketState]) -> Result<(), Failure> {
        let mut heads = lock(&self.heads);
        if heads.timeline != Some(timeline) {
            return Ok(());
        }
        let behind = |state: &BucketState| heads.committed.get(&(project, state.id)).is_some_and(|committed| *committed > state.head);
        if heads.gone_back || states.iter().any(behind) {
            heads.gone_back = true;
            return Err(Failure::unavailable(
                "the database holds less than this hub has committed: it goes on under a new timeline in a moment",
            ));
        }
        Ok(())
    }

    /// True from the time that it was found to be behind.
    pub(super) fn has_gone_back(&self) -> bool {
        lock(&self.heads).gone_back
    }

    /// What was found of an earlier timeline has ended with it, whoever ended it.
    pub(super) fn see_timeline(&self, timeline: Timeline) {
        let mut heads = lock(&self.heads);
        if heads.gone_back && heads.timeline != Some(timeline) {
            *heads = Heads::default();
        }
    }

    /// Another timeline has begun.
    pub(super) fn begin_again(&self) {
        *lock(&self.heads) = Heads::default();
        self.forget();
    }

    /// Forgets everything: the database turned out to be another one than we knew.
    pub(super) fn forget(&self) {
        *lock(&self.buckets) = Buckets::default();
        lock(&self.schemas).clear();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
