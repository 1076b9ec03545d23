//! Subscriptions: the changes of a collection, from the log that every other subscriber reads.

use std::sync::Arc;

use async_graphql::Request as Asked;
use async_graphql::dynamic::{FieldValue, ResolverContext, SubscriptionFieldFuture};
use async_graphql::parser::types::{OperationType, Selection};
use mobo_core::live::LivePoint;
use mobo_core::rfc3339;
use mobo_core::rights::Action;
use serde_json::Value as Json;

use super::page::Row;
use super::values::Filters;
use super::{Caller, Table, arguments, failed};
use crate::problem::Problem;
use crate::realtime::changes::{self, Told};

/// One change, as a subscriber sees it.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) kind: &'static str,
    pub(super) at: String,
    pub(super) position: String,
    pub(super) new: Option<Row>,
    pub(super) old: Option<Row>,
}

impl From<Told> for Change {
    fn from(told: Told) -> Self {
        let kind = match told.kind {
            mobo_core::live::LiveKind::Insert => "INSERT",
            mobo_core::live::LiveKind::Update => "UPDATE",
            mobo_core::live::LiveKind::Delete => "DELETE",
        };
        let (at, position) = (rfc3339::format(told.at.0), told.point.to_string());
        Self { kind, at, position, new: told.new.map(Arc::new), old: told.old.map(Arc::new) }
    }
}

/// Whether the operation that is to be done is a subscription; what cannot be read is none.
///
/// # Errors
///
/// 400 for one whose root holds more than fields: nothing would ever come of a fragment there.
pub(super) fn is_asked(asked: &mut Asked) -> Result<bool, Problem> {
    let name = asked.operation_name.clone();
    let Ok(document) = asked.parsed_query() else { return Ok(false) };
    let mut operations = document.operations.iter();
    let meant = match &name {
        Some(wanted) => operations.find(|(name, _)| name.is_some_and(|name| name.as_str() == wanted)),
        None => operations.next(),
    };
    let Some((_, operation)) = meant.filter(|(_, operation)| operation.node.ty == OperationType::Subscription) else { return Ok(false) };
    let is_plain = |selection: &Selection| matches!(selection, Selection::Field(field) if field.node.directives.is_empty());
    if !operation.node.selection_set.node.items.iter().all(|selection| is_plain(&selection.node)) {
        let hint = "write the field itself, as in subscription { todosChanges { type } }";
        return Err(Problem::unsupported("fragments and directives at the root of a subscription").hint(hint));
    }
    Ok(true)
}

/// Resolves `todosChanges(filter: …, after: …)`.
pub(super) fn resolve<'a>(table: &Arc<Table>, ctx: ResolverContext<'a>) -> SubscriptionFieldFuture<'a> {
    let table = Arc::clone(table);
    SubscriptionFieldFuture::new(async move {
        let caller = ctx.data::<Caller>()?;
        caller.gate.count_act(caller.viewer.parts(), (&table.collection.name, Action::Read)).map_err(failed)?;
        let given = arguments(&ctx);
        let filter = Filters::of(&table.columns).read(given.get("filter")).map_err(failed)?;
        let after = match given.get("after").and_then(Json::as_str) {
            None => None,
            Some(text) => Some(text.parse::<LivePoint>().map_err(|bad| failed(Problem::parse(bad.to_string())))?),
        };
        let changes = changes::of(&caller.viewer, Arc::clone(&table.collection), filter, after).await.map_err(failed)?;
        caller.standing.notify_one();
        Ok(futures_util::StreamExt::map(changes, |told| match told {
            Ok(told) => Ok(FieldValue::owned_any(Change::from(told))),
            Err(problem) => Err(failed(problem)),
        }))
    })
}
