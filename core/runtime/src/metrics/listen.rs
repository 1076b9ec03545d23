//! The address where metrics are read: two pages, plain HTTP, for one scraper or a few.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use mobo_core::kernel::{Check, ComponentName, ComponentSpec, Fault};
use mobo_core::limits;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::{Exposition, Metric, process};
use crate::component::{BoxFuture, Component};
use crate::config::{Define, Setting};
use crate::tasks::Tasks;

/// Where metrics are read.
pub static LISTEN: Setting<Option<SocketAddr>> = Setting::new(
    "metrics.listen",
    "",
    "0.1.0",
    "Address of /metrics, and of /metrics/devices, for Prometheus, as in 127.0.0.1:9464. Who reaches it needs no key. Empty: none.",
);
/// The settings of this module, for the node's list.
pub static SETTINGS: &[&dyn Define] = &[&LISTEN];

/// What a node says of itself only when it is asked.
pub trait Collect: Send + Sync + 'static {
    /// Adds what belongs on `/metrics`.
    fn collect<'a>(&'a self, out: &'a mut Exposition) -> BoxFuture<'a, ()>;

    /// Adds what belongs on `/metrics/devices`: series of single devices, of which there may be many.
    fn devices<'a>(&'a self, out: &'a mut Exposition) -> BoxFuture<'a, ()>;
}

/// The part. It is optional: a node that cannot be measured works all the same.
pub struct MetricsPart {
    address: Option<SocketAddr>,
    pages: Pages,
    bound: Arc<Mutex<Option<SocketAddr>>>,
}

/// What a node shows of its metrics. Clones share it.
#[derive(Clone)]
pub struct Pages {
    metrics: Arc<[&'static [&'static dyn Metric]]>,
    collect: Arc<dyn Collect>,
}

impl MetricsPart {
    /// Its name on the board.
    pub const NAME: ComponentName = ComponentName::fixed("metrics");

    /// A part that shows these metrics at this address, and nothing to anybody without one.
    #[must_use]
    pub fn new(address: Option<SocketAddr>, pages: Pages) -> Self {
        Self { address, pages, bound: Arc::default() }
    }

    /// Where it listens, once it does: asked of this whenever somebody wants to know.
    #[must_use]
    pub fn bound(&self) -> Bound {
        Bound(Arc::clone(&self.bound))
    }
}

/// Where metrics are read now.
#[derive(Clone, Debug, Default)]
pub struct Bound(Arc<Mutex<Option<SocketAddr>>>);

impl Bound {
    /// The address with its real port; `None` while nobody listens.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MetricsPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsPart").field("address", &self.address).finish_non_exhaustive()
    }
}

fn advice() -> String {
    format!("stop what uses it, or set {} to another address", LISTEN.definition().key)
}

impl Component for MetricsPart {
    fn spec(&self) -> ComponentSpec {
        ComponentSpec::optional(Self::NAME, env!("CARGO_PKG_VERSION"))
    }

    fn post(&self) -> BoxFuture<'_, Vec<Check>> {
        Box::pin(async {
            let Some(address) = self.address else { return Vec::new() };
            vec![match std::net::TcpListener::bind(address) {
                Ok(_) if address.ip().is_loopback() => Check::pass("metrics address", format!("{address} is free")),
                Ok(_) => Check::pass("metrics address", format!("{address} is free; everybody who reaches it can read the metrics")),
                Err(error) => Check::fail("metrics address", format!("{address}: {error}"), advice()),
            }]
        })
    }

    fn start(&self, tasks: Tasks) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let Some(address) = self.address else { return Ok(()) };
            let listener = TcpListener::bind(address).await;
            let listener = listener.map_err(|error| Fault::new(format!("{address}: {error}"), advice()))?;
            *self.bound.lock().unwrap_or_else(PoisonError::into_inner) = listener.local_addr().ok();
            tasks.spawn("metrics.accept", accept(listener, self.pages.clone(), tasks.clone()));
            Ok(())
        })
    }

    fn stop(&self, _: tokio::time::Instant) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async {
            self.bound.lock().unwrap_or_else(PoisonError::into_inner).take();
            Ok(())
        })
    }
}

async fn accept(listener: TcpListener, pages: Pages, tasks: Tasks) {
    let (stopping, seats) = (tasks.stopping(), Arc::new(Semaphore::new(limits::METRICS_CONNECTIONS_MAX)));
    loop {
        let seat = tokio::select! {
            seat = Arc::clone(&seats).acquire_owned() => seat,
            () = stopping.cancelled() => return,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopping.cancelled() => return,
        };
        let Ok((stream, _)) = accepted else {
            // No file is left to this process, most likely.
            tokio::time::sleep(limits::HTTP_ACCEPT_PAUSE).await;
            continue;
        };
        let (pages, stopping) = (pages.clone(), stopping.clone());
        tasks.spawn_job("metrics.scrape", async move {
            let _seat = seat;
            let answer = tokio::time::timeout(limits::METRICS_TIMEOUT, answer(stream, &pages));
            tokio::select! {
                // A scraper that goes away, or is too slow, comes again.
                _ = answer => {}
                () = stopping.cancelled() => {}
            }
        });
    }
}

