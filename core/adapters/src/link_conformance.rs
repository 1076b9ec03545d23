//! What every adapter of [`Link`] must do, whatever carries it. An adapter brings a [`Rig`] and calls each function from one test.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mobo_core::future::BoxFuture;
use mobo_core::ids::{Lane, PublicKey};
use mobo_core::limits;
use mobo_core::link::{Channel, Dialer, Link, LinkError, Listener};
use mobo_core::trust::KeyPair;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// What an adapter brings.
pub(crate) trait Rig: Sync {
    /// A listener on this machine, on a free port; a peer that is silent for 1.5 times `keepalive` is dead.
    fn listen<'a>(&'a self, keys: &'a KeyPair, keepalive: Duration) -> BoxFuture<'a, Box<dyn Listener>>;

    /// A dialer for it.
    fn dialer(&self, keepalive: Duration) -> Box<dyn Dialer>;

    /// The address to dial for a listener.
    fn address(&self, hub: SocketAddr) -> String {
        hub.to_string()
    }

    /// A way to `hub` that can be cut.
    fn wire(&self, hub: SocketAddr) -> BoxFuture<'_, Box<dyn Wire>>;

    /// A device that sends `bytes` where its first control frame belongs, and is connected until what is returned is dropped.
    fn send_raw(&self, hub: SocketAddr, key: PublicKey, bytes: Vec<u8>) -> BoxFuture<'_, Box<dyn Any + Send>>;
}

/// One test for each function of the suite, over a rig.
macro_rules! conforms {
    ($rig:expr) => {
        $crate::link_conformance::conforms!($rig;
            frames_of_every_size_arrive_whole_and_in_order
            a_channel_does_not_wait_for_another
            a_dropped_call_loses_and_breaks_nothing
            both_ends_derive_a_binding_of_their_own
            close_delivers_what_was_sent
            a_hub_with_another_key_is_refused
            a_peer_that_falls_silent_is_found
            what_is_no_frame_ends_its_link_only
            many_links_live_side_by_side
            a_closed_listener_says_goodbye
        );
    };
    ($rig:expr; $($case:ident)*) => {
        $(
            #[tokio::test]
            async fn $case() {
                $crate::link_conformance::$case(&$rig).await;
            }
        )*
    };
}
pub(crate) use conforms;

/// A way between two ends.
pub(crate) trait Wire: Send + Sync {
    /// Where it leads to the hub.
    fn address(&self) -> SocketAddr;

    /// From now on nothing passes, and nobody is told.
    fn cut(&self);
}

const UP: [Channel; 5] =
    [Channel::Control, Channel::Lane(Lane::State), Channel::Lane(Lane::Events), Channel::Lane(Lane::Telemetry), Channel::Lane(Lane::Blobs)];
const DOWN: [Channel; 2] = [Channel::Control, Channel::Down];

/// Lengths of bodies where something may change: the header's length, a read's, a window's.
const BODY_BYTES: [usize; 14] = {
    let max = limits::FRAME_BODY_BYTES_MAX;
    [0, 1, 2, 127, 128, 1_199, 16_383, 16_384, 65_537, max / 2 - 1, max / 2 + 1, 3, max - 1, max]
};

pub(crate) async fn frames_of_every_size_arrive_whole_and_in_order(rig: &dyn Rig) {
    let bench = Bench::new(rig).await;
    let (device, hub) = bench.pair().await;
    for (from, to, channels) in [(&device, &hub, &UP[..]), (&hub, &device, &DOWN[..])] {
        let mut senders = JoinSet::new();
        for (channel, mark) in channels.iter().copied().zip(0..) {
            let from = from.clone();
            senders.spawn(async move {
                for (body_bytes, number) in BODY_BYTES.into_iter().zip(0..) {
                    from.send(channel, frame(mark, number, body_bytes)).await.expect("sent");
                }
            });
        }
        let mut numbers = BTreeMap::new();
        for _ in 0..channels.len() * BODY_BYTES.len() {
            let got = soon("a frame", to.recv()).await.expect("received");
            let next = numbers.entry(got[0]).or_insert(0);
            let want = frame(got[0], *next, BODY_BYTES[usize::from(*next)]);
            assert!(got == want, "{} bytes on channel {} in place of {} bytes", got.len(), got[0], want.len());
            *next += 1;
        }
        soon("all sent", senders.join_all()).await;
    }
    let (sent, received) = device.bytes();
    let least: usize = BODY_BYTES.iter().sum();
    assert!(sent > (UP.len() * least) as u64 && received > (DOWN.len() * least) as u64, "{sent} sent, {received} received");
}

