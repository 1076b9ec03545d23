//! A relay of datagrams between devices and the hub: it counts what passes, and can be cut as a cable can.
//!
//! While it is cut, nothing passes. A device that tries to connect meanwhile is told at once that nobody here speaks its version of QUIC, so
//! that it waits for its next try instead of hanging in a half-made one when the link comes back: what is measured then begins with the link.
//!
//! Bytes are those of UDP payloads: QUIC with everything it needs, without the headers of IP and UDP (28 B for each datagram over IPv4).
//! Each way of each flow has a thread that blocks in the kernel, so that the relay keeps up on a busy machine.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::sockopt::set_socket_recv_buffer_size;

/// The longest datagram.
const DATAGRAM_BYTES_MAX: usize = 65_536;
/// Bytes that may wait in a socket for their thread.
const BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// How long a thread may not notice that the relay is gone.
const LOOK: Duration = Duration::from_millis(50);
/// Flows at the same time: each try of a device to connect is one.
const FLOWS_MAX: usize = 64;

/// A running relay. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Relay {
    /// Where devices send to.
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

/// What has passed so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    /// From devices to the hub.
    pub(crate) up: Way,
    /// From the hub to devices.
    pub(crate) down: Way,
}

/// One way.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Way {
    /// Bytes of UDP payloads.
    pub(crate) bytes: u64,
    /// Datagrams.
    pub(crate) datagrams: u64,
}

impl Traffic {
    /// What has passed since `earlier`: up and down.
    pub(crate) fn since(self, earlier: Self) -> (Way, Way) {
        let minus = |now: Way, then: Way| Way { bytes: now.bytes - then.bytes, datagrams: now.datagrams - then.datagrams };
        (minus(self.up, earlier.up), minus(self.down, earlier.down))
    }
}

impl Relay {
    /// A relay whose hub is not known yet: datagrams are lost until [`Relay::open`].
    pub(crate) fn start() -> io::Result<Self> {
        let socket = bind()?;
        let address = socket.local_addr()?;
        let shared = Arc::new(Shared {
            socket,
            hub: OnceLock::new(),
            is_open: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            up: Count::default(),
            down: Count::default(),
        });
        let own = Arc::clone(&shared);
        let listener = std::thread::Builder::new().name("relay".to_owned()).spawn(move || own.carry_up())?;
        Ok(Self { address, shared, listener: Some(listener) })
    }

    /// Says where the hub is, which it can be told once, and lets datagrams pass.
    pub(crate) fn connect(&self, hub: SocketAddr) {
        let _ = self.shared.hub.set(hub);
        self.open();
    }

    /// Lets datagrams pass.
    pub(crate) fn open(&self) {
        self.shared.is_open.store(true, Ordering::SeqCst);
    }

    /// Loses every datagram from now on.
    pub(crate) fn cut(&self) {
        self.shared.is_open.store(false, Ordering::SeqCst);
    }

    /// What has passed so far.
    pub(crate) fn traffic(&self) -> Traffic {
        Traffic { up: self.shared.up.read(), down: self.shared.down.read() }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        if let Some(listener) = self.listener.take() {
            // It leaves within a look, and takes its flows with it.
            let _ = listener.join();
        }
    }
}

#[derive(Debug)]
struct Shared {
    /// Where devices send to, and get answers from.
    socket: UdpSocket,
    hub: OnceLock<SocketAddr>,
    is_open: AtomicBool,
    is_over: AtomicBool,
    up: Count,
    down: Count,
}

#[derive(Debug, Default)]
struct Count {
    bytes: AtomicU64,
    datagrams: AtomicU64,
}

impl Count {
    fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.datagrams.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> Way {
        Way { bytes: self.bytes.load(Ordering::Relaxed), datagrams: self.datagrams.load(Ordering::Relaxed) }
    }
}

/// One device's way through: a socket that the hub sees as the device.
struct Flow {
    to_hub: Arc<UdpSocket>,
    back: JoinHandle<()>,
}

impl Shared {
    /// Carries from devices to the hub until the end.
    fn carry_up(self: Arc<Self>) {
        let mut flows = BTreeMap::<SocketAddr, Flow>::new();
        let mut bytes = vec![0; DATAGRAM_BYTES_MAX];
        while !self.is_over.load(Ordering::SeqCst) {
            let Ok((length, device)) = self.socket.recv_from(&mut bytes) else { continue };
            if !self.is_open.load(Ordering::SeqCst) {
                if let Some(refusal) = bytes.get(..length).and_then(refusal) {
                    let _ = self.socket.send_to(&refusal, device);
                }
                continue;
            }
            if !flows.contains_key(&device)
                && flows.len() < FLOWS_MAX
                && let Ok(flow) = self.open_flow(device)
            {
                flows.insert(device, flow);
            }
            let Some((flow, datagram)) = flows.get(&device).zip(bytes.get(..length)) else { continue };
            // What the kernel does not take is lost, as on any wire; it is counted all the same, for the device has sent it.
            self.up.add(length);
            let _ = flow.to_hub.send(datagram);
        }
        for (_, flow) in flows {
            let _ = flow.back.join();
        }
    }

