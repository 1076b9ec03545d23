//! Values in a query: text, read by the type of their column.

use axum::http::StatusCode;
use mobo_core::json::value_from_json;
use mobo_core::query::{Column, ColumnType};
use mobo_core::schema::FieldType;
use mobo_core::value::Value;
use serde_json::Value as Json;

use crate::problem::Problem;

/// The value that `text` is in that column.
///
/// # Errors
///
/// 400 when it is none of its type, with what would be.
pub(super) fn parse(column: &Column, text: &str) -> Result<Value, Problem> {
    let kind = match column.kind {
        ColumnType::Key => FieldType::Text,
        ColumnType::Field(kind) => kind,
    };
    let parsed = match kind {
        FieldType::Int | FieldType::Counter => text.parse().ok().map(Value::Int),
        FieldType::Float => text.parse().ok().and_then(Value::float),
        FieldType::Bool => match text.to_ascii_lowercase().as_str() {
            "true" | "t" => Some(Value::Bool(true)),
            "false" | "f" => Some(Value::Bool(false)),
            _ => None,
        },
        FieldType::Json | FieldType::List => Value::json(text),
        FieldType::Text | FieldType::Timestamp | FieldType::Bytes => value_from_json(&Json::from(text), kind).ok(),
    };
    parsed.ok_or_else(|| {
        let problem = Problem::bad_value(format!("{}: \"{}\" is not {}", column.name, shown(text), wanted(kind)));
        let has_plus = matches!(kind, FieldType::Timestamp | FieldType::Bytes) && text.contains(' ');
        if has_plus { problem.hint("a + in a query is a space: write %2B") } else { problem }
    })
}

/// Refuses what has no order.
///
/// # Errors
///
/// 400 for a greater or less on JSON.
pub(super) fn comparable(column: &Column, operator: &str) -> Result<(), Problem> {
    let has_order = !matches!(column.kind, ColumnType::Field(FieldType::Json | FieldType::List));
    if has_order || matches!(operator, "eq" | "neq") {
        return Ok(());
    }
    let message = format!("operator does not exist: {operator} on the JSON column \"{}\"", column.name);
    Err(Problem::new(StatusCode::BAD_REQUEST, "42883", "No such operator", message).hint("JSON is equal or not; it has no order"))
}

fn wanted(kind: FieldType) -> &'static str {
    match kind {
        FieldType::Text => "text without U+0000 of a length that a field can have",
        FieldType::Int | FieldType::Counter => "an integer of 64 bits",
        FieldType::Float => "a finite number",
        FieldType::Bool => "true or false",
        FieldType::Timestamp => "a time with its offset, such as 2026-02-03T04:05:06.789Z",
        FieldType::Json | FieldType::List => "JSON",
        FieldType::Bytes => "standard base64",
    }
}

fn shown(text: &str) -> String {
    let shown: String = text.chars().take(40).flat_map(char::escape_default).collect();
    if text.chars().nth(40).is_some() { format!("{shown}…") } else { shown }
}
