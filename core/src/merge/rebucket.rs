//! After a collection got other rules, its records are placed anew: in batches, each a transaction of its own (rule R3).
//!
//! Whoever merges meanwhile follows the new rules already, so a record is placed right by whichever comes first, and the order in which
//! records are visited only has to visit each once.

use std::collections::BTreeMap;

use super::apply::{Applied, Stored, Working};
use super::place::{bucket_keys, present_keys};
use super::{Context, Writes};
use crate::ids::{RecordKey, Ver};

impl<'a> Applied<'a> {
    /// The records of a batch whose buckets are not those that the rules of `context` give them: [`wants`](Self::wants) and
    /// [`place`](Self::place) go on from here. A hidden record stays where it was (rule R20), and a damaged one is left alone.
    #[must_use]
    pub fn rebucket(context: Context<'a>, records: BTreeMap<RecordKey, Stored>) -> Self {
        let mut moved = BTreeMap::new();
        for (key, stored) in records {
            let (Some(collection), Ok(state)) = (context.schema.get(key.collection), &stored.state) else { continue };
            let before = present_keys(Some(&stored));
            let (state, ver) = (state.clone(), Ver(stored.ver.0 + 1));
            let mut working = Working { stored: Some(stored), state, ver, touched: true, buckets: before.clone() };
            working.buckets = bucket_keys(collection, &key, &working);
            if working.buckets != before {
                moved.insert(key, working);
            }
        }
        Self { context, records: moved, writes: Writes::default(), outcomes: Vec::new() }
    }

    /// How many records the batch touches.
    #[must_use]
    pub fn touched(&self) -> usize {
        self.records.values().filter(|working| working.touched).count()
    }
}