pub(crate) async fn a_channel_does_not_wait_for_another(rig: &dyn Rig) {
    let bench = Bench::new(rig).await;
    let (device, hub) = bench.pair().await;
    // Nobody reads, so the bulky channel stands still; the small frames pass all the same.
    let bulky = {
        let device = device.clone();
        tokio::spawn(async move {
            for number in 0..4 {
                device.send(Channel::Lane(Lane::Blobs), frame(1, number, limits::FRAME_BODY_BYTES_MAX)).await.expect("sent");
            }
        })
    };
    for number in 0..8 {
        soon("a small frame is taken", device.send(Channel::Control, frame(0, number, 10))).await.expect("sent");
    }
    assert!(!bulky.is_finished());
    let mut marks = Vec::new();
    while marks.len() < 12 {
        marks.push(soon("a frame", hub.recv()).await.expect("received")[0]);
    }
    let last_bulky = marks.iter().rposition(|mark| *mark == 1);
    let last_small = marks.iter().rposition(|mark| *mark == 0);
    assert!(last_small < last_bulky, "small frames overtake: {marks:?}");
    soon("all sent", bulky).await.expect("joined");
}

pub(crate) async fn a_dropped_call_loses_and_breaks_nothing(rig: &dyn Rig) {
    let bench = Bench::new(rig).await;
    let (device, hub) = bench.pair().await;
    let lane = Channel::Lane(Lane::State);
    let whole = [frame(1, 0, limits::FRAME_BODY_BYTES_MAX), frame(1, 1, limits::FRAME_BODY_BYTES_MAX), frame(1, 2, 5)];
    let mut dropped = 0;
    for frame in &whole[..2] {
        // The peer does not read, so at least the second can only be taken in part.
        dropped += u32::from(timeout(Duration::from_millis(100), device.send(lane, frame.clone())).await.is_err());
    }
    assert!(dropped > 0, "two frames of the largest size fit into the window");
    let sender = {
        let (device, last) = (device.clone(), whole[2].clone());
        tokio::spawn(async move { device.send(lane, last).await })
    };
    let mut got = Vec::new();
    while got.last() != Some(&whole[2]) {
        // So short that it is over in the middle of a frame, again and again.
        if let Ok(frame) = timeout(Duration::from_micros(200), hub.recv()).await {
            got.push(frame.expect("received"));
        }
    }
    soon("the last is sent", sender).await.expect("joined").expect("sent");
    // A call that was dropped may have sent its frame or not, but never a part of it.
    assert!(got.iter().all(|frame| whole.contains(frame)), "{:?}", got.iter().map(Vec::len).collect::<Vec<_>>());
}

pub(crate) async fn both_ends_derive_a_binding_of_their_own(rig: &dyn Rig) {
    let bench = Bench::new(rig).await;
    let mut bindings = BTreeSet::new();
    for _ in 0..3 {
        let (device, hub) = bench.pair().await;
        assert_eq!(device.binding(), hub.binding());
        assert_eq!(device.binding().len(), 32);
        bindings.insert(device.binding());
    }
    assert_eq!(bindings.len(), 3);
}

pub(crate) async fn close_delivers_what_was_sent(rig: &dyn Rig) {
    let bench = Bench::new(rig).await;
    let (from_device, from_hub) = (Channel::Lane(Lane::Telemetry), Channel::Down);
    for (device_closes, channel) in [(true, from_device), (false, from_hub)] {
        let (device, hub) = bench.pair().await;
        let (closer, reader) = if device_closes { (device, hub) } else { (hub, device) };
        let sent = [frame(0, 0, 40), frame(1, 1, 200_000), frame(1, 2, 200_000), frame(0, 3, 0)];
        for frame in &sent {
            let channel = if frame[0] == 0 { Channel::Control } else { channel };
            closer.send(channel, frame.clone()).await.expect("sent");
        }
        // Nobody reads meanwhile: it is enough that the peer's transport has it.
        soon("closed", closer.close("that was all")).await;
        let mut got = BTreeSet::new();
        let end = loop {
            match soon("a frame or the end", reader.recv()).await {
                Ok(frame) => got.insert(frame),
                Err(error) => break error,
            };
        };
        assert!(got == BTreeSet::from(sent), "{} of 4 frames", got.len());
        assert_eq!(end, LinkError::Closed("that was all".into()));
        assert_eq!(reader.recv().await, Err(end.clone()), "the end is the end");
        for link in [&closer, &reader] {
            let error = soon("an answer", link.send(Channel::Control, frame(0, 4, 0))).await.expect_err("over");
            assert!(matches!(error, LinkError::Closed(_)), "{error}");
        }
        soon("closed twice", closer.close("again")).await;
    }
}

