//! Realtime: every committed change once, in order, whatever happens to the connection in between.
//!
//! The size for continuous integration is small; `MOBO_REALTIME=full` takes 200 subscribers and 20,000 changes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mobo_tests::cluster::{Cluster, Place};
use mobo_tests::http::Client;
use mobo_tests::process::Node;
use mobo_tests::seed::{Rng, Seed};
use mobo_tests::wait;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);
/// What somebody has open ends so soon after his key was revoked, on a machine that has time for it.
const REVOKED_WITHIN: Duration = Duration::from_secs(5);
const ORDERS: &[&str] = &["orders", "title:text", "n:int", "open:bool"];

/// How large a run is.
#[derive(Clone, Copy, Debug)]
struct Size {
    subscribers: usize,
    changes: u64,
}

fn size() -> Size {
    if std::env::var("MOBO_REALTIME").is_ok_and(|size| size == "full") {
        Size { subscribers: 200, changes: 20_000 }
    } else {
        Size { subscribers: 16, changes: 800 }
    }
}

/// One event of a stream.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Event {
    id: String,
    kind: String,
    data: String,
}

impl Event {
    fn n(&self) -> u64 {
        self.id.split_once('-').unwrap().1.parse().unwrap()
    }

    fn record(&self) -> Value {
        let data: Value = serde_json::from_str(&self.data).unwrap();
        if data["record"].is_null() { data["old"].clone() } else { data["record"].clone() }
    }
}

/// An event stream that is open.
struct Stream {
    lines: BufReader<TcpStream>,
    /// The last id that was sent.
    at: String,
}

impl Stream {
    /// Opens one; ready when the subscription stands.
    fn open(address: &str, path: &str, (key, at): (&str, Option<&str>)) -> Self {
        let mut open = Self::begin(address, path, (key, at));
        // Every stream begins with its place.
        while open.at.is_empty() {
            assert!(open.take_line().is_ok());
        }
        open
    }

    /// Opens one; ready with the head of the answer. A node that is full is asked again: it has not yet seen all go who have gone.
    fn begin(address: &str, path: &str, (key, at): (&str, Option<&str>)) -> Self {
        wait::until("a place among the subscribers", SOON, || Self::try_to_begin(address, path, (key, at)))
    }

