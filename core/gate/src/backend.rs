//! What the gate needs of its node. The edge and the hub implement it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use mobo_core::author::{Edit, EditError};
use mobo_core::document::ChangeId;
use mobo_core::future::BoxFuture;
use mobo_core::ids::{CollectionId, DeviceId, Ordinal, ProjectId, RecordId, Seq};
pub use mobo_core::level::{AckLevel, Patience};
use mobo_core::live::{LiveHead, LivePage};
use mobo_core::query::{Page, Select};
use mobo_core::record::RecordState;
pub use mobo_core::rights::{Bounds, Policies, Principal, Role};
use mobo_core::schema::{Collection, Schema};
use mobo_core::stamp::Stamp;
use mobo_core::store::StoreError;
use mobo_core::stream::Segment;
use mobo_core::table::past::RowLog;
use mobo_core::time::{Eff, Wall};
use serde_json::Value as Json;

use tokio::sync::watch;

use crate::auth::token::{Token, TokenError};
use crate::key::KeyHash;

/// What a backend answers.
pub type BackendFuture<'a, T> = BoxFuture<'a, Result<T, BackendError>>;

/// The node behind the gate.
///
/// A future of it may be dropped when its caller goes away. A write that was begun then happens as a whole, or not at all.
pub trait Backend: fmt::Debug + Send + Sync {
    /// Which node this is.
    fn node(&self) -> NodeKind;

    /// The project that is served.
    fn project(&self) -> ProjectId;

    /// The collections as they are now. Called for every request: it must be cheap.
    fn schema(&self) -> Arc<Schema>;

    /// The node's time: what `at` of a sample is compared with. The hub's time on a hub (rule R6), the wall clock on a device.
    fn now(&self) -> Wall;

    /// Rows of a collection.
    fn select(&self, select: Select) -> BackendFuture<'_, Page>;

    /// The tag of a record ([`mobo_core::author::tag`]) as it is now; `None` when it is not visible, and while SQL has written it and that is
    /// not taken in.
    fn tag(&self, collection: Arc<Collection>, id: RecordId) -> BackendFuture<'_, Option<String>>;

    /// Rows, as [`select`](Self::select) gives them, and the tag of a record of theirs, as [`tag`](Self::tag) does. The tag is never newer than
    /// the rows.
    fn select_with_tag(&self, select: Select, id: RecordId) -> BackendFuture<'_, (Page, Option<String>)> {
        Box::pin(async move {
            let tag = self.tag(Arc::clone(&select.collection), id).await?;
            Ok((self.select(select).await?, tag))
        })
    }

    /// How a record came about; `None` where it was never written. A node that does not keep that gives no future.
    fn history(&self, collection: Arc<Collection>, id: RecordId) -> Option<BackendFuture<'_, Option<History>>> {
        drop((collection, id));
        None
    }

    /// Edits records: one entry, all or nothing, durable when the future is ready. What its bounds do not allow is refused as
    /// [`EditError::Denied`]. With patience, it is ready when the entry has reached
    /// that level, or the time is over: what is answered then is the level that it has.
    fn write(&self, write: WriteRequest) -> BackendFuture<'_, WriteDone>;

    /// Appends samples to a stream: one entry, all or nothing; ready as [`write`](Self::write) is.
    fn append(&self, collection: Arc<Collection>, segment: Segment, patience: Option<Patience>) -> BackendFuture<'_, AckLevel>;

    /// Has the changes of these collections logged from now on, for `limits::LIVE_FOLLOW`; see [`mobo_core::live::LiveStore`].
    fn follow(&self, collections: Vec<CollectionId>) -> BackendFuture<'_, LiveHead>;

    /// The changes behind a number of the log, in order: at most so many rows of it.
    fn changes(&self, after: u64, rows_max: u32) -> BackendFuture<'_, LivePage>;

    /// Ready when something may have been committed since this was called; of another hub's commits it need not know.
    fn committed(&self) -> BoxFuture<'static, ()>;

    /// Who a caller is; `None` for a stranger, and for a credential that is not good. A key is looked up by its hash, so that no comparison of
    /// secrets can be timed.
    ///
    /// # Errors
    ///
    /// [`BackendError::Token`] for a user's token that is not good.
    fn authenticate(&self, credential: Credential) -> BackendFuture<'_, Option<Principal>>;

    /// The policies as they are now. Called for every request: it must be cheap.
    fn policies(&self) -> Arc<Policies>;

    /// Counts changes of anything that rights depend on: policies, roles, keys, users, sign-ins. Whoever keeps a connection open watches it and
    /// proves its caller anew when it changes.
    fn rights_changes(&self) -> watch::Receiver<u64>;

    /// True while a restored hub still collects what its devices hold: what is read may be older than it was (rule R18).
    fn recovering(&self) -> bool {
        false
    }

    /// How the parts that requests depend on are. Anybody may read it: it holds no secrets.
    fn readiness(&self) -> BoxFuture<'_, Vec<Readiness>>;
}

/// Which node speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NodeKind {
    /// A device.
    Edge,
    /// A hub.
    Hub,
}

