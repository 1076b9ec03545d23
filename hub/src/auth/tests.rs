//! Accounts over a store of their own: what happens when two things happen at once.

mod races;

use mobo_adapters::desk::Statement;
use mobo_adapters::sqlite::SqliteHubStore;
use mobo_gate::auth::token::Token;
use serde_json::{Map, Value as Json, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::rows::EMAIL_VERIFIED;
use super::users::{Account, NewUser, UserChange};
use super::*;

const EMAIL: &str = "ann@example.com";
const PASSWORD: &str = "correct horse battery";

struct World {
    accounts: Arc<Accounts>,
    project: ProjectId,
    /// What the store was asked.
    asked: Arc<Mutex<Vec<&'static str>>>,
    _folder: TempDir,
}

/// A store that notes what it is asked.
#[derive(Debug)]
struct Noting(Arc<SqliteHubStore>, Arc<Mutex<Vec<&'static str>>>);

impl Desk for Noting {
    fn run(&self, statements: Vec<Statement>) -> mobo_core::store::StoreFuture<'_, Outcome> {
        self.1.lock().unwrap().extend(statements.iter().map(|statement| statement.sql));
        self.0.run(statements)
    }
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteHubStore::open(&folder.path().join("hub.db")).unwrap());
        let (keys, clock) = (KeyPair::from_secret(&[7; 32]), Clock::start().unwrap());
        let opened = crate::node::assemble(Arc::clone(&store) as _, &keys, Arc::new(clock)).await.unwrap();
        let served = (opened.project, String::new());
        let asked = Arc::new(Mutex::default());
        let desk = Arc::new(Noting(store, Arc::clone(&asked)));
        let accounts = Accounts::open(desk, opened.time, (&keys, clock), served, watch::Sender::new(0)).await.unwrap();
        Self { accounts, project: opened.project, asked, _folder: folder }
    }

    async fn user(&self, app: Json) -> Account {
        let Json::Object(app) = app else { panic!("members") };
        let new = NewUser { email: EMAIL.to_owned(), password: Some(PASSWORD.to_owned()), app, ..NewUser::default() };
        self.accounts.create_user(self.project, new, "test").await.unwrap()
    }

    async fn change(&self, id: &str, change: UserChange) -> Result<Account, AuthError> {
        self.accounts.change_user(self.project, id, change, ("test", None)).await
    }

    async fn sign_in(&self, password: &str) -> Result<Json, AuthError> {
        self.accounts.sign_in(self.project, EMAIL, password).await
    }

    async fn refresh(&self, token: &Json) -> Result<Json, AuthError> {
        self.accounts.refresh(self.project, token["refresh_token"].as_str().unwrap()).await
    }
}

fn password(password: &str) -> UserChange {
    UserChange { password: Some(password.to_owned()), ..UserChange::default() }
}

#[tokio::test]
async fn what_others_change_meanwhile_stays() {
    let world = World::new().await;
    let user = world.user(json!({})).await;
    let role = UserChange { role: Some("service".to_owned()), ..UserChange::default() };
    let about = |name: &str| UserChange { about: Some(Map::from_iter([(name.to_owned(), json!(1))])), ..UserChange::default() };
    let [own, admins, a, b] = {
        let (own, admins) = (world.change(&user.id, password("another horse battery")), world.change(&user.id, role));
        let (a, b) = (world.change(&user.id, about("a")), world.change(&user.id, about("b")));
        let (own, admins, a, b) = tokio::join!(own, admins, a, b);
        [own, admins, a, b]
    };
    assert!([&own, &admins, &a, &b].iter().all(|done| done.is_ok()), "{own:?} {admins:?} {a:?} {b:?}");
    let now = world.accounts.user(world.project, &user.id).await.unwrap();
    assert_eq!((now.role.name(), now.about.len()), ("service", 2));
    assert!(world.sign_in("another horse battery").await.is_ok());
    assert_eq!(world.sign_in(PASSWORD).await, Err(AuthError::Credentials));
}

/// A wrong password, an unknown address and an account without a password are the same work: nobody learns which it was from the time it took.
#[tokio::test]
async fn who_is_not_there_costs_as_much_as_who_is() {
    let world = World::new().await;
    let user = world.user(json!({})).await;
    let nobody = NewUser { email: "empty@example.com".to_owned(), ..NewUser::default() };
    world.accounts.create_user(world.project, nobody, "test").await.unwrap();
    let work = async |email: &str| {
        world.asked.lock().unwrap().clear();
        let before = world.accounts.passwords.compared.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(world.accounts.sign_in(world.project, email, "wrong horse battery").await, Err(AuthError::Credentials), "{email}");
        let compared = world.accounts.passwords.compared.load(std::sync::atomic::Ordering::Relaxed) - before;
        (compared, world.asked.lock().unwrap().clone())
    };
    let wrong = work(&user.email).await;
    assert!(wrong.0 == 1 && !wrong.1.is_empty(), "{wrong:?}");
    for email in ["empty@example.com", "unknown@example.com"] {
        assert_eq!(work(email).await, wrong, "{email}");
    }
}

