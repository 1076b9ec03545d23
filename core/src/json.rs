//! Values as JSON: what the API takes and gives, and what a command line prints. One place for both kinds of record.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;

use crate::limits;
use crate::rfc3339;
use crate::schema::FieldType;
use crate::value::Value;

mod read;

pub use read::read;

/// What is wrong with a JSON value for its field, and what would do. The caller names the field.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct JsonError(pub String);

/// The value that a JSON value is in a field of type `kind`; null is [`Value::Null`] everywhere.
///
/// An int takes every number without a fraction, a counter the same, a timestamp RFC 3339 text with any offset, bytes standard base64,
/// a list an array, and json anything.
///
/// # Errors
///
/// [`JsonError`] when the JSON value is of another type or over a limit.
pub fn value_from_json(given: &Json, kind: FieldType) -> Result<Value, JsonError> {
    if given.is_null() {
        return Ok(Value::Null);
    }
    let value = match kind {
        FieldType::Text => given.as_str().and_then(Value::text),
        FieldType::Int | FieldType::Counter => integer(given).map(Value::Int),
        FieldType::Float => given.as_f64().and_then(Value::float),
        FieldType::Bool => given.as_bool().map(Value::Bool),
        FieldType::Timestamp => given.as_str().and_then(rfc3339::parse).map(Value::Timestamp),
        FieldType::Bytes => given.as_str().and_then(|text| Value::bytes(&STANDARD.decode(text).ok()?)),
        FieldType::List if !given.is_array() => None,
        FieldType::List | FieldType::Json => Value::json(&given.to_string()),
    };
    value.ok_or_else(|| JsonError(format!("takes {}, not {}", wanted(kind), shown(given))))
}

/// The JSON of the value of a field of type `kind`. A reader can rely on the type: a value of another one is null.
#[must_use]
pub fn value_to_json(value: &Value, kind: FieldType) -> Json {
    match (kind, value) {
        (FieldType::Bool, Value::Bool(value)) => Json::Bool(*value),
        (FieldType::Int | FieldType::Counter, Value::Int(number)) => Json::from(*number),
        (FieldType::Float, Value::Float(number)) => Json::from(*number),
        (FieldType::Text, Value::Text(text)) => Json::from(text.as_str()),
        (FieldType::Bytes, Value::Bytes(bytes)) => Json::from(STANDARD.encode(bytes)),
        (FieldType::Timestamp, Value::Timestamp(us)) => Json::from(rfc3339::format(*us)),
        (FieldType::Json | FieldType::List, Value::Json(text)) => serde_json::from_str(text).unwrap_or(Json::Null),
        _ => Json::Null,
    }
}

/// The integer that a JSON number is, if it has no fraction and fits 64 bits: `3`, `3.0` and `3e2` alike.
#[must_use]
pub fn integer(given: &Json) -> Option<i64> {
    // Above 2^53 a float names no single integer.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if let Some(number) = given.as_i64() {
        return Some(number);
    }
    let number = given.as_f64().filter(|number| number.fract() == 0.0 && number.abs() <= EXACT)?;
    #[expect(clippy::cast_possible_truncation, reason = "an integer of at most 53 bits")]
    Some(number as i64)
}

fn wanted(kind: FieldType) -> String {
    let size = limits::VALUE_BYTES_MAX;
    match kind {
        FieldType::Text => format!("text of at most {size} bytes without U+0000"),
        FieldType::Int | FieldType::Counter => "an integer of 64 bits".to_owned(),
        FieldType::Float => "a number".to_owned(),
        FieldType::Bool => "true or false".to_owned(),
        FieldType::Timestamp => "a time such as \"2026-02-03T04:05:06.789Z\", in years 1 to 9999 and with its offset".to_owned(),
        FieldType::Bytes => format!("base64 text of at most {size} bytes"),
        FieldType::List => format!("an array of at most {size} bytes, {} levels deep at most, without U+0000", limits::NESTING_MAX),
        FieldType::Json => format!("JSON of at most {size} bytes, {} levels deep at most, without U+0000", limits::NESTING_MAX),
    }
}

/// The beginning of what was given: enough to recognise it, never a flood.
fn shown(given: &Json) -> String {
    const CHARS: usize = 40;
    let text = given.to_string();
    match text.char_indices().nth(CHARS) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_come_and_go() {
        let cases = [
            (FieldType::Text, json!("ä"), Value::Text("ä".into()), json!("ä")),
            (FieldType::Int, json!(-7), Value::Int(-7), json!(-7)),
            (FieldType::Int, json!(3.0), Value::Int(3), json!(3)),
            (FieldType::Int, json!(9_223_372_036_854_775_807_i64), Value::Int(i64::MAX), json!(i64::MAX)),
            (FieldType::Counter, json!(2), Value::Int(2), json!(2)),
            (FieldType::Float, json!(2), Value::Float(2.0), json!(2.0)),
            (FieldType::Float, json!(-0.0), Value::Float(0.0), json!(0.0)),
            (FieldType::Bool, json!(true), Value::Bool(true), json!(true)),
            (FieldType::Timestamp, json!("1970-01-01T01:00:00+01:00"), Value::Timestamp(0), json!("1970-01-01T00:00:00.000000Z")),
            (FieldType::Bytes, json!("AAE="), Value::Bytes(vec![0, 1]), json!("AAE=")),
            (FieldType::Json, json!({"b": 1, "a": [1.0]}), Value::Json("{\"a\":[1],\"b\":1}".into()), json!({"a": [1], "b": 1})),
            (FieldType::List, json!(["x"]), Value::Json("[\"x\"]".into()), json!(["x"])),
            (FieldType::Json, json!(null), Value::Null, json!(null)),
        ];
        for (kind, given, value, back) in cases {
            assert_eq!(value_from_json(&given, kind), Ok(value.clone()), "{given}");
            assert_eq!(value_to_json(&value, kind), back, "{given}");
        }
        assert_eq!(value_to_json(&Value::Text("x".into()), FieldType::Int), json!(null), "never a value of another type");
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_would() {
        let cases = [
            (FieldType::Text, json!(1), "text"),
            (FieldType::Text, json!("a\0"), "U+0000"),
            (FieldType::Text, json!("x".repeat(limits::VALUE_BYTES_MAX + 1)), "bytes"),
            (FieldType::Int, json!(1.5), "integer"),
            (FieldType::Int, json!("1"), "integer"),
            (FieldType::Int, json!(9_223_372_036_854_775_808_u64), "integer"),
            (FieldType::Float, json!("1"), "number"),
            (FieldType::Bool, json!(0), "true or false"),
            (FieldType::Timestamp, json!(0), "time"),
            (FieldType::Timestamp, json!("2026-02-03"), "offset"),
            (FieldType::Bytes, json!("A"), "base64"),
            (FieldType::List, json!({}), "array"),
            (FieldType::Json, json!({"a": "\0"}), "U+0000"),
        ];
        for (kind, given, want) in cases {
            let JsonError(why) = value_from_json(&given, kind).unwrap_err();
            assert!(why.contains(want) && why.len() < 300, "{kind:?}: {why}");
        }
    }
}
