//! The select list.

use std::collections::BTreeSet;

use super::scan::{cut, split, unquote};
use super::{Parser, QueryError, Reason};
use crate::limits;
use crate::query::{Cast, SelectedColumn};

impl Parser<'_> {
    pub(super) fn select(&self, text: &str) -> Result<Vec<SelectedColumn>, QueryError> {
        let mut selected: Vec<SelectedColumn> = Vec::new();
        for item in split(text, ',')? {
            if item == "*" {
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
        Ok(selected)
    }

    /// `alias:column->path::cast`
    fn selected(&self, item: &str) -> Result<SelectedColumn, QueryError> {
        refuse_later(item)?;
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

/// What the full grammar has and this version does not is named, not taken for something else.
fn refuse_later(item: &str) -> Result<(), QueryError> {
    if cut(item, "()").is_some() {
        let message = "Use of aggregate functions is not allowed";
        return Err(QueryError::new(Reason::Aggregate, message).hint("Prefer: count=exact counts the rows"));
    }
    if item.starts_with("...") || cut(item, "(").is_some() {
        return Err(QueryError::not_implemented("related collections in select"));
    }
    Ok(())
}
