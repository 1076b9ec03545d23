//! The part that speaks HTTP.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mobo_core::kernel::{Check, ComponentSpec, Fault};
use mobo_gate::serve::Secure;
use mobo_gate::upgrade::websocket;
use mobo_gate::watch::Watch;
use mobo_gate::{Gate, Hooks, PusherApp, Rates, Settings};
use mobo_runtime::component::{BoxFuture, Component};
use mobo_runtime::config::Define;
use mobo_runtime::serving::rate_rules;
use mobo_runtime::tasks::Tasks;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::tls::Certificates;
use super::{GATE, Hub, STORE, VERSION, WS_PATH, store_fault, ws};
use crate::metrics::Requests;
use crate::records::HubRecords;
use crate::settings;

pub(super) struct GatePart {
    hub: Arc<Hub>,
    /// Where it puts what an app's servers are told.
    hooks: Option<Hooks>,
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
    pub(super) fn new(hub: Arc<Hub>, hooks: Option<Hooks>) -> Self {
        Self { hub, hooks, serving: Mutex::default() }
    }

    fn serving(&self) -> MutexGuard<'_, Serving> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn address(&self) -> SocketAddr {
        self.serving().swapped.unwrap_or_else(|| self.hub.config.get(&settings::HTTP_LISTEN))
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
        let config = &self.hub.config;
        let (id, key) = (config.get(&settings::PUSHER_ID), config.get(&settings::PUSHER_KEY));
        let secret = config.get(&settings::PUSHER_SECRET).filter(|_| !id.is_empty() && !key.is_empty());
        let counts = config.get(&settings::SUBSCRIPTION_COUNT);
        let app = |secret: String| PusherApp::new(&id, &key, &secret).telling(self.hooks.clone()).counting(counts);
        secret.map(app).into_iter().collect()
    }

    /// The certificate, where one is set.
    fn certificates(&self) -> Result<Option<Arc<dyn Secure>>, Fault> {
        let [certificate, key] = [&settings::TLS_CERT, &settings::TLS_KEY].map(|setting| self.hub.config.get(setting));
        if certificate.is_empty() && key.is_empty() {
            return Ok(None);
        }
        let (cert_key, key_key) = (settings::TLS_CERT.definition().key, settings::TLS_KEY.definition().key);
        if certificate.is_empty() || key.is_empty() {
            return Err(Fault::new(format!("{cert_key} and {key_key} go together"), "set both, or none"));
        }
        let opened = Certificates::open(certificate.as_ref(), key.as_ref());
        let opened = opened.map_err(|why| Fault::new(why, format!("look at the files of {cert_key} and {key_key}")))?;
        Ok(Some(Arc::new(opened)))
    }

    fn rates(&self) -> Rates {
        let quota = |setting| u32::try_from(self.hub.config.get(setting)).unwrap_or_default();
        Rates { guest: quota(&settings::RATE_GUEST), key: quota(&settings::RATE_KEY), auth: quota(&settings::RATE_AUTH) }
    }

    /// Serves on a listener, and then ends the one before it, whose requests in work are finished.
    fn serve(&self, listener: TcpListener, tasks: &Tasks) -> Result<SocketAddr, Fault> {
        let real = listener.local_addr().map_err(|error| fault(self.address(), &error))?;
        let project = self.hub.opened().map_err(|error| store_fault(&error, ""))?.project;
        let (watch, pusher) = (Some(Arc::new(Requests) as Arc<dyn Watch>), self.pusher());
        let (rates, rules) = (self.rates(), rate_rules(&self.hub.config)?);
        let graphql_introspection = self.hub.config.get(&settings::GRAPHQL_INTROSPECTION);
        let server_timing = self.hub.config.get(&settings::SERVER_TIMING);
        let secure = self.certificates()?;
        let watched = Settings { watch, pusher, rates, rules, secure, graphql_introspection, server_timing, ..Settings::default() };
        let gate = Gate::new(Arc::new(HubRecords::new(Arc::clone(&self.hub), project)), watched);
        let hub = Arc::clone(&self.hub);
        let accounts = crate::auth::doors::router(gate.clone(), Arc::clone(&self.hub));
        let sync = websocket(WS_PATH, move || ws::Newcomer::of(&hub)).merge(accounts);
        let (stopping, end) = (tasks.stopping(), tasks.stopping().child_token());
        let ended = end.clone();
        tasks.spawn("http", async move {
            gate.serve_also(sync, listener, ended.clone().cancelled_owned()).await;
            if ended.is_cancelled() {
                // Another listener took over: this task has done its work.
                stopping.cancelled().await;
            }
        });
        let mut serving = self.serving();
        std::mem::replace(&mut serving.end, end).cancel();
        (serving.tasks, serving.last) = (Some(tasks.clone()), Some(real));
        self.hub.http.fill(real);
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
            let certificate = match self.certificates() {
                Ok(None) => None,
                Ok(Some(_)) => Some(Check::pass("certificate", "the certificate and its key go together")),
                Err(Fault { reason, advice }) => Some(Check::fail("certificate", reason, advice)),
            };
            let rules = rate_rules(&self.hub.config).err().map(|Fault { reason, advice }| Check::fail("rate rules", reason, advice));
            std::iter::once(address).chain(certificate).chain(rules).collect()
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
                address.parse().map_err(|_| Fault::new(format!("{address} is no address"), "write one such as 127.0.0.1:8000"))?;
            let tasks = self.serving().tasks.clone().ok_or_else(|| Fault::new("it does not serve", "start it first"))?;
            let listener = TcpListener::bind(address).await.map_err(|error| fault(address, &error))?;
            let real = self.serve(listener, &tasks)?;
            self.serving().swapped = Some(real);
            Ok(format!("serving {real} until the node stops; set {key} to keep it"))
        })
    }

    fn listens(&self) -> Vec<String> {
        self.hub.http().map(|address| self.hub.url(address)).into_iter().collect()
    }

    fn stop(&self, _: tokio::time::Instant) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async {
            self.serving().tasks = None;
            self.hub.http.take();
            Ok(())
        })
    }
}
