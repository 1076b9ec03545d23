use std::sync::atomic::{AtomicU64, Ordering};

use mobo_core::link::Channel;
use tokio::time::advance;

use super::*;

/// What a transport does in a test, by the host of the address: `up` opens, `dead` never answers, `shut` fails, `foreign` is another hub,
/// `later` is dead until [`OPENS_AT`] microseconds of the test have passed.
struct Fake(Transport);

static OPENS_AT: AtomicU64 = AtomicU64::new(0);

#[derive(Debug)]
struct Opened(String);

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl Dialer for Fake {
    fn transport(&self) -> &'static str {
        self.0.word()
    }

    fn dial(&self, address: String, _: PublicKey) -> BoxFuture<'_, Result<Box<dyn Link>, LinkError>> {
        Box::pin(async move {
            let host = address.rsplit_once("//").map_or(address.as_str(), |(_, host)| host);
            match host.split(':').next() {
                Some("up") => Ok(Box::new(Opened(address)) as Box<dyn Link>),
                Some("later") if OPENS_AT.load(Ordering::SeqCst) == 1 => Ok(Box::new(Opened(address)) as Box<dyn Link>),
                Some("dead" | "later") => {
                    tokio::time::timeout(limits::HELLO_TIMEOUT, std::future::pending::<()>()).await.unwrap_err();
                    Err(LinkError::Unreachable { peer: address, why: "nothing answers".into() })
                }
                Some("foreign") => Err(LinkError::WrongPeer { peer: address }),
                _ => Err(LinkError::Unreachable { peer: address, why: "it is shut".into() }),
            }
        })
    }
}

impl Link for Opened {
    fn send(&self, _: Channel, _: Vec<u8>) -> BoxFuture<'_, Result<(), LinkError>> {
        Box::pin(std::future::pending())
    }

    fn recv(&self) -> BoxFuture<'_, Result<Vec<u8>, LinkError>> {
        Box::pin(std::future::pending())
    }

    fn binding(&self) -> Vec<u8> {
        Vec::new()
    }

    fn peer(&self) -> String {
        self.0.clone()
    }

    fn bytes(&self) -> (u64, u64) {
        (0, 0)
    }

    fn close(&self, _: &str) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

const HUB: PublicKey = PublicKey([1; 32]);

fn routes(only: Option<Transport>, file: Option<PathBuf>) -> Routes {
    Routes::with(KeyPair::from_secret(&[2; 32]), only, file, |_, _, transport| Some(Box::new(Fake(transport))))
}

/// Where the next link leads, or why there is none, and how long it took.
async fn dial(routes: &Routes, addresses: &str) -> (Result<String, LinkError>, Duration) {
    let begun = Instant::now();
    let link = routes.dial(addresses.to_owned(), HUB).await;
    (link.map(|link| link.peer()), begun.elapsed())
}

// faults: N-7, N-8
#[tokio::test(start_paused = true)]
async fn the_preferred_way_that_opens_is_taken_in_time() {
    let at_once = Duration::ZERO;
    let (a_step, two_steps) = (limits::FALLBACK_AFTER, 2 * limits::FALLBACK_AFTER);
    for (addresses, want, transport, after) in [
        ("up:1,mqtt://up,ws://up", "up:1", "quic", at_once),
        ("shut:1, up:2 ,mqtt://up", "up:2", "quic", at_once),
        ("shut:1,mqtt://up", "mqtt://up", "mqtt", at_once),
        ("dead:1,mqtt://up,ws://up", "mqtt://up", "mqtt", a_step),
        ("dead:1,mqtt://dead,ws://up", "ws://up", "ws", two_steps),
        ("mqtt://foreign,ws://up,dead:1", "ws://up", "ws", a_step),
        ("ws://up", "ws://up", "ws", at_once),
    ] {
        let routes = routes(None, None);
        let (link, took) = dial(&routes, addresses).await;
        assert_eq!((link.as_deref(), routes.transport()), (Ok(want), transport), "{addresses}");
        assert!(took >= after && took <= after + Duration::from_millis(10), "{addresses}: {took:?}");
        assert!(took < Duration::from_secs(5));
        let is_detour = addresses.contains(":1") && transport != "quic";
        assert_eq!(routes.detour().is_some_and(|why| why.contains("quic")), is_detour, "{addresses}: {:?}", routes.detour());
        assert_eq!(routes.pushes_in_flight_max() == 1, transport == "mqtt");
    }
}

