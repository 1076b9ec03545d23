//! What the nodes say: their records and samples through the API, and the hub's ledger.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};

use super::Witness;
use super::rules::{Loser, Rows, Samples, View, plain, sample};
use crate::demo::cluster::{self, HUB};
use crate::demo::collections::{NOTES, Shape, VITALS, WORK_ORDERS};
use crate::demo::http::Client;

/// Rows of one page.
const PAGE: usize = 1_000;

/// What a node shows through its API.
pub(super) fn api(node: &Witness, nodes: &[Witness]) -> anyhow::Result<View> {
    let mut client = Client::new(node.http, node.key.clone());
    let mut view = View { name: format!("{}, API", node.name), ..View::default() };
    for shape in [&WORK_ORDERS, &NOTES] {
        view.records.insert(shape.name.to_owned(), by_id(pages(&mut client, shape, "id")?)?);
    }
    view.samples = by_device(pages(&mut client, &VITALS, "at")?, node, nodes)?;
    Ok(view)
}

/// What lost, as the hub lists it.
pub(super) fn ledger(hub: &Witness) -> anyhow::Result<Vec<Loser>> {
    let (mut rows, mut after) = (Vec::new(), Value::Null);
    loop {
        let page = cluster::ask_for(&hub.folder, "conflict list", json!({ "after": after }))?;
        rows.extend(page.get("items").and_then(Value::as_array).context("the ledger is no list")?.iter().cloned());
        after = page.get("next").cloned().unwrap_or_default();
        if after.is_null() {
            break;
        }
    }
    let text = |row: &Value, key: &str| row.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let loser = |row: &Value| Loser {
        collection: text(row, "collection"),
        id: text(row, "id"),
        field: text(row, "field"),
        value: plain(row.get("loser").cloned().unwrap_or_default()),
    };
    Ok(rows.iter().map(loser).collect())
}

fn pages(client: &mut Client, shape: &Shape, order: &str) -> anyhow::Result<Vec<Map<String, Value>>> {
    let mut rows = Vec::new();
    loop {
        let path = format!("/rest/v1/{}?order={order}&limit={PAGE}&offset={}", shape.name, rows.len());
        let answer = client.send("GET", &path, None)?;
        let Value::Array(page) = answer.json() else { bail!("GET {path}: {} {}", answer.status, answer.text()) };
        let last = page.len() < PAGE;
        rows.extend(page.into_iter().filter_map(|row| if let Value::Object(row) = row { Some(row) } else { None }));
        if last {
            return Ok(rows);
        }
    }
}

/// Records by their ids, with numbers in one spelling.
pub(super) fn by_id(rows: Vec<Map<String, Value>>) -> anyhow::Result<Rows> {
    let mut by_id = Rows::new();
    for row in rows {
        let id = row.get("id").and_then(Value::as_str).context("a row has no id")?.to_owned();
        let row = row.into_iter().map(|(name, value)| (name, plain(value))).collect();
        if by_id.insert(id.clone(), row).is_some() {
            bail!("{id} is listed twice");
        }
    }
    Ok(by_id)
}

/// How often each sample is there, by the device that took it. The hub must have all devices', a device its own.
pub(super) fn by_device(rows: Vec<Map<String, Value>>, node: &Witness, nodes: &[Witness]) -> anyhow::Result<BTreeMap<String, Samples>> {
    let expected = nodes.iter().filter(|other| if node.name == HUB { other.name != HUB } else { other.name == node.name });
    let mut samples: BTreeMap<String, Samples> = expected.map(|other| (other.name.clone(), Samples::new())).collect();
    for mut row in rows {
        let device = row.get("device").and_then(Value::as_str).unwrap_or_default().to_owned();
        let taken_by = nodes.iter().find(|other| other.device == device).with_context(|| format!("nobody here is device {device}"))?;
        row.retain(|name, _| VITALS.fields.iter().any(|(field, _)| field == name));
        *samples.entry(taken_by.name.clone()).or_default().entry(sample(&row)).or_default() += 1;
    }
    Ok(samples)
}
