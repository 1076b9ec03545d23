//! What the control socket is asked about the board itself, the same on every node: parts, health, events.

use std::sync::Arc;

use mobo_core::kernel::{Command, ComponentName, ComponentReport, Datum, DropRule, Filter, Health, Refusal, Stamped, TopicSpec};
use mobo_core::{limits, names, rfc3339};
use serde_json::{Map, Value, json};

use crate::bus::{Listener, Wants};
use crate::control::{ControlError, EventSink};
use crate::motherboard::{BoardHandle, BoardReport};

/// Answers a verb about the board; `None` for any other one.
pub async fn answer(board: &BoardHandle, verb: &str, args: &Value, out: &EventSink) -> Option<Result<Value, ControlError>> {
    Some(match verb {
        "component list" => Ok(components(board)),
        "component start" | "component stop" | "component restart" | "component swap" => command(board, verb, args).await,
        "health report" => Ok(health(board)),
        "health watch" => watch(board, out).await,
        "events tail" => tail(board, args, out).await,
        "events topics" => Ok(Value::Array(board.bus().topics().into_iter().map(topic).collect())),
        _ => return None,
    })
}

/// The parts as checks of `health check`: one that does not work fails it.
#[must_use]
pub fn checks(board: &BoardHandle) -> Vec<Value> {
    let check = |part: &ComponentReport| {
        let failing = part.health.is_some_and(|health| matches!(health, Health::Failed | Health::Critical));
        let word = part.health.map_or("not meant to work", Health::word);
        let detail = part.detail.as_ref().map_or_else(|| word.to_owned(), |detail| format!("{word}: {detail}"));
        json!({ "name": format!("component {}", part.name), "ok": !failing, "detail": detail })
    };
    board.report().components.iter().map(check).collect()
}

/// A line of `/readyz`: the name of a part, what keeps it from being ready, and what a person should know of it all the same.
pub type Line = (String, Result<(), String>, Option<String>);

/// The parts but `known`, as `/readyz` tells them: a required one that does not work is not ready, any other trouble is a note.
#[must_use]
pub fn readiness(report: &BoardReport, known: &ComponentName) -> Vec<Line> {
    let line = |part: &ComponentReport| {
        let word = part.health.map_or("stopped by an operator", Health::word);
        let why = part.detail.as_ref().map_or_else(|| word.to_owned(), |detail| format!("{word}: {detail}"));
        let out = part.required && part.health.is_none_or(|health| matches!(health, Health::Failed | Health::Critical));
        let is_well = part.health == Some(Health::Healthy);
        let state = if out { Err(why.clone()) } else { Ok(()) };
        (part.name.to_string(), state, (!is_well && !out).then_some(why))
    };
    report.components.iter().filter(|part| part.name != *known).map(line).collect()
}

fn components(board: &BoardHandle) -> Value {
    let report = board.report();
    let show = |part: &ComponentReport| {
        json!({
            "name": part.name.as_str(),
            "enabled": part.enabled,
            "state": part.state.word(),
            "health": part.health.map(Health::word),
            "since": rfc3339::format(board.wall_at(part.since).0),
            "listen": report.listens.get(&part.name).filter(|places| !places.is_empty()),
            "failures": part.failures,
            "circuit": if part.circuit_open { "open" } else { "closed" },
            "required": part.required,
            "needs": part.needs.iter().map(ComponentName::as_str).collect::<Vec<_>>(),
            "version": part.version,
            "detail": part.detail,
        })
    };
    Value::Array(report.components.iter().map(show).collect())
}

async fn command(board: &BoardHandle, verb: &str, args: &Value) -> Result<Value, ControlError> {
    let text = |key: &str| args.get(key).and_then(Value::as_str).unwrap_or_default();
    let bad =
        |error: mobo_core::kernel::BadComponentName| ControlError::usage("name", error.to_string(), "`component list` shows the names");
    let component = ComponentName::new(text("name")).map_err(bad)?;
    let cascade = args.get("cascade").and_then(Value::as_bool) == Some(true);
    let command = match verb {
        "component start" => Command::Start { component, cascade },
        "component stop" => Command::Stop { component, cascade },
        "component restart" => Command::Restart { component, cascade },
        _ => Command::Swap { component, address: text("address").to_owned() },
    };
    let done = board.command(command).await.map_err(|refusal| refused(&refusal))?;
    let report = board.report();
    let now = |name: &ComponentName| {
        let part = report.components.iter().find(|part| part.name == *name);
        json!({ "name": name.as_str(), "state": part.map(|part| part.state.word()), "said": done.said })
    };
    Ok(Value::Array(done.moved.iter().map(now).collect()))
}

