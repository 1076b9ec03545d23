//! What the nodes acknowledged, write by write: told to the judge the moment an answer arrives, one line of JSON each.

use std::io::{self, BufRead, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One write, and what is known of it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct Entry {
    /// The node that took it.
    pub(super) origin: String,
    /// The round that it was made in. Between two rounds all nodes held the same.
    pub(super) round: u32,
    /// When it was sent, in microseconds since the demo began.
    pub(super) sent_us: u64,
    /// When its outcome was known, likewise.
    pub(super) known_us: u64,
    /// What came of it.
    pub(super) outcome: Outcome,
    /// What it wrote.
    pub(super) write: Written,
}

/// What came of a write.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// The node said that it is durable: it must be there, once.
    Acknowledged,
    /// The node died before it answered: it may be there, at most once.
    Unknown,
}

/// What one request writes.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Written {
    /// Fields of one record.
    Record {
        /// Its collection.
        collection: String,
        /// Its id.
        id: String,
        /// What is done to each field.
        fields: Vec<(String, Change)>,
    },
    /// One sample of the stream, by its fields.
    Sample(Map<String, Value>),
}

/// What a write does to a field, in the words of the one who wants it to be there later.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Change {
    /// Sets it.
    Set(Value),
    /// Adds to a counter.
    Add(i64),
    /// Puts this into a text.
    Insert(String),
    /// Puts this at the end of a list.
    Push(String),
}

/// The sending side of the journal.
#[derive(Debug)]
pub(super) struct Journal<W> {
    sink: Mutex<W>,
    began: Instant,
    records: AtomicU64,
    samples: AtomicU64,
    unknown: AtomicU64,
}

impl<W: Write> Journal<W> {
    /// A journal whose clock starts now.
    pub(super) fn new(sink: W) -> Self {
        let zero = AtomicU64::default;
        Self { sink: Mutex::new(sink), began: Instant::now(), records: zero(), samples: zero(), unknown: zero() }
    }

    /// Microseconds since the journal began.
    pub(super) fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Tells the judge.
    pub(super) fn tell(&self, entry: &Entry) -> io::Result<()> {
        self.line(entry)?;
        let count = match (entry.outcome, &entry.write) {
            (Outcome::Unknown, _) => &self.unknown,
            (Outcome::Acknowledged, Written::Record { .. }) => &self.records,
            (Outcome::Acknowledged, Written::Sample(_)) => &self.samples,
        };
        count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Writes to records that were acknowledged, so far.
    pub(super) fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// Samples that were acknowledged, so far.
    pub(super) fn samples(&self) -> u64 {
        self.samples.load(Ordering::Relaxed)
    }

    /// Writes whose outcome nobody knows, so far.
    pub(super) fn unknown(&self) -> u64 {
        self.unknown.load(Ordering::Relaxed)
    }

    /// Ends the list with a line that is no entry.
    pub(super) fn end(&self, last: &impl Serialize) -> io::Result<()> {
        self.line(last)
    }

    /// One line at a time, whole.
    fn line(&self, line: &impl Serialize) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        sink.write_all(&bytes)?;
        sink.flush()
    }
}

/// The judge's side: keeps every line in `copy` as it comes, and gives the entries and the first line that is none.
///
/// # Errors
///
/// When the pipe ends without such a line, or breaks.
pub(super) fn follow(lines: impl BufRead, mut copy: impl Write) -> io::Result<(Vec<Entry>, String)> {
    let mut entries = Vec::new();
    for line in lines.lines() {
        let line = line?;
        match serde_json::from_str(&line) {
            Ok(entry) => {
                writeln!(copy, "{line}")?;
                entries.push(entry);
            }
            Err(_) => {
                copy.flush()?;
                return Ok((entries, line));
            }
        }
    }
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the journal ended without its last line"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(n: u64, outcome: Outcome, write: Written) -> Entry {
        Entry { origin: "device-1".to_owned(), round: 2, sent_us: n, known_us: n + 1, outcome, write }
    }

    #[test]
    fn what_was_told_is_what_is_read() {
        let fields = vec![
            ("a".to_owned(), Change::Set(json!({"x": [1]}))),
            ("b".to_owned(), Change::Add(-2)),
            ("c".to_owned(), Change::Insert("[d1-1]".to_owned())),
            ("d".to_owned(), Change::Push("d1-1".to_owned())),
        ];
        let record = Written::Record { collection: "notes".to_owned(), id: "n-1".to_owned(), fields };
        let sample = Written::Sample(json!({"cpu": 1.5}).as_object().unwrap().clone());
        let told = vec![
            entry(1, Outcome::Acknowledged, record.clone()),
            entry(2, Outcome::Unknown, record),
            entry(3, Outcome::Acknowledged, sample),
        ];
        let journal = Journal::new(Vec::new());
        told.iter().for_each(|entry| journal.tell(entry).unwrap());
        assert_eq!((journal.records(), journal.samples(), journal.unknown()), (1, 1, 1));
        journal.end(&json!({"judge": 1})).unwrap();
        let mut pipe = journal.sink.into_inner().unwrap();
        pipe.extend_from_slice(b"later\n");
        let mut copy = Vec::new();
        let (read, last) = follow(pipe.as_slice(), &mut copy).unwrap();
        assert_eq!((read, last.as_str()), (told, "{\"judge\":1}"));
        assert_eq!(copy.iter().filter(|byte| **byte == b'\n').count(), 3);
    }

    #[test]
    fn a_journal_that_breaks_off_is_an_error() {
        assert!(follow(&b""[..], io::sink()).is_err());
        let journal = Journal::new(Vec::new());
        journal.tell(&entry(1, Outcome::Unknown, Written::Sample(Map::new()))).unwrap();
        assert!(follow(journal.sink.into_inner().unwrap().as_slice(), io::sink()).is_err());
    }
}
