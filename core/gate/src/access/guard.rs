//! The records as one caller may use them. Every route that reads or writes records goes through a [`Guard`], whatever protocol it speaks: it
//! narrows what is read, and looks at every edit before it is written.
//!
//! A caller who may do nothing to a collection is told the same whether it is there or not. Fields that a policy leaves out are not columns for
//! that caller: they can be neither selected nor filtered nor ordered by.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::http::request::Parts;
use mobo_core::author::{EditError, Intent, VERSION_KEY};
use mobo_core::ids::RecordId;
use mobo_core::names;
use mobo_core::query::{Filter, Page, Select};
use mobo_core::rights::{Action, Bounds, Granted, Policies, Principal, Refusal};
use mobo_core::schema::{Collection, Kind, Schema};
use mobo_core::stream::Segment;

use crate::backend::{AckLevel, BackendError, Patience, WriteDone, WriteRequest};
use crate::gate::Gate;
use crate::problem::Problem;
use crate::timing::{Stage, Timing};

/// One caller in front of the records.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    gate: Gate,
    principal: Arc<Principal>,
    policies: Arc<Policies>,
    timing: Timing,
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
        let principal = super::principal(gate, parts).await?;
        let policies = gate.backend().policies();
        let timing = Timing::of(gate, parts);
        Ok(principal.map(|principal| Self { gate: gate.clone(), principal: Arc::new(principal), policies, timing }))
    }

    /// Who it is.
    pub(crate) fn principal(&self) -> &Principal {
        &self.principal
    }

    /// What is open to whom.
    #[cfg(feature = "graphql")]
    pub(crate) fn policies(&self) -> &Arc<Policies> {
        &self.policies
    }

    /// All collections, whatever the caller may.
    pub(crate) fn schema(&self) -> Arc<Schema> {
        self.gate.backend().schema()
    }

    /// The collections that the caller may do anything to, by name, with the fields that there are for this caller.
    pub(crate) fn usable(&self) -> Vec<Collection> {
        let narrowed = |collection: &Collection| {
            let granted: Vec<Granted> = Action::ALL.into_iter().filter_map(|action| self.granted(collection, action).ok()).collect();
            let is_there = |name: &String| granted.iter().any(|granted| granted.fields.as_ref().is_none_or(|fields| fields.contains(name)));
            let mut narrowed = collection.clone();
            narrowed.fields.retain(|field| is_there(&field.name));
            (!granted.is_empty()).then_some(narrowed)
        };
        let mut collections: Vec<Collection> = self.gate.backend().schema().iter().filter_map(narrowed).collect();
        collections.sort_by(|a, b| a.name.cmp(&b.name));
        collections
    }

    /// The collection of that name, if the caller may do anything to it.
    ///
    /// # Errors
    ///
    /// 404 with a similar name for those who may see all names; for others the same refusal, whether it is there or not.
    pub(crate) fn collection(&self, name: &str) -> Result<Arc<Collection>, Problem> {
        let schema = self.gate.backend().schema();
        match schema.shared(name) {
            Some(collection) if Action::ALL.into_iter().any(|action| self.may(collection, action)) => Ok(Arc::clone(collection)),
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
        self.policies.granted(&self.principal, project, collection, action).map_err(|refusal| self.refused(refusal))
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
    pub(crate) async fn select_for(&self, select: Select, action: Action) -> Result<Page, Problem> {
        let select = self.narrowed(select, action)?;
        Ok(self.timing.during(Stage::Db, self.gate.backend().select(select)).await?)
    }

    /// Rows that the caller may read, with the tag of the record that the filters name: where they let it through, if policies hide any.
    ///
    /// # Errors
    ///
    /// As [`select`](Self::select).
    pub(crate) async fn select_with_tag(&self, select: Select, id: RecordId) -> Result<(Page, Option<String>), Problem> {
        let sees_all = self.granted(&select.collection, Action::Read)?.rows.is_all();
        let select = self.narrowed(select, Action::Read)?;
        let (page, tag) = self.timing.during(Stage::Db, self.gate.backend().select_with_tag(select, id)).await?;
        let is_shown = sees_all || !page.rows.is_empty();
        Ok((page, tag.filter(|_| is_shown)))
    }

    /// What is asked for, without what the caller may not see, or do `action` to.
    fn narrowed(&self, mut select: Select, action: Action) -> Result<Select, Problem> {
        self.narrow(&mut select)?;
        if action != Action::Read {
            select.filter = select.filter.and(self.granted(&select.collection, action)?.rows);
        }
        Ok(select)
    }

    /// Leaves of a query, and of every collection that it embeds, the rows that the caller may read.
    ///
    /// # Errors
    ///
    /// As [`granted`](Self::granted), and for columns that are none for the caller.
    fn narrow(&self, select: &mut Select) -> Result<(), Problem> {
        let granted = self.granted(&select.collection, Action::Read)?;
        let shown = select.columns.iter().map(|selected| &selected.operand.column);
        let sorted = select.order.iter().filter(|order| order.through.is_none()).map(|order| &order.operand.column);
        let links = select.embeds.iter().filter(|embed| embed.to_one).map(|embed| &embed.field);
        let mut used = shown.chain(sorted).chain(links);
        if let Some(hidden) = used.find(|column| !granted.has(column)).or(granted.hidden(&select.filter)) {
            return Err(no_column(&select.collection, &hidden.name));
        }
        for (at, embed) in select.embeds.iter_mut().enumerate() {
            let far = self.granted(&embed.select.collection, Action::Read)?;
            let sorted = select.order.iter().filter(|order| order.through == Some(at)).map(|order| &order.operand.column);
            let mut used = sorted.chain((!embed.to_one).then_some(&embed.field));
            if let Some(hidden) = used.find(|column| !far.has(column)) {
                return Err(no_column(&embed.select.collection, &hidden.name));
            }
            self.narrow(&mut embed.select)?;
        }
        let own = std::mem::replace(&mut select.filter, Filter::all());
        select.filter = own.and(granted.rows);
        Ok(())
    }

    /// Writes edits, all of which the caller may make; its name is written with them. The rows are looked at where the store has them locked:
    /// nobody else's write comes between what a policy says of them and what is done to them.
    ///
    /// # Errors
    ///
    /// As [`granted`](Self::granted), 403 for a row or field that the policies leave out, and the store's.
    pub(crate) async fn write(&self, mut write: WriteRequest) -> Result<WriteDone, Problem> {
        write.bounds = self.bounds(&write)?.map(Arc::new);
        self.check_fields(&write)?;
        write.author = write.author.or_else(|| self.principal.author());
        match self.timing.during(Stage::Db, self.gate.backend().write(write)).await {
            Err(BackendError::Edit(EditError::Denied(why))) => Err(self.denied(why)),
            done => Ok(done?),
        }
    }

    /// A field that there is not for this caller is refused as one that nobody has, and none of those is proposed in its place.
    fn check_fields(&self, write: &WriteRequest) -> Result<(), Problem> {
        let collection = &write.collection;
        let granted: Vec<Granted> = Action::ALL.into_iter().filter_map(|action| self.granted(collection, action).ok()).collect();
        let is_open = |name: &str| granted.iter().any(|granted| granted.fields.as_ref().is_none_or(|fields| fields.contains(name)));
        let is_known = |name: &String| *name == VERSION_KEY || collection.field(name).is_some() && is_open(name);
        let unknown = write.edits.iter().flat_map(|edit| edit.fields.keys()).find(|name| !is_known(name));
        unknown.map_or(Ok(()), |field| {
            let open = collection.live_fields().map(|field| field.name.as_str()).filter(|name| is_open(name));
            let near = names::nearest(field, open).map(str::to_owned);
            Err(EditError::UnknownField { collection: collection.name.clone(), field: field.clone(), near }.into())
        })
    }

    /// What the store is to hold the edits to; `None` where the caller may make all of them whatever the rows are.
    fn bounds(&self, write: &WriteRequest) -> Result<Option<Bounds>, Problem> {
        let mut bounds = Bounds::default();
        for intent in write.edits.iter().map(|edit| edit.intent) {
            let needed: &[Action] = match intent {
                Intent::Insert | Intent::Ensure => &[Action::Create],
                Intent::Put | Intent::Merge => &[Action::Create, Action::Update],
                Intent::Patch => &[Action::Update],
                Intent::Delete => &[Action::Delete],
            };
            for action in needed {
                let place = match action {
                    Action::Create => &mut bounds.create,
                    Action::Update => &mut bounds.update,
                    Action::Delete | Action::Read => &mut bounds.delete,
                };
                if place.is_none() {
                    *place = Some(Arc::new(self.granted(&write.collection, *action)?));
                }
            }
        }
        let narrow = [&bounds.create, &bounds.update, &bounds.delete].into_iter().flatten().any(|granted| !granted.is_whole());
        Ok(narrow.then_some(bounds))
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
        Ok(self.timing.during(Stage::Db, self.gate.backend().append(collection, segment, patience)).await?)
    }

    fn denied(&self, message: impl Into<String>) -> Problem {
        let status = if self.principal.user.is_some() { StatusCode::FORBIDDEN } else { StatusCode::UNAUTHORIZED };
        Problem::denied(status, message).hint("`mobo-hub policy list` shows what is open to which role; nothing was written")
    }
}

/// What the caller is told of a column that there is not for him.
pub(crate) fn no_column(collection: &Collection, name: &str) -> Problem {
    let message = format!("column {}.{name} does not exist", collection.name);
    Problem::new(StatusCode::BAD_REQUEST, "42703", "No such column", message)
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
