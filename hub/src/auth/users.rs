//! Users: made by administrators, or by themselves where that is allowed; and one-time links that open an account without a password.

use mobo_adapters::desk::{Cell, Statement};
use mobo_core::ids::ProjectId;
use mobo_core::limits;
use mobo_core::rights::Role;
use mobo_core::time::Eff;
use mobo_core::trust::secret_hash;
use mobo_runtime::entropy;
use serde_json::{Map, Value as Json, json};

use super::book::Event;
pub use super::rows::Account;
use super::rows::{EMAIL_VERIFIED, int, text, time, word};
use super::{Accounts, AuthError, Missed};

/// An account to be made.
#[derive(Clone, Debug, Default)]
pub struct NewUser {
    /// Where it is written to.
    pub email: String,
    /// Its password; `None` for one that a link opens first.
    pub password: Option<String>,
    /// Its role; `None` for `authenticated`.
    pub role: Option<String>,
    /// What administrators say of it.
    pub app: Map<String, Json>,
    /// What it says of itself.
    pub about: Map<String, Json>,
}

/// What is changed of an account; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct UserChange {
    /// Another address.
    pub email: Option<String>,
    /// True: the address is the user's; an administrator says so, or a link that was sent to it was used.
    pub email_known: bool,
    /// Another password: every other sign-in ends.
    pub password: Option<String>,
    /// Another role.
    pub role: Option<String>,
    /// Members that are set, or taken out where they are null.
    pub app: Option<Map<String, Json>>,
    /// Likewise.
    pub about: Option<Map<String, Json>>,
    /// Until when it may not sign in; `Some(None)` lets it again.
    pub banned: Option<Option<Eff>>,
}

const COLUMNS_BY_ID: &str = "SELECT id, email, password, role, app, about, created_us, changed_us, signed_in_us, banned_us FROM mobo_account \
                             WHERE project = $1 AND id = $2";
const COLUMNS_BY_EMAIL: &str = "SELECT id, email, password, role, app, about, created_us, changed_us, signed_in_us, banned_us \
                                FROM mobo_account WHERE project = $1 AND email = $2";
const COLUMNS_OF_ALL: &str = "SELECT id, email, password, role, app, about, created_us, changed_us, signed_in_us, banned_us FROM mobo_account \
                              WHERE project = $1 ORDER BY created_us, id LIMIT $2 OFFSET $3";

impl Accounts {
    /// Makes an account.
    ///
    /// # Errors
    ///
    /// [`AuthError::EmailExists`], and what is wrong with its parts.
    pub async fn create_user(&self, project: ProjectId, new: NewUser, actor: &str) -> Result<Account, AuthError> {
        const ADD: &str = "INSERT INTO mobo_account(project, id, email, password, role, app, about, created_us, changed_us) \
                           VALUES ($1, $2, $3, CAST($4 AS text), $5, $6, $7, $8, $8) ON CONFLICT DO NOTHING";
        let email = check_email(&new.email)?;
        let role = self.known_role(project, new.role.as_deref().unwrap_or("authenticated")).await?;
        check_size(&new.app)?;
        check_size(&new.about)?;
        let password = match &new.password {
            Some(password) => text(self.passwords.hash(password).await?),
            None => Cell::Null,
        };
        let id = uuid::Uuid::now_v7().to_string();
        let words = [text(&id), text(email), password, text(role.name()), object(&new.app), object(&new.about)];
        let statement = Statement::must(ADD, [int(project)].into_iter().chain(words).chain([time(self.now())]));
        let event = Event::new("user.created", actor, &id).with(json!({ "role": role.name() }));
        self.change(project, vec![statement], event).await.map_err(|missed| missed.or(AuthError::EmailExists))?;
        self.user(project, &id).await
    }

    /// An account.
    ///
    /// # Errors
    ///
    /// [`AuthError::NoUser`].
    pub async fn user(&self, project: ProjectId, id: &str) -> Result<Account, AuthError> {
        let rows = self.read(COLUMNS_BY_ID, [int(project), text(id)]).await?;
        rows.first().and_then(|row| Account::read(row)).ok_or(AuthError::NoUser)
    }

    /// The account of an address, or of an id.
    ///
    /// # Errors
    ///
    /// [`AuthError::NoUser`].
    pub async fn find_user(&self, project: ProjectId, email_or_id: &str) -> Result<Account, AuthError> {
        if let Some(account) = self.by_email(project, email_or_id).await? {
            return Ok(account);
        }
        self.user(project, email_or_id).await
    }

    pub(super) async fn by_email(&self, project: ProjectId, email: &str) -> Result<Option<Account>, AuthError> {
        let rows = self.read(COLUMNS_BY_EMAIL, [int(project), text(email.trim().to_lowercase())]).await?;
        Ok(rows.first().and_then(|row| Account::read(row)))
    }

