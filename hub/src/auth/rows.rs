//! Rows of the account tables as types.

use mobo_adapters::desk::Cell;
use mobo_core::ids::ProjectId;
use mobo_core::rights::Role;
use mobo_core::time::Eff;
use serde_json::{Map, Value as Json, json};

pub(super) fn int(project: ProjectId) -> Cell {
    Cell::Int(project.sql())
}

pub(super) fn text(text: impl Into<String>) -> Cell {
    Cell::Text(text.into())
}

pub(super) fn time(eff: Eff) -> Cell {
    Cell::Int(eff.0)
}

pub(crate) fn word(row: &[Cell], at: usize) -> Option<String> {
    match row.get(at)? {
        Cell::Text(text) => Some(text.clone()),
        Cell::Null | Cell::Int(_) | Cell::Real(_) | Cell::Bytes(_) => None,
    }
}

pub(crate) fn number(row: &[Cell], at: usize) -> Option<i64> {
    match row.get(at)? {
        Cell::Int(number) => Some(*number),
        Cell::Null | Cell::Text(_) | Cell::Real(_) | Cell::Bytes(_) => None,
    }
}

pub(crate) fn bytes(row: &[Cell], at: usize) -> Option<Vec<u8>> {
    match row.get(at)? {
        Cell::Bytes(bytes) => Some(bytes.clone()),
        Cell::Null | Cell::Text(_) | Cell::Real(_) | Cell::Int(_) => None,
    }
}

fn object(row: &[Cell], at: usize) -> Map<String, Json> {
    match word(row, at).and_then(|text| serde_json::from_str(&text).ok()) {
        Some(Json::Object(members)) => members,
        _ => Map::new(),
    }
}

/// The member of what administrators say of a user that is `false` while nobody knows whether his address is his: he has typed it himself.
pub(super) const EMAIL_VERIFIED: &str = "email_verified";

/// A user, or a service that signs in like one.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its id.
    pub id: String,
    /// Where it is written to, and what it signs in with.
    pub email: String,
    /// The password's hash; `None` when no password opens it.
    pub(super) password: Option<String>,
    /// Its role.
    pub role: Role,
    /// What administrators say of it.
    pub app: Map<String, Json>,
    /// What it says of itself.
    pub about: Map<String, Json>,
    /// When it was made.
    pub created: Eff,
    /// When it was last changed.
    pub changed: Eff,
    /// When it last signed in; `None` for never.
    pub signed_in: Option<Eff>,
    /// Until when it may not; `None` when it may.
    pub banned: Option<Eff>,
}

impl Account {
    /// The columns, in the order that [`read`](Self::read) wants.
    pub(super) fn read(row: &[Cell]) -> Option<Self> {
        Some(Self {
            id: word(row, 0)?,
            email: word(row, 1)?,
            password: word(row, 2),
            role: Role::from_name(&word(row, 3)?).ok()?,
            app: object(row, 4),
            about: object(row, 5),
            created: Eff(number(row, 6)?),
            changed: Eff(number(row, 7)?),
            signed_in: number(row, 8).map(Eff),
            banned: number(row, 9).map(Eff),
        })
    }

    /// As GoTrue shows a user.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let at = |eff: Eff| mobo_core::rfc3339::format(eff.0);
        let mut app = Map::from_iter([("provider".to_owned(), json!("email")), ("providers".to_owned(), json!(["email"]))]);
        app.extend(self.app.clone());
        json!({
            "id": self.id,
            "aud": super::sessions::AUDIENCE,
            "role": self.role.name(),
            "email": self.email,
            "email_confirmed_at": self.is_email_known().then(|| at(self.created)),
            "phone": "",
            "confirmed_at": self.is_email_known().then(|| at(self.created)),
            "last_sign_in_at": self.signed_in.map(at),
            "app_metadata": app,
            "user_metadata": self.about,
            "identities": [],
            "created_at": at(self.created),
            "updated_at": at(self.changed),
            "banned_until": self.banned.map(at),
            "is_anonymous": false,
        })
    }

    /// True where an administrator has set the address, or a link that was sent to it was used.
    pub(super) fn is_email_known(&self) -> bool {
        self.app.get(EMAIL_VERIFIED) != Some(&Json::Bool(false))
    }

    /// What conditions call `auth.*`. An address that its user has typed is none: he could type anybody's.
    pub(super) fn claims(&self) -> Map<String, Json> {
        let email = self.is_email_known().then(|| ("email".to_owned(), Json::from(self.email.as_str())));
        let mut claims: Map<String, Json> = email.into_iter().collect();
        claims.extend(self.app.iter().map(|(name, value)| (format!("app.{name}"), value.clone())));
        claims
    }
}
