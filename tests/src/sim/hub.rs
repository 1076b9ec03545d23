//! The simulated hub: the real store, door, merger and conversations, on a disk and a machine of the world.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use mobo_adapters::sqlite::{InlineWriter, SqliteHubStore};
use mobo_core::ids::{Chain, LaneKey, Seq, Timeline};
use mobo_core::store::{HubStore, LaneAudit, StoreError};
use mobo_core::trust::KeyPair;
use mobo_hub::admission::Door;
use mobo_hub::merger::{MergeDesk, MergeQueue, Merger, News};
use mobo_hub::node::{Opened, assemble, settle_place};
use mobo_hub::sessions::{Conversation, Job, Sessions};
use mobo_hub::witness::{self, Seen};
use mobo_runtime::machine::Machine;
use mobo_vfs::{Disk, Image};
use tokio::sync::broadcast;

use super::device::{Out, Wire};
use super::machine::{SimMachine, wait};

/// The hub: what outlives its process, and its process.
#[derive(Debug)]
pub(super) struct HubNode {
    pub(super) keys: KeyPair,
    pub(super) disk: Disk,
    pub(super) machine: Arc<SimMachine>,
    pub(super) images: Vec<HubImage>,
    /// It was restored by the command, which says so; a folder that was only copied says nothing.
    pub(super) restored: bool,
    /// Which file, on which machine, its store is.
    pub(super) place: u64,
    /// What its folder remembers of its store.
    pub(super) seen: Option<Seen>,
    /// What each device may write; 0: there is no bound.
    pub(super) writes_per_hour: u64,
    pub(super) life: Option<HubLife>,
}

/// A copy of the hub's folder, and what was so when it was made.
#[derive(Clone, Debug)]
pub(super) struct HubImage {
    pub(super) files: Image,
    /// How far its store was; `None` where nobody could ask it.
    pub(super) seen: Option<Seen>,
    /// Writes until then.
    pub(super) writes: usize,
    pub(super) acked: BTreeMap<LaneKey, (Seq, Chain)>,
    /// The writes of devices that it has.
    pub(super) has: BTreeSet<u64>,
}

/// A copy of its store, to look at.
pub(super) struct HubCopy {
    pub(super) store: SqliteHubStore,
    pub(super) writer: InlineWriter,
    _disk: Disk,
}

/// A process of the hub.
#[derive(Debug)]
pub(super) struct HubLife {
    pub(super) store: Arc<SqliteHubStore>,
    pub(super) writer: InlineWriter,
    pub(super) opened: Opened,
    pub(super) door: Arc<Door>,
    pub(super) sessions: Arc<Sessions>,
    pub(super) queue: MergeQueue,
    pub(super) desk: MergeDesk,
    pub(super) talks: BTreeMap<u64, HubTalk>,
    /// The timeline that its sessions know.
    pub(super) timeline: Timeline,
    /// What its disk had done when its store was found to be sound, and its lanes then.
    pub(super) sound_at: Option<(u64, Vec<LaneAudit>)>,
    /// Writes and syncs of its disk that had failed when it started.
    pub(super) errors: u64,
    /// Its writer has done what waited, for somebody who could not wait for its turn.
    pub(super) turned: bool,
}

/// One session at the hub's end.
pub(super) struct HubTalk {
    pub(super) conversation: Conversation<Wire>,
    pub(super) out: Out,
    pub(super) news: broadcast::Receiver<News>,
    pub(super) jobs: BTreeMap<u64, Job>,
    pub(super) stepping: bool,
}

impl std::fmt::Debug for HubTalk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubTalk").field("conversation", &self.conversation).field("jobs", &self.jobs.len()).finish_non_exhaustive()
    }
}

impl HubNode {
    pub(super) fn new(keys: KeyPair, machine: Arc<SimMachine>) -> Self {
        Self { keys, disk: Disk::new(), machine, images: Vec::new(), restored: false, place: 0, seen: None, writes_per_hour: 0, life: None }
    }

