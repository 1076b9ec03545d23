//! Entries that came before what they build on: a restored hub refuses them for what a document lacks, and tries them again when a device has
//! given some of it back (rule R16).

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mobo_core::buckets::rights_of;
use mobo_core::ids::{CollectionId, DeviceId, LaneKey, Seq};
use mobo_core::merge::{Hint, Outcome, Prepared, Retry, Rights};
use mobo_core::message::{Code, Offer};
use mobo_core::schema::Kind;
use mobo_core::store::{MergeBatch, QuarantineRow, StoreError};
use mobo_runtime::machine;

use super::History;

/// Refused entries that are looked at together.
const LOOK_MAX: u32 = 1_000;
/// Entries that are tried again in one transaction.
const RETRIES_MAX: usize = 200;

/// Documents, by collection and id.
type Documents = BTreeSet<(CollectionId, String)>;

impl History {
    /// The documents of a page of an offer.
    pub(super) fn documents_of(&self, offer: &Offer) -> Documents {
        let schema = self.schema.borrow();
        let is_document = |id| schema.get(id).is_some_and(|collection| collection.kind == Kind::Document);
        let rows = offer.rows.iter().filter(|item| is_document(item.collection));
        rows.map(|item| (item.collection, item.id.as_str().to_owned())).collect()
    }

    /// Tries the entries again that were refused for what these documents lacked; all that were, where none are named. Gives the buckets that
    /// changed.
    pub(super) async fn try_again(&self, documents: Option<&Documents>) -> Result<Vec<Hint>, StoreError> {
        let mut hints = Vec::new();
        if !mobo_core::protect!("recovery.tried-again", documents.is_none_or(|documents| !documents.is_empty())) {
            return Ok(hints);
        }
        loop {
            let waiting = self.waiting(documents).await?;
            let mut taken = 0;
            for entries in waiting.chunks(RETRIES_MAX) {
                let report = self.store.merge(self.batch_of(self.retries(entries).await?)?).await?;
                taken += report.outcomes.iter().filter(|outcome| is_taken(outcome)).count();
                hints.extend(report.hints);
            }
            // What one of them brought may be what another waits for, whose author comes before in the order of logs.
            if taken == 0 || taken == waiting.len() {
                return Ok(hints);
            }
        }
    }

    /// The same for everything that waits. What cannot be tried stays where it is, and keeps no recovery from its end.
    pub(super) async fn try_all_again(&self) -> Vec<Hint> {
        self.try_again(None).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "refused entries could not be tried again: `mobo-hub quarantine list` shows them, `quarantine retry` tries one");
            Vec::new()
        })
    }

    /// Entries that wait for something of these documents, each log in the order in which it was written.
    async fn waiting(&self, documents: Option<&Documents>) -> Result<Vec<(LaneKey, Seq)>, StoreError> {
        let project = self.era().identity.project;
        let (mut found, mut after) = (BTreeSet::new(), None);
        loop {
            let rows = self.store.quarantine(project, after, LOOK_MAX).await?;
            let waits = |row: &&QuarantineRow| {
                matches!(Code(row.code), Code::MISSING_DEPENDENCY | Code::BLOCKED)
                    && row.record.as_ref().is_some_and(|record| documents.is_none_or(|documents| documents.contains(record)))
            };
            found.extend(rows.iter().filter(waits).map(|row| (row.lane, row.seq)));
            after = rows.last().map(|row| row.n);
            if rows.len() < LOOK_MAX as usize {
                return Ok(found.into_iter().collect());
            }
        }
    }

    async fn retries(&self, entries: &[(LaneKey, Seq)]) -> Result<Vec<Prepared>, StoreError> {
        let project = self.era().identity.project;
        let (schema, moving) = (self.store.schema(project).await?, self.store.rebucketing(project).await?);
        let mut rights: BTreeMap<DeviceId, Option<Rights>> = BTreeMap::new();
        let mut retries = Vec::with_capacity(entries.len());
        for &(lane, seq) in entries {
            if let Entry::Vacant(place) = rights.entry(lane.device) {
                let device = self.store.device(project, lane.device).await?;
                place.insert(device.map(|device| Rights::Buckets(rights_of(&schema, &moving, &device).grants)));
            }
            if let Some(Some(rights)) = rights.get(&lane.device) {
                retries.push(Prepared::Retry(Box::new(Retry { lane, seq, rights: rights.clone() })));
            }
        }
        Ok(retries)
    }

    fn batch_of(&self, submissions: Vec<Prepared>) -> Result<MergeBatch, StoreError> {
        let era = self.era();
        Ok(MergeBatch {
            project: era.identity.project,
            schema: Arc::clone(&self.schema.borrow()),
            timeline: era.timeline.timeline,
            now: self.time.now(),
            entropy: machine::random(self.time.machine())?,
            recovering: true,
            submissions,
        })
    }
}

fn is_taken(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Merged(merged) if merged.rejects.is_empty())
}
