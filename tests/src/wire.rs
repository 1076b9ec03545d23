//! A device in the test's own process: it speaks the protocol over real QUIC, honestly or not.
//!
//! What it seals it keeps in memory; what it shows is its own writes only. Tests that attack a hub take its frames apart.

#![allow(clippy::indexing_slicing, clippy::wildcard_enum_match_arm, reason = "a harness of tests: the panic is the report")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use mobo_adapters::quic::QuicDialer;
use mobo_core::author::{self, Edit, Intent, RecordOp, Writer};
use mobo_core::document;
use mobo_core::engine::Author;
use mobo_core::entry::{Entry, Header, chain_next, chain_start};
use mobo_core::ids::{BootId, Chain, Incarnation, Lane, LaneKey, Nonce, Ordinal, RecordId, RecordKey, Seq, Timeline, Ver};
use mobo_core::link::{Channel, Dialer, Link, LinkError};
use mobo_core::message::{Ack, Enrol, Enrolled, Hello, LaneReport, Message, PeerError, Push, PushedEntry, Reject, SignedHello};
use mobo_core::overlay;
use mobo_core::record::RecordState;
use mobo_core::schema::{Collection, Kind, Schema};
use mobo_core::table;
use mobo_core::time::{Moment, Mono, Wall, WallQuality};
use mobo_core::trust::{KeyPair, LaneHead, Statement};
use mobo_protocol::{JoinToken, PROTO, hello_bytes};
use mobo_runtime::entropy;
use serde_json::Value;

/// How long a hub may take to answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Random bytes.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    entropy::bytes().expect("the system has randomness")
}

/// An enrolled device. A clone of it is what a thief has.
#[derive(Clone, Debug)]
pub struct WireDevice {
    /// Its key.
    pub keys: KeyPair,
    /// The token that it joined with.
    pub token: JoinToken,
    /// What it got for it.
    pub certificate: Enrolled,
    /// Its log.
    pub incarnation: Incarnation,
    /// The collections, as the hub last told them.
    pub schema: Schema,
    /// What it has sealed, by lane; the first is at position 1.
    pub sealed: BTreeMap<Lane, Vec<Entry>>,
    boot: (BootId, Instant),
    ordinal: Ordinal,
    session: Option<(Timeline, u64)>,
    view: BTreeMap<RecordKey, RecordState>,
}

/// What became of a hello.
pub type Greeting = Result<Session, Refused>;

/// Why a hub did not go on.
#[derive(Debug)]
pub enum Refused {
    /// It said why.
    Error(PeerError),
    /// It hung up.
    Closed(LinkError),
}

/// An open conversation.
#[derive(Debug)]
pub struct Session {
    link: Box<dyn Link>,
}

/// What a hub answered to a push.
#[derive(Debug)]
pub struct Pushed {
    /// Refused entries.
    pub rejects: Vec<Reject>,
    /// The commitment.
    pub ack: Ack,
}

/// A link to the hub of a token.
///
/// # Panics
///
/// When it cannot be reached.
pub async fn dial(token: &JoinToken) -> Box<dyn Link> {
    QuicDialer::new(None).dial(token.addresses[0].clone(), token.hub).await.expect("the hub can be reached")
}

/// The next message that is not a sign of life.
///
/// # Errors
///
/// When the link ends.
///
/// # Panics
///
/// When nothing comes within [`ANSWER_TIMEOUT`], or the hub sends what is no message.
pub async fn next(link: &dyn Link) -> Result<Message, LinkError> {
    let frame = tokio::time::timeout(ANSWER_TIMEOUT, link.recv()).await.expect("the hub answers in time")?;
    Ok(mobo_protocol::decode(&frame).expect("the hub sends messages"))
}

/// Sends a message.
///
/// # Errors
///
/// When the link has ended.
pub async fn send(link: &dyn Link, channel: Channel, message: &Message) -> Result<(), LinkError> {
    link.send(channel, mobo_protocol::encode(message)).await
}

impl WireDevice {
    /// Enrols with a token.
    ///
    /// # Errors
    ///
    /// What the hub said.
    ///
    /// # Panics
    ///
    /// When the token is none, or the hub cannot be reached.
    pub async fn enrol(token: &str) -> Result<Self, Refused> {
        let (token, keys) = (JoinToken::parse(token).expect("a token"), KeyPair::from_secret(&random()));
        let link = dial(&token).await;
        let signature = Statement::Enrol { binding: &link.binding(), secret: &token.secret }.sign(&keys);
        let enrol = Enrol { secret: token.secret.clone(), masked: false, key: keys.public(), name: String::new(), signature };
        send(link.as_ref(), Channel::Control, &Message::Enrol(enrol)).await.map_err(Refused::Closed)?;
        let certificate = match next(link.as_ref()).await.map_err(Refused::Closed)? {
            Message::Enrolled(enrolled) => enrolled,
            other => return Err(refused(other)),
        };
        link.close("enrolled").await;
        Ok(Self {
            keys,
            token,
            certificate,
            incarnation: Incarnation::from_entropy(random()),
            schema: Schema::default(),
            sealed: BTreeMap::new(),
            boot: (BootId(random()), Instant::now()),
            ordinal: Ordinal(1),
            session: None,
            view: BTreeMap::new(),
        })
    }

