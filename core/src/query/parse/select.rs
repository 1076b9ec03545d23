//! The select list.

use std::collections::BTreeSet;

use super::scan::{cut, split, unquote};
use super::{Parser, QueryError, Reason};
use crate::limits;
use crate::query::{Cast, Embedded, SelectedColumn};

impl Parser<'_> {
    pub(super) fn select(&mut self, text: &str) -> Result<Vec<SelectedColumn>, QueryError> {
        let mut selected: Vec<SelectedColumn> = Vec::new();
        for item in split(text, ',')? {
            if let Some(list) = related_list(item)? {
                self.related(item, list)?;
            } else if item == "*" {
                selected.extend(self.columns.iter().cloned().map(SelectedColumn::from));
            } else {
                selected.push(self.selected(item)?);
            }
        }
        if selected.len() > limits::QUERY_COLUMNS_MAX {
            return Err(QueryError::malformed(format!("select names more than {} columns", limits::QUERY_COLUMNS_MAX)));
        }
        for (n, column) in selected.iter().enumerate() {
            if selected.iter().take(n).any(|other| other.alias == column.alias && other != column) {
                return Err(QueryError::malformed(format!("select gives two columns the name \"{}\"", column.alias)));
            }
        }
        let mut seen = BTreeSet::new();
        selected.retain(|column| seen.insert(column.alias.clone()));
        for name in self.query.embeds.iter().flat_map(Embedded::names) {
            if !seen.insert(name.to_owned()) {
                return Err(QueryError::malformed(format!("select gives two members the name \"{name}\"")));
            }
        }
        Ok(selected)
    }

    /// `alias:column->path::cast`
    fn selected(&self, item: &str) -> Result<SelectedColumn, QueryError> {
        let (alias, rest) = match cut(item, ":").filter(|(_, rest)| !rest.starts_with(':')) {
            Some((alias, rest)) => (Some(unquote(alias)?), rest),
            None => (None, item),
        };
        let (field, cast) = match cut(rest, "::") {
            Some((field, cast)) => (field, Some(cast_of(item, cast)?)),
            None => (rest, None),
        };
        if cut(field, ":").is_some() {
            return Err(QueryError::malformed(format!("select={item}: a column is `name` or `alias:name`")));
        }
        let operand = self.operand(field)?;
        let named = || operand.path.iter().rev().find(|step| step.parse::<i64>().is_err()).unwrap_or(&operand.column.name).clone();
        let alias = alias.unwrap_or_else(named);
        let plain = !alias.is_empty() && alias.len() <= limits::NAME_BYTES_MAX && !alias.chars().any(char::is_control);
        if !plain || alias.starts_with("mobo") {
            let max = limits::NAME_BYTES_MAX;
            return Err(QueryError::malformed(format!(
                "select={item}: an alias is 1 to {max} bytes of text, and does not start with mobo"
            )));
        }
        Ok(SelectedColumn { operand, cast, alias })
    }
}

fn cast_of(item: &str, name: &str) -> Result<Cast, QueryError> {
    Cast::from_name(name).ok_or_else(|| {
        QueryError::not_implemented(&format!("the cast ::{name} of {item}")).hint(format!("a column can be cast to {}", Cast::NAMES))
    })
}

/// The list in the parentheses of a related collection; `None` for a column.
///
/// # Errors
///
/// For sums and averages, which are not given, and for what stands behind the list.
fn related_list(item: &str) -> Result<Option<&str>, QueryError> {
    let Some((head, rest)) = cut(item, "(") else {
        if item.starts_with("...") {
            return Err(QueryError::malformed(format!("select={item}: write ...name(column,column)")));
        }
        return Ok(None);
    };
    let name = cut(head, ":").filter(|(_, rest)| !rest.starts_with(':')).map_or(head, |(_, name)| name);
    if rest.starts_with(')') && (name == "count" || cut(name.trim_start_matches("..."), ".").is_some()) {
        let message = "Use of aggregate functions is not allowed";
        return Err(QueryError::new(Reason::Aggregate, message).hint("Prefer: count=exact counts the rows"));
    }
    let list = rest.strip_suffix(')');
    list.map(Some).ok_or_else(|| QueryError::malformed(format!("select={item}: a related collection is alias:name!inner(column,column)")))
}
