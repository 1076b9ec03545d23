//! Plain sensors, heard by a node: messages of a broker, by rules, as rows of its store.
//!
//! What rules mean is decided in [`mobo_core::ingest`]. A message is acknowledged to the broker when what it says is durable here, together
//! with the memory of its delivery; what the broker repeats because it has not heard that is known again.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use mobo_core::backoff::Backoff;
use mobo_core::ingest::{Arrival, Delivery, Row, Rules, Tally};
use mobo_core::limits;
use mobo_core::schema::{Kind, Schema};
use mobo_core::store::StoreError;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{SensorMessage, Sensors};

/// How the ingest is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct IngestStatus {
    /// True while the broker is heard.
    pub is_live: bool,
    /// True while another node of the same store hears it.
    pub is_standby: bool,
    /// What was taken since the boot.
    pub tally: Tally,
    /// Collections that the rules name and the node does not know.
    pub unknown: Vec<String>,
    /// Why the broker is not heard, or why the last batch has to wait.
    pub last_error: Option<String>,
}

impl IngestStatus {
    /// What `status` shows of it.
    #[must_use]
    pub fn show(&self) -> Value {
        let state = match (self.is_live, self.is_standby) {
            (true, _) => "live",
            (false, true) => "standby",
            (false, false) => "waiting",
        };
        let Tally { rows, refused, repeats, .. } = self.tally;
        json!({
            "state": state, "rows": rows, "refused": refused, "repeats": repeats, "unknown_collections": self.unknown,
            "last_error": self.last_error,
        })
    }

    /// What needs somebody to look; `None` when all is well.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        if !self.unknown.is_empty() {
            return Some(format!("mqtt.ingest names what this node does not know: {}", self.unknown.join(", ")));
        }
        self.last_error.as_ref().map(|error| format!("sensors are not heard: {error}"))
    }
}

/// Where rows go: a device's store, or a hub's.
pub trait Taker: Send + Sync {
    /// The collections, once they are others than those that are held.
    fn schema(&self, held: Option<&Schema>) -> impl Future<Output = Result<Arc<Schema>, StoreError>> + Send;

    /// Waits until it is this node that hears the broker.
    fn turn(&self) -> impl Future<Output = Result<(), StoreError>> + Send {
        async { Ok(()) }
    }

    /// Waits until it is not any more, and says why; for ever where no other node can.
    fn turn_over(&self) -> impl Future<Output = String> + Send {
        std::future::pending()
    }

    /// Gives the turn away, where it is this node's.
    fn end(&self) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// Forgets all deliveries: the broker has no session of this node, and repeats nothing.
    fn forget_deliveries(&self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Takes messages in: what they say, what is kept aside, and the memory of their deliveries are durable together, or nothing is.
    /// Deliveries up to `forget` are known to the broker. After an error the connection ends, and whatever was not acknowledged comes again.
    fn take(&self, arrivals: Vec<Arrival>, forget: u64) -> impl Future<Output = Result<Tally, StoreError>> + Send;
}

/// The ingest of a node.
#[derive(Debug)]
pub struct Ingest<T> {
    /// What messages mean.
    pub rules: Rules,
    /// Where they are.
    pub broker: String,
    /// Under which name the broker keeps what this node has not acknowledged.
    pub client_id: String,
    /// Where rows go.
    pub taker: T,
    /// How it is.
    pub status: watch::Sender<IngestStatus>,
    /// Gives 64 random bits, for pauses.
    pub random: fn() -> u64,
}

impl<T: Taker> Ingest<T> {
    /// Takes messages in until it is told to stop.
    pub async fn run(self, stopping: impl Future<Output = ()> + Send) {
        let (mut backoff, mut stopping) = (Backoff::new(limits::INGEST_PAUSE_MIN, limits::INGEST_PAUSE_MAX), pin!(stopping));
        loop {
            let why = tokio::select! {
                why = self.session(&mut backoff) => why,
                () = &mut stopping => break,
            };
            if let Some(why) = &why {
                tracing::info!(why, "the broker of the sensors is not heard");
            }
            let pause = if why.is_some() { backoff.next_pause((self.random)(), None) } else { Duration::ZERO };
            self.status.send_modify(|status| (status.is_live, status.last_error) = (false, why));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = &mut stopping => break,
            }
        }
        self.taker.end().await;
    }