#[tokio::test]
async fn a_sign_in_begins_by_what_the_account_is_then() {
    let world = World::new().await;
    let user = world.user(json!({})).await;
    // What a sign-in has seen, before it looked at the password.
    let seen = async || world.accounts.by_email(world.project, EMAIL).await.unwrap().unwrap();
    let begin = async |seen: Account| {
        let hash = seen.password.clone();
        world.accounts.begin(world.project, seen, ("password", hash)).await.map(drop)
    };
    assert_eq!(begin(seen().await).await, Ok(()));
    let free = seen().await;
    let until = Eff(world.accounts.now().0.saturating_add(3_600_000_000));
    world.change(&user.id, UserChange { banned: Some(Some(until)), ..UserChange::default() }).await.unwrap();
    assert_eq!(begin(free).await, Err(AuthError::Banned));
    world.change(&user.id, UserChange { banned: Some(None), ..UserChange::default() }).await.unwrap();
    let before = seen().await;
    world.change(&user.id, password("another horse battery")).await.unwrap();
    assert_eq!(begin(before).await, Err(AuthError::Credentials), "by the password before");
    let there = seen().await;
    world.accounts.delete_user(world.project, &user.id, "test").await.unwrap();
    assert_eq!(begin(there).await, Err(AuthError::Credentials), "of one who is gone");
}

#[tokio::test]
async fn an_answer_that_was_lost_is_given_again() {
    let world = World::new().await;
    world.user(json!({})).await;
    let first = world.sign_in(PASSWORD).await.unwrap();
    let second = world.refresh(&first).await.unwrap();
    let again = world.refresh(&first).await.unwrap();
    assert_eq!(again["refresh_token"], second["refresh_token"]);
    let third = world.refresh(&again).await.unwrap();
    assert_eq!(world.refresh(&first).await, Err(AuthError::RefreshUsed), "what it gave was used");
    assert_eq!(world.refresh(&third).await, Err(AuthError::RefreshUnknown), "the sign-in has ended");

    let first = world.sign_in(PASSWORD).await.unwrap();
    world.refresh(&first).await.unwrap();
    let older = Statement::must("UPDATE mobo_refresh SET created_us = created_us - 10000001 WHERE project = $1", [int(world.project)]);
    world.accounts.desk.run(vec![older]).await.unwrap();
    assert_eq!(world.refresh(&first).await, Err(AuthError::RefreshUsed), "too late");
}

#[tokio::test]
async fn an_address_counts_that_an_administrator_or_a_link_stands_for() {
    let world = World::new().await;
    let typed = world.user(json!({ EMAIL_VERIFIED: false })).await;
    let email = |account: &Account| account.claims().get("email").cloned();
    assert_eq!((email(&typed), typed.to_json()["email_confirmed_at"].clone()), (None, Json::Null));
    let about = UserChange { about: Some(Map::from_iter([(EMAIL_VERIFIED.to_owned(), json!(true))])), ..UserChange::default() };
    assert_eq!(email(&world.change(&typed.id, about).await.unwrap()), None, "what the user says of himself proves nothing");
    let (_, secret) = world.accounts.setup_secret(world.project, &typed.id, "test").await.unwrap();
    world.accounts.sign_in_by_link(world.project, &secret).await.unwrap();
    let linked = world.accounts.user(world.project, &typed.id).await.unwrap();
    assert_eq!(email(&linked), Some(json!(EMAIL)));
    world.accounts.delete_user(world.project, &typed.id, "test").await.unwrap();
    let typed = world.user(json!({ EMAIL_VERIFIED: false })).await;
    let set = UserChange { email: Some("Ann@new.example".to_owned()), email_known: true, ..UserChange::default() };
    assert_eq!(email(&world.change(&typed.id, set).await.unwrap()), Some(json!("ann@new.example")));
}

#[tokio::test]
async fn many_tokens_of_an_unknown_key_ask_their_issuer_once() {
    const ISSUER: &str = "https://issuer.example";
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap());
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            tokio::spawn(async move {
                let mut request = [0; 1_024];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\nconnection: close\r\n\r\n{\"keys\":[]}").await;
            });
        }
    });
    let world = World::new().await;
    world.accounts.add_issuer(world.project, (ISSUER, &url, "app", "authenticated"), "test").await.unwrap();
    {
        // As if that were long ago.
        let mut known = world.accounts.known.write().unwrap();
        known.issuers = Arc::new(known.issuers.iter().map(|issuer| Issuer { asked: None, ..issuer.clone() }).collect());
    }
    asked.store(0, std::sync::atomic::Ordering::SeqCst);
    let part = |json: Json| base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, json.to_string());
    let text = format!("{}.{}.AAAA", part(json!({ "alg": "ES256", "kid": "k" })), part(json!({ "iss": ISSUER })));
    let token = Token::parse(&text).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (accounts, token) = (Arc::clone(&world.accounts), token.clone());
        tasks.spawn(async move { accounts.principal(&token).await.is_err() });
    }
    assert!(tasks.join_all().await.into_iter().all(|refused| refused));
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 1);
}
