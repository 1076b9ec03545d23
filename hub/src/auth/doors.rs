//! `/auth/v1`: accounts in the shapes of GoTrue, so that its clients sign in here. What is not here is refused by name.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use axum::http::request::Parts;
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, get, post};
use mobo_core::ids::ProjectId;
use mobo_core::limits;
use mobo_core::rights::Principal;
use mobo_core::time::Eff;
use mobo_gate::{Gate, Openness, Problem};
use serde_json::{Map, Value as Json, json};

use super::rows::EMAIL_VERIFIED;
use super::sessions::Scope;
use super::users::{NewUser, UserChange};
use super::{Accounts, AuthError, page};
use crate::node::Hub;
use crate::settings;

const API_VERSION: (HeaderName, &str) = (HeaderName::from_static("x-supabase-api-version"), "2024-01-01");

/// What the handlers share.
#[derive(Clone, Debug)]
struct Doors {
    gate: Gate,
    hub: Arc<Hub>,
}

/// What a caller sends after `?`.
type Words = Query<Vec<(String, String)>>;
type Answer = Result<Response, Problem>;

/// Every route of the accounts, and who it is for. A new one is added here and nowhere else: the test of the matrix of rights asks all of them.
fn routes() -> Vec<(&'static str, Openness, MethodRouter<Doors>)> {
    use Openness::{Administrator, Anybody, Keyed, User};
    vec![
        ("/.well-known/jwks.json", Anybody, get(jwks)),
        ("/auth/v1/.well-known/jwks.json", Anybody, get(jwks)),
        ("/.well-known/openid-configuration", Anybody, get(discovery)),
        ("/auth/v1/.well-known/openid-configuration", Anybody, get(discovery)),
        ("/auth/v1/health", Anybody, get(health)),
        ("/auth/v1/settings", Anybody, get(about)),
        ("/auth/v1/setup", Anybody, get(page::form).post(set_up)),
        ("/auth/v1/signup", Keyed, post(sign_up)),
        ("/auth/v1/token", Keyed, post(token)),
        ("/auth/v1/verify", Keyed, post(verify)),
        ("/auth/v1/logout", User, post(sign_out)),
        ("/auth/v1/user", User, get(user).put(change_user)),
        ("/auth/v1/admin/users", Administrator, get(users).post(create_user)),
        ("/auth/v1/admin/users/{id}", Administrator, get(one_user).put(administer).delete(delete_user)),
        ("/auth/v1/admin/generate_link", Administrator, post(link)),
        ("/auth/v1/{*rest}", Anybody, any(not_here)),
    ]
}

/// The paths of the accounts, and who they are for.
#[must_use]
pub fn paths() -> Vec<(&'static str, Openness)> {
    routes().into_iter().map(|(path, openness, _)| (path, openness)).collect()
}

/// The routes, beside those of the gate.
pub fn router(gate: Gate, hub: Arc<Hub>) -> Router {
    routes().into_iter().fold(Router::new(), |router, (path, _, door)| router.route(path, door)).with_state(Doors { gate, hub })
}

impl Doors {
    fn accounts(&self) -> Result<Arc<Accounts>, Problem> {
        let missing = || Problem::auth(StatusCode::SERVICE_UNAVAILABLE, "unexpected_failure", "the store is not open yet");
        self.hub.accounts().ok_or_else(missing)
    }

    /// Whoever has a key, or is a user.
    async fn caller(&self, parts: &Parts) -> Result<Principal, Problem> {
        self.gate.principal(parts).await?.ok_or_else(|| {
            Problem::auth(StatusCode::UNAUTHORIZED, "no_authorization", "No API key found in request")
                .hint("send one as `apikey: mobo_pub_…`; `mobo-hub key create --role anon` makes one")
        })
    }

    /// A user, by his token.
    async fn user(&self, parts: &Parts) -> Result<(Principal, String), Problem> {
        let caller = self.caller(parts).await?;
        match caller.user.clone() {
            Some(user) => Ok((caller, user)),
            None => Err(Problem::auth(StatusCode::UNAUTHORIZED, "no_authorization", "This endpoint requires a valid Bearer token")),
        }
    }

    /// Whoever may administer users.
    async fn administrator(&self, parts: &Parts) -> Result<Principal, Problem> {
        let caller = self.caller(parts).await?;
        if caller.may_administer_users() {
            return Ok(caller);
        }
        Err(Problem::auth(StatusCode::FORBIDDEN, "not_admin", "User not allowed")
            .hint("this takes a key of role service or admin, without scopes"))
    }

