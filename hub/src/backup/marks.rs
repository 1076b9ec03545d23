//! What a shipper remembers of what it has shipped, so that it finds what is new.

use std::collections::{BTreeMap, BTreeSet};

use mobo_core::backup::manifest;
use mobo_core::store::StoreError;
use mobo_core::store::transfer::{Cell, Row};

use super::changes::Lists;
use super::state::Cells;

/// A log's lane: project, device, incarnation, lane.
pub(super) type LaneId = (i64, Vec<u8>, i64, i64);

/// A table of what belongs to records, and a collection.
pub(super) type Belonging = (&'static str, i64);

/// Everything that is remembered.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks {
    /// How far each lane is.
    pub(super) lanes: BTreeMap<LaneId, i64>,
    /// How far each bucket is.
    pub(super) heads: BTreeMap<i64, i64>,
    /// The rows of small tables.
    pub(super) small: BTreeMap<String, BTreeMap<Vec<u8>, Mark>>,
    /// The last line of each project's audit log; `None` where nobody knows what was shipped of it.
    pub(super) audit: Option<BTreeMap<i64, i64>>,
    /// The versions of records in no bucket, by collection and id.
    pub(super) unplaced: BTreeMap<(i64, String), i64>,
    /// The lists of changes of documents.
    pub(super) changes: Lists,
    /// Tables that hold nothing of a collection, in what was shipped.
    pub(super) bare: BTreeSet<Belonging>,
    /// When the last cut was taken.
    pub(super) taken_us: i64,
}

impl Marks {
    /// Takes note of a line of the audit log.
    pub(super) fn audited(&mut self, line: &Cells<'_>) -> Result<(), StoreError> {
        let (project, n) = (line.int("project")?, line.int("n")?);
        let last = self.audit.get_or_insert_default().entry(project).or_insert(n);
        *last = n.max(*last);
        Ok(())
    }

    /// What may have been shipped after this, as `shipped` has it, was not noted: what is built on it must hold whether it counts or not. So of
    /// each row of a small table that differs, nobody knows any more how it was shipped: where it is still there it is put, else it is dropped.
    pub(super) fn doubt(&mut self, shipped: &Self) {
        for (name, rows) in &mut self.small {
            let none = BTreeMap::new();
            let now = shipped.small.get(name).unwrap_or(&none);
            let doubtful = |mark: &Mark| Mark { key: mark.key.clone(), all: None, news: None };
            for (place, mark) in rows.iter_mut() {
                if now.get(place) != Some(&*mark) {
                    *mark = doubtful(mark);
                }
            }
            for (place, mark) in now {
                rows.entry(place.clone()).or_insert_with(|| doubtful(mark));
            }
        }
        // They may hold what was just shipped.
        self.bare.clear();
    }
}

/// A row as it was shipped.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Mark {
    /// The cells of its key.
    pub(super) key: Row,
    /// Of all its cells; `None` where nobody knows what was shipped of it last.
    pub(super) all: Option<u64>,
    /// Of those that say more than that somebody was here.
    pub(super) news: Option<u64>,
}

/// Columns that change without anything having happened: they are shipped along, or once a minute.
const QUIET: [(&str, &[&str]); 6] = [
    ("hub", &["time_us"]),
    ("device", &["session", "confirmed", "seen_us"]),
    ("incarnation", &["session", "confirmed"]),
    ("lane", &["safe"]),
    ("cursor", &["position", "at_us"]),
    ("boot", &["offset_us"]),
];

impl Mark {
    /// Of a row of a table; gives it with its place among the marks of that table.
    pub(super) fn of(table: &str, (columns, key): (&[String], &[String]), row: &Row) -> (Vec<u8>, Self) {
        let quiet = QUIET.iter().find(|(name, _)| *name == table).map_or(&[][..], |(_, columns)| columns);
        let cell = |name: &String| columns.iter().position(|column| column == name).and_then(|place| row.get(place)).cloned();
        let key: Row = if key.is_empty() { row.clone() } else { key.iter().map(|name| cell(name).unwrap_or(Cell::Null)).collect() };
        let all = hash(row.iter());
        let loud = || columns.iter().zip(row).filter(|(column, _)| !quiet.contains(&column.as_str())).map(|(_, cell)| cell);
        let news = if quiet.is_empty() { all } else { hash(loud()) };
        (encoded(key.iter()), Self { all: Some(all), news: Some(news), key })
    }
}

/// Cells one after the other, so that no two rows are alike that differ.
fn encoded<'c>(cells: impl Iterator<Item = &'c Cell>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    let mut put = |kind: u8, content: &[u8]| {
        bytes.push(kind);
        bytes.extend((content.len() as u64).to_be_bytes());
        bytes.extend(content);
    };
    for cell in cells {
        match cell {
            Cell::Null => put(0, &[]),
            Cell::Int(number) => put(1, &number.to_be_bytes()),
            Cell::Real(number) => put(2, &number.to_be_bytes()),
            Cell::Text(text) => put(3, text.as_bytes()),
            Cell::Bytes(content) => put(4, content),
        }
    }
    bytes
}

fn hash<'c>(cells: impl Iterator<Item = &'c Cell>) -> u64 {
    let hash = manifest::hash(&encoded(cells));
    u64::from_be_bytes(hash.first_chunk().copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_news_when_more_than_its_quiet_columns_change() {
        let (columns, key) = (["id", "name", "seen_us"].map(str::to_owned), ["id".to_owned()]);
        let row = |name: &str, seen| vec![Cell::Int(1), Cell::Text(name.into()), Cell::Int(seen)];
        let mark = |row: &Row| Mark::of("device", (&columns, &key), row);
        let (place, one) = mark(&row("a", 1));
        for (other, all, news) in [(row("a", 1), true, true), (row("a", 2), false, true), (row("b", 1), false, false)] {
            let (at, other) = mark(&other);
            assert_eq!((at == place, other.all == one.all, other.news == one.news), (true, all, news));
        }
        assert_eq!(one.key, [Cell::Int(1)]);
        let (_, elsewhere) = Mark::of("grant", (&columns, &key), &row("a", 2));
        let (_, there) = Mark::of("grant", (&columns, &key), &row("a", 1));
        assert_ne!(elsewhere.news, there.news);
    }

    #[test]
    fn what_was_shipped_and_not_noted_is_doubtful() {
        let mark = |all: u64| Mark { key: vec![], all: Some(all), news: Some(all) };
        let of = |rows: &[(u8, u64)]| Marks {
            small: BTreeMap::from([("grant".to_owned(), rows.iter().map(|(place, all)| (vec![*place], mark(*all))).collect())]),
            ..Marks::default()
        };
        let mut marks = of(&[(1, 1), (2, 2), (3, 3)]);
        marks.doubt(&of(&[(1, 1), (2, 20), (4, 4)]));
        let is_sure: Vec<(u8, bool)> = marks.small["grant"].iter().map(|(place, mark)| (place[0], mark.all.is_some())).collect();
        assert_eq!(is_sure, [(1, true), (2, false), (3, false), (4, false)], "changed, gone and new ones are not");
        let mut unknown = Marks::default();
        unknown.doubt(&of(&[(1, 1)]));
        assert!(unknown.small.is_empty(), "of a table that nobody knows, everything is shipped anyway");
    }
}
