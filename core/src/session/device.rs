//! The device's side of a session.

mod down;
mod recovering;
mod up;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use self::down::Down;
use super::CloseReason;
use super::lanes::Lanes;
use crate::ids::{BucketId, Incarnation, Lane, Position, Seq, Timeline};
use crate::limits;
use crate::link::Channel;
use crate::message::{
    AccessUpdate, Ack, Batch, Checkpoint, Code, Grant, Message, Offer, PeerError, Ping, Push, Refence, Reject, SchemaUpdate, SignedHello,
    Welcome,
};
use crate::recover::{Flow, Former, Moved};
use crate::time::{Eff, Instant, Moment};

/// Everything that can happen to a device's session.
#[derive(Debug)]
pub enum Input {
    /// A decoded message.
    Message(Box<Message>),
    /// Before [`Input::Admitted`]: by lane, the first entry that the hub has and whose effective time the device does not know. They are
    /// pushed again from there on (rule R7).
    Undecided(Vec<(Lane, Seq)>),
    /// The store has taken a welcome in: where each bucket is to be pulled from.
    Admitted(Vec<(BucketId, Position)>),
    /// The store has taken in a welcome of another timeline than it knew: what is to be offered before anything is pulled (rule R18).
    Moved(Moved),
    /// The store has found that the hub has other entries than this log: a push of what it has behind the hub's last, which cannot be taken.
    Parted(Box<Push>),
    /// The store's answer to [`Effect::ReadDefinitions`].
    Definitions(SchemaUpdate),
    /// The store's answer to [`Effect::ReadOffer`]: one page of a bucket, with its last position where more follows.
    Offer(Box<Offer>, Option<Position>),
    /// The store's answer to [`Effect::Read`]: a signed push, or nothing behind that position.
    Entries(Lane, Option<Box<Push>>),
    /// The store's answer to [`Effect::ReadFormer`]: a signed push of that log, or nothing more.
    Former(Option<Box<Push>>),
    /// Local entries were committed.
    Appended(Lane),
    /// A batch was applied, or passed over because it did not continue the cursor.
    Applied {
        /// The bucket.
        bucket: BucketId,
        /// The cursor now.
        cursor: Position,
    },
    /// A batch was not applied, because the schema that can read it is still on its way.
    NeedsSchema {
        /// The bucket.
        bucket: BucketId,
        /// Its cursor in the store.
        cursor: Position,
    },
    /// The same, because it names rows that the store does not make of its own entries: the bucket, and its cursor in the store.
    NeedsSpelling(BucketId, Position),
    /// What a checkpoint showed: the buckets that differ, to be pulled again from the start.
    Compared {
        /// True if every bucket is at the hub's head and equal.
        equal: bool,
        /// Those that differ.
        diverged: Vec<BucketId>,
    },
    /// The time of [`DeviceSession::poll_timeout`] has come; `Moment` is for the ping.
    Timeout(Moment),
    /// The store failed; the sentence says how.
    StoreFailed(String),
    /// Say goodbye.
    Stop,
}

