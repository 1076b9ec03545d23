//! What a node remembers from one boot to the next: how often it has booted, whether it was stopped cleanly, how often each part was
//! restarted. Nothing that the node could not do without.
//!
//! Two files, `state.0` and `state.1`, hold two generations; the older one is written over, in one go, and each begins with a checksum of
//! the rest. So the last generation, or the one before it, is there after a power cut at any moment; and a file that is torn, empty,
//! foreign or gone never stops a boot: the board then takes it that it was not stopped cleanly, and has a closer look at its stores.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use mobo_core::limits;
use serde::{Deserialize, Serialize};

use crate::data_dir::{read_text, replace_file};
use crate::entropy;

const HEAD: &str = "mobo-state-1";

/// The memory of a node. Every change is durable when the call returns; where the disk does not take it, the node goes on and the log
/// says so.
#[derive(Debug)]
pub struct State {
    folder: PathBuf,
    remembered: Remembered,
}

/// What is kept.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Remembered {
    /// Counts the times that anything was written.
    pub generation: u64,
    /// Counts the boots of this folder; the first is 1.
    pub boots: u64,
    /// This boot's own name, 16 hexadecimal digits; empty when the system had no randomness to give.
    pub boot: String,
    /// True once the board has stopped in order.
    pub is_stopped: bool,
    /// What is known of parts that were restarted, by name. A part that never was is absent.
    pub parts: BTreeMap<String, PartHistory>,
}

/// What is known of one part.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct PartHistory {
    /// Restarts of it by the board, over all boots.
    pub restarts: u64,
    /// The last reason, as a sentence.
    pub reason: String,
    /// The pause before the last one, in milliseconds: where the next boot goes on when the part fails at once again.
    pub backoff_ms: u64,
}

impl State {
    /// Reads what is remembered in a data folder, and takes note of this boot. Also tells whether the last run of this folder was stopped in
    /// order; a folder without a memory was never run, which counts as that. Never fails: what cannot be read is forgotten.
    #[must_use]
    pub fn open(folder: &Path) -> (Self, bool) {
        let found: Vec<Found> = (0..2).map(|slot| look(&file(folder, slot))).collect();
        let is_new = found.iter().all(|found| *found == Found::Nothing);
        let is_hurt = found.contains(&Found::Torn);
        let newest = found.into_iter().filter_map(Found::whole).max_by_key(|remembered| remembered.generation);
        // A torn file may have held a later word than the whole one.
        let was_clean = is_new || (!is_hurt && newest.as_ref().is_some_and(|remembered| remembered.is_stopped));
        let mut remembered = newest.unwrap_or_default();
        remembered.boots += 1;
        remembered.boot = entropy::bytes::<8>().map_or_else(|_| String::new(), |id| format!("{:016x}", u64::from_be_bytes(id)));
        remembered.is_stopped = false;
        let mut state = Self { folder: folder.to_owned(), remembered };
        state.write();
        (state, was_clean)
    }

    /// What is remembered now.
    #[must_use]
    pub fn remembered(&self) -> &Remembered {
        &self.remembered
    }

    /// The board has restarted a part, for this reason, after this pause.
    pub fn restarted(&mut self, part: &str, reason: &str, backoff_ms: u64) {
        if self.remembered.parts.len() >= limits::COMPONENTS_MAX && !self.remembered.parts.contains_key(part) {
            return;
        }
        let history = self.remembered.parts.entry(part.to_owned()).or_default();
        history.restarts += 1;
        history.reason = reason.chars().take(limits::STATE_REASON_CHARS_MAX).collect();
        history.backoff_ms = backoff_ms;
        self.write();
    }

    /// A part has run well for long enough: its next restart begins with the shortest pause again.
    pub fn settled(&mut self, part: &str) {
        if let Some(history) = self.remembered.parts.get_mut(part).filter(|history| history.backoff_ms > 0) {
            history.backoff_ms = 0;
            self.write();
        }
    }

    /// The board has stopped in order: the next boot need not look closer.
    pub fn stopped(&mut self) {
        self.remembered.is_stopped = true;
        self.write();
    }

    fn write(&mut self) {
        self.remembered.generation += 1;
        let path = file(&self.folder, self.remembered.generation % 2);
        let text = encode(&self.remembered);
        if let Err(error) = replace_file(&path, text.as_bytes()) {
            tracing::warn!(%error, file = %path.display(), "what the board remembers could not be written; it goes on without");
        }
    }
}

fn file(folder: &Path, slot: u64) -> PathBuf {
    folder.join(format!("state.{slot}"))
}

#[derive(Debug, Eq, PartialEq)]
enum Found {
    Nothing,
    Torn,
    Whole(Remembered),
}

