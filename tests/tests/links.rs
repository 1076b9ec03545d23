//! Devices over every transport, with real processes, real sockets and a real Mosquitto.
//!
//! `MOBO_LINK_WRITES=10000` makes so many writes while links are killed and switched.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mobo_core::trust::KeyPair;
use mobo_protocol::JoinToken;
use mobo_protocol::sealed::{broker_password, hub_filter, topic};
use mobo_tests::cli::Cli;
use mobo_tests::cluster::{Cluster, quiet_address};
use mobo_tests::http::Client;
use mobo_tests::mosquitto::Mosquitto;
use mobo_tests::process::{Launch, Node};
use mobo_tests::wait;
use serde_json::{Value, json};

const TABLE: &[&str] = &["work_orders", "title:text", "hours:counter"];
/// How long a device may take to find another way after it has noticed that its link is dead.
const SWITCH_TIMEOUT: Duration = Duration::from_secs(60);

/// Writes that are made while links break.
fn writes() -> usize {
    std::env::var("MOBO_LINK_WRITES").map_or(300, |text| text.parse().expect("MOBO_LINK_WRITES is a number"))
}

/// A device that joins and syncs over one transport only.
fn joined_over(cluster: &Cluster, name: &str, transport: &str) -> Launch {
    let folder = cluster.folder(name);
    let choice = format!("link.transport={transport}");
    Cli::edge(&folder).args(["--set", &choice, "join", &cluster.invite(name)]).run().expect_success();
    Launch::edge(folder).set("http.listen", &quiet_address()).set("link.transport", transport)
}

fn link(device: &Node) -> Value {
    device.status()["link"].clone()
}

#[track_caller]
fn live_over(device: &Node, transport: &str) -> Value {
    wait::until(&format!("a live link over {transport}"), SWITCH_TIMEOUT, || {
        let link = link(device);
        (link["state"] == "live" && link["transport"] == transport).then_some(link)
    })
}

fn put(device: &mut Client, id: &str) {
    let order = json!({ "id": id, "title": "a title that is not too short", "hours": { "$inc": 1 } });
    device.post("/rest/v1/work_orders", &order).unwrap().expect_status(201);
}

/// Every record and its counter, as the hub tells an app.
fn hours(cluster: &Cluster) -> Vec<(String, i64)> {
    let mut api = cluster.api();
    let mut rows = Vec::new();
    loop {
        let path = format!("/rest/v1/work_orders?select=id,hours&order=id&limit=1000&offset={}", rows.len());
        let page = api.get(&path).unwrap().expect_status(200).json();
        let page = page.as_array().unwrap().clone();
        rows.extend(page.iter().map(|row| (row["id"].as_str().unwrap().to_owned(), row["hours"].as_i64().unwrap())));
        if page.len() < 1_000 {
            return rows;
        }
    }
}

/// Each write is there, and none twice: an increment that was merged again would show.
#[track_caller]
fn exactly_once(cluster: &Cluster, device: &Node, count: usize) {
    cluster.converge(&[device]);
    let rows = hours(cluster);
    assert_eq!(rows.len(), count, "as many records as were written");
    assert!(rows.iter().all(|(_, hours)| *hours == 1), "each write is counted once");
    cluster.healthy();
}

/// Writes both ways, of every size, through a hub's restart.
fn lives_over(mut cluster: Cluster, transport: &str) {
    cluster.create(&[TABLE]);
    let (one, two) = (joined_over(&cluster, "one", transport).boot(), cluster.device("two"));
    let shown = live_over(&one, transport);
    assert_eq!(shown["last_error"], Value::Null, "it was asked for");
    cluster.converge(&[&one, &two]);
    let (mut at_one, mut at_two) = (one.http(), two.http());
    for n in 0..20 {
        put(&mut at_one, &format!("one-{n:02}"));
        put(&mut at_two, &format!("two-{n:02}"));
    }
    let long = "long ".repeat(10_000);
    let orders: Vec<Value> = (0..40).map(|n| json!({ "id": format!("x-{n:02}"), "title": long, "hours": { "$inc": 1 } })).collect();
    for share in orders.chunks(4) {
        at_two.post("/rest/v1/work_orders", &json!(share)).unwrap().expect_status(201);
    }
    cluster.converge(&[&one, &two]);
    cluster.stop_hub();
    put(&mut at_one, "y-offline");
    cluster.start_hub();
    live_over(&one, transport);
    exactly_once(&cluster, &one, 81);
    cluster.converge(&[&one, &two]);
    one.cli().args(["health", "check"]).run().expect_success();
}

