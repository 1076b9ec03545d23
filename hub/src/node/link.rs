//! The part that takes devices over QUIC.

use std::net::SocketAddr;
use std::sync::Arc;

use mobo_adapters::quic::QuicListener;
use mobo_core::kernel::{Check, ComponentSpec, Fault};
use mobo_core::limits;
use mobo_core::link::Listener;
use mobo_runtime::component::{BoxFuture, Component};
use mobo_runtime::config::Define;
use mobo_runtime::slot::Slot;
use mobo_runtime::tasks::Tasks;

use super::{Hub, QUIC, STORE, VERSION, store_fault};
use crate::admission::Door;
use crate::sessions::Sessions;
use crate::settings;

pub(super) struct QuicPart {
    hub: Arc<Hub>,
    /// The real address of port 0, which a restart keeps.
    last: Slot<SocketAddr>,
}

impl QuicPart {
    pub(super) fn new(hub: Arc<Hub>) -> Self {
        Self { hub, last: Slot::default() }
    }

    fn bind(&self) -> Result<QuicListener, Fault> {
        let address = self.hub.config.get(&settings::QUIC_LISTEN);
        let last = self.last.get().filter(|_| address.port() == 0);
        if let Some(listener) = last.and_then(|last| QuicListener::bind(last, &self.hub.keys).ok()) {
            return Ok(listener);
        }
        QuicListener::bind(address, &self.hub.keys)
            .map_err(|error| Fault::new(error.to_string(), format!("set {} to another address", settings::QUIC_LISTEN.definition().key)))
    }
}

impl Component for QuicPart {
    fn spec(&self) -> ComponentSpec {
        ComponentSpec::required(QUIC, VERSION).needing([STORE])
    }

    fn post(&self) -> BoxFuture<'_, Vec<Check>> {
        Box::pin(async move {
            let address = self.hub.config.get(&settings::QUIC_LISTEN);
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
            let listener = self.bind()?;
            self.last.fill(listener.address());
            self.hub.listener.fill(Arc::new(listener));
            Ok(())
        })
    }

    fn start(&self, tasks: Tasks) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let fault = |error| store_fault(&error, "");
            let opened = self.hub.opened().map_err(fault)?;
            let door = Arc::new(Door {
                store: Arc::clone(&opened.store),
                history: Arc::clone(&opened.history),
                time: Arc::clone(&opened.time),
                accounts: self.hub.accounts(),
                keepalive: limits::KEEPALIVE,
                herd: crate::admission::Herd::default(),
                paces: crate::admission::Paces::new(u64::try_from(self.hub.config.get(&settings::DEVICE_WRITES)).unwrap_or_default()),
            });
            let merges = self.hub.merges().map_err(fault)?;
            let sessions = Arc::new(Sessions::new(door, merges, opened.schema.subscribe()).telling(self.hub.board.bus()));
            self.hub.sessions.fill(Arc::clone(&sessions));
            if let Some(listener) = self.hub.listener.get() {
                tasks.spawn("accept", sessions.listen(listener, (tasks.clone(), self.hub.clock)));
            }
            Ok(())
        })
    }

    fn swap(&self, _: String) -> BoxFuture<'_, Result<String, Fault>> {
        Box::pin(async {
            let key = settings::QUIC_LISTEN.definition().key;
            let advice = format!("set {key}, run `mobo-hub component restart link.quic`, and tell the devices with hub.url");
            Err(Fault::new("devices know its address from their tokens, and would not find another one", advice))
        })
    }

    fn listens(&self) -> Vec<String> {
        self.hub.quic().map(|address| format!("quic://{address}")).into_iter().collect()
    }

    fn stop(&self, _: tokio::time::Instant) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            self.hub.sessions.take();
            if let Some(listener) = self.hub.listener.take() {
                listener.close().await;
            }
            Ok(())
        })
    }
}