/// Reads one request, answers it, and closes: a scraper asks every few seconds at most.
async fn answer(stream: TcpStream, pages: &Pages) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader.take(limits::METRICS_HEAD_BYTES_MAX));
    let mut request = String::new();
    reader.read_line(&mut request).await?;
    let mut header = String::new();
    while reader.read_line(&mut header).await? > 0 && !header.trim_end().is_empty() {
        header.clear();
    }
    let mut words = request.split_ascii_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let (status, text) = match (method, path) {
        ("GET" | "HEAD", "/metrics") => ("200 OK", pages.now().await.finish()),
        ("GET" | "HEAD", "/metrics/devices") => ("200 OK", pages.devices().await),
        ("GET" | "HEAD", _) => ("404 Not Found", "there are /metrics and /metrics/devices here\n".to_owned()),
        _ => ("405 Method Not Allowed", "use GET\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        text.len()
    );
    writer.write_all(head.as_bytes()).await?;
    if method != "HEAD" {
        writer.write_all(text.as_bytes()).await?;
    }
    writer.shutdown().await
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").finish_non_exhaustive()
    }
}

impl Pages {
    /// These metrics, what the node says only when it is asked, and the process.
    #[must_use]
    pub fn new(metrics: &[&'static [&'static dyn Metric]], collect: Arc<dyn Collect>) -> Self {
        Self { metrics: metrics.into(), collect }
    }

    /// Every metric as it is now, but those of single devices.
    pub async fn now(&self) -> Exposition {
        let mut out = Exposition::default();
        self.metrics.iter().copied().flatten().for_each(|metric| metric.expose(&mut out));
        self.collect.collect(&mut out).await;
        process::expose(&mut out);
        out
    }

    async fn devices(&self) -> String {
        let mut out = Exposition::default();
        self.collect.devices(&mut out).await;
        out.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Counter;

    static SCRAPED: Counter = Counter::new("mobo_test_total", "A test.");
    static ALL: &[&dyn Metric] = &[&SCRAPED];

    struct Nothing;

    impl Collect for Nothing {
        fn collect<'a>(&'a self, out: &'a mut Exposition) -> BoxFuture<'a, ()> {
            Box::pin(async { out.gauge("mobo_up", "Up.", 1.0) })
        }

        fn devices<'a>(&'a self, out: &'a mut Exposition) -> BoxFuture<'a, ()> {
            Box::pin(async { out.gauge("mobo_device_up", "Up.", 1.0) })
        }
    }

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // It may answer, and close, before it has read everything.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text).await;
        text
    }

    #[tokio::test]
    async fn pages_are_shown_to_who_asks_for_them() {
        let part = MetricsPart::new(Some("127.0.0.1:0".parse().unwrap()), Pages::new(&[ALL], Arc::new(Nothing)));
        assert!(part.post().await.iter().all(|check| check.took.is_zero()));
        let (bound, tasks) = (part.bound(), Tasks::detached(MetricsPart::NAME));
        assert_eq!(bound.address(), None);
        part.start(tasks.clone()).await.unwrap();
        let address = bound.address().unwrap();
        let cases = [
            ("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK", "mobo_test_total 0\n", "process_open_fds"),
            ("GET /metrics?x=1 HTTP/1.0\r\n\r\n", "200 OK", "mobo_up 1\n", "process_threads"),
            ("GET /metrics/devices HTTP/1.1\r\n\r\n", "200 OK", "mobo_device_up 1\n", ""),
            ("HEAD /metrics HTTP/1.1\r\n\r\n", "200 OK", "Content-Length", ""),
            ("GET / HTTP/1.1\r\n\r\n", "404", "/metrics", ""),
            ("POST /metrics HTTP/1.1\r\n\r\n", "405", "use GET", ""),
            ("nonsense\r\n\r\n", "405", "", ""),
        ];
        for (request, status, text, more) in cases {
            let answer = ask(address, request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
            assert!(answer.contains(text) && answer.contains(more), "{request}: {answer}");
        }
        assert!(!ask(address, "HEAD /metrics HTTP/1.1\r\n\r\n").await.contains("mobo_up"));
        // A head without an end is cut off, not gathered.
        let _ = ask(address, &format!("GET /metrics HTTP/1.1\r\n{}", "x".repeat(100_000))).await;
        tasks.stopping().cancel();
        tasks.finished().await;
        part.stop(tokio::time::Instant::now()).await.unwrap();
        assert_eq!(bound.address(), None);
    }

    #[tokio::test]
    async fn without_an_address_nobody_listens() {
        let part = MetricsPart::new(None, Pages::new(&[], Arc::new(Nothing)));
        let tasks = Tasks::detached(MetricsPart::NAME);
        part.start(tasks.clone()).await.unwrap();
        assert!(part.post().await.is_empty() && tasks.names().is_empty());
    }
}
