//! What a hub remembers of its database, because it never changes or because a number says when it does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mobo_core::ids::{BucketId, ProjectId};
use mobo_core::limits;
use mobo_core::schema::Schema;

/// Schemas by project, and buckets with their keys. Only what is committed may be put in here.
#[derive(Debug, Default)]
pub(super) struct Known {
    schemas: Mutex<BTreeMap<ProjectId, Arc<Schema>>>,
    buckets: Mutex<Buckets>,
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

    /// Forgets everything: the database turned out to be another one than we knew.
    pub(super) fn forget(&self) {
        *lock(&self.buckets) = Buckets::default();
        lock(&self.schemas).clear();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
