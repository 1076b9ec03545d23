//! The device behind its gate: the same API as the hub's, answered from its own store.

mod told;

use std::sync::Arc;

use mobo_adapters::sqlite::edge::WriteError;
use mobo_core::author::tag;
use mobo_core::future::BoxFuture;
use mobo_core::ids::{CollectionId, ProjectId, RecordId, RecordKey};
use mobo_core::limits;
use mobo_core::live::{LiveHead, LivePage, LiveStore as _};
use mobo_core::query::{Page, Select};
use mobo_core::rights::Access;
use mobo_core::schema::{Collection, Schema};
use mobo_core::stream::Segment;
use mobo_core::time::{Eff, Wall};
use mobo_gate::auth::token::{Token, TokenError};
use mobo_gate::backend::{
    AckLevel, Backend, BackendError, BackendFuture, Caller, Credential, History, NodeKind, Patience, Policies, Principal, Readiness, Role,
    WriteDone, WriteRequest,
};
use mobo_gate::key::KeyHash;
use mobo_runtime::board_desk;

use crate::node::{Edge, STORE};
use told::told;

/// Whom users' tokens are for.
const USERS: &str = "authenticated";

/// The device as the gate sees it.
#[derive(Debug)]
pub struct EdgeRecords(Arc<Edge>);

impl EdgeRecords {
    /// A gate's backend.
    #[must_use]
    pub fn new(edge: Arc<Edge>) -> Self {
        Self(edge)
    }
}

/// Callers are judged by what the hub said last: with its network cut, a device goes on with that.
impl EdgeRecords {
    fn hub_now(&self) -> Eff {
        Eff(self.0.clock.wall().0).max(self.0.callers().hub_time)
    }

    fn key(&self, hash: &KeyHash) -> Option<Principal> {
        self.0.callers().access.by_key(self.0.project()?, &hash.0, self.hub_now())
    }

    /// That a sign-in has ended since its token was made, only the hub knows; the token itself ends within the hour.
    fn user(&self, token: &Token, key: Option<&KeyHash>) -> Result<Option<Principal>, BackendError> {
        let callers = self.0.callers();
        let Some(project) = self.0.project().filter(|_| token.issuer() == callers.access.issuer) else {
            return Err(TokenError::UnknownKey.into());
        };
        let claims = token.verify(&callers.keys, Some(USERS), Wall(self.hub_now().0))?;
        let user = Access::by_claims(project, &claims).ok_or(TokenError::Claims("they name no user of this project"))?;
        // The app's key must be good as well; what it may itself does not matter.
        match key.map(|hash| self.key(hash)) {
            None => Ok(Some(user)),
            Some(Some(app)) => Ok(Some(Principal { key: app.key, scopes: app.scopes, ..user })),
            Some(None) => Ok(None),
        }
    }
}

/// What a caller of the API is told of a write that did not happen.
#[must_use]
pub fn refused(error: WriteError) -> BackendError {
    match error {
        WriteError::Edit(error) => BackendError::Edit(error),
        WriteError::Store(error) => error.into(),
        WriteError::TooLarge { .. } | WriteError::RecordTooLarge { .. } => BackendError::TooLarge(error.to_string()),
        WriteError::Damaged(_) => BackendError::Damaged(error.to_string()),
        WriteError::Segment(_) | WriteError::UnknownCollection(_) | WriteError::WrongKind { .. } | WriteError::NotJoined => {
            BackendError::Refused(error.to_string())
        }
    }
}

impl Backend for EdgeRecords {
    fn node(&self) -> NodeKind {
        NodeKind::Edge
    }

    fn project(&self) -> ProjectId {
        let project = self.0.project();
        // Before it joins, a device has no project and no collections, so that nothing is ever looked up under this one.
        project.unwrap_or_else(|| ProjectId::from_entropy([0; 8]))
    }

    fn schema(&self) -> Arc<Schema> {
        self.0.schema()
    }

    fn now(&self) -> Wall {
        self.0.clock.wall()
    }

    fn select(&self, select: Select) -> BackendFuture<'_, Page> {
        Box::pin(async move { Ok(self.0.store()?.select(select).await?) })
    }

    fn tag(&self, collection: Arc<Collection>, id: RecordId) -> BackendFuture<'_, Option<String>> {
        Box::pin(async move {
            let record = self.0.store()?.record(RecordKey { collection: collection.id, id }).await?;
            Ok(record.filter(|record| record.state.project(&collection).is_some()).map(|record| tag(&record.state)))
        })
    }

    fn history(&self, collection: Arc<Collection>, id: RecordId) -> Option<BackendFuture<'_, Option<History>>> {
        Some(Box::pin(async move { told(&self.0, &collection, id).await }))
    }

    fn write(&self, write: WriteRequest) -> BackendFuture<'_, WriteDone> {
        Box::pin(async move {
            let store = self.0.store()?;
            let (collection, edits, author) = (write.collection.id, write.edits, write.author);
            let written = match write.bounds {
                Some(bounds) => store.write_within(collection, edits, author, bounds).await,
                None => store.write(collection, edits, author).await,
            };
            let written = written.map_err(refused)?;
            let changed = written.changed.into_iter().map(|key| key.id).collect();
            let level = self.0.waiting_room.level(&store, written.entry, write.patience).await?;
            Ok(WriteDone { changed, level })
        })
    }

    fn append(&self, _: Arc<Collection>, segment: Segment, patience: Option<Patience>) -> BackendFuture<'_, AckLevel> {
        Box::pin(async move {
            let store = self.0.store()?;
            let written = store.append(segment).await.map_err(refused)?;
            self.0.waiting_room.level(&store, written.entry, patience).await
        })
    }

    fn follow(&self, collections: Vec<CollectionId>) -> BackendFuture<'_, LiveHead> {
        Box::pin(async move { Ok(self.0.store()?.follow(self.project(), collections, limits::LIVE_FOLLOW).await?) })
    }

    fn changes(&self, after: u64, rows_max: u32) -> BackendFuture<'_, LivePage> {
        Box::pin(async move { Ok(self.0.store()?.changes(self.project(), after, rows_max).await?) })
    }

    fn committed(&self) -> BoxFuture<'static, ()> {
        let Ok(store) = self.0.store() else { return Box::pin(std::future::pending()) };
        let mut changes = store.watch();
        Box::pin(async move { drop(changes.recv().await) })
    }

    fn authenticate(&self, credential: Credential) -> BackendFuture<'_, Option<Principal>> {
        let principal = match credential.caller {
            // A program on the device itself is the device's own (rule R2).
            Caller::Local => Ok(Some(Principal::of_role(self.project(), Role::Service))),
            Caller::Key(hash) => Ok(self.key(&hash)),
            Caller::User { token, key } => self.user(&token, key.as_ref()),
            Caller::Stranger => Ok(None),
        };
        Box::pin(async move { principal })
    }

    fn policies(&self) -> Arc<Policies> {
        Arc::clone(&self.0.callers().access.policies)
    }

    fn rights_changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.0.rights.subscribe()
    }

    fn readiness(&self) -> BoxFuture<'_, Vec<Readiness>> {
        Box::pin(async move {
            let state = match self.0.store() {
                Ok(store) => store.node().await.map(|_| ()).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            let mut parts = vec![Readiness::of("store", state)];
            if let Some(board) = self.0.board() {
                let others = board_desk::readiness(&board.report(), &STORE);
                parts.extend(others.into_iter().map(|(name, state, note)| Readiness { name, state, note }));
            }
            parts
        })
    }
}
