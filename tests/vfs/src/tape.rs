//! Everything that was done to a disk, to be played up to any write or sync: what is there when the power goes just then.

use std::collections::BTreeMap;

use crate::disk::Image;
use crate::file::Inode;

/// One thing that was done to a file.
#[derive(Clone, Debug)]
pub(crate) enum Deed {
    Create,
    Delete,
    Write { at: usize, bytes: Vec<u8> },
    Truncate(usize),
    Sync,
}

/// What was done to a disk since [`record`](crate::Disk::record).
#[derive(Clone, Debug, Default)]
pub struct Tape(pub(crate) Vec<(String, Deed)>);

impl Tape {
    /// Writes, truncations and syncs: as many as the disk has counted.
    #[must_use]
    pub fn ops(&self) -> u64 {
        self.0.iter().filter(|(_, deed)| !matches!(deed, Deed::Create | Deed::Delete)).count() as u64
    }

    /// Plays it from the start, on the files that were there.
    #[must_use]
    pub fn play(&self, from: &Image) -> Player<'_> {
        let files = from.0.iter().map(|(name, bytes)| (name.clone(), Inode::from_bytes(bytes.clone()))).collect();
        Player { tape: self, at: 0, files }
    }
}

/// A tape that is played.
#[derive(Debug)]
pub struct Player<'t> {
    tape: &'t Tape,
    at: usize,
    files: BTreeMap<String, Inode>,
}

impl Player<'_> {
    /// Does one more write, truncation or sync; false at the end of the tape.
    pub fn step(&mut self) -> bool {
        while let Some((name, deed)) = self.tape.0.get(self.at) {
            self.at += 1;
            match deed {
                Deed::Create => drop(self.files.entry(name.clone()).or_default()),
                Deed::Delete => drop(self.files.remove(name)),
                Deed::Write { at, bytes } => self.files.entry(name.clone()).or_default().write(*at, bytes),
                Deed::Truncate(len) => self.files.entry(name.clone()).or_default().truncate(*len),
                Deed::Sync => self.files.entry(name.clone()).or_default().sync(),
            }
            if !matches!(deed, Deed::Create | Deed::Delete) {
                return true;
            }
        }
        false
    }

    /// What is there if the power goes now: `keep` says of each unsynced sector whether it got to the disk.
    pub fn cut(&self, keep: &mut dyn FnMut() -> bool) -> Image {
        Image(self.files.iter().filter_map(|(name, inode)| Some((name.clone(), inode.after_cut(keep)?))).collect())
    }
}
