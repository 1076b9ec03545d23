//! The way to the hub: connects whenever it can, carries out what the session machine of `core` asks for, and waits with jitter between
//! tries. The device works the same whether this does or not.

pub mod driver;
mod reconnect;
mod said;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mobo_adapters::sqlite::edge::{Change, EdgeStore, Identity, Keep};
use mobo_core::ids::PublicKey;
use mobo_core::limits;
use mobo_core::link::{Dialer, Link, LinkError};
use mobo_core::session::CloseReason;
use mobo_core::trust::KeyPair;
use mobo_runtime::clock::Clock;
use mobo_runtime::entropy;
use mobo_runtime::machine::Machine;
use mobo_runtime::outbox::Outbox;
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use driver::Driver;
use reconnect::Reconnect;

/// How the link is, for `status`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LinkStatus {
    /// `offline`, `connecting`, `live`, or `refused`.
    pub state: LinkState,
    /// The transport in use.
    pub transport: Option<&'static str>,
    /// Who is at the other end.
    pub peer: Option<String>,
    /// What ended the last link, or kept it from opening.
    pub last_error: Option<String>,
    /// True once everything was acknowledged and equal to the hub as of its last word; false again with the next write.
    pub drained: bool,
}

/// The word for how the link is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LinkState {
    /// The device has not joined a hub.
    #[default]
    Alone,
    /// Waiting for the next try.
    Offline,
    /// Trying.
    Connecting,
    /// Syncing.
    Live,
    /// The hub refuses this device; somebody must act. It is tried again all the same, seldom.
    Refused,
}

impl LinkState {
    /// The word in `status`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Alone => "not_joined",
            Self::Offline => "offline",
            Self::Connecting => "connecting",
            Self::Live => "live",
            Self::Refused => "refused",
        }
    }
}

/// What an uplink works with.
#[derive(Debug)]
pub struct Uplink {
    /// The device's store.
    pub store: Arc<EdgeStore>,
    /// The device's keys.
    pub keys: KeyPair,
    /// Opens links; it is given all addresses at once, with commas between them.
    pub dialer: Arc<dyn Dialer>,
    /// Time and randomness.
    pub machine: Arc<dyn Machine>,
    /// Addresses from the settings: tried before those of the token.
    pub addresses: Vec<String>,
    /// How much of the outbox is kept.
    pub keep: Keep,
    /// How the link is.
    pub status: watch::Sender<LinkStatus>,
    /// Wakes the uplink from a pause: somebody wants to sync now, or the device has joined.
    pub wake: Arc<Notify>,
    /// Where it is written down how long the pauses have become.
    pub pauses: Option<PathBuf>,
}