impl NodeKind {
    /// The word that people use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Hub => "hub",
        }
    }
}

/// Who calls, as far as the gate can see.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Credential {
    /// What the caller shows.
    pub caller: Caller,
    /// Where the call comes from.
    pub peer: SocketAddr,
}

/// What a caller shows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Caller {
    /// A well-formed key.
    Key(KeyHash),
    /// A user's token, and the key of the app that the user is in, where it is shown, too.
    User {
        /// The token.
        token: Token,
        /// The key.
        key: Option<KeyHash>,
    },
    /// No key, and the call was made by a program on this machine: from loopback, to a loopback name, neither forwarded by a proxy nor made
    /// by a page of another site in a browser.
    Local,
    /// No key.
    Stranger,
}

/// A record, and what is known of how it came about.
#[derive(Clone, Debug)]
pub struct History {
    /// The record as it is. A row knows who wrote each field last, a document every change.
    pub state: RecordState,
    /// The stamps of a document's changes, as far as they are known.
    pub changes: BTreeMap<ChangeId, Stamp>,
    /// True if it is known when the changes of a document were made: on a hub.
    pub has_times: bool,
    /// The writes of a row that are kept; of a document, nothing.
    pub log: RowLog,
    /// What merges decided about it, newest first.
    pub decisions: Vec<Decision>,
    /// Who wrote the entries that these stamps are of.
    pub writers: BTreeMap<(DeviceId, Ordinal, Seq), Writer>,
}

/// Who wrote an entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Writer {
    /// The name of the device; `hub` for what came through the hub's own API.
    pub device: String,
    /// The user or key, where the author has named one, such as `user:ID`.
    pub author: Option<String>,
}

/// What a merge decided between two writes that did not know of each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The field; `None` for the record as a whole, and for a field that is gone.
    pub field: Option<String>,
    /// `concurrent`, `hidden_by_delete` or `time_uncertain`.
    pub kind: &'static str,
    /// What stands.
    pub winner: Json,
    /// What does not.
    pub loser: Json,
    /// Who wrote what stands, and when.
    pub winner_stamp: Stamp,
    /// Who wrote the other, and when.
    pub loser_stamp: Stamp,
    /// When it was decided.
    pub at: Eff,
    /// True once somebody has settled it.
    pub settled: bool,
}

/// Edits of one request.
#[derive(Clone, Debug, PartialEq)]
pub struct WriteRequest {
    /// The collection: a table or documents.
    pub collection: Arc<Collection>,
    /// What to do, in this order.
    pub edits: Vec<Edit>,
    /// The user, where one is known.
    pub author: Option<String>,
    /// What the caller waits for; `None` for the node's own level.
    pub patience: Option<Patience>,
    /// What the caller may do to the rows, for the store to ask with each row locked; `None` for whoever no policy binds.
    pub bounds: Option<Arc<Bounds>>,
}

/// What became of a write.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WriteDone {
    /// The records that changed, in the order of the edits; edits that changed nothing are not here.
    pub changed: Vec<RecordId>,
    /// How safe it is.
    pub level: AckLevel,
}

/// How one part of the node is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Readiness {
    /// The part: a short word, such as `store`.
    pub name: String,
    /// What is wrong with it, as a sentence.
    pub state: Result<(), String>,
    /// What a person should know of it although it works; absent when all is well.
    pub note: Option<String>,
}

impl Readiness {
    /// A part that works, or the reason why it does not.
    #[must_use]
    pub fn of(name: impl Into<String>, state: Result<(), String>) -> Self {
        Self { name: name.into(), state, note: None }
    }
}

/// Why a backend cannot do what it is asked, by what the caller does next.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BackendError {
    /// The edit itself is wrong.
    #[error("{0}")]
    Edit(#[from] EditError),
    /// The store is away, or too busy: the same request may succeed later. It is not known whether a write happened.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// The disk or quota is full: nothing was written.
    #[error("the store is full: {0}")]
    Full(String),
    /// More than one entry takes; the sentence says to split it. Nothing was written.
    #[error("{0}")]
    TooLarge(String),
    /// What was read is not what was written.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// A value that is stored cannot be given as what was asked for; the sentence says which.
    #[error("{0}")]
    BadValue(String),
    /// The request cannot be fulfilled as it is; the sentence says why.
    #[error("{0}")]
    Refused(String),
    /// The caller's token is not good.
    #[error("{0}")]
    Token(#[from] TokenError),
    /// The node had taken the write, and the hub refused it while the caller waited: it is taken back.
    #[error("the hub refused this write, and it is taken back here: {0}")]
    Rejected(String),
}

impl From<StoreError> for BackendError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(why) | StoreError::Contended(why) => Self::Unavailable(why),
            // Until the node has started again; what is on disk is not known.
            StoreError::Poisoned(why) => Self::Unavailable(format!("it failed while writing and must be reopened: {why}")),
            StoreError::Full(why) => Self::Full(why),
            StoreError::Damaged(why) => Self::Damaged(why),
            StoreError::BadValue(why) => Self::BadValue(why),
            StoreError::Refused(why) => Self::Refused(why),
        }
    }
}
