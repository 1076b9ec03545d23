//! The heads of a hub's lanes and buckets, and the cells of rows by name.

use std::collections::BTreeMap;

use mobo_core::backup::manifest::{self, Totals};
use mobo_core::cbor::Writer;
use mobo_core::store::StoreError;
use mobo_core::store::transfer::{Cell, Row};

use super::marks::LaneId;

/// The heads of all lanes and buckets in one hash: equal for two stores that hold the same.
#[derive(Debug, Default)]
pub struct StateHash {
    pub(super) lanes: BTreeMap<LaneId, (i64, Vec<u8>)>,
    pub(super) buckets: BTreeMap<i64, (i64, Vec<u8>)>,
}

impl StateHash {
    /// Takes a row of one of mobo's own tables; others than lanes and buckets are passed over.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`] for a row without its cells.
    pub fn add(&mut self, table: &str, columns: &[String], row: &Row) -> Result<(), StoreError> {
        let cells = Cells { columns, row };
        match table {
            "lane" => {
                let lane = (cells.int("project")?, cells.bytes("device")?, cells.int("incarnation")?, cells.int("lane")?);
                self.lanes.insert(lane, (cells.int("last")?, cells.bytes("chain")?));
            }
            "bucket" => {
                self.buckets.insert(cells.int("id")?, (cells.int("head")?, cells.bytes("digest")?));
            }
            _ => {}
        }
        Ok(())
    }

    /// The hash.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        let mut heads = Writer::new();
        heads.array(self.lanes.len());
        for ((project, device, incarnation, lane), (last, chain)) in &self.lanes {
            heads.array(6).i64(*project).bytes(device).i64(*incarnation).i64(*lane).i64(*last).bytes(chain);
        }
        heads.array(self.buckets.len());
        for (bucket, (head, digest)) in &self.buckets {
            heads.array(3).i64(*bucket).i64(*head).bytes(digest);
        }
        manifest::hash(&heads.into_bytes())
    }

    /// Figures.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals {
            lanes: self.lanes.len() as u64,
            entries: self.lanes.values().map(|(last, _)| last.cast_unsigned()).sum(),
            buckets: self.buckets.len() as u64,
            positions: self.buckets.values().map(|(head, _)| head.cast_unsigned()).sum(),
        }
    }
}

/// A row with the names of its cells.
pub(super) struct Cells<'r> {
    pub(super) columns: &'r [String],
    pub(super) row: &'r Row,
}

impl Cells<'_> {
    pub(super) fn cell(&self, name: &str) -> Result<&Cell, StoreError> {
        let place = self.columns.iter().position(|column| column == name);
        place.and_then(|place| self.row.get(place)).ok_or_else(|| StoreError::Damaged(format!("a row has no column {name}")))
    }

    pub(super) fn int(&self, name: &str) -> Result<i64, StoreError> {
        match self.cell(name)? {
            Cell::Int(number) => Ok(*number),
            Cell::Null | Cell::Real(_) | Cell::Text(_) | Cell::Bytes(_) => {
                Err(StoreError::Damaged(format!("the column {name} is no number")))
            }
        }
    }

    pub(super) fn bytes(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        match self.cell(name)? {
            Cell::Bytes(bytes) => Ok(bytes.clone()),
            Cell::Null | Cell::Real(_) | Cell::Text(_) | Cell::Int(_) => Err(StoreError::Damaged(format!("the column {name} is no bytes"))),
        }
    }

    pub(super) fn text(&self, name: &str) -> Result<String, StoreError> {
        match self.cell(name)? {
            Cell::Text(text) => Ok(text.clone()),
            Cell::Null | Cell::Real(_) | Cell::Bytes(_) | Cell::Int(_) => Err(StoreError::Damaged(format!("the column {name} is no text"))),
        }
    }
}