#[tokio::test(start_paused = true)]
async fn a_named_transport_is_the_only_one() {
    let mqtt = routes(Some(Transport::Mqtt), None);
    assert_eq!(dial(&mqtt, "up:1,mqtt://up").await.0.as_deref(), Ok("mqtt://up"));
    assert_eq!(mqtt.detour(), None, "it was asked for");
    let error = dial(&routes(Some(Transport::Ws), None), "up:1,mqtt://up").await.0.unwrap_err().to_string();
    assert!(error.contains("link.transport=ws") && error.contains("hub.url"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn where_nothing_opens_the_reason_that_counts_is_given() {
    let (error, took) = dial(&routes(None, None), "dead:1,mqtt://shut,ws://shut").await;
    assert!(matches!(error.unwrap_err(), LinkError::Unreachable { why, .. } if why.contains("nothing answers")));
    assert!(took <= limits::HELLO_TIMEOUT + Duration::from_millis(10), "{took:?}");
    let error = dial(&routes(None, None), "shut:1,mqtt://foreign,ws://shut").await.0.unwrap_err();
    assert!(matches!(error, LinkError::WrongPeer { .. }), "{error}");
}

/// What worked goes first, also after a restart, until it is time to ask again.
// faults: N-8
#[tokio::test(start_paused = true)]
async fn what_worked_is_remembered_for_a_while() {
    let folder = std::env::temp_dir().join(format!("mobo-routes-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("route");
    let addresses = "dead:1,mqtt://up";
    let before = routes(None, Some(file.clone()));
    assert_eq!(dial(&before, addresses).await.1.as_millis(), limits::FALLBACK_AFTER.as_millis());
    let why = before.detour().unwrap();
    assert!(why.contains("UDP is blocked"), "{why}");
    let mut routes = before;
    for _ in 0..2 {
        let (link, took) = dial(&routes, addresses).await;
        assert_eq!((link.as_deref(), took), (Ok("mqtt://up"), Duration::ZERO));
        assert_eq!(routes.detour().as_ref(), Some(&why));
        advance(limits::TRANSPORT_RETRY).await;
        assert!(dial(&routes, addresses).await.1 >= limits::FALLBACK_AFTER, "it is asked again");
        advance(limits::TRANSPORT_RETRY).await;
        assert_eq!(dial(&routes, "up:1,mqtt://up").await.0.as_deref(), Ok("up:1"));
        assert_eq!((routes.detour(), file.exists()), (None, false));
        assert_eq!(dial(&routes, addresses).await.0.as_deref(), Ok("mqtt://up"));
        // The second round is after a restart.
        routes = self::routes(None, Some(file.clone()));
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_better_way_takes_over_when_it_opens() {
    let (routes, addresses) = (routes(None, None), "later:1,mqtt://up");
    assert_eq!(dial(&routes, addresses).await.0.as_deref(), Ok("mqtt://up"));
    let mut better = routes.better(addresses.to_owned(), HUB);
    let waited = tokio::time::timeout(3 * limits::TRANSPORT_RETRY, &mut better).await;
    assert!(waited.is_err(), "it does not open yet");
    OPENS_AT.store(1, Ordering::SeqCst);
    assert_eq!(better.await.peer(), "later:1");
    assert_eq!((routes.transport(), routes.detour()), ("quic", None));
    let idle = tokio::time::timeout(10 * limits::TRANSPORT_RETRY, routes.better(addresses.to_owned(), HUB)).await;
    assert!(idle.is_err(), "there is none better than the best");
}
