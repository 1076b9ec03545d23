//! Values of GraphQL as values of columns, and its filters and orders as those of every other query.
//!
//! As in pg_graphql, 64-bit integers and JSON are text in answers; both are taken as text and as they are.

use async_graphql::Value;
use mobo_core::json::value_from_json;
use mobo_core::limits;
use mobo_core::query::{Column, ColumnType, Condition, Filter, Op, Operand, Order, Regex};
use mobo_core::schema::FieldType;
use serde_json::{Map, Value as Json, json};

use crate::problem::Problem;

/// The scalar of a column in answers.
pub(super) fn scalar(kind: ColumnType) -> &'static str {
    match kind.field() {
        FieldType::Text => "String",
        FieldType::Int | FieldType::Counter => "BigInt",
        FieldType::Float => "Float",
        FieldType::Bool => "Boolean",
        FieldType::Timestamp => "Datetime",
        FieldType::Json | FieldType::List => "JSON",
        FieldType::Bytes => "Opaque",
    }
}

/// The input of a column: a counter takes `{inc: n}`, too.
pub(super) fn input_type(kind: ColumnType) -> &'static str {
    if kind.field() == FieldType::Counter { "Counter" } else { scalar(kind) }
}

/// The input that a filter takes for a column.
pub(super) fn filter_type(kind: ColumnType) -> &'static str {
    match kind.field() {
        FieldType::Text => "StringFilter",
        FieldType::Int | FieldType::Counter => "BigIntFilter",
        FieldType::Float => "FloatFilter",
        FieldType::Bool => "BooleanFilter",
        FieldType::Timestamp => "DatetimeFilter",
        FieldType::Json | FieldType::List => "JSONFilter",
        FieldType::Bytes => "OpaqueFilter",
    }
}

/// The types of [`filter_type`]: their name, the scalar that they compare with, and their operators.
pub(super) const FILTERS: [(&str, &str, &[&str]); 7] = [
    ("StringFilter", "String", &["eq", "neq", "gt", "gte", "lt", "lte", "in", "is", "like", "ilike", "regex", "iregex", "startsWith"]),
    ("BigIntFilter", "BigInt", &["eq", "neq", "gt", "gte", "lt", "lte", "in", "is"]),
    ("FloatFilter", "Float", &["eq", "neq", "gt", "gte", "lt", "lte", "in", "is"]),
    ("DatetimeFilter", "Datetime", &["eq", "neq", "gt", "gte", "lt", "lte", "in", "is"]),
    ("BooleanFilter", "Boolean", &["eq", "is"]),
    ("JSONFilter", "JSON", &["contains", "containedBy", "is"]),
    ("OpaqueFilter", "Opaque", &["eq", "neq", "is"]),
];

/// A value in an answer.
pub(super) fn output(kind: ColumnType, value: &Json) -> Value {
    match (kind.field(), value) {
        (_, Json::Null) => Value::Null,
        (FieldType::Int | FieldType::Counter, Json::Number(number)) => Value::String(number.to_string()),
        (FieldType::Json | FieldType::List, value) => Value::String(value.to_string()),
        (_, value) => Value::from_json(value.clone()).unwrap_or_default(),
    }
}

/// A value that somebody writes, as the body of a request would have it.
///
/// # Errors
///
/// 400 for text that should be JSON and is not.
pub(super) fn input(column: &Column, value: Json) -> Result<Json, Problem> {
    Ok(match (column.kind.field(), value) {
        (FieldType::Int | FieldType::Counter, Json::String(text)) => text.parse::<i64>().map_or(Json::String(text), Json::from),
        (FieldType::Counter, Json::Object(mut members)) if members.len() == 1 && members.contains_key("inc") => {
            let by = Column { name: column.name.clone(), kind: ColumnType::Field(FieldType::Int) };
            json!({ "$inc": input(&by, members.remove("inc").unwrap_or_default())? })
        }
        (FieldType::Json | FieldType::List, Json::String(text)) => serde_json::from_str(&text).map_err(|bad| {
            Problem::bad_value(format!("{}: this is no JSON: {bad}", column.name)).hint("text is JSON in quotes: \"\\\"text\\\"\"")
        })?,
        (_, value) => value,
    })
}

/// A row that somebody writes, under the names of its columns.
///
/// # Errors
///
/// 400 for a column that is not there, and for what [`input`] refuses.
pub(super) fn row(columns: &[(String, Column)], given: &Json) -> Result<Map<String, Json>, Problem> {
    let members = given.as_object().ok_or_else(|| Problem::bad_value("a row is an object"))?;
    let field = |(name, value): (&String, &Json)| {
        let (_, column) = columns.iter().find(|(known, _)| known == name).ok_or_else(|| no_column(name))?;
        Ok((column.name.clone(), input(column, value.clone())?))
    };
    members.iter().map(field).collect()
}

/// Whether rows have an order by that column: JSON has none that both stores agree on.
pub(super) fn has_order(kind: ColumnType) -> bool {
    !matches!(kind.field(), FieldType::Json | FieldType::List)
}

