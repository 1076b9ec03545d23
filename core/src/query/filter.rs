//! Conditions on a row, in the logic of SQL: what is compared with NULL is neither true nor false.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::{Column, Operand, Regex, contains, jsonb_order, like};
use crate::json::value_from_json;
use crate::value::Value;

/// A condition on a row. Its parts may nest as deep as `limits::QUERY_DEPTH_MAX`.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// All hold; none of them is true.
    And(Vec<Filter>),
    /// One holds; none of them is false.
    Or(Vec<Filter>),
    /// The opposite holds.
    Not(Box<Filter>),
    /// A comparison.
    Is(Condition),
}

/// A comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// What is compared.
    pub operand: Operand,
    /// With what, and how.
    pub op: Op,
}

/// How a value is compared. The operand's [`kind`](Operand::kind) is that of the values.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Equal.
    Eq(Value),
    /// Not equal.
    Neq(Value),
    /// Greater. JSON has an order against numbers, booleans and null only.
    Gt(Value),
    /// Greater or equal.
    Gte(Value),
    /// Less.
    Lt(Value),
    /// Less or equal.
    Lte(Value),
    /// Not the same, where NULL is the same as NULL: never unknown.
    Distinct(Value),
    /// One of these.
    In(Vec<Value>),
    /// Text of that pattern.
    Like {
        /// With `%` and `_`.
        pattern: String,
        /// True: `A` to `Z` are `a` to `z`.
        insensitive: bool,
    },
    /// Text that this fits a part of.
    Match(Regex),
    /// JSON that holds all of this.
    Contains(Value),
    /// JSON that this holds all of.
    Contained(Value),
    /// Is null: never unknown.
    IsNull,
    /// Is true, or is false: never unknown.
    IsBool(bool),
}

/// A row that a filter is decided on.
pub trait Row {
    /// The value of a column; [`Value::Null`] where there is none.
    fn value(&self, column: &Column) -> Value;
}

/// A row by the names of its columns, as the engines project it.
impl Row for BTreeMap<String, Value> {
    fn value(&self, column: &Column) -> Value {
        self.get(&column.name).cloned().unwrap_or(Value::Null)
    }
}

/// A row as the API gives it. A value that is none of its column's type is NULL.
impl Row for Map<String, Json> {
    fn value(&self, column: &Column) -> Value {
        let given = self.get(&column.name).unwrap_or(&Json::Null);
        value_from_json(given, column.kind.field()).unwrap_or(Value::Null)
    }
}

impl Filter {
    /// What lets every row through.
    #[must_use]
    pub const fn all() -> Self {
        Self::And(Vec::new())
    }

    /// What lets no row through.
    #[must_use]
    pub const fn none() -> Self {
        Self::Or(Vec::new())
    }

    /// A comparison of a whole column.
    #[must_use]
    pub fn is(column: Column, op: Op) -> Self {
        Self::Is(Condition { operand: column.into(), op })
    }

    /// The opposite.
    #[must_use]
    pub fn negated(self) -> Self {
        if let Self::Not(part) = self { *part } else { Self::Not(Box::new(self)) }
    }

    /// What both let through.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::And(mut these), Self::And(those)) => {
                these.extend(those);
                Self::And(these)
            }
            (Self::And(mut these), other) => {
                these.push(other);
                Self::And(these)
            }
            (this, Self::And(those)) if those.is_empty() => this,
            (this, other) => Self::And(vec![this, other]),
        }
    }

    /// True for a filter without any condition that lets every row through.
    #[must_use]
    pub fn is_all(&self) -> bool {
        matches!(self, Self::And(parts) if parts.is_empty())
    }

    /// Whether it holds of a row; `None` where SQL says NULL.
    #[must_use]
    pub fn holds(&self, row: &(impl Row + ?Sized)) -> Option<bool> {
        match self {
            // The first that decides, or unknown if one is unknown.
            Self::And(parts) => decide(parts.iter().map(|part| part.holds(row)), false),
            Self::Or(parts) => decide(parts.iter().map(|part| part.holds(row)), true),
            Self::Not(part) => part.holds(row).map(|held| !held),
            Self::Is(Condition { operand, op }) => op.holds(&operand.of(row.value(&operand.column))),
        }
    }

    /// True when a query with this filter gives the row.
    #[must_use]
    pub fn lets_through(&self, row: &(impl Row + ?Sized)) -> bool {
        self.holds(row) == Some(true)
    }

    /// Calls `visit` with every comparison.
    pub fn each<'f>(&'f self, visit: &mut impl FnMut(&'f Condition)) {
        match self {
            Self::And(parts) | Self::Or(parts) => parts.iter().for_each(|part| part.each(visit)),
            Self::Not(part) => part.each(visit),
            Self::Is(condition) => visit(condition),
        }
    }
}

fn decide(parts: impl Iterator<Item = Option<bool>>, deciding: bool) -> Option<bool> {
    let mut held = Some(!deciding);
    for part in parts {
        match part {
            Some(part) if part == deciding => return Some(deciding),
            Some(_) => {}
            None => held = None,
        }
    }
    held
}

