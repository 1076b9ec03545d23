//! One file: what is there, what would be there after a power cut, and who has it locked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// The unit in which a disk writes, in bytes.
const SECTOR: usize = 512;
/// Words of one region of shared memory: 32 KiB.
pub(crate) const REGION_WORDS: usize = 4_096;
/// Locks on shared memory that SQLite uses.
const SHM_LOCKS: usize = 8;

pub(crate) type Region = Arc<[AtomicU64; REGION_WORDS]>;

/// A change that no sync has covered yet.
#[derive(Clone, Debug)]
enum Unsynced {
    Write { at: usize, bytes: Vec<u8> },
    Truncate(usize),
}

/// A file.
#[derive(Debug, Default)]
pub(crate) struct Inode {
    pub(crate) now: Vec<u8>,
    /// `None` until the first sync: the name itself may be gone after a cut.
    durable: Option<Vec<u8>>,
    unsynced: Vec<Unsynced>,
    locks: BTreeMap<u64, i32>,
    shm: Vec<Region>,
    shm_locks: [ShmLock; SHM_LOCKS],
}

#[derive(Debug, Default)]
struct ShmLock {
    shared: BTreeSet<u64>,
    exclusive: Option<u64>,
}

impl Inode {
    pub(crate) fn from_bytes(bytes: Vec<u8>) -> Self {
        Self { durable: Some(bytes.clone()), now: bytes, ..Self::default() }
    }

    /// The process that had it open is gone, and with it locks and shared memory.
    pub(crate) fn forget_process(&mut self) {
        self.locks.clear();
        self.shm.clear();
        self.shm_locks = Default::default();
    }

    pub(crate) fn write(&mut self, at: usize, bytes: &[u8]) {
        put(&mut self.now, at, bytes);
        self.unsynced.push(Unsynced::Write { at, bytes: bytes.to_vec() });
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        self.now.truncate(len);
        self.unsynced.push(Unsynced::Truncate(len));
    }

    pub(crate) fn sync(&mut self) {
        let durable = self.durable.get_or_insert_default();
        for change in self.unsynced.drain(..) {
            match change {
                Unsynced::Write { at, bytes } => put(durable, at, &bytes),
                Unsynced::Truncate(len) => durable.truncate(len),
            }
        }
    }

    /// What is there when the power comes back; `None`: nothing. `keep` says of each unsynced sector whether it got to the disk.
    pub(crate) fn after_cut(&self, keep: &mut dyn FnMut() -> bool) -> Option<Vec<u8>> {
        let mut bytes = match &self.durable {
            Some(durable) => durable.clone(),
            None if keep() => Vec::new(),
            None => return None,
        };
        for change in &self.unsynced {
            match change {
                Unsynced::Truncate(len) => {
                    if keep() {
                        bytes.truncate(*len);
                    }
                }
                Unsynced::Write { at, bytes: written } => {
                    let mut from = 0;
                    while from < written.len() {
                        let end = (from + SECTOR - (at + from) % SECTOR).min(written.len());
                        if keep() {
                            put(&mut bytes, at + from, written.get(from..end).unwrap_or_default());
                        }
                        from = end;
                    }
                }
            }
        }
        Some(bytes)
    }

    /// Takes or raises a lock of the file itself (levels 1 shared, 2 reserved, 3 pending, 4 exclusive); false: others hold it.
    pub(crate) fn lock(&mut self, who: u64, level: i32) -> bool {
        let others = self.locks.iter().filter(|(holder, _)| **holder != who).map(|(_, level)| *level).max().unwrap_or(0);
        let mine = self.locks.get(&who).copied().unwrap_or(0);
        if mine >= level {
            return true;
        }
        let granted = match level {
            1 => others < 3,
            2 => others < 2,
            _ => others < 1,
        };
        if granted {
            self.locks.insert(who, level);
        } else if level == 4 && others < 3 {
            self.locks.insert(who, 3);
        }
        granted
    }

    pub(crate) fn unlock(&mut self, who: u64, level: i32) {
        if level == 0 {
            self.locks.remove(&who);
        } else if let Some(held) = self.locks.get_mut(&who) {
            *held = level.min(*held);
        }
    }

    pub(crate) fn is_reserved(&self) -> bool {
        self.locks.values().any(|level| *level >= 2)
    }

    /// A region of shared memory; `None` when it is not there and is not to be made.
    pub(crate) fn shm_map(&mut self, index: usize, extend: bool) -> Option<Region> {
        while extend && self.shm.len() <= index {
            self.shm.push(Arc::new(std::array::from_fn(|_| AtomicU64::new(0))));
        }
        self.shm.get(index).cloned()
    }

    pub(crate) fn shm_lock(&mut self, who: u64, slots: std::ops::Range<usize>, exclusive: bool) -> bool {
        let Some(locks) = self.shm_locks.get_mut(slots) else { return false };
        let free = |lock: &ShmLock| {
            lock.exclusive.is_none_or(|holder| holder == who) && (!exclusive || lock.shared.iter().all(|holder| *holder == who))
        };
        if !locks.iter().all(free) {
            return false;
        }
        for lock in locks {
            if exclusive {
                lock.exclusive = Some(who);
            } else {
                lock.shared.insert(who);
            }
        }
        true
    }

    pub(crate) fn shm_unlock(&mut self, who: u64, slots: std::ops::Range<usize>, exclusive: bool) {
        for lock in self.shm_locks.get_mut(slots).unwrap_or_default() {
            if exclusive && lock.exclusive == Some(who) {
                lock.exclusive = None;
            } else if !exclusive {
                lock.shared.remove(&who);
            }
        }
    }

    pub(crate) fn shm_unmap(&mut self, who: u64, delete: bool) {
        self.shm_unlock(who, 0..SHM_LOCKS, true);
        self.shm_unlock(who, 0..SHM_LOCKS, false);
        if delete {
            self.shm.clear();
        }
    }
}

fn put(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    if let Some(part) = file.get_mut(at..end) {
        part.copy_from_slice(bytes);
    }
}
