//! `mobo demo clone`: a device's folder is copied, both run, and what both people wrote is there. The alarm is shown.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use mobo_runtime::output::{print, print_json};
use serde_json::{Value, json};

use super::cluster::{HUB, Node, ask, ask_for, same_everywhere};
use super::narrator::Narrator;
use super::wait::{Interrupt, Look, until};

const ORIGINAL: &str = "device-1";
const COPY: &str = "device-1-copy";
/// How long nodes that can reach each other may take to agree.
const AGREE_TIMEOUT: Duration = Duration::from_secs(60);

/// Plays the scene in `home`.
pub(super) fn play(home: &Path, interrupt: &Interrupt, as_json: bool) -> anyhow::Result<()> {
    let narrator = Narrator::new(0);
    let mut hub = Node::new(HUB, "hub", home).set("quic.listen", "127.0.0.1:0").set("mqtt.listen", "127.0.0.1:0");
    let mut original = Node::new(ORIGINAL, "edge", home);
    let mut copy = Node::new(COPY, "edge", home);
    hub.boot(interrupt)?;
    ask_for(&hub.folder, "collection create", json!({ "name": "work_orders", "fields": ["title:text", "hours:counter"] }))?;
    let token = ask_for(&hub.folder, "device invite", json!({ "name": ORIGINAL }))?;
    original.join(token.get("token").and_then(Value::as_str).context("the hub gives no token")?)?;
    original.boot(interrupt)?;
    narrator.say("a hub, and one device that has joined it");
    until("the collection on the device", AGREE_TIMEOUT, interrupt, || {
        Ok(match write(&original, "put", "wo-1", json!({ "title": "Check pump 7", "hours": 1 })) {
            Ok(()) => Look::Found(()),
            Err(error) => Look::NotYet(error.to_string()),
        })
    })?;
    agree(interrupt, &[&hub, &original])?;

    original.stop(interrupt)?;
    copy_folder(&original.folder, &copy.folder)?;
    narrator.say("its folder is copied, key and all, as somebody copies an SD card");
    original.boot(interrupt)?;
    copy.boot(interrupt)?;
    for (node, id, hours) in [(&original, "of-the-original", 10), (&copy, "of-the-copy", 100)] {
        write(node, "put", id, json!({ "title": format!("made on {}", node.name), "hours": 0 }))?;
        write(node, "patch", "wo-1", json!({ "hours": { "$inc": hours } }))?;
    }
    narrator.say("both run, and somebody writes on each: a record of their own, and the same counter");
    agree(interrupt, &[&hub, &original, &copy])?;
    let twice = until("the alarm", AGREE_TIMEOUT, interrupt, || {
        let status = hub.status()?;
        let twice = status.pointer("/devices/twice").and_then(Value::as_array).cloned().unwrap_or_default();
        Ok(if twice.is_empty() { Look::NotYet("no device appears twice".to_owned()) } else { Look::Found(twice) })
    })?;
    agree(interrupt, &[&hub, &original, &copy])?;
    let records = ask_for(&copy.folder, "list", json!({ "collection": "work_orders" }))?;
    let hours = ask_for(&copy.folder, "get", json!({ "collection": "work_orders", "id": "wo-1" }))?;
    ensure!(hours.get("hours") == Some(&json!(111)), "the counter should be 1 + 10 + 100: {hours}");
    narrator.end();
    let logs: Vec<Value> = [&original, &copy].iter().filter_map(|node| node.status().ok()?.get("incarnation").cloned()).collect();
    if as_json {
        return Ok(print_json(&json!({ "alarms": twice, "records": records, "hours": 111, "logs": logs }))?);
    }
    let alarm = twice.first().map(|alarm| format!("{} ({})", alarm["name"], alarm["found"])).unwrap_or_default();
    let sentence = format!(
        "\nalarm    device {alarm} appears twice: `mobo-hub status` names it, the hub's log says what to do\n\
         kept     what was written on both: of-the-original, of-the-copy, and 1 + 10 + 100 = 111 hours on wo-1\n\
         logs     {} and {}: each goes on under a log of its own",
        logs.first().unwrap_or(&Value::Null),
        logs.get(1).unwrap_or(&Value::Null)
    );
    Ok(print(&sentence)?)
}

fn write(node: &Node, verb: &str, id: &str, body: Value) -> anyhow::Result<()> {
    ask_for(&node.folder, verb, json!({ "collection": "work_orders", "id": id, "value": body })).map(drop)
}

fn agree(interrupt: &Interrupt, nodes: &[&Node]) -> anyhow::Result<()> {
    until("everybody to hold the same", AGREE_TIMEOUT, interrupt, || {
        // The hub, which is named first, last: what a device has pushed by then is in what the hub holds.
        let mut statuses: Vec<Value> = nodes.iter().rev().map(|node| ask(&node.folder, "status")).collect::<Result<_, _>>()?;
        statuses.reverse();
        Ok(same_everywhere(&statuses, true).map_or_else(Look::NotYet, Look::Found))
    })
}

fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}
