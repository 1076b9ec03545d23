//! The records as one caller may use them. Every route that reads or writes records goes through a [`Guard`], whatever protocol it speaks: it
//! narrows what is read, and looks at every edit before it is written.
//!
//! A caller who may do nothing to a collection is told the same whether it is there or not. Fields that a policy leaves out are not columns for
//! that caller: they can be neither selected nor filtered nor ordered by.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mobo_core::author::{Edit, Intent};
use mobo_core::ids::RecordId;
use mobo_core::names;
use mobo_core::query::{Column, ColumnType, Filter, Op, Page, Select, columns};
use mobo_core::rights::{Action, Policies, Principal, Refusal, Verdict};
use mobo_core::schema::{Collection, Kind, Schema};
use mobo_core::stream::Segment;
use mobo_core::value::Value;
use serde_json::{Map, Value as Json};

use axum::http::StatusCode;
use axum::http::request::Parts;

use super::{credential, prove};
use crate::backend::{AckLevel, Credential, Patience, WriteDone, WriteRequest};
use crate::gate::Gate;
use crate::problem::Problem;

/// Not a field: the version that a writer expects.
const VERSION: &str = "mobo_ver";

/// One caller in front of the records.
#[derive(Clone, Debug)]
#[allow(dead_code, reason = "connections that stay open prove their caller again")]
pub(crate) struct Guard {
    gate: Gate,
    credential: Credential,
    principal: Arc<Principal>,
    policies: Arc<Policies>,
}

/// What a caller may do to a collection with an action.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Granted {
    /// The rows.
    pub(crate) rows: Filter,
    /// The fields; `None` for all. `id` of a record and `at` and `device` of a sample are always among them.
    pub(crate) fields: Option<BTreeSet<String>>,
}

impl Granted {
    /// True for a column that the caller may use.
    pub(crate) fn has(&self, column: &Column) -> bool {
        let is_key = column.kind == ColumnType::Key || column.name == "at";
        is_key || self.fields.as_ref().is_none_or(|fields| fields.contains(&column.name))
    }

    /// The columns of a collection that there are for this caller.
    pub(crate) fn columns(&self, collection: &Collection) -> Vec<Column> {
        columns(collection).into_iter().filter(|column| self.has(column)).collect()
    }
}

impl Guard {
    /// The caller of a request.
    ///
    /// # Errors
    ///
    /// 401 for a credential that is not good, and for none.
    pub(crate) async fn of(gate: &Gate, parts: &Parts) -> Result<Self, Problem> {
        Self::of_anybody(gate, parts).await?.ok_or_else(|| {
            Problem::unauthorized("this needs a key")
                .hint("send one as `apikey: mobo_sec_…` or `Authorization: Bearer mobo_sec_…`; `mobo-hub key create` makes one")
        })
    }

    /// The caller of a request; `None` for a stranger.
    ///
    /// # Errors
    ///
    /// 401 for a credential that is not good.
    pub(crate) async fn of_anybody(gate: &Gate, parts: &Parts) -> Result<Option<Self>, Problem> {
        let Some(principal) = super::principal(gate, parts).await? else { return Ok(None) };
        Ok(Some(Self::new(gate, credential(parts)?, principal)))
    }

    fn new(gate: &Gate, credential: Credential, principal: Principal) -> Self {
        Self { gate: gate.clone(), credential, principal: Arc::new(principal), policies: gate.backend().policies() }
    }

    /// The same caller by what holds now: for connections that stay open while rights change.
    ///
    /// # Errors
    ///
    /// 401 once the key was revoked, or the sign-in has ended.
    #[allow(dead_code, reason = "for connections that stay open")]
    pub(crate) async fn renewed(&self) -> Result<Self, Problem> {
        let principal = prove(&self.gate, self.credential.clone()).await?;
        let principal = principal.ok_or_else(|| Problem::unauthorized("who was let in before is nobody here now"))?;
        Ok(Self::new(&self.gate, self.credential.clone(), principal))
    }

    /// Who it is.
    #[allow(dead_code, reason = "for connections that stay open")]
    pub(crate) fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The collection of that name, if the caller may do anything to it.
    ///
    /// # Errors
    ///
    /// 404 with a similar name for those who may see all names; for others the same refusal, whether it is there or not.
    pub(crate) fn collection(&self, name: &str) -> Result<Arc<Collection>, Problem> {
        let schema = self.gate.backend().schema();
        match schema.by_name(name) {
            Some(collection) if Action::ALL.into_iter().any(|action| self.may(collection, action)) => Ok(Arc::new(collection.clone())),
            None if self.principal.role.is_trusted() && self.principal.scopes.is_empty() && self.is_at_home() => {
                Err(no_collection(&schema, name))
            }
            Some(collection) => Err(self.granted(collection, Action::Read).err().unwrap_or_else(|| self.refused(Refusal::NoPolicy))),
            None => Err(self.refused(self.closed())),
        }
    }

    fn is_at_home(&self) -> bool {
        self.principal.project == self.gate.backend().project()
    }

