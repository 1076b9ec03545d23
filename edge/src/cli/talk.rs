//! The commands that ask the running device.

use std::process::ExitCode;

use mobo_runtime::command::{self, ask};
use mobo_runtime::output::{Failure, Format};
use serde_json::{Value, json};

use super::Common;

/// Asks and prints.
pub(super) fn plain(common: &Common, verb: &str, args: Value) -> Result<ExitCode, Failure> {
    command::show(common.output, &ask(&common.data_dir, verb, args)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Parses what the user wrote before anybody is asked.
pub(super) fn write(common: &Common, verb: &str, (collection, id): (&str, Option<&str>), json: &str) -> Result<ExitCode, Failure> {
    let value: Value = serde_json::from_str(json).map_err(|error| {
        Failure::usage(format!("this is not JSON: {error}"), "write the fields like '{\"title\": \"Pump 7\", \"hours\": {\"$inc\": 2}}'")
    })?;
    plain(common, verb, json!({ "collection": collection, "id": id, "value": value }))
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
