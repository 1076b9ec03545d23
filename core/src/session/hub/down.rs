//! What a device pulls: pages of its buckets, spelled as batches, and a checkpoint when nothing more is due.

use super::{Down, HubSession, Message};
use crate::ids::{Incarnation, Lane, Mac, RecordId, Seq, StateHash};
use crate::limits;
use crate::link::Channel;
use crate::message::{Batch, Checkpoint, Decision, Item, ItemBody, OwnRows, Pull};
use crate::store::{BucketPage, ConflictRow, PullItem, PullPage};
use crate::table::own::{Naming, OwnLog};
use crate::trust::{Statement, checkpoint_bytes};

impl HubSession {
    pub(super) fn pull(&mut self, pull: &Pull) {
        self.pulls_again(pull);
        let mut damaged = std::mem::take(&mut self.down.damaged);
        // What is read again is judged again.
        damaged.retain(|bucket, from| pull.wants.iter().any(|want| want.0 == *bucket && want.1 > *from));
        self.down = Down {
            pull: pull.pull,
            live: pull.live,
            // What was not granted is not delivered, whatever is asked for.
            cursors: pull.wants.iter().copied().filter(|(bucket, _)| self.granted.contains_key(bucket)).collect(),
            due: true,
            reading: self.down.reading,
            credit_bytes: u64::from(pull.credit_bytes),
            sent_bytes: 0,
            takes_own: pull.takes_own,
            damaged,
        };
    }

    pub(super) fn page(&mut self, page: PullPage) {
        self.down.reading = false;
        let mut heads = Vec::with_capacity(page.buckets.len());
        for bucket in page.buckets {
            // A page that was asked for before the device pulled anew does not continue its cursor.
            if crate::protect!("batch.continues:page", self.down.cursors.get(&bucket.bucket) != Some(&bucket.from)) {
                self.down.due = true;
                return;
            }
            if !bucket.damaged.is_empty() {
                self.down.damaged.entry(bucket.bucket).or_insert(bucket.from);
            }
            // A digest that counts records which are not delivered would make the device throw its own good copy away.
            if !self.down.damaged.contains_key(&bucket.bucket) {
                heads.push((bucket.bucket, bucket.head, bucket.digest));
            }
            let more = bucket.to < bucket.head;
            self.down.due |= more;
            if bucket.to > bucket.from {
                self.down.cursors.insert(bucket.bucket, bucket.to);
                let batch = self.batch(bucket, page.own_merged.clone(), more);
                self.send(Channel::Down, Message::Batch(batch));
            }
        }
        if !self.down.due {
            let (pull, timeline) = (self.down.pull, self.identity.timeline);
            // A device keeps it: one day it may prove to a restored hub that it was further.
            let signature = Some(Statement::Checkpoint(&checkpoint_bytes(timeline, &heads)).sign(&self.identity.keys));
            let checkpoint = Checkpoint { pull, timeline, heads, own_merged: page.own_merged, signature };
            self.send(Channel::Down, Message::Checkpoint(checkpoint));
        }
    }

    fn batch(&mut self, page: BucketPage, own_merged: Vec<(Lane, Incarnation, Seq)>, more: bool) -> Batch {
        let (mut items, mut naming) = (Vec::with_capacity(page.items.len()), self.naming());
        for (place, item) in (0..).zip(page.items) {
            let mac = self.mac(&item);
            let is_named = naming.as_mut().is_some_and(|naming| naming.take(place, &item, mac));
            if !is_named {
                items.push(self.item(item, mac));
            }
        }
        let own = naming.and_then(Naming::finish);
        self.down.sent_bytes += own.as_ref().map_or(0, |own| own.credit_bytes());
        let decisions = told(page.decisions, room_beside(&items, own.as_deref()));
        Batch {
            pull: self.down.pull,
            timeline: self.identity.timeline,
            bucket: page.bucket,
            from: page.from,
            to: page.to,
            items,
            own_merged,
            more,
            decisions,
            own,
        }
    }

    /// What is named to the device; `None` where all is to be spelled.
    fn naming(&self) -> Option<Naming> {
        let (device, incarnation) = self.device.filter(|_| self.down.takes_own)?;
        let log = OwnLog { device, incarnation, ordinal: self.up.ordinal? };
        Some(Naming::of(log))
    }

    fn mac(&self, item: &PullItem) -> Mac {
        let identity = &self.identity;
        let hash = item.state.as_ref().map_or(StateHash([0; 32]), |state| state.hash);
        identity.offer.row(identity.project, &item.key, (identity.timeline, item.ver), hash)
    }

    fn item(&mut self, item: PullItem, mac: Mac) -> Item {
        let body = match item.state {
            Some(state) => {
                self.down.sent_bytes += state.bytes.len() as u64;
                ItemBody::State { epoch: state.epoch, bytes: state.bytes }
            }
            None => ItemBody::Leave,
        };
        Item { collection: item.key.collection, id: item.key.id, ver: item.ver, body, mac }
    }
}

/// What items and named rows leave of a frame for decisions: ids may take more room than states.
fn room_beside(items: &[Item], own: Option<&OwnRows>) -> usize {
    let bytes = |item: &Item| match &item.body {
        // Numbers and a MAC, and what stands around them, take less than this.
        ItemBody::State { bytes, .. } => 96 + item.id.as_str().len() + bytes.len(),
        ItemBody::Leave => 96 + item.id.as_str().len(),
    };
    let rest = limits::FRAME_BODY_BYTES_MAX / 64 * 63;
    let named = 64 * own.map_or(0, OwnRows::rows);
    rest.saturating_sub(items.iter().map(bytes).sum::<usize>() + named).min(limits::BATCH_DECISIONS_BYTES_MAX)
}

/// Decisions as a device is told of them, as many as there is room for.
fn told(rows: Vec<ConflictRow>, mut bytes_left: usize) -> Vec<Decision> {
    let decision = |row: ConflictRow| {
        let shown = |value: serde_json::Value| {
            let text = (!value.is_null()).then(|| value.to_string());
            text.filter(|text| text.len() <= limits::DECISION_VALUE_BYTES_MAX)
        };
        let ConflictRow { collection, id, field, kind, loser, loser_stamp, winner, winner_stamp, at } = row;
        let id = RecordId::new(id).ok()?;
        Some(Decision { collection, id, field, kind, loser_stamp, loser: shown(loser), winner_stamp, winner: shown(winner), at })
    };
    let fits = |decision: &Decision| {
        let values = [&decision.loser, &decision.winner].into_iter().flatten().map(String::len);
        // Two stamps and the numbers take less than this.
        let bytes = 160 + decision.id.as_str().len() + values.sum::<usize>();
        bytes_left = bytes_left.saturating_sub(bytes);
        bytes_left > 0
    };
    rows.into_iter().take(limits::BATCH_DECISIONS_MAX).filter_map(decision).take_while(fits).collect()
}