#[test]
fn a_device_lives_over_the_embedded_broker() {
    lives_over(Cluster::boot_with("sqlite", None, &[]), "mqtt");
}

#[test]
fn a_device_lives_over_websocket() {
    lives_over(Cluster::boot_with("sqlite", None, &[]), "ws");
}

#[test]
fn a_device_lives_over_mosquitto() {
    let broker = Mosquitto::start();
    let cluster = Cluster::boot_with("sqlite", None, &[("mqtt.url", &broker.url())]);
    assert_eq!(cluster.hub().status()["mqtt"], broker.url());
    lives_over(cluster, "mqtt");
}

/// A broker that takes little at once: frames are cut to fit.
#[test]
fn a_device_lives_over_a_narrow_broker() {
    let broker = Mosquitto::with("max_packet_size 2000\n");
    lives_over(Cluster::boot_with("sqlite", None, &[("mqtt.url", &broker.url())]), "mqtt");
}

/// Goal: what a broker held when it died is nobody's loss.
/// Method: a device writes over Mosquitto, which keeps nothing, is killed again and again, and comes back; once it is frozen instead, so
/// that only silence tells. In the end the hub has every write once.
// faults: N-2, N-3, N-4, N-5
#[test]
fn a_broker_that_is_killed_loses_nothing() {
    let mut broker = Mosquitto::start();
    let cluster = Cluster::boot_with("sqlite", None, &[("mqtt.url", &broker.url())]);
    cluster.create(&[TABLE]);
    let device = joined_over(&cluster, "one", "mqtt").boot();
    live_over(&device, "mqtt");
    cluster.converge(&[&device]);
    let (count, kills) = (writes(), 4);
    let writer = Writer::start(&device, count, writes() / 10);
    for kill in 1..=kills {
        writer.wait_for(count * kill / (kills + 1));
        if kill == kills {
            broker.freeze();
            wait::until("the device to notice a frozen broker", SWITCH_TIMEOUT, || (link(&device)["state"] != "live").then_some(()));
        }
        broker.kill();
        broker.start_again();
        live_over(&device, "mqtt");
    }
    writer.join();
    exactly_once(&cluster, &device, count);
}

/// Goal: a device that goes from one transport to another and back has lost nothing and done nothing twice.
/// Method: QUIC is cut, so the device takes Mosquitto and says why; Mosquitto is killed, so it takes QUIC again; all the while it writes.
// faults: N-8, N-16
#[test]
fn switching_between_quic_and_mqtt_loses_nothing() {
    let (mut broker, relay) = (Mosquitto::start(), Relay::start());
    let advertised = relay.address.to_string();
    let cluster = Cluster::boot_with("sqlite", None, &[("mqtt.url", &broker.url()), ("quic.advertise", &advertised)]);
    relay.lead_to(&cluster.hub().address("quic"));
    cluster.create(&[TABLE]);
    let device = cluster.device("one");
    assert_eq!(live_over(&device, "quic")["last_error"], Value::Null);
    cluster.converge(&[&device]);
    let count = writes();
    let writer = Writer::start(&device, count, count / 20);
    for round in 1..=2 {
        writer.wait_for(count * (2 * round - 1) / 5);
        relay.cut(true);
        let shown = live_over(&device, "mqtt");
        assert!(shown["last_error"].as_str().unwrap().contains("quic"), "it says why: {shown}");
        writer.wait_for(count * 2 * round / 5);
        relay.cut(false);
        broker.kill();
        assert_eq!(live_over(&device, "quic")["last_error"], Value::Null);
        broker.start_again();
    }
    writer.join();
    exactly_once(&cluster, &device, count);
}