    /// A device that knows everything of this one but its key.
    #[must_use]
    pub fn with_keys(&self, keys: KeyPair) -> Self {
        Self { keys, ..self.clone() }
    }

    /// An honest hello.
    #[must_use]
    pub fn hello(&self) -> Hello {
        let report = |(lane, entries): (&Lane, &Vec<Entry>)| LaneReport {
            lane: *lane,
            last: Seq::new(entries.len() as u64).expect("a lane that holds something"),
            chain: self.chain(*lane, entries.len() as u64),
            proof: None,
        };
        Hello {
            proto_min: PROTO,
            proto_max: PROTO,
            features: 0,
            project: self.token.project,
            device: self.keys.device(),
            incarnation: self.incarnation,
            parent: None,
            ordinal: None,
            session: self.session,
            nonce: random(),
            lanes: self.sealed.iter().map(report).collect(),
            buckets: Vec::new(),
            schema_rev: self.schema.rev,
            now: self.moment(),
            frame_bytes_max: 0,
            certificate: (self.certificate.certificate.clone(), self.certificate.signature),
            checkpoint: None,
            told: None,
        }
    }

    /// Signs a hello for a link.
    #[must_use]
    pub fn sign(&self, hello: Hello, binding: &[u8]) -> SignedHello {
        let bytes = hello_bytes(&hello);
        let signature = Statement::Hello { binding, hello: &bytes }.sign(&self.keys);
        SignedHello { hello, bytes, signature }
    }

    /// Connects and says an honest hello.
    ///
    /// # Errors
    ///
    /// What the hub said.
    pub async fn connect(&mut self) -> Greeting {
        let link = dial(&self.token).await;
        let hello = self.sign(self.hello(), &link.binding());
        self.greet(link, hello).await
    }

    /// Says this hello on a link, and takes in the hub's schema.
    ///
    /// # Errors
    ///
    /// What the hub said.
    pub async fn greet(&mut self, link: Box<dyn Link>, hello: SignedHello) -> Greeting {
        let known = hello.hello.schema_rev;
        send(link.as_ref(), Channel::Control, &Message::Hello(Box::new(hello))).await.map_err(Refused::Closed)?;
        let welcome = match next(link.as_ref()).await.map_err(Refused::Closed)? {
            Message::Welcome(welcome) => *welcome,
            other => return Err(refused(other)),
        };
        self.session = Some((welcome.timeline.timeline, welcome.session));
        self.ordinal = welcome.ordinal;
        while self.schema.rev < welcome.schema_rev && known < welcome.schema_rev {
            if let Message::Schema(update) = next(link.as_ref()).await.map_err(Refused::Closed)? {
                let collections = update.definitions.into_iter().filter_map(|definition| definition.collection);
                self.schema = Schema::new(update.rev, collections);
            }
        }
        Ok(Session { link })
    }

    /// The collection of that name.
    ///
    /// # Panics
    ///
    /// When the hub told of none.
    #[must_use]
    pub fn collection(&self, name: &str) -> &Collection {
        self.schema.by_name(name).unwrap_or_else(|| panic!("the hub told of no collection {name}"))
    }

    /// The operation of an edit as this device sees its record, which it then sees changed.
    ///
    /// # Panics
    ///
    /// When the edit cannot be done, or does nothing.
    pub fn edit(&mut self, collection: &str, intent: Intent, (id, fields): (&str, Value)) -> RecordOp {
        let collection = self.collection(collection).clone();
        let key = RecordKey { collection: collection.id, id: RecordId::new(id).expect("an id") };
        let edit = Edit { id: key.id.clone(), intent, fields: fields.as_object().cloned().unwrap_or_default() };
        let author =
            Author { device: self.keys.device(), incarnation: self.incarnation, ordinal: self.ordinal, ancestors: Default::default() };
        let nth = self.sealed.values().map(|entries| entries.len() as u64).sum();
        let state = self.view.entry(key.clone()).or_insert_with(|| RecordState::empty(&collection, &key).expect("records"));
        let writer = Writer { collection: &collection, device: author.device, incarnation: author.incarnation, base_ver: Ver(0) };
        let op = author::author(&writer, state, &edit).expect("an edit that can be done").expect("an edit that does something");
        *state = overlay::provisional(&collection, state, &op, (&author, nth)).expect("it fits");
        op
    }

    /// Edits a record and seals that, at the end of the state lane.
    pub fn write(&mut self, collection: &str, intent: Intent, (id, fields): (&str, Value)) {
        let op = self.edit(collection, intent, (id, fields));
        self.seal_op(op);
    }

