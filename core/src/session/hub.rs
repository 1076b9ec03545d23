//! The hub's side of a session.

mod down;
mod recovering;
mod rights;
mod up;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::CloseReason;
use crate::ids::{BucketId, Chain, DeviceId, Incarnation, Lane, LaneKey, Position, ProjectId, Seq, Timeline};
use crate::limits;
use crate::link::Channel;
use crate::merge::{Hint, Merged, Outcome};
use crate::message::{
    Ack, Code, Enrol, Enrolled, Grant, Message, Offer, OfferAck, PeerError, Ping, Push, Refence, RefenceReason, SchemaUpdate, SignedHello,
    Welcome,
};
use crate::store::PullPage;
use crate::time::Instant;
use crate::trust::{KeyPair, LaneHead, OfferKey, Statement};

/// Bytes that a device may have in flight on a lane.
pub const LANE_CREDIT_BYTES: u32 = 4 * 1024 * 1024;

/// Everything that can happen to a hub's session.
#[derive(Debug)]
pub enum Input {
    /// A decoded message.
    Message(Box<Message>),
    /// The answer to [`Effect::Admit`].
    Admitted(Result<Box<Welcome>, Refusal>),
    /// The answer to [`Effect::Enrol`].
    Enrolled(Result<Enrolled, PeerError>),
    /// What became of a push.
    Merged(LaneKey, Outcome),
    /// A push that was refused before it was merged.
    PushRefused(LaneKey, Code),
    /// The answer to [`Effect::Join`].
    Joined(OfferAck),
    /// The answer to [`Effect::Adopt`]: the collections as they are now, and those that cannot be taken, in a sentence.
    Adopted(Arc<SchemaUpdate>, Option<String>),
    /// The answer to [`Effect::Pull`].
    Page(Box<PullPage>),
    /// Buckets have changed.
    Hints(Arc<Vec<Hint>>),
    /// Hints were missed: anything may have changed.
    HintsLost,
    /// Collections have changed, or the device's schema is old.
    Schema(Arc<SchemaUpdate>),
    /// What the device may read and write now.
    Rights(Vec<Grant>),
    /// A lane of the device is in a verified backup up to here, where its chain is this.
    Safe(Lane, Seq, Chain),
    /// The device was revoked.
    Revoked,
    /// The time of [`HubSession::poll_timeout`] has come.
    Timeout,
    /// The store failed; the sentence says how.
    StoreFailed(String),
    /// Say goodbye.
    Stop,
}

/// Why a hello is not welcome.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// Start a new incarnation.
    Refence(Refence),
    /// Go away, for this reason.
    Error(PeerError),
}

/// Everything that a hub's session asks for.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// Send a message.
    Send(Channel, Box<Message>),
    /// Check who this is and what is known of it, then answer [`Input::Admitted`].
    Admit(Box<SignedHello>),
    /// Enrol a device, then answer [`Input::Enrolled`].
    Enrol(Box<Enrol>),
    /// Merge a push, then answer [`Input::Merged`]. Pushes of one lane are merged in the order of these effects.
    Merge(LaneKey, Box<Push>),
    /// Read what changed behind these cursors, then answer [`Input::Page`].
    Pull(Vec<(BucketId, Position)>),
    /// Join what the device offers, whose rows may have been delivered on these timelines, then answer [`Input::Joined`]. One at a time.
    Join(Box<Offer>, Vec<Timeline>),
    /// Take in definitions that the device offers, which may have been delivered on any of these timelines, too, then answer [`Input::Adopted`].
    Adopt(Box<SchemaUpdate>, Vec<Timeline>),
    /// The device has given back all that it holds: it pulls everything that it may read.
    OfferedAll,
    /// Answer a ping, with the hub's time in it.
    Pong(Ping),
    /// The lane has forked: find the chains that the device may share, then answer [`Input::Admitted`] with the refence.
    Refence(LaneKey, Option<Seq>, RefenceReason),
    /// Note how far the device has read.
    Cursors(Vec<(BucketId, Position)>),
    /// End the link.
    Close(CloseReason),
}

/// What a hub's sessions share.
#[derive(Clone, Debug)]
pub struct HubIdentity {
    /// The project that this session serves.
    pub project: ProjectId,
    /// The hub's history.
    pub timeline: Timeline,
    /// The hub's keys.
    pub keys: KeyPair,
    /// For MACs.
    pub offer: OfferKey,
}

