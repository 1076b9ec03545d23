//! Accounts: who may use this hub's API, and what of it.
//!
//! | what | where |
//! |---|---|
//! | users, sign-ins, tokens | `users`, `sessions`, `signing`, `passwords` |
//! | roles and policies | [`roles`] |
//! | other issuers | [`issuers`] |
//! | the log of what was done | [`book`] |
//! | `/auth/v1` | [`doors`] |
//!
//! Everything is in the hub's own store, in tables that are the same in SQLite and Postgres. What a request needs is kept in memory and read
//! again when it changes here, and every [`limits::RIGHTS_LOOK`] in case another hub on the same store changed it.

mod access;
pub mod book;
pub mod doors;
pub mod issuers;
mod page;
mod passwords;
pub mod projects;
mod refusals;
pub mod roles;
pub(crate) mod rows;
mod sessions;
mod signing;
#[cfg(test)]
mod tests;
pub mod users;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use mobo_adapters::desk::{Cell, Desk, Outcome, Statement};
use mobo_core::ids::ProjectId;
use mobo_core::kernel::Cache;
use mobo_core::limits;
use mobo_core::rights::Policies;
use mobo_core::store::StoreError;
use mobo_core::time::Eff;
use mobo_core::trust::KeyPair;
use mobo_gate::auth::token::VerifyKey;
use mobo_gate::backend::BackendError;
use mobo_runtime::clock::Clock;
use mobo_runtime::entropy::NoEntropy;
use mobo_runtime::tasks::Tasks;
use tokio::sync::watch;

use crate::hub_time::HubTime;
use book::{Book, Event};
use issuers::Issuer;
use passwords::Passwords;
use rows::int;
use sessions::Live;
use signing::Signers;

/// Those of every project: users of another one sign in here as well, and its signing keys are among those that are known.
const REVISIONS: &str = "SELECT CAST(COALESCE(SUM(rev), 0) AS bigint) FROM mobo_rights";

pub use page::link as setup_link;

/// Why something about accounts was not done.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AuthError {
    /// The e-mail address or the password is wrong; which of them is not told.
    #[error("Invalid login credentials")]
    Credentials,
    /// The account may not sign in now.
    #[error("User is banned")]
    Banned,
    /// Nobody may make an account for himself here.
    #[error("Signups not allowed for this instance")]
    SignupDisabled,
    /// There is such an account already.
    #[error("A user with this email address has already been registered")]
    EmailExists,
    /// There is no such account.
    #[error("User not found")]
    NoUser,
    /// The refresh token is none of ours, or its sign-in has ended.
    #[error("Invalid Refresh Token: Refresh Token Not Found")]
    RefreshUnknown,
    /// It was exchanged before: somebody else has a copy, and the whole sign-in is ended.
    #[error("Invalid Refresh Token: Already Used")]
    RefreshUsed,
    /// The one-time link is over.
    #[error("Token has expired or is invalid")]
    LinkOver,
    /// A value cannot be taken; the sentence says why.
    #[error("{0}")]
    Bad(String),
    /// A password that is too short or too long.
    #[error("{0}")]
    WeakPassword(String),
    /// As many passwords as this hub hashes at once are being hashed.
    #[error("too many sign-ins at the same time")]
    Busy,
    /// There is no such role, policy, issuer or project.
    #[error("{what} \"{name}\" does not exist")]
    NoSuch {
        /// What was looked for.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The store cannot.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Keys or randomness fail.
    #[error("{0}")]
    Broken(String),
}

impl From<NoEntropy> for AuthError {
    fn from(error: NoEntropy) -> Self {
        Self::Broken(error.to_string())
    }
}

impl From<AuthError> for BackendError {
    fn from(error: AuthError) -> Self {
        if let AuthError::Store(error) = error { error.into() } else { Self::Unavailable(error.to_string()) }
    }
}

/// The accounts of a hub.
#[derive(Debug)]
pub struct Accounts {
    desk: Arc<dyn Desk>,
    time: Arc<HubTime>,
    clock: Clock,
    /// What tokens say of who issued them.
    issuer: String,
    /// The project whose records are served.
    served: ProjectId,
    passwords: Passwords,
    signers: Signers,
    book: Book,
    known: RwLock<Known>,
    /// Held from the look at the store until what was seen is known: of two looks, the later one has the last word.
    reloading: tokio::sync::Mutex<()>,
    live: Mutex<Cache<(ProjectId, String), Live>>,
    changes: watch::Sender<u64>,
}

/// What requests need without waiting.
#[derive(Debug)]
struct Known {
    rev: i64,
    policies: Arc<Policies>,
    keys: Arc<Vec<VerifyKey>>,
    issuers: Arc<Vec<Issuer>>,
    /// What devices are told of it.
    access: Arc<str>,
}

impl Known {
    fn nothing() -> Self {
        Self { rev: 0, policies: Arc::default(), keys: Arc::default(), issuers: Arc::default(), access: Arc::from("") }
    }
}

