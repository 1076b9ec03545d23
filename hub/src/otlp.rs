//! The part that sends metrics to an OpenTelemetry collector, for fleets that are measured that way.
//!
//! It sends what `/metrics` shows, as OTLP over HTTP in JSON, again and again. It speaks plain HTTP, to a collector beside the hub: what goes
//! further is the collector's to encrypt and to repeat. A collector that is away costs the hub nothing but a warning.

mod request;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use mobo_core::kernel::{Check, ComponentName, ComponentSpec, Fault};
use mobo_core::limits;
use mobo_core::time::Wall;
use mobo_runtime::component::{BoxFuture, Component};
use mobo_runtime::config::{Config, Define, Setting};
use mobo_runtime::metrics::{Counter, Counters, Metric, Pages};
use mobo_runtime::tasks::Tasks;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::node::{Hub, VERSION};
use request::Origin;

/// Where the collector is.
pub static ENDPOINT: Setting<String> = Setting::new(
    "otlp.endpoint",
    "",
    "0.1.0",
    "Where an OpenTelemetry collector takes OTLP over HTTP, as in http://127.0.0.1:4318. Metrics go to /v1/metrics there. Empty: nowhere.",
);

/// How often to send.
pub static EVERY: Setting<Duration> =
    Setting::new("otlp.every", "15s", "0.1.0", "How often metrics are sent to otlp.endpoint.").within("1s", "1h").hot();

/// The settings of this module, for the node's list.
pub static SETTINGS: &[&dyn Define] = &[&ENDPOINT, &EVERY];

static SENT: Counter = Counter::new("mobo_otlp_sent_total", "Requests that the collector took.");
static FAILED: Counters<1> = Counters::new("mobo_otlp_failed_total", ["reason"], "Requests that the collector did not take, by why.");

/// The metrics of this module.
pub static METRICS: &[&dyn Metric] = &[&SENT, &FAILED];

const PATH: &str = "/v1/metrics";

/// The part. It is optional, and idle without an endpoint.
#[derive(Debug)]
pub struct OtlpPart {
    hub: Arc<Hub>,
    pages: Pages,
    every: watch::Sender<Duration>,
}

impl OtlpPart {
    /// Its name on the board.
    pub const NAME: ComponentName = ComponentName::fixed("otlp");

    /// A part that sends these metrics of this hub.
    #[must_use]
    pub fn new(hub: Arc<Hub>, pages: Pages) -> Self {
        let every = watch::Sender::new(hub.config.get(&EVERY));
        Self { hub, pages, every }
    }

    fn endpoint(&self) -> Result<Option<String>, Fault> {
        let text = self.hub.config.get(&ENDPOINT);
        if text.is_empty() {
            return Ok(None);
        }
        let base = text.trim_end_matches('/');
        let uri = format!("{}{PATH}", base.strip_suffix(PATH).unwrap_or(base));
        match uri.parse::<hyper::Uri>() {
            Ok(parsed) if parsed.scheme_str() == Some("http") && parsed.host().is_some() => Ok(Some(uri)),
            _ => Err(Fault::new(
                format!("{} is \"{text}\", and metrics are sent over plain HTTP only", ENDPOINT.definition().key),
                "write http://host:port of a collector beside the hub, and let that one encrypt",
            )),
        }
    }
}

impl Component for OtlpPart {
    fn spec(&self) -> ComponentSpec {
        ComponentSpec::optional(Self::NAME, VERSION)
    }

    fn configure(&self, config: &Config) -> Result<(), Fault> {
        self.every.send_if_modified(|every| {
            let new = config.get(&EVERY);
            std::mem::replace(every, new) != new
        });
        Ok(())
    }

    fn post(&self) -> BoxFuture<'_, Vec<Check>> {
        Box::pin(async {
            match self.endpoint() {
                Ok(None) => Vec::new(),
                Ok(Some(uri)) => vec![Check::pass("collector", format!("metrics go to {uri}"))],
                Err(Fault { reason, advice }) => vec![Check::fail("collector", reason, advice)],
            }
        })
    }

    fn start(&self, tasks: Tasks) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let Some(uri) = self.endpoint()? else { return Ok(()) };
            let clock = self.hub.clock;
            let began_ns = nanos(clock.wall());
            let exporter = Exporter {
                uri,
                instance: self.hub.keys.public().to_string(),
                pages: self.pages.clone(),
                client: Client::builder(TokioExecutor::new()).build_http(),
                began_ns,
                now: Box::new(move || nanos(clock.wall())),
                is_failing: false,
            };
            tasks.spawn("otlp.send", exporter.run(self.every.subscribe(), tasks.stopping()));
            Ok(())
        })
    }

    fn stop(&self, _: tokio::time::Instant) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }
}

fn nanos(wall: Wall) -> u64 {
    u64::try_from(wall.0).unwrap_or(0).saturating_mul(1_000)
}

struct Exporter {
    uri: String,
    instance: String,
    pages: Pages,
    client: Client<HttpConnector, Full<Bytes>>,
    began_ns: u64,
    now: Box<dyn Fn() -> u64 + Send + Sync>,
    is_failing: bool,
}

impl Exporter {
    async fn run(mut self, mut every: watch::Receiver<Duration>, stopping: CancellationToken) {
        loop {
            let pause = *every.borrow_and_update();
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                Ok(()) = every.changed() => continue,
                () = stopping.cancelled() => break,
            }
            self.send().await;
        }
        // The last numbers of this process, if somebody is there to take them: a stop waits for nobody who is away.
        if !self.is_failing {
            self.send().await;
        }
    }

    async fn send(&mut self) {
        let origin = Origin {
            service: "mobo-hub",
            version: VERSION,
            instance: self.instance.clone(),
            began_ns: self.began_ns,
            now_ns: (self.now)(),
        };
        let body = request::of(&self.pages.now().await, &origin).to_string();
        let sent = tokio::time::timeout(limits::OTLP_TIMEOUT, self.post(body)).await;
        match sent.unwrap_or_else(|_elapsed| Err(("timeout", format!("no answer within {} s", limits::OTLP_TIMEOUT.as_secs())))) {
            Ok(()) => {
                SENT.add(1);
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!(endpoint = self.uri, "the collector takes metrics again");
                }
            }
            Err((reason, detail)) => {
                FAILED.add([reason], 1);
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::warn!(endpoint = self.uri, detail, "the collector does not take metrics; sending goes on");
                }
            }
        }
    }

    async fn post(&self, body: String) -> Result<(), (&'static str, String)> {
        let request = Request::post(&self.uri).header("content-type", "application/json").body(Full::from(body));
        let request = request.map_err(|error| ("request", error.to_string()))?;
        let answer = self.client.request(request).await.map_err(|error| ("unreachable", error.to_string()))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), limits::OTLP_ANSWER_BYTES_MAX).collect().await;
        if status.is_success() {
            // What a collector took in part it counts itself; there is nothing to do about it here.
            return Ok(());
        }
        let text = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
        Err(("refused", format!("{status}: {text}")))
    }
}