impl Found {
    fn whole(self) -> Option<Remembered> {
        match self {
            Self::Whole(remembered) => Some(remembered),
            Self::Nothing | Self::Torn => None,
        }
    }
}

fn look(path: &Path) -> Found {
    match read_text(path, limits::STATE_BYTES_MAX) {
        Ok(text) => decode(&text).map_or(Found::Torn, Found::Whole),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Found::Nothing,
        Err(_) => Found::Torn,
    }
}

fn encode(remembered: &Remembered) -> String {
    // Names, numbers and texts: nothing in it can fail to be JSON.
    let body = serde_json::to_string(remembered).unwrap_or_default();
    format!("{HEAD} {}\n{body}\n", blake3::hash(body.as_bytes()).to_hex())
}

fn decode(text: &str) -> Option<Remembered> {
    let (head, body) = text.strip_suffix('\n')?.split_once('\n')?;
    let checksum = head.strip_prefix(HEAD)?.strip_prefix(' ')?;
    if blake3::hash(body.as_bytes()).to_hex().as_str() != checksum {
        return None;
    }
    serde_json::from_str(body).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_clean_stop_is_remembered_and_an_unclean_one_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let (mut first, was_clean) = State::open(folder.path());
        assert!(was_clean, "a new folder was never run");
        assert_eq!((first.remembered().boots, first.remembered().boot.len()), (1, 16));
        first.stopped();
        let (second, was_clean) = State::open(folder.path());
        assert!(was_clean);
        assert_ne!(second.remembered().boot, first.remembered().boot);
        let (third, was_clean) = State::open(folder.path());
        assert!(!was_clean, "the second one was never stopped");
        assert_eq!(third.remembered().boots, 3);
    }

    #[test]
    fn restarts_are_counted_over_boots() {
        let folder = tempfile::tempdir().unwrap();
        let (mut state, _) = State::open(folder.path());
        state.restarted("gate", "panicked: x", 400);
        state.restarted("gate", &"y".repeat(10_000), 800);
        let (mut state, _) = State::open(folder.path());
        let history = state.remembered().parts["gate"].clone();
        assert_eq!((history.restarts, history.backoff_ms, history.reason.len()), (2, 800, limits::STATE_REASON_CHARS_MAX));
        state.settled("gate");
        let generation = state.remembered().generation;
        state.settled("gate");
        assert_eq!((state.remembered().parts["gate"].backoff_ms, state.remembered().generation), (0, generation));
        (0..200).for_each(|part| state.restarted(&part.to_string(), "", 1));
        assert_eq!(state.remembered().parts.len(), limits::COMPONENTS_MAX);
    }

    /// Goal: a torn file never stops a boot, and never passes for a clean stop.
    /// Method: every prefix and every flipped byte of the newer file, of the older, and of both.
    #[test]
    fn a_torn_file_never_stops_a_boot() {
        let folder = tempfile::tempdir().unwrap();
        let (mut state, _) = State::open(folder.path());
        state.restarted("gate", "panicked", 400);
        state.stopped();
        let newer = state.remembered().generation % 2;
        let whole: Vec<Vec<u8>> = (0..2).map(|slot| fs::read(file(folder.path(), slot)).unwrap()).collect();
        let length = whole.iter().map(Vec::len).max().unwrap();
        for slots in [&[newer][..], &[1 - newer], &[0, 1]] {
            for at in 0..length {
                for flip in [true, false] {
                    let broken = |slot: u64| {
                        let mut bytes = whole[slot as usize].clone();
                        if flip && at < bytes.len() {
                            bytes[at] ^= 0x10;
                        } else {
                            bytes.truncate(at);
                        }
                        bytes
                    };
                    (0..2).for_each(|slot| fs::write(file(folder.path(), slot), &whole[slot as usize]).unwrap());
                    slots.iter().for_each(|slot| fs::write(file(folder.path(), *slot), broken(*slot)).unwrap());
                    let is_whole = slots.iter().all(|slot| broken(*slot) == whole[*slot as usize]);
                    let (opened, was_clean) = State::open(folder.path());
                    assert_eq!(was_clean, is_whole, "{slots:?} {at} {flip}");
                    let boots = if slots.len() == 2 && !is_whole { 1..=2 } else { 2..=2 };
                    assert!(boots.contains(&opened.remembered().boots), "{slots:?} {at} {flip}: {opened:?}");
                }
            }
        }
    }

    #[test]
    fn a_folder_that_takes_nothing_stops_no_boot() {
        let (mut state, was_clean) = State::open(Path::new("/proc/mobo"));
        assert!(was_clean);
        state.stopped();
    }
}