    async fn object(&self, parts: &Parts, body: &mut Body) -> Result<Map<String, Json>, Problem> {
        members_of(&self.gate.body(&parts.headers, body).await?)
    }

    /// The same from one who is nobody yet.
    async fn small_object(&self, parts: &Parts, body: &mut Body) -> Result<Map<String, Json>, Problem> {
        members_of(&self.gate.small_body(&parts.headers, body).await?)
    }
}

fn members_of(bytes: &[u8]) -> Result<Map<String, Json>, Problem> {
    match serde_json::from_slice(bytes) {
        Ok(Json::Object(members)) => Ok(members),
        _ => Err(Problem::auth(StatusCode::BAD_REQUEST, "bad_json", "Could not parse request body as JSON: an object is expected")),
    }
}

fn word(from: &Map<String, Json>, name: &str) -> String {
    from.get(name).and_then(Json::as_str).unwrap_or_default().to_owned()
}

fn optional(from: &Map<String, Json>, name: &str) -> Option<String> {
    from.get(name).and_then(Json::as_str).map(str::to_owned)
}

fn members(from: &Map<String, Json>, name: &str) -> Option<Map<String, Json>> {
    from.get(name).and_then(Json::as_object).cloned()
}

fn said(words: &Words, name: &str) -> Option<String> {
    words.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
}

fn ok(body: Json) -> Answer {
    Ok(([API_VERSION, (CACHE_CONTROL, "no-store")], axum::Json(body)).into_response())
}

fn actor(who: &Principal) -> String {
    who.author().unwrap_or_else(|| who.role.name().to_owned())
}

async fn jwks(State(doors): State<Doors>) -> Answer {
    let keys: Vec<Json> = doors.accounts()?.keys().iter().map(mobo_gate::auth::token::VerifyKey::to_jwk).collect();
    Ok(([(CACHE_CONTROL, "public, max-age=60")], axum::Json(json!({ "keys": keys }))).into_response())
}

async fn discovery(State(doors): State<Doors>) -> Answer {
    let issuer = doors.accounts()?.issuer().to_owned();
    let base = if issuer.starts_with("http") { issuer.trim_end_matches('/').to_owned() } else { "/auth/v1".to_owned() };
    ok(json!({
        "issuer": issuer, "jwks_uri": format!("{base}/.well-known/jwks.json"), "token_endpoint": format!("{base}/token"),
        "userinfo_endpoint": format!("{base}/user"), "id_token_signing_alg_values_supported": ["ES256"], "subject_types_supported": ["public"],
        "response_types_supported": [], "grant_types_supported": ["password", "refresh_token"],
    }))
}

async fn health() -> Answer {
    ok(json!({ "name": "mobo", "version": crate::node::VERSION, "description": "accounts in the shapes of GoTrue" }))
}

async fn about(State(doors): State<Doors>) -> Answer {
    let signup = doors.hub.config.get(&settings::AUTH_SIGNUP);
    ok(json!({
        "external": { "email": true, "phone": false, "anonymous_users": false }, "disable_signup": !signup, "mailer_autoconfirm": true,
        "phone_autoconfirm": false, "sms_provider": "", "saml_enabled": false,
    }))
}

async fn sign_up(State(doors): State<Doors>, request: Request) -> Answer {
    let (parts, mut body) = request.into_parts();
    let caller = doors.caller(&parts).await?;
    let sent = doors.small_object(&parts, &mut body).await?;
    if !doors.hub.config.get(&settings::AUTH_SIGNUP) {
        return Err(Problem::from(AuthError::SignupDisabled)
            .hint("an administrator makes accounts here; auth.signup = true lets everybody make one"));
    }
    let (email, password) = (word(&sent, "email"), word(&sent, "password"));
    let about = members(&sent, "data").unwrap_or_default();
    // Whose address that is, nobody knows.
    let app = Map::from_iter([(EMAIL_VERIFIED.to_owned(), Json::Bool(false))]);
    let new = NewUser { email: email.clone(), password: Some(password.clone()), about, app, ..NewUser::default() };
    let accounts = doors.accounts()?;
    accounts.create_user(caller.project, new, &actor(&caller)).await?;
    ok(accounts.sign_in(caller.project, &email, &password).await?)
}

async fn token(State(doors): State<Doors>, words: Words, request: Request) -> Answer {
    let (parts, mut body) = request.into_parts();
    let project = doors.caller(&parts).await?.project;
    let sent = doors.small_object(&parts, &mut body).await?;
    let accounts = doors.accounts()?;
    match said(&words, "grant_type").as_deref() {
        Some("password") => ok(accounts.sign_in(project, &word(&sent, "email"), &word(&sent, "password")).await?),
        Some("refresh_token") => ok(accounts.refresh(project, &word(&sent, "refresh_token")).await?),
        other => {
            let message = format!("unsupported_grant_type: {}", other.unwrap_or("none").escape_default());
            Err(Problem::auth(StatusCode::BAD_REQUEST, "validation_failed", message)
                .hint("use grant_type=password or grant_type=refresh_token"))
        }
    }
}

