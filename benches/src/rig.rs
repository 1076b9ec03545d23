//! A hub, a relay in front of it, and devices: put together, filled, and waited for.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::http::Client;
use crate::node::{Launch, Node};
use crate::place::Binaries;
use crate::plan::{Kind, Plan};
use crate::postgres::Database;
use crate::records::{COLLECTION, definition};
use crate::relay::Relay;
use crate::report::{Report, say};

/// How often nodes are asked whether they are equal, once the devices have said that they are done: the error of a time that ends so.
pub(crate) const LOOK: Duration = Duration::from_millis(20);
/// How long nodes may take to become equal. A debug build with documents is slow.
const PATIENCE: Duration = Duration::from_secs(3_600);
/// How long a device may take to notice that its hub is away.
const NOTICE: Duration = Duration::from_secs(60);
/// Connections over which single writes go to one node: enough that its commits are shared.
const WRITERS: usize = 16;

/// What a run works with. The nodes end before their folder goes.
#[derive(Debug)]
pub(crate) struct Rig {
    /// The hub.
    pub(crate) hub: Node,
    /// The only way to it that devices know.
    pub(crate) relay: Relay,
    /// Its database, where that is Postgres.
    pub(crate) database: Option<Database>,
    binaries: Binaries,
    home: TempDir,
}

impl Rig {
    /// Boots a hub with the collection, and notes in the report which store it has.
    pub(crate) async fn start(plan: &Plan, binaries: &Binaries, report: &mut Report) -> anyhow::Result<Self> {
        let home = tempfile::Builder::new().prefix("mobo-bench.").tempdir()?;
        let database = Database::of(&plan.store).await?;
        let relay = Relay::start()?;
        let mut launch = Launch::new("hub", &binaries.hub, home.path())
            .set("quic.listen", "127.0.0.1:0")
            .set("mqtt.listen", "127.0.0.1:0")
            .set("quic.advertise", &relay.address.to_string());
        if let Some(database) = &database {
            launch = launch.set("store.url", &database.url);
        }
        let hub = launch.boot().await?;
        let status = hub.status().await?;
        let quic: SocketAddr = text(&status, "quic").parse().context("the hub has no QUIC address")?;
        relay.connect(quic);
        report.put("store", text(&status, "store"));
        report.put(
            "store_settings",
            match &database {
                Some(database) => database.words().await?,
                None => "synchronous FULL".to_owned(),
            },
        );
        hub.ask("collection create", definition(plan.kind)).await?;
        Ok(Self { hub, relay, database, binaries: binaries.clone(), home })
    }

    /// Boots a device, which has not joined.
    pub(crate) async fn newcomer(&self, name: &str) -> anyhow::Result<Node> {
        Launch::new(name, &self.binaries.edge, self.home.path()).set("link.transport", "quic").boot().await
    }

    /// Boots a device, joins it, and waits until it has what the hub has.
    pub(crate) async fn device(&self, name: &str) -> anyhow::Result<Node> {
        let device = self.newcomer(name).await?;
        self.join(&device).await?;
        self.converge(&[&device]).await?;
        Ok(device)
    }

    /// Joins a device to the hub.
    pub(crate) async fn join(&self, device: &Node) -> anyhow::Result<()> {
        let token = self.hub.ask("device invite", json!({ "name": device.name, "buckets": [] })).await?;
        device.ask("join", token).await?;
        Ok(())
    }

