//! The commands that ask the running hub.

use std::process::ExitCode;

use mobo_runtime::command::{self, ask};
use mobo_runtime::output::{Failure, Format, print};
use serde_json::{Value, json};

use super::Common;

/// Asks and prints.
pub(super) fn plain(common: &Common, verb: &str, args: Value) -> Result<ExitCode, Failure> {
    command::show(common.output, &ask(&common.data_dir, verb, args)?)?;
    Ok(ExitCode::SUCCESS)
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

/// Retries a refused entry; the code says whether it was merged.
pub(super) fn retry(common: &Common, n: &Value) -> Result<ExitCode, Failure> {
    let answer = ask(&common.data_dir, "quarantine retry", json!({ "n": n }))?;
    command::show(common.output, &answer)?;
    let merged = answer.get("status").and_then(Value::as_str) == Some("retried");
    Ok(if merged { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints the token alone, so that it can go straight into another command.
pub(super) fn invite(common: &Common, args: &Value) -> Result<ExitCode, Failure> {
    line(common, "device invite", args, "token")
}

/// Asks, and prints one part of the answer alone.
pub(super) fn line(common: &Common, verb: &str, args: &Value, part: &str) -> Result<ExitCode, Failure> {
    let answer = ask(&common.data_dir, verb, args.clone())?;
    match (common.output, answer.get(part).and_then(Value::as_str)) {
        (Format::Table, Some(text)) => print(&format!("{text}\n")).map_err(|error| Failure::failed(error.to_string(), ""))?,
        _ => command::show(common.output, &answer)?,
    }
    Ok(ExitCode::SUCCESS)
}
