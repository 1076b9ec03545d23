//! The part that hears plain sensors. It is optional: a device that hears none is a whole device.

use std::sync::Arc;

use mobo_adapters::mqtt::ingest::Ingest;
use mobo_core::kernel::{Check, ComponentSpec, Fault, Vital};
use mobo_runtime::component::{BoxFuture, Component};
use mobo_runtime::config::Config;
use mobo_runtime::ingest::{pause_bits, rules};
use mobo_runtime::tasks::Tasks;

use super::{Edge, INGEST, STORE, VERSION};
use crate::ingest::EdgeTaker;
use crate::settings;

pub(super) struct IngestPart(pub(super) Arc<Edge>);

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
            let store = self.0.store().map_err(|error| Fault::new(error.to_string(), "look at the store's part"))?;
            let ingest = Ingest {
                rules: rules(&self.0.config)?,
                broker: self.0.config.get(&settings::MQTT_INGEST_URL),
                client_id: format!("mobo-{}", self.0.keys.device()),
                taker: EdgeTaker { store, status: self.0.ingest.clone() },
                status: self.0.ingest.clone(),
                random: pause_bits,
            };
            let stopping = tasks.stopping();
            tasks.spawn("sensors", ingest.run(async move { stopping.cancelled().await }));
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
