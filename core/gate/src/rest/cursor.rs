//! Pages that do not shift: behind the last row of one page, by the values that it is sorted by.

use axum::http::HeaderValue;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mobo_core::json::value_from_json;
use mobo_core::query::{Column, Condition, Embedded, Filter, Op, Order, SelectedColumn};
use mobo_core::value::Value;
use serde_json::{Map, Value as Json, json};

use crate::problem::Problem;

/// Of the form of cursors; another one is refused.
const VERSION: u64 = 1;

/// Under which the values of the order are asked for; no alias of a caller is like it.
fn alias(n: usize) -> String {
    format!("mobo_order_{n}")
}

/// The order with the key behind it, which makes it total.
pub(crate) fn total(order: &[Order], key: &Column) -> Vec<Order> {
    let last = Order { operand: key.clone().into(), through: None, descending: false, nulls_first: false };
    order.iter().cloned().chain([last]).collect()
}

/// What must be asked for besides, to make a cursor of a row.
pub(crate) fn columns(total: &[Order]) -> impl Iterator<Item = SelectedColumn> {
    total.iter().enumerate().map(|(n, order)| SelectedColumn { operand: order.operand.clone(), cast: None, alias: alias(n) })
}

/// Takes what [`columns`] asked for out of the rows; gives the cursor of the last one.
#[cfg(feature = "graphql")]
pub(crate) fn take(rows: &mut [Map<String, Json>], total: &[Order]) -> Option<String> {
    let mut place = Vec::new();
    for row in rows {
        place = (0..total.len()).map(|n| row.shift_remove(&alias(n)).unwrap_or(Json::Null)).collect();
    }
    (!place.is_empty()).then(|| written(total, place))
}

/// Where each row of an answer has its values of the order.
pub(super) struct Marks(Vec<Mark>);

/// The name of a column, and whether it was asked for only for this.
type Mark = (String, bool);

impl Marks {
    /// Looks for them among the columns, and asks for those that are not there.
    pub(super) fn ask(columns: &mut Vec<SelectedColumn>, total: &[Order], embeds: &[Embedded]) -> Self {
        let is_embedded = |alias: &str| embeds.iter().flat_map(Embedded::names).any(|name| name == alias);
        let is_alone = |SelectedColumn { alias, .. }: &SelectedColumn| {
            columns.iter().filter(|other| other.alias == *alias).count() == 1 && !is_embedded(alias)
        };
        let there =
            |order: &Order| columns.iter().find(|column| column.cast.is_none() && column.operand == order.operand && is_alone(column));
        let known: Vec<Option<String>> = total.iter().map(|order| there(order).map(|column| column.alias.clone())).collect();
        let own = self::columns(total).zip(&known).filter(|(_, known)| known.is_none()).map(|(column, _)| column).collect::<Vec<_>>();
        columns.extend(own);
        Self(known.into_iter().enumerate().map(|(n, known)| known.map_or_else(|| (alias(n), true), |alias| (alias, false))).collect())
    }

    /// Takes what was asked for out of the rows; gives the cursor of the last one where it `is_wanted`.
    pub(super) fn take(&self, rows: &mut [Map<String, Json>], total: &[Order], is_wanted: bool) -> Option<String> {
        let value = |row: &Map<String, Json>| self.0.iter().map(|(alias, _)| row.get(alias).cloned().unwrap_or(Json::Null)).collect();
        let cursor = rows.last().filter(|_| is_wanted).map(|row| written(total, value(row)));
        for (alias, _) in self.0.iter().filter(|(_, is_own)| *is_own) {
            rows.iter_mut().for_each(|row| drop(row.shift_remove(alias)));
        }
        cursor
    }
}

/// The cursor of the row with these values of the order.
fn written(total: &[Order], place: Vec<Json>) -> String {
    URL_SAFE_NO_PAD.encode(json!([VERSION, named(total), place]).to_string())
}

/// What is behind the row of a cursor.
///
/// # Errors
///
/// As [`place`].
pub(super) fn behind(cursor: &str, total: &[Order]) -> Result<Filter, Problem> {
    Ok(beyond(&place(cursor, total)?, total))
}

/// Where the row of a cursor is: its values of the order.
///
/// # Errors
///
/// 400 for what is not a cursor, and for one of another order.
pub(crate) fn place(cursor: &str, total: &[Order]) -> Result<Vec<Value>, Problem> {
    let wrong = || Problem::parse("after: this is not a cursor of this node").hint("take `after` as it is from the header `link`");
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| wrong())?;
    let (version, order, place): (u64, String, Vec<Json>) = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
    if order != named(total) {
        return Err(Problem::parse("after: this cursor belongs to another order").hint("ask for the first page again, without `after`"));
    }
    if version != VERSION || place.len() != total.len() {
        return Err(wrong());
    }
    let value = |(order, json): (&Order, &Json)| value_from_json(json, order.operand.kind()).map_err(|_| wrong());
    total.iter().zip(&place).map(value).collect()
}

/// What comes behind a place.
pub(crate) fn beyond(place: &[Value], total: &[Order]) -> Filter {
    let (mut ways, mut same) = (Vec::new(), Filter::all());
    for (order, value) in total.iter().zip(place) {
        if let Some(further) = further(order, value) {
            ways.push(same.clone().and(further));
        }
        let op = if *value == Value::Null { Op::IsNull } else { Op::Eq(value.clone()) };
        same = same.and(Filter::Is(Condition { operand: order.operand.clone(), op }));
    }
    Filter::Or(ways)
}

/// What follows a value; `None` when nothing does.
fn further(order: &Order, value: &Value) -> Option<Filter> {
    let is = |op| Filter::Is(Condition { operand: order.operand.clone(), op });
    if *value == Value::Null {
        return order.nulls_first.then(|| is(Op::IsNull).negated());
    }
    let beyond = is(if order.descending { Op::Lt(value.clone()) } else { Op::Gt(value.clone()) });
    Some(if order.nulls_first { beyond } else { Filter::Or(vec![beyond, is(Op::IsNull)]) })
}

/// The order in words, so that a cursor is not taken for one of another.
fn named(total: &[Order]) -> String {
    let name = |order: &Order| {
        let (operand, direction) = (&order.operand, if order.descending { "desc" } else { "asc" });
        let (arrow, nulls) = (if operand.text { "->>" } else { "->" }, if order.nulls_first { "first" } else { "last" });
        format!("{}{arrow}{}.{direction}.{nulls}", operand.column.name, operand.path.join("->"))
    };
    total.iter().map(name).collect::<Vec<_>>().join(",")
}

/// The header that leads to the next page: this address with another `after`.
pub(super) fn link(path: &str, query: Option<&str>, cursor: &str) -> Option<HeaderValue> {
    let kept = query.unwrap_or_default().split('&').filter(|part| {
        let name = part.split('=').next().unwrap_or_default();
        !part.is_empty() && name != "after" && name != "offset"
    });
    let query: Vec<&str> = kept.collect();
    let query = if query.is_empty() { String::new() } else { format!("{}&", query.join("&")) };
    HeaderValue::try_from(format!("<{path}?{query}after={cursor}>; rel=\"next\"")).ok()
}
