//! Entries that came before what they build on: a restored hub refuses them for what a document lacks, and tries them again when a device has
//! given some of it back (rule R16).

use std::collections::BTreeSet;
use std::sync::Arc;

use mobo_core::buckets::rights_of;
use mobo_core::ids::CollectionId;
use mobo_core::merge::{Hint, Prepared, Retry, Rights};
use mobo_core::message::{Code, Offer};
use mobo_core::schema::Kind;
use mobo_core::store::{MergeBatch, QuarantineRow, StoreError};
use mobo_runtime::machine;

use super::History;

/// Refused entries that are looked at, newest first.
const LOOK_MAX: u32 = 1_000;

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

    /// Tries the entries again that were refused for what these documents lacked. Gives the buckets that changed.
    pub(super) async fn try_again(&self, documents: &Documents) -> Result<Vec<Hint>, StoreError> {
        let project = self.era().identity.project;
        if !mobo_core::protect!("recovery.tried-again", !documents.is_empty()) {
            return Ok(Vec::new());
        }
        let waits = |row: &QuarantineRow| {
            matches!(Code(row.code), Code::MISSING_DEPENDENCY | Code::BLOCKED)
                && row.record.as_ref().is_some_and(|record| documents.contains(record))
        };
        let mut rows = self.store.quarantine(project, None, LOOK_MAX).await?;
        rows.retain(waits);
        // In the order in which their authors wrote them.
        rows.sort_by_key(|row| (row.lane, row.seq));
        let mut submissions = Vec::with_capacity(rows.len());
        for row in rows {
            let Some(device) = self.store.device(project, row.lane.device).await? else { continue };
            let (schema, moving) = (self.store.schema(project).await?, self.store.rebucketing(project).await?);
            let rights = Rights::Buckets(rights_of(&schema, &moving, &device).grants);
            submissions.push(Prepared::Retry(Box::new(Retry { lane: row.lane, seq: row.seq, rights })));
        }
        if submissions.is_empty() {
            return Ok(Vec::new());
        }
        let batch = MergeBatch {
            project,
            schema: Arc::clone(&self.schema.borrow()),
            timeline: self.era().timeline.timeline,
            now: self.time.now(),
            entropy: machine::random(self.time.machine())?,
            recovering: true,
            submissions,
        };
        Ok(self.store.merge(batch).await?.hints)
    }
}
