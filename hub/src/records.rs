//! The hub behind its gate: reads go to the store, writes join the merge as entries that the hub itself authors.

mod told;

use std::sync::Arc;

use mobo_core::author::{EditError, tag_of};
use mobo_core::future::BoxFuture;
use mobo_core::ids::{CollectionId, Nonce, ProjectId, RecordId};
use mobo_core::limits;
use mobo_core::live::{LiveHead, LivePage};
use mobo_core::merge::{LocalBody, LocalWrite, Merged, Outcome, Prepared};
use mobo_core::message::Code;
use mobo_core::query::{Page, Select};
use mobo_core::rights::{Bounds, Scope};
use mobo_core::schema::{Collection, Schema};
use mobo_core::store::Shown;
use mobo_core::stream::Segment;
use mobo_core::time::Wall;
use mobo_gate::auth::token::TokenError;
use mobo_gate::backend::{
    AckLevel, Backend, BackendError, BackendFuture, Caller, Credential, History, NodeKind, Patience, Policies, Principal, Readiness, Role,
    WriteDone, WriteRequest,
};
use mobo_gate::key::KeyHash;
use mobo_runtime::{board_desk, entropy};
use tokio::time::Instant;

use crate::metrics;
use crate::node::{Hub, Opened, STORE, Verified};

/// Who writes, and what he may.
type Whose = (Option<String>, Option<Arc<Bounds>>);

/// The hub as the gate sees it.
#[derive(Debug)]
pub struct HubRecords {
    hub: Arc<Hub>,
    project: ProjectId,
    /// Held by whoever is told of the past of a record.
    telling: tokio::sync::Mutex<()>,
}

impl HubRecords {
    /// A gate's backend. `project` is the one that the store serves.
    #[must_use]
    pub fn new(hub: Arc<Hub>, project: ProjectId) -> Self {
        Self { hub, project, telling: tokio::sync::Mutex::default() }
    }

    async fn merge(&self, collection: &Collection, body: LocalBody, (author, bounds): Whose) -> Result<Merged, BackendError> {
        let opened = self.hub.opened()?;
        let write = LocalWrite {
            lane: opened.history.era().author.lane(collection.lane),
            collection: collection.id,
            body,
            moment: self.hub.clock.moment(),
            nonce: Nonce(entropy::bytes().map_err(|error| BackendError::Unavailable(error.to_string()))?),
            author,
            bounds,
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

    async fn principal(&self, credential: Credential) -> Result<Option<Principal>, BackendError> {
        match credential.caller {
            Caller::Key(hash) => self.key(hash).await,
            Caller::User { token, key } => {
                let accounts = self.hub.accounts().ok_or_else(|| BackendError::Unavailable("the store is not open yet".to_owned()))?;
                let user = accounts.principal(&token).await?;
                // The app's key must be good as well, and of the same project; what it may itself does not matter.
                let Some(hash) = key else { return Ok(Some(user)) };
                match self.key(hash).await? {
                    Some(app) if app.project == user.project => Ok(Some(Principal { key: app.key, scopes: app.scopes, ..user })),
                    Some(_) => Err(TokenError::OtherProject.into()),
                    None => Ok(None),
                }
            }
            // On a hub nobody is trusted for being near.
            Caller::Local | Caller::Stranger => Ok(None),
        }
    }

    async fn key(&self, hash: KeyHash) -> Result<Option<Principal>, BackendError> {
        let opened = self.hub.opened()?;
        let is_alive = |key: &Verified| key.expires.is_none_or(|end| end > opened.time.now());
        let as_of = *self.hub.rights.borrow();
        let known = self.hub.verified().get(self.hub.clock.now(), &hash.0).filter(|key| key.as_of == as_of).cloned();
        let key = match known {
            Some(key) => Some(key),
            None => self.look_up(&opened, hash, as_of).await?,
        };
        let principal =
            |Verified { project, name, role, scopes, .. }| Principal { key: Some(name), scopes, ..Principal::of_role(project, role) };
        Ok(key.filter(is_alive).map(principal))
    }

    async fn look_up(&self, opened: &Opened, hash: KeyHash, as_of: u64) -> Result<Option<Verified>, BackendError> {
        let Some((project, key)) = opened.store.key_by_hash(hash.0).await?.filter(|(_, key)| key.revoked.is_none()) else {
            return Ok(None);
        };
        // A scope that cannot be read is one that nothing is in.
        let Ok(role) = Role::from_name(&key.role) else { return Ok(None) };
        let Some(scopes) = key.scopes.iter().map(|scope| Scope::parse(scope)).collect::<Option<Vec<_>>>() else { return Ok(None) };
        let key = Verified { project, name: key.name, role, scopes: scopes.concat(), as_of, expires: key.expires };
        // One that is not known is looked up again each time: it costs whoever shows it, and somebody may make it.
        self.hub.verified().put(self.hub.clock.now(), hash.0, key.clone());
        Ok(Some(key))
    }
}

/// The tag of what readers see. What SQL has just written has none yet: the one of the state before would say that nothing has changed.
fn tag_of_shown(shown: Shown) -> Option<String> {
    match shown {
        Shown::State(hash) => Some(tag_of(&hash)),
        Shown::Nothing | Shown::Unsettled => None,
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
        Box::pin(async move { Ok(metrics::timed("select", self.hub.opened()?.store.select(select)).await?) })
    }

    fn tag(&self, collection: Arc<Collection>, id: RecordId) -> BackendFuture<'_, Option<String>> {
        Box::pin(async move {
            let opened = self.hub.opened()?;
            let deadline = Instant::now() + limits::TAG_WAIT;
            loop {
                let shown = opened.store.shown(self.project, Arc::clone(&collection), id.clone()).await?;
                if shown != Shown::Unsettled || Instant::now() >= deadline {
                    return Ok(tag_of_shown(shown));
                }
                // It is taken in a moment later, and whoever compares versions is to meet the one that it has then.
                tokio::time::sleep(limits::HUB_INTAKE_LOOK).await;
            }
        })
    }

    fn select_with_tag(&self, select: Select, id: RecordId) -> BackendFuture<'_, (Page, Option<String>)> {
        Box::pin(async move {
            let (page, shown) = metrics::timed("select", self.hub.opened()?.store.rows_and_shown(select, id)).await?;
            Ok((page, tag_of_shown(shown)))
        })
    }

