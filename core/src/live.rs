//! The log of committed changes: what realtime subscribers are told, each change once and in the order of the commits.
//!
//! A store writes it in the transaction that makes the changes, for the collections that somebody follows, and keeps as much of it as the
//! limits say. A **change** is what one commit made of one record, or one sample. Places in the log count changes without gaps; a place of
//! another log, from before what is kept, or from a time when the collection was not followed is answered with [`LiveHead::holds`] = false,
//! never with a part of the truth.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde_json::{Map, Value as Json};

use crate::ids::{CollectionId, ProjectId, Timeline};
use crate::store::StoreFuture;
use crate::time::Eff;

/// The store's side of the log.
pub trait LiveStore: fmt::Debug + Send + Sync {
    /// Has the changes of these collections logged from now on, for so long. Gives the log as it is then: what is committed later has a
    /// higher number.
    fn follow(&self, project: ProjectId, collections: Vec<CollectionId>, lasts: Duration) -> StoreFuture<'_, LiveHead>;

    /// The changes behind a number, in order: at most so many rows of the log.
    fn changes(&self, project: ProjectId, after: u64, rows_max: u32) -> StoreFuture<'_, LivePage>;
}

/// A place in a log: everything up to it has been seen.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LivePoint {
    /// The log. A store that goes back in time starts another one.
    pub log: u64,
    /// The number of the last change that was seen.
    pub n: u64,
}

impl fmt::Display for LivePoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{}", self.log, self.n)
    }
}

/// A text that is no place in a log.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a place in the log is written as it was given, such as 3f9a-17")]
pub struct BadLivePoint;

impl FromStr for LivePoint {
    type Err = BadLivePoint;

    fn from_str(text: &str) -> Result<Self, BadLivePoint> {
        let (log, n) = text.split_once('-').ok_or(BadLivePoint)?;
        let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !plain(log) || !plain(n) {
            return Err(BadLivePoint);
        }
        let log = u64::from_str_radix(log, 16).map_err(|_| BadLivePoint)?;
        Ok(Self { log, n: n.parse().map_err(|_| BadLivePoint)? })
    }
}

/// What a log holds.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LiveHead {
    /// Which log it is.
    pub log: u64,
    /// The number of the last change.
    pub head: u64,
    /// Changes up to this one are gone.
    pub floor: u64,
    /// The collections that are followed, and since which number.
    pub follows: Vec<(CollectionId, u64)>,
}

impl LiveHead {
    /// True if the log has every change of the collection behind that place.
    #[must_use]
    pub fn holds(&self, collection: CollectionId, at: LivePoint) -> bool {
        let since = self.follows.iter().find(|(id, _)| *id == collection);
        at.log == self.log && at.n >= self.floor && at.n <= self.head && since.is_some_and(|(_, since)| *since <= at.n)
    }

    /// The end of the log.
    #[must_use]
    pub const fn point(&self) -> LivePoint {
        LivePoint { log: self.log, n: self.head }
    }
}

/// The number of a log: as it was drawn once, on this timeline or in this incarnation.
#[must_use]
pub fn log_number(drawn: i64, history: u64) -> u64 {
    (drawn.cast_unsigned() ^ history) >> 1
}

/// What a timeline adds to the number of a log.
#[must_use]
pub fn history_of(timeline: Timeline) -> u64 {
    let [first, second] = timeline.0.as_chunks::<8>().0 else { return 0 };
    u64::from_le_bytes(*first) ^ u64::from_le_bytes(*second)
}

/// What happened to a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LiveKind {
    /// It is there, and was not.
    Insert,
    /// It is another than it was.
    Update,
    /// It is gone.
    Delete,
}

impl LiveKind {
    /// The word in event streams.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// A row as readers see it.
pub type LiveRow = Map<String, Json>;

/// One committed change.
#[derive(Clone, Debug, PartialEq)]
pub struct LiveChange {
    /// Its number.
    pub n: u64,
    /// When it was committed, by the store's clock.
    pub at: Eff,
    /// The collection.
    pub collection: CollectionId,
    /// The row before; `None` where there was none.
    pub before: Option<LiveRow>,
    /// The row after; `None` where there is none.
    pub after: Option<LiveRow>,
    /// About how much memory it takes.
    pub bytes: usize,
}

impl LiveChange {
    /// What happened.
    #[must_use]
    pub const fn kind(&self) -> LiveKind {
        match (&self.before, &self.after) {
            (None, _) => LiveKind::Insert,
            (Some(_), Some(_)) => LiveKind::Update,
            (Some(_), None) => LiveKind::Delete,
        }
    }
}

/// A part of a log, and what the log holds, read in one snapshot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LivePage {
    /// The log.
    pub head: LiveHead,
    /// The changes, in order.
    pub changes: Vec<LiveChange>,
    /// Everything up to this number was read.
    pub read: u64,
}

