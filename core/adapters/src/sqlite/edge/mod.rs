//! The device's store: its records, its own log, and how far both nodes have read each other.
//!
//! A write is authored against what is shown, sealed, and laid over its record in one transaction: ack level *local* (DESIGN.md,
//! section 4). What the hub delivers becomes the base, never merged on the device; own entries that it does not hold yet are laid over it
//! (rule R14). Everything that is true is in the database: sessions come and go.

mod access;
mod ack;
mod answers;
mod apply;
mod bases;
mod compare;
mod counts;
mod decided;
mod definitions;
mod desk;
mod detached;
mod exchange;
mod fault;
mod floor;
mod identity;
mod inbox;
mod ingest;
mod intake;
mod keeping;
mod levels;
mod life;
mod live;
mod members;
mod meta;
mod outbox;
mod overlays;
mod past;
mod recover;
mod redo;
mod refence;
mod refusals;
mod retry;
mod room;
mod rows;
mod status;
mod stranded;
mod stream;
mod together;
mod write;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};

use mobo_core::author::Edit;
use mobo_core::ids::{CollectionId, Lane, Nonce, RecordKey, Seq};
use mobo_core::limits;
use mobo_core::message::Definition;
use mobo_core::query::{Page, Select};
use mobo_core::schema::Schema;
use mobo_core::store::{StoreError, StoreInfo};
use mobo_core::stream::Segment;
use mobo_core::time::Moment;
use rusqlite::Connection;
use tokio::sync::broadcast;

pub use answers::{
    Acknowledged, Admitted, Applied, ApplyError, Change, Compared, Identity, Keep, Mismatch, Node, Outgoing, Pending, Record, Refenced,
    Report, Sealed, Standing, WriteError, Written,
};
pub use counts::{BucketCount, EdgeAudit, EdgeCounts, InboxRow, InboxStatus, LaneCount, LossCount, Obstacle, RefusedEdit};
pub use ingest::Ingested;
pub use levels::Reached;
pub use room::{FullPolicy, Room};

use super::error::Failure;
use super::open::{Role, open_reader, open_reader_on, open_writer, open_writer_on};
use super::readers::Readers;
use super::writer::{InlineWriter, Writer};
use definitions::Cached;
use fault::Try;
use intake::TakenIn;

/// What the store takes from its surroundings when it seals an entry.
#[derive(Clone)]
pub struct Sources {
    /// The device's clocks.
    pub moment: Arc<dyn Fn() -> Moment + Send + Sync>,
    /// Fresh random bytes.
    pub nonce: Arc<dyn Fn() -> Nonce + Send + Sync>,
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

impl Sources {
    fn seal(&self) -> (Moment, Nonce) {
        ((self.moment)(), (self.nonce)())
    }
}

/// The device's store. Clones share it.
///
/// Every answer of a write is given when it is durable. A write that was started goes on when its caller stops waiting.
#[derive(Clone, Debug)]
pub struct EdgeStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    place: String,
    writer: Writer,
    readers: Readers,
    schema: Cached,
    sources: Sources,
    changes: broadcast::Sender<Change>,
    room: RwLock<Arc<Room>>,
    intake: intake::Since,
    /// True where the caller's thread is the only one.
    inline: bool,
}

