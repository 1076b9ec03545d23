//! Who subscribes, and what of a change is for them.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::http::HeaderValue;
use axum::http::header::{AUTHORIZATION, HeaderName};
use axum::http::request::Parts;
use mobo_core::live::LiveRow;
use mobo_core::query::{Filter, columns};
use mobo_core::rights::{Action, Principal, Verdict};
use mobo_core::schema::Collection;

use crate::access;
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

    pub(super) const fn gate(&self) -> &Gate {
        &self.gate
    }

    /// What of a collection it may see now.
    ///
    /// # Errors
    ///
    /// As `access` and the policies say.
    pub(super) async fn view(&self, collection: &Collection) -> Result<View, Problem> {
        let who = self.who().await?;
        let (policies, project) = (self.gate.backend().policies(), self.gate.backend().project());
        let Verdict::Granted { condition, fields } = policies.verdict(&who, project, (collection.id, &collection.name), Action::Read)
        else {
            return Err(Problem::no_policy());
        };
        let filter = condition.map_or_else(Filter::all, |condition| condition.filter(&who, &collection.name, &columns(collection)));
        Ok(View { filter, fields: fields.cloned() })
    }

    async fn who(&self) -> Result<Principal, Problem> {
        let who = access::principal(&self.gate, &self.parts).await?;
        who.ok_or_else(|| Problem::unauthorized("this needs a key").hint("send one as apikey; `mobo-hub key create` makes one"))
    }

    /// Whether it may talk to others here; in rooms that are private only users and trusted keys.
    ///
    /// # Errors
    ///
    /// As `access` says.
    pub(super) async fn may_talk(&self, private: bool) -> Result<(), Problem> {
        let who = self.who().await?;
        if private && !who.role.is_trusted() && who.user.is_none() { Err(Problem::no_policy()) } else { Ok(()) }
    }

    /// What it is called in rooms that are private, if it may talk there.
    ///
    /// # Errors
    ///
    /// As [`may_talk`](Self::may_talk).
    pub(super) async fn speaker(&self) -> Result<String, Problem> {
        self.may_talk(true).await?;
        let who = self.who().await?;
        Ok(who.user.or(who.key).unwrap_or_else(|| who.role.name().to_owned()))
    }
}

/// What of a collection somebody may see.
#[derive(Clone, Debug)]
pub(super) struct View {
    filter: Filter,
    fields: Option<BTreeSet<String>>,
}

impl View {
    /// A row, if it is for this viewer, with the fields that are.
    pub(super) fn shown(&self, row: &LiveRow) -> Option<LiveRow> {
        if !self.filter.lets_through(row) {
            return None;
        }
        let mut shown = row.clone();
        if let Some(fields) = &self.fields {
            shown.retain(|name, _| name == "id" || fields.contains(name));
        }
        Some(shown)
    }
}