pub(crate) async fn a_hub_with_another_key_is_refused(rig: &dyn Rig) {
    let bench = Bench::new(rig).await;
    let address = rig.address(bench.listener.address());
    let other = KeyPair::from_secret(&[8; 32]).public();
    let dialer = bench.rig.dialer(bench.keepalive);
    let dialled = tokio::select! {
        dialled = dialer.dial(address.clone(), other) => dialled.map(|link| link.peer()),
        link = bench.listener.accept() => panic!("the hub took {link:?}"),
    };
    assert_eq!(dialled, Err(LinkError::WrongPeer { peer: address }));
    bench.pair().await;
}

pub(crate) async fn a_peer_that_falls_silent_is_found(rig: &dyn Rig) {
    let keepalive = Duration::from_secs(2);
    let bench = Bench::with_keepalive(rig, keepalive).await;
    let wire = rig.wire(bench.listener.address()).await;
    let (device, hub) = bench.pair_through(wire.address()).await;
    let idle = timeout(keepalive.mul_f32(2.5), async { tokio::join!(device.recv(), hub.recv()) }).await;
    assert!(idle.is_err(), "an idle link lives: {idle:?}");
    wire.cut();
    let cut = Instant::now();
    let (at_device, at_hub) = soon("both ends find out", async { tokio::join!(device.recv(), hub.recv()) }).await;
    assert_eq!((at_device, at_hub), (Err(LinkError::Silent), Err(LinkError::Silent)));
    // With room for a machine that is busy.
    let bound = keepalive.mul_f32(1.5) + Duration::from_secs(4);
    assert!(cut.elapsed() <= bound, "{:?} is more than {bound:?}", cut.elapsed());
    assert_eq!(device.send(Channel::Control, frame(0, 0, 0)).await, Err(LinkError::Silent));
    soon("a close does not wait for the dead", hub.close("over")).await;
}

pub(crate) async fn what_is_no_frame_ends_its_link_only(rig: &dyn Rig) {
    let bench = Bench::new(rig).await;
    let (device, hub) = bench.pair().await;
    let over = limits::FRAME_BODY_BYTES_MAX + 1;
    let announced = frame_header(1, 0, over);
    for bytes in [vec![0xff; 4_096], announced, vec![1, 0, 0x80, 0, 0]] {
        let sent = rig.send_raw(bench.listener.address(), bench.keys.public(), bytes);
        let (raw, link) = soon("accepted", async { tokio::join!(sent, bench.listener.accept()) }).await;
        let link = link.expect("a link");
        let error = soon("the end", link.recv()).await.expect_err("not a frame");
        assert!(matches!(error, LinkError::Protocol(_)), "{error}");
        assert_eq!(link.recv().await, Err(error.clone()));
        assert!(link.send(Channel::Control, frame(0, 0, 0)).await.is_err());
        drop(raw);
    }
    device.send(Channel::Control, frame(0, 9, 9)).await.expect("sent");
    assert_eq!(soon("the neighbour", hub.recv()).await, Ok(frame(0, 9, 9)));
}