impl Uplink {
    /// Connects again and again until told to stop.
    pub async fn run(self: Arc<Self>, stopping: CancellationToken, clock: Clock) {
        let wall = || self.machine.moment().wall;
        let (mut reconnect, left) = Reconnect::open(self.pauses.clone(), wall());
        tokio::select! {
            () = tokio::time::sleep(left) => {}
            () = self.wake.notified() => {}
            () = stopping.cancelled() => return,
        }
        loop {
            let reason = match self.store.node().await.map(|node| node.identity) {
                Ok(Some(identity)) => self.connect(&identity, (&stopping, clock), &mut reconnect).await,
                Ok(None) => tokio::select! {
                    () = self.wake.notified() => continue,
                    () = stopping.cancelled() => return,
                },
                Err(error) => CloseReason::Store(error.to_string()),
            };
            if stopping.is_cancelled() {
                return;
            }
            self.ended(&reason);
            let retry_after =
                if let CloseReason::Refused(error) = &reason { Some(Duration::from_millis(error.retry_after_ms.into())) } else { None };
            if reason == CloseReason::Refenced {
                reconnect.at_once();
            }
            let entropy = entropy::bytes().map_or(0, u64::from_le_bytes);
            let pause = reconnect.pause(entropy, retry_after, wall());
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.wake.notified() => reconnect.at_once(),
                () = stopping.cancelled() => return,
            }
        }
    }

    /// Takes the first way that opens and holds one session. A better way that opens meanwhile takes over, with a session of its own.
    async fn connect(
        self: &Arc<Self>,
        identity: &Identity,
        (stopping, clock): (&CancellationToken, Clock),
        reconnect: &mut Reconnect,
    ) -> CloseReason {
        let addresses: Vec<&str> = self.addresses.iter().chain(&identity.hub_addresses).map(String::as_str).collect();
        let (addresses, hub) = (addresses.join(","), identity.hub_key);
        self.status.send_modify(|status| status.state = LinkState::Connecting);
        let mut link = tokio::select! {
            link = dial(&self.dialer, &addresses, hub) => match link {
                Ok(link) => link,
                Err(error) => return unreachable(&error),
            },
            () = stopping.cancelled() => return CloseReason::Stopped,
        };
        loop {
            tokio::select! {
                reason = self.hold(Arc::from(link), (stopping, clock), reconnect) => return reason,
                better = self.dialer.better(addresses.clone(), hub) => link = better,
            }
        }
    }

    async fn hold(
        self: &Arc<Self>,
        link: Arc<dyn Link>,
        (stopping, clock): (&CancellationToken, Clock),
        reconnect: &mut Reconnect,
    ) -> CloseReason {
        let began = Instant::now();
        let changes = self.store.watch();
        let outbox = Outbox::new(Arc::clone(&link));
        let mut driver = match Driver::open(Arc::clone(self), outbox, (link.binding(), link.peer())).await {
            Ok(driver) => driver,
            Err(error) => return CloseReason::Store(error.to_string()),
        };
        let reason = self.drive(&mut driver, link.as_ref(), changes, (stopping, clock)).await;
        if driver.was_live {
            reconnect.lived(began.elapsed());
        }
        driver.end().finish().await;
        link.close("session ended").await;
        reason
    }

    async fn drive(
        &self,
        driver: &mut Driver<Outbox>,
        link: &dyn Link,
        mut changes: broadcast::Receiver<Change>,
        (stopping, clock): (&CancellationToken, Clock),
    ) -> CloseReason {
        loop {
            if let Some(reason) = driver.carry_out().await {
                return reason;
            }
            let timeout = driver.timeout().map(|due| clock.at(due));
            tokio::select! {
                frame = link.recv() => match frame {
                    Ok(frame) => driver.frame(&frame),
                    Err(error) => return lost(&error),
                },
                change = changes.recv() => driver.changed(change),
                () = at(timeout) => driver.tick(),
                () = stopping.cancelled(), if !driver.is_stopping() => driver.stop(),
            }
        }
    }

    fn ended(&self, reason: &CloseReason) {
        let sentence = describe(reason);
        if let Some(sentence) = &sentence {
            tracing::info!(reason = sentence, "the link to the hub ended");
        }
        self.status.send_modify(|status| {
            let refused = reason.is_final();
            *status = LinkStatus {
                state: if refused { LinkState::Refused } else { LinkState::Offline },
                last_error: sentence.or_else(|| status.last_error.clone()),
                ..LinkStatus::default()
            };
        });
    }
}

/// The first link that opens. A transport that gets no answer asks again ever more slowly; so that a way that has just opened is found at
/// once, a fresh attempt joins the others every [`limits::REDIAL_AFTER`].
async fn dial(dialer: &Arc<dyn Dialer>, addresses: &str, hub: PublicKey) -> Result<Box<dyn Link>, LinkError> {
    let deadline = Instant::now() + limits::HELLO_TIMEOUT;
    let (mut attempts, mut failure, mut begun) = (JoinSet::new(), None, 0);
    loop {
        let (dialer, addresses) = (Arc::clone(dialer), addresses.to_owned());
        attempts.spawn(async move { dialer.dial(addresses, hub).await });
        begun += 1;
        let next = if begun < limits::DIALS_MAX { Instant::now() + limits::REDIAL_AFTER } else { deadline };
        loop {
            match timeout_at(next.min(deadline), attempts.join_next()).await {
                Ok(Some(Ok(Ok(link)))) => return Ok(link),
                Ok(Some(Ok(Err(error)))) => failure = Some(error),
                Ok(Some(Err(_))) => {}
                Err(_) if next < deadline => break,
                Ok(None) | Err(_) => return Err(failure.unwrap_or(LinkError::Silent)),
            }
        }
    }
}

