//! A wire of our own between a device and the hub, for datagrams (QUIC) and for streams (MQTT, WebSocket): it delays, loses, repeats,
//! reorders and cuts, and tells neither end.
//!
//! A stream cannot lose or reorder bytes without being another stream: there, weather is delay, and a cut ends its connections or, if
//! [`Weather::is_silent`], lets them stand with nothing going through.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::seed::Rng;

/// Largest datagram.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// What a wire does to what goes through it. The default is a good wire.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Weather {
    /// Nothing goes through.
    pub is_cut: bool,
    /// A cut that ends no stream: nobody is told.
    pub is_silent: bool,
    /// Everything arrives so much later.
    pub delay: Duration,
    /// And up to so much later than that, drawn for each datagram: so they overtake each other.
    pub jitter: Duration,
    /// Of a thousand datagrams, so many are lost.
    pub lost_per_mille: u64,
    /// Of a thousand datagrams, so many arrive twice.
    pub repeated_per_mille: u64,
    /// So much goes through in a second, in each direction; 0 is no bound. What would wait for longer than [`QUEUE_MAX`] is lost.
    pub bits_per_s: u64,
}

/// How long a datagram waits at a narrow place before it is lost.
pub const QUEUE_MAX: Duration = Duration::from_millis(500);

/// One wire; it ends when this is dropped.
#[derive(Debug)]
pub struct Proxy {
    /// Where to connect instead of to the far end.
    pub address: String,
    weather: watch::Sender<Weather>,
    counts: Arc<Counts>,
    _runtime: Runtime,
}

/// Towards whom.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Towards {
    Far,
    Near,
}

/// What a wire did.
#[derive(Debug, Default)]
struct Counts {
    bytes: AtomicU64,
    carried: AtomicU64,
    dropped: AtomicU64,
    repeated: AtomicU64,
}

/// A runtime that does not wait for its tasks when it ends.
#[derive(Debug)]
struct Runtime(Option<tokio::runtime::Runtime>);

impl Runtime {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Self(Some(runtime.expect("a thread for the proxy")))
    }

    fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.0.as_ref().expect("it runs until it is dropped").block_on(work)
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.0.as_ref().expect("it runs until it is dropped").spawn(work);
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(tokio::runtime::Runtime::shutdown_background);
    }
}

impl Proxy {
    /// A wire for datagrams to `far_end`. What it draws follows from `rng`.
    ///
    /// # Panics
    ///
    /// When the machine gives no socket.
    #[must_use]
    pub fn datagrams(far_end: &str, rng: Rng) -> Self {
        let (runtime, far_end) = (Runtime::new(), far_end.parse().expect("an address"));
        let near = Arc::new(runtime.block_on(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))).expect("a socket"));
        let address = near.local_addr().expect("an address").to_string();
        let wire = Wire::new(rng);
        let (weather, counts) = (wire.weather_sender(), Arc::clone(&wire.counts));
        runtime.spawn(relay_datagrams(near, far_end, Arc::new(wire)));
        Self { address, weather, counts, _runtime: runtime }
    }

    /// A wire for streams to `far_end`.
    ///
    /// # Panics
    ///
    /// When the machine gives no socket.
    #[must_use]
    pub fn streams(far_end: &str, rng: Rng) -> Self {
        let (runtime, far_end) = (Runtime::new(), far_end.parse().expect("an address"));
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("a socket");
        let address = listener.local_addr().expect("an address").to_string();
        let wire = Wire::new(rng);
        let (weather, counts) = (wire.weather_sender(), Arc::clone(&wire.counts));
        runtime.spawn(relay_streams(listener, far_end, Arc::new(wire)));
        Self { address, weather, counts, _runtime: runtime }
    }

    /// From now on.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Bytes that were carried, both ways.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.counts.bytes.load(Ordering::Relaxed)
    }

    /// Datagrams, or pieces of streams, that were carried, dropped and repeated.
    #[must_use]
    pub fn counts(&self) -> [u64; 3] {
        [&self.counts.carried, &self.counts.dropped, &self.counts.repeated].map(|count| count.load(Ordering::Relaxed))
    }
}

struct Wire {
    weather: (watch::Sender<Weather>, watch::Receiver<Weather>),
    counts: Arc<Counts>,
    rng: Mutex<Rng>,
    /// Until when each direction is busy with what went before.
    busy: Mutex<[Option<Instant>; 2]>,
}

impl Wire {
    fn new(rng: Rng) -> Self {
        Self { weather: watch::channel(Weather::default()), counts: Arc::default(), rng: Mutex::new(rng), busy: Mutex::default() }
    }

    fn weather_sender(&self) -> watch::Sender<Weather> {
        self.weather.0.clone()
    }

    fn weather(&self) -> Weather {
        *self.weather.1.borrow()
    }

