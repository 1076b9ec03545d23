//! Values as sensors write them, as a field takes them. What does not fit stays as it is: the field's own check says what is wrong.

use serde_json::Value as Json;

use crate::rfc3339;
use crate::schema::FieldType;

/// The type of a sample's time.
pub(super) const AT: FieldType = FieldType::Timestamp;

/// Numbers above these are milliseconds, and microseconds, since 1970.
const MS_MIN: f64 = 1e11;
const US_MIN: f64 = 1e14;

/// Writes a value as a field of a type takes it.
pub(super) fn fit(value: &mut Json, kind: FieldType) {
    let fitted = match (kind, &*value) {
        (FieldType::Int | FieldType::Counter, Json::String(text)) => number(text).map(|number| whole(&number).unwrap_or(number)),
        (FieldType::Int | FieldType::Counter, Json::Number(_)) => whole(value),
        (FieldType::Float, Json::String(text)) => number(text),
        (FieldType::Bool, Json::String(text)) => truth(text).map(Json::Bool),
        (FieldType::Bool, Json::Number(number)) => number.as_u64().filter(|number| *number < 2).map(|number| Json::Bool(number == 1)),
        (FieldType::Text, Json::Number(number)) => Some(Json::String(number.to_string())),
        (FieldType::Text, Json::Bool(truth)) => Some(Json::String(truth.to_string())),
        (FieldType::Timestamp, Json::Number(number)) => number.as_f64().and_then(time).map(Json::String),
        (FieldType::Timestamp, Json::String(text)) => match text.trim().parse::<f64>() {
            Ok(number) => time(number).map(Json::String),
            Err(_) => zoned(text),
        },
        _ => None,
    };
    if let Some(fitted) = fitted {
        *value = fitted;
    }
}

fn number(text: &str) -> Option<Json> {
    let parsed = serde_json::from_str::<Json>(text.trim().trim_start_matches('+')).ok();
    parsed.filter(Json::is_number)
}

/// A float without a fraction, as an integer.
fn whole(value: &Json) -> Option<Json> {
    let float = value.as_f64().filter(|_| value.is_f64())?;
    // Up to here a float holds every integer.
    (float.fract() == 0.0 && float.abs() <= 9e15).then(|| Json::from(float as i64))
}

fn truth(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "on" | "true" | "1" | "yes" | "open" | "online" => Some(true),
        "off" | "false" | "0" | "no" | "closed" | "offline" => Some(false),
        _ => None,
    }
}

fn time(number: f64) -> Option<String> {
    let us_per_unit = if number >= US_MIN {
        1.0
    } else if number >= MS_MIN {
        1e3
    } else {
        1e6
    };
    let us = number * us_per_unit;
    (0.0..9e15).contains(&us).then(|| rfc3339::format(us as i64))
}

/// A time without a zone is UTC, as Tasmota's is by default.
fn zoned(text: &str) -> Option<Json> {
    let utc = format!("{text}Z");
    (rfc3339::parse(text).is_none() && rfc3339::parse(&utc).is_some()).then(|| Json::String(utc))
}
