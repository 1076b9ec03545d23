//! Sign-ins: a password becomes a short token that says who one is, and a refresh token that is exchanged for the next pair, once.
//!
//! A refresh token that comes a second time has been copied, and the whole sign-in ends; not so within [`limits::REFRESH_AGAIN`], while the token
//! that it was exchanged for was not used: the answer was lost, and the same one is given again.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use mobo_adapters::desk::{Cell, Outcome, Statement};
use mobo_core::ids::ProjectId;
use mobo_core::limits;
use mobo_core::rights::{Principal, Role};
use mobo_core::time::{Eff, Wall};
use mobo_core::trust::secret_hash;
use mobo_gate::auth::token::{Claims, Token, TokenError};
use mobo_gate::backend::BackendError;
use serde_json::{Map, Value as Json, json};

use super::book::Event;
use super::rows::{Account, bytes, int, number, text, time, word};
use super::{Accounts, AuthError, Missed};

/// Whom our tokens are for.
pub(super) const AUDIENCE: &str = "authenticated";

/// A sign-in that is good, and what its user may: looked up at most every [`limits::SESSION_CACHE_TTL`].
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Live {
    role: Role,
    claims: Map<String, Json>,
    /// The count of changes of rights when it was looked up: after another one it is looked up again.
    as_of: u64,
}

/// Which sign-ins a sign-out ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scope {
    /// All of the user's.
    Global,
    /// This one.
    Local,
    /// All but this one.
    Others,
}

impl Scope {
    /// The scope for GoTrue's word.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "global" => Some(Self::Global),
            "local" => Some(Self::Local),
            "others" => Some(Self::Others),
            _ => None,
        }
    }
}

/// A new secret: 256 bits.
pub(super) fn secret() -> Result<String, AuthError> {
    Ok(BASE64.encode(super::users::random()?))
}

fn hash(secret: &str) -> Cell {
    Cell::Bytes(secret_hash(secret.as_bytes()).to_vec())
}

impl Accounts {
    /// Signs in with a password: GoTrue's answer, with both tokens.
    ///
    /// # Errors
    ///
    /// [`AuthError::Credentials`], after as long as it takes to check a password, whoever it is.
    pub async fn sign_in(&self, project: ProjectId, email: &str, password: &str) -> Result<Json, AuthError> {
        let account = self.by_email(project, email).await?;
        let known = account.as_ref().and_then(|account| account.password.clone());
        let fits = self.passwords.verify(password, known.as_deref()).await?;
        let Some(account) = account.filter(|_| fits) else {
            self.note(project, Event::new("sign_in.refused", "stranger", email)).await?;
            return Err(AuthError::Credentials);
        };
        self.begin(project, account, ("password", known)).await
    }

    /// Signs in with the secret of a one-time link.
    ///
    /// # Errors
    ///
    /// [`AuthError::LinkOver`].
    pub async fn sign_in_by_link(&self, project: ProjectId, secret: &str) -> Result<Json, AuthError> {
        let account = self.use_setup(project, secret).await?;
        let account = self.user(project, &account).await.map_err(|_| AuthError::LinkOver)?;
        self.begin(project, account, ("otp", None)).await
    }

    /// Sets the first password of an account by the secret of a one-time link.
    ///
    /// # Errors
    ///
    /// [`AuthError::LinkOver`]; [`AuthError::WeakPassword`], which does not use up the link.
    pub async fn set_up(&self, project: ProjectId, secret: &str, password: &str) -> Result<Account, AuthError> {
        // Before the link is used up.
        self.passwords.hash(password).await?;
        let account = self.use_setup(project, secret).await?;
        let change = super::users::UserChange { password: Some(password.to_owned()), ..Default::default() };
        self.change_user(project, &account, change, (&format!("user:{account}"), None)).await
    }

