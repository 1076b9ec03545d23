//! Messages of plain sensors, from a broker that somebody runs: each is acknowledged only when its taker says so (MQTT 3.1.1, QoS 1).
//!
//! The broker keeps a session for this client: what it has no acknowledgement for comes again, marked as a repeat, on the next connection.
//! A connection is never mended, but built anew; what this client was told and has not acknowledged is forgotten here, and not there.

use std::collections::VecDeque;
use std::time::Duration;

use mobo_core::limits;
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Outgoing, Packet, Publish, QoS, SubscribeReasonCode};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::client::failure_v4;
use crate::address::Address;

/// How long a broker may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);

/// A subscription that stands.
#[derive(Debug)]
pub struct Sensors {
    client: AsyncClient,
    inbox: mpsc::Receiver<Result<Publish, String>>,
    settled: watch::Receiver<u64>,
    _polling: JoinSet<()>,
}

/// A message that waits for its acknowledgement.
#[derive(Clone, Debug, PartialEq)]
pub struct SensorMessage(Publish);

impl SensorMessage {
    /// Its topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.0.topic
    }

    /// Its payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.0.payload
    }

    /// Its packet id, and whether it may have come before; `None` where nobody waits for an acknowledgement.
    #[must_use]
    pub fn delivery(&self) -> Option<(u16, bool)> {
        (self.0.qos != QoS::AtMostOnce).then_some((self.0.pkid, self.0.dup))
    }

    /// True for one that the broker has kept for whoever subscribes: it says nothing of when it was.
    #[must_use]
    pub fn is_retained(&self) -> bool {
        self.0.retain
    }
}

impl Sensors {
    /// Connects to a broker as `id` and subscribes to `filters`; the flag is true where the broker goes on with a session of this client.
    ///
    /// # Errors
    ///
    /// A sentence that says why not.
    pub async fn open(broker: &str, id: &str, filters: &[String]) -> Result<(Self, bool), String> {
        let address = Address::parse(broker, &[("mqtt", 1883)]).map_err(|error| error.to_string())?;
        let mut options = MqttOptions::new(id, address.socket_host(), address.port);
        if let Some((user, password)) = &address.login {
            options.set_credentials(user, password);
        }
        options
            .set_clean_session(false)
            .set_manual_acks(true)
            .set_keep_alive(limits::MQTT_KEEPALIVE)
            .set_max_packet_size(limits::INGEST_PACKET_BYTES_MAX, limits::PACKET_BYTES_MAX);
        // As long as there are packet ids: an acknowledgement never waits for room, whatever comes in meanwhile.
        let (client, mut events) = AsyncClient::new(options, limits::INGEST_IN_FLIGHT_MAX + filters.len());
        events.network_options.set_tcp_nodelay(true);
        events.network_options.set_connection_timeout(ANSWER_TIMEOUT.as_secs());
        let (out, inbox) = mpsc::channel(limits::INGEST_BATCH_MAX);
        let (told, settled) = watch::channel(0);
        let mut poll = Poll { events, early: VecDeque::new(), written: 0, at_ping: 0, told, heard: Instant::now() };
        let resumed = match timeout(ANSWER_TIMEOUT, poll.subscribe(&client, filters)).await {
            Ok(subscribed) => subscribed?,
            Err(_) => return Err("the broker does not answer".to_owned()),
        };
        let mut polling = JoinSet::new();
        polling.spawn(poll.run(out));
        Ok((Self { client, inbox, settled, _polling: polling }, resumed))
    }

    /// Waits for a message, and gives it with those that come with it, at most [`limits::INGEST_BATCH_MAX`].
    ///
    /// # Errors
    ///
    /// A sentence that says why the connection is over. What was not acknowledged comes again.
    pub async fn next(&mut self) -> Result<Vec<SensorMessage>, String> {
        let mut batch = vec![self.one().await?];
        let end = Instant::now() + limits::INGEST_GATHER;
        while batch.len() < limits::INGEST_BATCH_MAX {
            match timeout_at(end, self.inbox.recv()).await {
                Ok(Some(Ok(message))) => batch.push(SensorMessage(message)),
                // What was heard before the connection broke is not lost: it is not acknowledged, and comes again.
                Ok(Some(Err(why))) => return Err(why),
                Ok(None) | Err(_) => break,
            }
        }
        Ok(batch)
    }