    /// How long so many bytes wait for their turn and then take; `None` where the queue is too long.
    fn turn(&self, weather: &Weather, towards: Towards, bytes: usize, queue_max: Duration) -> Option<Duration> {
        if weather.bits_per_s == 0 {
            return Some(Duration::ZERO);
        }
        let takes = Duration::from_micros(bytes as u64 * 8 * 1_000_000 / weather.bits_per_s);
        let now = Instant::now();
        let [far, near] = &mut *self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let busy = if towards == Towards::Far { far } else { near };
        let waits = busy.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        if waits > queue_max {
            return None;
        }
        *busy = Some(now + waits + takes);
        Some(waits + takes)
    }

    /// After how long one datagram arrives, each time that it does.
    fn arrivals(&self, towards: Towards, bytes: usize) -> Vec<Duration> {
        let weather = self.weather();
        let turn = self.turn(&weather, towards, bytes, QUEUE_MAX);
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = weather.is_cut || rng.below(1_000) < weather.lost_per_mille;
        let Some(turn) = turn.filter(|_| !lost) else {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            return Vec::new();
        };
        self.counts.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let twice = rng.below(1_000) < weather.repeated_per_mille;
        self.counts.carried.fetch_add(1, Ordering::Relaxed);
        self.counts.repeated.fetch_add(u64::from(twice), Ordering::Relaxed);
        let jitter_us = u64::try_from(weather.jitter.as_micros()).unwrap_or(u64::MAX);
        (0..=u64::from(twice)).map(|_| turn + weather.delay + Duration::from_micros(rng.below(jitter_us))).collect()
    }
}

async fn relay_datagrams(near: Arc<UdpSocket>, far_end: SocketAddr, wire: Arc<Wire>) {
    let mut flows: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let Ok((bytes, from)) = near.recv_from(&mut buffer).await else { continue };
        let far = match flows.get(&from) {
            Some(far) => Arc::clone(far),
            None => {
                let Ok(far) = connected(far_end).await else { continue };
                tokio::spawn(back((Arc::clone(&far), Arc::clone(&near)), from, Arc::clone(&wire)));
                flows.insert(from, Arc::clone(&far));
                far
            }
        };
        let datagram: Arc<[u8]> = buffer.get(..bytes).unwrap_or_default().into();
        for after in wire.arrivals(Towards::Far, bytes) {
            let (far, datagram) = (Arc::clone(&far), Arc::clone(&datagram));
            later(after, async move { far.send(&datagram).await.map(drop) }).await;
        }
    }
}

async fn connected(far_end: SocketAddr) -> io::Result<Arc<UdpSocket>> {
    let far = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    far.connect(far_end).await?;
    Ok(Arc::new(far))
}

async fn back((far, near): (Arc<UdpSocket>, Arc<UdpSocket>), to: SocketAddr, wire: Arc<Wire>) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        // A far end that is down answers with an error, once for each datagram.
        let Ok(bytes) = far.recv(&mut buffer).await else { continue };
        let datagram: Arc<[u8]> = buffer.get(..bytes).unwrap_or_default().into();
        for after in wire.arrivals(Towards::Near, bytes) {
            let (near, datagram) = (Arc::clone(&near), Arc::clone(&datagram));
            later(after, async move { near.send_to(&datagram, to).await.map(drop) }).await;
        }
    }
}

/// Sends now, or in a task of its own. What the system does not take is lost, as on any wire.
async fn later(after: Duration, send: impl Future<Output = io::Result<()>> + Send + 'static) {
    if after.is_zero() {
        let _ = send.await;
        return;
    }
    tokio::spawn(async move {
        sleep_until(Instant::now() + after).await;
        let _ = send.await;
    });
}

async fn relay_streams(listener: TcpListener, far_end: SocketAddr, wire: Arc<Wire>) {
    loop {
        let Ok((near, _)) = listener.accept().await else { continue };
        let wire = Arc::clone(&wire);
        tokio::spawn(async move {
            let weather = wire.weather();
            if weather.is_cut && !weather.is_silent {
                return;
            }
            let Ok(far) = TcpStream::connect(far_end).await else { return };
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            tokio::select! {
                () = pipe(near_in, far_out, (&wire, Towards::Far)) => {}
                () = pipe(far_in, near_out, (&wire, Towards::Near)) => {}
                () = cut(&wire) => {}
            }
        });
    }
}

/// Ready when the wire is cut for all to see.
async fn cut(wire: &Wire) {
    let mut weather = wire.weather.1.clone();
    let _ = weather.wait_for(|weather| weather.is_cut && !weather.is_silent).await;
}

async fn pipe(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, (wire, towards): (&Wire, Towards)) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    while let Ok(bytes @ 1..) = from.read(&mut buffer).await {
        let mut weather = wire.weather.1.clone();
        let Ok(now) = weather.wait_for(|weather| !weather.is_cut).await.map(|weather| *weather) else { return };
        let later = now.delay + wire.turn(&now, towards, bytes, Duration::MAX).unwrap_or_default();
        if !later.is_zero() {
            sleep_until(Instant::now() + later).await;
        }
        wire.counts.carried.fetch_add(1, Ordering::Relaxed);
        wire.counts.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        if to.write_all(buffer.get(..bytes).unwrap_or_default()).await.is_err() {
            return;
        }
    }
}
