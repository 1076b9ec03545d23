//! Others whose tokens are taken: OpenID providers, by the keys that they publish.
//!
//! Keys are fetched ahead of need and kept; a token with a key that is not among them has them fetched again, but not more often than every
//! [`limits::JWKS_FETCH_EVERY`], so that no stranger makes this hub ask. While an issuer cannot be reached, what is known of it holds.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use mobo_adapters::desk::Statement;
use mobo_core::ids::ProjectId;
use mobo_core::limits;
use mobo_core::rights::{Principal, Role};
use mobo_core::time::Wall;
use mobo_gate::auth::token::{Claims, Token, TokenError, VerifyKey};
use mobo_gate::backend::BackendError;
use serde_json::{Map, Value as Json, json};
use tokio::time::{Instant, timeout};

use super::book::Event;
use super::rows::{int, text, word};
use super::{Accounts, AuthError};

/// Somebody whose tokens are taken.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// What its tokens say in `iss`.
    pub issuer: String,
    /// Where its keys are.
    pub jwks_url: String,
    /// Whom its tokens must be for.
    pub audience: String,
    /// What its users are here.
    pub role: Role,
    pub(super) keys: Arc<Vec<VerifyKey>>,
    /// When its keys were last asked for; `None` for never.
    pub(super) asked: Option<Instant>,
    pub(super) fetched: bool,
    /// Held while they are fetched: whoever wants them, too, waits for what comes.
    pub(super) fetching: Arc<tokio::sync::Mutex<()>>,
}

/// The issuers as they are in the store, with the keys that are known of them.
pub(super) fn keeping(fresh: Vec<Issuer>, known: &[Issuer]) -> Vec<Issuer> {
    let keep = |issuer: Issuer| {
        let same = known.iter().find(|other| other.issuer == issuer.issuer && other.jwks_url == issuer.jwks_url);
        same.map_or_else(
            || issuer.clone(),
            |same| {
                let (keys, fetching) = (Arc::clone(&same.keys), Arc::clone(&same.fetching));
                Issuer { keys, asked: same.asked, fetched: same.fetched, fetching, ..issuer.clone() }
            },
        )
    };
    fresh.into_iter().map(keep).collect()
}

impl Accounts {
    pub(super) async fn load_issuers(&self, project: ProjectId) -> Result<Vec<Issuer>, AuthError> {
        let rows = self
            .read("SELECT issuer, jwks_url, audience, role FROM mobo_issuer WHERE project = $1 ORDER BY issuer", [int(project)])
            .await?;
        let read = |row: &Vec<_>| {
            let role = Role::from_name(&word(row, 3)?).ok()?;
            let (issuer, jwks_url, audience) = (word(row, 0)?, word(row, 1)?, word(row, 2)?);
            Some(Issuer { issuer, jwks_url, audience, role, keys: Arc::default(), asked: None, fetched: false, fetching: Arc::default() })
        };
        Ok(rows.iter().filter_map(read).collect())
    }

    /// Takes the tokens of an issuer from now on.
    ///
    /// # Errors
    ///
    /// [`AuthError::Bad`] for an address that is none.
    pub async fn add_issuer(
        &self,
        project: ProjectId,
        (issuer, jwks_url, audience, role): (&str, &str, &str, &str),
        actor: &str,
    ) -> Result<(), AuthError> {
        const ADD: &str = "INSERT INTO mobo_issuer(project, issuer, jwks_url, audience, role) VALUES ($1, $2, $3, $4, $5) \
                           ON CONFLICT (project, issuer) DO UPDATE SET jwks_url = excluded.jwks_url, audience = excluded.audience, role = excluded.role";
        let role = self.known_role(project, role).await?;
        if role.is_trusted() {
            return Err(AuthError::Bad("users of others are never admin or service here: choose another role".to_owned()));
        }
        if issuer.is_empty() || issuer == self.issuer() || audience.is_empty() {
            return Err(AuthError::Bad("an issuer has the name that its tokens say, and an audience that they are for".to_owned()));
        }
        check_url(jwks_url)?;
        let cells = [int(project), text(issuer), text(jwks_url), text(audience), text(role.name())];
        let event = Event::new("issuer.added", actor, issuer).with(json!({ "jwks_url": jwks_url, "role": role.name() }));
        self.change(project, vec![Statement::must(ADD, cells)], event).await.map_err(|missed| missed.or(AuthError::Busy))?;
        self.refresh_issuers().await;
        Ok(())
    }

    /// Takes them no more.
    ///
    /// # Errors
    ///
    /// [`AuthError::NoSuch`].
    pub async fn remove_issuer(&self, project: ProjectId, issuer: &str, actor: &str) -> Result<(), AuthError> {
        let remove = Statement::must("DELETE FROM mobo_issuer WHERE project = $1 AND issuer = $2", [int(project), text(issuer)]);
        let missing = AuthError::NoSuch { what: "issuer", name: issuer.to_owned() };
        self.change(project, vec![remove], Event::new("issuer.removed", actor, issuer)).await.map(drop).map_err(|missed| missed.or(missing))
    }