    /// Begins a sign-in, if the account still has the password whose hash was looked at, and may.
    pub(super) async fn begin(
        &self,
        project: ProjectId,
        account: Account,
        (method, proven): (&str, Option<String>),
    ) -> Result<Json, AuthError> {
        const BEGIN: &str = "INSERT INTO mobo_sign_in(project, id, account, created_us) VALUES ($1, $2, $3, $4)";
        const SEEN: &str = "UPDATE mobo_account SET signed_in_us = $3 WHERE project = $1 AND id = $2 AND (banned_us IS NULL OR banned_us <= $3) \
                            AND COALESCE(password, '') = COALESCE(CAST($4 AS text), password, '')";
        const FIRST: &str = "INSERT INTO mobo_refresh(hash, project, sign_in, created_us) VALUES ($1, $2, $3, $4)";
        let now = self.now();
        if account.banned.is_some_and(|until| until > now) {
            self.note(project, Event::new("sign_in.refused", "stranger", &account.id).with(json!({ "banned": true }))).await?;
            return Err(AuthError::Banned);
        }
        let (sign_in, refresh) = (uuid::Uuid::now_v7().to_string(), secret()?);
        let statements = vec![
            Statement::must(SEEN, [int(project), text(&account.id), time(now), proven.map_or(Cell::Null, text)]),
            Statement::must(BEGIN, [int(project), text(&sign_in), text(&account.id), time(now)]),
            Statement::must(FIRST, [hash(&refresh), int(project), text(&sign_in), time(now)]),
        ];
        let event =
            Event::new("sign_in", format!("user:{}", account.id), &account.id).with(json!({ "method": method, "session": sign_in }));
        match self.book.commit(project, statements, (event, now)).await {
            Ok(_) => {}
            Err(Missed::Nothing) => return Err(self.not_begun(project, &account.id).await?),
            Err(missed @ Missed::Error(_)) => return Err(missed.or(AuthError::NoUser)),
        }
        let account = Account { signed_in: Some(now), ..account };
        self.answer(project, &account, (&sign_in, &refresh, method)).await
    }

    /// Why a sign-in did not begin: the account has changed while its password was looked at.
    async fn not_begun(&self, project: ProjectId, id: &str) -> Result<AuthError, AuthError> {
        let why = match self.user(project, id).await {
            Ok(account) if account.banned.is_some_and(|until| until > self.now()) => AuthError::Banned,
            Ok(_) | Err(AuthError::NoUser) => AuthError::Credentials,
            Err(error) => return Err(error),
        };
        self.note(project, Event::new("sign_in.refused", "stranger", id)).await?;
        Ok(why)
    }

    /// Exchanges a refresh token.
    ///
    /// # Errors
    ///
    /// [`AuthError::RefreshUnknown`]; [`AuthError::RefreshUsed`], after which the sign-in has ended.
    pub async fn refresh(&self, project: ProjectId, old: &str) -> Result<Json, AuthError> {
        const TAKE: &str = "UPDATE mobo_refresh SET next = $3 WHERE hash = $1 AND project = $2 AND next IS NULL AND sign_in IN \
                            (SELECT id FROM mobo_sign_in WHERE project = $2 AND ended_us IS NULL) RETURNING sign_in";
        const NEXT: &str = "INSERT INTO mobo_refresh(hash, project, sign_in, created_us) \
                            SELECT $3, project, sign_in, $4 FROM mobo_refresh WHERE hash = $1 AND project = $2 AND next = $3";
        let (next, now) = (self.signers.next_refresh(old), self.now());
        let taken = vec![
            Statement::must(TAKE, [hash(old), int(project), hash(&next)]),
            Statement::must(NEXT, [hash(old), int(project), hash(&next), time(now)]),
        ];
        let sign_in = match self.desk.run(taken).await? {
            Outcome::Done(done) => done.first().and_then(|done| word(done.rows.first()?, 0)),
            Outcome::Missed(_) => match self.given_lately(project, old, &next).await? {
                Some(sign_in) => Some(sign_in),
                None => return Err(self.not_taken(project, old).await?),
            },
        };
        let sign_in = sign_in.ok_or(AuthError::RefreshUnknown)?;
        const WHOSE: &str = "SELECT account FROM mobo_sign_in WHERE project = $1 AND id = $2";
        let rows = self.read(WHOSE, [int(project), text(&sign_in)]).await?;
        let account = self.user(project, &rows.first().and_then(|row| word(row, 0)).unwrap_or_default()).await?;
        if account.banned.is_some_and(|until| until > now) {
            return Err(AuthError::Banned);
        }
        self.answer(project, &account, (&sign_in, &next, "token_refresh")).await
    }

