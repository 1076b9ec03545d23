//! The part that hears plain sensors. It is optional: a device that hears none is a whole device.

use std::sync::{Arc, Mutex, PoisonError};

use mobo_core::ingest::Rules;
use mobo_core::kernel::{Check, ComponentSpec, Fault, Vital};
use mobo_runtime::component::{BoxFuture, Component};
use mobo_runtime::config::{Config, Define};
use mobo_runtime::tasks::Tasks;

use super::{Edge, INGEST, STORE, VERSION};
use crate::ingest::Ingest;
use crate::settings;

pub(super) struct IngestPart {
    edge: Arc<Edge>,
    rules: Mutex<Rules>,
}

/// The rules of the settings.
///
/// # Errors
///
/// A [`Fault`] that names the line.
pub fn rules(config: &Config) -> Result<Rules, Fault> {
    Rules::parse(&config.get(&settings::MQTT_INGEST)).map_err(|error| {
        let advice = "write each rule in a line of its own, as in: zigbee2mqtt/{sensor} -> climate sensor={sensor} *=$";
        Fault::new(format!("{}, {error}", settings::MQTT_INGEST.definition().key), advice)
    })
}

impl IngestPart {
    pub(super) fn new(edge: Arc<Edge>) -> Self {
        Self { edge, rules: Mutex::default() }
    }
}

impl Component for IngestPart {
    fn spec(&self) -> ComponentSpec {
        ComponentSpec::optional(INGEST, VERSION).needing([STORE])
    }

    fn configure(&self, config: &Config) -> Result<(), Fault> {
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = rules(config)?;
        Ok(())
    }

    fn post(&self) -> BoxFuture<'_, Vec<Check>> {
        Box::pin(async { Vec::new() })
    }

    fn start(&self, tasks: Tasks) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let ingest = Ingest {
                rules: self.rules.lock().unwrap_or_else(PoisonError::into_inner).clone(),
                broker: self.edge.config.get(&settings::MQTT_INGEST_URL),
                client_id: format!("mobo-{}", self.edge.keys.device()),
                store: self.edge.store().map_err(|error| Fault::new(error.to_string(), "look at the store's part"))?,
                status: self.edge.ingest.clone(),
            };
            tasks.spawn("sensors", ingest.run(tasks.stopping()));
            Ok(())
        })
    }

    fn health(&self) -> BoxFuture<'_, Vital> {
        let trouble = self.edge.ingest.borrow().trouble();
        Box::pin(async { trouble.map_or(Vital::Fine, Vital::Worn) })
    }

    fn stop(&self, _: tokio::time::Instant) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }
}