    /// Accounts, the oldest first.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn users(&self, project: ProjectId, limit: u32, offset: u32) -> Result<Vec<Account>, AuthError> {
        let rows = self.read(COLUMNS_OF_ALL, [int(project), Cell::Int(limit.into()), Cell::Int(offset.into())]).await?;
        Ok(rows.iter().filter_map(|row| Account::read(row)).collect())
    }

    /// Changes an account. `keep` is the sign-in that goes on when the password changes. What others change meanwhile stays.
    ///
    /// # Errors
    ///
    /// [`AuthError::NoUser`], [`AuthError::EmailExists`], [`AuthError::Busy`] when it is changed all the time, and what is wrong with its parts.
    pub async fn change_user(
        &self,
        project: ProjectId,
        id: &str,
        change: UserChange,
        who: (&str, Option<&str>),
    ) -> Result<Account, AuthError> {
        // It takes long, so that others change the account meanwhile.
        let hash = match &change.password {
            Some(password) => Some(self.passwords.hash(password).await?),
            None => None,
        };
        for _ in 0..limits::ACCOUNT_ATTEMPTS {
            let before = self.user(project, id).await?;
            if self.change_as_it_is(project, before, (&change, hash.as_ref()), who).await? {
                return self.user(project, id).await;
            }
        }
        Err(AuthError::Busy)
    }

    /// Changes an account unless it is another than `before`; false where it is.
    async fn change_as_it_is(
        &self,
        project: ProjectId,
        before: Account,
        (change, hash): (&UserChange, Option<&String>),
        (actor, keep): (&str, Option<&str>),
    ) -> Result<bool, AuthError> {
        const SET: &str = "UPDATE mobo_account SET email = $3, password = CAST($4 AS text), role = $5, app = $6, about = $7, \
                           banned_us = CAST($8 AS bigint), changed_us = $9 WHERE project = $1 AND id = $2 AND changed_us = $10 \
                           AND NOT EXISTS (SELECT 1 FROM mobo_account AS other WHERE other.project = $1 AND other.email = $3 AND other.id <> $2)";
        const END: &str = "UPDATE mobo_sign_in SET ended_us = $4 WHERE project = $1 AND account = $2 AND ended_us IS NULL AND id <> $3";
        let email = change.email.as_deref().map_or(Ok(before.email.clone()), check_email)?;
        let role = match &change.role {
            Some(role) => self.known_role(project, role).await?,
            None => before.role.clone(),
        };
        let (mut app, about) = (merged(before.app, change.app.clone())?, merged(before.about, change.about.clone())?);
        if change.email_known {
            app.remove(EMAIL_VERIFIED);
        }
        // Later than before, so that whoever has read it then sees that it is another.
        let changed = Eff(self.now().0.max(before.changed.0.saturating_add(1)));
        let cells = [
            int(project),
            text(&before.id),
            text(&email),
            hash.cloned().or(before.password).map_or(Cell::Null, text),
            text(role.name()),
            object(&app),
            object(&about),
            change.banned.unwrap_or(before.banned).map_or(Cell::Null, time),
            time(changed),
            time(before.changed),
        ];
        let mut statements = vec![Statement::must(SET, cells)];
        if change.password.is_some() || matches!(change.banned, Some(Some(_))) {
            statements.push(Statement::new(END, [int(project), text(&before.id), text(keep.unwrap_or_default()), time(self.now())]));
        }
        let what = json!({
            "email": change.email.is_some(), "password": change.password.is_some(), "role": role.name(), "banned": matches!(change.banned, Some(Some(_))),
        });
        let event = Event::new("user.changed", actor, &before.id).with(what);
        match self.change(project, statements, event).await {
            Ok(_) => Ok(true),
            Err(Missed::Nothing) => match self.by_email(project, &email).await? {
                Some(other) if other.id != before.id => Err(AuthError::EmailExists),
                Some(_) | None => Ok(false),
            },
            Err(missed @ Missed::Error(_)) => Err(missed.or(AuthError::Busy)),
        }
    }

    /// Removes an account with its sign-ins and links.
    ///
    /// # Errors
    ///
    /// [`AuthError::NoUser`].
    pub async fn delete_user(&self, project: ProjectId, id: &str, actor: &str) -> Result<(), AuthError> {
        let step = |sql| Statement::new(sql, [int(project), text(id)]);
        let statements = vec![
            Statement::must("DELETE FROM mobo_account WHERE project = $1 AND id = $2", [int(project), text(id)]),
            step(
                "DELETE FROM mobo_refresh WHERE project = $1 AND sign_in IN (SELECT id FROM mobo_sign_in WHERE project = $1 AND account = $2)",
            ),
            step("DELETE FROM mobo_sign_in WHERE project = $1 AND account = $2"),
            step("DELETE FROM mobo_setup WHERE project = $1 AND account = $2"),
        ];
        let event = Event::new("user.deleted", actor, id);
        self.change(project, statements, event).await.map(drop).map_err(|missed| missed.or(AuthError::NoUser))
    }

    /// A secret that opens an account once, to set a password: what is behind a setup link. Those before it are over.
    ///
    /// # Errors
    ///
    /// [`AuthError::NoUser`].
    pub async fn setup_secret(&self, project: ProjectId, email_or_id: &str, actor: &str) -> Result<(Account, String), AuthError> {
        const ADD: &str = "INSERT INTO mobo_setup(hash, project, account, expires_us) VALUES ($1, $2, $3, $4)";
        let account = self.find_user(project, email_or_id).await?;
        let secret = super::sessions::secret()?;
        let until = self.now().plus(u64::try_from(limits::SETUP_TTL.as_micros()).unwrap_or(u64::MAX));
        let statements = vec![
            Statement::new("DELETE FROM mobo_setup WHERE project = $1 AND account = $2", [int(project), text(&account.id)]),
            Statement::must(ADD, [Cell::Bytes(secret_hash(secret.as_bytes()).to_vec()), int(project), text(&account.id), time(until)]),
        ];
        let event = Event::new("setup.created", actor, &account.id);
        self.change(project, statements, event).await.map_err(|missed| missed.or(AuthError::NoUser))?;
        Ok((account, secret))
    }

    /// Uses up such a secret; gives whose it was. The link was sent to the account's address, which is known to be the user's from now on.
    ///
    /// # Errors
    ///
    /// [`AuthError::LinkOver`].
    pub(super) async fn use_setup(&self, project: ProjectId, secret: &str) -> Result<String, AuthError> {
        const USE: &str = "UPDATE mobo_setup SET used_us = $3 WHERE hash = $1 AND project = $2 AND used_us IS NULL AND expires_us > $3 \
                           RETURNING account";
        let hash = Cell::Bytes(secret_hash(secret.as_bytes()).to_vec());
        let statement = Statement::must(USE, [hash, int(project), time(self.now())]);
        let event = Event::new("setup.used", "stranger", "");
        let done = match self.change(project, vec![statement], event).await {
            Ok(done) => done,
            Err(Missed::Nothing) => {
                self.note(project, Event::new("setup.refused", "stranger", "")).await?;
                return Err(AuthError::LinkOver);
            }
            Err(missed @ Missed::Error(_)) => return Err(missed.or(AuthError::LinkOver)),
        };
        let account = done.first().and_then(|done| word(done.rows.first()?, 0)).ok_or(AuthError::LinkOver)?;
        if !self.user(project, &account).await?.is_email_known() {
            let known = UserChange { email_known: true, ..UserChange::default() };
            self.change_user(project, &account, known, (&format!("user:{account}"), None)).await?;
        }
        Ok(account)
    }

    /// The role of that name, which is there.
    ///
    /// # Errors
    ///
    /// [`AuthError::NoSuch`], and [`AuthError::Bad`] for what cannot be a name.
    pub async fn known_role(&self, project: ProjectId, name: &str) -> Result<Role, AuthError> {
        let role = Role::from_name(name).map_err(|bad| AuthError::Bad(bad.to_string()))?;
        let there = role.is_fixed()
            || !self.read("SELECT name FROM mobo_role WHERE project = $1 AND name = $2", [int(project), text(name)]).await?.is_empty();
        if there { Ok(role) } else { Err(AuthError::NoSuch { what: "role", name: name.to_owned() }) }
    }
}