impl HubIdentity {
    /// The signed ack of a lane of which so much was merged; it says nothing of what is safe.
    #[must_use]
    pub fn ack(&self, lane: &LaneKey, merged: Merged) -> Ack {
        let head = LaneHead { project: self.project, lane: *lane, last: merged.acked, chain: merged.chain };
        Ack {
            lane: lane.lane,
            incarnation: lane.incarnation,
            acked: merged.acked,
            chain: merged.chain,
            safe: None,
            credit_bytes: LANE_CREDIT_BYTES,
            eff_first: merged.eff_first,
            effs: merged.effs,
            signature: Statement::Ack(&head, self.timeline).sign(&self.keys),
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    AwaitHello,
    Admitting,
    Live,
    Closed,
}

/// What a device pulls.
#[derive(Debug, Default)]
struct Down {
    pull: u64,
    live: bool,
    cursors: BTreeMap<BucketId, Position>,
    /// Heads that are known to be ahead of cursors, or a first pull.
    due: bool,
    /// True while the store is asked.
    reading: bool,
    credit_bytes: u64,
    sent_bytes: u64,
    /// True if rows that its own entries made are named to it.
    takes_own: bool,
    /// Where the first page with damaged records began: the device cannot have the bucket's digest.
    damaged: BTreeMap<BucketId, Position>,
}

/// The hub's side of one conversation.
///
/// Made for each accepted link; learns from the hello who is there. Contract: see the [module](super).
#[derive(Debug)]
pub struct HubSession {
    identity: Arc<HubIdentity>,
    state: State,
    effects: VecDeque<Effect>,
    device: Option<(DeviceId, Incarnation)>,
    up: up::Up,
    down: Down,
    schema_rev: u64,
    /// What the device may read, and whether it may write there.
    granted: BTreeMap<BucketId, bool>,
    /// True until a device that comes from another timeline, or to a hub that recovers, has given back all that it holds.
    owes_offers: bool,
    given_back: recovering::GivenBack,
    keepalive: Option<Duration>,
    last_heard: Instant,
}

impl HubSession {
    /// Waits for a hello. `keepalive` is `None` where the transport notices silence itself.
    #[must_use]
    pub fn new(now: Instant, identity: Arc<HubIdentity>, keepalive: Option<Duration>) -> Self {
        Self {
            identity,
            state: State::AwaitHello,
            effects: VecDeque::new(),
            device: None,
            up: up::Up::default(),
            down: Down::default(),
            schema_rev: 0,
            granted: BTreeMap::new(),
            owes_offers: false,
            given_back: recovering::GivenBack::default(),
            keepalive,
            last_heard: now,
        }
    }

    /// The device, once it said hello.
    #[must_use]
    pub fn device(&self) -> Option<DeviceId> {
        self.device.map(|(device, _)| device)
    }

    /// The device and its log, once it said hello.
    #[must_use]
    pub fn log(&self) -> Option<(DeviceId, Incarnation)> {
        self.device
    }

    /// Takes the next effect.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Input::Timeout`] is due. May change after every `handle`.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::AwaitHello | State::Admitting => Some(self.last_heard.after(limits::HELLO_TIMEOUT)),
            State::Live => self.keepalive.map(|keepalive| self.last_heard.after(keepalive + keepalive / 2)),
            State::Closed => None,
        }
    }

    /// Feeds what happened. Never blocks.
    pub fn handle(&mut self, now: Instant, input: Input) {
        if self.state == State::Closed {
            return;
        }
        match input {
            Input::Message(message) => {
                // Before the welcome, only what brings it nearer gives a stranger more time.
                if matches!((self.state, &*message), (State::Live, _) | (State::AwaitHello, Message::Hello(_) | Message::Enrol(_))) {
                    self.last_heard = now;
                }
                self.message(*message);
            }
            Input::Admitted(Ok(welcome)) => {
                self.last_heard = now;
                self.admitted(welcome);
            }
            Input::Admitted(Err(Refusal::Refence(refence))) => {
                self.send(Channel::Control, Message::Refence(refence));
                self.close(CloseReason::Refenced);
            }
            Input::Admitted(Err(Refusal::Error(error))) => self.refuse(error),
            Input::Enrolled(Ok(enrolled)) => {
                self.send(Channel::Control, Message::Enrolled(enrolled));
                self.state = State::AwaitHello;
                self.last_heard = now;
            }
            Input::Enrolled(Err(error)) => self.refuse(error),
            Input::Merged(lane, outcome) => self.merged(&lane, outcome),
            Input::PushRefused(lane, code) => self.push_refused(&lane, code),
            Input::Joined(ack) => {
                self.given_back.unanswered_offers = self.given_back.unanswered_offers.saturating_sub(1);
                self.send(Channel::Control, Message::OfferAck(ack));
            }
            Input::Adopted(update, refused) => self.adopted(&update, refused),
            Input::Page(page) => self.page(*page),
            Input::Hints(hints) => self.hints(&hints),
            Input::HintsLost => self.down.due |= self.down.live,
            Input::Schema(update) => self.schema(&update),
            Input::Rights(grants) => self.rights(grants),
            Input::Safe(lane, seq, chain) => self.safe(lane, seq, chain),
            Input::Revoked => {
                let detail = "this device was revoked: ask the operator of the hub, and join again".to_owned();
                self.refuse(PeerError { code: Code::REVOKED, detail, fatal: true, retry_after_ms: 0 });
            }
            Input::Timeout => {
                if self.poll_timeout().is_some_and(|due| now >= due) {
                    self.close(CloseReason::Silent);
                }
            }
            Input::StoreFailed(why) => {
                let detail = format!("the hub cannot do this now: {why}");
                self.refuse(PeerError { code: Code::BUSY, detail, fatal: true, retry_after_ms: 2_000 });
            }
            Input::Stop => {
                self.send(Channel::Control, Message::Bye);
                self.close(CloseReason::Stopped);
            }
        }
        self.advance();
    }

