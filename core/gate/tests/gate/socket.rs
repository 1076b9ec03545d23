//! Over real sockets: slow callers, large bodies, kept connections, and the end.

use std::net::SocketAddr;
use std::time::Duration;

use mobo_core::limits::HTTP_HEAD_BYTES_MAX;
use mobo_gate::serve::Drained;
use mobo_gate::{NodeKind, Settings};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::World;

/// Longest wait for what must happen.
const SOON: Duration = Duration::from_secs(60);

struct Served {
    world: World,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Drained>,
}

async fn served(settings: Settings) -> Served {
    let world = World::with(NodeKind::Edge, settings);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let gate = world.gate.clone();
    let task = tokio::spawn(async move { gate.serve(listener, async { stopped.await.unwrap() }).await });
    Served { world, address, stop, task }
}

fn impatient() -> Settings {
    Settings { read_timeout: Duration::from_millis(200), ..Settings::default() }
}

impl Served {
    async fn connect(&self) -> Connection {
        Connection(BufReader::new(TcpStream::connect(self.address).await.unwrap()))
    }

    async fn end(self) -> Drained {
        self.stop.send(()).unwrap();
        timeout(SOON, self.task).await.unwrap().unwrap()
    }
}

struct Connection(BufReader<TcpStream>);

impl Connection {
    async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Head and body of one answer.
    async fn answer(&mut self) -> (String, String) {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(timeout(SOON, self.0.read_line(&mut head)).await.unwrap().unwrap(), 0, "the connection ended: {head}");
        }
        let head = head.to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        timeout(SOON, self.0.read_exact(&mut body)).await.unwrap().unwrap();
        (head, String::from_utf8(body).unwrap())
    }

    #[track_caller]
    fn answers(&mut self, status: u16) -> impl Future<Output = String> {
        let place = std::panic::Location::caller();
        async move {
            let (head, body) = self.answer().await;
            assert!(head.starts_with(&format!("http/1.1 {status} ")), "{place}: {head}{body}");
            body
        }
    }

    /// What is left until the other side closes.
    async fn rest(mut self) -> String {
        let mut rest = Vec::new();
        // A reset is an end, too.
        let ended = timeout(SOON, self.0.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "the connection stays open after {}", String::from_utf8_lossy(&rest));
        String::from_utf8(rest).unwrap()
    }
}

fn post(length: usize, more: &str) -> String {
    format!("POST /rest/v1/work_orders HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n{more}\r\n")
}

const GET: &str = "GET /rest/v1/work_orders HTTP/1.1\r\nhost: localhost\r\n\r\n";
const SLOW: &str = "GET /rest/v1/slow HTTP/1.1\r\nhost: localhost\r\n\r\n";

#[tokio::test]
async fn a_connection_is_kept_through_answers_of_every_kind() {
    let served = served(Settings::default()).await;
    let mut connection = served.connect().await;
    for _ in 0..2 {
        connection.write(post(12, "") + "{\"id\":\"a\"}  ").await;
        let body = connection.answer().await;
        connection.write(GET).await;
        assert!(connection.answers(200).await.contains("\"id\":\"a\""), "{body:?}");
    }
    connection.write(post(2, "content-type: text/plain\r\n") + "hi").await;
    connection.answers(415).await;
    connection.write(post(500_000, "content-type: text/plain\r\n") + &"x".repeat(500_000)).await;
    connection.answers(415).await;
    connection.write("HEAD /rest/v1/work_orders HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        connection.0.read_line(&mut head).await.unwrap();
    }
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("content-length: "), "{head}");
    connection.write("GET /rest/v1/broken HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    connection.answers(500).await;
    connection.write(GET).await;
    connection.answers(200).await;
    drop(connection);
    assert_eq!(served.end().await, Drained { cut: 0 });
}

#[tokio::test]
async fn slow_callers_do_not_hold_the_node() {
    let served = served(impatient()).await;
    let mut silent = served.connect().await;
    silent.write("").await;
    assert_eq!(silent.rest().await, "", "no request");
    let mut head = served.connect().await;
    head.write("GET / HTTP/1.1\r\nhost: loc").await;
    assert!(!head.rest().await.contains("200 OK"), "half a head");
    let mut idle = served.connect().await;
    idle.write(GET).await;
    idle.answers(200).await;
    assert_eq!(idle.rest().await, "", "no second request");
    let mut body = served.connect().await;
    body.write(post(100, "") + "{").await;
    assert!(body.answers(408).await.contains("57014"), "half a body");
    assert_eq!(body.rest().await, "");
    let mut chunked = served.connect().await;
    chunked.write("POST /rest/v1/work_orders HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n").await;
    assert!(chunked.answers(408).await.contains("57014"), "half a chunked body");
    assert_eq!(served.end().await, Drained { cut: 0 });
}