    /// One connection; gives why it ended, `None` where the collections have changed, or another node's turn has come.
    async fn session(&self, backoff: &mut Backoff) -> Option<String> {
        let (schema, rules) = match self.known().await {
            Ok(known) => known,
            Err(error) => return Some(error.to_string()),
        };
        // Why the broker was not heard last stands until it is.
        self.status.send_modify(|status| status.is_standby = true);
        let turn = self.taker.turn().await;
        self.status.send_modify(|status| status.is_standby = false);
        if let Err(error) = turn {
            return Some(error.to_string());
        }
        let over = async {
            tokio::select! {
                why = self.changed(Arc::clone(&schema), &rules) => why,
                why = self.taker.turn_over() => {
                    tracing::info!(why, "another node hears the sensors");
                    None
                }
            }
        };
        self.hear((&schema, &rules), pin!(over), backoff).await
    }

    /// Takes what comes until that ends, or it is `over`, but never in the middle of taking; gives why.
    async fn hear(
        &self,
        (schema, rules): (&Schema, &Rules),
        mut over: Pin<&mut impl Future<Output = Option<String>>>,
        backoff: &mut Backoff,
    ) -> Option<String> {
        let filters = rules.filters();
        let opened = tokio::select! {
            opened = Sensors::open(&self.broker, &self.client_id, &filters) => opened,
            why = &mut over => return why,
        };
        let (mut sensors, resumed) = match opened {
            Ok(open) => open,
            Err(why) => return Some(why),
        };
        if !resumed && let Err(error) = self.taker.forget_deliveries().await {
            return Some(error.to_string());
        }
        self.status.send_modify(|status| (status.is_live, status.last_error) = (true, None));
        let (mut acknowledged, mut unsettled, mut forget) = (0, VecDeque::new(), 0);
        loop {
            let next = tokio::select! {
                next = sensors.next() => next,
                why = &mut over => return why,
            };
            let batch = match next {
                Ok(batch) => batch,
                Err(why) => return Some(why),
            };
            while let Some((_, remembered)) = unsettled.pop_front_if(|(acks, _): &mut (u64, u64)| *acks <= sensors.settled()) {
                forget = remembered;
            }
            let arrivals = batch.iter().map(|message| arrival(schema, rules, message)).collect();
            let tally = match self.taker.take(arrivals, forget).await {
                Ok(tally) => tally,
                Err(error) => return Some(error.to_string()),
            };
            self.status.send_modify(|status| {
                status.tally.rows += tally.rows;
                status.tally.refused += tally.refused;
                status.tally.repeats += tally.repeats;
                status.last_error = None;
            });
            for message in &batch {
                match sensors.acknowledge(message) {
                    Ok(acks) => acknowledged += acks,
                    Err(why) => return Some(why),
                }
            }
            unsettled.push_back((acknowledged, tally.remembered));
            backoff.reset();
        }
    }

    /// Waits until the node knows a collection that a rule names.
    async fn known(&self) -> Result<(Arc<Schema>, Rules), StoreError> {
        let mut schema = self.taker.schema(None).await?;
        loop {
            let rules = self.rules.about(|name| schema.by_name(name).is_some());
            let unknown = self.rules.collections().into_iter().filter(|name| schema.by_name(name).is_none());
            let unknown = unknown.map(str::to_owned).collect();
            self.status.send_modify(|status| status.unknown = unknown);
            if !rules.is_empty() {
                return Ok((schema, rules));
            }
            schema = self.taker.schema(Some(&schema)).await?;
        }
    }

    /// Ready when other rules hold than these.
    async fn changed(&self, mut held: Arc<Schema>, rules: &Rules) -> Option<String> {
        loop {
            held = match self.taker.schema(Some(&held)).await {
                Ok(later) => later,
                Err(error) => return Some(error.to_string()),
            };
            if self.rules.about(|name| held.by_name(name).is_some()) != *rules {
                return None;
            }
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
