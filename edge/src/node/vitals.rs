//! The part that reports how the machine is, as samples of a stream.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mobo_core::author::segment;
use mobo_core::kernel::{Check, ComponentSpec, Fault, Vital};
use mobo_core::schema::{Collection, Kind};
use mobo_runtime::component::{BoxFuture, Component};
use mobo_runtime::config::Define;
use mobo_runtime::slot::Slot;
use mobo_runtime::tasks::Tasks;
use mobo_runtime::vitals::{Vitals, VitalsReader};
use serde_json::{Map, Value, json};
use tokio::time::MissedTickBehavior;

use super::{Edge, STORE, VERSION, VITALS};
use crate::settings;

pub(super) struct VitalsPart {
    edge: Arc<Edge>,
    trouble: Arc<Slot<String>>,
}

impl VitalsPart {
    pub(super) fn new(edge: Arc<Edge>) -> Self {
        Self { edge, trouble: Arc::default() }
    }
}

/// A sample: the figures that the stream has a field for, and that this machine has.
fn sample(vitals: &Vitals, stream: &Collection) -> Map<String, Value> {
    let Vitals { cpu, load, memory, swap, temperature, disk, disk_free, uptime, rss } = vitals;
    let all = json!({
        "cpu": cpu, "load": load, "memory": memory, "swap": swap, "temperature": temperature, "disk": disk, "disk_free": disk_free,
        "uptime": uptime, "rss": rss,
    });
    let Value::Object(all) = all else { return Map::new() };
    all.into_iter().filter(|(name, value)| !value.is_null() && stream.field(name).is_some()).collect()
}

async fn report(edge: &Edge, reader: &mut VitalsReader) -> Result<(), String> {
    let vitals = reader.read(Path::new(&edge.folder));
    let name = edge.config.get(&settings::VITALS_STREAM);
    let schema = edge.schema();
    let stream = schema.by_name(&name).filter(|collection| collection.kind == Kind::Stream);
    let stream = stream.ok_or_else(|| {
        format!(
            "this device knows no stream \"{name}\": make it with `mobo-hub collection create {name} --kind stream cpu:float load:float \
             memory:float swap:float temperature:float disk:float disk_free:int uptime:int rss:int`, or with some of these fields"
        )
    })?;
    let fields = sample(&vitals, stream);
    if fields.is_empty() {
        return Err(format!(
            "the stream \"{name}\" has a field for none of cpu, load, memory, swap, temperature, disk, disk_free, uptime, rss"
        ));
    }
    let segment = segment(vec![fields], stream, edge.clock.wall()).map_err(|error| error.to_string())?;
    let store = edge.store().map_err(|error| error.to_string())?;
    store.append(segment).await.map(drop).map_err(|error| error.to_string())
}

impl Component for VitalsPart {
    fn spec(&self) -> ComponentSpec {
        ComponentSpec::optional(VITALS, VERSION).needing([STORE])
    }

    fn post(&self) -> BoxFuture<'_, Vec<Check>> {
        Box::pin(async { Vec::new() })
    }

    fn start(&self, tasks: Tasks) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let every = self.edge.config.get(&settings::VITALS_EVERY);
            if every < Duration::from_secs(1) {
                let key = settings::VITALS_EVERY.definition().key;
                return Err(Fault::new(format!("{key} is shorter than a second"), "write it as in 10s"));
            }
            let (edge, trouble, stopping) = (Arc::clone(&self.edge), Arc::clone(&self.trouble), tasks.stopping());
            tasks.spawn("report", async move {
                let (mut reader, mut clock) = (VitalsReader::default(), tokio::time::interval(every));
                // After a sleep of the machine one sample says it all.
                clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    tokio::select! {
                        _ = clock.tick() => {}
                        () = stopping.cancelled() => return,
                    }
                    match report(&edge, &mut reader).await {
                        Ok(()) => drop(trouble.take()),
                        Err(why) => trouble.fill(why),
                    }
                }
            });
            Ok(())
        })
    }

    fn health(&self) -> BoxFuture<'_, Vital> {
        let trouble = self.trouble.get();
        Box::pin(async { trouble.map_or(Vital::Fine, Vital::Worn) })
    }

    fn stop(&self, _: tokio::time::Instant) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }
}