    fn message(&mut self, message: Message) {
        match (self.state, message) {
            (State::AwaitHello, Message::Hello(hello)) => {
                self.device = Some((hello.hello.device, hello.hello.incarnation));
                self.schema_rev = hello.hello.schema_rev;
                self.owes_offers = hello.hello.buckets.iter().any(|report| report.timeline != self.identity.timeline);
                self.state = State::Admitting;
                self.effects.push_back(Effect::Admit(hello));
            }
            (State::AwaitHello, Message::Enrol(enrol)) => {
                self.state = State::Admitting;
                self.effects.push_back(Effect::Enrol(Box::new(enrol)));
            }
            (_, Message::Bye) => self.close(CloseReason::PeerLeft),
            (_, Message::Error(error)) if error.fatal => self.close(CloseReason::Refused(error)),
            (_, Message::Pong(_) | Message::Ignored { .. } | Message::Error(_)) => {}
            (State::Live, message) => self.live(message),
            (State::AwaitHello | State::Admitting | State::Closed, _) => {
                self.close(CloseReason::Violation("a message before the welcome".to_owned()));
            }
        }
    }

    fn live(&mut self, message: Message) {
        match message {
            Message::Push(push) => self.push(push),
            Message::Pull(pull) => self.pull(&pull),
            Message::CursorAck(at) => {
                self.down.sent_bytes = 0;
                let at = at.into_iter().filter(|(bucket, _)| self.granted.contains_key(bucket)).collect();
                self.effects.push_back(Effect::Cursors(at));
            }
            Message::Ping(ping) => self.effects.push_back(Effect::Pong(ping)),
            Message::Offer(offer) => self.offered(offer),
            Message::SchemaOffer(update) => self.schema_offered(update),
            Message::Fetch { .. } | Message::Audit(_) => {
                let detail = "this hub does not take fetches or audits yet; upgrade it".to_owned();
                let error = PeerError { code: Code::UNSUPPORTED, detail, fatal: false, retry_after_ms: 0 };
                self.send(Channel::Control, Message::Error(error));
            }
            Message::Hello(_)
            | Message::Welcome(_)
            | Message::Refence(_)
            | Message::Ack(_)
            | Message::Nack(_)
            | Message::Reject(_)
            | Message::Batch(_)
            | Message::Checkpoint(_)
            | Message::Grant(_)
            | Message::Revoke(_)
            | Message::Resync { .. }
            | Message::Sweep { .. }
            | Message::OfferAck(_)
            | Message::Schema(_)
            | Message::Access(_)
            | Message::Enrol(_)
            | Message::Enrolled(_)
            | Message::Pong(_)
            | Message::Error(_)
            | Message::Bye
            | Message::Ignored { .. } => self.close(CloseReason::Violation("a message that a device does not send here".to_owned())),
        }
    }

    fn hints(&mut self, hints: &[Hint]) {
        let down = &mut self.down;
        if down.live {
            down.due |= crate::protect!("pull.hints", true)
                && hints.iter().any(|hint| down.cursors.get(&hint.bucket).is_some_and(|cursor| *cursor < hint.head));
        }
    }

    fn schema(&mut self, update: &SchemaUpdate) {
        if self.state == State::Live && update.rev > self.schema_rev {
            self.schema_rev = update.rev;
            self.send(Channel::Control, Message::Schema(update.clone()));
        }
    }

    /// Asks for what is due, one page at a time, within the device's credit.
    fn advance(&mut self) {
        let down = &mut self.down;
        if self.state == State::Live && down.due && !down.reading && down.sent_bytes < down.credit_bytes {
            (down.due, down.reading) = (false, true);
            let wants = down.cursors.iter().map(|(bucket, cursor)| (*bucket, *cursor)).collect();
            self.effects.push_back(Effect::Pull(wants));
        }
    }

    fn refuse(&mut self, error: PeerError) {
        self.send(Channel::Control, Message::Error(error.clone()));
        self.close(CloseReason::Refused(error));
    }

    fn send(&mut self, channel: Channel, message: Message) {
        self.effects.push_back(Effect::Send(channel, Box::new(message)));
    }

    fn close(&mut self, reason: CloseReason) {
        self.state = State::Closed;
        self.effects.push_back(Effect::Close(reason));
    }
}
