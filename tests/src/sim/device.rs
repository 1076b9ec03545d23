//! A simulated device: the real store and session driver, on a disk and a machine of the world.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use mobo_adapters::sqlite::InlineWriter;
use mobo_adapters::sqlite::edge::{Change, EdgeStore, Keep, Sources};
use mobo_core::backoff::Backoff;
use mobo_core::future::BoxFuture;
use mobo_core::ids::{Nonce, PublicKey};
use mobo_core::link::{Channel, Dialer, Link, LinkError};
use mobo_core::store::StoreError;
use mobo_core::trust::KeyPair;
use mobo_edge::uplink::driver::Driver;
use mobo_edge::uplink::{LinkStatus, Uplink};
use mobo_runtime::machine::{Machine, random};
use mobo_runtime::outbox::{Frames, TooSlow};
use mobo_vfs::{Disk, Image};
use tokio::sync::{broadcast, watch};

use super::machine::{SimMachine, wait};

/// Frames that a session has sent and the network has not taken yet.
pub(super) type Out = Arc<Mutex<Vec<(Channel, Vec<u8>)>>>;

/// Where a simulated session puts its frames.
#[derive(Debug)]
pub(super) struct Wire(pub(super) Out);

impl Frames for Wire {
    fn send(&mut self, channel: Channel, frame: Vec<u8>) -> Result<(), TooSlow> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((channel, frame));
        Ok(())
    }

    /// The network takes what it is given.
    async fn room(&mut self, _: Channel) -> Result<(), TooSlow> {
        Ok(())
    }
}

/// Takes what a session has sent.
pub(super) fn take(out: &Out) -> Vec<(Channel, Vec<u8>)> {
    std::mem::take(&mut out.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Links are made by the world.
#[derive(Debug)]
struct NoDialer;

impl Dialer for NoDialer {
    fn transport(&self) -> &'static str {
        "sim"
    }

    fn dial(&self, address: String, _: PublicKey) -> BoxFuture<'_, Result<Box<dyn Link>, LinkError>> {
        Box::pin(async move { Err(LinkError::Unreachable { peer: address, why: "links are made by the world".to_owned() }) })
    }
}

/// A device: what outlives its process, and its process.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) name: String,
    pub(super) keys: KeyPair,
    /// The bucket that it may use besides `all`.
    pub(super) site: &'static str,
    pub(super) disk: Disk,
    pub(super) machine: Arc<SimMachine>,
    pub(super) images: Vec<(Image, usize)>,
    pub(super) backoff: Backoff,
    /// Of the sensors beside it.
    pub(super) broker: super::sensors::Broker,
    pub(super) life: Option<Life>,
    /// Which history its writes belong to: a new one after each time that it was put back or copied.
    pub(super) history: usize,
    /// The histories that it continues.
    pub(super) lineage: Vec<usize>,
    /// Bytes of acknowledged entries that it keeps.
    pub(super) keep_bytes: u64,
    /// True once its folder was put back or copied, or its disk has lied: the hub may know more of its log than it does.
    pub(super) rolled_back: bool,
    /// True once it is gone for good.
    pub(super) destroyed: bool,
    /// True from a failure that it may have told its users of, until it is healed.
    pub(super) sick: bool,
    /// From which write on its disk has lied about syncs.
    pub(super) lies: Option<usize>,
    pub(super) partition: Option<(bool, bool)>,
    pub(super) dialing: bool,
    pub(super) restarting: bool,
}

/// A process of a device.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) store: Arc<EdgeStore>,
    pub(super) writer: InlineWriter,
    pub(super) uplink: Arc<Uplink>,
    pub(super) talk: Option<Talk>,
    /// What its disk had done when its store was found to be sound.
    pub(super) sound_at: Option<u64>,
    /// Writes and syncs of its disk that had failed when it started.
    pub(super) errors: u64,
}

/// A session at the device's end.
#[derive(Debug)]
pub(super) struct Talk {
    pub(super) link: u64,
    pub(super) driver: Driver<Wire>,
    pub(super) out: Out,
    pub(super) changes: broadcast::Receiver<Change>,
    pub(super) stepping: bool,
    pub(super) diverged: u64,
}

impl Device {
    pub(super) fn path(&self) -> PathBuf {
        self.disk.folder().join("edge.db")
    }

    /// Starts the process.
    pub(super) fn boot(&mut self) -> Result<(), StoreError> {
        let (clock, dice) = (Arc::clone(&self.machine), Arc::clone(&self.machine));
        let nonce = move || Nonce(random(dice.as_ref()).unwrap_or_default());
        let sources = Sources { moment: Arc::new(move || clock.moment()), nonce: Arc::new(nonce) };
        let (store, writer) = EdgeStore::open_inline(&self.path(), mobo_vfs::NAME, sources)?;
        let store = Arc::new(store);
        let uplink = Arc::new(Uplink {
            store: Arc::clone(&store),
            keys: self.keys.clone(),
            dialer: Arc::new(NoDialer),
            machine: Arc::clone(&self.machine) as Arc<dyn Machine>,
            addresses: Vec::new(),
            keep: Keep { bytes_max: self.keep_bytes, ..Keep::default() },
            status: watch::Sender::new(LinkStatus::default()),
            wake: Arc::default(),
            pauses: None,
        });
        let errors = self.disk.tally().errors;
        self.life = Some(Life { store, writer, uplink, talk: None, sound_at: None, errors });
        Ok(())
    }
}

impl Life {
    /// Runs something on the store to its end.
    pub(super) fn wait<F: Future>(&mut self, future: F) -> F::Output {
        wait(future, || self.writer.turn())
    }

    /// Says hello on a fresh link.
    pub(super) fn open(&mut self, link: u64, binding: Vec<u8>) -> Result<(), StoreError> {
        let (out, changes) = (Out::default(), self.store.watch());
        let (uplink, wire) = (Arc::clone(&self.uplink), Wire(Arc::clone(&out)));
        let driver = self.wait(Driver::open(uplink, wire, (binding, "hub".to_owned())))?;
        self.talk = Some(Talk { link, driver, out, changes, stepping: false, diverged: 0 });
        Ok(())
    }
}