    async fn one(&mut self) -> Result<SensorMessage, String> {
        let heard = self.inbox.recv().await.unwrap_or_else(|| Err("the connection to the broker is over".to_owned()));
        heard.map(SensorMessage)
    }

    /// Acknowledges a message; gives how many acknowledgements that are, 0 or 1.
    ///
    /// # Errors
    ///
    /// A sentence that says why the connection is over.
    pub fn acknowledge(&self, message: &SensorMessage) -> Result<u64, String> {
        if message.0.qos == QoS::AtMostOnce {
            return Ok(0);
        }
        self.client.try_ack(&message.0).map(|()| 1).map_err(|error| error.to_string())
    }

    /// How many acknowledgements of this connection the broker has certainly read: it has answered a ping that went out behind them.
    #[must_use]
    pub fn settled(&self) -> u64 {
        *self.settled.borrow()
    }
}

struct Poll {
    events: EventLoop,
    /// What came before the answers to the subscription.
    early: VecDeque<Publish>,
    /// Acknowledgements that went out.
    written: u64,
    /// Those that went out before the last ping.
    at_ping: u64,
    told: watch::Sender<u64>,
    heard: Instant,
}

impl Poll {
    async fn subscribe(&mut self, client: &AsyncClient, filters: &[String]) -> Result<bool, String> {
        let resumed = loop {
            if let Event::Incoming(Packet::ConnAck(answer)) = self.event().await? {
                break answer.session_present;
            }
        };
        for filter in filters {
            client.try_subscribe(filter, QoS::AtLeastOnce).map_err(|error| error.to_string())?;
        }
        let mut granted = 0;
        while granted < filters.len() {
            match self.event().await? {
                Event::Incoming(Packet::SubAck(answer)) => {
                    granted += 1;
                    if answer.return_codes.contains(&SubscribeReasonCode::Failure) {
                        return Err(
                            "the broker does not permit to hear one of the topics: see the rights that it gives this user".to_owned()
                        );
                    }
                }
                Event::Incoming(Packet::Publish(message)) => self.early.push_back(message),
                Event::Incoming(_) | Event::Outgoing(_) => {}
            }
        }
        Ok(resumed)
    }

    async fn run(mut self, out: mpsc::Sender<Result<Publish, String>>) {
        while let Some(message) = self.early.pop_front() {
            if out.send(Ok(message)).await.is_err() {
                return;
            }
        }
        loop {
            let said = match self.event().await {
                Ok(Event::Incoming(Packet::Publish(message))) => Ok(message),
                Ok(Event::Incoming(_) | Event::Outgoing(_)) => continue,
                Err(why) => Err(why),
            };
            let is_over = said.is_err();
            if out.send(said).await.is_err() || is_over {
                return;
            }
        }
    }

    /// The next event, and what it says of acknowledgements. A broker that gives no sign of life is gone.
    async fn event(&mut self) -> Result<Event, String> {
        let polled = timeout_at(self.heard + 3 * limits::MQTT_KEEPALIVE, self.events.poll()).await;
        let event = polled.map_err(|_| "the broker has fallen silent".to_owned())?.map_err(|error| failure_v4(&error).why())?;
        if matches!(event, Event::Incoming(_)) {
            self.heard = Instant::now();
        }
        match &event {
            Event::Outgoing(Outgoing::PubAck(_)) => self.written += 1,
            Event::Outgoing(Outgoing::PingReq) => self.at_ping = self.written,
            Event::Incoming(Packet::PingResp) => drop(self.told.send_replace(self.at_ping)),
            Event::Incoming(_) | Event::Outgoing(_) => {}
        }
        Ok(event)
    }
}