/// Everything that a device's session asks for.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// Send a message.
    Send(Channel, Box<Message>),
    /// Take in the hub's welcome, then answer [`Input::Admitted`], [`Input::Moved`] or [`Input::Parted`].
    Admit(Box<Welcome>),
    /// Read the definitions as the hub delivered them, then answer [`Input::Definitions`].
    ReadDefinitions,
    /// Read what is held of a bucket that is to be offered, from the start or behind a position, then answer [`Input::Offer`].
    ReadOffer(BucketId, Option<Position>),
    /// The hub has joined all of a bucket: it may be pulled again, or purged where it may not be read any more.
    Offered(BucketId),
    /// Everything was offered: answer [`Input::Admitted`] with where to pull from.
    Resume,
    /// Start the pull of a bucket over: the hub has forgotten what is older (rule R20).
    Resync(BucketId),
    /// A pull that started over ended there: what it did not name is gone.
    Sweep(BucketId, Position),
    /// Read entries of a lane behind a position, at most one push of them and so many bytes, then answer [`Input::Entries`].
    Read(Lane, Option<Seq>, usize),
    /// Read entries of a log that was left behind, at most one push of them and so many bytes, then answer [`Input::Former`].
    ReadFormer(Former, usize),
    /// The hub cannot go on with a log that was left behind: tell somebody that the rest of it stays where it is.
    GaveUp(Former, Code),
    /// Store an ack.
    Acked(Box<Ack>),
    /// Store a rejection, tell the user.
    Rejected(Box<Reject>),
    /// Start a new incarnation.
    Refence(Box<Refence>),
    /// Store collection definitions.
    PutSchema(Box<SchemaUpdate>),
    /// Apply a batch, then answer [`Input::Applied`], [`Input::NeedsSchema`] or [`Input::NeedsSpelling`].
    Apply(Box<Batch>),
    /// Compare digests, then answer [`Input::Compared`].
    Compare(Box<Checkpoint>),
    /// Store who may use the device's API.
    PutAccess(Box<AccessUpdate>),
    /// A bucket may be read now.
    Granted(Grant),
    /// A bucket may not be read any more.
    Revoked(BucketId),
    /// Everything is acknowledged, and equal to the hub as of its last checkpoint.
    Drained,
    /// End the link.
    Close(CloseReason),
}

/// How a session is tuned.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Ping a peer that has been silent for this long; `None` where the transport does so itself.
    pub keepalive: Option<Duration>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    HelloSent,
    Admitting,
    Parting, // Its log is not the hub's: it waits for the order to start another.
    Live,
    Closed,
}

/// The device's side of one conversation.
///
/// Made once the link is open and the hello is signed for it. Contract: see the [module](super).
#[derive(Debug)]
pub struct DeviceSession {
    state: State,
    settings: Settings,
    effects: VecDeque<Effect>,
    /// The log that it speaks for.
    incarnation: Incarnation,
    lanes: Lanes,
    pushes_max: usize,
    cursors: BTreeMap<BucketId, Position>,
    /// Those that wait for a schema; what still comes of them is passed over.
    awaiting_schema: BTreeSet<BucketId>,
    /// Those that were pulled again because they differed, until everything is equal.
    pulled_again: BTreeSet<BucketId>,
    /// What came before the acks of own entries in it.
    held: VecDeque<Down>,
    timeline: Option<Timeline>,
    /// The way through a new timeline, until it is gone.
    flow: Option<Flow>,
    pull: u64,
    all_spelled: bool, // No row is to be named to it any more.
    unconfirmed_bytes: u64,
    equal: bool,
    drained: bool,
    /// Grants and revocations that came while the store took in the welcome.
    early: Vec<Message>,
    /// The revision of the collections that is here, and the one that the hub has: what is newer is on its way.
    schema_rev: (u64, u64),
    last_heard: Instant,
    pinged: Option<Instant>,
}

impl DeviceSession {
    /// Starts a conversation by saying hello.
    #[must_use]
    pub fn new(now: Instant, settings: Settings, hello: SignedHello) -> Self {
        let (incarnation, schema_rev) = (hello.hello.incarnation, hello.hello.schema_rev);
        let hello = Effect::Send(Channel::Control, Box::new(Message::Hello(Box::new(hello))));
        Self {
            state: State::HelloSent,
            settings,
            effects: VecDeque::from([hello]),
            incarnation,
            lanes: Lanes::default(),
            pushes_max: limits::PUSHES_IN_FLIGHT_MAX,
            cursors: BTreeMap::new(),
            awaiting_schema: BTreeSet::new(),
            pulled_again: BTreeSet::new(),
            held: VecDeque::new(),
            timeline: None,
            flow: None,
            pull: 0,
            all_spelled: false,
            unconfirmed_bytes: 0,
            equal: false,
            drained: false,
            early: Vec::new(),
            schema_rev: (schema_rev, 0),
            last_heard: now,
            pinged: None,
        }
    }