impl Inner {
    fn room(&self) -> Arc<Room> {
        Arc::clone(&self.room.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn taken(&self, taken: &TakenIn) {
        self.tell(records(&taken.changed));
        self.tell(taken.sealed.iter().map(|sealed| Change::LaneAppended(sealed.lane)).collect());
    }

    fn tell(&self, changes: Vec<Change>) {
        for change in changes {
            // Nobody may be watching.
            let _ = self.changes.send(change);
        }
    }
}

impl EdgeStore {
    /// Opens the database in `path`, or makes it.
    ///
    /// # Errors
    ///
    /// A [`StoreError`] when the file cannot be used: it belongs to another node, is of a later version, damaged, or not to be written.
    pub fn open(path: &Path, sources: Sources) -> Result<Self, StoreError> {
        let connection = life::begin(open_writer(path, Role::Edge, limits::EDGE_WRITER_CACHE_KIB)?, &sources)?;
        intake::prepare(&connection, definitions::read(&connection)?.iter())?;
        // A reader that cannot be opened is better found now.
        drop(open_reader(path, limits::EDGE_READER_CACHE_KIB)?);
        Ok(Self::with((path, None), sources, Writer::start(connection)?))
    }

    /// Opens the database in the SQLite file system of that name, without a thread of its own: reads run on the caller's, and writes
    /// whenever the writer is given its turn. For a simulator.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_inline(path: &Path, vfs: &str, sources: Sources) -> Result<(Self, InlineWriter), StoreError> {
        let connection = life::begin(open_writer_on((path, Some(vfs)), Role::Edge, limits::EDGE_WRITER_CACHE_KIB)?, &sources)?;
        intake::prepare(&connection, definitions::read(&connection)?.iter())?;
        drop(open_reader_on((path, Some(vfs)), limits::EDGE_READER_CACHE_KIB)?);
        let (writer, inline) = Writer::inline(connection);
        Ok((Self::with((path, Some(vfs)), sources, writer), inline))
    }

    fn with((path, vfs): (&Path, Option<&str>), sources: Sources, writer: Writer) -> Self {
        let place = (path.to_owned(), vfs.map(str::to_owned));
        let inner = Inner {
            place: path.display().to_string(),
            writer,
            readers: Readers::on(place, limits::EDGE_READERS_MAX, limits::EDGE_READER_CACHE_KIB),
            schema: Cached::default(),
            sources,
            changes: broadcast::Sender::new(limits::EDGE_CHANGES_MAX),
            room: RwLock::default(),
            intake: intake::Since::default(),
            inline: vfs.is_some(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Kind, version and place.
    #[must_use]
    pub fn info(&self) -> StoreInfo {
        StoreInfo { kind: "sqlite", version: rusqlite::version().to_owned(), place: self.inner.place.clone() }
    }

    /// Sets how much room the database may take, from the next write on.
    pub fn set_room(&self, room: Room) {
        *self.inner.room.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(room);
    }

    /// How much room the database may take.
    #[must_use]
    pub fn room(&self) -> Arc<Room> {
        self.inner.room()
    }

    /// Transactions and writes that were committed since the store was opened: under load, many writes share a transaction and its sync.
    #[must_use]
    pub fn commits(&self) -> (u64, u64) {
        let counters = self.inner.writer.counters();
        (counters.commits.load(Ordering::Relaxed), counters.jobs.load(Ordering::Relaxed))
    }

    /// What is committed from now on. A receiver more than [`limits::EDGE_CHANGES_MAX`] behind is told so, and looks at everything again.
    #[must_use]
    pub fn watch(&self) -> broadcast::Receiver<Change> {
        self.inner.changes.subscribe()
    }

    /// Edits records of one collection: one entry, all or nothing. Neither clock nor network can make this fail; a store without room
    /// ([`Room`]) can.
    ///
    /// # Errors
    ///
    /// [`WriteError`], by what the caller should change.
    pub async fn write(&self, collection: CollectionId, edits: Vec<Edit>, author: Option<String>) -> Result<Written, WriteError> {
        let work = move |conn: &Connection, inner: &Inner| {
            let schema = inner.schema.get(conn)?;
            room::for_records(conn, &inner.room())?;
            sorted(write::write(conn, &schema, (collection, &edits, author.as_deref()), inner.sources.seal()))
        };
        self.commit(work, written).await?
    }

    /// Appends samples of one stream: one entry on its lane, and rows at once.
    ///
    /// # Errors
    ///
    /// [`WriteError`], by what the caller should change.
    pub async fn append(&self, segment: Segment) -> Result<Written, WriteError> {
        let work = move |conn: &Connection, inner: &Inner| {
            let schema = inner.schema.get(conn)?;
            room::for_samples(conn, &schema, (&inner.room(), segment.collection), || inner.sources.seal())?;
            sorted(stream::append(conn, &schema, &segment, inner.sources.seal()))
        };
        self.commit(work, written).await?
    }

    /// The entries of a lane behind `after`: at most so many and so many bytes, but at least one. What is not durable is not there.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn pending(&self, lane: Lane, after: Option<Seq>, entries_max: usize, bytes_max: usize) -> Result<Pending, StoreError> {
        self.inner.readers.read(move |conn| outbox::outgoing(conn, lane, after, (entries_max, bytes_max))).await
    }

    /// The collections that the device knows. Cheap: they are read again only after they have changed.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn schema(&self) -> Result<Arc<Schema>, StoreError> {
        self.read(|conn, inner| inner.schema.get(conn)).await
    }

    /// The definitions as the hub delivered them.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn definitions(&self) -> Result<Vec<Definition>, StoreError> {
        self.read(|conn, _| definitions::delivered(conn)).await
    }

    /// Rows of a collection.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn select(&self, select: Select) -> Result<Page, StoreError> {
        self.read(move |conn, _| super::select::select(conn, &select)).await
    }