    /// Why a collection that is not there is closed to this caller: what one that is there would say.
    fn closed(&self) -> Refusal {
        match (self.is_at_home(), self.principal.role.is_trusted()) {
            (false, _) => Refusal::OtherProject,
            (true, true) => Refusal::OutOfScope,
            (true, false) => Refusal::NoPolicy,
        }
    }

    /// Whether the caller may do that to any row of a collection.
    pub(crate) fn may(&self, collection: &Collection, action: Action) -> bool {
        self.granted(collection, action).is_ok()
    }

    /// What the caller may do to a collection: the one question that every route asks.
    ///
    /// # Errors
    ///
    /// 401 for who is no user, 403 for who is.
    pub(crate) fn granted(&self, collection: &Collection, action: Action) -> Result<Granted, Problem> {
        let project = self.gate.backend().project();
        match self.policies.verdict(&self.principal, project, (collection.id, &collection.name), action) {
            Verdict::Refused(refusal) => Err(self.refused(refusal)),
            Verdict::Granted { condition, fields } => {
                let all = columns(collection);
                let rows = condition.map_or_else(Filter::all, |condition| condition.filter(&self.principal, &collection.name, &all));
                Ok(Granted { rows, fields: fields.cloned() })
            }
        }
    }

    fn refused(&self, refusal: Refusal) -> Problem {
        let status = if self.principal.user.is_some() { StatusCode::FORBIDDEN } else { StatusCode::UNAUTHORIZED };
        let (message, hint) = match refusal {
            Refusal::NoPolicy => (
                "no policy opens this to you",
                "a collection is closed until `mobo-hub policy set` opens it to a role; a key of role service or admin needs none",
            ),
            Refusal::OutOfScope => ("the scopes of this key do not hold this", "`mobo-hub key list` shows them"),
            Refusal::OtherProject => ("this key or token is of another project", "use one of the project that this node serves"),
        };
        Problem::denied(status, message).hint(hint)
    }

    /// Rows that the caller may read.
    ///
    /// # Errors
    ///
    /// As [`granted`](Self::granted), for columns that are none for the caller, and the store's.
    pub(crate) async fn select(&self, select: Select) -> Result<Page, Problem> {
        self.select_for(select, Action::Read).await
    }

    /// Rows that the caller may read, and do `action` to.
    ///
    /// # Errors
    ///
    /// As [`select`](Self::select).
    pub(crate) async fn select_for(&self, mut select: Select, action: Action) -> Result<Page, Problem> {
        let granted = self.granted(&select.collection, Action::Read)?;
        let mut used: Vec<&Column> = select.columns.iter().map(|selected| &selected.operand.column).collect();
        used.extend(select.order.iter().map(|order| &order.operand.column));
        select.filter.each(&mut |condition| used.push(&condition.operand.column));
        if let Some(hidden) = used.into_iter().find(|column| !granted.has(column)) {
            let message = format!("column {}.{} does not exist", select.collection.name, hidden.name);
            return Err(Problem::new(StatusCode::BAD_REQUEST, "42703", "No such column", message));
        }
        select.filter = select.filter.and(granted.rows);
        if action != Action::Read {
            select.filter = select.filter.and(self.granted(&select.collection, action)?.rows);
        }
        Ok(self.gate.backend().select(select).await?)
    }

    /// Writes edits, all of which the caller may make; its name is written with them.
    ///
    /// # Errors
    ///
    /// As [`granted`](Self::granted), 403 for a row or field that the policies leave out, and the store's.
    pub(crate) async fn write(&self, mut write: WriteRequest) -> Result<WriteDone, Problem> {
        if !self.principal.role.is_trusted() || !self.principal.scopes.is_empty() {
            self.check(&write).await?;
        }
        write.author = write.author.or_else(|| self.principal.author());
        Ok(self.gate.backend().write(write).await?)
    }

    /// Appends samples.
    ///
    /// # Errors
    ///
    /// As [`granted`](Self::granted), and the store's. A policy with a condition or fields refuses samples: they are not looked at one by one.
    pub(crate) async fn append(
        &self,
        collection: Arc<Collection>,
        segment: Segment,
        patience: Option<Patience>,
    ) -> Result<AckLevel, Problem> {
        let granted = self.granted(&collection, Action::Create)?;
        if !granted.rows.is_all() || granted.fields.is_some() {
            return Err(self.denied("a policy with a condition or with fields does not open a stream to samples"));
        }
        Ok(self.gate.backend().append(collection, segment, patience).await?)
    }

    fn denied(&self, message: impl Into<String>) -> Problem {
        let status = if self.principal.user.is_some() { StatusCode::FORBIDDEN } else { StatusCode::UNAUTHORIZED };
        Problem::denied(status, message).hint("`mobo-hub policy list` shows what is open to which role; nothing was written")
    }