    /// Lets at most so many pushes of a lane wait for their ack, where the link asks for fewer than the protocol allows.
    #[must_use]
    pub fn with_pushes_max(mut self, pushes_max: usize) -> Self {
        self.pushes_max = pushes_max;
        self
    }

    /// True once the hub has admitted this device.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.state == State::Live
    }

    /// Takes the next effect.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Input::Timeout`] is due. May change after every `handle`.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match (self.state, self.settings.keepalive) {
            (State::Closed, _) | (State::Live, None) => None,
            (State::HelloSent | State::Admitting | State::Parting, _) => Some(self.last_heard.after(limits::HELLO_TIMEOUT)),
            (State::Live, Some(keepalive)) => match self.pinged {
                None => Some(self.last_heard.after(keepalive)),
                Some(_) => Some(self.last_heard.after(keepalive + keepalive / 2)),
            },
        }
    }

    /// Feeds what happened. Never blocks.
    pub fn handle(&mut self, now: Instant, input: Input) {
        if self.state == State::Closed {
            return;
        }
        match input {
            Input::Message(message) => {
                (self.last_heard, self.pinged) = (now, None);
                self.message(now, *message);
            }
            Input::Undecided(from) => from.iter().for_each(|(lane, seq)| self.lanes.rewind(*lane, *seq)),
            Input::Admitted(cursors) => self.admitted(cursors),
            Input::Moved(moved) => self.moved(moved),
            Input::Parted(push) => self.parted(*push),
            Input::Definitions(update) => self.offer_definitions(update),
            Input::Offer(offer, more) => self.offer(*offer, more),
            Input::Entries(lane, push) => self.entries(now, lane, push),
            Input::Former(push) => self.former(push),
            Input::Appended(lane) => {
                self.drained = false;
                self.lanes.appended(lane);
            }
            Input::Applied { bucket, cursor } => self.applied(bucket, cursor),
            Input::NeedsSchema { bucket, cursor } => self.needs_schema(bucket, cursor),
            Input::NeedsSpelling(bucket, cursor) => self.needs_spelling(bucket, cursor),
            Input::Compared { equal, diverged } => self.compared(equal, &diverged),
            Input::Timeout(moment) => self.timeout(now, moment),
            Input::StoreFailed(why) => {
                // Nothing that came later happens without it: an ack that is stored would say that the refusals before it were heard.
                self.effects.clear();
                self.close(CloseReason::Store(why));
            }
            Input::Stop => {
                self.send(Channel::Control, Message::Bye);
                self.close(CloseReason::Stopped);
            }
        }
        if self.state == State::Live {
            for message in std::mem::take(&mut self.early) {
                self.live(now, message);
            }
        }
        self.release();
        self.advance();
    }

    fn message(&mut self, now: Instant, message: Message) {
        match (self.state, message) {
            (State::HelloSent, Message::Welcome(welcome)) => self.welcome(welcome),
            (State::HelloSent | State::Parting | State::Live, Message::Refence(refence)) => {
                self.effects.push_back(Effect::Refence(Box::new(refence)));
                self.close(CloseReason::Refenced);
            }
            (_, Message::Error(error)) if error.fatal => self.close(CloseReason::Refused(error)),
            (_, Message::Bye) => self.close(CloseReason::PeerLeft),
            (_, Message::Ping(ping)) => self.send(Channel::Control, Message::Pong(Ping { hub_time: Eff(0), ..ping })),
            (State::Live, Message::Error(error)) => self.complaint(error),
            (_, Message::Pong(_) | Message::Ignored { .. } | Message::Error(_)) => {}
            (State::Parting, message) => self.parting(message),
            // The store reads where to pull from before it hears of them, and would be told to pull what it does not have.
            (State::Admitting, message @ (Message::Grant(_) | Message::Revoke(_)))
                if self.early.len() < 2 * limits::BUCKETS_PER_DEVICE_MAX =>
            {
                self.early.push(message);
            }
            (State::Live | State::Admitting, message) => self.live(now, message),
            (State::HelloSent | State::Closed, _) => self.close(CloseReason::Violation("a message before the welcome".to_owned())),
        }
    }

    fn live(&mut self, now: Instant, message: Message) {
        match message {
            Message::Ack(ack) if ack.incarnation != self.incarnation => self.former_acked(ack),
            Message::Nack(nack) if nack.incarnation != self.incarnation => self.former_refused(&nack),
            Message::Ack(ack) => {
                self.lanes.acked(now, (ack.lane, ack.acked), ack.credit_bytes);
                self.effects.push_back(Effect::Acked(Box::new(ack)));
            }
            Message::Nack(nack) => self.nack(&nack),
            Message::Reject(reject) => self.effects.push_back(Effect::Rejected(Box::new(reject))),
            Message::Batch(batch) => self.down(Down::Batch(batch)),
            Message::Checkpoint(checkpoint) => self.down(Down::Checkpoint(checkpoint)),
            Message::Schema(update) => self.schema(update),
            Message::Access(update) => self.effects.push_back(Effect::PutAccess(Box::new(update))),
            Message::Grant(grant) => {
                let bucket = grant.bucket;
                self.effects.push_back(Effect::Granted(grant));
                // One that is held gets another right, and is read on from where it is.
                if self.flow.is_none() && !self.cursors.contains_key(&bucket) {
                    self.cursors.insert(bucket, Position(0));
                    self.pull();
                }
            }
            Message::Revoke(bucket) => self.revoked(bucket),
            Message::OfferAck(ack) => self.offer_ack(&ack),
            Message::Resync { bucket, .. } => self.resync(bucket),
            Message::Sweep { bucket, to } => self.down(Down::Sweep(bucket, to)),
            Message::Audit(_) => {
                let detail = "this device does not take audits yet; upgrade it".to_owned();
                let error = PeerError { code: Code::UNSUPPORTED, detail, fatal: false, retry_after_ms: 0 };
                self.send(Channel::Control, Message::Error(error));
            }
            Message::Hello(_)
            | Message::Welcome(_)
            | Message::Refence(_)
            | Message::Push(_)
            | Message::Pull(_)
            | Message::CursorAck(_)
            | Message::Fetch { .. }
            | Message::Offer(_)
            | Message::SchemaOffer(_)
            | Message::Enrol(_)
            | Message::Enrolled(_)
            | Message::Ping(_)
            | Message::Pong(_)
            | Message::Error(_)
            | Message::Bye
            | Message::Ignored { .. } => self.close(CloseReason::Violation("a message that a hub does not send here".to_owned())),
        }
    }

    fn welcome(&mut self, welcome: Box<Welcome>) {
        self.schema_rev.1 = welcome.schema_rev;
        for status in &welcome.lanes {
            self.lanes.start(status.lane, status.last, status.credit_bytes);
        }
        for lane in Lane::ALL.into_iter().filter(|lane| welcome.lanes.iter().all(|status| status.lane != *lane)) {
            self.lanes.start(lane, None, 0);
        }
        self.timeline = Some(welcome.timeline.timeline);
        self.state = State::Admitting;
        self.effects.push_back(Effect::Admit(welcome));
    }

    fn timeout(&mut self, now: Instant, moment: Moment) {
        if self.poll_timeout().is_none_or(|due| now < due) {
            return;
        }
        if self.state == State::Live && self.pinged.is_none() {
            self.pinged = Some(now);
            self.send(Channel::Control, Message::Ping(Ping { boot: moment.boot, mono: moment.mono, hub_time: Eff(0) }));
        } else {
            self.close(CloseReason::Silent);
        }
    }

    fn send(&mut self, channel: Channel, message: Message) {
        self.effects.push_back(Effect::Send(channel, Box::new(message)));
    }

    fn close(&mut self, reason: CloseReason) {
        self.state = State::Closed;
        self.effects.push_back(Effect::Close(reason));
    }
}
