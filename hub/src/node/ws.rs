//! The part that takes devices over WebSocket. The gate upgrades their connections at [`WS_PATH`](super::WS_PATH) and hands them over.

use std::net::SocketAddr;
use std::sync::Arc;

use mobo_adapters::websocket::WsListener;
use mobo_core::kernel::{Check, ComponentSpec, Fault};
use mobo_core::link::Listener;
use mobo_gate::upgrade::{Stream, Take};
use mobo_runtime::component::{BoxFuture, Component};
use mobo_runtime::tasks::Tasks;

use super::{Hub, QUIC, VERSION, WS};
use crate::settings;

pub(super) struct WsPart(pub(super) Arc<Hub>);

/// Hands a connection to the listener.
pub(super) struct Newcomer(Arc<WsListener>);

impl Newcomer {
    /// `None` while nobody takes any.
    pub(super) fn of(hub: &Hub) -> Option<Self> {
        hub.ws.get().map(Self)
    }
}

impl Take for Newcomer {
    async fn take(self, stream: Stream, peer: String) {
        self.0.take(stream, peer).await;
    }
}

impl Component for WsPart {
    fn spec(&self) -> ComponentSpec {
        ComponentSpec::optional(WS, VERSION).needing([QUIC])
    }

    fn post(&self) -> BoxFuture<'_, Vec<Check>> {
        Box::pin(async { Vec::new() })
    }

    fn start(&self, tasks: Tasks) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let sessions = self.0.sessions().ok_or_else(|| Fault::new("the hub takes no sessions", "start link.quic first"))?;
            let address: SocketAddr = self.0.config.get(&settings::HTTP_LISTEN);
            let listener = Arc::new(WsListener::new(address, &self.0.keys));
            tasks.spawn("accept", sessions.listen(Arc::clone(&listener) as Arc<dyn Listener>, (tasks.clone(), self.0.clock)));
            self.0.ws.fill(listener);
            Ok(())
        })
    }

    fn stop(&self, _: tokio::time::Instant) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            if let Some(listener) = self.0.ws.take() {
                listener.close().await;
            }
            Ok(())
        })
    }
}
