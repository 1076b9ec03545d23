//! `mobo demo restore`: the hub is lost with everything that it had, and comes back from its vault and its device.

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use mobo_runtime::output::{print, print_json};
use serde_json::{Value, json};

use super::cluster::{DEVICES, HUB, Node, ask, ask_for, same_everywhere};
use super::narrator::Narrator;
use super::wait::{Interrupt, Look, until};

/// How long nodes that can reach each other may take to agree.
const AGREE_TIMEOUT: Duration = Duration::from_secs(60);
/// Records that are safe before the hub is lost.
const SAFE_RECORDS: u64 = 20;

/// Plays the scene in `home`.
pub(super) fn play(home: &Path, interrupt: &Interrupt, as_json: bool) -> anyhow::Result<()> {
    let narrator = Narrator::new(0);
    let [first, _] = DEVICES;
    let (vault, key) = (home.join("vault"), home.join("backup.key"));
    // The device must find the hub again: at the same address.
    let quic = UdpSocket::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let mut hub = Node::new(HUB, "hub", home).set("quic.listen", &quic).set("mqtt.listen", "127.0.0.1:0");
    hub = hub.set("backup.url", &vault.display().to_string());
    let mut device = Node::new(first, "edge", home);
    hub.boot(interrupt)?;
    ask_for(&hub.folder, "collection create", json!({ "name": "work_orders", "fields": ["title:text", "hours:counter"] }))?;
    let token = ask_for(&hub.folder, "device invite", json!({ "name": first }))?;
    device.join(token.get("token").and_then(Value::as_str).context("the hub gives no token")?)?;
    device.boot(interrupt)?;
    narrator.say("a hub that backs up to a folder, and one device that has joined it");
    write_until(&device, "wo-1", interrupt)?;
    for n in 2..=SAFE_RECORDS {
        write(&device, &format!("wo-{n}"))?;
    }
    until("everything to be safe", AGREE_TIMEOUT, interrupt, || {
        let lanes = device.status()?.get("lanes").and_then(Value::as_array).cloned().unwrap_or_default();
        let waits = lanes.iter().find(|lane| lane.get("safe") != lane.get("last"));
        Ok(waits.map_or(Look::Found(()), |lane| Look::NotYet(lane.to_string())))
    })?;
    fs::copy(hub.folder.join("backup.key"), &key).context("the backup key cannot be copied")?;
    narrator.say("what it wrote is safe: in the vault, read back, and the device knows; the backup key is kept elsewhere");

    hub.kill()?;
    fs::remove_dir_all(&hub.folder)?;
    write(&device, "written-meanwhile")?;
    narrator.say("THE HUB IS LOST: killed, and its folder deleted, with its keys; the device writes on");
    let restored = hub.restore(&vault, &key)?;
    narrator.say("restored on an empty folder, from the vault and the backup key alone");
    hub.boot(interrupt)?;
    until("the device to give back what it holds", AGREE_TIMEOUT, interrupt, || {
        let status = hub.status()?;
        let ended = status.get("recovering") == Some(&json!(false));
        Ok(if ended { Look::Found(()) } else { Look::NotYet("the hub recovers".to_owned()) })
    })?;
    until("both to hold the same", AGREE_TIMEOUT, interrupt, || {
        // The hub last: what the device has pushed by then is in what the hub holds.
        let device = ask(&device.folder, "status")?;
        let statuses = [ask(&hub.folder, "status")?, device];
        Ok(same_everywhere(&statuses, true).map_or_else(Look::NotYet, Look::Found))
    })?;
    let records = hub.status()?.get("records").and_then(Value::as_u64);
    ensure!(records == Some(SAFE_RECORDS + 1), "the hub should hold {} records: {records:?}", SAFE_RECORDS + 1);
    narrator.end();
    if as_json {
        return Ok(print_json(&json!({ "records": records, "restored": restored }))?);
    }
    let sentence = format!(
        "\nrestored  {} entries from the vault, under a new timeline: {}\n\
         back      all {} records, and the one that was written while there was no hub\n\
         said      before it begins, `mobo restore` says what comes back and what does not",
        restored.get("entries").unwrap_or(&Value::Null),
        restored.get("timeline").and_then(Value::as_str).unwrap_or_default(),
        SAFE_RECORDS
    );
    Ok(print(&sentence)?)
}

fn write_until(device: &Node, id: &str, interrupt: &Interrupt) -> anyhow::Result<()> {
    until("the collection on the device", AGREE_TIMEOUT, interrupt, || {
        Ok(match write(device, id) {
            Ok(()) => Look::Found(()),
            Err(error) => Look::NotYet(error.to_string()),
        })
    })
}

fn write(device: &Node, id: &str) -> anyhow::Result<()> {
    let value = json!({ "title": format!("order {id}"), "hours": 1 });
    ask_for(&device.folder, "put", json!({ "collection": "work_orders", "id": id, "value": value })).map(drop)
}
