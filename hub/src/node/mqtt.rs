//! The part that takes devices over MQTT: behind the hub's own broker, or behind one that somebody else runs. It is optional: a hub without
//! it has its other links.

use std::net::SocketAddr;
use std::sync::Arc;

use mobo_adapters::broker::EmbeddedBroker;
use mobo_adapters::mqtt::{MqttListener, MqttSettings};
use mobo_core::kernel::{Check, ComponentSpec, Fault};
use mobo_core::limits;
use mobo_core::link::{LinkError, Listener};
use mobo_runtime::component::{BoxFuture, Component};
use mobo_runtime::config::Define;
use mobo_runtime::slot::Slot;
use mobo_runtime::tasks::Tasks;

use super::{Hub, MQTT, QUIC, STORE, VERSION, store_fault};
use crate::settings;

pub(super) struct MqttPart {
    hub: Arc<Hub>,
    open: Slot<Arc<Open>>,
    /// The real address of port 0, which a restart keeps.
    last: Slot<SocketAddr>,
}

#[derive(Debug)]
struct Open {
    listener: Arc<MqttListener>,
    /// None where somebody else runs the broker.
    broker: Option<EmbeddedBroker>,
}

fn fault(error: &LinkError) -> Fault {
    let (listen, url) = (settings::MQTT_LISTEN.definition().key, settings::MQTT_URL.definition().key);
    Fault::new(error.to_string(), format!("set {listen} to another address, or {url} to the broker that is there"))
}

impl MqttPart {
    pub(super) fn new(hub: Arc<Hub>) -> Self {
        Self { hub, open: Slot::default(), last: Slot::default() }
    }

    /// The broker that somebody else runs.
    fn foreign(&self) -> Option<String> {
        Some(self.hub.config.get(&settings::MQTT_URL)).filter(|url| !url.is_empty())
    }

    async fn open(&self) -> Result<Open, Fault> {
        let project = self.hub.opened().map_err(|error| store_fault(&error, ""))?.project;
        let start = |settings| MqttListener::start(&self.hub.keys, settings).map_err(|error| fault(&error));
        let settings = |broker, login, address| MqttSettings { broker, login, address, project, keepalive: limits::KEEPALIVE };
        if let Some(url) = self.foreign() {
            let nowhere = SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), 0);
            let listener = Arc::new(start(settings(url, ("mobo-hub".to_owned(), String::new()), nowhere))?);
            return Ok(Open { listener, broker: None });
        }
        let address = self.hub.config.get(&settings::MQTT_LISTEN);
        let last = self.last.get().filter(|last| address.port() == 0 && last.ip() == address.ip());
        let broker = match last {
            Some(last) => EmbeddedBroker::bind(last, &self.hub.keys, project).await.ok(),
            None => None,
        };
        let broker = match broker {
            Some(broker) => broker,
            None => EmbeddedBroker::bind(address, &self.hub.keys, project).await.map_err(|error| fault(&error))?,
        };
        self.last.fill(broker.address());
        let listener = Arc::new(start(settings(broker.url(), broker.hub_login(), broker.address()))?);
        Ok(Open { listener, broker: Some(broker) })
    }
}

impl Component for MqttPart {
    fn spec(&self) -> ComponentSpec {
        ComponentSpec::optional(MQTT, VERSION).needing([STORE, QUIC])
    }

    fn post(&self) -> BoxFuture<'_, Vec<Check>> {
        Box::pin(async move {
            if self.foreign().is_some() {
                return Vec::new();
            }
            let address = self.hub.config.get(&settings::MQTT_LISTEN);
            vec![match std::net::TcpListener::bind(address) {
                Ok(_) => Check::pass("MQTT address", format!("{address} is free")),
                Err(error) => {
                    let Fault { reason, advice } = fault(&LinkError::CannotListen { address, why: error.to_string() });
                    Check::fail("MQTT address", reason, advice)
                }
            }]
        })
    }

    fn start(&self, tasks: Tasks) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let open = Arc::new(self.open().await?);
            let shown = if open.broker.is_some() { open.listener.address().to_string() } else { open.listener.broker() };
            let sessions = self.hub.sessions().ok_or_else(|| Fault::new("the hub takes no sessions", "start link.quic first"))?;
            let listener = Arc::clone(&open.listener) as Arc<dyn Listener>;
            tasks.spawn("accept", sessions.listen(listener, (tasks.clone(), self.hub.clock)));
            self.hub.mqtt.fill(shown);
            self.open.fill(open);
            Ok(())
        })
    }

    fn listens(&self) -> Vec<String> {
        let own = self.open.get().filter(|open| open.broker.is_some());
        own.map(|open| format!("mqtt://{}", open.listener.address())).into_iter().collect()
    }

    fn stop(&self, _: tokio::time::Instant) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            self.hub.mqtt.take();
            if let Some(open) = self.open.take() {
                open.listener.close().await;
                if let Some(broker) = &open.broker {
                    broker.close().await;
                }
            }
            Ok(())
        })
    }
}
