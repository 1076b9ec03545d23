//! `column::type` in a select list: a small list of types, the same on every node.

use serde_json::Value as Json;

use super::jsonb_text;
use crate::json::{integer, value_to_json};
use crate::schema::FieldType;
use crate::value::Value;

/// A type that a selected column can be turned into.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cast {
    /// `text`
    Text,
    /// `int`: a 64-bit integer. A fraction is rounded to the nearest, and half of one to the even.
    Int,
    /// `float`
    Float,
    /// `bool`
    Bool,
    /// `json`: text is read as JSON.
    Json,
}

impl Cast {
    /// The type for a word of SQL; `None` for one that is not of the list.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "text" | "varchar" => Self::Text,
            "int" | "integer" | "int8" | "bigint" | "int4" | "int2" | "smallint" => Self::Int,
            "float" | "float8" | "float4" | "real" | "numeric" | "decimal" => Self::Float,
            "bool" | "boolean" => Self::Bool,
            "json" | "jsonb" => Self::Json,
            _ => return None,
        })
    }

    /// The words that people use most.
    pub const NAMES: &str = "text, int, float, bool and json";

    /// A value of a field of type `kind` as JSON of this type; null stays null.
    ///
    /// # Errors
    ///
    /// A sentence, when there is no such value of this type.
    pub fn apply(self, value: &Value, kind: FieldType) -> Result<Json, String> {
        let given = value_to_json(value, kind);
        let text = match &given {
            Json::Null => return Ok(Json::Null),
            Json::String(text) => text.clone(),
            Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_) => jsonb_text(&given),
        };
        let done = match self {
            Self::Text => Some(Json::from(text.as_str())),
            Self::Int => int(&given, text.trim()),
            Self::Float => text.trim().parse::<f64>().ok().filter(|number| number.is_finite()).map(Json::from),
            Self::Bool => bool(&given, text.trim()),
            Self::Json if given.is_string() && kind == FieldType::Text => serde_json::from_str(&text).ok(),
            Self::Json => Some(given),
        };
        done.ok_or_else(|| format!("invalid input syntax for type {}: \"{}\"", self.name(), shown(&text)))
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Int => "bigint",
            Self::Float => "double precision",
            Self::Bool => "boolean",
            Self::Json => "json",
        }
    }
}

fn int(given: &Json, text: &str) -> Option<Json> {
    match given {
        Json::Bool(value) => Some(Json::from(i64::from(*value))),
        Json::Number(number) => integer(given).or_else(|| integer(&Json::from(number.as_f64()?.round_ties_even()))).map(Json::from),
        Json::Null | Json::String(_) | Json::Array(_) | Json::Object(_) => text.parse::<i64>().ok().map(Json::from),
    }
}

fn bool(given: &Json, text: &str) -> Option<Json> {
    match given {
        Json::Bool(value) => Some(Json::Bool(*value)),
        Json::Number(_) => integer(given).map(|number| Json::Bool(number != 0)),
        Json::Null | Json::String(_) | Json::Array(_) | Json::Object(_) => match text.to_ascii_lowercase().as_str() {
            "true" | "t" | "yes" | "on" | "1" => Some(Json::Bool(true)),
            "false" | "f" | "no" | "off" | "0" => Some(Json::Bool(false)),
            _ => None,
        },
    }
}

fn shown(text: &str) -> String {
    text.chars().take(40).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_change_their_type_or_say_why_not() {
        let text = |text: &str| Value::Text(text.to_owned());
        for (cast, value, kind, want) in [
            (Cast::Text, Value::Int(7), FieldType::Int, Some(json!("7"))),
            (Cast::Text, Value::Bool(true), FieldType::Bool, Some(json!("true"))),
            (Cast::Text, Value::Null, FieldType::Text, Some(json!(null))),
            (Cast::Int, text(" 12 "), FieldType::Text, Some(json!(12))),
            (Cast::Int, Value::Float(2.5), FieldType::Float, Some(json!(2))),
            (Cast::Int, text("1.5"), FieldType::Text, None),
            (Cast::Float, text("1e3"), FieldType::Text, Some(json!(1000.0))),
            (Cast::Float, text("x"), FieldType::Text, None),
            (Cast::Bool, text("Yes"), FieldType::Text, Some(json!(true))),
            (Cast::Bool, Value::Int(0), FieldType::Int, Some(json!(false))),
            (Cast::Json, text("[1]"), FieldType::Text, Some(json!([1]))),
            (Cast::Json, text("["), FieldType::Text, None),
            (Cast::Text, Value::Json("{\"a\":[1,2]}".to_owned()), FieldType::Json, Some(json!("{\"a\": [1, 2]}"))),
        ] {
            assert_eq!(cast.apply(&value, kind).ok(), want, "{cast:?} {value:?}");
        }
    }
}