    fn try_to_begin(address: &str, path: &str, (key, at): (&str, Option<&str>)) -> Option<Self> {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let key = if key.is_empty() { String::new() } else { format!("apikey: {key}\r\n") };
        let last = at.map_or_else(String::new, |at| format!("Last-Event-ID: {at}\r\n"));
        let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\nConnection: close\r\n{key}{last}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut open = Self { lines: BufReader::new(stream), at: String::new() };
        let status = open.line().unwrap();
        let head: Vec<String> = std::iter::from_fn(|| open.line().filter(|line| !line.is_empty())).collect();
        let is_full = status.contains("503") && head.iter().any(|line| line.starts_with("retry-after: "));
        assert!(is_full || status.contains("200"), "{status}: {head:?} {:?}", open.line());
        (!is_full).then_some(open)
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let bytes = self.lines.read_line(&mut line).unwrap();
        (bytes > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// A line of an event, without the frames of chunks between them; `Err` at the end.
    fn take_line(&mut self) -> Result<Option<(String, String)>, ()> {
        let line = self.line().ok_or(())?;
        let Some((name, value)) = line.split_once(": ").filter(|(name, _)| ["id", "event", "data", "retry"].contains(name)) else {
            return Ok(None);
        };
        if name == "id" {
            self.at = value.to_owned();
        }
        Ok(Some((name.to_owned(), value.to_owned())))
    }

    /// The next event; `None` at the end.
    fn next(&mut self) -> Option<Event> {
        let mut kind = String::new();
        loop {
            match self.take_line() {
                Ok(Some((name, value))) if name == "event" => kind = value,
                Ok(Some((name, data))) if name == "data" => return Some(Event { id: self.at.clone(), kind, data }),
                Ok(_) => {}
                Err(()) => return None,
            }
        }
    }
}

/// What a subscriber has seen, and the places at which it was told that it has missed something: from which number to which.
#[derive(Debug, Default)]
struct Seen {
    events: Vec<Event>,
    resyncs: Vec<(u64, u64)>,
    cuts: usize,
}

/// Reads until `last` was committed, and cuts itself off at random.
/// Without `from` it begins with what comes once it listens.
fn subscribe((address, key, from): (&str, &str, Option<&str>), mut random: Option<Rng>, last: &AtomicU64) -> Seen {
    let mut seen = Seen::default();
    let mut stream = Stream::open(address, "/rest/v1/orders", (key, from));
    let number = |at: &str| at.split_once('-').unwrap().1.parse::<u64>().unwrap();
    let mut at = number(&stream.at);
    loop {
        let end = last.load(Ordering::SeqCst);
        if end > 0 && at >= end {
            return seen;
        }
        let Some(event) = stream.next() else { panic!("the stream has ended at {at}") };
        if event.kind == "resync" {
            seen.resyncs.push((at, event.n()));
            at = event.n();
        } else {
            assert!(event.n() > at, "{} after {at}", event.n());
            at = event.n();
            seen.events.push(event);
        }
        if random.as_mut().is_some_and(|random| random.below(40) == 0) {
            let id = stream.at.clone();
            drop(stream);
            stream = Stream::open(address, "/rest/v1/orders", (key, Some(&id)));
            seen.cuts += 1;
        }
    }
}

/// Inserts, changes and removes rows until so many changes were made; gives what each id went through.
fn write(client: &mut Client, who: u64, changes: u64, rng: &mut Rng) -> BTreeMap<String, Vec<&'static str>> {
    let mut fates: BTreeMap<String, Vec<&'static str>> = BTreeMap::new();
    let (mut made, mut next) = (0, 0);
    while made < changes {
        let count = 1 + rng.below(30).min(changes - made - 1);
        let ids: Vec<String> = (0..count).map(|index| format!("{who}-{}", next + index)).collect();
        next += count;
        let rows: Vec<Value> = ids.iter().map(|id| json!({ "id": id, "title": "made", "n": 0, "open": true })).collect();
        client.post("/rest/v1/orders", &json!(rows)).unwrap().expect_status(201);
        made += count;
        ids.iter().for_each(|id| fates.entry(id.clone()).or_default().push("insert"));
        if made < changes && rng.below(2) == 0 {
            let id = &ids[usize::try_from(rng.below(count)).unwrap()];
            client.patch(&format!("/rest/v1/orders?id=eq.{id}"), &json!({ "n": made })).unwrap().expect_status(204);
            fates.get_mut(id).unwrap().push("update");
            made += 1;
        }
        if made < changes && rng.below(3) == 0 {
            let id = &ids[0];
            client.delete(&format!("/rest/v1/orders?id=eq.{id}")).unwrap().expect_status(204);
            fates.get_mut(id).unwrap().push("delete");
            made += 1;
        }
    }
    fates
}

/// Goal: each subscriber sees each change exactly once, in order, or is told what it has missed.
/// Method: subscribers that are cut off and come back at random while two writers change rows; one that is never cut is the measure,
/// and its events are compared with what the writers did to each row.
fn everybody_sees_everything(address: &str, key: &str) {
    let (seed, size) = (Seed::from_env(), size());
    let last = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    std::thread::scope(|scope| {
        let mut rng = seed.rng();
        let start = Stream::open(address, "/rest/v1/orders", (key, None)).at;
        // Who starts where nothing has happened yet misses nothing, however late he is.
        let (from, until) = (start.clone(), Arc::clone(&last));
        let whole = scope.spawn(move || subscribe((address, key, Some(&from)), None, &until));
        let others: Vec<_> = (0..size.subscribers)
            .map(|number| {
                let random = Some(rng.fork());
                let (last, start) = (Arc::clone(&last), start.clone());
                // Some are there from the first change on, and some come in the middle of them, or late.
                let from = (number % 4 == 0).then_some(start);
                scope.spawn(move || subscribe((address, key, from.as_deref()), random, &last))
            })
            .collect();
        let writers: Vec<_> = (0..2)
            .map(|who| {
                let mut rng = rng.fork();
                scope.spawn(move || {
                    let client = Client::new(address);
                    let mut client = if key.is_empty() { client } else { client.with_header("apikey", key) };
                    write(&mut client, who, size.changes / 2, &mut rng)
                })
            })
            .collect();
        let fates: BTreeMap<_, _> = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
        // The end is a change that everybody waits for.
        let client = Client::new(address);
        let mut client = if key.is_empty() { client } else { client.with_header("apikey", key) };
        let mut behind = Stream::open(address, "/rest/v1/orders?id=eq.last", (key, Some(&start)));
        client.post("/rest/v1/orders", &json!({ "id": "last" })).unwrap().expect_status(201);
        let end = wait::until("the last change", SOON, || behind.next().filter(|event| event.kind == "insert"));
        last.store(end.n(), Ordering::SeqCst);
        client.post("/rest/v1/orders", &json!({ "id": "behind the last" })).unwrap().expect_status(201);

        let whole = whole.join().unwrap();
        assert_eq!(whole.resyncs, [], "who is never cut misses nothing");
        let whole: Vec<Event> = whole.events.into_iter().filter(|event| event.n() <= end.n()).collect();
        let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for event in &whole {
            told.entry(event.record()["id"].as_str().unwrap().to_owned()).or_default().push(event.kind.clone());
        }
        told.remove("last");
        let told: BTreeMap<_, Vec<&str>> =
            told.iter().map(|(id, kinds)| (id.clone(), kinds.iter().map(String::as_str).collect())).collect();
        assert_eq!(told, fates, "each change once, in order");
        let (mut cuts, mut resyncs) = (0, 0);
        for other in others {
            let seen = other.join().unwrap();
            cuts += seen.cuts;
            resyncs += seen.resyncs.len();
            let missed = |event: &&Event| seen.resyncs.iter().any(|(from, to)| event.n() > *from && event.n() <= *to);
            let first = seen.events.first().map_or(u64::MAX, Event::n);
            let want: Vec<&Event> = whole.iter().filter(|event| event.n() >= first && !missed(event)).collect();
            let found: Vec<&Event> = seen.events.iter().filter(|event| event.n() <= end.n()).collect();
            assert_eq!(found, want);
            assert!(whole.first().is_some_and(|event| event.n() >= first.min(event.n())));
        }
        let changes = whole.len();
        eprintln!("{} subscribers, {changes} changes, {cuts} cuts, {resyncs} resyncs in {:?}", size.subscribers, began.elapsed());
        assert!(cuts > 0 && resyncs == 0, "the log holds all of it");
    });
}

fn on_a_hub(place: Place) {
    let cluster = Cluster::boot(place);
    cluster.create(&[ORDERS]);
    let key = service_key(&cluster, "s");
    everybody_sees_everything(&cluster.hub().address("http"), &key);
}

fn service_key(cluster: &Cluster, name: &str) -> String {
    cluster.cli().args(["key", "create", "--role", "service", "--name", name]).run().expect_success().text()
}

#[test]
fn every_subscriber_sees_every_change_on_sqlite() {
    on_a_hub(Place::Sqlite);
}

#[test]
fn every_subscriber_sees_every_change_on_postgres() {
    on_a_hub(Place::Postgres);
}

fn device_with_orders(cluster: &Cluster) -> Node {
    let device = cluster.device("d");
    wait::until("the collection on the device", SOON, || {
        (device.cli().args(["put", "orders", "first", r#"{"title": "x"}"#]).run().code == Some(0)).then_some(())
    });
    device
}

#[test]
fn every_subscriber_sees_every_change_on_a_device_without_its_hub() {
    let mut cluster = Cluster::boot(Place::Sqlite);
    cluster.create(&[ORDERS]);
    let device = device_with_orders(&cluster);
    cluster.stop_hub();
    everybody_sees_everything(&device.address("http"), "");
}

/// Filters make live queries; a place that is none is told so; a key that is revoked stops an open stream.
#[test]
fn streams_are_filtered_resumed_and_stopped() {
    let cluster = Cluster::boot(Place::Sqlite);
    cluster.create(&[ORDERS]);
    let (key, address) = (service_key(&cluster, "s"), cluster.hub().address("http"));
    let mut api = Client::new(&address).with_header("apikey", &key);
    let mut open = Stream::open(&address, "/rest/v1/orders?open=is.true&select=id,n", (&key, None));
    let mut lost = Stream::open(&address, "/rest/v1/orders", (&key, Some("abc-1")));
    assert_eq!(lost.next().map(|event| (event.kind, event.data)), Some(("resync".to_owned(), r#"{"reason":"expired"}"#.to_owned())));
    api.post("/rest/v1/orders", &json!([{ "id": "a", "n": 1, "open": true }, { "id": "b", "open": false }])).unwrap().expect_status(201);
    api.patch("/rest/v1/orders?id=eq.a", &json!({ "title": "not selected" })).unwrap().expect_status(204);
    api.patch("/rest/v1/orders?id=eq.a", &json!({ "n": 2 })).unwrap().expect_status(204);
    api.patch("/rest/v1/orders?id=in.(a,b)", &json!({ "open": true })).unwrap().expect_status(204);
    api.patch("/rest/v1/orders?id=eq.a", &json!({ "open": false })).unwrap().expect_status(204);
    api.delete("/rest/v1/orders?id=eq.b").unwrap().expect_status(204);
    let shown = |event: Event| {
        let data: Value = serde_json::from_str(&event.data).unwrap();
        format!("{} {} {}", event.kind, data["old"], data["record"])
    };
    let seen: Vec<String> = (0..5).map(|_| shown(open.next().unwrap())).collect();
    assert_eq!(
        seen,
        [
            r#"insert null {"id":"a","n":1}"#,
            r#"update {"id":"a","n":1} {"id":"a","n":2}"#,
            r#"insert null {"id":"b","n":null}"#,
            r#"delete {"id":"a","n":2} null"#,
            r#"delete {"id":"b","n":null} null"#,
        ]
    );
    let refused = api.send("GET", "/rest/v1/orders?order=n", &[("accept", "text/event-stream")], b"").unwrap();
    assert_eq!((refused.status, refused.json()["code"].clone()), (400, json!("PGRST127")));

    wait::quickly(REVOKED_WITHIN, |number| {
        let name = format!("other{number}");
        let mut stopped = Stream::open(&address, "/rest/v1/orders", (&service_key(&cluster, &name), None));
        cluster.cli().args(["key", "revoke", &name]).run().expect_success();
        let revoked = Instant::now();
        assert_eq!(stopped.next().map(|event| event.kind).as_deref(), Some("refused"));
        assert!(stopped.next().is_none());
        ((), revoked.elapsed())
    });
}

/// A subscription of GraphQL goes on where another subscriber was, sees what its filter lets through, and ends when its key is revoked.
#[test]
fn graphql_tells_of_changes() {
    let cluster = Cluster::boot(Place::Sqlite);
    cluster.create(&[ORDERS]);
    let (key, address) = (service_key(&cluster, "s"), cluster.hub().address("http"));
    let at = Stream::open(&address, "/rest/v1/orders", (&key, None)).at;
    let mut api = Client::new(&address).with_header("apikey", &key);
    api.post("/rest/v1/orders", &json!([{ "id": "a", "n": 1 }, { "id": "b", "n": 9 }])).unwrap().expect_status(201);
    api.patch("/rest/v1/orders?id=eq.a", &json!({ "n": 2 })).unwrap().expect_status(204);
    api.patch("/rest/v1/orders?id=eq.a", &json!({ "n": 9 })).unwrap().expect_status(204);
    let asked = format!(
        "subscription {{ ordersChanges(after: \"{at}\", filter: {{ n: {{ lt: 5 }} }}) {{ type record {{ id n }} oldRecord {{ n }} }} }}"
    );
    let asked: String = asked.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let other = service_key(&cluster, "other");
    let mut told = Stream::begin(&address, &format!("/graphql/v1?query={asked}"), (&other, None));
    for want in [
        json!({ "type": "INSERT", "record": { "id": "a", "n": "1" }, "oldRecord": null }),
        json!({ "type": "UPDATE", "record": { "id": "a", "n": "2" }, "oldRecord": { "n": "1" } }),
        json!({ "type": "DELETE", "record": null, "oldRecord": { "n": "2" } }),
    ] {
        let event = told.next().unwrap();
        let data: Value = serde_json::from_str(&event.data).unwrap();
        assert_eq!((event.kind.as_str(), &data["data"]["ordersChanges"]), ("next", &want), "{data}");
    }
    cluster.cli().args(["key", "revoke", "other"]).run().expect_success();
    let last = told.next().unwrap();
    assert!(last.data.contains("PGRST301"), "{last:?}");
    while told.next().is_some() {}
}