fn no_column(name: &str) -> Problem {
    Problem::unknown_field(format!("there is no column \"{name}\""), None)
}

/// Reads filters within the bounds of all queries.
#[derive(Debug)]
pub(super) struct Filters<'c> {
    columns: &'c [(String, Column)],
    conditions: usize,
    values: usize,
}

impl<'c> Filters<'c> {
    pub(super) fn of(columns: &'c [(String, Column)]) -> Self {
        Self { columns, conditions: 0, values: 0 }
    }

    /// Reads a filter; `null` and nothing let every row through.
    ///
    /// # Errors
    ///
    /// 400 with what is wrong.
    pub(super) fn read(&mut self, given: Option<&Json>) -> Result<Filter, Problem> {
        self.tree(given.unwrap_or(&Json::Null), 0)
    }

    fn tree(&mut self, given: &Json, depth: usize) -> Result<Filter, Problem> {
        if depth > limits::QUERY_DEPTH_MAX {
            return Err(Problem::parse(format!("a filter nests at most {} deep", limits::QUERY_DEPTH_MAX)));
        }
        let members = match given {
            Json::Null => return Ok(Filter::all()),
            Json::Object(members) => members,
            Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_) => return Err(Problem::parse("a filter is an object")),
        };
        let mut parts = Vec::new();
        for (name, given) in members {
            let list = |all: &mut Self| -> Result<Vec<Filter>, Problem> {
                let items = given.as_array().map_or(std::slice::from_ref(given), Vec::as_slice);
                items.iter().map(|item| all.tree(item, depth + 1)).collect()
            };
            match name.as_str() {
                "and" => parts.push(Filter::And(list(self)?)),
                // One of none, as pg_graphql has it: no condition at all.
                "or" => parts.extend(Some(list(self)?).filter(|some| !some.is_empty()).map(Filter::Or)),
                "not" => parts.push(self.tree(given, depth + 1)?.negated()),
                name => {
                    let (_, column) = self.columns.iter().find(|(known, _)| known == name).ok_or_else(|| no_column(name))?;
                    self.column(column, given, &mut parts)?;
                }
            }
        }
        Ok(Filter::And(parts))
    }

    fn column(&mut self, column: &Column, given: &Json, parts: &mut Vec<Filter>) -> Result<(), Problem> {
        for (name, given) in given.as_object().into_iter().flatten() {
            self.conditions += 1;
            if self.conditions > limits::QUERY_FILTERS_MAX {
                return Err(Problem::parse(format!("a query has at most {} filters", limits::QUERY_FILTERS_MAX)));
            }
            let is = |op| Filter::Is(Condition { operand: Operand::from(column.clone()), op });
            parts.push(match (name.as_str(), given.as_str()) {
                ("is", Some("NOT_NULL")) => is(Op::IsNull).negated(),
                _ => is(self.op(column, name, given)?),
            });
        }
        Ok(())
    }

    fn op(&mut self, column: &Column, name: &str, given: &Json) -> Result<Op, Problem> {
        let pattern = |insensitive| match given.as_str().filter(|pattern| ends_well(pattern)) {
            Some(pattern) => Ok(Op::Like { pattern: pattern.to_owned(), insensitive }),
            None => Err(Problem::parse(format!("{name}: a pattern is text, and does not end with a lone backslash"))),
        };
        Ok(match name {
            "eq" => Op::Eq(self.value(column, given)?),
            "neq" => Op::Neq(self.value(column, given)?),
            "gt" => Op::Gt(self.value(column, given)?),
            "gte" => Op::Gte(self.value(column, given)?),
            "lt" => Op::Lt(self.value(column, given)?),
            "lte" => Op::Lte(self.value(column, given)?),
            "in" => {
                let items = given.as_array().map_or(std::slice::from_ref(given), Vec::as_slice);
                Op::In(items.iter().map(|item| self.value(column, item)).collect::<Result<_, _>>()?)
            }
            "is" => match given.as_str() {
                Some("NULL") => Op::IsNull,
                _ => return Err(Problem::parse("is: takes NULL or NOT_NULL")),
            },
            "like" => pattern(false)?,
            "ilike" => pattern(true)?,
            "regex" | "iregex" => match given.as_str().map(|text| Regex::read(text, name == "iregex")) {
                Some(Ok(regex)) => Op::Match(regex),
                Some(Err(why)) => return Err(Problem::parse(format!("{name}: {why}"))),
                None => return Err(Problem::parse(format!("{name}: takes text"))),
            },
            "startsWith" => match given.as_str() {
                Some(text) => Op::Like { pattern: begins_with(text), insensitive: false },
                None => return Err(Problem::parse("startsWith: takes text")),
            },
            "contains" => Op::Contains(self.value(column, given)?),
            "containedBy" => Op::Contained(self.value(column, given)?),
            other => return Err(Problem::parse(format!("{other} is no operator"))),
        })
    }

    fn value(&mut self, column: &Column, given: &Json) -> Result<mobo_core::value::Value, Problem> {
        self.values += 1;
        if self.values > limits::QUERY_VALUES_MAX {
            return Err(Problem::parse(format!("the filters of a query have at most {} values", limits::QUERY_VALUES_MAX)));
        }
        // A counter is compared with a number.
        let kind = if column.kind.field() == FieldType::Counter { FieldType::Int } else { column.kind.field() };
        let read = value_from_json(&input(column, given.clone())?, kind);
        read.map_err(|why| Problem::bad_value(format!("{}: {}", column.name, why.0)))
    }
}

