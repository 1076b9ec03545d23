//! The hub behind its gate: reads go to the store, writes join the merge as entries that the hub itself authors.

use std::sync::Arc;

use mobo_core::author::EditError;
use mobo_core::future::BoxFuture;
use mobo_core::ids::{Nonce, ProjectId};
use mobo_core::merge::{LocalBody, LocalWrite, Merged, Outcome, Prepared};
use mobo_core::message::Code;
use mobo_core::query::{Page, Select};
use mobo_core::schema::{Collection, Schema};
use mobo_core::stream::Segment;
use mobo_core::time::Wall;
use mobo_gate::backend::{
    AckLevel, Backend, BackendError, BackendFuture, Caller, Credential, NodeKind, Patience, Readiness, Role, WriteDone, WriteRequest,
};
use mobo_runtime::entropy;

use crate::node::Hub;

/// The hub as the gate sees it.
#[derive(Debug)]
pub struct HubRecords {
    hub: Arc<Hub>,
    project: ProjectId,
}

impl HubRecords {
    /// A gate's backend. `project` is the one that the store serves.
    #[must_use]
    pub fn new(hub: Arc<Hub>, project: ProjectId) -> Self {
        Self { hub, project }
    }

    async fn merge(&self, collection: &Collection, body: LocalBody, author: Option<String>) -> Result<Merged, BackendError> {
        let opened = self.hub.opened()?;
        let write = LocalWrite {
            lane: opened.author.lane(collection.lane),
            collection: collection.id,
            body,
            moment: self.hub.clock.moment(),
            nonce: Nonce(entropy::bytes().map_err(|error| BackendError::Unavailable(error.to_string()))?),
            author,
        };
        match self.hub.merges()?.merge(Prepared::Local(Box::new(write))).await? {
            Outcome::Merged(merged) => match merged.rejects.first() {
                None => Ok(merged),
                Some(reject) if reject.code == Code::CORRUPT_RECORD => Err(BackendError::Damaged(reject.detail.clone())),
                Some(reject) if reject.code == Code::TOO_LARGE => Err(BackendError::TooLarge(reject.detail.clone())),
                Some(reject) => Err(BackendError::Refused(reject.detail.clone())),
            },
            Outcome::Refused(EditError::TooLarge(why)) => Err(BackendError::TooLarge(why)),
            Outcome::Refused(error) => Err(BackendError::Edit(error)),
            Outcome::Nack { .. } | Outcome::Refence { .. } => {
                Err(BackendError::Unavailable("the hub's own log is not open: restart the hub".to_owned()))
            }
        }
    }

    async fn role(&self, credential: &Credential) -> Result<Option<Role>, BackendError> {
        let Caller::Key(hash) = credential.caller else { return Ok(None) };
        let found = self.hub.opened()?.store.key_by_hash(hash.0).await?;
        let now = self.hub.opened()?.time.now();
        let role = |(project, key): (ProjectId, mobo_core::store::ApiKeyRow)| {
            let alive = project == self.project && key.revoked.is_none() && key.expires.is_none_or(|end| end > now);
            alive.then(|| Role::from_name(&key.role)).flatten()
        };
        Ok(found.and_then(role))
    }
}

impl Backend for HubRecords {
    fn node(&self) -> NodeKind {
        NodeKind::Hub
    }

    fn project(&self) -> ProjectId {
        self.project
    }

    fn schema(&self) -> Arc<Schema> {
        self.hub.schema().unwrap_or_default()
    }

    fn now(&self) -> Wall {
        self.hub.opened().map_or_else(|_| self.hub.clock.wall(), |opened| Wall(opened.time.now().0))
    }

    fn select(&self, select: Select) -> BackendFuture<'_, Page> {
        Box::pin(async move { Ok(self.hub.opened()?.store.select(select).await?) })
    }

    fn write(&self, write: WriteRequest) -> BackendFuture<'_, WriteDone> {
        Box::pin(async move {
            let merged = self.merge(&write.collection, LocalBody::Edits(write.edits), write.author).await?;
            let changed = merged.changed.into_iter().map(|key| key.id).collect();
            Ok(WriteDone { changed, level: AckLevel::Hub })
        })
    }

    fn append(&self, collection: Arc<Collection>, segment: Segment, _: Option<Patience>) -> BackendFuture<'_, AckLevel> {
        Box::pin(async move {
            self.merge(&collection, LocalBody::Append(segment), None).await?;
            Ok(AckLevel::Hub)
        })
    }

    fn authenticate(&self, credential: Credential) -> BackendFuture<'_, Option<Role>> {
        Box::pin(async move { self.role(&credential).await })
    }

    fn readiness(&self) -> BoxFuture<'_, Vec<Readiness>> {
        Box::pin(async move {
            let store = match self.hub.opened() {
                Ok(opened) => opened.store.info().await.map(|_| ()).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            let sessions = if self.hub.sessions().is_some() { Ok(()) } else { Err("devices are not taken yet".to_owned()) };
            let ready = |name: &str, state| Readiness { name: name.to_owned(), state };
            vec![ready("store", store), ready("sessions", sessions)]
        })
    }
}
