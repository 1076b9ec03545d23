//! A device's way through a new timeline, one stage after the other: see the [module](super).

use std::collections::VecDeque;

use crate::ids::{BucketId, CollectionId, Incarnation, Lane, Position, Seq, Timeline};
use crate::message::{Code, Nack, SchemaUpdate};

/// What a store says when a welcome is of another timeline than the buckets that it holds.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Moved {
    /// The buckets that are still to be offered, those included that may not be read any more.
    pub offers: Vec<BucketId>,
    /// Where each lane stood: what is to be acknowledged before anything is offered.
    pub lasts: Vec<(Lane, Seq)>,
    /// The kept tails of logs that the device has left behind: a restored hub may have lost of them, too, and nobody else pushes them.
    pub former: Vec<Former>,
    /// Timelines of which rows may be held that this hub does not know: it went back to before they began.
    pub timelines: Vec<Timeline>,
}

/// A lane of a log that a device has left behind at a refence, and keeps entries of that a hub had acknowledged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Former {
    /// The log.
    pub incarnation: Incarnation,
    /// The lane.
    pub lane: Lane,
    /// What is pushed of it next.
    pub tail: Tail,
}

/// Where the next push of a former log begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tail {
    /// With the last entry that a hub had acknowledged, and that one alone: a hub that has it has all before it, too. Most have, and a weak
    /// link has no time for what they have.
    Last,
    /// Behind that position, `None`: with the first entry. The hub has said that it has no more.
    Behind(Option<Seq>),
}

/// What is to be done next.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Nothing; something is waited for.
    Wait,
    /// Read entries of a former log, at most one push of them.
    ReadFormer(Former),
    /// Offer nothing of a bucket under that timeline, so that the hub knows on what definitions and rows may have been delivered that come.
    Name(BucketId, Timeline),
    /// Read the definitions, to offer them.
    Define,
    /// Read what is held of a bucket from the start, or behind the last page.
    Read(BucketId, Option<Position>),
    /// Every bucket was offered.
    Done,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Stage {
    /// The name of a timeline waits for its ack.
    Named,
    Schema,
    Pushing(Vec<(Lane, Seq)>),
    /// Entries of a former log are being read (`None`), or wait for their ack up to there.
    Former(Option<Seq>),
    /// A page is being read.
    Reading,
    /// A page waits for its ack: with its last position where more follow.
    Sent(Option<Position>),
    Done,
}

/// Where a device is on its way.
#[derive(Clone, Debug)]
pub struct Flow {
    stage: Stage,
    lasts: Vec<(Lane, Seq)>,
    /// The offered definitions that the hub has not said yet, with their revisions; `None` until they are offered.
    due: Option<Vec<(CollectionId, u64)>>,
    /// The first is the one at hand.
    former: VecDeque<Former>,
    /// Likewise.
    timelines: VecDeque<Timeline>,
    /// Likewise.
    offers: VecDeque<BucketId>,
}

impl Flow {
    /// At the beginning: the timelines are to be named, and then the definitions offered. [`Self::first`] says what to do.
    #[must_use]
    pub fn new(moved: Moved) -> Self {
        let Moved { offers, lasts, former, timelines } = moved;
        let stage = if timelines.is_empty() { Stage::Schema } else { Stage::Named };
        let (former, timelines, offers) = (former.into(), timelines.into(), offers.into());
        Self { stage, lasts, due: None, former, timelines, offers }
    }

    /// What is to be done before anything else.
    #[must_use]
    pub fn first(&self) -> Step {
        self.timelines.front().map_or(Step::Define, |timeline| Step::Name(self.named_in(), *timeline))
    }

    /// Where timelines are named. One without a bucket may hold definitions all the same; of what is not there, nothing can be offered, either.
    fn named_in(&self) -> BucketId {
        self.offers.front().copied().unwrap_or_else(|| BucketId::from_entropy([0; 8]))
    }

    /// True once entries may be pushed: the hub knows the collections that they are of.
    #[must_use]
    pub fn may_push(&self) -> bool {
        !matches!(self.stage, Stage::Named | Stage::Schema)
    }