    /// The sign-in of a refresh token that was exchanged for `next` a moment ago, if `next` was not used since.
    async fn given_lately(&self, project: ProjectId, old: &str, next: &str) -> Result<Option<String>, AuthError> {
        const LOOK: &str = "SELECT s.id FROM mobo_refresh AS r JOIN mobo_refresh AS n ON n.hash = r.next AND n.project = r.project \
                            JOIN mobo_sign_in AS s ON s.project = r.project AND s.id = r.sign_in \
                            WHERE r.hash = $1 AND r.project = $2 AND r.next = $3 AND n.next IS NULL AND n.created_us > $4 AND s.ended_us IS NULL";
        let since = Eff(self.now().0.saturating_sub(i64::try_from(limits::REFRESH_AGAIN.as_micros()).unwrap_or(i64::MAX)));
        let rows = self.read(LOOK, [hash(old), int(project), hash(next), time(since)]).await?;
        Ok(rows.first().and_then(|row| word(row, 0)))
    }

    /// Why a refresh token was not taken; one that was used before ends its sign-in.
    async fn not_taken(&self, project: ProjectId, old: &str) -> Result<AuthError, AuthError> {
        const LOOK: &str = "SELECT sign_in, next FROM mobo_refresh WHERE hash = $1 AND project = $2";
        const END: &str = "UPDATE mobo_sign_in SET ended_us = $3 WHERE project = $1 AND id = $2 AND ended_us IS NULL";
        let rows = self.read(LOOK, [hash(old), int(project)]).await?;
        let found = rows.first().and_then(|row| Some((word(row, 0)?, bytes(row, 1))));
        let Some((sign_in, Some(_))) = found else { return Ok(AuthError::RefreshUnknown) };
        let end = Statement::must(END, [int(project), text(&sign_in), time(self.now())]);
        let event = Event::new("sign_in.token_reused", "stranger", &sign_in);
        match self.change(project, vec![end], event).await {
            Ok(_) => Ok(AuthError::RefreshUsed),
            Err(Missed::Nothing) => Ok(AuthError::RefreshUsed),
            Err(missed @ Missed::Error(_)) => Err(missed.or(AuthError::RefreshUsed)),
        }
    }

