//! Values in a query: text, read by the type of their column.

use serde_json::Value as Json;

use super::scan::{split, unquote};
use super::{QueryError, Reason, Variables};
use crate::json::value_from_json;
use crate::schema::FieldType;
use crate::value::Value;

/// What the names of variables begin with.
pub(super) const VARIABLE: &str = "auth.";

/// The value that `text` is in an operand of that type; `name` is its name, for messages.
///
/// # Errors
///
/// When it is none of its type, with what would be.
pub fn read_value(name: &str, kind: FieldType, text: &str) -> Result<Value, QueryError> {
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
        let error = QueryError::new(Reason::BadValue, format!("{name}: \"{}\" is not {}", shown(text), wanted(kind)));
        let has_plus = matches!(kind, FieldType::Timestamp | FieldType::Bytes) && text.contains(' ');
        if has_plus { error.hint("a + in a query is a space: write %2B") } else { error }
    })
}

/// The items of `{a,"b c"}`.
///
/// # Errors
///
/// When it is not in braces.
pub(super) fn items(name: &str, text: &str) -> Result<Vec<(String, bool)>, QueryError> {
    let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
    let inner = inner.ok_or_else(|| QueryError::malformed(format!("{name}: write {{a,b}} for several values")))?;
    if inner.is_empty() {
        return Ok(Vec::new());
    }
    split(inner, ',')?.into_iter().map(|item| Ok((unquote(item)?, item.starts_with('"')))).collect()
}

/// What `{a,1,"1"}` or JSON says of a list or of JSON: an unquoted number, `true`, `false` and `null` are themselves, the rest is text. Where
/// there are variables, an unquoted name of one is what it stands for; `None` where one of them is not known.
///
/// # Errors
///
/// When it is neither, and for the name of a variable in JSON, where it would be text.
pub(super) fn list((name, kind): (&str, FieldType), text: &str, variables: Option<&Variables<'_>>) -> Result<Option<Value>, QueryError> {
    let in_braces = kind == FieldType::List && text.starts_with('{');
    if variables.is_some() && text.contains(VARIABLE) && !in_braces {
        return Err(QueryError::malformed(format!("{name}: in JSON, auth.NAME is text")).hint("compare a list with {auth.NAME}"));
    }
    if let Some(value) = Value::json(text) {
        return Ok(Some(value));
    }
    if !in_braces {
        return read_value(name, kind, text).map(Some);
    }
    let item = |(text, quoted): (String, bool)| match serde_json::from_str::<Json>(&text) {
        Ok(json @ (Json::Null | Json::Bool(_) | Json::Number(_))) if !quoted => Some(json),
        _ => match variables.filter(|_| !quoted && text.starts_with(VARIABLE)) {
            Some(variables) => variables(&text).map(Json::from),
            None => Some(Json::from(text)),
        },
    };
    // Every name is looked at, whether those before it are known or not.
    let read: Vec<Option<Json>> = items(name, text)?.into_iter().map(item).collect();
    let Some(array) = read.into_iter().collect::<Option<Vec<Json>>>() else { return Ok(None) };
    let value = Value::json(&Json::Array(array).to_string());
    value.map(Some).ok_or_else(|| QueryError::new(Reason::BadValue, format!("{name}: this list is too large")))
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
