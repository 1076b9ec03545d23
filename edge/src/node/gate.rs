//! The part that speaks HTTP: the same API as the hub's, on the device, with or without a network.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mobo_core::kernel::{Check, ComponentSpec, Fault};
use mobo_core::limits;
use mobo_gate::{Gate, PusherApp, Settings, auth};
use mobo_runtime::component::{BoxFuture, Component};
use mobo_runtime::config::Define;
use mobo_runtime::serving::rate_rules;
use mobo_runtime::tasks::Tasks;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Edge, GATE, STORE, VERSION};
use crate::metrics::Requests;
use crate::records::EdgeRecords;
use crate::settings;

pub(super) struct GatePart {
    edge: Arc<Edge>,
    serving: Mutex<Serving>,
}

/// What it serves with.
#[derive(Default)]
struct Serving {
    tasks: Option<Tasks>,
    /// Ends the listener of now, and none before or after it.
    end: CancellationToken,
    /// What a swap put in the place of the setting.
    swapped: Option<SocketAddr>,
    /// The real address of port 0, which a restart keeps.
    last: Option<SocketAddr>,
}

fn fault(address: SocketAddr, error: &std::io::Error) -> Fault {
    let key = settings::HTTP_LISTEN.definition().key;
    Fault::new(format!("{address}: {error}"), format!("stop what uses it, or set {key} to another address"))
}

impl GatePart {
    pub(super) fn new(edge: Arc<Edge>) -> Self {
        Self { edge, serving: Mutex::default() }
    }

    fn serving(&self) -> MutexGuard<'_, Serving> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn address(&self) -> SocketAddr {
        self.serving().swapped.unwrap_or_else(|| self.edge.config.get(&settings::HTTP_LISTEN))
    }

    async fn bind(&self, address: SocketAddr) -> Result<TcpListener, Fault> {
        let last = self.serving().last.filter(|last| address.port() == 0 && last.ip() == address.ip());
        if let Some(last) = last
            && let Ok(listener) = TcpListener::bind(last).await
        {
            return Ok(listener);
        }
        TcpListener::bind(address).await.map_err(|error| fault(address, &error))
    }

    /// The app of the Pusher protocol, where one is set as a whole.
    fn pusher(&self) -> Vec<PusherApp> {
        let config = &self.edge.config;
        let (id, key) = (config.get(&settings::PUSHER_ID), config.get(&settings::PUSHER_KEY));
        let secret = config.get(&settings::PUSHER_SECRET).filter(|_| !id.is_empty() && !key.is_empty());
        let counts = config.get(&settings::SUBSCRIPTION_COUNT);
        secret.map(|secret| PusherApp::new(&id, &key, &secret).counting(counts)).into_iter().collect()
    }

    /// Refuses by name what a device does not do.
    fn no_webhooks(&self) -> Option<Check> {
        let key = settings::WEBHOOK_URLS.definition().key;
        let is_set = !self.edge.config.get(&settings::WEBHOOK_URLS).is_empty();
        is_set.then(|| {
            Check::fail("webhooks", format!("{key} is set, and a device sends no webhooks"), format!("remove {key}, or set it on the hub"))
        })
    }

    /// Serves on a listener, and then ends the one before it, whose requests in work are finished.
    fn serve(&self, listener: TcpListener, tasks: &Tasks) -> Result<SocketAddr, Fault> {
        let real = listener.local_addr().map_err(|error| fault(self.address(), &error))?;
        let small = Settings {
            requests_max: limits::EDGE_HTTP_REQUESTS_MAX,
            connections_max: limits::EDGE_HTTP_CONNECTIONS_MAX,
            subscribers_max: limits::EDGE_LIVE_SUBSCRIBERS_MAX,
            bodies_bytes_max: limits::EDGE_HTTP_BODIES_BYTES_MAX,
            watch: Some(Arc::new(Requests)),
            rules: rate_rules(&self.edge.config)?,
            server_timing: self.edge.config.get(&settings::SERVER_TIMING),
            pusher: self.pusher(),
            ..Settings::default()
        };
        let gate = Gate::new(Arc::new(EdgeRecords::new(Arc::clone(&self.edge))), small);
        let (stopping, end) = (tasks.stopping(), tasks.stopping().child_token());
        let ended = end.clone();
        tasks.spawn("http", async move {
            gate.serve_also(auth::elsewhere(), listener, ended.clone().cancelled_owned()).await;
            if ended.is_cancelled() {
                // Another listener took over: this task has done its work.
                stopping.cancelled().await;
            }
        });
        let mut serving = self.serving();
        std::mem::replace(&mut serving.end, end).cancel();
        (serving.tasks, serving.last) = (Some(tasks.clone()), Some(real));
        self.edge.http.fill(real);
        Ok(real)
    }
}

impl Component for GatePart {
    fn spec(&self) -> ComponentSpec {
        ComponentSpec::required(GATE, VERSION).needing([STORE])
    }

    fn post(&self) -> BoxFuture<'_, Vec<Check>> {
        Box::pin(async move {
            let address = self.address();
            let address = match std::net::TcpListener::bind(address) {
                Ok(_) => Check::pass("HTTP address", format!("{address} is free")),
                Err(error) => {
                    let Fault { reason, advice } = fault(address, &error);
                    Check::fail("HTTP address", reason, advice)
                }
            };
            let rules = rate_rules(&self.edge.config).err().map(|Fault { reason, advice }| Check::fail("rate rules", reason, advice));
            std::iter::once(address).chain(rules).chain(self.no_webhooks()).collect()
        })
    }

    fn start(&self, tasks: Tasks) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let listener = self.bind(self.address()).await?;
            self.serve(listener, &tasks).map(drop)
        })
    }

    /// `component swap gate 127.0.0.1:9000`: the new address is served before the old one ends.
    fn swap(&self, address: String) -> BoxFuture<'_, Result<String, Fault>> {
        Box::pin(async move {
            let key = settings::HTTP_LISTEN.definition().key;
            let address: SocketAddr =
                address.parse().map_err(|_| Fault::new(format!("{address} is no address"), "write one such as 127.0.0.1:8001"))?;
            let tasks = self.serving().tasks.clone().ok_or_else(|| Fault::new("it does not serve", "start it first"))?;
            let listener = TcpListener::bind(address).await.map_err(|error| fault(address, &error))?;
            let real = self.serve(listener, &tasks)?;
            self.serving().swapped = Some(real);
            Ok(format!("serving {real} until the node stops; set {key} to keep it"))
        })
    }

    fn listens(&self) -> Vec<String> {
        self.edge.http().map(|address| format!("http://{address}")).into_iter().collect()
    }

    fn stop(&self, _: tokio::time::Instant) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async {
            self.serving().tasks = None;
            self.edge.http.take();
            Ok(())
        })
    }
}
