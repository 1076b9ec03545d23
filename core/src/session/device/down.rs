//! What the device pulls: batches that continue its cursors, and what checkpoints show.

use super::{DeviceSession, Effect, State};
use crate::ids::{BucketId, Position};
use crate::link::Channel;
use crate::message::{Batch, ItemBody, Message, Pull, SchemaUpdate};

/// Bytes of batches that the hub may send before the device says how far it has got.
const DOWN_CREDIT_BYTES: u32 = 4 * 1024 * 1024;

impl DeviceSession {
    pub(super) fn pull(&mut self) {
        self.pull += 1;
        self.unconfirmed_bytes = 0;
        self.equal = false;
        self.awaiting_schema.clear();
        let wants = self.cursors.iter().map(|(bucket, cursor)| (*bucket, *cursor)).collect();
        self.send(Channel::Control, Message::Pull(Pull { pull: self.pull, wants, credit_bytes: DOWN_CREDIT_BYTES, live: true }));
    }

    pub(super) fn batch(&mut self, batch: Batch) {
        if batch.pull != self.pull || Some(batch.timeline) != self.timeline {
            return;
        }
        if self.awaiting_schema.contains(&batch.bucket) {
            // It used the hub's credit all the same, which the other buckets need.
            self.unconfirmed_bytes += state_bytes(&batch);
            self.confirm_if_due();
            return;
        }
        match self.cursors.get_mut(&batch.bucket) {
            // Accept iff it continues the cursor: that alone makes lost, doubled and reordered batches harmless.
            Some(cursor) if *cursor == batch.from || !crate::protect!("batch.continues:session", true) => {
                *cursor = batch.to;
                self.equal = false;
                self.unconfirmed_bytes += state_bytes(&batch);
                self.effects.push_back(Effect::Apply(Box::new(batch)));
            }
            Some(cursor) if *cursor > batch.from => {}
            Some(_) => self.pull(),
            None => {}
        }
    }

    pub(super) fn applied(&mut self, bucket: BucketId, cursor: Position) {
        match self.cursors.get(&bucket) {
            Some(expected) if *expected == cursor || self.state != State::Live => {}
            Some(expected) if *expected > cursor => {
                // A batch behind this one is still on its way to the store, or the store refused: the next checkpoint tells.
            }
            _ => {
                self.cursors.insert(bucket, cursor);
            }
        }
        self.confirm_if_due();
    }

    /// Batches and schemas travel on streams of their own, so a batch can be here before the schema that it needs.
    pub(super) fn needs_schema(&mut self, bucket: BucketId, cursor: Position) {
        let Some(held) = self.cursors.get_mut(&bucket) else { return };
        *held = cursor;
        self.equal = false;
        // What continues the batch that was not applied cannot be applied either.
        self.effects.retain(|effect| !matches!(effect, Effect::Apply(batch) if batch.bucket == bucket));
        if self.effects.iter().any(|effect| matches!(effect, Effect::PutSchema(_))) {
            self.pull();
        } else {
            self.awaiting_schema.insert(bucket);
        }
    }

    pub(super) fn schema(&mut self, update: SchemaUpdate) {
        if let Some(flow) = &mut self.flow {
            flow.definitions_came(&update);
        }
        if !update.more {
            self.schema_rev.0 = self.schema_rev.0.max(update.rev);
        }
        self.effects.push_back(Effect::PutSchema(Box::new(update)));
        if !self.awaiting_schema.is_empty() {
            self.pull();
        }
        self.advance();
    }

    /// Pulls what differs again, once: where that did not help, the next session tries again.
    pub(super) fn compared(&mut self, equal: bool, diverged: &[BucketId]) {
        self.confirm();
        self.equal = equal;
        if equal {
            self.pulled_again.clear();
        }
        let mut again = false;
        for bucket in diverged {
            if self.pulled_again.insert(*bucket) {
                self.cursors.insert(*bucket, Position(0));
                again = true;
            } else {
                // The store is at the start again, so nothing that the hub goes on with continues it.
                self.cursors.remove(bucket);
            }
        }
        if again {
            self.pull();
        }
    }

    fn confirm_if_due(&mut self) {
        if self.unconfirmed_bytes >= u64::from(DOWN_CREDIT_BYTES) / 2 {
            self.confirm();
        }
    }

    fn confirm(&mut self) {
        self.unconfirmed_bytes = 0;
        let at = self.cursors.iter().map(|(bucket, cursor)| (*bucket, *cursor)).collect();
        self.send(Channel::Control, Message::CursorAck(at));
    }
}

fn state_bytes(batch: &Batch) -> u64 {
    let bytes = |body: &ItemBody| match body {
        ItemBody::State { bytes, .. } => bytes.len() as u64,
        ItemBody::Leave => 0,
    };
    batch.items.iter().map(|item| bytes(&item.body)).sum()
}
