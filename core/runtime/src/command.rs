//! What the commands of every node share: asking the running node, printing what it answers, and the verbs about settings.

mod settings;
mod sql;

use std::path::Path;
use std::process::ExitCode;

use serde_json::{Map, Value, json};

use crate::control::ControlClient;
use crate::output::{Failure, Format, Table, exit, print, print_json};

pub use settings::{check_config, load, pending, print_example, seal, show_config, write_example};
pub use sql::{SqlAnswer, SqlAnswers, sql};

/// Runs a future on this thread; for commands, which do one thing.
///
/// # Errors
///
/// When the system gives no event queue, and what the future fails with.
pub fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed(format!("cannot start: {error}"), "look at the limits of this user"))?;
    runtime.block_on(future)
}

/// Asks the node that runs in a folder.
///
/// # Errors
///
/// What the node refused with; exit code 3 when none is running.
pub fn ask(data_dir: &Path, verb: &str, args: Value) -> Result<Value, Failure> {
    block_on(async { Ok(ControlClient::connect(data_dir).await?.call(verb, args).await?) })
}

/// Tells the node that runs in a folder to stop, and waits until it is gone.
///
/// # Errors
///
/// As for [`ask`].
pub fn shutdown(data_dir: &Path) -> Result<(), Failure> {
    block_on(async {
        let mut client = ControlClient::connect(data_dir).await?;
        client.call("shutdown", json!({})).await?;
        client.closed().await;
        let folder = data_dir.to_owned();
        let gone = tokio::task::spawn_blocking(move || crate::data_dir::wait_until_free(&folder)).await;
        match gone {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Failure::failed(format!("cannot tell whether it has stopped: {error}"), "look with `status`")),
            Err(error) => Err(Failure::failed(error.to_string(), "look with `status`")),
        }
    })
}

/// Prints an answer: JSON as it is, or a table. A list of objects becomes rows; an object becomes name and value.
///
/// # Errors
///
/// When standard output cannot be written to.
pub fn show(format: Format, value: &Value) -> Result<(), Failure> {
    let printed = match format {
        Format::Json => print_json(value),
        Format::Table => print(&table(value)),
    };
    printed.map_err(|error| Failure::failed(format!("cannot print: {error}"), ""))
}

fn table(value: &Value) -> String {
    match value {
        Value::Array(rows) => rows_table(rows),
        Value::Object(object) => pairs_table(object),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => format!("{}\n", cell(value)),
    }
}

fn rows_table(rows: &[Value]) -> String {
    let mut header: Vec<&str> = Vec::new();
    for key in rows.iter().filter_map(Value::as_object).flat_map(Map::keys) {
        if !header.contains(&key.as_str()) {
            header.push(key);
        }
    }
    if header.is_empty() {
        return "nothing\n".to_owned();
    }
    let titles: Vec<String> = header.iter().map(|key| key.to_uppercase()).collect();
    let titles: Vec<&str> = titles.iter().map(String::as_str).collect();
    let mut table = Table::new(&titles);
    for row in rows {
        table.row(header.iter().map(|key| row.get(key).map_or_else(String::new, cell)));
    }
    table.to_string()
}

fn pairs_table(object: &Map<String, Value>) -> String {
    let mut table = Table::new(&["WHAT", "IS"]);
    for (key, value) in object {
        match value.as_array().filter(|items| items.iter().any(Value::is_object)) {
            Some(items) => items.iter().for_each(|item| table.row([key.clone(), cell(item)])),
            None => table.row([key.clone(), cell(value)]),
        }
    }
    table.to_string()
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        Value::Object(object) => object.iter().map(|(key, value)| format!("{key}={}", cell(value))).collect::<Vec<_>>().join(" "),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// The exit code that a `status` stands for.
#[must_use]
pub fn status_code(status: &Value) -> ExitCode {
    let healthy = status.get("health").and_then(Value::as_str) == Some("healthy");
    ExitCode::from(if healthy { exit::FINE } else { exit::FAILED })
}

/// The exit code that a health report stands for: `ok` in it decides.
#[must_use]
pub fn health_code(report: &Value) -> ExitCode {
    let ok = report.get("ok").and_then(Value::as_bool) == Some(true);
    ExitCode::from(if ok { exit::FINE } else { exit::FAILED })
}

/// The checks of a health report as a table for people: what, whether it is well, and the sentence.
#[must_use]
pub fn checks(report: &Value) -> Value {
    let checks = report.get("checks").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let row = |check: &Value| {
        let part = |key: &str| check.get(key).cloned().unwrap_or_default();
        let word = if part("ok") == Value::Bool(true) { "ok" } else { "FAILED" };
        json!({ "check": part("name"), "is": word, "detail": part("detail") })
    };
    Value::Array(checks.iter().map(row).collect())
}

/// What a list of refused things calls one of them: `7` for an entry, `m7` for a message of a sensor.
#[derive(Clone, Debug)]
pub struct RefusedName(pub Value);

impl std::str::FromStr for RefusedName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(n) = text.parse::<u64>() {
            return Ok(Self(json!(n)));
        }
        let is_message = text.strip_prefix('m').is_some_and(|n| n.parse::<u64>().is_ok());
        is_message.then(|| Self(json!(text))).ok_or("not a number of the list, such as 7, or m7 for a message")
    }
}