    /// True while a bucket may not be pulled, swept or purged.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.stage != Stage::Done
    }

    /// These definitions are on their way. One of a kind that this version does not know is not waited for.
    pub fn definitions_offered(&mut self, update: &SchemaUpdate) {
        let known = update.definitions.iter().filter_map(|definition| definition.collection.as_ref());
        self.due = Some(known.map(|collection| (collection.id, collection.rev)).collect());
    }

    /// The hub has said definitions. It may say some of itself, or after another device's offer: this device's own is settled when all that
    /// it has offered are among them.
    pub fn definitions_came(&mut self, update: &SchemaUpdate) {
        let Some(due) = &mut self.due else { return };
        for said in update.definitions.iter().filter_map(|definition| definition.collection.as_ref()) {
            due.retain(|(id, rev)| *id != said.id || *rev > said.rev);
        }
        if due.is_empty() && !update.more {
            self.settle();
        }
    }

    /// The hub cannot take some of the offered definitions, and says so before the ones that it has: nothing else is waited for.
    pub fn definitions_refused(&mut self) {
        if let Some(due) = &mut self.due {
            due.clear();
        }
    }

    fn settle(&mut self) {
        if self.stage == Stage::Schema {
            self.stage = Stage::Pushing(std::mem::take(&mut self.lasts));
        }
    }

    /// Goes on, where the lanes are acknowledged as far as `acked` says.
    pub fn pushed(&mut self, acked: impl Fn(Lane) -> Option<Seq>) -> Step {
        let Stage::Pushing(lasts) = &mut self.stage else { return Step::Wait };
        lasts.retain(|(lane, last)| acked(*lane) < Some(*last));
        if lasts.is_empty() { self.next_former() } else { Step::Wait }
    }

    /// Entries of a former log are on their way up to `last`; `None`: there are no more of that lane.
    pub fn former_sent(&mut self, last: Option<Seq>) -> Step {
        if self.stage != Stage::Former(None) {
            return Step::Wait;
        }
        if last.is_some() {
            self.stage = Stage::Former(last);
            return Step::Wait;
        }
        self.former.pop_front();
        self.next_former()
    }

    /// The hub has a lane of a former log up to there.
    pub fn former_acked(&mut self, (incarnation, lane): (Incarnation, Lane), acked: Seq) -> Step {
        let Stage::Former(Some(last)) = self.stage else { return Step::Wait };
        let at_hand = |former: &&mut Former| (former.incarnation, former.lane) == (incarnation, lane) && acked >= last;
        let Some(former) = self.former.front_mut().filter(at_hand) else { return Step::Wait };
        if former.tail == Tail::Last {
            self.former.pop_front();
        } else {
            former.tail = Tail::Behind(Some(acked));
        }
        self.next_former()
    }

    /// The hub cannot take a push of a former log. Where it has less than what was before it, the lane goes on from there; otherwise nothing
    /// more of the lane is pushed, and what it did is in the rows that are offered (rule R22): the lane that is given up.
    pub fn former_refused(&mut self, nack: &Nack) -> (Step, Option<Former>) {
        let at_hand = |former: &&mut Former| (former.incarnation, former.lane) == (nack.incarnation, nack.lane);
        let Some(former) = self.former.front_mut().filter(at_hand) else { return (Step::Wait, None) };
        if !matches!(self.stage, Stage::Former(Some(_))) {
            return (Step::Wait, None);
        }
        // From there on each push continues the one before: a hub that has a gap all the same has lost what it had a moment ago.
        if former.tail == Tail::Last && nack.code == Code::GAP {
            former.tail = Tail::Behind(Seq::new(nack.expect.get() - 1));
            return (self.next_former(), None);
        }
        let given_up = self.former.pop_front();
        (self.next_former(), given_up)
    }

    /// A page of a bucket is on its way; `more` is its last position where others follow.
    pub fn sent(&mut self, more: Option<Position>) {
        if self.stage == Stage::Reading {
            self.stage = Stage::Sent(more);
        }
    }

    /// The hub has joined a page of that bucket. Gives the bucket if that was its last page, and what is next.
    pub fn joined(&mut self, bucket: BucketId) -> (Option<BucketId>, Step) {
        if self.stage == Stage::Named && bucket == self.named_in() {
            self.timelines.pop_front();
            self.stage = if self.timelines.is_empty() { Stage::Schema } else { Stage::Named };
            return (None, self.first());
        }
        if self.offers.front() != Some(&bucket) {
            return (None, Step::Wait);
        }
        let Stage::Sent(more) = self.stage else { return (None, Step::Wait) };
        if more.is_some() {
            return (None, self.next(more));
        }
        (self.offers.pop_front(), self.next(None))
    }

    fn next_former(&mut self) -> Step {
        let Some(former) = self.former.front() else { return self.next(None) };
        self.stage = Stage::Former(None);
        Step::ReadFormer(*former)
    }

    fn next(&mut self, after: Option<Position>) -> Step {
        let Some(bucket) = self.offers.front() else {
            self.stage = Stage::Done;
            return Step::Done;
        };
        self.stage = Stage::Reading;
        Step::Read(*bucket, after)
    }
}

#[cfg(test)]
mod tests;
