//! The part that speaks HTTP: the same API as the hub's, on the device, with or without a network.

use std::sync::Arc;

use mobo_core::kernel::{Check, ComponentSpec, Fault};
use mobo_core::limits;
use mobo_gate::{Gate, Settings};
use mobo_runtime::component::{BoxFuture, Component};
use mobo_runtime::config::Define;
use mobo_runtime::tasks::Tasks;
use tokio::net::TcpListener;

use super::{Edge, GATE, STORE, VERSION};
use crate::records::EdgeRecords;
use crate::settings;

pub(super) struct GatePart(pub(super) Arc<Edge>);

fn advice() -> String {
    format!("stop what uses it, or set {} to another address", settings::HTTP_LISTEN.definition().key)
}

impl Component for GatePart {
    fn spec(&self) -> ComponentSpec {
        ComponentSpec::required(GATE, VERSION).needing([STORE])
    }

    fn post(&self) -> BoxFuture<'_, Vec<Check>> {
        Box::pin(async move {
            let address = self.0.config.get(&settings::HTTP_LISTEN);
            vec![match std::net::TcpListener::bind(address) {
                Ok(_) => Check::pass("HTTP address", format!("{address} is free")),
                Err(error) => Check::fail("HTTP address", format!("{address}: {error}"), advice()),
            }]
        })
    }

    fn start(&self, tasks: Tasks) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let address = self.0.config.get(&settings::HTTP_LISTEN);
            let listener = TcpListener::bind(address).await;
            let listener = listener.map_err(|error| Fault::new(format!("{address}: {error}"), advice()))?;
            let real = listener.local_addr().map_err(|error| Fault::new(error.to_string(), advice()))?;
            let backend = Arc::new(EdgeRecords::new(Arc::clone(&self.0)));
            let stopping = tasks.stopping();
            let small = Settings {
                requests_max: limits::EDGE_HTTP_REQUESTS_MAX,
                connections_max: limits::EDGE_HTTP_CONNECTIONS_MAX,
                bodies_bytes_max: limits::EDGE_HTTP_BODIES_BYTES_MAX,
                ..Settings::default()
            };
            let gate = Gate::new(backend, small);
            tasks.spawn("http", async move {
                gate.serve(listener, stopping.cancelled_owned()).await;
            });
            let _ = self.0.http.set(real);
            Ok(())
        })
    }

    fn stop(&self, _: tokio::time::Instant) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }
}
