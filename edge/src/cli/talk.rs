//! The commands that ask the running device.

use std::process::ExitCode;

use mobo_core::json;
use mobo_core::level::AckLevel;
use mobo_runtime::command::{self, ask};
use mobo_runtime::output::{Failure, Format};
use serde_json::{Value, json};

use super::{Common, Waiting};

/// Asks and prints.
pub(super) fn plain(common: &Common, verb: &str, args: Value) -> Result<ExitCode, Failure> {
    command::show(common.output, &ask(&common.data_dir, verb, args)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Parses what the user wrote before anybody is asked.
pub(super) fn write(
    common: &Common,
    verb: &str,
    (collection, id, waiting): (&str, Option<&str>, Waiting),
    given: &str,
) -> Result<ExitCode, Failure> {
    let value = json::read(given.as_bytes()).map_err(|error| {
        Failure::usage(format!("this is not JSON: {error}"), "write the fields like '{\"title\": \"Pump 7\", \"hours\": {\"$inc\": 2}}'")
    })?;
    written(common, verb, json!({ "collection": collection, "id": id, "value": value }), waiting)
}

/// Asks for a write, prints what became of it, and fails if it is not as safe as wanted.
pub(super) fn written(common: &Common, verb: &str, mut args: Value, waiting: Waiting) -> Result<ExitCode, Failure> {
    if let Some(args) = args.as_object_mut() {
        args.insert("wait".to_owned(), json!(waiting.wait.name()));
        args.insert("timeout_ms".to_owned(), json!(waiting.timeout * 1_000));
    }
    let done = ask(&common.data_dir, verb, args)?;
    command::show(common.output, &done)?;
    let reached = done.get("ack").and_then(Value::as_str).and_then(|word| word.parse::<AckLevel>().ok());
    if reached.is_none_or(|level| level >= waiting.wait) || done.get("changed") == Some(&json!(false)) {
        return Ok(ExitCode::SUCCESS);
    }
    let level = reached.unwrap_or(AckLevel::Local);
    let message = format!("the write is done and kept here; after {} s it is {level}, not {}", waiting.timeout, waiting.wait);
    Err(Failure::failed(message, "it goes on by itself: `mobo-edge status` says what is pending, and how the link is"))
}

/// Writes a refused entry again, corrected where fields are given.
pub(super) fn retry(common: &Common, n: &Value, given: Option<&str>) -> Result<ExitCode, Failure> {
    let value = given.map(|given| json::read(given.as_bytes())).transpose().map_err(|error| {
        Failure::usage(format!("this is not JSON: {error}"), "write the corrected fields like '{\"site\": \"plant-4\"}'")
    })?;
    plain(common, "quarantine retry", json!({ "n": n, "value": value }))
}

pub(super) fn status(common: &Common) -> Result<ExitCode, Failure> {
    let status = ask(&common.data_dir, "status", json!({}))?;
    command::show(common.output, &status)?;
    Ok(command::status_code(&status))
}

pub(super) fn shutdown(common: &Common) -> Result<ExitCode, Failure> {
    command::shutdown(&common.data_dir)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn health(common: &Common) -> Result<ExitCode, Failure> {
    let report = ask(&common.data_dir, "health check", json!({}))?;
    match common.output {
        Format::Json => command::show(common.output, &report)?,
        Format::Table => command::show(common.output, &command::checks(&report))?,
    }
    Ok(command::health_code(&report))
}
