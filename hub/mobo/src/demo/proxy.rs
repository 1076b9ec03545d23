//! A wire between one device and the hub: a UDP relay that can be cut. Neither end is told.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// Conversations of one wire; over it, the oldest is forgotten.
const FLOWS_MAX: usize = 64;
/// Largest datagram.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// One wire. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Wire {
    /// Where the device finds the hub.
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    far_end: OnceLock<SocketAddr>,
    cut: AtomicBool,
    carried: AtomicU64,
    dropped: AtomicU64,
}

impl Wire {
    /// A wire whose far end is not fixed yet: it drops everything until then.
    pub(super) async fn open() -> io::Result<Self> {
        let near = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?);
        let shared = Arc::new(Shared::default());
        let address = near.local_addr()?;
        let task = tokio::spawn(relay(near, Arc::clone(&shared)));
        Ok(Self { address, shared, task })
    }

    /// Fixes the far end, once.
    pub(super) fn lead_to(&self, far_end: SocketAddr) {
        let _ = self.shared.far_end.set(far_end);
    }

    /// Drops every datagram from now on, both ways; or carries them again.
    pub(super) fn set_cut(&self, cut: bool) {
        self.shared.cut.store(cut, Ordering::SeqCst);
    }

    /// Datagrams that were carried, and dropped.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.shared.carried.load(Ordering::Relaxed), self.shared.dropped.load(Ordering::Relaxed))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    /// Counts a datagram; true when it may pass.
    fn passes(&self) -> bool {
        let passes = !self.cut.load(Ordering::SeqCst) && self.far_end.get().is_some();
        let count = if passes { &self.carried } else { &self.dropped };
        count.fetch_add(1, Ordering::Relaxed);
        passes
    }
}

/// The way of one address of the device through the wire.
struct Flow {
    number: u64,
    far: Arc<UdpSocket>,
    back: JoinHandle<()>,
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.back.abort();
    }
}

async fn relay(near: Arc<UdpSocket>, shared: Arc<Shared>) {
    let mut flows: BTreeMap<SocketAddr, Flow> = BTreeMap::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    for number in 0.. {
        let Ok((bytes, device)) = near.recv_from(&mut buffer).await else { continue };
        if !shared.passes() {
            continue;
        }
        let Some(far_end) = shared.far_end.get() else { continue };
        if !flows.contains_key(&device) {
            let Ok(flow) = open_flow(number, (&near, device), *far_end, &shared).await else { continue };
            if flows.len() == FLOWS_MAX {
                let oldest = flows.iter().min_by_key(|(_, flow)| flow.number).map(|(device, _)| *device);
                oldest.and_then(|device| flows.remove(&device));
            }
            flows.insert(device, flow);
        }
        // A datagram that is not taken is lost, as on any wire.
        if let (Some(flow), Some(datagram)) = (flows.get(&device), buffer.get(..bytes)) {
            let _ = flow.far.send(datagram).await;
        }
    }
}

async fn open_flow(
    number: u64,
    (near, device): (&Arc<UdpSocket>, SocketAddr),
    far_end: SocketAddr,
    shared: &Arc<Shared>,
) -> io::Result<Flow> {
    let far = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?);
    far.connect(far_end).await?;
    let back = tokio::spawn(carry_back(Arc::clone(&far), (Arc::clone(near), device), Arc::clone(shared)));
    Ok(Flow { number, far, back })
}

async fn carry_back(far: Arc<UdpSocket>, (near, device): (Arc<UdpSocket>, SocketAddr), shared: Arc<Shared>) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        // An error here is the echo of one datagram that met no listener.
        let Ok(bytes) = far.recv(&mut buffer).await else { continue };
        if let (true, Some(datagram)) = (shared.passes(), buffer.get(..bytes)) {
            let _ = near.send_to(datagram, device).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A hub that answers every datagram with itself.
    async fn echo() -> SocketAddr {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 16];
            while let Ok((bytes, from)) = socket.recv_from(&mut buffer).await {
                socket.send_to(&buffer[..bytes], from).await.unwrap();
            }
        });
        address
    }

    async fn heard(socket: &UdpSocket) -> Vec<u8> {
        let mut buffer = [0; 16];
        let bytes = timeout(PATIENCE, socket.recv(&mut buffer)).await.unwrap().unwrap();
        buffer[..bytes].to_vec()
    }

    async fn wait_dropped(wire: &Wire, count: u64) {
        let enough = async {
            while wire.counts().1 < count {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, enough).await.unwrap();
    }

    #[tokio::test]
    async fn a_cut_wire_carries_nothing_and_a_healed_one_everything() {
        let wire = Wire::open().await.unwrap();
        let device = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        device.connect(wire.address).await.unwrap();
        device.send(b"too early").await.unwrap();
        wait_dropped(&wire, 1).await;
        wire.lead_to(echo().await);
        device.send(b"one").await.unwrap();
        assert_eq!(heard(&device).await, b"one");
        wire.set_cut(true);
        for _ in 0..5 {
            device.send(b"lost").await.unwrap();
        }
        wait_dropped(&wire, 6).await;
        wire.set_cut(false);
        device.send(b"two").await.unwrap();
        assert_eq!(heard(&device).await, b"two");
        assert_eq!(wire.counts(), (4, 6));
    }

    #[tokio::test]
    async fn many_devices_share_a_wire_and_the_oldest_goes_first() {
        let wire = Wire::open().await.unwrap();
        wire.lead_to(echo().await);
        let mut devices = Vec::new();
        for n in 0..=FLOWS_MAX {
            let device = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            device.connect(wire.address).await.unwrap();
            device.send(n.to_string().as_bytes()).await.unwrap();
            assert_eq!(heard(&device).await, n.to_string().as_bytes());
            devices.push(device);
        }
        // The first one comes back under another port, and is answered all the same.
        devices[0].send(b"again").await.unwrap();
        assert_eq!(heard(&devices[0]).await, b"again");
    }
}