fn refused(refusal: &Refusal) -> ControlError {
    let text = refusal.to_string();
    match refusal {
        Refusal::NoSuch { .. } => ControlError::no_such("no_such_component", text, "`component list` shows what there is"),
        Refusal::NeededBy { .. } | Refusal::NeedsFirst { .. } => {
            ControlError::failed("needed", text, "`component list` shows who needs whom")
        }
        Refusal::Kept { .. } | Refusal::NotSwapped { .. } => ControlError::failed("not_possible", text, "it works on as before"),
        Refusal::Failed { .. } => ControlError::failed("failed", text, "the log has more; it is tried again by itself"),
        Refusal::NotServing(_) | Refusal::NotRunning { .. } | Refusal::Overtaken { .. } | Refusal::Busy => {
            ControlError::failed("not_now", text, "try again when `status` says that the node serves")
        }
        Refusal::Stopping => ControlError::not_running(text, "ask again when it runs"),
    }
}

fn health(board: &BoardHandle) -> Value {
    let report = board.report();
    let show = |part: &ComponentReport| {
        json!({
            "name": part.name.as_str(), "health": part.health.map(Health::word), "state": part.state.word(), "required": part.required,
            "detail": part.detail,
        })
    };
    let parts: Vec<Value> = report.components.iter().map(show).collect();
    let word = report.health_word();
    json!({ "ok": word == "healthy", "health": word, "state": report.state.word(), "unclean_boot": report.unclean, "components": parts })
}

/// The report now, and every change from then on.
async fn watch(board: &BoardHandle, out: &EventSink) -> Result<Value, ControlError> {
    let wants = Wants { rule: DropRule::Newest, ..Wants::all("health watch").of(Filter::parse("health.*")) };
    let listener = listen(board, wants)?;
    if out.send(health(board)).await.is_err() {
        return Ok(Value::Null);
    }
    stream(listener, out).await
}

/// The last events, and, unless `follow` is false, every one from then on.
async fn tail(board: &BoardHandle, args: &Value, out: &EventSink) -> Result<Value, ControlError> {
    let named = args.get("topic").and_then(Value::as_str).unwrap_or_default();
    let replay = args.get("replay").and_then(Value::as_u64).and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
    let filter = Filter::parse(named);
    let topics = board.bus().topics();
    if !topics.iter().any(|topic| filter.takes(topic)) {
        let near = names::nearest(named, topics.iter().map(|topic| topic.name));
        let near = near.map(|near| format!("; perhaps you meant \"{near}\"")).unwrap_or_default();
        let hint = "`events topics` shows them; a family is written as component.*";
        return Err(ControlError::no_such("no_such_topic", format!("there is no topic \"{named}\"{near}"), hint));
    }
    // What a queue holds at once bounds a replay that goes on; the history alone is read past it.
    let past = replay.saturating_sub(limits::SUBSCRIBER_QUEUE_MAX);
    let follow = args.get("follow").and_then(Value::as_bool) != Some(false);
    if !follow {
        for stamped in board.bus().history(&filter, replay) {
            if out.send(show(&stamped)).await.is_err() {
                break;
            }
        }
        return Ok(Value::Null);
    }
    let wants = Wants { replay: replay - past, ..Wants::all("events tail").of(filter) };
    stream(listen(board, wants)?, out).await
}

fn listen(board: &BoardHandle, wants: Wants) -> Result<Listener, ControlError> {
    board
        .bus()
        .listen(wants)
        .map_err(|full| ControlError::failed("bus_full", full.to_string(), "end another `events tail` or `health watch`"))
}

async fn stream(mut listener: Listener, out: &EventSink) -> Result<Value, ControlError> {
    while let Some(stamped) = listener.recv().await {
        if out.send(show(&stamped)).await.is_err() {
            break;
        }
    }
    Ok(json!({ "dropped": listener.dropped() }))
}

/// An event for people and programs.
#[must_use]
pub fn show(stamped: &Arc<Stamped>) -> Value {
    let datum = |datum: &Datum| match datum {
        Datum::Absent => Value::Null,
        Datum::Text(text) => json!(text),
        Datum::Number(number) => json!(number),
        Datum::Flag(flag) => json!(flag),
    };
    let holds: Map<String, Value> = stamped.event.fields().map(|(name, value)| (name.to_owned(), datum(value))).collect();
    let topic = stamped.event.topic();
    json!({ "n": stamped.n, "at": rfc3339::format(stamped.at.0), "topic": topic.name, "priority": topic.priority.word(), "data": holds })
}

fn topic(topic: &TopicSpec) -> Value {
    let fields: Vec<String> = topic
        .fields
        .iter()
        .map(|field| format!("{}:{}{}", field.name, format!("{:?}", field.kind).to_lowercase(), if field.optional { "?" } else { "" }))
        .collect();
    json!({ "topic": topic.name, "priority": topic.priority.word(), "fields": fields, "when": topic.doc })
}