fn check_email(email: &str) -> Result<String, AuthError> {
    let email = email.trim().to_lowercase();
    let good = email.split_once('@').is_some_and(|(name, host)| !name.is_empty() && !host.is_empty() && !host.contains('@'))
        && email.len() <= limits::NAME_BYTES_MAX
        && !email.contains(|letter: char| letter.is_control() || letter.is_whitespace());
    if good { Ok(email) } else { Err(AuthError::Bad("Unable to validate email address: invalid format".to_owned())) }
}

fn check_size(members: &Map<String, Json>) -> Result<(), AuthError> {
    if Json::Object(members.clone()).to_string().len() <= limits::METADATA_BYTES_MAX {
        return Ok(());
    }
    Err(AuthError::Bad(format!("metadata of a user has at most {} bytes", limits::METADATA_BYTES_MAX)))
}

fn merged(mut before: Map<String, Json>, change: Option<Map<String, Json>>) -> Result<Map<String, Json>, AuthError> {
    for (name, value) in change.into_iter().flatten() {
        if value.is_null() {
            before.remove(&name)
        } else {
            before.insert(name, value)
        };
    }
    check_size(&before)?;
    Ok(before)
}

fn object(members: &Map<String, Json>) -> Cell {
    text(Json::Object(members.clone()).to_string())
}

/// Randomness for one secret.
pub(super) fn random() -> Result<[u8; 32], AuthError> {
    Ok(entropy::bytes()?)
}