/// A row of a log as a store keeps it: a record's change, or the samples of one entry.
#[derive(Clone, Debug)]
pub struct LoggedRow {
    /// The number of its last change.
    pub n: u64,
    /// Its changes.
    pub count: u64,
    /// The collection.
    pub collection: CollectionId,
    /// The row before, as JSON.
    pub before: Option<String>,
    /// The row after; the samples, as an array.
    pub after: Option<String>,
    /// When.
    pub at: Eff,
}

impl LoggedRow {
    /// The changes behind a number; `None` when the row cannot be read.
    #[must_use]
    pub fn changes(self, after: u64) -> Option<Vec<LiveChange>> {
        let bytes = self.before.as_ref().map_or(0, String::len) + self.after.as_ref().map_or(0, String::len);
        let Self { n, count, collection, at, .. } = self;
        let before = self.before.map(|text| serde_json::from_str(&text)).transpose().ok()?;
        let text = self.after.as_deref();
        if text.is_none_or(|text| !text.starts_with('[')) {
            let row = text.map(serde_json::from_str).transpose().ok()?;
            return Some(vec![LiveChange { n, at, collection, before, after: row, bytes }]);
        }
        let rows: Vec<LiveRow> = serde_json::from_str(text?).ok()?;
        let (first, each) = (n.checked_sub(count)?, bytes / rows.len().max(1));
        let numbered = (first + 1..).zip(rows).filter(|(n, _)| *n > after);
        Some(numbered.map(|(n, row)| LiveChange { n, at, collection, before: None, after: Some(row), bytes: each }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_written_and_read() {
        let point = LivePoint { log: 0x3f9a, n: 17 };
        assert_eq!(point.to_string(), "3f9a-17");
        assert_eq!("3f9a-17".parse(), Ok(point));
        for bad in ["", "-", "3f9a", "3f9a-", "-17", "3f9a--17", "+3-17", "3f9a-+17", "3f9a-x", "g-1", "1-99999999999999999999"] {
            assert_eq!(bad.parse::<LivePoint>(), Err(BadLivePoint), "{bad}");
        }
    }

    #[test]
    fn a_log_knows_what_it_holds() {
        let (a, b) = (CollectionId::new(1).unwrap(), CollectionId::new(2).unwrap());
        let head = LiveHead { log: 7, head: 100, floor: 40, follows: vec![(a, 20), (b, 60)] };
        for (collection, log, n, want) in [
            (a, 7, 40, true),
            (a, 7, 100, true),
            (a, 7, 39, false),
            (a, 7, 101, false),
            (a, 8, 50, false),
            (b, 7, 60, true),
            (b, 7, 59, false),
            (CollectionId::new(3).unwrap(), 7, 100, false),
        ] {
            assert_eq!(head.holds(collection, LivePoint { log, n }), want, "{collection} {log} {n}");
        }
    }

    #[test]
    fn samples_are_changes_of_their_own() {
        let row = |before: Option<&str>, after: Option<&str>, count| LoggedRow {
            n: 10,
            count,
            collection: CollectionId::new(1).unwrap(),
            before: before.map(str::to_owned),
            after: after.map(str::to_owned),
            at: Eff(5),
        };
        let shown = |row: LoggedRow, after| -> Option<Vec<(u64, &'static str)>> {
            Some(row.changes(after)?.iter().map(|change| (change.n, change.kind().name())).collect())
        };
        assert_eq!(shown(row(None, Some("{}"), 1), 9).unwrap(), [(10, "insert")]);
        assert_eq!(shown(row(Some("{}"), Some("{}"), 1), 9).unwrap(), [(10, "update")]);
        assert_eq!(shown(row(Some("{}"), None, 1), 9).unwrap(), [(10, "delete")]);
        let three = Some(r#"[{"a":1},{"a":2},{"a":3}]"#);
        assert_eq!(shown(row(None, three, 3), 0).unwrap(), [(8, "insert"), (9, "insert"), (10, "insert")]);
        assert_eq!(shown(row(None, three, 3), 9).unwrap(), [(10, "insert")]);
        assert_eq!(shown(row(None, Some("{"), 1), 0), None);
    }
}