/// Goal: where QUIC does not get through, a device is on its way within 5 s, says why, and remembers.
/// Method: QUIC leads to a socket that never answers; then through a path that carries only small datagrams.
// faults: N-7, N-8
#[test]
fn a_device_whose_udp_is_blocked_takes_another_way() {
    let small_only = Relay::start();
    small_only.bytes_max.store(548, Ordering::SeqCst);
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    for (name, way) in [("blocked", silent.local_addr().unwrap()), ("narrow", small_only.address)] {
        let cluster = Cluster::boot_with("sqlite", None, &[("quic.advertise", &way.to_string())]);
        small_only.lead_to(&cluster.hub().address("quic"));
        cluster.create(&[TABLE]);
        let live = |launch: &Launch| {
            let (mut device, began) = (launch.clone().boot(), Instant::now());
            let why = live_over(&device, "mqtt")["last_error"].as_str().unwrap().to_owned();
            let took = began.elapsed();
            cluster.converge(&[&device]);
            device.terminate();
            (why, took)
        };
        let (launch, why) = wait::quickly(Duration::from_secs(5), |attempt| {
            let launch = cluster.joined(&format!("{name}-{attempt}"));
            let (why, took) = live(&launch);
            ((launch, why), took)
        });
        assert!(why.contains("mqtt is used") && why.contains("UDP"), "{name}: {why}");
        // It does not wait for QUIC again.
        let again = wait::quickly(mobo_core::limits::FALLBACK_AFTER, |_| live(&launch));
        assert_eq!(again, why, "{name}: the reason is remembered");
    }
}

/// Goal: whoever holds a key may talk to the hub over its broker, and do nothing else there.
// faults: X-6
#[test]
fn the_embedded_broker_gives_each_device_its_own() {
    let cluster = Cluster::boot_with("sqlite", None, &[]);
    let address = cluster.hub().address("mqtt");
    let token = JoinToken::parse(&cluster.invite("one")).unwrap();
    let (keys, other) = (KeyPair::from_secret(&[7; 32]), KeyPair::from_secret(&[8; 32]));
    let (user, password) = broker_password(&keys, &token.hub);
    let own = topic(token.project, keys.device(), false);
    let mut device = RawMqtt::connect(&address, &format!("{}-1", keys.device()), (&user, &password)).unwrap();
    let filters = ["#", "+/#", "$SYS/#", &topic(token.project, other.device(), false), &hub_filter(token.project)];
    for filter in filters {
        assert_eq!(device.subscribe(filter), 0x80, "{filter} is refused");
    }
    assert_eq!(device.subscribe(&own), 0, "its own is granted");
    for (id, user, password) in [("x-1", "", ""), ("hub-1", "hub", ""), ("hub-1", user.as_str(), password.as_str())] {
        assert!(RawMqtt::connect(&address, id, (user, password)).is_none(), "{id} {user} gets in");
    }
    // Noise on its own topic harms nobody.
    device.publish(&topic(token.project, keys.device(), true), &[0xff; 100]);
    device.publish(&topic(token.project, other.device(), true), b"not mine");
    cluster.create(&[TABLE]);
    let device = joined_over(&cluster, "two", "mqtt").boot();
    cluster.converge(&[&device]);
    put(&mut device.http(), "w-1");
    exactly_once(&cluster, &device, 1);
}

/// A hub whose address for MQTT is taken says so, and serves its devices all the same; when the address is free, it takes it.
#[test]
fn a_hub_without_its_broker_is_degraded_and_works() {
    let taken = std::net::TcpListener::bind(quiet_address()).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let hub = Launch::hub(folder.path().join("hub")).set("mqtt.listen", &address).spawn();
    let _ = hub.wait_line(Duration::from_secs(60), |line| line.contains("degraded: an optional component is out"));
    let status = hub.status();
    assert_eq!((&status["mqtt"], &status["health"]), (&Value::Null, &json!("degraded")), "{status}");
    assert!(hub.stderr().contains("set mqtt.listen to another address, or mqtt.url"), "{}", hub.stderr());
    let token = hub.cli().args(["device", "invite", "--name", "one"]).run().expect_success().text();
    Cli::edge(folder.path().join("one")).args(["join", &token]).run().expect_success();
    drop(taken);
    wait::until("the broker at its address", Duration::from_secs(60), || (hub.status()["mqtt"] == address.as_str()).then_some(()));
}

/// A thread that puts records, the last of them only when it is told to.
struct Writer {
    done: Arc<AtomicUsize>,
    thread: std::thread::JoinHandle<()>,
}

