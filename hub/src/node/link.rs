//! The part that takes devices over QUIC.

use std::sync::Arc;

use mobo_adapters::quic::QuicListener;
use mobo_core::kernel::{Check, ComponentSpec, Fault};
use mobo_core::limits;
use mobo_runtime::component::{BoxFuture, Component};
use mobo_runtime::config::Define;
use mobo_runtime::tasks::Tasks;

use super::{Hub, QUIC, STORE, VERSION, store_fault};
use crate::admission::Door;
use crate::sessions::Sessions;
use crate::settings;

pub(super) struct QuicPart(pub(super) Arc<Hub>);

impl Component for QuicPart {
    fn spec(&self) -> ComponentSpec {
        ComponentSpec::required(QUIC, VERSION).needing([STORE])
    }

    fn post(&self) -> BoxFuture<'_, Vec<Check>> {
        Box::pin(async move {
            let address = self.0.config.get(&settings::QUIC_LISTEN);
            vec![match std::net::UdpSocket::bind(address) {
                Ok(_) => Check::pass("QUIC address", format!("{address} is free")),
                Err(error) => {
                    let advice = format!("stop what uses it, or set {} to another address", settings::QUIC_LISTEN.definition().key);
                    Check::fail("QUIC address", format!("{address}: {error}"), advice)
                }
            }]
        })
    }

    fn load(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let address = self.0.config.get(&settings::QUIC_LISTEN);
            let listener = QuicListener::bind(address, &self.0.keys).map_err(|error| {
                Fault::new(error.to_string(), format!("set {} to another address", settings::QUIC_LISTEN.definition().key))
            })?;
            let _ = self.0.listener.set(Arc::new(listener));
            Ok(())
        })
    }

    fn start(&self, tasks: Tasks) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let fault = |error| store_fault(&error, "");
            let opened = self.0.opened().map_err(fault)?;
            let door = Arc::new(Door {
                store: Arc::clone(&opened.store),
                identity: Arc::clone(&opened.identity),
                timeline: opened.timeline.clone(),
                time: Arc::clone(&opened.time),
                keepalive: limits::KEEPALIVE,
            });
            let merges = self.0.merges().map_err(fault)?.clone();
            let sessions = Arc::new(Sessions::new(door, merges, opened.schema.subscribe()));
            let _ = self.0.sessions.set(Arc::clone(&sessions));
            if let Some(listener) = self.0.listener.get() {
                tasks.spawn("accept", sessions.listen(Arc::clone(listener), (tasks.clone(), self.0.clock)));
            }
            Ok(())
        })
    }

    fn stop(&self, _: tokio::time::Instant) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            if let Some(listener) = self.0.listener.get() {
                listener.close().await;
            }
            Ok(())
        })
    }
}
