//! The commands about the board itself, the same for every node: parts, health, events.

use std::path::Path;
use std::process::ExitCode;

use serde_json::{Map, Value, json};

use crate::command::{self, ask, block_on};
use crate::control::ControlClient;
use crate::output::{Failure, Format, print, print_json};

/// `component start|stop|restart NAME`.
///
/// # Errors
///
/// As for [`ask`].
pub fn component(data_dir: &Path, format: Format, (verb, name, cascade): (&str, &str, bool)) -> Result<ExitCode, Failure> {
    let answer = ask(data_dir, &format!("component {verb}"), json!({ "name": name, "cascade": cascade }))?;
    command::show(format, &answer)?;
    Ok(ExitCode::SUCCESS)
}

/// `component swap NAME ADDRESS`.
///
/// # Errors
///
/// As for [`ask`].
pub fn swap(data_dir: &Path, format: Format, name: &str, address: &str) -> Result<ExitCode, Failure> {
    let answer = ask(data_dir, "component swap", json!({ "name": name, "address": address }))?;
    command::show(format, &answer)?;
    Ok(ExitCode::SUCCESS)
}

/// `health report`: exit code 1 unless all is well.
///
/// # Errors
///
/// As for [`ask`].
pub fn health_report(data_dir: &Path, format: Format) -> Result<ExitCode, Failure> {
    let report = ask(data_dir, "health report", json!({}))?;
    match (format, report.get("components")) {
        (Format::Table, Some(parts)) => command::show(format, parts)?,
        _ => command::show(format, &report)?,
    }
    Ok(command::health_code(&report))
}

/// `health watch`: the report, and a line for each change, until the node stops or somebody interrupts.
///
/// # Errors
///
/// As for [`ask`].
pub fn health_watch(data_dir: &Path, format: Format) -> Result<ExitCode, Failure> {
    stream(data_dir, format, "health watch", json!({}))
}

/// `events tail`: `topic` and `replay` as given; every event from then on unless `follow` is false.
///
/// # Errors
///
/// As for [`ask`].
pub fn events_tail(data_dir: &Path, format: Format, (topic, replay, follow): (Option<&str>, usize, bool)) -> Result<ExitCode, Failure> {
    stream(data_dir, format, "events tail", json!({ "topic": topic, "replay": replay, "follow": follow }))
}

fn stream(data_dir: &Path, format: Format, verb: &str, args: Value) -> Result<ExitCode, Failure> {
    let mut printed = Ok(());
    block_on(async {
        let mut client = ControlClient::connect(data_dir).await?;
        let line = |event: Value| {
            let shown = match format {
                Format::Json => print_json(&event),
                Format::Table => print(&sentence(&event)),
            };
            if printed.is_ok() {
                printed = shown;
            }
        };
        client.stream(verb, args, line).await.map_err(Failure::from)
    })?;
    // A reader that has gone has read enough.
    drop(printed);
    Ok(ExitCode::SUCCESS)
}

/// One line for people: when, what, and its values.
fn sentence(event: &Value) -> String {
    let text = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or_default();
    let Some(holds) = event.get("data").and_then(Value::as_object) else {
        let parts = event.get("components").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let part = |part: &Value| {
            let text = |key: &str| part.get(key).and_then(Value::as_str).unwrap_or("-").to_owned();
            format!("{} {}", text("name"), text("health"))
        };
        return format!("{}: {}\n", text("health"), parts.iter().map(part).collect::<Vec<_>>().join(", "));
    };
    format!("{} {:<18} {}\n", text("at"), text("topic"), values(holds))
}

fn values(holds: &Map<String, Value>) -> String {
    let value = |(name, value): (&String, &Value)| match value {
        Value::Null => None,
        Value::String(text) => Some(format!("{name}={}", text.replace('\n', " "))),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => Some(format!("{name}={other}")),
    };
    holds.iter().filter_map(value).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_lines() {
        let event = json!({ "n": 1, "at": "2026-01-01T00:00:00Z", "topic": "health.changed", "priority": "high",
            "data": { "component": "store", "from": "healthy", "to": "failed", "detail": "a\nb", "n": 3, "x": null } });
        let want = "2026-01-01T00:00:00Z health.changed     component=store from=healthy to=failed detail=a b n=3\n";
        assert_eq!(sentence(&event), want);
        let report =
            json!({ "health": "failed", "components": [{ "name": "store", "health": "failed" }, { "name": "gate", "health": null }] });
        assert_eq!(sentence(&report), "failed: store failed, gate -\n");
    }
}
