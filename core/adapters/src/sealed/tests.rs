//! Sealed links over a way in memory that loses, repeats and swaps; and what rigs of them share.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mobo_core::future::BoxFuture;
use mobo_core::ids::{Lane, PublicKey};
use mobo_core::limits;
use mobo_core::link::{Channel, Link as _, LinkError};
use mobo_core::trust::KeyPair;
use mobo_protocol::sealed::{Content, LinkId, Opening, Packet};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Carrier, SealedLink, Setup, Source, accept, dial, random};
use crate::link_conformance::{Wire, frame, soon};

/// A device that agrees on keys, sends `bytes` where its first control frame belongs, and stays.
pub(crate) async fn send_raw(
    mut carrier: Box<dyn Carrier>,
    mut source: Box<dyn Source>,
    keys: &KeyPair,
    hub: PublicKey,
    bytes: Vec<u8>,
) -> Box<dyn Any + Send> {
    let opening = Opening::new(keys, hub, (LinkId(random().unwrap()), random().unwrap()), limits::PACKET_BYTES_MAX);
    carrier.send(opening.packet()).await.unwrap();
    let packet = source.next().await.unwrap();
    let Ok(Packet::Accept(_, body)) = Packet::decode(&packet) else { panic!("{packet:?}") };
    let mut agreed = opening.accepted(body).unwrap();
    carrier.send(agreed.sealer.seal(&Content::Piece(Channel::Control, &bytes))).await.unwrap();
    let held: Box<dyn Any + Send> = Box::new((Held(carrier), Held(source)));
    held
}

/// Keeps a way open.
#[allow(dead_code, reason = "it is there to be dropped")]
struct Held<T: ?Sized>(Box<T>);

/// A way for TCP between devices and a hub that can be cut.
pub(crate) struct TcpWire {
    way_in: SocketAddr,
    is_cut: Arc<AtomicBool>,
    _carrying: JoinSet<()>,
}

impl TcpWire {
    pub(crate) async fn to(hub: SocketAddr) -> Self {
        let near = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (way_in, is_cut) = (near.local_addr().unwrap(), Arc::<AtomicBool>::default());
        let (cut, mut carrying) = (Arc::clone(&is_cut), JoinSet::new());
        carrying.spawn(async move {
            let mut ways = JoinSet::new();
            while let Ok((device, _)) = near.accept().await {
                let (device_read, device_write) = device.into_split();
                let (hub_read, hub_write) = TcpStream::connect(hub).await.unwrap().into_split();
                ways.spawn(carry(device_read, hub_write, Arc::clone(&cut)));
                ways.spawn(carry(hub_read, device_write, Arc::clone(&cut)));
            }
        });
        Self { way_in, is_cut, _carrying: carrying }
    }
}