#[tokio::test]
async fn large_bodies_are_refused_and_their_senders_hear_it() {
    let served = served(Settings::default()).await;
    let large = 10 * 1024 * 1024;
    let mut whole = served.connect().await;
    whole.write(post(large, "") + &" ".repeat(large)).await;
    assert!(whole.answers(413).await.contains("at most 4194304 bytes"));
    whole.write(GET).await;
    whole.answers(200).await;
    let mut chunked = served.connect().await;
    let head = "POST /rest/v1/work_orders HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
    chunked.write(format!("{head}{large:x}\r\n{}\r\n0\r\n\r\n", " ".repeat(large))).await;
    chunked.answers(413).await;
    let mut polite = served.connect().await;
    polite.write(post(large, "expect: 100-continue\r\n")).await;
    polite.answers(413).await;
    assert_eq!(polite.rest().await, "", "not asked to go on");
    let mut flood = served.connect().await;
    flood.write(post(1 << 40, "") + "{").await;
    flood.answers(413).await;
    flood.rest().await;
    let mut nobody = served.connect().await;
    nobody.write(post(1_000_000, "apikey: x\r\n") + &" ".repeat(1_000_000)).await;
    nobody.answers(401).await;
    assert_eq!(served.end().await, Drained { cut: 0 });
}

#[tokio::test]
async fn what_is_not_http_ends_its_connection_only() {
    let served = served(Settings::default()).await;
    let cases = [
        ("\x16\x03\x01\x02\x00 TLS\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), "400"),
        (format!("GET / HTTP/1.1\r\nhost: localhost\r\n{}\r\n", "a: b\r\n".repeat(200)), "431"),
        (format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "a".repeat(100_000)), "414"),
        (format!("GET / HTTP/1.1\r\nhost: localhost\r\na: {}\r\n\r\n", "b".repeat(1_000_000)), "431"),
    ];
    for (bytes, status) in cases {
        let mut connection = served.connect().await;
        // Whoever sends more than is read may be cut off before the answer arrives.
        let may_be_cut = bytes.len() > HTTP_HEAD_BYTES_MAX;
        let written = connection.0.write_all(bytes.as_bytes()).await;
        assert!(may_be_cut || written.is_ok(), "{bytes:.40}: {written:?}");
        let rest = connection.rest().await;
        assert!(may_be_cut && rest.is_empty() || rest.starts_with(&format!("HTTP/1.1 {status} ")), "{bytes:.40}: not {status}: {rest}");
    }
    let mut broken = served.connect().await;
    broken.write(post(100, "") + "{").await;
    drop(broken);
    let mut next = served.connect().await;
    next.write(GET).await;
    next.answers(200).await;
    assert_eq!(served.end().await, Drained { cut: 0 });
}