fn unreachable(error: &LinkError) -> CloseReason {
    if *error == LinkError::Silent { CloseReason::Silent } else { CloseReason::Violation(error.to_string()) }
}

fn lost(error: &LinkError) -> CloseReason {
    match error {
        LinkError::Silent => CloseReason::Silent,
        LinkError::Closed(_) => CloseReason::PeerLeft,
        LinkError::Protocol(_) | LinkError::Unreachable { .. } | LinkError::WrongPeer { .. } | LinkError::CannotListen { .. } => {
            CloseReason::Violation(error.to_string())
        }
    }
}

/// A sentence for people; `None` where nothing is wrong.
fn describe(reason: &CloseReason) -> Option<String> {
    match reason {
        CloseReason::Stopped => None,
        CloseReason::PeerLeft => Some("the hub has gone".to_owned()),
        CloseReason::Silent => Some("the hub has been silent too long".to_owned()),
        CloseReason::Refenced => Some("the hub knows another log of this device: a new one is started, and nothing is lost".to_owned()),
        CloseReason::Refused(error) => Some(error.detail.clone()),
        CloseReason::Violation(what) => Some(what.clone()),
        CloseReason::Store(why) => Some(format!("this device's store: {why}")),
    }
}

async fn at(instant: Option<tokio::time::Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use mobo_core::future::BoxFuture;

    use super::*;

    /// Answers those who ask from a moment on, and hears nobody else.
    #[derive(Debug)]
    struct Away {
        from: Instant,
        asked: Mutex<Vec<Instant>>,
        refuses: bool,
    }

    impl Dialer for Away {
        fn transport(&self) -> &'static str {
            "quic"
        }

        fn dial(&self, _: String, _: PublicKey) -> BoxFuture<'_, Result<Box<dyn Link>, LinkError>> {
            let (now, from) = (Instant::now(), self.from);
            self.asked.lock().unwrap().push(now);
            let refused = LinkError::Closed("found".to_owned());
            if self.refuses || now >= from {
                return Box::pin(async { Err(refused) });
            }
            Box::pin(std::future::pending())
        }
    }

    /// How long after the way has opened it is found, and how often was asked before.
    async fn found_after(opens_ms: u64) -> (Duration, usize) {
        let from = Instant::now() + Duration::from_millis(opens_ms);
        let away = Arc::new(Away { from, asked: Mutex::default(), refuses: false });
        let dialer: Arc<dyn Dialer> = Arc::clone(&away) as Arc<dyn Dialer>;
        while Instant::now() < from || away.asked.lock().unwrap().last().is_none_or(|last| *last < from) {
            assert!(dial(&dialer, "hub:1", PublicKey([0; 32])).await.is_err());
        }
        let asked = away.asked.lock().unwrap();
        (asked.iter().find(|at| **at >= from).unwrap().duration_since(from), asked.iter().filter(|at| **at < from).count())
    }

    // faults: N-1
    #[tokio::test(start_paused = true)]
    async fn a_way_that_opens_is_found_within_seconds_whenever_it_does() {
        for opens_ms in (0..40_000).step_by(700) {
            let (found, asked) = found_after(opens_ms).await;
            assert!(found <= limits::REDIAL_AFTER + Duration::from_millis(10), "opens after {opens_ms} ms, found {found:?} later");
            assert!(asked as u64 <= 1 + opens_ms / 3_000 + opens_ms / 15_000, "asked {asked} times in {opens_ms} ms");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_refused_at_once_does_not_ask_again() {
        let away = Arc::new(Away { from: Instant::now(), asked: Mutex::default(), refuses: true });
        let dialer: Arc<dyn Dialer> = Arc::clone(&away) as Arc<dyn Dialer>;
        assert!(dial(&dialer, "hub:1", PublicKey([0; 32])).await.is_err());
        assert_eq!(away.asked.lock().unwrap().len(), 1, "the pauses between tries are for that");
    }
}