    /// Seals an operation, at the end of the state lane.
    pub fn seal_op(&mut self, op: RecordOp) {
        let (kind, payload) = match op {
            RecordOp::Table(op) => (Kind::Table, table::op::encode_payload(&[op], None)),
            RecordOp::Document(op) => (Kind::Document, document::op::encode_payload(&[op], None)),
        };
        self.seal(Lane::State, kind.code(), payload);
    }

    /// Seals any bytes, at the end of a lane.
    pub fn seal(&mut self, lane: Lane, engine: u8, payload: Vec<u8>) {
        let header = Header { engine, moment: self.moment(), nonce: Nonce(random()), timeline: None, provenance: None, life: None };
        self.seal_entry(lane, Entry::seal(&header, payload));
    }

    /// Puts an entry at the end of a lane, as it is.
    pub fn seal_entry(&mut self, lane: Lane, entry: Entry) {
        self.sealed.entry(lane).or_default().push(entry);
    }

    /// A signed push of what a lane holds from a position on.
    ///
    /// # Panics
    ///
    /// When it holds nothing there.
    #[must_use]
    pub fn push(&self, lane: Lane, first: u64) -> Push {
        let entries = &self.sealed[&lane][first as usize - 1..];
        let last = first + entries.len() as u64 - 1;
        let mut push = Push {
            lane,
            incarnation: self.incarnation,
            first: Seq::new(first).expect("positions begin with 1"),
            prev_chain: self.chain(lane, first - 1),
            entries: entries.iter().map(|entry| PushedEntry { entry: entry.clone(), eff: None }).collect(),
            head_chain: self.chain(lane, last),
            signature: mobo_core::ids::Signature([0; 64]),
            on_behalf: None,
        };
        push.signature = self.sign_head(&push);
        push
    }

    /// The signature of a push's head, whatever it says.
    #[must_use]
    pub fn sign_head(&self, push: &Push) -> mobo_core::ids::Signature {
        let last = Seq::new(push.first.get() + push.entries.len() as u64 - 1).expect("not 0");
        let head = LaneHead { project: self.token.project, lane: self.lane(push.lane), last, chain: push.head_chain };
        Statement::Push(&head).sign(&self.keys)
    }

    /// The chain after a position of a lane.
    #[must_use]
    pub fn chain(&self, lane: Lane, seq: u64) -> Chain {
        let entries = self.sealed.get(&lane).map(Vec::as_slice).unwrap_or_default();
        entries.iter().take(seq as usize).fold(chain_start(self.token.project, &self.lane(lane)), chain_next)
    }

    fn lane(&self, lane: Lane) -> LaneKey {
        LaneKey { device: self.keys.device(), incarnation: self.incarnation, lane }
    }

    fn moment(&self) -> Moment {
        let (boot, began) = self.boot;
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock of this century");
        let mono = Mono(1 + began.elapsed().as_micros() as u64);
        Moment { boot, mono, wall: Wall(wall.as_micros() as i64), quality: WallQuality::Set }
    }
}

impl Session {
    /// Sends a message.
    ///
    /// # Errors
    ///
    /// When the link has ended.
    pub async fn send(&self, channel: Channel, message: &Message) -> Result<(), LinkError> {
        send(self.link.as_ref(), channel, message).await
    }

    /// Sends bytes that may be no message at all.
    ///
    /// # Errors
    ///
    /// When the link has ended.
    pub async fn send_raw(&self, channel: Channel, bytes: Vec<u8>) -> Result<(), LinkError> {
        self.link.send(channel, bytes).await
    }

    /// The next message.
    ///
    /// # Errors
    ///
    /// When the link ends.
    pub async fn next(&self) -> Result<Message, LinkError> {
        loop {
            match next(self.link.as_ref()).await? {
                Message::Access(_) => {}
                message => return Ok(message),
            }
        }
    }

    /// Pushes, and waits for the commitment.
    ///
    /// # Errors
    ///
    /// What the hub said instead.
    pub async fn push(&self, push: Push) -> Result<Pushed, Refused> {
        let lane = push.lane;
        self.send(Channel::Lane(lane), &Message::Push(push)).await.map_err(Refused::Closed)?;
        let mut rejects = Vec::new();
        loop {
            match self.next().await.map_err(Refused::Closed)? {
                Message::Reject(reject) => rejects.push(reject),
                Message::Ack(ack) if ack.lane == lane => return Ok(Pushed { rejects, ack }),
                Message::Schema(_) | Message::Batch(_) | Message::Checkpoint(_) => {}
                other => return Err(refused(other)),
            }
        }
    }

    /// Says goodbye.
    pub async fn close(self) {
        self.link.close("done").await;
    }
}

fn refused(message: Message) -> Refused {
    match message {
        Message::Error(error) => Refused::Error(error),
        other => Refused::Closed(LinkError::Protocol(format!("another answer: {other:?}"))),
    }
}
