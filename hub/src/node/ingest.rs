//! The part that hears plain sensors. It is optional, and idle without rules.

use std::sync::Arc;

use mobo_adapters::mqtt::ingest::Ingest;
use mobo_core::kernel::{Check, ComponentSpec, Fault, Vital};
use mobo_runtime::component::{BoxFuture, Component};
use mobo_runtime::config::{Config, Define};
use mobo_runtime::ingest::{pause_bits, rules};
use mobo_runtime::tasks::Tasks;

use super::store::is_postgres;
use super::{Hub, INGEST, STORE, VERSION, store_fault};
use crate::ingest::HubTaker;
use crate::settings;

pub(super) struct IngestPart(pub(super) Arc<Hub>);

/// The broker that sensors publish to.
fn broker(config: &Config) -> Result<String, Fault> {
    let named = [&settings::MQTT_INGEST_URL, &settings::MQTT_URL].map(|setting| config.get(setting));
    named.into_iter().find(|url| !url.is_empty()).ok_or_else(|| {
        let (ingest, url) = (settings::MQTT_INGEST.definition().key, settings::MQTT_INGEST_URL.definition().key);
        Fault::new(format!("{ingest} has rules, and nobody says which broker they are for"), format!("set {url}"))
    })
}

impl Component for IngestPart {
    fn spec(&self) -> ComponentSpec {
        ComponentSpec::optional(INGEST, VERSION).needing([STORE])
    }

    fn configure(&self, config: &Config) -> Result<(), Fault> {
        if rules(config)?.is_empty() { Ok(()) } else { broker(config).map(drop) }
    }

    fn post(&self) -> BoxFuture<'_, Vec<Check>> {
        Box::pin(async { Vec::new() })
    }

    fn start(&self, tasks: Tasks) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let (config, rules) = (&self.0.config, rules(&self.0.config)?);
            if rules.is_empty() {
                return Ok(());
            }
            let store = self.0.inbox().map_err(|error| store_fault(&error, ""))?;
            let is_alone = !is_postgres(&config.get(&settings::STORE_URL));
            let taker = HubTaker::new(store, is_alone);
            let ingest = Ingest {
                rules,
                broker: broker(config)?,
                // All hubs of a store have one key: the next one goes on with what the broker keeps for this one.
                client_id: format!("mobo-hub-{}", self.0.keys.device()),
                taker: taker.map_err(|error| Fault::new(error.to_string(), "look at the system's randomness"))?,
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
