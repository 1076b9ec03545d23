//! What the device pulls: batches that continue its cursors, and what checkpoints show.

use super::{CloseReason, DeviceSession, Effect, State};
use crate::ids::{BucketId, Incarnation, Lane, Position, Seq};
use crate::link::Channel;
use crate::message::{Batch, Checkpoint, ItemBody, Message, Pull, SchemaUpdate};

/// Bytes of batches that the hub may send before the device says how far it has got.
const DOWN_CREDIT_BYTES: u32 = 4 * 1024 * 1024;

/// What the hub sends down, in its order. It is bounded by the credit.
#[derive(Debug)]
pub(super) enum Down {
    Batch(Batch),
    Checkpoint(Checkpoint),
    /// The bucket, and the position up to which it was named whole.
    Sweep(BucketId, Position),
}

impl DeviceSession {
    /// Takes in what the hub sends down once its word on the own entries in it is here: whether it took them or refused them. Acks travel on
    /// streams of their own.
    pub(super) fn down(&mut self, down: Down) {
        let of_earlier_pull = match &down {
            Down::Batch(batch) => batch.pull != self.pull,
            Down::Checkpoint(checkpoint) => checkpoint.pull != self.pull,
            Down::Sweep(..) => false,
        };
        if !of_earlier_pull {
            self.held.push_back(down);
            self.release();
        }
    }

    /// Takes in what waits for no ack any more.
    pub(super) fn release(&mut self) {
        while let Some(down) = self.held.front().filter(|_| self.state != State::Closed) {
            let own_merged = match down {
                Down::Batch(batch) => batch.own_merged.as_slice(),
                Down::Checkpoint(checkpoint) => checkpoint.own_merged.as_slice(),
                Down::Sweep(..) => &[],
            };
            if crate::protect!("batch.after-acks", own_merged.iter().any(|own| self.is_unheard(own))) {
                return;
            }
            match self.held.pop_front() {
                Some(Down::Batch(batch)) => self.batch(batch),
                Some(Down::Checkpoint(checkpoint)) => self.effects.push_back(Effect::Compare(Box::new(checkpoint))),
                Some(Down::Sweep(bucket, to)) if self.cursors.contains_key(&bucket) => self.effects.push_back(Effect::Sweep(bucket, to)),
                // Of a bucket that is gone.
                Some(Down::Sweep(..)) | None => {}
            }
        }
    }

    fn is_unheard(&self, (lane, incarnation, seq): &(Lane, Incarnation, Seq)) -> bool {
        *incarnation == self.incarnation && self.lanes.is_in_flight(*lane, *seq)
    }

    /// The store has taken the welcome in.
    pub(super) fn admitted(&mut self, cursors: Vec<(BucketId, Position)>) {
        let resumed = self.flow.as_ref().is_some_and(|flow| !flow.holds());
        if self.state == State::Admitting || resumed {
            self.flow = None;
            self.cursors = cursors.into_iter().collect();
            self.state = State::Live;
            self.pull();
        }
    }

    pub(super) fn pull(&mut self) {
        self.pull += 1;
        self.held.retain(|down| matches!(down, Down::Sweep(..)));
        self.unconfirmed_bytes = 0;
        self.equal = false;
        self.awaiting_schema.clear();
        let wants = self.cursors.iter().map(|(bucket, cursor)| (*bucket, *cursor)).collect();
        let (credit_bytes, takes_own) = (DOWN_CREDIT_BYTES, !self.all_spelled);
        self.send(Channel::Control, Message::Pull(Pull { pull: self.pull, wants, credit_bytes, live: true, takes_own }));
    }

    fn batch(&mut self, batch: Batch) {
        if Some(batch.timeline) != self.timeline {
            return;
        }
        if self.awaiting_schema.contains(&batch.bucket) {
            // It used the hub's credit all the same, which the other buckets need.
            self.unconfirmed_bytes += state_bytes(&batch);
            self.confirm_if_due();
            return;
        }
        if self.all_spelled && batch.own.is_some() {
            return self.close(CloseReason::Violation("rows by name that were to be spelled out".to_owned()));
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
            Some(_) => {
                self.cursors.insert(bucket, cursor);
            }
            // Since the batch went to the store, it may not be read any more.
            None => {}
        }
        self.confirm_if_due();
    }

    /// Batches and schemas travel on streams of their own, so a batch can be here before the schema that it needs.
    pub(super) fn needs_schema(&mut self, bucket: BucketId, cursor: Position) {
        let Some(held) = self.cursors.get_mut(&bucket) else { return };
        *held = cursor;
        self.equal = false;
        // What continues the batch that was not applied cannot be applied either.
        self.drop_batches(bucket);
        if self.effects.iter().any(|effect| matches!(effect, Effect::PutSchema(_))) {
            self.pull();
        } else {
            self.awaiting_schema.insert(bucket);
        }
    }

    /// Rows were named that the store does not make of its own entries: from now on all of them are spelled. Nothing of the batch was applied.
    pub(super) fn needs_spelling(&mut self, bucket: BucketId, cursor: Position) {
        // It may be gone since.
        let Some(held) = self.cursors.get_mut(&bucket) else { return };
        *held = cursor;
        self.all_spelled = true;
        self.equal = false;
        // What continues it cannot be applied either.
        self.drop_batches(bucket);
        self.pull();
    }

    /// The bucket may not be read any more. What the store has not begun to take in of it would only tell of a cursor that is gone: should the
    /// bucket be granted again, nothing would pull it.
    pub(super) fn revoked(&mut self, bucket: BucketId) {
        self.cursors.remove(&bucket);
        self.awaiting_schema.remove(&bucket);
        self.drop_batches(bucket);
        self.effects.push_back(Effect::Revoked(bucket));
    }

    pub(super) fn drop_batches(&mut self, bucket: BucketId) {
        self.effects.retain(|effect| !matches!(effect, Effect::Apply(batch) if batch.bucket == bucket));
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
            // What differs is not made good by what it was made of.
            self.all_spelled = true;
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
    let named = batch.own.as_ref().map_or(0, |own| own.credit_bytes());
    batch.items.iter().map(|item| bytes(&item.body)).sum::<u64>() + named
}