impl Op {
    fn holds(&self, value: &Value) -> Option<bool> {
        let ordered = |other: &Value, wanted: fn(Ordering) -> bool| order(value, other).map(wanted);
        match self {
            Self::IsNull => Some(*value == Value::Null),
            Self::IsBool(wanted) => Some(*value == Value::Bool(*wanted)),
            Self::Distinct(other) => Some(value != other),
            Self::Eq(other) => ordered(other, Ordering::is_eq),
            Self::Neq(other) => ordered(other, Ordering::is_ne),
            Self::Gt(other) => ordered(other, Ordering::is_gt),
            Self::Gte(other) => ordered(other, Ordering::is_ge),
            Self::Lt(other) => ordered(other, Ordering::is_lt),
            Self::Lte(other) => ordered(other, Ordering::is_le),
            Self::In(others) => decide(others.iter().map(|other| ordered(other, Ordering::is_eq)), true),
            Self::Like { pattern, insensitive } => {
                let Value::Text(text) = value else { return None };
                Some(like(pattern, text, *insensitive))
            }
            Self::Match(regex) => {
                let Value::Text(text) = value else { return None };
                Some(regex.fits(text))
            }
            Self::Contains(other) => Some(contains(&json(value)?, &json(other)?)),
            Self::Contained(other) => Some(contains(&json(other)?, &json(value)?)),
        }
    }
}

fn json(value: &Value) -> Option<Json> {
    let Value::Json(text) = value else { return None };
    serde_json::from_str(text).ok()
}

/// The order of two values of one type; `None` for NULL and for values of different types.
pub(super) fn order(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::Int(a), Value::Int(b)) | (Value::Timestamp(a), Value::Timestamp(b)) => Some(a.cmp(b)),
        (Value::Float(a), Value::Float(b)) => a.partial_cmp(b),
        (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
        (Value::Bytes(a), Value::Bytes(b)) => Some(a.cmp(b)),
        // One value, one canonical text.
        (Value::Json(a), Value::Json(b)) if a == b => Some(Ordering::Equal),
        // Where there is no order, they are not equal all the same.
        (Value::Json(_), Value::Json(_)) => Some(jsonb_order(&json(a)?, &json(b)?).unwrap_or(Ordering::Less)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::query::{ColumnType, Parser};
    use crate::schema::FieldType;

    fn columns() -> Vec<Column> {
        [("s", FieldType::Text), ("n", FieldType::Int), ("b", FieldType::Bool), ("m", FieldType::Json), ("l", FieldType::List)]
            .map(|(name, kind)| Column { name: name.to_owned(), kind: ColumnType::Field(kind) })
            .to_vec()
    }

    #[track_caller]
    fn check(text: &str, want: Option<bool>) {
        let row = json!({"s": "Ab", "n": 3, "b": null, "m": {"a": {"k": 7}, "t": "x", "z": null}, "l": ["p", 1]});
        let columns = columns();
        let mut parser = Parser::new("t", &columns);
        parser.filters(text).unwrap();
        let Json::Object(row) = row else { panic!("a row") };
        assert_eq!(parser.finish().filter.holds(&row), want, "{text}");
    }

    #[test]
    fn logic_is_that_of_sql() {
        for (text, want) in [
            ("", Some(true)),
            ("n=eq.3&s=eq.Ab", Some(true)),
            ("n=eq.3&b=eq.true", None),
            ("n=eq.4&b=eq.true", Some(false)),
            ("or=(n.eq.3,b.eq.true)", Some(true)),
            ("or=(n.eq.4,b.eq.true)", None),
            ("not.or=(n.eq.4,b.eq.true)", None),
            ("b=not.eq.true", None),
            ("b=is.null", Some(true)),
            ("b=is.true", Some(false)),
            ("b=isdistinct.true", Some(true)),
            ("n=isdistinct.3", Some(false)),
            ("n=in.()", Some(false)),
            ("b=in.()", Some(false)),
            ("n=not.in.(1,2)", Some(true)),
            ("n=gt(all).{1,2}", Some(true)),
            ("n=gt(any).{}", Some(false)),
            ("s=like.a*", Some(false)),
            ("s=ilike.a_", Some(true)),
            ("m->a->>k=eq.7", Some(true)),
            ("m->a->k=gt.6.5", Some(true)),
            ("m->t=gt.6", Some(false)),
            ("m->t=neq.6", Some(true)),
            ("m->none=eq.6", None),
            ("m->z=is.null", Some(false)),
            ("m->>z=is.null", Some(true)),
            ("m=cs.{\"a\":{}}", Some(true)),
            ("m->a=cd.{\"k\":7,\"l\":8}", Some(true)),
            ("l=cs.{p}", Some(true)),
            ("l=ov.{q,1}", Some(true)),
            ("l=ov.{q,\"1\"}", Some(false)),
        ] {
            check(text, want);
        }
    }
}