#[tokio::test]
async fn a_busy_node_says_so() {
    let served = served(Settings { requests_max: 1, body_bytes_max: 1_000, bodies_bytes_max: 1_000, ..Settings::default() }).await;
    let mut first = served.connect().await;
    first.write(SLOW).await;
    served.world.memory.waiting.acquire().await.unwrap().forget();
    let mut second = served.connect().await;
    second.write(GET).await;
    let (head, body) = second.answer().await;
    assert!(head.starts_with("http/1.1 503 ") && head.contains("retry-after: 1\r\n") && body.contains("53300"), "{head}{body}");
    second.write("GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    second.answers(200).await;
    served.world.memory.turnstile.add_permits(1);
    first.answers(200).await;
    second.write(GET).await;
    second.answers(200).await;
    assert_eq!(served.end().await, Drained { cut: 0 });
}

#[tokio::test]
async fn bodies_share_a_memory_that_has_an_end() {
    let served = served(Settings { body_bytes_max: 1_000, bodies_bytes_max: 1_000, ..Settings::default() }).await;
    let mut first = served.connect().await;
    first.write(post(900, "") + "{}" + &" ".repeat(800)).await;
    // The first part is read at some moment from now on, and held then.
    let mut second = served.connect().await;
    let refused = async {
        loop {
            second.write(post(500, "") + "{}" + &" ".repeat(498)).await;
            let (head, body) = second.answer().await;
            match head.get(9..12) {
                Some("201") => tokio::task::yield_now().await,
                Some("503") => break assert!(body.contains("53300"), "{body}"),
                _ => panic!("{head}{body}"),
            }
        }
    };
    timeout(SOON, refused).await.unwrap();
    first.write(" ".repeat(98)).await;
    first.answers(201).await;
    second.write(post(500, "") + "{}" + &" ".repeat(498)).await;
    second.answers(201).await;
}

#[tokio::test]
async fn the_end_lets_requests_finish_and_idle_connections_go() {
    let served = served(Settings::default()).await;
    let mut working = served.connect().await;
    working.write(SLOW).await;
    served.world.memory.waiting.acquire().await.unwrap().forget();
    let mut idle = served.connect().await;
    idle.write(GET).await;
    idle.answers(200).await;
    let Served { world, address, stop, task } = served;
    stop.send(()).unwrap();
    assert_eq!(idle.rest().await, "", "an idle connection is closed at once");
    assert!(TcpStream::connect(address).await.is_err(), "no new connection");
    world.memory.turnstile.add_permits(1);
    let (head, _) = working.answer().await;
    assert!(head.starts_with("http/1.1 200 ") && head.contains("connection: close"), "{head}");
    assert_eq!(working.rest().await, "");
    assert_eq!(timeout(SOON, task).await.unwrap().unwrap(), Drained { cut: 0 });
}

#[tokio::test]
async fn the_end_has_an_end() {
    let served = served(Settings { drain_timeout: Duration::from_millis(100), ..Settings::default() }).await;
    let mut stuck = served.connect().await;
    stuck.write(SLOW).await;
    served.world.memory.waiting.acquire().await.unwrap().forget();
    assert_eq!(served.end().await, Drained { cut: 1 });
    assert_eq!(stuck.rest().await, "");
}

#[tokio::test]
async fn a_write_with_a_key_ends_though_its_caller_has_gone() {
    let served = served(Settings::default()).await;
    let write =
        "POST /rest/v1/slow HTTP/1.1\r\nhost: localhost\r\nidempotency-key: k\r\nprefer: return=minimal\r\ncontent-length: 2\r\n\r\n{}";
    let mut gone = served.connect().await;
    gone.write(write).await;
    served.world.memory.waiting.acquire().await.unwrap().forget();
    drop(gone);
    let mut again = served.connect().await;
    again.write(write).await;
    assert!(again.answers(409).await.contains("in work"), "it goes on");
    served.world.memory.turnstile.add_permits(1);
    let replayed = async {
        loop {
            again.write(write).await;
            let (head, body) = again.answer().await;
            match head.get(9..12) {
                Some("409") => tokio::task::yield_now().await,
                Some("201") => break assert!(head.contains("idempotent-replayed: true"), "{head}{body}"),
                _ => panic!("{head}{body}"),
            }
        }
    };
    timeout(SOON, replayed).await.unwrap();
    assert_eq!(served.world.memory.entries.load(std::sync::atomic::Ordering::Relaxed), 1, "it was written once");
}

#[tokio::test]
async fn nobody_is_kept_waiting_with_a_large_body_who_has_not_shown_who_he_is() {
    let app = mobo_gate::PusherApp::new("1", "app-key", "app-secret");
    let settings = Settings { pusher: vec![app], ..Settings::default() };
    let served = served(settings).await;
    for (line, status) in [
        ("POST /apps/1/events?auth_key=app-key&auth_version=1.0&auth_timestamp=1770091506&auth_signature=00", 401),
        ("POST /apps/2/events", 401),
        ("POST /pusher/auth?", 401),
    ] {
        let key = if line.contains("pusher") { "apikey: mobo_pub_x\r\n" } else { "" };
        let mut stranger = served.connect().await;
        // What was announced is never sent: it is not waited for.
        stranger.write(format!("{line} HTTP/1.1\r\nhost: localhost\r\n{key}expect: 100-continue\r\ncontent-length: 1000000\r\n\r\n")).await;
        stranger.answers(status).await;
    }
    let mut form = served.connect().await;
    form.write("POST /pusher/auth HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n").await;
    assert!(form.answers(413).await.contains("at most 49152 bytes"));
}