    fn path(&self) -> PathBuf {
        self.disk.folder().join("hub.db")
    }

    /// Its store as it stands on the disk, on a disk of its own.
    pub(super) fn copy(&self) -> Result<HubCopy, StoreError> {
        let disk = Disk::from_image(&self.disk.image());
        let (store, writer) = SqliteHubStore::open_inline(&disk.folder().join("hub.db"), mobo_vfs::NAME)?;
        Ok(HubCopy { store, writer, _disk: disk })
    }

    /// Starts the process.
    pub(super) fn boot(&mut self) -> Result<(), StoreError> {
        let (store, mut writer) = SqliteHubStore::open_inline(&self.path(), mobo_vfs::NAME)?;
        let store = Arc::new(store);
        let machine: Arc<dyn Machine> = Arc::clone(&self.machine) as Arc<dyn Machine>;
        let socket = Arc::clone(&store) as Arc<dyn HubStore>;
        let opened = wait(assemble(socket, &self.keys, machine), || writer.turn())?;
        let merger = Merger {
            bus: None,
            store: Arc::clone(&opened.store),
            project: opened.project,
            history: Arc::clone(&opened.history),
            time: Arc::clone(&opened.time),
            schema: opened.schema.subscribe(),
        };
        let (queue, desk) = merger.desk();
        let door = Arc::new(Door {
            store: Arc::clone(&opened.store),
            history: Arc::clone(&opened.history),
            time: Arc::clone(&opened.time),
            accounts: None,
            keepalive: mobo_core::limits::KEEPALIVE,
            herd: mobo_hub::admission::Herd::default(),
            paces: mobo_hub::admission::Paces::new(self.writes_per_hour),
        });
        let sessions = Arc::new(Sessions::new(Arc::clone(&door), queue.clone(), opened.schema.subscribe()));
        if self.restored {
            let was = opened.history.era().timeline.timeline;
            wait(opened.history.fork(was, Vec::new()), || writer.turn())?;
            self.restored = false;
        }
        let seen = witness::settle(store.as_ref(), &opened.history, self.seen.as_ref());
        self.seen = Some(wait(seen, || writer.turn())?);
        let place = self.place.to_be_bytes().to_vec();
        wait(settle_place(&store, &opened.history, place), || writer.turn())?;
        let timeline = opened.history.era().timeline.timeline;
        let (talks, errors) = (BTreeMap::new(), self.disk.tally().errors);
        self.life =
            Some(HubLife { store, writer, opened, door, sessions, queue, desk, talks, timeline, sound_at: None, errors, turned: false });
        Ok(())
    }
}

impl HubLife {
    /// Runs something on the store to its end.
    pub(super) fn wait<F: Future>(&mut self, future: F) -> F::Output {
        wait(future, turns(&mut self.writer, &mut self.turned))
    }

    /// Looks how far the store is, as the hub does every few seconds.
    pub(super) fn look(&mut self, seen: Option<&Seen>) -> Result<Seen, StoreError> {
        let (store, history) = (Arc::clone(&self.store), Arc::clone(&self.opened.history));
        self.wait(witness::settle(store.as_ref(), &history, seen))
    }

    /// Merges what waits.
    pub(super) fn merge(&mut self) -> bool {
        let Self { desk, writer, turned, .. } = self;
        wait(desk.turn(), turns(writer, turned))
    }

    pub(super) fn accept(&mut self, link: u64, (binding, peer): (Vec<u8>, String)) {
        let out = Out::default();
        let conversation = Conversation::new(Arc::clone(&self.sessions), Wire(Arc::clone(&out)), (binding, peer));
        let news = self.queue.hints();
        self.talks.insert(link, HubTalk { conversation, out, news, jobs: BTreeMap::new(), stepping: false });
    }
}

/// Gives a writer its turn, and takes note of it: what others have asked of it is done, too.
pub(super) fn turns(writer: &mut InlineWriter, turned: &mut bool) -> impl FnMut() -> bool {
    || {
        let has_worked = writer.turn();
        *turned |= has_worked;
        has_worked
    }
}
