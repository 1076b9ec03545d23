//! What is acknowledged holds, whatever else was being read at that time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mobo_core::ids::CollectionId;
use mobo_core::schema::{Collection, Kind};
use mobo_gate::backend::BackendError;
use tokio::sync::{Notify, Semaphore};

use super::*;
use crate::auth::roles::NewPolicy;
use crate::auth::sessions::Scope;

/// How long the other one may take, where nothing keeps it from being done.
const A_WHILE: Duration = Duration::from_millis(300);
const POLICIES: &str = "FROM mobo_policy";
const SIGN_INS: &str = "SELECT ended_us FROM mobo_sign_in";

/// A store whose answer to one question is on its way for as long as a test wants.
#[derive(Debug)]
struct Slow {
    store: Arc<SqliteHubStore>,
    question: &'static str,
    holds: AtomicBool,
    held: Notify,
    free: Semaphore,
}

impl Desk for Slow {
    fn run(&self, statements: Vec<Statement>) -> mobo_core::store::StoreFuture<'_, Outcome> {
        let is_it = statements.iter().any(|statement| statement.sql.starts_with("SELECT") && statement.sql.contains(self.question));
        let holds = is_it && self.holds.swap(false, Ordering::SeqCst);
        let asked = self.store.run(statements);
        Box::pin(async move {
            let answer = asked.await;
            if holds {
                self.held.notify_one();
                drop(self.free.acquire().await);
            }
            answer
        })
    }
}

/// Accounts over such a store, for the next such question from `slow.holds` on.
async fn slow(question: &'static str) -> (World, Arc<Slow>) {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteHubStore::open(&folder.path().join("hub.db")).unwrap());
    let (keys, clock) = (KeyPair::from_secret(&[7; 32]), Clock::start().unwrap());
    let opened = crate::node::assemble(Arc::clone(&store) as _, &keys, Arc::new(clock)).await.unwrap();
    let served = (opened.project, String::new());
    let slow = Slow { store, question, holds: AtomicBool::new(false), held: Notify::new(), free: Semaphore::new(0) };
    let slow = Arc::new(slow);
    let desk = Arc::clone(&slow) as Arc<dyn Desk>;
    let accounts = Accounts::open(desk, opened.time, (&keys, clock), served, watch::Sender::new(0)).await.unwrap();
    (World { accounts, project: opened.project, asked: Arc::default(), _folder: folder }, slow)
}

fn collection(id: u64) -> Collection {
    let (id, name) = (CollectionId::new(id).unwrap(), format!("c{id}"));
    let (kind, lane) = (Kind::Table, mobo_core::ids::Lane::State);
    Collection { id, name, kind, rev: 1, fields: Vec::new(), rules: Vec::new(), lane, store: "default".to_owned() }
}

/// What could have happened: of two administrators at the same time, the one who was done last was told so, and what he had done did not hold
/// until the hub looked again, because the other one's look at the store was older and came later.
#[tokio::test]
async fn a_policy_holds_once_it_is_acknowledged() {
    let (world, slow) = slow(POLICIES).await;
    let set = |id: u64| {
        let (accounts, project) = (Arc::clone(&world.accounts), world.project);
        tokio::spawn(async move {
            let new = NewPolicy { role: "anon".to_owned(), actions: vec!["read".to_owned()], ..NewPolicy::default() };
            accounts.set_policy(project, &collection(id), &new, "test").await
        })
    };
    slow.holds.store(true, Ordering::SeqCst);
    let first = set(1);
    slow.held.notified().await;
    let mut second = set(2);
    let done = tokio::time::timeout(A_WHILE, &mut second).await;
    slow.free.add_permits(1);
    first.await.unwrap().unwrap();
    match done {
        Ok(done) => done.unwrap().unwrap(),
        Err(_) => second.await.unwrap().unwrap(),
    }
    let open: Vec<u64> = world.accounts.policies().iter().map(|policy| policy.collection.get()).collect();
    assert_eq!(open, [1, 2]);
}

/// What could have happened: a request that looked a sign-in up just before it ended remembered it as good for the requests behind it.
#[tokio::test]
async fn a_sign_in_that_was_ended_opens_nothing_any_more() {
    let (world, slow) = slow(SIGN_INS).await;
    world.user(json!({})).await;
    let signed_in = world.sign_in(PASSWORD).await.unwrap();
    let token = Token::parse(signed_in["access_token"].as_str().unwrap()).unwrap();
    slow.holds.store(true, Ordering::SeqCst);
    let early = {
        let (accounts, token) = (Arc::clone(&world.accounts), token.clone());
        tokio::spawn(async move { accounts.principal(&token).await })
    };
    slow.held.notified().await;
    let who = world.accounts.principal(&token).await.unwrap();
    world.accounts.sign_out(&who, Scope::Global).await.unwrap();
    slow.free.add_permits(1);
    assert!(early.await.unwrap().is_ok(), "it was good when it was asked about");
    let late = world.accounts.principal(&token).await;
    assert!(matches!(late, Err(BackendError::Token(_))), "{late:?}");
}
