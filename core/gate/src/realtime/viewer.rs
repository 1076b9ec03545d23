//! Who subscribes, and what of a change is for them.

use std::sync::Arc;

use axum::http::HeaderValue;
use axum::http::header::{AUTHORIZATION, HeaderName};
use axum::http::request::Parts;
use mobo_core::live::LiveRow;
use mobo_core::query::{Column, Filter};
use mobo_core::rights::{Action, Granted};
use mobo_core::schema::Collection;

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
    pub(super) fn with_key(&self, key: &str) -> Self {
        self.with(HeaderName::from_static("apikey"), key)
    }

    /// The same with the token of its user.
    pub(super) fn with_token(&self, token: &str) -> Self {
        self.with(AUTHORIZATION, &format!("Bearer {token}"))
    }

    fn with(&self, name: HeaderName, value: &str) -> Self {
        let mut parts = Parts::clone(&self.parts);
        // What cannot be a header is no key either, and refused as one.
        parts.headers.insert(name, HeaderValue::try_from(value).unwrap_or_else(|_| HeaderValue::from_static("?")));
        Self { gate: self.gate.clone(), parts: Arc::new(parts) }
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

    /// Whether it may talk to others here; in rooms that are private only users and trusted keys.
    ///
    /// # Errors
    ///
    /// As `access` says.
    pub(super) async fn may_talk(&self, private: bool) -> Result<(), Problem> {
        let guard = self.guard().await?;
        let who = guard.principal();
        if private && !who.role.is_trusted() && who.user.is_none() { Err(Problem::no_policy()) } else { Ok(()) }
    }

    /// What it is called in rooms that are private, if it may talk there.
    ///
    /// # Errors
    ///
    /// As [`may_talk`](Self::may_talk).
    pub(super) async fn speaker(&self) -> Result<String, Problem> {
        self.may_talk(true).await?;
        let guard = self.guard().await?;
        let who = guard.principal();
        Ok(who.user.clone().or(who.key.clone()).unwrap_or_else(|| who.role.name().to_owned()))
    }
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
    pub(super) fn shown(&self, row: &LiveRow) -> Option<LiveRow> {
        if !self.0.rows.lets_through(row) {
            return None;
        }
        let mut shown = row.clone();
        if let Some(fields) = &self.0.fields {
            shown.retain(|name, _| ["id", "at", "device"].contains(&name.as_str()) || fields.contains(name));
        }
        Some(shown)
    }
}