pub(crate) async fn many_links_live_side_by_side(rig: &dyn Rig) {
    const LINKS: u8 = 200;
    // Both ends of all of them are in one process: on a busy machine it comes to none for longer than an end waits for the other one.
    let bench = Bench::with_keepalive(rig, 10 * limits::KEEPALIVE).await;
    let mut devices = JoinSet::new();
    // They live at the same time; that many handshakes at the same time take a busy machine longer than a device waits.
    let dialling = Arc::new(Semaphore::new(8));
    for number in 0..LINKS {
        let dialling = Arc::clone(&dialling);
        let (dialer, address, key) = (rig.dialer(bench.keepalive), rig.address(bench.listener.address()), bench.keys.public());
        devices.spawn(async move {
            let turn = dialling.acquire().await.expect("it is never closed");
            let link = dialer.dial(address, key).await.expect("dialled");
            drop(turn);
            link.send(Channel::Control, frame(0, number, 300)).await.expect("sent");
            let answer = link.recv().await.expect("answered");
            assert!(answer == frame(1, number, 300), "{number} got the answer of {}", answer[1]);
            link
        });
    }
    let mut hubs = Vec::new();
    for _ in 0..LINKS {
        hubs.push(soon("a link", bench.listener.accept()).await.expect("accepted"));
    }
    // Nobody is answered before all are connected.
    for hub in &hubs {
        let hello = soon("a hello", hub.recv()).await.expect("received");
        hub.send(Channel::Down, frame(1, hello[1], 300)).await.expect("sent");
    }
    let devices = soon("all answered", devices.join_all()).await;
    assert_eq!(devices.len(), usize::from(LINKS));
}

pub(crate) async fn a_closed_listener_says_goodbye(rig: &dyn Rig) {
    let bench = Bench::new(rig).await;
    let (device, hub) = bench.pair().await;
    let (accepted, ()) = soon("closed", async { tokio::join!(bench.listener.accept(), bench.listener.close()) }).await;
    assert!(matches!(accepted, Err(LinkError::Closed(_))), "{accepted:?}");
    for link in [device, hub] {
        let end = soon("the end", link.recv()).await;
        assert!(matches!(end, Err(LinkError::Closed(_))), "{end:?}");
    }
    assert!(bench.listener.accept().await.is_err());
}

/// A hub, and the means to reach it.
struct Bench<'r> {
    rig: &'r dyn Rig,
    keepalive: Duration,
    keys: KeyPair,
    listener: Box<dyn Listener>,
}

impl<'r> Bench<'r> {
    async fn new(rig: &'r dyn Rig) -> Self {
        Self::with_keepalive(rig, limits::KEEPALIVE).await
    }

    async fn with_keepalive(rig: &'r dyn Rig, keepalive: Duration) -> Self {
        let keys = KeyPair::from_secret(&[7; 32]);
        Self { rig, keepalive, listener: rig.listen(&keys, keepalive).await, keys }
    }

    /// A device's and a hub's end that have greeted each other.
    async fn pair(&self) -> (Arc<dyn Link>, Arc<dyn Link>) {
        self.pair_through(self.listener.address()).await
    }

    async fn pair_through(&self, address: SocketAddr) -> (Arc<dyn Link>, Arc<dyn Link>) {
        let dialer = self.rig.dialer(self.keepalive);
        let both = async { tokio::join!(dialer.dial(self.rig.address(address), self.keys.public()), self.listener.accept()) };
        let (device, hub) = soon("a link", both).await;
        let (device, hub): (Arc<dyn Link>, Arc<dyn Link>) = (device.expect("dialled").into(), hub.expect("accepted").into());
        for (from, to) in [(&device, &hub), (&hub, &device)] {
            from.send(Channel::Control, frame(0, 0, 1)).await.expect("greeted");
            assert_eq!(soon("a greeting", to.recv()).await, Ok(frame(0, 0, 1)));
        }
        (device, hub)
    }
}

/// What must happen soon, and is not measured.
pub(crate) async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    match timeout(Duration::from_secs(120), event).await {
        Ok(value) => value,
        Err(_) => panic!("waited too long: {what}"),
    }
}

/// A frame whose body follows from its two first bytes, which links must not look at.
pub(crate) fn frame(mark: u8, number: u8, body_bytes: usize) -> Vec<u8> {
    let mut frame = frame_header(mark, number, body_bytes);
    let mut state = u32::from_le_bytes([mark, number, 7, 1]);
    frame.extend((0..body_bytes).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_le_bytes()[3]
    }));
    frame
}

fn frame_header(mark: u8, number: u8, body_bytes: usize) -> Vec<u8> {
    let mut header = vec![mark, number];
    let mut rest = body_bytes;
    while rest >= 0x80 {
        header.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    header.push(rest as u8);
    header
}