    fn history(&self, collection: Arc<Collection>, id: RecordId) -> Option<BackendFuture<'_, Option<History>>> {
        Some(Box::pin(async move { self.told(&collection, id).await }))
    }

    fn write(&self, write: WriteRequest) -> BackendFuture<'_, WriteDone> {
        Box::pin(async move {
            let merged = self.merge(&write.collection, LocalBody::Edits(write.edits), (write.author, write.bounds)).await?;
            let changed = merged.changed.into_iter().map(|key| key.id).collect();
            Ok(WriteDone { changed, level: AckLevel::Hub })
        })
    }

    fn append(&self, collection: Arc<Collection>, segment: Segment, _: Option<Patience>) -> BackendFuture<'_, AckLevel> {
        Box::pin(async move {
            self.merge(&collection, LocalBody::Append(segment), (None, None)).await?;
            Ok(AckLevel::Hub)
        })
    }

    fn follow(&self, collections: Vec<CollectionId>) -> BackendFuture<'_, LiveHead> {
        Box::pin(async move { Ok(self.hub.opened()?.store.follow(self.project, collections, limits::LIVE_FOLLOW).await?) })
    }

    fn changes(&self, after: u64, rows_max: u32) -> BackendFuture<'_, LivePage> {
        Box::pin(async move { Ok(self.hub.opened()?.store.changes(self.project, after, rows_max).await?) })
    }

    fn committed(&self) -> BoxFuture<'static, ()> {
        let Ok(merges) = self.hub.merges() else { return Box::pin(std::future::pending()) };
        let mut news = merges.hints();
        Box::pin(async move { drop(news.recv().await) })
    }

    fn authenticate(&self, credential: Credential) -> BackendFuture<'_, Option<Principal>> {
        Box::pin(self.principal(credential))
    }

    fn policies(&self) -> Arc<Policies> {
        self.hub.accounts().map(|accounts| accounts.policies()).unwrap_or_default()
    }

    fn rights_changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.hub.rights.subscribe()
    }

    fn recovering(&self) -> bool {
        self.hub.opened().is_ok_and(|opened| opened.history.era().recovering)
    }

    fn readiness(&self) -> BoxFuture<'_, Vec<Readiness>> {
        Box::pin(async move {
            let store = match self.hub.opened() {
                Ok(opened) => opened.store.info().await.map(|_| ()).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            let mut parts = vec![Readiness::of("store", store)];
            let others = board_desk::readiness(&self.hub.board.report(), &STORE);
            parts.extend(others.into_iter().map(|(name, state, note)| Readiness { name, state, note }));
            parts
        })
    }
}