    /// The issuers, and how many keys of each are known.
    #[must_use]
    pub fn list_issuers(&self) -> Vec<Json> {
        let show = |issuer: &Issuer| {
            json!({
                "issuer": issuer.issuer, "jwks_url": issuer.jwks_url, "audience": issuer.audience, "role": issuer.role.name(), "keys": issuer.keys.len(),
            })
        };
        self.issuers().iter().map(show).collect()
    }

    /// Fetches the keys of issuers of which none are known, or whose keys are old.
    pub(super) async fn refresh_issuers(&self) {
        for issuer in self.issuers().iter() {
            self.fetch(issuer, if issuer.fetched { limits::JWKS_KEEP } else { limits::JWKS_FETCH_EVERY }).await;
        }
    }

    /// Fetches the keys of one issuer and keeps them, unless that was tried less than `wait` ago; what was known stays when it fails.
    async fn fetch(&self, issuer: &Issuer, wait: Duration) {
        let is_same = |other: &Issuer| other.issuer == issuer.issuer && other.jwks_url == issuer.jwks_url;
        let _one_at_a_time = issuer.fetching.lock().await;
        let asked = self.issuers().iter().find(|other| is_same(other)).and_then(|issuer| issuer.asked);
        if asked.is_some_and(|asked| asked.elapsed() < wait) {
            return;
        }
        let fetched = timeout(limits::JWKS_TIMEOUT, fetch(&issuer.jwks_url)).await.unwrap_or_else(|_| Err("it does not answer".to_owned()));
        if let Err(why) = &fetched {
            tracing::warn!(issuer = issuer.issuer, why, "the keys of an issuer cannot be fetched");
        }
        let mut known = self.known.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut issuers = Vec::clone(&known.issuers);
        if let Some(kept) = issuers.iter_mut().find(|kept| is_same(kept)) {
            kept.asked = Some(Instant::now());
            if let Ok(keys) = fetched {
                (kept.keys, kept.fetched) = (Arc::new(keys), true);
            }
        }
        known.issuers = Arc::new(issuers);
    }

    /// Who shows a token of somebody else.
    pub(super) async fn foreign_principal(&self, token: &Token, now: Wall) -> Result<Principal, BackendError> {
        let find = || self.issuers().iter().find(|issuer| issuer.issuer == token.issuer()).cloned();
        let issuer = find().ok_or(TokenError::UnknownKey)?;
        let verify = |issuer: &Issuer| token.verify(&issuer.keys, Some(&issuer.audience), now);
        let claims = match verify(&issuer) {
            Err(TokenError::UnknownKey) => {
                self.fetch(&issuer, limits::JWKS_FETCH_EVERY).await;
                verify(&find().ok_or(TokenError::UnknownKey)?)?
            }
            verdict => verdict?,
        };
        let user = claims.get("sub").and_then(Json::as_str).filter(|sub| !sub.is_empty()).ok_or(TokenError::Claims("sub is missing"))?;
        Ok(Principal {
            project: self.served,
            role: issuer.role,
            // Of two issuers each may have a user of the same name.
            user: Some(format!("{}#{user}", issuer.issuer)),
            key: None,
            session: None,
            claims: trusted(&claims),
            scopes: Vec::new(),
        })
    }
}

/// What conditions may ask of a foreign token: its e-mail address where the issuer has verified it.
fn trusted(claims: &Claims) -> Map<String, Json> {
    let verified = claims.get("email_verified").and_then(Json::as_bool) == Some(true);
    claims.get("email").filter(|email| verified && email.is_string()).map(|email| ("email".to_owned(), email.clone())).into_iter().collect()
}

fn check_url(url: &str) -> Result<hyper::Uri, AuthError> {
    let bad = || AuthError::Bad("the keys of an issuer are at an https:// address; http:// only on this machine, for tests".to_owned());
    let uri: hyper::Uri = url.parse().map_err(|_| bad())?;
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    let here = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    match uri.scheme_str() {
        Some("https") if !host.is_empty() => Ok(uri),
        Some("http") if here => Ok(uri),
        _ => Err(bad()),
    }
}

async fn fetch(url: &str) -> Result<Vec<VerifyKey>, String> {
    let uri = check_url(url).map_err(|error| error.to_string())?;
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    let tls = hyper_rustls::HttpsConnectorBuilder::new()
        .with_provider_and_native_roots(rustls::crypto::ring::default_provider())
        .map_err(|error| error.to_string())?;
    let client =
        Client::builder(TokioExecutor::new()).build::<_, Empty<bytes::Bytes>>(tls.https_or_http().enable_http1().wrap_connector(http));
    let answer = client.get(uri).await.map_err(|error| error.to_string())?;
    if answer.status() != hyper::StatusCode::OK {
        return Err(format!("it answers {}", answer.status()));
    }
    let body = Limited::new(answer.into_body(), limits::JWKS_BYTES_MAX).collect().await.map_err(|error| error.to_string())?.to_bytes();
    let jwks: Json = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    let keys = VerifyKey::of_jwks(&jwks);
    if keys.is_empty() { Err("it gives no key of a kind that is known here".to_owned()) } else { Ok(keys) }
}
