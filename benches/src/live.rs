//! A device that holds nothing but its session: enough for the hub to have a real peer.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use mobo_core::ids::{BucketId, DeviceId, Incarnation, Position};
use mobo_core::limits;
use mobo_core::link::{Dialer, Link};
use mobo_core::message::{Enrolled, Hello, SignedHello, Welcome};
use mobo_core::session::DeviceSession;
use mobo_core::session::device::{Effect, Input, Settings};
use mobo_core::trust::{KeyPair, Statement};
use mobo_protocol::{FEATURES, JoinToken, PROTO, hello_bytes};
use mobo_runtime::clock::Clock;
use mobo_runtime::entropy;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// How long a session may take until it has nothing left to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// A device that is enrolled.
#[derive(Debug)]
pub(crate) struct Member {
    /// Its keys.
    pub(crate) keys: KeyPair,
    /// What it joined with.
    pub(crate) token: JoinToken,
    /// Its certificate.
    pub(crate) certificate: Enrolled,
    /// What it connects through.
    pub(crate) dialer: Arc<dyn Dialer>,
    /// Where.
    pub(crate) address: String,
    /// Its clock.
    pub(crate) clock: Clock,
}

/// A device that is connected and idle.
#[derive(Debug)]
pub(crate) struct Live {
    session: JoinHandle<()>,
    stop: oneshot::Sender<()>,
    state: watch::Receiver<State>,
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
enum State {
    #[default]
    Opening,
    Idle,
    Ended(String),
}

impl Live {
    /// Connects, and returns when the session has nothing left to do.
    pub(crate) async fn open(member: Member) -> anyhow::Result<Self> {
        let link: Arc<dyn Link> = Arc::from(member.dialer.dial(member.address.clone(), member.token.hub).await?);
        let hello = sign(&hello(&member)?, link.as_ref(), &member.keys);
        let session = DeviceSession::new(member.clock.now(), Settings { keepalive: None }, hello);
        let (said, mut state) = watch::channel(State::default());
        let (stop, stopping) = oneshot::channel();
        let session = tokio::spawn(Driver { session, link, clock: member.clock, said }.run(stopping));
        let settled = tokio::time::timeout(PATIENCE, state.wait_for(|state| *state != State::Opening)).await;
        let settled = settled.context("a session does not come to rest")?.context("a session ended without a word")?.clone();
        match settled {
            State::Ended(why) => bail!("a session ended: {why}"),
            State::Idle | State::Opening => Ok(Self { session, stop, state }),
        }
    }

    /// Why the session ended, if it has.
    pub(crate) fn ended(&self) -> Option<String> {
        match &*self.state.borrow() {
            State::Ended(why) => Some(why.clone()),
            State::Idle | State::Opening => None,
        }
    }

    /// Says goodbye.
    pub(crate) async fn leave(self) {
        // A session that is over needs no word.
        let _ = self.stop.send(());
        let _ = self.session.await;
    }
}

struct Driver {
    session: DeviceSession,
    link: Arc<dyn Link>,
    clock: Clock,
    said: watch::Sender<State>,
}

impl Driver {
    async fn run(mut self, mut stopping: oneshot::Receiver<()>) {
        let why = loop {
            if let Some(why) = self.carry_out().await {
                break why;
            }
            let due = self.session.poll_timeout().map(|due| self.clock.at(due));
            tokio::select! {
                frame = self.link.recv() => match frame.map(|frame| mobo_protocol::decode(&frame)) {
                    Ok(Ok(message)) => self.feed(Input::Message(Box::new(message))),
                    Ok(Err(error)) => break error.to_string(),
                    Err(error) => break error.to_string(),
                },
                () = at(due) => self.feed(Input::Timeout(self.clock.moment())),
                _ = &mut stopping => self.feed(Input::Stop),
            }
        };
        self.said.send_replace(State::Ended(why));
        self.link.close("done").await;
    }

    fn feed(&mut self, input: Input) {
        self.session.handle(self.clock.now(), input);
    }

    /// Carries out what the machine asks for, with a store that is empty and stays so; a sentence ends the session.
    async fn carry_out(&mut self) -> Option<String> {
        while let Some(effect) = self.session.poll_effect() {
            match effect {
                Effect::Send(channel, message) => {
                    if let Err(error) = self.link.send(channel, mobo_protocol::encode(&message)).await {
                        return Some(error.to_string());
                    }
                }
                Effect::Admit(welcome) => self.feed(Input::Admitted(cursors(&welcome))),
                Effect::Read(lane, ..) => self.feed(Input::Entries(lane, None)),
                Effect::Apply(batch) => self.feed(Input::Applied { bucket: batch.bucket, cursor: batch.to }),
                Effect::Compare(_) => self.feed(Input::Compared { equal: true, diverged: Vec::new() }),
                Effect::Drained => {
                    self.said.send_replace(State::Idle);
                }
                Effect::Close(reason) => return Some(format!("{reason:?}")),
                Effect::Acked(_)
                | Effect::Rejected(_)
                | Effect::Refence(_)
                | Effect::PutSchema(_)
                | Effect::PutAccess(_)
                | Effect::Granted(_)
                | Effect::Revoked(_)
                | Effect::Offered(_)
                | Effect::Resync(_)
                | Effect::Sweep(..)
                // It holds nothing, and is never told that it has to give it back.
                | Effect::ReadDefinitions
                | Effect::ReadFormer(..)
                | Effect::GaveUp(..)
                | Effect::ReadOffer(..)
                | Effect::Resume => {}
            }
        }
        None
    }
}

fn cursors(welcome: &Welcome) -> Vec<(BucketId, Position)> {
    welcome.grants.iter().map(|grant| (grant.bucket, Position(0))).collect()
}

fn hello(member: &Member) -> anyhow::Result<Hello> {
    Ok(Hello {
        proto_min: PROTO,
        proto_max: PROTO,
        features: FEATURES,
        project: member.token.project,
        device: DeviceId::of(&member.keys.public()),
        incarnation: Incarnation::from_entropy(entropy::bytes()?),
        parent: None,
        ordinal: None,
        session: None,
        nonce: entropy::bytes()?,
        lanes: Vec::new(),
        buckets: Vec::new(),
        checkpoint: None,
        told: None,
        schema_rev: 0,
        now: member.clock.moment(),
        frame_bytes_max: u32::try_from(limits::FRAME_BODY_BYTES_MAX)?,
        certificate: (member.certificate.certificate.clone(), member.certificate.signature),
    })
}

fn sign(hello: &Hello, link: &dyn Link, keys: &KeyPair) -> SignedHello {
    let bytes = hello_bytes(hello);
    let binding = link.binding();
    let signature = Statement::Hello { binding: &binding, hello: &bytes }.sign(keys);
    SignedHello { hello: hello.clone(), bytes, signature }
}

async fn at(instant: Option<tokio::time::Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