async fn verify(State(doors): State<Doors>, request: Request) -> Answer {
    let (parts, mut body) = request.into_parts();
    let project = doors.caller(&parts).await?.project;
    let sent = doors.small_object(&parts, &mut body).await?;
    let secret = optional(&sent, "token_hash").unwrap_or_else(|| word(&sent, "token"));
    ok(doors.accounts()?.sign_in_by_link(project, &secret).await?)
}

async fn sign_out(State(doors): State<Doors>, words: Words, request: Request) -> Answer {
    let (parts, _) = request.into_parts();
    let (caller, _) = doors.user(&parts).await?;
    let scope = said(&words, "scope").map_or(Some(Scope::Global), |word| Scope::from_name(&word));
    let scope = scope.ok_or_else(|| Problem::auth(StatusCode::BAD_REQUEST, "validation_failed", "scope is global, local or others"))?;
    doors.accounts()?.sign_out(&caller, scope).await?;
    Ok(([API_VERSION], StatusCode::NO_CONTENT).into_response())
}

async fn user(State(doors): State<Doors>, request: Request) -> Answer {
    let (parts, _) = request.into_parts();
    let (caller, user) = doors.user(&parts).await?;
    ok(doors.accounts()?.user(caller.project, &user).await?.to_json())
}

async fn change_user(State(doors): State<Doors>, request: Request) -> Answer {
    let (parts, mut body) = request.into_parts();
    let (caller, user) = doors.user(&parts).await?;
    let sent = doors.object(&parts, &mut body).await?;
    let accounts = doors.accounts()?;
    // What decides rights is not the user's to say, and policies may ask for the address.
    if let Some(email) = optional(&sent, "email")
        && email.trim().to_lowercase() != accounts.user(caller.project, &user).await?.email
    {
        let message = "An administrator changes e-mail addresses: this hub sends no mail that would prove the new one";
        return Err(Problem::auth(StatusCode::UNPROCESSABLE_ENTITY, "email_address_not_authorized", message)
            .hint("PUT /auth/v1/admin/users/{id} takes another address"));
    }
    let change = UserChange { password: optional(&sent, "password"), about: members(&sent, "data"), ..UserChange::default() };
    let by = (actor(&caller), caller.session.clone());
    ok(accounts.change_user(caller.project, &user, change, (&by.0, by.1.as_deref())).await?.to_json())
}

async fn users(State(doors): State<Doors>, words: Words, request: Request) -> Answer {
    let (parts, _) = request.into_parts();
    let caller = doors.administrator(&parts).await?;
    let number = |name: &str, default: u32| said(&words, name).and_then(|text| text.parse().ok()).unwrap_or(default);
    let size = number("per_page", 50).clamp(1, limits::USERS_PAGE_MAX);
    let offset = number("page", 1).max(1).saturating_sub(1).saturating_mul(size);
    let users: Vec<Json> = doors.accounts()?.users(caller.project, size, offset).await?.iter().map(super::rows::Account::to_json).collect();
    ok(json!({ "users": users, "aud": super::sessions::AUDIENCE }))
}

async fn create_user(State(doors): State<Doors>, request: Request) -> Answer {
    let (parts, mut body) = request.into_parts();
    let caller = doors.administrator(&parts).await?;
    let sent = doors.object(&parts, &mut body).await?;
    check_role(&caller, &sent)?;
    let new = NewUser {
        email: word(&sent, "email"),
        password: optional(&sent, "password"),
        role: optional(&sent, "role").filter(|role| !role.is_empty()),
        app: members(&sent, "app_metadata").unwrap_or_default(),
        about: members(&sent, "user_metadata").unwrap_or_default(),
    };
    ok(doors.accounts()?.create_user(caller.project, new, &actor(&caller)).await?.to_json())
}

async fn one_user(State(doors): State<Doors>, Path(id): Path<String>, request: Request) -> Answer {
    let (parts, _) = request.into_parts();
    let caller = doors.administrator(&parts).await?;
    ok(doors.accounts()?.user(caller.project, &id).await?.to_json())
}