async fn carry(from: tokio::net::tcp::OwnedReadHalf, to: tokio::net::tcp::OwnedWriteHalf, is_cut: Arc<AtomicBool>) {
    let mut bytes = vec![0; 65_536];
    loop {
        from.readable().await.unwrap();
        if is_cut.load(Ordering::SeqCst) {
            // Both ends stay connected, and hear nothing.
            return std::future::pending().await;
        }
        match from.try_read(&mut bytes) {
            Ok(0) => return,
            Ok(count) => {
                let mut rest = &bytes[..count];
                while !rest.is_empty() && to.writable().await.is_ok() {
                    match to.try_write(rest) {
                        Ok(written) => rest = &rest[written..],
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                        Err(_) => return,
                    }
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

impl Wire for TcpWire {
    fn address(&self) -> SocketAddr {
        self.way_in
    }

    fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
    }
}

/// What happens to the packets of one direction, by their number.
type Mischief = fn(usize, Vec<u8>, &mut Vec<Vec<u8>>);

struct Away(mpsc::Sender<Vec<u8>>, Mischief, usize);

impl Carrier for Away {
    fn send(&mut self, packet: Vec<u8>) -> BoxFuture<'_, Result<(), LinkError>> {
        Box::pin(async move {
            let mut carried = Vec::new();
            self.1(self.2, packet, &mut carried);
            self.2 += 1;
            for packet in carried {
                self.0.send(packet).await.map_err(|_| LinkError::Closed("the way is gone".into()))?;
            }
            Ok(())
        })
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

struct Here(mpsc::Receiver<Vec<u8>>);

impl Source for Here {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<u8>, LinkError>> {
        Box::pin(async move { self.0.recv().await.ok_or_else(|| LinkError::Closed("the way is gone".into())) })
    }
}

/// A device's and a hub's end; `up` is what happens to the device's packets.
async fn pair(up: Mischief) -> (SealedLink, SealedLink) {
    let ((to_hub, at_hub), (to_device, at_device)) = (mpsc::channel(4), mpsc::channel(4));
    let hub = KeyPair::from_secret(&[7; 32]);
    let setup = |is_device| Setup { is_device, peer: "peer".into(), keepalive: limits::KEEPALIVE, packet_bytes_max: 4_096 };
    let (device, keys) = (KeyPair::from_secret(&[5; 32]), hub.public());
    let nothing: Mischief = |_, packet, carried| carried.push(packet);
    let both = async {
        tokio::join!(
            dial(Box::new(Away(to_hub, up, 0)), Box::new(Here(at_device)), &device, keys, setup(true)),
            accept(Box::new(Away(to_device, nothing, 0)), Box::new(Here(at_hub)), &hub, setup(false)),
        )
    };
    let (device, hub) = soon("a link", both).await;
    (device.unwrap(), hub.unwrap())
}

/// Sends frames up until the link ends; gives those that arrived, and the end.
async fn frames_up(up: Mischief) -> (Vec<Vec<u8>>, LinkError) {
    let (device, hub) = pair(up).await;
    let sending = async {
        for number in 0..20 {
            let _ = device.send(Channel::Lane(Lane::State), frame(1, number, 10_000)).await;
        }
        device.close("that was all").await;
    };
    let receiving = async {
        let mut got = Vec::new();
        loop {
            match hub.recv().await {
                Ok(frame) => got.push(frame),
                Err(error) => return (got, error),
            }
        }
    };
    soon("the end", async { tokio::join!(receiving, sending).0 }).await
}

fn all() -> Vec<Vec<u8>> {
    (0..20).map(|number| frame(1, number, 10_000)).collect()
}

/// Whatever the way does with packets, the session sees each frame once and in order, or the link ends.
// faults: N-2, X-5
#[tokio::test]
async fn repeated_lost_and_swapped_packets_never_reach_the_session() {
    let twice: Mischief = |_, packet, carried| carried.extend([packet.clone(), packet]);
    let (got, end) = frames_up(twice).await;
    assert!(got == all(), "{} of 20 frames", got.len());
    assert_eq!(end, LinkError::Closed("that was all".into()));

    let old_again: Mischief = |number, packet, carried| {
        // Somebody who listens plays the first packets again at any time: here each is followed by a forged one as well.
        let mut forged = packet.clone();
        *forged.last_mut().unwrap() ^= 1;
        carried.extend(if number > 1 { vec![forged, packet.clone(), packet] } else { vec![packet] });
    };
    assert!(frames_up(old_again).await.0 == all());

    let lossy: Mischief = |number, packet, carried| carried.extend((number != 20).then_some(packet));
    let (got, end) = frames_up(lossy).await;
    assert!(!got.is_empty() && got.len() < 20 && all().starts_with(&got), "{} frames", got.len());
    assert!(matches!(&end, LinkError::Closed(why) if why.contains("lost on the way")), "{end}");
}

#[tokio::test]
async fn packets_that_overtake_end_the_link() {
    static HELD: std::sync::Mutex<Option<Vec<u8>>> = std::sync::Mutex::new(None);
    let swapped: Mischief = |number, packet, carried| match number {
        20 => *HELD.lock().unwrap() = Some(packet),
        _ => carried.extend([Some(packet), HELD.lock().unwrap().take()].into_iter().flatten()),
    };
    let (got, end) = frames_up(swapped).await;
    assert!(!got.is_empty() && all().starts_with(&got), "{} frames", got.len());
    assert!(matches!(&end, LinkError::Closed(why) if why.contains("overtaken")), "{end}");
}

#[tokio::test]
async fn each_end_sends_its_own_channels_only() {
    let (device, hub) = pair(|_, packet, carried| carried.push(packet)).await;
    for (link, channel) in [(&device, Channel::Down), (&hub, Channel::Lane(Lane::State))] {
        assert!(matches!(link.send(channel, frame(0, 0, 0)).await, Err(LinkError::Protocol(_))), "{channel:?}");
    }
    hub.send(Channel::Down, frame(1, 1, 1)).await.unwrap();
    assert_eq!(soon("the link goes on", device.recv()).await, Ok(frame(1, 1, 1)));
}

/// A device that takes no notice of windows.
// faults: X-1
#[tokio::test]
async fn whoever_goes_over_the_window_breaks_the_protocol() {
    let ((to_hub, at_hub), (to_device, at_device)) = (mpsc::channel(4), mpsc::channel(64));
    let (hub, device) = (KeyPair::from_secret(&[7; 32]), KeyPair::from_secret(&[5; 32]));
    let nothing: Mischief = |_, packet, carried| carried.push(packet);
    let setup = Setup { is_device: false, peer: "device".into(), keepalive: limits::KEEPALIVE, packet_bytes_max: limits::PACKET_BYTES_MAX };
    let hub_end = tokio::spawn({
        let hub = hub.clone();
        async move { accept(Box::new(Away(to_device, nothing, 0)), Box::new(Here(at_hub)), &hub, setup).await.unwrap() }
    });
    let opening = Opening::new(&device, hub.public(), (LinkId([1; 8]), [2; 32]), limits::PACKET_BYTES_MAX);
    let (mut source, piece) = (Here(at_device), vec![0; 60_000]);
    to_hub.send(opening.packet()).await.unwrap();
    let packet = source.next().await.unwrap();
    let Ok(Packet::Accept(_, body)) = Packet::decode(&packet) else { panic!("{packet:?}") };
    let mut agreed = opening.accepted(body).unwrap();
    for _ in 0..=limits::LINK_WINDOW_BYTES / 60_000 {
        to_hub.send(agreed.sealer.seal(&Content::Piece(Channel::Lane(Lane::Blobs), &piece))).await.unwrap();
    }
    // All of it has arrived before any of it is read: what is read makes room in the window.
    while to_hub.capacity() < to_hub.max_capacity() && !to_hub.is_closed() {
        tokio::task::yield_now().await;
    }
    let hub_end = soon("a link", hub_end).await.unwrap();
    let over = async {
        loop {
            if let Err(error) = hub_end.recv().await {
                return error;
            }
        }
    };
    let error = tokio::time::timeout(Duration::from_secs(20), over).await.unwrap();
    assert!(matches!(error, LinkError::Protocol(_)), "{error}");
}