    async fn check(&self, write: &WriteRequest) -> Result<(), Problem> {
        let collection = &write.collection;
        let needs = |action: Action| self.granted(collection, action);
        let mut old = if write.edits.iter().all(|edit| edit.intent == Intent::Insert) { BTreeMap::new() } else { self.rows(write).await? };
        for edit in &write.edits {
            let before = old.get(&edit.id);
            match (edit.intent, before) {
                (Intent::Insert, _) | (Intent::Put | Intent::Merge | Intent::Ensure, None) => {
                    self.check_row(edit, None, &needs(Action::Create)?)?;
                    if matches!(edit.intent, Intent::Put | Intent::Merge) {
                        needs(Action::Update)?;
                    }
                }
                (Intent::Put | Intent::Merge, Some(before)) => {
                    needs(Action::Create)?;
                    self.check_row(edit, Some(before), &needs(Action::Update)?)?;
                }
                (Intent::Patch, Some(before)) => self.check_row(edit, Some(before), &needs(Action::Update)?)?,
                (Intent::Delete, Some(before)) => {
                    if !needs(Action::Delete)?.rows.lets_through(before) {
                        return Err(self.denied("a policy keeps one of these rows from being deleted"));
                    }
                }
                (Intent::Ensure, Some(_)) => needs(Action::Create).map(drop)?,
                (Intent::Patch, None) => needs(Action::Update).map(drop)?,
                (Intent::Delete, None) => needs(Action::Delete).map(drop)?,
            }
            // A later edit of the same request finds what this one leaves.
            let after = match (edit.intent, old.get(&edit.id)) {
                (Intent::Delete, _) => None,
                (Intent::Patch, None) => None,
                (Intent::Ensure, Some(before)) => Some(before.clone()),
                (_, before) => Some(image(edit, before)),
            };
            match after {
                Some(after) => old.insert(edit.id.clone(), after),
                None => old.remove(&edit.id),
            };
        }
        Ok(())
    }

    /// An edit of a row that is there, or will be: both what it is and what it becomes must be the caller's.
    fn check_row(&self, edit: &Edit, before: Option<&Map<String, Json>>, granted: &Granted) -> Result<(), Problem> {
        if let Some(field) =
            edit.fields.keys().find(|field| *field != VERSION && granted.fields.as_ref().is_some_and(|fields| !fields.contains(*field)))
        {
            return Err(self.denied(format!("a policy keeps the field \"{field}\" from being written")));
        }
        let mut looks = BTreeSet::new();
        granted.rows.each(&mut |condition| {
            looks.insert(condition.operand.column.name.clone());
        });
        if let Some(field) = edit.fields.iter().find(|(name, value)| value.is_object() && looks.contains(*name)).map(|(name, _)| name) {
            return Err(self.denied(format!("a policy looks at the field \"{field}\": write its plain value, not an operation")));
        }
        let held = before.is_none_or(|before| granted.rows.lets_through(before)) && granted.rows.lets_through(&image(edit, before));
        if held { Ok(()) } else { Err(self.denied("new row violates the policy of this collection")) }
    }

    /// The rows that the edits are about, as they are now.
    async fn rows(&self, write: &WriteRequest) -> Result<BTreeMap<RecordId, Map<String, Json>>, Problem> {
        let ids: BTreeSet<&RecordId> = write.edits.iter().map(|edit| &edit.id).collect();
        let key = Column { name: "id".to_owned(), kind: ColumnType::Key };
        let values = ids.iter().map(|id| Value::Text(id.as_str().to_owned())).collect();
        let all = Select::all(self.gate.backend().project(), Arc::clone(&write.collection));
        let select = Select { filter: Filter::is(key, Op::In(values)), limit: ids.len() as u64, ..all };
        let page = self.gate.backend().select(select).await?;
        let row = |row: Map<String, Json>| Some((RecordId::new(row.get("id")?.as_str()?.to_owned()).ok()?, row));
        Ok(page.rows.into_iter().filter_map(row).collect())
    }
}

/// The row that an edit makes of the one that is there.
fn image(edit: &Edit, before: Option<&Map<String, Json>>) -> Map<String, Json> {
    let mut row = match edit.intent {
        Intent::Put => Map::new(),
        Intent::Insert | Intent::Merge | Intent::Ensure | Intent::Patch | Intent::Delete => before.cloned().unwrap_or_default(),
    };
    row.extend(edit.fields.clone());
    row.insert("id".to_owned(), Json::from(edit.id.as_str()));
    row
}

fn no_collection(schema: &Schema, name: &str) -> Problem {
    let message = format!("there is no collection \"{name}\"");
    let problem = Problem::new(StatusCode::NOT_FOUND, "PGRST205", "No such collection", message);
    match names::nearest(name, schema.iter().map(|collection| collection.name.as_str())) {
        Some(near) => problem.hint(format!("Perhaps you meant '{near}'")),
        None => problem.hint("`mobo-hub collection list` shows the collections, `mobo-hub collection create` makes one"),
    }
}

/// The action that a method is, for whoever is asked before anything is read.
pub(crate) fn action_of(method: &axum::http::Method, kind: Kind) -> Action {
    match (method.as_str(), kind) {
        ("POST" | "PUT", _) => Action::Create,
        ("PATCH", Kind::Table | Kind::Document) => Action::Update,
        ("DELETE", Kind::Table | Kind::Document) => Action::Delete,
        _ => Action::Read,
    }
}
