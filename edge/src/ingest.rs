//! Plain sensors: messages of a broker, by rules, as rows of this device. The device is the store-and-forward that a sensor has not.
//!
//! What rules mean is decided in [`mobo_core::ingest`]. A message is acknowledged to the broker when what it says is durable here, and from
//! then on it goes the way of every local write; what the broker repeats because it has not heard that is known again.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use mobo_adapters::mqtt::{SensorMessage, Sensors};
use mobo_adapters::sqlite::edge::{Arrival, Change, Delivery, EdgeStore};
use mobo_core::backoff::Backoff;
use mobo_core::ingest::{Row, Rules};
use mobo_core::limits;
use mobo_core::schema::{Kind, Schema};
use mobo_runtime::entropy;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How the ingest is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct IngestStatus {
    /// True while the broker is heard.
    pub is_live: bool,
    /// Rows that were written since the boot.
    pub rows: u64,
    /// Messages that were kept aside since the boot.
    pub refused: u64,
    /// Messages that the broker repeated and that had been taken before.
    pub repeats: u64,
    /// Collections that the rules name and the device does not know.
    pub unknown: Vec<String>,
    /// Why the broker is not heard, or why the last batch has to wait.
    pub last_error: Option<String>,
}

impl IngestStatus {
    /// What `status` shows of it.
    #[must_use]
    pub fn show(&self) -> Value {
        json!({
            "state": if self.is_live { "live" } else { "waiting" }, "rows": self.rows, "refused": self.refused,
            "repeats": self.repeats, "unknown_collections": self.unknown, "last_error": self.last_error,
        })
    }

    /// What needs somebody to look; `None` when all is well.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        if !self.unknown.is_empty() {
            return Some(format!("mqtt.ingest names what this device does not know: {}", self.unknown.join(", ")));
        }
        self.last_error.as_ref().map(|error| format!("sensors are not heard: {error}"))
    }
}

/// The ingest of a device.
#[derive(Debug)]
pub struct Ingest {
    /// What messages mean.
    pub rules: Rules,
    /// Where they are.
    pub broker: String,
    /// Under which name the broker keeps what this device has not acknowledged.
    pub client_id: String,
    /// Where rows go.
    pub store: Arc<EdgeStore>,
    /// How it is.
    pub status: watch::Sender<IngestStatus>,
}