    /// Cuts the cable, and waits until each device has noticed.
    pub(crate) async fn cut(&self, devices: &[&Node]) -> anyhow::Result<()> {
        self.relay.cut();
        let deadline = Instant::now() + NOTICE;
        for device in devices {
            while link(&device.status().await?) != "offline" {
                if Instant::now() > deadline {
                    bail!("{} does not notice that its hub is away:\n{}", device.name, device.tail());
                }
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(())
    }

    /// Waits until each device is done with its sync, and all hold the same as the hub. Gives the hub's status then.
    pub(crate) async fn converge(&self, devices: &[&Node]) -> anyhow::Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        for device in devices {
            let left = deadline.saturating_duration_since(Instant::now());
            device.ask("sync", json!({ "timeout_ms": u64::try_from(left.as_millis()).unwrap_or(u64::MAX) })).await?;
        }
        let mut told = false;
        loop {
            let hub = self.hub.status().await?;
            let mut missing = None;
            for device in devices {
                let status = device.status().await?;
                if number(&status, "rejected") > 0 {
                    bail!("the hub rejected {} entries of {}:\n{}", number(&status, "rejected"), device.name, device.tail());
                }
                missing = missing.or_else(|| difference(&hub, &status).map(|what| format!("{}: {what}", device.name)));
            }
            let Some(missing) = missing else { return Ok(hub) };
            if Instant::now() > deadline {
                bail!("the nodes are not equal after {} s: {missing}\nThe hub's log:\n{}", PATIENCE.as_secs(), self.hub.tail());
            }
            if !std::mem::replace(&mut told, true) {
                say!("every device was drained at some point, and they are not equal yet: {missing}");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The process that stands for the database's, where that is on this machine and ours.
    pub(crate) fn database_pid(&self) -> Option<u32> {
        self.database.as_ref().and_then(|database| database.pid)
    }

    /// Stops everything in order.
    pub(crate) async fn finish(self, devices: Vec<Node>) -> anyhow::Result<()> {
        for device in devices {
            device.stop().await?;
        }
        self.hub.stop().await?;
        match self.database {
            Some(database) => database.remove().await,
            None => Ok(()),
        }
    }
}

/// Inserts records in arrays of at most `batch`; gives how many requests that took. What is too large for one entry is split.
pub(crate) async fn insert(client: &Client, records: &[Value], batch: usize) -> anyhow::Result<usize> {
    let path = format!("/rest/v1/{COLLECTION}");
    let (mut rest, mut batch, mut requests) = (records, batch.max(1), 0);
    if batch == 1 {
        let writes = records.iter().map(|record| (Method::POST, path.clone(), record.clone())).collect();
        return write_all(client, writes).await;
    }
    while !rest.is_empty() {
        let (now, later) = rest.split_at(batch.min(rest.len()));
        let body = Value::Array(now.to_vec()).to_string();
        let (status, answer) = client.send(Method::POST, &path, Some(body)).await?;
        match status {
            StatusCode::PAYLOAD_TOO_LARGE if batch > 1 => {
                batch /= 2;
                say!("an array of {} records is too large for one entry: going on with {batch}", now.len());
            }
            status if status.is_success() => {
                requests += 1;
                rest = later;
            }
            status => bail!("POST {path}: {status}: {}", String::from_utf8_lossy(&answer)),
        }
    }
    Ok(requests)
}

/// Sends single writes over several connections at once; gives how many there were.
pub(crate) async fn write_all(client: &Client, writes: Vec<(Method, String, Value)>) -> anyhow::Result<usize> {
    let count = writes.len();
    let share = count.div_ceil(WRITERS).max(1);
    let mut writers = JoinSet::new();
    let mut writes = writes.into_iter().peekable();
    while writes.peek().is_some() {
        let (client, own): (_, Vec<_>) = (client.clone(), writes.by_ref().take(share).collect());
        writers.spawn(async move {
            for (method, path, body) in own {
                client.write(method, &path, &body).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(written) = writers.join_next().await {
        written??;
    }
    Ok(count)
}

/// A text of a status.
pub(crate) fn text(status: &Value, key: &str) -> String {
    status.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// A number of a status.
pub(crate) fn number(status: &Value, key: &str) -> u64 {
    status.get(key).and_then(Value::as_u64).unwrap_or_default()
}

/// How many entries a device has written on its lane of state.
pub(crate) fn entries(status: &Value) -> u64 {
    let lanes = status.get("lanes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    lanes.iter().filter(|lane| number(lane, "lane") == 0).map(|lane| number(lane, "last")).sum()
}

/// `kind` as the hub's collection has it, for a narrator.
pub(crate) const fn noun(kind: Kind) -> &'static str {
    match kind {
        Kind::Table => "rows",
        Kind::Document => "documents",
    }
}

fn link(status: &Value) -> String {
    status.get("link").map(|link| text(link, "state")).unwrap_or_default()
}

/// What a device lacks of what the hub holds; none when they hold the same and nothing waits.
fn difference(hub: &Value, device: &Value) -> Option<String> {
    if number(device, "pending") > 0 {
        return Some(format!("{} entries pending", number(device, "pending")));
    }
    let buckets = |status: &Value| status.get("buckets").and_then(Value::as_array).cloned().unwrap_or_default();
    let held = buckets(device);
    if held.is_empty() {
        return Some("no bucket".to_owned());
    }
    held.iter().find_map(|bucket| {
        let same = buckets(hub).into_iter().find(|other| other.get("key") == bucket.get("key"));
        let equal = same
            .as_ref()
            .is_some_and(|other| other.get("digest") == bucket.get("digest") && number(other, "head") == number(bucket, "cursor"));
        (!equal).then(|| format!("holds {bucket}, the hub {}", same.unwrap_or_default()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_equal_when_digest_and_position_are_and_nothing_waits() {
        let hub = json!({ "buckets": [{ "key": "all", "head": 7, "digest": "aa" }] });
        let device = |cursor: u64, digest: &str, pending: u64| json!({ "pending": pending, "buckets": [{ "key": "all", "cursor": cursor, "digest": digest }] });
        for (device, want) in [
            (device(7, "aa", 0), None),
            (device(6, "aa", 0), Some("holds")),
            (device(7, "bb", 0), Some("holds")),
            (device(7, "aa", 1), Some("1 entries pending")),
            (json!({}), Some("no bucket")),
        ] {
            let found = difference(&hub, &device);
            assert_eq!(found.is_some(), want.is_some(), "{found:?}");
            assert!(found.unwrap_or_default().starts_with(want.unwrap_or_default()));
        }
    }
}
