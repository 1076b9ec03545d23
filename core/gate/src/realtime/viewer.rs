//! Who subscribes, and what of a change is for them.

use std::borrow::Cow;
use std::sync::Arc;

use axum::http::header::{AUTHORIZATION, HeaderName};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use mobo_core::live::LiveRow;
use mobo_core::query::{Column, Filter};
use mobo_core::rights::{Action, Granted};
use mobo_core::schema::Collection;
use uuid::Uuid;

use crate::access::{self, Guard};
use crate::gate::Gate;
use crate::problem::Problem;

/// A subscriber as it showed itself: what it may see is asked again for as long as it stays.
#[derive(Clone, Debug)]
pub(crate) struct Viewer {
    gate: Gate,
    parts: Arc<Parts>,
}

impl Viewer {
    /// The caller of a request.
    pub(crate) fn of(gate: Gate, parts: &Parts) -> Self {
        Self { gate, parts: Arc::new(parts.clone()) }
    }

    /// The same with a key that it showed elsewhere: a browser cannot put one into the head of a WebSocket's request.
    pub(crate) fn with_key(&self, key: &str) -> Self {
        self.with(HeaderName::from_static("apikey"), key)
    }

    /// The same with the token of its user.
    pub(crate) fn with_token(&self, token: &str) -> Self {
        self.with(AUTHORIZATION, &format!("Bearer {token}"))
    }

    fn with(&self, name: HeaderName, value: &str) -> Self {
        let mut parts = Parts::clone(&self.parts);
        // What cannot be a header is no key either, and refused as one.
        parts.headers.insert(name, HeaderValue::try_from(value).unwrap_or_else(|_| HeaderValue::from_static("?")));
        Self { gate: self.gate.clone(), parts: Arc::new(parts) }
    }

    /// The head of its request.
    #[cfg(feature = "graphql")]
    pub(crate) fn parts(&self) -> &Parts {
        &self.parts
    }

    pub(crate) const fn gate(&self) -> &Gate {
        &self.gate
    }

    /// This caller in front of the records, by what holds now.
    ///
    /// # Errors
    ///
    /// As `access` says.
    pub(crate) async fn guard(&self) -> Result<Guard, Problem> {
        Guard::of(&self.gate, &self.parts).await
    }

    /// This caller as one who talks to others here.
    ///
    /// # Errors
    ///
    /// As `access` says.
    pub(crate) async fn talker(&self) -> Result<Talker, Problem> {
        self.talker_of(&self.guard().await?)
    }

    /// The same for one whose rights are known already.
    ///
    /// # Errors
    ///
    /// For a caller of another project.
    pub(super) fn talker_of(&self, guard: &Guard) -> Result<Talker, Problem> {
        let who = guard.principal();
        if who.project != self.gate.backend().project() {
            return Err(
                Problem::unauthorized("this key or token is of another project").hint("use one of the project that this node serves")
            );
        }
        let id = who.user.clone().filter(|user| Uuid::try_parse(user).is_ok());
        let name = who.user.clone().or(who.key.clone()).unwrap_or_else(|| who.role.name().to_owned());
        Ok(Talker { name, id, is_user: who.user.is_some(), is_trusted: who.role.is_trusted() })
    }
}

/// Somebody who talks to others.
#[derive(Clone, Debug)]
pub(crate) struct Talker {
    name: String,
    /// The user's id, where it is one of ours: no other name holds it by chance.
    id: Option<String>,
    is_user: bool,
    is_trusted: bool,
}

impl Talker {
    /// What it is called.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// True for a server of the app.
    pub(super) const fn is_trusted(&self) -> bool {
        self.is_trusted
    }

    /// Whether it may talk without being in a room: users and trusted keys.
    ///
    /// # Errors
    ///
    /// For anybody else.
    pub(super) fn may_call_in(&self) -> Result<(), Problem> {
        if self.is_trusted || self.is_user { Ok(()) } else { Err(Problem::no_policy()) }
    }

    /// Whether it may come into a private room of that name: trusted keys into all, a user into those whose names hold his id. No policy says
    /// more of rooms.
    ///
    /// # Errors
    ///
    /// For anybody else.
    pub(super) fn may_enter(&self, private: &str) -> Result<(), Problem> {
        if self.is_trusted || self.id.as_ref().is_some_and(|id| holds(private, id)) {
            return Ok(());
        }
        let status = if self.is_user { StatusCode::FORBIDDEN } else { StatusCode::UNAUTHORIZED };
        Err(Problem::denied(status, "this private channel is not open to you")
            .hint("a user comes into private channels whose names hold his id, as in private-chat-<id>; a key of role service into all"))
    }
}

/// True for a name that holds this id as a whole.
fn holds(name: &str, id: &str) -> bool {
    let is_free = |letter: Option<char>| letter.is_none_or(|letter| !letter.is_alphanumeric());
    let parts = |at: usize| Some((name.get(..at)?, name.get(at + id.len()..)?));
    let mut places = name.match_indices(id).filter_map(|(at, _)| parts(at));
    places.any(|(before, after)| is_free(before.chars().next_back()) && is_free(after.chars().next()))
}

/// What of a collection somebody may see.
#[derive(Clone, Debug)]
pub(super) struct View(Granted);

impl View {
    /// What `guard` may see of a collection, looking at it through that filter.
    ///
    /// # Errors
    ///
    /// As the guard says, and for a filter that looks at a field which is none for this caller.
    pub(super) fn of(guard: &Guard, collection: &Collection, filter: &Filter) -> Result<Self, Problem> {
        let granted = guard.granted(collection, Action::Read)?;
        match granted.hidden(filter) {
            Some(hidden) => Err(access::no_column(collection, &hidden.name)),
            None => Ok(Self(granted)),
        }
    }

    /// The columns that there are for this viewer.
    pub(super) fn columns(&self, collection: &Collection) -> Vec<Column> {
        self.0.columns(collection)
    }

    /// A row, if it is for this viewer, with the fields that are.
    pub(super) fn shown<'c>(&self, row: &'c LiveRow) -> Option<Cow<'c, LiveRow>> {
        if !self.0.rows.lets_through(row) {
            return None;
        }
        let mut shown = Cow::Borrowed(row);
        if let Some(fields) = &self.0.fields {
            shown.to_mut().retain(|name, _| ["id", "at", "device"].contains(&name.as_str()) || fields.contains(name));
        }
        Some(shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_rooms_are_for_those_whose_id_their_names_hold() {
        const ID: &str = "0197a1b2-0000-7000-8000-000000000001";
        let talker = |id: Option<&str>, is_trusted| Talker { name: String::new(), id: id.map(str::to_owned), is_user: true, is_trusted };
        let (user, foreign, server) = (talker(Some(ID), false), talker(None, false), talker(None, true));
        for (name, want) in [
            (format!("private-{ID}"), true),
            (format!("realtime:chat:{ID}:0197a1b2-0000-7000-8000-000000000002"), true),
            (ID.to_owned(), true),
            (format!("private-x{ID}"), false),
            (format!("private-{ID}0"), false),
            ("private-0197a1b2-0000-7000-8000-000000000002".to_owned(), false),
            ("private-orders".to_owned(), false),
            (String::new(), false),
        ] {
            assert_eq!(user.may_enter(&name).is_ok(), want, "{name}");
            assert!(foreign.may_enter(&name).is_err() && server.may_enter(&name).is_ok(), "{name}");
        }
    }
}
