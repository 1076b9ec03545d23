//! The part that hears plain sensors. It is optional: a device that hears none is a whole device.

use std::sync::Arc;

use mobo_core::ingest::Rules;
use mobo_core::kernel::{Check, ComponentSpec, Fault, Vital};
use mobo_runtime::component::{BoxFuture, Component};
use mobo_runtime::config::{Config, Define};
use mobo_runtime::tasks::Tasks;

use super::{Edge, INGEST, STORE, VERSION};
use crate::ingest::Ingest;
use crate::settings;

pub(super) struct IngestPart(pub(super) Arc<Edge>);

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

impl Component for IngestPart {
    fn spec(&self) -> ComponentSpec {
        ComponentSpec::optional(INGEST, VERSION).needing([STORE])
    }

    fn configure(&self, config: &Config) -> Result<(), Fault> {
        rules(config).map(drop)
    }

    fn post(&self) -> BoxFuture<'_, Vec<Check>> {
        Box::pin(async { Vec::new() })
    }

    fn start(&self, tasks: Tasks) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let ingest = Ingest {
                rules: rules(&self.0.config)?,
                broker: self.0.config.get(&settings::MQTT_INGEST_URL),
                client_id: format!("mobo-{}", self.0.keys.device()),
                store: self.0.store().map_err(|error| Fault::new(error.to_string(), "look at the store's part"))?,
                status: self.0.ingest.clone(),
            };
            tasks.spawn("sensors", ingest.run(tasks.stopping()));
            Ok(())
        })
    }

    fn health(&self) -> BoxFuture<'_, Vital> {
        let trouble = self.0.ingest.borrow().trouble();
        Box::pin(async { trouble.map_or(Vital::Fine, Vital::Worn) })
    }

    fn stop(&self, _: tokio::time::Instant) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }
}