impl Accounts {
    /// The accounts in a store, and the first signing key where there is none.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn open(
        desk: Arc<dyn Desk>,
        time: Arc<HubTime>,
        (hub, clock): (&KeyPair, Clock),
        (served, issuer): (ProjectId, String),
        changes: watch::Sender<u64>,
    ) -> Result<Arc<Self>, AuthError> {
        let accounts = Arc::new(Self {
            book: Book::new(Arc::clone(&desk)),
            passwords: Passwords::new()?,
            signers: Signers::new(hub),
            issuer: if issuer.is_empty() { format!("mobo:{}", hub.device()) } else { issuer },
            live: Mutex::new(Cache::new(limits::KEY_CACHE_MAX, limits::SESSION_CACHE_TTL)),
            known: RwLock::new(Known::nothing()),
            reloading: tokio::sync::Mutex::default(),
            desk,
            time,
            clock,
            served,
            changes,
        });
        accounts.ensure_signing_key(served).await?;
        accounts.reload().await?;
        Ok(accounts)
    }

    /// Looks for changes that other hubs on the store have made, until the part stops.
    pub fn keep_up(self: &Arc<Self>, tasks: &Tasks) {
        let (accounts, stopping) = (Arc::clone(self), tasks.stopping());
        tasks.spawn("rights", async move {
            let mut every = tokio::time::interval(limits::RIGHTS_LOOK);
            let mut swept = tokio::time::Instant::now();
            loop {
                tokio::select! {
                    () = stopping.cancelled() => return,
                    _ = every.tick() => {}
                }
                if let Err(error) = accounts.look().await {
                    tracing::debug!(%error, "cannot look whether rights have changed");
                }
                if swept.elapsed() >= limits::SIGN_IN_SWEEP {
                    swept = tokio::time::Instant::now();
                    if let Err(error) = accounts.sweep().await {
                        tracing::debug!(%error, "cannot remove sign-ins that are long over");
                    }
                }
            }
        });
    }

    /// The policies of the served project.
    #[must_use]
    pub fn policies(&self) -> Arc<Policies> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner).policies)
    }

    /// What devices are told of callers.
    #[must_use]
    pub fn access(&self) -> Arc<str> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner).access)
    }

    /// Counts changes of what [`access`](Self::access) gives, among others.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// What tokens say of who issued them.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The keys that our tokens are checked with.
    #[must_use]
    pub fn keys(&self) -> Arc<Vec<VerifyKey>> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner).keys)
    }

    fn issuers(&self) -> Arc<Vec<Issuer>> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner).issuers)
    }

    fn live(&self) -> MutexGuard<'_, Cache<(ProjectId, String), Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Eff {
        self.time.now()
    }

    /// Runs statements that change rights or accounts, and writes down that they happened, all in one transaction.
    ///
    /// # Errors
    ///
    /// [`Missed`] where a statement that must find something found nothing.
    async fn change(
        &self,
        project: ProjectId,
        mut statements: Vec<Statement>,
        event: Event,
    ) -> Result<Vec<mobo_adapters::desk::Done>, Missed> {
        const BUMP: &str =
            "INSERT INTO mobo_rights(project, rev) VALUES ($1, 1) ON CONFLICT (project) DO UPDATE SET rev = mobo_rights.rev + 1";
        let own = statements.len();
        statements.push(Statement::new(BUMP, [int(project)]));
        let mut done = self.book.commit(project, statements, (event, self.now())).await?;
        done.truncate(own);
        self.live().clear();
        self.reload().await.map_err(|error| Missed::Error(Box::new(error)))?;
        self.changes.send_modify(|count| *count += 1);
        Ok(done)
    }

    /// A key was made, or made useless: whoever has a connection open is asked again, and devices hear of it.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn keys_changed(&self, project: ProjectId, event: Event) -> Result<(), AuthError> {
        self.change(project, Vec::new(), event).await.map(drop).map_err(|missed| missed.or(AuthError::Busy))
    }

    /// Writes down what happened where nothing is changed, such as a refusal. A store that cannot keep it makes the refused one wait.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn note(&self, project: ProjectId, event: Event) -> Result<(), AuthError> {
        self.book.note(project, (event, self.now())).await
    }

    /// Rows of one statement, about whatever else is in the store.
    pub(crate) async fn rows_of(&self, statement: Statement) -> Result<Vec<Vec<Cell>>, StoreError> {
        self.read(statement.sql, statement.cells).await
    }

    /// Rows of statements that only read.
    async fn read(&self, sql: &'static str, cells: impl IntoIterator<Item = Cell>) -> Result<Vec<Vec<Cell>>, StoreError> {
        match self.desk.run(vec![Statement::new(sql, cells)]).await? {
            Outcome::Done(mut done) => Ok(done.pop().unwrap_or_default().rows),
            Outcome::Missed(_) => Ok(Vec::new()),
        }
    }

    async fn look(&self) -> Result<(), AuthError> {
        let rows = self.read(REVISIONS, []).await?;
        let rev = rows.first().and_then(|row| rows::number(row, 0)).unwrap_or_default();
        if rev != self.known.read().unwrap_or_else(PoisonError::into_inner).rev {
            self.live().clear();
            self.reload().await?;
            self.changes.send_modify(|count| *count += 1);
        }
        self.refresh_issuers().await;
        Ok(())
    }

    async fn reload(&self) -> Result<(), AuthError> {
        let _one_at_a_time = self.reloading.lock().await;
        let rows = self.read(REVISIONS, []).await?;
        let rev = rows.first().and_then(|row| rows::number(row, 0)).unwrap_or_default();
        let policies = Arc::new(self.load_policies(self.served).await?);
        let keys = Arc::new(self.load_keys().await?);
        let issuers = self.load_issuers(self.served).await?;
        let access = self.told(&policies, &keys).await?.into();
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let issuers = Arc::new(issuers::keeping(issuers, &known.issuers));
        *known = Known { rev, policies, keys, issuers, access };
        self.signers.forget();
        Ok(())
    }
}

/// Why a change did not happen.
#[derive(Debug)]
enum Missed {
    /// A statement that must find something found nothing.
    Nothing,
    /// Something else.
    Error(Box<AuthError>),
}

impl From<StoreError> for Missed {
    fn from(error: StoreError) -> Self {
        Self::Error(Box::new(AuthError::Store(error)))
    }
}

impl Missed {
    /// The error, where whatever was missed means this.
    fn or(self, missed: AuthError) -> AuthError {
        match self {
            Self::Nothing => missed,
            Self::Error(error) => *error,
        }
    }
}