impl Ingest {
    /// Takes messages in until it is told to stop.
    pub async fn run(self, stopping: CancellationToken) {
        let mut backoff = Backoff::new(limits::INGEST_PAUSE_MIN, limits::INGEST_PAUSE_MAX);
        loop {
            let why = tokio::select! {
                why = self.session(&mut backoff) => why,
                () = stopping.cancelled() => return,
            };
            if let Some(why) = &why {
                tracing::info!(why, "the broker of the sensors is not heard");
            }
            let pause = if why.is_some() { backoff.next_pause(random(), None) } else { Duration::ZERO };
            self.status.send_modify(|status| (status.is_live, status.last_error) = (false, why));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stopping.cancelled() => return,
            }
        }
    }

    /// One connection; gives why it ended, `None` where the collections have changed.
    async fn session(&self, backoff: &mut Backoff) -> Option<String> {
        let (schema, rules) = match self.known().await {
            Ok(known) => known,
            Err(why) => return Some(why),
        };
        let (mut sensors, resumed) = match Sensors::open(&self.broker, &self.client_id, &rules.filters()).await {
            Ok(open) => open,
            Err(why) => return Some(why),
        };
        if !resumed && let Err(error) = self.store.forget_deliveries().await {
            return Some(error.to_string());
        }
        self.status.send_modify(|status| (status.is_live, status.last_error) = (true, None));
        let mut changed = pin!(self.changed(&rules));
        let (mut acknowledged, mut unsettled, mut forget) = (0, VecDeque::new(), 0);
        loop {
            let batch = tokio::select! {
                batch = sensors.next() => batch,
                () = &mut changed => return None,
            };
            let batch = match batch {
                Ok(batch) => batch,
                Err(why) => return Some(why),
            };
            while let Some((_, remembered)) = unsettled.pop_front_if(|(acks, _): &mut (u64, u64)| *acks <= sensors.settled()) {
                forget = remembered;
            }
            let remembered = self.take(&schema, &rules, &batch, forget).await;
            for message in &batch {
                match sensors.acknowledge(message) {
                    Ok(acks) => acknowledged += acks,
                    Err(why) => return Some(why),
                }
            }
            unsettled.push_back((acknowledged, remembered));
            backoff.reset();
        }
    }

    /// Waits until the device knows a collection that a rule names.
    async fn known(&self) -> Result<(Arc<Schema>, Rules), String> {
        let mut changes = self.store.watch();
        loop {
            let schema = self.store.schema().await.map_err(|error| error.to_string())?;
            let rules = self.rules.about(|name| schema.by_name(name).is_some());
            let unknown = self.rules.collections().into_iter().filter(|name| schema.by_name(name).is_none());
            let unknown = unknown.map(str::to_owned).collect();
            self.status.send_modify(|status| status.unknown = unknown);
            if !rules.is_empty() {
                return Ok((schema, rules));
            }
            next_schema(&mut changes).await;
        }
    }

    /// Ready when other rules hold than these.
    async fn changed(&self, rules: &Rules) {
        let mut changes = self.store.watch();
        loop {
            let schema = self.store.schema().await;
            if schema.is_ok_and(|schema| self.rules.about(|name| schema.by_name(name).is_some()) != *rules) {
                return;
            }
            next_schema(&mut changes).await;
        }
    }

    /// Writes what a batch says, however long that takes; gives the last number in the memory of deliveries.
    async fn take(&self, schema: &Schema, rules: &Rules, batch: &[SensorMessage], forget: u64) -> u64 {
        let arrivals: Vec<Arrival> = batch.iter().map(|message| arrival(schema, rules, message)).collect();
        let mut backoff = Backoff::new(limits::INGEST_PAUSE_MIN, limits::INGEST_PAUSE_MAX);
        loop {
            match self.store.ingest(arrivals.clone(), forget).await {
                Ok(done) => {
                    self.status.send_modify(|status| {
                        status.rows += done.rows;
                        status.refused += done.refused;
                        status.repeats += done.repeats;
                        status.last_error = None;
                    });
                    return done.remembered;
                }
                // The broker keeps what is not acknowledged.
                Err(error) => self.status.send_modify(|status| status.last_error = Some(error.to_string())),
            }
            tokio::time::sleep(backoff.next_pause(random(), None)).await;
        }
    }
}

/// A message by its rules.
fn arrival(schema: &Schema, rules: &Rules, message: &SensorMessage) -> Arrival {
    let is_stream = |row: &Row| schema.by_name(&row.collection).is_some_and(|collection| collection.kind == Kind::Stream);
    let rows = rules.take(message.topic(), message.payload(), None).map(|mut rows| {
        // What a broker has kept is no new sample: when it was, nobody knows.
        rows.retain(|row| !(message.is_retained() && is_stream(row)));
        rows
    });
    let delivery = message.delivery().map(|(packet, is_repeat)| Delivery { packet, is_repeat });
    Arrival { topic: message.topic().to_owned(), payload: message.payload().to_vec(), delivery, is_retained: message.is_retained(), rows }
}

fn random() -> u64 {
    entropy::bytes().map_or(0, u64::from_le_bytes)
}

async fn next_schema(changes: &mut tokio::sync::broadcast::Receiver<Change>) {
    loop {
        match changes.recv().await {
            Ok(Change::SchemaChanged) | Err(RecvError::Lagged(_)) => return,
            // The store is closed: this part is stopped before it.
            Err(RecvError::Closed) => return std::future::pending().await,
            Ok(_) => {}
        }
    }
}
