//! A disk: its files, and what it does wrong.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::file::Inode;
use crate::tape::{Deed, Tape};

static DISKS: Mutex<BTreeMap<u64, Arc<Mutex<State>>>> = Mutex::new(BTreeMap::new());
static NEXT: AtomicU64 = AtomicU64::new(1);

/// The files of a disk at one moment, by name: an image of it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Image(pub(crate) BTreeMap<String, Vec<u8>>);

/// What goes wrong with one write or sync.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failure {
    /// The power is gone: from here on, nothing happens any more.
    PowerCut,
    /// An input/output error, once.
    Io,
}

/// What a disk has done, and done wrong, so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// Writes and truncations.
    pub writes: u64,
    /// Bytes of the writes.
    pub bytes: u64,
    /// Reads that failed.
    pub unread: u64,
    /// Syncs.
    pub syncs: u64,
    /// Writes and syncs that failed.
    pub errors: u64,
    /// Writes that found no space.
    pub full: u64,
    /// Syncs that were said to be done and were not.
    pub lies: u64,
    /// Sectors that a power cut has lost.
    pub sectors_lost: u64,
}

/// A disk in memory. Dropping it takes its files away.
#[derive(Debug)]
pub struct Disk {
    number: u64,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    files: BTreeMap<String, Inode>,
    /// Counts ends of the process: what was opened before is of a process that is gone.
    life: u64,
    is_down: bool,
    ops: u64,
    fails: Option<(u64, Failure)>,
    bytes_max: Option<u64>,
    lying: bool,
    frozen: bool,
    unreadable: Option<(String, Range<usize>)>,
    tally: Tally,
    tape: Option<Tape>,
}

/// Why a callback fails.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Refused {
    Io,
    Full,
}

impl Image {
    /// The size of a file; `None` where there is none of that name.
    #[must_use]
    pub fn size(&self, name: &str) -> Option<usize> {
        self.0.get(name).map(Vec::len)
    }
}

impl Disk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        crate::callbacks::register();
        let (number, state) = (NEXT.fetch_add(1, Ordering::Relaxed), Arc::new(Mutex::new(State::default())));
        lock(&DISKS).insert(number, Arc::clone(&state));
        Self { number, state }
    }

    /// A disk with the files of an image: a copy of a card.
    #[must_use]
    pub fn from_image(image: &Image) -> Self {
        let disk = Self::new();
        disk.state().load(image);
        disk
    }

    /// Where its files are, for SQLite.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        PathBuf::from(format!("/{}", self.number))
    }

    /// What is on it now, unsynced changes included: what a copy of the folder holds.
    #[must_use]
    pub fn image(&self) -> Image {
        Image(self.state().files.iter().map(|(name, inode)| (name.clone(), inode.now.clone())).collect())
    }

    /// Puts an image in the place of all files; what had them open is dead.
    pub fn restore(&self, image: &Image) {
        self.state().load(image);
    }

    /// Ends the process that uses it, and nothing else: what it has written stays.
    pub fn kill(&self) {
        let mut state = self.state();
        if state.is_down {
            return;
        }
        // What is unsynced stays unsynced: the power may still go.
        state.life += 1;
        state.files.values_mut().for_each(Inode::forget_process);
    }

    /// Cuts the power (or ends the cut that has begun), and brings it back: of what was not synced, `keep` says sector by sector what is
    /// there.
    pub fn cut(&self, keep: &mut dyn FnMut() -> bool) {
        let mut state = self.state();
        let mut lost = 0;
        let mut counted = || {
            let kept = keep();
            lost += u64::from(!kept);
            kept
        };
        let files = std::mem::take(&mut state.files);
        for (name, inode) in files {
            if let Some(bytes) = inode.after_cut(&mut counted) {
                state.files.insert(name, Inode::from_bytes(bytes));
            }
        }
        state.tally.sectors_lost += lost;
        (state.life, state.is_down, state.fails) = (state.life + 1, false, None);
    }

    /// Lets the write or sync after `ops` more of them fail.
    pub fn fail_after(&self, ops: u64, failure: Failure) {
        let mut state = self.state();
        state.fails = Some((state.ops + ops + 1, failure));
    }

    /// Takes back a failure that has not happened yet, lies, fullness, and what cannot be read or written.
    pub fn heal(&self) {
        let mut state = self.state();
        (state.fails, state.bytes_max, state.lying) = (None, None, false);
        (state.frozen, state.unreadable) = (false, None);
    }

    /// Takes no write any more, as a file system that the system has made read-only.
    pub fn freeze(&self) {
        self.state().frozen = true;
    }

    /// Gives an error for every read that touches these bytes of a file.
    pub fn hide(&self, name: &str, bytes: Range<usize>) {
        self.state().unreadable = Some((name.to_owned(), bytes));
    }

    /// Keeps what is done to it from now on.
    pub fn record(&self) {
        self.state().tape = Some(Tape::default());
    }

    /// What was done to it since [`record`](Self::record).
    #[must_use]
    pub fn recorded(&self) -> Tape {
        self.state().tape.take().unwrap_or_default()
    }

    /// Lets it hold no more than what is on it now and so many bytes more.
    pub fn fill(&self, bytes_free: u64) {
        let mut state = self.state();
        state.bytes_max = Some(state.bytes() + bytes_free);
    }

    /// Lets it say that syncs are done that are not.
    pub fn lie(&self) {
        self.state().lying = true;
    }

    /// True after a power cut that began at a write or sync, until [`cut`](Self::cut) ends it.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.state().is_down
    }

    /// Writes and syncs so far.
    #[must_use]
    pub fn ops(&self) -> u64 {
        self.state().ops
    }

    /// What it has done so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.state().tally
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Default for Disk {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        lock(&DISKS).remove(&self.number);
    }
}

pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The disk of a path, and the file's name on it.
pub(crate) fn find(path: &str) -> Option<(Arc<Mutex<State>>, String)> {
    let (number, name) = path.strip_prefix('/')?.split_once('/')?;
    let state = lock(&DISKS).get(&number.parse().ok()?).cloned()?;
    Some((state, name.to_owned()))
}

impl State {
    fn load(&mut self, Image(files): &Image) {
        self.files = files.iter().map(|(name, bytes)| (name.clone(), Inode::from_bytes(bytes.clone()))).collect();
        (self.life, self.is_down, self.fails) = (self.life + 1, false, None);
    }

    fn bytes(&self) -> u64 {
        self.files.values().map(|inode| inode.now.len() as u64).sum()
    }

    pub(crate) const fn life(&self) -> u64 {
        self.life
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        !self.is_down && self.files.contains_key(name)
    }

    pub(crate) fn open(&mut self, name: &str, create: bool) -> bool {
        if self.is_down {
            return false;
        }
        if create && !self.files.contains_key(name) {
            self.files.insert(name.to_owned(), Inode::default());
            self.note(name, || Deed::Create);
        }
        self.files.contains_key(name)
    }

    pub(crate) fn delete(&mut self, name: &str) -> Result<bool, Refused> {
        if self.is_down {
            return Err(Refused::Io);
        }
        let was_there = self.files.remove(name).is_some();
        if was_there {
            self.note(name, || Deed::Delete);
        }
        Ok(was_there)
    }

    fn note(&mut self, name: &str, deed: impl FnOnce() -> Deed) {
        if let Some(Tape(deeds)) = &mut self.tape {
            deeds.push((name.to_owned(), deed()));
        }
    }

    /// The file, for a process that is alive.
    pub(crate) fn file(&mut self, name: &str, life: u64) -> Result<&mut Inode, Refused> {
        if self.is_down || life != self.life {
            return Err(Refused::Io);
        }
        if !self.files.contains_key(name) {
            self.files.insert(name.to_owned(), Inode::default());
        }
        self.files.get_mut(name).ok_or(Refused::Io)
    }

    pub(crate) fn write(&mut self, (name, life): (&str, u64), at: usize, bytes: &[u8]) -> Result<(), Refused> {
        let len = self.file(name, life)?.now.len();
        let grown = (at + bytes.len()).saturating_sub(len) as u64;
        if grown > 0 && self.bytes_max.is_some_and(|max| self.bytes() + grown > max) {
            self.tally.full += 1;
            return Err(Refused::Full);
        }
        let failure = self.next_op();
        if failure == Some(Failure::Io) {
            return Err(Refused::Io);
        }
        self.tally.writes += 1;
        self.tally.bytes += bytes.len() as u64;
        if let Some(inode) = self.files.get_mut(name) {
            inode.write(at, bytes);
        }
        self.note(name, || Deed::Write { at, bytes: bytes.to_vec() });
        self.end_op(failure)
    }

    /// The file, for a process that is alive and reads these bytes of it.
    pub(crate) fn read(&mut self, (name, life): (&str, u64), bytes: &Range<usize>) -> Result<&mut Inode, Refused> {
        let is_hidden = |(hidden, range): &(String, Range<usize>)| hidden == name && range.start < bytes.end && bytes.start < range.end;
        if self.unreadable.as_ref().is_some_and(is_hidden) {
            self.tally.unread += 1;
            return Err(Refused::Io);
        }
        self.file(name, life)
    }

    pub(crate) fn truncate(&mut self, (name, life): (&str, u64), len: usize) -> Result<(), Refused> {
        self.file(name, life)?;
        let failure = self.next_op();
        if failure == Some(Failure::Io) {
            return Err(Refused::Io);
        }
        self.tally.writes += 1;
        if let Some(inode) = self.files.get_mut(name) {
            inode.truncate(len);
        }
        self.note(name, || Deed::Truncate(len));
        self.end_op(failure)
    }

    pub(crate) fn sync(&mut self, (name, life): (&str, u64)) -> Result<(), Refused> {
        self.file(name, life)?;
        let failure = self.next_op();
        self.tally.syncs += 1;
        if self.lying {
            self.tally.lies += 1;
        } else if failure.is_none()
            && let Some(inode) = self.files.get_mut(name)
        {
            inode.sync();
        }
        if failure.is_none() && !self.lying {
            self.note(name, || Deed::Sync);
        }
        match failure {
            Some(Failure::Io) => Err(Refused::Io),
            failure => self.end_op(failure),
        }
    }

    fn next_op(&mut self) -> Option<Failure> {
        self.ops += 1;
        if self.frozen {
            self.tally.errors += 1;
            return Some(Failure::Io);
        }
        let (at, failure) = self.fails?;
        if at > self.ops {
            return None;
        }
        self.fails = None;
        self.tally.errors += u64::from(failure == Failure::Io);
        Some(failure)
    }

    fn end_op(&mut self, failure: Option<Failure>) -> Result<(), Refused> {
        if failure == Some(Failure::PowerCut) {
            (self.life, self.is_down) = (self.life + 1, true);
            return Err(Refused::Io);
        }
        Ok(())
    }
}