fn ends_well(pattern: &str) -> bool {
    pattern.chars().rev().take_while(|letter| *letter == '\\').count() % 2 == 0
}

fn begins_with(text: &str) -> String {
    let escaped = |letter: char| if ['%', '_', '\\'].contains(&letter) { format!("\\{letter}") } else { letter.to_string() };
    text.chars().map(escaped).collect::<String>() + "%"
}

/// Reads `[{title: AscNullsLast}, …]`.
///
/// # Errors
///
/// 400 with what is wrong.
pub(super) fn order(columns: &[(String, Column)], given: Option<&Json>) -> Result<Vec<Order>, Problem> {
    let given = given.filter(|given| !given.is_null());
    let items = given.map_or(&[][..], |given| given.as_array().map_or(std::slice::from_ref(given), Vec::as_slice));
    if items.len() > limits::QUERY_ORDER_MAX {
        return Err(Problem::parse(format!("orderBy has at most {} keys", limits::QUERY_ORDER_MAX)));
    }
    let read = |item: &Json| {
        let mut members = item.as_object().into_iter().flatten().filter(|(_, direction)| !direction.is_null());
        let (Some((name, direction)), None) = (members.next(), members.next()) else {
            return Err(Problem::parse("every item of orderBy names one column"));
        };
        let (_, column) = columns.iter().find(|(known, column)| known == name && has_order(column.kind)).ok_or_else(|| no_column(name))?;
        let word = direction.as_str().unwrap_or_default();
        Ok(Order {
            operand: column.clone().into(),
            through: None,
            descending: word.starts_with("Desc"),
            nulls_first: word.ends_with("First"),
        })
    };
    items.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use mobo_core::query::Parser;

    use super::*;

    fn columns() -> Vec<(String, Column)> {
        let column = |name: &str, kind| (super::super::names::camel(name), Column { name: name.to_owned(), kind: ColumnType::Field(kind) });
        vec![
            column("title", FieldType::Text),
            column("work_hours", FieldType::Counter),
            column("is_done", FieldType::Bool),
            column("meta", FieldType::Json),
        ]
    }

    /// A filter of GraphQL is the same as that one of the records API.
    #[track_caller]
    fn check(given: Json, want: &str) {
        let columns = columns();
        let own: Vec<Column> = columns.iter().map(|(_, column)| column.clone()).collect();
        let mut parser = Parser::new("t", &own);
        parser.filters(want).unwrap();
        assert_eq!(Filters::of(&columns).read(Some(&given)).unwrap(), parser.finish().filter, "{given}");
    }

    #[test]
    fn filters_are_those_of_every_other_query() {
        check(json!({ "title": { "eq": "a" } }), "title=eq.a");
        check(json!({ "title": { "like": "a%" }, "isDone": { "eq": true } }), "title=like.a%&is_done=eq.true");
        check(json!({ "workHours": { "gt": "7" } }), "work_hours=gt.7");
        check(json!({ "workHours": { "in": [1, "2"] } }), "work_hours=in.(1,2)");
        check(json!({ "title": { "is": "NULL" } }), "title=is.null");
        check(json!({ "meta": { "contains": "{\"a\": 1}" } }), "meta=cs.{\"a\":1}");
        check(json!({ "title": { "startsWith": "50%" } }), "title=like.50\\%%");
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        let columns = columns();
        let deep = (0..20).fold(json!({}), |inner, _| json!({ "not": inner }));
        let wide: Vec<Json> = (0..70).map(|n| json!({ "title": { "eq": n.to_string() } })).collect();
        for bad in [
            json!([]),
            json!({ "other": { "eq": 1 } }),
            json!({ "title": { "eq": 1 } }),
            json!({ "title": { "like": "a\\" } }),
            json!({ "title": { "is": "MAYBE" } }),
            json!({ "title": { "startsWith": null } }),
            json!({ "workHours": { "eq": "many" } }),
            json!({ "meta": { "contains": "{" } }),
            deep,
            json!({ "or": wide }),
        ] {
            assert!(Filters::of(&columns).read(Some(&bad)).is_err(), "{bad}");
        }
        for bad in [json!([{ "title": "AscNullsLast", "isDone": "AscNullsLast" }]), json!([{ "meta": "AscNullsLast" }])] {
            assert!(order(&columns, Some(&bad)).is_err(), "{bad}");
        }
    }
}
