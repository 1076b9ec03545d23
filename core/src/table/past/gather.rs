//! The entries of a log, gathered into what is kept of one row.

use super::{PastEntry, PastWrite, RowLog};
use crate::ids::RecordKey;
use crate::limits;
use crate::time::Eff;

/// What is gathered of a row, from the entries that wrote it, the last ones first. An entry is read as a whole, whatever little of it is about
/// the row: what is read is bounded, and so is what stays in memory.
#[derive(Debug)]
pub struct Gathering<'k> {
    key: &'k RecordKey,
    log: RowLog,
    entries: usize,
    read_bytes: usize,
    kept_bytes: usize,
}

impl<'k> Gathering<'k> {
    /// Nothing yet; `restored` is when the hub was restored last.
    #[must_use]
    pub fn new(key: &'k RecordKey, restored: Option<Eff>) -> Self {
        Self { key, log: RowLog { restored, ..RowLog::default() }, entries: 0, read_bytes: 0, kept_bytes: 0 }
    }

    /// True if another entry may be read. To be asked only where there is one: otherwise it is left out, and the log says so.
    pub fn goes_on(&mut self) -> bool {
        let is_full = self.entries >= limits::HISTORY_ENTRIES_MAX
            || self.read_bytes >= limits::HISTORY_READ_BYTES_MAX
            || self.kept_bytes >= limits::HISTORY_BYTES_MAX;
        self.log.is_cut |= is_full;
        !is_full
    }

    /// Takes the next entry; `None` is one whose bytes are kept no more.
    pub fn take(&mut self, entry: Option<PastEntry>) {
        self.entries += 1;
        let Some(entry) = entry else {
            self.log.is_cut = true;
            return;
        };
        self.read_bytes += entry.header.len() + entry.payload.len();
        if let Some(write) = PastWrite::of(entry, self.key) {
            self.kept_bytes += write.bytes();
            self.log.writes.push(write);
        }
    }

    /// What was gathered.
    #[must_use]
    pub fn finish(self) -> RowLog {
        self.log
    }
}
