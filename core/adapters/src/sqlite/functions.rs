//! What queries need and SQLite does not have, or has otherwise than Postgres: each is one function of `mobo_core::query`.

use std::error::Error;
use std::fmt::Write as _;

use mobo_core::query::{Regex, contains, follow, jsonb_order, jsonb_text, like};
use rusqlite::Connection;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::ValueRef;
use serde_json::Value as Json;

/// Gives a connection the functions that [`crate::sql`] uses. NULL is answered with NULL.
///
/// # Errors
///
/// When SQLite has no memory for them.
pub fn add(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("mobo_json", 2, flags, |call| {
        Ok(found(call)?.and_then(|json| serde_json_canonicalizer::to_string(&json).ok()))
    })?;
    connection.create_scalar_function("mobo_text", 2, flags, |call| {
        Ok(found(call)?.and_then(|json| match json {
            Json::Null => None,
            Json::String(text) => Some(text),
            json @ (Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_)) => Some(jsonb_text(&json)),
        }))
    })?;
    connection.create_scalar_function("mobo_order", 2, flags, |call| {
        let (Some(value), Some(scalar)) = (json(call, 0)?, json(call, 1)?) else { return Ok(None) };
        Ok(jsonb_order(&value, &scalar).map(|order| order as i8))
    })?;
    connection.create_scalar_function("mobo_contains", 2, flags, |call| {
        let (Some(outer), Some(inner)) = (json(call, 0)?, json(call, 1)?) else { return Ok(None) };
        Ok(Some(contains(&outer, &inner)))
    })?;
    connection.create_scalar_function("mobo_like", 3, flags, |call| {
        let text = call.get_raw(1).as_str_or_null().unwrap_or_default();
        let pattern = call.get_raw(0).as_str().unwrap_or_default();
        Ok(text.map(|text| like(pattern, text, call.get_raw(2).as_i64() == Ok(1))))
    })?;
    connection.create_scalar_function("mobo_match", 2, flags, |call| {
        // Read once for all rows of a statement.
        let regex =
            call.get_or_create_aux(0, |pattern| Regex::read_spelled(pattern.as_str()?).map_err(Box::<dyn Error + Send + Sync>::from))?;
        Ok(call.get_raw(1).as_str_or_null().unwrap_or_default().map(|text| regex.fits(text)))
    })?;
    connection.create_scalar_function("mobo_cells", -1, flags, |call| {
        let cells: rusqlite::Result<Vec<String>> = (0..call.len()).map(|index| cell(call.get_raw(index))).collect();
        Ok(cells?.join(","))
    })?;
    Ok(())
}

/// A cell of a related row, as [`mobo_core::query::Select::embed`] reads it.
fn cell(value: ValueRef<'_>) -> rusqlite::Result<String> {
    Ok(match value {
        ValueRef::Null => "null".to_owned(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => Json::from(number).to_string(),
        ValueRef::Text(_) => Json::from(value.as_str()?).to_string(),
        ValueRef::Blob(bytes) => {
            bytes.iter().fold(String::from("\""), |mut hex, byte| {
                // Into a text, this does not fail.
                let _ = write!(hex, "{byte:02x}");
                hex
            }) + "\""
        }
    })
}

fn json(call: &Context<'_>, index: usize) -> rusqlite::Result<Option<Json>> {
    let text = call.get::<Option<String>>(index)?;
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
}

fn found(call: &Context<'_>) -> rusqlite::Result<Option<Json>> {
    let path: Vec<String> = match json(call, 1)? {
        Some(Json::Array(steps)) => steps.iter().filter_map(|step| step.as_str().map(str::to_owned)).collect(),
        _ => return Ok(None),
    };
    Ok(json(call, 0)?.and_then(|json| follow(&json, &path).cloned()))
}