    fn open_flow(self: &Arc<Self>, device: SocketAddr) -> io::Result<Flow> {
        let hub = self.hub.get().ok_or(io::ErrorKind::NotConnected)?;
        let to_hub = Arc::new(bind()?);
        to_hub.connect(hub)?;
        let (shared, from_hub) = (Arc::clone(self), Arc::clone(&to_hub));
        let back = std::thread::Builder::new().name("relay back".to_owned()).spawn(move || shared.carry_down(device, &from_hub))?;
        Ok(Flow { to_hub, back })
    }

    /// Carries from the hub to one device until the end.
    fn carry_down(&self, device: SocketAddr, from_hub: &UdpSocket) {
        let mut bytes = vec![0; DATAGRAM_BYTES_MAX];
        while !self.is_over.load(Ordering::SeqCst) {
            let Ok(length) = from_hub.recv(&mut bytes) else { continue };
            let Some(datagram) = bytes.get(..length).filter(|_| self.is_open.load(Ordering::SeqCst)) else { continue };
            self.down.add(length);
            let _ = self.socket.send_to(datagram, device);
        }
    }
}

/// The answer to the first packet of a connection: a version negotiation (RFC 9000, 17.2.1) that offers a version which nobody speaks. None
/// for other packets: those of a connection that exists are lost.
fn refusal(packet: &[u8]) -> Option<Vec<u8>> {
    let (first, rest) = packet.split_first()?;
    // A long header, and of its types an Initial.
    if first & 0b1011_0000 != 0b1000_0000 {
        return None;
    }
    let (_, rest) = rest.split_at_checked(4)?;
    let (destination, rest) = connection_id(rest)?;
    let (source, _) = connection_id(rest)?;
    let mut answer = vec![0b1000_0000, 0, 0, 0, 0];
    for id in [source, destination] {
        answer.push(u8::try_from(id.len()).ok()?);
        answer.extend_from_slice(id);
    }
    // Reserved to exercise negotiation (RFC 9000, 15).
    answer.extend_from_slice(&[0x1a, 0x1a, 0x1a, 0x1a]);
    Some(answer)
}

/// A connection id behind its length, and what comes after it.
fn connection_id(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

fn bind() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    // The kernel gives at most what it is set to (net.core.rmem_max). A relay that loses datagrams would be measured instead of the nodes.
    set_socket_recv_buffer_size(&socket, BUFFER_BYTES)?;
    socket.set_read_timeout(Some(LOOK))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_pass_both_ways_and_are_counted_until_the_cut() {
        let (hub, relay) = (bind().unwrap(), Relay::start().unwrap());
        let devices = [bind().unwrap(), bind().unwrap()];
        let mut bytes = [0; 64];
        for (device, words) in devices.iter().zip(["one", "three"]) {
            device.connect(relay.address).unwrap();
            relay.connect(hub.local_addr().unwrap());
            let (length, from) = loop {
                device.send(words.as_bytes()).unwrap();
                if let Ok(found) = hub.recv_from(&mut bytes) {
                    break found;
                }
            };
            assert_eq!(&bytes[..length], words.as_bytes());
            hub.send_to(b"answer", from).unwrap();
            assert_eq!(device.recv(&mut bytes).unwrap(), 6);
            assert_eq!(&bytes[..6], b"answer");
        }
        let before = relay.traffic();
        assert!(before.up.datagrams >= 2 && before.up.bytes >= 8, "{before:?}");
        assert_eq!(before.down, Way { bytes: 12, datagrams: 2 });
        relay.cut();
        devices[0].send(b"lost").unwrap();
        assert!(hub.recv_from(&mut bytes).is_err());
        let (up, down) = relay.traffic().since(before);
        assert_eq!((up, down), (Way::default(), Way::default()));
    }

    #[test]
    fn only_the_first_packet_of_a_connection_is_refused() {
        let initial = [0xc3, 0, 0, 0, 1, 2, 7, 8, 1, 9, 0xff, 0xff];
        assert_eq!(refusal(&initial).unwrap(), [0x80, 0, 0, 0, 0, 1, 9, 2, 7, 8, 0x1a, 0x1a, 0x1a, 0x1a]);
        for length in 0..10 {
            assert_eq!(refusal(&initial[..length]), None, "{length}");
        }
        for other in [0x43, 0xe3, 0xf3, 0xd3] {
            assert_eq!(refusal(&[&[other], &initial[1..]].concat()), None, "{other:x}");
        }
    }
}