    /// Ends sign-ins.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn sign_out(&self, who: &Principal, scope: Scope) -> Result<(), AuthError> {
        const ALL: &str = "UPDATE mobo_sign_in SET ended_us = $3 WHERE project = $1 AND account = $2 AND ended_us IS NULL";
        const THIS: &str = "UPDATE mobo_sign_in SET ended_us = $3 WHERE project = $1 AND account = $2 AND id = $4 AND ended_us IS NULL";
        const OTHERS: &str = "UPDATE mobo_sign_in SET ended_us = $3 WHERE project = $1 AND account = $2 AND id <> $4 AND ended_us IS NULL";
        let (user, session) = (who.user.clone().unwrap_or_default(), who.session.clone().unwrap_or_default());
        let cells = [int(who.project), text(&user), time(self.now())];
        let with_session = || cells.iter().cloned().chain([text(&session)]);
        let statement = match scope {
            Scope::Global => Statement::new(ALL, cells.clone()),
            Scope::Local => Statement::new(THIS, with_session()),
            Scope::Others => Statement::new(OTHERS, with_session()),
        };
        let event = Event::new("sign_out", format!("user:{user}"), &user).with(json!({ "scope": format!("{scope:?}").to_lowercase() }));
        self.change(who.project, vec![statement], event).await.map(drop).map_err(|missed| missed.or(AuthError::NoUser))
    }

    /// GoTrue's answer to a sign-in.
    async fn answer(
        &self,
        project: ProjectId,
        account: &Account,
        (sign_in, refresh, method): (&str, &str, &str),
    ) -> Result<Json, AuthError> {
        let now = self.now().0.div_euclid(1_000_000);
        let seconds = limits::TOKEN_TTL.as_secs().cast_signed();
        let user = account.to_json();
        let claims = json!({
            "iss": self.issuer, "sub": account.id, "aud": AUDIENCE, "exp": now + seconds, "iat": now, "role": account.role.name(),
            "session_id": sign_in, "aal": "aal1", "amr": [{ "method": method, "timestamp": now }], "email": account.email, "phone": "",
            "app_metadata": user.get("app_metadata"), "user_metadata": user.get("user_metadata"), "is_anonymous": false, "project": project.to_string(),
        });
        let Json::Object(claims) = claims else { return Err(AuthError::Broken("claims are an object".to_owned())) };
        let token = self.signed(project, &claims).await?;
        Ok(json!({
            "access_token": token, "token_type": "bearer", "expires_in": seconds, "expires_at": now + seconds, "refresh_token": refresh, "user": user,
        }))
    }

    /// Who shows a token.
    ///
    /// # Errors
    ///
    /// [`BackendError::Token`] for one that is not good; the store's.
    pub async fn principal(&self, token: &Token) -> Result<Principal, BackendError> {
        let now = Wall(self.now().0);
        if token.issuer() != self.issuer {
            return self.foreign_principal(token, now).await;
        }
        let claims = token.verify(&self.keys(), Some(AUDIENCE), now)?;
        let (project, user, session) = named(&claims).ok_or(TokenError::Claims("sub, session_id or project is missing"))?;
        let as_of = *self.changes.borrow();
        let cached = self.live().get(self.clock.now(), &(project, session.clone())).filter(|live| live.as_of == as_of).cloned();
        let live = match cached {
            Some(live) => live,
            None => {
                let live = self.look_up((project, &user, &session), as_of).await?;
                self.live().put(self.clock.now(), (project, session.clone()), live.clone());
                live
            }
        };
        Ok(Principal {
            project,
            role: live.role,
            user: Some(user),
            key: None,
            session: Some(session),
            claims: live.claims,
            scopes: Vec::new(),
        })
    }

    async fn look_up(&self, (project, user, session): (ProjectId, &str, &str), as_of: u64) -> Result<Live, BackendError> {
        const LOOK: &str = "SELECT ended_us FROM mobo_sign_in WHERE project = $1 AND id = $2 AND account = $3";
        let rows = self.read(LOOK, [int(project), text(session), text(user)]).await?;
        let open = rows.first().is_some_and(|row| number(row, 0).is_none());
        let account = match self.user(project, user).await {
            Ok(account) if open && account.banned.is_none_or(|until| until <= self.now()) => account,
            Ok(_) | Err(AuthError::NoUser) => return Err(TokenError::Ended.into()),
            Err(error) => return Err(error.into()),
        };
        Ok(Live { claims: account.claims(), role: account.role, as_of })
    }

    /// Removes what is long over: called now and then.
    pub(super) async fn sweep(&self) -> Result<(), AuthError> {
        let before = Eff(self.now().0.saturating_sub(i64::try_from(limits::SIGN_IN_KEEP.as_micros()).unwrap_or(i64::MAX)));
        let old = |sql| Statement::new(sql, [time(before)]);
        self.desk
            .run(vec![
                old("DELETE FROM mobo_refresh WHERE created_us < $1"),
                old("DELETE FROM mobo_setup WHERE expires_us < $1"),
                old("DELETE FROM mobo_sign_in WHERE created_us < $1 AND NOT EXISTS (SELECT 1 FROM mobo_refresh AS r WHERE r.sign_in = mobo_sign_in.id)"),
            ])
            .await?;
        Ok(())
    }
}

fn named(claims: &Claims) -> Option<(ProjectId, String, String)> {
    let word = |name: &str| claims.get(name).and_then(Json::as_str).filter(|word| !word.is_empty()).map(str::to_owned);
    let project = ProjectId::new(u64::from_str_radix(&word("project")?, 16).ok()?)?;
    Some((project, word("sub")?, word("session_id")?))
}