    /// Takes in what other programs have written into the tables; true if anything was. Every write does so first: this is for whoever is
    /// told that the file has changed.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn take_in(&self) -> Result<bool, StoreError> {
        if !self.inner.readers.read(intake::waits).await? {
            return Ok(false);
        }
        self.commit(|_, _| Ok(()), |_, ()| {}).await?;
        Ok(true)
    }

    /// The same for whoever is told that somebody writes into the file: what is written is seen only when its writer has let go of the
    /// database, and this waits for that.
    ///
    /// # Errors
    ///
    /// A [`StoreError`]; [`StoreError::Unavailable`] where somebody holds the database for too long: ask again.
    pub async fn take_in_next(&self) -> Result<(), StoreError> {
        self.commit(|_, _| Ok(()), |_, ()| {}).await
    }

    /// One record as it is shown, visible or not; `None` when it is not here.
    ///
    /// # Errors
    ///
    /// A [`StoreError`], [`StoreError::Damaged`] when its row does not fit its hash.
    pub async fn record(&self, key: RecordKey) -> Result<Option<Record>, StoreError> {
        self.take_in().await?;
        self.read(move |conn, inner| status::record(conn, &*inner.schema.get(conn)?, &key)).await
    }

    /// Numbers for `status`.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn counts(&self) -> Result<EdgeCounts, StoreError> {
        self.read(|conn, inner| status::counts(conn, &*inner.schema.get(conn)?)).await
    }

    /// Recomputes chains, hashes and digests from what is stored.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn audit(&self) -> Result<EdgeAudit, StoreError> {
        self.take_in().await?;
        self.read(|conn, inner| status::audit(conn, &*inner.schema.get(conn)?)).await
    }

    /// Finishes what is under way and closes.
    pub async fn close(&self) {
        self.inner.readers.close().await;
        self.inner.writer.close().await;
    }

    /// Runs `work` in the next transaction, and `tell` with its answer once that is durable.
    async fn commit<T, F>(&self, work: F, tell: fn(&Inner, &T)) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection, &Inner) -> Try<T> + Send + 'static,
    {
        let (inner, shared) = (Arc::clone(&self.inner), Arc::clone(&self.inner));
        let committing = async move {
            let job = move |conn: &Connection| {
                // First what other programs wrote before: every job works on rows that were taken in.
                let taken = if intake::waits(conn)? {
                    intake::take(conn, &*shared.schema.get(conn)?, &shared.sources, &shared.intake)?
                } else {
                    shared.intake.nothing_waits();
                    TakenIn::default()
                };
                Ok((taken, work(conn, &shared)?))
            };
            let (taken, done) = inner.writer.run(job).await?;
            inner.taken(&taken);
            tell(&inner, &done);
            Ok(done)
        };
        if self.inner.inline {
            return committing.await;
        }
        // A task of its own: what is committed is told even if the caller has stopped waiting.
        super::apart::to_its_end(committing).await
    }

    async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection, &Inner) -> Try<T> + Send + 'static,
    {
        let shared = Arc::clone(&self.inner);
        self.inner.readers.read(move |conn| work(conn, &shared)).await
    }
}

/// An answer that the caller must act on, or a failure that takes the job back.
fn sorted(answer: Result<Written, WriteError>) -> Try<Result<Written, WriteError>> {
    match answer {
        Err(WriteError::Store(error)) => Err(Failure::from(error)),
        answer => Ok(answer),
    }
}

fn written(inner: &Inner, answer: &Result<Written, WriteError>) {
    answer.iter().for_each(|written| tell_written(inner, written));
}

fn tell_written(inner: &Inner, written: &Written) {
    if let Written { entry: Some(entry), changed } = written {
        inner.tell(records(changed));
        inner.tell(vec![Change::LaneAppended(entry.lane)]);
    }
}

fn records(changed: &[RecordKey]) -> Vec<Change> {
    if changed.is_empty() { Vec::new() } else { vec![Change::RecordsChanged(changed.into())] }
}