impl Writer {
    /// Makes `count` writes, and rests a little between groups of `group`, so that links break in the middle of them.
    fn start(device: &Node, count: usize, group: usize) -> Self {
        let (done, mut device) = (Arc::<AtomicUsize>::default(), device.http());
        let told = Arc::clone(&done);
        let thread = std::thread::spawn(move || {
            for n in 0..count {
                put(&mut device, &format!("w-{n:06}"));
                told.store(n + 1, Ordering::SeqCst);
                if n % group.max(1) == 0 {
                    std::thread::park_timeout(Duration::from_millis(200));
                }
            }
        });
        Self { done, thread }
    }

    #[track_caller]
    fn wait_for(&self, count: usize) {
        wait::until("the writer", Duration::from_secs(600), || (self.done.load(Ordering::SeqCst) >= count).then_some(()));
    }

    fn join(self) {
        self.thread.join().unwrap();
    }
}

/// A way for the datagrams of one device that can be cut, or carry only small ones.
struct Relay {
    address: SocketAddr,
    hub: Arc<std::sync::Mutex<Option<SocketAddr>>>,
    is_cut: Arc<AtomicBool>,
    bytes_max: Arc<AtomicUsize>,
}

impl Relay {
    fn start() -> Self {
        let near = UdpSocket::bind("127.0.0.1:0").unwrap();
        let relay = Self {
            address: near.local_addr().unwrap(),
            hub: Arc::default(),
            is_cut: Arc::default(),
            bytes_max: Arc::new(AtomicUsize::new(usize::MAX)),
        };
        let (hub, is_cut, bytes_max) = (Arc::clone(&relay.hub), Arc::clone(&relay.is_cut), Arc::clone(&relay.bytes_max));
        std::thread::spawn(move || {
            let mut fars: std::collections::HashMap<SocketAddr, Arc<UdpSocket>> = std::collections::HashMap::new();
            let mut datagram = [0; 65_536];
            while let Ok((bytes, device)) = near.recv_from(&mut datagram) {
                let Some(hub) = *hub.lock().unwrap() else { continue };
                let far = fars.entry(device).or_insert_with(|| {
                    let far = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
                    let (back, near, is_cut) = (Arc::clone(&far), near.try_clone().unwrap(), Arc::clone(&is_cut));
                    std::thread::spawn(move || {
                        let mut datagram = [0; 65_536];
                        while let Ok((bytes, _)) = back.recv_from(&mut datagram) {
                            if !is_cut.load(Ordering::SeqCst) {
                                let _ = near.send_to(&datagram[..bytes], device);
                            }
                        }
                    });
                    far
                });
                if !is_cut.load(Ordering::SeqCst) && bytes <= bytes_max.load(Ordering::SeqCst) {
                    let _ = far.send_to(&datagram[..bytes], hub);
                }
            }
        });
        relay
    }

    fn lead_to(&self, hub: &str) {
        *self.hub.lock().unwrap() = Some(hub.parse().unwrap());
    }

    fn cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::SeqCst);
    }
}

/// A client of MQTT 3.1.1 that sends what the test wants.
struct RawMqtt(TcpStream);

impl RawMqtt {
    /// None when the broker refuses.
    fn connect(address: &str, id: &str, (user, password): (&str, &str)) -> Option<Self> {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let rest = [&[0, 4][..], b"MQTT", &[4, 0b1100_0010, 0, 60], &text(id), &text(user), &text(password)].concat();
        stream.write_all(&packet(0x10, &rest)).unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).ok()?;
        (answer == [0x20, 2, 0, 0]).then_some(Self(stream))
    }

    /// The broker's answer: 0 granted, 0x80 refused.
    fn subscribe(&mut self, filter: &str) -> u8 {
        self.0.write_all(&packet(0x82, &[&[0, 1][..], &text(filter), &[0]].concat())).unwrap();
        let mut answer = [0; 5];
        self.0.read_exact(&mut answer).unwrap();
        assert_eq!(answer[..4], [0x90, 3, 0, 1]);
        answer[4]
    }

    fn publish(&mut self, topic: &str, payload: &[u8]) {
        self.0.write_all(&packet(0x30, &[&text(topic), payload].concat())).unwrap();
    }
}

fn text(text: &str) -> Vec<u8> {
    [&u16::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat()
}

fn packet(kind: u8, rest: &[u8]) -> Vec<u8> {
    let (mut bytes, mut left) = (vec![kind], rest.len());
    while left >= 0x80 {
        bytes.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    bytes.push(left as u8);
    [bytes, rest.to_vec()].concat()
}