async fn administer(State(doors): State<Doors>, Path(id): Path<String>, request: Request) -> Answer {
    let (parts, mut body) = request.into_parts();
    let caller = doors.administrator(&parts).await?;
    let sent = doors.object(&parts, &mut body).await?;
    check_role(&caller, &sent)?;
    let accounts = doors.accounts()?;
    check_target(&caller, &accounts, &id).await?;
    let banned = match optional(&sent, "ban_duration").as_deref() {
        None => None,
        Some("none") => Some(None),
        Some(text) => Some(Some(until(&doors, text)?)),
    };
    let email = optional(&sent, "email");
    let change = UserChange {
        email_known: email.is_some() || sent.get("email_confirm") == Some(&Json::Bool(true)),
        email,
        password: optional(&sent, "password"),
        role: optional(&sent, "role"),
        app: members(&sent, "app_metadata"),
        about: members(&sent, "user_metadata"),
        banned,
    };
    ok(accounts.change_user(caller.project, &id, change, (&actor(&caller), None)).await?.to_json())
}

async fn delete_user(State(doors): State<Doors>, Path(id): Path<String>, request: Request) -> Answer {
    let (parts, _) = request.into_parts();
    let caller = doors.administrator(&parts).await?;
    let accounts = doors.accounts()?;
    check_target(&caller, &accounts, &id).await?;
    let gone = accounts.user(caller.project, &id).await?.to_json();
    accounts.delete_user(caller.project, &id, &actor(&caller)).await?;
    ok(gone)
}

async fn link(State(doors): State<Doors>, request: Request) -> Answer {
    let (parts, mut body) = request.into_parts();
    let caller = doors.administrator(&parts).await?;
    let sent = doors.object(&parts, &mut body).await?;
    let accounts = doors.accounts()?;
    let email = word(&sent, "email");
    check_target(&caller, &accounts, &email).await?;
    let (account, secret) = accounts.setup_secret(caller.project, &email, &actor(&caller)).await?;
    let Json::Object(mut answer) = account.to_json() else { return ok(json!({})) };
    let kind = optional(&sent, "type").unwrap_or_else(|| "recovery".to_owned());
    answer.insert("action_link".to_owned(), page::link(&doors.hub, caller.project, &secret).into());
    answer.insert("hashed_token".to_owned(), secret.into());
    answer.insert("verification_type".to_owned(), kind.into());
    ok(Json::Object(answer))
}

/// Sets the first password, as the page of a one-time link sends it.
async fn set_up(State(doors): State<Doors>, request: Request) -> Answer {
    let (parts, mut body) = request.into_parts();
    let bytes = doors.gate.small_body(&parts.headers, &mut body).await?;
    let (project, secret, password) = page::read(&bytes).ok_or(AuthError::LinkOver)?;
    doors.accounts()?.set_up(project, &secret, &password).await?;
    let policy = "default-src 'none'; style-src 'unsafe-inline'";
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, policy),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, page::DONE).into_response())
}

async fn not_here(request: Request) -> Problem {
    let message = format!("{} is not here in this version", request.uri().path().escape_default());
    Problem::auth(StatusCode::BAD_REQUEST, "not_supported", message)
        .hint("here are: signup, token (password, refresh_token), verify, logout, user, admin/users, admin/generate_link, settings, health")
}

/// A service may not make administrators: only one may.
fn check_role(caller: &Principal, sent: &Map<String, Json>) -> Result<(), Problem> {
    let trusted = sent.get("role").and_then(Json::as_str).is_some_and(|role| role == "admin" || role == "service");
    if !trusted || caller.is_admin() { Ok(()) } else { Err(not_allowed()) }
}

/// Nor may it take one over.
async fn check_target(caller: &Principal, accounts: &Accounts, email_or_id: &str) -> Result<(), Problem> {
    let account = accounts.find_user(caller.project, email_or_id).await?;
    if !account.role.is_trusted() || caller.is_admin() { Ok(()) } else { Err(not_allowed()) }
}

fn not_allowed() -> Problem {
    Problem::auth(StatusCode::FORBIDDEN, "not_admin", "only an administrator may do that to an account of role admin or service")
}

/// GoTrue's `24h` from now.
fn until(doors: &Doors, text: &str) -> Result<Eff, Problem> {
    use mobo_runtime::config::Kind as _;
    let bad = || Problem::auth(StatusCode::BAD_REQUEST, "validation_failed", "ban_duration is `none`, or a time such as 24h");
    let duration = std::time::Duration::parse(text).ok_or_else(bad)?;
    let opened = doors.hub.opened().map_err(mobo_gate::BackendError::from)?;
    Ok(opened.time.now().plus(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
}

/// The project of a link.
pub(super) fn project_of(text: &str) -> Option<ProjectId> {
    ProjectId::new(u64::from_str_radix(text, 16).ok()?)
}
